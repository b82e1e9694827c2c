"""Helpers for the stand-in widgets: plain properties that live in a dictionary, and the scene slot."""

from __future__ import annotations

from PySide6 import QtCore


def stored(kind: type, name: str, default, changed: str = ""):
    """A Qt property kept in ``self._values``; ``changed`` names a method to call after it was set."""

    def read(self):
        return self._values.get(name, default)

    def write(self, value) -> None:
        self._values[name] = value
        if changed:
            getattr(self, changed)()

    return QtCore.Property(kind, read, write)


class Observing:
    """Observers on VTK objects that go when the widget goes; VTK would keep calling a deleted widget."""

    def _observe(self, vtk_object, event, function) -> None:
        import shiboken6

        def guarded(caller, event_name, *_):
            if shiboken6.isValid(self):
                function()

        self._observed = [*getattr(self, "_observed", []), (vtk_object, vtk_object.AddObserver(event, guarded))]

    def _forget(self) -> None:
        for vtk_object, tag in getattr(self, "_observed", []):
            vtk_object.RemoveObserver(tag)
        self._observed = []
