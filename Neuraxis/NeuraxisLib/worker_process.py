"""The worker as a child process: its environment, its pipes, its end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

from NeuraxisLib.process import default_threads, memory_limit_sentence, thread_environment
from NeuraxisLib.task import TASKS

#: Seconds that an idle worker gets to leave by itself after being asked.
QUIT_GRACE_S = 0.5


class WorkerProcess:
    """A started worker. What it says arrives in :attr:`events`; ``{"event": "exit"}`` is always the last one.

    A worker that cannot be started behaves as one that died at once, so that there is one way to fail.

    Args:
        python: interpreter or launcher to start.
        paths: folders to import from, besides those of the Neuraxis libraries.
        environment: base environment; None for this process's.
        threads: threads for computing; None leaves one core free.
        hide_gpu: hide the graphics card from the worker.
        exchange: private folder that the worker removes should this process vanish.
        log: bounded; receives what the worker writes to stderr.
        memory_limit_gb: most memory that the worker may take, where the system can see to it; None for no limit.
    """

    def __init__(
        self,
        python: str,
        paths: Iterable[str | Path],
        environment: Mapping[str, str] | None,
        threads: int | None,
        hide_gpu: bool,
        exchange: Path,
        log: deque[str],
        memory_limit_gb: float | None = None,
    ):
        self.hides_gpu = hide_gpu
        self.events: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self.pid: int | None = None  # of the worker itself, once it is ready; a launcher may stand between
        self._memory, self._memory_limit_gb = "", memory_limit_gb
        self._log = log
        self._start_fault = ""
        self._popen: subprocess.Popen | None = None
        try:
            self._popen = subprocess.Popen(
                _command(python, exchange, memory_limit_gb),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=child_environment(paths, environment, threads or default_threads(), hide_gpu),
                **own_group(),
            )
        except OSError as error:
            self._start_fault = f"The interpreter '{python}' cannot be started ({error.strerror}); choose another one."
            self.events.put({"event": "exit"})
            return
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_log, self._read_events)]
        for reader in self._readers:
            reader.start()

    def send(self, message: dict) -> None:
        """Send one request; a worker that is gone reports itself by its exit event."""
        if self._popen is None:
            return
        try:
            self._popen.stdin.write(json.dumps(message, default=str).encode() + b"\n")
            self._popen.stdin.flush()
        except (OSError, ValueError):
            pass

    def end(self, kill: bool) -> None:
        """End the process and all it started: politely if it is idle, at once if ``kill``."""
        if self._popen is None:
            return
        if not kill:
            self.send({"request": "quit"})
            try:
                self._popen.wait(QUIT_GRACE_S)
            except subprocess.TimeoutExpired:
                kill = True
        if kill:
            kill_tree(self._popen)
        self._close()

    def why_it_died(self) -> str:
        """One sentence about the end of the process, for the user. Call it after the exit event."""
        if self._popen is None:
            return self._start_fault
        try:
            code = self._popen.wait(QUIT_GRACE_S)
        except subprocess.TimeoutExpired:  # it closed its pipes but lives on: of no use to anyone
            kill_tree(self._popen)
            code = self._popen.returncode
        self._close()
        if self.pid is None:
            words = self._last_words()
            return f"The computing process could not start ({words}); check the interpreter in the settings."
        if code == -getattr(signal, "SIGKILL", 9) or code == 128 + 9:  # 137 is how a launcher passes it on
            numbers = f" ({self._memory} shortly before)" if self._memory else ""
            return (
                f"The computing process was killed by the system, most likely because memory ran out{numbers}; "
                "close other programs and run again."
            )
        if self._memory_limit_gb and code == -getattr(signal, "SIGABRT", 6):  # a library met the limit and gave up
            return memory_limit_sentence(self._memory_limit_gb)
        return f"The computing process crashed ({_in_words(code)}); run again, on the CPU if it happens once more."

    # -- inside -----------------------------------------------------------------------------------------------

    def _read_events(self) -> None:
        for line in self._popen.stdout:
            try:
                event = json.loads(line)
                kind = event["event"]
                if kind == "ready":
                    self.pid = int(event["pid"])
                elif kind == "memory":
                    self._memory = str(event["words"])
                else:
                    self.events.put(event)
            except (ValueError, KeyError, TypeError, RecursionError):
                self._log.append(line[:1000].decode(errors="replace").rstrip())
        self._readers[0].join(1.0)  # so that the last words are in the log when the exit is handled
        self.events.put({"event": "exit"})

    def _read_log(self) -> None:
        for line in self._popen.stderr:
            self._log.append(line.decode(errors="replace").rstrip())

    def _last_words(self) -> str:
        words = [line.strip() for line in self._log if line.strip()]
        return words[-1][:200] if words else f"exit code {self._popen.returncode}, without a word"

    def _close(self) -> None:
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()


def import_roots() -> list[Path]:
    """Folders from which NeuraxisLib and every task's library import.

    Installed, all libraries share one folder; in the source tree each module has its own, side by side.
    """
    own = Path(__file__).resolve().parents[1]
    packages = {entry.split(":")[0].split(".")[0] for entry in TASKS.values()}
    roots = [own]
    for package in sorted(packages):
        if not (own / package).is_dir():
            roots += [found.parent for found in sorted(own.parent.glob(f"*/{package}"))]
    return roots


def child_environment(
    paths: Iterable[str | Path], base: Mapping[str, str] | None, threads: int, hide_gpu: bool
) -> dict[str, str]:
    """The worker's environment: ``base`` with import path, encoding, threads and, if hidden, no graphics card."""
    environment = dict(os.environ if base is None else base)
    roots = [*map(str, paths), *map(str, import_roots()), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(root for root in roots if root))
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"
    environment.update(thread_environment(threads))
    if hide_gpu:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    return environment


def _command(python: str, exchange: Path, memory_limit_gb: float | None) -> list[str]:
    command = [python, "-m", "NeuraxisLib.worker", "--exchange", str(exchange), "--parent", str(os.getpid())]
    if memory_limit_gb:
        command += ["--memory-limit-gb", f"{memory_limit_gb:g}"]
    # Linux counts the end of the starting *thread* as the end of the parent, so only the main thread may ask for it.
    return [*command, "--die-with-parent"] if threading.current_thread() is threading.main_thread() else command


def own_group() -> dict:
    """Popen arguments that let the whole tree be killed at once (a launcher's real child included)."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def kill_tree(popen: subprocess.Popen) -> None:
    """Kill a process that :func:`own_group` started, and all that it started, and wait for its end."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(popen.pid)], capture_output=True, check=False)
    else:
        try:
            os.killpg(popen.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            popen.kill()
    popen.wait()


def _in_words(code: int) -> str:
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}" if code < 256 else f"exit code 0x{code:08X}"
