"""Where the slices of a DICOM series lie: order, duplicates, gaps, and the matrix with its shear.

Slices are sorted by their position along the normal, never by their number. What cannot be measured rightly is
refused by name; every peer tried (SimpleITK, MONAI, dcm2niix) measured some of these series wrong in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.dicom_headers import SliceHeader
from NeuraxisLib.errors import GeometryError
from NeuraxisLib.volume import UNIFORM_TOLERANCE

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
#: Two slices nearer than this share one place.
SAME_PLACE_MM = 0.01
#: A gap this much wider than the gaps beside it is a hole, unless the protocol explains it (see find_holes).
HOLE_RATIO = 1.5
#: Consecutive gaps that agree to this belong to one run of constant spacing.
RUN_TOLERANCE = 0.1
#: A run of wide gaps at an end of the stack is a protocol, not a loss, when it has at least this many gaps.
PROTOCOL_RUN = 3


@dataclass(frozen=True)
class Layout:
    """Slices in order, from low to high along the normal, and their geometry in RAS mm."""

    headers: list[SliceHeader]
    ijk_to_ras: np.ndarray
    slice_origins_ras: np.ndarray | None
    tilt_deg: float
    warnings: list[str]


@dataclass(frozen=True)
class Hole:
    """A gap wider than its neighbours: after slice ``index``, ``missing`` slices do not lie where they should."""

    index: int
    gap_mm: float
    expected_mm: float

    @property
    def missing(self) -> int:
        """How many slices the hole has room for."""
        return max(1, round(self.gap_mm / self.expected_mm) - 1)


def lay_out(
    headers: list[SliceHeader],
    same_pixels: Callable[[SliceHeader, SliceHeader], bool],
    name: str,
    allow_gaps: bool = False,
) -> Layout:
    """Sort a series and work out its geometry.

    Args:
        headers: the images of one series, of one orientation, matrix size and pixel spacing.
        same_pixels: tells whether two images at one place are copies of each other.
        name: how messages call the series.
        allow_gaps: measure across missing slices, with a warning.

    Raises:
        GeometryError: position, orientation or pixel spacing missing or impossible; one slice only; different
            images at one place; missing slices.
    """
    warnings: list[str] = []
    spacing, row, column = _in_plane(headers, name)
    normal = np.cross(row, column)
    headers = sorted(headers, key=lambda header: float(np.dot(header.position, normal)))
    headers = _without_copies(headers, normal, same_pixels, name, warnings)
    if len(headers) < 2:
        raise GeometryError(f"{name} is a single slice; choose a series with all its slices.")
    positions = np.array([header.position for header in headers])
    gaps = np.diff(positions @ normal)
    _check_holes(gaps, headers, name, allow_gaps, warnings)
    _describe_gaps(gaps, headers, warnings)

    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    lps = np.column_stack([row * spacing[1], column * spacing[0], step, positions[0]])
    matrix = np.vstack([_LPS_TO_RAS[:, None] * lps, [0, 0, 0, 1]])
    sideways = _sideways(positions, normal, step)
    if sideways > max(spacing):
        warnings.append(f"Slices are shifted sideways against each other by up to {sideways:.1f} mm.")
    uneven = np.ptp(gaps) > UNIFORM_TOLERANCE * gaps.mean() or sideways > 0.1 * min(spacing)
    tilt = float(np.degrees(np.arccos(min(1.0, float(step @ normal) / float(np.linalg.norm(step))))))
    _compare_tilt(headers[0], tilt, warnings)
    _compare_spacing(headers[0], warnings)
    return Layout(headers, matrix, positions * _LPS_TO_RAS if uneven else None, tilt, warnings)


def _in_plane(headers: list[SliceHeader], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel spacing (row, column) in mm and the unit directions of rows and columns in LPS."""
    for header in headers:
        for value, what in (
            (header.position, "position"), (header.orientation, "orientation"), (header.pixel_spacing, "pixel spacing"),
        ):  # fmt: skip
            if value is None or not np.isfinite(value).all():
                raise GeometryError(f"{name} cannot be measured: '{header.name}' has no {what}; export it again.")
        if min(header.pixel_spacing) <= 0:
            raise GeometryError(f"{name} has a pixel spacing of zero or less ('{header.name}'); export it again.")
    axes = np.array([header.orientation for header in headers]).mean(axis=0).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(axes[0] @ axes[1]) > 0.01:
        raise GeometryError(f"{name} has rows and columns that are not at right angles; export it again.")
    row = axes[0] / lengths[0]
    column = axes[1] - (axes[1] @ row) * row
    return np.array(headers[0].pixel_spacing), row, column / np.linalg.norm(column)


def _without_copies(headers, normal, same_pixels, name: str, warnings: list[str]) -> list[SliceHeader]:
    """Drop images that are copies of their neighbour; refuse different images at one place."""
    kept, copies, clashes = [headers[0]], 0, []
    for header in headers[1:]:
        if float(np.dot(np.subtract(header.position, kept[-1].position), normal)) > SAME_PLACE_MM:
            kept.append(header)
        elif np.allclose(header.position, kept[-1].position, atol=0.1) and same_pixels(header, kept[-1]):
            copies += 1
        else:
            clashes.append(header)
    if len(kept) == 1 and len(headers) > 1:
        raise GeometryError(
            f"{name} is not a volume: all its {len(headers)} images lie at one place (monitoring or cine); "
            "choose another series."
        )
    if clashes:
        raise GeometryError(
            f"{name} has {len(clashes) + len(kept)} images at {len(kept)} places ('{clashes[0].name}' shares its place "
            "with a different image); export one time point or reconstruction alone."
        )
    if copies:
        warnings.append(f"{copies} duplicate image{'s were' if copies > 1 else ' was'} left out.")
    return kept


def find_holes(gaps: np.ndarray, thicknesses: list[float | None]) -> list[Hole]:
    """Gaps that mean lost slices, as against a protocol that changes its spacing.

    Consecutive gaps that agree to 10 % form a run. A run at least 1.5 times as wide as the wider run beside it is
    a hole, unless its slices are themselves that thick (SliceThickness at least 0.8 of the gap), or it reaches an
    end of the stack and has at least three gaps (5 mm through the skull base, then 10 mm). A narrow gap (overlap
    where two blocks meet) is never a hole.

    Args:
        gaps: (K-1,) mm along the normal, all positive.
        thicknesses: (K,) nominal slice thickness in mm, None where unknown.
    """
    runs = _runs(gaps)
    means = [float(gaps[start:stop].mean()) for start, stop in runs]
    holes = []
    for index, (start, stop) in enumerate(runs):
        beside = [means[other] for other in (index - 1, index + 1) if 0 <= other < len(runs)]
        if not beside or means[index] < HOLE_RATIO * max(beside):
            continue
        at_end = index in (0, len(runs) - 1)
        thick = [thicknesses[k] or 0.0 for k in range(start, stop + 1)]
        thick = thick[1:-1] or [min(thick)]  # the outer slices of a run belong to the block beside it as well
        explained = min(thick) >= 0.8 * means[index]
        if explained or (at_end and stop - start >= PROTOCOL_RUN):
            continue
        holes.extend(Hole(k, float(gaps[k]), max(beside)) for k in range(start, stop))
    return holes


def _runs(gaps: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of stretches of gaps that agree with the mean of their stretch."""
    runs, start = [], 0
    for k in range(1, len(gaps) + 1):
        if k == len(gaps) or abs(gaps[k] - gaps[start:k].mean()) > RUN_TOLERANCE * gaps[start:k].mean():
            runs.append((start, k))
            start = k
    return runs


def _check_holes(gaps, headers: list[SliceHeader], name: str, allow_gaps: bool, warnings: list[str]) -> None:
    holes = find_holes(gaps, [header.thickness for header in headers])
    if not holes:
        return
    missing = sum(hole.missing for hole in holes)
    first = holes[0]
    count = "one slice is missing" if missing == 1 else f"{missing} slices are missing"
    where = f"between '{headers[first.index].name}' and '{headers[first.index + 1].name}'"
    facts = f"a gap of {first.gap_mm:.1f} mm where {first.expected_mm:.1f} mm is usual"
    if not allow_gaps:
        raise GeometryError(
            f"{name}: {count} {where} ({facts}); send the series again, or measure across them (--allow-gaps)."
        )
    warnings.append(f"{count.capitalize()} {where} ({facts}); volumes there are interpolated.")


def _describe_gaps(gaps: np.ndarray, headers: list[SliceHeader], warnings: list[str]) -> None:
    """Warn of spacing that is accepted, with every slice at its own place, but worth knowing."""
    thickness = headers[0].thickness or 0.0
    if np.ptp(gaps) > RUN_TOLERANCE * np.median(gaps):
        warnings.append(f"Slice gaps differ ({gaps.min():.1f} to {gaps.max():.1f} mm); each slice counts with its own.")
    elif thickness > 0 and gaps.mean() > HOLE_RATIO * thickness:
        warnings.append(
            f"Slices {thickness:.1f} mm thick lie {gaps.mean():.1f} mm apart; tissue between them is interpolated."
        )
    if len(headers) == 2:
        warnings.append("The series has two slices only.")


def _sideways(positions: np.ndarray, normal: np.ndarray, step: np.ndarray) -> float:
    """How far, in mm, slice origins stray in-plane from the straight line through the first and last."""
    depth = (positions - positions[0]) @ normal
    line = positions[0] + depth[:, None] * step / (step @ normal)
    return float(np.linalg.norm(positions - line, axis=1).max())


def _compare_tilt(header: SliceHeader, tilt_deg: float, warnings: list[str]) -> None:
    if header.tilt_deg is not None and abs(abs(header.tilt_deg) - tilt_deg) > 2 and header.modality == "CT":
        warnings.append(
            f"The header says a gantry tilt of {abs(header.tilt_deg):.1f} degrees, the slice positions say "
            f"{tilt_deg:.1f}; the positions were used."
        )


def _compare_spacing(header: SliceHeader, warnings: list[str]) -> None:
    detector = header.detector_spacing
    if detector is not None and abs(detector[0] - header.pixel_spacing[0]) > 0.01 * header.pixel_spacing[0]:
        warnings.append(
            f"The header gives two pixel sizes ({header.pixel_spacing[0]:.3f} and {detector[0]:.3f} mm); the first, "
            "that of the image, was used."
        )
