"""The workers of a batch on a cluster: Dask gives the cases to its workers, and to others where one is lost.

Each case is one task of Dask. A worker process keeps the models that it has read and computes one case per thread; it
needs Neuraxis installed, and the inputs and the output folder under the same paths. Nothing else is shared. A Dask
scheduler runs what anybody sends who can reach it: keep it within a network that you trust, or use its TLS.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from NeuraxisLib.batch_cases import gathered
from NeuraxisLib.batch_local import CANCELLED, DONE, FAILED, PROGRESS, CaseEvent, CaseJob, LocalWorkers
from NeuraxisLib.errors import CancelledError, DependencyError, NeuraxisError, WorkerError, WorkerStartError
from NeuraxisLib.process import as_user_error, error_of_code
from NeuraxisLib.task import OPENVINO
from NeuraxisLib.worker_client import WorkerClient

GPU = "GPU"
#: Cases given to the cluster for each that it can compute at once: the next is there when one ends, the rest wait in
#: the batch, so that a scheduler of any archive holds few.
AHEAD = 2
#: How often the cluster is asked for its workers.
_LOOK_S = 2.0
_CONNECT_S = 30


class DaskWorkers:
    """Workers of a Dask scheduler, as :class:`~NeuraxisLib.batch_local.LocalWorkers` are of this computer.

    Where workers offer the resource ``GPU``, cases that may use a graphics card take one each, so that a card never
    computes two at once; ``device="cpu"`` takes any worker. A worker that runs short of memory pauses (Dask's
    ``worker.memory.pause``) and gets no other case until it has recovered.

    Args:
        scheduler: address such as ``tcp://host:8786``, or a cluster object of Dask.
        device: of the cases.
        time_limit_s: a case that a worker has had for longer is stopped and counts as failed; None for no limit. Then
            each thread of a worker computes in a process of its own, which can be stopped whatever it does.

    Raises:
        DependencyError: dask.distributed is not installed.
        WorkerStartError: the scheduler does not answer.
    """

    def __init__(self, scheduler: Any, device: str = "auto", time_limit_s: float | None = None):
        self._client = connected(scheduler)
        self._device, self._limit_s, self._futures, self._asked = device, time_limit_s, {}, 0.0
        #: Dask itself tries a case whose worker was lost elsewhere, as often as its scheduler allows (3 times by
        #: default); it knows nothing of a process that the worker has started.
        self.attempts = LocalWorkers.attempts if time_limit_s else 1
        self._slots, self._resources = 0, {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._look()

    @property
    def slots(self) -> int:
        """How many cases the cluster can compute at once now; paused workers do not count."""
        self._look()
        return self._slots

    @property
    def free(self) -> int:
        """How many more cases may be given to the cluster now."""
        return AHEAD * self.slots - len(self._futures)

    def submit(self, number: int, job: CaseJob) -> None:
        """Give a case to the cluster."""
        future = self._client.submit(
            compute_case,
            asdict(job),
            self._limit_s,
            key=f"neuraxis-{number}-{uuid.uuid4().hex[:8]}",
            resources=self._resources or None,
            pure=False,
        )
        self._futures[number] = future
        future.add_done_callback(lambda ended, number=number: self._ended.put(number))

    def poll(self, patience_s: float = 0.0) -> list[CaseEvent]:
        """What has ended since the last call; waits up to ``patience_s`` for something to end."""
        events, until = [], time.monotonic() + patience_s
        while True:
            try:
                number = self._ended.get(timeout=max(0.0, until - time.monotonic())) if not events else (
                    self._ended.get_nowait()
                )  # fmt: skip
            except queue.Empty:
                break
            if number in self._futures:
                events.append(self._event(number, self._futures.pop(number)))
        if not events and self._client.status != "running":
            return self._lost()
        return events

    def cancel(self) -> None:
        """Take back what waits; a case that a worker has begun is finished there, and kept."""
        for number, future in list(self._futures.items()):
            future.cancel()
            self._ended.put(number)

    def progress_of(self, number: int) -> tuple[float, str]:
        """(fraction, stage): a cluster tells the end only."""
        return 0.0, "on the cluster"

    def close(self) -> None:
        """Let go of the scheduler, which goes on; cases that wait there are dropped."""
        self._futures = {}
        self._client.close()

    def _event(self, number: int, future: Any) -> CaseEvent:
        if future.status == "cancelled":
            return CaseEvent(number, CANCELLED, error=CancelledError())
        error = future.exception()
        if error is not None:
            return CaseEvent(number, FAILED, error=in_words(error))
        ended = future.result()
        if "folder" in ended:
            return CaseEvent(number, DONE)
        return CaseEvent(number, FAILED, error=error_of_code(ended["code"], ended["message"]))

    def _lost(self) -> list[CaseEvent]:
        gone = WorkerStartError("The Dask scheduler is gone; start it and run the batch again, which then goes on.")
        numbers, self._futures = list(self._futures), {}
        return [CaseEvent(number, FAILED, error=gone) for number in numbers]

    def _look(self) -> None:
        if time.monotonic() - self._asked < (_LOOK_S if self._slots else 0.2):
            return
        self._asked = time.monotonic()
        self._slots, self._resources = places(self._client, self._device)


def connected(scheduler: Any) -> Any:
    """A client of a Dask scheduler, given as its address or as a cluster object.

    Raises:
        DependencyError: dask.distributed is not installed.
        WorkerStartError: the scheduler does not answer.
    """
    try:
        import distributed
    except ImportError as error:
        raise DependencyError(
            "Computing on a cluster needs the package 'distributed'; install 'neuraxis[cluster]'."
        ) from error
    try:
        return distributed.Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise WorkerStartError(
            f"The Dask scheduler '{scheduler}' does not answer; check the address and that it runs."
        ) from error


def places(client: Any, device: str) -> tuple[int, dict[str, int]]:
    """(how many jobs the workers can compute at once now, the resources that each asks for)."""
    workers = _workers(client)
    cards = sum(int(worker.get("resources", {}).get(GPU, 0)) for worker in workers)
    if cards and device not in ("cpu", OPENVINO):
        return cards, {GPU: 1}
    return sum(int(worker["nthreads"]) for worker in workers), {}


def compute_case(job: Mapping[str, Any], time_limit_s: float | None = None) -> dict[str, str]:
    """One case on a worker of Dask: {"folder"} of the result, or {"code", "message"} of what is wrong."""
    if time_limit_s:
        return _compute_within(time_limit_s, CaseJob(**job))
    from NeuraxisLib.process import keep_freed_memory
    from NeuraxisLib.run import run_case

    keep_freed_memory()
    try:
        with gathered(job["inputs"]) as inputs:
            run_case(
                job["task"], inputs, job["model"], job["options"], job["device"], job["output"],
                series=job["series"], allow_gaps=job["allow_gaps"], recipe=job["recipe"], models=_models(),
            )  # fmt: skip
    except Exception as error:
        fault = as_user_error(error)
        return {"code": fault.code, "message": str(fault)}
    return {"folder": str(job["output"])}


def _compute_within(limit_s: float, job: CaseJob) -> dict[str, str]:
    """The same in a process of this thread's own, as on one computer; it stays warm for the next case."""
    if getattr(_THREAD, "limit_s", None) != limit_s:
        _THREAD.workers, _THREAD.limit_s = LocalWorkers(_client_as_here, 1, limit_s), limit_s
    workers = _THREAD.workers
    try:
        workers.submit(0, job)
        while True:
            for event in workers.poll(1.0):
                if event.kind == DONE:
                    return {"folder": job.output}
                if event.kind != PROGRESS:
                    raise event.error
    except NeuraxisError as error:
        return {"code": error.code, "message": str(error)}


def _client_as_here() -> WorkerClient:
    """A worker process with as many threads as this worker of Dask was given for computing."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return WorkerClient(threads=int(threads) if threads.isdigit() else None)


#: The worker process of each thread.
_THREAD = threading.local()


def _models() -> Any:
    """The models that this process has read."""
    from NeuraxisLib.run import ModelCache

    global _CACHE
    if _CACHE is None:
        _CACHE = ModelCache()
    return _CACHE


_CACHE: Any = None


def _workers(client: Any) -> list[dict[str, Any]]:
    """The workers that take cases now."""
    try:
        found = client.scheduler_info(n_workers=-1)
    except TypeError:  # older versions tell of all
        found = client.scheduler_info()
    except (OSError, TimeoutError):
        return []
    return [worker for worker in found["workers"].values() if worker.get("status", "running") == "running"]


def in_words(error: BaseException, what: str = "case") -> NeuraxisError:
    """The error that Dask tells of a case, or of another kind of job."""
    if type(error).__name__ == "KilledWorker":
        return WorkerError(
            f"Every worker that took this {what} was lost, most likely because memory ran out; give workers more "
            "memory."
        )
    if isinstance(error, ImportError):
        return DependencyError("The workers of the cluster cannot load Neuraxis; install it in their Python.")
    return as_user_error(error)
