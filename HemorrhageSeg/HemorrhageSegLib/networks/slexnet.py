"""SLEX-Net: a slice is segmented on its own and from each neighbour; where these agree, the answer is certain.

Built as the authors' released code builds it (hemorrhage specification 1.1-1.2). Two independent 2-D U-Nets: the
backbone segments single slices; the slice expansion module (SEM) segments a slice from a neighbour's image, its own
image and the neighbour's logit of the foreground. The paths meet in a sum whose weights follow their agreement. With
published widths 26,789,636 parameters, 26,862,596 with the squeeze-and-excitation SEM. The SEM is called ``SMM`` in the
weights' names, as in the released code, so that its checkpoints fit as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from HemorrhageSegLib.networks.unet2d import UNet2D

SEMS = ("unet", "se")
SQUEEZE = 16


class SlexPaths(NamedTuple):
    """What each path of SLEX-Net says of the centre slice: logits (N, out_channels, H, W) each.

    Attributes:
        backward: by the SEM from the following slice (i + 1).
        forward: by the SEM from the preceding slice (i - 1).
        centre: by the backbone from the slice alone.
        fused: the network's answer. The paper's uncertainty takes the mean of the three others without it.
    """

    backward: Tensor
    forward: Tensor
    centre: Tensor
    fused: Tensor


class SLEXNet(nn.Module):
    """SLEX-Net on three neighbouring slices (i - 1, i, i + 1).

    A network that slides over a scan needs each backbone slice once: call ``network.backbone(images)`` slice by slice,
    keep the logits, and pass three of them to :meth:`paths_of_slices`.

    Args:
        in_channels: channels of the three slices together, slice by slice; 3 as published (one per slice). A multiple
            of 3: with 6, two windows of slice i - 1, two of slice i, two of slice i + 1.
        base: width of the first level of both U-Nets; 64 as published, 8 to 24 for compact models.
        out_channels: 2 as published (softmax; background, foreground), or 1 (sigmoid).
        sem: ``"unet"`` as published, or ``"se"`` for the encoder of squeeze-and-excitation blocks.
        drop_rate: see :class:`UNet2D`; 0 as published.
        consistency: lambda, the largest weight of either SEM path; 0.2 as published.
    """

    def __init__(
        self,
        in_channels: int = 3,
        base: int = 64,
        out_channels: int = 2,
        sem: str = "unet",
        drop_rate: float = 0.0,
        consistency: float = 0.2,
    ):
        super().__init__()
        if sem not in SEMS:
            raise ValueError(f"SLEX-Net has no SEM '{sem}'; choose one of: {', '.join(SEMS)}.")
        if not 0 <= consistency <= 0.5:
            raise ValueError(f"SLEX-Net's consistency weight must lie between 0 and 0.5, not {consistency}.")
        self.channels = _per_slice(in_channels, 3)
        self.consistency = consistency
        self.backbone = UNet2D(self.channels, base, out_channels, drop_rate)
        expansion = UNet2D if sem == "unet" else SEUNet2D
        self.SMM = expansion(2 * self.channels + 1, base, out_channels, drop_rate)

    def expand(self, neighbour: Tensor, target: Tensor, neighbour_logits: Tensor) -> Tensor:
        """The SEM: logits of the target slice from a neighbour, (N, out_channels, H, W).

        Args:
            neighbour, target: images (N, channels per slice, H, W).
            neighbour_logits: the backbone's of the neighbour; their last channel (raw, no softmax) is used.
        """
        return self.SMM(torch.cat([neighbour, target, neighbour_logits[:, -1:].to(target.dtype)], dim=1))

    def fitted(self, part: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights to start the named part from; a backbone's are widened where the SEM is to start from them.

        Such a SEM sees the target as the backbone does, and of the neighbour nothing yet: it begins as good as the
        backbone and learns what the neighbour adds. Weights for any other part come back as they are.
        """
        first = "inc.double_conv.0.weight"
        if part != "SMM." or first not in weights or weights[first].shape[1] != self.channels:
            return weights
        narrow = weights[first]
        unseen = narrow.new_zeros(len(narrow), self.channels, *narrow.shape[2:])
        return {**weights, first: torch.cat([unseen, narrow, unseen[:, :1]], dim=1)}

    def fuse(self, backward: Tensor, forward: Tensor, centre: Tensor) -> Tensor:
        """(1 - 2 w) centre + w backward + w forward, with w = consistency * exp(-(forward - backward)^2) [1.1].

        All are logits; w is of each pixel and class. Where the SEM paths agree they get 0.2 each and the backbone 0.6.
        Half-precision logits are summed in single precision.
        """
        backward, forward, centre = (
            path.to(torch.promote_types(path.dtype, torch.float32)) for path in (backward, forward, centre)
        )
        weight = self.consistency * torch.exp(-((forward - backward) ** 2))
        return (1 - 2 * weight) * centre + weight * backward + weight * forward

    def paths_of_slices(self, images: Sequence[Tensor], logits: Sequence[Tensor]) -> SlexPaths:
        """Every path's logits of the middle one of three slices whose backbone logits are known.

        Args:
            images: of slices i - 1, i, i + 1, each (N, channels per slice, H, W).
            logits: of the backbone for them, each (N, out_channels, H, W).
        """
        before, target, after = images
        backward = self.expand(after, target, logits[2])
        forward = self.expand(before, target, logits[0])
        return SlexPaths(backward, forward, logits[1], self.fuse(backward, forward, logits[1]))

    def paths(self, x: Tensor) -> SlexPaths:
        """Every path's logits of the middle slice of ``x`` (N, in_channels, H, W)."""
        images = x.split(self.channels, dim=1)
        return self.paths_of_slices(images, [self.backbone(image) for image in images])

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> fused logits (N, out_channels, H, W) of the middle slice."""
        return self.paths(x).fused


class SLEXNetMultiSlice(nn.Module):
    """SLEX-Net on any odd number of slices, with fixed weights in place of agreement [1.1].

    fused = weights[t] * backbone(t) + sum over the other slices k of weights[k] * SEM(k, t, backbone(k)), with t the
    middle slice. The SEM is called ``SEM`` in the weights' names, as in the released code, which also ran it from the
    middle slice to itself and threw the result away; we do not.

    Args:
        in_channels: channels of all slices together, slice by slice; ``slices`` as published (one per slice).
        slices: how many, an odd number.
        base, out_channels, drop_rate: see :class:`SLEXNet`.
        weights: of each slice; by default 0.6 for the middle one and 0.4 shared by the others, which for three slices
            is SLEX-Net's limit of full agreement. The released code gives no values.
    """

    def __init__(
        self,
        in_channels: int = 5,
        slices: int = 5,
        base: int = 64,
        out_channels: int = 2,
        drop_rate: float = 0.0,
        weights: Sequence[float] | None = None,
    ):
        super().__init__()
        if slices < 3 or slices % 2 == 0:
            raise ValueError(f"The multi-slice SLEX-Net needs an odd number of slices from 3 on, not {slices}.")
        if weights is None:
            weights = [0.4 / (slices - 1)] * slices
            weights[slices // 2] = 0.6
        if len(weights) != slices:
            raise ValueError(f"The multi-slice SLEX-Net has {slices} slices but {len(weights)} weights.")
        self.slices = slices
        self.weights = tuple(float(weight) for weight in weights)
        self.channels = _per_slice(in_channels, slices)
        self.backbone = UNet2D(self.channels, base, out_channels, drop_rate)
        self.SEM = UNet2D(2 * self.channels + 1, base, out_channels, drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> fused logits (N, out_channels, H, W) of the middle slice."""
        images = x.split(self.channels, dim=1)
        middle = self.slices // 2
        target = images[middle]
        fused = self.weights[middle] * self.backbone(target)
        for number, image in enumerate(images):
            if number != middle:
                hint = self.backbone(image)[:, -1:].to(image.dtype)
                fused = fused + self.weights[number] * self.SEM(torch.cat([image, target, hint], dim=1))
        return fused


class SqueezeExcite(nn.Module):
    """Scale every channel by what a small network makes of the means of all; no biases."""

    def __init__(self, width: int):
        super().__init__()
        squeezed = max(1, width // SQUEEZE)
        self.fc = nn.Sequential(
            nn.Linear(width, squeezed, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(squeezed, width, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class SEBlock(nn.Sequential):
    """Two 3x3 convolutions without bias, squeeze-and-excitation, pooling. The released code adds no shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.se = SqueezeExcite(outputs)
        self.downsample = nn.MaxPool2d(2)
        self.activation = nn.ReLU(inplace=True)


class SEUNet2D(UNet2D):
    """The U-Net whose encoder levels are squeeze-and-excitation blocks; dropout in the decoder only [1.1]."""

    def _down(self, inputs: int, outputs: int, drop_rate: float) -> nn.Module:
        return SEBlock(inputs, outputs)


def _per_slice(in_channels: int, slices: int) -> int:
    """Channels of one slice; ValueError if the channels cannot be shared out."""
    if in_channels < slices or in_channels % slices:
        raise ValueError(f"The channels of {slices} slices must be a multiple of {slices}, not {in_channels}.")
    return in_channels // slices
