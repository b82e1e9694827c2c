"""The 2-D U-Net of the SLEX-Net paper: its baseline, and the family that SLEX-Net is built from.

Built as the authors' released code builds it (hemorrhage specification 1.1): four poolings, bilinear upsampling instead
of transposed convolutions, and no widening at the last level. With one input channel, base width 64 and two classes it
has 13,394,242 parameters. The modules carry the released code's names, so that its checkpoints fit as they are.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Width of each encoder level, as a multiple of the base width.
ENCODER = (1, 2, 4, 8, 8)
#: Width of each decoder level, deepest first.
DECODER = (4, 2, 1, 1)


class MonteCarloDropout(nn.Dropout):
    """Dropout that is active when predicting too, so that passes over the same image differ (MC dropout)."""

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.set_rate(rate)

    def set_rate(self, rate: float) -> None:
        """Change the share of elements that is dropped; ValueError if it is not in [0, 1)."""
        if not 0 <= rate < 1:
            raise ValueError(f"A drop rate must be at least 0 and below 1, not {rate}.")
        self.p = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x`` with probability ``p``, whatever mode the network is in."""
        return functional.dropout(x, self.p, training=True) if self.p else x


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution with bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        return self.double_conv(x)


class Down(nn.Module):
    """Dropout if any, 2x2 maximum pooling, two convolutions."""

    def __init__(self, inputs: int, outputs: int, drop_rate: float):
        super().__init__()
        self.dropout = MonteCarloDropout(drop_rate)
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H // 2, W // 2)."""
        return self.maxpool_conv(self.dropout(x))


class Up(nn.Module):
    """Bilinear upsampling, concatenation [skip, up], dropout if any, two convolutions."""

    def __init__(self, inputs: int, outputs: int, drop_rate: float):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.dropout = MonteCarloDropout(drop_rate)
        self.conv = DoubleConv(inputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Double the size of ``x`` (zeros where pooling lost a row or column) and merge the encoder's ``skip``."""
        x = self.up(x)
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if rows or columns:
            x = functional.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.conv(self.dropout(torch.cat([skip, x], dim=1)))


class OutConv(nn.Module):
    """1x1 convolution with bias to the logits."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        return self.conv(x)


class UNet2D(nn.Module):
    """U-Net for one slice, the paper's baseline and SLEX-Net's backbone. Any image size from 16 x 16.

    Args:
        in_channels: image channels; 1 as published.
        base: width of the first level; 64 as published, 8 to 24 for compact models.
        out_channels: 2 as published (softmax; background, foreground), or 1 (sigmoid).
        drop_rate: share of features dropped before every pooling and after every concatenation, in prediction too;
            0 as published for the main model, above 0 for its comparison with MC dropout.
    """

    def __init__(self, in_channels: int = 1, base: int = 64, out_channels: int = 2, drop_rate: float = 0.0):
        super().__init__()
        if base < 1:
            raise ValueError(f"The base width of a U-Net must be at least 1, not {base}.")
        widths = [base * factor for factor in ENCODER]
        self.inc = DoubleConv(in_channels, widths[0])
        self.down1, self.down2, self.down3, self.down4 = (
            self._down(inputs, outputs, drop_rate) for inputs, outputs in itertools.pairwise(widths)
        )
        ups, below = [], widths[-1]
        for skip, factor in zip(reversed(widths[:-1]), DECODER):
            ups.append(Up(skip + below, base * factor, drop_rate))
            below = base * factor
        self.up1, self.up2, self.up3, self.up4 = ups
        self.outc = OutConv(below, out_channels)
        kaiming_init(self)

    def _down(self, inputs: int, outputs: int, drop_rate: float) -> nn.Module:
        """One encoder level; the squeeze-and-excitation variant has another."""
        return Down(inputs, outputs, drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, out_channels, H, W)."""
        skips = [self.inc(x)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in (self.up1, self.up2, self.up3, self.up4):
            x = up(x, skips.pop())
        return self.outc(x)


def set_drop_rate(network: nn.Module, rate: float) -> int:
    """Set the rate of every :class:`MonteCarloDropout` of a network; returns how many there are.

    So that a network trained with dropout can predict without, and the other way round.

    Raises:
        ValueError: ``rate`` is not in [0, 1).
    """
    found = [module for module in network.modules() if isinstance(module, MonteCarloDropout)]
    for module in found:
        module.set_rate(rate)
    return len(found)


def kaiming_init(network: nn.Module) -> None:
    """Kaiming normal weights (fan-in, gain sqrt 2) and zero biases in every convolution and linear layer [1.1]."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
