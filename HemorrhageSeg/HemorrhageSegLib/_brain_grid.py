"""The coarse grid that brain extraction works on, and the way back to the stored one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.volume import AxisOrder, Volume

#: In-plane size of a coarse voxel that is aimed at; blocks of whole pixels, so 1.0 to 2.2 mm in practice.
IN_PLANE_MM = 1.5
#: Thin slices are averaged in groups until a group is about this thick.
SLICE_MM = 2.5
#: Values are clipped to this range first: padding (-1500, -2000, -3024) becomes air, metal becomes dense bone.
CLIP_HU = (-1024.0, 2000.0)
#: Added to bone that was clipped to a window's top, so that it is bone again.
SATURATED_EXCESS_HU = 500


@dataclass(frozen=True)
class CoarseGrid:
    """Block means of a head CT, upright: slices counted upward, shifted so that a tilted gantry leaves no shear.

    Attributes:
        hu: (k, j, i) float32 mean HU of every block, air outside the scanned field.
        scanned: (k, j, i) bool, whether the block lies in the scanned field.
        spacing_mm: (k, j, i) size of a block.
        order: takes the stored axes to axial ones and back.
        blocks: (k, j, i) stored voxels in a block, in axial order.
        shifts: (k, 2) whole blocks by which every coarse slice was moved in (j, i).
        plane_shape: (j, i) blocks of one slice before the shift.
        saturated_hu: value at which the volume's bone was clipped, infinite if it was not.
    """

    hu: np.ndarray
    scanned: np.ndarray
    spacing_mm: tuple[float, float, float]
    order: AxisOrder
    blocks: tuple[int, int, int]
    shifts: np.ndarray
    plane_shape: tuple[int, int]
    saturated_hu: float

    def place(self, coarse_slice: int) -> tuple[slice, slice, slice]:
        """Where on the grid the blocks of one coarse slice lie."""
        (j, i), (rows, columns) = self.shifts[coarse_slice], self.plane_shape
        return slice(coarse_slice, coarse_slice + 1), slice(j, j + rows), slice(i, i + columns)


def _slice_shifts(axial: Volume, spacing_mm: tuple[float, float, float], group: int) -> np.ndarray:
    """In-plane shift (j, i) in whole blocks of every group of slices against the volume's normal, from 0 up."""
    origins = axial.origins_ras
    in_plane = origins - np.outer(origins @ axial.normal_ras, axial.normal_ras)
    in_plane = in_plane - in_plane[0]
    axes = np.stack([axial.row_step_ras, axial.column_step_ras])
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    shifts = np.rint((in_plane @ axes.T)[::group] / np.array(spacing_mm[1:])).astype(int)
    return shifts - shifts.min(axis=0)


def saturated_hu(array: np.ndarray) -> float:
    """The value at which bone was clipped before the CT reached us (a windowed export), else infinity.

    It shows as one value between 70 and 200 HU that holds over 5 % of the head and 20 times its neighbours' share.
    """
    values = array[:: max(1, len(array) // 12), ::2, ::2]
    head = np.count_nonzero(values > -200)
    counts = np.bincount(values[(values >= 70) & (values <= 200)].astype(int), minlength=201)[70:]
    top = int(counts.argmax())
    neighbours = np.median(counts[max(0, top - 4) : top + 5])
    return 70.0 + top if counts[top] > max(0.05 * head, 20 * neighbours, 1) else np.inf


def to_coarse(volume: Volume) -> CoarseGrid:
    """Average a volume to the coarse grid.

    Args:
        volume: a CT in HU with array (k, j, i) in any stored orientation, sheared or with unequal slice gaps.
    """
    axial, order = volume.axial()
    column_mm, row_mm, slice_mm = axial.spacing_mm
    k, j, i = axial.array.shape
    fk = min(k, max(1, round(SLICE_MM / slice_mm)))
    fj = min(j, max(1, round(IN_PLANE_MM / row_mm)))
    fi = min(i, max(1, round(IN_PLANE_MM / column_mm)))
    rows, columns = j // fj, i // fi
    spacing = (slice_mm * fk, row_mm * fj, column_mm * fi)
    shifts = _slice_shifts(axial, spacing, fk)
    most_j, most_i = shifts.max(axis=0)
    shape = (len(shifts), most_j + rows, most_i + columns)
    hu = np.full(shape, CLIP_HU[0], np.float32)
    scanned = np.zeros(shape, bool)
    top = saturated_hu(axial.array)
    grid = CoarseGrid(hu, scanned, spacing, order, (fk, fj, fi), shifts, (rows, columns), top)
    for n in range(len(shifts)):
        slab = axial.array[n * fk : (n + 1) * fk, : rows * fj, : columns * fi]
        slab = np.clip(slab, *CLIP_HU)
        if np.isfinite(top):
            slab[slab >= top] += SATURATED_EXCESS_HU
        at = grid.place(n)
        hu[at] = _block_mean(slab, fj, fi)
        scanned[at] = True
    return grid


def _block_mean(slab: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mean over all slices of a slab (k, j, i) and over blocks of rows x columns, float32 (strided sums: fast)."""
    total = slab.sum(axis=0, dtype=np.float32)
    total = sum(total[n::rows] for n in range(rows))
    total = sum(total[:, n::columns] for n in range(columns))
    return total / (len(slab) * rows * columns)


def _weights(count: int, block: int, coarse_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper coarse index and the upper's weight for linear interpolation of ``count`` fine samples."""
    at = np.clip((np.arange(count) + 0.5) / block - 0.5, 0, coarse_count - 1)
    lower = at.astype(int)
    return lower, np.minimum(lower + 1, coarse_count - 1), (at - lower).astype(np.float32)


def _enlarge(plane: np.ndarray, shape: tuple[int, int], blocks: tuple[int, int]) -> np.ndarray:
    """Linear interpolation of one coarse plane (j, i) to ``shape``."""
    lower, upper, weight = _weights(shape[0], blocks[0], plane.shape[0])
    plane = plane[lower] + (plane[upper] - plane[lower]) * weight[:, None]
    lower, upper, weight = _weights(shape[1], blocks[1], plane.shape[1])
    return plane[:, lower] + (plane[:, upper] - plane[:, lower]) * weight


def to_stored(grid: CoarseGrid, volume: Volume, mask: np.ndarray, pockets: np.ndarray, edge_hu: float) -> np.ndarray:
    """Bring a coarse mask back to the stored voxels, cut along bone at full resolution.

    Args:
        grid: the grid made from ``volume``.
        mask: (k, j, i) bool on the grid, allowed to reach one block into bone.
        pockets: (k, j, i) bool on the grid, where voxels stay in however dense they are (calcium, clips).
        edge_hu: outside ``pockets``, voxels at or above this are bone and left out.

    Returns:
        bool array with the shape and order of ``volume.array``.
    """
    axial_array = grid.order.apply_array(volume.array)
    k, j, i = axial_array.shape
    result = np.zeros(axial_array.shape, bool)
    planes = np.concatenate([mask[grid.place(n)] for n in range(len(mask))]).astype(np.float32)
    holes = np.concatenate([pockets[grid.place(n)] for n in range(len(mask))]).astype(np.float32)
    window = _bounds(planes.any(axis=0))
    fine = tuple(slice(w.start * b, min(w.stop * b, n)) for w, b, n in zip(window, grid.blocks[1:], (j, i)))
    shape = tuple(f.stop - f.start for f in fine)
    planes, holes = planes[:, window[0], window[1]], holes[:, window[0], window[1]]
    lower, upper, weight = _weights(k, grid.blocks[0], len(planes))
    edge_hu = min(edge_hu, grid.saturated_hu)
    for z in range(k):
        plane = planes[lower[z]] + (planes[upper[z]] - planes[lower[z]]) * weight[z]
        if not plane.any():
            continue
        inside = _enlarge(plane, shape, grid.blocks[1:]) >= 0.5
        dense = axial_array[z, fine[0], fine[1]] >= edge_hu
        pocket = holes[min(z // grid.blocks[0], len(holes) - 1)]
        if pocket.any():
            dense &= _enlarge(pocket, shape, grid.blocks[1:]) < 0.5
        result[z, fine[0], fine[1]] = inside & ~dense
    return np.ascontiguousarray(grid.order.undo_array(result))


def _bounds(plane: np.ndarray) -> tuple[slice, slice]:
    """Bounding box of a plane's true pixels, one pixel wider where there is room."""
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return (
        slice(max(0, rows[0] - 1), min(plane.shape[0], rows[-1] + 2)),
        slice(max(0, columns[0] - 1), min(plane.shape[1], columns[-1] + 2)),
    )
