"""The door of the stroke task: what a path holds is told, and read as that; the worker's files too."""

from __future__ import annotations

from pathlib import Path

import ctp_dicom as build
import numpy as np
import pytest
from ctp_dicom import UNIFORM_S
from stroke_cases import LPS, map_set, scan

from NeuraxisLib.errors import InputError
from NeuraxisLib.exchange import write_exchange
from NeuraxisLib.files import write_volume
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.frames import Frames
from StrokeCTPLib.inputs import read_perfusion
from StrokeCTPLib.map_set import MapSet
from StrokeCTPLib.task import StrokeOptions


def read(path: Path, **options):
    return read_perfusion(path, StrokeOptions(**options), None, False, Progress())


@pytest.mark.parametrize(
    "make",
    [build.one_series, build.series_per_time_point, build.enhanced],
    ids=["series", "per time point", "enhanced"],
)
def test_a_dicom_folder_of_frames_is_frames(tmp_path, make):
    found = read(make(tmp_path / "study"))
    assert isinstance(found, Frames) and np.abs(found.times_s - UNIFORM_S).max() < 0.002


def test_a_4d_file_is_frames_with_the_times_given(tmp_path):
    write_volume(scan(), tmp_path / "ctp.nii.gz")
    np.savetxt(tmp_path / "when.txt", np.arange(45) * 2.0)
    found = read(tmp_path / "ctp.nii.gz", times=str(tmp_path / "when.txt"))
    assert isinstance(found, Frames) and found.report.interval_s == pytest.approx(2.0)
    assert read(tmp_path / "ctp.nii.gz", interval_s=1.0).report.interval_s == pytest.approx(1.0)


def test_the_worker_s_file_keeps_the_times_of_every_slice(tmp_path):
    times = np.arange(45)[:, None] * 1.5 + np.arange(8) * 0.1
    sent = Volume(scan().array, scan().ijk_to_ras, "HU", frame_times_s=times)
    path = write_exchange(sent, tmp_path / "perfusion.exchange.nrrd")
    found = read(path)
    assert np.allclose(found.times_s, times) and np.array_equal(found.volume.array, sent.array)
    assert read(path, interval_s=2.0).report.slice_spread_s == 0
    write_exchange(Volume(scan().array[0], LPS, "HU"), path)
    with pytest.raises(InputError, match="'perfusion' is one image without frames over time"):
        read(path)


def test_a_folder_of_maps_is_a_map_set(tmp_path):
    for name, volume in map_set().maps.items():
        write_volume(volume.like(np.nan_to_num(volume.array), volume.unit), tmp_path / f"{name}.nrrd")
    found = read(tmp_path)
    assert isinstance(found, MapSet) and set(found.maps) == {"cbf", "cbv", "tmax"}
    assert isinstance(read(tmp_path, kind="maps"), MapSet)


def test_a_folder_with_one_4d_file_is_its_frames(tmp_path):
    write_volume(scan(), tmp_path / "ctp.nii.gz")
    write_volume(Volume(scan().array[0], LPS, "HU"), tmp_path / "plain.nii.gz")  # of another purpose
    np.savetxt(tmp_path / "ctp_times.txt", np.arange(45) * 2.0)
    found = read(tmp_path)
    assert isinstance(found, Frames) and found.report.interval_s == pytest.approx(2.0)
    assert np.array_equal(found.volume.array, scan().array)
    write_volume(scan(), tmp_path / "again.nrrd")
    with pytest.raises(InputError, match="holds 2 4-D image files; choose one of them, such as '.*/again.nrrd'"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["auto", "frames", "maps"])
@pytest.mark.parametrize("content, chosen", [("frames", "frames/stroke_00000.nrrd"), ("maps", "maps/stroke_00000")])
def test_the_truth_of_a_simulation_is_taken_for_no_maps(tmp_path, kind, content, chosen):
    """Laid out as simulate --stroke does; its own test reads the true folder."""
    folder = tmp_path / "strokes"
    maps = [folder / "truth_maps" / "stroke_00000"]
    if content == "maps":
        maps.append(folder / "maps" / "stroke_00000")
    else:
        (folder / "frames").mkdir(parents=True)
        write_volume(scan(), folder / "frames" / "stroke_00000.nrrd")
    for place in maps:
        place.mkdir(parents=True)
        for name, volume in map_set().maps.items():
            write_volume(volume.like(np.nan_to_num(volume.array), volume.unit), place / f"{name}.nrrd")
    (folder / "cases.csv").write_text("id\nstroke_00000\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"'strokes' holds simulated strokes .* such as 'strokes/{chosen}'"):
        read(folder, kind=kind)
    assert isinstance(read(folder / chosen), Frames if content == "frames" else MapSet)


def test_what_is_not_there_is_named_as_missing(tmp_path):
    with pytest.raises(InputError, match="'nothing' was not found"):
        read(tmp_path / "nothing")
