"""Masks that a user drew or loaded, as arrays on the grid of a volume of the scene."""

from __future__ import annotations

import numpy as np
import slicer

from NeuraxisLib import scene
from NeuraxisLib.errors import InputError

#: Corners of one grid lie this close together.
_SAME_PLACE_MM = 0.1


def why_no_mask(node: slicer.vtkMRMLNode, source: slicer.vtkMRMLVolumeNode) -> str:
    """One sentence on why a segmentation or label map cannot mark voxels of a volume; empty if it can."""
    name = node.GetName()
    if node.GetAttribute(scene.PART_ATTRIBUTE):
        return f"'{name}' is a result itself; choose a segmentation that you drew, or copy it first."
    if node.IsA("vtkMRMLSegmentationNode"):
        return "" if node.GetSegmentation().GetNumberOfSegments() else f"'{name}' has no segment; draw one first."
    image, other = node.GetImageData(), source.GetImageData()
    if image is None or image.GetDimensions() != other.GetDimensions() or not _same_place(node, source):
        return f"'{name}' lies on another grid than '{source.GetName()}'; draw it on that image, or as a segmentation."
    return ""


def mask_of(node: slicer.vtkMRMLNode, source: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """What a segmentation (all segments) or a label map (all but 0) marks: bool (k, j, i) on the grid of ``source``.

    Raises:
        InputError: see :func:`why_no_mask`.
    """
    reason = why_no_mask(node, source)
    if reason:
        raise InputError(reason)
    if not node.IsA("vtkMRMLSegmentationNode"):
        return slicer.util.arrayFromVolume(node) != 0
    mask, segmentation = np.zeros(source.GetImageData().GetDimensions()[::-1], bool), node.GetSegmentation()
    for segment in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(segment).GetRepresentation(segmentation.GetSourceRepresentationName()) is not None:
            mask |= slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, source) != 0
    return mask  # a segment in which nothing was drawn yet has no representation


def _same_place(node: slicer.vtkMRMLVolumeNode, source: slicer.vtkMRMLVolumeNode) -> bool:
    size = source.GetImageData().GetDimensions()
    corners = np.array([[i, j, k, 1] for i in (0, size[0]) for j in (0, size[1]) for k in (0, size[2])], float).T
    shift = (scene.ijk_to_world(node) - scene.ijk_to_world(source)) @ corners
    return bool(np.abs(shift).max() < _SAME_PLACE_MM)
