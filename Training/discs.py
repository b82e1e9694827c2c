"""Samples of spines for disc networks: painted spines of a bank and real ones of a store, mixed as a recipe says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from SpineDiscLabelLib.discs import DISC_NAMES
from SpineDiscLabelLib.preprocessing import SagittalPreprocessing
from SpineDiscLabelLib.targets import heat_maps
from Training.data import Data
from Training.discs_cases import painted_from, real_spine
from Training.discs_views import RealSpine, Sample, painted_sample, plain_sample, real_sample
from Training.distributed import is_first
from Training.pool import results
from Training.progress import ProgressLine
from Training.recipe import Recipe
from Training.sampling import Batch
from Training.simulation.spine_bank import PaintedSpine, paint_spine
from Training.store import Store

#: Every so many painted spines one is straight and smooth, as averaged templates are.
STRAIGHT_EVERY = 5
#: Share of the painted samples that come from real label maps, where there are any.
_FROM_LABELS = 0.2
#: What a model file says a peak must reach to be a disc: of 0.1 to 0.4 the best by the score on held-out windows.
THRESHOLD = 0.2
#: Painted spines kept out of training, and windows of each spine that a network is judged on.
HELD_OUT, WINDOWS = 6, 3


class DiscSampler:
    """Draws batches; the same (seed, step) gives the same batch.

    Args:
        painted: spines of the bank. labelled: painted ones made of real label maps. real: scans.
        preprocessing: of the network.
        shares: share of samples of ``"synthetic"`` (painted) and ``"store"`` (real).
        absent: whether channels of absent discs are taught to be 0; as published they get no gradient at all.
        augmentation: of real scans: ``"windows"`` (anywhere, any contrast), ``"published"`` (whole, half of them upside
            down), ``"none"`` (whole).
    """

    def __init__(
        self,
        painted: Sequence[PaintedSpine],
        labelled: Sequence[PaintedSpine],
        real: Sequence[RealSpine],
        preprocessing: SagittalPreprocessing,
        shares: dict[str, float],
        absent: bool = True,
        augmentation: str = "windows",
    ):
        self.absent, self.augmentation = absent, augmentation
        self.painted, self.labelled, self.real, self.preprocessing = painted, labelled, real, preprocessing
        total = shares.get("synthetic", 0) + shares.get("store", 0)
        self.share_of_real = shares.get("store", 0) / total if total else 0.0
        if (self.share_of_real > 0 and not real) or (self.share_of_real < 1 and not painted):
            missing = "real" if self.share_of_real > 0 and not real else "painted"
            raise InputError(f"There are no {missing} spines; give some or set their share to 0.")

    def batch(self, seed: int, step: int, size: int, wanted: slice = slice(None)) -> Batch:
        """The batch of ``size`` samples of one step, or those of them that are ``wanted``."""
        rngs = [np.random.default_rng([seed, step, index]) for index in range(size)[wanted]]
        return collated([self.sample(rng) for rng in rngs], self.preprocessing, self.absent)

    def sample(self, rng: np.random.Generator) -> Sample:
        """One sample."""
        if rng.random() < self.share_of_real:
            spine = self.real[rng.integers(len(self.real))]
            if self.augmentation == "windows":
                return real_sample(spine, self.preprocessing, rng)
            return plain_sample(spine, self.preprocessing, rng, self.augmentation == "published")
        source = self.labelled if self.labelled and rng.random() < _FROM_LABELS else self.painted
        return painted_sample(source[rng.integers(len(source))], self.preprocessing, rng)


def collated(samples: Sequence[Sample], preprocessing: SagittalPreprocessing, absent: bool = True) -> Batch:
    """Samples as a batch: the heat maps of the discs in view, and which channels may teach (``extra["visible"]``).

    A channel of an absent disc is taught to be 0 if ``absent``. Where a disc's level is not known only the channel of
    any disc teaches.
    """
    images, truth, visible = [], [], []
    for sample in samples:
        images.append(preprocessing.to_network(sample.image))
        truth.append(heat_maps(preprocessing, sample.discs_mm, sample.numbers, [sample.position_mm])[0])
        known = np.ones(preprocessing.classes, np.float32) if absent else truth[-1].any(axis=(1, 2)).astype(np.float32)
        if None in sample.numbers:
            known[: preprocessing.levels] = 0
        visible.append(known)
    return Batch(
        torch.from_numpy(np.ascontiguousarray(np.stack(images), np.float32)),
        torch.from_numpy(np.stack(truth)),
        extra={"visible": torch.from_numpy(np.stack(visible))},
    )


def spines(options: argparse.Namespace, recipe: Recipe, store: Store | None) -> Data:
    """Data of the family ``"sagittal"``: a bank of painted spines in the run's folder, and the cases of a store."""
    from Training.discs_scores import picture_of

    bank = options.run / "bank"
    bank.mkdir(exist_ok=True)
    count = recipe["simulation"]["spines"] if recipe["fitting"]["shares"].get("synthetic") else 0
    painted = fill_bank(bank, count, recipe["fitting"]["seed"], options.workers)
    keep = len(painted) - min(HELD_OUT, len(painted) // 4)
    train = judged = []
    if store is not None:
        splits = store.of_split(*options.train_split), store.of_split(options.val_split)
        train, judged = ([real_spine(store.case(name)) for name in names] for names in splits)
    labelled = [spine for spine in map(painted_from, train) if spine is not None] if count else []
    fitting, augmentation = recipe["fitting"], recipe["sampling"]["augmentation"]
    spines_of = (painted[:keep], labelled, train)
    sampler = DiscSampler(*spines_of, recipe.preprocessing, fitting["shares"], fitting["absent"], augmentation)
    held_out = held_out_samples(painted[keep:], judged, recipe.preprocessing)
    return Data(
        sampler,
        held_out,
        lambda network, device: THRESHOLD,
        partial(picture_of, held_out[:3], recipe) if held_out else None,
        simulated=not train,
        labels={str(number): name for number, name in DISC_NAMES.items()},
        min_component_ml=0.0,
    )


def fill_bank(bank: Path, count: int, seed: int, workers: int) -> list[PaintedSpine]:
    """Paint the spines that the bank lacks; returns all of them."""
    paths = [bank / f"spine_{number:05d}.npz" for number in range(count)]
    jobs = [(path, seed, number) for number, path in enumerate(paths) if not path.exists()]
    with ProgressLine(silent=not is_first()) as line:
        progress = Progress(line)
        for done, _ in enumerate(results(paint_into_bank, jobs, workers), start=1):
            progress(done / len(jobs), f"painted {done} of {len(jobs)} spines")
    return [PaintedSpine.load(path) for path in paths]


def paint_into_bank(path: Path, seed: int, number: int) -> None:
    """Paint one spine of the bank."""
    straight = number % STRAIGHT_EVERY == STRAIGHT_EVERY - 1
    paint_spine(np.random.default_rng([seed, number]), straight).save(path)


def held_out_samples(
    painted: Sequence[PaintedSpine], real: Sequence[RealSpine], preprocessing: SagittalPreprocessing
) -> list[tuple[str, Sample]]:
    """(source, sample) of fixed windows into spines that are not trained on."""
    samples = []
    for number, (source, spine) in enumerate([*(("painted", s) for s in painted), *(("real", s) for s in real)]):
        draw = painted_sample if source == "painted" else real_sample
        for window in range(WINDOWS * (1 if source == "painted" else 4)):
            samples.append((source, draw(spine, preprocessing, np.random.default_rng([20261128, number, window]))))
    return samples
