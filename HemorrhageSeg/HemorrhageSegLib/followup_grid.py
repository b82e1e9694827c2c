"""Between the grids of two scans: block means, and sampling one volume where another one's voxels lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from NeuraxisLib.volume import Volume


def reduced(volume: Volume, target_mm: float, low: float, high: float) -> Volume:
    """Means over blocks of whole voxels, each side at most ``target_mm`` (a longer voxel stays as it is), float32.

    Args:
        volume: (k, j, i), sheared or with unequal slice gaps; slices at unequal gaps are not averaged.
        target_mm: size aimed at.
        low, high: values are clipped to this range first.
    """
    column_mm, row_mm, slice_mm = volume.spacing_mm
    factors = [max(1, int(target_mm / size + 1e-3)) for size in (slice_mm, row_mm, column_mm)]
    factors[0] = factors[0] if volume.is_uniform else 1
    k, j, i = (size // factor for size, factor in zip(volume.array.shape, factors))
    fk, fj, fi = factors
    out = np.empty((k, j, i), np.float32)
    for index in range(k):
        slab = np.clip(volume.array[index * fk : (index + 1) * fk, : j * fj, : i * fi], low, high)
        out[index] = slab.reshape(fk, j, fj, i, fi).mean(axis=(0, 2, 4), dtype=np.float32)
    matrix, shift = volume.ijk_to_ras.copy(), (np.array([fi, fj, fk]) - 1) / 2
    matrix[:3, 3] += matrix[:3, :3] @ shift
    matrix[:3, :3] *= [fi, fj, fk]
    origins = volume.slice_origins_ras
    if origins is not None and volume.is_uniform:
        origins = None
    elif origins is not None:
        origins = origins + shift[0] * volume.column_step_ras + shift[1] * volume.row_step_ras
    return replace(volume, array=out, ijk_to_ras=matrix, slice_origins_ras=origins)


def upright_grid(low_ras: np.ndarray, high_ras: np.ndarray, step_mm: float) -> Volume:
    """An empty grid of cubes whose axes i, j, k run toward R, A and S, over the box between two corners."""
    shape = tuple(int(n) for n in np.ceil((high_ras - low_ras) / step_mm).astype(int)[::-1] + 1)
    matrix = np.diag([step_mm, step_mm, step_mm, 1.0])
    matrix[:3, 3] = low_ras
    return Volume(np.broadcast_to(np.int16(0), shape), matrix)


def resample(
    moving: Volume, onto: Volume, onto_to_moving: np.ndarray | None = None, outside: float = np.nan
) -> np.ndarray:
    """Values of one volume (linear) where the voxels of another lie.

    Args:
        moving: whose values are wanted; any geometry.
        onto: the grid, sheared or with unequal gaps as it may be; its array is not looked at.
        onto_to_moving: 4x4, RAS mm of ``onto`` -> RAS mm of ``moving``; None for the same space.
        outside: value more than half a voxel beyond the outermost voxel centres of ``moving``.

    Returns:
        (k, j, i) float32 on ``onto``.
    """
    moving = moving.regular()
    array = np.ascontiguousarray(moving.array, np.float32)
    to_index = np.linalg.inv(moving.ijk_to_ras) @ (np.eye(4) if onto_to_moving is None else onto_to_moving)
    column, row = to_index[:3, :3] @ onto.column_step_ras, to_index[:3, :3] @ onto.row_step_ras
    origins = onto.origins_ras @ to_index[:3, :3].T + to_index[:3, 3]
    rows, columns = onto.array.shape[-2:]
    in_plane = np.arange(rows)[:, None, None] * row + np.arange(columns)[:, None] * column
    return np.stack([values_at(array, origin + in_plane, outside) for origin in origins])


def values_at(array: np.ndarray, ijk: np.ndarray, outside: float) -> np.ndarray:
    """Linear interpolation of a float32 array (k, j, i) at (..., 3) index coordinates (i, j, k)."""
    from scipy import ndimage

    where = np.moveaxis(ijk[..., ::-1], -1, 0)
    values = ndimage.map_coordinates(array, where, np.float32, order=1, mode="nearest", prefilter=False)
    last = np.array(array.shape).reshape(-1, *[1] * (ijk.ndim - 1)) - 1
    return np.where(((where >= -0.5) & (where <= last + 0.5)).all(axis=0), values, np.float32(outside))


def box_ras(mask: np.ndarray, volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) RAS mm of the voxel centres in the bounding box of a mask on a volume's grid."""
    where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    (k0, k1), (j0, j1), (i0, i1) = ((at[0], at[-1]) for at in where)
    corners = [
        volume.origins_ras[k] + j * volume.row_step_ras + i * volume.column_step_ras
        for k in range(k0, k1 + 1)
        for j in (j0, j1)
        for i in (i0, i1)
    ]
    return np.min(corners, axis=0), np.max(corners, axis=0)
