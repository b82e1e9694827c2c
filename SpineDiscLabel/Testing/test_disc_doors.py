"""What the command line offers beside labelling: files for other programs, earlier ways of naming to compare with."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from disc_oracle import field_of_view, images_of, oracle, spine
from typer.testing import CliRunner

from NeuraxisLib.cli import as_record, make_app, summary
from NeuraxisLib.errors import InputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.models import ModelFile
from NeuraxisLib.result import Landmark, Result
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.task import Progress
from SpineDiscLabelLib import pipeline
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_COUNT, DISC_NAMES
from SpineDiscLabelLib.naming_legacy import legacy_chain
from SpineDiscLabelLib.panel_scene import found_chain
from SpineDiscLabelLib.preprocessing import SagittalPreprocessing
from SpineDiscLabelLib.task import DiscOptions

PLACES = {"L3/L4": (1.0, -12.0, -20.0), "L4/L5": (2.0, -15.0, -54.0), "L5/S1": (1.5, -10.0, -88.0)}


@pytest.fixture
def result(tmp_path) -> Path:
    """A result folder with three discs."""
    points = [Landmark(name, place, 0.9) for name, place in PLACES.items()]
    grid = field_of_view(9, 4.0, 120, 100, 1.0)
    write_result(Result("discs", grid, points=points), tmp_path / "result", report=False)
    return tmp_path / "result"


def labels(*arguments) -> object:
    return CliRunner().invoke(make_app(), ["labels", *map(str, arguments)])


def test_labels_of_a_result_for_the_toolbox(result, tmp_path):
    done = labels(result, tmp_path / "labels.nii.gz", "--backward-mm", 5)
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "labels.nii.gz")
    found = read_volume(tmp_path / "labels.nii.gz")
    assert sorted(found.array[found.array > 0]) == [23, 24, 25]
    for number, place in zip((23, 24, 25), PLACES.values()):
        k, j, i = np.argwhere(found.array == number)[0]
        there = (found.ijk_to_ras @ [i, j, k, 1])[:3]
        assert (np.abs(there - np.subtract(place, (0, 5, 0))) <= (2.01, 0.51, 0.51)).all()


def test_other_forms_of_a_result(result, tmp_path):
    assert labels(result, tmp_path / "discs.csv", "--format", "csv").exit_code == 0
    rows = list(csv.DictReader((tmp_path / "discs.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["disc"], row["name"], float(row["S_mm"])) for row in rows] == [
        ("23", "L3/L4", -20.0), ("24", "L4/L5", -54.0), ("25", "L5/S1", -88.0)
    ]  # fmt: skip
    assert labels(result, tmp_path / "discs.mrk.json").exit_code == 0
    points = json.loads((tmp_path / "discs.mrk.json").read_text())["markups"][0]["controlPoints"]
    assert [point["label"] for point in points] == list(PLACES)
    (tmp_path / "set").mkdir()
    assert labels(result, tmp_path / "set", "--format", "bids", "--subject", "01", "--suffix", "T1w").exit_code == 0
    made = tmp_path / "set/derivatives/labels/sub-01/anat/sub-01_T1w_label-discs_dlabel.nii.gz"
    assert sorted(np.unique(read_volume(made).array)) == [0, 23, 24, 25]
    assert json.loads(made.with_name(made.name.replace(".nii.gz", ".json")).read_text())["Reviewed"] is False


@pytest.mark.parametrize(
    ("output", "more", "code", "words"),
    [
        ("discs.docx", (), 7, "does not say what to write"),
        ("discs.csv", ("--format", "sct"), 7, "no name for sct; end it in .nii.gz"),
        ("discs.csv", ("--format", "xml"), 3, "no format 'xml'"),
        ("absent", ("--format", "bids", "--subject", "01"), 7, "does not exist"),
        (".", ("--format", "bids"), 3, "no BIDS label"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(result, tmp_path, output, more, code, words):
    done = labels(result, tmp_path / output, *more)
    assert done.exit_code == code and words in done.stderr and done.stdout == ""


def test_a_result_of_another_task_has_no_discs(tmp_path):
    grid = field_of_view(3, 4.0, 20, 20, 1.0)
    write_result(Result("stroke", grid, points=[Landmark("Artery", (0, 0, -5.0))]), tmp_path / "r", report=False)
    done = labels(tmp_path / "r", tmp_path / "discs.csv")
    assert done.exit_code == 3 and "'Artery' is the name of no disc" in done.stderr
    assert not (tmp_path / "discs.csv").exists()


def test_names_stand_in_what_the_command_line_prints(tmp_path):
    points = [Landmark("L4/L5", (0, 0, -5.0), 0.97), Landmark("L5/S1", (0, 0, -40.0), 0.5)]
    told = Result("discs", field_of_view(3, 4.0, 20, 20, 1.0), points=points)
    assert "Points: L4/L5 (97 %), L5/S1 (50 %)" in summary(told, tmp_path)
    assert [point["name"] for point in as_record(told, tmp_path)["points"]] == ["L4/L5", "L5/S1"]


# -- earlier ways of naming ---------------------------------------------------------------------------------------


def label(monkeypatch, tmp_path, numbers: range, **options) -> Result:
    """What the pipeline makes of a spine that its network sees perfectly."""
    discs = spine(numbers, top_mm=-30.0)
    monkeypatch.setattr(pipeline, "sagittal_images", lambda volume, shown: images_of(volume, discs, numbers, shown))
    monkeypatch.setattr(pipeline, "disc_predictor", lambda *_: oracle())
    header = {"preprocessing": SagittalPreprocessing().to_dict(), "threshold": 0.3, "notice": "A test."}
    (tmp_path / "oracle.safetensors").write_bytes(b"it knows the answer")
    model = ModelFile(tmp_path / "oracle.safetensors", {**header, "name": "oracle", "title": "Oracle"})
    return pipeline.run({"mr": field_of_view(9, 4.0, 320, 280, 1.0)}, model, DiscOptions(**options), Progress())


@pytest.mark.parametrize("method", ["skeleton", "fork", "conditions"])
def test_earlier_methods_name_the_discs_they_were_made_for(monkeypatch, tmp_path, method):
    result = label(monkeypatch, tmp_path, range(3, 14), naming=method)
    assert [point.name for point in result.points] == [DISC_NAMES[number] for number in range(3, 14)]
    chance = next(m for m in result.measurements if m.name == "Probability of this numbering")
    assert chance.value is None  # none of them knows one
    assert any(f"earlier method '{method}'" in warning for warning in result.warnings)
    assert result.provenance["options"]["naming"] == method
    assert found_chain([], result.provenance["chain"]).state.probability == 0.0  # the panel can read it too


def test_a_lumbar_spine_is_beyond_them(monkeypatch, tmp_path):
    """The skeleton begins at C2/C3; the rules count from there, unless they are told where to begin."""
    with pytest.raises(InputError, match="at least five discs from C2/C3 downward"):
        label(monkeypatch, tmp_path, range(19, 26), naming="skeleton")
    with pytest.raises(InputError, match="'fork' keeps no disc"):
        label(monkeypatch, tmp_path, range(19, 26), naming="fork")
    assert label(monkeypatch, tmp_path, range(19, 26), naming="conditions").points[0].name == "C2/C3"
    told = label(monkeypatch, tmp_path, range(19, 26), naming="conditions", highest="T11/T12")
    assert [point.name for point in told.points] == [DISC_NAMES[number] for number in range(19, 26)]


def test_options_that_do_not_go_together():
    with pytest.raises(InputError, match="no naming 'best'"):
        DiscOptions(naming="best")
    with pytest.raises(InputError, match="takes no disc that you know"):
        DiscOptions(naming="skeleton", highest="C2/C3")
    with pytest.raises(InputError, match="takes no disc that you know"):
        DiscOptions(naming="conditions", lowest="L5/S1")


def test_names_below_the_last_disc_are_left_out():
    straight = [Candidate(np.array([0.0, 0.0, -20.0 * i]), 0.9, np.zeros(DISC_COUNT)) for i in range(8)]
    chain = legacy_chain(straight, "conditions", "L3/L4")
    assert [disc.name for disc in chain.discs] == ["L3/L4", "L4/L5", "L5/S1"]
    with pytest.raises(InputError, match="no disc 'Q9'"):
        legacy_chain(straight, "conditions", "Q9")
