"""Which tensor of an original checkpoint goes where in a network, and the first one that does not fit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from NeuraxisLib.checkpoint_keras import (
    CONVOLUTION,
    DENSE,
    NORM,
    RECURRENT,
    TRANSPOSED,
    KerasLayer,
    in_order_of_making,
)
from NeuraxisLib.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

#: A count of training steps that old checkpoints lack and no prediction needs.
_NOT_STORED = "num_batches_tracked"


@dataclass(frozen=True)
class Found:
    """A tensor of a checkpoint: what the file calls it, and its values as PyTorch lays them out."""

    name: str
    tensor: Tensor


def place_torch(tensors: Mapping[str, Tensor], names: Sequence[tuple[str, str]] = ()) -> dict[str, Found]:
    """Our tensor name -> tensor of a state dict; ``names``: (regular expression, replacement) from theirs to ours."""
    placed = {}
    for name, tensor in tensors.items():
        ours = name
        for pattern, replacement in names:
            ours = re.sub(pattern, replacement, ours)
        placed[ours] = Found(name, tensor)
    return placed


def place_keras(
    layers: Iterable[KerasLayer], network: nn.Module, module_of: Callable[[str], str | None] = lambda name: None
) -> dict[str, Found]:
    """Our tensor name -> array of a Keras file, in PyTorch's layout.

    Layers that their author named go where ``module_of`` says. Those that Keras named go to the modules of their kind
    that remain, in the order in which the original's code made them, which has to be the order of the network's own
    ``named_modules``. A layer without a place keeps its own name, so that :func:`fitted` refuses it.
    """
    import torch

    places: dict[str, str] = {}
    queues: dict[str, list[KerasLayer]] = defaultdict(list)
    for layer in layers:
        module = module_of(layer.name)
        if module is not None:
            places[layer.name] = module
        elif layer.number is not None:
            queues[layer.kind].append(layer)
    taken = set(places.values())
    free: dict[str, list[str]] = defaultdict(list)
    for module, kind in modules_by_kind(network):
        if module not in taken:
            free[kind].append(module)
    for kind, queue in queues.items():
        places |= {layer.name: module for layer, module in zip(in_order_of_making(queue), free[kind])}
    return {
        f"{places.get(layer.name, layer.name)}.{ours}": Found(f"{layer.name}/{theirs}", torch.from_numpy(value))
        for layer in layers
        for ours, theirs, value in layer.as_torch()
    }


def modules_by_kind(network: nn.Module) -> Iterator[tuple[str, str]]:
    """(module name, kind as Keras layers have it) of every module with weights, in the order of ``named_modules``.

    A module made of the two convolutions ``input`` and ``recurrent`` counts as one convolutional LSTM.
    """
    inside = None
    for name, module in network.named_modules():
        if inside and name.startswith(inside):
            continue
        if {child for child, _ in module.named_children()} == {"input", "recurrent"}:
            inside = f"{name}."
            yield name, RECURRENT
        elif kind := _kind(module):
            yield name, kind


def _kind(module: nn.Module) -> str:
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    kinds = ((_ConvTransposeNd, TRANSPOSED), (_ConvNd, CONVOLUTION), (_BatchNorm, NORM), (nn.Linear, DENSE))
    return next((kind for cls, kind in kinds if isinstance(module, cls)), "")


def fitted(placed: Mapping[str, Found], network: nn.Module, file: str, architecture: str) -> dict[str, Tensor]:
    """The weights of ``network`` (which may be one of shapes only), floating point ones as float32.

    Raises:
        ModelError: names the first tensor, in the order of the network, that is missing or has another shape, else
            the first of the file that the network has no place for; with both shapes, as PyTorch lays them out.
    """
    remedy = "choose the architecture, and the arguments with --set, that it was made with"
    weights = {}
    for name, wanted in network.state_dict().items():
        found = placed.get(name)
        if found is None:
            if name.endswith(_NOT_STORED):
                continue
            raise ModelError(
                f"The checkpoint '{file}' has nothing for the tensor '{name}' {_shape(wanted)} of {architecture}; "
                f"{remedy}."
            )
        if found.tensor.shape != wanted.shape:
            raise ModelError(
                f"The tensor '{found.name}' of the checkpoint '{file}' has the shape {_shape(found.tensor)} but "
                f"{architecture} needs {_shape(wanted)} as '{name}'; {remedy}."
            )
        values = found.tensor.float() if wanted.is_floating_point() else found.tensor
        weights[name] = values.contiguous()
    extra = next((found for name, found in placed.items() if name not in weights), None)
    if extra:
        raise ModelError(
            f"The checkpoint '{file}' holds the tensor '{extra.name[:80]}' {_shape(extra.tensor)} for which "
            f"{architecture} has no place; {remedy}."
        )
    return weights


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
