"""simulate writes heads with their truth, the same for the same seed, each whole or not at all; neuraxis finds it."""

from __future__ import annotations

import csv
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from phantom_head import real_head
from tiny_training import write_sources

from NeuraxisLib import cli_training
from NeuraxisLib.cli import make_app
from NeuraxisLib.files import read_volume, write_volume
from Training import simulate
from Training.layouts import get_layout
from Training.layouts.base import LayoutOptions
from Training.simulate import Plan, split_by_patient


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[str]:
    """Options that name the phantom's files."""
    real, maps = write_sources(tmp_path_factory.mktemp("sources"))
    return ["--real", str(real), "--label-maps", str(maps), "--lesion-shapes", str(real / "none"), "--workers", "1"]


@pytest.fixture(scope="module")
def folder(sources, tmp_path_factory) -> Path:
    """Three planted heads and one synthetic one."""
    folder = tmp_path_factory.mktemp("simulated") / "set"
    assert simulate.main([str(folder), "--planted", "3", "--synthetic", "1", *sources]) == 0
    return folder


def rows(folder: Path) -> list[dict]:
    with open(folder / "cases.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_images_truth_and_region_share_a_grid_and_the_table_lists_them(folder):
    found = rows(folder)
    assert [row["id"] for row in found] == [f"planted_{n:05d}" for n in range(3)] + ["synthetic_00000"]
    assert [row["group"] for row in found] == ["planted"] * 3 + ["synthetic"]
    for row in found:
        image, truth, region = (read_volume(folder / row[column]) for column in ("image", "truth", "region"))
        assert image.array.shape == truth.array.shape == region.array.shape
        assert np.allclose(image.ijk_to_ras, truth.ijk_to_ras, atol=1e-5) and image.unit == "HU"
        assert np.isin(truth.array, range(6)).all() and np.isin(region.array, (0, 1)).all()
        if truth.array.any():
            blood, brain = truth.array > 0, region.array > 0
            assert brain[blood].mean() > 0.9
            assert np.median(image.array[blood]) > np.median(image.array[brain & (image.array < 100)]) + 5
    assert sum(read_volume(folder / row["truth"]).array.any() for row in found) >= 2


def test_what_simulate_writes_prepare_reads(folder):
    layout = get_layout("csv")
    options = LayoutOptions()
    found = layout.find(folder / "cases.csv", options)
    assert len(found.sources) == 4
    case = layout.read(found.sources[0], options)
    assert case.image.unit == "HU" and case.truth is not None and case.region is not None
    assert case.group == "planted" and case.split in ("train", "val", "test") and case.patient == "clean"


def test_the_same_seed_gives_the_same_heads_and_another_one_others(folder, sources, tmp_path):
    for seed, equal in ((1, True), (2, False)):
        other = tmp_path / str(seed)
        assert simulate.main([str(other), "--planted", "1", "--seed", str(seed), *sources]) == 0
        one, two = (read_volume(place / "images" / "planted_00000.nrrd").array for place in (folder, other))
        assert np.array_equal(one, two) == equal


def test_a_stopped_run_goes_on_and_a_case_is_whole_or_not_there(sources, tmp_path, monkeypatch, capsys):
    made, real_make = [], simulate.make

    def stop_at_the_second(plan: Plan, *rest):
        made.append(plan.name)
        if len(made) == 2:
            monkeypatch.setattr("NeuraxisLib.files.write_volume", stopped_in_the_image)
        real_make(plan, *rest)

    def stopped_in_the_image(volume, path, **options):
        if "images" in str(path):
            raise KeyboardInterrupt
        write_volume(volume, path, **options)

    monkeypatch.setattr(simulate, "make", stop_at_the_second)
    given = [str(tmp_path / "set"), "--planted", "3", *sources]
    assert simulate.main(given) == 130
    assert "go on" in capsys.readouterr().err
    assert [row["id"] for row in rows(tmp_path / "set")] == ["planted_00000"]
    assert sorted(path.name for path in (tmp_path / "set" / "images").iterdir()) == ["planted_00000.nrrd"]
    monkeypatch.undo()
    seen = []
    monkeypatch.setattr(simulate, "make", lambda plan, *rest: (seen.append(plan.name), real_make(plan, *rest)))
    assert simulate.main(given) == 0
    assert seen == ["planted_00001", "planted_00002"] and len(rows(tmp_path / "set")) == 3


def test_nifti_holds_no_tilted_head(sources, tmp_path):
    assert simulate.main([str(tmp_path), "--synthetic", "2", "--format", "nii.gz", *sources]) == 0
    for row in rows(tmp_path):
        volume = read_volume(tmp_path / row["image"])
        assert row["image"].endswith(".nii.gz") and not volume.is_sheared


@pytest.mark.parametrize(
    "arguments,words",
    [
        ([], "Nothing to simulate"),
        (["--planted", "1", "--seed", "7"], "another seed"),
        (["--planted", "1", "--split", "train"], "cannot be read"),
        (["--planted", "1", "--real", "none"], "'none'"),
        (["--synthetic", "1", "--label-maps", "none"], "'none'"),
    ],
)
def test_faults_are_one_sentence(folder, sources, capsys, arguments, words):
    before = (folder / "cases.csv").read_bytes()
    assert simulate.main([str(folder), *sources, *arguments]) == 1
    said = capsys.readouterr().err.strip()
    assert words in said and said.endswith(".") and "\n" not in said
    assert (folder / "cases.csv").read_bytes() == before


def test_splits_keep_patients_together_and_follow_the_shares():
    rng = np.random.default_rng(0)
    patients = [f"p{n}" for n in rng.integers(0, 60, 600)]
    splits = split_by_patient(patients, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert all(len({s for p, s in zip(patients, splits) if p == name}) == 1 for name in set(patients))
    shares = [splits.count(name) / 600 for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.04)
    assert split_by_patient(patients, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3) == splits
    assert split_by_patient(["a", "a"], {"train": 0.7, "val": 0.3}, seed=1) == ["train", "train"]


# -- the doors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(cli_training.PROGRAMS))
def test_slicer_is_asked_to_quit_with_the_status(name, monkeypatch, capsys):
    """Each program as ``Slicer --python-script Training/NAME.py -- ...`` runs it."""
    script = Path(simulate.__file__).with_name(f"{name}.py")
    statuses: list[int] = []
    fake = types.ModuleType("slicer")
    fake.app, fake.util = object(), types.SimpleNamespace(exit=statuses.append)
    monkeypatch.setitem(sys.modules, "slicer", fake)
    for given, status in ((["--", "--help"], 0), (["--", "--no-such-option"], 2)):
        monkeypatch.setattr(sys, "argv", [str(script), *given])
        exec(script.read_text(encoding="utf-8"), {"__name__": "__main__", "__file__": str(script)})
        assert statuses.pop() == status and not statuses
    assert "usage:" in capsys.readouterr().out


def test_neuraxis_hands_the_command_line_over_and_returns_the_status(monkeypatch, capsys):
    from typer.testing import CliRunner

    taken = []
    monkeypatch.setattr(simulate, "main", lambda arguments: taken.append(arguments) or 130)
    done = CliRunner().invoke(make_app(), ["simulate", "out", "--planted", "3", "--split", "train=1"])
    assert done.exit_code == 130 and taken == [["out", "--planted", "3", "--split", "train=1"]]
    monkeypatch.undo()
    done = CliRunner().invoke(make_app(), ["simulate", "--help"])
    assert done.exit_code == 0


def test_without_the_package_neuraxis_says_what_is_missing(monkeypatch, capsys):
    from typer.testing import CliRunner

    monkeypatch.setattr(cli_training, "PACKAGE", "NoSuchTraining")
    done = CliRunner().invoke(make_app(), ["train", "recipe.toml"])
    assert done.exit_code == 8
    assert "not part of this installation" in done.output + capsys.readouterr().err


def test_settings_of_a_folder_are_kept(folder):
    settings = json.loads((folder / "simulate.json").read_text())
    assert (settings["seed"], settings["format"]) == (1, "nrrd")
    assert real_head()[0].slice_count == read_volume(folder / rows(folder)[0]["image"]).slice_count
