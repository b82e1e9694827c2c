"""simulate --stroke writes series that the stroke task reads, with their truth, and maps that prepare reads."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from project_tree import ROOT

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.volume import Volume
from StrokeCTPLib.frames import read_frames
from StrokeCTPLib.map_set import read_map_set
from Training import simulate, strokes
from Training.layouts import get_layout
from Training.layouts.base import LayoutOptions

SAMPLES = ROOT / "Training" / "SampleAnatomy"
ASKED = ["--stroke", "2", "--content", "both", "--seed", "5"]
SMALL = ["--size", "64", "--still", "--label-maps", str(SAMPLES), "--lesion-shapes", "none", "--workers", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two strokes with frames and maps."""
    folder = tmp_path_factory.mktemp("strokes") / "set"
    assert (
        simulate.main([str(folder), "--stroke", "2", "--content", "both", "--noise", "1", "--seed", "5", *SMALL]) == 0
    )
    return folder


def rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_frames_are_read_with_their_times_and_truth_lies_on_their_grid(folder):
    for row, facts in zip(rows(folder / "cases.csv"), rows(folder / "facts.csv")):
        frames = read_frames(folder / row["frames"])
        assert len(frames.volume.array) == int(facts["frames"]) and frames.volume.unit == "HU"
        assert np.ptp(frames.times_s) == pytest.approx(float(facts["duration_s"]), abs=0.1)
        assert frames.report.slice_spread_s > 0 if facts["shuttle"] == "1" else frames.report.slice_spread_s == 0
        truth = read_volume(folder / row["truth"])
        assert truth.array.shape == frames.volume.array.shape[1:]
        assert np.allclose(truth.ijk_to_ras, frames.volume.ijk_to_ras, atol=1e-4)
        ml = (truth.array > 0).sum(axis=(1, 2)) @ truth.voxel_volumes_ml
        assert ml == pytest.approx(float(facts["hypoperfused_ml"]), abs=0.05)
        true_flow = read_volume(folder / "truth_maps" / row["id"] / "cbf.nrrd", allow_nan=True)
        assert np.isfinite(true_flow.array[truth.array > 0]).all() and true_flow.unit == "mL/100 g/min"


def test_the_whole_folder_is_no_acquisition_and_its_truth_no_maps(folder):
    for read in (read_frames, read_map_set):
        with pytest.raises(InputError, match="such as 'set/frames/stroke_00000.nrrd'"):
            read(folder)


def test_prepare_reads_the_maps(folder):
    layout, options = get_layout("maps"), LayoutOptions()
    found = layout.find(folder / "cases.csv", options)
    assert len(found.sources) == 2
    case = layout.read(found.sources[0], options)
    assert set(case.channels) == set(strokes.MAPS) and case.patient.startswith("training_seg")
    assert case.truth is not None and case.region.any() and not case.region.all()
    assert case.flags == ("simulated",)  # so that the model's notice says what it learnt from


def test_a_stopped_run_goes_on_and_settings_are_kept(folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in (folder / "truth").iterdir()}
    given = [str(folder), *ASKED, "--noise", "1", *SMALL]
    assert simulate.main(given) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "truth").iterdir()}
    assert (
        simulate.main([str(folder), "--stroke", "2", "--content", "both", "--noise", "2", "--seed", "5", *SMALL]) == 1
    )
    assert "another noise" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--stroke", "1", "--planted", "1"], "folders of their own"),
        (["--stroke", "1", "--size", "8"], "matrix of 8"),
        (["--stroke", "1", "--noise", "-1"], "noise of -1"),
        (["--stroke", "1", "--atlas", "none.nii.gz"], "'none.nii.gz'"),
        (["--stroke", "1", "--label-maps", "none"], "'none'"),
    ],
)
def test_faults_are_one_sentence(tmp_path, capsys, arguments, words):
    assert simulate.main([str(tmp_path / "new"), *SMALL, *arguments]) == 1
    said = capsys.readouterr().err.strip()
    assert words in said and said.endswith(".") and "\n" not in said


@pytest.mark.parametrize("compress", [False, True])
def test_frames_are_written_as_a_sequence_with_true_times(tmp_path, compress):
    times = np.array([0.0, 1.5, 3.0, 6.25, 8.0, 10.5])
    array = np.arange(6 * 2 * 3 * 4).reshape(6, 2, 3, 4).astype(np.int16) - 60
    matrix = np.array([[-0.9, 0, 0, 5], [0, -0.9, 0.3, -7], [0, 0, 5.0, 11], [0, 0, 0, 1]])
    write_volume(Volume(array, matrix, "HU", frame_times_s=times), tmp_path / "scan.nrrd", compress)
    frames = read_frames(tmp_path / "scan.nrrd")
    assert np.array_equal(frames.volume.array, array) and np.allclose(frames.volume.ijk_to_ras, matrix, atol=1e-6)
    assert frames.times_s[:, 0] == pytest.approx(times) and frames.report.time_source == "the times stored in the file"
