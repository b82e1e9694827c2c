"""The batch runner: every case ends in a result or a sentence, nothing is done twice, nothing is lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from NeuraxisLib import batch_ledger, batch_table
from NeuraxisLib.batch import Batch, CaseOutcome, summary
from NeuraxisLib.batch_cases import find_cases
from NeuraxisLib.errors import (
    CancelledError,
    DependencyError,
    InputError,
    OutputError,
    WorkerError,
    WorkerStartError,
)
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.task import get_task

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from bare_models import write_bare_model  # noqa: E402
from batch_support import VOXEL_ML, InlineWorkers, write_scan  # noqa: E402
from worker_fixtures import threshold_task  # noqa: E402, F401


@pytest.fixture
def model(tmp_path) -> str:
    return str(write_bare_model(tmp_path / "bright.safetensors"))


@pytest.fixture
def scans(tmp_path) -> Path:
    """Four scans in a tree, one of them broken."""
    folder = tmp_path / "archive"
    for number, name in enumerate(("first.nrrd", "sub/second.nii.gz", "sub/deep/third.nrrd"), 1):
        write_scan(folder / name, 10 * number)
    (folder / "broken.nrrd").write_bytes(b"not an image")
    return folder


def start(scans, out, model, workers=None, **settings) -> Batch:
    cases = find_cases(scans, get_task("threshold"), out)
    return Batch("threshold", cases, out, workers or InlineWorkers(), model=model, **settings)


def rows(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "cases.csv", encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_every_case_ends_in_a_result_or_a_sentence(scans, model, tmp_path):
    batch = start(scans, tmp_path / "out", model)
    outcomes = batch.wait()
    assert [outcome.folder and outcome.folder.name for outcome in outcomes] == [
        None, "first", "sub_deep_third", "sub_second",
    ]  # fmt: skip
    assert "broken.nrrd" in outcomes[0].error and batch.state == "done"
    assert read_result(outcomes[2].folder).measurements[0].value == pytest.approx(30 * VOXEL_ML)
    found = rows(tmp_path / "out")
    assert float(found["sub/second"]["Total volume [mL]"]) == pytest.approx(20 * VOXEL_ML)
    assert float(found["sub/second"]["Total volume, high [mL]"]) == pytest.approx(22 * VOXEL_ML)
    assert found["broken"]["status"] == "failed" and found["broken"]["error_code"] == "input"
    assert found["first"]["result_folder"] == "first" and found["first"]["model"] == "bright"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>3</b> done" in page and "broken.nrrd" in page and "Total volume [mL]" in page


def test_no_path_of_this_computer_in_tables_report_and_ledger(scans, model, tmp_path):
    start(scans, tmp_path / "out", model).wait()
    for name in ("cases.csv", "report.html", "batch.jsonl"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text()


def test_parquet_holds_the_table_with_its_types(scans, model, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    start(scans, tmp_path / "out", model).wait()
    table = parquet.read_table(tmp_path / "out" / "cases.parquet")
    assert table.column("Total volume [mL]").type == "double" and table.column("case").to_pylist()[0] == "broken"
    assert table.column("Total volume [mL]").to_pylist()[0] is None
    assert table.column("attempts").to_pylist() == [1, 1, 1, 1]


def test_without_pyarrow_a_sentence_says_so(scans, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    batch = start(scans, tmp_path / "out", model)
    batch.wait()
    assert "pyarrow" in batch.notes[0] and (tmp_path / "out" / "cases.csv").is_file()


def test_polls_do_not_wait_for_long_tables_but_the_end_does(scans, model, tmp_path, monkeypatch):
    slow, write = threading.Event(), batch_table.write_csv
    monkeypatch.setattr(batch_table, "write_csv", lambda *table: (slow.wait(60), write(*table))[1])
    monkeypatch.setattr(batch_table, "EVERY_S", 0.0)
    batch = start(scans, tmp_path / "out", model)
    while batch.count("waiting") or batch.count("running"):
        batch.poll()
    batch.poll()
    assert not batch.is_finished and not (tmp_path / "out" / "report.html").exists()
    slow.set()
    batch.wait()
    assert batch.state == "done" and (tmp_path / "out" / "report.html").is_file()
    assert sorted(row["status"] for row in rows(tmp_path / "out").values()) == ["done", "done", "done", "failed"]


def test_a_table_that_cannot_be_made_is_told_and_the_batch_ends(scans, model, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_table, "table", lambda entries: 1 / 0)
    batch = start(scans, tmp_path / "out", model)
    assert len(batch.wait()) == 4 and batch.state == "done"
    assert len(batch.notes) == 1 and "ZeroDivisionError" in batch.notes[0]


# -- going on -------------------------------------------------------------------------------------------------


def test_a_rerun_does_nothing(scans, model, tmp_path):
    start(scans, tmp_path / "out", model).wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("labels.seg.nrrd")}
    workers = InlineWorkers()
    again = start(scans, tmp_path / "out", model, workers)
    assert len(again.wait()) == 4 and workers.computed == [] and all(entry.earlier for entry in again.entries)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("labels.seg.nrrd")} == before
    assert rows(tmp_path / "out")["first"]["Total volume [mL]"] == "0.05"


def test_without_a_free_worker_finished_cases_are_passed_over_and_the_rest_says_what_it_waits_for(
    scans, model, tmp_path
):
    start(scans, tmp_path / "out", model).wait()
    assert start(scans, tmp_path / "out", model, InlineWorkers(0)).wait() and len(rows(tmp_path / "out")) == 4
    write_scan(scans / "new.nrrd", 50)
    batch = start(scans, tmp_path / "out", model, InlineWorkers(0))
    for _ in range(3):
        batch.poll()
    assert batch.stage == "Waiting for a worker to join the scheduler" and not batch.is_finished
    batch.close()


@pytest.mark.parametrize("change", ["input", "option", "model", "removed result"])
def test_what_has_changed_is_done_again(scans, model, tmp_path, change):
    start(scans, tmp_path / "out", model).wait()
    options = {}
    if change == "input":
        write_scan(scans / "first.nrrd", 17)
    elif change == "option":
        options = {"threshold_hu": 200}
    elif change == "model":
        write_bare_model(Path(model), title="Another")
    else:
        shutil.rmtree(tmp_path / "out" / "first")
    workers = InlineWorkers()
    start(scans, tmp_path / "out", model, workers, options=options).wait()
    everything = ["broken", "first", "sub_deep_third", "sub_second"]
    assert workers.computed == (["first"] if change in ("input", "removed result") else everything)
    expected = {"input": 17, "option": 0, "model": 10, "removed result": 10}[change]
    assert float(rows(tmp_path / "out")["first"]["Total volume [mL]"]) == pytest.approx(expected * VOXEL_ML)


def test_an_archive_that_was_copied_is_known_again_by_its_content(scans, model, tmp_path):
    start(scans, tmp_path / "out", model).wait()
    moved = shutil.copytree(scans, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    (moved / "broken.nrrd").unlink()
    workers = InlineWorkers()
    start(moved, tmp_path / "out", model, workers).wait()
    assert workers.computed == []


def test_a_result_that_a_kill_left_out_of_the_ledger_is_taken_over(scans, model, tmp_path):
    start(scans, tmp_path / "out", model).wait()
    ledger = tmp_path / "out" / "batch.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # cut off in the third line
    workers = InlineWorkers()
    batch = start(scans, tmp_path / "out", model, workers)
    batch.wait()
    assert workers.computed == [] and len(rows(tmp_path / "out")) == 4
    assert all(json.loads(line) for line in ledger.read_bytes().splitlines() if line[:40] != lines[2][:40])
    workers = InlineWorkers()
    start(scans, tmp_path / "out", model, workers).wait()
    assert workers.computed == []


def test_failed_cases_are_tried_again_on_request_only(scans, model, tmp_path):
    start(scans, tmp_path / "out", model).wait()
    workers = InlineWorkers()
    start(scans, tmp_path / "out", model, workers, retry_failed=True).wait()
    assert workers.computed == ["broken"]
    batch = start(scans, tmp_path / "out", model, workers)
    batch.wait()
    write_scan(scans / "broken.nrrd", 5)
    batch.retry_failed()
    assert not batch.is_finished and batch.wait()[0].folder.name == "broken"
    assert rows(tmp_path / "out")["broken"]["status"] == "done"


def test_two_batches_do_not_share_an_output_folder(scans, model, tmp_path):
    first = start(scans, tmp_path / "out", model)
    with pytest.raises(OutputError, match="Another batch is writing to 'out'"):
        start(scans, tmp_path / "out", model)
    first.wait()
    start(scans, tmp_path / "out", model).wait()


def test_what_lost_workers_left_is_swept_at_the_end(scans, model, tmp_path):
    """A half written folder goes; an earlier result that was moved aside, but not replaced, comes back."""
    start(scans, tmp_path / "out", model).wait()
    living = os.getpid()
    (tmp_path / "out" / f".first.{living}.partial").mkdir()
    (tmp_path / "out" / "first").rename(tmp_path / "out" / f".first.old.{living}.partial")
    (tmp_path / "out" / "sub_second").rename(tmp_path / "out" / f".sub_second.old.{living}.partial")
    batch = start(scans, tmp_path / "out", model)
    batch.entries[:] = [batch.entries[0]]  # one that needs no worker
    batch._waiting.clear()
    batch.wait()
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "first", "sub_deep_third", "sub_second",
    ]  # fmt: skip


# -- faults ---------------------------------------------------------------------------------------------------


def fail(error, times, name="first"):
    """Raises the error for one case, the first so many times."""
    left = [times]

    def before(job):
        if Path(job.output).name == name and left[0]:
            left[0] -= 1
            raise error

    return before


def test_a_case_whose_worker_died_is_tried_once_more_after_the_others(scans, model, tmp_path):
    workers = InlineWorkers(before=fail(WorkerError("The computing process crashed; run again."), 1))
    outcomes = start(scans, tmp_path / "out", model, workers).wait()
    assert workers.computed == ["broken", "first", "sub_deep_third", "sub_second", "first"]
    assert outcomes[1].folder.name == "first" and rows(tmp_path / "out")["first"]["attempts"] == "2"


def test_a_case_that_kills_every_worker_is_set_aside(scans, model, tmp_path):
    workers = InlineWorkers(before=fail(WorkerError("The computing process crashed; run again."), 9))
    outcomes = start(scans, tmp_path / "out", model, workers).wait()
    assert workers.computed.count("first") == 2 and len([o for o in outcomes if o.folder]) == 2
    assert outcomes[1].error == "The computing process crashed; run again. (It was tried 2 times.)"


@pytest.mark.parametrize("error", [WorkerStartError("No worker can start."), DependencyError("torch is missing.")])
def test_what_would_stop_every_case_stops_the_batch(scans, model, tmp_path, error):
    workers = InlineWorkers(before=fail(error, 9))
    batch = start(scans, tmp_path / "out", model, workers)
    with pytest.raises(type(error)):
        batch.wait()
    assert batch.state == "stopped" and workers.computed == ["broken", "first"]
    assert rows(tmp_path / "out")["first"]["status"] == "not done"
    assert "Stopped before the end" in (tmp_path / "out" / "report.html").read_text()
    assert len(start(scans, tmp_path / "out", model).wait()) == 4


def test_options_and_models_are_judged_before_any_case(scans, model, tmp_path):
    with pytest.raises(InputError, match="no option 'treshold'"):
        start(scans, tmp_path / "out", model, options={"treshold": 1}).wait()
    with pytest.raises(Exception, match="no model file"):
        start(scans, tmp_path / "out", str(tmp_path / "none.safetensors"))


def test_a_full_disk_stops_the_batch(scans, model, tmp_path, monkeypatch):
    from NeuraxisLib import batch_record

    monkeypatch.setattr(batch_record, "free_bytes", lambda folder: 0)
    workers = InlineWorkers(before=fail(OutputError("'first' could not be written: the disk is full."), 1))
    batch = start(scans, tmp_path / "out", model, workers)
    with pytest.raises(OutputError):
        batch.wait()
    assert workers.computed == ["broken", "first"]


# -- control --------------------------------------------------------------------------------------------------


def test_cancel_keeps_what_is_finished(scans, model, tmp_path):
    workers = InlineWorkers()
    batch = start(scans, tmp_path / "out", model, workers)
    batch.poll()
    batch.poll()
    batch.poll()
    batch.cancel()
    with pytest.raises(CancelledError):
        batch.wait()
    assert batch.state == "cancelled" and workers.closed
    assert [row["status"] for row in rows(tmp_path / "out").values()] == ["failed", "done", "not done", "not done"]


def test_pause_finishes_what_runs_and_begins_nothing(scans, model, tmp_path):
    workers = InlineWorkers()
    batch = start(scans, tmp_path / "out", model, workers)
    batch.poll()
    assert batch.count("running") == 1 and batch.stage == "Case 1 of 4, broken: Working"
    assert batch.fraction == pytest.approx(0.5 / 4)
    batch.pause()
    for _ in range(3):
        batch.poll()
    assert (batch.state, workers.computed, batch.count("running")) == ("paused", ["broken"], 0)
    batch.resume()
    batch.wait()
    assert len(workers.computed) == 4 and batch.cases_per_hour > 0 and batch.fraction == 1.0


def test_callbacks_tell_of_cases_and_of_the_end(scans, model, tmp_path):
    begun, ended, changes = [], [], []
    batch = start(
        scans, tmp_path / "out", model, on_progress=lambda *at: begun.append(at), on_done=ended.append,
        on_case=lambda entry: changes.append((entry.case.name, entry.status)),
    )  # fmt: skip
    batch.wait()
    assert begun[:2] == [(0, 4, "broken.nrrd"), (1, 4, "first.nrrd")] and ended == [batch.outcomes]
    assert changes[:4] == [("broken", "running"), ("broken", "failed"), ("first", "running"), ("first", "done")]


def test_summary_names_the_first_failure():
    good, bad = CaseOutcome(Path("a"), Path("out/a")), CaseOutcome(Path("b.nrrd"), None, "No scan.")
    assert summary([good, good]) == "2 of 2 cases are done."
    assert summary([good, bad, bad]) == "1 of 3 cases are done. Failed: 'b.nrrd' (and 1 more): No scan."


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX systems")
def test_the_ledger_needs_no_lock_where_disks_have_none(tmp_path, monkeypatch):
    import fcntl

    def unsupported(file, how):
        raise OSError(95, "not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    ledger = batch_ledger.Ledger(tmp_path / "out")
    ledger.add({"case": "a", "state": "done", "folder": "a"})
    ledger.close()
    assert batch_ledger.Ledger(tmp_path / "out").records["a"]["state"] == "done"
