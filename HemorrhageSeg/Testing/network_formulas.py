"""What the tests of the slice networks share: random weights, and layers formulated in numpy and scipy."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import correlate
from torch import nn


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and BatchNorm statistics, so that no term can hide behind a 0 or a 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if value.is_floating_point():
            random = torch.randn(value.shape, generator=generator) * 0.3
            value.data.copy_(random.abs() + 0.5 if "running_var" in name else random)
    return network.eval()


# -- an independent formulation: channels first, one image, float64 --------------------------------------------


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """Convolution as networks mean it (no mirrored kernel), zeros outside the image."""
    return np.stack(
        [
            sum(correlate(plane, kernel, mode="constant") for plane, kernel in zip(x, kernels)) + b
            for kernels, b in zip(weight, np.broadcast_to(bias, len(weight)))
        ]
    )


def normalise(x: np.ndarray, norm: dict[str, np.ndarray], eps: float = 1e-3) -> np.ndarray:
    """BatchNorm with its running statistics; ``eps`` is Keras' by default."""
    scale = norm["weight"] / np.sqrt(norm["running_var"] + eps)
    return (x - norm["running_mean"][:, None, None]) * scale[:, None, None] + norm["bias"][:, None, None]


def upsample(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Transposed 2x2 convolution with stride 2; ``weight`` is (in, out, 2, 2)."""
    up = np.zeros((weight.shape[1], 2 * x.shape[1], 2 * x.shape[2]))
    for row in range(2):
        for column in range(2):
            up[:, row::2, column::2] = np.einsum("chw,co->ohw", x, weight[:, :, row, column])
    return up + bias[:, None, None]


def below(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The entries of one part of a network, without its prefix."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def as_numpy(module: nn.Module) -> dict[str, np.ndarray]:
    """The state of a module in double precision."""
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def run(module: nn.Module, *arrays: np.ndarray) -> np.ndarray:
    """What a module makes of single images (channels, H, W)."""
    with torch.inference_mode():
        return module(*(torch.from_numpy(array)[None].float() for array in arrays))[0].numpy()
