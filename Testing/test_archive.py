"""A small archive of all three tasks through a cluster that loses a worker, as Testing/benchmarks/archive_of_200.py."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

from NeuraxisLib.batch import Batch
from NeuraxisLib.batch_cases import find_cases
from NeuraxisLib.task import get_task
from Testing.archive_faults import FAULTS, write_broken
from Testing.archive_studies import GOOD, write_good
from Testing.project_tree import ROOT

sys.path.append(str(ROOT / "Neuraxis" / "Testing" / "worker_support"))
from batch_support import InlineWorkers


@pytest.mark.slow
def test_no_study_is_lost_or_silently_wrong_although_a_worker_is_killed(tmp_path):
    pytest.importorskip("distributed")
    pytest.importorskip("torch")
    from Testing.benchmarks import archive_of_200

    outcome = archive_of_200.hold(tmp_path, studies=12, broken=0.3, seed=3)
    assert outcome.faults == []
    assert len(outcome.verdicts) == 12 and {v.end for v in outcome.verdicts} == {archive_of_200.RIGHT}
    assert sum(bool(v.study.sentence) for v in outcome.verdicts) == 4
    assert len(outcome.computed) >= 2 and outcome.moves == 0


def test_what_the_judge_calls_lost_or_wrong(tmp_path):
    """A judge that lets everything pass would make the archive worthless."""
    pytest.importorskip("distributed")
    from Testing.benchmarks import archive_of_200

    bad = archive_of_200.Study("discs", "a", "broken", sentence="is cut short")
    good = archive_of_200.Study("discs", "b", "good", (4, 5, 6), "Discs found", 1, 8)
    ends = [
        archive_of_200._judge_one(study, row, tmp_path).end
        for study, row in (
            (bad, {"status": "failed", "error": "'a.nrrd' is cut short; copy it again."}),
            (bad, {"status": "failed", "error": "Something went wrong."}),
            (bad, {"status": "failed", "error": "'/data/a.nrrd' is cut short; copy it again."}),
            (bad, {"status": "done", "error": "", "result_folder": "a"}),
            (bad, None),
            (good, {"status": "failed", "error": "'b.nrrd' is cut short; copy it again."}),
            (good, {"status": "not done", "error": ""}),
            (good, {"status": "done", "error": "", "result_folder": "b"}),  # which is not there
        )
    ]
    assert ends == ["right", *["wrong-silent"] * 3, *["lost"] * 4]


def test_what_a_rerun_must_not_leave_or_change(tmp_path):
    pytest.importorskip("distributed")
    from Testing.benchmarks.archive_of_200 import entered_twice, half_written, state

    for name in ("discs/whole/result.json", "discs/part/labels.seg.nrrd", "discs/.whole.7.partial/result.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}")
    assert half_written(tmp_path) == ["discs/.whole.7.partial", "discs/part"]
    (tmp_path / "discs" / "batch.jsonl").write_text('{"case": "a"}\n{"case": "b"}\n{"case": "a"}\n')
    assert entered_twice(tmp_path) == ["discs a"]
    before = state(tmp_path)
    os.utime(tmp_path / "discs" / "whole" / "result.json", ns=(1, 1))
    assert [name for name, facts in state(tmp_path).items() if facts != before[name]] == ["discs/whole/result.json"]


@pytest.mark.parametrize("task", GOOD)
def test_studies_are_found_in_every_form(task, tmp_path):
    rng = np.random.default_rng(0)
    written = [write_good(task, number, tmp_path / f"g{number}", rng) for number in range(len(GOOD[task]))]
    written += [write_broken(task, number, tmp_path / f"z{number:02d}", rng) for number in range(len(FAULTS[task]))]
    cases = find_cases(tmp_path, get_task(task), tmp_path / "out")
    assert [case.name for case in cases] == [study.name for study in written]
    assert len({study.kind for study in written}) == len(written)


def test_what_cannot_be_a_case_is_told_once(tmp_path):
    """An empty folder and damaged files called DICOM are cases with a sentence; a rerun adds nothing to the ledger."""
    archive, out = tmp_path / "archive", tmp_path / "out"
    for name in ("empty", "no_bytes", "localizers", "notes"):
        (archive / name).mkdir(parents=True)
    (archive / "no_bytes" / "1.dcm").write_bytes(b"")
    (archive / "notes" / "README.txt").write_text("no study at all")
    localizers = next(i for i, fault in enumerate(FAULTS["hemorrhage"]) if fault.kind == "localizers only")
    write_broken("hemorrhage", localizers, archive / "localizers", np.random.default_rng(0))
    first, again = _run(archive, out), _run(archive, out)
    assert [name for name, *_ in first] == ["empty", "localizers", "no_bytes"]
    for (_, error, _), words in zip(first, ("'empty' is empty", "(localizer)", "'1.dcm' cannot be read as DICOM")):
        assert words in error
    assert [earlier for *_, earlier in first] == [False] * 3
    assert again == [(name, error, True) for name, error, _ in first]
    lines = (out / "batch.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["empty", "localizers", "no_bytes"]


def _run(archive, out):
    cases = find_cases(archive, get_task("hemorrhage"), out)
    batch = Batch("hemorrhage", cases, out, InlineWorkers(), device="cpu")
    batch.wait()
    return [(entry.case.name, entry.error, entry.earlier) for entry in batch.entries]
