"""The large arteries of the brain: their course in atlas coordinates, moved into a head's fissures and drawn as tubes.

Veins need no drawing: the label maps hold the sinuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Course of the arteries of the right side in RAS mm of the atlas, and their radius in mm; the left mirrors it.
COURSES: dict[str, tuple[float, tuple[tuple[float, float, float], ...]]] = {
    "ica": (2.0, ((10, -1, -30), (12, 2, -22), (11, 2, -17))),
    "m1": (1.5, ((11, 2, -17), (20, 3, -18), (30, 3, -18), (37, 3, -15))),
    "m2_superior": (1.1, ((37, 3, -15), (41, 6, -6), (41, 4, 4), (44, -6, 14), (50, -16, 24))),
    "m2_inferior": (1.1, ((37, 3, -15), (42, -4, -9), (44, -14, -2), (48, -28, 6), (54, -42, 14))),
    "a1": (1.1, ((11, 2, -17), (6, 8, -17), (2, 14, -14))),
    "a2": (1.1, ((2, 14, -14), (2, 26, -10), (2, 38, 2), (2, 36, 20), (2, 22, 36), (2, 4, 46), (2, -16, 52))),
    "p1": (1.1, ((1, -15, -16), (9, -15, -15), (17, -20, -13), (22, -30, -9))),
    "p2": (1.0, ((22, -30, -9), (20, -44, -4), (14, -60, 0), (9, -76, 4))),
    "basilar": (1.6, ((0.5, -22, -40), (0.5, -18, -28), (0.5, -14, -17))),
}
NAMES = tuple(COURSES)
#: Distances beyond this are not kept; points move by at most this into a fissure; steps along a course, all in mm.
REACH_MM, MOVED_MM, STEP_MM = 5, 5, 0.5


@dataclass(frozen=True)
class ArterialTree:
    """Where arteries run in a head.

    Attributes:
        distance_mm: float16 (k, j, i), to the nearest artery's middle line; REACH_MM where none is near.
        segment: uint8 (k, j, i), 1 + 2 * index in NAMES + (0 right, 1 left) of that artery; 0 where none is near.
    """

    distance_mm: np.ndarray
    segment: np.ndarray


def segment_value(name: str, left: bool) -> int:
    """Value of an artery in :attr:`ArterialTree.segment`."""
    return 1 + 2 * NAMES.index(name) + int(left)


def radii_mm() -> np.ndarray:
    """Radius of every segment value; 0 for none."""
    return np.array([0.0] + [COURSES[name][0] for name in NAMES for _ in range(2)], np.float32)


def draw_tree(place: Callable[[np.ndarray], np.ndarray], fissures: np.ndarray, inside: np.ndarray) -> ArterialTree:
    """Draw the arteries of a head.

    Args:
        place: points (n, 3) in RAS mm of the atlas -> indices (k, j, i) in the head, at 1 mm.
        fissures: bool (k, j, i), where fluid is. inside: bool, within the skull.
    """
    wet = ndimage.gaussian_filter(fissures.astype(np.float32), 1.5) * ndimage.binary_erosion(inside, iterations=2)
    distance = np.full(fissures.shape, REACH_MM, np.float32)
    segment = np.zeros(fissures.shape, np.uint8)
    moved: dict[tuple, np.ndarray] = {}
    for name, (_, course) in COURSES.items():
        for left in (False, True):
            points = np.array(course, float) * ((-1, 1, 1) if left else (1, 1, 1))
            own = place(points)
            for number, (key, point) in enumerate(zip(map(tuple, points), own)):
                moved.setdefault(key, _into_fissure(point, wet))
                own[number] = moved[key]
            _draw(_smooth_line(own), segment_value(name, left), distance, segment)
    return ArterialTree(distance.astype(np.float16), segment)


def _into_fissure(point: np.ndarray, wet: np.ndarray) -> np.ndarray:
    """The wettest place near a point; every mm of the way counts against it."""
    middle = np.rint(point).astype(int)
    low = np.clip(middle - MOVED_MM, 0, np.array(wet.shape) - 1)
    high = np.clip(middle + MOVED_MM + 1, low + 1, wet.shape)
    part = wet[tuple(slice(a, b) for a, b in zip(low, high))]
    offset = np.indices(part.shape).transpose(1, 2, 3, 0) + low - point
    way = np.linalg.norm(offset, axis=-1)
    gain = np.where(way <= MOVED_MM, part - 0.06 * way, -np.inf)
    best = np.unravel_index(gain.argmax(), gain.shape)
    return (low + best).astype(float) if np.isfinite(gain[best]) else point


def _smooth_line(points: np.ndarray) -> np.ndarray:
    """(n, 3) points every STEP_MM along a smooth curve through (m, 3) points."""
    from scipy.interpolate import PchipInterpolator

    along = np.concatenate([[0], np.cumsum(np.maximum(np.linalg.norm(np.diff(points, axis=0), axis=1), 1e-3))])
    return PchipInterpolator(along, points)(np.arange(0, along[-1] + STEP_MM, STEP_MM).clip(max=along[-1]))


def _draw(line: np.ndarray, value: int, distance: np.ndarray, segment: np.ndarray) -> None:
    """Note distance and value of a line in all voxels within reach, in place."""
    for point in line:
        low = np.maximum(np.ceil(point - REACH_MM).astype(int), 0)
        high = np.minimum(np.floor(point + REACH_MM).astype(int) + 1, distance.shape)
        if (high <= low).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high))
        axes = np.ogrid[box]
        way = np.sqrt(sum((axis - p) ** 2 for axis, p in zip(axes, point))).astype(np.float32)
        nearer = way < distance[box]
        distance[box][nearer] = way[nearer]
        segment[box][nearer] = value
