"""4-D NIfTI, NRRD and MetaImage files to perfusion frames, with a times file or the spacing that they state.

NRRD files of Slicer (sequences and multi-volumes), whose frames are the components of a voxel, keep their own times.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import READABLE, read_volume
from NeuraxisLib.frame_times import FRAME_LABELS, index_times, label_times
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_checks import check_shape, check_volume
from StrokeCTPLib.frames import Frames, checked_times, make_frames
from StrokeCTPLib.times_file import SUFFIXES, fit_times, read_times, times_from

#: Nothing is thinner than air; below is padding.
_AIR_HU = -1024
#: More of the voxels than this above bone is no HU.
_BRIGHT_HU, _BRIGHT_PART = 3500, 0.1
#: Soft tissue lies here where the rescale of -1024 was lost, in more than this part of the voxels.
_STORED_BRAIN, _STORED_PART = (950, 1200), 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: No NRRD header is longer.
_HEADER_BYTES = 1 << 20


def read_image_frames(
    path: Path, times: str | os.PathLike | np.ndarray | None, interval_s: float | None, progress: Progress
) -> Frames:
    """Read a 4-D image file; arguments and errors as :func:`frames.read_frames`.

    Times come from ``times``, else from ``interval_s``, else from a times file beside the image (same name, or with
    ``_times`` added), else from the file itself. Frames whose times are out of order are put in order, and a warning
    says so.
    """
    volume, own_times = _read(path, progress)
    name = f"'{path.name}'"
    values, source, warnings = _find_times(path, times, interval_s, volume, own_times)
    matrix = fit_times(values, volume.array.shape[:2], name if values is own_times else "The times file")
    volume, matrix = _in_order(volume, matrix, warnings)
    matrix = checked_times(matrix, name)
    array, notes = as_hu(volume.array, name)
    meta = {**volume.meta, "warnings": [*volume.meta.get("warnings", []), *warnings], "modality": "CT"}
    volume = Volume(array, volume.ijk_to_ras, "HU", None, matrix.mean(axis=1), meta)
    return make_frames(volume, matrix, f"a 4-D {meta['format']} file", source, {}, notes)


def _find_times(path, times, interval_s, volume: Volume, own_times) -> tuple[np.ndarray, str, list[str]]:
    """The times as given, where they come from, and what to tell the user."""
    frames = len(volume.array)
    if times is not None:
        return times_from(times), "the times given", []
    if interval_s is not None:
        return np.arange(frames) * interval_s, f"the interval of {interval_s:g} s given", []
    for beside in _beside(path):
        try:
            return read_times(beside), "the times file beside the image", []
        except InputError:
            continue  # a file of another purpose, such as dcm2niix's description of the scan
    if own_times is not None:
        return own_times, "the times stored in the file", []
    stated = volume.frame_times_s
    step = float(stated[1] - stated[0]) if stated is not None and frames > 1 else 0.0
    if not step > 0:
        raise InputError(f"'{path.name}' does not say when its frames were taken; give a times file or the interval.")
    warning = f"A constant interval of {step:g} s was taken from the file; give a times file if sampling varied."
    return stated, "the constant interval that the file states", [warning]


def _beside(path: Path) -> list[Path]:
    """Files that may hold the times of an image, by name."""
    stem = next(path.name[: -len(suffix)] for suffix in READABLE if path.name.lower().endswith(suffix))
    names = [f"{stem}{middle}{suffix}" for middle in ("_times", ".times", "") for suffix in SUFFIXES]
    return [path.with_name(name) for name in names if path.with_name(name).is_file()]


def _in_order(volume: Volume, times_s: np.ndarray, warnings: list[str]) -> tuple[Volume, np.ndarray]:
    """Frames sorted by time; their order is left alone where sorting does not make all slices' times rise."""
    if (np.diff(times_s, axis=0) > 0).all():
        return volume, times_s
    order = np.argsort(times_s.mean(axis=1), kind="stable")
    if not (np.diff(times_s[order], axis=0) > 0).all():
        return volume, times_s
    warnings.append("The frames were not in order of time and were sorted.")
    return Volume(volume.array[order], volume.ijk_to_ras, volume.unit, meta=volume.meta), times_s[order]


def as_hu(array: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """The values with padding set to air; refused where they cannot be HU."""
    sample = array[:, :, ::2, ::2]
    low, high, bright = sample.min(), sample.max(), float(np.mean(sample > _BRIGHT_HU))
    fault = ""
    if low == high:
        fault = "one value only"
    elif bright > _BRIGHT_PART:
        fault = f"{100 * bright:.0f} % of the voxels above {_BRIGHT_HU}"
    elif low >= 0 and np.mean((sample > _STORED_BRAIN[0]) & (sample < _STORED_BRAIN[1])) > _STORED_PART:
        fault = "no value below zero and tissue near 1000, as before the rescale"
    elif high <= 1:
        fault = "no value above 1"
    if fault:
        raise InputError(f"{name} does not hold HU ({fault}); convert the original series again.")
    low = sum(int(np.count_nonzero(frame < _AIR_HU)) for frame in array)
    if not low:
        return array, []
    note = f"{100 * low / array.size:.1f} % of the voxels lie outside the field of view and were set to air."
    clipped = np.empty(array.shape, array.dtype)
    for frame, values in zip(clipped, array):
        np.maximum(values, array.dtype.type(_AIR_HU), out=frame)
    return clipped, [note]


# -- files of Slicer -------------------------------------------------------------------------------------------


def _read(path: Path, progress: Progress) -> tuple[Volume, np.ndarray | None]:
    """The 4-D volume, and the times (t,) that a file of Slicer stores."""
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return read_volume(path, dimensions=4, progress=progress), None  # it says what is wrong
        if reader.GetDimension() == 3 and reader.GetNumberOfComponents() > 4:
            return _read_components(reader, path)
    return read_volume(path, dimensions=4, progress=progress), None


def _read_components(reader: sitk.ImageFileReader, path: Path) -> tuple[Volume, np.ndarray | None]:
    name = path.name
    check_shape((reader.GetNumberOfComponents(), *reader.GetSize()[::-1]), name)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"'{name}' is damaged or cut short; copy or export it again.") from error
    array = np.ascontiguousarray(np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    volume = Volume(array, _LPS_TO_RAS @ matrix, meta={"format": "NRRD", "warnings": []})
    return check_volume(volume, name), stored_times(path, len(array))


def stored_times(path: Path, frames: int) -> np.ndarray | None:
    """Times in seconds that Slicer stored in an NRRD header; None if there are none, or they only count the frames.

    Multi-volumes keep them as ``MultiVolume.FrameLabels`` in ms; sequences as ``axis N index values``, with the unit
    among the ``units`` of the axes (blank where the index is the frame number).
    """
    header = _nrrd_header(path)
    labels = label_times(header.get(FRAME_LABELS, ""), frames)
    if labels is not None:
        return labels
    units = re.findall(r'"([^"]*)"', header.get("units", ""))
    for axis in (0, 3):
        unit = units[axis] if axis < len(units) else ""
        times = index_times(header.get(f"axis {axis} index values", ""), unit, frames)
        if times is not None:
            return times
    return None


def _nrrd_header(path: Path) -> dict[str, str]:
    with open(path, "rb") as file:
        text = file.read(_HEADER_BYTES).replace(b"\r\n", b"\n").split(b"\n\n")[0].decode("utf-8", "replace")
    pairs = (re.split(r":=|: ", line, maxsplit=1) for line in text.splitlines() if not line.startswith("#"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
