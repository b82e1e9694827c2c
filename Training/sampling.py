"""Training samples: random slices of the banked heads, moved, re-scaled and made noisy in HU, then preprocessed."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        images: (n, channels, size, size) network input.
        truth: (n, 1, size, size) 1 where blood fills the pixel.
        brain: (n, 1, size, size) 1 in the intracranial space where the density allows blood.
        slice_label: (n,) BLEEDING or CLEAN for real slices, UNKNOWN where ``truth`` is exact.
        cases: where each sample comes from, for messages; may be empty.

    Of three-dimensional patches the tensors have one axis more: (n, channels, x, y, z) and (n, 1, x, y, z).
    """

    images: Tensor
    truth: Tensor
    brain: Tensor
    slice_label: Tensor
    cases: tuple[str, ...] = ()


class HeadSampler:
    """Draws batches from a bank; the same (seed, step) gives the same batch.

    Args:
        folder: the bank.
        names: file stems to use, by source.
        preprocessing: of the network.
        shares: source -> share of the samples.
        bleeding_share: share of slices with blood among samples of simulated heads.
    """

    def __init__(
        self,
        folder: Path,
        names: dict[str, list[str]],
        preprocessing: SlicePreprocessing,
        shares: dict[str, float],
        bleeding_share: float,
    ):
        self.heads = {source: [BankedHead.load(folder / f"{n}.npz") for n in stems] for source, stems in names.items()}
        missing = [source for source, share in shares.items() if share > 0 and not self.heads.get(source)]
        if missing:
            raise InputError(f"The bank holds no {missing[0]} heads; simulate some or set their share to 0.")
        self.preprocessing = preprocessing
        self.sources = [s for s in shares if shares[s] > 0]
        total = sum(shares[s] for s in self.sources)
        self.shares = [shares[s] / total for s in self.sources]
        self.bleeding_share = bleeding_share

    def batch(self, seed: int, step: int, size: int) -> Batch:
        """The batch of ``size`` samples of one step."""
        samples = [self._sample(np.random.default_rng([seed, step, index])) for index in range(size)]
        images, truth, brain, label = zip(*samples)
        return Batch(
            torch.from_numpy(np.concatenate(images)), torch.stack(truth), torch.stack(brain), torch.tensor(label)
        )

    def _sample(self, rng: np.random.Generator):
        source = self.sources[rng.choice(len(self.sources), p=self.shares)]
        head = self.heads[source][rng.integers(len(self.heads[source]))]
        k = self._choose_slice(head, rng)
        around = np.clip([k - 1, k, k + 1], 0, len(head.slabs_hu) - 1)
        if rng.random() < 0.5:
            around = around[::-1]
        if rng.random() < 0.08:
            around = np.array([k, k, k])
        stack = np.concatenate([head.slabs_hu[around], head.truth[k][None] > 0, head.brain[k][None]]).astype(np.float32)
        moved = _move(stack, self.preprocessing.size, rng)
        hu = _vary_intensity(moved[:3], rng)
        image = self.preprocessing.images(hu, np.array([1]))
        searched = (moved[4:5] > 0.5) & (moved[1:2] < DENSEST_BLOOD_HU)  # as the pipeline searches
        truth, brain = torch.from_numpy(moved[3:4] > 0.5), torch.from_numpy(searched)
        return image, truth.float(), brain.float(), int(head.slice_label[k])

    def _choose_slice(self, head: BankedHead, rng: np.random.Generator) -> int:
        in_brain = head.brain.any(axis=(1, 2))
        if head.source == "real":
            wanted = head.slice_label == (BLEEDING if rng.random() < 0.5 else CLEAN)
            wanted = wanted if (wanted & in_brain).any() else head.slice_label != UNKNOWN
        else:
            wanted = head.truth.any(axis=(1, 2)) == (rng.random() < self.bleeding_share)
        usable = np.flatnonzero(wanted & in_brain)
        return int(rng.choice(usable if usable.size else np.flatnonzero(in_brain)))


def _move(stack: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Random mirror, rotation, scale, stretch and shift of (n, h, w), resampled to ``size`` (bilinear)."""
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
    source[:, :3] += 1000  # so that what comes from beyond the image is air
    out = functional.grid_sample(source, grid, mode="bilinear", align_corners=False)[0].numpy()
    out[:3] -= 1000
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
