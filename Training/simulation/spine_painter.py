"""A sheet on which tissues are painted over each other: polygons, tubes and half planes in mm of the sagittal plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Sheet:
    """One sagittal slice. Rows run from superior to inferior, columns from anterior to posterior.

    Attributes:
        tissue: uint8 (rows, columns), values of :class:`Training.simulation.spine_tissues.Tissue`.
        instance: uint8, number of the vertebra or disc; 0 elsewhere.
        top, front: z and p in mm of the first row and column. pixel_mm: side of a pixel.
        x_mm: where the slice lies from side to side.
    """

    tissue: np.ndarray
    instance: np.ndarray
    top: float
    front: float
    pixel_mm: float
    x_mm: float

    @classmethod
    def blank(cls, shape: tuple[int, int], top: float, front: float, pixel_mm: float, x_mm: float) -> Sheet:
        """A sheet of air."""
        return cls(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), top, front, pixel_mm, x_mm)

    @property
    def codes(self) -> np.ndarray:
        """uint16 (rows, columns): 256 x tissue + instance."""
        return (self.tissue.astype(np.uint16) << 8) | self.instance

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) rows and columns of points (p, z)."""
        points = np.asarray(points, float)
        return np.stack([(self.top - points[..., 1]), (self.front - points[..., 0])], axis=-1) / self.pixel_mm

    @property
    def z(self) -> np.ndarray:
        """(rows, 1) z in mm of every row."""
        return self.top - np.arange(self.tissue.shape[0], dtype=np.float32)[:, None] * self.pixel_mm

    @property
    def p(self) -> np.ndarray:
        """(1, columns) p in mm of every column."""
        return self.front - np.arange(self.tissue.shape[1], dtype=np.float32)[None] * self.pixel_mm

    def polygon(self, points: np.ndarray, tissue: int, instance: int = 0, over: tuple[int, ...] = ()) -> None:
        """Fill a polygon (n, 2) of points (p, z).

        Args:
            over: paint only where one of these tissues lies; empty paints everywhere.
        """
        box, mask = filled(self.pixels(points), self.tissue.shape)
        if over:
            mask &= np.isin(self.tissue[box], over)
        self.tissue[box][mask] = tissue
        self.instance[box][mask] = instance

    def tube(self, front: np.ndarray, back: np.ndarray, tissue: int, instance: int = 0) -> None:
        """Fill what lies between two lines (n, 2) of points."""
        self.polygon(np.concatenate([front, back[::-1]]), tissue, instance)

    def where(self, mask: np.ndarray, tissue: int) -> None:
        """Paint a mask (rows, columns)."""
        self.tissue[mask] = tissue
        self.instance[mask] = 0


def filled(corners: np.ndarray, shape: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """(box, mask within it) of the pixels whose centres lie in a polygon (n, 2) of rows and columns (even-odd rule)."""
    low = np.clip(np.ceil(corners.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.floor(corners.max(axis=0)) + 1, low, shape).astype(int)
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    turns = np.zeros((high[0] - low[0], high[1] - low[1] + 1), np.int8)
    rows = np.arange(low[0], high[0])[:, None]
    begin, end = corners, np.roll(corners, -1, axis=0)
    line, edge = np.nonzero((begin[:, 0] <= rows) != (end[:, 0] <= rows))
    share = (low[0] + line - begin[edge, 0]) / (end[edge, 0] - begin[edge, 0])
    column = begin[edge, 1] + share * (end[edge, 1] - begin[edge, 1])
    first = np.clip(np.ceil(column) - low[1], 0, turns.shape[1] - 1).astype(int)
    np.add.at(turns, (line, first), 1)
    return box, np.cumsum(turns[:, :-1], axis=1, dtype=np.int8) % 2 == 1


def ellipse(centre: np.ndarray, half: tuple[float, float], tilt: float = 0.0, count: int = 24) -> np.ndarray:
    """(count, 2) points of an ellipse with half axes (p, z) in mm, leaning to the front by ``tilt`` radians."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    local = np.stack([half[0] * np.cos(angle), half[1] * np.sin(angle)], axis=-1)
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.asarray(centre) + local @ np.array([[cos, -sin], [sin, cos]])


def rounded(points: np.ndarray, times: int = 2) -> np.ndarray:
    """A closed polygon with its corners cut ``times`` times (Chaikin)."""
    points = np.asarray(points, float)
    for _ in range(times):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return points


def wobbly(points: np.ndarray, amount_mm: float, rng: np.random.Generator) -> np.ndarray:
    """The polygon with its points moved a little, smoothly."""
    noise = rng.normal(0, amount_mm, points.shape)
    return points + (noise + np.roll(noise, 1, axis=0) + np.roll(noise, -1, axis=0)) / 1.7
