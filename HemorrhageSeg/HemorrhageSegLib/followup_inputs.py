"""One of the two time points of a follow-up: the scan, what was found in it, when it was made, and of whom.

Date and patient are read from DICOM for comparison alone: neither is written or reported, only the hours between.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.result import Measurement, Result
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

if TYPE_CHECKING:
    from HemorrhageSegLib.followup_task import FollowUpOptions

#: Pairs of DICOM attributes that date a scan, the nearest to its acquisition first; one without a second holds both.
_DATES = (
    ("AcquisitionDateTime", ""), ("AcquisitionDate", "AcquisitionTime"), ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)  # fmt: skip
_KEYWORDS = (*(word for pair in _DATES for word in pair if word), "PatientID", "IssuerOfPatientID")
#: Corners of one grid lie this close together.
_SAME_PLACE_MM = 0.1


@dataclass(frozen=True)
class TimePoint:
    """A head CT of a follow-up.

    Attributes:
        volume: the scan, in HU.
        result: what the hemorrhage task found in it, with ``source`` this volume; None if it still has to be outlined.
        moment: when it was acquired; None if that is not known.
        patient: fingerprint of the patient's DICOM id, for comparison with the other's; empty if that is not known.
        result_sha256: of the result folder's result.json, for provenance; empty if there is none.
    """

    volume: Volume
    result: Result | None = None
    moment: datetime | None = None
    patient: str = ""
    result_sha256: str = ""

    @classmethod
    def of_labels(cls, volume: Volume, labels: np.ndarray) -> TimePoint:
        """A scan whose bleeding was outlined by other means.

        Args:
            volume: the scan, in HU.
            labels: (k, j, i) label map on its grid, values as in the hemorrhage task's label table.

        Raises:
            GeometryError: the label map has another shape.
        """
        marked = volume.like(np.asarray(labels).astype(np.uint8))
        return cls(volume, Result("hemorrhage", volume, marked))

    @property
    def sha256(self) -> str:
        """Of voxels and geometry, whatever file they came from."""
        digest = hashlib.sha256(np.ascontiguousarray(self.volume.array).astype("<f4").tobytes())
        digest.update(np.round(self.volume.ijk_to_ras, 4).astype("<f8").tobytes())
        if self.volume.slice_origins_ras is not None:
            digest.update(np.round(self.volume.slice_origins_ras, 4).astype("<f8").tobytes())
        return digest.hexdigest()


def read_baseline(
    path: Path, options: FollowUpOptions, series: str | None, allow_gaps: bool, progress: Progress
) -> TimePoint:
    """The earlier scan, with its result where ``options.baseline_result`` names one; the task's reader."""
    return read_time_point(path, options.baseline_result, series or options.baseline_series, allow_gaps, progress)


def read_later(
    path: Path, options: FollowUpOptions, series: str | None, allow_gaps: bool, progress: Progress
) -> TimePoint:
    """The later scan, with its result where ``options.later_result`` names one; the task's reader."""
    return read_time_point(path, options.later_result, series or options.later_series, allow_gaps, progress)


def read_time_point(
    path: Path,
    result: str | Path = "",
    series: str | None = None,
    allow_gaps: bool = False,
    progress: Progress | None = None,
) -> TimePoint:
    """Read a scan and, if named, what was found in it.

    Args:
        path: image file, DICOM folder, or exchange file of the worker.
        result: result folder of the hemorrhage task, or an image file with a label map; empty for none.
        series: DICOM series where a folder holds several.
        allow_gaps: accept a DICOM series although slices are missing.
        progress: told how far reading is.

    Raises:
        InputError: as for any image; a result that is none of the hemorrhage task, or has no label map.
        GeometryError: the result lies on another grid than the scan.
    """
    from NeuraxisLib.run import read_input

    volume = replace(read_input(path, series or None, allow_gaps, progress), unit="HU")
    moment, patient = _dicom_facts(path, volume)
    if not str(result):
        return TimePoint(volume, None, moment, patient)
    result = Path(result)
    if result.is_dir():
        from NeuraxisLib.result_folder import RESULT_FILE

        found = _read_result(result, volume)
        digest = hashlib.sha256((result / RESULT_FILE).read_bytes()).hexdigest()
        return TimePoint(volume, found, moment, patient, digest)
    return replace(_read_labels(result, volume), moment=moment, patient=patient)


def _read_result(folder: Path, volume: Volume) -> Result:
    from NeuraxisLib.result_folder import read_result

    found = read_result(folder)
    if found.task != "hemorrhage" or found.labels is None:
        raise InputError(f"'{folder.name}' is no result of the hemorrhage task; choose another folder.")
    _require_same_grid(found.source, volume, folder.name)
    labels = volume.like(found.labels.array)
    maps = {name: replace(one, volume=volume.like(one.volume.array)) for name, one in found.maps.items()}
    return replace(found, source=volume, labels=labels, maps=maps)


def _read_labels(path: Path, volume: Volume) -> TimePoint:
    from NeuraxisLib.run import read_input

    labels = read_input(path)
    _require_same_grid(labels, volume, path.name)
    values = np.unique(labels.array)
    if values.min() < 0 or values.max() > 255 or (values != np.rint(values)).any():
        raise InputError(f"'{path.name}' is no label map (its values are no whole numbers from 0 to 255).")
    return TimePoint.of_labels(volume, labels.array)


def _require_same_grid(marked: Volume, volume: Volume, name: str) -> None:
    corner = (np.array(volume.array.shape) - 1)[::-1]
    ends = np.array([[i, j, k, 1] for i in (0, corner[0]) for j in (0, corner[1]) for k in (0, corner[2])], float).T
    same = marked.array.shape == volume.array.shape
    if not same or np.abs((marked.ijk_to_ras - volume.ijk_to_ras) @ ends).max() > _SAME_PLACE_MM:
        raise GeometryError(f"The result '{name}' was made from another image than the scan named with it; name both.")


# -- DICOM ----------------------------------------------------------------------------------------------------


def _dicom_facts(path: Path, volume: Volume) -> tuple[datetime | None, str]:
    """(moment of acquisition, fingerprint of the patient's id) of the series that a volume was read from."""
    if volume.meta.get("format") != "DICOM":
        return None, ""
    from NeuraxisLib.dicom_headers import scan_folder
    from NeuraxisLib.dicom_series import group_series

    headers = scan_folder(path if path.is_dir() else path.parent, Progress(), _KEYWORDS).headers
    chosen = [s for s in group_series(headers) if s.info.key == volume.meta["series_key"]]
    facts = [header.facts for header in chosen[0].headers] if chosen else [{}]
    moments = [moment for moment in map(moment_of, facts) if moment is not None]
    ids = {one["PatientID"].strip() + "|" + one.get("IssuerOfPatientID", "") for one in facts if one.get("PatientID")}
    patient = hashlib.sha256(ids.pop().encode()).hexdigest() if len(ids) == 1 else ""
    return min(moments, default=None), patient


def moment_of(facts: dict[str, str]) -> datetime | None:
    """When an image was made, from DICOM attributes as text; None if they do not say, or say nonsense."""
    for date, time in _DATES:
        words = facts.get(date, "") + (facts.get(time, "") if time else "")
        digits = words.replace(".", "").replace(":", "").partition("+")[0].partition("-")[0].strip()
        try:
            if len(digits) >= 12:
                return datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S")
        except ValueError:
            continue
    return None


# -- what was found -------------------------------------------------------------------------------------------


def measured_volume(result: Result, segment: str = "") -> Measurement | None:
    """The volume that a result reports: the headline, or that of one segment."""
    volumes = [m for m in result.measurements if m.unit == "mL" and "volume" in m.name.lower()]
    if not segment:
        return volumes[0] if volumes else None
    return next((m for m in volumes if m.segment == segment), None)
