"""The stand-in's ``slicer.app``, ``slicer.modules`` and everything else that Slicer's own start-up provides."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import types
from pathlib import Path

from Testing.slicer_stand_in.availability import ENVIRONMENT


class Application:
    """One running stand-in; tests reach the application, the modules and what was recorded through it."""

    def __init__(self) -> None:
        os.environ.update(ENVIRONMENT)
        self._temporary = tempfile.TemporaryDirectory(prefix="stand-in-")
        import slicer
        from PySide6 import QtCore, QtWidgets

        from Testing.slicer_stand_in import qt_semantics

        self.qt_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
        self.qt_application.setStyle("Fusion")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, self._temporary.name)
        qt_semantics.install()
        self._install_modules(slicer)

    def _install_modules(self, slicer) -> None:
        from Testing.slicer_stand_in import qt_module

        sys.modules["qt"], sys.modules["ctk"] = qt_module.make_qt(), qt_module.make_ctk()
        from Testing.slicer_stand_in import packaging, parameter_node, scripted_module, translation
        from Testing.slicer_stand_in.logics import Logics
        from Testing.slicer_stand_in.segment_editor import ModuleSelector, SegmentEditorModule
        from Testing.slicer_stand_in.slicer_app import MainWindow, Modules, SlicerApp
        from Testing.slicer_stand_in.views import LayoutManager

        for name, module in (
            ("ScriptedLoadableModule", scripted_module),
            ("parameterNodeWrapper", parameter_node),
            ("i18n", translation),
        ):
            sys.modules[f"slicer.{name}"] = module
            setattr(slicer, name, module)
        # not an attribute of slicer: 'import slicer.packaging' is what a module has to do
        sys.modules["slicer.packaging"] = packaging
        self.recorded, self.packaging = qt_module.recorded, packaging
        self.logics = Logics(self._temporary.name)
        self.scene = self.logics.scene
        self.layout = LayoutManager(self.logics)
        slicer.app = self.app = SlicerApp(self)
        slicer.modules = self.modules = Modules(self.logics)
        self.modules.segmenteditor = SegmentEditorModule()
        self.entered = None  # the module's widget that the user has open
        self._main_window = MainWindow(ModuleSelector(self))

    @property
    def main_window(self):
        """The main window, which is not shown."""
        return self._main_window

    @property
    def temporary(self) -> str:
        """Folder that lives as long as the process."""
        return self._temporary.name

    def load_module(self, path: Path):
        """Import a scripted module's file and register it, as Slicer's module factory does; returns its module."""
        import slicer

        name = path.stem
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        parent = types.SimpleNamespace(path=str(path), name=name)
        instance = getattr(module, name)(parent)
        self.modules.register(name, path, instance, lambda: self.new_widget(name, enter=False).parent)
        setattr(slicer.modules, f"{name}Instance", instance)
        return module

    def start_up_completed(self) -> None:
        """Tell the modules that start-up is over."""
        self.app.startupCompleted.emit()

    def new_widget(self, name: str, enter: bool = True):
        """A module's Widget on a panel of its own, set up and (unless told otherwise) opened by the user."""
        from Testing.slicer_stand_in.slicer_app import ModulePanel

        panel = ModulePanel(name)
        widget = getattr(sys.modules[name], f"{name}Widget")(panel)
        panel._widget = widget
        setattr(self.modules, f"{name}Widget", widget)
        widget.setup()
        if enter:
            self.enter(widget)
        return widget

    def enter(self, widget) -> None:
        """The user opens the module."""
        widget.parent._entered, self.entered = True, widget
        if hasattr(widget, "enter"):
            widget.enter()
        self.app.processEvents()

    def leave(self, widget) -> None:
        """The user goes to another module."""
        widget.parent._entered, self.entered = False, None
        if hasattr(widget, "exit"):
            widget.exit()

    def close_widget(self, widget) -> None:
        """Leave and clean up, as Slicer does when it closes."""
        self.leave(widget)
        widget.cleanup()
        widget.parent.deleteLater()
        self.app.processEvents()

    def clear(self) -> None:
        """Empty scene, nothing recorded: the state before a test."""
        self.scene.Clear(0)
        self.layout.setLayout(3)
        self.recorded.clear()
        self.packaging.reset()
        self.app.processEvents()
