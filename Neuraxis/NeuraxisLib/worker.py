"""The computing process: ``python -m NeuraxisLib.worker``, driven by :mod:`NeuraxisLib.worker_client`.

It reads requests as JSON lines from stdin and writes events as JSON lines to stdout; nothing else may write there.

Requests: ``run`` {id, task, inputs: {name: path}, model, options, device, output, series}, ``cancel`` {id}, ``ping``,
``quit``. Events: ``ready`` {pid, version}, ``progress`` {id, fraction, stage}, ``log`` {message}, ``memory`` {words},
``pong``, and one end per run: ``done`` {id, folder}, ``failed`` {id, code, message} or ``cancelled`` {id}; a ``failed``
with ``over`` says that this process can compute no more.

The worker stays warm between runs, keeps the models it has read, and leaves when its parent does, removing the
exchange folder that the parent can no longer remove.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from NeuraxisLib import __version__
from NeuraxisLib.errors import CancelledError, NeuraxisError, SeriesChoiceError
from NeuraxisLib.faults import trace_of
from NeuraxisLib.process import (
    as_user_error,
    is_card_lost,
    keep_freed_memory,
    keep_no_core,
    limit_memory,
    memory_use,
    return_freed_memory,
)
from NeuraxisLib.run import ModelCache, run_case
from NeuraxisLib.task import Progress

MEMORY_REPORT_S = 0.5
PARENT_CHECK_S = 1.0
#: Progress events closer than this are dropped unless the stage changes, so that no flood freezes the reader.
PROGRESS_EVERY_S = 0.05


class Channel:
    """The one writer of events; lines from several threads never mix."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._lock = stream, threading.Lock()

    def send(self, event: str, **fields) -> None:
        """Write one event; a reader that is gone is noticed on stdin, so its broken pipe is not an error here."""
        line = json.dumps({"event": event, **fields}, default=str).encode() + b"\n"
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except OSError:
                pass


class Worker:
    """Runs requests one after the other; a second thread listens, so that cancel and quit are heard meanwhile.

    Args:
        channel: where events go.
        requests: stream of JSON lines.
        on_orphaned: called when the stream ends without ``quit``, which means that the parent is gone.
    """

    def __init__(self, channel: Channel, requests: BinaryIO, on_orphaned: Callable[[], None]):
        self._channel, self._requests, self._on_orphaned = channel, requests, on_orphaned
        self._queue: queue.SimpleQueue[dict | None] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._models = ModelCache()
        self._running = False

    def serve(self) -> None:
        """Handle requests until ``quit``."""
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._report_memory, daemon=True).start()
        self._channel.send("ready", pid=os.getpid(), version=__version__)
        while (request := self._queue.get()) is not None:
            self._running = True
            self._run(request)
            self._running = False
            return_freed_memory()

    def _listen(self) -> None:
        for line in self._requests:
            try:
                request = json.loads(line)
                kind, number = request["request"], request.get("id")
                if kind in ("run", "cancel") and not isinstance(number, int):
                    raise ValueError("a run has a number")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self._channel.send("log", message="A request that is not a JSON object with 'request' was ignored.")
                continue
            if kind == "quit":
                self._queue.put(None)
                return
            if kind == "run":
                self._queue.put(request)
            elif kind == "cancel":
                self._cancelled.add(number)
            elif kind == "ping":
                self._channel.send("pong")
        self._on_orphaned()

    def _report_memory(self) -> None:
        """Tell the parent our memory while running: if the system kills us, nobody else can say how much it was."""
        while True:
            time.sleep(MEMORY_REPORT_S)
            if self._running:
                self._channel.send("memory", words=memory_use().in_words())

    def _run(self, request: dict) -> None:
        number = request.get("id")
        progress = Progress(_Throttled(self._channel, number), lambda: number in self._cancelled)
        try:
            run_case(
                request["task"],
                request["inputs"],
                request.get("model", ""),
                request.get("options", {}),
                request.get("device", "auto"),
                request["output"],
                progress,
                series=request.get("series"),
                allow_gaps=request.get("allow_gaps", False),
                recipe=request.get("recipe", ""),
                models=self._models,
            )
        except CancelledError:
            self._channel.send("cancelled", id=number)
        except Exception as error:
            self._report_failure(number, error)
        else:
            self._channel.send("done", id=number, folder=request["output"])
        self._cancelled.discard(number)

    def _report_failure(self, number: int, error: Exception) -> None:
        fault = as_user_error(error)
        if type(fault) is NeuraxisError:  # one nobody foresaw: the log gets the details, the user the sentence
            print(trace_of(error), file=sys.stderr)
        choices = fault.choices if isinstance(fault, SeriesChoiceError) else None
        over = {"over": True} if is_card_lost(error) else {}  # another process may still be able to use the card
        self._channel.send("failed", id=number, code=fault.code, message=str(fault), choices=choices, **over)


class _Throttled:
    """Sends progress of one run, at most one event per PROGRESS_EVERY_S within a stage."""

    def __init__(self, channel: Channel, number: int):
        self._channel, self._number = channel, number
        self._stage, self._last = None, 0.0

    def __call__(self, fraction: float, stage: str) -> None:
        now = time.monotonic()
        if stage != self._stage or fraction >= 1 or now - self._last >= PROGRESS_EVERY_S:
            self._stage, self._last = stage, now
            self._channel.send("progress", id=self._number, fraction=round(fraction, 4), stage=stage)


class _LogEvents(logging.Handler):
    """Passes log records on as events."""

    def __init__(self, channel: Channel):
        super().__init__(logging.INFO)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send("log", message=self.format(record))


def claim_stdout() -> BinaryIO:
    """Keep the real stdout for events alone; whatever else prints, in Python or in C, goes to stderr."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return events


def die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent ends, however it ends; elsewhere the end of stdin tells."""
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _watch_parent(parent: int, leave: Callable[[], None]) -> None:
    """Leave when the client's process is gone; it need not be our direct parent (PythonSlicer is a launcher)."""
    while True:
        time.sleep(PARENT_CHECK_S)
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            leave()
        except PermissionError:
            pass


def main(arguments: list[str] | None = None) -> int:
    """Run the worker on stdin and stdout until ``quit``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m NeuraxisLib.worker", description=__doc__)
    parser.add_argument("--exchange", type=Path, help="private folder to remove should the parent vanish")
    parser.add_argument("--parent", type=int, help="process id of the client")
    parser.add_argument("--die-with-parent", action="store_true")
    parser.add_argument("--memory-limit-gb", type=float, help="most memory to take, where the system can see to it")
    options = parser.parse_args(arguments)

    def leave(*_) -> None:
        if options.exchange:
            shutil.rmtree(options.exchange, ignore_errors=True)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the client's to answer
    signal.signal(signal.SIGTERM, leave)
    if options.die_with_parent:
        die_with_parent()
    if options.parent and os.name == "posix":
        threading.Thread(target=_watch_parent, args=(options.parent, leave), daemon=True).start()
    channel = Channel(claim_stdout())
    logging.getLogger().addHandler(_LogEvents(channel))
    keep_freed_memory()
    keep_no_core()
    if options.memory_limit_gb and not limit_memory(options.memory_limit_gb):
        channel.send("log", message="This system cannot limit the memory of a process; the setting has no effect.")
    Worker(channel, sys.stdin.buffer, leave).serve()
    return 0


if __name__ == "__main__":
    # Threads of libraries may linger or crash while Python tears down; all work is done and flushed by now.
    code = main()
    sys.stderr.flush()
    os._exit(code)
