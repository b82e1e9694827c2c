"""prepare: the whole command, what it refuses, how it goes on after a stop, and that no patient is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_series import CANARY
from phantom_head import real_head
from test_layouts_hemseg import head, line, spot, tree, write_jsonl
from test_layouts_pictures import drunet, slex_folders
from test_layouts_tables import write_table

from HemorrhageSegLib.brain import extract_brain
from NeuraxisLib.files import read_volume, write_volume
from Training import command, parts, prepare
from Training.data_checks import check_case, check_set, in_words
from Training.layouts.base import Finding
from Training.store import CaseInfo, Store, StoredCase
from Training.store_writer import describe

ONE = ["--workers", "1", "--no-brain"]


def table(folder: Path, count: int = 6, **changes) -> Path:
    """``cases.csv`` with small heads of different patients, each with its own spot."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        write_volume(head(number), folder / f"{number}.nrrd")
        write_volume(spot(head()), folder / f"{number}_truth.nrrd")
        row = {"id": f"c{number}", "image": f"{number}.nrrd", "truth": f"{number}_truth.nrrd",
               "patient": f"{CANARY}{number}", "group": "IPH", "split": "train" if number < 4 else "test"}  # fmt: skip
        rows.append(row | changes.get(f"c{number}", {}))
    return write_table(folder / "cases.csv", rows)


def run(*words: object) -> int:
    return prepare.main([str(word) for word in words])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_table_becomes_a_store(tmp_path, capsys):
    source = table(tmp_path / "data")
    assert run(source, tmp_path / "s.h5", *ONE) == 0
    store = Store(tmp_path / "s.h5")
    assert store.ids == [f"c{number}" for number in range(6)] and store.of_split("test") == ["c4", "c5"]
    assert np.array_equal(store.case("c3").image.array, read_volume(tmp_path / "data" / "3.nrrd").array)
    assert store.info("c3").unit == "HU" and store.info("c3").truth_ml == {1: pytest.approx(8 * 8 * 5 / 1000)}
    assert store.provenance["options"]["layout"] == "csv" and store.provenance["left_out"] == []
    assert files(tmp_path) == {"data", "s.h5"}
    told = capsys.readouterr()
    assert "6 cases of 6 patients" in told.out and "test 2, train 4" in told.out


def test_patients_are_pseudonyms_unless_their_names_are_asked_for(tmp_path, capsys):
    source = table(tmp_path / "data")
    for name, extra in (("a", []), ("b", []), ("named", ["--keep-patient-ids"])):
        assert run(source, tmp_path / f"{name}.h5", "--report", tmp_path / f"{name}.json", *ONE, *extra) == 0
    one, two, named = (Store(tmp_path / f"{name}.h5") for name in ("a", "b", "named"))
    assert [info.patient for info in one] == [info.patient for info in two]  # leaks between stores can be found
    assert len({info.patient for info in one}) == 6 and named.info("c0").patient == f"{CANARY}0"
    told = capsys.readouterr()
    for name in ("a.h5", "a.json", "named.json"):
        assert CANARY.encode() not in (tmp_path / name).read_bytes()
    assert CANARY not in told.out + told.err
    assert str(tmp_path).encode() not in (tmp_path / "a.h5").read_bytes()


def test_the_brain_is_found_in_ct_and_stored_as_the_region(tmp_path):
    volume, _ = real_head()
    (tmp_path / "d").mkdir()
    write_volume(volume, tmp_path / "d" / "a.nrrd")
    source = write_table(tmp_path / "d" / "cases.csv", [{"id": "a", "image": "a.nrrd"}])
    assert run(source, tmp_path / "s.h5", "--workers", "1") == 0
    case = Store(tmp_path / "s.h5").case("a")
    assert case.image.unit == "HU" and np.array_equal(case.region, extract_brain(case.image).mask)
    assert case.provenance["brain"]["confidence"] > 0.6


# -- faults ------------------------------------------------------------------------------------------------------


def faulty_table(folder: Path) -> Path:
    """Six cases, of which four are wrong in different ways."""
    source = table(folder)
    write_volume(head().like(np.zeros(head().array.shape, np.int16) + 255), folder / "0_truth.nrrd")  # no label
    moved = head().ijk_to_ras.copy()
    moved[2, 3] += 20
    write_volume(replace(spot(head()), ijk_to_ras=moved), folder / "1_truth.nrrd")  # elsewhere
    (folder / "2.nrrd").write_bytes((folder / "2.nrrd").read_bytes()[:500])  # cut short
    (folder / "3_truth.nrrd").unlink()  # not there
    return source


def test_all_faults_are_told_at_once_and_nothing_is_written(tmp_path, capsys):
    source = faulty_table(tmp_path / "data")
    assert run(source, tmp_path / "s.h5", "--report", tmp_path / "r.json", *ONE) == 1
    told = capsys.readouterr()
    for case, words in (("c0", "255"), ("c1", "does not lie where"), ("c2", "damaged"), ("c3", "truth of 'c3'")):
        assert any(case in text and words in text for text in told.err.splitlines()), case
    assert "4 faults" in told.out and not (tmp_path / "s.h5").exists()
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["status"] == 1 and len([f for f in report["findings"] if f["fault"]]) == 4


def test_mended_faults_need_no_second_reading_of_the_rest(tmp_path, monkeypatch):
    source = faulty_table(tmp_path / "data")
    assert run(source, tmp_path / "s.h5", *ONE) == 1
    table(tmp_path / "data2")
    for name in ("0_truth.nrrd", "1_truth.nrrd", "2.nrrd", "3_truth.nrrd"):
        shutil.copy(tmp_path / "data2" / name, tmp_path / "data" / name)
    read = []
    layout = parts.get_layout("csv")
    real_read = layout.read
    monkeypatch.setattr(layout, "read", lambda found, options: read.append(found.id) or real_read(found, options))
    assert run(source, tmp_path / "s.h5", *ONE) == 0
    assert read == ["c0", "c1", "c2", "c3"] and len(Store(tmp_path / "s.h5")) == 6
    assert files(tmp_path) == {"data", "data2", "s.h5"}


def test_faulty_cases_may_be_left_out_by_name(tmp_path, capsys):
    source = faulty_table(tmp_path / "data")
    assert run(source, tmp_path / "s.h5", "--skip-faulty", *ONE) == command.SOME_LEFT_OUT
    store = Store(tmp_path / "s.h5")
    assert store.ids == ["c4", "c5"] and store.provenance["left_out"] == ["c0", "c1", "c2", "c3"]
    assert "left out: 'c0', 'c1', 'c2', 'c3'" in capsys.readouterr().out


def test_a_patient_in_two_splits_is_told_with_the_other_faults(tmp_path, capsys):
    source = table(tmp_path / "data", c4={"patient": f"{CANARY}0"})
    (tmp_path / "data" / "4.nrrd").write_bytes(b"cut short")
    assert run(source, tmp_path / "s.h5", *ONE) == 1
    told = capsys.readouterr()
    assert "fault (leak)" in told.err and "'c4'" in told.err
    assert "; 2 faults, " in told.out and "; 5 can be used; " in told.out
    assert run(source, tmp_path / "s.h5", "--skip-faulty", *ONE) == command.SOME_LEFT_OUT


def test_a_patient_in_two_splits_is_a_fault_or_a_told_warning(tmp_path, capsys):
    source = table(tmp_path / "data", c4={"patient": f"{CANARY}0"})
    assert run(source, tmp_path / "s.h5", *ONE) == 1
    told = capsys.readouterr().err
    assert "fault (leak): Scans of one patient lie in 2 splits (train: 'c0'; test: 'c4')" in told and CANARY not in told
    assert run(source, tmp_path / "s.h5", "--allow-leaks", *ONE) == 0
    assert "warning (leak)" in capsys.readouterr().err
    assert run(source, tmp_path / "s.h5", "--split", "train=0.6,test=0.4", *ONE) == 0
    store = Store(tmp_path / "s.h5")
    assert store.info("c0").split == store.info("c4").split and len(store.splits) == 2


def test_hemseg_s_published_split_is_kept_with_its_leaks_reported(tmp_path, capsys):
    root = tree(tmp_path / "IPH_IVH", {"a": "train", "b": "train", "d": "test"})
    for number, path in enumerate(sorted(root.rglob("label/*"))):
        truth = head().array * 0
        truth[3, 6 + number, 6:9] = 1
        write_volume(head().like(truth), path)
    write_jsonl(root / "info.jsonl", [line(200, scan, who, ["0"]) for scan, who in zip("abd", "PQP")])
    assert run(root, tmp_path / "s.h5", "--layout", "hemseg", *ONE) == 1
    assert run(root, tmp_path / "s.h5", "--layout", "hemseg", "--allow-leaks", *ONE) == 0
    assert "Scans of one patient lie in 2 splits (train: 'a'; test: 'd')" in capsys.readouterr().err
    assert Store(tmp_path / "s.h5").splits == {"train": ["a", "b"], "test": ["d"]}


def test_pictures_come_in_with_their_flags(tmp_path):
    slex_folders(tmp_path / "slex", {str(number): 4 for number in range(5)})
    assert run(tmp_path / "slex", tmp_path / "slex.h5", "--layout", "slexnet-png", "--spacing-mm", "0.42,0.42,5",
               "--split", "train=3,val=1,test=1", *ONE) == 0  # fmt: skip
    store = Store(tmp_path / "slex.h5")
    assert store.splits == {"train": ["0", "1", "2"], "val": ["3"], "test": ["4"]}
    assert store.info("0").spacing_mm == pytest.approx((0.42, 0.42, 5)) and store.info("0").unit == "grey"
    drunet(tmp_path / "dr", ["1", "2", "3"])
    assert run(tmp_path / "dr", tmp_path / "dr.h5", "--layout", "drunet", "--folds", "3", *ONE) == 0
    assert sorted(Store(tmp_path / "dr.h5").splits) == ["fold0", "fold1", "fold2"]
    assert Store(tmp_path / "dr.h5").info("2").flags == ("patient unknown", "spacing unknown")


def test_lists_and_a_table_of_patients_are_followed(tmp_path, capsys):
    source = table(tmp_path / "data")
    (tmp_path / "train_set.csv").write_text("filename\nc0.nii.gz\nc1.nii.gz\n")
    (tmp_path / "dev_set.csv").write_text("id\nc4\n")
    (tmp_path / "who.csv").write_text("id,patient\nc1,P\nc4,P\n")
    lists = ["--lists", tmp_path / "train_set.csv", tmp_path / "dev_set.csv"]
    assert run(source, tmp_path / "s.h5", *ONE, *lists) == 0
    assert Store(tmp_path / "s.h5").splits == {"train": ["c0", "c1"], "": ["c2", "c3", "c5"], "val": ["c4"]}
    assert "3 of 6 cases are in no split" in capsys.readouterr().err
    assert run(source, tmp_path / "s.h5", *ONE, *lists, "--patients", tmp_path / "who.csv") == 1
    assert "Scans of one patient lie in 2 splits (train: 'c1'; val: 'c4')" in capsys.readouterr().err


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["gone.csv", "s.h5"], 1, "'gone.csv' was not found"),
        (["data/cases.csv", "s.zip"], 1, "must end in .h5"),
        (["data/cases.csv", "no/s.h5"], 1, "'s.h5' could not be written: its folder does not exist"),
        (["data/cases.csv", "s.h5", "--split", "train"], 1, "cannot be read"),
        (["data/cases.csv", "s.h5", "--folds", "1"], 1, "1 folds"),
        (["data/cases.csv", "s.h5", "--layout", "hemseg"], 1, "was not found"),
        (["data/cases.csv", "s.h5", "--spacing-mm", "1,2"], 2, "three numbers"),
        (["data/cases.csv", "s.h5", "--layout", "x"], 2, "invalid choice"),
        (["data/cases.csv"], 2, "required: output"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path, capsys, monkeypatch, words, status, told):
    table(tmp_path / "data", 2)
    monkeypatch.chdir(tmp_path)
    assert run(*words, *ONE) == status
    assert told in capsys.readouterr().err and files(tmp_path) <= {"data", "s.h5.parts"}


def test_checking_alone_writes_nothing(tmp_path, capsys):
    source = table(tmp_path / "data", 2)
    before = files(tmp_path / "data")
    assert run(source, tmp_path / "s.h5", "--check-only", *ONE) == 0
    assert files(tmp_path) == {"data"} and files(tmp_path / "data") == before
    assert "Checked 2 cases; 0 faults" in capsys.readouterr().out


def test_several_processes_make_the_same_store(tmp_path):
    source = table(tmp_path / "data")
    assert run(source, tmp_path / "one.h5", *ONE) == 0
    assert run(source, tmp_path / "two.h5", "--workers", "2", "--no-brain") == 0
    assert list(Store(tmp_path / "one.h5")) == list(Store(tmp_path / "two.h5"))


def test_a_damaged_part_is_made_again(tmp_path):
    source = faulty_table(tmp_path / "data")
    assert run(source, tmp_path / "s.h5", *ONE) == 1
    kept = sorted((tmp_path / "s.h5.parts").glob("*.h5"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:700])
    assert run(source, tmp_path / "s.h5", "--skip-faulty", *ONE) == command.SOME_LEFT_OUT
    assert Store(tmp_path / "s.h5").case("c4").truth.sum() == 1


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
def test_ctrl_c_ends_with_its_status_and_the_next_run_goes_on(tmp_path):
    source = table(tmp_path / "data", 60)
    arguments = [sys.executable, prepare.__file__, "--", str(source), str(tmp_path / "s.h5"), *ONE]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "s.h5.parts"
    while process.poll() is None and not any(kept.glob("[!.]*.h5")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "again to go on" in told and "Traceback" not in told
    made = {path: path.stat().st_mtime_ns for path in kept.glob("[!.]*.h5")}
    assert 0 < len(made) < 60 and not (tmp_path / "s.h5").exists()
    done = prepare.read_all(
        prepare.decide(parts.get_layout("csv").find(source, parts.LayoutOptions()).sources,
                       prepare.parse([str(source), "s.h5", *ONE])),
        parts.Reading("csv", brain=False), kept, 1,
    )  # fmt: skip
    assert len(done) == 60 and all(path.stat().st_mtime_ns == stamp for path, stamp in made.items())


def test_inside_slicer_the_status_is_handed_to_slicer(monkeypatch):
    asked = []
    exit_function = types.SimpleNamespace(exit=asked.append)
    monkeypatch.setitem(sys.modules, "slicer", types.SimpleNamespace(app=object(), util=exit_function))
    prepare.finish(prepare.main(["--", "gone", "s.h5"]))
    prepare.finish(prepare.main(["--", "--help"]))
    assert asked == [1, 0]


# -- the checks --------------------------------------------------------------------------------------------------


def case_of(**changes) -> StoredCase:
    volume = replace(head(), unit="HU")
    values = {"id": "x", "patient": "p", "group": "", "split": "", "image": volume, "truth": spot(volume).array}
    return StoredCase(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "kind", "fault"),
    [
        ({"truth": np.zeros((6, 20, 20), np.uint8)}, "empty", False),
        ({"truth": np.ones((6, 20, 20), np.uint8)}, "mask", False),
        ({"image": head().like(np.full((6, 20, 20), 7), "HU")}, "values", True),
        ({"image": head().like(np.arange(2400).reshape(6, 20, 20), "HU")}, "values", False),
        ({"region": np.zeros((6, 20, 20), bool)}, "region", False),
        ({"region": np.arange(6)[:, None, None] * np.ones((20, 20)) > 4}, "region", False),
        ({"provenance": {"warnings": ["Slice gaps differ."]}}, "reading", False),
    ],
)
def test_each_fault_of_a_case_is_found(changes, kind, fault):
    usual = [finding.kind for finding in check_case(case_of())]
    assert usual == ["spacing"]  # 8 mm pixels are unusual indeed
    found = [finding for finding in check_case(case_of(**changes)) if finding.kind not in usual]
    assert [(finding.kind, finding.fault) for finding in found] == [(kind, fault)]


def info_of(name: str, **changes) -> CaseInfo:
    truth = spot(head()).array.copy()
    truth[0, 0, hash_of(name)] = 1
    made = case_of(id=name, patient=f"p{name}", image=replace(head(hash_of(name)), unit="HU"), truth=truth)
    return replace(describe(made), **changes)


def hash_of(name: str) -> int:
    return sum(map(ord, name)) % 19


def test_faults_of_the_set_are_found():
    a, b, c = (info_of(name) for name in "abc")
    assert check_set([a, b, c]) == []
    twin = {"image_sha256": a.image_sha256, "truth_sha256": a.truth_sha256}
    expected = [
        ([a, replace(b, **twin, patient=a.patient)], "duplicate", False),
        ([a, replace(b, **twin)], "duplicate", True),
        ([a, replace(b, image_sha256=a.image_sha256, patient=a.patient)], "duplicate", True),
        ([a, replace(b, truth_sha256=a.truth_sha256)], "duplicate", False),
        ([a, replace(b, unit="grey")], "unit", True),
        ([replace(a, split="train"), replace(b, split="val", patient=a.patient)], "leak", True),
        ([replace(a, split="train"), b], "split", False),
        ([replace(a, truth_ml=None, truth_slices=None, truth_sha256="")], "truth", False),
        (
            [info_of(name, truth_ml={1: 1.0}) for name in "abcdefghij"] + [info_of("k", truth_ml={7: 1.0})],
            "labels",
            False,
        ),
    ]
    for infos, kind, fault in expected:
        assert [(finding.kind, finding.fault) for finding in check_set(infos)] == [(kind, fault)], kind


def test_many_findings_of_a_kind_are_counted():
    findings = [Finding("empty", f"'{number}' has an empty mask.", (), False) for number in range(9)]
    text = in_words([*findings, Finding("unit", "Mixed.", ())], most=3)
    assert text.splitlines()[0] == "fault (unit): Mixed." and len(text.splitlines()) == 5 and "6 more" in text
