"""Stand-ins for the ctk widgets that the modules use, with the surface that Slicer exposes and no more."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from Testing.slicer_stand_in.stand_in_widget import stored

#: Qt's QWIDGETSIZE_MAX.
_UNLIMITED = (1 << 24) - 1


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A headed section whose contents can be hidden."""

    contentsCollapsed = QtCore.Signal(bool)
    collapsedHeight = stored(int, "collapsedHeight", 10)
    contentsLineWidth = stored(int, "contentsLineWidth", 1)
    contentsMidLineWidth = stored(int, "contentsMidLineWidth", 0)
    _HEADER = 24
    #: Property of a child that was hidden by whoever uses it; as in CTK, unfolding does not show it.
    _HIDDEN = "hiddenOnItsOwn"

    def __init__(self, parent=None):
        super().__init__(parent)
        self._values, self._is_collapsed, self._is_forcing = {}, False, False
        self.setCheckable(True)
        self.setChecked(True)
        policy = QtWidgets.QSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        policy.setHeightForWidth(True)  # wrapped texts inside decide the height
        self.setSizePolicy(policy)
        self.setContentsMargins(0, self._HEADER, 0, 0)
        self.toggled.connect(lambda checked: self._collapse(not checked))

    def _collapse(self, collapsed: bool) -> None:
        if collapsed == self._is_collapsed:
            return
        self._is_collapsed = collapsed
        self.setChecked(not collapsed)
        self.setMaximumHeight(self._HEADER if collapsed else _UNLIMITED)
        self.hide_folded()
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def hide_folded(self) -> None:
        """Show what is inside if the button is unfolded, but for what was hidden on its own."""
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
            self._show(child)

    def _show(self, child: QtWidgets.QWidget) -> None:
        self._is_forcing = True
        hidden = child.property(self._HIDDEN) is True
        child.setVisible(not hidden and not self._is_collapsed)
        child.setAttribute(QtCore.Qt.WA_WState_ExplicitShowHide, hidden)  # so that the next show or hide is an event
        self._is_forcing = False

    def childEvent(self, event) -> None:
        if event.added() and event.child().isWidgetType():
            event.child().installEventFilter(self)
        super().childEvent(event)

    def eventFilter(self, child, event) -> bool:
        kind = event.type()
        if kind in (QtCore.QEvent.ShowToParent, QtCore.QEvent.HideToParent) and not self._is_forcing:
            child.setProperty(self._HIDDEN, kind == QtCore.QEvent.HideToParent)
            self._show(child)
        return False

    def _get_collapsed(self) -> bool:
        return self._is_collapsed

    collapsed = QtCore.Property(bool, _get_collapsed, _collapse)

    def sizeHint(self):
        inner = self.layout().totalSizeHint() if self.layout() and not self._is_collapsed else QtCore.QSize(100, 0)
        return QtCore.QSize(inner.width(), max(inner.height(), self._HEADER) if self.layout() else self._HEADER)

    def minimumSizeHint(self):
        inner = self.layout().totalMinimumSize() if self.layout() and not self._is_collapsed else QtCore.QSize(0, 0)
        return QtCore.QSize(inner.width(), max(inner.height(), self._HEADER))

    def hasHeightForWidth(self) -> bool:
        return self.layout() is not None and self.layout().hasHeightForWidth()

    def heightForWidth(self, width: int) -> int:
        if self.layout() is None or self._is_collapsed:
            return self._HEADER
        return max(self.layout().totalHeightForWidth(width), self._HEADER)

    def hitButton(self, point) -> bool:
        return point.y() < self._HEADER

    def paintEvent(self, event) -> None:
        painter = QtGui.QPainter(self)
        palette = self.palette
        header = QtCore.QRect(0, 0, self.width, self._HEADER - 2)
        painter.fillRect(header, palette.color(QtGui.QPalette.Button).darker(106))
        arrow = "\u25b8" if self._is_collapsed else "\u25be"
        painter.setPen(palette.color(QtGui.QPalette.ButtonText))
        painter.drawText(header.adjusted(6, 0, 0, 0), QtCore.Qt.AlignVCenter, f"{arrow}  {self.text}")


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box with one value between ``minimum`` and ``maximum``.

    Without ``tracking``, a slider that is being dragged tells ``valueIsChanging`` and, when let go, ``valueChanged``.
    """

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    _signals = {"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"}

    def __init__(self, parent=None):
        super().__init__(parent)
        self._values = {}
        self._spin, self._slider = QtWidgets.QDoubleSpinBox(), QtWidgets.QSlider(QtCore.Qt.Horizontal)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._spin.valueChanged.connect(self._spin_moved)
        self._slider.valueChanged.connect(self._slider_moved)
        self._slider.sliderReleased.connect(self._released)
        self._told = self._spin.value
        self._set_range()

    def _set_range(self) -> None:
        self._slider.setRange(0, 1000)
        self._spin.setRange(self._values.get("minimum", 0.0), self._values.get("maximum", 99.0))
        self._spin.setDecimals(self._values.get("decimals", 2))
        self._spin.setSingleStep(self._values.get("singleStep", 1.0))
        self._spin.setSuffix(self._values.get("suffix", ""))
        self._spin.setPrefix(self._values.get("prefix", ""))

    def _span(self) -> float:
        return (self._spin.maximum - self._spin.minimum) or 1.0

    def _spin_moved(self, value: float) -> None:
        was = self._slider.blockSignals(True)
        self._slider.setValue(round((value - self._spin.minimum) / self._span() * 1000))
        self._slider.blockSignals(was)
        if self._slider.sliderDown and not self._values.get("tracking", True):
            self.valueIsChanging.emit(value)
        else:
            self._tell(value)

    def _tell(self, value: float) -> None:
        self._told = value
        self.valueChanged.emit(value)

    def _released(self) -> None:
        if self._spin.value != self._told:
            self._tell(self._spin.value)

    def _slider_moved(self, position: int) -> None:
        self._spin.setValue(self._spin.minimum + position / 1000 * self._span())

    decimals = stored(int, "decimals", 2, "_set_range")
    singleStep = stored(float, "singleStep", 1.0, "_set_range")
    pageStep = stored(float, "pageStep", 10.0, "_set_range")
    minimum = stored(float, "minimum", 0.0, "_set_range")
    maximum = stored(float, "maximum", 99.0, "_set_range")
    prefix = stored(str, "prefix", "", "_set_range")
    suffix = stored(str, "suffix", "", "_set_range")
    tracking = stored(bool, "tracking", True)

    def _get_value(self) -> float:
        return self._spin.value

    @QtCore.Slot(float)
    def setValue(self, value: float) -> None:
        self._spin.setValue(value)

    value = QtCore.Property(float, _get_value, setValue)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line with a path and a button that would browse for it."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    nameFilters = stored("QStringList", "nameFilters", [])
    label = stored(str, "label", "")
    settingKey = stored(str, "settingKey", "")
    showBrowseButton = stored(bool, "showBrowseButton", True)
    showHistoryButton = stored(bool, "showHistoryButton", True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._values, self._line = {}, QtWidgets.QLineEdit()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line)
        browse = QtWidgets.QToolButton()
        browse.setText("...")
        layout.addWidget(browse)
        self._line.textChanged.connect(self.currentPathChanged.emit)

    def _get_path(self) -> str:
        return self._line.text

    @QtCore.Slot(str)
    def setCurrentPath(self, path: str) -> None:
        self._line.setText(path)

    currentPath = QtCore.Property(str, _get_path, setCurrentPath)


WIDGETS = {c.__name__: c for c in (ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit)}
