"""Follow-up of a hemorrhage: how much it grew or shrank between two head CTs of one patient.

Volumes are those of each scan on its own grid. The later scan is moved onto the earlier one only to show where blood is
new, gone or unchanged; nothing is measured on resampled voxels but these three parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import SimpleITK as sitk

from HemorrhageSegLib.brain import extract_brain
from HemorrhageSegLib.checks import LEAST_CONFIDENCE, require_ct
from HemorrhageSegLib.followup_grid import resample, values_at
from HemorrhageSegLib.followup_inputs import TimePoint
from HemorrhageSegLib.followup_registration import Registration, register
from HemorrhageSegLib.followup_report import Comparison, measurements, tables, warnings
from HemorrhageSegLib.followup_task import FollowUpOptions
from HemorrhageSegLib.task import TASK as HEMORRHAGE
from HemorrhageSegLib.task import HemorrhageOptions
from NeuraxisLib.clock import Clock
from NeuraxisLib.errors import InputError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.provenance import software
from NeuraxisLib.result import Result, ScalarMap
from NeuraxisLib.slice_view import BRAIN_WINDOW_HU
from NeuraxisLib.task import Progress
from NeuraxisLib.uncertainty import most_uncertain_slices
from NeuraxisLib.volume import Volume

#: Values of the change map, as in Resources/FollowUp/labels.csv.
UNCHANGED, NEW, GONE = 1, 2, 3
KEY_SLICES = 3
MOVED_NOTE = "Moved onto the earlier one; linear between voxels."


@dataclass(frozen=True)
class _Parts:
    """The change map on the earlier grid, and what it cannot show.

    Attributes:
        labels: uint8 (k, j, i): UNCHANGED, NEW, GONE.
        unseen_ml: earlier blood outside the later scan, later blood outside the earlier one.
    """

    labels: np.ndarray
    unseen_ml: tuple[float, float]


def run(inputs: dict[str, TimePoint], options: FollowUpOptions, progress: Progress) -> Result:
    """The task: outline what is not outlined yet, then compare.

    Raises:
        NeuraxisError: see :func:`follow_up`; also whatever the hemorrhage task raises.
    """
    baseline, later = inputs["baseline"], inputs["later"]
    hours = hours_between(baseline, later, options.hours_between)
    missing, start = [point.result is None for point in (baseline, later)], 0.0
    points = []
    for name, point, is_missing in zip(("Earlier", "Later"), (baseline, later), missing):
        if is_missing:
            stop = start + 0.7 / sum(missing)
            with _named(name):
                point = _outlined(point, options, progress.part(start, stop))
            start = stop
        points.append(point)
    return follow_up(*points, hours, progress.part(start, 1.0))


def follow_up(
    baseline: TimePoint, later: TimePoint, hours: float | None = None, progress: Progress | None = None
) -> Result:
    """Compare two outlined head CTs of one patient.

    Args:
        baseline: the earlier scan and what was found in it; from :func:`followup_inputs.read_time_point` or
            :meth:`TimePoint.of_labels`.
        later: the same of the later scan.
        hours: time between them; None if that is not known.
        progress: told about every stage; may cancel.

    Returns:
        A Result of the task "followup" on the earlier scan's grid: change map, the later scan moved onto the earlier
        one (map ``later``), changes with intervals, the table ``expansion``, warnings and provenance.

    Raises:
        InputError: another patient, the wrong order, no blood on either scan, or heads that do not match.
    """
    progress, clock = progress or Progress(), Clock()
    _require_same_patient(baseline, later)
    if not baseline.result.labels.array.any() and not later.result.labels.array.any():
        raise InputError("Neither scan shows a hemorrhage, so there is nothing to follow up; choose other scans.")
    progress(0.0, "Finding the brain")
    with clock.stage("brain"):
        brains = []
        for name, point in (("Earlier", baseline), ("Later", later)):
            with _named(name):
                brains.append(_brain(point))
    with clock.stage("registration"):
        found = register(baseline.volume, brains[0], later.volume, brains[1], progress.part(0.2, 0.7))
    progress(0.7, "Comparing the two scans")
    with clock.stage("comparison"):
        parts = _parts(baseline, later, found.matrix)
        result = _result(baseline, later, found, parts, hours)
    result.provenance = _provenance(baseline, later, found, clock)
    progress(1.0, "Comparing the two scans")
    return result


# -- the two scans --------------------------------------------------------------------------------------------


def hours_between(baseline: TimePoint, later: TimePoint, given: float = -1.0) -> float | None:
    """Hours from one scan to the other: those given, else by DICOM's times; None if neither is known.

    Raises:
        InputError: the later scan is the earlier one by DICOM's times.
    """
    if baseline.moment is not None and later.moment is not None:
        hours = (later.moment - baseline.moment) / timedelta(hours=1)
        if hours < 0:
            raise InputError(
                f"By DICOM, the later scan was made {-hours:.1f} hours before the earlier one; exchange them."
            )
        return hours if given < 0 else given
    return None if given < 0 else given


def _require_same_patient(baseline: TimePoint, later: TimePoint) -> None:
    if baseline.patient and later.patient and baseline.patient != later.patient:
        raise InputError("The two scans carry different patient ids; choose two scans of the same patient.")


def _outlined(point: TimePoint, options: FollowUpOptions, progress: Progress) -> TimePoint:
    """The scan with what the hemorrhage task finds in it."""
    from HemorrhageSegLib import pipeline
    from NeuraxisLib.models import find_model, load_model

    model = load_model(find_model(HEMORRHAGE, options.model), HEMORRHAGE.name)
    chosen = HemorrhageOptions(device=options.device, keep_brain_mask=True)
    return replace(point, result=pipeline.run({"ct": point.volume}, model, chosen, progress))


def _brain(point: TimePoint) -> np.ndarray:
    """Intracranial space, bool (k, j, i): as found with the result, else found now."""
    if "brain" in point.result.maps:
        return point.result.maps["brain"].volume.array > 0.5
    require_ct(point.volume)
    brain = extract_brain(point.volume)
    if brain.confidence < LEAST_CONFIDENCE:
        raise InputError("there is no brain in view in the image; choose a CT series that covers the head.")
    return brain.mask


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which of the two scans an error is about."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise type(error)(f"{name} scan: {text[0].lower()}{text[1:]}") from error


# -- the comparison -------------------------------------------------------------------------------------------


def _parts(baseline: TimePoint, later: TimePoint, matrix: np.ndarray) -> _Parts:
    """Where blood is new, gone or unchanged, on the earlier grid."""
    before = baseline.result.labels.array > 0
    moved = resample(later.volume.like((later.result.labels.array > 0).view(np.uint8)), baseline.volume, matrix)
    seen, after = np.isfinite(moved), np.nan_to_num(moved) > 0.5
    labels = np.zeros(before.shape, np.uint8)
    labels[before & after | before & ~seen] = UNCHANGED
    labels[after & ~before] = NEW
    labels[before & ~after & seen] = GONE
    lost = (before & ~seen).sum(axis=(1, 2)) @ baseline.volume.voxel_volumes_ml
    return _Parts(labels, (float(lost), _outside_ml(later, baseline.volume, np.linalg.inv(matrix))))


def _outside_ml(point: TimePoint, other: Volume, matrix: np.ndarray) -> float:
    """Blood of one scan, in mL, that lies outside what the other scan shows."""
    kji = np.argwhere(point.result.labels.array > 0)
    volume, grid = point.volume, other.regular()
    places = volume.origins_ras[kji[:, 0]] + kji[:, 1:2] * volume.row_step_ras + kji[:, 2:] * volume.column_step_ras
    to_index = np.linalg.inv(grid.ijk_to_ras) @ matrix
    seen = np.isfinite(values_at(np.zeros(grid.array.shape, np.float32), _apply(to_index, places), np.nan))
    return float(volume.voxel_volumes_ml[kji[~seen, 0]].sum())


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _result(
    baseline: TimePoint, later: TimePoint, found: Registration, parts: _Parts, hours: float | None
) -> Result:
    source = baseline.volume
    table = LabelTable.read(HEMORRHAGE.resources / "labels.csv")
    part_ml = {
        name: float((parts.labels == value).sum(axis=(1, 2)) @ source.voxel_volumes_ml)
        for name, value in (("New", NEW), ("Unchanged", UNCHANGED), ("Gone", GONE))
    }
    comparison = Comparison.of(baseline, later, table, found, part_ml, parts.unseen_ml, hours)
    moved = np.rint(resample(later.volume, source, found.matrix, outside=-1024.0)).astype(np.int16)
    return Result(
        task="followup",
        source=source,
        labels=source.like(parts.labels),
        maps={"later": ScalarMap(source.like(moved, "HU"), "Later scan", BRAIN_WINDOW_HU, MOVED_NOTE)},
        measurements=measurements(comparison),
        tables=tables(comparison),
        key_slices=_least_certain(baseline, later, found.matrix),
        warnings=warnings(comparison),
    )


def _least_certain(baseline: TimePoint, later: TimePoint, matrix: np.ndarray) -> list[int]:
    """Slices k of the earlier scan on which the outlines of either scan are least certain."""
    doubts = []
    for point, move in ((baseline, None), (later, matrix)):
        if "entropy" in point.result.maps:
            volume = point.volume.like(point.result.maps["entropy"].volume.array, "bits")
            doubts.append(resample(volume, baseline.volume, move, 0.0) if move is not None else volume.array)
    return most_uncertain_slices(np.maximum.reduce(doubts), baseline.volume, KEY_SLICES) if doubts else []


def _provenance(baseline: TimePoint, later: TimePoint, found: Registration, clock: Clock) -> dict:
    def scan(point: TimePoint) -> dict:
        model = point.result.provenance.get("model")
        facts = {"scan_sha256": point.sha256, "result_sha256": point.result_sha256}
        return facts | ({"model": model} if model else {})

    return {
        **software(),
        "simpleitk": sitk.Version.VersionString(),
        "earlier": scan(baseline),
        "later": scan(later),
        "registration": {
            "matrix_ras_mm": np.round(found.matrix, 6).ravel().tolist(),
            "correlation": round(found.correlation, 4),
            "brain_overlap": round(found.overlap, 4),
            "covered": round(found.covered, 4),
            "rotation_deg": round(found.rotation_deg, 3),
            "shift_mm": round(found.shift_mm, 3),
        },
        "seconds": clock.seconds,
    }
