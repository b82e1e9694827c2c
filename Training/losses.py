"""Losses: exact pixels where simulation gives them, slice labels where a person gave only those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from Training.sampling import Batch
from Training.simulation.bank import CLEAN, UNKNOWN

#: Pixels whose mean stands for a slice in the slice-label loss (about 0.3 mL in a 5 mm slice at 1 mm).
TOP_PIXELS = 40


def loss_of(logits: Tensor, batch: Batch, options: Mapping[str, Any]) -> Tensor:
    """The loss that a recipe's ``[fitting]`` section names, as one number.

    Args:
        logits: (n, 1, size, size).
        batch: what they should have been.
        options: ``loss`` and, for ``"bleeding"``, ``outside_weight`` and ``slice_weight``.
    """
    if options["loss"] == "legacy_mean_dice":
        return legacy_mean_dice_loss(logits, batch)
    return bleeding_loss(logits, batch, options["outside_weight"], options["slice_weight"])


def bleeding_loss(logits: Tensor, batch: Batch, outside_weight: float, slice_weight: float) -> Tensor:
    """Cross-entropy + Dice on exact slices and clean real slices, plus a slice-label term on real slices.

    Args:
        logits: (n, 1, size, size).
        batch: see :class:`Training.sampling.Batch`.
        outside_weight: weight of pixels outside the brain.
        slice_weight: weight of the slice-label term.
    """
    dense = _dense(batch)
    loss = logits.sum() * 0
    if dense.any():
        z, brain = logits[dense], batch.brain[dense]
        y = batch.truth[dense] * brain  # blood that shares its voxel with bone is not asked for: nobody could see it
        weight = outside_weight + (1 - outside_weight) * brain
        loss = loss + 4 * (functional.binary_cross_entropy_with_logits(z, y, reduction="none") * weight).mean()
        loss = loss + _dice_loss(z.sigmoid() * brain, y)
    real = batch.slice_label != UNKNOWN
    if real.any():
        score = slice_score(logits[real], batch.brain[real])
        loss = loss + slice_weight * functional.binary_cross_entropy_with_logits(score, batch.slice_label[real].float())
    return loss


def legacy_mean_dice_loss(logits: Tensor, batch: Batch) -> Tensor:
    """The loss of DR-UNet's released code: cross-entropy + 1 - D (hemorrhage specification 2.4).

    D = (2 mean(y p) + 1) / (mean(y) + mean(p) + 1) over the whole batch. With means in place of sums the smoothing
    constant 1 outweighs everything: a perfect answer where blood fills 1 % of the pixels gains 0.0099 over an empty
    one, so this is cross-entropy in all but name. Kept for comparisons with the published network.

    Args:
        logits: (n, 1, size, size).
        batch: slices whose blood is only known to be somewhere are left out; the published data had none.
    """
    dense = _dense(batch)
    if not dense.any():
        return logits.sum() * 0
    z, y = logits[dense], batch.truth[dense]
    p = z.sigmoid()
    dice = (2 * (y * p).mean() + 1) / (y.mean() + p.mean() + 1)
    return functional.binary_cross_entropy_with_logits(z, y) + 1 - dice


def slice_score(logits: Tensor, brain: Tensor) -> Tensor:
    """(n,) mean of the highest logits in the brain, after a light blur: the evidence for blood in a slice."""
    smooth = functional.avg_pool2d(logits, 3, stride=1, padding=1)
    inside = smooth.masked_fill(brain < 0.5, -12.0).flatten(1)
    return inside.topk(TOP_PIXELS, dim=1).values.mean(dim=1)


def _dense(batch: Batch) -> Tensor:
    """(n,) which slices have a truth for every pixel: simulated ones, and real ones without blood."""
    return (batch.slice_label == UNKNOWN) | (batch.slice_label == CLEAN)


def _dice_loss(p: Tensor, y: Tensor) -> Tensor:
    """1 - Dice over the whole batch, so that slices without blood do not count as failures."""
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
