"""Slicer's Segment Editor as far as modules open it: the module, its widget, and the editor in it."""

from __future__ import annotations

import slicer

#: Tag of the node in which Segment Editor keeps its state.
SINGLETON_TAG = "SegmentEditor"


class SegmentEditor:
    """What ``qMRMLSegmentEditorWidget`` shows to Python and modules call; it refuses what the real one ignores."""

    __slots__ = ("_parameters", "_scene")

    def __init__(self):
        self._scene = self._parameters = None

    def setMRMLScene(self, scene) -> None:
        self._scene = scene

    def setMRMLSegmentEditorNode(self, node) -> None:
        self._parameters = node

    def mrmlSegmentEditorNode(self):
        return self._parameters

    def setSegmentationNode(self, node) -> None:
        self._require(node, "vtkMRMLSegmentationNode")
        self._parameters.SetAndObserveSegmentationNode(node)
        self._parameters.SetAndObserveSourceVolumeNode(None)  # it belongs to the segmentation that was chosen before
        ids = node.GetSegmentation().GetSegmentIDs()
        self._parameters.SetSelectedSegmentID(ids[0] if ids else "")

    def segmentationNode(self):
        return self._parameters.GetSegmentationNode()

    def setSourceVolumeNode(self, node) -> None:
        self._require(node, "vtkMRMLScalarVolumeNode")
        if self.segmentationNode() is None:
            raise RuntimeError("Segment Editor takes a source volume only after a segmentation")
        self._parameters.SetAndObserveSourceVolumeNode(node)

    def sourceVolumeNode(self):
        return self._parameters.GetSourceVolumeNode()

    def currentSegmentID(self) -> str:
        return self._parameters.GetSelectedSegmentID()

    def _require(self, node, kind: str) -> None:
        if self._parameters is None or self._parameters.GetScene() is None:
            raise RuntimeError("Segment Editor has no parameter node; select its module first")
        if node is None or not node.IsA(kind) or node.GetScene() is not self._scene:
            raise RuntimeError(f"Segment Editor wants a {kind} of the scene")


class SegmentEditorPanel:
    """``slicer.modules.segmenteditor.widgetRepresentation()`` and, through ``self()``, its Python widget."""

    def __init__(self):
        self.editor, self.isEntered = SegmentEditor(), False
        self.editor.setMRMLScene(slicer.mrmlScene)

    def self(self):
        """The Python widget class behind the panel."""
        return self

    def enter(self) -> None:
        """The user opens the module: take the scene's parameter node, or make one."""
        self.isEntered = True
        node = slicer.mrmlScene.GetSingletonNode(SINGLETON_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(SINGLETON_TAG)
            node = slicer.mrmlScene.AddNode(node)
        self.editor.setMRMLSegmentEditorNode(node)

    def exit(self) -> None:
        """The user goes to another module."""
        self.isEntered = False


class SegmentEditorModule:
    """``slicer.modules.segmenteditor``."""

    name = "SegmentEditor"

    def __init__(self):
        self._panel = SegmentEditorPanel()

    def widgetRepresentation(self) -> SegmentEditorPanel:
        return self._panel


class ModuleSelector:
    """``mainWindow().moduleSelector()``: opens a module and leaves the one that was open.

    Args:
        application: the stand-in.
    """

    def __init__(self, application):
        self._application = application

    def selectModule(self, name: str) -> None:
        """Open a module by name; Segment Editor, or one whose panel a test has made."""
        if name != "SegmentEditor" and not hasattr(slicer.modules, f"{name}Widget"):
            raise RuntimeError(f"there is no module {name}")
        if self._application.entered is not None:
            self._application.leave(self._application.entered)
        if name == "SegmentEditor":
            slicer.modules.segmenteditor.widgetRepresentation().enter()
        else:
            slicer.modules.segmenteditor.widgetRepresentation().exit()
            self._application.enter(getattr(slicer.modules, f"{name}Widget"))


def paint(segmentation, segment_id: str, mask, source) -> None:
    """Give a segment another shape the way the effects of Segment Editor do, through the module's logic.

    Args:
        mask: bool (k, j, i) on the grid of the volume ``source``.
    """
    from NeuraxisLib.scene import _oriented_image

    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not logic.SetBinaryLabelmapToSegment(
        _oriented_image(mask, source), segmentation, segment_id, logic.MODE_REPLACE, None
    ):
        raise RuntimeError("the segment could not be painted")
