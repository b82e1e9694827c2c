"""``slicer.ScriptedLoadableModule``: the four base classes of a scripted module."""

from __future__ import annotations

import unittest
from pathlib import Path

import qt  # the stand-in's
import slicer

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


class ScriptedLoadableModule:
    """Metadata of a module, written to ``self.parent``."""

    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__

    def getDefaultModuleDocumentationLink(self, docPage=None) -> str:
        return ""

    def runTest(self, msec=0, **kwargs) -> None:
        """Overridden by nobody here."""


class ScriptedLoadableModuleWidget:
    """Panel of a module; ``self.parent`` is the empty widget that ``setup`` fills."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, filename: str = "") -> str:
        """Path of a file in the module's Resources folder."""
        folder = Path(slicer.modules.path_of(self.moduleName)).parent / "Resources"
        return str(folder / filename)

    def setup(self) -> None:
        """Reload and test buttons of the developer mode would come here."""
        self.layout.setAlignment(qt.Qt.AlignTop)
        self.layout.setContentsMargins(4, 4, 4, 4)

    def cleanup(self) -> None:
        """Called when the panel goes."""

    def onReload(self) -> None:
        """Developer mode only."""


class ScriptedLoadableModuleLogic:
    """Logic of a module; its parameter node is a singleton of the scene."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        for index in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")):
            node = slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLScriptedModuleNode")
            if node.GetModuleName() == self.moduleName:
                return node
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Tests that Slicer runs; ``runTest`` calls them one after the other."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.messageDelay = 0

    def delayDisplay(self, message, requestedDelay=None, msec=None) -> None:
        """Show a message while testing."""
