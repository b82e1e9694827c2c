"""Training samples per second: ours with and without reading, beside the same network and data in a plain MONAI loop.

    python Testing/benchmarks/benchmark_training.py [--rounds 3] [--steps 12] [--threads 1] [--device cpu]

The network is the compact DR-UNet of the starter (four channels, 192 x 192), the data are slices of simulated heads in
memory. *Ours* is the package's own loop: samples drawn from (seed, step), moved, made noisy and windowed by a thread
that works ahead, checks for values that are not finite, clipping, an average of the weights. *The peer* is what a user
of MONAI would write: a dataset of the same slices with MONAI's random transforms (mirror, affine, blur, noise, scale),
MONAI's DataLoader, DiceCELoss, AdamW. Of its loader with no and with one worker process the faster one counts. "Without
reading" trains on one batch again and again: what is left is the network. Every contender lives in a process of its
own; all take turns, so that a busy machine slows all alike, and the median of each counts.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("", "Neuraxis", "HemorrhageSeg", "Testing")]

from phantom_head import real_head  # noqa: E402

from NeuraxisLib.process import keep_freed_memory  # noqa: E402
from NeuraxisLib.task import Progress  # noqa: E402
from Training.fitting import Fitting, build  # noqa: E402
from Training.recipe import Recipe  # noqa: E402
from Training.sampling import Batch, HeadSampler  # noqa: E402
from Training.simulation import anatomy as anatomies  # noqa: E402
from Training.simulation.bank import BankedHead, to_bank  # noqa: E402
from Training.simulation.head_ct import plant  # noqa: E402

HEADS = 6
CONTENDERS = ("ours", "ours, without reading", "MONAI loop, no worker", "MONAI loop, one worker")
#: Ours over the peer, from which the benchmark exits with 0.
RATIO_GOAL = 1.0
#: One turn; returns (samples per second, CPU seconds per sample of the process with its threads).
Round = Callable[[], tuple[float, float]]
Moment = tuple[float, float]


def fill(folder: Path, recipe: Recipe) -> dict[str, list[str]]:
    """Planted phantom heads on the network's grid; returns their names by source."""
    volume, brain = real_head()
    anatomy = anatomies.of_real_head(volume, brain)
    for number in range(HEADS):
        head = plant(volume, anatomy, np.random.default_rng(number), bleeds=2)
        to_bank(head, recipe.preprocessing, "planted").save(folder / f"planted_{number:05d}.npz")
    return {"planted": [f"planted_{number:05d}" for number in range(HEADS)]}


class OneBatch:
    """A sampler that costs nothing."""

    def __init__(self, batch: Batch):
        self._batch = batch

    def batch(self, *_: object) -> Batch:
        """The same batch every time."""
        return self._batch


def rates(moments: list[Moment], samples: int) -> tuple[float, float]:
    """(samples per second, CPU seconds per sample) between the first and the last moment."""
    (began, began_cpu), (ended, ended_cpu) = moments[0], moments[-1]
    return samples / (ended - began), (ended_cpu - began_cpu) / samples


class RoundOver(Exception):
    """Ends a round in the middle of a run."""


def ours(recipe: Recipe, folder: Path, sampler: HeadSampler | OneBatch, steps: int, device: str, readers: int) -> Round:
    """Our loop; a round goes on where the last one ended."""
    fitting = Fitting(recipe, folder, sampler, [], device, readers=readers)

    def one_round() -> tuple[float, float]:
        moments: list[Moment] = []

        def note(fraction: float, stage: str) -> None:
            moments.append((time.perf_counter(), time.process_time()))
            if len(moments) > steps:
                raise RoundOver

        with contextlib.suppress(RoundOver):
            fitting.fit(Progress(note), lambda record: None)
        return rates(moments, steps * recipe["fitting"]["batch"])

    return one_round


def peer(recipe: Recipe, folder: Path, names: list[str], steps: int, device: str, workers: int) -> Round:
    """The same network and slices in a plain MONAI loop."""
    from monai.data import DataLoader, Dataset
    from monai.losses import DiceCELoss

    channels, size = recipe["architecture"]["arguments"]["in_channels"], recipe["fitting"]["batch"]
    slices = list(slices_of(folder, names, channels))
    loader = DataLoader(Dataset(slices, transforms()), batch_size=size, shuffle=True, num_workers=workers,
                        drop_last=True, persistent_workers=workers > 0)  # fmt: skip
    network = build(recipe).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loss_of = DiceCELoss(sigmoid=True)
    batches = endless(loader)
    next(batches)

    def one_round() -> tuple[float, float]:
        network.train()
        moments: list[Moment] = []
        for _ in range(steps + 1):
            batch = next(batches)
            images = batch["image"].as_tensor().to(device).contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(network(images), batch["truth"].as_tensor().to(device))
            loss.backward()
            optimiser.step()
            loss.item()
            moments.append((time.perf_counter(), time.process_time()))
        return rates(moments, steps * size)

    return one_round


def slices_of(folder: Path, names: list[str], channels: int) -> Iterator[dict[str, np.ndarray]]:
    """Every slice in the brain: image (channels, h, w) HU of the slice and its neighbours, truth (1, h, w)."""
    offsets = (0, -1, 1, 0)[:channels]
    for name in names:
        head = BankedHead.load(folder / f"{name}.npz")
        last = len(head.slabs_hu) - 1
        for k in np.flatnonzero(head.brain.any(axis=(1, 2))):
            around = np.clip([k + offset for offset in offsets], 0, last)
            yield {
                "image": head.slabs_hu[around].astype(np.float32),
                "truth": (head.truth[k][None] > 0).astype(np.float32),
            }


def transforms() -> Callable[[dict], dict]:
    """MONAI's transforms that do what our sampler does: mirror, move, scale HU, blur, noise, window."""
    from monai.transforms import (
        Compose,
        RandAffined,
        RandFlipd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        ScaleIntensityRanged,
    )

    keys = ["image", "truth"]
    return Compose(
        [
            RandFlipd(keys, prob=0.5, spatial_axis=1),
            RandAffined(
                keys, prob=1.0, rotate_range=0.3, scale_range=0.15, translate_range=6, mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandScaleIntensityd("image", factors=0.08, prob=1.0),
            RandGaussianSmoothd("image", sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), prob=0.2),
            RandGaussianNoised("image", prob=0.5, std=2.0),
            ScaleIntensityRanged("image", 0.0, 90.0, -1.0, 1.0, clip=True),
        ]
    )  # fmt: skip


def endless(loader: object) -> Iterator[dict]:
    """Batch after batch, epoch after epoch."""
    while True:
        yield from loader  # type: ignore[misc]


def contend(name: str, options: argparse.Namespace, folder: Path, connection: Connection) -> None:
    """One contender in its own process: a round for every message, until one says otherwise."""
    torch.set_num_threads(options.threads)
    recipe = recipe_of(options)
    names = {"planted": [f"planted_{number:05d}" for number in range(HEADS)]}
    sampler = HeadSampler(folder, names, recipe.preprocessing, {"planted": 1.0}, 0.5)
    if name.startswith("ours"):
        keep_freed_memory()  # as train.py does
        source = OneBatch(sampler.batch(0, 0, options.batch)) if "without" in name else sampler
        one_round = ours(recipe, folder / "run", source, options.steps, options.device, options.readers)
    else:
        one_round = peer(recipe, folder, names["planted"], options.steps, options.device, int("one worker" in name))
    while connection.recv():
        connection.send(one_round())


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The starter's recipe without an end, on planted heads of the network's size."""
    endless_run = ("fitting.validate_every=1000000", "fitting.steps=1000000", "fitting.keep_minutes=1000000")
    return Recipe.read(
        ROOT / "Training" / "recipes" / "hemorrhage_drunet_starter.toml",
        ("fitting.precision=fp32", f"fitting.batch={options.batch}", "simulation.bank_size=192",
         "fitting.shares={planted=1.0}", *endless_run),
    )  # fmt: skip


def measure(options: argparse.Namespace) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """Contender -> (samples per second, CPU seconds per sample) of every round, and what one thread reads alone."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in options.contenders}
    with tempfile.TemporaryDirectory() as temporary:
        folder, recipe = Path(temporary), recipe_of(options)
        names = fill(folder, recipe)
        ends = {}
        for name in options.contenders:
            ends[name], other = context.Pipe()
            context.Process(target=contend, args=(name, options, folder, other)).start()
            other.close()
        for turn in range(options.rounds + 1):  # the first one warms up
            for name, end in ends.items():
                end.send(True)
                answer = end.recv()
                if turn:
                    found[name].append(answer)
        for end in ends.values():
            end.send(False)
        sampler = HeadSampler(folder, names, recipe.preprocessing, {"planted": 1.0}, 0.5)
        return found, reading(sampler, options.batch)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; the median counts")
    parser.add_argument("--steps", type=int, default=12, help="steps of a round")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="threads of the network")
    parser.add_argument("--readers", type=int, default=1, help="threads that make our batches")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    """Print the table; 0 if ours is at least as fast as the peer."""
    found, reading_rate = measure(parse())
    medians = {name: tuple(map(statistics.median, zip(*rounds))) for name, rounds in found.items()}
    return report(medians, reading_rate)


def reading(sampler: HeadSampler, size: int) -> float:
    """Samples per second that one thread makes when nothing else runs."""
    began = time.perf_counter()
    for step in range(3):
        sampler.batch(1, step, size)
    return 3 * size / (time.perf_counter() - began)


def report(medians: dict[str, tuple[float, ...]], reading_rate: float) -> int:
    """Print samples per second and the ratios; the exit status."""
    for name, (rate, cpu_s) in medians.items():
        print(f"{name:<24} {rate:8.2f} samples/s  {1000 * cpu_s:8.0f} ms of CPU per sample")
    print(f"{'reading alone':<24} {reading_rate:8.2f} samples/s")
    ratio = medians["ours"][0] / max(medians["MONAI loop, no worker"][0], medians["MONAI loop, one worker"][0])
    waits = 1 - medians["ours"][0] / medians["ours, without reading"][0]
    cpu = medians["MONAI loop, no worker"][1] / medians["ours"][1]
    print(f"ours / MONAI loop        {ratio:8.2f}    (goal: at least {RATIO_GOAL:g})")
    print(f"the same by CPU time     {cpu:8.2f}    (a busy machine cannot disturb it; reading counts in both)")
    print(f"lost to reading          {100 * max(waits, 0):7.1f} %")
    return 0 if ratio >= RATIO_GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
