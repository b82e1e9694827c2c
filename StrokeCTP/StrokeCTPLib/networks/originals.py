"""The Stavanger group's networks whose Keras weights can be imported: where their layers go, what they were shown.

Needs no torch. All twelve configurations share four networks; they differ in how they were trained.
"""

from __future__ import annotations

import re

from NeuraxisLib.checkpoint_import import Original
from StrokeCTPLib.map_preprocessing import MapPreprocessing
from StrokeCTPLib.networks import NETWORKS
from StrokeCTPLib.networks.configurations import CONFIGURATIONS, MAPS, MIP, Configuration

#: The authors name VGG-16's layers after the map; in a network that ran on several GPUs, TensorFlow numbers them.
_VGG_LAYER = re.compile(rf"(block[1-5]_conv[1-3])(?:_({'|'.join((*MAPS, MIP))})|_([1-4]))?")
_ASSUMED = (
    "The authors published their colours as a figure and no display range for other vendors; the model file names "
    "the colours and ranges that were measured on it."
)


def keras_module(name: str) -> str | None:
    """Where a layer of VGG-16 goes, ``block5_conv1_tmax`` or ``block5_conv1_3``; None for all other layers.

    These are in the order of making: the tails branch by branch, the dense layers, the decoder, the head.
    """
    match = _VGG_LAYER.fullmatch(name)
    if not match:
        return None
    layer, branch, number = match.groups()
    return f"branches.{branch or (*MAPS, MIP)[int(number or 0)]}.vgg.convolutions.{layer}"


def input_shape(preprocessing: dict) -> tuple[int, ...]:
    """Shape (1, channels, H, W) of what a network of this task is given; ModelError if it cannot be read."""
    shown = MapPreprocessing.from_dict(preprocessing)
    return 1, shown.channels, shown.size, shown.size


def _original(name: str, configuration: Configuration) -> Original:
    shown = MapPreprocessing(configuration.maps, configuration.scalars, 512, "colours")
    source = f"the Stavanger group's released code (Tomasetti et al.), {configuration.title}"
    return Original(
        NETWORKS[name],
        source,
        shown.to_dict(),
        input_shape,
        _ASSUMED,
        arguments=configuration.arguments,
        uncertainty={"kind": "entropy"},
        keras_module=keras_module,
    )


#: Network -> its original, for the task's table; names as in :data:`CONFIGURATIONS`.
ORIGINALS = {name: _original(name, configuration) for name, configuration in CONFIGURATIONS.items()}
