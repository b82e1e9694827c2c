"""The six MONAI networks of the HemSeg comparison, with the arguments of its scripts (hemorrhage specification 3.5).

Each function builds one network for volumes (N, in_channels, X, Y, Z) and gives logits of the same size. The scripts
used MONAI 1.3.0; where later versions build another network from the same arguments, that is undone here, so that
parameter counts, weight names and outputs stay those of 1.3.0. All need MONAI; the two transformers need einops too.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from NeuraxisLib.errors import DependencyError

#: Halves of a 2 x 2 x 2 cell (x, y, z) in the order in which Swin UNETR's patch merging joins them.
CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
#: The same in MONAI 1.3.0: two corners twice, two never.
LEGACY_CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))


def UNet3D(in_channels: int = 1, base: int = 32, out_channels: int = 1) -> nn.Module:  # noqa: N802
    """3D U-Net with residual units; 19,215,118 parameters. Patch sides divisible by 16.

    Its last transposed convolution normalises a single channel over each patch, so that a patch without any lesion
    still gets its share of high values; results depend on the patches chosen [3.5].

    Args:
        in_channels: image channels.
        base: width of the first of five levels, doubled at each; 32 as published.
        out_channels: maps to predict.
    """
    return _nets("UNet3D").UNet(3, in_channels, out_channels, _widths(base), (2, 2, 2, 2), num_res_units=2)


def VNet(in_channels: int = 1, base: int = 16, out_channels: int = 1, dropout: float = 0.5) -> nn.Module:  # noqa: N802
    """V-Net; 45,593,892 parameters. Patch sides divisible by 16.

    Args:
        in_channels: image channels, a divisor of ``base``.
        base: width of the first of five levels, doubled at each; 16 as published.
        out_channels: maps to predict.
        dropout: share of channels dropped in training; 0.5 as published.

    Raises:
        ValueError: ``base`` is not a multiple of ``in_channels``.
    """
    nets = _nets("VNet")
    if base < 1 or in_channels < 1 or base % in_channels:
        raise ValueError(f"V-Net's base width must be a multiple of its {in_channels} input channels, not {base}.")
    drops = {"dropout_prob_down": dropout, "dropout_prob_up": (dropout, dropout)}
    if base == 16:
        return nets.VNet(3, in_channels, out_channels, **drops)
    network = nets.VNet(3, 1, out_channels, **drops)
    parts, act = nets.vnet, ("elu", {"inplace": True})
    network.in_tr = parts.InputTransition(3, in_channels, base, act)
    network.down_tr32 = parts.DownTransition(3, base, 1, act)
    network.down_tr64 = parts.DownTransition(3, 2 * base, 2, act)
    network.down_tr128 = parts.DownTransition(3, 4 * base, 3, act, dropout_prob=dropout)
    network.down_tr256 = parts.DownTransition(3, 8 * base, 2, act, dropout_prob=dropout)
    network.up_tr256 = parts.UpTransition(3, 16 * base, 16 * base, 2, act, dropout_prob=(dropout, dropout))
    network.up_tr128 = parts.UpTransition(3, 16 * base, 8 * base, 2, act, dropout_prob=(dropout, dropout))
    network.up_tr64 = parts.UpTransition(3, 8 * base, 4 * base, 1, act)
    network.up_tr32 = parts.UpTransition(3, 4 * base, 2 * base, 1, act)
    network.out_tr = parts.OutputTransition(3, 2 * base, out_channels, act)
    return network


def SegResNet(  # noqa: N802
    in_channels: int = 1, base: int = 8, out_channels: int = 1, dropout: float = 0.2
) -> nn.Module:
    """SegResNet; 1,176,177 parameters, no transposed convolution. Patch sides divisible by 8.

    Args:
        in_channels: image channels.
        base: width of the first of four levels, doubled at each; 8 as published, a multiple of 8.
        out_channels: maps to predict.
        dropout: share of channels dropped in training; 0.2 as published.
    """
    return _nets("SegResNet").SegResNet(
        spatial_dims=3, init_filters=base, in_channels=in_channels, out_channels=out_channels, dropout_prob=dropout
    )


def AttentionUNet(in_channels: int = 1, base: int = 32, out_channels: int = 1) -> nn.Module:  # noqa: N802
    """Attention U-Net; 23,625,953 parameters. Patch sides divisible by 16.

    Args:
        in_channels: image channels.
        base: width of the first of five levels, doubled at each; 32 as published, an even number.
        out_channels: maps to predict.
    """
    return _nets("AttentionUNet").AttentionUnet(3, in_channels, out_channels, _widths(base), (2, 2, 2, 2))


def UNETR(  # noqa: N802
    in_channels: int = 1,
    base: int = 16,
    out_channels: int = 1,
    img_size: Sequence[int] = (256, 256, 16),
    hidden_size: int = 768,
    mlp_dim: int = 3072,
    num_heads: int = 12,
) -> nn.Module:
    """UNETR; 92,814,545 parameters. Takes patches of exactly ``img_size``, whose sides are divisible by 16.

    Args:
        in_channels: image channels.
        base: width of the convolutional part; 16 as published.
        out_channels: maps to predict.
        img_size: patch (x, y, z) in voxels; (256, 256, 16) as published.
        hidden_size, mlp_dim, num_heads: of the transformer; 768, 3072, 12 as published.
    """
    network = _nets("UNETR", "einops").UNETR(
        in_channels, out_channels, tuple(img_size), base, hidden_size, mlp_dim, num_heads
    )
    for block in network.vit.blocks:
        if hasattr(block, "norm_cross_attn"):  # MONAI from 1.4 on; unused without cross-attention
            block.norm_cross_attn = nn.Identity()
    return network


def SwinUNETR(  # noqa: N802
    in_channels: int = 1,
    base: int = 48,
    out_channels: int = 1,
    depths: Sequence[int] = (2, 2, 2, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    legacy_patch_merging: bool = False,
) -> nn.Module:
    """Swin UNETR; 62,186,659 parameters. Patch sides divisible by 32; (128, 128, 32) as published.

    Args:
        in_channels: image channels.
        base: feature size; 48 as published, a multiple of 12.
        out_channels: maps to predict.
        depths, num_heads: of the four stages; as published (MONAI's defaults).
        legacy_patch_merging: join the corners as MONAI 1.3.0 did, which took two of the eight twice and left out two;
            needed for weights that were trained with it, such as those of the HemSeg scripts.
    """
    build = _nets("SwinUNETR", "einops").SwinUNETR
    # Gone from MONAI 1.5 on; only checked, and every size that 32 divides passes the check.
    size = {"img_size": (32, 32, 32)} if "img_size" in inspect.signature(build).parameters else {}
    merging = partial(PatchMerging, corners=LEGACY_CORNERS if legacy_patch_merging else CORNERS)
    with _NumbersOnTheProcessor():
        return build(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=base,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            downsample=merging,
            **size,
        )


class PatchMerging(nn.Module):
    """Swin UNETR's step from one stage to the next: the corners of each 2 x 2 x 2 cell become channels.

    Args:
        dim: channels that come in; twice as many go out.
        norm_layer: makes the normalisation of the joined channels.
        spatial_dims: 3; MONAI gives it.
        corners: order in which the eight are joined.
    """

    def __init__(
        self,
        dim: int,
        norm_layer: type[nn.LayerNorm] = nn.LayerNorm,
        spatial_dims: int = 3,
        corners: Sequence[Sequence[int]] = CORNERS,
    ):
        super().__init__()
        self.corners = corners
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, X, Y, Z, dim) -> (N, X / 2, Y / 2, Z / 2, 2 dim), odd sides rounded up."""
        x = nn.functional.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return self.reduction(self.norm(torch.cat([x[:, i::2, j::2, k::2] for i, j, k in self.corners], dim=-1)))


class _NumbersOnTheProcessor(TorchFunctionMode):
    """MONAI reads its drop rates out of a linspace, which a network of shapes only (device "meta") cannot give."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return func(*args, **{**(kwargs or {}), **({"device": "cpu"} if func is torch.linspace else {})})


def _widths(base: int) -> tuple[int, ...]:
    if base < 1:
        raise ValueError(f"The base width must be at least 1, not {base}.")
    return tuple(base * 2**level for level in range(5))


def _nets(name: str, *further: str) -> ModuleType:
    """``monai.networks.nets``; DependencyError if it, or a further package that the network needs, is not there."""
    from importlib import import_module

    package = "monai"
    try:
        for package in ("monai", *further):
            import_module(package)
        return import_module("monai.networks.nets")
    except ImportError:
        raise DependencyError(
            f"The network '{name}' needs the Python package '{package}', which is missing or broken; install it "
            f"without its dependencies (pip install --no-deps {package}) or choose a model of another network."
        ) from None
