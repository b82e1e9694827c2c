"""Distances between the surfaces of two masks, in the patient's millimetres whatever the grid.

Every surface element is placed in space by the grid's own geometry, so thick, sheared (gantry tilt) and unequally
spaced slices are measured as they lie; nothing is resampled.

Hausdorff distances run between the centres of border voxels (a marked voxel with an unmarked one at a face), as in
medpy and MONAI. The normalised surface distance weighs by area (Nikolov et al., J Med Internet Res 23(7), 2021): a
surface element lies in each cube of 2 x 2 x 2 voxels that is partly marked, with the area that marching cubes gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.measure import bounding_box
from NeuraxisLib.volume import Volume

UNITS = ("mm", "voxels")
#: What a distance is where only one of the masks marks anything.
NO_SURFACE = ("diagonal", "infinite", "dropped")


@dataclass(frozen=True)
class SurfaceDistances:
    """How far apart two surfaces lie; every number is in ``unit``.

    Attributes:
        to_truth: (N,) distance of each border voxel of the prediction to the nearest one of the truth.
        to_prediction: (M,) the same the other way.
        diagonal: largest distance between two voxels of the image.
        unit: ``"mm"``, or ``"voxels"`` for the legacy mode that takes every voxel for a unit cube.
        emptiness: as :attr:`Training.evaluation.overlap.Overlap.emptiness`.
    """

    to_truth: np.ndarray
    to_prediction: np.ndarray
    diagonal: float
    unit: str
    emptiness: str

    def hausdorff(self, percentile: float = 100.0, no_surface: str = "diagonal") -> float:
        """The larger of the two directed percentiles (100: the Hausdorff distance; 95: HD95).

        Both masks empty: 0. One of them empty: by ``no_surface``, the image's diagonal (the worst that can be),
        infinity, or NaN for the legacy rule that drops such cases.
        """
        if no_surface not in NO_SURFACE:
            raise ValueError(f"unknown rule {no_surface!r} for a missing surface; use one of {NO_SURFACE}")
        if self.emptiness == "both":
            return math.nan if no_surface == "dropped" else 0.0
        if self.emptiness:
            return {"diagonal": self.diagonal, "infinite": math.inf, "dropped": math.nan}[no_surface]
        return float(max(np.percentile(d, percentile) for d in (self.to_truth, self.to_prediction)))


def surface_distances(prediction: np.ndarray, truth: np.ndarray, volume: Volume, unit: str = "mm") -> SurfaceDistances:
    """Distances between the border voxels of two masks.

    Args:
        prediction, truth: (k, j, i), non-zero is marked.
        volume: their grid; sheared or unequally spaced slices are honoured.
        unit: ``"mm"``, or ``"voxels"`` to ignore the voxel size as HemSeg's released evaluation does.

    Raises:
        GeometryError: a mask does not have the grid's shape.
    """
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; use one of {UNITS}")
    for mask in (prediction, truth):
        _check(mask, volume)
    place = _placer(volume, unit)
    found, true = (place(border_voxels(mask)) for mask in (prediction, truth))
    emptiness = "" if len(found) and len(true) else "prediction" if len(true) else "truth" if len(found) else "both"
    corners = np.array([[k, j, i] for k in (0, 1) for j in (0, 1) for i in (0, 1)]) * (np.array(truth.shape) - 1)
    corners = place(corners)
    diagonal = float(np.linalg.norm(corners[:, None] - corners[None], axis=-1).max())
    return SurfaceDistances(_nearest(found, true), _nearest(true, found), diagonal, unit, emptiness)


def border_voxels(mask: np.ndarray) -> np.ndarray:
    """(N, 3) indices k, j, i of the marked voxels that share a face with an unmarked one or with the outside."""
    from scipy import ndimage

    box = bounding_box(mask)
    inside = mask[box] != 0
    border = inside & ~ndimage.binary_erosion(inside)
    return np.argwhere(border) + np.array([part.start for part in box])


def normalised_surface_distance(
    prediction: np.ndarray, truth: np.ndarray, volume: Volume, tolerances_mm: tuple[float, ...]
) -> list[float]:
    """Share of both surfaces, by area, that lies within each tolerance of the other surface.

    Both masks empty: 1. One of them empty: 0.

    Args:
        prediction, truth: (k, j, i), non-zero is marked.
        volume: their grid; sheared or unequally spaced slices are honoured.
        tolerances_mm: one answer for each.

    Raises:
        GeometryError: a mask does not have the grid's shape.
        InputError: a tolerance is negative.
    """
    if any(not tolerance >= 0 for tolerance in tolerances_mm):
        raise InputError("A tolerance of the surface distance is negative; give millimetres from 0 upward.")
    for mask in (prediction, truth):
        _check(mask, volume)
    (found, found_mm2), (true, true_mm2) = (surface_elements(mask, volume) for mask in (prediction, truth))
    if not len(found) or not len(true):
        return [float(len(found) == len(true))] * len(tolerances_mm)
    to_truth, to_prediction = _nearest(found, true), _nearest(true, found)
    total = found_mm2.sum() + true_mm2.sum()
    return [float((found_mm2[to_truth <= t].sum() + true_mm2[to_prediction <= t].sum()) / total) for t in tolerances_mm]


def surface_elements(mask: np.ndarray, volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """((N, 3) centres in RAS mm, (N,) areas in mm2) of the surface, one element per partly marked 2 x 2 x 2 cube."""
    box = bounding_box(mask)
    cells = _cell_codes(np.pad(mask[box] != 0, 1))
    at = np.argwhere((cells > 0) & (cells < 255))
    if not len(at):
        return np.zeros((0, 3)), np.zeros(0)
    codes = cells[tuple(at.T)]
    k, j, i = (at + np.array([part.start for part in box]) - 1).T  # lower corner of the cube, -1 at the image's edge
    origins = _padded_origins(volume)
    lower, upper = origins[k + 1], origins[k + 2]
    centres = (
        (lower + upper) / 2 + (j + 0.5)[:, None] * volume.row_step_ras + (i + 0.5)[:, None] * (volume.column_step_ras)
    )
    areas = np.empty(len(at))
    steps, kinds = np.unique(np.round(np.diff(origins, axis=0), 6), axis=0, return_inverse=True)  # of the few gaps
    kinds = kinds.ravel()[k + 1]
    for number, step in enumerate(steps):
        chosen = kinds == number
        table = _cell_areas(tuple(step), tuple(volume.row_step_ras), tuple(volume.column_step_ras))
        areas[chosen] = table[codes[chosen]]
    return centres, areas


# -- parts ----------------------------------------------------------------------------------------------------


def _placer(volume: Volume, unit: str):
    """A function from (N, 3) voxel indices k, j, i to (N, 3) positions in the unit."""
    if unit == "voxels":
        return lambda kji: np.asarray(kji, float)
    origins = volume.origins_ras
    return lambda kji: origins[kji[:, 0]] + kji[:, 1:2] * volume.row_step_ras + kji[:, 2:3] * volume.column_step_ras


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) distance of each point to the nearest of the others; empty if either cloud is."""
    from scipy.spatial import cKDTree

    if not len(points) or not len(others):
        return np.zeros(0)
    return cKDTree(others, balanced_tree=False, compact_nodes=False).query(points)[0]  # as exact, and sooner built


def _check(mask: np.ndarray, volume: Volume) -> None:
    if mask.shape != volume.array.shape[-3:]:
        raise GeometryError(f"A mask of shape {mask.shape} does not fit an image of {volume.array.shape[-3:]}.")


def _padded_origins(volume: Volume) -> np.ndarray:
    """(K + 2, 3) RAS mm of voxel (0, 0) of every slice and of one more beyond each end."""
    origins = volume.origins_ras
    if len(origins) == 1:
        step = volume.ijk_to_ras[:3, 2]
        return np.stack([origins[0] - step, origins[0], origins[0] + step])
    return np.concatenate([[2 * origins[0] - origins[1]], origins, [2 * origins[-1] - origins[-2]]])


def _cell_codes(mask: np.ndarray) -> np.ndarray:
    """(K-1, J-1, I-1) uint8: which of the eight corners of each cube are marked, one bit each."""
    k, j, i = mask.shape
    codes = np.zeros((k - 1, j - 1, i - 1), np.uint8)
    for bit, (dk, dj, di) in enumerate(_corners()):
        codes |= mask[dk : k - 1 + dk, dj : j - 1 + dj, di : i - 1 + di].astype(np.uint8) << bit
    return codes


def _corners() -> Iterator[tuple[int, int, int]]:
    yield from ((dk, dj, di) for dk in (0, 1) for dj in (0, 1) for di in (0, 1))


@lru_cache(maxsize=64)
def _cell_areas(slice_step: tuple, row_step: tuple, column_step: tuple) -> np.ndarray:
    """(256,) area in mm2 of the surface within a cube, for each set of marked corners and these voxel steps."""
    steps = np.array([slice_step, row_step, column_step])
    areas = np.zeros(256)
    for code, triangles in enumerate(_cell_triangles()):
        if len(triangles):
            edges = triangles @ steps
            sides = edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0]
            areas[code] = np.linalg.norm(np.cross(*sides), axis=1).sum() / 2
    return areas


@lru_cache(maxsize=1)
def _cell_triangles() -> list[np.ndarray]:
    """For each of the 256 sets of marked corners: (T, 3, 3) triangles of marching cubes in voxel steps k, j, i."""
    from skimage.measure import marching_cubes

    triangles = [np.zeros((0, 3, 3))]
    for code in range(1, 255):
        cube = np.zeros((2, 2, 2), np.float32)
        for bit, corner in enumerate(_corners()):
            cube[corner] = code >> bit & 1
        vertices, faces, _, _ = marching_cubes(cube, 0.5, method="lorensen", allow_degenerate=False)
        triangles.append(vertices[faces])
    return [*triangles, np.zeros((0, 3, 3))]
