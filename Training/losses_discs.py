"""Losses of disc networks: the published one, and ours, which weighs what lies near a disc more."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from Training.distributed import total
from Training.losses import Loss
from Training.losses_heatmaps import joints_mse
from Training.sampling import Batch

#: The network's scores have one pixel for so many of its heat maps.
_QUARTER = 4


def disc_mse(output: Tensor | list[Tensor], batch: Batch, near_weight: float) -> Tensor:
    """Weighted squares of what is missing, as a share of the squares of what is wanted, summed over the stacks.

    A pixel weighs 1 + ``near_weight`` x (height of the highest wanted heat map there): the same in all channels, so
    that a network which cannot know the level answers with the probabilities of the levels.

    Args:
        output: heat maps (n, channels, h, w), or a list with those of every stack.
        batch: ``truth`` like the output; ``extra["visible"]`` (n, channels) is 0 where nothing is taught.
    """
    stacks = [output] if isinstance(output, Tensor) else list(output)
    return _relative(stacks, batch.truth, batch.extra["visible"], near_weight)


def disc_mse_quarter(output: list[Tensor], batch: Batch, near_weight: float) -> Tensor:
    """:func:`disc_mse` on the network's scores before they are enlarged: nearly the same, in a third of the time.

    Args:
        output: scores (n, channels, h / 4, w / 4) of every stack.
        batch: with heat maps of full size; a score lies between the second and the third of its four pixels.
    """
    middle = functional.avg_pool2d(batch.truth[..., 1:, 1:], 2, _QUARTER)
    return _relative(list(output), middle, batch.extra["visible"], near_weight)


def _relative(stacks: list[Tensor], truth: Tensor, visible: Tensor, near_weight: float) -> Tensor:
    weight = (1 + near_weight * truth.amax(dim=1, keepdim=True)) * visible.to(truth)[:, :, None, None]
    missing = sum((weight * (found - truth).square()).sum() for found in stacks)
    wanted = (weight * truth.square()).sum()
    missing, wanted = total(torch.stack([missing, wanted.to(missing)]))
    return missing / (wanted + 1.0)


#: Name -> loss.
LOSSES: dict[str, Loss] = {
    "joints_mse": Loss(joints_mse),
    "disc_mse": Loss(disc_mse, {"near_weight": 4.0}),
    "disc_mse_quarter": Loss(disc_mse_quarter, {"near_weight": 4.0}, of_paths=True),
}
