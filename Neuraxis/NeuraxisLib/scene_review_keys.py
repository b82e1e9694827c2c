"""Keys of a panel while it is open, as a reading session needs them; none of them is a key of Slicer's own.

Slicer's views take B, F, V, R, G, T, the arrows and brackets; its menus take Ctrl with a letter or a digit. Keys that
only look are plain letters; keys that change something need Shift.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer

NEXT_SLICE, OVERLAY, ACCEPT, UNDO, NEXT_CASE = "N", "O", "Shift+A", "Shift+U", "Shift+N"
#: Widgets in which letters are text.
_TEXT_FIELDS = ("QLineEdit", "QTextEdit", "QPlainTextEdit", "QAbstractSpinBox")


class Keys:
    """Shortcuts of the main window.

    Args:
        actions: key -> what it does.
    """

    def __init__(self, actions: Mapping[str, Callable[[], Any]]):
        self._actions, self._shortcuts = actions, []

    def install(self) -> None:
        """Make the keys work from now on; without a main window there are none."""
        window = slicer.util.mainWindow()
        if self._shortcuts or window is None:
            return
        for key, action in self._actions.items():
            shortcut = qt.QShortcut(window)
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.connect("activated()", functools.partial(self._pressed, action))
            self._shortcuts.append(shortcut)

    def remove(self) -> None:
        """Let go of the keys."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    @staticmethod
    def _pressed(action: Callable[[], Any]) -> None:
        if not is_typing():
            action()


def is_typing() -> bool:
    """Whether the keyboard belongs to a text field."""
    focus = qt.QApplication.focusWidget()
    if isinstance(focus, qt.QComboBox):
        return bool(focus.editable)
    return focus is not None and isinstance(focus, tuple(getattr(qt, name) for name in _TEXT_FIELDS))


def tell(widget: Any, key: str) -> None:
    """Let the tool tip of a widget name its key."""
    widget.toolTip = f"{widget.toolTip} [{key}]".strip()
