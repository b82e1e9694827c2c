"""DR-UNet: a 2-D U-Net whose convolutions work at a quarter of each level's width.

Built as the authors' released code builds it (hemorrhage specification 2.1-2.2): every level is a pair of reduced
dimensional residual convolution units (RDRCU). With one input channel and base width 32 it has 10,953,249 trainable
parameters. Input height and width must be divisible by 32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 5


class ConvLayer(nn.Sequential):
    """Convolution with bias, BatchNorm with Keras' constants, ELU unless ``activate`` is False."""

    def __init__(self, inputs: int, outputs: int, kernel: int, activate: bool = True):
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        nn.init.xavier_uniform_(convolution.weight)
        nn.init.zeros_(convolution.bias)
        layers = [convolution, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]
        super().__init__(*layers, *([nn.ELU()] if activate else []))


class Unit(nn.Module):
    """One RDRCU: 1x1 and 3x3 at a quarter of the width, 3x3 to ``outputs``, plus an activated 1x1 side branch."""

    def __init__(self, inputs: int, quarter: int, outputs: int):
        super().__init__()
        self.main = nn.Sequential(
            ConvLayer(inputs, quarter, 1),
            ConvLayer(quarter, quarter, 3),
            ConvLayer(quarter, outputs, 3, activate=False),
        )
        self.side = ConvLayer(inputs, outputs, 1)
        self.activation = nn.ELU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        return self.activation(self.main(x) + self.side(x))


class Level(nn.Sequential):
    """RDRCU-1 (or -2, in the decoder) to a quarter of the width, then RDRCU-3 back to the full width."""

    def __init__(self, inputs: int, width: int):
        super().__init__(Unit(inputs, width // 4, width // 4), Unit(width // 4, width // 4, width))


class Up(nn.Module):
    """Transposed 2x2 convolution, concatenation [up, skip], BatchNorm, ELU, then a decoder level."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        nn.init.xavier_uniform_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.norm = nn.Sequential(nn.BatchNorm2d(2 * width, eps=1e-3, momentum=0.01), nn.ELU())
        self.level = Level(2 * width, width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Double the size of ``x`` and merge it with the encoder's ``skip``."""
        return self.level(self.norm(torch.cat([self.up(x), skip], dim=1)))


class DRUNet(nn.Module):
    """DR-UNet.

    Args:
        in_channels: image channels; 1 as published, more for neighbouring slices and further windows.
        base: width of the first level; 32 as published, 8 to 16 for compact models. A multiple of 4.
        out_channels: maps to predict; 1 as published.
    """

    def __init__(self, in_channels: int = 1, base: int = 32, out_channels: int = 1):
        super().__init__()
        if base < 4 or base % 4:
            raise ValueError(f"DR-UNet's base width must be a multiple of 4, not {base}.")
        widths = [base * 2**level for level in range(LEVELS)]
        self.stem = ConvLayer(in_channels, base // 2, 1)
        self.encoder = nn.ModuleList(Level(width // 2, width) for width in widths)
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = Level(widths[-1], 2 * widths[-1])
        self.decoder = nn.ModuleList(Up(width) for width in reversed(widths))
        self.head = nn.Conv2d(base, out_channels, 1)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, out_channels, H, W); the sigmoid is the caller's."""
        x = self.stem(x)
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for up, skip in zip(self.decoder, reversed(skips)):
            x = up(x, skip)
        return self.head(x)
