"""A Dask cluster of processes on this computer that loses a worker while it computes, for tests and benchmarks."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import distributed


class Cluster:
    """A Dask scheduler and its workers, each a process of one thread, of which one can be killed.

    Args:
        folder: gets the scheduler's address and the log.
        workers: how many there are at first.
        environment: of the processes.

    Attributes:
        address: of the scheduler. client: of it.
    """

    def __init__(self, folder: Path, workers: int, environment: Mapping[str, str]):
        self._environment = environment
        self._file = folder / "scheduler.json"
        self._processes, self._workers, self._names = [], {}, {}
        try:
            self._start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
            _until(self._file.exists, "the scheduler")
            self.client = distributed.Client(scheduler_file=str(self._file), timeout=60, set_as_default=False)
            for _ in range(workers):
                self.add_worker()
            self.client.wait_for_workers(workers, timeout=120)
            self._learn_names()
            self.client.get_task_stream()  # from now on it is kept
        except BaseException:
            self.close()
            raise
        self.address = self.client.scheduler.address

    def add_worker(self) -> None:
        """Start a worker of one thread, without a nanny that would start it anew."""
        name = f"worker {len(self._workers) + 1}"
        self._workers[name] = self._start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name)

    def kill_one(self) -> tuple[str, int]:
        """SIGKILL a worker that is computing; its name, and how many cases it held."""
        return _until(self._killed, "a worker that computes")

    def moves(self) -> int:
        """How often the scheduler has moved a task from one state to another, since it started."""
        return self.client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)

    def computed(self) -> Counter:
        """How many cases each worker has brought to an end; names of workers."""
        self._learn_names()
        return Counter(self._names.get(record["worker"], "unknown") for record in self.client.get_task_stream())

    def close(self) -> None:
        """End all processes."""
        if hasattr(self, "client"):
            self.client.close()
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _killed(self) -> tuple[str, int] | None:
        """Stop a worker that says it is computing, kill it if the scheduler agrees, else let it go on."""
        busy = self._learn_names()
        for address in (address for address, executing in busy.items() if executing):
            process = self._workers[self._names[address]]
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)  # what it had sent arrives
            held = len(self.client.processing().get(address, ()))
            if held:
                process.kill()
                process.wait()
                return self._names[address], held
            process.send_signal(signal.SIGCONT)
        return None

    def _learn_names(self) -> dict[str, int]:
        """Note the names of the workers that there are; address -> how many cases each computes now."""
        told = self.client.run(lambda dask_worker: (dask_worker.name, dask_worker.state.executing_count))
        self._names |= {address: name for address, (name, _) in told.items()}
        return {address: executing for address, (_, executing) in told.items()}

    def _start(self, what: str, *more: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(self._file), *more]
        with open(self._file.with_name("cluster.log"), "ab") as log:
            process = subprocess.Popen(command, env=self._environment, stderr=log, cwd=self._file.parent)
        self._processes.append(process)
        return process


def _until(ask: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; the answer."""
    since = time.monotonic()
    while not (answer := ask()):
        if time.monotonic() > since + 120:
            raise RuntimeError(f"Waited two minutes in vain for {what}.")
        time.sleep(0.05)
    return answer
