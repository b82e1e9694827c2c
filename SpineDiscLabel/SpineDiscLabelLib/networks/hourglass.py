"""The stacked hourglass with multi-level attention: heat maps of the discs, one channel per disc.

Built as the authors' released code builds it (disc specification 2.1). With 2 stacks, 1 block, width 256 and 11 classes
it has 6,795,086 parameters, 6,727,062 without attention. Input height and width must be divisible by 64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: How often an hourglass halves its images: 64, 32, 16, 8, 4 pixels for an input of 256.
DEPTH = 4
#: Pixels of the input for one of the scores, in either direction.
STRIDE = 4
#: What height and width of the input must be divisible by.
MULTIPLE = STRIDE * 2**DEPTH


class Residual(nn.Module):
    """Pre-activation bottleneck: 1x1 to ``half``, 3x3, 1x1 to twice ``half``, plus the input (by 1x1 if it differs)."""

    def __init__(self, inputs: int, half: int):
        super().__init__()
        outputs = 2 * half
        self.layers = nn.Sequential(
            *(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, half, 1)),
            *(nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1)),
            *(nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, outputs, 1)),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, 2 * half, H, W)."""
        return self.layers(x) + self.shortcut(x)


def _residuals(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(width, width // 2) for _ in range(blocks)))


class Hourglass(nn.Module):
    """Residuals at full size, plus those at half the size that hold the next smaller hourglass, back up by nearest."""

    def __init__(self, width: int, blocks: int, depth: int = DEPTH):
        super().__init__()
        self.skip = _residuals(width, blocks)
        self.down = _residuals(width, blocks)
        self.inner = Hourglass(width, blocks, depth - 1) if depth > 1 else _residuals(width, blocks)
        self.up = _residuals(width, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.skip(x) + F.interpolate(low, scale_factor=2, mode="nearest")


class Stack(nn.Module):
    """One hourglass with its features y and their scores; all but the last hand both on to the next stack."""

    def __init__(self, width: int, blocks: int, classes: int, last: bool):
        super().__init__()
        self.hourglass = Hourglass(width, blocks)
        self.residuals = _residuals(width, blocks)
        self.mix = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.score = nn.Conv2d(width, classes, 1)
        if not last:
            self.features_on = nn.Conv2d(width, width, 1)
            self.score_on = nn.Conv2d(classes, width, 1)

    def features(self, x: Tensor) -> Tensor:
        """y of the specification, (N, width, H, W)."""
        return self.mix(self.residuals(self.hourglass(x)))


class StackedHourglass(nn.Module):
    """The stacked hourglass, with multi-level attention by default.

    Args:
        stacks: hourglasses one behind the other; 2 as published.
        blocks: residuals at each node; 1 as published.
        width: channels inside the hourglasses; 256 as published, 32 to 96 for compact models. A multiple of 4.
        classes: heat maps to predict; 11 as published.
        attention: weigh the last features by one map made from the features of all stacks.
        in_channels: 3 as published (one grey image three times), or neighbouring slices.
    """

    def __init__(
        self,
        stacks: int = 2,
        blocks: int = 1,
        width: int = 256,
        classes: int = 11,
        attention: bool = True,
        in_channels: int = 3,
    ):
        super().__init__()
        if width < 8 or width % 4:
            raise ValueError(f"The width of a stacked hourglass must be a multiple of 4 from 8 on, not {width}.")
        if min(stacks, blocks, classes, in_channels) < 1:
            raise ValueError("A stacked hourglass needs at least one stack, block, class and input channel.")
        quarter, half = width // 4, width // 2
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, quarter, 7, stride=2, padding=3), nn.BatchNorm2d(quarter), nn.ReLU()
        )
        self.first = Residual(quarter, quarter)
        self.second = Residual(half, half)
        self.third = Residual(width, half)
        self.stacks = nn.ModuleList(Stack(width, blocks, classes, n == stacks - 1) for n in range(stacks))
        self.attention = _attention(width * stacks, half) if attention else None

    def scores(self, x: Tensor) -> list[Tensor]:
        """The scores (N, classes, H / 4, W / 4) of every stack for images (N, in_channels, H, W), the best last.

        Raises:
            ValueError: a height or width that is not divisible by 64.
        """
        if x.shape[-2] % MULTIPLE or x.shape[-1] % MULTIPLE:
            raise ValueError(f"height and width must be divisible by {MULTIPLE}, not {tuple(x.shape[-2:])}")
        x = self.third(self.second(F.max_pool2d(self.first(self.stem(x)), 2)))
        features, scores = [], []
        for stack in self.stacks[:-1]:
            features.append(stack.features(x))
            scores.append(stack.score(features[-1]))
            x = x + stack.features_on(features[-1]) + stack.score_on(scores[-1])
        last = self.stacks[-1].features(x)
        if self.attention is not None:
            last = last * self.attention(torch.cat([*features, last], dim=1))
        return [*scores, self.stacks[-1].score(last)]

    def paths(self, x: Tensor) -> list[Tensor]:
        """What training learns from where the loss takes scores at a quarter of the size: :meth:`scores`."""
        return self.scores(x)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W) -> heat maps (N, classes, H, W) of every stack, the best last; no activation."""
        return [F.interpolate(score, scale_factor=STRIDE, mode="bilinear") for score in self.scores(x)]


def _attention(inputs: int, half: int) -> nn.Sequential:
    """Four 1x1 convolutions without bias, to one map of weights 0..1."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()),
        *(nn.Conv2d(half, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 1, 1, bias=False), nn.Sigmoid()),
    )
