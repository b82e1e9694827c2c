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

    def moduleManager(self):
        return ModuleManager(self._owner.modules)

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


class ModuleManager:
    """``slicer.app.moduleManager()``."""

    def __init__(self, modules):
        self._modules = modules

    def module(self, name: str):
        return getattr(self._modules, name.lower(), None)


class MainWindow(QtWidgets.QMainWindow):
    """Only there for its status bar, whose messages are recorded, its module selector, and the keys of modules."""

    def __init__(self, selector):
        super().__init__()
        self._selector = selector
        self.setObjectName("qSlicerMainWindow")
        self.statusBar().messageChanged.connect(lambda text: text and recorded.status.append(text))

    def moduleSelector(self):
        return self._selector


class _Module:
    """``slicer.modules.<name>``: a registered module."""

    def __init__(self, name: str, path: str = "", logic=None, instance=None, make_panel=None):
        self.name, self.path, self._logic, self._instance = name, path, logic, instance
        self._make_panel, self._panel = make_panel, None

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        """The module's panel, made when first asked for (scripted modules only)."""
        if self._panel is None and self._make_panel is not None:
            self._panel = self._make_panel()
        return self._panel


class _ScriptedModule(_Module):
    """qSlicerScriptedLoadableModule."""


class ModulePanel(QtWidgets.QWidget):
    """The widget that a scripted module fills (qSlicerScriptedLoadableModuleWidget)."""

    def __init__(self, name: str):
        super().__init__()
        self._entered, self._widget = False, None
        QtWidgets.QVBoxLayout(self)
        self.setObjectName(f"{name}ModuleWidget")

    def self(self):
        """The Python widget class behind the panel."""
        return self._widget

    isEntered = QtCore.Property(bool, lambda self: self._entered)


class Modules:
    """``slicer.modules``; a module that is not there is an AttributeError, as in Slicer."""

    def __init__(self, logics):
        import slicer

        slicer.qSlicerScriptedLoadableModule = _ScriptedModule
        slicer.qSlicerScriptedLoadableModuleWidget = ModulePanel
        for name, logic in logics.modules.items():
            setattr(self, name.lower(), _Module(name, logic=logic))

    def register(self, name: str, path: Path, instance, make_panel) -> None:
        """Enter a scripted module."""
        setattr(self, name.lower(), _ScriptedModule(name, str(path), instance=instance, make_panel=make_panel))

    def path_of(self, name: str) -> str:
        """File of a registered scripted module."""
        return getattr(self, name.lower()).path
