"""Which images of a DICOM folder are the perfusion acquisition, and why the others are not."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from NeuraxisLib.dicom_headers import SliceHeader
from NeuraxisLib.dicom_series import kernel_class, normal_of, orientation_word
from NeuraxisLib.errors import InputError, SeriesChoiceError
from StrokeCTPLib.frames import LEAST_FRAMES, USUAL_FRAMES
from StrokeCTPLib.frames_dicom_times import MOMENT_WORDS

#: Images whose places along the normal agree to this lie at one place (ct_perfusion.md 7).
SAME_PLACE_MM = 0.1
#: Direction cosines that agree to this are one orientation (0.1 degree).
_SAME_ORIENTATION = 2e-3
#: Words in an image type that mean it was computed from others.
_DERIVED = {
    "DERIVED", "MIP", "MINIP", "AVG", "AVERAGE", "MEAN", "SUB", "SUBTRACTION", "PROJECTION",
    "CBF", "CBV", "MTT", "TTP", "TMAX",
}  # fmt: skip
#: Copies make at most this part of a series whose moments tell its images apart.
_FEW = 0.1


@dataclass(frozen=True)
class Acquisition:
    """Images that may be one perfusion acquisition, of one or several series, and the place of each.

    Attributes:
        headers: the images. places: (n,) index of every image's place. positions_mm: (K,) places along the normal.
        derived: whether the images say that they were computed from others.
        dropped: what was left out of these series: kind -> count.
    """

    headers: list[SliceHeader]
    places: np.ndarray
    positions_mm: np.ndarray
    derived: bool
    dropped: Counter = field(default_factory=Counter)

    @property
    def series(self) -> list[str]:
        """The series UIDs, in the order of their numbers."""
        numbers = {header.series_uid: header.series_number or 0 for header in self.headers}
        return sorted(numbers, key=numbers.get)

    @property
    def key(self) -> str:
        """A short pseudonym to name the acquisition by."""
        return hashlib.sha256(repr((self.series, self.headers[0].kernel, len(self.headers))).encode()).hexdigest()[:6]

    @property
    def frame_count(self) -> int:
        """How many images most places have."""
        return most_common(np.bincount(self.places))

    def without(self, kinds: list[str]) -> Acquisition:
        """These images without those that have a kind (n,) of fault; the kinds are counted in ``dropped``."""
        faults = Counter(kind for kind in kinds if kind)
        if not faults:
            return self
        headers = [header for header, kind in zip(self.headers, kinds) if not kind]
        return acquisition_of(headers, self.derived, self.dropped + faults)

    def text(self) -> str:
        """One line for lists and messages."""
        first = self.headers[0]
        thickness = f"{first.thickness:g} mm" if first.thickness else ""
        words = " ".join(word for word in (orientation_word(first), first.kernel, thickness) if word)
        return f"{self.key}: {words}, {len(self.positions_mm)} places, {self.frame_count} frames"

    def answers_to(self, wanted: str) -> bool:
        """Whether a user's word (key, series number, UID or description) means this acquisition."""
        first = self.headers
        names = {self.key} | {h.series_uid for h in first} | {str(h.series_number) for h in first}
        return wanted in names or wanted.casefold() in {h.description.casefold() for h in first}


def most_common(counts: np.ndarray) -> int:
    """The most frequent of these counts; the largest among equals."""
    return int(max(Counter(counts.tolist()).items(), key=lambda item: (item[1], item[0]))[0])


def acquisition_of(headers: list[SliceHeader], derived: bool, dropped: Counter) -> Acquisition:
    """Cluster images by their place along the normal."""
    depth = _depths_mm(headers)
    order = np.argsort(depth, kind="stable")
    labels = np.concatenate([[0], np.cumsum(np.diff(depth[order]) > SAME_PLACE_MM)])
    places = np.empty(len(headers), dtype=int)
    places[order] = labels
    positions = np.bincount(places, depth) / np.bincount(places)
    return Acquisition(headers, places, positions, derived, dropped)


# -- sorting ---------------------------------------------------------------------------------------------------


def usable_images(headers: list[SliceHeader], dropped: Counter) -> list[SliceHeader]:
    """The CT slices with a place; the others are counted in ``dropped`` by kind. Copied files count once."""
    kept, seen = [], set()
    for header in headers:
        kind = _why_not(header)
        if not kind and (header.sop_uid, header.frame) in seen and header.sop_uid:
            kind = "copied file"
        if kind:
            dropped[kind] += 1
        else:
            seen.add((header.sop_uid, header.frame))
            kept.append(header)
    return kept


def _why_not(header: SliceHeader) -> str:
    if header.modality != "CT":
        return "image that is not CT"
    if header.is_localizer:
        return "localizer"
    if header.samples != 1 or header.bits_allocated == 8:
        return "screenshot or colour map"
    places = (header.position, header.orientation, header.pixel_spacing)
    whole = all(value is not None and all(map(isfinite, value)) for value in places)
    upright = whole and not _parallel(header.orientation[:3], header.orientation[3:])
    return "" if upright and not header.plain_frames else "image without a position"


def _parallel(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two directions span no plane, so that no normal can be told."""
    product = sum(a * b for a, b in zip(one, other))
    return product**2 >= 0.99 * sum(a * a for a in one) * sum(b * b for b in other)


def acquisitions(
    headers: list[SliceHeader], same_pixels: Callable[[SliceHeader, SliceHeader], bool]
) -> list[Acquisition]:
    """Every set of images that agrees in study, reconstruction and kind, with copies removed."""
    groups: dict[tuple, list[SliceHeader]] = defaultdict(list)
    orientations: list[tuple[float, ...]] = []
    for header in headers:
        alike = (n for n, other in enumerate(orientations) if _near(header.orientation, other))
        number = next(alike, len(orientations))
        if number == len(orientations):
            orientations.append(header.orientation)
        groups[(number, *_reconstruction(header))].append(header)
    found = []
    for key, members in groups.items():
        for part in _without_overlap(members):
            found.append(_without_copies(_one_field(acquisition_of(part, key[-1], Counter())), same_pixels))
    return found


def _near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other)) <= _SAME_ORIENTATION


def _reconstruction(header: SliceHeader) -> tuple:
    """What images of one volume share beside their orientation; the last item says whether they are derived."""
    return (
        header.study_uid, header.rows, header.columns, header.kernel, header.bits_allocated, header.bits_stored,
        header.signed, tuple(round(x, 3) for x in header.pixel_spacing),
        round(header.thickness or 0.0, 2), header.facts.get("KVP", ""), _is_derived(header),
    )  # fmt: skip


def _is_derived(header: SliceHeader) -> bool:
    words = {part for word in header.image_type for part in word.upper().replace("_", " ").split()}
    return not words.isdisjoint(_DERIVED)


def _depths_mm(headers: list[SliceHeader]) -> np.ndarray:
    """(n,) where images of one orientation lie along their normal."""
    return np.array([header.position for header in headers]) @ normal_of(headers[0])


def _moments(headers: list[SliceHeader]) -> list[tuple]:
    """Place and time of every image, as a second reconstruction of the same samples has them too."""
    places = np.rint(_depths_mm(headers) / SAME_PLACE_MM).astype(int)
    return [(place, *(h.facts.get(word, "") for word in MOMENT_WORDS)) for place, h in zip(places.tolist(), headers)]


def _without_overlap(members: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Join series that continue each other, and part those that show the same samples again.

    Where the times cannot tell (all the same), series that hold every place once are joined as time points.
    """
    series: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in members:
        series[header.series_uid].append(header)
    ordered = sorted(series.values(), key=lambda part: (-len(part), part[0].series_number or 0, part[0].series_uid))
    parts: list[tuple[list[SliceHeader], set]] = []
    for one in ordered:
        moments = set(_moments(one))
        for images, seen in parts:
            if len(moments & seen) <= _FEW * len(moments):
                images.extend(one)
                seen |= moments
                break
        else:
            parts.append((list(one), moments))
    whole = [images for images, _ in parts]
    single = all(len({moment[0] for moment in _moments(one)}) == len(one) for one in ordered)
    deep = max(acquisition_of(images, False, Counter()).frame_count for images in whole)
    return [members] if single and deep < LEAST_FRAMES <= len(series) else whole


def _one_field(acquisition: Acquisition) -> Acquisition:
    """Without images of another field of view: those that lie beside the others of their place."""
    corners = np.array([header.position for header in acquisition.headers])
    tolerance = 0.5 * min(acquisition.headers[0].pixel_spacing)
    beside = np.zeros(len(corners), dtype=bool)
    for place in range(len(acquisition.positions_mm)):
        members = np.flatnonzero(acquisition.places == place)
        centre = np.median(corners[members], axis=0)
        beside[members] = np.linalg.norm(corners[members] - centre, axis=1) > tolerance
    if beside.all():
        return acquisition
    return acquisition.without(["image of another field of view" if one else "" for one in beside])


def _without_copies(acquisition: Acquisition, same_pixels: Callable) -> Acquisition:
    """Without images that repeat the place and time of another: copies, and second reconstructions in the series."""
    headers, moments, first = acquisition.headers, _moments(acquisition.headers), {}
    again: list[tuple[int, int]] = []
    for index in sorted(range(len(headers)), key=lambda n: (headers[n].instance or 0, headers[n].frame)):
        earlier = first.setdefault(moments[index], index)
        if earlier != index:
            again.append((index, earlier))
    few = len(again) <= _FEW * len(headers)
    sample = again[:: max(1, len(again) // 5)]
    if not few and not all(same_pixels(headers[one], headers[other]) for one, other in sample):
        return acquisition  # their times say nothing; the order of the images is settled later
    kinds = [""] * len(headers)
    for one, other in again:
        if same_pixels(headers[one], headers[other]):
            kinds[one] = "copied image"
        elif few:
            kinds[one] = "second image of the same place and time"
    return acquisition.without(kinds)


# -- choosing --------------------------------------------------------------------------------------------------


def choose_acquisition(found: list[Acquisition], wanted: str | None, name: str) -> Acquisition:
    """The acquisition named, or the one to measure: original, soft kernel, most frames, thick slices, most places.

    Raises:
        InputError: no acquisition has several places and enough frames.
        SeriesChoiceError: none or several answer to the name; several examinations hold perfusion.
    """
    if wanted is not None:
        named = [one for one in found if one.answers_to(wanted.strip())]
        if found and not named:
            raise _ask(found, f"{name} has no series '{wanted}'")
        found = named
    found = [one for one in found if len(one.positions_mm) > 1]  # bolus monitoring has one place only
    deep = [one for one in found if one.frame_count >= LEAST_FRAMES]
    if not deep:
        most = max((one.frame_count for one in found), default=0)
        images = "one image" if most == 1 else f"{most} images"
        raise InputError(
            f"{name} holds no CT perfusion series: there is at most {images} of a place where at least {LEAST_FRAMES} "
            "are needed; choose the folder of the whole acquisition."
        )
    if len({one.headers[0].study_uid for one in deep}) > 1:
        raise _ask(deep, f"{name} holds perfusion series of several examinations")
    return max(deep, key=_merit)


def _merit(one: Acquisition) -> tuple:
    first = one.headers[0]
    kernel = {"soft": 2, "unknown": 1, "sharp": 0}[kernel_class(first.kernel)]
    thickness = min(first.thickness or 0.0, 10.0)
    enough = one.frame_count >= USUAL_FRAMES
    rank = (kernel, one.frame_count, thickness, len(one.headers), -(first.series_number or 0))
    return (not one.derived, enough, *rank)


def _ask(found: list[Acquisition], reason: str) -> SeriesChoiceError:
    lines = "; ".join(one.text() for one in found)
    choices = [{"key": one.key, "frames": one.frame_count, "slices": len(one.positions_mm)} for one in found]
    return SeriesChoiceError(f"{reason}; name one, for example {found[0].key} ({lines}).", choices)
