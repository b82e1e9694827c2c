"""The views of a session with several cases: the chosen one is shown, and of the others nothing lies over it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import slicer

from NeuraxisLib import scene
from NeuraxisLib.scene_review_result import label_table, labels_of
from NeuraxisLib.slice_view import BRAIN_WINDOW_HU

#: Attribute of a display node whose window was set once; what the user makes of it afterwards stays.
WINDOWED_ATTRIBUTE = "Neuraxis.Windowed"
#: Attribute of a display node that was hidden because another case is shown, not by the user.
HIDDEN_ATTRIBUTE = "Neuraxis.HiddenByCase"
#: Values that a CT with air and bone around the brain goes beyond, in HU.
_AIR_HU, _BONE_HU = -200.0, 200.0
#: Classes of results that are drawn over a volume.
_DRAWN = ("vtkMRMLSegmentationNode", "vtkMRMLMarkupsFiducialNode")


class CaseViews:
    """Lets the views follow the case that a panel has chosen."""

    def __init__(self) -> None:
        self._volume: Any = None

    def turn_to(self, volume: Any) -> bool:
        """Show a volume that was chosen in the place of another; False where the views stay as they are.

        The first one does not move the views: who opens a module wants to see what was there.
        """
        before, self._volume = self._volume, volume
        if volume is before or volume is None or before is None:
            return False
        show_case(volume)
        return True


def show_case(volume: Any) -> None:
    """Show a volume in the views with its own outlines and points; those of others are hidden until theirs is shown."""
    for display in _displays(volume, own=False):
        if display.GetVisibility():
            display.SetVisibility(False)
            display.SetAttribute(HIDDEN_ATTRIBUTE, "1")
    for display in _displays(volume, own=True):
        if display.GetAttribute(HIDDEN_ATTRIBUTE):
            display.SetAttribute(HIDDEN_ATTRIBUTE, None)
            display.SetVisibility(True)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)


def seen_in_place_of(chosen: Any, task: str) -> Any:
    """A volume that the slice views show, with a result of a task, while they do not show the chosen one; else None."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    ids = dict.fromkeys(filter(None, (composite.GetBackgroundVolumeID() for composite in composites)))
    seen = [slicer.mrmlScene.GetNodeByID(volume_id) for volume_id in ids]
    if chosen is None or chosen in seen:
        return None
    return next((volume for volume in seen if scene.result_nodes(volume, task)), None)


def _displays(volume: Any, own: bool) -> list[Any]:
    """Display nodes of outlines and points of results: those of a volume, or those of all others."""
    nodes = [node for kind in _DRAWN for node in slicer.util.getNodesByClass(kind)]
    ours = [node for node in nodes if node.GetAttribute(scene.PART_ATTRIBUTE) and node.GetDisplayNode() is not None]
    return [n.GetDisplayNode() for n in ours if (n.GetNodeReferenceID(scene.SOURCE_ROLE) == volume.GetID()) == own]


def show_finding(segmentation: Any, volume: Any) -> None:
    """Move all slice views to the largest section of what was outlined in a volume; without any they stay."""
    marked = labels_of(segmentation, volume, label_table(segmentation.GetAttribute(scene.TASK_ATTRIBUTE))) > 0
    if not marked.any():
        return
    k = int(marked.sum(axis=(1, 2)).argmax())
    j, i = np.argwhere(marked[k]).mean(axis=0)
    place = (scene.ijk_to_world(volume) @ [i, j, k, 1.0])[:3]
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByOffsetting(*place)


def show_brain_window(volume: Any) -> None:
    """Give a head CT whose window nobody has chosen the usual one of the brain, once: in Slicer's own blood is grey."""
    display = volume.GetDisplayNode() if volume is not None else None
    if display is None or not display.GetAutoWindowLevel() or display.GetAttribute(WINDOWED_ATTRIBUTE):
        return
    image = volume.GetImageData()
    low, high = image.GetScalarRange() if image is not None else (0.0, 0.0)
    if low < _AIR_HU and high > _BONE_HU:
        display.SetAttribute(WINDOWED_ATTRIBUTE, "1")
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(*BRAIN_WINDOW_HU)


def offer_scans_only(selectors: Iterable[Any]) -> None:
    """Leave the maps of results out of lists of volumes; one that is chosen stays.

    Args:
        selectors: qMRMLNodeComboBox widgets.
    """
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    maps = [node.GetID() for node in volumes if node.GetAttribute(scene.PART_ATTRIBUTE)]
    for selector in selectors:
        hidden = [node_id for node_id in maps if node_id != selector.currentNodeID]
        listed = selector.sortFilterProxyModel()
        if list(listed.hiddenNodeIDs) != hidden:
            listed.hiddenNodeIDs = hidden


def center_3d_views() -> None:
    """Let the 3D views look at what is in them; they do not follow by themselves."""
    manager = slicer.app.layoutManager()
    if manager is not None:  # Slicer without a main window has none
        manager.resetThreeDViews()
