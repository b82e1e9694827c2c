"""The scene and the logics that Slicer has running before any module is opened."""

from __future__ import annotations

import slicer
import vtk

#: Module name -> logic class of slicer-core.
_LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "ViewControllers": "vtkSlicerViewControllersLogic",
}


class Logics:
    """Scene, application logic and module logics, wired as Slicer wires them.

    Args:
        temporary: folder for unpacking scene bundles; without it (and the two data-IO logics) loading an MRB ends
            the process.
    """

    def __init__(self, temporary: str):
        self.scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = self.scene
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetMRMLScene(self.scene)
        self.application.SetTemporaryPath(temporary)
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._remote.SetMRMLScene(self.scene)
        self._remote.GetCacheManager().SetRemoteCacheDirectory(temporary)
        self._remote.AddDataIOToScene()
        self._data_io = slicer.vtkDataIOManagerLogic()
        self._data_io.SetMRMLApplicationLogic(self.application)
        self._data_io.SetAndObserveDataIOManager(self._remote.GetDataIOManager())
        self.modules = {}
        errors = vtk.vtkObject.GetGlobalWarningDisplay()
        vtk.vtkObject.GlobalWarningDisplayOff()  # colour files that the package does not carry
        for name, class_name in _LOGICS.items():
            logic = getattr(slicer, class_name)()
            logic.SetMRMLApplicationLogic(self.application)
            logic.SetMRMLScene(self.scene)
            self.application.SetModuleLogic(name, logic)
            self.modules[name] = logic
        vtk.vtkObject.SetGlobalWarningDisplay(errors)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        self._add_crosshair()
        self._follow_nodes()

    def _add_crosshair(self) -> None:
        """The node that says where the mouse points, a singleton as in Slicer."""
        node = slicer.vtkMRMLCrosshairNode()
        node.SetSingletonTag("default")
        node.SetCrosshairName("default")
        node.SetName("Crosshair")
        self.scene.AddNode(node)

    def _follow_nodes(self) -> None:
        """Give every data node its item in the subject hierarchy, as the plugins of the real one do."""

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(scene, event, node) -> None:
            hierarchy = scene.GetSubjectHierarchyNode()
            wanted = node.IsA("vtkMRMLDisplayableNode") or node.IsA("vtkMRMLTableNode")
            hidden = node.GetHideFromEditors() or node.IsA("vtkMRMLSliceModelNode") or scene.IsImporting()
            if hierarchy is not None and wanted and not hidden and not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

        self.scene.AddObserver(self.scene.NodeAddedEvent, added)
