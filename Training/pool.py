"""The same work on many items in several processes, with progress; Ctrl-C lets each finish its item."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from NeuraxisLib.errors import WorkerError


def results(function: Callable[..., Any], jobs: Sequence[tuple], workers: int) -> Iterator[tuple[int, Any]]:
    """(number of the job, ``function(*job)``) for every job, in the order in which they are done.

    Args:
        function: can be imported by name.
        jobs: arguments of each call, of kinds that travel between processes.
        workers: processes; 1 computes here.

    Raises:
        WorkerError: a process died, most often for want of memory.
        Exception: whatever ``function`` raises; jobs not begun are given up.
    """
    if min(workers, len(jobs)) <= 1:
        for number, job in enumerate(jobs):
            yield number, function(*job)
        return
    context = multiprocessing.get_context("spawn")
    # Inside Slicer the running program is Slicer itself; its Python is called PythonSlicer.
    interpreter = shutil.which("PythonSlicer") if "slicer" in sys.modules else None
    if interpreter:
        context.set_executable(interpreter)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_leave_interrupts_to_the_parent)
    try:
        numbers = {pool.submit(function, *job): number for number, job in enumerate(jobs)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    except BrokenProcessPool:
        raise WorkerError(
            "A process that worked on a case died, probably for want of memory; use fewer --workers and start again."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches the whole group; the parent lets each process finish its item."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
