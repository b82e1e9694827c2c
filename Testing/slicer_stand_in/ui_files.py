"""Loading .ui files: Qt's own loader, the stand-in widgets, and connections made only where the file has them."""

from __future__ import annotations

from xml.etree import ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from Testing.slicer_stand_in import ctk_widgets, mrml_widgets
from Testing.slicer_stand_in.qt_semantics import connect
from Testing.slicer_stand_in.surface import SURFACE

STAND_INS = {**ctk_widgets.WIDGETS, **mrml_widgets.WIDGETS}


class QUiLoader(QtUiTools.QUiLoader):
    """As ``qt.QUiLoader``, refusing unknown classes and properties, which Qt would pass over with a warning."""

    def createWidget(self, class_name, parent=None, name=""):
        if class_name not in STAND_INS:
            return super().createWidget(class_name, parent, name)
        widget = STAND_INS[class_name](parent)
        widget.setObjectName(name)
        return widget

    def load(self, file, parent=None):
        text = bytes(file.readAll().data()).decode()
        tree = ElementTree.fromstring(text)
        _check(tree)
        connections = [
            tuple(node.findtext(part, "") for part in ("sender", "signal", "receiver", "slot"))
            for node in tree.iter("connection")
        ]
        for node in tree.findall("connections"):
            tree.remove(node)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.ReadOnly)
        top = super().load(buffer, parent)
        for button in [top, *top.findChildren(ctk_widgets.ctkCollapsibleButton)]:
            if isinstance(button, ctk_widgets.ctkCollapsibleButton):
                button.hide_folded()
        for connection in connections:
            _make(top, *connection)
        return top


def _check(tree: ElementTree.Element) -> None:
    for node in tree.iter("widget"):
        name = node.get("class")
        if name not in STAND_INS and not hasattr(QtWidgets, name):
            raise RuntimeError(f"the .ui file uses the widget class {name}, which the stand-in does not have")
        if name in SURFACE:
            base = getattr(QtWidgets, SURFACE[name].base).staticMetaObject
            for prop in node.findall("property"):
                known = prop.get("name") in SURFACE[name].properties or base.indexOfProperty(prop.get("name")) >= 0
                if not known and prop.get("stdset") != "0":
                    raise RuntimeError(f"the .ui file sets {name}.{prop.get('name')}, which that class does not have")


def _make(top, sender: str, signal: str, receiver: str, slot: str) -> None:
    """Make one connection of the file; its slot is named by C++ signature, its method by the bare name."""
    widgets = {w.objectName: w for w in [top, *top.findChildren(QtCore.QObject)]}
    for name in (sender, receiver):
        if name not in widgets:
            raise RuntimeError(f"the .ui file connects '{name}', which it does not contain")
    method = getattr(widgets[receiver], slot.partition("(")[0], None)
    if not callable(method):
        raise RuntimeError(f"the .ui file connects to {receiver}.{slot}, which is not a slot")
    connect(widgets[sender], signal, method)
