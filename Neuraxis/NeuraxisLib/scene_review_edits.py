"""Segments of a result that a person edits in Segment Editor: measures that follow, and the way back.

What a computation draws carries a mark (:data:`NeuraxisLib.scene.DRAWN_ATTRIBUTE`); segments that no longer fit it were
edited by hand. The outline that was found is then kept in a hidden segmentation beside them, with the tables as they
were, so that scenes that are saved and loaded keep both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from NeuraxisLib import review_corrections, scene
from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.result import Measurement, Result, Table
from NeuraxisLib.review_corrections import EDITED, FOUND_FILE, corrected, corrections_of
from NeuraxisLib.scene_own_segments import about_own, own_volumes_ml, with_own, without_own
from NeuraxisLib.scene_review_result import label_table, labels_of, provenance_of, result_in_scene
from NeuraxisLib.scene_tables import fill_table, measurement_table, table_rows

#: Part of a result under which the outline that was found is kept once it was edited.
FOUND_PART = "labels as found"
#: Attribute of that node: part -> rows of the tables as they were, as JSON.
TABLES_ATTRIBUTE = "Neuraxis.TablesAsFound"
#: Measures follow when nothing was painted for so long.
PAUSE_MS = 300


def is_edited(nodes: Mapping[str, Any]) -> bool:
    """Whether the outline of a result (part -> node) was edited by hand."""
    return FOUND_PART in nodes


def open_editor(segmentation: slicer.vtkMRMLSegmentationNode, source: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Open Segment Editor with the segments of a result; colours and terminology stay theirs.

    Raises:
        RuntimeError: there is no main window, or no Segment Editor.
    """
    slicer.util.selectModule("SegmentEditor")  # first: it chooses the node that the editor keeps its state in
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(source)


class SegmentEdits(VTKObservationMixin):
    """Follows the segments of the result that a panel shows, also while another module is open.

    Args:
        task: name of the task.
        measured: called with a sentence whenever measures have followed an edit.
    """

    def __init__(self, task: str, measured: Callable[[str], None]):
        VTKObservationMixin.__init__(self)
        self._task, self._measured = task, measured
        self._table = label_table(task)
        self._source: Any = None
        self._segmentation: Any = None
        self._found: np.ndarray | None = None  # as last drawn by a computation; None if it is not known
        self._mark = ""  # of the segments that the tables speak of
        self._dirty = False  # whether something may have been drawn since
        self._own: dict[str, float] = {}  # name -> mL of segments that are none of the task's
        self._timer = qt.QTimer()
        self._timer.interval, self._timer.singleShot = PAUSE_MS, True
        self._timer.connect("timeout()", lambda: self.take_in())

    def follow(self, source: Any, folder: Path | None) -> None:
        """Follow the result of a volume, or none; what was edited meanwhile is taken in.

        Args:
            source: the volume node, or None.
            folder: of its result; knows what was found if nobody saw it being drawn.
        """
        segmentation = scene.result_nodes(source, self._task).get("labels")
        if segmentation is not self._segmentation or source is not self._source:
            self.leave()
            self._source, self._segmentation, self._found, self._mark = source, segmentation, None, ""
            self._dirty, self._own = True, {}
            for event in _EVENTS if segmentation is not None else ():
                self.addObserver(segmentation, getattr(slicer.vtkSegmentation, event), self._changed)
        if self._dirty:
            self.take_in(folder)
        self._list_own()

    def leave(self) -> None:
        """Follow nothing any more."""
        self._timer.stop()
        self.removeObservers()
        self._source = self._segmentation = self._found = None

    @property
    def nodes(self) -> dict[str, Any]:
        """Part -> node of the result that is followed."""
        return scene.result_nodes(self._source, self._task)

    @property
    def mark(self) -> str:
        """What tells the segments that the tables speak of from others."""
        return self._mark

    @property
    def about_others(self) -> str:
        """What to say of segments that a person added beside those of the task; empty if there are none."""
        return about_own(self._own, self._table)

    @property
    def labels(self) -> np.ndarray:
        """The segments as they are: uint8 (k, j, i)."""
        return labels_of(self._segmentation, self._source, self._table)

    def _changed(self, caller: Any, event: Any) -> None:
        self._dirty = True
        self._timer.start()  # anew with every stroke of the brush

    # -- edits --------------------------------------------------------------------------------------------------

    def take_in(self, folder: Path | None = None) -> None:
        """Let the tables say what the segments are.

        Args:
            folder: of the result; knows what was found if nobody saw it being drawn.
        """
        segmentation, self._dirty = self._segmentation, False
        if segmentation is None or segmentation.GetScene() is None or self._source.GetScene() is None:
            return
        labels = self.labels
        mark, drawn = scene.label_mark(labels), segmentation.GetAttribute(scene.DRAWN_ATTRIBUTE)
        if not drawn:  # a scene of an earlier version; what it holds counts as found
            segmentation.SetAttribute(scene.DRAWN_ATTRIBUTE, mark)
        changed, self._mark = mark != self._mark, mark
        self._look_for_own()
        if mark == (drawn or mark):
            self._found = labels
            if is_edited(self.nodes):
                self._restore_tables()
        elif changed:
            self._measure(labels, folder)

    def _look_for_own(self) -> None:
        before, self._own = self._own, own_volumes_ml(self._segmentation, self._source, self._table)
        if self._own != before:
            self._measured(self.about_others or _("All segments are of this task again."))

    def _list_own(self) -> None:
        """Let the table end with the volumes of segments that are none of the task's."""
        node = self.nodes.get("table measurements") if self._segmentation is not None else None
        rows = table_rows(node) if node is not None else []
        wanted = with_own(rows, self._own)
        if wanted != rows:
            fill_table(node, _table_of(node, wanted))

    def _measure(self, labels: np.ndarray, folder: Path | None) -> None:
        nodes = self.nodes
        try:
            if not is_edited(nodes):
                self._keep_found(nodes, folder)
                nodes = self.nodes
            rows = _rows_found(nodes[FOUND_PART])
            before = result_in_scene(self._source, self._task, self._found_labels(), list(map(_measurement, rows)))
            result = corrected(before, labels)
        except NeuraxisError as error:
            self._measured(str(error))
            return
        fill_table(nodes["table measurements"], edited_table(result, before))
        for name, table in result.tables.items():
            if f"table {name}" in nodes:
                fill_table(nodes[f"table {name}"], table)
        self._measured(f"{_sentence(result.measurements, rows)} {self.about_others}".strip())

    def revert(self) -> None:
        """Back to the outline that was found, and to its measures."""
        if is_edited(self.nodes):
            scene.redraw_segments(self._segmentation, self._found_labels(), self._source)
            self.take_in()

    def _restore_tables(self) -> None:
        nodes = self.nodes
        for part, rows in json.loads(nodes[FOUND_PART].GetAttribute(TABLES_ATTRIBUTE) or "{}").items():
            if part in nodes:
                fill_table(nodes[part], _table_of(nodes[part], rows))
        slicer.mrmlScene.RemoveNode(nodes[FOUND_PART])
        self._measured("")

    # -- what was found -----------------------------------------------------------------------------------------

    def _keep_found(self, nodes: Mapping[str, Any], folder: Path | None) -> None:
        found = self._found if self._found is not None else self._of_folder(folder)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{self._segmentation.GetName()} as found")
        node.SetHideFromEditors(True)
        node.SetAndObserveTransformNodeID(self._source.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(self._source)
        for label in self._table:
            scene.add_segment(node, label, found == label.value, self._source)
        tables = {part: table_rows(entry) for part, entry in nodes.items() if part.startswith("table ")}
        tables["table measurements"] = without_own(tables["table measurements"])
        node.SetAttribute(TABLES_ATTRIBUTE, json.dumps(tables))
        node.SetAttribute(scene.TASK_ATTRIBUTE, self._task)
        node.SetAttribute(scene.PART_ATTRIBUTE, FOUND_PART)
        node.SetNodeReferenceID(scene.SOURCE_ROLE, self._source.GetID())

    def _of_folder(self, folder: Path | None) -> np.ndarray:
        """What was found, from the files of the result; what there is now where these are gone."""
        if folder is not None:
            found = review_corrections.found_result(folder).labels
            if found is not None and found.array.shape == self.labels.shape:
                return found.array
        return self.labels

    def _found_labels(self) -> np.ndarray:
        return labels_of(self.nodes[FOUND_PART], self._source, self._table)

    # -- files --------------------------------------------------------------------------------------------------

    def bring_up_to_date(self, folder: Path) -> None:
        """Let the files of the result say what the scene says.

        Raises:
            InputError, OutputError: they cannot be read or written.
        """
        if self._segmentation is None or not corrections_of(self._task).HAS_OUTLINE:
            return
        self.take_in()
        image = scene.volume_from_node(self._source)
        if is_edited(self.nodes):
            review_corrections.write_corrected(folder, self.labels, image, provenance_of(self.nodes))
        elif (folder / FOUND_FILE).is_file():
            review_corrections.write_found(folder, image)


_EVENTS = ("SourceRepresentationModified", "SegmentModified", "SegmentAdded", "SegmentRemoved")


# -- tables ---------------------------------------------------------------------------------------------------


def edited_table(result: Result, before: Result) -> Table:
    """Measurements as a table; those that had an interval say that they were edited by hand."""
    had = {m.name for m in before.measurements if m.interval is not None}
    table = measurement_table(result.measurements)
    named = [m.name for m in result.measurements]
    rows = [(*row[:3], EDITED if name in had else row[3], row[4]) for row, name in zip(table.rows, named)]
    return Table(table.title, table.columns, tuple(rows))


def _rows_found(node: slicer.vtkMRMLSegmentationNode) -> list[list[str]]:
    return json.loads(node.GetAttribute(TABLES_ATTRIBUTE) or "{}").get("table measurements", [])


def _measurement(row: list[str]) -> Measurement:
    """A row of the table of measurements as numbers, to as many digits as it shows."""
    name, value, unit, interval, note = row
    low, between, high = interval.partition(" to ")
    return Measurement(name, _number(value), unit, (_number(low), _number(high)) if between else None, "", note)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _table_of(node: slicer.vtkMRMLTableNode, rows: list[list[str]]) -> Table:
    """Rows as a table with the columns that a node has."""
    table = node.GetTable()
    heads = tuple((table.GetColumnName(column), "") for column in range(table.GetNumberOfColumns()))
    return Table(node.GetName(), heads, tuple(map(tuple, rows)))


def _sentence(measurements: list[Measurement], rows: list[list[str]]) -> str:
    """What to say of the first volumes after an edit: ``"Edited by hand: Total volume 6.40 mL (was 6.00)."``."""
    before = {row[0]: row[1] for row in rows}
    told = []
    for row in measurement_table(measurements[:2]).rows:
        if row[2] == "mL":
            now = {"name": row[0], "ml": row[1], "before": before.get(row[0], "?")}
            told.append(_("{name} {ml} mL (was {before})").format(**now))
    return _("Edited by hand: {volumes}.").format(volumes=", ".join(told))
