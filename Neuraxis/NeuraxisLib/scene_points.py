"""Points that a user places with the mouse or corrects, and a curve that follows the mouse in a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import slicer
import vtk

from NeuraxisLib.result import Landmark
from NeuraxisLib.result_text import description
from NeuraxisLib.scene import PART_ATTRIBUTE, SOURCE_ROLE, TASK_ATTRIBUTE
from NeuraxisLib.scene_tables import SURE

#: Parts under which the nodes of the live curve are kept with the result that they belong to.
LIVE_TABLE, LIVE_SERIES = "curves live table", "curves live series"
_LIVE_COLOR = (0.45, 0.45, 0.45)
_BESIDE_COLOR = (0.8, 0.8, 0.8)
#: Points that lie nearer than this are not moved.
_SAME_PLACE_MM = 1e-4


# -- placing --------------------------------------------------------------------------------------------------


def start_placing(name: str) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Let the user's next click in a view place one point; returns the node that it will be in."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    node.SetMaximumNumberOfControlPoints(1)
    node.CreateDefaultDisplayNodes()
    selection, interaction = _selection(), _interaction()
    selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
    selection.SetActivePlaceNodeID(node.GetID())
    interaction.SetPlaceModePersistence(0)
    interaction.SetCurrentInteractionMode(interaction.Place)
    return node


def stop_placing(node: slicer.vtkMRMLMarkupsFiducialNode | None) -> None:
    """End what :func:`start_placing` began and take its node away."""
    interaction = _interaction()
    if interaction.GetCurrentInteractionMode() == interaction.Place:
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    if node is not None and node.GetScene() is not None:
        slicer.mrmlScene.RemoveNode(node)


def point_ras_mm(node: slicer.vtkMRMLMarkupsFiducialNode, name: str = "") -> tuple[float, float, float] | None:
    """Where in the world the point of that name lies (the first, without a name); None if there is none."""
    for index in range(node.GetNumberOfDefinedControlPoints()):
        if not name or node.GetNthControlPointLabel(index) == name:
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(index, position)
            return tuple(position)
    return None


def cursor_ras_mm() -> tuple[float, float, float] | None:
    """Where in the world the mouse points in a slice view; None while it is elsewhere."""
    crosshair, position = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode"), [0.0, 0.0, 0.0]
    return tuple(position) if crosshair.GetCursorPositionRAS(position) else None


# -- correcting -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlacedPoint:
    """A point of a list that has its place: its id in the list, its name, RAS mm in the world."""

    id: str
    name: str
    position_ras_mm: tuple[float, float, float]


def placed_points(node: slicer.vtkMRMLMarkupsFiducialNode) -> list[PlacedPoint]:
    """The points of a list in their order; one that still follows the mouse is left out."""
    result, position = [], [0.0, 0.0, 0.0]
    for index in _defined(node):
        node.GetNthControlPointPositionWorld(index, position)
        name = node.GetNthControlPointLabel(index)
        result.append(PlacedPoint(node.GetNthControlPointID(index), name, tuple(position)))
    return result


def hold_points(node: slicer.vtkMRMLMarkupsFiducialNode, points: Sequence[Landmark], ids: Sequence[str]) -> list[str]:
    """Make a list hold these points and no others; what is right already is left alone.

    Args:
        points: in the order of the list.
        ids: of each point in the list; empty for one that is not in it.

    Returns:
        The ids of the points.
    """
    was = node.StartModify()
    for index in reversed(_defined(node)):
        if node.GetNthControlPointID(index) not in ids:
            node.RemoveNthControlPoint(index)
    result = []
    for index, (point, point_id) in enumerate(zip(points, ids, strict=True)):
        at = node.GetNthControlPointIndexByID(point_id) if point_id else -1
        if at < 0:
            at = index
            node.InsertControlPointWorld(at, vtk.vtkVector3d(*point.position_ras_mm), point.name)
        _set_point(node, at, point)
        result.append(node.GetNthControlPointID(at))
    node.EndModify(was)
    return result


def _set_point(node, index: int, point: Landmark) -> None:
    position, told = [0.0, 0.0, 0.0], description(point)
    node.GetNthControlPointPositionWorld(index, position)
    if np.linalg.norm(np.subtract(position, point.position_ras_mm)) > _SAME_PLACE_MM:
        node.SetNthControlPointPositionWorld(index, *point.position_ras_mm)
    if node.GetNthControlPointLabel(index) != point.name:
        node.SetNthControlPointLabel(index, point.name)
    if node.GetNthControlPointDescription(index) != told:
        node.SetNthControlPointDescription(index, told)
    sure = point.confidence is None or point.confidence >= SURE
    if bool(node.GetNthControlPointSelected(index)) != sure:
        node.SetNthControlPointSelected(index, sure)


def _defined(node) -> list[int]:
    """Indices of the points that have their place."""
    indices = range(node.GetNumberOfControlPoints())
    return [index for index in indices if node.GetNthControlPointPositionStatus(index) == node.PositionDefined]


def show_beside(node: slicer.vtkMRMLMarkupsFiducialNode) -> None:
    """Show points in the slices beside their own too, pale: a spine need not lie in one slice.

    Slicer has one colour for all of them there: their own if all are sure, else a neutral one.
    """
    display = node.GetDisplayNode()
    if display is not None:
        sure = all(node.GetNthControlPointSelected(index) for index in _defined(node))
        display.SetSliceProjection(True)
        display.SetSliceProjectionUseFiducialColor(sure)
        display.SetSliceProjectionColor(*_BESIDE_COLOR)
        display.SetSliceProjectionOpacity(0.6)


def jump_to(ras_mm: Sequence[float]) -> None:
    """Show a place in the middle of all slice views."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByCentering(*ras_mm)


def _selection():
    return slicer.mrmlScene.GetNodeByID("vtkMRMLSelectionNodeSingleton")


def _interaction():
    return slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")


# -- live curve -----------------------------------------------------------------------------------------------


def series_values(chart: slicer.vtkMRMLPlotChartNode, number: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(x, y) of a curve of a chart; None if it has no such curve."""
    series = chart.GetNthPlotSeriesNode(number) if number < chart.GetNumberOfPlotSeriesNodes() else None
    table = series.GetTableNode() if series is not None else None
    if table is None:
        return None
    columns = (series.GetXColumnName(), series.GetYColumnName())
    return tuple(np.array(slicer.util.arrayFromTableColumn(table, column), float) for column in columns)


def draw_live(chart: slicer.vtkMRMLPlotChartNode, name: str, x: np.ndarray, y: np.ndarray) -> None:
    """Draw one more curve into a result's chart, or change it; it goes with the result.

    Args:
        chart: of :func:`NeuraxisLib.scene.show_result`.
        name: in the legend.
        x, y: of equal length.
    """
    table, series = (_live_node(chart, part, kind) for part, kind in (
        (LIVE_TABLE, "vtkMRMLTableNode"), (LIVE_SERIES, "vtkMRMLPlotSeriesNode")
    ))  # fmt: skip
    slicer.util.updateTableFromArray(table, [np.asarray(x, float), np.asarray(y, float)], ["x", "y"])
    if series.GetTableNodeID() != table.GetID():
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("x")
        series.SetYColumnName("y")
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
        series.SetColor(*_LIVE_COLOR)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    series.SetName(name)


def _live_node(chart, part: str, class_name: str):
    task, source = chart.GetAttribute(TASK_ATTRIBUTE), chart.GetNodeReferenceID(SOURCE_ROLE)
    for node in slicer.util.getNodesByClass(class_name):
        mine = node.GetAttribute(TASK_ATTRIBUTE) == task and node.GetNodeReferenceID(SOURCE_ROLE) == source
        if mine and node.GetAttribute(PART_ATTRIBUTE) == part:
            return node
    node = slicer.mrmlScene.AddNewNodeByClass(class_name, "Voxel curve")
    node.SetAttribute(TASK_ATTRIBUTE, task)
    node.SetAttribute(PART_ATTRIBUTE, part)
    node.SetNodeReferenceID(SOURCE_ROLE, source)
    return node
