"""Rows of the table: doors as a user meets them, more slices, more cases, more workers, what overlaps in a batch."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from NeuraxisLib import run as one_case
from NeuraxisLib.batch import Batch
from NeuraxisLib.batch_cases import find_cases
from NeuraxisLib.batch_entry import RUNNING, Entry
from NeuraxisLib.batch_local import DONE, LocalWorkers
from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.models import find_model
from NeuraxisLib.task import get_task
from NeuraxisLib.worker_client import WorkerClient
from Testing.benchmarks import benchmark_discs, benchmark_inference
from Testing.benchmarks.results import Row, Settings, Sheet
from Testing.benchmarks.rows_networks import head, spine
from Testing.benchmarks.turns import Apart

DOOR_THREADS = 2
Interval = tuple[float, float]


# -- doors ----------------------------------------------------------------------------------------------------


def doors(settings: Settings) -> Row:
    """The command line from start to end, and a warm worker from request to result folder, on two threads."""
    rounds = 1 if settings.quick else 3
    hemorrhage, discs = (Path(find_model(get_task(name), "")) for name in ("hemorrhage", "discs"))
    scans, row = (head(settings), spine(settings)), Row("Doors, two threads")
    command = [
        benchmark_inference.time_command_line(scans[0], hemorrhage, settings.folder, DOOR_THREADS)
        for _ in range(rounds)
    ]
    warm = benchmark_inference.time_worker(scans[0], hemorrhage, settings.folder, DOOR_THREADS, rounds)
    chosen = (scans[1], discs, settings.folder, DOOR_THREADS)
    disc_command = [benchmark_discs.time_command_line(*chosen) for _ in range(rounds)]
    disc_warm = benchmark_discs.time_worker(*chosen, rounds)
    seconds, memory_gb = (statistics.median(values) for values in zip(*command))
    row.facts = {"cold_s": seconds, "warm_s": statistics.median(warm), "cold_gb": memory_gb}
    found = {
        "hemorrhage, command line": (seconds, benchmark_inference.CLI_GOAL_S),
        "hemorrhage, warm worker": (statistics.median(warm), benchmark_inference.WORKER_GOAL_S),
        "discs, command line": (statistics.median(disc_command), benchmark_discs.COLD_GOAL_S),
        "discs, warm worker": (statistics.median(disc_warm), benchmark_discs.WARM_GOAL_S),
    }
    row.sheet = Sheet(
        ["Door", "Wall [s]", "Goal [s]", ""],
        [
            [name, f"{s:.2f}", f"{goal:g}", "reached" if s <= goal else "NOT reached"]
            for name, (s, goal) in found.items()
        ],
    )
    row.notes.append(f"Head CT 36 x 512 x 512, spine MR 15 x 512 x 512; the command line takes {memory_gb:.2f} GB.")
    return row


# -- slices ---------------------------------------------------------------------------------------------------


def slices(settings: Settings) -> Row:
    """The CT task on more and more slices of 512 x 512 over the same head."""
    counts, side = ((6, 12), 96) if settings.quick else ((20, 40, 80, 160, 320), 512)
    task = get_task("hemorrhage")
    model, row = Path(find_model(task, "")), Row("The CT task over the number of slices")
    source = read_volume(task.resources / "SampleData" / "head_ct_hemorrhage.nrrd")
    lines = []
    for count in counts:
        scan = settings.folder / f"slices{count}.nrrd"
        write_volume(benchmark_inference.enlarged(source, (count, side, side)), scan)
        contender = Apart(settings.threads, benchmark_inference.ours, scan, model, "auto")
        try:
            first, second = contender.round(), contender.round()
        finally:
            contender.close()
            scan.unlink()
        settings.say(f"  {count} slices: {second.cpu_s:.2f} s of the processor")
        lines.append([str(count), f"{second.wall_s:.2f}", f"{second.cpu_s:.2f}", f"{1000 * second.cpu_s / count:.0f}",
                      _gb(first.peak_gb), _gb(first.extra_gb)])  # fmt: skip
        row.facts[str(count)] = {"cpu_s": second.cpu_s, "peak_gb": first.peak_gb, "extra_gb": first.extra_gb}
    row.sheet = Sheet(["Slices", "Wall [s]", "Processor [s]", "ms per slice", "Peak [GB]", "Added [GB]"], lines)
    row.notes.append(
        f"hemorrhage-drunet-starter, one thread, {side} x {side} in-plane, second run in a process. The network looks "
        "at slabs of 5 mm, so that only resampling, brain and measures grow with thinner slices."
    )
    return row


def _gb(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# -- batches --------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """A batch that has ended.

    Attributes:
        wall_s, cpu_s: from before its workers start to after they have ended; runner and workers together.
        peak_gb: most memory that its workers held at one time; None without psutil.
        phases: case -> phase ("start", "read", "compute", "write") -> (from, to) on the wall.
    """

    wall_s: float
    cpu_s: float
    peak_gb: float | None
    phases: dict[str, dict[str, Interval]]

    def total(self, phase: str) -> float:
        """Seconds of a phase, all cases together."""
        return sum(end - begin for case in self.phases.values() for begin, end in [case[phase]])

    @property
    def sum_s(self) -> float:
        """Seconds of all phases of all cases, as if one came after the other."""
        return sum(self.total(phase) for phase in ("start", "read", "compute", "write"))

    @property
    def hidden(self) -> float:
        """Share of the reading and writing during which another case was computed."""
        waiting, covered = 0.0, 0.0
        for name, case in self.phases.items():
            others = [other["compute"] for key, other in self.phases.items() if key != name]
            for phase in ("read", "write"):
                waiting += case[phase][1] - case[phase][0]
                covered += covered_s(case[phase], others)
        return covered / max(waiting, 1e-9)


def covered_s(interval: Interval, others: Iterable[Interval]) -> float:
    """Seconds of an interval that at least one of the others covers."""
    begin, end = interval
    inside = sorted((max(begin, low), min(end, high)) for low, high in others if low < end and high > begin)
    total, reached = 0.0, begin
    for low, high in inside:
        total += max(0.0, high - max(low, reached))
        reached = max(reached, high)
    return total


class _Watch:
    """Listens to a batch: when each case entered which phase."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._moments: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def __call__(self, entry: Entry) -> None:
        name, now = entry.case.name, time.monotonic()
        if entry.status == DONE:
            self._moments[name].append((now, 1.0))
        elif entry.status == RUNNING and entry.stage == "Starting":
            self._begun[name] = now
        elif entry.status == RUNNING:  # its worker has said something
            self._moments[name].append((now, entry.fraction))

    def phases(self) -> dict[str, dict[str, Interval]]:
        """Of every case; what comes before the first word of its worker is start-up."""
        found = {}
        for name, moments in self._moments.items():
            first, ended = moments[0][0], moments[-1][0]
            computing, writing = (
                next(at for at, fraction in moments if fraction >= edge) for edge in one_case._COMPUTE
            )
            found[name] = {
                "start": (self._begun[name], first), "read": (first, computing), "compute": (computing, writing),
                "write": (writing, ended),
            }  # fmt: skip
        return found


def run_batch(task: str, folder: Path, workers: int, output: Path) -> Ran:
    """Every scan of a folder through the real runner and its worker processes, one thread each."""
    before = _cpu_s()
    wall, peak, watch = time.monotonic(), 0.0, _Watch()
    cases = find_cases(str(folder), get_task(task), output)
    batch = Batch(
        task, cases, output, LocalWorkers(lambda: WorkerClient(threads=1), workers), device="cpu", on_case=watch
    )
    looked = 0.0
    try:
        while not batch.is_finished:
            batch.poll(0.05)
            if time.monotonic() - looked > 0.5:
                looked, peak = time.monotonic(), max(peak, _children_gb())
    finally:
        batch.close()
    assert batch.state == "done" and batch.count(DONE) == len(cases), [
        entry.error for entry in batch.entries if entry.error
    ]
    return Ran(time.monotonic() - wall, _cpu_s() - before, peak or None, watch.phases())


def _cpu_s() -> float:
    """Processor seconds of this process and of all its ended children."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _children_gb() -> float:
    """Resident memory of all child processes now."""
    try:
        import psutil
    except ImportError:
        return 0.0
    total = 0
    for child in psutil.Process().children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total / 1e9


def copies(scan: Path, count: int, folder: Path) -> Path:
    """A folder with so many copies of a scan."""
    folder.mkdir(parents=True)
    for number in range(count):
        shutil.copy(scan, folder / f"case{number:03d}{scan.suffix}")
    return folder


def batch(settings: Settings) -> Row:
    """1, 4, 16, 64 cases with one and two workers of one thread."""
    counts, workers = ((1, 2), (1, 2)) if settings.quick else ((1, 4, 16, 64), (1, 2))
    scan = get_task("discs").resources / "SampleData" / "lumbar_spine_mr.nrrd"
    row, lines = Row("Batch over the number of cases and workers"), []
    for count in counts:
        folder, found = copies(scan, count, settings.folder / f"cases{count}"), {}
        for number in workers:
            output = settings.folder / f"out{count}-{number}"
            found[number] = ran = run_batch("discs", folder, number, output)
            shutil.rmtree(output)
            settings.say(f"  {count} cases, {number} workers: {ran.wall_s:.1f} s, {ran.cpu_s:.1f} s of the processor")
            linear, cost = found[1].wall_s / (number * ran.wall_s), found[1].cpu_s / ran.cpu_s
            shares = ["", ""] if number == 1 else [f"{linear:.2f}", f"{cost:.2f}"]
            took = [f"{ran.wall_s:.1f}", f"{ran.cpu_s:.1f}", f"{3600 * count / ran.wall_s:.0f}"]
            lines.append([str(count), str(number), *took, *shares, _gb(ran.peak_gb)])
        shutil.rmtree(folder)
        row.facts[str(count)] = {"linear": linear, "cost": cost}
    columns = ["Cases", "Workers", "Wall [s]", "Processor [s]", "Cases per hour", "Of linear, wall",
               "Of linear, processor", "Workers' memory [GB]"]  # fmt: skip
    row.sheet = Sheet(columns, lines)
    row.notes.append(
        "Discs in the bundled lumbar MR, workers started and ended within the time. *Of linear*: what one worker took "
        "over what all took together; by processor time it says what sharing costs, whatever else the machine does."
    )
    return row


def overlap(settings: Settings) -> Row:
    """Reading, computing and writing of different cases at the same time: the wall against the sum of the phases."""
    count = 2 if settings.quick else 6
    folder = copies(head(settings), count, settings.folder / "overlapping")
    row, lines = Row("What overlaps in a batch"), []
    for workers in (1, 2):
        output = settings.folder / f"overlap{workers}"
        ran = run_batch("hemorrhage", folder, workers, output)
        shutil.rmtree(output)
        phases = [f"{ran.total(phase):.2f}" for phase in ("start", "read", "compute", "write")]
        took = [f"{ran.sum_s:.2f}", f"{ran.wall_s:.2f}", f"{ran.sum_s / ran.wall_s:.2f}", f"{ran.hidden:.0%}"]
        lines.append([str(workers), *phases, *took])
        row.facts[str(workers)] = {"sum_over_wall": ran.sum_s / ran.wall_s, "hidden": ran.hidden}
    phases = ("Starting", "Reading", "Computing", "Writing", "Sum", "Wall")
    row.sheet = Sheet(["Workers", *(f"{phase} [s]" for phase in phases), "Sum / wall", "Hidden"], lines)
    row.notes.append(
        f"{count} head CTs, phases as the runner hears of them. *Hidden* is the share of reading and writing during "
        "which another case was computed. One worker does one thing after the other (the system only reads the next "
        f"file ahead); {os.cpu_count()} cores here."
    )
    return row
