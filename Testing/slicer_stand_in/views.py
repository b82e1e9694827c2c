"""Slice and 3D views rendered off screen by Slicer's own displayable managers, and the layout manager."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager", "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager", "vtkMRMLSegmentationsDisplayableManager2D",
)  # fmt: skip
_THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager", "vtkMRMLViewDisplayableManager", "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)  # fmt: skip
_SLICES = {
    "Red": ("Axial", (0.95, 0.31, 0.30)),
    "Yellow": ("Sagittal", (0.93, 0.84, 0.30)),
    "Green": ("Coronal", (0.43, 0.69, 0.29)),
}


class _View:
    """A render window without a screen, and the picture in it."""

    def __init__(self, size: tuple[int, int]):
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetSize(*size)
        self.renderer = vtk.vtkRenderer()
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)

    def forceRender(self) -> None:
        self.window.Render()

    def pixels(self) -> np.ndarray:
        """Render and return (rows, columns, 3) uint8, top row first."""
        self.forceRender()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.ReadFrontBufferOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()


class SliceView(_View):
    """What ``sliceWidget.sliceView()`` is in Slicer: the blended layers under the displayable managers."""

    def __init__(self, logic, node, factory, size: tuple[int, int]):
        super().__init__(size)
        self._logic = logic
        self._image = vtk.vtkImageActor()  # in the 3D pass, so that what is drawn over it blends with it
        self._image.InterpolateOff()
        self._mapper = self._image.GetMapper()
        self.managers = factory.InstantiateDisplayableManagers(self.renderer)
        self.managers.SetMRMLDisplayableNode(node)

    def _one_pixel_per_pixel(self) -> None:
        """Look straight at the image, so that its pixels are those of the window."""
        width, height = self.window.GetSize()
        camera = self.renderer.GetActiveCamera()
        camera.ParallelProjectionOn()
        camera.SetFocalPoint(width / 2 - 0.5, height / 2 - 0.5, 0)
        camera.SetPosition(width / 2 - 0.5, height / 2 - 0.5, 1000)
        camera.SetParallelScale(height / 2)
        camera.SetClippingRange(1, 2000)

    def forceRender(self) -> None:
        self._one_pixel_per_pixel()
        connection = self._logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)
        if connection is not None and not self.renderer.HasViewProp(self._image):
            self.renderer.AddViewProp(self._image)
        elif connection is None:
            self.renderer.RemoveViewProp(self._image)
        super().forceRender()


class SliceWidget:
    """``layoutManager.sliceWidget(name)``: the slice logic with its node and view."""

    def __init__(self, name: str, scene, application_logic, factory, size: tuple[int, int]):
        orientation, color = _SLICES[name]
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        node = scene.CreateNodeByClass("vtkMRMLSliceNode")
        node.UnRegister(None)
        node.SetName(name)
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        node.SetOrientation(orientation)
        node.SetLayoutColor(*color)
        node = scene.AddNode(node)
        self._logic.SetMRMLScene(scene)
        self._logic.SetSliceNode(node)
        self._logic.ResizeSliceNode(*size)
        self._view = SliceView(self._logic, node, factory, size)
        self._size = size

    def sliceLogic(self):
        return self._logic

    def sliceView(self) -> SliceView:
        return self._view

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def resize_view(self, width: int, height: int) -> None:
        """Change the picture's size, as a change of the layout does."""
        self._view.window.SetSize(width, height)
        self._logic.ResizeSliceNode(width, height)


class ThreeDView(_View):
    """What ``threeDWidget.threeDView()`` is in Slicer."""

    def __init__(self, node, factory, size: tuple[int, int]):
        super().__init__(size)
        self._node = node
        self.managers = factory.InstantiateDisplayableManagers(self.renderer)
        self.managers.SetMRMLDisplayableNode(node)

    def mrmlViewNode(self):
        return self._node

    def resetFocalPoint(self) -> None:
        self.window.Render()  # the displayable managers add what was shown since the last picture
        self.renderer.ResetCamera()


class ThreeDWidget:
    """``layoutManager.threeDWidget(0)``."""

    def __init__(self, scene, application_logic, factory, size: tuple[int, int]):
        node = slicer.vtkMRMLViewNode()
        node.SetName("View1")
        node.SetLayoutName("1")
        node.SetSingletonTag("1")
        node.SetBoxVisible(False)
        node.SetAxisLabelsVisible(False)
        node = scene.AddNode(node)
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        self._logic.SetViewNode(node) if hasattr(self._logic, "SetViewNode") else None
        self._view = ThreeDView(node, factory, size)

    def threeDView(self) -> ThreeDView:
        return self._view

    def resize_view(self, width: int, height: int) -> None:
        """Change the picture's size."""
        self._view.window.SetSize(width, height)


class LayoutManager:
    """The part of ``slicer.app.layoutManager()`` that modules use."""

    def __init__(self, logics, size: tuple[int, int] = (320, 320)):
        scene, application = logics.scene, logics.application
        slices = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        three_d = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        for factory, managers in ((slices, _SLICE_MANAGERS), (three_d, _THREE_D_MANAGERS)):
            factory.SetMRMLApplicationLogic(application)
            for manager in managers:
                factory.RegisterDisplayableManager(manager)
        self._slices = {name: SliceWidget(name, scene, application, slices, size) for name in _SLICES}
        self._collection = vtk.vtkCollection()
        for widget in self._slices.values():
            self._collection.AddItem(widget.sliceLogic())
        application.SetSliceLogics(self._collection)
        self._three_d = ThreeDWidget(scene, application, three_d, size)
        self._layout = 3  # vtkMRMLLayoutNode::SlicerLayoutFourUpView

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._slices)

    def mrmlSliceLogics(self):
        return self._collection

    def sliceWidget(self, name: str):
        return self._slices.get(name)

    @property
    def threeDViewCount(self) -> int:
        return 1

    def threeDWidget(self, index: int) -> ThreeDWidget:
        return (self._three_d,)[index]

    @property
    def layout(self) -> int:
        return self._layout

    def setLayout(self, layout: int) -> None:
        self._layout = layout

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget.sliceLogic().FitSliceToAll()

    def resetThreeDViews(self) -> None:
        self._three_d.threeDView().resetFocalPoint()
