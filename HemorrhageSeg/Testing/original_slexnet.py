"""SLEX-Net's checkpoints and forward pass as its released code has them, on tensors by name alone.

Names and widths are those of the released classes (hemorrhage specification 1.1); ``base`` stands for their 64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


def unet_state(inputs: int, base: int, seed: int, squeeze_excite: bool = False) -> State:
    """Random weights under the names of the released U-Net, or of its variant with squeeze-and-excitation."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in _unet_shapes(inputs, base, squeeze_excite):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) > 1:
            state[name] = torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.3
        else:
            state[name] = torch.randn(shape, generator=generator) * 0.2 + (1.0 if name.endswith("weight") else 0.0)
    return state


def _unet_shapes(inputs: int, base: int, squeeze_excite: bool) -> Iterator[tuple[str, torch.Size]]:
    widths = [base, 2 * base, 4 * base, 8 * base, 8 * base]
    yield from _double_conv("inc", inputs, base)
    for level, (narrow, wide) in enumerate(itertools.pairwise(widths), start=1):
        if squeeze_excite:
            yield from _se_block(f"down{level}", narrow, wide)
        else:
            yield from _double_conv(f"down{level}.maxpool_conv.1", narrow, wide)
    for level, (wide, narrow) in enumerate(((16, 4), (8, 2), (4, 1), (2, 1)), start=1):
        yield from _double_conv(f"up{level}.conv", wide * base, narrow * base)
    yield "outc.conv.weight", torch.Size((2, base, 1, 1))
    yield "outc.conv.bias", torch.Size((2,))


def _double_conv(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, torch.Size]]:
    for number, channels in ((0, inputs), (3, outputs)):
        yield f"{name}.double_conv.{number}.weight", torch.Size((outputs, channels, 3, 3))
        yield f"{name}.double_conv.{number}.bias", torch.Size((outputs,))
        yield from _norm(f"{name}.double_conv.{number + 1}", outputs)


def _se_block(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, torch.Size]]:
    for number, channels in ((1, inputs), (2, outputs)):
        yield f"{name}.conv{number}.weight", torch.Size((outputs, channels, 3, 3))
        yield from _norm(f"{name}.bn{number}", outputs)
    squeezed = max(1, outputs // 16)
    yield f"{name}.se.fc.0.weight", torch.Size((squeezed, outputs))
    yield f"{name}.se.fc.2.weight", torch.Size((outputs, squeezed))


def _norm(name: str, width: int) -> Iterator[tuple[str, torch.Size]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", torch.Size((width,))
    yield f"{name}.num_batches_tracked", torch.Size(())


def under(name: str, state: State) -> State:
    """The same tensors under a module's name."""
    return {f"{name}.{key}": value for key, value in state.items()}


def part(name: str, state: State) -> State:
    """The tensors under a module's name, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


# -- forward --------------------------------------------------------------------------------------------------


def unet(x: Tensor, state: State) -> Tensor:
    """Logits (N, 2, H, W) of the U-Net, or of the variant whose weights ``state`` holds."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    def double_conv(x: Tensor, name: str) -> Tensor:
        for number in (0, 3):
            own = f"{name}.double_conv.{number}"
            x = F.conv2d(x, state[f"{own}.weight"], state[f"{own}.bias"], padding=1)
            x = F.relu(norm(x, f"{name}.double_conv.{number + 1}"))
        return x

    def down(x: Tensor, name: str) -> Tensor:
        if f"{name}.conv1.weight" not in state:
            return double_conv(F.max_pool2d(x, 2), f"{name}.maxpool_conv.1")
        x = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"], padding=1), f"{name}.bn1"))
        x = norm(F.conv2d(x, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        scale = F.relu(x.mean(dim=(2, 3)) @ state[f"{name}.se.fc.0.weight"].T) @ state[f"{name}.se.fc.2.weight"].T
        return F.relu(F.max_pool2d(x * torch.sigmoid(scale)[:, :, None, None], 2))

    skips = [double_conv(x, "inc")]
    for level in range(1, 5):
        skips.append(down(skips[-1], f"down{level}"))
    x = skips.pop()
    for level in range(1, 5):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = double_conv(torch.cat([skips.pop(), x], dim=1), f"up{level}.conv")
    return F.conv2d(x, state["outc.conv.weight"], state["outc.conv.bias"])


def slexnet(x: Tensor, backbone: State, sem: State, consistency: float = 0.2) -> Tensor:
    """Fused logits of the middle one of three slices (N, 3, H, W)."""
    before, target, after = x.split(1, dim=1)
    following = unet(torch.cat([after, target, unet(after, backbone)[:, 1:2]], dim=1), sem)
    preceding = unet(torch.cat([before, target, unet(before, backbone)[:, 1:2]], dim=1), sem)
    weight = torch.exp(-((preceding - following) ** 2)) * consistency
    return unet(target, backbone) * (1 - 2 * weight) + following * weight + preceding * weight


def slexnet_multi_slice(x: Tensor, backbone: State, sem: State, weights: list[float]) -> Tensor:
    """Fused logits of the middle slice with fixed weights."""
    slices = x.split(1, dim=1)
    middle = len(slices) // 2
    fused = unet(slices[middle], backbone) * weights[middle]
    for number, image in enumerate(slices):
        if number != middle:
            hint = unet(image, backbone)[:, 1:2]
            fused = fused + unet(torch.cat([image, slices[middle], hint], dim=1), sem) * weights[number]
    return fused
