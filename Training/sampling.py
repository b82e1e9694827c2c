"""Training samples: random slices of the banked heads, moved, re-scaled and made noisy in HU, then preprocessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from HemorrhageSegLib.density import DENSEST_BLOOD_HU
from NeuraxisLib.errors import InputError
from NeuraxisLib.preprocessing import SlicePreprocessing
from Training.simulation.bank import BLEEDING, CLEAN, UNKNOWN, BankedHead

#: Source of a banked head whose pixels are the grey of a picture, not HU.
PICTURE = "picture"


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        images: (n, channels, size, size) network input.
        truth: (n, 1, size, size) 1 where blood fills the pixel; of several classes their numbers 0, 1, 2 ...; of heat
            maps (n, joints, size, size).
        brain: (n, 1, size, size) 1 in the intracranial space where the density allows blood; None where the family
            knows no such space.
        slice_label: (n,) BLEEDING or CLEAN for real slices, UNKNOWN where ``truth`` is exact; None where all are.
        cases: where each sample comes from, for messages; may be empty.
        extra: what else a family's loss needs, first axis n (which joints are visible, whose stroke is lacunar).

    Of three-dimensional patches the tensors have one axis more: (n, channels, x, y, z) and (n, 1, x, y, z).
    """

    images: Tensor
    truth: Tensor
    brain: Tensor | None = None
    slice_label: Tensor | None = None
    cases: tuple[str, ...] = ()
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with ``function`` done to every tensor, as moving it to a device."""
        tensors = (self.images, self.truth, self.brain, self.slice_label)
        changed = (part if part is None else function(part) for part in tensors)
        return Batch(*changed, self.cases, {name: function(part) for name, part in self.extra.items()})


class HeadSampler:
    """Draws batches from a bank; the same (seed, step) gives the same batch.

    Args:
        folder: the bank.
        names: file stems to use, by source.
        preprocessing: of the network.
        shares: source -> share of the samples.
        bleeding_share: share of slices with blood among samples of simulated heads and of the store.
        augmentation: ``"head"``: slices are moved, re-scaled and made noisy here, in HU; anything else: they come as
            they are, resized to the network's grid.
    """

    def __init__(
        self,
        folder: Path,
        names: dict[str, list[str]],
        preprocessing: SlicePreprocessing,
        shares: dict[str, float],
        bleeding_share: float,
        augmentation: str = "head",
    ):
        self.names = names
        self.heads = {source: [BankedHead.load(folder / f"{n}.npz") for n in stems] for source, stems in names.items()}
        missing = [source for source, share in shares.items() if share > 0 and not self.heads.get(source)]
        if missing:
            remedy = "give a --store with some" if missing[0] == "store" else "simulate some"
            raise InputError(f"The bank holds no {missing[0]} heads; {remedy} or set their share to 0.")
        self.preprocessing = preprocessing
        self.sources = [s for s in shares if shares[s] > 0]
        total = sum(shares[s] for s in self.sources)
        self.shares = [shares[s] / total for s in self.sources]
        self.bleeding_share = bleeding_share
        self.moves = augmentation == "head"

    def batch(self, seed: int, step: int, size: int, wanted: slice = slice(None)) -> Batch:
        """The batch of ``size`` samples of one step, or those of them that are ``wanted``."""
        samples = [self._sample(np.random.default_rng([seed, step, index])) for index in range(size)[wanted]]
        images, truth, brain, label, cases = zip(*samples)
        return Batch(
            torch.from_numpy(np.concatenate(images)),
            torch.stack(truth).float(),
            torch.stack(brain).float(),
            torch.tensor(label),
            cases,
        )

    def _sample(self, rng: np.random.Generator) -> tuple[np.ndarray, Tensor, Tensor, int, str]:
        source = self.sources[rng.choice(len(self.sources), p=self.shares)]
        number = int(rng.integers(len(self.heads[source])))
        head = self.heads[source][number]
        k = self._choose_slice(head, rng)
        around = neighbours(head, k, self.preprocessing)
        if self.moves and rng.random() < 0.5:
            around = around[::-1]
        if self.moves and rng.random() < 0.08:
            around = np.full_like(around, k)
        stack, count = slice_stack(head, k, around, self.preprocessing), len(around)
        if self.moves:
            air = 0.0 if head.source == PICTURE else -1000.0
            stack = _move(stack, self.preprocessing.size, rng, count, air)
            seen = _vary_intensity(stack[:count], rng)
        else:
            stack = resized(stack, self.preprocessing.size)
            seen = stack[:count]
        image, truth, brain = network_view(stack, seen, self.preprocessing, head.source == PICTURE)
        case = f"{self.names[source][number]} slice {k}"
        return image, torch.from_numpy(truth), torch.from_numpy(brain), int(head.slice_label[k]), case

    def _choose_slice(self, head: BankedHead, rng: np.random.Generator) -> int:
        in_brain = head.brain.any(axis=(1, 2))
        if head.source == "real":
            wanted = head.slice_label == (BLEEDING if rng.random() < 0.5 else CLEAN)
            wanted = wanted if (wanted & in_brain).any() else head.slice_label != UNKNOWN
        else:
            wanted = head.truth.any(axis=(1, 2)) == (rng.random() < self.bleeding_share)
        usable = np.flatnonzero(wanted & in_brain)
        return int(rng.choice(usable if usable.size else np.flatnonzero(in_brain)))


def neighbours(head: BankedHead, k: int, preprocessing: SlicePreprocessing) -> np.ndarray:
    """Numbers of slice ``k`` and of those around it that the channels need; the outermost slices are repeated."""
    reach = max(1, *(abs(channel.offset) for channel in preprocessing.channels))
    return np.clip(np.arange(k - reach, k + reach + 1), 0, len(head.slabs_hu) - 1)


def slice_stack(head: BankedHead, k: int, around: np.ndarray, preprocessing: SlicePreprocessing) -> np.ndarray:
    """(len(around) + 2, h, w) float32: the slices, the truth and the brain of slice ``k``.

    Where the preprocessing looks at the brain of every slice, these follow (len(around) more).
    """
    parts = [head.slabs_hu[around], head.truth[k][None] > 0, head.brain[k][None]]
    if preprocessing.brain_only:
        parts.append(head.brain[around])
    return np.concatenate(parts).astype(np.float32)


def resized(stack: np.ndarray, size: int) -> np.ndarray:
    """(n, h, w) -> (n, size, size), bilinear, without aliasing."""
    return functional.interpolate(torch.from_numpy(stack)[None], size=size, mode="bilinear", antialias=True)[0].numpy()


def network_view(
    stack: np.ndarray, seen: np.ndarray, preprocessing: SlicePreprocessing, picture: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image (1, channels, h, w), truth bool (1, h, w), searched space bool (1, h, w)) of a :func:`slice_stack`.

    Args:
        stack: already on the network's grid.
        seen: its slices (n, h, w) as the network shall see them: noise must not change what is searched.
        preprocessing: of the network.
        picture: whether the slices are grey pictures, whose brightness says nothing of density.
    """
    count, middle = len(seen), len(seen) // 2
    if picture:  # its window is baked in: the grey is shown as it is
        whole = tuple(replace(channel, low_hu=0.0, high_hu=255.0) for channel in preprocessing.channels)
        preprocessing = replace(preprocessing, channels=whole)
    brains = {"brain": stack[count + 2 :] > 0.5} if preprocessing.brain_only else {}
    image = preprocessing.images(seen, np.array([middle]), **brains)
    searched = stack[count + 1 : count + 2] > 0.5
    if not picture:
        searched &= stack[middle : middle + 1] < DENSEST_BLOOD_HU  # as the pipeline searches
    return image, stack[count : count + 1] > 0.5, searched


def _move(stack: np.ndarray, size: int, rng: np.random.Generator, count: int, air: float) -> np.ndarray:
    """Random mirror, rotation, scale, stretch and shift of (n, h, w), resampled to ``size`` (bilinear).

    What comes from beyond the first ``count`` images is ``air``, beyond the other ones 0.
    """
    angle, scale = np.deg2rad(rng.normal(0, 9)), np.exp(rng.normal(0, 0.07))
    stretch = np.exp(rng.normal(0, 0.04))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(
        [scale * stretch, scale / stretch]
    )
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    theta = np.concatenate([matrix, rng.normal(0, 0.03, (2, 1))], axis=1).astype(np.float32)
    grid = functional.affine_grid(torch.from_numpy(theta)[None], (1, 1, size, size), align_corners=False)
    source = torch.from_numpy(stack)[None].clone()
    source[:, :count] -= air
    out = functional.grid_sample(source, grid, mode="bilinear", align_corners=False)[0].numpy()
    out[:count] += air
    return out


def _vary_intensity(hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scanner calibration, kernel sharpness and noise (n, h, w) in HU."""
    out = hu * np.exp(rng.normal(0, 0.04)) + rng.normal(0, 2.0)
    if rng.random() < 0.35:
        out = out + _bright_rim(hu, rng)
    choice = rng.random()
    if choice < 0.2:
        out = ndimage.gaussian_filter(out, (0, *([rng.uniform(0.3, 1.0)] * 2)))
    elif choice < 0.35:
        out = out + rng.uniform(0.2, 0.8) * (out - ndimage.gaussian_filter(out, (0, 1.0, 1.0)))
    if rng.random() < 0.5:
        noise = rng.standard_normal(out.shape, dtype=np.float32)
        noise = ndimage.gaussian_filter(noise, (0, *([rng.uniform(0, 0.9)] * 2)))
        out = out + noise * rng.uniform(0, 4.0) / max(float(noise.std()), 1e-6)
    return out.astype(np.float32)


def _bright_rim(hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What beam hardening and the blur of the table leave under the skull (n, h, w) in HU; now and then a dark rim."""
    skull = np.clip((hu - 150) / 500, 0, 1)
    halo = ndimage.gaussian_filter(skull, (0, *([rng.uniform(1.5, 7.0)] * 2)))
    return halo * rng.uniform(-15, 45) * (hu < 150)
