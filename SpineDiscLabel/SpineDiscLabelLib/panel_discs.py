"""What the panel shows of a chain: its table, the chosen disc, other ways to number it, measures, the heat map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from NeuraxisLib import scene_points, scene_views
from SpineDiscLabelLib.panel_scene import SceneChain
from SpineDiscLabelLib.panel_state import ChainState, OtherNumbering
from SpineDiscLabelLib.panel_words import all_names, numbering_line, other_line

#: Columns of the table of discs that the panel leaves out (they are in the scene's table and in the files).
LEFT_OUT = ("R (mm)", "A (mm)", "S (mm)", "Sideways deviation (mm)")
#: The same of the table of measurements: none of them has an interval.
NO_INTERVAL = ("Interval",)
#: Heads short enough for a panel: column -> what the panel calls it.
SHORT = {
    "Confidence": "Sure",
    "Distance to the next below (mm)": "To next (mm)",
    "Angle to the next below (degrees)": "Angle (°)",
    "Disc height (mm)": "Height (mm)",
}
OVERLAY = "map evidence"


class DiscPanel:
    """Keeps the result widgets in step with a chain.

    Args:
        ui: the widgets of the .ui file, by name.
    """

    def __init__(self, ui: Any):
        self._ui = ui
        self._chain: SceneChain | None = None
        self._key: int | None = None
        ui.nameComboBox.addItems(all_names())

    @property
    def chosen(self) -> int | None:
        """Key of the chosen disc; None if none is."""
        return self._key

    def choose_row(self, row: int) -> None:
        """Choose the disc in a row of the table, and show it in the slice views."""
        order = self._chain.state.from_above() if self._chain is not None else []
        if 0 <= row < len(order):
            _, point = order[row]
            self._key = point.key
            self._show_chosen()
            scene_points.jump_to(point.position_ras_mm)

    def other(self, row: int) -> OtherNumbering | None:
        """The numbering in a row of the list of others."""
        others = self._chain.state.others if self._chain is not None else ()
        return others[row] if 0 <= row < len(others) else None

    def show_middle(self) -> None:
        """Show the middle of the chain in the slice views."""
        order = self._chain.state.from_above() if self._chain is not None else []
        if order:
            scene_points.jump_to(order[len(order) // 2][1].position_ras_mm)

    def refresh(self, chain: SceneChain | None, nodes: Mapping[str, Any], overlay_opacity: float | None) -> None:
        """Show a chain.

        Args:
            chain: None if there is none.
            nodes: part -> node of its result.
            overlay_opacity: of the heat map over the slices; None takes it away.
        """
        ui, self._chain = self._ui, chain
        state = chain.state if chain is not None else ChainState()
        self._show_tables(nodes)
        self._show_chosen()
        self._list_others(state)
        ui.numberingLabel.text = numbering_line(state)
        ui.undoButton.enabled = chain is not None and chain.editor.can_undo
        ui.redoButton.enabled = chain is not None and chain.editor.can_redo
        ui.addButton.enabled = chain is not None
        warnings = "\n".join(chain.warnings) if chain is not None else ""
        ui.warningsLabel.text, ui.warningsLabel.visible = warnings, bool(warnings)
        evidence = nodes.get(OVERLAY)
        scene_views.overlay(None if overlay_opacity is None else evidence, overlay_opacity or 0.0)
        ui.overlayCheckBox.enabled = ui.overlayOpacitySlider.enabled = evidence is not None

    # -- inside ---------------------------------------------------------------------------------------------------

    def _show_tables(self, nodes: Mapping[str, Any]) -> None:
        ui, table = self._ui, nodes.get("table discs")
        for view, node in ((ui.discTableView, table), (ui.resultTableView, nodes.get("table measurements"))):
            if view.mrmlTableNode() is not node:
                view.setMRMLTableNode(node)
        if table is not None:
            for column, title in SHORT.items():
                if table.GetColumnTitle(column) != title:
                    table.SetColumnTitle(column, title)
        _hide_columns(ui.discTableView, LEFT_OUT)
        _hide_columns(ui.resultTableView, NO_INTERVAL)

    def _show_chosen(self) -> None:
        ui = self._ui
        order = self._chain.state.from_above() if self._chain is not None else []
        rows = {point.key: row for row, (_, point) in enumerate(order)}
        if self._key not in rows:
            self._key = None
        there = self._key is not None
        ui.nameComboBox.enabled = ui.deleteButton.enabled = there
        blocked = ui.nameComboBox.blockSignals(True)
        if there:
            row = rows[self._key]
            ui.discTableView.selectRow(row)
            ui.nameComboBox.setCurrentIndex(ui.nameComboBox.findText(order[row][1].name))
        else:
            ui.discTableView.clearSelection()
            ui.nameComboBox.setCurrentIndex(-1)
        ui.nameComboBox.blockSignals(blocked)

    def _list_others(self, state: ChainState) -> None:
        lines = [other_line(other) for other in state.others]
        box = self._ui.othersList
        if [box.item(row).text() for row in range(box.count)] != lines:
            box.clear()
            box.addItems(lines)
        box.enabled = bool(lines)


def _hide_columns(view: Any, names: tuple[str, ...]) -> None:
    """Leave columns out of a view of a table, and make the others as wide as their words."""
    if view.mrmlTableNode() is not None:
        columns = view.mrmlTableNode().GetTable()
        for index in range(columns.GetNumberOfColumns()):
            view.setColumnHidden(index, columns.GetColumnName(index) in names)
    view.resizeColumnsToContents()
