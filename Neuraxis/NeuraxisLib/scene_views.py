"""Maps in the views: their colours and legends, and a layout that shows several of them side by side."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import slicer

from NeuraxisLib.scene import PART_ATTRIBUTE, ijk_to_world
from NeuraxisLib.scene_maps import LEGEND_ATTRIBUTE

#: Layout of Slicer's own that is shown when a map layout is left and none is remembered: four views.
FOUR_UP = 3
#: How much wider and higher than what matters a view is; what is more across lies at the right, for the legend.
ROOM_ACROSS, ROOM_DOWN = 1.4, 1.1
#: Characters in a line over a legend; longer lines would be written small.
LEGEND_LINE = 12
#: Colours of the views' bars, so that the eye finds its map again.
_BAR_COLORS = ("#5B8FA8", "#7A8FBF", "#9E8FBF", "#BF8F9E", "#BF9E7A", "#8FA85B")


@dataclass(frozen=True)
class MapLayout:
    """Slice views of the same slice in a grid, the last cell a plot.

    Attributes:
        number: of the layout in the application; not below 500, where Slicer's own are.
        views: (tag of the slice view, its label), in reading order.
        plot: (tag of the plot view, its label).
        columns: cells in a row.
    """

    number: int
    views: tuple[tuple[str, str], ...]
    plot: tuple[str, str]
    columns: int = 3

    def xml(self) -> str:
        """The layout as Slicer reads it; the views scroll and zoom together."""
        cells = [_slice_cell(tag, label, color) for (tag, label), color in zip(self.views, _BAR_COLORS)]
        cells.append(_plot_cell(*self.plot))
        rows = [cells[start : start + self.columns] for start in range(0, len(cells), self.columns)]
        inside = "".join(f'<item><layout type="horizontal">{"".join(row)}</layout></item>' for row in rows)
        return f'<layout type="vertical" split="true">{inside}</layout>'


def _slice_cell(tag: str, label: str, color: str) -> str:
    return (
        f'<item><view class="vtkMRMLSliceNode" singletontag="{tag}">'
        '<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{html.escape(label)}</property>'
        f'<property name="viewcolor" action="default">{color}</property>'
        '<property name="viewgroup" action="default">1</property></view></item>'
    )


def _plot_cell(tag: str, label: str) -> str:
    return (
        f'<item><view class="vtkMRMLPlotViewNode" singletontag="{tag}">'
        f'<property name="viewlabel" action="default">{html.escape(label)}</property></view></item>'
    )


# -- layout ---------------------------------------------------------------------------------------------------


def show_layout(layout: MapLayout) -> int:
    """Switch the application to the layout; returns the number of the one that was shown before."""
    node = _layout_node()
    before = node.GetViewArrangement()
    if not node.IsLayoutDescription(layout.number):
        node.AddLayoutDescription(layout.number, layout.xml())
    if before != layout.number:
        node.SetViewArrangement(layout.number)
    for tag, _ in layout.views:
        composite = composite_of(tag)
        if composite is not None:
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
    return before


def is_layout_shown(layout: MapLayout) -> bool:
    """Whether the application shows the layout."""
    return _layout_node() is not None and _layout_node().GetViewArrangement() == layout.number


def leave_layout(layout: MapLayout, before: int) -> None:
    """Back to the layout that was shown before, if this one still is."""
    if is_layout_shown(layout):
        _layout_node().SetViewArrangement(before if before not in (0, layout.number) else FOUR_UP)


def _layout_node():
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def composite_of(tag: str) -> slicer.vtkMRMLSliceCompositeNode | None:
    """The node that says what a slice view shows; None while there is no such view."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return next((composite for composite in composites if composite.GetLayoutName() == tag), None)


def slice_node_of(tag: str) -> slicer.vtkMRMLSliceNode | None:
    """The node that says where a slice view lies; None while there is no such view."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return next((node for node in nodes if node.GetLayoutName() == tag), None)


def put_in_view(tag: str, background: slicer.vtkMRMLVolumeNode | None) -> None:
    """Let one slice view show a volume and nothing over it."""
    composite, volume_id = composite_of(tag), background.GetID() if background is not None else None
    if composite is None:
        return
    composite.SetForegroundVolumeID(None)
    composite.SetLabelVolumeID(None)
    if composite.GetBackgroundVolumeID() == volume_id:
        return
    composite.SetBackgroundVolumeID(volume_id)
    bar = slicer.modules.colors.logic().GetColorLegendDisplayNode(background) if background is not None else None
    if bar is not None:
        bar.Modified()  # a legend looks for its volume in the views only when it changes itself


def show_background(tag: str, volume: slicer.vtkMRMLVolumeNode | None) -> None:
    """Let one slice view show a volume under what lies over it."""
    composite = composite_of(tag)
    if composite is not None:
        composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)


def align(layout: MapLayout, volume: slicer.vtkMRMLVolumeNode, where: np.ndarray | None = None) -> None:
    """Turn all slice views of a layout into the plane of a volume's slices and show what matters there.

    Args:
        where: bool (k, j, i), what is to fill the views; its middle slice is shown. None for the whole image.
    """
    if where is None or not where.any():
        where = np.ones(tuple(reversed(volume.GetImageData().GetDimensions())), bool)
    spans = [np.flatnonzero(where.any(axis=tuple({0, 1, 2} - {axis}))) for axis in (2, 1, 0)]
    middle = [(float(at[0]) + float(at[-1])) / 2 for at in spans]
    middle[2] = float(round(middle[2]))
    center = (ijk_to_world(volume) @ [*middle, 1.0])[:3]
    across, down = (spacing * (at[-1] - at[0] + 1) for spacing, at in zip(volume.GetSpacing()[:2], spans))
    for node in filter(None, (slice_node_of(tag) for tag, _ in layout.views)):
        node.RotateToVolumePlane(volume)
        width, height = node.GetDimensions()[:2]
        if width and height:
            per_pixel = max(ROOM_ACROSS * across / width, ROOM_DOWN * down / height)
            node.SetFieldOfView(per_pixel * width, per_pixel * height, node.GetFieldOfView()[2])
        node.SetSliceOrigin(0, 0, 0)
        to_right = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 0]
        node.JumpSliceByCentering(*(center + (ROOM_ACROSS - ROOM_DOWN) / 2 * across * to_right))


def lay_over(volume: slicer.vtkMRMLVolumeNode | None, opacity: float, except_in: Sequence[str] = ()) -> None:
    """Lay a map over the image in all slice views but some; None takes a map of ours away from all of these."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() in except_in:
            continue
        current = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")
        if volume is not None:
            composite.SetForegroundVolumeID(volume.GetID())
            composite.SetForegroundOpacity(opacity)
        elif current is not None and current.GetAttribute(PART_ATTRIBUTE):
            composite.SetForegroundVolumeID(None)


def overlay(volume: slicer.vtkMRMLVolumeNode | None, opacity: float) -> None:
    """Lay a map of a result over the image in all slice views, with a legend; None takes map and legend away."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        current = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")
        if current is not None and current is not volume and current.GetAttribute(LEGEND_ATTRIBUTE):
            legend(current, "", shown=False)
    lay_over(volume, opacity)
    if volume is not None and slicer.modules.colors.logic().GetColorLegendDisplayNode(volume) is None:
        legend(volume, textwrap.fill(volume.GetAttribute(LEGEND_ATTRIBUTE) or volume.GetName(), LEGEND_LINE))


def show_chart(tag: str, chart: slicer.vtkMRMLPlotChartNode | None) -> None:
    """Let a plot view show a chart."""
    for view in slicer.util.getNodesByClass("vtkMRMLPlotViewNode"):
        if view.GetLayoutName() == tag:
            view.SetPlotChartNodeID(chart.GetID() if chart is not None else None)


def only_outside(display: slicer.vtkMRMLDisplayNode, tags: Sequence[str]) -> None:
    """Show a node in every slice and 3D view but those with these tags."""
    views = [
        *slicer.util.getNodesByClass("vtkMRMLSliceNode"), *slicer.util.getNodesByClass("vtkMRMLViewNode")
    ]  # fmt: skip
    wanted = [view.GetID() for view in views if view.GetLayoutName() not in tags]
    if list(display.GetViewNodeIDs()) != wanted:
        display.SetViewNodeIDs(wanted)


# -- colours --------------------------------------------------------------------------------------------------


def color_table(tag: str, name: str, rgb: np.ndarray) -> slicer.vtkMRMLColorTableNode:
    """A colour node made from (n, 3) uint8 colours, lowest value first; made when first asked for.

    Args:
        tag: singleton tag by which it is found again.
        name: what users see.
    """
    node = slicer.mrmlScene.GetSingletonNode(tag, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLColorTableNode")
    node.UnRegister(None)
    node.SetName(name)
    node.SetSingletonTag(tag)
    node.SetTypeToUser()
    node.SetAttribute("Category", "Neuraxis")
    node.SetNumberOfColors(len(rgb))
    for index, color in enumerate(np.asarray(rgb) / 255.0):
        node.SetColor(index, f"{index / (len(rgb) - 1):.2f}", *(float(part) for part in color), 1.0)
    return slicer.mrmlScene.AddNode(node)


def color_volume(
    volume: slicer.vtkMRMLScalarVolumeNode, colors: slicer.vtkMRMLColorTableNode, low: float, high: float
) -> None:
    """Show a map in these colours from ``low`` to ``high``; 0 and below stay transparent (no tissue)."""
    if volume.GetDisplayNode() is None:
        volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(colors.GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)
    display.AutoThresholdOff()
    top = float(slicer.util.arrayFromVolume(volume).max(initial=high))
    display.SetThreshold(1e-3 * (high - low), max(high, top))
    display.ApplyThresholdOn()
    display.InterpolateOff()


def legend(volume: slicer.vtkMRMLScalarVolumeNode, title: str, shown: bool = True) -> None:
    """A colour bar with numbers beside a map, in every view that shows the map.

    A bar that is there is made anew, as views that were made after a bar do not know it.

    Args:
        volume: a map that :func:`color_volume` has coloured.
        title: name and unit.
        shown: False takes the bar away.
    """
    logic = slicer.modules.colors.logic()
    earlier = logic.GetColorLegendDisplayNode(volume)
    if earlier is not None:
        slicer.mrmlScene.RemoveNode(earlier)
    if not shown:
        return
    node = logic.AddDefaultColorLegendDisplayNode(volume)
    node.SetTitleText(title)
    display = volume.GetDisplayNode()
    node.SetNumberOfLabels(label_count(display.GetWindowLevelMin(), display.GetWindowLevelMax()))
    node.SetLabelFormat("%.3g")
    node.SetSize(0.08, 0.5)
    node.SetPosition(0.98, 0.5)
    for text, size in ((node.GetTitleTextProperty(), 9), (node.GetLabelTextProperty(), 10)):
        text.SetFontSize(size)
        text.SetColor(1, 1, 1)
        text.SetBold(False)
        text.SetItalic(False)
    node.SetVisibility(True)


def label_count(low: float, high: float) -> int:
    """How many numbers stand beside a colour bar: the longest decides how large all are; two figures are right."""

    def longest(count: int) -> int:
        return max(len(f"{value:.3g}") for value in np.linspace(low, high, count))

    return min((5, 6, 4), key=lambda count: abs(longest(count) - 2))
