"""Shapes on the coarse grid: discs, growth, lines of sight to bone, and walls across the gaps of a skull."""

from __future__ import annotations

import numpy as np

#: Neighbours within a slice, for planes and for volumes.
FLAT = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
FLAT_3D = np.stack([np.zeros((3, 3), bool), FLAT, np.zeros((3, 3), bool)])
#: Whole-pixel steps of eight lines, walked both ways: sixteen directions in the slice.
_LINES = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
#: Directions in which the skull is looked for from the middle of a slice.
_BINS = 128
#: Wider gaps (130 degrees), or edges at radii more different than this ratio, are not gaps of a skull.
_WIDEST_GAP, _RADIUS_RATIO = int(0.36 * _BINS), 1.7
#: Share of directions in which a slice must show bone for its gaps to be bridged.
_LEAST_BONE = 0.45


def disc(radius_mm: float, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Structuring element of shape (1, j, i): a disc in the slice, for ``spacing_mm`` in (k, j, i) order."""
    rows, columns = (int(radius_mm / s) for s in spacing_mm[1:])
    j, i = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    return ((j * spacing_mm[1]) ** 2 + (i * spacing_mm[2]) ** 2 <= radius_mm**2)[None]


def dilated(mask: np.ndarray, element: np.ndarray) -> np.ndarray:
    """Dilation within the slices of a mask (..., j, i), as scipy's, in a tenth of the time.

    Args:
        mask: bool, or labels, of which the largest that reaches a voxel wins.
        element: bool (1, rows, columns) or (rows, columns) of odd size, each row one run about the middle, as
            :func:`disc` makes it.
    """
    rows = element.reshape(element.shape[-2:])
    halves = rows.sum(axis=1) // 2
    wide, found = mask.copy(), np.zeros_like(mask)
    for half in range(halves.max() + 1):
        if half:
            _keep_larger(wide[..., half:], mask[..., :-half])
            _keep_larger(wide[..., :-half], mask[..., half:])
        for row in np.flatnonzero(rows.any(axis=1) & (halves == half)) - len(rows) // 2:
            kept = max(0, mask.shape[-2] - abs(row))
            to, source = max(row, 0), max(-row, 0)
            _keep_larger(found[..., to : to + kept, :], wide[..., source : source + kept, :])
    return found


def _keep_larger(values: np.ndarray, others: np.ndarray) -> None:
    np.maximum(values, others, out=values)


def eroded(mask: np.ndarray, element: np.ndarray, outside: bool = False) -> np.ndarray:
    """Erosion within the slices of a mask (..., j, i), as scipy's with ``border_value=outside``.

    Args:
        mask: bool.
        element: as for :func:`dilated`, and the same in both directions.
        outside: what lies beyond the image.
    """
    if outside:
        return ~dilated(~mask, element)
    rows, columns = (side // 2 for side in element.shape[-2:])
    around = [(0, 0)] * (mask.ndim - 2) + [(rows, rows), (columns, columns)]
    found = dilated(np.pad(~mask, around, constant_values=True), element)
    return ~found[..., rows : rows + mask.shape[-2], columns : columns + mask.shape[-1]]


def deeper_than(mask: np.ndarray, depth_mm: float, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Voxels of a mask (k, j, i) more than ``depth_mm`` from all that do not belong to it; beyond the image all does.

    As a distance transform says, in a tenth of its time: what does not belong is dilated by the slices of a ball.
    """
    outside, found = ~mask, mask.copy()
    reach = [int(depth_mm / step) for step in spacing_mm]
    distance = np.ogrid[tuple(slice(-n, n + 1) for n in reach)]
    ball = np.sqrt(sum((n * step) ** 2 for n, step in zip(distance, spacing_mm))) <= depth_mm
    for up in range(min(reach[0], len(mask) - 1) + 1):
        near = dilated(outside, ball[reach[0] + up])
        found[up:] &= ~near[: len(mask) - up]
        found[: len(mask) - up] &= ~near[up:]
    return found


def box_in_plane(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """The box (rows, columns) of all slices of a mask (k, j, i), wider by ``margin`` pixels where there is room."""
    plane = mask.any(axis=0)
    sides = []
    for others, size in ((1, plane.shape[0]), (0, plane.shape[1])):
        found = np.flatnonzero(plane.any(axis=others))
        first, last = (found[0], found[-1]) if found.size else (0, -1)
        sides.append(slice(max(0, first - margin), min(size, last + 1 + margin)))
    return sides[0], sides[1]


def drop_small(mask: np.ndarray, voxels: int) -> np.ndarray:
    """A mask without its connected components of fewer than ``voxels``."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= voxels
    keep[0] = False
    return keep[labels]


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected component of a mask, or the empty mask."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def grow(
    core: np.ndarray, within: np.ndarray, distance_mm: float, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """Geodesic dilation: what can be reached from ``core`` inside ``within`` in about ``distance_mm``.

    Steps go by pixels in the slice, alternately four and eight ways, and to the next slice as often as its distance
    asks for.
    """
    square = np.ones((3, 3), bool)
    steps_per_slice = max(1, round(spacing_mm[0] / spacing_mm[1]))
    grown = core & within
    for step in range(1, int(np.ceil(distance_mm / spacing_mm[1])) + 1):
        to_next_slice = step % steps_per_slice == 0
        reached = dilated(grown, square if step % 2 and not to_next_slice else FLAT)
        if to_next_slice:
            reached[1:] |= grown[:-1]
            reached[:-1] |= grown[1:]
        grown = reached & within
    return grown


def enclosure(bone: np.ndarray) -> np.ndarray:
    """Share (0..1, float32) of 16 directions in the slice in which each voxel of (k, j, i) meets bone."""
    met = np.zeros(bone.shape, np.uint8)
    for down, right in _LINES:
        for sign in (1, -1):
            met += _met_along(bone, sign * down, sign * right)
    return met.astype(np.float32) / (2 * len(_LINES))


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


def bridge_gaps(skull: np.ndarray) -> np.ndarray:
    """Walls across the gaps of the skull (craniectomy, fontanelle, suture), slice by slice; bool (k, j, i).

    Seen from the middle of a slice's bone, the outermost bone has a radius in every direction; where there is none,
    the radius is interpolated between the two edges of the gap, which follows the skull's curve where a straight
    line would cut off brain.
    """
    walls = np.zeros_like(skull)
    for plane, wall in zip(skull, walls):
        j, i = np.nonzero(plane)
        if len(j) < 30:
            continue
        centre = (j.min() + j.max()) / 2, (i.min() + i.max()) / 2
        angle = np.arctan2(j - centre[0], i - centre[1])
        direction = ((angle / (2 * np.pi) + 0.5) * _BINS).astype(int) % _BINS
        radius = np.zeros(_BINS)
        np.maximum.at(radius, direction, np.hypot(j - centre[0], i - centre[1]))
        _draw_bridges(wall, centre, radius)
    return walls


def _draw_bridges(wall: np.ndarray, centre: tuple[float, float], radius: np.ndarray) -> None:
    """Draw an arc, three pixels thick, over every gap (run of zeros) of ``radius`` per direction."""
    met = np.flatnonzero(radius)
    if len(met) < _LEAST_BONE * _BINS:
        return
    for first, last in zip(met, np.roll(met, -1)):
        run = (last - first) % _BINS
        start, stop = radius[first], radius[last]
        if not 2 <= run <= _WIDEST_GAP or max(start, stop) > _RADIUS_RATIO * min(start, stop):
            continue
        t = np.linspace(0, 1, 8 * run)
        angle = ((first + 0.5 + t * run) / _BINS - 0.5) * 2 * np.pi
        for inward in (1, 2, 3):
            r = start + t * (stop - start) - inward
            j = np.rint(centre[0] + r * np.sin(angle)).astype(int)
            i = np.rint(centre[1] + r * np.cos(angle)).astype(int)
            inside = (j >= 0) & (j < wall.shape[0]) & (i >= 0) & (i < wall.shape[1])
            wall[j[inside], i[inside]] = True
