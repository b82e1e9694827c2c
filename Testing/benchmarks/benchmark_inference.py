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
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / name) for name in ("Neuraxis", "HemorrhageSeg")]
sys.path[:0] = [str(ROOT), *PATHS]

from HemorrhageSegLib.brain import extract_brain  # noqa: E402
from NeuraxisLib.files import read_volume, write_volume  # noqa: E402
from NeuraxisLib.inference import build_network, foreground  # noqa: E402
from NeuraxisLib.models import ModelFile, find_model, load_model  # noqa: E402
from NeuraxisLib.preprocessing import SlicePreprocessing, slice_grid  # noqa: E402
from NeuraxisLib.process import keep_freed_memory  # noqa: E402
from NeuraxisLib.task import Progress, get_task  # noqa: E402
from NeuraxisLib.volume import Volume  # noqa: E402
from Testing.benchmarks.turns import Apart, Run, take_turns  # noqa: E402

SHAPE = (36, 512, 512)
CONTENDERS = {
    "ours": "ours, whole task",
    "ours-float32": "ours, whole task, float32",
    "peer-0.25": "MONAI windows, overlap 0.25",
    "peer-0.5": "MONAI windows, overlap 0.5",
    "peer-0.625": "MONAI windows, overlap 0.625",
}
CLI_GOAL_S, WORKER_GOAL_S, RATIO_GOAL, MEMORY_GOAL_GB = 10, 5, 2, 2


def enlarged(volume: Volume, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """The volume on a grid of that shape over the same tissue."""
    from scipy.ndimage import zoom

    factors = np.array(shape) / volume.array.shape
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, :3] /= factors[::-1]
    array = np.rint(zoom(volume.array.astype(np.float32), factors, order=1)).astype(np.int16)
    return replace(volume, array=array, ijk_to_ras=matrix, slice_origins_ras=None)


# -- contenders, each in its own process ----------------------------------------------------------------------


def ours(scan: Path, model_path: Path, precision: str) -> Run:
    """The task as every door runs it, without reading and writing files; answers with the mask's voxels."""
    task, volume, model = get_task("hemorrhage"), read_volume(scan), load_model(model_path)
    options = task.options_type(device="cpu", precision=precision)
    keep_freed_memory()  # as the worker and the command line do
    return lambda: int(np.count_nonzero(task.run({"ct": volume}, model, options, Progress()).labels.array))


def network_of(model: ModelFile, volume: Volume) -> tuple[nn.Module, SlicePreprocessing, float]:
    """What a peer is given: the network with its weights, how it sees a head, and the pixel size it was trained at."""
    from HemorrhageSegLib.networks import NETWORKS

    preprocessing = SlicePreprocessing.from_dict(model.header["preprocessing"])
    pixel_mm = slice_grid(volume, extract_brain(volume).mask, preprocessing).pixel_mm
    return build_network(model, NETWORKS), preprocessing, pixel_mm


def windowed(slices: torch.Tensor, preprocessing: SlicePreprocessing) -> torch.Tensor:
    """Slices (k, rows, columns) in HU as the network's channels (k, channels, rows, columns), by MONAI."""
    from monai.transforms import ScaleIntensityRange

    channels = []
    for channel in preprocessing.channels:
        scaled = torch.as_tensor(ScaleIntensityRange(channel.low_hu, channel.high_hu, -1, 1, clip=True)(slices))
        at = (torch.arange(len(slices)) + channel.offset).clamp(0, len(slices) - 1)
        channels.append(scaled[at])
    return torch.stack(channels, dim=1)


def peer(scan: Path, model_path: Path, overlap: float) -> Run:
    """The same weights in MONAI's transforms and sliding windows; answers with the mask's voxels."""
    from monai.data import MetaTensor
    from monai.inferers import sliding_window_inference
    from monai.transforms import ResampleToMatch, Spacing

    volume, model = read_volume(scan), load_model(model_path)
    network, preprocessing, pixel_mm = network_of(model, volume)
    threshold = model.header["threshold"]

    @torch.inference_mode()
    def run() -> int:
        image = MetaTensor(torch.from_numpy(volume.array.T.astype(np.float32))[None], affine=volume.ijk_to_ras)
        coarse = Spacing((pixel_mm, pixel_mm, volume.spacing_mm[2]), mode="bilinear")(image)
        inputs = windowed(coarse.as_tensor()[0].permute(2, 1, 0), preprocessing)
        size = (preprocessing.size,) * 2
        logits = sliding_window_inference(inputs, size, 4, network, overlap=overlap, mode="gaussian")
        probability = foreground(logits)[:, 0].permute(2, 1, 0)[None]
        back = ResampleToMatch(mode="bilinear", padding_mode="zeros")(
            MetaTensor(probability, affine=coarse.affine), image
        )
        return int(np.count_nonzero((back[0].numpy() >= threshold).astype(np.uint8).T))

    return run


def contenders(scan: Path, model: Path, threads: int, names: Sequence[str] = tuple(CONTENDERS)) -> dict[str, Apart]:
    """Processes of the contenders, in the words of :data:`CONTENDERS`."""
    made = {}
    for name in names:
        kind, _, variant = name.partition("-")
        make, setting = (ours, variant or "auto") if kind == "ours" else (peer, float(variant))
        made[CONTENDERS[name]] = Apart(threads, make, scan, model, setting)
    return made


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
    from NeuraxisLib.worker_client import WorkerClient
    from NeuraxisLib.worker_job import Job

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
    parser.add_argument("--scan", type=Path, help="a head CT; the bundled one if not given")
    options = parser.parse_args()
    task = get_task("hemorrhage")
    model = find_model(task, options.model)
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
    taken = take_turns(contenders(scan, model, threads), rounds)
    base = taken[CONTENDERS["ours"]].wall_s
    print(f"{'':28} {'seconds':>8} {'ratio to ours':>14} {'peak GB':>8}")
    for name, found in taken.items():
        print(f"{name:28} {found.wall_s:8.2f} {found.wall_s / base:14.2f} {found.peak_gb or 0:8.2f}")
    ratio = min(found.wall_s for name, found in taken.items() if name.startswith("MONAI")) / base
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
