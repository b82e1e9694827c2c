"""How long a person waits for the discs of a 15 x 512 x 512 sagittal MR.

    python Testing/benchmarks/benchmark_discs.py [--model MODEL] [--rounds 5] [--threads 2]

The scan is the bundled lumbar MR, brought to that grid. Timed are the doors as a user meets them: the command line from
its start to its end, which loads everything anew, and a warm worker from the request to the written result folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / name) for name in ("Neuraxis", "SpineDiscLabel")]
sys.path[:0] = PATHS

from NeuraxisLib.files import read_volume, write_volume  # noqa: E402
from NeuraxisLib.models import find_model  # noqa: E402
from NeuraxisLib.task import get_task  # noqa: E402
from NeuraxisLib.volume import Volume  # noqa: E402
from NeuraxisLib.worker_client import WorkerClient  # noqa: E402
from NeuraxisLib.worker_job import Job  # noqa: E402
from SpineDiscLabelLib.sagittal import sagittal_order  # noqa: E402

SHAPE = (15, 512, 512)
COLD_GOAL_S, WARM_GOAL_S = 4.0, 1.5


def enlarged(volume: Volume) -> Volume:
    """The volume with sagittal slices, on a grid of SHAPE over the same tissue."""
    from scipy.ndimage import zoom

    volume = sagittal_order(volume).apply(volume)
    factors = np.array(SHAPE) / volume.array.shape
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, :3] /= factors[::-1]
    array = np.rint(zoom(volume.array.astype(np.float32), factors, order=1)).astype(np.int16)
    return replace(volume, array=array, ijk_to_ras=matrix, slice_origins_ras=None)


def time_command_line(scan: Path, model: Path, folder: Path, threads: int) -> float:
    """Seconds of ``neuraxis discs``."""
    command = [sys.executable, "-m", "NeuraxisLib.cli", "discs", str(scan), str(folder / "cold"), "--model", str(model)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])}
    start = time.perf_counter()
    subprocess.run([*command, "--threads", str(threads)], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def time_worker(scan: Path, model: Path, folder: Path, threads: int, rounds: int) -> list[float]:
    """Seconds of each run in one worker that has run once."""
    client, seconds = WorkerClient(threads=threads), []
    try:
        for _ in range(rounds + 1):
            start = time.perf_counter()
            client.wait(client.run(Job("discs", {"mr": scan}, str(model), {}, "cpu", folder / "warm")))
            seconds.append(time.perf_counter() - start)
    finally:
        client.stop()
    return seconds[1:]


def main() -> None:
    """Time both doors and print them with their goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="installed model or model file; the default one if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    model = Path(find_model(get_task("discs"), options.model))
    sample = read_volume(get_task("discs").resources / "SampleData" / "lumbar_spine_mr.nrrd")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_volume(enlarged(sample), folder / "spine.nrrd")
        chosen = (folder / "spine.nrrd", model, folder, options.threads)
        cold = [time_command_line(*chosen) for _ in range(options.rounds)]
        warm = time_worker(*chosen, options.rounds)
    print(f"{' x '.join(map(str, SHAPE))} voxels, {options.threads} threads, {os.cpu_count()} cores, {model.name}")
    for title, seconds, goal in (("command line, cold", cold, COLD_GOAL_S), ("warm worker", warm, WARM_GOAL_S)):
        middle = statistics.median(seconds)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        reached = "reached" if middle <= goal else "NOT reached"
        print(f"{title:20} median {middle:6.2f} s ({spread})  goal {goal:g} s: {reached}")


if __name__ == "__main__":
    main()
