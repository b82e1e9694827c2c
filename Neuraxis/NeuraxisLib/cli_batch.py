"""``neuraxis batch CASES OUT --task TASK``: many cases, resumable, on this computer or on a cluster."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from NeuraxisLib import RESEARCH_USE_NOTICE
from NeuraxisLib.batch import Batch, Entry
from NeuraxisLib.batch_cases import find_cases
from NeuraxisLib.batch_local import LocalWorkers, default_workers
from NeuraxisLib.batch_record import main_value
from NeuraxisLib.cli_process import EXIT_CODES, faults_reported
from NeuraxisLib.errors import InputError
from NeuraxisLib.panel import time_left
from NeuraxisLib.remote import refuse_memory
from NeuraxisLib.task import DEVICES, TASKS, get_task
from NeuraxisLib.worker_client import WorkerClient

#: Exit status of a batch that has come to its end although cases failed; see cli.py for the others.
SOME_FAILED = 10


def run_batch(
    cases: Annotated[
        str,
        typer.Argument(
            help="Folder tree, DICOM directory, address of a DICOMweb server, or CSV table with the columns case, "
            "inputs and options of the task.",
            metavar="CASES",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(
            help="Folder for the results, cases.csv, report.html and the ledger by which a batch goes on; or an "
            "address such as s3://bucket/folder.",
            metavar="OUT",
            show_default=False,
        ),
    ],
    task: Annotated[str, typer.Option("--task", help=f"What to do: {', '.join(TASKS)}.", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="Installed model or model file.", show_default=False)] = "",
    device: Annotated[str, typer.Option("--device", help=f"Where to compute: {', '.join(DEVICES)}.")] = "auto",
    workers: Annotated[
        int, typer.Option("--workers", help="Cases at once; 0 for what suits this computer.", min=0)
    ] = 0,
    threads: Annotated[int, typer.Option("--threads", help="Threads of each worker.", min=1)] = 1,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="An option of the task, such as threshold=0.4.", metavar="NAME=VALUE"),
    ] = None,
    scheduler: Annotated[
        str, typer.Option("--scheduler", help="Dask scheduler that computes, such as tcp://host:8786.")
    ] = "",
    slurm: Annotated[
        Path | None,
        typer.Option("--slurm", help="TOML or YAML file with the Slurm jobs that compute.", show_default=False),
    ] = None,
    match: Annotated[str, typer.Option("--match", help="Only files of this name, such as '*_T2w.nii.gz'.")] = "",
    allow_gaps: Annotated[bool, typer.Option("--allow-gaps", help="Measure DICOM series with missing slices.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try cases again that failed before.")] = False,
    time_limit: Annotated[
        float, typer.Option("--time-limit", help="Minutes that one case may take; 0 for any.", min=0)
    ] = 0.0,
    list_only: Annotated[
        bool, typer.Option("--list", help="Only list the cases, and which series was chosen and why.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary, or the error, as JSON.")] = False,
) -> None:
    """Run a task on many cases.

    A batch that was stopped goes on when it is run again: what is finished is not done twice, a changed input is.
    Exit status: 0 all cases are done, 10 some failed (see cases.csv), 130 stopped with Ctrl-C (finished cases stay).
    """
    with faults_reported(as_json):
        chosen, found = get_task(task), None
        refuse_memory(output)
        options = _options(option or [])
        found = find_cases(cases, chosen, output, match)
        if list_only:
            _print_cases(found, as_json)
            return
        shown = ShownBatch(as_json)
        settings = {"model": model, "options": options, "device": device, "allow_gaps": allow_gaps}
        with _workers(scheduler, slurm, device, workers, threads, time_limit) as pool:
            batch = Batch(task, found, output, pool, retry_failed=retry_failed, on_case=shown.on_case, **settings)
            status = shown.run(batch)
    if status:
        raise typer.Exit(status)


@contextlib.contextmanager
def _workers(
    scheduler: str, slurm: Path | None, device: str, count: int, threads: int, time_limit: float
) -> Iterator[Any]:
    """The workers that were asked for: of a Dask scheduler, of Slurm jobs, or of this computer."""
    if not scheduler and slurm is None:
        count = count or default_workers(device, threads)
        yield LocalWorkers(lambda: WorkerClient(threads=threads), count, 60 * time_limit or None)
        return
    from NeuraxisLib.batch_dask import DaskWorkers
    from NeuraxisLib.batch_slurm import slurm_cluster

    if scheduler and slurm is not None:
        raise InputError("Give --scheduler or --slurm, not both.")
    if scheduler:
        yield DaskWorkers(scheduler, device, 60 * time_limit or None)
        return
    cluster = slurm_cluster(slurm)
    try:
        yield DaskWorkers(cluster, device, 60 * time_limit or None)
    finally:
        cluster.close()


class ShownBatch:
    """A batch on the command line: progress on stderr, a summary on stdout, Ctrl-C that keeps what is finished."""

    def __init__(self, as_json: bool):
        self._as_json = as_json
        self._batch: Batch | None = None
        self._stopped_by: int | None = None

    def run(self, batch: Batch) -> int:
        """Run to the end; the exit status."""
        self._batch = batch
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self._bar() as update:
                while not batch.is_finished:
                    batch.poll(0.2)
                    update()
        finally:
            batch.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        if batch.failure is not None:
            raise batch.failure
        self._print_summary()
        if batch.state == "cancelled":
            return 143 if self._stopped_by == signal.SIGTERM else EXIT_CODES["cancelled"]
        return SOME_FAILED if batch.count("failed") else 0

    def on_case(self, entry: Entry) -> None:
        """One line per finished case, where no bar can be drawn."""
        if self._batch is None or sys.stderr.isatty() or entry.earlier or entry.status not in ("done", "failed"):
            return
        batch = self._batch
        what = entry.error or main_value(entry.record) or "done"
        finished, speed = batch.count("done") + batch.count("failed"), _speed(batch)
        print(f"{finished} of {len(batch.entries)} {entry.case.name}: {what} ({speed})", file=sys.stderr)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._stopped_by is not None:
            raise KeyboardInterrupt  # twice: at once
        self._stopped_by = number
        print("Stopping; finished cases are kept.", file=sys.stderr)
        self._batch.cancel()

    def _bar(self) -> Any:
        if not sys.stderr.isatty():
            return contextlib.nullcontext(lambda: None)
        return _drawn_bar(self._batch)

    def _print_summary(self) -> None:
        batch = self._batch
        record = summary_record(batch)
        if self._as_json:
            print(json.dumps(record, indent=1, ensure_ascii=False))
            return
        left = record["cases"] - record["done"] - record["failed"]
        words = [f"{record['done']} of {record['cases']} cases are done", f"{record['failed']} failed"]
        words += [f"{left} are left"] if left else []
        words += [f"{record['earlier']} were finished before"] if record["earlier"] else []
        lines = [", ".join(words) + "."]
        lines += [f"Failed: {case['case']}: {case['error']}" for case in record["failures"][:10]]
        if len(record["failures"]) > 10:
            lines.append(f"and {len(record['failures']) - 10} more; see cases.csv.")
        lines += [f"Note: {note}" for note in batch.notes]
        print("\n".join([*lines, f"Report: {batch.output / 'report.html'}", RESEARCH_USE_NOTICE]))


def summary_record(batch: Batch) -> dict[str, Any]:
    """How a batch ended, for scripts."""
    failed = [entry for entry in batch.entries if entry.status == "failed"]
    return {
        "status": batch.state,
        "task": batch.task.name,
        "cases": len(batch.entries),
        "done": batch.count("done"),
        "failed": len(failed),
        "earlier": sum(entry.earlier for entry in batch.entries),
        "cases_per_hour": batch.cases_per_hour,
        "failures": [
            {"case": entry.case.name, "code": entry.record.get("code"), "error": entry.error} for entry in failed
        ],
        "notes": batch.notes,
    }


def _speed(batch: Batch) -> str:
    rate = batch.cases_per_hour
    words = [f"{rate:.0f} cases per hour" if rate else "", time_left(batch.seconds_left)]
    return ", ".join(word for word in words if word)


def _drawn_bar(batch: Batch) -> Any:
    """A context that draws a bar on the terminal; gives the function that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    @contextlib.contextmanager
    def drawn() -> Any:
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[speed]}"),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        with bar:
            row = bar.add_task("Starting", total=1.0, speed="")
            last = 0.0

            def update() -> None:
                nonlocal last
                if time.monotonic() - last > 0.3:
                    last = time.monotonic()
                    bar.update(row, completed=batch.fraction, description=batch.stage, speed=_speed(batch))

            yield update

    return drawn()


def _print_cases(cases: list[Any], as_json: bool) -> None:
    if as_json:
        rows = [
            {"case": case.name, "series": case.series, "chosen": case.chosen, "fault": case.fault} for case in cases
        ]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for case in cases:
        print(": ".join(word for word in (case.name, case.fault or case.chosen) if word))


def _options(texts: list[str]) -> dict[str, Any]:
    """``["threshold=0.4", "flip_averaging=true"]`` as names and values, which the task's options convert."""
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"'{text[:80]}' is not of the form name=value; correct --option.")
        options[name] = {"true": True, "false": False}.get(value.lower(), value)
    return options
