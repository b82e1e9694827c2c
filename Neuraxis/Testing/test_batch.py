"""Many cases one after the other: what fails stops no other, what is cancelled keeps what is finished."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from NeuraxisLib.batch import BatchRun, CaseOutcome, cases_in, free_name, summary
from NeuraxisLib.errors import CancelledError, InputError, WorkerError


class Client:
    """Answers a job when polled: cases named "bad" fail."""

    def __init__(self, refuse: int = 0):
        self.jobs, self.refuse, self._events = [], refuse, []

    def run(self, job, on_progress, on_done, on_failed, on_cancelled):
        if self.refuse and len(self.jobs) + 1 >= self.refuse:
            raise WorkerError("The worker cannot be started; look at the Python it is given.")
        self.jobs.append(job)
        handle = SimpleNamespace(fraction=0.5, stage="Working", job=job)
        if "bad" in job[0].name:
            self._events.append(lambda: on_failed(InputError("No scan.")))
        else:
            self._events.append(lambda: on_done(job[1]))
        self._cancelled = on_cancelled
        return handle

    def poll(self):
        self._events.pop(0)()

    def wait(self, handle):
        self.poll()
        if "bad" in handle.job[0].name:
            raise InputError("No scan.")

    def cancel(self, handle):
        self._events[:] = [self._cancelled]


def start(client, names, **callbacks):
    return BatchRun(client, lambda file, folder: (file, folder), names, "out", **callbacks)


def test_all_cases_run_in_order_and_a_bad_one_stops_no_other():
    said, ended = [], []
    batch = start(Client(), ["a.nii.gz", "bad.nrrd", "x/a.nrrd"], on_progress=lambda *at: said.append(at),
                  on_done=ended.append)  # fmt: skip
    assert (batch.fraction, batch.stage) == (pytest.approx(0.5 / 3), "Case 1 of 3, a.nii.gz: Working")
    outcomes = batch.wait()
    assert [(outcome.folder and outcome.folder.name, outcome.error) for outcome in outcomes] == [
        ("a", ""), (None, "No scan."), ("a_2", "")
    ]  # fmt: skip
    assert said == [(0, 3, "a.nii.gz"), (1, 3, "bad.nrrd"), (2, 3, "a.nrrd")] and ended == [outcomes]
    assert (batch.state, batch.fraction, batch.stage) == ("done", 1.0, "")


def test_cancel_keeps_what_is_finished_and_begins_nothing_else():
    client, cancelled, ended = Client(), [], []
    batch = start(client, ["a", "b", "c"], on_cancelled=lambda: cancelled.append(1), on_done=ended.append)
    client.poll()
    batch.cancel()
    client.poll()
    assert batch.state == "cancelled" and cancelled == [1] and ended == [] and len(client.jobs) == 2
    assert [outcome.file.name for outcome in batch.outcomes] == ["a"]


def test_cancelling_while_waiting_is_told():
    client = Client()
    client.wait = lambda handle: (client.cancel(handle), client.poll(), _raise(CancelledError()))
    with pytest.raises(CancelledError):
        start(client, ["a", "b"]).wait()


def _raise(error):
    raise error


def test_a_worker_that_cannot_start_is_no_failure_of_a_case():
    with pytest.raises(WorkerError):
        start(Client(refuse=1), ["a", "b"])
    client = Client(refuse=2)
    outcomes = start(client, ["a", "b", "c"]).wait()
    assert [bool(outcome.folder) for outcome in outcomes] == [True, False, False]
    assert "cannot be started" in outcomes[1].error


def test_cases_of_a_folder(tmp_path):
    for name in ("b.nii.gz", "a.nrrd", ".hidden.nrrd", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("dicom", "empty", "out", "earlier", ".git"):
        (tmp_path / name).mkdir()
    for name in ("dicom/1.dcm", "out/x", "earlier/result.json", ".git/x"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in cases_in(tmp_path, tmp_path / "out")] == ["a.nrrd", "b.nii.gz", "dicom"]


def test_summary_names_the_first_failure():
    good, bad = CaseOutcome("a", "out/a"), CaseOutcome(SimpleNamespace(name="b.nrrd"), None, "No scan.")
    assert summary([good, good]) == "2 of 2 cases are done."
    assert summary([good, bad, bad]) == "1 of 3 cases are done. Failed: 'b.nrrd' (and 1 more): No scan."


def test_names_are_free_whatever_the_case():
    taken = set()
    names = [free_name(SimpleNamespace(name=name), taken) for name in ("Scan.nii.gz", "scan.dcm", "scan")]
    assert names == ["Scan", "scan_2", "scan_3"]
