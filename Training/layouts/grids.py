"""Reading volumes and masks, and bringing a mask onto its image's grid without resampling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from HemorrhageSegLib.checks import require_ct
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.volume import Volume
from Training.layouts.base import LayoutOptions
from Training.store import IGNORED

#: Grids whose corners differ by less than this share of the smallest voxel side are one grid; headers round.
SAME_GRID = 0.2
#: In-plane spacings that agree to this, and axes that agree to this angle, can be one lattice with another header.
_SAME_SPACING, _SAME_AXES_DEG = 0.02, 35.0
#: What is kept of a reader's facts: nothing that may name a patient.
_HARMLESS_FACTS = ("format", "modality", "kernel", "thickness_mm", "tilt_deg", "series_key", "warnings", "notes")


def read_image(path: Path, options: LayoutOptions) -> Volume:
    """Read an image file or a DICOM folder, with its unit decided (see :class:`LayoutOptions`)."""
    return with_unit(read_volume(path), options.unit)


def with_unit(volume: Volume, unit: str) -> Volume:
    """The volume with its unit: as said, as the file says, or HU if the values look like a CT of a patient."""
    if unit == "auto":
        unit = volume.unit or ("HU" if _looks_like_ct(volume) else "")
    return replace(volume, unit=unit)


def _looks_like_ct(volume: Volume) -> bool:
    try:
        require_ct(volume)
    except InputError:
        return False
    return True


def facts_of(volume: Volume) -> dict:
    """What a reader said of a volume and may be kept in a store's provenance."""
    return {word: volume.meta[word] for word in _HARMLESS_FACTS if volume.meta.get(word) not in (None, "", [])}


def read_mask(
    path: Path, image: Volume, options: LayoutOptions, same_slices: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Read a mask onto its image's grid.

    Args:
        path: the mask.
        image: the image that it was drawn on.
        options: how its values are meant.
        same_slices: the mask was drawn slice by slice on this very series; see :func:`onto_grid`.

    Returns:
        (uint8 (k, j, i), warnings in sentences).

    Raises:
        InputError: values that are no labels.
        GeometryError: it lies on another grid.
    """
    mask = read_volume(path)
    array, warnings = onto_grid(mask, image, same_slices)
    return labels_of(array, options), warnings


def labels_of(array: np.ndarray, options: LayoutOptions) -> np.ndarray:
    """The label values of a mask as uint8, with ignored voxels marked; InputError if they are no labels."""
    if array.dtype.kind == "f":
        rounded = np.rint(array)
        fractional = int(np.count_nonzero(rounded != array))
        if fractional:
            raise InputError(f"The mask has {fractional} voxels with fractions of labels; export it without smoothing.")
        array = rounded
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.min() < 0 or (array.max() > 255 and not options.binary):
        raise InputError(f"The mask has values from {array.min():g} to {array.max():g}; labels are 0 to 254.")
    unknown = np.zeros(array.shape, bool) if options.ignored is None else array == options.ignored
    if options.binary:
        array = array > 0
    elif (array[~unknown] == IGNORED).any():
        raise InputError("The mask has the value 255; say --binary if that means marked, --ignored 255 if unknown.")
    labels = array.astype(np.uint8)
    labels[unknown] = IGNORED
    return labels


def onto_grid(mask: Volume, image: Volume, same_slices: bool = False) -> tuple[np.ndarray, list[str]]:
    """The mask's array in the order of the image's axes; nothing is resampled.

    Args:
        mask: as read.
        image: as read.
        same_slices: the mask was drawn on this very series, so that it is the same lattice even where its header
            lost the shear of a tilted gantry or the unequal gaps; it must still have the image's size, pixel
            spacing and, to 35 degrees, its directions.

    Returns:
        (array, warnings in sentences).

    Raises:
        GeometryError: they do not lie on one grid.
    """
    if mask.array.ndim != 3:
        raise GeometryError("The mask is a time series; export one mask.")
    if mask.array.shape == image.array.shape[-3:] and _apart_mm(mask, image) <= _tolerance_mm(image):
        return mask.array, []
    try:
        upright, _ = mask.axial()
        straight, order = image.axial()
    except GeometryError:
        raise _mismatch(mask, image) from None
    if upright.array.shape != straight.array.shape[-3:]:
        raise _mismatch(mask, image)
    apart = _apart_mm(upright, straight)
    if apart <= _tolerance_mm(image):
        return order.undo_array(upright.array), []
    if same_slices and _same_lattice(upright, straight):
        text = f"The mask's header places it up to {apart:.1f} mm from the image; it was matched slice by slice."
        return order.undo_array(upright.array), [text]
    raise _mismatch(mask, image)


def _tolerance_mm(image: Volume) -> float:
    return SAME_GRID * min(image.spacing_mm)


def corners_ras(volume: Volume) -> np.ndarray:
    """(K, 4, 3) RAS mm of the corner voxels of every slice."""
    rows, columns = volume.array.shape[-2:]
    across, down = volume.column_step_ras * (columns - 1), volume.row_step_ras * (rows - 1)
    return volume.origins_ras[:, None] + np.array([0 * across, across, down, across + down])


def _apart_mm(one: Volume, other: Volume) -> float:
    """Largest distance of equal corners of two volumes of one shape."""
    return float(np.linalg.norm(corners_ras(one) - corners_ras(other), axis=-1).max())


def _same_lattice(one: Volume, other: Volume) -> bool:
    spacings = np.array(one.spacing_mm[:2]) / np.array(other.spacing_mm[:2])
    directions = [
        np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
        for a, b in zip(one.ijk_to_ras[:3, :3].T, other.ijk_to_ras[:3, :3].T)
    ]
    close = np.abs(spacings - 1).max() <= _SAME_SPACING
    return bool(close and min(directions) >= np.cos(np.radians(_SAME_AXES_DEG)))


def _mismatch(mask: Volume, image: Volume) -> GeometryError:
    if sorted(mask.array.shape) != sorted(image.array.shape[-3:]):
        sizes = f"{_size(mask)} voxels where the image has {_size(image)}"
        return GeometryError(f"The mask does not fit its image: {sizes}; bring both onto one grid.")
    try:
        apart = f"up to {_apart_mm(mask.axial()[0], image.axial()[0]):.1f} mm apart"
    except (GeometryError, ValueError):
        apart = "in other directions"
    return GeometryError(f"The mask does not lie where its image lies ({apart}); bring both onto one grid.")


def _size(volume: Volume) -> str:
    return " x ".join(str(size) for size in volume.array.shape[:-4:-1])
