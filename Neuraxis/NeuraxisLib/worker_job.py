"""What a worker is asked to do, and how far it is with it: the two things that a worker client takes and gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuraxisLib.errors import NeuraxisError, WorkerError
from NeuraxisLib.volume import Volume

if TYPE_CHECKING:
    from NeuraxisLib.result import Result

#: What a run can be; the last three are final.
STATES = ("waiting", "running", "done", "failed", "cancelled")


@dataclass(frozen=True)
class Job:
    """What the worker is asked to do.

    Attributes:
        task: name of the task, such as ``"hemorrhage"``.
        inputs: input name of the task -> file or DICOM folder to read.
        model: name of an installed model or path of a model file; empty for the task's default.
        options: option name -> value, for the task's options dataclass.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"openvino"``.
        output: folder for the result, or its address (:mod:`NeuraxisLib.remote`); None for a private one that
            :meth:`~NeuraxisLib.worker_client.WorkerClient.release` removes.
        series: DICOM series to take where a folder holds several.
        allow_gaps: measure a DICOM series although slices are missing.
        recipe: what a batch knows its results by; written into the result with a digest of the input, if given.
    """

    task: str
    inputs: Mapping[str, str | Path]
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    output: str | Path | None = None
    series: str | None = None
    allow_gaps: bool = False
    recipe: str = ""


class RunHandle:
    """One run: how far it is, how it ended, and where its result lies. Read it; only the client changes it.

    Attributes:
        id: number of the run within its client.
        state: one of :data:`STATES`.
        fraction: progress, 0 to 1.
        stage: what is being done, in a few words.
        seconds_left: estimate from the progress so far; None until there is enough of it.
        result_folder: folder with the result (or its address) once ``state`` is ``"done"``.
        error: the :class:`~NeuraxisLib.errors.NeuraxisError` once ``state`` is ``"failed"`` or ``"cancelled"``.
        callbacks: event (progress, done, failed, cancelled) -> function, or None.
        output: folder or address that the worker was told, once it has begun.
        started_at, kill_at: when it began, and when a cancel ends the worker, by the monotonic clock; else None.
    """

    def __init__(self, number: int, job: Job, callbacks: dict[str, Callable | None]):
        self.id = number
        self.job = job
        self.state = "waiting"
        self.fraction = 0.0
        self.stage = "Waiting"
        self.result_folder: Path | str | None = None
        self.error: NeuraxisError | None = None
        self.callbacks = callbacks
        self.output: Path | str | None = None
        self.started_at: float | None = None
        self.kill_at: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.state in STATES[2:]

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end if the rest goes as fast as what is done; None below 5 % of the way."""
        if self.state != "running" or self.started_at is None or self.fraction < 0.05:
            return None
        return (time.monotonic() - self.started_at) * (1 / self.fraction - 1)

    def read_result(self, source: Volume | None = None) -> Result:
        """The result of a finished run; raises its error if it did not succeed.

        Args:
            source: the image that was measured, which a result folder does not hold.
        """
        from NeuraxisLib.result_folder import read_result

        if self.error is not None:
            raise self.error
        if self.result_folder is None:
            raise WorkerError("The run has not finished yet; wait for it before reading its result.")
        return read_result(self.result_folder, source)

    def end(self, state: str, event: str, *arguments: Any) -> None:
        """Put it into a final state and tell who asked."""
        self.state = state
        self.tell(event, *arguments)

    def tell(self, event: str, *arguments: Any) -> None:
        """Call the function for an event, if there is one."""
        if self.callbacks.get(event):
            self.callbacks[event](*arguments)
