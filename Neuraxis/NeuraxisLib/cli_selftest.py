"""``neuraxis selftest``: does this installation compute?"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from NeuraxisLib.cli_process import EXIT_CODES, faults_reported, shown_progress
from NeuraxisLib.task import TASKS, get_task

if TYPE_CHECKING:
    from NeuraxisLib.selftest import TaskOutcome


def self_test_command(
    task: Annotated[str, typer.Option("--task", help="Only this task.")] = "",
    device: Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, mps, openvino.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", help="Threads to compute with.", min=1)] = None,
    memory_limit_gb: Annotated[
        float | None, typer.Option("--memory-limit", help="Most memory in GB (Linux only).", min=0.1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what this computer has, and run a small case of each task in the worker.

    The exit code is 0 if all work, else that of the first that does not (1 if its result is not as it should be).
    """
    from NeuraxisLib import machine, selftest
    from NeuraxisLib.worker_client import WorkerClient

    with faults_reported(as_json):
        tasks = [get_task(name) for name in ([task] if task else TASKS)]
        facts = machine.ask(sys.executable)
        if not as_json:
            print("\n".join(machine.sentences(facts)))
        client = WorkerClient(threads=threads, memory_limit_gb=memory_limit_gb)
        with shown_progress() as progress:
            outcomes = selftest.self_test(client, tasks, device, progress)
        if as_json:
            record = {"facts": facts, "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]}
            print(json.dumps(record, indent=1))
        else:
            print("\n".join([*map(_line, outcomes), selftest.summary(outcomes)]))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        raise typer.Exit(EXIT_CODES.get(failed[0].code, 1))


def _line(outcome: TaskOutcome) -> str:
    if not outcome.passed:
        return f"{outcome.title}: failed after {outcome.seconds:.1f} s. {outcome.sentence}"
    where = f" on {outcome.device}" if outcome.device else ""
    return f"{outcome.title}: passed in {outcome.seconds:.1f} s{where}."
