"""Losses of networks that answer with heat maps, one for each point that is sought.

The batch's ``truth`` holds the wanted heat maps (n, joints, h, w) and its ``extra["visible"]`` (n, joints) is 1 where
a joint is to be learnt, 0 where nobody knows or it is out of view. All sums run over the samples of all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from NeuraxisLib.errors import InputError
from Training.distributed import total
from Training.losses import Loss
from Training.sampling import Batch


def joints_mse(output: Tensor | list[Tensor], batch: Batch) -> Tensor:
    """0.5 x mean over images and pixels of (visible x (found - wanted))^2, averaged over joints, summed over outputs.

    What the stacked hourglass learns by (stroke and disc specification 2.2): every stack's output alike, and joints
    that are not visible get no gradient at all, though they count in the means.

    Args:
        output: heat maps (n, joints, h, w), or a list with those of every stack.
        batch: see above; without ``extra["visible"]`` all joints count.

    Raises:
        InputError: the network finds another number of joints, or another size, than the batch wants.
    """
    stacks = [output] if isinstance(output, Tensor) else list(output)
    visible = batch.extra.get("visible")
    weight = 1.0 if visible is None else visible.to(stacks[0])[:, :, None, None]
    for found in stacks:
        if found.shape != batch.truth.shape:
            raise InputError(
                f"The network answers with {_size(found)} heat maps where the samples have {_size(batch.truth)}; "
                "make the recipe's network and its preprocessing agree."
            )
    squares = sum((weight * (found - batch.truth)).square().sum() for found in stacks)
    value, count = total(torch.stack([squares, squares.new_tensor(float(batch.truth.numel()))]))
    return 0.5 * value / count.clamp(min=1)


def _size(maps: Tensor) -> str:
    return " x ".join(map(str, maps.shape[1:]))


#: Name -> loss.
LOSSES: dict[str, Loss] = {"joints_mse": Loss(joints_mse)}
