"""BCDU-Net and MCGU-Net: U-Nets whose skip connections are read by a convolutional LSTM.

Built as the authors' released Keras code builds them (stroke and disc specification 3.1-3.2), with Keras' constants.
Parameters as Keras counts them, BatchNorm statistics included: BCDU-Net D3 20,659,717 and D1 8,861,189 for one input
channel, MCGU-Net 27,891,901 for three. Input height and width must be divisible by 8.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Standard deviation of a normal distribution cut off at two standard deviations.
TRUNCATED_STD = 0.87962566103423978
DROPOUT = 0.5


class ConvLSTM(nn.Module):
    """Keras' ConvLSTM2D: 3x3, the last hidden state only, gates in the order input, forget, cell, output.

    The gates use the hard sigmoid clip(0.2 x + 0.5, 0, 1); the bias belongs to the convolution of the input and is 1
    for the forget gate at first; there are no peepholes.
    """

    def __init__(self, inputs: int, filters: int):
        super().__init__()
        self.input = he_normal(nn.Conv2d(inputs, 4 * filters, 3, padding=1))
        self.recurrent = nn.Conv2d(filters, 4 * filters, 3, padding=1, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)
        with torch.no_grad():
            self.input.bias[filters : 2 * filters] = 1.0

    def forward(self, steps: list[Tensor]) -> Tensor:
        """Read ``steps``, each (N, inputs, H, W), in the order given; the last state (N, filters, H, W)."""
        hidden: Tensor | None = None
        cell: Tensor | None = None
        for step in steps:
            gates = self.input(step)
            if hidden is not None:
                gates = gates + self.recurrent(hidden)
            enter, forget, new, leave = gates.chunk(4, dim=1)
            new = _hard_sigmoid(enter) * torch.tanh(new)
            cell = new if cell is None else _hard_sigmoid(forget) * cell + new
            hidden = _hard_sigmoid(leave) * torch.tanh(cell)
        assert hidden is not None
        return hidden


class SqueezeExcite(nn.Module):
    """Scale every channel by what two dense layers make of the means of all."""

    def __init__(self, width: int):
        super().__init__()
        self.squeeze = nn.Linear(width, max(1, width // 16))
        self.excite = nn.Linear(max(1, width // 16), width)
        for layer in (self.squeeze, self.excite):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        scale = torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * scale[:, :, None, None]


class Up(nn.Module):
    """One decoder level: transposed 2x2 convolution, BatchNorm, ReLU, ConvLSTM over [up, skip], two convolutions.

    The released code calls the ConvLSTM bidirectional but runs it backwards only: first the upsampled map, then the
    skip. ``bidirectional`` adds the state of a second one that runs the other way, as its authors advise.
    """

    def __init__(self, inputs: int, width: int, filters: int, bidirectional: bool, attention: bool = False):
        super().__init__()
        self.width = width
        self.up = he_normal(nn.ConvTranspose2d(inputs, width, 2, stride=2))
        self.attend_up = SqueezeExcite(width) if attention else nn.Identity()
        self.norm = nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)
        self.backward_lstm = ConvLSTM(width, filters)
        self.forward_lstm = ConvLSTM(width, filters) if bidirectional else None
        self.convolutions = conv_block(filters, width)
        self.attend = SqueezeExcite(width) if attention else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Double the size of ``x`` (N, inputs, h, w) and merge ``skip`` (N, width, 2 h, 2 w)."""
        x = functional.relu(self.norm(self.attend_up(self.up(x))))
        merged = self.backward_lstm([x, skip])
        if self.forward_lstm is not None:
            merged = merged + self.forward_lstm([skip, x])
        return self.attend(self.convolutions(merged))


class Bottleneck(nn.Module):
    """Blocks of convolutions, each followed by dropout; the third reads the second and the first.

    Args:
        inputs: channels that come in.
        width: channels of every block.
        depth: number of blocks, 1 or 3.
        vgg: a first block of three convolutions without dropout, as in MCGU-Net.
    """

    def __init__(self, inputs: int, width: int, depth: int, vgg: bool = False):
        super().__init__()
        if depth not in (1, 3):
            raise ValueError(f"BCDU-Net is made with a depth of 1 or 3, not {depth}.")
        self.first = conv_block(inputs, width, 3 if vgg else 2)
        self.first_dropout = nn.Identity() if vgg else nn.Dropout(DROPOUT)
        self.second = nn.Sequential(conv_block(width, width), nn.Dropout(DROPOUT)) if depth == 3 else None
        self.third = nn.Sequential(conv_block(2 * width, width), nn.Dropout(DROPOUT)) if depth == 3 else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) -> (N, width, h, w)."""
        first = self.first_dropout(self.first(x))
        if self.second is None or self.third is None:
            return first
        return self.third(torch.cat([self.second(first), first], dim=1))


class ConvLSTMUNet(nn.Module):
    """What BCDU-Net and MCGU-Net share: three poolings, a bottleneck, three decoder levels, a head of two steps.

    Args:
        encoder: the blocks of the three encoder levels, each followed by pooling.
        bottleneck: the block below them.
        decoder: :class:`Up`, deepest first.
        skip_dropout: share of the deepest skip's features that is dropped in training; the pooling sees them all.
        out_channels: maps to predict.
    """

    def __init__(
        self, encoder: list[nn.Module], bottleneck: nn.Module, decoder: list[Up], skip_dropout: float, out_channels: int
    ):
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.pool = nn.MaxPool2d(2)
        self.skip_dropout = nn.Dropout(skip_dropout)
        self.bottleneck = bottleneck
        self.decoder = nn.ModuleList(decoder)
        width = decoder[-1].width
        self.narrow = nn.Sequential(he_normal(nn.Conv2d(width, 2, 3, padding=1)), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(2, out_channels, 1)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, out_channels, H, W); H and W divisible by 8."""
        skips = []
        for block in self.encoder:
            skips.append(block(x))
            x = self.pool(skips[-1])
        skips[-1] = self.skip_dropout(skips[-1])
        x = self.bottleneck(x)
        for up in self.decoder:
            x = up(x, skips.pop())
        return self.head(self.narrow(x))


class BCDUNet(ConvLSTMUNet):
    """BCDU-Net.

    Args:
        in_channels: image channels; 1 as published for CT.
        base: width of the first level; 64 as published, an even number.
        out_channels: maps to predict; 1 as published (sigmoid).
        depth: blocks of the bottleneck: 3 (D3) or 1 (D1).
        bidirectional: add a forward ConvLSTM to the backward one; the released code has none.
    """

    def __init__(
        self, in_channels: int = 1, base: int = 64, out_channels: int = 1, depth: int = 3, bidirectional: bool = False
    ):
        _check_base("BCDU-Net", base)
        widths = [base, 2 * base, 4 * base, 8 * base]
        inputs = [in_channels, *widths]
        encoder = [conv_block(narrow, wide) for narrow, wide in zip(inputs, widths[:3])]
        decoder = [Up(2 * width, width, width // 2, bidirectional) for width in reversed(widths[:3])]
        super().__init__(encoder, Bottleneck(widths[2], widths[3], depth), decoder, DROPOUT, out_channels)


class MCGUNet(ConvLSTMUNet):
    """MCGU-Net: BCDU-Net D3 with the encoder of VGG16, squeeze-and-excitation and full-width ConvLSTMs.

    Args:
        in_channels: image channels; 3 as published, where the encoder starts from VGG16's ImageNet weights.
        base: width of the first level; 64 as published, an even number.
        out_channels: maps to predict; 1 as published (sigmoid).
        bidirectional: add a forward ConvLSTM to the backward one; the released code has none.
    """

    def __init__(self, in_channels: int = 3, base: int = 64, out_channels: int = 1, bidirectional: bool = False):
        _check_base("MCGU-Net", base)
        widths = [base, 2 * base, 4 * base, 8 * base]
        inputs = [in_channels, *widths]
        encoder = [conv_block(narrow, wide, count) for narrow, wide, count in zip(inputs, widths[:3], (2, 2, 3))]
        decoder = [Up(2 * width, width, width, bidirectional, attention=True) for width in reversed(widths[:3])]
        super().__init__(encoder, Bottleneck(widths[2], widths[3], 3, vgg=True), decoder, 0.0, out_channels)


def conv_block(inputs: int, width: int, count: int = 2) -> nn.Sequential:
    """``count`` times: 3x3 convolution, ReLU."""
    layers: list[nn.Module] = []
    for number in range(count):
        layers += [he_normal(nn.Conv2d(width if number else inputs, width, 3, padding=1)), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def he_normal(convolution: nn.Module) -> nn.Module:
    """Keras' initialiser of that name: truncated normal of variance 2 / fan-in; bias 0."""
    std = math.sqrt(2 / convolution.weight[0].numel()) / TRUNCATED_STD
    nn.init.trunc_normal_(convolution.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(convolution.bias)
    return convolution


def _hard_sigmoid(x: Tensor) -> Tensor:
    """Keras' clip(0.2 x + 0.5, 0, 1); PyTorch's hardsigmoid is another."""
    return (0.2 * x + 0.5).clamp(0, 1)


def _check_base(name: str, base: int) -> None:
    if base < 2 or base % 2:
        raise ValueError(f"The base width of {name} must be an even number, not {base}.")
