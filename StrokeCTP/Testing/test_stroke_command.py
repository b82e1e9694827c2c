"""Bad input through the public command: one sentence on stderr, an exit code, and nothing written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stroke_cases import LPS, head, maps_array, scan
from test_stroke_prediction import NUMBERS, Rule, model_of
from typer.testing import CliRunner

from NeuraxisLib import cli
from NeuraxisLib.files import write_volume
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.volume import Volume
from StrokeCTPLib import study
from StrokeCTPLib.map_preprocessing import RANGES
from Training.simulation.ctp_phantom import GammaVariate
from Training.simulation.ctp_stroke_phantom import ARTERY, GREY, VEIN

INPUT, GEOMETRY = 3, 4


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """The command leaves threads and signals of the test's process alone."""
    monkeypatch.setattr(cli, "prepare_process", lambda *arguments, **named: None)
    study._kept.clear()


def neuraxis(*arguments):
    quick = ["--device", "cpu", "--no-edge-preserving"]
    return CliRunner().invoke(cli.make_app(), ["stroke", *map(str, arguments), *quick])


def refused(folder: Path, volume: Volume, *options) -> str:
    """The sentence with which frames are refused; nothing may be left of the result."""
    write_volume(volume, folder / "ctp.nii.gz")
    done = neuraxis(folder / "ctp.nii.gz", folder / "out", *options)
    assert done.exit_code in (INPUT, GEOMETRY), done.output
    assert [path.name for path in folder.iterdir() if "out" in path.name] == []
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.endswith(".") and len(sentence) < 260 and str(folder) not in sentence
    return sentence


def only(volume: Volume, frames: slice) -> Volume:
    return replace(volume, array=volume.array[frames], frame_times_s=volume.frame_times_s[frames])


# -- frames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, words", [(4, "has 4 frames where perfusion needs at least 5"), (12, "has 12 frames")])
def test_too_few_frames(tmp_path, count, words):
    assert words in refused(tmp_path, only(scan(), slice(count)))


def test_one_image_is_no_acquisition(tmp_path):
    write_volume(Volume(scan().array[0], scan().ijk_to_ras, "HU"), tmp_path / "ct.nii.gz")
    done = neuraxis(tmp_path / "ct.nii.gz", tmp_path / "out")
    assert done.exit_code == INPUT and "ct.nii.gz" in done.stderr and not (tmp_path / "out").exists()


def test_no_contrast(tmp_path):
    noise = np.random.default_rng(0).normal(0, 2, scan().array.shape)
    still = np.rint(scan().array[:1] + noise).astype(np.int16)
    assert "no contrast reached it" in refused(tmp_path, replace(scan(), array=still))


def test_only_the_start_of_the_bolus(tmp_path):
    late = {"artery": GammaVariate(7.0, 3.0, 5.0, 220.0), "times_s": tuple(np.arange(20) * 1.0)}
    assert "ends while contrast is still rising" in refused(tmp_path, scan(**late))


def test_no_baseline(tmp_path):
    early = scan(times_s=tuple(18 + np.arange(40) * 1.5))
    early = replace(early, frame_times_s=early.frame_times_s - early.frame_times_s[0])
    assert "there is no baseline" in refused(tmp_path, early)


@pytest.mark.parametrize(
    "times, words",
    [
        (np.zeros(45), "gives all frames the same time"),
        (np.r_[np.arange(44) * 1.5, 64.5], "the same time as"),
        (np.arange(45) * 1.5 / 60, "give times in seconds"),
        (np.arange(44) * 1.5, "45"),
        (
            np.outer(np.arange(45) * 1.5, np.ones(8)) + np.r_[np.zeros(7), 1] * (100 - 3.0 * np.arange(45))[:, None],
            "earlier",
        ),
    ],
    ids=["constant", "twice the same", "minutes", "one missing", "unsorted"],
)
def test_times_that_cannot_be_used(tmp_path, times, words):
    np.savetxt(tmp_path / "given.csv", times, delimiter=",")
    assert words in refused(tmp_path, scan(), "--times", tmp_path / "given.csv")


def test_no_artery(tmp_path):
    """A head whose vessels carry no contrast, but whose tissue fills slowly and keeps most of it."""
    volume, vessels = scan(noise_hu=6.0), np.isin(head().tissue, (ARTERY, VEIN))
    array = volume.array.copy()
    array[:, vessels] = 38
    fills = np.interp(np.arange(45), (8, 22, 44), (0, 40, 32))
    grey = head().tissue == GREY
    array[:, grey] = np.rint(head(noise_hu=6.0).frames.array[:1, grey] + fills[:, None])
    assert "No artery was found" in refused(tmp_path, replace(volume, array=array))


def test_motion_beyond_repair(tmp_path):
    array = scan().array.copy()
    array[10:25] = array[10:25, :, ::-1].transpose(0, 1, 3, 2)  # no small movement explains this
    array[10:25] = np.roll(array[10:25], 30, axis=3)
    assert "moved beyond repair in 15 of 45 frames" in refused(tmp_path, replace(scan(), array=array))


def test_values_that_are_no_hu(tmp_path):
    stored = scan().array + np.int16(1024)
    assert "does not hold HU" in refused(tmp_path, replace(scan(), array=stored))


@pytest.mark.parametrize(
    "options, words",
    [
        (("--nihss", 43), "An NIHSS of 43 does not exist; give a value from 0 to 42"),
        (("--nihss", -1), "An NIHSS of -1 does not exist"),
        (("--age", 150), "not plausible"),
        (("--onset-hours", -2), "hours since last seen well are negative"),
        (("--artery", "3,4"), "not slice,row,column"),
        (("--rcbf", 1.5), "rcbf lies between 0.01 and 0.99"),
        (("--family", "magic"), "choose one of: calibrated, svd, model"),
        (("--interval-s", 100), "interval s lies between"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, words):
    done = neuraxis("nothing.nii.gz", tmp_path / "out", *options)
    assert done.exit_code == INPUT and words in done.stderr.replace("\n", " ")


# -- maps ---------------------------------------------------------------------------------------------------------


def write_maps(folder: Path, skip=(), units=None, matrices=None) -> Path:
    folder.mkdir()
    units = {"cbf": "mL/100 g/min", "cbv": "mL/100 g", "tmax": "s", **(units or {})}
    for name, array in maps_array().items():
        if name not in skip:
            matrix = (matrices or {}).get(name, LPS)
            write_volume(Volume(array, matrix, units[name]), folder / f"{name}.nrrd")
    return folder


def test_a_folder_of_maps_is_measured(tmp_path):
    done = neuraxis(write_maps(tmp_path / "maps"), tmp_path / "out", "--json", "--nihss", 8)
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["measurements"][0]["name"] == "Core volume"
    assert record["measurements"][0]["value"] == pytest.approx(1.5)
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    "faults, words",
    [
        ({"skip": ("tmax",)}, "The map set is incomplete: TMAX is missing"),
        ({"units": {"cbf": "kg"}}, "'kg', which is no unit of CBF"),
        ({"matrices": {"tmax": LPS + np.diag([0, 0, 0.5, 0])}}, "lie on different grids"),
    ],
    ids=["incomplete", "wrong units", "other grid"],
)
def test_maps_that_cannot_be_used(tmp_path, faults, words):
    done = neuraxis(write_maps(tmp_path / "maps", **faults), tmp_path / "out")
    assert done.exit_code in (INPUT, GEOMETRY) and words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_file_draws_on_given_maps(tmp_path, monkeypatch):
    """The network calls a Tmax above 6 s late and a CBF below 30 of it core: 12 mL and 1.5 mL of the maps."""
    model_of(tmp_path / "rule.safetensors", Rule, NUMBERS, monkeypatch, notice="A toy.")
    maps = write_maps(tmp_path / "maps")
    done = neuraxis(maps, tmp_path / "out", "--model", tmp_path / "rule.safetensors", "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    values = {m["name"]: m["value"] for m in record["measurements"]}
    assert values["Core volume"] == pytest.approx(1.5) and values["Hypoperfused volume"] == pytest.approx(12.0)
    assert values["Hypoperfused volume by thresholds"] == pytest.approx(11.92)
    assert record["provenance"]["network"]["maps"] == ["cbf", "tmax"] and record["warnings"][-1] == "A toy."
    assert record["warnings"][-2].startswith("The network sees 64 mm of a brain of 80 mm")


def test_a_model_file_draws_on_maps_of_frames(tmp_path, monkeypatch):
    """What the rule of the network finds is what the same rule finds on the maps of the result."""
    model_of(tmp_path / "rule.safetensors", Rule, replace(NUMBERS, pixel_mm=3.2), monkeypatch)  # 64 pixels see it all
    write_volume(scan(), tmp_path / "ctp.nii.gz")
    done = neuraxis(tmp_path / "ctp.nii.gz", tmp_path / "out", "--model", tmp_path / "rule.safetensors", "--json")
    assert done.exit_code == 0, done.stderr
    values = {m["name"]: m["value"] for m in json.loads(done.stdout)["measurements"]}
    result = read_result(tmp_path / "out")
    late = result.maps["tmax"].volume.array > RANGES["tmax"][1] / 2
    late_ml = float(late.sum(axis=(1, 2)) @ result.source.voxel_volumes_ml)
    assert late_ml > 30 and values["Hypoperfused volume"] == pytest.approx(late_ml, rel=0.15)
    assert np.mean((result.labels.array > 0) == late) > 0.98
    assert values["Core volume by thresholds"] == pytest.approx(50.5, rel=0.25)


def test_a_published_rule_is_no_model_of_this_command(tmp_path):
    done = neuraxis(write_maps(tmp_path / "maps"), tmp_path / "out", "--model", "syngo")
    assert done.exit_code != 0 and not (tmp_path / "out").exists()
    assert "'syngo' is a rule that 'neuraxis evaluate' compares models with" in done.stderr


def test_given_maps_have_no_model_family(tmp_path):
    done = neuraxis(write_maps(tmp_path / "maps"), tmp_path / "out", "--family", "model")
    assert done.exit_code == INPUT and "no model of ours" in done.stderr


def test_a_mask_that_lies_elsewhere(tmp_path):
    write_volume(Volume(np.zeros((6, 100, 80), np.uint8), LPS + np.diag([0, 0, 1.0, 0])), tmp_path / "mask.nrrd")
    done = neuraxis(write_maps(tmp_path / "maps"), tmp_path / "out", "--exclude", tmp_path / "mask.nrrd")
    assert done.exit_code in (INPUT, GEOMETRY) and "another grid" in done.stderr
