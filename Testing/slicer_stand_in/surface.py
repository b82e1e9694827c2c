"""What Slicer exposes to Python of the ctk and qMRML widgets: Qt properties, signals, slots and invokables.

PythonQt shows nothing else of a C++ class, whatever its header says; ``ctkSliderWidget.setRange`` is the classic
trap. Only the classes that the modules may use are listed; the stand-ins are checked against this table, and so
are the module files and their .ui files (Testing/test_static_slicer.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WidgetSurface:
    """One widget class: the Qt class it derives from and what it adds to it."""

    base: str
    properties: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


_SCENE_SIGNAL = "mrmlSceneChanged(vtkMRMLScene*)"

SURFACE: dict[str, WidgetSurface] = {
    "qMRMLWidget": WidgetSurface("QWidget", (), (_SCENE_SIGNAL,), ("setMRMLScene", "mrmlScene")),
    "ctkCollapsibleButton": WidgetSurface(
        "QAbstractButton",
        ("collapsed", "collapsedHeight", "contentsFrameShape", "contentsFrameShadow", "contentsLineWidth",
         "contentsMidLineWidth", "buttonTextAlignment", "indicatorAlignment"),
        ("contentsCollapsed(bool)",),
    ),
    "ctkSliderWidget": WidgetSurface(
        "QWidget",
        ("decimals", "singleStep", "pageStep", "minimum", "maximum", "value", "prefix", "suffix", "tickInterval",
         "tracking", "spinBoxVisible", "popupSlider"),
        ("valueChanged(double)", "valueIsChanging(double)"),
        ("reset", "setValue", "setSpinBoxVisible"),
    ),
    "ctkPathLineEdit": WidgetSurface(
        "QWidget",
        ("currentPath", "nameFilters", "label", "settingKey", "showBrowseButton", "showHistoryButton"),
        ("currentPathChanged(QString)", "validInputChanged(bool)"),
        ("setCurrentPath", "browse", "addCurrentPathToHistory"),
    ),
    "qMRMLNodeComboBox": WidgetSurface(
        "QWidget",
        ("currentNodeID", "nodeTypes", "showHidden", "showChildNodeTypes", "hideChildNodeTypes", "baseName",
         "noneEnabled", "addEnabled", "removeEnabled", "editEnabled", "renameEnabled", "selectNodeUponCreation",
         "noneDisplay", "interactionNodeSingletonTag"),
        ("currentNodeChanged(vtkMRMLNode*)", "currentNodeChanged(bool)", "currentNodeIDChanged(QString)",
         "nodeActivated(vtkMRMLNode*)", "nodeAdded(vtkMRMLNode*)"),
        ("mrmlScene", "setMRMLScene", "currentNode", "setCurrentNode", "setCurrentNodeID", "setCurrentNodeIndex",
         "nodeCount", "nodeFromIndex", "addAttribute", "removeAttribute", "sortFilterProxyModel"),
    ),
    "qMRMLTableView": WidgetSurface(
        "QTableView",
        ("transposed", "firstRowLocked", "firstColumnLocked"),
        (_SCENE_SIGNAL, "selectionChanged()"),
        ("mrmlScene", "setMRMLScene", "mrmlTableNode", "setMRMLTableNode"),
    ),
    "qMRMLSegmentsTableView": WidgetSurface(
        "QWidget",
        ("selectionMode", "headerVisible", "visibilityColumnVisible", "colorColumnVisible", "opacityColumnVisible",
         "statusColumnVisible", "layerColumnVisible", "readOnly", "filterBarVisible", "segmentCount",
         "jumpToSelectedSegmentEnabled"),
        (_SCENE_SIGNAL,),
        ("mrmlScene", "setMRMLScene", "segmentationNode", "setSegmentationNode", "tableWidget"),
    ),
}  # fmt: skip
