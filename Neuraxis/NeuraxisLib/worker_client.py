"""The side of the worker that runs in Slicer or in a script: starts it, feeds it, hears it, and can stop it.

Computing happens in another process, so that the host never blocks, never loses a scene to a crash in torch, and
Cancel is real. Typical use::

    client = WorkerClient()
    job = client.job("hemorrhage", {"ct": volume})         # or Job(...) with paths of files
    handle = client.run(job, on_progress=..., on_done=...)  # returns at once
    timer.timeout.connect(client.poll)                      # callbacks run in the thread that polls
    folder = client.wait(handle)                            # in scripts, instead of the timer

Only the standard library and numpy are imported. A client belongs to one thread.
"""

from __future__ import annotations

import atexit
import itertools
import queue
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from NeuraxisLib.atomic import output_error
from NeuraxisLib.errors import CancelledError, NeuraxisError, WorkerError, WorkerStartError
from NeuraxisLib.exchange import SUFFIX, write_exchange
from NeuraxisLib.private_folder import private_folder, remove_private
from NeuraxisLib.process import error_of_code
from NeuraxisLib.remote import is_remote, local_path
from NeuraxisLib.run import remove_leftovers
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_job import Job, RunHandle
from NeuraxisLib.worker_process import WorkerProcess

#: Seconds that a cooperative cancel may take before the worker is killed; leaves time to answer within one second.
CANCEL_GRACE_S = 0.7


class WorkerClient:
    """Owner of a worker process that stays warm between runs; runs are done one after the other.

    Args:
        paths: further folders to import from.
        settings: see :meth:`configure`.
    """

    def __init__(self, paths: Iterable[str | Path] = (), **settings: Any):
        self._paths = tuple(paths)
        self.configure(**settings)
        self._process: WorkerProcess | None = None
        self._numbers = itertools.count(1)
        self._waiting: deque[RunHandle] = deque()
        self._current: RunHandle | None = None
        self._exchange: Path | None = None
        self._log: deque[str] = deque(maxlen=500)
        atexit.register(self.stop)

    def configure(
        self,
        python: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        threads: int | None = None,
        device: str = "auto",
        memory_limit_gb: float | None = None,
    ) -> None:
        """Settings of the worker; they hold from the next run on, and a run under way ends with those it has.

        Args:
            python: interpreter of the worker; None for PythonSlicer inside Slicer and this interpreter elsewhere.
            environment: environment of the worker before ours is added; None for this process's. For an interpreter
                outside Slicer pass ``slicer.util.startupEnvironment()``, or it would load Slicer's libraries.
            threads: threads for computing; None leaves one core free.
            device: where jobs run that leave the choice ("auto"); "auto" for the fastest that there is.
            memory_limit_gb: most memory that the worker may take, where the system can see to it; None for no limit.
        """
        self._python, self._environment, self._threads = python, environment, threads
        self._device, self._memory_limit_gb = device, memory_limit_gb
        self._stale = True

    # -- jobs -------------------------------------------------------------------------------------------------

    def job(
        self,
        task: str,
        volumes: Mapping[str, Volume | str | Path],
        model: str = "",
        options: Mapping[str, Any] | None = None,
        device: str = "auto",
        output: str | Path | None = None,
    ) -> Job:
        """A job on images in memory, written to the private exchange folder, or on paths; or OutputError."""
        folder = Path(tempfile.mkdtemp(prefix="input-", dir=self._exchange_folder()))
        try:
            inputs = dict(volumes)
            for name in [name for name, value in volumes.items() if isinstance(value, Volume)]:
                inputs[name] = write_exchange(volumes[name], folder / f"{name}{SUFFIX}")
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise output_error(error, "The copy of the image for the computing process") from error
        return Job(task, inputs, model, dict(options or {}), device, output)

    def release(self, handle: RunHandle) -> None:
        """Remove the private files of a finished run (its exchanged inputs and, if private, its result)."""
        for path in [*handle.job.inputs.values(), handle.output]:
            private = self._private_folder(path)
            if private is not None:
                shutil.rmtree(private, ignore_errors=True)

    # -- running ----------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a run is under way or waiting."""
        return self._current is not None or bool(self._waiting)

    def start(self, device: str = "auto") -> None:
        """Start the worker ahead of the first run, so that its imports cost no waiting. Returns at once."""
        if self._process is None:
            self._start_process(hide_gpu=(self._device if device == "auto" else device) == "cpu")

    def run(
        self,
        job: Job,
        on_progress: Callable[[float, str], None] | None = None,
        on_done: Callable[[Path], None] | None = None,
        on_failed: Callable[[NeuraxisError], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
    ) -> RunHandle:
        """Queue a job and return its handle at once; exactly one of the last three callbacks is called, by poll.

        Args:
            job: what to do.
            on_progress: called with (fraction 0..1, stage).
            on_done: called with the result folder.
            on_failed: called with the error; ``str(error)`` is the sentence to show.
            on_cancelled: called without arguments.
        """
        callbacks = {"progress": on_progress, "done": on_done, "failed": on_failed, "cancelled": on_cancelled}
        handle = RunHandle(next(self._numbers), job, callbacks)
        self._waiting.append(handle)
        self._begin_next()
        return handle

    def poll(self) -> None:
        """Deliver what the worker has said since the last call; let a timer call this every 50 to 200 ms."""
        self._pump(0.0)

    def wait(self, handle: RunHandle, timeout: float | None = None) -> Path:
        """Poll until the run has ended and return its result folder.

        Raises:
            NeuraxisError: the run failed; CancelledError if it was cancelled.
            TimeoutError: it has not ended within ``timeout`` seconds; it goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not handle.is_finished:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"The run has not ended within {timeout:g} s.")
            self._pump(0.05)
        if handle.error is not None:
            raise handle.error
        return handle.result_folder

    def cancel(self, handle: RunHandle) -> None:
        """Cancel a run; on_cancelled follows within a second of polling, by killing the worker if need be."""
        if handle in self._waiting:
            self._waiting.remove(handle)
            self._finish_cancelled(handle)  # nothing to stop, so it is answered at once
        elif handle is self._current and handle.kill_at is None:
            handle.kill_at = time.monotonic() + CANCEL_GRACE_S
            handle.stage = "Cancelling"
            self._process.send({"request": "cancel", "id": handle.id})

    def stop(self) -> None:
        """Cancel everything, end the worker and remove the exchange folder; a later run starts afresh.

        No callback is called, because what they would tell may be gone: this also runs when Python ends.
        """
        handles = [handle for handle in (self._current, *self._waiting) if handle is not None]
        process, current = self._process, self._current
        self._end_process(kill=current is not None)
        if process is not None and current is not None:
            self._clear_leftovers(current, process)
        self._current = None
        self._waiting.clear()
        for handle in handles:
            handle.callbacks = {}
            self._finish_cancelled(handle)
        if self._exchange is not None:
            remove_private(self._exchange)
            self._exchange = None

    @property
    def log_text(self) -> str:
        """The last lines the worker wrote to its log and to stderr, for a details button or a bug report."""
        return "\n".join(self._log)

    # -- inside -----------------------------------------------------------------------------------------------

    def _pump(self, patience_s: float) -> None:
        """Handle all queued events (waiting up to ``patience_s`` for the first), then overdue cancels."""
        process = self._process
        while process is not None and process is self._process:
            try:
                event = process.events.get(timeout=patience_s) if patience_s else process.events.get_nowait()
            except queue.Empty:
                break
            patience_s = 0.0
            self._handle(event)
        handle = self._current
        if handle is not None and handle.kill_at is not None and time.monotonic() >= handle.kill_at:
            process = self._process
            self._end_process(kill=True)
            self._current = None
            self._clear_leftovers(handle, process)
            self._finish_cancelled(handle)
        self._begin_next()

    def _handle(self, event: dict) -> None:
        kind, handle = event.get("event"), self._current
        if kind == "log":
            self._log.append(str(event.get("message", "")))
        elif kind == "exit":
            self._worker_died()
        elif handle is None or event.get("id") != handle.id:
            return
        elif kind == "progress" and handle.kill_at is None:
            fraction = event.get("fraction")
            if isinstance(fraction, int | float) and 0 <= fraction <= 1:
                handle.fraction, handle.stage = float(fraction), str(event.get("stage", ""))
                handle.tell("progress", handle.fraction, handle.stage)
        elif kind in ("done", "failed", "cancelled"):
            self._current = None
            if event.get("over") is True:  # this process can compute no more
                self._end_process(kill=True)
            self._finish(handle, event)

    def _finish(self, handle: RunHandle, event: dict) -> None:
        # A private result that comes after the cancel is dropped; one in the user's folder is there and is told.
        too_late = event["event"] == "done" and handle.kill_at is not None and handle.job.output is None
        if event["event"] == "cancelled" or too_late:
            self._finish_cancelled(handle)
        elif event["event"] == "failed" or event.get("folder") != str(handle.output):  # the worker makes no other
            handle.error = _error_of(event)
            handle.end("failed", "failed", handle.error)
        else:
            handle.fraction, handle.result_folder = 1.0, handle.output
            handle.end("done", "done", handle.result_folder)

    def _finish_cancelled(self, handle: RunHandle) -> None:
        handle.error = CancelledError()
        handle.end("cancelled", "cancelled")

    def _worker_died(self) -> None:
        """Turn the end of the process into the end of the run that was under way, if any."""
        process, self._process = self._process, None
        sentence = process.why_it_died()
        handle, self._current = self._current, None
        if handle is None:
            self._log.append(sentence)
            return
        self._clear_leftovers(handle, process)
        if handle.kill_at is not None:
            self._finish_cancelled(handle)
        else:
            handle.error = WorkerError(sentence) if process.pid else WorkerStartError(sentence)
            handle.end("failed", "failed", handle.error)

    def _begin_next(self) -> None:
        """Send the next waiting run, in a worker that sees the graphics card or not, as the job wants."""
        if self._current is not None or not self._waiting:
            return
        handle = self._waiting.popleft()
        device = self._device if handle.job.device == "auto" else handle.job.device
        hide_gpu = device == "cpu"
        if self._process is not None and (self._stale or self._process.hides_gpu != hide_gpu):
            self._end_process(kill=False)
        if self._process is None:
            self._start_process(hide_gpu)
        self._current = handle
        handle.state, handle.stage, handle.started_at = "running", "Starting", time.monotonic()
        output = handle.job.output or Path(tempfile.mkdtemp(prefix="output-", dir=self._exchange_folder())) / "result"
        handle.output = output if is_remote(output) else local_path(output).absolute()
        inputs = {name: str(Path(path).absolute()) for name, path in handle.job.inputs.items()}
        message = {**asdict(handle.job), "device": device, "inputs": inputs, "output": str(handle.output)}
        self._process.send({"request": "run", "id": handle.id, **message})

    def _start_process(self, hide_gpu: bool) -> None:
        self._stale = False
        self._process = WorkerProcess(
            python=str(self._python or default_python()),
            paths=self._paths,
            environment=self._environment,
            threads=self._threads,
            hide_gpu=hide_gpu,
            exchange=self._exchange_folder(),
            log=self._log,
            memory_limit_gb=self._memory_limit_gb,
        )

    def _end_process(self, kill: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(kill=kill)

    def _exchange_folder(self) -> Path:
        """The private folder (mode 0700) through which volumes travel; made when first needed."""
        if self._exchange is None:
            self._exchange = private_folder("exchange")
        return self._exchange

    def _private_folder(self, path: str | Path | None) -> Path | None:
        """The folder directly inside the exchange folder that holds ``path``; None if it lies elsewhere."""
        if path is None or self._exchange is None or self._exchange not in Path(path).parents:
            return None
        return self._exchange / Path(path).relative_to(self._exchange).parts[0]

    @staticmethod
    def _clear_leftovers(handle: RunHandle, process: WorkerProcess) -> None:
        """Remove what a worker that is gone may have left beside the output."""
        if isinstance(handle.output, Path):
            remove_leftovers(handle.output, dead=[process.pid] if process.pid else [])


def _error_of(event: dict) -> NeuraxisError:
    """The error that a worker tells, whatever it put in place of a sentence and of choices."""
    message, choices = event.get("message"), event.get("choices")
    words = message.split() if isinstance(message, str) else []
    sentence = " ".join(words) or "The computing process gave no answer that is known here; run again."
    usable = isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices)
    return error_of_code(str(event.get("code")), sentence, choices if usable else None)


def default_python() -> str:
    """PythonSlicer inside Slicer (it brings Slicer's library paths), else the running interpreter."""
    return (shutil.which("PythonSlicer") if "slicer" in sys.modules else None) or sys.executable
