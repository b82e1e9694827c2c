"""The flat module ``qt`` (and ``ctk``) as scripted modules import them; dialogs are recorded and answered."""

from __future__ import annotations

import types
from dataclasses import dataclass, field

from PySide6 import QtCore, QtGui, QtWidgets

from Testing.slicer_stand_in import ctk_widgets, ui_files


@dataclass
class Recorded:
    """What a user would have seen or been asked, and what the test answers.

    Attributes:
        dialogs: (kind, text) of every pop-up, in order.
        status: messages of the status bar.
        opened: addresses handed to the desktop.
        answers: replies for the next questions and file dialogs, first in first out; a pop-up that wants an answer
            and finds none is an error, because a normal flow has none.
    """

    dialogs: list[tuple[str, str]] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    answers: list = field(default_factory=list)

    def clear(self) -> None:
        """Forget everything, before the next test."""
        for record in (self.dialogs, self.status, self.opened, self.answers):
            record.clear()

    def ask(self, kind: str, text: str):
        """Record a pop-up that wants an answer and give the next one."""
        self.dialogs.append((kind, text))
        if not self.answers:
            raise AssertionError(f"an unexpected pop-up: {kind}: {text}")
        return self.answers.pop(0)


recorded = Recorded()


class QDesktopServices:
    """Records the address instead of opening it."""

    @staticmethod
    def openUrl(url) -> bool:
        recorded.opened.append(url.toLocalFile() or url.toString())
        return True


class QFileDialog(QtWidgets.QFileDialog):
    """The static questions answer with a plain string, as PythonQt's do (PySide gives a tuple)."""

    @staticmethod
    def getSaveFileName(parent=None, caption="", directory="", name_filter="", *options) -> str:
        return recorded.ask("save file", caption)

    @staticmethod
    def getOpenFileName(parent=None, caption="", directory="", name_filter="", *options) -> str:
        return recorded.ask("open file", caption)

    @staticmethod
    def getExistingDirectory(parent=None, caption="", directory="", *options) -> str:
        return recorded.ask("choose folder", caption)


class QMessageBox(QtWidgets.QMessageBox):
    """A message box that a test would wait for without end; it is recorded and answered instead."""

    def exec(self):
        return recorded.ask("message box", self.text)

    exec_ = exec


def make_qt() -> types.ModuleType:
    """Everything of QtCore, QtGui and QtWidgets in one flat module, as PythonQt has it."""
    module = types.ModuleType("qt")
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):
            if not name.startswith("_") and name not in ("Signal", "Slot", "Property"):
                setattr(module, name, getattr(source, name))
    for replacement in (QDesktopServices, QFileDialog, QMessageBox, ui_files.QUiLoader):
        setattr(module, replacement.__name__, replacement)
    return module


def make_ctk() -> types.ModuleType:
    """The module ``ctk`` with the stand-in widgets."""
    module = types.ModuleType("ctk")
    for name, widget in ctk_widgets.WIDGETS.items():
        setattr(module, name, widget)
    return module
