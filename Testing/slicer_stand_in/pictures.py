"""Pictures of the stand-in: a module's panel beside the views of the layout, as Slicer shows them."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
from PySide6 import QtCore, QtGui, QtWidgets

_BAR = 18


def to_qimage(pixels: np.ndarray) -> QtGui.QImage:
    """(rows, columns, 3) uint8 as a QImage that owns its memory."""
    height, width, _ = pixels.shape
    data = np.ascontiguousarray(pixels)
    return QtGui.QImage(data.data, width, height, 3 * width, QtGui.QImage.Format_RGB888).copy()


def _cells(application, left: float, top: float, width: float, height: float):
    """(title, colour, view widget, view, rectangle) of every view in the layout that is shown, in reading order."""
    description = application.layout.layoutLogic().GetLayoutNode().GetCurrentLayoutDescription()
    yield from _within(application, ElementTree.fromstring(description), left, top, width, height)


def _within(application, element, left: float, top: float, width: float, height: float):
    if element.tag == "view":
        yield (*_view(application, element), (round(left), round(top), round(width), round(height)))
        return
    items = element.findall("item")
    across = element.get("type") == "horizontal"
    for index, item in enumerate(items):
        share = index / len(items)
        place = (left + share * width, top) if across else (left, top + share * height)
        size = (width / len(items), height) if across else (width, height / len(items))
        yield from _within(application, item[0], *place, *size)


def _view(application, element):
    """(title, colour, view widget, view) of a view in a layout's description."""
    kind, tag, layout = element.get("class"), element.get("singletontag"), application.layout
    if kind == "vtkMRMLSliceNode":
        widget = layout.sliceWidget(tag)
        node = widget.mrmlSliceNode()
        title = f"{node.GetLayoutLabel() or tag[0]}   {node.GetOrientation()}"
        return title, node.GetLayoutColor(), widget, widget.sliceView()
    if kind == "vtkMRMLPlotViewNode":
        widgets = (layout.plotWidget(index) for index in range(layout.plotViewCount))
        widget = next(w for w in widgets if w.mrmlPlotViewNode().GetLayoutName() == tag)
        return widget.mrmlPlotViewNode().GetLayoutLabel(), (0.85, 0.85, 0.85), widget, widget.plotView()
    return "1   3D", (0.45, 0.49, 0.75), layout.threeDWidget(0), layout.threeDWidget(0).threeDView()


def size_views(application, size=(1280, 720), panel_width=440) -> None:
    """Give the views the size that :func:`photograph` shows them in; fit their content after that."""
    for _, _, widget, _, (_, _, width, height) in _cells(application, 0, 0, size[0] - panel_width, size[1]):
        widget.resize_view(width - 2, height - _BAR - 2)


def photograph(
    application, panel: QtWidgets.QWidget, size=(1280, 720), panel_width=440, top: QtWidgets.QWidget | None = None
) -> QtGui.QImage:
    """The panel at the left and the views of the layout at the right, drawn at ``size`` pixels.

    The panel is scrolled until ``top`` is its first widget that is seen, if it is long enough for that.
    """
    picture = QtGui.QImage(*size, QtGui.QImage.Format_RGB32)
    picture.fill(QtGui.QColor(30, 30, 30))
    height = max(size[1], panel.layout().totalHeightForWidth(panel_width))
    panel.resize(panel_width, height)
    panel.show()
    application.app.processEvents()
    above = 0 if top is None else top.mapTo(panel, QtCore.QPoint(0, -6)).y()
    above = min(above, height - size[1])
    painter = QtGui.QPainter(picture)
    painter.drawPixmap(0, 0, panel.grab(QtCore.QRect(0, above, panel_width, size[1])))
    cells = _cells(application, panel_width, 0, size[0] - panel_width, size[1])
    for title, color, _, view, (left, top, width, _) in cells:
        painter.fillRect(left + 1, top + 1, width - 2, _BAR, QtGui.QColor.fromRgbF(*color))
        painter.setPen(QtGui.QColor(0, 0, 0))
        painter.drawText(left + 8, top + 14, title)
        painter.drawImage(left + 1, top + 1 + _BAR, to_qimage(view.pixels()))
    painter.end()
    return picture


def save_png(picture: QtGui.QImage, path) -> None:
    """Write a compact PNG: 32 steps per colour, which greys keep grey."""
    from PIL import Image

    rgb = picture.convertToFormat(QtGui.QImage.Format_RGB888)
    pixels = np.frombuffer(rgb.constBits(), np.uint8).reshape(rgb.height(), rgb.bytesPerLine())[:, : 3 * rgb.width()]
    steps = (pixels & 0xF8) | (pixels >> 5)
    Image.fromarray(steps.reshape(rgb.height(), rgb.width(), 3)).save(path, "PNG", optimize=True)
