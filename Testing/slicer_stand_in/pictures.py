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


def photograph(application, panel: QtWidgets.QWidget, size=(1280, 720), panel_width=440) -> QtGui.QImage:
    """The panel at the left and the views (axial, 3D, coronal, sagittal) at the right, drawn at ``size`` pixels."""
    width, height = size
    view_width, view_height = (width - panel_width) // 2, height // 2
    picture = QtGui.QImage(width, height, QtGui.QImage.Format_RGB32)
    picture.fill(QtGui.QColor(30, 30, 30))
    panel.setParent(None)
    panel.resize(panel_width, height)
    panel.show()
    application.app.processEvents()
    painter = QtGui.QPainter(picture)
    painter.drawPixmap(0, 0, panel.grab(QtCore.QRect(0, 0, panel_width, height)))
    layout = application.layout
    cells = (("Red", 0, 0), (None, 1, 0), ("Green", 0, 1), ("Yellow", 1, 1))
    for name, column, row in cells:
        widget = layout.sliceWidget(name) if name else layout.threeDWidget(0)
        widget.resize_view(view_width - 2, view_height - _BAR - 2)
        left, top = panel_width + column * view_width, row * view_height
        color = widget.mrmlSliceNode().GetLayoutColor() if name else (0.45, 0.49, 0.75)
        painter.fillRect(left + 1, top + 1, view_width - 2, _BAR, QtGui.QColor.fromRgbF(*color))
        painter.setPen(QtGui.QColor(0, 0, 0))
        text = f"{name[0]}   {widget.mrmlSliceNode().GetOrientation()}" if name else "1   3D"
        painter.drawText(left + 8, top + 14, text)
        view = widget.sliceView() if name else widget.threeDView()
        painter.drawImage(left + 1, top + 1 + _BAR, to_qimage(view.pixels()))
    painter.end()
    return picture


def save_png(picture: QtGui.QImage, path, colors: int = 256) -> None:
    """Write a compact PNG: a palette of ``colors`` is enough for grey scans and a plain panel."""
    picture.convertToFormat(QtGui.QImage.Format_Indexed8, QtCore.Qt.DiffuseDither).save(str(path), "PNG", 0)
