"""Where the intracranial space lies on the coarse grid, and how far the answer can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from HemorrhageSegLib._brain_grid import CoarseGrid

BONE_HU = 200.0
FAT_HU = -35.0
ENCLOSED = 0.6
EROSION_MM = 5.0
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))


@dataclass(frozen=True)
class Shape:
    """What was found: the space, its reach into the border blocks, filled holes, the skull, and enclosure 0..1."""

    mask: np.ndarray
    reach: np.ndarray
    filled: np.ndarray
    skull: np.ndarray
    enclosure: np.ndarray


def disc(radius_mm: float, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Structuring element (1, j, i): a disc in the slice."""
    rows, columns = (int(radius_mm / s) for s in spacing_mm[1:])
    j, i = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    return ((j * spacing_mm[1]) ** 2 + (i * spacing_mm[2]) ** 2 <= radius_mm**2)[None]


def find_skull(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Bone with soft tissue around it; leaves out table and head holder, which lie in air."""
    size = (1, *(2 * round(10 / s) + 1 for s in spacing_mm[1:]))
    tissue = ndimage.uniform_filter((hu > -200).astype(np.float32), size)
    labels, count = ndimage.label(hu > BONE_HU, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    share = np.bincount(labels.ravel(), tissue.ravel(), minlength=count + 1) / np.maximum(sizes, 1)
    keep = (share > 0.6) & (sizes > 20)
    keep[0] = False
    return keep[labels]


def enclosure(bone: np.ndarray) -> np.ndarray:
    """Share (0..1) of 16 directions in the slice in which each voxel of (k, j, i) meets bone."""
    met = np.zeros(bone.shape, np.uint8)
    for down, right in _DIRECTIONS:
        for sign in (1, -1):
            met += _met_along(bone, sign * down, sign * right)
    return met.astype(np.float32) / 16


def _met_along(bone: np.ndarray, down: int, right: int) -> np.ndarray:
    """Whether bone lies at a voxel or anywhere at whole steps of (-down, -right) from it."""
    if down == 0:
        return np.logical_or.accumulate(bone[:, :, ::right], axis=2)[:, :, ::right]
    met = bone.copy()
    rows = bone.shape[1]
    for j in range(down, rows) if down > 0 else range(rows - 1 + down, -1, -1):
        before = met[:, j - down]
        if right > 0:
            met[:, j, right:] |= before[:, :-right]
        elif right < 0:
            met[:, j, :right] |= before[:, -right:]
        else:
            met[:, j] |= before
    return met


def grow(core: np.ndarray, within: np.ndarray, distance_mm: float, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Geodesic dilation of ``core`` by about ``distance_mm`` inside ``within``."""
    cross = ndimage.generate_binary_structure(3, 1)
    flat, square = cross.copy(), np.zeros((3, 3, 3), bool)
    flat[0] = flat[2] = False
    square[1] = True
    every = max(1, round(spacing_mm[0] / spacing_mm[1]))
    grown = core & within
    for step in range(int(np.ceil(distance_mm / spacing_mm[1]))):
        element = cross if step % every == every - 1 else (square if step % 2 else flat)
        grown = ndimage.binary_dilation(grown, element, mask=within) | grown
    return grown


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected component."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of every slice."""
    filled = mask.copy()
    for plane in filled:
        if plane.any():
            plane[:] = ndimage.binary_fill_holes(plane)
    return filled


def find_intracranial(grid: CoarseGrid) -> Shape:
    """Find the intracranial space on the coarse grid."""
    hu, spacing = grid.hu, grid.spacing_mm
    skull = find_skull(hu, spacing)
    seen = enclosure(ndimage.binary_dilation(skull, disc(2.2, spacing)))
    fat = ndimage.binary_opening(hu < FAT_HU, disc(1.6, spacing))
    soft = (hu < BONE_HU) & (hu > FAT_HU)
    within = (hu < BONE_HU) & ~ndimage.binary_dilation(fat, disc(3.2, spacing)) & (seen >= ENCLOSED) & (hu > -200)
    core = largest(ndimage.distance_transform_edt(within, sampling=spacing) > EROSION_MM)
    mask = grow(core, within, EROSION_MM + 3, spacing)
    opened = ndimage.binary_opening(mask, disc(3.2, spacing))
    mask = largest(grow(opened, mask, 3.2, spacing))
    holes = fill_slices(mask) & ~mask
    labels, count = ndimage.label(holes, ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)[:, None, None])
    area_mm2 = np.bincount(labels.ravel(), minlength=count + 1) * spacing[1] * spacing[2]
    small = area_mm2 < 250
    small[0] = False
    filled = small[labels]
    mask = mask | filled
    reach = mask | (ndimage.binary_dilation(mask, disc(2.2, spacing)) & (hu > FAT_HU))
    return Shape(mask, reach, filled, skull, seen)


def judge(grid: CoarseGrid, shape: Shape) -> tuple[float, list[str]]:
    return 0.7, []
