"""Losses of head CT by the name that a recipe's ``[fitting] loss`` gives them; other tasks have tables of their own.

==================  =========================================================  ======================================
name                what is minimised                                          who used it
==================  =========================================================  ======================================
bleeding            cross-entropy + Dice in the brain, + slice labels          ours; mixes simulated and real slices
bce                 cross-entropy                                              BCDU-Net, MCGU-Net; DR-UNet's baselines
weighted_ce         cross-entropy, weights for background and blood            SLEX-Net's backbone alone
slex                weighted_ce of the fused and of both expanded outputs      SLEX-Net (specification 1.4)
slex_expanded       weighted_ce of both expanded outputs alone                 SLEX-Net's SEM before joint training
slex_bleeding       bleeding of the fused and of both expanded outputs         ours, for SLEX-Net on mixed slices
dice                1 - Dice of each sample, averaged                          HemSeg (specification 3.6)
dice_ce             cross-entropy + dice                                       nnU-Net's default
dice_bce            cross-entropy + 1 - Dice of the whole batch                DR-UNet as its formula was meant
legacy_mean_dice    cross-entropy + 1 - "Dice" of means                        DR-UNet as released (specification 2.4)
==================  =========================================================  ======================================

A network's output has one channel (its logit is that of blood) or two (softmax, blood last: the difference of the
logits is that of blood). Samples whose blood is only known to be somewhere in the slice are left out wherever a loss
needs a truth for every pixel. All sums run over the samples of all processes before anything is divided, so the value
and, with :func:`Training.distributed.average_gradients`, the gradient are those of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from NeuraxisLib.errors import InputError, check_choice
from Training.distributed import total
from Training.sampling import Batch
from Training.simulation.bank import CLEAN, UNKNOWN

#: Pixels whose mean stands for a slice in the slice-label loss (about 0.3 mL in a 5 mm slice at 1 mm).
TOP_PIXELS = 40


class Paths(Protocol):
    """The outputs of SLEX-Net: fused, and expanded from the slice after (backward) and before (forward)."""

    backward: Tensor
    forward: Tensor
    fused: Tensor


Output = Tensor | Paths | list[Tensor]


@dataclass(frozen=True)
class Loss:
    """One entry of a table of losses such as :data:`LOSSES`.

    Attributes:
        function: ``function(output, batch, **options) -> Tensor``.
        options: what it takes beside these, with the values that hold where a recipe gives none.
        of_paths: whether the output must be that of ``network.paths(x)`` instead of ``network(x)``.
    """

    function: Callable[..., Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    of_paths: bool = False


def loss_of(
    output: Output, batch: Batch, options: Mapping[str, Any], table: Mapping[str, Loss] | None = None
) -> Tensor:
    """The loss that a recipe's ``[fitting]`` section names, as one number, over the samples of all processes.

    Args:
        output: (n, classes, ...) logits in fp32, a list of heat maps, or the paths of SLEX-Net, whose ``fused`` all
            other losses take.
        batch: what they should have been.
        options: ``loss`` and the options of that loss; whatever else it holds is not looked at.
        table: name -> loss, of the recipe's family; :data:`LOSSES` by default.

    Raises:
        InputError: there is no such loss, or it needs the paths of SLEX-Net and got logits.
    """
    loss = named(options["loss"], table)
    if loss.of_paths and isinstance(output, Tensor):
        raise InputError(f"The loss '{options['loss']}' is of SLEX-Net's three outputs; choose that network.")
    if not loss.of_paths and hasattr(output, "fused"):
        output = output.fused
    return loss.function(output, batch, **{key: options.get(key, value) for key, value in loss.options.items()})


def named(name: str, table: Mapping[str, Loss] | None = None) -> Loss:
    """The loss of that name in a table; InputError, listing all names, if there is none."""
    table = LOSSES if table is None else table
    check_choice("loss", name, table)
    return table[name]


def bleeding_loss(
    logits: Tensor, batch: Batch, outside_weight: float, slice_weight: float, pixel_weight: float = 4.0
) -> Tensor:
    """Cross-entropy + Dice on exact slices and clean real slices, plus a slice-label term on real slices.

    The Dice alone makes a network sure of every edge; the more the cross-entropy weighs, the better its probabilities
    are calibrated, and outlines grow less.

    Args:
        logits: (n, 1 or 2, size, size).
        batch: see :class:`Training.sampling.Batch`.
        outside_weight: weight of pixels outside the brain.
        slice_weight: weight of the slice-label term.
        pixel_weight: weight of the cross-entropy (mean over all pixels) beside the Dice.
    """
    z, dense = blood_logits(logits), _dense(batch)
    brain = batch.brain[dense]
    y = batch.truth[dense] * brain  # blood that shares its voxel with bone is not asked for: nobody could see it
    p = z[dense].sigmoid() * brain
    weight = outside_weight + (1 - outside_weight) * brain
    entropy = (functional.binary_cross_entropy_with_logits(z[dense], y, reduction="none") * weight).sum()
    real = batch.slice_label != UNKNOWN
    score, label = slice_score(z[real], batch.brain[real]), batch.slice_label[real].to(z)
    of_slices = functional.binary_cross_entropy_with_logits(score, label, reduction="sum")
    entropy, pixels, both, found, true, of_slices, slices = _totals(
        entropy, z[dense].numel(), (p * y).sum(), p.sum(), y.sum(), of_slices, label.numel()
    )
    dice = (2 * both + 1) / (found + true + 1)
    return pixel_weight * _mean(entropy, pixels) + 1 - dice + slice_weight * _mean(of_slices, slices)


def bce_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy, the mean over all pixels of all samples.

    Args:
        logits: (n, 1 or 2, ...).
        batch: its truth (n, 1, ...).
    """
    return weighted_ce_loss(logits, batch, (1.0, 1.0))


def weighted_ce_loss(logits: Tensor, batch: Batch, class_weights: Sequence[float]) -> Tensor:
    """Mean over all pixels of weight x cross-entropy; the weights are not made to average 1 (specification 1.4).

    Args:
        logits: (n, 1 or 2, ...).
        batch: its truth (n, 1, ...).
        class_weights: of background and blood; SLEX-Net's are 0.1 and 1.
    """
    return _mean(*_totals(*_cross_entropy(*_known(logits, batch), class_weights)))


def slex_loss(output: Paths, batch: Batch, class_weights: Sequence[float]) -> Tensor:
    """CE(fused) + CE(backward) + CE(forward) against the centre slice (hemorrhage specification 1.4).

    The centre path alone has no loss of its own: it learns through the fused output.

    Args:
        output: the paths of SLEX-Net, (n, 2, h, w) each.
        batch: its truth (n, 1, h, w) is that of the centre slice.
        class_weights: of background and blood.
    """
    return _sum_of_ce((output.fused, output.backward, output.forward), batch, class_weights)


def slex_expanded_loss(output: Paths, batch: Batch, class_weights: Sequence[float]) -> Tensor:
    """CE(backward) + CE(forward): the SEM learns to expand slices before it is joined with the backbone.

    The released code loads a SEM that was trained so, without the script that did it (hemorrhage specification 1.4).

    Args:
        output, batch, class_weights: see :func:`slex_loss`.
    """
    return _sum_of_ce((output.backward, output.forward), batch, class_weights)


def slex_bleeding_loss(
    output: Paths, batch: Batch, outside_weight: float, slice_weight: float, pixel_weight: float = 4.0
) -> Tensor:
    """:func:`bleeding_loss` of the fused output and of both expanded ones, added as SLEX-Net adds its terms.

    Args:
        output: the paths of SLEX-Net, (n, 1 or 2, h, w) each.
        batch, outside_weight, slice_weight, pixel_weight: see :func:`bleeding_loss`.
    """
    paths = (output.fused, output.backward, output.forward)
    return sum(bleeding_loss(logits, batch, outside_weight, slice_weight, pixel_weight) for logits in paths)


def dice_loss(logits: Tensor, batch: Batch, smooth: float) -> Tensor:
    """1 - Dice of each sample, averaged: MONAI's ``DiceLoss(sigmoid=True)`` as HemSeg used it (specification 3.6).

    D = (2 sum(y p) + smooth) / (sum(y) + sum(p) + smooth), over the pixels of one sample.

    Args:
        logits: (n, 1 or 2, ...).
        batch: its truth (n, 1, ...).
        smooth: 1e-5 in MONAI; a sample without blood then costs 1 unless nothing at all is found in it.
    """
    return _mean(*_totals(*_dice_per_sample(*_known(logits, batch), smooth)))


def dice_ce_loss(logits: Tensor, batch: Batch, smooth: float) -> Tensor:
    """Cross-entropy + the Dice loss of each sample, averaged: nnU-Net's default, and MONAI's ``DiceCELoss``.

    Args:
        logits: (n, 1 or 2, ...).
        batch: its truth (n, 1, ...).
        smooth: see :func:`dice_loss`.
    """
    z, y = _known(logits, batch)
    entropy, pixels, dice, samples = _totals(*_cross_entropy(z, y), *_dice_per_sample(z, y, smooth))
    return _mean(entropy, pixels) + _mean(dice, samples)


def dice_bce_loss(logits: Tensor, batch: Batch, smooth: float) -> Tensor:
    """Cross-entropy + 1 - Dice over the whole batch, so that samples without blood do not count as failures.

    DR-UNet's loss with sums in place of means (hemorrhage specification 2.4).

    Args:
        logits: (n, 1 or 2, ...).
        batch: its truth (n, 1, ...).
        smooth: added above and below.
    """
    entropy, pixels, both, found, true = _batch_sums(logits, batch)
    return _mean(entropy, pixels) + 1 - (2 * both + smooth) / (found + true + smooth)


def legacy_mean_dice_loss(logits: Tensor, batch: Batch) -> Tensor:
    """The loss of DR-UNet's released code: cross-entropy + 1 - D (hemorrhage specification 2.4).

    D = (2 mean(y p) + 1) / (mean(y) + mean(p) + 1) over the whole batch. With means in place of sums the smoothing
    constant 1 outweighs everything: a perfect answer where blood fills 1 % of the pixels gains 0.0099 over an empty
    one, so this is cross-entropy in all but name. Kept for comparisons with the published network.

    Args:
        logits: (n, 1 or 2, size, size).
        batch: slices whose blood is only known to be somewhere are left out; the published data had none.
    """
    entropy, pixels, both, found, true = _batch_sums(logits, batch)
    dice = (2 * _mean(both, pixels) + 1) / (_mean(true, pixels) + _mean(found, pixels) + 1)
    return _mean(entropy, pixels) + 1 - dice


def slice_score(logits: Tensor, brain: Tensor) -> Tensor:
    """(n,) mean of the highest logits in the brain, after a light blur: the evidence for blood in a slice."""
    smooth = functional.avg_pool2d(logits, 3, stride=1, padding=1)
    inside = smooth.masked_fill(brain < 0.5, -12.0).flatten(1)
    return inside.topk(min(TOP_PIXELS, inside.shape[1]), dim=1).values.mean(dim=1)


def blood_logits(logits: Tensor) -> Tensor:
    """(n, 1, ...) log-odds of blood: of one channel itself, of two the last minus the first.

    Raises:
        InputError: there are more than two channels.
    """
    if logits.shape[1] > 2:
        raise InputError(f"The network predicts {logits.shape[1]} classes but this loss knows blood alone; give it 2.")
    return logits if logits.shape[1] == 1 else logits[:, 1:] - logits[:, :1]


_BLEEDING = {"outside_weight": 0.1, "slice_weight": 0.5, "pixel_weight": 4.0}
#: Name -> loss, in the order of the table above.
LOSSES: dict[str, Loss] = {
    "bleeding": Loss(bleeding_loss, _BLEEDING),
    "bce": Loss(bce_loss),
    "weighted_ce": Loss(weighted_ce_loss, {"class_weights": (0.1, 1.0)}),
    "slex": Loss(slex_loss, {"class_weights": (0.1, 1.0)}, of_paths=True),
    "slex_expanded": Loss(slex_expanded_loss, {"class_weights": (0.1, 1.0)}, of_paths=True),
    "slex_bleeding": Loss(slex_bleeding_loss, _BLEEDING, of_paths=True),
    "dice": Loss(dice_loss, {"smooth": 1e-5}),
    "dice_ce": Loss(dice_ce_loss, {"smooth": 1e-5}),
    "dice_bce": Loss(dice_bce_loss, {"smooth": 1.0}),
    "legacy_mean_dice": Loss(legacy_mean_dice_loss),
}


def _dense(batch: Batch) -> Tensor:
    """(n,) which slices have a truth for every pixel: simulated ones, and real ones without blood."""
    return (batch.slice_label == UNKNOWN) | (batch.slice_label == CLEAN)


def _known(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """(logits of blood, truth) of the samples that have a truth for every pixel; there may be none in a process."""
    dense = _dense(batch)
    return blood_logits(logits)[dense], batch.truth[dense]


def _cross_entropy(z: Tensor, y: Tensor, class_weights: Sequence[float] = (1.0, 1.0)) -> tuple[Tensor, int]:
    """(sum of the weighted cross-entropy, number of pixels)."""
    background, blood = class_weights
    terms = functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    if background != 1 or blood != 1:
        terms = terms * (background + (blood - background) * y)
    return terms.sum(), z.numel()


def _sum_of_ce(outputs: Sequence[Tensor], batch: Batch, class_weights: Sequence[float]) -> Tensor:
    """The weighted cross-entropies of several outputs, each the mean over all pixels, added."""
    sums, counts = zip(*(_cross_entropy(*_known(logits, batch), class_weights) for logits in outputs))
    *entropies, pixels = _totals(*sums, counts[0])
    return sum(_mean(entropy, pixels) for entropy in entropies)


def _dice_per_sample(z: Tensor, y: Tensor, smooth: float) -> tuple[Tensor, int]:
    """(sum over the samples of 1 - Dice, number of samples)."""
    p, y = z.sigmoid().flatten(1), y.flatten(1)
    dice = (2 * (p * y).sum(dim=1) + smooth) / (p.sum(dim=1) + y.sum(dim=1) + smooth)
    return (1 - dice).sum(), len(z)


def _batch_sums(logits: Tensor, batch: Batch) -> Tensor:
    """Totals over all processes of the cross-entropy, the pixels, y p, p and y."""
    z, y = _known(logits, batch)
    p = z.sigmoid()
    return _totals(*_cross_entropy(z, y), (p * y).sum(), p.sum(), y.sum())


def _totals(*sums: Tensor | int) -> Tensor:
    """Each sum over all processes, in one exchange; (len(sums),)."""
    example = next(value for value in sums if isinstance(value, Tensor))
    return total(torch.stack([torch.as_tensor(value).to(example) for value in sums]))


def _mean(value: Tensor, count: Tensor) -> Tensor:
    """value / count, and 0 (with a gradient of 0) where there is nothing to average."""
    return value / count.clamp(min=1)
