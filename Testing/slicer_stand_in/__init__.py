"""A strict stand-in for the Slicer application, for tests and pictures of the modules.

The MRML classes, logics and displayable managers are Slicer's own, from the package ``slicer-core``; PySide6 plays
PythonQt. Whatever Slicer would refuse (an unknown signal, attribute, widget class, a missing connection in a .ui
file) is refused here too, and what the real widgets do not expose to Python does not exist here.

``start()`` sets everything up once per process and returns the :class:`~.application.Application`.
"""

from __future__ import annotations

from Testing.slicer_stand_in.availability import why_missing

__all__ = ["start", "why_missing"]

_application = None


def start():
    """The running stand-in; the first call creates it. RuntimeError says what is missing on this machine."""
    global _application
    if _application is None:
        reason = why_missing()
        if reason:
            raise RuntimeError(reason)
        from Testing.slicer_stand_in.application import Application

        _application = Application()
    return _application
