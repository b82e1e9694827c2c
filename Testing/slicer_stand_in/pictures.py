"""Pictures of the stand-in: a module's panel beside the 2x2 views, as Slicer shows them."""

from __future__ import annotations

import numpy as np
from PySide6 import QtCore, QtGui, QtWidgets

_BAR = 18


def to_qimage(pixels: np.ndarray) -> QtGui.QImage:
    """(rows, columns, 3) uint8 as a QImage that owns its memory."""
    height, width, _ = pixels.shape
    data = np.ascontiguousarray(pixels)
    return QtGui.QImage(data.data, width, height, 3 * width, QtGui.QImage.Format_RGB888).copy()


def _cells(application):
    """(title, colour, view widget, view) in reading order: axial, 3D, coronal, sagittal."""
    for name in ("Red", None, "Green", "Yellow"):
        if name is None:
            widget = application.layout.threeDWidget(0)
            yield "1   3D", (0.45, 0.49, 0.75), widget, widget.threeDView()
        else:
            widget = application.layout.sliceWidget(name)
            node = widget.mrmlSliceNode()
            yield f"{name[0]}   {node.GetOrientation()}", node.GetLayoutColor(), widget, widget.sliceView()


def _view_size(size: tuple[int, int], panel_width: int) -> tuple[int, int]:
    return (size[0] - panel_width) // 2, size[1] // 2


def size_views(application, size=(1280, 720), panel_width=440) -> None:
    """Give the views the size that :func:`photograph` shows them in; fit their content after that."""
    width, height = _view_size(size, panel_width)
    for _, _, widget, _ in _cells(application):
        widget.resize_view(width - 2, height - _BAR - 2)


def photograph(application, panel: QtWidgets.QWidget, size=(1280, 720), panel_width=440) -> QtGui.QImage:
    """The panel at the left and the 2x2 views at the right, drawn at ``size`` pixels."""
    view_width, view_height = _view_size(size, panel_width)
    picture = QtGui.QImage(*size, QtGui.QImage.Format_RGB32)
    picture.fill(QtGui.QColor(30, 30, 30))
    panel.resize(panel_width, size[1])
    panel.show()
    application.app.processEvents()
    painter = QtGui.QPainter(picture)
    painter.drawPixmap(0, 0, panel.grab(QtCore.QRect(0, 0, panel_width, size[1])))
    for index, (title, color, _, view) in enumerate(_cells(application)):
        left, top = panel_width + index % 2 * view_width + 1, index // 2 * view_height + 1
        painter.fillRect(left, top, view_width - 2, _BAR, QtGui.QColor.fromRgbF(*color))
        painter.setPen(QtGui.QColor(0, 0, 0))
        painter.drawText(left + 7, top + 13, title)
        painter.drawImage(left, top + _BAR, to_qimage(view.pixels()))
    painter.end()
    return picture


def save_png(picture: QtGui.QImage, path) -> None:
    """Write a compact PNG."""
    picture.convertToFormat(QtGui.QImage.Format_RGB888).save(str(path), "PNG", 0)
