"""Where the cases of a batch come from: trees, tables, DICOM directories with the right series, and folder names."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from NeuraxisLib import task
from NeuraxisLib.batch_cases import Case, cases_in, cases_of_files, find_cases, folder_names, free_name, gathered
from NeuraxisLib.batch_dicom import study_key
from NeuraxisLib.errors import InputError
from NeuraxisLib.input_digest import input_digest, input_stamp
from NeuraxisLib.run import read_input
from NeuraxisLib.series_rule import SeriesRule
from NeuraxisLib.task import get_task
from Testing.dicom_series import CANARY, SPARSE_MM, change, new_uid, save, series, truncated_header

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from batch_support import write_scan  # noqa: E402

HEAD = get_task("hemorrhage")


@pytest.fixture
def threshold(monkeypatch):
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    return get_task("threshold")


# -- trees ----------------------------------------------------------------------------------------------------


def test_every_image_of_a_tree_is_a_case_named_by_its_place(threshold, tmp_path):
    for name in ("b.nii.gz", "a.nrrd", "sub-1/anat/t2.nii.gz", ".hidden/x.nrrd", "out/old.nrrd"):
        write_scan(tmp_path / "tree" / name)
    (tmp_path / "tree" / "notes.txt").write_text("x")
    (tmp_path / "tree" / "earlier").mkdir()
    (tmp_path / "tree" / "earlier" / "result.json").write_text("{}")
    cases = find_cases(tmp_path / "tree", threshold, tmp_path / "tree" / "out")
    assert [case.name for case in cases] == ["a", "b", "sub-1/anat/t2"]
    assert cases[2].inputs == {"ct": str(tmp_path / "tree" / "sub-1" / "anat" / "t2.nii.gz")}
    only = find_cases(tmp_path / "tree", threshold, tmp_path / "out", match="t2*")
    assert [case.name for case in only] == ["sub-1/anat/t2"]
    with pytest.raises(InputError, match=r"no case that fits '\*.mha'"):
        find_cases(tmp_path / "tree", threshold, tmp_path / "out", match="*.mha")


def test_an_empty_folder_for_the_results_is_no_case(threshold, tmp_path):
    write_scan(tmp_path / "tree" / "a.nrrd")
    (tmp_path / "tree" / "out").mkdir()
    assert [case.name for case in find_cases(tmp_path / "tree", threshold, tmp_path / "tree" / "out")] == ["a"]


def test_folders_of_frames_or_maps_are_one_case_each_for_perfusion(tmp_path):
    for name in ("one/frames.nrrd", "two/cbf.nii.gz", "two/tmax.nii.gz", "alone.nii.gz"):
        write_scan(tmp_path / "tree" / name)
    cases = find_cases(tmp_path / "tree", get_task("stroke"), tmp_path / "out")
    assert [(case.name, Path(case.inputs["perfusion"]).name) for case in cases] == [
        ("alone", "alone.nii.gz"), ("one", "one"), ("two", "two"),
    ]  # fmt: skip


def test_a_place_without_cases_is_named(threshold, tmp_path):
    with pytest.raises(InputError, match="'nowhere' was not found"):
        find_cases(tmp_path / "nowhere", threshold, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no case in 'empty'"):
        find_cases(tmp_path / "empty", threshold, tmp_path / "out")


def test_cases_of_a_folder(tmp_path):
    for name in ("b.nii.gz", "a.nrrd", ".hidden.nrrd", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("dicom", "empty", "out", "earlier", ".git"):
        (tmp_path / name).mkdir()
    for name in ("dicom/1.dcm", "out/x", "earlier/result.json", ".git/x"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in cases_in(tmp_path, tmp_path / "out")] == ["a.nrrd", "b.nii.gz", "dicom"]


# -- tables ---------------------------------------------------------------------------------------------------


def table(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cases.csv").write_text(text, encoding="utf-8")
    return folder / "cases.csv"


def test_a_table_names_cases_inputs_and_options(threshold, tmp_path):
    file = table(
        tmp_path,
        "\ufeffcase;ct;threshold_hu;keep_empty;_age;series\nA/1;scans/a.nrrd;80;no;71;\nB;/data/b;;;;3\n",
    )
    cases = find_cases(file, threshold, tmp_path / "out")
    assert cases[0] == Case(
        "A/1", {"ct": str(tmp_path / "scans" / "a.nrrd")}, None, {"threshold_hu": "80", "keep_empty": False}
    )
    assert cases[1] == Case("B", {"ct": "/data/b"}, "3", {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,ct,age\nA,a.nrrd,3\n", "column 'age'"),
        ("case,ct\nA,a.nrrd\nA,b.nrrd\n", "the case 'A' twice"),
        ("case,ct\nA,\n", "Line 2"),
        ("case,ct\n", "holds no case"),
    ],
)
def test_a_table_that_cannot_be_understood_says_where(threshold, tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        find_cases(table(tmp_path, text), threshold, tmp_path / "out")


# -- DICOM ----------------------------------------------------------------------------------------------------


@pytest.fixture
def patients(tmp_path) -> Path:
    """Two patients: one with a bone and a soft series and a scout, one with a thin sagittal series alone."""
    folder = tmp_path / "archive"
    study = new_uid()[:40].rstrip(".")
    for place, number, kernel in (("bone", 3, "H70h"), ("soft", 4, "H31s")):
        save(series(SPARSE_MM, uid=f"{study}.{number}", matrix=32, pixel_mm=7.0), folder / "p1" / place)
        change(folder / "p1" / place, ConvolutionKernel=kernel, SeriesNumber=number, StudyInstanceUID=study)
    save(series(SPARSE_MM[:2], uid=f"{study}.1", matrix=32, pixel_mm=7.0), folder / "p1" / "scout")
    change(folder / "p1" / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], StudyInstanceUID=study)
    save(series(SPARSE_MM[:4], matrix=32, pixel_mm=7.0), folder / "p2")
    return folder


def test_the_rule_takes_the_right_series_and_says_why(patients, tmp_path):
    first, second = find_cases(patients, HEAD, tmp_path / "out")
    assert (first.name, Path(first.inputs["ct"]).name) == ("p1", "soft")
    assert "H31s" in first.chosen and "not a sharp kernel" in first.chosen and "localizer" in first.chosen
    assert read_input(Path(first.inputs["ct"]), first.series).meta["kernel"] == "H31s"
    assert second.name == "p2" and "4 slices" in second.fault and second.fault.endswith(".")
    for case in (first, second):
        assert CANARY not in repr((case.name, case.chosen, case.fault))


def test_a_flat_directory_holds_a_case_per_study(patients, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(patients.rglob("*.dcm"))):
        path.rename(flat / f"I{number:05d}")
    cases = find_cases(flat, HEAD, tmp_path / "out")
    assert len(cases) == 2 and all(case.name.startswith("flat/study-") for case in cases)
    (usable,) = [case for case in cases if not case.fault]
    assert len(usable.inputs["ct"]) == len(SPARSE_MM)
    with gathered(usable.inputs) as inputs:
        assert read_input(Path(inputs["ct"]), usable.series).array.shape == (len(SPARSE_MM), 32, 32)
        private = Path(inputs["ct"]).parent
    assert not private.exists() and len(list(flat.iterdir())) > len(SPARSE_MM)


def test_a_damaged_slice_is_never_left_out(tmp_path):
    truncated_header(tmp_path / "archive" / "p1")
    (case,) = find_cases(tmp_path / "archive", HEAD, tmp_path / "out")
    with gathered(case.inputs) as inputs, pytest.raises(InputError, match="0021.dcm"):
        read_input(Path(inputs["ct"]), case.series)


def test_rules_of_the_tasks():
    assert HEAD.series.modality == "CT" and HEAD.series.orientation == "axial"
    assert get_task("discs").series.orientation == "sagittal" and get_task("stroke").series.whole_study
    assert SeriesRule() == get_task("stroke").series.__class__()


def test_perfusion_gets_the_whole_study(patients, tmp_path):
    first, _ = find_cases(patients, get_task("stroke"), tmp_path / "out")
    assert len(first.inputs["perfusion"]) == 2 * len(SPARSE_MM) + 2 and "its images among them" in first.chosen


def test_study_keys_tell_nothing():
    assert study_key("1.2.3") == study_key("1.2.3") != study_key("1.2.4") and "1.2" not in study_key("1.2.3")


# -- names and digests ----------------------------------------------------------------------------------------


def test_folder_names_are_safe_and_differ():
    folders = folder_names(["a/b", "a_b", "A_B", "../../etc", "x" * 300, "Zürich 3", "?*", "plain"])
    assert folders["plain"] == "plain" and folders["Zürich 3"] == "Zürich 3"
    assert len({name.casefold() for name in folders.values()}) == len(folders)
    assert all("/" not in name and ".." not in name and len(name) <= 80 for name in folders.values())


def test_names_are_free_whatever_the_case():
    taken = set()
    names = [free_name(SimpleNamespace(name=name), taken) for name in ("Scan.nii.gz", "scan.dcm", "scan")]
    assert names == ["Scan", "scan_2", "scan_3"]
    assert [case.name for case in cases_of_files(["a/x.nrrd", "b/x.nrrd"], HEAD)] == ["x", "x_2"]


def test_the_digest_follows_the_content_and_the_stamp_the_files(tmp_path):
    one, other = write_scan(tmp_path / "one.nrrd"), write_scan(tmp_path / "other.nrrd")
    assert input_digest({"ct": str(one)}) == input_digest({"ct": str(other)})
    assert input_digest({"ct": str(one)}) != input_digest({"mask": str(one)})
    stamp = input_stamp({"ct": str(one)})
    write_scan(one, 3)
    assert input_stamp({"ct": str(one)}) != stamp
    assert input_digest({"ct": str(one)}) != input_digest({"ct": str(other)})
    files = (str(one), str(other))
    assert input_digest({"ct": files}) == input_digest({"ct": files[::-1]})
