"""Between the MRML scene and the library: volume nodes become Volumes, Results become nodes.

Only the ``scene*.py`` files of the library import slicer and vtk. Nothing here needs a window: all of it runs on the
MRML classes alone.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field

import numpy as np
import slicer
import vtk

from NeuraxisLib.columns import column_meanings
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.labels import Label, LabelTable
from NeuraxisLib.result import Result
from NeuraxisLib.scene_maps import fill_map
from NeuraxisLib.scene_tables import fill_chart, fill_points, fill_table, measurement_table
from NeuraxisLib.task import get_task
from NeuraxisLib.volume import Volume

#: Node reference role from every result node to the volume it was computed from.
SOURCE_ROLE = "NeuraxisSource"
#: Node attributes: the task of a result node, its part in the result, what segmentation or points remember.
TASK_ATTRIBUTE, PART_ATTRIBUTE = "Neuraxis.Task", "Neuraxis.Part"
KEY_SLICES_ATTRIBUTE, WARNINGS_ATTRIBUTE = "Neuraxis.KeySlices", "Neuraxis.Warnings"
PROVENANCE_ATTRIBUTE = "Neuraxis.Provenance"
#: The :func:`label_mark` of what a computation drew last; segments that differ from it were edited by hand.
DRAWN_ATTRIBUTE = "Neuraxis.Drawn"
#: Classes of the nodes that hold results.
RESULT_CLASSES = (
    "vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode", "vtkMRMLTableNode", "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode", "vtkMRMLMarkupsFiducialNode",
)  # fmt: skip


@dataclass
class SceneResult:
    """The nodes that hold a result.

    Attributes:
        segmentation: segmentation node, or None if the result has no label map.
        maps: name in the result -> scalar volume node.
        tables: name in the result -> table node; the measurements are in ``"measurements"``.
        curves: name in the result -> plot chart node, for a plot view.
        points: point list node, or None if the result has no points.
    """

    segmentation: slicer.vtkMRMLSegmentationNode | None = None
    maps: dict[str, slicer.vtkMRMLScalarVolumeNode] = field(default_factory=dict)
    tables: dict[str, slicer.vtkMRMLTableNode] = field(default_factory=dict)
    curves: dict[str, slicer.vtkMRMLPlotChartNode] = field(default_factory=dict)
    points: slicer.vtkMRMLMarkupsFiducialNode | None = None


# -- from the scene -------------------------------------------------------------------------------------------


def why_unsuitable(node: slicer.vtkMRMLVolumeNode | None) -> str:
    """One sentence on why a node cannot be computed on; empty if it can."""
    if node is None:
        return "Choose a volume first."
    name = node.GetName()
    if type(node) is not slicer.vtkMRMLScalarVolumeNode:
        return f"'{name}' is not a plain image (it is a {node.GetNodeTagName()}); choose a scalar volume."
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return f"'{name}' holds no image; load it again or choose another volume."
    if image.GetNumberOfScalarComponents() != 1:
        return f"'{name}' holds {image.GetNumberOfScalarComponents()} values per voxel; choose a plain image."
    if min(image.GetDimensions()) < 2:
        return f"'{name}' is a single picture, not a stack of slices; choose a volume."
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        return (
            f"'{name}' lies under a non-linear transform, which moves every voxel differently; harden the transform "
            "on a copy, or load the series again with its acquisition geometry left as it is."
        )
    return ""


def first_suitable() -> slicer.vtkMRMLScalarVolumeNode | None:
    """A volume that can be computed on and is no result: one that a slice view shows, else the first of the scene."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    suitable = [node for node in nodes if not why_unsuitable(node) and not node.GetAttribute(PART_ATTRIBUTE)]
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    shown = {composite.GetBackgroundVolumeID() for composite in composites}
    return next((node for node in suitable if node.GetID() in shown), next(iter(suitable), None))


def volume_from_node(node: slicer.vtkMRMLVolumeNode, unit: str = "HU") -> Volume:
    """The image of a volume node with its geometry in the world, linear parent transforms included.

    Args:
        node: a scalar volume node.
        unit: unit of the voxels where the node does not name one.

    Raises:
        GeometryError: a non-linear parent transform.
        InputError: no node, no voxels, a label map, several values per voxel, a single slice.
    """
    reason = why_unsuitable(node)
    if reason:
        raise (GeometryError if "non-linear" in reason else InputError)(reason)
    return Volume(
        array=np.array(slicer.util.arrayFromVolume(node)),
        ijk_to_ras=ijk_to_world(node),
        unit=_unit_of(node) or unit,
        meta=_harmless_facts(node),
    )


def ijk_to_world(node: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """4x4 matrix from (i, j, k, 1) to RAS mm in the world, linear parent transforms included."""
    local = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(local)
    return _parent_to_world(node) @ slicer.util.arrayFromVTKMatrix(local)


def _parent_to_world(node) -> np.ndarray:
    """4x4 matrix of the (linear) transform that a node lies under."""
    parent = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode() is not None:
        node.GetParentTransformNode().GetMatrixTransformToWorld(parent)
    return slicer.util.arrayFromVTKMatrix(parent)


def _unit_of(node) -> str:
    units = node.GetVoxelValueUnits()
    code = (units.GetCodeValue() or "") if units is not None else ""
    return "HU" if code in ("[hnsf'U]", "HU") else code


def _harmless_facts(node) -> dict:
    """Modality from the subject hierarchy, where DICOM loading puts it; never a name or an id."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    modality = hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
    return {"modality": modality} if modality else {}


# -- into the scene -------------------------------------------------------------------------------------------


def show_result(
    result: Result, source: slicer.vtkMRMLScalarVolumeNode, label_table: LabelTable | None = None
) -> SceneResult:
    """Put a result beside the volume it was computed from; an earlier result of that volume is replaced.

    Node objects of an earlier result of the same task are used again, so that what refers to them still holds.
    3D surfaces are not made here (:func:`show_3d`).

    Args:
        result: with arrays on the grid of ``source``.
        source: the volume node; its geometry and parent transform are given to all result nodes.
        label_table: None takes the table of the result's task.

    Raises:
        GeometryError: a map or the label map does not have the source's shape.
    """
    _check_shapes(result, source)
    shown, earlier = SceneResult(), result_nodes(source, result.task)
    if result.labels is not None:
        table = label_table or LabelTable.read(get_task(result.task).resources / "labels.csv")
        shown.segmentation = _result_node(source, result.task, "labels", "vtkMRMLSegmentationNode", "segmentation")
        _fill_segmentation(shown.segmentation, result, source, table)
    for name, scalar_map in result.maps.items():
        node = _result_node(source, result.task, f"map {name}", "vtkMRMLScalarVolumeNode", scalar_map.title)
        fill_map(node, scalar_map, source)
        shown.maps[name] = node
    tables = {"measurements": measurement_table(result.measurements), **result.tables}
    for name, table in tables.items():
        node = _result_node(source, result.task, f"table {name}", "vtkMRMLTableNode", table.title)
        fill_table(node, table, column_meanings(get_task(result.task).resources))
        shown.tables[name] = node
    helpers = _show_curves(result, source, shown)
    if result.points:
        shown.points = _result_node(source, result.task, "points", "vtkMRMLMarkupsFiducialNode", "points")
        fill_points(shown.points, result.points, np.linalg.inv(_parent_to_world(source)))
        if result.labels is None:
            _remember(shown.points, result)
    kept = [shown.segmentation, *shown.maps.values(), *shown.tables.values(), *shown.curves.values(), *helpers]
    kept.append(shown.points)
    for node in earlier.values():
        if node not in kept:
            slicer.mrmlScene.RemoveNode(node)
    for node in filter(None, kept):
        _file_under_study_of(source, node)
    return shown


def _show_curves(result: Result, source, shown: SceneResult) -> list:
    """Fill ``shown.curves``; the table and series nodes behind the charts are returned."""
    helpers = []

    def node_for(part: str, class_name: str, title: str):
        return _result_node(source, result.task, part, class_name, title)

    for name, plot in result.curves.items():
        shown.curves[name] = node_for(f"curves {name}", "vtkMRMLPlotChartNode", plot.title)
        helpers += fill_chart(shown.curves[name], name, plot, node_for)
    return helpers


def result_nodes(source: slicer.vtkMRMLNode | None, task: str) -> dict[str, slicer.vtkMRMLNode]:
    """Part name -> node of the result that the scene holds for a volume; empty if there is none."""
    found = {}
    if source is None or source.GetScene() is None:
        return found
    for node in _nodes_of_classes(*RESULT_CLASSES):
        if node.GetAttribute(TASK_ATTRIBUTE) == task and node.GetNodeReferenceID(SOURCE_ROLE) == source.GetID():
            found[node.GetAttribute(PART_ATTRIBUTE)] = node
    return found


def key_slices(segmentation: slicer.vtkMRMLSegmentationNode) -> list[int]:
    """Slice indices k to look at first, as kept with the segmentation."""
    return json.loads(segmentation.GetAttribute(KEY_SLICES_ATTRIBUTE) or "[]")


def _nodes_of_classes(*class_names: str):
    for class_name in class_names:
        nodes = slicer.mrmlScene.GetNodesByClass(class_name)
        nodes.UnRegister(None)
        yield from (nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems()))


def _check_shapes(result: Result, source) -> None:
    shape = tuple(reversed(source.GetImageData().GetDimensions()))
    volumes = [result.labels, *(scalar_map.volume for scalar_map in result.maps.values())]
    for volume in filter(None, volumes):
        if volume.array.shape != shape:
            raise GeometryError(
                f"The result has {volume.array.shape} voxels but '{source.GetName()}' has {shape}; run it again."
            )


def _result_node(source, task: str, part: str, class_name: str, title: str):
    """The node for one part of a result: the earlier one, or a new one."""
    node = result_nodes(source, task).get(part)
    if node is None:
        name = slicer.mrmlScene.GenerateUniqueName(f"{source.GetName()} {title[:1].lower()}{title[1:]}")
        node = slicer.mrmlScene.AddNewNodeByClass(class_name, name)
        node.SetAttribute(TASK_ATTRIBUTE, task)
        node.SetAttribute(PART_ATTRIBUTE, part)
        node.SetNodeReferenceID(SOURCE_ROLE, source.GetID())
    if node.IsA("vtkMRMLTransformableNode"):
        node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
    return node


def _file_under_study_of(source, node) -> None:
    """Give the node the same parent in the subject hierarchy as the source (its study, after DICOM loading)."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    source_item = hierarchy.GetItemByDataNode(source) if hierarchy is not None else 0
    if item and source_item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(source_item))


# -- segmentation ---------------------------------------------------------------------------------------------


def _fill_segmentation(node, result: Result, source, table: LabelTable) -> None:
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetOpacity2DFill(0.35)  # the image and the overlay stay readable under it
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    node.RemoveClosedSurfaceRepresentation()
    node.SetReferenceImageGeometryParameterFromVolumeNode(source)
    for label in table:
        add_segment(node, label, result.labels.array == label.value, source)
    node.SetAttribute(DRAWN_ATTRIBUTE, label_mark(result.labels.array))
    _remember(node, result)


def label_mark(labels: np.ndarray) -> str:
    """What tells a label map from another one."""
    return f"{zlib.crc32(np.ascontiguousarray(labels, np.uint8)):08x}"


def _remember(node, result: Result) -> None:
    """Keep with a node what the scene has no other place for."""
    node.SetAttribute(KEY_SLICES_ATTRIBUTE, json.dumps([int(k) for k in result.key_slices]))
    node.SetAttribute(WARNINGS_ATTRIBUTE, "\n".join(result.warnings))
    node.SetAttribute(PROVENANCE_ATTRIBUTE, json.dumps(result.provenance, default=str))


def add_segment(
    node: slicer.vtkMRMLSegmentationNode, label: Label, mask: np.ndarray, source: slicer.vtkMRMLScalarVolumeNode
) -> None:
    """One segment of the label table; a label that was looked for and not found becomes an empty segment."""
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetColor(*label.color_fractions)
    if hasattr(segment, "SetTerminology"):  # Slicer 5.10
        segment.SetTerminology(label.terminology)
    else:
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), label.terminology)
    if mask.any():
        segment.AddRepresentation("Binary labelmap", _oriented_image(mask, source))
    node.GetSegmentation().AddSegment(segment, f"Segment_{label.value}")


def _oriented_image(mask: np.ndarray, source):
    """The mask as an image in the source's own frame, cut to its bounding box."""
    from vtk.util.numpy_support import numpy_to_vtk

    where = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    (k0, k1), (j0, j1), (i0, i1) = ((int(at[0]), int(at[-1])) for at in where)
    voxels = np.ascontiguousarray(mask[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1], dtype=np.uint8)
    image = slicer.vtkOrientedImageData()
    image.SetExtent(i0, i1, j0, j1, k0, k1)
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    matrix = vtk.vtkMatrix4x4()
    source.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image


def redraw_segments(
    segmentation: slicer.vtkMRMLSegmentationNode, labels: np.ndarray, source: slicer.vtkMRMLScalarVolumeNode
) -> None:
    """Give the segments of a result another shape: ``labels`` (k, j, i) as in its label table; surfaces are dropped.

    Nothing but the shapes changes, so that this can follow a slider. Segments that a person added stay as they are.
    """
    was = segmentation.StartModify()
    segmentation.RemoveClosedSurfaceRepresentation()
    segmentation.SetAttribute(DRAWN_ATTRIBUTE, label_mark(labels))
    for label in LabelTable.read(get_task(segmentation.GetAttribute(TASK_ATTRIBUTE)).resources / "labels.csv"):
        segment, mask = segmentation.GetSegmentation().GetSegment(f"Segment_{label.value}"), labels == label.value
        if segment is None:
            add_segment(segmentation, label, mask, source)
        elif mask.any():
            segment.SetLabelValue(1)  # Segment Editor may have put several segments into one image
            segment.AddRepresentation("Binary labelmap", _oriented_image(mask, source))
        else:
            segment.RemoveRepresentation("Binary labelmap")
    segmentation.EndModify(was)


def show_3d(segmentation: slicer.vtkMRMLSegmentationNode, shown: bool) -> None:
    """Show or hide the segments as surfaces; they are computed when first shown (about a second)."""
    if shown:
        segmentation.CreateClosedSurfaceRepresentation()
    else:
        segmentation.RemoveClosedSurfaceRepresentation()
    if segmentation.GetDisplayNode() is not None:
        segmentation.GetDisplayNode().SetVisibility3D(shown)


def is_shown_3d(segmentation: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether the segments have surfaces."""
    return segmentation.GetSegmentation().ContainsRepresentation("Closed surface")


# -- views ----------------------------------------------------------------------------------------------------


def show_slice(source: slicer.vtkMRMLVolumeNode, k: int) -> None:
    """Turn the axial view into the plane of the volume's slices and show slice k, as the scanner made it."""
    i_count, j_count, _ = source.GetImageData().GetDimensions()
    center = ijk_to_world(source) @ [(i_count - 1) / 2, (j_count - 1) / 2, k, 1]
    for node in _nodes_of_classes("vtkMRMLSliceNode"):
        if node.GetLayoutName() == "Red":
            node.RotateToVolumePlane(source)
            node.JumpSliceByOffsetting(*center[:3])
