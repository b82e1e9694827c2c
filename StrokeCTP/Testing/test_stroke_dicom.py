"""A stroke that was computed from perfusion frames goes back as DICOM to one time point of its acquisition."""

from __future__ import annotations

from dataclasses import replace

import ctp_dicom as build
import numpy as np
import pydicom
import pytest

from NeuraxisLib.dicom_export import export_dicom
from NeuraxisLib.errors import GeometryError
from NeuraxisLib.result import Measurement, Result, ScalarMap
from NeuraxisLib.result_folder import write_result
from StrokeCTPLib.frames import read_frames

LAYOUTS = {
    "one series": build.one_series,
    "a series per time point": build.series_per_time_point,
    "place by place": build.position_major,
    "a table that moves": build.shuttle,
    "one enhanced file": build.enhanced,
    "an enhanced file per time point": build.enhanced_per_time_point,
}
TIMES = build.UNIFORM_S[:6]


def stroke_of(folder, output):
    """A result on the grid of the frames in a folder, with one voxel of core in the third slice."""
    volume = read_frames(folder).volume
    source = replace(volume, array=volume.array.mean(axis=0), frame_times_s=None)
    labels = np.zeros(source.array.shape, np.uint8)
    labels[2, 5, 7] = 2
    maps = {"tmax": ScalarMap(source.like(labels.astype(np.float32), "s"), "Tmax", (0.0, 12.0))}
    result = Result("stroke", source, source.like(labels), maps, [Measurement("Core volume", 0.98, "mL")])
    result.provenance = {"neuraxis": "0.1.0", "model": None, "acquisition": {"frames": len(volume.array)}}
    return write_result(result, output)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    make = LAYOUTS[layout]
    folder = make(tmp_path / "frames") if make is build.shuttle else make(tmp_path / "frames", TIMES)
    result = stroke_of(folder, tmp_path / "result")
    exported = export_dicom(result, folder, tmp_path / "dicom")
    assert len(exported.files) == 4
    dataset = pydicom.dcmread(exported.files[0])
    (group,) = dataset.PerFrameFunctionalGroupsSequence
    assert list(map(float, group.PlanePositionSequence[0].ImagePositionPatient)) == [-112.0, -112.0, 10.0]
    assert np.argwhere(dataset.pixel_array.reshape(16, 16)).tolist() == [[5, 7]]
    images = group.DerivationImageSequence[0].SourceImageSequence
    files = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    assert {height_of(image, files) for image in images} == {10.0}
    # one file with all time points is referred to with all its frames of that place
    assert len(images) == (len(TIMES) if layout == "one enhanced file" else 1)


def height_of(reference, files) -> float:
    """Height in mm of the image (the frame) that an item of a SEG refers to."""
    source = next(one for one in files if reference.ReferencedSOPInstanceUID == one.SOPInstanceUID)
    if "NumberOfFrames" not in source:
        return float(source.ImagePositionPatient[2])
    frame = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
    return float(frame.PlanePositionSequence[0].ImagePositionPatient[2])


def test_another_acquisition_is_refused(tmp_path):
    result = stroke_of(build.one_series(tmp_path / "frames", TIMES), tmp_path / "result")
    other = build.one_series(tmp_path / "other", TIMES, heights_mm=build.HEIGHTS_MM + 2)
    with pytest.raises(GeometryError, match="has the slices of the result"):
        export_dicom(result, other, tmp_path / "dicom")
