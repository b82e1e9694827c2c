"""A region-based active contour in one slice: morphological Chan-Vese that looks at a part of the picture only."""

from __future__ import annotations

import numpy as np

#: The four lines of three pixels through a pixel: a curve is smooth where one of them fits on each side.
_LINES = tuple(
    np.array(line, bool)
    for line in (
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    )
)


def evolve(
    image: np.ndarray,
    start: np.ndarray,
    space: np.ndarray,
    pixel_mm: tuple[float, float],
    reach_mm: float,
    smoothing: int,
) -> np.ndarray:
    """Move contours until they part two regions of least variance (Chan and Vese 2001), within ``reach_mm``.

    By morphological operators (Marquez-Neila, Baumela, Alvarez 2014): each step a pixel at the contour joins the side
    whose mean it is nearer to, and the contour is smoothed; no step size to choose, no re-initialisation. Both means
    are of the searched space within reach of the start alone: bone outside it, and brain far away, do not count.

    Args:
        image: (rows, columns) densities.
        start: bool, the region the contours start around.
        space: bool, what may be searched.
        pixel_mm: (row, column) spacing.
        reach_mm: how far contours may move; as many steps as pixels on that way.
        smoothing: smoothing steps after each step.

    Returns:
        bool (rows, columns): the inside of the contours that still touch the start.
    """
    from scipy import ndimage

    near = space & (ndimage.distance_transform_edt(~start, sampling=pixel_mm) <= reach_mm)
    inside = start & near
    grow_first, still = True, 0
    for _ in range(int(np.ceil(reach_mm / min(pixel_mm)))):
        if still == 2 or not inside.any() or inside[near].all():  # two, for smoothing alternates
            break
        before = inside
        inside = _nearer_mean(image, inside, near)
        for _ in range(smoothing):
            inside = _smoothed(inside, grow_first)
            grow_first = not grow_first
        inside = inside & near
        still = still + 1 if np.array_equal(inside, before) else 0
    regions, count = ndimage.label(inside)
    kept = np.zeros(count + 1, bool)
    kept[np.unique(regions[start])] = True
    kept[0] = False
    return kept[regions]


def edge_map(inside: np.ndarray, pixel_mm: tuple[float, float], edge_mm: float) -> np.ndarray:
    """float32 (rows, columns): logistic of the distance from a region's border, 0.5 at it, towards 1 inside.

    Args:
        inside: bool (rows, columns).
        pixel_mm: (row, column) spacing.
        edge_mm: distance at which the odds have changed by a factor of e.
    """
    from scipy import ndimage

    if not inside.any() or inside.all():
        return inside.astype(np.float32)
    half = min(pixel_mm) / 2  # the border runs between pixels, distances are counted from their centres
    depth = ndimage.distance_transform_edt(inside, sampling=pixel_mm)
    away = ndimage.distance_transform_edt(~inside, sampling=pixel_mm)
    signed = np.where(inside, depth - half, half - away)
    return (1 / (1 + np.exp(np.minimum(-signed / edge_mm, 50.0)))).astype(np.float32)


def _nearer_mean(image: np.ndarray, inside: np.ndarray, near: np.ndarray) -> np.ndarray:
    """One step of the densities: pixels at the contour go to the side whose mean is nearer to them."""
    within, without = image[inside].mean(dtype=np.float64), image[near & ~inside].mean(dtype=np.float64)
    rows, columns = np.gradient(inside.astype(np.float32))
    at_contour = (rows != 0) | (columns != 0)
    misfit = (image - within) ** 2 - (image - without) ** 2
    moved = inside.copy()
    moved[at_contour & (misfit < 0)] = True
    moved[at_contour & (misfit > 0)] = False
    return moved


def _smoothed(inside: np.ndarray, grow_first: bool) -> np.ndarray:
    """One smoothing of the contour: the two halves of the curvature operator, in alternating order."""
    if grow_first:
        return _thinned(_filled(inside))
    return _filled(_thinned(inside))


def _thinned(inside: np.ndarray) -> np.ndarray:
    """Pixels through which one line of three fits inside."""
    from scipy import ndimage

    return np.logical_or.reduce([ndimage.binary_erosion(inside, line) for line in _LINES])


def _filled(inside: np.ndarray) -> np.ndarray:
    """Pixels through which no line of three fits outside, and all inside."""
    from scipy import ndimage

    return np.logical_and.reduce([ndimage.binary_dilation(inside, line) for line in _LINES])
