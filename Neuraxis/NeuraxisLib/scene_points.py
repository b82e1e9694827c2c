"""Points that a user places with the mouse, and a curve that follows the mouse in a chart."""

from __future__ import annotations

import numpy as np
import slicer

from NeuraxisLib.scene import PART_ATTRIBUTE, SOURCE_ROLE, TASK_ATTRIBUTE

#: Parts under which the nodes of the live curve are kept with the result that they belong to.
LIVE_TABLE, LIVE_SERIES = "curves live table", "curves live series"
_LIVE_COLOR = (0.45, 0.45, 0.45)


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
