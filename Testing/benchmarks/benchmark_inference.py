"""How fast a 512 x 512 x 36 head CT is measured, beside the same network driven by MONAI's sliding windows.

    python Testing/benchmarks/benchmark_inference.py [--model MODEL] [--rounds 5] [--threads 2]

Ours is the whole task: checks, brain, slices, network, way back, label map, measures. The peer is what a user of MONAI
would write around the same weights: resample in-plane to the network's pixel size, window the intensities, sliding
windows of the network's size over every slice (Gaussian weights, overlap 0.25 and 0.5), resample back, threshold. It
finds no brain and measures nothing, so the ratio is on the safe side. Imports and weights are loaded beforehand for
both; every contender lives in a process of its own, and they take turns, so that a busy machine slows all alike.

The doors are timed as a user meets them: the command line from its start to its end, and a warm worker.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / name) for name in ("Neuraxis", "HemorrhageSeg")]
sys.path[:0] = PATHS

from NeuraxisLib.files import read_volume, write_volume  # noqa: E402
from NeuraxisLib.models import ModelFile, find_model, load_model  # noqa: E402
from NeuraxisLib.task import Progress, get_task  # noqa: E402
from NeuraxisLib.volume import Volume  # noqa: E402

SHAPE = (36, 512, 512)
CONTENDERS = {
    "ours": "ours, whole task",
    "ours-float32": "ours, whole task, float32",
    "peer-0.25": "MONAI windows, overlap 0.25",
    "peer-0.5": "MONAI windows, overlap 0.5",
}
CLI_GOAL_S, WORKER_GOAL_S, RATIO_GOAL, MEMORY_GOAL_GB = 10, 5, 2, 2


def enlarged(volume: Volume) -> Volume:
    """The volume on a grid of SHAPE over the same tissue."""
    from scipy.ndimage import zoom

    factors = np.array(SHAPE) / volume.array.shape
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, :3] /= factors[::-1]
    array = np.rint(zoom(volume.array.astype(np.float32), factors, order=1)).astype(np.int16)
    return replace(volume, array=array, ijk_to_ras=matrix, slice_origins_ras=None)


# -- contenders, each in its own process ----------------------------------------------------------------------


def ours(volume: Volume, model: ModelFile, precision: str) -> Callable[[], np.ndarray]:
    """The task as every door runs it, without reading and writing files."""
    task = get_task("hemorrhage")
    options = task.options_type(device="cpu", precision=precision)
    return lambda: task.run({"ct": volume}, model, options, Progress()).labels.array


def peer(volume: Volume, model: ModelFile, overlap: float) -> Callable[[], np.ndarray]:
    """The same weights in MONAI's transforms and sliding windows."""
    import torch
    from monai.data import MetaTensor
    from monai.inferers import sliding_window_inference
    from monai.transforms import ResampleToMatch, ScaleIntensityRange, Spacing

    from HemorrhageSegLib.brain import extract_brain
    from HemorrhageSegLib.networks import NETWORKS
    from NeuraxisLib.inference import build_network
    from NeuraxisLib.preprocessing import SlicePreprocessing, slice_grid

    network = build_network(model, NETWORKS)
    preprocessing = SlicePreprocessing.from_dict(model.header["preprocessing"])
    pixel_mm = slice_grid(volume, extract_brain(volume).mask, preprocessing).pixel_mm  # what the network was trained at
    threshold = model.header["threshold"]

    @torch.inference_mode()
    def run() -> np.ndarray:
        image = MetaTensor(torch.from_numpy(volume.array.T.astype(np.float32))[None], affine=volume.ijk_to_ras)
        coarse = Spacing((pixel_mm, pixel_mm, volume.spacing_mm[2]), mode="bilinear")(image)
        slices = coarse[0].permute(2, 1, 0)
        channels = []
        for channel in preprocessing.channels:
            windowed = ScaleIntensityRange(channel.low_hu, channel.high_hu, -1, 1, clip=True)(slices)
            at = (torch.arange(len(slices)) + channel.offset).clamp(0, len(slices) - 1)
            channels.append(windowed.as_tensor()[at])
        inputs = torch.stack(channels, dim=1)
        size = (preprocessing.size,) * 2
        logits = sliding_window_inference(inputs, size, 4, network, overlap=overlap, mode="gaussian")
        probability = torch.sigmoid(logits)[:, 0].permute(2, 1, 0)[None]
        back = ResampleToMatch(mode="bilinear", padding_mode="zeros")(
            MetaTensor(probability, affine=coarse.affine), image
        )
        return (back[0].numpy() >= threshold).astype(np.uint8).T

    return run


def serve(contender: str, scan: Path, model_path: Path, threads: int) -> None:
    """Run one round per line on stdin; answer with seconds, peak memory and the mask's size as JSON."""
    import torch

    from NeuraxisLib.process import keep_freed_memory

    torch.set_num_threads(threads)
    volume, model = read_volume(scan), load_model(model_path)
    kind, _, variant = contender.partition("-")
    if kind == "ours":
        keep_freed_memory()  # as the worker and the command line do
        run = ours(volume, model, variant or "auto")
    else:
        run = peer(volume, model, float(variant))
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        mask = run()
        seconds = time.perf_counter() - start
        memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            json.dumps({"seconds": seconds, "memory_gb": memory_gb, "voxels": int(np.count_nonzero(mask))}), flush=True
        )


class Contender:
    """The process of one contender."""

    def __init__(self, name: str, scan: Path, model: Path, threads: int):
        command = [sys.executable, __file__, "--serve", name, "--scan", str(scan), "--model", str(model)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._read()
        self.rounds: list[dict] = []

    def _read(self) -> dict:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("A contender ended early; see its message above.")

    def round(self, warm_up: bool = False) -> None:
        """Run once and keep the answer."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._read()
        if not warm_up:
            self.rounds.append(answer)

    def stop(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def median(self, key: str) -> float:
        """Median over the rounds."""
        return statistics.median(answer[key] for answer in self.rounds)


# -- doors ----------------------------------------------------------------------------------------------------


def time_command_line(scan: Path, model: Path, folder: Path, threads: int) -> tuple[float, float]:
    """(seconds, peak memory in GB) of one call of ``neuraxis hemorrhage``."""
    command = [sys.executable, "-m", "NeuraxisLib.cli", "hemorrhage", str(scan), str(folder / "cli"), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--model", str(model), "--threads", str(threads)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("The command line failed; run it by hand to see why.")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


def time_worker(scan: Path, model: Path, folder: Path, threads: int, rounds: int) -> list[float]:
    """Seconds of each run in one warm worker, from the request to the written result folder."""
    from NeuraxisLib.worker_client import Job, WorkerClient

    client, seconds = WorkerClient(threads=threads), []
    try:
        for number in range(rounds + 1):
            job = Job("hemorrhage", {"ct": scan}, str(model), {}, "cpu", folder / "worker")
            start = time.perf_counter()
            client.wait(client.run(job))
            if number:
                seconds.append(time.perf_counter() - start)
    finally:
        client.stop()
    return seconds


# -- the table ------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="installed model or model file; the default model if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--scan", type=Path, help="a head CT; the bundled one if not given")
    options = parser.parse_args()
    task = get_task("hemorrhage")
    model = find_model(task, options.model)
    if options.serve:
        serve(options.serve, options.scan, model, options.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = folder / "head.nrrd"
        source = options.scan or task.resources / "SampleData" / "head_ct_hemorrhage.nrrd"
        write_volume(enlarged(read_volume(source)), scan)
        print(
            f"{' x '.join(map(str, SHAPE[::-1]))}, {options.threads} threads, model {load_model(model).name}, ", end=""
        )
        print(f"{options.rounds} rounds in turn, medians\n")
        compare(scan, model, options.threads, options.rounds)
        doors(scan, model, folder, options.threads, options.rounds)


def compare(scan: Path, model: Path, threads: int, rounds: int) -> None:
    """Print ours beside the peer."""
    contenders = {name: Contender(name, scan, model, threads) for name in CONTENDERS}
    for number in range(rounds + 1):
        for contender in contenders.values():
            contender.round(warm_up=number == 0)
    base = contenders["ours"].median("seconds")
    print(f"{'':28} {'seconds':>8} {'ratio to ours':>14} {'peak GB':>8}")
    for name, contender in contenders.items():
        seconds = contender.median("seconds")
        print(f"{CONTENDERS[name]:28} {seconds:8.2f} {seconds / base:14.2f} {contender.median('memory_gb'):8.2f}")
        contender.stop()
    ratio = min(contenders[name].median("seconds") for name in contenders if name.startswith("peer")) / base
    print(_goal(f"the fastest peer takes {ratio:.1f} times as long", f"at least {RATIO_GOAL}", ratio >= RATIO_GOAL))


def doors(scan: Path, model: Path, folder: Path, threads: int, rounds: int) -> None:
    """Print the times of the command line and of a warm worker."""
    calls = [time_command_line(scan, model, folder, threads) for _ in range(rounds)]
    seconds, memory = (statistics.median(values) for values in zip(*calls))
    warm = statistics.median(time_worker(scan, model, folder, threads, rounds))
    print(f"\n{'command line, cold':28} {seconds:8.2f} {'':14} {memory:8.2f}\n{'warm worker':28} {warm:8.2f}")
    print(_goal(f"command line {seconds:.1f} s", f"at most {CLI_GOAL_S} s", seconds <= CLI_GOAL_S))
    print(_goal(f"warm worker {warm:.1f} s", f"at most {WORKER_GOAL_S} s", warm <= WORKER_GOAL_S))
    print(_goal(f"memory {memory:.2f} GB", f"under {MEMORY_GOAL_GB} GB", memory < MEMORY_GOAL_GB))


def _goal(found: str, wanted: str, reached: bool) -> str:
    return f"-> {found} (goal: {wanted}): {'reached' if reached else 'NOT reached'}"


if __name__ == "__main__":
    main()
