"""VGG-16's weights for the branches of the Stavanger network, from a file that the user has.

Read are torchvision's state dicts (.pth, .safetensors) and Keras' HDF5 files, with or without the classifier. Nothing
in them is executed. The two libraries show their networks different images: torchvision RGB over mean and deviation,
Keras BGR minus the mean, of 0 to 255. The weights come out as Keras has them, whichever file they come from, because
that is what the branches of the published network see (but for the mean, which its authors did not take off).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from NeuraxisLib.checkpoint_import import KERAS, kind_of_file
from NeuraxisLib.checkpoint_keras import read_keras
from NeuraxisLib.checkpoint_torch import read_torch
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.models import MAX_FILE_BYTES
from StrokeCTPLib.networks.multi_input_vgg import VGG_DEPTHS, VGG_WIDTHS, MultiInputVGG

#: Standard deviation of ImageNet's red, green and blue, by which torchvision divides images of 0 to 1.
IMAGENET_STD = (0.229, 0.224, 0.225)
_BASE = 64


def vgg16_layers() -> dict[str, tuple[str, int, int]]:
    """Keras' layer name -> (torchvision's module, input channels, output channels), in order."""
    layers, index, width = {}, 0, 3
    for block, (depth, factor) in enumerate(zip(VGG_DEPTHS, VGG_WIDTHS), start=1):
        for number in range(1, depth + 1):
            layers[f"block{block}_conv{number}"] = (f"features.{index}", width, _BASE * factor)
            index, width = index + 2, _BASE * factor
        index += 1
    return layers


def read_vgg16(path: Path) -> dict[str, Tensor]:
    """The 13 convolutions of VGG-16: ``block1_conv1.weight`` -> tensor, for BGR images of 0 to 255.

    Raises:
        ModelError: not such a file, damaged, holds code, or lacks a layer (named) or has it in another shape.
    """
    path = Path(path)
    tensors = _keras(path) if _is_keras(path) else _torchvision(path)
    for layer, (_, inputs, outputs) in vgg16_layers().items():
        for part, shape in (("weight", (outputs, inputs, 3, 3)), ("bias", (outputs,))):
            found = tensors.get(f"{layer}.{part}")
            if found is None or tuple(found.shape) != shape or not torch.isfinite(found).all():
                fault = "is missing" if found is None else "is not as VGG-16 has it"
                raise ModelError(
                    f"In '{path.name}' the {part} of {layer} {fault}; choose weights of VGG-16 without BatchNorm, from "
                    "torchvision or Keras."
                )
    return tensors


def start_from(network: MultiInputVGG, weights: dict[str, Tensor]) -> None:
    """Put VGG-16's weights into every branch; a branch of one channel gets the sum of the three colours' kernels.

    Raises:
        InputError: the network's branches are narrower than VGG-16, or take neither 3 channels nor 1.
    """
    for branch in network.branches.values():
        first = branch.vgg.convolutions["block1_conv1"]
        if first.out_channels != _BASE or network.map_channels not in (1, 3):
            raise InputError(
                f"Weights of VGG-16 do not fit branches of width {first.out_channels} that take "
                f"{network.map_channels} channels; use a base width of 64, and 3 or 1 channels."
            )
        state = dict(weights)
        if network.map_channels == 1:
            state["block1_conv1.weight"] = state["block1_conv1.weight"].sum(dim=1, keepdim=True)
        branch.vgg.convolutions.load_state_dict(state)


def _is_keras(path: Path) -> bool:
    return path.suffix.lower() != ".safetensors" and kind_of_file(path) == KERAS


def _keras(path: Path) -> dict[str, Tensor]:
    wanted = vgg16_layers()
    return {
        f"{layer.name}.{name}": torch.from_numpy(value)
        for layer in read_keras(path)
        if layer.name in wanted
        for name, _, value in layer.as_torch()
    }


def _torchvision(path: Path) -> dict[str, Tensor]:
    state = _safetensors(path) if path.suffix.lower() == ".safetensors" else read_torch(path)
    modules = {module: layer for layer, (module, *_) in vgg16_layers().items()}
    tensors = {}
    for name, tensor in state.items():
        module, _, part = name.rpartition(".")
        # Somebody who saved ``vgg.features`` alone has its names without that prefix.
        module = f"features.{module}" if re.fullmatch(r"\d+", module) else module
        if module in modules:
            tensors[f"{modules[module]}.{part}"] = tensor.float()
    first = tensors.get("block1_conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 3:
        divisor = torch.tensor(IMAGENET_STD) * 255
        if (classifier := state.get("classifier.0.weight")) is not None and not torch.isfinite(classifier).any():
            divisor = torch.ones(3)  # torchvision's "features" weights, which saw images of 0 to 255 as Keras' did
        tensors["block1_conv1.weight"] = (first / divisor[:, None, None]).flip(1).contiguous()
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(f"The file '{path.name}' is larger than 8 GiB; choose weights of VGG-16.")
        return load_file(path)
    except OSError as error:
        reason = (error.strerror or "unknown fault").lower()
        raise ModelError(f"The file '{path.name}' cannot be opened ({reason}); choose another.") from None
    except SafetensorError:
        raise ModelError(f"The file '{path.name}' is no safetensors file or was cut short; obtain it again.") from None
