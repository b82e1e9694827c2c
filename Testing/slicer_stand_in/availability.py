"""Whether this machine can run the stand-in: packages, and a software renderer that does not crash."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import lru_cache

#: Settings that have to be in the environment before PySide6 and VTK are imported.
ENVIRONMENT = {
    "VTK_DEFAULT_OPENGL_WINDOW": "vtkOSOpenGLRenderWindow",
    "QT_QPA_PLATFORM": "offscreen",
    "PYSIDE6_OPTION_PYTHON_ENUM": "2",
}
_PROBES = (
    (
        "import vtkmodules.vtkRenderingOpenGL2; from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow;"
        "w = vtkRenderWindow(); w.SetOffScreenRendering(1); w.SetSize(8, 8); w.AddRenderer(vtkRenderer());"
        "w.Render(); assert w.GetClassName() == 'vtkOSOpenGLRenderWindow'",
        "VTK finds no software renderer; install libosmesa6",
    ),
    ("from PySide6 import QtWidgets; QtWidgets.QApplication([])", "Qt does not start; install libegl1"),
)


@lru_cache(maxsize=1)
def why_missing() -> str:
    """One sentence on what is missing; empty when the stand-in can start.

    VTK without any renderer ends the process with a segmentation fault, so it is tried in a process of its own.
    """
    for package, distribution in (("slicer", "slicer-core"), ("PySide6", "PySide6-Essentials")):
        if importlib.util.find_spec(package) is None:
            return f"{distribution} is not installed; 'pip install slicer-core PySide6-Essentials' brings both."
    environment = {**os.environ, **ENVIRONMENT}
    for code, remedy in _PROBES:
        probe = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
        if probe.returncode:
            return f"The Slicer stand-in cannot run here: {remedy} (exit {probe.returncode})."
    return ""
