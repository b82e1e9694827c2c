"""Slice and 3D views rendered off screen by Slicer's own displayable managers, and the layout manager."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager", "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager", "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager", "vtkMRMLMarkupsDisplayableManager",
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

    def __init__(self, node, scene, application_logic, factory, size: tuple[int, int]):
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        self._logic.SetSliceNode(node)
        self._logic.ResizeSliceNode(*size)
        application_logic.GetSliceLogics().AddItem(self._logic)  # before the managers, which look for it there
        self._view = SliceView(self._logic, node, factory, size)
        self._size = size

    def sliceLogic(self):
        return self._logic

    def sliceView(self) -> SliceView:
        return self._view

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def resize_view(self, width: int, height: int) -> None:
        """Change the picture's size, as a change of the layout does."""
        self._view.window.SetSize(width, height)
        self._logic.ResizeSliceNode(width, height)


class PlotView(_View):
    """What ``plotWidget.plotView()`` is in Slicer: the chart of the view's chart node."""

    def __init__(self, node, size: tuple[int, int]):
        super().__init__(size)
        self._node = node
        self.renderer.SetBackground(1, 1, 1)
        self._chart = vtk.vtkChartXY()
        actor = vtk.vtkContextActor()
        actor.GetScene().AddItem(self._chart)
        actor.GetScene().SetRenderer(self.renderer)
        self.renderer.AddActor(actor)

    def mrmlPlotViewNode(self):
        return self._node

    def forceRender(self) -> None:
        chart, node = self._chart, self._node.GetPlotChartNode()
        chart.ClearPlots()
        if node is not None:
            chart.SetTitle(node.GetTitle() or "")
            chart.SetShowLegend(node.GetLegendVisibility())
            for side, title in ((vtk.vtkAxis.BOTTOM, node.GetXAxisTitle()), (vtk.vtkAxis.LEFT, node.GetYAxisTitle())):
                chart.GetAxis(side).SetTitle(title or "")
            for index in range(node.GetNumberOfPlotSeriesNodes()):
                self._draw(node.GetNthPlotSeriesNode(index))
            chart.RecalculateBounds()
        super().forceRender()

    def _draw(self, series) -> None:
        table = series.GetTableNode().GetTable() if series.GetTableNode() is not None else None
        columns = (series.GetXColumnName(), series.GetYColumnName())
        if table is None or table.GetNumberOfRows() == 0 or None in map(table.GetColumnByName, columns):
            return
        plot = self._chart.AddPlot(vtk.vtkChart.LINE)
        plot.SetInputData(table, *columns)
        plot.SetColor(*(round(255 * part) for part in series.GetColor()), 255)
        plot.SetWidth(series.GetLineWidth())
        plot.SetLabel(series.GetName())


class PlotWidget:
    """``layoutManager.plotWidget(index)``."""

    def __init__(self, node, size: tuple[int, int]):
        self._view = PlotView(node, size)

    def plotView(self) -> PlotView:
        return self._view

    def mrmlPlotViewNode(self):
        return self._view.mrmlPlotViewNode()

    def resize_view(self, width: int, height: int) -> None:
        """Change the picture's size."""
        self._view.window.SetSize(width, height)


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
        """As Slicer does: look at what is there, without the box and its letters, then let these go around it."""
        node = self._node
        shown = node.GetBoxVisible(), node.GetAxisLabelsVisible()
        node.SetBoxVisible(False)
        node.SetAxisLabelsVisible(False)
        self.window.Render()  # the displayable managers add what was shown since the last picture
        self.renderer.ResetCamera()
        node.SetBoxVisible(shown[0])
        node.SetAxisLabelsVisible(shown[1])
        node.InvokeEvent(node.ResetFocalPointRequestedEvent)


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
    """The part of ``slicer.app.layoutManager()`` that modules use; which views there are, the layout node says."""

    def __init__(self, logics, size: tuple[int, int] = (320, 320)):
        scene, application = logics.scene, logics.application
        slices = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        three_d = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        for factory, managers in ((slices, _SLICE_MANAGERS), (three_d, _THREE_D_MANAGERS)):
            factory.SetMRMLApplicationLogic(application)
            for manager in managers:
                factory.RegisterDisplayableManager(manager)
        self._new_slice = lambda node: SliceWidget(node, scene, application, slices, size)
        self._slices, self._plots, self._size, self._collection = {}, {}, size, vtk.vtkCollection()
        application.SetSliceLogics(self._collection)
        for name, (orientation, color) in _SLICES.items():
            self._slices[name] = self._new_slice(_slice_node(scene, name, orientation, color))
        self._three_d = ThreeDWidget(scene, application, three_d, size)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(application)
        self._logic.SetMRMLScene(scene)
        self._node = self._logic.GetLayoutNode()
        self._node.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._follow)

    def _follow(self, *_) -> None:
        """Make the views that the layout asks for and that are not there yet; those made once stay, as in Slicer."""
        nodes = self._logic.GetViewNodes()
        for node in (nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())):
            name = node.GetLayoutName()
            if node.IsA("vtkMRMLSliceNode") and name not in self._slices:
                self._slices[name] = self._new_slice(node)
            elif node.IsA("vtkMRMLPlotViewNode") and name not in self._plots:
                self._plots[name] = PlotWidget(node, self._size)

    def layoutLogic(self):
        return self._logic

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
    def plotViewCount(self) -> int:
        return len(self._plots)

    def plotWidget(self, index: int):
        return tuple(self._plots.values())[index]

    @property
    def layout(self) -> int:
        return self._node.GetViewArrangement()

    def setLayout(self, layout: int) -> None:
        self._node.SetViewArrangement(layout)

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget.sliceLogic().FitSliceToAll()

    def resetThreeDViews(self) -> None:
        self._three_d.threeDView().resetFocalPoint()


def _slice_node(scene, name: str, orientation: str, color: tuple[float, float, float]):
    node = scene.CreateNodeByClass("vtkMRMLSliceNode")
    node.UnRegister(None)
    node.SetName(name)
    node.SetLayoutName(name)
    node.SetSingletonTag(name)
    node.SetOrientation(orientation)
    node.SetLayoutColor(*color)
    return scene.AddNode(node)
