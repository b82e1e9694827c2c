"""Time series of the scene as one 4-D Volume: sequences of volumes and multi-volumes, with the times they state."""

from __future__ import annotations

import numpy as np
import slicer

from NeuraxisLib import scene
from NeuraxisLib.errors import InputError
from NeuraxisLib.frame_times import FRAME_LABELS, index_times, label_times
from NeuraxisLib.volume import Volume


def frames_from_node(node: slicer.vtkMRMLNode, unit: str = "HU") -> Volume:
    """All frames of a sequence node (or of a multi-volume) as (t, k, j, i) with times in s.

    ``frame_times_s`` is None where the node only counts its frames: then the user has to give the times.

    Args:
        node: a sequence node of scalar volumes, or a multi-volume node.
        unit: unit of the voxels where the node does not name one.

    Raises:
        InputError: no node, no frames, frames that are no plain images or do not lie on one grid.
        GeometryError: a non-linear parent transform.
    """
    if node is None:
        raise InputError("Choose a sequence of volumes first.")
    if node.IsA("vtkMRMLSequenceNode"):
        return _from_sequence(node, unit)
    image = node.GetImageData() if node.IsA("vtkMRMLVolumeNode") else None
    if image is None or image.GetNumberOfScalarComponents() < 2:
        raise InputError(f"'{node.GetName()}' holds no time series; choose a sequence of volumes or a multi-volume.")
    voxels = slicer.util.arrayFromVolume(node)
    array = np.ascontiguousarray(np.moveaxis(voxels, -1, 0))
    times = label_times(node.GetAttribute(FRAME_LABELS), len(array))
    return Volume(array, scene.ijk_to_world(node), unit, frame_times_s=times, meta={"modality": "CT"})


def _from_sequence(node: slicer.vtkMRMLSequenceNode, unit: str) -> Volume:
    count, name = node.GetNumberOfDataNodes(), node.GetName()
    if count == 0:
        raise InputError(f"'{name}' holds no frames; load it again or choose another sequence.")
    first = scene.volume_from_node(node.GetNthDataNode(0), unit)
    array = np.empty((count, *first.array.shape), first.array.dtype)
    array[0] = first.array
    for index in range(1, count):
        frame = scene.volume_from_node(node.GetNthDataNode(index), unit)
        same_grid = frame.array.shape == first.array.shape and np.allclose(
            frame.ijk_to_ras, first.ijk_to_ras, atol=0.01
        )
        if not same_grid:
            raise InputError(f"Frame {index + 1} of '{name}' lies elsewhere than the first; load the original series.")
        if frame.array.dtype != array.dtype:  # frames may be stored in the smallest type that holds them
            array = array.astype(np.promote_types(array.dtype, frame.array.dtype))
        array[index] = frame.array
    return Volume(array, first.ijk_to_ras, first.unit, frame_times_s=sequence_times(node), meta=first.meta)


def sequence_times(node: slicer.vtkMRMLSequenceNode) -> np.ndarray | None:
    """(t,) s of a sequence's frames, by its index or by what DICOM loading noted; None if it only counts frames."""
    count = node.GetNumberOfDataNodes()
    holders = [node, *(node.GetNthDataNode(index) for index in range(min(count, 1)))]
    for holder in holders:
        times = label_times(holder.GetAttribute(FRAME_LABELS), count)
        if times is not None:
            return times
    values = ",".join(node.GetNthIndexValue(index) for index in range(count))
    return index_times(values, node.GetIndexUnit() or "", count)
