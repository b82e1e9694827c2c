"""Stand-ins for the qMRML widgets that the modules use, bound to real MRML scenes and nodes."""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from Testing.slicer_stand_in.stand_in_widget import Observing, stored

_SCENE_SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}


class qMRMLWidget(QtWidgets.QWidget):
    """Top widget of a panel: hands the scene on through its signal."""

    mrmlSceneChanged = QtCore.Signal(object)
    _signals = _SCENE_SIGNALS

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene


class qMRMLSortFilterProxyModel(QtCore.QObject):
    """The part of a node chooser's filter that modules use; it is no item model here."""

    def __init__(self, chooser):
        super().__init__(chooser)
        self._chooser, self._hidden = chooser, []

    def _hide(self, node_ids: list[str]) -> None:
        self._hidden = list(node_ids)
        self._chooser._refill()

    hiddenNodeIDs = QtCore.Property("QStringList", lambda self: self._hidden, _hide)


class qMRMLNodeComboBox(QtWidgets.QWidget, Observing):
    """Chooser of a node of the scene; disabled until it has a scene."""

    _node_changed = QtCore.Signal(object)
    _valid_changed = QtCore.Signal(bool)
    _id_changed = QtCore.Signal(str)
    _signals = {
        "currentNodeChanged(vtkMRMLNode*)": "_node_changed",
        "currentNodeChanged(bool)": "_valid_changed",
        "currentNodeIDChanged(QString)": "_id_changed",
    }
    nodeTypes = stored("QStringList", "nodeTypes", [], "_refill")
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [], "_refill")
    showHidden = stored(bool, "showHidden", False, "_refill")
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True, "_refill")
    noneEnabled = stored(bool, "noneEnabled", False, "_refill")
    noneDisplay = stored(str, "noneDisplay", "None", "_refill")
    addEnabled = stored(bool, "addEnabled", True)
    removeEnabled = stored(bool, "removeEnabled", True)
    editEnabled = stored(bool, "editEnabled", False)
    renameEnabled = stored(bool, "renameEnabled", False)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    baseName = stored(str, "baseName", "")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._values, self._scene, self._nodes, self._current = {}, None, [], None
        self._filter = qMRMLSortFilterProxyModel(self)
        self._box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.currentIndexChanged.connect(self._picked)
        self.setEnabled(False)

    @QtCore.Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._forget()
        self._scene = scene
        self.setEnabled(scene is not None)
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
                self._observe(scene, event, self._refill)
        self._refill()

    def mrmlScene(self):
        return self._scene

    def _suits(self, node) -> bool:
        wanted, refused = self._values.get("nodeTypes", []), self._values.get("hideChildNodeTypes", [])
        exact = not self._values.get("showChildNodeTypes", True)
        if node.GetID() in self._filter.hiddenNodeIDs:
            return False
        if node.GetHideFromEditors() and not self._values.get("showHidden", False):
            return False
        matches = any(node.GetClassName() == kind if exact else node.IsA(kind) for kind in wanted)
        return matches and not any(node.IsA(kind) for kind in refused)

    def _refill(self) -> None:
        nodes = []
        if self._scene is not None and not self._scene.IsBatchProcessing():
            collection = self._scene.GetNodes()
            nodes = [collection.GetItemAsObject(i) for i in range(collection.GetNumberOfItems())]
        elif self._scene is not None:
            return
        self._nodes = [node for node in nodes if self._suits(node)]
        current = self._current if self._current in self._nodes else None
        if current is None and self._nodes and not self._values.get("noneEnabled", False):
            # Slicer preselects only where nothing else could be meant: no None item, no "create new" item
            current = None if self._values.get("addEnabled", True) else self._nodes[0]
        was = self._box.blockSignals(True)
        self._box.clear()
        if self._values.get("noneEnabled", False):
            self._box.addItem(self._values.get("noneDisplay", "None"))
        for node in self._nodes:
            self._box.addItem(node.GetName())
        self._box.blockSignals(was)
        self._select(current)

    def _picked(self, index: int) -> None:
        offset = 1 if self._values.get("noneEnabled", False) else 0
        self._select(self._nodes[index - offset] if 0 <= index - offset < len(self._nodes) else None)

    def _select(self, node) -> None:
        offset = 1 if self._values.get("noneEnabled", False) else 0
        was = self._box.blockSignals(True)
        self._box.setCurrentIndex(self._nodes.index(node) + offset if node is not None else offset - 1)
        self._box.blockSignals(was)
        if node is self._current:
            return
        self._current = node
        self._node_changed.emit(node)
        self._valid_changed.emit(node is not None)
        self._id_changed.emit(node.GetID() if node is not None else "")

    def currentNode(self):
        return self._current

    def setCurrentNode(self, node) -> None:
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node) if self._scene else None
        self._select(node if node in self._nodes else None)

    def setCurrentNodeID(self, node_id: str) -> None:
        self.setCurrentNode(node_id or None)

    def setCurrentNodeIndex(self, index: int) -> None:
        self._select(self._nodes[index])

    def sortFilterProxyModel(self) -> qMRMLSortFilterProxyModel:
        return self._filter

    def nodeCount(self) -> int:
        return len(self._nodes)

    def nodeFromIndex(self, index: int):
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def _get_id(self) -> str:
        return self._current.GetID() if self._current is not None else ""

    currentNodeID = QtCore.Property(str, _get_id, setCurrentNodeID)


class qMRMLTableView(QtWidgets.QTableView, Observing):
    """View of a table node."""

    mrmlSceneChanged = QtCore.Signal(object)
    _signals = _SCENE_SIGNALS
    transposed = stored(bool, "transposed", False, "_show")
    firstRowLocked = stored(bool, "firstRowLocked", False, "_show")
    firstColumnLocked = stored(bool, "firstColumnLocked", False, "_show")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._values, self._scene, self._node = {}, None, None
        self.setModel(QtGui.QStandardItemModel(self))

    @QtCore.Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene

    def setMRMLTableNode(self, node) -> None:
        self._forget()
        self._node = node
        if node is not None:
            self._observe(node, vtk.vtkCommand.ModifiedEvent, self._show)
        self._show()

    def mrmlTableNode(self):
        return self._node

    def _show(self) -> None:
        model = self.model()
        model.clear()
        table = self._node.GetTable() if self._node is not None else None
        if table is None:
            return
        columns, rows = table.GetNumberOfColumns(), table.GetNumberOfRows()
        heads_locked = self._node.GetUseColumnTitleAsColumnHeader()
        for column in range(columns):
            head = table.GetColumnName(column) if heads_locked else chr(ord("A") + column)
            model.setHorizontalHeaderItem(column, QtGui.QStandardItem(self._node.GetColumnTitle(head) or head))
        for row in range(rows):
            for column in range(columns):
                item = QtGui.QStandardItem(table.GetValue(row, column).ToString())
                item.setEditable(not self._node.GetLocked())
                item.setToolTip(self._tool_tip(table.GetColumnName(column)))
                model.setItem(row, column, item)

    def _tool_tip(self, column: str) -> str:
        """Title, unit and description of a column, as Slicer shows them over its cells."""
        node = self._node
        title, unit = node.GetColumnTitle(column), node.GetColumnUnitLabel(column)
        lines = (title and f"<b>{title}</b>", unit and f"Unit: {unit}", node.GetColumnDescription(column))
        return "<p>".join(filter(None, lines))


class qMRMLSegmentsTableView(QtWidgets.QWidget, Observing):
    """Table of segments: visibility, colour, name."""

    mrmlSceneChanged = QtCore.Signal(object)
    _signals = _SCENE_SIGNALS
    selectionMode = stored(int, "selectionMode", 3)
    headerVisible = stored(bool, "headerVisible", True, "_show")
    visibilityColumnVisible = stored(bool, "visibilityColumnVisible", True, "_show")
    colorColumnVisible = stored(bool, "colorColumnVisible", True, "_show")
    opacityColumnVisible = stored(bool, "opacityColumnVisible", True, "_show")
    statusColumnVisible = stored(bool, "statusColumnVisible", False, "_show")
    layerColumnVisible = stored(bool, "layerColumnVisible", False, "_show")
    filterBarVisible = stored(bool, "filterBarVisible", False, "_show")
    readOnly = stored(bool, "readOnly", False, "_show")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._values, self._scene, self._node = {}, None, None
        self._table = QtWidgets.QTableWidget()
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._table.itemChanged.connect(self._toggled)

    @QtCore.Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene

    def tableWidget(self):
        return self._table

    def segmentationNode(self):
        return self._node

    def setSegmentationNode(self, node) -> None:
        self._forget()
        self._node = node
        if node is not None:
            self._observe(node, vtk.vtkCommand.ModifiedEvent, self._show)
            self._observe(node, slicer.vtkSegmentation.SegmentAdded, self._show)
            self._observe(node, slicer.vtkSegmentation.SegmentRemoved, self._show)
            self._observe(node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, self._show)
        self._show()

    def _ids(self) -> list[str]:
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        return list(segmentation.GetSegmentIDs()) if segmentation is not None else []

    def _show(self) -> None:
        was = self._table.blockSignals(True)
        ids = self._ids()
        self._table.setColumnCount(2)
        self._table.setHorizontalHeaderLabels(["", "Name"])
        self._table.verticalHeader().hide()
        self._table.horizontalHeader().setVisible(self._values.get("headerVisible", True))
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.setColumnWidth(0, 56)
        self._table.setRowCount(len(ids))
        for row, segment_id in enumerate(ids):
            segment, display = self._node.GetSegmentation().GetSegment(segment_id), self._node.GetDisplayNode()
            visible = QtWidgets.QTableWidgetItem()
            shown = display is not None and display.GetSegmentVisibility(segment_id)
            visible.setCheckState(QtCore.Qt.Checked if shown else QtCore.Qt.Unchecked)
            color = QtGui.QPixmap(14, 14)
            color.fill(QtGui.QColor.fromRgbF(*segment.GetColor()))
            visible.setIcon(QtGui.QIcon(color))
            self._table.setItem(row, 0, visible)
            self._table.setItem(row, 1, QtWidgets.QTableWidgetItem(segment.GetName()))
        self._table.blockSignals(was)

    def _toggled(self, item) -> None:
        if item.column() == 0 and self._node is not None:
            visible = item.checkState() == QtCore.Qt.Checked
            self._node.GetDisplayNode().SetSegmentVisibility(self._ids()[item.row()], visible)

    def _get_count(self) -> int:
        return len(self._ids())

    segmentCount = QtCore.Property(int, _get_count)


WIDGETS = {c.__name__: c for c in (qMRMLWidget, qMRMLNodeComboBox, qMRMLTableView, qMRMLSegmentsTableView)}
