"""Contenders that take turns: seconds on the wall, seconds of the processor and memory of each, medians over rounds.

A busy machine slows whatever runs meanwhile, so that only contenders that alternate can be compared, and of a loaded
machine the processor's seconds tell more than the wall's. A contender is a function in this process (:class:`Here`) or
one in a process of its own (:class:`Apart`), where settings of one, such as its allocator, do not help another.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

#: What one round of a contender is: it may answer something, such as the size of the mask that it found.
Run = Callable[[], Any]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ContenderError(Exception):
    """A contender ended early; the text is the last line of its traceback."""


@dataclass(frozen=True)
class Taken:
    """What a round took, or the median over rounds.

    Attributes:
        wall_s, cpu_s: on the wall; of the processor, all threads of the process together.
        peak_gb: most memory that the process held, imports and weights included; None where the system cannot tell.
        extra_gb: how much of it the first round added to what was in use before.
        answer: what the run gave, if anything.
        rounds: over how many.
    """

    wall_s: float
    cpu_s: float
    peak_gb: float | None = None
    extra_gb: float | None = None
    answer: Any = None
    rounds: int = 1


class Contender(Protocol):
    """Something that can be run again and again."""

    def round(self) -> Taken:
        """Run once."""

    def close(self) -> None:
        """Let go of its process, if it has one."""


# -- memory of this process -----------------------------------------------------------------------------------


def memory_gb(key: str = "VmRSS") -> float | None:
    """Resident memory of this process now (``VmRSS``) or its highest since the last reset (``VmHWM``); Linux only."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 / 1e9 if found else None


def reset_peak() -> None:
    """Let ``VmHWM`` begin anew where the system allows it; elsewhere the peak is that since the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measured(run: Run) -> Taken:
    """Run once in this process."""
    reset_peak()
    before = memory_gb()
    wall, cpu = time.perf_counter(), time.process_time()
    answer = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = memory_gb("VmHWM")
    return Taken(wall, cpu, peak, None if peak is None or before is None else peak - before, answer)


# -- contenders -----------------------------------------------------------------------------------------------


class Here:
    """A contender in this process."""

    def __init__(self, run: Run):
        self._run = run

    def round(self) -> Taken:
        """Run once."""
        return measured(self._run)

    def close(self) -> None:
        """Nothing to let go of."""


class Apart:
    """A contender in a process of its own, on so many threads.

    Args:
        threads: of torch and of the libraries below it.
        make: a function of a module, called there with ``arguments``; it gives what is run in a round.
    """

    def __init__(self, threads: int, make: Callable[..., Run], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        try:
            self._process = context.Process(target=_serve, args=(other, threads, make, arguments), daemon=True)
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        other.close()
        self._waits = True

    def ready(self) -> None:
        """Wait until it can be run; ContenderError if it cannot."""
        if self._waits:
            self._waits = False
            self._answer()

    def round(self) -> Taken:
        """Run once."""
        self.ready()
        self._connection.send("run")
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except EOFError:
            raise ContenderError("the process of a contender has ended") from None
        if kind == "failed":
            raise ContenderError(value)
        return value


def _serve(connection: Connection, threads: int, make: Callable[..., Run], arguments: tuple) -> None:
    """The child: make the run, then run once for every message until the other end is closed."""
    try:
        import torch

        torch.set_num_threads(threads)
        run = make(*arguments)
        connection.send(("ready", None))
        while connection.recv():
            connection.send(("taken", measured(run)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the table has gone
        pass
    except Exception as error:
        traceback.print_exc()
        connection.send(("failed", f"{type(error).__name__}: {error}"))


# -- turns ----------------------------------------------------------------------------------------------------


def take_turns(contenders: Mapping[str, Contender], rounds: int) -> dict[str, Taken]:
    """Medians of every contender over ``rounds`` in alternation, after one round that warms up.

    With 0 rounds that one counts, for contenders that take a minute. The memory that is added is that of the warm-up:
    later rounds reuse what an allocator has kept.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    try:
        for contender in contenders.values():
            if isinstance(contender, Apart):
                contender.ready()
        for _ in range(rounds + 1):
            for name, contender in contenders.items():
                taken[name].append(contender.round())
    finally:
        for contender in contenders.values():
            contender.close()
    return {name: median(every[1:] or every, every[0]) for name, every in taken.items()}


def median(every: list[Taken], first: Taken | None = None) -> Taken:
    """The median of rounds; memory is the highest of all, and what was added is that of the ``first``."""
    first = first or every[0]
    peaks = [one.peak_gb for one in [first, *every] if one.peak_gb is not None]
    return replace(
        every[-1],
        wall_s=statistics.median(one.wall_s for one in every),
        cpu_s=statistics.median(one.cpu_s for one in every),
        peak_gb=max(peaks, default=None),
        extra_gb=first.extra_gb,
        rounds=len(every),
    )
