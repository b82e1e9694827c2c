"""Which images of a folder belong together, and which series is the one to measure."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field

import numpy as np

from NeuraxisLib.dicom_geometry import SAME_PLACE_MM
from NeuraxisLib.dicom_headers import SliceHeader, read_phase
from NeuraxisLib.errors import GeometryError, SeriesChoiceError

#: Direction cosines that agree to this are one orientation (0.1 degree).
_SAME_ORIENTATION = 2e-3
#: Fewer images than this, in another orientation than the rest of their series, are scouts.
_SCOUT_COUNT = 4
_SHARP_WORDS = ("BONE", "EDGE", "LUNG", "SHARP", "ULTRA", "DETAIL+")
_SOFT_WORDS = ("SOFT", "STANDARD", "STND", "STD", "BRAIN", "SMOOTH", "HEAD")
_PROJECTIONS = ("MIP", "MINIP", "PROJECTION", "VRT", "VOLUME_RENDER", "SCREEN", "SCREENSHOT", "SCREEN SAVE")


@dataclass(frozen=True)
class SeriesInfo:
    """A series as a user may choose it. ``key`` is a short pseudonym; ``uid`` is for the program, not for display."""

    uid: str
    key: str
    number: int | None
    description: str
    modality: str
    kernel: str
    image_type: str
    slices: int
    orientation: str
    thickness_mm: float | None
    part: str = ""
    excluded: str = ""

    def choice(self) -> dict:
        """What a list of choices shows: everything but the UID."""
        return {name: value for name, value in asdict(self).items() if name != "uid"}

    def text(self) -> str:
        """One line for lists and messages."""
        thickness = f"{self.thickness_mm:g} mm" if self.thickness_mm else ""
        words = (self.modality, self.orientation, self.description, self.kernel, thickness, self.part)
        return f"{self.key}: {' '.join(word for word in words if word)}, {self.slices} slices"


@dataclass(frozen=True)
class Series:
    """A series and its images; ``stray`` are images of the same series that do not fit the others."""

    info: SeriesInfo
    headers: list[SliceHeader]
    stray: list[SliceHeader] = field(default_factory=list)


def group_series(headers: list[SliceHeader]) -> list[Series]:
    """Sort images into series: same series UID, matrix, pixel spacing, kernel, kind and orientation.

    A series that holds every place several times (time points, echoes) becomes one entry per time point.
    """
    by_uid: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        by_uid[header.series_uid].append(header)
    series = []
    for members in by_uid.values():
        series.extend(_split_series(members))
    return sorted(series, key=lambda s: (s.info.number or 0, s.info.key))


def check_one_patient(headers: list[SliceHeader], name: str) -> None:
    """GeometryError if not all images bear the same patient's id, as after a wrong merge in an archive."""
    other = next((header for header in headers if header.patient != headers[0].patient), None)
    if other is not None:
        raise GeometryError(f"{name} mixes patients: '{other.name}' is of another patient; send the series again.")


def _split_series(members: list[SliceHeader]) -> list[Series]:
    groups = _alike(members)
    main = groups[0]
    stray = [header for group in groups[1:] if _is_stray(group, main) for header in group]
    result = []
    for group in groups:
        if group is not main and _is_stray(group, main):
            continue
        phases = split_phases(group)
        for index, phase in enumerate(phases):
            part = f"part {index + 1} of {len(phases)}" if len(phases) > 1 else ""
            scout = group is not main and _is_scout(group, main)
            result.append(Series(_info(phase, part, scout), phase, stray if group is main else []))
    return result


def _alike(members: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Groups of images that can be slices of one volume, the largest first, localizers last."""
    groups: list[list[SliceHeader]] = []
    for header in members:
        for group in groups:
            if _fits(header, group[0]):
                group.append(header)
                break
        else:
            groups.append([header])
    return sorted(groups, key=lambda group: (group[0].is_localizer, -len(group)))


def _fits(one: SliceHeader, other: SliceHeader) -> bool:
    same = all(
        getattr(one, word) == getattr(other, word)
        for word in ("rows", "columns", "kernel", "samples", "bits_allocated", "is_localizer", "modality")
    )
    return same and _close(one.pixel_spacing, other.pixel_spacing, 1e-3) and _close(
        one.orientation, other.orientation, _SAME_ORIENTATION
    )  # fmt: skip


def _close(one: tuple | None, other: tuple | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.abs(np.subtract(one, other)).max() <= tolerance)


def _is_scout(group: list[SliceHeader], main: list[SliceHeader]) -> bool:
    if group[0].is_localizer:
        return True
    one, other = normal_of(group[0]), normal_of(main[0])
    turned = one is not None and other is not None and abs(one @ other) < np.cos(np.radians(10))
    return turned and len(group) < _SCOUT_COUNT


def _is_stray(group: list[SliceHeader], main: list[SliceHeader]) -> bool:
    """Whether a few images belong to the main ones but contradict them; leaving them out would lose slices."""
    if group is main or len(group) >= max(_SCOUT_COUNT, len(main) // 4) or group[0].samples != main[0].samples:
        return False
    return not _is_scout(group, main)


def split_phases(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Split a group that holds its places several times over by the attribute that tells the time points apart.

    Returns the group alone when places are single, or when no attribute gives parts with single places.
    """
    keys = [_place_key(header) for header in headers]
    places = set(keys)
    unique_images = {header.sop_uid + str(header.frame) for header in headers}
    if len(places) < 2 or len(unique_images) < 1.5 * len(places):
        return [headers]
    phases = [read_phase(header) for header in headers]
    for word in dict.fromkeys(word for phase in phases for word in phase):
        parts: dict[str, list[SliceHeader]] = defaultdict(list)
        for header, phase in zip(headers, phases):
            parts[phase.get(word, "")].append(header)
        single = all(len({_place_key(h) for h in part}) == len(part) > 1 for part in parts.values())
        if len(parts) > 1 and single:
            return [parts[value] for value in sorted(parts, key=_natural)]
    return [headers]


def _natural(value: str) -> tuple:
    return (0, float(value), "") if re.fullmatch(r"-?\d+(\.\d+)?", value) else (1, 0.0, value)


def _place_key(header: SliceHeader) -> tuple | None:
    if header.position is None or not np.isfinite(header.position).all():
        return None
    return tuple(round(x / (10 * SAME_PLACE_MM)) for x in header.position)


def normal_of(header: SliceHeader) -> np.ndarray | None:
    """Unit normal (LPS) of an image; None without an orientation."""
    if header.orientation is None:
        return None
    normal = np.cross(header.orientation[:3], header.orientation[3:])
    length = np.linalg.norm(normal)
    return normal / length if length > 1e-6 else None


def orientation_word(header: SliceHeader) -> str:
    """Axial, sagittal or coronal (within 36 degrees), else oblique; unknown without an orientation."""
    normal = normal_of(header)
    if normal is None:
        return "unknown"
    axis = int(np.abs(normal).argmax())
    return ("sagittal", "coronal", "axial")[axis] if abs(normal[axis]) > 0.81 else "oblique"


def _info(headers: list[SliceHeader], part: str, scout: bool) -> SeriesInfo:
    first = headers[0]
    signature = (first.series_uid, first.rows, first.columns, first.kernel, first.orientation, first.pixel_spacing)
    key = hashlib.sha256(repr((*signature, part)).encode()).hexdigest()[:6]
    return SeriesInfo(
        uid=first.series_uid,
        key=key,
        number=first.series_number,
        description=first.description,
        modality=first.modality,
        kernel=first.kernel,
        image_type="/".join(first.image_type),
        slices=len(headers),
        orientation=orientation_word(first),
        thickness_mm=first.thickness,
        part=part,
        excluded=_why_not(headers, scout),
    )


def _why_not(headers: list[SliceHeader], scout: bool) -> str:
    """Why a series is no candidate for measuring; empty if it is one."""
    first = headers[0]
    if scout or first.is_localizer:
        return "localizer"
    if first.samples != 1 or (first.bits_allocated == 8 and first.modality not in ("MR", "PT")):
        return "screenshot"
    if first.plain_frames:
        return "frames without positions"
    if first.position is None or first.orientation is None or first.pixel_spacing is None:
        return "no position"
    return "single slice" if len(headers) < 2 else ""


def kernel_class(kernel: str) -> str:
    """``"soft"``, ``"sharp"`` or ``"unknown"`` for a reconstruction kernel of any vendor.

    Siemens: the number (H31s, J40f, Hr38), 50 and above is sharp. GE: words. Philips: letters. Canon: FC groups.
    """
    word = kernel.upper().split("/")[0].strip()
    if canon := re.match(r"FC(\d\d)", word):
        return "sharp" if int(canon[1]) in (*range(30, 40), *range(50, 60), *range(80, 90)) else "soft"
    if any(sharp in word for sharp in _SHARP_WORDS):
        return "sharp"
    if any(soft in word for soft in _SOFT_WORDS):
        return "soft"
    if siemens := re.match(r"[A-Z]{1,2}(\d\d)", word):
        return "sharp" if int(siemens[1]) >= 50 else "soft"
    if word in ("UA", "UB", "UC", "A", "B", "C", "EB", "EC"):
        return "soft"
    return "sharp" if word in ("D", "E", "L", "YB", "YC", "YD", "YE") else "unknown"


# -- choosing --------------------------------------------------------------------------------------------------


def choose_series(series: list[Series], wanted: str | None) -> Series:
    """The series named, or the one a radiologist would take: axial, soft kernel, no contrast, original, most slices.

    Args:
        series: all series of the folder.
        wanted: key, series number, UID or description (any case); None to choose.

    Raises:
        SeriesChoiceError: no such series, or several are equally good; lists them and how to name one.
    """
    if wanted is not None:
        return _named(series, wanted.strip())
    usable = [entry for entry in series if not entry.info.excluded]
    if not usable:
        return max(series, key=lambda entry: (entry.info.excluded != "localizer", len(entry.headers)))
    if len({entry.headers[0].study_uid for entry in usable}) > 1:
        raise _ask(usable, "holds several examinations")
    if len({entry.info.modality for entry in usable}) > 1:
        raise _ask(usable, "holds several modalities")
    best = usable
    for wish in (
        lambda s: s.info.orientation == "axial",
        lambda s: not any(word in s.info.image_type for word in _PROJECTIONS),
        lambda s: kernel_class(s.info.kernel) != "sharp",
        lambda s: kernel_class(s.info.kernel) == "soft",
        lambda s: not s.headers[0].contrast,
        lambda s: "ORIGINAL" in s.info.image_type,
    ):
        best = [entry for entry in best if wish(entry)] or best
    most = max(len(entry.headers) for entry in best)
    best = [entry for entry in best if len(entry.headers) == most]
    if len(best) > 1:
        raise _ask(best, "holds several series that would do")
    return best[0]


def _named(series: list[Series], wanted: str) -> Series:
    def matches(entry: Series) -> bool:
        info = entry.info
        names = (info.key, info.uid, str(info.number), info.description.casefold())
        return wanted in names or wanted.casefold() in names

    found = [entry for entry in series if matches(entry)]
    if len(found) > 1:
        found = [entry for entry in found if not entry.info.excluded] or found
    if len(found) == 1:
        return found[0]
    reason = f"has no series '{wanted}'" if not found else f"has several series '{wanted}'"
    raise _ask(found or series, reason)


def _ask(series: list[Series], reason: str) -> SeriesChoiceError:
    lines = "; ".join(entry.info.text() for entry in series)
    message = f"The DICOM folder {reason}; name one, for example --series {series[0].info.key} ({lines})."
    return SeriesChoiceError(message, [entry.info.choice() for entry in series])
