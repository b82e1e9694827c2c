"""DR-UNet on the processor: the same function in fewer steps, a quarter faster on one thread.

Equal to float rounding (1e-6 in probability). Images lie channel by channel: with the 4 to 16 channels of the first
levels, "channels last" leaves most of a vector empty. The 1x1 convolutions of one input are one product of matrices,
nothing is concatenated, what BatchNorm does to the transposed convolution is part of it, its four pixels go on at the
lower resolution as long as they can, and ELU comes from powers of two.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from HemorrhageSegLib.networks.drunet import DRUNet, Unit, Up
from NeuraxisLib.inference import SlicePredictor

_LOG2_E = math.log2(math.e)


class DRUNetPredictor(SlicePredictor):
    """A :class:`DRUNet`, its BatchNorms with statistics of their own, made ready to predict slices."""

    def _move(self, device: str) -> None:
        super()._move(device)
        if self.device == "cpu":
            self._ready["float32"] = FusedDRUNet(self._ready["float32"])


class FusedDRUNet(nn.Module):
    """A DR-UNet for prediction in float32.

    Args:
        network: in evaluation mode, its BatchNorms folded (:func:`NeuraxisLib.inference.fold_batch_norm`). It computes
            itself what is not float32.
    """

    @torch.no_grad()
    def __init__(self, network: DRUNet):
        super().__init__()
        self.network = network
        network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # weights settle how images lie
        self.stem, self.head = network.stem[0], network.head
        self.encoder = nn.ModuleList(nn.Sequential(*map(_Unit, level)) for level in network.encoder)
        self.bottleneck = nn.Sequential(*map(_Unit, network.bottleneck))
        self.decoder = nn.ModuleList(map(_Up, network.decoder))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, out_channels, H, W)."""
        if x.dtype != torch.float32:
            return self.network(x)
        x = elu_(self.stem(x.contiguous()))
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
            x = _pooled(x)
        x = self.bottleneck(x)
        for up, skip in zip(self.decoder, reversed(skips)):
            x = up(x, skip)
        return self.head(x)


class _Unit(nn.Module):
    """A :class:`Unit` whose two 1x1 convolutions are one."""

    def __init__(self, unit: Unit):
        super().__init__()
        first, self.second, self.third = (layer[0] for layer in unit.main)
        side = unit.side[0]
        self.quarter = first.out_channels
        self.register_buffer("weight", torch.cat([first.weight, side.weight])[:, :, 0, 0].contiguous())
        self.register_buffer("bias", torch.cat([first.bias, side.bias])[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        return self.rest(_mixed(x, self.weight, self.bias))

    def rest(self, mixed: Tensor) -> Tensor:
        """What follows the 1x1 convolutions (N, quarter + outputs, H, W), which are overwritten."""
        main, side = elu_(mixed).tensor_split([self.quarter], dim=1)
        return elu_(self.third(elu_(self.second(main))).add_(side))


class _Up(nn.Module):
    """An :class:`Up` that concatenates nothing: each half goes through its own half of BatchNorm and 1x1 weights."""

    def __init__(self, up: Up):
        super().__init__()
        self.first, self.second = map(_Unit, up.level)
        width, norm = up.up.out_channels, up.norm[0]
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        pixels = up.up.weight * scale[:width, None, None]  # (2 width, width, 2, 2)
        self.register_buffer("up_weight", pixels.permute(2, 3, 1, 0).reshape(4 * width, 2 * width))
        self.register_buffer("up_bias", (up.up.bias * scale[:width] + shift[:width]).repeat(4)[:, None])
        self.register_buffer("weight", self.first.weight[:, :width].contiguous())
        self.register_buffer("skip_scale", scale[width:, None, None])
        self.register_buffer("skip_shift", shift[width:, None, None])
        self.register_buffer("skip_weight", self.first.weight[:, width:].contiguous())

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Double the size of ``x`` (N, 2 width, H, W) and merge it with the encoder's ``skip`` (N, width, 2H, 2W)."""
        n, _, rows, columns = x.shape
        pixels = elu_(_mixed(x, self.up_weight, self.up_bias)).view(n, 4, -1, rows * columns)
        pixels = torch.matmul(self.weight, pixels).view(n, 2, 2, -1, rows, columns)
        skip = elu_(torch.addcmul(self.skip_shift, skip, self.skip_scale))
        mixed = _mixed(skip, self.skip_weight, self.first.bias)
        mixed.view(n, -1, rows, 2, columns, 2).add_(pixels.permute(0, 3, 4, 1, 5, 2))
        return self.second(self.first.rest(mixed))


def elu_(x: Tensor) -> Tensor:
    """ELU in place, within 1e-7 of PyTorch's own in less than half its time: expm1 is slow, a power of two is not."""
    below = torch.mul(x, _LOG2_E).clamp_max_(0).exp2_().sub_(1)
    return torch.maximum(x, below, out=x)


def _mixed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution of (N, inputs, H, W) with weights (outputs, inputs) and bias (outputs, 1)."""
    n, _, rows, columns = x.shape
    out = x.new_empty(n, len(weight), rows * columns)
    for image, mixed in zip(x.flatten(2), out):
        torch.addmm(bias, weight, image, out=mixed)
    return out.view(n, -1, rows, columns)


def _pooled(x: Tensor) -> Tensor:
    """2x2 maximum pooling; PyTorch's own takes ten times as long where images lie channel by channel."""
    x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(x[..., ::2], x[..., 1::2])
