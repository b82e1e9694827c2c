"""Where a cluster bends: thousands of cases on 1 to 256 workers, simulated from times that were recorded.

    python Testing/benchmarks/simulate_cluster.py --record SCANS...     times of real cases -> recorded_cases.json
    python Testing/benchmarks/simulate_cluster.py [--figure FILE.png]   the simulation, and real runs beside it

What is real: the seconds of processor time that reading, computing and writing took for each recorded case (hemorrhage,
default model, one thread), the bytes read and written, and the processor time that the runner of the batch and Dask's
scheduler need per case, measured here with a real scheduler, the real runner and workers that sleep. What is simulated:
the workers, and a shared disk whose bandwidth all transfers share equally. Not modelled: nodes that differ, a network
beside the disk's, memory, start-up of workers. No run on a real cluster stands behind the curves; the circles are real
runs on one computer, with workers that sleep for a part of the recorded time.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / room) for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))]

import numpy as np  # noqa: E402

RECORDED = Path(__file__).with_name("recorded_cases.json")
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CASES = 4096
#: Bandwidth of the shared disk in bytes per second.
DISKS = {"1 Gbit/s": 0.11e9, "10 Gbit/s": 1.1e9}
#: How much faster computing is supposed to be: the recorded processor, and a graphics card that nobody measured.
SPEEDS = {"one core per worker (recorded)": 1.0, "computing 20 times as fast (supposed)": 20.0}


@dataclass(frozen=True)
class CaseTimes:
    """One recorded case: seconds of processor time, and bytes from and to the disk."""

    read_s: float
    compute_s: float
    write_s: float
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True)
class Overhead:
    """Seconds of processor time per case: of the runner, and of Dask's client and scheduler."""

    runner_s: float
    scheduler_s: float


# -- recording ------------------------------------------------------------------------------------------------


def record(scans: list[Path]) -> list[CaseTimes]:
    """Run the task on scans, one thread, and time its three parts; the file grows with every scan."""
    from NeuraxisLib.process import keep_freed_memory
    from NeuraxisLib.result_folder import write_result
    from NeuraxisLib.run import ModelCache, read_inputs, task_options
    from NeuraxisLib.task import Progress, get_task

    keep_freed_memory()
    task, models, found = get_task("hemorrhage"), ModelCache(), []
    options = task_options(task, {"device": "cpu"})
    for number, scan in enumerate([scans[0], *scans]):  # the first is read twice: to warm up
        with tempfile.TemporaryDirectory() as folder:
            marks = [time.process_time()]
            given = read_inputs(task, {"ct": scan}, options, None, False, Progress())
            marks.append(time.process_time())
            result = task.run(given, models.get(task, ""), options, Progress())
            marks.append(time.process_time())
            written = write_result(result, Path(folder) / "result")
            marks.append(time.process_time())
            size = sum(path.stat().st_size for path in written.iterdir())
        if number:
            found.append(CaseTimes(*(float(x) for x in np.diff(marks).round(4)), scan.stat().st_size, size))
            print(found[-1], flush=True)
            RECORDED.write_text(json.dumps([asdict(case) for case in found], indent=1) + "\n")
    return found


# -- what the runner and the scheduler need -------------------------------------------------------------------


def sleep_case(job: dict[str, Any], seconds: float) -> dict[str, str]:
    """A case on a worker that sleeps instead of computing and writes a result of one line."""
    time.sleep(seconds)
    folder = Path(job["output"])
    folder.mkdir()
    marks = {"recipe": job["recipe"], "input_sha256": "x"}
    measurements = [{"name": "Total volume", "value": 1.0, "unit": "mL", "interval": [0.9, 1.1], "segment": ""}]
    (folder / "result.json").write_text(json.dumps({"provenance": marks, "measurements": measurements}))
    return {"folder": str(folder)}


def real_run(count: int, workers: int, seconds: np.ndarray) -> tuple[float, float]:
    """(seconds, processor seconds of this process) of a real batch on a real scheduler with sleeping workers."""
    import distributed

    from NeuraxisLib.batch import Batch
    from NeuraxisLib.batch_dask import DaskWorkers

    class Sleeping(DaskWorkers):
        def submit(self, number, job):
            nap = float(seconds[(number - 1) % len(seconds)])
            future = self._client.submit(sleep_case, asdict(job), nap, key=f"case-{number}", pure=False)
            self._futures[number] = future
            future.add_done_callback(lambda ended: self._ended.put(number))

    with (
        tempfile.TemporaryDirectory() as folder,
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=workers, processes=False, dashboard_address=None
        ) as cluster,
    ):
        pool = Sleeping(cluster, "cpu")
        since, busy = time.perf_counter(), time.process_time()
        Batch("stroke", _cases(folder, count), Path(folder) / "out", pool).wait()
        return time.perf_counter() - since, time.process_time() - busy


def runner_alone(count: int) -> float:
    """Processor seconds of the runner for so many cases, with workers that are done at once."""
    from NeuraxisLib.batch import Batch
    from NeuraxisLib.batch_local import DONE, CaseEvent

    class Instant:
        attempts, free = 1, 1

        def __init__(self):
            self._events = []

        def submit(self, number, job):
            sleep_case(asdict(job), 0.0)
            self._events.append(CaseEvent(number, DONE))

        def poll(self, patience_s=0.0):
            events, self._events = self._events, []
            return events

        def progress_of(self, number):
            return 0.0, ""

        def close(self):
            """Nothing to end."""

    with tempfile.TemporaryDirectory() as folder:
        busy = time.process_time()
        Batch("stroke", _cases(folder, count), Path(folder) / "out", Instant()).wait()
        return time.process_time() - busy


def _cases(folder: str, count: int) -> list[Any]:
    from NeuraxisLib.batch_cases import Case

    scan = Path(folder) / "scan.nrrd"
    scan.write_bytes(b"scan")
    return [Case(f"case{number}", {"perfusion": str(scan)}) for number in range(count)]


def measure_overhead(count: int = 400) -> Overhead:
    """What runner and scheduler need per case on this computer."""
    runner = runner_alone(count) / count
    _, busy = real_run(count, 16, np.zeros(1))
    return Overhead(runner, max(0.0, busy / count - runner))


# -- the simulation -------------------------------------------------------------------------------------------


class SharedDisk:
    """Transfers that share a bandwidth equally, as a clock of bytes that each of them has been given."""

    def __init__(self, bandwidth: float):
        self._bandwidth, self._given, self._at = bandwidth, 0.0, 0.0
        self._ends: list[tuple[float, int]] = []

    def begin(self, now: float, size: float, owner: int) -> None:
        """Begin a transfer of so many bytes."""
        self._advance(now)
        heapq.heappush(self._ends, (self._given + size, owner))

    def next_end(self) -> float:
        """When the first transfer ends if none begins before."""
        if not self._ends:
            return np.inf
        return self._at + max(0.0, self._ends[0][0] - self._given) * len(self._ends) / self._bandwidth

    def end(self, now: float) -> int:
        """The owner of the transfer that ends now."""
        self._advance(now)
        return heapq.heappop(self._ends)[1]

    def _advance(self, now: float) -> None:
        if self._ends:
            self._given += (now - self._at) * self._bandwidth / len(self._ends)
        self._at = now


def simulate(cases: list[CaseTimes], workers: int, overhead: Overhead, bandwidth: float, speed: float = 1.0) -> float:
    """Seconds until all cases are done.

    Each case is handed out by the scheduler and booked by the runner, one after the other in one process; a worker
    reads from the shared disk, computes, and writes to it.
    """
    disk, events, waiting, idle = SharedDisk(bandwidth), [], list(range(len(cases)))[::-1], workers
    desk_free, now, left, stage = 0.0, 0.0, len(cases), {}
    per_case = overhead.runner_s + overhead.scheduler_s
    while left:
        while idle and waiting:
            idle -= 1
            desk_free = max(desk_free, now) + per_case
            heapq.heappush(events, (desk_free, waiting.pop()))
        after = disk.next_end()
        if events and events[0][0] <= after:
            now, owner = heapq.heappop(events)
        else:
            now, owner = after, disk.end(after)
        case, step = cases[owner], stage.get(owner, 0)
        stage[owner] = step + 1
        if step == 0:
            disk.begin(now, case.read_bytes, owner)
        elif step == 1:
            heapq.heappush(events, (now + case.read_s + case.compute_s / speed + case.write_s, owner))
        elif step == 2:
            disk.begin(now, case.write_bytes, owner)
        else:
            left, idle = left - 1, idle + 1
    return now


def cases_per_hour(recorded: list[CaseTimes], overhead: Overhead, bandwidth: float, speed: float) -> list[float]:
    """For every number of workers; cases are drawn from the recorded ones."""
    rng = np.random.default_rng(1)
    drawn = [recorded[i] for i in rng.integers(0, len(recorded), CASES)]
    return [3600 * CASES / simulate(drawn, count, overhead, bandwidth, speed) for count in WORKERS]


# -- the figure -----------------------------------------------------------------------------------------------


def draw(curves: dict[tuple[str, str], list[float]], overhead: Overhead, real: list[tuple], path: Path) -> None:
    """Curves of the simulation, the straight line of no loss, and the real runs with sleeping workers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.9), sharey=True, dpi=90)
    for axis, speed in zip(axes, SPEEDS):
        for disk, style in zip(DISKS, ("o-", "s--")):
            axis.loglog(WORKERS, curves[speed, disk], style, base=2, markersize=3, label=f"shared disk {disk}")
        first = curves[speed, "10 Gbit/s"][0]
        axis.loglog(WORKERS, [first * count for count in WORKERS], ":", color="grey", base=2, label="no loss")
        limit = 3600 / (overhead.runner_s + overhead.scheduler_s)
        axis.axhline(limit, color="firebrick", linewidth=0.8, label="runner and scheduler")
        axis.set_title(speed, fontsize=10)
        axis.set_xlabel("workers")
        axis.set_xticks(WORKERS, WORKERS)
        axis.grid(alpha=0.3)
    for workers, measured, _ in real:
        axes[1].plot(workers, measured, "o", markersize=9, fillstyle="none", color="black",
                     label="real run, sleeping workers" if workers == real[0][0] else None)  # fmt: skip
    axes[0].set_ylabel("cases per hour")
    axes[0].set_yscale("log", base=10)
    axes[1].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    figure.savefig(path)


def real_points(recorded: list[CaseTimes], overhead: Overhead, counts: tuple[int, ...]) -> list[tuple]:
    """(workers, cases per hour measured, simulated) of real runs whose workers sleep as the right curves suppose."""
    speed, points = SPEEDS["computing 20 times as fast (supposed)"], []
    naps = np.array([case.read_s + case.compute_s / speed + case.write_s for case in recorded])
    for workers in counts:
        count = max(24, 12 * workers)
        seconds, _ = real_run(count, workers, naps)
        simulated = simulate([recorded[i % len(recorded)] for i in range(count)], workers, overhead, np.inf, speed)
        points.append((workers, 3600 * count / seconds, 3600 * count / simulated))
    return points


def main() -> None:
    """Record, or simulate and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--real", type=int, nargs="*", default=[1, 4, 16, 64], help="workers of the real runs")
    options = parser.parse_args()
    if options.record:
        record(options.record)
        return
    recorded = [CaseTimes(**case) for case in json.loads(RECORDED.read_text())]
    overhead = measure_overhead()
    print(f"per case: runner {1e3 * overhead.runner_s:.1f} ms, scheduler {1e3 * overhead.scheduler_s:.1f} ms")
    curves = {
        (speed, disk): cases_per_hour(recorded, overhead, DISKS[disk], SPEEDS[speed])
        for speed in SPEEDS
        for disk in DISKS
    }
    print(f"{'':60}" + "".join(f"{count:>9}" for count in WORKERS))
    for (speed, disk), values in curves.items():
        print(f"{speed + ', disk ' + disk:60}" + "".join(f"{value:9.0f}" for value in values))
    real = real_points(recorded, overhead, tuple(options.real))
    for workers, measured, simulated in real:
        print(f"real run, {workers} sleeping workers: {measured:.0f} cases per hour, simulated {simulated:.0f}")
    if options.figure:
        draw(curves, overhead, real, options.figure)


if __name__ == "__main__":
    main()
