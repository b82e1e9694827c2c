"""The originals whose checkpoints can be imported: where their layers go in our networks, what they were shown.

Keras names layers by the order in which the code makes them, and our networks of Keras originals declare their modules
in that order, so most layers need no table. Nothing here needs torch.
"""

from __future__ import annotations

import re

from HemorrhageSegLib.networks import NETWORKS
from NeuraxisLib.checkpoint_import import Original
from NeuraxisLib.preprocessing import SlicePreprocessing
from NeuraxisLib.volume_preprocessing import KIND, VolumePreprocessing

#: The brain window that figures of screenshots show; none of the papers gives its numbers.
BRAIN_WINDOW_HU = (0.0, 80.0)
#: SLEX-Net needs a window whose top lies above blood and below bone's grey value 240 of 255 [1.3].
SLEX_WINDOW_HU = (-10.0, 90.0)
#: nnU-Net's fingerprint of HemSeg-200, used by all its networks [3.4].
HEMSEG_SPACING_MM = (0.4882810115814209, 0.4882810115814209, 4.649400138854981)
HEMSEG = {
    "kind": KIND,
    "spacing_mm": list(HEMSEG_SPACING_MM),
    "clip_hu": [11.99969482421875, 79.0],
    "mean_hu": 48.13441467285156,
    "std_hu": 13.457549095153809,
    "overlap": 0.25,
}
_ASSUMED_WINDOW = "The authors did not publish their CT window; the model file names ours."
_OTHER_ORGANS = "Published for other images than head CT; the model file names the window and size we assume."

_ONE_LSTM = {"bidirectional": "the released code has one ConvLSTM at each level, not two"}


def input_shape(preprocessing: dict) -> tuple[int, ...]:
    """Shape (1, channels, ...) of what a network of the hemorrhage task is given; ModelError if it cannot be read."""
    if preprocessing.get("kind") == KIND:
        return 1, 1, *VolumePreprocessing.from_dict(preprocessing).patch
    shown = SlicePreprocessing.from_dict(preprocessing)
    return 1, len(shown.channels), shown.size, shown.size


def _slices(size: int, margin: float, offsets: tuple[int, ...], window_hu: tuple[float, float], **more) -> dict:
    """Preprocessing of a slice network as a model file says it."""
    low_hu, high_hu = window_hu
    channels = [{"offset": offset, "low_hu": low_hu, "high_hu": high_hu} for offset in offsets]
    return {"size": size, "margin": margin, "slab_mm": 5.0, "channels": channels, **more}


def _vgg_module(name: str) -> str | None:
    """Where MCGU-Net puts the layers that its code names after VGG16, ``block1_conv1`` to ``block4_conv3``."""
    match = re.fullmatch(r"block([1-4])_conv([1-3])", name)
    if not match:
        return None
    level, place = int(match[1]), 2 * (int(match[2]) - 1)
    return f"bottleneck.first.{place}" if level == 4 else f"encoder.{level - 1}.{place}"


def _slex(name: str, offsets: tuple[int, ...], torch_names: tuple[tuple[str, str], ...] = (), **more) -> Original:
    """An original of SLEX-Net's code: the brain alone, 224 pixels over 168 mm (about its box), z-scored [1.3]."""
    shown = _slices(224, 0.0, offsets, SLEX_WINDOW_HU, normalisation="zscore", brain_only=True)
    source = "SLEX-Net's released code (Li et al., IEEE JBHI 2022)"
    return Original(NETWORKS[name], source, shown, input_shape, _ASSUMED_WINDOW, torch_names=torch_names, **more)


def _hemseg(name: str, patch: tuple[int, int, int] = (256, 256, 16), **arguments) -> Original:
    """A MONAI network of the HemSeg-200 scripts [3.4-3.5]."""
    source = "HemSeg-200's scripts (Song et al. 2024), MONAI 1.3.0"
    return Original(NETWORKS[name], source, {**HEMSEG, "patch": list(patch)}, input_shape, arguments=arguments)


#: Network -> its original. ``neuraxis models import --architecture`` takes these names.
ORIGINALS = {
    "DRUNet": Original(
        NETWORKS["DRUNet"],
        "DR-UNet's released code",
        # Whole heads with skull on square pictures: the brain's box and a fifth of it on each side [2.3].
        _slices(256, 0.2, (0,), BRAIN_WINDOW_HU),
        input_shape,
        _ASSUMED_WINDOW,
    ),
    "SLEXNet": _slex("SLEXNet", (-1, 0, 1), ((r"^SEM\.", "SMM."),), uncertainty={"kind": "slex_paper"}),
    "SLEXNetMultiSlice": _slex("SLEXNetMultiSlice", (-2, -1, 0, 1, 2), ((r"^SMM\.", "SEM."),)),
    "UNet2D": _slex("UNet2D", (0,)),
    "BCDUNet": Original(
        NETWORKS["BCDUNet"],
        "BCDU-Net's released code (Azad et al. 2019)",
        _slices(256, 0.06, (0,), BRAIN_WINDOW_HU),
        input_shape,
        _OTHER_ORGANS,
        refused=_ONE_LSTM,
    ),
    "MCGUNet": Original(
        NETWORKS["MCGUNet"],
        "MCGU-Net's released code (Asadi-Aghbolaghi et al. 2020)",
        _slices(256, 0.06, (0, 0, 0), BRAIN_WINDOW_HU),
        input_shape,
        _OTHER_ORGANS,
        refused=_ONE_LSTM,
        keras_module=_vgg_module,
    ),
    "UNet3D": _hemseg("UNet3D"),
    "VNet": _hemseg("VNet"),
    "SegResNet": _hemseg("SegResNet"),
    "AttentionUNet": _hemseg("AttentionUNet"),
    "UNETR": _hemseg("UNETR"),
    "SwinUNETR": _hemseg("SwinUNETR", (128, 128, 32), legacy_patch_merging=True),
}
