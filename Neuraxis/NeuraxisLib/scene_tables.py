"""Tables, curves and points of a result as nodes of the scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import slicer
import vtk

from NeuraxisLib.curve_view import COLORS
from NeuraxisLib.result import CurvePlot, Landmark, Measurement, Table
from NeuraxisLib.result_text import description

#: Points of at least this confidence are drawn plain, less certain ones pale.
SURE = 0.5

# -- tables ---------------------------------------------------------------------------------------------------


def measurement_table(measurements: list[Measurement]) -> Table:
    """Measurements as a table for people: value, unit, interval and note in words."""
    several = len({m.segment for m in measurements if m.segment}) > 1
    rows = []
    for m in measurements:
        told = not several or m.name.startswith(m.segment)
        name = m.name if told else f"{m.segment}: {m.name}"
        counted = m.unit in ("", "slices") and m.value is not None and float(m.value).is_integer()
        value = str(int(m.value)) if counted else _number(m.value)
        interval = "" if m.interval is None else f"{_number(m.interval[0])} to {_number(m.interval[1])}"
        rows.append((name, value, m.unit, interval, m.note))
    heads = (("Measurement", ""), ("Value", ""), ("Unit", ""), ("Interval", ""), ("Note", ""))
    return Table("Measurements", heads, tuple(rows))


def fill_table(node: slicer.vtkMRMLTableNode, table: Table, meanings: Mapping[str, str] | None = None) -> None:
    """Put a table into a table node, every cell as words.

    Args:
        meanings: column head -> what it means, for the tool tips of the cells; None leaves them as they are.
    """
    columns = vtk.vtkTable()
    for index, (head, unit) in enumerate(table.columns):
        column = vtk.vtkStringArray()
        column.SetName(f"{head} ({unit})" if unit else head)
        for row in table.rows:
            column.InsertNextValue(_number(row[index]))
        columns.AddColumn(column)
    for head, unit in table.columns if meanings is not None else ():
        column = f"{head} ({unit})" if unit else head
        node.SetColumnUnitLabel(column, unit)
        node.SetColumnDescription(column, meanings.get(head, ""))
    node.SetAndObserveTable(columns)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)


def table_rows(node: slicer.vtkMRMLTableNode) -> list[tuple[str, ...]]:
    """The cells of a table as text, row by row."""
    table = node.GetTable()
    columns = range(table.GetNumberOfColumns())
    return [tuple(table.GetValue(row, c).ToString() for c in columns) for row in range(table.GetNumberOfRows())]


def _number(value) -> str:
    """A value as a reader wants it: two decimals below ten, one above; a dash for what is undefined."""
    if value is None:
        return "\u2013"
    if isinstance(value, bool) or not isinstance(value, (float, np.floating)):
        return str(value)
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


# -- curves ---------------------------------------------------------------------------------------------------


def fill_chart(
    chart: slicer.vtkMRMLPlotChartNode,
    name: str,
    plot: CurvePlot,
    node_for: Callable[[str, str, str], slicer.vtkMRMLNode],
) -> list[slicer.vtkMRMLNode]:
    """Put curves into a chart node; each curve has a table of its own, as curves need not share their x.

    Args:
        chart: what a plot view shows.
        name: of the curves in the result.
        node_for: gives the node for (part, class, title): an earlier one of this result, or a new one.

    Returns:
        The table and series nodes that the chart needs.
    """
    chart.SetTitle(plot.title)
    chart.SetXAxisTitle(_axis_title(plot.x_label))
    chart.SetYAxisTitle(_axis_title(plot.y_label))
    chart.RemoveAllPlotSeriesNodeIDs()
    nodes = []
    for number, curve in enumerate(plot.curves):
        table = node_for(f"curves {name} table {number}", "vtkMRMLTableNode", f"{curve.name} curve table")
        series = node_for(f"curves {name} series {number}", "vtkMRMLPlotSeriesNode", curve.name)
        _fill_curve_table(table, plot, number)
        _style_series(series, table, plot, number)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        nodes += [table, series]
    return nodes


def _fill_curve_table(node, plot: CurvePlot, number: int) -> None:
    columns = vtk.vtkTable()
    curve = plot.curves[number]
    for head, values in ((_axis_title(plot.x_label), curve.x), (_axis_title((curve.name, plot.y_label[1])), curve.y)):
        column = vtk.vtkDoubleArray()
        column.SetName(head)
        for value in values:
            column.InsertNextValue(value)
        columns.AddColumn(column)
    node.SetAndObserveTable(columns)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)


def _style_series(series, table, plot: CurvePlot, number: int) -> None:
    curve, color = plot.curves[number], COLORS[number % len(COLORS)]
    series.SetName(curve.name)  # the legend shows it
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(_axis_title(plot.x_label))
    series.SetYColumnName(_axis_title((curve.name, plot.y_label[1])))
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
    series.SetColor(*(int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)))


def _axis_title(label: tuple[str, str]) -> str:
    name, unit = label
    return f"{name} [{unit}]" if unit else name


# -- points ---------------------------------------------------------------------------------------------------


def fill_points(node: slicer.vtkMRMLMarkupsFiducialNode, points: list[Landmark], to_node: np.ndarray) -> None:
    """Put named points into a markups node.

    Uncertain ones are unselected, which the display shows in its plain colour instead of the selected one.

    Args:
        node: an earlier one is emptied first.
        points: positions in RAS mm of the world.
        to_node: 4x4 from the world to the node's own frame (its parent transform undone).
    """
    node.RemoveAllControlPoints()
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSelectedColor(0.0, 0.62, 0.45)
    display.SetColor(0.90, 0.62, 0.0)
    display.SetGlyphScale(2.5)
    display.SetTextScale(3.0)
    for point in points:
        position = to_node @ [*point.position_ras_mm, 1.0]
        index = node.AddControlPoint(vtk.vtkVector3d(*position[:3]), point.name)
        node.SetNthControlPointDescription(index, description(point))
        node.SetNthControlPointSelected(index, point.confidence is None or point.confidence >= SURE)
