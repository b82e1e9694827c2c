"""How stroke networks are trained around their loss: VGG-16 frozen or not, in stages; penalties; max-norm."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from NeuraxisLib.errors import InputError
from StrokeCTPLib.networks.fine_tuning import enter, limit_norms, penalty, stages
from StrokeCTPLib.networks.multi_input_vgg import JOINED, MultiInputVGG
from StrokeCTPLib.networks.vgg_weights import read_vgg16, start_from
from Training.recipe import Recipe
from Training.regimes import Regime


class StrokeRegime(Regime):
    """The regimes F, U and G of the Stavanger group (stroke and disc specification 1.2, 1.3)."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        fitting = recipe["fitting"]
        joined = recipe["architecture"]["arguments"].get("fusion") == "input"
        branches = (JOINED,) if joined else recipe.preprocessing.maps
        found = stages(fitting["regime"], branches, fitting["unfreezing"])
        self._stages = {stage.name: stage for stage in found}
        self.stages = tuple(self._stages)
        self._l1, self._l2, self._largest = fitting["penalty_l1"], fitting["penalty_l2"], fitting["max_norm"]

    def enter(self, stage: str, network: nn.Module) -> list[nn.Module]:
        """Freeze and unfreeze VGG-16's layers; the BatchNorms of frozen ones stay as they are."""
        enter(self._stages[stage], _multi_input(network))
        norms = [branch.vgg.norms[layer] for branch in network.branches.values() for layer in branch.vgg.norms]
        return [norm for norm in norms if not norm.weight.requires_grad]

    def penalty(self, network: nn.Module) -> Tensor | None:
        """L1 and L2 of the new convolutions' kernels."""
        return penalty(network, self._l1, self._l2) if self._l1 or self._l2 else None

    def limit(self, network: nn.Module) -> None:
        """Keras' max-norm on the new convolutions."""
        if self._largest:
            limit_norms(network, self._largest)


def vgg16_parts(path: Path, network: nn.Module) -> dict[str, dict[str, Tensor]]:
    """VGG-16's weights of a file of torchvision or Keras, as parts of the network: one for each branch.

    Raises:
        ModelError: no such weights in the file.
        InputError: they do not fit the network's branches.
    """
    start_from(_multi_input(network), read_vgg16(path))
    return {
        f"branches.{name}.vgg.convolutions.": dict(branch.vgg.convolutions.state_dict())
        for name, branch in network.branches.items()
    }


def _multi_input(network: nn.Module) -> MultiInputVGG:
    if not isinstance(network, MultiInputVGG):
        raise InputError("The recipe's network has no branches of VGG-16; choose MultiInputVGG or a network like it.")
    return network
