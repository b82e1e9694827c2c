"""A result as the scene holds it now, with what a person changed in it: for reviews, for measuring anew, for export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
import vtk

from NeuraxisLib import scene
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result import Landmark, Measurement, Result, ScalarMap
from NeuraxisLib.review import fingerprint
from NeuraxisLib.scene_points import placed_points
from NeuraxisLib.task import get_task

#: Geometries that differ by less than this, in mm, are one.
_SAME_MM = 1e-3


def label_table(task: str) -> LabelTable:
    """The label table of a task."""
    return LabelTable.read(get_task(task).resources / "labels.csv")


def labels_of(
    segmentation: slicer.vtkMRMLSegmentationNode, source: slicer.vtkMRMLScalarVolumeNode, table: LabelTable
) -> np.ndarray:
    """The segments of a label table as a label map, uint8 (k, j, i) on the grid of a volume.

    Where segments overlap, the one that comes later in the table counts. Other segments are left out.
    """
    labels = np.zeros(source.GetImageData().GetDimensions()[::-1], np.uint8)
    for label in table:
        segment_id = f"Segment_{label.value}"
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        if segment is not None and segment.GetRepresentation("Binary labelmap") is not None:
            labels[mask_of(segmentation, segment_id, source)] = label.value
    return labels


def mask_of(
    segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, source: slicer.vtkMRMLScalarVolumeNode
) -> np.ndarray:
    """One segment as bool (k, j, i): its voxels where they lie on the source's grid, else resampled to it."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    whole = np.zeros(source.GetImageData().GetDimensions()[::-1], bool)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    if i1 < i0 or j1 < j0 or k1 < k0:
        return whole
    if not _lies_on_grid(image, source):
        return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, source) != 0
    marked = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1) != 0
    first = (k0, j0, i0)
    inside = [slice(max(a, 0), max(min(b + 1, n), 0)) for a, b, n in zip(first, (k1, j1, i1), whole.shape)]
    whole[tuple(inside)] = marked[tuple(slice(s.start - a, max(s.stop - a, 0)) for s, a in zip(inside, first))]
    return whole


def _lies_on_grid(image, source) -> bool:
    """Whether an image has the axes and the origin of a volume."""
    own, other = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(own)
    source.GetIJKToRASMatrix(other)
    apart = slicer.util.arrayFromVTKMatrix(own) - slicer.util.arrayFromVTKMatrix(other)
    reach = np.array([*source.GetImageData().GetDimensions(), 1.0])
    return float((np.abs(apart) @ reach).max()) < _SAME_MM


def provenance_of(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """What the nodes of a result (part -> node) know of its run."""
    node = nodes.get("labels") or nodes.get("points")
    return json.loads(node.GetAttribute(scene.PROVENANCE_ATTRIBUTE) or "{}") if node is not None else {}


def result_in_scene(
    source: slicer.vtkMRMLScalarVolumeNode,
    task: str,
    labels: np.ndarray | None = None,
    measurements: list[Measurement] | None = None,
) -> Result:
    """The result of a volume with its image; tables and curves are left out.

    Args:
        labels: (k, j, i) to take in the place of the segments.
        measurements: that it is to have.
    """
    nodes, image = scene.result_nodes(source, task), scene.volume_from_node(source, unit="")
    if labels is None and "labels" in nodes:
        labels = labels_of(nodes["labels"], source, label_table(task))
    maps = {
        part.removeprefix("map "): ScalarMap(image.like(slicer.util.arrayFromVolume(node)), node.GetName(), (0.0, 1.0))
        for part, node in nodes.items()
        if part.startswith("map ")
    }
    stored = None if labels is None else image.like(labels)
    kept = {"measurements": measurements or [], "points": _points(nodes), "provenance": provenance_of(nodes)}
    return Result(task, image, stored, maps, **kept)


def fingerprint_in_scene(source: slicer.vtkMRMLScalarVolumeNode, task: str) -> str:
    """The :func:`~NeuraxisLib.review.fingerprint` of the result of a volume."""
    nodes = scene.result_nodes(source, task)
    labels = labels_of(nodes["labels"], source, label_table(task)) if "labels" in nodes else None
    return fingerprint(labels, _points(nodes))


def _points(nodes: Mapping[str, Any]) -> list[Landmark]:
    return [Landmark(p.name, p.position_ras_mm) for p in placed_points(nodes["points"])] if "points" in nodes else []
