"""Verdicts, corrections and exports on result folders: no Slicer; the way back into training is walked to its end."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from NeuraxisLib.errors import InputError, OutputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Landmark, Result
from NeuraxisLib.result_folder import read_result, write_result
from NeuraxisLib.review import (
    Review,
    fingerprint,
    fingerprint_of,
    new_review,
    read_review,
    remove_review,
    result_folders,
    reviewed_case,
    write_review,
)
from NeuraxisLib.review_corrections import found_result, is_corrected, write_corrected, write_found
from NeuraxisLib.volume import Volume
from Testing.slicer_stand_in.fake_worker import bleed_result
from Testing.slicer_stand_in.fixtures import TILTED, head_array

VOXEL_ML = 0.02


def head(shift: int = 0) -> Volume:
    """A tilted head, some HU brighter than another one."""
    return Volume((head_array() + shift).astype(np.int16), TILTED, "HU")


@pytest.fixture
def folder(tmp_path):
    """A result of one bleed of 6 mL."""
    return write_result(bleed_result(head()), tmp_path / "results" / "patient_7")


def larger() -> np.ndarray:
    """The bleed with one slice more: 8 mL."""
    labels = bleed_result(head()).labels.array
    labels[14] = labels[13]
    return labels


# -- verdicts -----------------------------------------------------------------------------------------------------


def test_a_verdict_is_written_read_and_taken_back(folder):
    assert read_review(folder) is None
    given = new_review("accepted", fingerprint_of(read_result(folder)), " good ", "AB")
    write_review(folder, given)
    assert read_review(folder) == given and given.comment == "good" and given.time.endswith("Z")
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == [], "nothing half written is left"
    case = reviewed_case(folder)
    assert (case.task, case.review, case.is_current) == ("hemorrhage", given, True)
    remove_review(folder)
    assert read_review(folder) is None


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"verdict": "maybe"}, "no verdict 'maybe'"),
        ({"verdict": "accepted", "reader": "12345678"}, "no initials"),
        ({"verdict": "accepted", "reader": "Alexander"}, "no initials"),
        ({"verdict": "accepted", "comment": "x" * 2001}, "longer than 2000"),
    ],
)
def test_what_is_no_verdict_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        Review(**fields)


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "cannot be read"),
        ("[]", "damaged"),
        ('{"schema": "neuraxis-review", "schema_version": 9, "verdict": "accepted"}', "newer"),
        ('{"schema": "neuraxis-review", "verdict": 3}', "damaged"),
        ('{"schema": "neuraxis-review", "verdict": "perhaps"}', "no verdict"),
    ],
)
def test_a_damaged_review_is_told(folder, text, words):
    (folder / "review.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_review(folder)
    assert words in reviewed_case(folder).error


def test_a_verdict_needs_a_result(tmp_path):
    with pytest.raises(InputError, match="not a result folder"):
        write_review(tmp_path, new_review("accepted", ""))


def test_fingerprint_is_of_voxels_or_of_points():
    labels = larger()
    other = labels.copy()
    other[0, 0, 0] = 1
    assert fingerprint(labels) == fingerprint(labels.astype(bool)) != fingerprint(other)
    assert fingerprint(labels) != fingerprint(labels.reshape(48, 32, 64))
    points = [Landmark("L5/S1", (0.0, 1.0, 2.0), 0.4), Landmark("L4/L5", (0.0, 1.0, 35.0))]
    same = [Landmark("L4/L5", (1e-6, 1.0, 35.0)), Landmark("L5/S1", (0.0, 1.0, 2.0))]
    assert fingerprint(None, points) == fingerprint(None, same)
    assert fingerprint(None, points) != fingerprint(None, [replace(points[0], name="L5/L6"), points[1]])


def test_results_are_found_below_a_folder(folder, tmp_path):
    other = write_result(bleed_result(head()), tmp_path / "results" / "deep" / "patient_2")
    assert result_folders(tmp_path) == [other, folder] and result_folders(folder) == [folder]
    with pytest.raises(InputError, match="no result"):
        result_folders(tmp_path / "results" / "deep" / "patient_2" / "nothing")


def test_a_reviewed_result_is_not_replaced(folder):
    write_review(folder, new_review("rejected", ""))
    with pytest.raises(OutputError, match=r"review\.json"):
        write_result(bleed_result(head()), folder)


# -- corrections --------------------------------------------------------------------------------------------------


def test_a_correction_measures_anew_and_the_way_back_is_exact(folder):
    found, text = read_result(folder), (folder / "result.json").read_text()
    write_review(folder, new_review("corrected", ""))
    write_corrected(folder, larger(), head())
    result = read_result(folder)
    total = result.measurements[0]
    assert (total.name, total.interval) == ("Total volume", None) and total.value == pytest.approx(400 * VOXEL_ML)
    assert "Edited by hand" in total.note and result.warnings[0].startswith("A person has edited")
    facts = {"by": "hand", "voxels_added": 100, "voxels_removed": 0, "voxels_relabelled": 0}
    assert result.provenance["corrected"] == facts and np.array_equal(result.labels.array, larger())
    assert "6.0" not in (folder / "measurements.csv").read_text().splitlines()[1]
    assert read_review(folder).verdict == "corrected", "what lies beside the result stays"
    assert is_corrected(folder) and found_result(folder).measurements == found.measurements
    write_found(folder, head())
    back = json.loads((folder / "result.json").read_text())
    assert {**back, "source": 0} == {**json.loads(text), "source": 0} and not is_corrected(folder)
    assert np.array_equal(read_result(folder).labels.array, found.labels.array)


def test_corrections_of_corrections_count_from_what_was_found(folder):
    write_corrected(folder, larger(), head())
    more = larger()
    more[15] = more[14]
    write_corrected(folder, more, head())
    assert read_result(folder).provenance["corrected"]["voxels_added"] == 200
    assert found_result(folder).labels.array.sum() == 300


def test_an_empty_outline_can_be_measured(folder):
    write_corrected(folder, np.zeros((24, 64, 64), np.uint8), head())
    values = {m.name: m.value for m in read_result(folder).measurements}
    assert values["Total volume"] == 0 and values["ABC/2"] is None and values["Slices touched"] == 0


# -- command line and the way into training -----------------------------------------------------------------------


def neuraxis(*arguments):
    """Exit code, standard output and error of a command."""
    typer = pytest.importorskip("typer")
    from typer.testing import CliRunner

    from NeuraxisLib.cli import make_app

    assert typer
    done = CliRunner().invoke(make_app(), [str(a) for a in arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Images and results of five cases: corrected, accepted, rejected, changed after the verdict, not reviewed."""
    tmp_path = tmp_path_factory.mktemp("study")
    (tmp_path / "scans").mkdir()
    for number, name in enumerate(("Ann_Smith", "Bob", "Cy", "Dee", "Eve")):
        image = head(number)
        write_volume(image, tmp_path / "scans" / f"{name}.nrrd")
        folder = write_result(bleed_result(image), tmp_path / "results" / name, report=False)
        if name == "Ann_Smith":
            write_corrected(folder, larger(), image)
        mark = fingerprint_of(read_result(folder))
        verdicts = {"Ann_Smith": "corrected", "Bob": "accepted", "Cy": "rejected", "Dee": "accepted"}
        if name in verdicts:
            write_review(folder, new_review(verdicts[name], mark, f"comment on {name}", "AB"))
        if name == "Dee":
            write_corrected(folder, larger(), image)
    return tmp_path


def test_list_of_verdicts(study):
    code, page, _ = neuraxis("review", "list", study / "results")
    lines = page.splitlines()
    assert code == 0 and lines[-1] == "5 results, 1 without a verdict."
    assert lines[0].startswith("Ann_Smith  corrected by AB, ") and lines[0].endswith(": comment on Ann_Smith")
    assert "changed after it" in lines[3] and lines[4] == "Eve        not reviewed"
    records = json.loads(neuraxis("review", "list", study / "results", "--json")[1])
    assert [r["review"] and r["review"]["is_current"] for r in records] == [True, True, True, False, None]


def test_export_and_prepare_find_the_corrected_voxels(study, tmp_path):
    pytest.importorskip("h5py")
    from Training.prepare import main
    from Training.store import Store

    code, page, told = neuraxis("review", "export", study / "results", tmp_path / "out", "--images", study / "scans")
    assert code == 0 and page.startswith("2 cases exported. Left out: 'Cy' (and 2 more): it was rejected.")
    assert "'Dee': it was changed after the verdict" in told and "'Eve': it has no verdict" in told
    command = "neuraxis prepare hemorrhage hemorrhage.h5 --layout csv"
    assert command in page
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    text = "".join(str(path.relative_to(tmp_path)) + path.read_text(errors="ignore") for path in files)
    assert not any(word in text for word in ("Smith", "Bob", "comment", '"AB"'))
    source, store = tmp_path / "out" / "hemorrhage", tmp_path / "h.h5"
    assert main([str(source), str(store), *command.split()[-2:], "--no-brain", "--workers", "1"]) == 0
    with (source / "cases.csv").open() as file:
        names = [row["id"] for row in csv.DictReader(file)]
    with Store(store) as opened:
        cases = [opened.case(name) for name in names]
    assert np.array_equal(cases[0].truth, larger()) and cases[1].truth.sum() == 300
    assert np.array_equal(cases[0].image.array, head(0).array) and np.allclose(cases[0].image.ijk_to_ras, TILTED)
    assert cases[0].image.unit == "HU" and len({case.patient for case in cases}) == 2
    verdicts = {v["verdict"] for v in json.loads((tmp_path / "out" / "about.json").read_text())["cases"].values()}
    assert verdicts == {"corrected", "accepted"}


def test_the_same_scan_has_the_same_name_everywhere(study, tmp_path):
    for name in ("one", "two"):
        image = study / "scans" / "Bob.nrrd"
        neuraxis("review", "export", study / "results" / "Bob", tmp_path / name, "--images", image)
    tables = [(tmp_path / name / "hemorrhage" / "cases.csv").read_text() for name in ("one", "two")]
    assert tables[0] == tables[1] and tables[0].count("case-") == 4


def test_export_of_nothing_says_why_and_leaves_nothing(study, tmp_path):
    out = tmp_path / "out"
    code, _, told = neuraxis("review", "export", study / "results" / "Eve", out)
    assert code == 3 and "'Eve': it has no verdict yet" in told and not out.exists()
    code, _, told = neuraxis("review", "export", study / "results" / "Bob", out)
    assert code == 3 and "--images" in told
    write_volume(replace(head(), ijk_to_ras=np.diag([1.0, 1, 5, 1])), tmp_path / "other.nrrd")
    code, _, told = neuraxis("review", "export", study / "results" / "Bob", out, "--images", tmp_path / "other.nrrd")
    assert code == 3 and "not the one that it was made from" in told
    code, _, told = neuraxis("review", "export", study / "results", study / "scans", "--images", study / "scans")
    assert code == 7 and "not an empty folder" in told


def spine() -> tuple[Volume, Result]:
    """A sagittal image and five discs in it, 33 mm apart, from L1/L2 down."""
    image = Volume(np.random.default_rng(5).integers(0, 500, (9, 120, 60), np.int16),
                   np.array([[0, 0, 4.0, -16], [-1.5, 0, 0, 44], [0, -1.5, 0, 90], [0, 0, 0, 1]]))  # fmt: skip
    names = ("L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1")
    points = [Landmark(name, (0.0, 2.0 * i, 60.0 - 33 * i), 0.9) for i, name in enumerate(names)]
    return image, Result("discs", image, points=points)


def test_discs_export_and_prepare_find_the_corrected_chain(tmp_path):
    pytest.importorskip("h5py")
    from Training.prepare import main
    from Training.store import Store

    image, result = spine()
    folder = write_result(result, tmp_path / "spine", report=False)
    write_review(folder, new_review("corrected", fingerprint_of(read_result(folder))))
    write_volume(image, tmp_path / "image.nrrd")
    code, page, _ = neuraxis("review", "export", folder, tmp_path / "out", "--images", tmp_path / "image.nrrd")
    options = ["--layout", "sct-discs", "--disc-points", "centre"]
    assert code == 0 and " ".join(options) in page
    assert main([str(tmp_path / "out" / "discs"), str(tmp_path / "d.h5"), *options, "--workers", "1"]) == 0
    with Store(tmp_path / "d.h5") as store:
        (info,) = store
    stored = info.provenance["discs"]
    assert [number for number, *_ in stored] == [21, 22, 23, 24, 25]
    apart = np.array([place for _, *place in stored]) - [point.position_ras_mm for point in result.points]
    assert np.abs(apart).max() <= 2.0, "half a voxel"
