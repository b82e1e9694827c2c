"""What a page in a browser shows of the scene: the case, its overlays, and where its slice views lie.

The scene belongs to a ``SlicerApp`` of trame-slicer, in which there is no Qt and no Slicer application.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import slicer
import vtk

from NeuraxisLib import scene, scene_frames, scene_views
from NeuraxisLib.slice_view import css_color
from NeuraxisLib.volume import Volume

#: Task -> who knows in which colours its maps are usually shown, and who names them.
_COLOURS = {"stroke": ("StrokeCTPLib.colour_scales", "StrokeCTPLib.panel_maps")}
#: Colours that a legend is drawn with.
_LEGEND_STOPS = 17


def make_application() -> Any:
    """A ``SlicerApp`` of trame-slicer whose scene and logics are those that the ``scene*.py`` files work on."""
    vtk.vtkObject.GlobalWarningDisplayOff()  # about events and files that matter to developers of VTK alone
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    from trame_slicer.core import SlicerApp

    application = SlicerApp()
    slicer.mrmlScene = application.scene
    slicer.modules = SimpleNamespace(
        colors=_module(application.color_logic),
        segmentations=_module(application.segmentations_logic),
        volumes=_module(application.volumes_logic),
    )
    return application


def _module(logic: Any) -> SimpleNamespace:
    return SimpleNamespace(logic=lambda: logic)


# -- the case -------------------------------------------------------------------------------------------------


def show_volume(volume: Volume, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Put an image into the scene and under all slice views, fitted to them."""
    node = scene_frames.add_volume(volume, name)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(node.GetID())
        composite.SetForegroundVolumeID(None)
    return node


def remove_case(node: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Take an image and all results of it out of the scene, with what displays them."""
    for class_name in scene.RESULT_CLASSES:
        for other in slicer.util.getNodesByClass(class_name):
            if other.GetNodeReferenceID(scene.SOURCE_ROLE) == node.GetID():
                _remove(other)
    _remove(node)


def _remove(node: Any) -> None:
    displays = []
    if node.IsA("vtkMRMLDisplayableNode"):
        displays = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    slicer.mrmlScene.RemoveNode(node)
    for display in filter(None, displays):
        slicer.mrmlScene.RemoveNode(display)


def set_window(node: slicer.vtkMRMLScalarVolumeNode, low: float, high: float) -> None:
    """Show values from ``low`` (black) to ``high`` (white)."""
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)


def hide_below(node: slicer.vtkMRMLScalarVolumeNode, low: float) -> None:
    """Leave out what lies below a value: black in the slices, nothing in 3D."""
    display = node.GetDisplayNode()
    display.AutoThresholdOff()
    display.SetThreshold(low, max(low, float(scene_frames.array_of(node).max())))
    display.ApplyThresholdOn()


# -- segments -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShownSegment:
    """A segment as a list shows it: id, name, ``#rrggbb``, whether it is drawn, whether there is anything in it."""

    id: str
    name: str
    color: str
    visible: bool
    empty: bool


def segments_of(segmentation: slicer.vtkMRMLSegmentationNode) -> list[ShownSegment]:
    """The segments in their order."""
    found, display = [], segmentation.GetDisplayNode()
    for segment_id in segmentation.GetSegmentation().GetSegmentIDs():
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        color = css_color(tuple(round(255 * part) for part in segment.GetColor()))
        empty = segment.GetRepresentation("Binary labelmap") is None
        visible = bool(display.GetSegmentVisibility(segment_id))
        found.append(ShownSegment(segment_id, segment.GetName(), color, visible, empty))
    return found


def set_segment_visible(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, visible: bool) -> None:
    """Draw a segment or not."""
    segmentation.GetDisplayNode().SetSegmentVisibility(segment_id, visible)


def set_fill(segmentation: slicer.vtkMRMLSegmentationNode, opacity: float) -> None:
    """How strongly segments are filled in the slices; their outlines stay as they are, but go at 0."""
    display = segmentation.GetDisplayNode()
    display.SetOpacity2DFill(opacity)
    display.SetVisibility2DOutline(opacity > 0)


# -- maps -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Legend:
    """The colours of a map from low to high (``#rrggbb``), and the values at their ends."""

    colors: tuple[str, ...]
    low: float
    high: float

    @property
    def gradient(self) -> str:
        """As a CSS gradient, highest value on top."""
        return f"linear-gradient(to top, {', '.join(self.colors)})"


def colour_usually(task: str, maps: dict[str, slicer.vtkMRMLScalarVolumeNode]) -> None:
    """Give the maps of a result the colours that readers of the task know; others keep the heat colours."""
    if task not in _COLOURS:
        return
    scales, panel = (import_module(name) for name in _COLOURS[task])
    for name, node in maps.items():
        scale = scales.SCALE_OF.get(panel.kind_of_map(name))
        if scale is None:
            continue
        colors = scene_views.color_table(f"NeuraxisPerfusion{scale}", f"Perfusion {scale}", scales.colour_table(scale))
        display = node.GetDisplayNode()
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        if scale == "flow":
            high = panel.readable_top(scene_frames.array_of(node), high)
        scene_views.color_volume(node, colors, low, high)


def legend_of(node: slicer.vtkMRMLScalarVolumeNode) -> Legend:
    """The colour bar of a map."""
    display = node.GetDisplayNode()
    table, color = display.GetColorNode(), [0.0, 0.0, 0.0, 1.0]
    colors = []
    for index in np.linspace(0, table.GetNumberOfColors() - 1, _LEGEND_STOPS).round().astype(int):
        table.GetColor(int(index), color)
        colors.append(css_color(tuple(round(255 * part) for part in color[:3])))
    return Legend(tuple(colors), display.GetWindowLevelMin(), display.GetWindowLevelMax())


# -- views ----------------------------------------------------------------------------------------------------


def letters_of(node: slicer.vtkMRMLSliceNode) -> tuple[str, str, str, str]:
    """Patient side at the (left, right, top, bottom) edge of a slice view, of R L A P S I."""
    to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    right, up = (_side(to_ras[:3, axis]) for axis in (0, 1))
    return right[1], right[0], up[0], up[1]


def _side(direction: np.ndarray) -> tuple[str, str]:
    """(where a direction goes, where it comes from)."""
    axis = int(np.abs(direction).argmax())
    there, back = "RAS"[axis], "LPI"[axis]
    return (there, back) if direction[axis] > 0 else (back, there)


def slice_number(node: slicer.vtkMRMLSliceNode, volume: slicer.vtkMRMLScalarVolumeNode | None) -> tuple[int, int]:
    """(number of the image's slice that a view shows, counted from 1; how many there are); (0, 0) if none."""
    if volume is None or volume.GetImageData() is None:
        return 0, 0
    to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    to_ijk = np.linalg.inv(scene.ijk_to_world(volume))
    axis = int(np.abs(to_ijk[:3, :3] @ to_ras[:3, 2]).argmax())
    middle = (to_ijk @ [*_center(volume, to_ras), 1.0])[:3]
    count = volume.GetImageData().GetDimensions()[axis]
    return int(np.clip(round(float(middle[axis])), 0, count - 1)) + 1, count


def _center(volume: slicer.vtkMRMLScalarVolumeNode, to_ras: np.ndarray) -> np.ndarray:
    """Where the axis through the middle of the image meets the plane of a slice view."""
    size = volume.GetImageData().GetDimensions()
    middle = (scene.ijk_to_world(volume) @ [*((n - 1) / 2 for n in size), 1.0])[:3]
    normal = to_ras[:3, 2]
    return middle + ((to_ras[:3, 3] - middle) @ normal) * normal


def center_on(ras_mm: Sequence[float]) -> None:
    """Let all slice views show a place."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByOffsetting(*ras_mm)


def middle_of_segments(segmentation: slicer.vtkMRMLSegmentationNode, volume: Any) -> list[float] | None:
    """RAS mm of the segments' voxel nearest to their middle, in their largest slice; None if all are empty."""
    best = None
    for segment in segments_of(segmentation):
        if segment.empty:
            continue
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment.id, volume)
        counts = np.count_nonzero(mask, axis=(1, 2))
        if best is None or counts.max() > best[0]:
            k = int(counts.argmax())
            inside = np.argwhere(mask[k])
            j, i = inside[np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
            best = (counts.max(), (scene.ijk_to_world(volume) @ [i, j, k, 1.0])[:3].tolist())
    return best[1] if best else None
