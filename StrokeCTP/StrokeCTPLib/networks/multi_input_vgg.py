"""The Stavanger network: one VGG-16 for each perfusion map, fused at the bottleneck and at every skip connection.

Built as the authors' released code builds it (stroke and disc specification 1.2): no input is shared between branches,
no BatchNorm in the published configurations. Parameters for three classes: 85,269,139 with the four maps and
113,368,483 with the maximum-intensity image too; the NIHSS at 512 x 512 pixels adds 27,080. Height and width must be
divisible by 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from StrokeCTPLib.networks.configurations import ALL_MAPS, MAPS, SCALARS

#: Convolutions of each block of VGG-16, and the widths of the blocks as multiples of the base width.
VGG_DEPTHS = (2, 2, 3, 3, 3)
VGG_WIDTHS = (1, 2, 4, 8, 8)
#: How many times VGG-16 halves the image.
STRIDE = 32
#: Width of each decoder level for one branch, as a share of the base width.
DECODER = (2.0, 1.0, 0.5, 0.25)
#: Units of the first dense layer behind the patient's numbers.
SCALAR_UNITS = 100
#: Where BatchNorm stands: nowhere as published; after the tails and the head's convolutions, which the code can be
#: told to do; or after every convolution, which a network that starts from random weights needs.
NORMS = ("none", "tails", "everywhere")
#: Where maps meet: at the bottleneck and the skips, or at the input (which the group tried later).
FUSIONS = ("slow", "input")
#: Name of the one branch of maps that meet at the input.
JOINED = "all"


class VGG16(nn.Module):
    """VGG-16 without its classifier.

    Args:
        in_channels: of the image.
        base: width of the first block; 64 is VGG-16.
        norm: BatchNorm between every convolution and its ReLU.
    """

    def __init__(self, in_channels: int, base: int, norm: bool = False):
        super().__init__()
        self.convolutions, self.norms = nn.ModuleDict(), nn.ModuleDict()
        width = in_channels
        for block, (depth, factor) in enumerate(zip(VGG_DEPTHS, VGG_WIDTHS), start=1):
            for number in range(1, depth + 1):
                name = f"block{block}_conv{number}"
                self.convolutions[name] = nn.Conv2d(width, base * factor, 3, padding=1)
                width = base * factor
                if norm:
                    self.norms[name] = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, in_channels, H, W) -> (N, 8 base, H/32, W/32) and what each block gives before its pooling."""
        skips = []
        for block, depth in enumerate(VGG_DEPTHS, start=1):
            for number in range(1, depth + 1):
                name = f"block{block}_conv{number}"
                x = self.convolutions[name](x)
                x = functional.relu(self.norms[name](x) if name in self.norms else x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        return x, skips


class Branch(nn.Module):
    """VGG-16 of one map and its tail of two convolutions and dropout."""

    def __init__(self, in_channels: int, base: int, dropout: float, norm: str):
        super().__init__()
        self.vgg = VGG16(in_channels, base, norm == "everywhere")
        self.tail = nn.Sequential(
            *convolution(VGG_WIDTHS[-1] * base, 2 * base, norm == "everywhere"),
            *convolution(2 * base, 2 * base, norm != "none", norm == "tails"),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, in_channels, H, W) -> (N, 2 base, H/32, W/32) and the five skips."""
        x, skips = self.vgg(x)
        return self.tail(x), skips


class ScalarBranch(nn.Module):
    """Numbers of the patient -> one channel of the bottleneck, by two dense layers; so the image size is fixed."""

    def __init__(self, inputs: int, side: int):
        super().__init__()
        self.side = side
        self.first = nn.Linear(inputs, SCALAR_UNITS)
        self.second = nn.Linear(SCALAR_UNITS, side * side)

    def forward(self, numbers: Tensor) -> Tensor:
        """(N, inputs) -> (N, 1, side, side)."""
        hidden = functional.relu(self.second(functional.relu(self.first(numbers))))
        return hidden.view(-1, 1, self.side, self.side)


class Up(nn.Module):
    """One decoder level: two convolutions (none at the deepest), doubling by a transposed convolution, the skips."""

    def __init__(self, inputs: int, width: int, deepest: bool, norm: bool):
        super().__init__()
        pair = [] if deepest else [*convolution(inputs, width, norm), *convolution(width, width, norm)]
        self.convolutions = nn.Sequential(*pair)
        self.up = nn.ConvTranspose2d(inputs if deepest else width, width, 2, stride=2)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Double the size of ``x`` and put the skips of all branches behind it."""
        return torch.cat([functional.relu(self.up(self.convolutions(x))), *skips], dim=1)


class MultiInputVGG(nn.Module):
    """A branch for each map, a decoder that sees the features of all.

    Args:
        maps: images it reads, in the order of their branches.
        scalars: numbers of the patient it reads too, of nihss, age and gender in that order; as they are.
        map_channels: channels of each image: 3 for colour-coded maps as published, 1 for maps of numbers.
        base: width of the first level; 64 as published.
        out_channels: 2, 3 or 4 classes (softmax), or 1 (sigmoid).
        size: pixels of the images' side, which matters to the scalar branch alone.
        dropout: of each branch's tail.
        norm: one of :data:`NORMS`.
        fusion: "slow" has a branch for each map, as published; "input" one branch that reads all maps together.
        head: width of the last two convolutions; 0 is a quarter of the base width, as published.

    Raises:
        ValueError: there is no network of these arguments.
    """

    def __init__(
        self,
        maps: Sequence[str] = MAPS,
        scalars: Sequence[str] = (),
        map_channels: int = 3,
        base: int = 64,
        out_channels: int = 3,
        size: int = 512,
        dropout: float = 0.25,
        norm: str = "none",
        fusion: str = "slow",
        head: int = 0,
    ):
        super().__init__()
        _check_arguments(maps, scalars, base, out_channels, size, norm)
        if fusion not in FUSIONS or head < 0:
            raise ValueError(f"The fusion must be one of {', '.join(FUSIONS)} and the head 0 or more.")
        self.map_channels, self.scalar_names, self.size = map_channels, tuple(scalars), size
        inputs = dict.fromkeys(maps, map_channels) if fusion == "slow" else {JOINED: map_channels * len(maps)}
        count, everywhere = len(inputs), norm == "everywhere"
        self.branches = nn.ModuleDict({n: Branch(width, base, dropout, norm) for n, width in inputs.items()})
        self._split = list(inputs.values())
        self.scalars = ScalarBranch(len(scalars), size // STRIDE) if scalars else None
        self.ups = nn.ModuleList([Up(2 * base * count + bool(scalars), 4 * base, True, everywhere)])
        width = 4 * base
        for share, skip in zip(DECODER, reversed(VGG_WIDTHS)):
            self.ups.append(Up(width + count * skip * base, int(share * base) * count, False, everywhere))
            width = int(share * base) * count
        last = head or base // 4
        self.head = nn.Sequential(
            *convolution(width + count * base, last, norm != "none", norm == "tails"),
            *convolution(last, last, norm != "none", norm == "tails"),
            nn.Conv2d(last, out_channels, 1),
        )
        glorot_init(self)

    @property
    def in_channels(self) -> int:
        """Channels of its input: those of all maps, then a plane for each number of the patient."""
        return sum(self._split) + len(self.scalar_names)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, out_channels, H, W).

        The plane of a number holds that number everywhere; it is read at the centre, where no augmentation of the
        image puts its padding.

        Raises:
            ValueError: another number of channels, or a size that the network cannot take.
        """
        self._check_shape(x)
        images = x[:, : sum(self._split)].split(self._split, dim=1)
        tails, skips = zip(*(branch(image) for branch, image in zip(self.branches.values(), images)))
        fused = list(tails)
        if self.scalars is not None:
            planes = x[:, -len(self.scalar_names) :]
            fused.append(self.scalars(planes[:, :, x.shape[2] // 2, x.shape[3] // 2]))
        y = torch.cat(fused, dim=1)
        for level, up in enumerate(self.ups, start=1):
            y = up(y, [of_branch[-level] for of_branch in skips])
        return self.head(y)

    def _check_shape(self, x: Tensor) -> None:
        rows, columns = x.shape[2:]
        if x.shape[1] != self.in_channels:
            raise ValueError(f"The network reads {self.in_channels} channels, not {x.shape[1]}.")
        if rows % STRIDE or columns % STRIDE or not rows or not columns:
            raise ValueError(f"The image's sides must be multiples of {STRIDE}, not {rows} x {columns}.")
        if self.scalars is not None and (rows, columns) != (self.size, self.size):
            raise ValueError(f"With {', '.join(self.scalar_names)} the images must be {self.size} x {self.size}.")


class CompactMultiInputVGG(MultiInputVGG):
    """The same network, small, for maps of numbers instead of colours, with BatchNorm for a start from nothing."""

    def __init__(
        self,
        maps: Sequence[str] = MAPS,
        scalars: Sequence[str] = (),
        map_channels: int = 1,
        base: int = 8,
        out_channels: int = 3,
        size: int = 256,
        dropout: float = 0.1,
        norm: str = "everywhere",
        fusion: str = "slow",
        head: int = 16,
    ):
        super().__init__(maps, scalars, map_channels, base, out_channels, size, dropout, norm, fusion, head)


def convolution(inputs: int, outputs: int, norm: bool, norm_last: bool = False) -> list[nn.Module]:
    """3x3 convolution and ReLU, with BatchNorm between them or, as the released code has it, behind them."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    if norm and norm_last:
        layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))
    elif norm:
        layers.insert(1, nn.BatchNorm2d(outputs))
    return layers


def glorot_init(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Glorot uniform kernels and zero biases in every convolution and dense layer, as Keras starts them."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)


def _check_arguments(
    maps: Sequence[str], scalars: Sequence[str], base: int, out_channels: int, size: int, norm: str
) -> None:
    """ValueError for arguments that make no network."""
    if not maps or len(set(maps)) != len(maps) or not set(maps) <= set(ALL_MAPS):
        raise ValueError(f"The maps must be of {', '.join(ALL_MAPS)}, each once, not {', '.join(maps) or 'none'}.")
    if tuple(scalars) != tuple(name for name in SCALARS if name in scalars):
        raise ValueError(f"The numbers must be of {', '.join(SCALARS)} in that order, not {', '.join(scalars)}.")
    if base < 4 or base % 4:
        raise ValueError(f"The base width must be a multiple of 4, not {base}.")
    if not 1 <= out_channels <= 4:
        raise ValueError(f"The network has 1 to 4 output channels, not {out_channels}.")
    if size < STRIDE or size % STRIDE:
        raise ValueError(f"The image size must be a multiple of {STRIDE}, not {size}.")
    if norm not in NORMS:
        raise ValueError(f"There is no norm '{norm}'; choose one of: {', '.join(NORMS)}.")
