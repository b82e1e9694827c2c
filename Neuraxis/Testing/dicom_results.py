"""Results with a few known voxels on DICOM series of the phantom, for the tests of DICOM export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from NeuraxisLib.files import read_volume
from NeuraxisLib.result import Landmark, Measurement, Result, ScalarMap, Table
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.volume import Volume

#: (slice from below, row, column) -> label value, of stroke: 1 penumbra, 2 core.
VOXELS = {(1, 10, 20): 1, (1, 10, 21): 1, (2, 37, 33): 2, (4, 39, 0): 2, (4, 5, 39): 1}
PROVENANCE = {
    "neuraxis": "0.1.0",
    "model": {"name": "starter", "title": "Starter of the tests", "file": "starter.safetensors", "sha256": "ab" * 32},
}


def result_on(scan: Volume, task: str = "stroke", voxels: dict | None = None, **parts) -> Result:
    """A result on a scan, with :data:`VOXELS` marked (as 1 for hemorrhage) and what else is given."""
    labels = np.zeros(scan.array.shape, np.uint8)
    for place, value in (VOXELS if voxels is None else voxels).items():
        labels[place] = value if task == "stroke" else 1
    return Result(task=task, source=scan, labels=scan.like(labels), provenance=PROVENANCE, **parts)


def stroke_folder(folder: Path, source: Path, **changes) -> Path:
    """The result folder of a stroke with volumes, ratios, a map and an artery on the DICOM series ``source``."""
    scan = read_volume(source)
    values = np.random.default_rng(0).random(scan.array.shape).astype(np.float32) * 12
    parts = {
        "maps": {"tmax": ScalarMap(scan.like(values, "s"), "Tmax", (0.0, 12.0))},
        "measurements": [
            Measurement("Core volume", 12.5, "mL", (9.25, 20.125), "", "By thresholds."),
            Measurement("Hypoperfused volume", 80.0, "mL", (60.0, 95.5)),
            Measurement("Mismatch volume", 67.5, "mL", (39.875, 86.25)),
            Measurement("Mismatch ratio", 6.4, "", (2.98, 10.324)),
            Measurement("CBV index", None, ""),
            Measurement("Relative CBF threshold", 30.0, "%"),
        ],
        "points": [Landmark("Artery", (12.5, 30.25, -7.0), 0.75)],
        "warnings": ["Beware of this."],
        "key_slices": [2],
        **changes,
    }
    return write_result(result_on(scan, **parts), folder)


def discs_folder(folder: Path, source: Path) -> Path:
    """The result folder of two named discs, one of them without a confidence, on the series ``source``."""
    scan = read_volume(source)
    heads = (("Disc", ""), ("Confidence", ""), ("R", "mm"), ("A", "mm"), ("S", "mm"), ("Disc height", "mm"))
    rows = (("L4/L5", 0.97, -1.5, 20.25, -30.0, 9.5), ("L5/S1", None, -2.0, 15.0, -66.0, None))
    result = Result(
        task="discs",
        source=scan,
        points=[Landmark("L4/L5", (-1.5, 20.25, -30.0), 0.97), Landmark("L5/S1", (-2.0, 15.0, -66.0))],
        measurements=[Measurement("Discs found", 2.0, ""), Measurement("Lordosis", 41.5, "degrees")],
        tables={"discs": Table("Discs", heads, rows)},
        provenance=PROVENANCE,
    )
    return write_result(result, folder)


@dataclass(frozen=True)
class Marked:
    """A voxel that is set in a segment: where it lies, and the image that its frame refers to."""

    segment: str
    position_lps: tuple[float, float, float]
    sop_instance_uid: str
    frame: int | None


def marked_voxels(path: Path) -> list[Marked]:
    """All voxels that are set in a DICOM SEG, by pydicom and the formula of the standard alone (PS3.3 C.7.6.2.1.1)."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    names = {int(item.SegmentNumber): item.SegmentLabel for item in dataset.SegmentSequence}
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    found = []
    for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        holder = group if "SegmentIdentificationSequence" in group else shared
        name = names[int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        number = image.get("ReferencedFrameNumber")
        for row, column in np.argwhere(frame):
            place = corner + orientation[:3] * between_columns * column + orientation[3:] * between_rows * row
            position = tuple(float(x) for x in np.round(place, 3))
            uid = str(image.ReferencedSOPInstanceUID)
            found.append(Marked(name, position, uid, None if number is None else int(number)))
    return sorted(found, key=lambda marked: (marked.segment, marked.position_lps))
