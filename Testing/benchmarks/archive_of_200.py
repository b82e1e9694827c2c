"""An archive through a cluster that loses a worker: no study lost, none silently wrong, and a rerun does nothing.

    python Testing/benchmarks/archive_of_200.py FOLDER [--studies 200] [--workers 2] [--broken 0.1] [--seed 0]

Simulates studies of all three tasks in several formats, a tenth of them broken in different ways, and runs ``neuraxis
batch --scheduler`` once per task, with the models that ship, on a Dask scheduler and worker processes of this computer.
When half of the studies are finished, a worker that is computing is killed (SIGKILL), and another is started 5 s later,
as a cluster would. Then every good study must have a readable result on its own grid, with a measure near its truth;
every broken one the sentence of its fault, and no result; nothing may be half written or entered twice; and a second
run must leave every file as it is and give no task to the cluster. Prints one table; exit status 1 if anything does
not hold.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))]
sys.path[:0] = [str(room) for room in ROOMS if str(room) not in sys.path]

import numpy as np  # noqa: E402

from NeuraxisLib.errors import NeuraxisError  # noqa: E402
from NeuraxisLib.models import find_model  # noqa: E402
from NeuraxisLib.result_folder import RESULT_FILE, read_result  # noqa: E402
from NeuraxisLib.task import get_task  # noqa: E402
from NeuraxisLib.worker_process import child_environment  # noqa: E402
from Testing.archive_faults import write_broken  # noqa: E402
from Testing.archive_studies import Study, write_good  # noqa: E402
from Testing.lost_worker import Cluster  # noqa: E402

#: Share of each task among the studies.
SHARES = {"hemorrhage": 0.4, "stroke": 0.25, "discs": 0.35}
#: Seconds until a cluster has another worker in the place of a lost one.
REPLACED_AFTER_S = 5.0
#: Of all processes: one thread each.
ENVIRONMENT = {**child_environment(ROOMS, None, 1, hide_gpu=True), "DASK_DISTRIBUTED__DASHBOARD__LINK": ""}
#: How a study ended.
RIGHT, LOST, WRONG = "right", "lost", "wrong-silent"


# -- the archive ----------------------------------------------------------------------------------------------


def write_archive(folder: Path, studies: int, broken: float, seed: int) -> list[Study]:
    """Write the archive, a folder per task; a share of the studies of every task is broken, at random places."""
    rng, written = np.random.default_rng(seed), []
    for task, count in shared_out(studies, SHARES).items():
        (folder / task).mkdir(parents=True)
        bad = set(rng.choice(count, round(broken * count), replace=False).tolist())
        numbers = Counter()
        for index in range(count):
            write = write_broken if index in bad else write_good
            written.append(write(task, numbers[write], folder / task / f"{task}{index:03d}", rng))
            numbers[write] += 1
    return written


def shared_out(count: int, shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers in the proportion of the shares that add up to the count."""
    ends = np.rint(count * np.cumsum([0.0, *shares.values()])).astype(int)
    return {name: int(number) for name, number in zip(shares, np.diff(ends))}


def copy_models(folder: Path) -> None:
    """Copy the default model of every task that needs one, so that a model installed meanwhile changes no run."""
    folder.mkdir()
    for task in map(get_task, SHARES):
        if task.needs_model:
            shutil.copyfile(find_model(task, ""), folder / f"{task.name}.safetensors")


# -- running --------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What one run of the command did, over all tasks.

    Attributes:
        seconds: wall time of each task. summaries: what the command printed for each.
        finished: studies that it reported as finished, one by one.
        events: what was done to the cluster, in words.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    summaries: dict[str, dict] = field(default_factory=dict)
    finished: int = 0
    events: list[str] = field(default_factory=list)


class Killer:
    """Kills a worker once half of the studies are finished; another is started some seconds later."""

    def __init__(self, cluster: Cluster, studies: int):
        self._cluster, self._studies, self._since = cluster, studies, time.monotonic()
        self._timer: threading.Timer | None = None

    def __call__(self, run: Run) -> None:
        if self._timer is not None or run.finished < self._studies // 2:
            return
        name, held = self._cluster.kill_one()
        self._say(run, f"{name} killed while it computed; it held {held} of the cases")
        self._timer = threading.Timer(REPLACED_AFTER_S, self._replace, [run])
        self._timer.start()

    def stop(self) -> None:
        """Start no other worker from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()

    def _replace(self, run: Run) -> None:
        self._cluster.add_worker()
        self._say(run, "another worker started")

    def _say(self, run: Run, what: str) -> None:
        seconds = time.monotonic() - self._since
        run.events.append(f"{seconds:.0f} s, {run.finished} of {self._studies} studies finished: {what}")


def run_batches(cluster: Cluster, folder: Path, meanwhile: Callable[[Run], None] = lambda run: None) -> Run:
    """``neuraxis batch`` on the archive, one task after the other; ``meanwhile`` is called as studies end."""
    run = Run()
    for task in SHARES:
        since, model = time.monotonic(), folder / "models" / f"{task}.safetensors"
        command = [
            sys.executable, "-m", "NeuraxisLib.cli", "batch", str(folder / "archive" / task),
            str(folder / "results" / task), "--task", task, "--scheduler", cluster.address, "--device", "cpu", "--json",
            *(["--model", str(model)] if model.exists() else []),
        ]  # fmt: skip
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            said = []
            for line in process.stderr:
                said.append(line)
                run.finished += bool(re.match(r"\d+ of \d+ ", line))
                meanwhile(run)
            printed = process.stdout.read()
        if process.returncode not in (0, 10):
            raise RuntimeError(f"neuraxis batch ended with {process.returncode}: {printed} {''.join(said[-5:])}")
        run.seconds[task], run.summaries[task] = time.monotonic() - since, json.loads(printed)
    return run


# -- judging --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """How a study ended: right, lost or wrong-silent, and what is wrong."""

    study: Study
    end: str
    why: str = ""


def judge(studies: list[Study], results: Path) -> list[Verdict]:
    """Every study against what it must have become."""
    rows: dict[tuple[str, str], dict] = {}
    for task in SHARES:
        with open(results / task / "cases.csv", encoding="utf-8", newline="") as file:
            rows |= {(task, row["case"]): row for row in csv.DictReader(file)}
    verdicts = [_judge_one(study, rows.pop((study.task, study.name), None), results / study.task) for study in studies]
    unknown = [Verdict(Study(task, name, "no study of the archive"), WRONG, "in the table") for task, name in rows]
    return verdicts + unknown


def _judge_one(study: Study, row: dict | None, results: Path) -> Verdict:
    if row is None:
        return Verdict(study, LOST, "not in the table")
    if row["status"] not in ("done", "failed"):
        return Verdict(study, LOST, row["status"])
    if study.sentence:
        if row["status"] == "done" or (results / study.name).exists():
            return Verdict(study, WRONG, "a result of a broken study")
        fits = re.search(study.sentence, row["error"]) and row["error"].endswith(".") and "/" not in row["error"]
        return Verdict(study, RIGHT if fits else WRONG, "" if fits else f"another sentence: {row['error']}")
    if row["status"] == "failed":
        return Verdict(study, LOST, row["error"])
    try:
        why = _fault_of_result(study, results / row["result_folder"])
    except (NeuraxisError, OSError) as error:
        return Verdict(study, LOST, f"its result cannot be read: {error}")
    return Verdict(study, WRONG if why else RIGHT, why)


def _fault_of_result(study: Study, folder: Path) -> str:
    """What is wrong with the result of a good study; empty if nothing is."""
    result = read_result(folder)
    if result.task != study.task or result.source.array.shape[-3:] != study.grid:
        return f"of another image ({result.task}, {result.source.array.shape})"
    if study.task == "discs" and not result.points:
        return "no points"
    if study.task != "discs" and (result.labels is None or not result.labels.array.any()):
        return "no label map, or an empty one"
    value = next((m.value for m in result.measurements if m.name == study.measure), None)
    if value is None or not study.least <= value <= study.most:
        return f"{study.measure} is {value}, not between {study.least:.1f} and {study.most:.1f}"
    return ""


def half_written(results: Path) -> list[str]:
    """What must not lie among the results: hidden files and folders, folders without their document."""
    hidden = [path for path in results.rglob(".*")]
    unfinished = [path for path in results.glob("*/*/") if path.is_dir() and not (path / RESULT_FILE).is_file()]
    return sorted(str(path.relative_to(results)) for path in {*hidden, *unfinished})


def entered_twice(results: Path) -> list[str]:
    """Studies that a ledger tells of more than once, as one that was computed anew."""
    told = Counter(
        f"{ledger.parent.name} {json.loads(line)['case']}"
        for ledger in results.glob("*/batch.jsonl")
        for line in ledger.read_bytes().splitlines()
    )
    return sorted(name for name, times in told.items() if times > 1)


def state(results: Path) -> dict[str, tuple[str, int]]:
    """Path -> (digest, time of change) of every file of a result, and of the ledgers."""
    files = [path for path in [*results.glob("*/*/**/*"), *results.glob("*/batch.jsonl")] if path.is_file()]
    return {
        str(path.relative_to(results)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


# -- all of it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What the archive came to.

    Attributes:
        verdicts: of every study. first, again: the two runs.
        leftovers: what was half written. doubled: studies with more than one entry in the ledger.
        changed: files that the rerun changed. moves: of tasks during the rerun.
        computed: cases that each worker brought to an end.
    """

    verdicts: list[Verdict]
    first: Run
    again: Run
    leftovers: list[str]
    doubled: list[str]
    changed: list[str]
    moves: int
    computed: Counter

    @property
    def faults(self) -> list[str]:
        """Everything that does not hold, in words."""
        found = [f"{v.end}: {v.study.task} {v.study.name} ({v.study.kind}): {v.why}" for v in self.verdicts if v.why]
        found += [f"half written: {name}" for name in self.leftovers]
        found += [f"entered twice: {name}" for name in self.doubled]
        found += [f"changed by the rerun: {name}" for name in self.changed]
        found += [f"the rerun moved {self.moves} tasks of the cluster"] if self.moves else []
        cases = sum(summary["cases"] for summary in self.again.summaries.values())
        earlier = sum(summary["earlier"] for summary in self.again.summaries.values())
        found += [f"the rerun found {earlier} of {cases} finished"] if earlier != cases or self.again.finished else []
        found += ["no worker was killed"] if not self.first.events else []
        return found


def hold(folder: Path, studies: int = 200, workers: int = 2, broken: float = 0.1, seed: int = 0) -> Outcome:
    """Write an archive to an empty folder, run it with a kill, judge it and run it again."""
    archive = write_archive(folder / "archive", studies, broken, seed)
    copy_models(folder / "models")
    results = folder / "results"
    cluster = Cluster(folder, workers, ENVIRONMENT)
    killer = Killer(cluster, studies)
    try:
        first = run_batches(cluster, folder, killer)
        killer.stop()
        verdicts, before, moves = judge(archive, results), state(results), cluster.moves()
        again = run_batches(cluster, folder)
        after, moves = state(results), cluster.moves() - moves
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        who = cluster.computed()
    finally:
        killer.stop()
        cluster.close()
    return Outcome(verdicts, first, again, half_written(results), entered_twice(results), changed, moves, who)


def report(outcome: Outcome) -> str:
    """The table: what became of the studies, by task and kind, and how it went."""
    groups: dict[tuple[str, bool, str], Counter] = {}
    for v in outcome.verdicts:
        groups.setdefault((v.study.task, bool(v.study.sentence), v.study.kind), Counter())[v.end] += 1
    lines = [f"{'task':11s} {'study':45s} {'studies':>8s} {RIGHT:>8s} {WRONG:>12s} {LOST:>5s}"]
    for task, is_broken, kind in sorted(groups, key=lambda key: (list(SHARES).index(key[0]), key[1])):
        ends = groups[task, is_broken, kind]
        words = f"{'broken: ' * is_broken}{kind}"
        lines.append(f"{task:11s} {words:45s} {ends.total():8d} {ends[RIGHT]:8d} {ends[WRONG]:12d} {ends[LOST]:5d}")
    ended, count = Counter(v.end for v in outcome.verdicts), len(outcome.verdicts)
    bad, ways = sum(bool(v.study.sentence) for v in outcome.verdicts), sum(key[1] for key in groups)
    first_s, again_s = (sum(run.seconds.values()) for run in (outcome.first, outcome.again))
    by_task = ", ".join(f"{task} {seconds:.0f} s" for task, seconds in outcome.first.seconds.items())
    return "\n".join([
        *lines,
        f"{count} studies, {bad} of them broken in {ways} ways: {ended[RIGHT]} right, {ended[WRONG]} wrong-silent, "
        f"{ended[LOST]} lost, {len(outcome.leftovers)} half written, {len(outcome.doubled)} entered twice",
        f"wall time {first_s:.0f} s ({by_task}), {3600 * count / first_s:.0f} cases per hour",
        *outcome.first.events,
        "cases computed: " + ", ".join(f"{name} {number}" for name, number in sorted(outcome.computed.items())),
        f"rerun: {again_s:.0f} s, {outcome.again.finished} cases done again, {outcome.moves} moves of tasks in the "
        f"scheduler, {len(outcome.changed)} files changed",
    ])  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run it by hand; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="absent or empty; gets the archive and the results")
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--broken", type=float, default=0.1, help="share of the studies that is broken")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    folder = given.folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        parser.error("the folder is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    outcome = hold(folder, given.studies, given.workers, given.broken, given.seed)
    print(report(outcome))
    print("\n".join(["DOES NOT HOLD:", *outcome.faults] if outcome.faults else ["All of it holds."]))
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
