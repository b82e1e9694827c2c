"""How the Stavanger network is trained around its loss: what is frozen when, and what keeps the new layers small.

"New" are the convolutions that do not belong to VGG-16; penalty and max-norm are theirs alone (specification 1.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from NeuraxisLib.errors import InputError, check_choice
from StrokeCTPLib.networks.multi_input_vgg import VGG_DEPTHS, MultiInputVGG

L1, L2 = 1e-6, 1e-5
MAX_NORM = 2.0
#: Keras' guard against a division by zero.
EPSILON = 1e-7
#: Of the stages after the frozen one: learning rate of Adam, and epochs without a better loss (specification 1.3).
LEARNING_RATE, PATIENCE = 1e-5, 25

#: Layers of VGG-16 in order, pooling and input too, as Keras counts them.
_LAYERS = [
    "input",
    *(
        name
        for block, depth in enumerate(VGG_DEPTHS, start=1)
        for name in (*(f"block{block}_conv{number}" for number in range(1, depth + 1)), f"block{block}_pool")
    ),
]
REGIMES = ("F", "U", "G")
#: How regime G unfreezes: the two deepest blocks and then all; half of the layers as the released code counts them and
#: then all; all at once.
UNFREEZINGS = ("blocks", "legacy_half", "full")


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        name: frozen, blocks, half or all.
        layers: the convolutions of VGG-16 that train in it, as (map, layer) such as ``("cbf", "block5_conv1")``.
            All other layers of the network train in every stage.
    """

    name: str
    layers: frozenset[tuple[str, str]]


def stages(regime: str, maps: tuple[str, ...], unfreezing: str = "blocks") -> tuple[Stage, ...]:
    """The stages of a training, in order (specification 1.3).

    Between stages the released code goes back to the best weights so far, and trains each with Adam at
    :data:`LEARNING_RATE` until :data:`PATIENCE` epochs brought nothing.

    Args:
        regime: F (frozen throughout), U (all trains from the start) or G (frozen, then unfrozen).
        maps: branches of the network.
        unfreezing: one of :data:`UNFREEZINGS`; regime G alone. ``"legacy_half"`` is the half point of the released
            code, which falls inside block3_conv3: it trains in all branches but the first two.

    Raises:
        InputError: there is no such regime or unfreezing.
    """
    check_choice("regime", regime, REGIMES)
    check_choice("unfreezing", unfreezing, UNFREEZINGS)
    frozen = Stage("frozen", frozenset())
    every = Stage("all", frozenset((name, layer) for name in maps for layer in _LAYERS if "conv" in layer))
    if regime == "F":
        return (frozen,)
    if regime == "U":
        return (every,)
    deep = frozenset((name, layer) for name, layer in every.layers if layer.startswith(("block4", "block5")))
    between = {"blocks": (Stage("blocks", deep),), "legacy_half": (Stage("half", _upper_half(maps)),), "full": ()}
    return (frozen, *between[unfreezing], every)


def _upper_half(maps: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    """Keras lists layers by depth, branches side by side; the code unfreezes from half of that list on."""
    listed = [(name, layer) for layer in _LAYERS for name in maps]
    return frozenset(pair for pair in listed[len(listed) // 2 :] if "conv" in pair[1])


def enter(stage: Stage, network: MultiInputVGG) -> list[nn.Parameter]:
    """Freeze and unfreeze the layers of VGG-16 for a stage; all parameters that train in it, for a new optimiser.

    Raises:
        InputError: the stage speaks of other branches than the network has.
    """
    if not {name for name, _ in stage.layers} <= set(network.branches):
        raise InputError("The stages of the training are of other maps than the network's; make them equal.")
    for name, branch in network.branches.items():
        for layer, module in branch.vgg.convolutions.items():
            trains = (name, layer) in stage.layers
            norms = [branch.vgg.norms[layer]] if layer in branch.vgg.norms else []
            for part in (module, *norms):
                part.requires_grad_(trains)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def new_convolutions(network: MultiInputVGG) -> Iterator[nn.Conv2d | nn.ConvTranspose2d]:
    """The convolutions, transposed ones too, that are not VGG-16's."""
    for name, module in network.named_modules():
        if ".vgg." not in name and isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            yield module


def penalty(network: MultiInputVGG, l1: float = L1, l2: float = L2) -> Tensor:
    """l1 sum |w| + l2 sum w^2 over the kernels of the new convolutions, to be added to the loss."""
    kernels = [module.weight for module in new_convolutions(network)]
    return sum(l1 * kernel.abs().sum() + l2 * kernel.square().sum() for kernel in kernels)


@torch.no_grad()
def limit_norms(network: MultiInputVGG, largest: float = MAX_NORM) -> None:
    """Scale the new convolutions down to Keras' ``max_norm``; to be called after every step of the optimiser.

    Keras' default axis is 0: of a kernel, the norm runs over its rows alone, of a bias over the whole vector.
    """
    for module in new_convolutions(network):
        for tensor, axis in ((module.weight, 2), (module.bias, 0)):
            norm = torch.linalg.vector_norm(tensor, dim=axis, keepdim=True)
            tensor.mul_(norm.clamp(max=largest) / (norm + EPSILON))
