"""The one batch runner: cases from any source through any workers, with a ledger in the output folder.

The command line, the panels and the Python console all drive this class. A batch can be killed at any moment and run
again: what is finished is not done twice (same input, model and options), nothing is half written, and a changed
input is done again. A bad case stops no other; one whose worker dies is tried once more, after all others.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from NeuraxisLib import batch_record
from NeuraxisLib.batch_cases import Case, folder_names, merged_options
from NeuraxisLib.batch_entry import (
    RUNNING,
    WAITING,
    CaseOutcome,
    Entry,
    digest_of,
    main_input,
    model_digest,
    recipe,
    summary,
)  # fmt: skip
from NeuraxisLib.batch_ledger import Ledger
from NeuraxisLib.batch_local import CANCELLED, DONE, FAILED, PROGRESS, CaseEvent, CaseJob
from NeuraxisLib.batch_place import place_of
from NeuraxisLib.batch_table import Tables
from NeuraxisLib.errors import (
    CancelledError,
    DependencyError,
    InputError,
    NeuraxisError,
    OutputError,
    WorkerError,
    WorkerStartError,
)
from NeuraxisLib.input_digest import input_stamp, read_ahead
from NeuraxisLib.process import as_user_error
from NeuraxisLib.remote import RemoteFolder, address_of
from NeuraxisLib.task import get_task

__all__ = ["Batch", "CaseOutcome", "Entry", "summary"]

#: How long one poll may look at cases that are finished already, or wait for the last tables, so that a panel stays
#: alive.
_LOOK_S = 0.05


class Batch:
    """Cases through workers; looks to a panel like the handle of one run. Poll it, or wait.

    Args:
        task: name of the task.
        cases: what to run.
        output: folder that gets one result folder for each case, the tables, the report and the ledger; or the address
            of one (``s3://...``, see :mod:`NeuraxisLib.remote`).
        workers: :class:`~NeuraxisLib.batch_local.LocalWorkers` or others of its kind.
        model, options, device, allow_gaps: of every case.
        retry_failed: whether cases that failed before are tried again although nothing about them has changed.
        on_case: called with an :class:`Entry` whenever its status changes.
        on_progress: called before each case with (index from 0, count, name of the input).
        on_done: called at the end with the list of outcomes.
        on_failed: called with the error that stopped the whole batch.
        on_cancelled: called once a cancel is through; what was finished before stays.

    Raises:
        NeuraxisError: the options, the model or the output folder cannot be used.

    Attributes:
        entries: one per case, in order.
        state: "running", "paused", "done", "cancelled" or "stopped" (no case can be computed: see ``failure``).
        failure: why it was stopped.
    """

    def __init__(
        self,
        task: str,
        cases: Iterable[Case],
        output: str | Path,
        workers: Any,
        *,
        model: str = "",
        options: Mapping[str, Any] | None = None,
        device: str = "auto",
        allow_gaps: bool = False,
        retry_failed: bool = False,
        on_case: Callable[[Entry], None] | None = None,
        on_progress: Callable[[int, int, str], None] | None = None,
        on_done: Callable[[list[CaseOutcome]], None] | None = None,
        on_failed: Callable[[NeuraxisError], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
    ):
        self.task, self._workers, self._place = get_task(task), workers, place_of(output)
        self._model, self._options, self._device, self._gaps = model, dict(options or {}), device, allow_gaps
        self._retry = retry_failed
        self._on_case, self._on_progress = on_case or (lambda entry: None), on_progress
        self._on_done, self._on_failed, self._on_cancelled = on_done, on_failed, on_cancelled
        self._model_sha256 = model_digest(self.task, model)
        recipe(self.task, self._model_sha256, self._options, None, allow_gaps)  # raises for options that do not fit
        cases = list(cases)
        folders = folder_names(case.name for case in cases)
        self.entries = [Entry(case, self.output / folders[case.name], number=n) for n, case in enumerate(cases)]
        self._counts = Counter({WAITING: len(cases)})  # of every status, as there may be 100,000 cases
        self.failure: NeuraxisError | None = None
        self._tables = Tables(self, self._place)
        self._ledger = Ledger(self._place.desk)
        self._begin(self.entries)

    # -- state ------------------------------------------------------------------------------------------------

    @property
    def output(self) -> Path | RemoteFolder:
        """The output folder."""
        return self._place.folder

    @property
    def tables(self) -> Path:
        """The folder of this computer with the tables; that of the output, or a copy of them until :meth:`close`."""
        return self._place.desk

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in ("done", "cancelled", "stopped")

    @property
    def notes(self) -> list[str]:
        """Sentences about what could not be written beside the results."""
        return self._tables.notes

    def count(self, status: str) -> int:
        """How many cases have a status."""
        return self._counts[status]

    @property
    def fraction(self) -> float:
        """Progress, 0 to 1, over all cases."""
        self._update_progress()
        finished = self.count(DONE) + self.count(FAILED)
        return (finished + sum(entry.fraction for entry in self._running.values())) / max(len(self.entries), 1)

    @property
    def stage(self) -> str:
        """Which case it is at and what is done with it, or how many are under way."""
        if self._end:
            return "" if self.is_finished else "Writing the tables"
        self._update_progress()
        finished, count = self.count(DONE) + self.count(FAILED), len(self.entries)
        if len(self._running) == 1:
            entry = next(iter(self._running.values()))
            return f"Case {finished + 1} of {count}, {entry.case.name}: {entry.stage}"
        if self._running:
            return f"{finished} of {count} cases, {len(self._running)} under way"
        return "Waiting for a worker to join the scheduler" if self._next is not None else ""

    @property
    def cases_per_hour(self) -> float | None:
        """Cases finished per hour in this run; None before the first."""
        seconds = self._seconds_running()
        return 3600 * self._computed / seconds if self._computed and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the speed so far; None before the first case is finished and after the last."""
        rate = self.cases_per_hour
        left = self.count(WAITING) + self.count(RUNNING)
        return 3600 * left / rate if rate and left else None

    @property
    def outcomes(self) -> list[CaseOutcome]:
        """Of the finished cases, in order."""
        return [
            CaseOutcome(main_input(entry.case), entry.folder if entry.status == DONE else None, entry.error)
            for entry in self.entries
            if entry.status in (DONE, FAILED)
        ]

    # -- control ----------------------------------------------------------------------------------------------

    def poll(self, patience_s: float = 0.0) -> None:
        """Hear what the workers say and give them more; a timer calls this, :meth:`wait` does it for scripts."""
        if self.is_finished:
            return
        if not self._end:
            self._hear(patience_s)
        self._end_if_through()

    def wait(self) -> list[CaseOutcome]:
        """Poll until the end; the outcomes.

        Raises:
            CancelledError: it was cancelled; what was finished stays.
            NeuraxisError: no case can be computed (no worker, no model, full disk).
        """
        while not self.is_finished:
            self.poll(0.1)
        if self.state == "cancelled":
            raise CancelledError("Cancelled; the results of finished cases were kept.")
        if self.failure is not None:
            raise self.failure
        return self.outcomes

    def pause(self) -> None:
        """Begin no other case; those under way are finished."""
        if self.state == "running":
            self.state, self._paused_at = "paused", time.monotonic()

    def resume(self) -> None:
        """Go on after a pause."""
        if self.state == "paused":
            self.state = "running"
            self._paused_s += time.monotonic() - self._paused_at

    def cancel(self) -> None:
        """Cancel what is under way and begin no other; poll until :attr:`is_finished`."""
        self._cancelling = True
        self._waiting.clear()
        self._workers.cancel()

    def retry_failed(self) -> None:
        """Try the failed cases again, while the batch runs or after it has ended."""
        failed = [entry for entry in self.entries if entry.status == FAILED]
        for entry in failed:
            entry.attempts, entry.record, entry.earlier = 0, {}, False
            self._set(entry, WAITING)
        if not self.is_finished:
            self._retried |= {id(entry) for entry in failed}
            self._waiting.extend(failed)
            self._end = ""
            return
        self._ledger = Ledger(self._place.desk, known=self._ledger)
        self._begin([entry for entry in self.entries if entry.status == WAITING])
        self._retried = {id(entry) for entry in failed}

    def close(self) -> None:
        """Let go of the workers and the ledger; cases under way are dropped."""
        self._workers.close()
        self._tables.has_ended(None)
        self._ledger.close()
        self._place.close()

    def write_tables(self, report: bool = False) -> None:
        """Write cases.csv, cases.parquet and, if asked, report.html now; what fails is said in ``notes``."""
        self._tables.begin(report)
        self._tables.has_ended(None)

    # -- inside -----------------------------------------------------------------------------------------------

    def _begin(self, entries: list[Entry]) -> None:
        self.state, self._cancelling = "running", False
        self._waiting, self._running = deque(entries), {}
        self._next: Entry | None = None  # the first that waits, once it is known not to be finished
        self._retried: set[int] = set()
        self._computed, self._paused_s, self._paused_at = 0, 0.0, 0.0
        self._started, self._number = time.monotonic(), 0
        self._end = ""  # the state that it will have once the last tables are written

    def _seconds_running(self) -> float:
        paused = self._paused_s + (time.monotonic() - self._paused_at if self.state == "paused" else 0.0)
        return time.monotonic() - self._started - paused

    def _update_progress(self) -> None:
        for number, entry in self._running.items():
            entry.fraction, entry.stage = self._workers.progress_of(number)

    def _hear(self, patience_s: float) -> None:
        try:
            for event in self._workers.poll(patience_s):
                self._handle(event)
            self._fill()
            self._place.commit()
            self._tables.keep_up()
        except OutputError as error:  # the ledger itself
            self._stop(error)

    def _fill(self) -> None:
        """Give waiting cases to free workers, and pass over those that are finished already."""
        until = time.monotonic() + _LOOK_S
        while self.state == "running" and self._waiting and not self._cancelling:
            entry = self._waiting.popleft()
            try:
                if entry is self._next or not self._known(entry):
                    if self._workers.free <= 0:
                        self._next = entry
                        self._waiting.appendleft(entry)
                        break
                    self._next = None
                    self._submit(entry)
                    if self._waiting:
                        read_ahead(self._waiting[0].case.inputs)
            except OutputError:
                raise
            except (NeuraxisError, OSError) as error:
                self._failed(entry, as_user_error(error))
            if time.monotonic() > until:
                break

    def _known(self, entry: Entry) -> bool:
        """Whether the case is finished already; then its record is taken over."""
        case, record = entry.case, self._ledger.records.get(entry.case.name, {})
        if case.fault:
            if (record.get("state"), record.get("error")) == (FAILED, case.fault) and not self._retry:
                return self._take(entry, record)
            raise InputError(case.fault)
        options = merged_options(case, self._options)
        entry.recipe = recipe(self.task, self._model_sha256, options, case.series, self._gaps)
        entry.stamp = input_stamp(case.inputs)
        if entry.attempts or id(entry) in self._retried:
            return False
        entry.folder = self.output / record.get("folder", entry.folder.name)
        if record.get("recipe") == entry.recipe and self._is_same_input(entry, record):
            if record["state"] == FAILED and not self._retry:
                return self._take(entry, record)
            if record["state"] == DONE and self._place.is_finished(entry.folder):
                return self._take(entry, record)
        return self._adopted(entry)

    def _is_same_input(self, entry: Entry, record: Mapping[str, Any]) -> bool:
        if record.get("stamp") == entry.stamp:
            return True
        return bool(record.get("input_sha256")) and digest_of(entry.case) == record["input_sha256"]

    def _adopted(self, entry: Entry) -> bool:
        """A result that was complete when a kill came before its line in the ledger."""
        mark = batch_record.mark_of(entry.folder) if self._place.is_finished(entry.folder) else {}
        if mark.get("recipe") != entry.recipe or mark.get("input_sha256") != digest_of(entry.case):
            return False
        try:
            record = batch_record.done_record(entry, 0.0)
        except InputError:  # damaged since: it is computed again
            return False
        self._finish(entry, record)
        entry.earlier = True
        self._computed -= 1
        return True

    def _take(self, entry: Entry, record: dict[str, Any]) -> bool:
        if record.get("stamp") != entry.stamp:
            record = {**record, "stamp": entry.stamp}
            self._ledger.add(record)
        entry.record, entry.earlier = record, True
        self._set(entry, record["state"])
        return True

    def _submit(self, entry: Entry) -> None:
        case = entry.case
        if self._ledger.records.get(case.name, {}).get("state") == DONE:  # from now on another result may lie there
            self._ledger.add({"case": case.name, "state": FAILED, "folder": entry.folder.name, "recipe": ""})
            self._place.commit()
        if self._on_progress:
            self._on_progress(entry.number, len(self.entries), main_input(case).name or case.name)
        job = CaseJob(
            self.task.name, case.inputs, address_of(entry.folder), self._model, merged_options(case, self._options),
            self._device, case.series, self._gaps, entry.recipe,
        )  # fmt: skip
        self._number += 1
        self._workers.submit(self._number, job)
        entry.attempts += 1
        entry.begun, entry.fraction, entry.stage = time.monotonic(), 0.0, "Starting"
        self._running[self._number] = entry
        self._set(entry, RUNNING)

    def _handle(self, event: CaseEvent) -> None:
        if event.kind == PROGRESS:
            entry = self._running.get(event.number)
            if entry is not None:
                entry.fraction, entry.stage = event.fraction, event.stage
                self._on_case(entry)
            return
        entry = self._running.pop(event.number)
        entry.fraction = 0.0
        if event.kind == CANCELLED:
            self._set(entry, WAITING)
        elif event.kind == DONE:
            self._place.note(entry.folder)
            try:
                self._finish(entry, batch_record.done_record(entry, time.monotonic() - entry.begun))
            except OutputError:
                raise
            except NeuraxisError as error:
                self._failed(entry, error)
        else:
            self._failed(entry, event.error)

    def _failed(self, entry: Entry, error: NeuraxisError) -> None:
        if isinstance(error, (WorkerStartError, DependencyError)) or (
            isinstance(error, OutputError) and self._place.is_unusable()
        ):
            self._set(entry, WAITING)
            self._stop(error)  # the others would fail alike
        elif isinstance(error, WorkerError) and entry.attempts < self._workers.attempts and not self._cancelling:
            self._set(entry, WAITING)
            self._waiting.append(entry)  # after all others, when nothing else needs the memory
        else:
            seconds = time.monotonic() - entry.begun if entry.begun else 0.0
            self._finish(entry, batch_record.failed_record(entry, error, seconds))

    def _finish(self, entry: Entry, record: dict[str, Any]) -> None:
        self._ledger.add(record)
        entry.record = record
        self._computed += 1
        self._set(entry, record["state"])

    def _set(self, entry: Entry, status: str) -> None:
        self._counts[entry.status] -= 1
        self._counts[status] += 1
        entry.status = status
        self._on_case(entry)

    def _stop(self, error: NeuraxisError) -> None:
        self.failure = self.failure or error
        self.cancel()

    def _end_if_through(self) -> None:
        if self.is_finished or self._running or self._waiting:
            return
        if not self._tables.has_ended(_LOOK_S):
            return
        if not self._end:
            self._end = "stopped" if self.failure is not None else "cancelled" if self._cancelling else "done"
            if self._end == "done":
                self._place.sweep()
            self._tables.begin(report=True)
        if not self._tables.has_ended(_LOOK_S):
            return
        self.state = self._end
        self._ledger.close()
        self._workers.close()
        if self.state == "stopped" and self._on_failed:
            self._on_failed(self.failure)
        elif self.state == "cancelled" and self._on_cancelled:
            self._on_cancelled()
        elif self.state == "done" and self._on_done:
            self._on_done(self.outcomes)
