"""From the grid of perfusion maps to the square that a network is shown, and back; in-plane alone."""

from __future__ import annotations

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.preprocessing import SliceGrid, in_plane, weights_of_slices
from NeuraxisLib.volume import Volume
from StrokeCTPLib.map_preprocessing import MapPreprocessing


def map_grid(volume: Volume, known: np.ndarray, preprocessing: MapPreprocessing) -> SliceGrid:
    """The network's square for axial maps, its middle on the middle of the brain; every slice stays a slice.

    Where a pixel of the maps is as large as the network's and the maps are as large as its square, nothing is moved:
    pictures are shown pixel by pixel, as the published networks saw them.

    Args:
        volume: grid of the maps, axial (:meth:`Volume.axial`).
        known: bool (k, j, i), where the maps have a value.
        preprocessing: of the network.

    Raises:
        InputError: the maps have no value anywhere.
        GeometryError: rows and columns are skewed.
    """
    volume.require_perpendicular_rows()
    if not known.any():
        raise InputError("The perfusion maps hold no value; give maps that show the brain.")
    offsets, steps = in_plane(volume)
    size, pixel_mm = preprocessing.size, preprocessing.pixel_mm
    there, back = [], []
    for axis, count in enumerate(volume.array.shape[:-3:-1]):
        profile = np.flatnonzero(known.any(axis=(0, 1 + axis)))
        middle = 0.5 * (profile[0] + profile[-1])
        if count == size and abs(steps[axis] / pixel_mm - 1) < 1e-3:
            middle = 0.5 * (count - 1)
        ratio = pixel_mm / steps[axis]
        at = middle + (np.arange(size) - 0.5 * (size - 1)) * ratio
        there.append(weights_of_slices(np.repeat(at[None], len(offsets), 0), count, ratio))
        at = (np.arange(count) - middle) / ratio + 0.5 * (size - 1)
        back.append(weights_of_slices(np.repeat(at[None], len(offsets), 0), size, 1 / ratio))
    every = np.eye(len(offsets), dtype=np.float32)
    return SliceGrid(pixel_mm, there[1], there[0], every, every, back[1], back[0])


def on_grid(grid: SliceGrid, values: np.ndarray) -> np.ndarray:
    """A map (k, j, i) on the network's grid, (k, size, size) float32; NaN stays NaN and spoils none of its neighbours.

    A pixel has a value where more than half of what it is made from has one.
    """
    known = np.isfinite(values)
    weight = grid.forward(known, outside=0.0)
    summed = grid.forward(np.where(known, values, 0), outside=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0.5, summed / weight, np.float32(np.nan)).astype(np.float32)


def share_on_grid(grid: SliceGrid, mask: np.ndarray) -> np.ndarray:
    """A mask (k, j, i) on the network's grid: (k, size, size), how much of each pixel it fills."""
    return grid.forward(mask.astype(np.float32), outside=0.0)
