"""What a panel does with an acquisition over time: its average as an image, curves of voxels, frames read from files.

How the nodes become one 4-D Volume is in :mod:`NeuraxisLib.scene_sequences`.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import slicer

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.frame_times import FRAME_LABELS, label_times
from NeuraxisLib.scene import ijk_to_world, why_unsuitable
from NeuraxisLib.scene_sequences import frames_from_node, sequence_times
from NeuraxisLib.volume import Volume

#: Node reference role from the average image to the node with the frames.
FRAMES_ROLE = "NeuraxisFrames"
#: Attribute of a sequence that :func:`add_sequence` made: (t, k) seconds of every slice of every frame, as JSON.
SLICE_TIMES_ATTRIBUTE = "Neuraxis.SliceTimes"


def why_no_frames(node: slicer.vtkMRMLNode | None) -> str:
    """One sentence on why a node is no acquisition over time; empty if it looks like one (frames are not compared)."""
    if node is None:
        return "Choose the frames first: a volume sequence or a multi-volume."
    first = _first(node)
    if first is None or not first.IsA("vtkMRMLVolumeNode") or frame_count(node) < 2:
        return f"'{node.GetName()}' holds no images over time; choose a volume sequence or a multi-volume."
    if node.IsA("vtkMRMLSequenceNode") and why_unsuitable(first):
        return why_unsuitable(first)
    transform = (_shown(node) or first).GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        return f"'{node.GetName()}' lies under a non-linear transform, which moves every voxel differently; remove it."
    return ""


def has_times(node: slicer.vtkMRMLNode) -> bool:
    """Whether a node with frames says when they were taken."""
    if node.IsA("vtkMRMLSequenceNode"):
        return sequence_times(node) is not None
    return label_times(node.GetAttribute(FRAME_LABELS), frame_count(node)) is not None


def frame_count(node: slicer.vtkMRMLNode) -> int:
    """Number of frames of a sequence or multi-volume node."""
    if node.IsA("vtkMRMLSequenceNode"):
        return node.GetNumberOfDataNodes()
    image = node.GetImageData() if node.IsA("vtkMRMLVolumeNode") else None
    return image.GetNumberOfScalarComponents() if image is not None else 0


def placed_frames(node: slicer.vtkMRMLNode) -> tuple[Volume, slicer.vtkMRMLScalarVolumeNode]:
    """All frames as one Volume in the world, and their average, to which results can be tied.

    Raises:
        InputError: as :func:`NeuraxisLib.scene_sequences.frames_from_node`.
        GeometryError: a non-linear transform.
    """
    reason = why_no_frames(node)
    if reason:
        raise (GeometryError if "non-linear" in reason else InputError)(reason)
    frames = frames_from_node(node)
    average = _add_average(node, frames)
    return replace(frames, ijk_to_ras=ijk_to_world(average), frame_times_s=_times(node, frames)), average


def average_node(node: slicer.vtkMRMLNode | None) -> slicer.vtkMRMLScalarVolumeNode | None:
    """The average image of these frames, if :func:`placed_frames` has made one."""
    if node is None or node.GetScene() is None:
        return None
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return next((volume for volume in volumes if volume.GetNodeReferenceID(FRAMES_ROLE) == node.GetID()), None)


def voxel_curve(node: slicer.vtkMRMLNode, voxel_kji: tuple[int, int, int], around: int = 0) -> np.ndarray:
    """(t,) values of one voxel in all frames, read where they lie; nothing is copied but these.

    Args:
        around: averages the voxels of the slice that lie up to this many rows and columns away.
    """
    k, j, i = voxel_kji
    place = (k, slice(max(j - around, 0), j + around + 1), slice(max(i - around, 0), i + around + 1))
    if not node.IsA("vtkMRMLSequenceNode"):
        return slicer.util.arrayFromVolume(node)[place].mean(axis=(0, 1), dtype=float)
    frames = (node.GetNthDataNode(number) for number in range(node.GetNumberOfDataNodes()))
    return np.array([slicer.util.arrayFromVolume(frame)[place].mean(dtype=float) for frame in frames])


def array_of(volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """(k, j, i) voxels of a volume where they lie; not to be changed."""
    return slicer.util.arrayFromVolume(volume)


def value_at(volume: slicer.vtkMRMLVolumeNode, voxel_kji: tuple[int, int, int]) -> float:
    """The value of one voxel of a scalar volume."""
    return float(slicer.util.arrayFromVolume(volume)[voxel_kji])


def voxel_at(volume: slicer.vtkMRMLVolumeNode, ras_mm: tuple[float, float, float]) -> tuple[int, int, int] | None:
    """(k, j, i) of the voxel at a point of the world; None outside the image."""
    ijk = np.rint((np.linalg.inv(ijk_to_world(volume)) @ [*ras_mm, 1.0])[:3]).astype(int)
    inside = all(0 <= index < count for index, count in zip(ijk, volume.GetImageData().GetDimensions()))
    return tuple(int(index) for index in ijk[::-1]) if inside else None


def add_sequence(frames: Volume, name: str) -> slicer.vtkMRMLSequenceNode:
    """Frames with their times as a sequence in the scene, with a browser to play them.

    Args:
        frames: (t, k, j, i) with ``frame_times_s`` (t,), or (t, k): then the index holds the slices' mean times and an
            attribute all of them. Unequal slice gaps are made equal (and slices lose their own times).
        name: of the sequence node.
    """
    scene, times = slicer.mrmlScene, np.asarray(frames.frame_times_s, float)
    own_times, frames = times.ndim == 2 and frames.is_uniform, frames.regular()
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", scene.GenerateUniqueName(name))
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    if own_times:
        sequence.SetAttribute(SLICE_TIMES_ATTRIBUTE, json.dumps(np.round(times, 4).tolist()))
    matrix = slicer.util.vtkMatrixFromArray(frames.ijk_to_ras)
    for time_s, array in zip(times.reshape(len(times), -1).mean(1), frames.array):
        frame = slicer.vtkMRMLScalarVolumeNode()
        frame.SetName(name)
        slicer.util.updateVolumeFromArray(frame, np.ascontiguousarray(array))
        frame.SetIJKToRASMatrix(matrix)
        sequence.SetDataNodeAtValue(frame, f"{time_s:.3f}")
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", scene.GenerateUniqueName(f"{name} browser"))
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return sequence


def show_frames(node: slicer.vtkMRMLNode) -> None:
    """Show the frames in the slice views, as loading them in Slicer does; nothing plays without a browser."""
    shown = _shown(node)
    if shown is not None:
        slicer.util.setSliceViewerLayers(background=shown, fit=True)


def add_volume(volume: Volume, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """A 3-D image as a scalar volume node with its place and the unit of its values."""
    volume = volume.regular()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(name))
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(volume.array))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(volume.ijk_to_ras))
    if volume.unit:
        unit = slicer.vtkCodedEntry()
        unit.SetValueSchemeMeaning(volume.unit, "UCUM", volume.unit)
        node.SetVoxelValueUnits(unit)
    node.CreateDefaultDisplayNodes()
    return node


# -- inside ---------------------------------------------------------------------------------------------------


def _times(node, frames: Volume) -> np.ndarray | None:
    """Times of the frames, or of all their slices where the sequence keeps them and still has these frames."""
    text = node.GetAttribute(SLICE_TIMES_ATTRIBUTE)
    times = np.array(json.loads(text), float) if text else None
    return times if times is not None and times.shape == frames.array.shape[:2] else frames.frame_times_s


def _first(node):
    return node.GetNthDataNode(0) if node.IsA("vtkMRMLSequenceNode") else node


def _shown(node):
    """The volume node through which the views show the frames; None for a sequence that no browser plays."""
    if not node.IsA("vtkMRMLSequenceNode"):
        return node
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        if browser.IsSynchronizedSequenceNode(node, True) and browser.GetProxyNode(node) is not None:
            return browser.GetProxyNode(node)
    return None


def _add_average(node, frames: Volume):
    """The mean of all frames beside them: anatomy with little noise, under the same transform as what shows them."""
    average, shown = average_node(node), _shown(node)
    if average is None:
        name = slicer.mrmlScene.GenerateUniqueName(f"{node.GetName()} average")
        average = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        average.SetNodeReferenceID(FRAMES_ROLE, node.GetID())
        average.CreateDefaultDisplayNodes()
        average.GetDisplayNode().AutoWindowLevelOff()
        average.GetDisplayNode().SetWindowLevel(80, 40)
    slicer.util.updateVolumeFromArray(average, frames.array.mean(axis=0, dtype=np.float32))
    average.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(frames.ijk_to_ras))
    if shown is not None and shown.GetTransformNodeID():
        matrix = slicer.util.vtkMatrixFromArray(np.eye(4))
        shown.GetIJKToRASMatrix(matrix)
        average.SetIJKToRASMatrix(matrix)
        average.SetAndObserveTransformNodeID(shown.GetTransformNodeID())
    return average
