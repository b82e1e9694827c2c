"""The workers of a batch on this computer: processes, each computing one case at a time and replaced when it dies."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from NeuraxisLib.batch_cases import gather, remove_gathered
from NeuraxisLib.errors import CancelledError, InputError, NeuraxisError
from NeuraxisLib.worker_job import Job

#: How an event of a case ends it, or not.
PROGRESS, DONE, FAILED, CANCELLED = "progress", "done", "failed", "cancelled"
#: Memory that a worker may need, by which their number is limited.
_MEMORY_PER_WORKER = 2 << 30


@dataclass(frozen=True)
class CaseJob:
    """What any kind of worker is asked to do with one case.

    Attributes:
        task, model, options, device: as :class:`~NeuraxisLib.worker_job.Job` has them.
        inputs: input name -> path, or several files that belong together.
        output: folder of the result, or its address.
        series: DICOM series of the main input.
        allow_gaps: measure across missing slices.
        recipe: what is written into the result, so that it is known again.
    """

    task: str
    inputs: Mapping[str, str | tuple[str, ...]]
    output: str
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    series: str | None = None
    allow_gaps: bool = False
    recipe: str = ""


@dataclass(frozen=True)
class CaseEvent:
    """What happened to a case: how far it is, or how it ended.

    Attributes:
        number: of the case, as it was submitted.
        kind: PROGRESS, DONE, FAILED or CANCELLED.
        fraction, stage: of progress.
        error: once failed.
    """

    number: int
    kind: str
    fraction: float = 0.0
    stage: str = ""
    error: NeuraxisError | None = None


class LocalWorkers:
    """Worker processes, started when they are needed.

    Args:
        make_client: makes a :class:`~NeuraxisLib.worker_client.WorkerClient`.
        count: how many cases are computed at once.
        time_limit_s: a case that takes longer is stopped and counts as failed; None for no limit.
        shared: the client belongs to somebody else, who stops it.
    """

    #: A case is given to a worker this often; more only helps what would fail again.
    attempts = 2

    def __init__(
        self,
        make_client: Callable[[], Any],
        count: int = 1,
        time_limit_s: float | None = None,
        shared: bool = False,
    ):
        self._make_client, self._count, self._limit_s, self._shared = make_client, max(1, count), time_limit_s, shared
        self._clients: list[Any] = []
        self._busy: dict[int, tuple[Any, Any, str | None, float]] = {}  # number -> client, handle, private, begun
        self._overdue: set[int] = set()
        self._events: list[CaseEvent] = []

    @property
    def free(self) -> int:
        """How many more cases can be begun now."""
        return self._count - len(self._busy)

    def submit(self, number: int, job: CaseJob) -> None:
        """Begin a case; what becomes of it is told by :meth:`poll`.

        Raises:
            NeuraxisError: its files cannot be gathered, or no worker can be asked.
        """
        private, inputs = gather(job.inputs)
        client = self._idle_client()
        inner = Job(
            job.task, {name: Path(path) for name, path in inputs.items()}, job.model, job.options, job.device,
            job.output, job.series, job.allow_gaps, job.recipe,
        )  # fmt: skip
        handle = client.run(
            inner,
            lambda fraction, stage: self._events.append(CaseEvent(number, PROGRESS, fraction, stage)),
            lambda folder: self._end(CaseEvent(number, DONE)),
            lambda error: self._end(CaseEvent(number, FAILED, error=error)),
            lambda: self._end(CaseEvent(number, CANCELLED, error=CancelledError())),
        )
        self._busy[number] = (client, handle, private, time.monotonic())

    def poll(self, patience_s: float = 0.0) -> list[CaseEvent]:
        """What happened since the last call; waits up to ``patience_s`` for something to happen."""
        until = time.monotonic() + patience_s
        while True:
            for client in self._clients:
                client.poll()
            self._stop_overdue()
            events, self._events = self._events, []
            if events or time.monotonic() >= until:
                return events
            time.sleep(0.005)

    def cancel(self) -> None:
        """Cancel what is under way; its events follow within a second of polling."""
        for client, handle, *_ in list(self._busy.values()):
            client.cancel(handle)

    def progress_of(self, number: int) -> tuple[float, str]:
        """(fraction, stage) of a case under way."""
        if number not in self._busy:  # it has ended, which the next poll tells
            return 1.0, ""
        handle = self._busy[number][1]
        return handle.fraction, handle.stage

    def close(self) -> None:
        """End the workers."""
        for client in self._clients if not self._shared else ():
            client.stop()
        self._clients = []

    def _idle_client(self) -> Any:
        used = {id(entry[0]) for entry in self._busy.values()}
        for client in self._clients:
            if id(client) not in used:
                return client
        self._clients.append(self._make_client())
        return self._clients[-1]

    def _end(self, event: CaseEvent) -> None:
        _, _, private, _ = self._busy.pop(event.number)
        remove_gathered(private)
        if event.number in self._overdue:
            self._overdue.discard(event.number)
            if event.kind == CANCELLED:
                sentence = f"The case took longer than {self._limit_s / 60:g} min and was stopped; raise the limit."
                event = CaseEvent(event.number, FAILED, error=InputError(sentence))
        self._events.append(event)

    def _stop_overdue(self) -> None:
        if self._limit_s is None:
            return
        for number, (client, handle, _, begun) in list(self._busy.items()):
            if number not in self._overdue and time.monotonic() - begun > self._limit_s:
                self._overdue.add(number)
                client.cancel(handle)


def default_workers(device: str, threads: int | None = None) -> int:
    """How many processes suit this computer.

    On CPUs as many as cores divided by threads, if memory allows: one thread per process is fastest for many cases
    (performance_and_reliability.md 2.2). Beside a graphics card a second process reads and writes while the first
    computes.
    """
    from NeuraxisLib.process import memory_use, usable_cores

    cores = usable_cores()
    if device in ("cuda", "mps") or (device == "auto" and shutil.which("nvidia-smi")):
        return min(2, cores)
    available = memory_use().available
    fitting = cores if available is None else int(available // _MEMORY_PER_WORKER)
    return max(1, min(cores // (threads or 1), fitting))
