"""Maps of a result as nodes of the scene, in heat colours that every eye can order."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from NeuraxisLib.result import ScalarMap

#: What a map shows and in which unit, for the legend of its colours.
LEGEND_ATTRIBUTE = "Neuraxis.Legend"
HEAT_COLORS_TAG = "NeuraxisHeat"
#: Part of a map's value range, from its low end, that stays transparent over the image.
TRANSPARENT_FRACTION = 0.1
#: (red, green, blue) from low to high: lightness rises steadily, so the order survives every colour blindness and a
#: grey print; hue runs from violet over orange to pale yellow.
_HEAT_ANCHORS = np.array(
    [
        (0.02, 0.02, 0.08), (0.19, 0.06, 0.38), (0.42, 0.11, 0.46), (0.66, 0.19, 0.38),
        (0.86, 0.33, 0.24), (0.96, 0.54, 0.14), (0.98, 0.77, 0.26), (0.99, 0.98, 0.70),
    ]
)  # fmt: skip


def fill_map(
    node: slicer.vtkMRMLScalarVolumeNode, scalar_map: ScalarMap, source: slicer.vtkMRMLVolumeNode
) -> None:
    """Put a map of a result into its node, on the grid of the volume it belongs to, in heat colours over the image."""
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()  # before there is an image, whose histogram would be taken for it
    display.AutoThresholdOff()
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(scalar_map.volume.array, dtype=np.float32))
    matrix = vtk.vtkMatrix4x4()
    source.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    low, high = scalar_map.value_range
    unit = scalar_map.volume.unit
    node.SetAttribute(LEGEND_ATTRIBUTE, f"{scalar_map.title} [{unit}]" if unit else scalar_map.title)
    display.SetAndObserveColorNodeID(heat_colors().GetID())
    display.SetWindowLevelMinMax(low, high)
    display.SetThreshold(low + TRANSPARENT_FRACTION * (high - low), max(high, float(scalar_map.volume.array.max())))
    display.ApplyThresholdOn()


def heat_colors() -> slicer.vtkMRMLColorTableNode:
    """The colour node of all heat maps, made when first asked for."""
    node = slicer.mrmlScene.GetSingletonNode(HEAT_COLORS_TAG, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLColorTableNode")
    node.UnRegister(None)
    node.SetName("Neuraxis heat")
    node.SetSingletonTag(HEAT_COLORS_TAG)
    node.SetTypeToUser()
    node.SetAttribute("Category", "Neuraxis")
    node.SetNumberOfColors(256)
    positions = np.linspace(0, 1, len(_HEAT_ANCHORS))
    colors = np.stack([np.interp(np.linspace(0, 1, 256), positions, channel) for channel in _HEAT_ANCHORS.T], axis=1)
    for index, (red, green, blue) in enumerate(colors):
        node.SetColor(index, f"{index / 255:.2f}", red, green, blue, 1.0)
    return slicer.mrmlScene.AddNode(node)
