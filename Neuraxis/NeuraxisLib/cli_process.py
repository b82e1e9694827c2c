"""What every command of the command line shares: exit codes, faults as one sentence, threads and signals, progress."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import typer

from NeuraxisLib.errors import SeriesChoiceError
from NeuraxisLib.process import (
    as_user_error,
    heed_interruption,
    keep_freed_memory,
    keep_no_core,
    thread_environment,
)

EXIT_CODES = {
    "input": 3, "geometry": 4, "choose-series": 5, "model": 6, "output": 7, "dependency": 8, "worker": 9,
    "cancelled": 130,
}  # fmt: skip
#: Ended by SIGTERM; by the reader of its output, as a shell counts it.
_TERMINATED, _PIPE_CLOSED = 143, 141


@contextlib.contextmanager
def faults_reported(as_json: bool = False) -> Iterator[None]:
    """Turn every fault in the block into one sentence on stderr and the exit code of its kind."""
    try:
        yield
    except KeyboardInterrupt:
        _leave("Cancelled; nothing was written.", "cancelled", EXIT_CODES["cancelled"], as_json)
    except BrokenPipeError:  # whoever read the output, as head does, has enough of it
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's exit does not complain
        raise typer.Exit(_PIPE_CLOSED) from None
    except _Terminated:
        _leave("Stopped by the system; nothing was written.", "cancelled", _TERMINATED, as_json)
    except Exception as fault:
        error = as_user_error(fault)
        choices = error.choices if isinstance(error, SeriesChoiceError) else None
        _leave(str(error), error.code, EXIT_CODES.get(error.code, 1), as_json, choices)


def _leave(sentence: str, code: str, exit_code: int, as_json: bool, choices: list[dict] | None = None) -> None:
    print(sentence, file=sys.stderr)
    if as_json:
        record = {"status": "failed", "code": code, "message": sentence}
        print(json.dumps({**record, "choices": choices} if choices else record, default=str))
    raise typer.Exit(exit_code) from None


class _Terminated(BaseException):
    """SIGTERM arrived."""


def prepare_process(threads: int | None, hide_gpu: bool) -> None:
    """Threads, memory and signals of this process; before torch is loaded."""

    def stop(*_: Any) -> None:
        raise _Terminated

    os.environ.update(thread_environment(threads))
    if hide_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    keep_freed_memory()
    keep_no_core()
    heed_interruption()
    with contextlib.suppress(ValueError):  # not in the main thread: whoever calls us there handles signals
        signal.signal(signal.SIGTERM, stop)


@contextlib.contextmanager
def shown_progress() -> Iterator[Any]:
    """A Progress shown on stderr: a bar with the time left on a terminal, one line per stage elsewhere."""
    from NeuraxisLib.task import Progress

    if not sys.stderr.isatty():
        stages: list[str] = []

        def print_stage(fraction: float, stage: str) -> None:
            if stages[-1:] != [stage]:
                stages.append(stage)
                print(f"{100 * fraction:3.0f} % {stage}", file=sys.stderr)

        yield Progress(print_stage)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TaskProgressColumn())
    bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    with bar:
        row = bar.add_task("Starting", total=1.0)
        yield Progress(lambda fraction, stage: bar.update(row, completed=fraction, description=stage))
