"""Augmentation of whole batches on the device where the network is: images, truth and region move alike.

Every sample draws from a generator of its own, seeded by (seed, step, number of the sample in the whole batch, number
of the transform). So a sample looks the same whatever process makes it, in whatever batch, and after a resumed run.
Random pixels (noise) come from torch's generator of the device: equal on equal devices.

Tensors are (n, channels, rows, columns) or (n, channels, x, y, z); "axes" below count the axes after the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from NeuraxisLib.errors import check_choice
from Training.sampling import Batch
from Training.warp import Range, Warp, uniform

Generators = Sequence[np.random.Generator]


@dataclass(frozen=True)
class Flip:
    """Mirror along one axis; no pixel changes its value."""

    axis: int
    probability: float = 0.5

    def __call__(self, images: Tensor, masks: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        """Mirrored images (n, c, ...) and masks (n, m, ...)."""
        return images.flip(2 + self.axis), masks.flip(2 + self.axis)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur of the images in the plane of their first two axes; masks stay.

    Equal to ``scipy.ndimage.gaussian_filter(mode="mirror")``.

    Attributes:
        sigma: standard deviation in pixels is drawn evenly from this range.
    """

    sigma: Range = (0.0, 1.0)
    probability: float = 1.0

    def __call__(self, images: Tensor, masks: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        """Blurred images (n, c, ...) and the masks (n, m, ...) as they are."""
        sigma = torch.tensor([uniform(g, self.sigma) for g in generators], device=images.device)
        for axis in (2, 3):
            kernel = self._matrix(sigma, images.shape[axis]).to(images)
            lines = images.movedim(axis, 1)
            images = torch.bmm(kernel, lines.flatten(2)).view(lines.shape).movedim(1, axis)
        return images, masks

    def _matrix(self, sigma: Tensor, length: int) -> Tensor:
        """(n, length, length) the blur of a line per sample; a matrix product is faster than a convolution here."""
        radius = math.ceil(4 * self.sigma[1])
        distance = torch.arange(-radius, radius + 1, device=sigma.device)
        kernel = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-3)[:, None]) ** 2)
        kernel = kernel * (distance.abs() <= (4 * sigma[:, None] + 0.5).floor())
        kernel = kernel / kernel.sum(dim=1, keepdim=True)
        period = max(1, 2 * length - 2)
        source = (torch.arange(length, device=sigma.device)[:, None] + distance) % period
        source = torch.minimum(source, period - source)  # mirrored at the outermost pixels
        matrix = torch.zeros(len(sigma), length, length, device=sigma.device)
        return matrix.scatter_add_(2, source.expand(len(sigma), -1, -1), kernel[:, None].expand(-1, length, -1))


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on the images; masks stay.

    Attributes:
        deviation: its standard deviation, in the units of the images, is drawn evenly from this range.
    """

    deviation: Range = (0.0, 0.1)
    probability: float = 1.0

    def __call__(self, images: Tensor, masks: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        """Noisy images (n, c, ...) and the masks (n, m, ...) as they are."""
        noise = torch.empty_like(images)
        for field, generator in zip(noise, generators):
            of_device = torch.Generator(images.device).manual_seed(int(generator.integers(2**62)))
            field.normal_(0, uniform(generator, self.deviation), generator=of_device)
        return images + noise, masks


@dataclass(frozen=True)
class Intensity:
    """Gamma, contrast and brightness of the images, alike in all channels of a sample; masks stay.

    Each channel is brought to 0..1 by its own extremes, raised to gamma and brought back; then its distance from its
    mean is scaled and a shift added.

    Attributes:
        scale: factor, drawn evenly in the logarithm.
        shift: in the units of the images.
        gamma: exponent, drawn evenly in the logarithm.
    """

    scale: Range = (0.9, 1.1)
    shift: Range = (-0.1, 0.1)
    gamma: Range = (1.0, 1.0)
    probability: float = 1.0

    def __call__(self, images: Tensor, masks: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        """Changed images (n, c, ...) and the masks (n, m, ...) as they are."""
        drawn = [
            (uniform(g, self.gamma, True), uniform(g, self.scale, True), uniform(g, self.shift)) for g in generators
        ]
        shape = (3, len(images), *[1] * (images.dim() - 1))
        gamma, scale, shift = torch.tensor(drawn).to(images).t().reshape(shape)
        axes = tuple(range(2, images.dim()))
        if self.gamma != (1.0, 1.0):
            low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
            span = (high - low).clamp(min=1e-6)
            images = ((images - low) / span) ** gamma * span + low
        mean = images.mean(axes, keepdim=True)
        return (images - mean) * scale + mean + shift, masks


Transform = Flip | Warp | Blur | Noise | Intensity


@dataclass(frozen=True)
class Augmentation:
    """Transforms one after the other, each on the samples that its probability chooses."""

    transforms: tuple[Transform, ...]

    def __call__(self, batch: Batch, seed: int, step: int, samples: Sequence[int] | None = None) -> Batch:
        """The batch with ``images``, ``truth`` and ``brain`` changed; everything else stays.

        Args:
            batch: on whatever device.
            seed: of the run.
            step: of the run.
            samples: numbers of the samples in the whole batch of all processes
                (:func:`Training.distributed.shard`); 0, 1, ... where not given.
        """
        numbers = range(len(batch.images)) if samples is None else samples
        images, masks = batch.images, torch.cat([batch.truth, batch.brain], dim=1)
        for position, transform in enumerate(self.transforms):
            generators = [np.random.default_rng([seed, step, sample, position]) for sample in numbers]
            chosen = [n for n, g in enumerate(generators) if g.random() < transform.probability]
            if not chosen:
                continue
            index = torch.tensor(chosen, device=images.device)
            moved = transform(images[index], masks[index], [generators[n] for n in chosen])
            images, masks = images.index_copy(0, index, moved[0]), masks.index_copy(0, index, moved[1])
        truth, brain = masks.split([batch.truth.shape[1], batch.brain.shape[1]], dim=1)
        return replace(batch, images=images, truth=truth, brain=brain)


def augmentation_of(name: str, axes: int = 2, spacing: Sequence[float] | None = None) -> Augmentation:
    """The transforms that a recipe names.

    - ``none``
    - ``hemseg``: each axis mirrored half of the time (hemorrhage specification 3.4)
    - ``slex``: columns and rows mirrored half of the time each, one rotation of 30, 60 or 330 degrees, blur of sigma
      0 to 3 on the images alone (hemorrhage specification 1.4)
    - ``standard``: left and right mirrored, rotation, scale, shift, bending, blur, noise, contrast, brightness, gamma

    Args:
        name: one of these.
        axes: 2 for (rows, columns), 3 for (x, y, z).
        spacing: size of a voxel along each axis, so that rotation and bending are those of the head, not of the grid.

    Raises:
        InputError: there is no such name.
    """
    check_choice("augmentation", name, PRESETS)
    return Augmentation(PRESETS[name](axes, tuple(spacing) if spacing is not None else (1.0,) * axes))


def _standard(axes: int, spacing: tuple[float, ...]) -> tuple[Transform, ...]:
    """Ours: what nnU-Net's default draws from, milder, and left-right mirroring only."""
    return (
        Flip(axis=1 if axes == 2 else 0),
        Warp(
            rotate_deg=(-20, 20), tilt_deg=(-6, 6), scale=(0.85, 1.18), shift=(-0.05, 0.05), bend=3.0,
            spacing=spacing, probability=0.7,
        ),
        Blur(sigma=(0.3, 1.0), probability=0.2),
        Noise(deviation=(0.0, 0.1), probability=0.2),
        Intensity(scale=(0.85, 1.18), shift=(-0.1, 0.1), gamma=(0.8, 1.25), probability=0.4),
    )  # fmt: skip


#: Name -> function of the number of axes and the spacing.
PRESETS: dict[str, Callable[[int, tuple[float, ...]], tuple[Transform, ...]]] = {
    "none": lambda axes, spacing: (),
    "hemseg": lambda axes, spacing: tuple(Flip(axis) for axis in range(axes)),
    "slex": lambda axes, spacing: (
        Flip(1), Flip(0), Warp(rotate_choices_deg=(30, 60, 330), spacing=spacing), Blur((0.0, 3.0)),
    ),
    "standard": _standard,
}  # fmt: skip
