"""Checks that every volume passes at the door, whatever file it came from."""

from __future__ import annotations

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.volume import Volume

#: Voxel sizes outside this range are a wrong unit or a damaged header in any clinical CT or MR.
PLAUSIBLE_SPACING_MM = (0.05, 60.0)
#: No field of view of a clinical scanner is wider than this.
PLAUSIBLE_EXTENT_MM = 2500.0
#: Most voxels accepted in one image; a damaged header can ask for more memory than there is.
MAX_VOXELS = 4_000_000_000


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise InputError if an image of this shape is empty, or too large to be true. Call before allocating."""
    if any(size <= 0 for size in shape):
        raise InputError(f"'{name}' is empty (size {_size_text(shape)}); export the image again.")
    if np.prod([float(size) for size in shape]) > MAX_VOXELS:
        raise InputError(f"'{name}' claims a size of {_size_text(shape)}, which no scan has; its header is damaged.")


def check_volume(volume: Volume, name: str, allow_nan: bool = False) -> Volume:
    """The volume itself if it can be measured on.

    Args:
        volume: as read.
        name: how messages call it (a file name or a series, never a path).
        allow_nan: accept voxels that are not a number.

    Raises:
        GeometryError: spacing or field of view that no scanner produces.
        InputError: empty, two-dimensional, or voxels that are not numbers.
    """
    check_shape(volume.array.shape, name)
    if min(volume.array.shape[-3:]) < 2:
        raise InputError(f"'{name}' is a two-dimensional image; choose a whole series with all its slices.")
    spacing = volume.spacing_mm
    if not all(PLAUSIBLE_SPACING_MM[0] <= value <= PLAUSIBLE_SPACING_MM[1] for value in spacing):
        text = " x ".join(f"{value:.4g}" for value in spacing)
        raise GeometryError(f"'{name}' has an implausible voxel size of {text} mm; check its units, then export again.")
    extent = max(value * size for value, size in zip(spacing, volume.array.shape[:-4:-1], strict=True))
    if extent > PLAUSIBLE_EXTENT_MM:
        raise GeometryError(f"'{name}' is {extent / 1000:.1f} m wide; check its units and export it again.")
    if not allow_nan:
        _check_numbers(volume.array, name)
    return volume


def _check_numbers(array: np.ndarray, name: str) -> None:
    if array.dtype.kind != "f":
        return
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        noun = "voxel that is" if bad == 1 else "voxels that are"
        raise InputError(f"'{name}' has {bad} {noun} not a number (NaN or infinite); fill or mask them first.")


def _size_text(shape: tuple[int, ...]) -> str:
    """Shape (…, k, j, i) as users know it: columns x rows x slices."""
    return " x ".join(str(size) for size in reversed(shape))
