"""A DICOM export in a process of its own, so that a panel stays alive and Cancel is real.

The parent writes the job as JSON to the child's stdin and reads events, one JSON object a line, from a private file:
``{"fraction": 0.4, "stage": "..."}``, and at the end ``{"files": [...], "left_out": [...]}`` or
``{"code": "...", "message": "..."}``. Run as ``python -m NeuraxisLib.dicom_export_process EVENTS_FILE``.
"""

from __future__ import annotations

import contextlib
import glob
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from NeuraxisLib.background import OneRun
from NeuraxisLib.errors import WorkerError
from NeuraxisLib.private_folder import private_folder, remove_private
from NeuraxisLib.process import as_user_error, error_of_code
from NeuraxisLib.worker_process import child_environment

#: Seconds that the child gets to clean up after a cancel, before it is killed.
CANCEL_GRACE_S = 0.7


class ExportProcess:
    """One export under way; looks to a panel like the handle of a run. Exactly one callback is called, by :meth:`poll`.

    Args:
        job: arguments of :func:`NeuraxisLib.dicom_export.export_dicom` by name, as JSON can hold them.
        python: interpreter of the child.
        environment: its base environment; None for this process's.
        on_done: called with (files, sentences on what was left out).
        on_failed: called with the error.
        on_cancelled: called without arguments.

    Attributes:
        fraction: 0 to 1. stage: what is being done.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        python: str,
        environment: Mapping[str, str] | None,
        on_done: Callable[[list[Path], list[str]], None],
        on_failed: Callable[[Exception], None],
        on_cancelled: Callable[[], None],
    ):
        self.fraction, self.stage = 0.0, "Starting"
        self._callbacks = {"done": on_done, "failed": on_failed, "cancelled": on_cancelled}
        self._output, self._started_at = Path(job["output"]), time.monotonic()
        self._kill_at: float | None = None
        self._folder = private_folder("dicom")
        self._events = open(self._folder / "events", "w+", encoding="utf-8")  # noqa: SIM115 - closed by _close
        self._ended = False
        self._last: dict[str, Any] = {}
        try:
            self._child = subprocess.Popen(
                [python, "-m", "NeuraxisLib.dicom_export_process", str(self._folder / "events")],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=child_environment((), environment, 1, hide_gpu=True),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
            with contextlib.suppress(OSError):  # it died at once, which poll tells
                self._child.stdin.write(json.dumps(dict(job)).encode())
                self._child.stdin.close()
        except OSError as error:
            self._close()
            sentence = f"The interpreter '{python}' cannot be started ({error.strerror}); choose another one."
            raise WorkerError(sentence) from error

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end if the rest goes as fast as what is done; None below 5 % of the way."""
        if self._ended or self.fraction < 0.05:
            return None
        return (time.monotonic() - self._started_at) * (1 / self.fraction - 1)

    def poll(self) -> None:
        """Hear what the child said, and deliver the end once there is one; let a timer call this."""
        if self._ended:
            return
        over = self._child.poll() is not None  # asked first, so that its last words are not missed
        self._read()
        if not over and self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._child.kill()
            over = True
        if over:
            self._end()

    def cancel(self) -> None:
        """Stop the child; the next polls answer within a second, and nothing is left behind."""
        if not self._ended and self._kill_at is None:
            self._kill_at, self.stage = time.monotonic() + CANCEL_GRACE_S, "Cancelling"
            self._child.terminate()

    def drop(self) -> None:
        """The panel goes: end the child, call nothing."""
        if not self._ended:
            self._callbacks = {}
            self._child.kill()
            self._end()

    def _read(self) -> None:
        while True:
            place = self._events.tell()
            line = self._events.readline()
            if not line.endswith("\n"):  # not written to its end yet
                self._events.seek(place)
                return
            self._last = json.loads(line)
            if "fraction" in self._last and self._kill_at is None:
                self.fraction, self.stage = float(self._last["fraction"]), self._last["stage"]

    def _end(self) -> None:
        self._ended = True
        self._child.wait()
        self._read()
        self._close()
        last = self._last
        if "files" in last:  # written before the cancel came
            self.fraction = 1.0
            self._call("done", [Path(file) for file in last["files"]], last["left_out"])
            return
        for partial in self._output.parent.glob(f".{glob.escape(self._output.name)}.*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        if self._kill_at is not None:
            self._call("cancelled")
        elif "code" in last:
            self._call("failed", error_of_code(last["code"], last["message"]))
        else:
            sentence = "The DICOM export stopped without a word; close other programs and try again."
            self._call("failed", WorkerError(sentence))

    def _call(self, event: str, *arguments: Any) -> None:
        if event in self._callbacks:
            self._callbacks[event](*arguments)

    def _close(self) -> None:
        self._events.close()
        remove_private(self._folder)


class ExportRuns(OneRun):
    """Exports of a panel."""

    def begin(
        self, job: Mapping[str, Any], python: str, environment: Mapping[str, str] | None, **callbacks: Callable
    ) -> ExportProcess:
        """Start an export; ``callbacks``: ``onDone`` (called with (files, left out)), ``onFailed``, ``onCancelled``."""
        done = callbacks["onDone"]
        ended = (lambda *found: done(found), callbacks["onFailed"], callbacks["onCancelled"])
        return self.hold(ExportProcess(job, python, environment, *ended))

    def drop(self) -> None:
        """The panel goes."""
        if self._current is not None:
            self._current.drop()


# -- the child ------------------------------------------------------------------------------------------------


class _Terminated(BaseException):
    """SIGTERM arrived."""


def main() -> None:
    """Read the job, export, and tell how it goes."""

    def stop(*_: Any) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, stop)
    job = json.loads(sys.stdin.read())
    with open(sys.argv[1], "a", encoding="utf-8") as events:

        def tell(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        try:
            from NeuraxisLib.dicom_export import export_dicom
            from NeuraxisLib.task import Progress

            def report(fraction: float, stage: str) -> None:
                if fraction >= 1:  # the folder takes its place now, and is told of
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                tell(fraction=fraction, stage=stage)

            exported = export_dicom(**job, progress=Progress(report))
        except _Terminated:
            return
        except Exception as fault:
            error = as_user_error(fault)
            tell(code=error.code, message=str(error))
        else:
            tell(files=[str(path) for path in exported.files], left_out=exported.left_out)


if __name__ == "__main__":
    main()
