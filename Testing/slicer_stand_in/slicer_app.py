"""``slicer.app``, ``slicer.modules`` and the main window's status bar."""

from __future__ import annotations

from pathlib import Path

from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in.qt_module import recorded


class SlicerApp(QtCore.QObject):
    """The part of qSlicerApplication that modules use."""

    startupCompleted = QtCore.Signal()
    _signals = {"startupCompleted()": "startupCompleted"}
    applicationName = "Slicer"
    applicationVersion = "5.12.3-stand-in"
    majorVersion, minorVersion = 5, 12
    revision = "stand-in"

    def __init__(self, owner):
        super().__init__()
        self._owner = owner
        self._testing = False

    @property
    def temporaryPath(self) -> str:
        return self._owner.temporary

    @property
    def slicerUserSettingsFilePath(self) -> str:
        return str(Path(self._owner.temporary) / "Slicer.ini")

    def applicationLogic(self):
        return self._owner.logics.application

    def layoutManager(self):
        return self._owner.layout

    def mrmlScene(self):
        return self._owner.scene

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()
        QtWidgets.QApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)

    def testingEnabled(self) -> bool:
        return self._testing

    def settings(self):
        return QtCore.QSettings()

    def userSettings(self):
        return QtCore.QSettings()

    def topLevelWidgets(self):
        return QtWidgets.QApplication.topLevelWidgets()

    def pauseRender(self) -> None:
        """Nothing renders by itself here."""

    def resumeRender(self) -> None:
        """Nothing renders by itself here."""

    def setOverrideCursor(self, cursor) -> None:
        QtWidgets.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        QtWidgets.QApplication.restoreOverrideCursor()


class MainWindow(QtWidgets.QMainWindow):
    """Only there for its status bar, whose messages are recorded."""

    def __init__(self):
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.statusBar().messageChanged.connect(lambda text: text and recorded.status.append(text))


class _Module:
    """``slicer.modules.<name>``: a registered module."""

    def __init__(self, name: str, path: str = "", logic=None, instance=None):
        self.name, self.path, self._logic, self._instance = name, path, logic, instance

    def logic(self):
        return self._logic


class Modules:
    """``slicer.modules``; a module that is not there is an AttributeError, as in Slicer."""

    def __init__(self, logics):
        for name, logic in logics.modules.items():
            setattr(self, name.lower(), _Module(name, logic=logic))

    def register(self, name: str, path: Path, instance, module) -> None:
        """Enter a scripted module."""
        setattr(self, name.lower(), _Module(name, str(path), instance=instance))

    def path_of(self, name: str) -> str:
        """File of a registered scripted module."""
        return getattr(self, name.lower()).path
