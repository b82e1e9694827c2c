"""A small case of every task through the worker: does this installation compute, how fast, and where."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from NeuraxisLib.errors import CancelledError, NeuraxisError
from NeuraxisLib.process import as_user_error
from NeuraxisLib.task import Example, Progress, Task
from NeuraxisLib.worker_client import WorkerClient
from NeuraxisLib.worker_job import Job

#: Seconds between two looks at whether to go on.
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class TaskOutcome:
    """How the small case of one task went.

    Attributes:
        task: its name. title: what its button says.
        seconds: from the request to the result, the start of the worker included.
        device: where it was computed; empty if nothing was, or if the task does not say.
        sentence: what went wrong; empty if it passed.
        code: stable code of the error; empty if it passed, "result" for a result that is not as it should be.
    """

    task: str
    title: str
    seconds: float
    device: str = ""
    sentence: str = ""
    code: str = ""

    @property
    def passed(self) -> bool:
        """Whether the task works here."""
        return not self.sentence


def self_test(
    client: WorkerClient, tasks: Iterable[Task], device: str = "auto", progress: Progress | None = None
) -> list[TaskOutcome]:
    """Run the small case of each task that has one; the client is stopped at the end, also by CancelledError."""
    tasks, progress = [task for task in tasks if task.example], progress or Progress()
    outcomes = []
    try:
        for number, task in enumerate(tasks):
            outcomes.append(
                _outcome(client, task, device, progress.part(number / len(tasks), (number + 1) / len(tasks)))
            )
    finally:
        client.stop()
    return outcomes


def _outcome(client: WorkerClient, task: Task, device: str, progress: Progress) -> TaskOutcome:
    progress(0.0, f"{task.title}: starting")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="neuraxis-selftest-") as folder:
        try:
            example = task.make_example(Path(folder))
            used, sentence = _run(client, task, example, device, progress)
        except CancelledError:
            raise
        except Exception as fault:
            error = as_user_error(fault)
            return TaskOutcome(task.name, task.title, time.monotonic() - started, "", str(error), error.code)
    seconds = time.monotonic() - started
    return TaskOutcome(task.name, task.title, seconds, used, sentence, "result" if sentence else "")


def _run(client: WorkerClient, task: Task, example: Example, device: str, progress: Progress) -> tuple[str, str]:
    """(device that was used, sentence on what is wrong with the result)."""
    handle = client.run(Job(task.name, example.inputs, options=example.options, device=device))
    while not handle.is_finished:
        try:
            client.wait(handle, _LOOK_EVERY_S)
        except TimeoutError:
            progress(handle.fraction, f"{task.title}: {handle.stage}")
        except NeuraxisError:
            pass  # read_result raises it again
    result = handle.read_result()
    used, sentence = str(result.provenance.get("device") or ""), example.fault(result)
    client.release(handle)
    return used, sentence


def summary(outcomes: list[TaskOutcome]) -> str:
    """One line on how it went."""
    failed = [outcome.title for outcome in outcomes if not outcome.passed]
    if failed:
        return f"Self-test: {len(failed)} of {len(outcomes)} do not work here: {', '.join(failed)}."
    return f"Self-test: {', '.join(outcome.title for outcome in outcomes)}: all work here."
