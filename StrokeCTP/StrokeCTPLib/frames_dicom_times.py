"""When each image of a DICOM perfusion series was taken: which attribute to believe, and clocks that pass midnight."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np

from NeuraxisLib.dicom_headers import SliceHeader
from NeuraxisLib.errors import InputError

DAY_S = 86400.0
#: Times nearer than this are one time; clocks of scanners tick in 10 ms or finer.
SAME_TIME_S = 1e-3
#: Median time between frames of a place beyond which a doubtful attribute is not the time of acquisition.
ACQUISITION_LIKE_S = (0.3, 6.0)
_TIME = r"(\d{2}):?(\d{2}):?(\d{2}(?:\.\d{1,6})?)"


def clock_s(text: str) -> float | None:
    """Seconds since midnight of a DICOM time HHMMSS.FFFFFF (old files: HH:MM:SS); None if it has no seconds."""
    match = re.fullmatch(_TIME, text.strip())
    return None if match is None else int(match[1]) * 3600.0 + int(match[2]) * 60.0 + float(match[3])


def day_s(text: str) -> float | None:
    """Seconds from the calendar's start to a DICOM date YYYYMMDD (old files: YYYY.MM.DD); None if it is none."""
    match = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", text.strip())
    try:
        return None if match is None else date(*map(int, match.groups())).toordinal() * DAY_S
    except ValueError:
        return None


def date_time_s(text: str) -> float | None:
    """Seconds from the calendar's start to a DICOM date-time YYYYMMDDHHMMSS.FFFFFF&ZZXX, in UTC if it has a zone."""
    match = re.fullmatch(r"(\d{8})([\d.]{6,13})(?:([+-])(\d{2})(\d{2}))?", text.strip())
    if match is None:
        return None
    day, clock = day_s(match[1]), clock_s(match[2])
    if day is None or clock is None:
        return None
    zone = (int(match[4]) * 3600.0 + int(match[5]) * 60.0) * (-1 if match[3] == "-" else 1) if match[3] else 0.0
    return day + clock - zone


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class TimeSource:
    """Attributes that may hold the time of acquisition; ``read`` turns an image's facts into seconds or None."""

    label: str
    words: tuple[str, ...]
    read: Callable[[dict[str, str]], float | None]
    clock: bool = True  # a time of day, which may pass midnight
    doubtful: bool = False  # often another time (of reconstruction), so its spread must look like acquisition


def _one(word: str, convert: Callable[[str], float | None], factor: float = 1.0, **options) -> TimeSource:
    def read(facts: dict[str, str]) -> float | None:
        value = convert(facts[word]) if word in facts else None
        return None if value is None else factor * value

    return TimeSource(word, (word,), read, **options)


def _date_and_time(prefix: str, **options) -> TimeSource:
    def read(facts: dict[str, str]) -> float | None:
        clock = clock_s(facts.get(f"{prefix}Time", ""))
        return None if clock is None else clock + (day_s(facts.get(f"{prefix}Date", "")) or 0.0)

    return TimeSource(f"{prefix}Date and {prefix}Time", (f"{prefix}Date", f"{prefix}Time"), read, **options)


#: In the order they are believed (ct_perfusion.md 7); the frame's own date-time exists in multi-frame files only.
TIME_SOURCES = (
    _one("FrameAcquisitionDateTime", date_time_s),
    _one("FrameReferenceDateTime", date_time_s),
    _one("AcquisitionDateTime", date_time_s),
    _date_and_time("Acquisition"),
    _one("FrameReferenceTime", _number, 1e-3, clock=False, doubtful=True),
    _one("TriggerTime", _number, 1e-3, clock=False, doubtful=True),
    _one("TemporalPositionTimeOffset", _number, clock=False, doubtful=True),
    _date_and_time("Content", doubtful=True),
)
#: What tells the order of time points without telling the time.
ORDER_WORDS = ("TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber", "FrameAcquisitionNumber")
#: Everything the scan of the headers has to keep for this file.
TIME_WORDS = tuple(dict.fromkeys([word for source in TIME_SOURCES for word in source.words] + list(ORDER_WORDS)))
#: What two reconstructions of one sample have in common (the time of reconstruction is not among it).
MOMENT_WORDS = tuple(word for word in TIME_WORDS if not word.startswith("Content"))


@dataclass(frozen=True)
class ImageTimes:
    """Seconds (n,) of every image, or only their rank at their place; where they come from; what to tell the user."""

    seconds: np.ndarray
    label: str
    warnings: list[str]
    notes: list[str]
    ranks_only: bool = False


def image_times(headers: list[SliceHeader], places: np.ndarray, name: str, ordered_only: bool = False) -> ImageTimes:
    """The time of every image from the first attribute that can be believed.

    An attribute is passed over when an image lacks it, when two images of one place share it, when a doubtful one
    does not step like an acquisition, or when it runs against the instance numbers (ct_perfusion.md 7). If nothing
    else is left, an attribute that runs against the numbers is believed where they run exactly backwards or where a
    second attribute confirms its order.

    Args:
        headers: the images, with TIME_WORDS in their facts.
        places: (n,) index of the slice place of every image.
        name: how messages call the series.
        ordered_only: the caller has the times; the order of the images will do.

    Raises:
        InputError: no times at all; times all the same; times and numbers that contradict each other.
    """
    verdicts: dict[str, str] = {}
    unruly: list[tuple[TimeSource, np.ndarray]] = []
    for source in TIME_SOURCES:
        seconds = _read(source, headers)
        verdict = "missing" if seconds is None else _verdict(source, seconds, places, headers)
        if not verdict:
            label, warnings = f"{source.label} of every image", _coarse(source, seconds)
            return ImageTimes(seconds, label, warnings, _passed_over(verdicts))
        verdicts[source.label] = verdict
        if verdict == "against the image numbers":
            unruly.append((source, seconds))
    mended = _mended(unruly, headers, places)
    if mended is not None:
        return ImageTimes(mended.seconds, mended.label, mended.warnings, _passed_over(verdicts))
    if ordered_only:
        return _ranks(headers, places, name)
    raise _no_times(verdicts, name)


def _read(source: TimeSource, headers: list[SliceHeader]) -> np.ndarray | None:
    values = [source.read(header.facts) for header in headers]
    if any(value is None for value in values):
        return None
    seconds = np.array(values, dtype=float)
    return over_midnight(seconds) if source.clock else seconds


def over_midnight(seconds: np.ndarray) -> np.ndarray:
    """Clock times in one run, where the date was missing or did not change as the clock passed midnight."""
    ordered = np.unique(seconds)
    gaps = np.diff(ordered)
    if not len(gaps) or np.ptp(ordered) > DAY_S or gaps.max() < DAY_S / 2:
        return seconds
    return np.where(seconds > ordered[gaps.argmax()], seconds, seconds + DAY_S)


def _verdict(source: TimeSource, seconds: np.ndarray, places: np.ndarray, headers: list[SliceHeader]) -> str:
    """Why an attribute cannot be believed, in words that follow "is"; empty if it can."""
    steps = _steps(seconds, places)
    if not len(steps) or steps.max() < SAME_TIME_S:
        return "the same in all images of a place"
    if steps.min() < SAME_TIME_S:
        return "the same in several images of a place"
    if source.doubtful and not ACQUISITION_LIKE_S[0] <= np.median(steps) <= ACQUISITION_LIKE_S[1]:
        return "not spaced like an acquisition"
    return "against the image numbers" if (_number_trend(seconds, places, headers) != 1).any() else ""


def _steps(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Differences of sorted values within every place."""
    order = np.lexsort((values, places))
    return np.diff(values[order])[np.diff(places[order]) == 0]


def _number_trend(values: np.ndarray, places: np.ndarray, headers: list[SliceHeader]) -> np.ndarray:
    """For neighbours in time at one place and in one series, +1 where the instance number rises, -1 where it falls.

    Series of one image per place, frames of one file and images without numbers have nothing to say.
    """
    order = np.lexsort((values, places))
    trend = []
    for one, next_one in pairwise(order):
        a, b = headers[one], headers[next_one]
        together = places[one] == places[next_one] and a.series_uid == b.series_uid and a.frames == b.frames == 1
        if together and a.instance is not None and b.instance is not None and a.instance != b.instance:
            trend.append(1 if b.instance > a.instance else -1)
    return np.array(trend, dtype=int)


def _mended(unruly, headers: list[SliceHeader], places: np.ndarray) -> ImageTimes | None:
    """The first attribute that runs against the numbers and yet can be trusted."""
    for source, seconds in unruly:
        label = f"{source.label} of every image"
        if (_number_trend(seconds, places, headers) == -1).all():
            return ImageTimes(seconds, label, ["The image numbers run backwards in time; the times were believed."], [])
        others = [(other.label, values) for other, values in unruly if other is not source]
        others += [(word, values) for word in ORDER_WORDS if (values := _order_values(word, headers)) is not None]
        for witness, values in others:
            if _same_order(seconds, values, places):
                text = f"The image numbers do not follow the times; {witness} confirms the times, which were believed."
                return ImageTimes(seconds, label, [text], [])
    return None


def _order_values(word: str, headers: list[SliceHeader]) -> np.ndarray | None:
    values = [_number(header.facts.get(word, "")) for header in headers]
    return None if any(value is None for value in values) else np.array(values)


def _same_order(one: np.ndarray, other: np.ndarray, places: np.ndarray) -> bool:
    """Whether two attributes, different for all images of a place, put them in the same order."""
    order = np.lexsort((one, places))
    same_place = np.diff(places[order]) == 0
    return bool((np.diff(other[order])[same_place] > 0).all())


def _ranks(headers: list[SliceHeader], places: np.ndarray, name: str) -> ImageTimes:
    """The rank of every image at its place by whatever tells images of a place apart."""
    candidates = [(word, _order_values(word, headers)) for word in ORDER_WORDS]
    candidates += [(source.label, _read(source, headers)) for source in TIME_SOURCES]
    by_number = np.array([1e6 * (h.series_number or 0) + (h.instance or 0) + 1e-3 * h.frame for h in headers])
    for label, values in [*candidates, ("the image numbers", by_number)]:
        if values is None:
            continue
        steps = _steps(values, places)
        if len(steps) and steps.min() > 0:
            order = np.lexsort((values, places))
            starts = np.searchsorted(places[order], places[order])
            ranks = np.empty(len(headers))
            ranks[order] = np.arange(len(headers)) - starts
            return ImageTimes(ranks, label, [], [f"The frames were put in order by {label}."], ranks_only=True)
    raise InputError(f"{name} has nothing that puts its time points in order; export the original series again.")


def _coarse(source: TimeSource, seconds: np.ndarray) -> list[str]:
    whole = source.clock and (seconds == np.rint(seconds)).all()
    return ["Times are given in whole seconds only, so delays may be off by half a second."] if whole else []


def _passed_over(verdicts: dict[str, str]) -> list[str]:
    faults = [f"{label} is {verdict}" for label, verdict in verdicts.items() if verdict != "missing"]
    return [f"Passed over: {', '.join(faults)}."] if faults else []


def _no_times(verdicts: dict[str, str], name: str) -> InputError:
    remedy = "give a times file or the frame interval"
    given = {label: verdict for label, verdict in verdicts.items() if verdict != "missing"}
    if not given:
        return InputError(f"{name} does not say when its images were taken; {remedy}.")
    if "against the image numbers" in given.values():
        return InputError(
            f"{name} has times that contradict its image numbers, and nothing says which are right; {remedy}."
        )
    if all(verdict == "the same in all images of a place" for verdict in given.values()):
        return InputError(f"{name} gives all its time points the same time; {remedy}.")
    faults = ", ".join(f"{label} is {verdict}" for label, verdict in given.items())
    return InputError(f"{name} has no time of acquisition that can be believed ({faults}); {remedy}.")
