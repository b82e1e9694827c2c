"""Measures of a lesion: volume, components, ABC/2, diameter, extent, all in patient millimetres.

Every measure works on the grid as it was acquired: sheared (gantry tilt), anisotropic, or with unequal slice gaps.
A slice stands for its *local* thickness (half the gap to either neighbour); nothing is resampled. "Slice" means a
stored slice (first array axis); bring other orientations to axial with :meth:`NeuraxisLib.volume.Volume.axial`
first, as ABC/2 is defined on axial slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from NeuraxisLib.errors import GeometryError
from NeuraxisLib.volume import Volume

#: Kothari weights of a slice in ABC/2: share of the largest slice area from which it counts wholly, and by half.
KOTHARI_WHOLE, KOTHARI_HALF = 0.75, 0.25


@dataclass(frozen=True)
class Abc2:
    """ABC/2 and what went into it.

    Attributes:
        a_mm: largest diameter on the slice with the largest lesion area.
        b_mm: largest width at right angles to A on the same slice.
        c_mm: height: the (weighted) sum of the thicknesses of the slices that show the lesion.
        slice_index: that slice (k); None for an empty mask.
    """

    a_mm: float
    b_mm: float
    c_mm: float
    slice_index: int | None

    @property
    def volume_ml(self) -> float:
        """A * B * C / 2."""
        return self.a_mm * self.b_mm * self.c_mm / 2000.0


@dataclass(frozen=True)
class Lesion:
    """A mask cut down to its bounding box, with the grid it lies on.

    Attributes:
        mask: bool (k, j, i), the bounding box only; shape (0, 0, 0) if nothing is marked.
        start: (k, j, i) of the box's first voxel in the whole grid.
        volume: the grid (its array is not looked at).
        mean_probability, peak_probability: over the voxels of the mask; None where no map was given.
    """

    mask: np.ndarray
    start: tuple[int, int, int]
    volume: Volume
    mean_probability: float | None = None
    peak_probability: float | None = None

    @classmethod
    def of(cls, mask: np.ndarray, volume: Volume) -> Lesion:
        """Cut the marked part out of a whole-grid mask (any dtype; non-zero is marked).

        Raises:
            GeometryError: the mask does not have the grid's shape.
        """
        box = bounding_box(_check(mask, volume))
        return cls(mask[box] != 0, tuple(s.start for s in box), volume)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The bounding box as an index into whole-grid arrays."""
        return tuple(slice(start, start + size) for start, size in zip(self.start, self.mask.shape))

    def paint(self, labels: np.ndarray, value: int) -> None:
        """Set the lesion's voxels of a whole-grid array to ``value``."""
        labels[self.box][self.mask] = value

    @cached_property
    def slice_counts(self) -> np.ndarray:
        """(k of the box,) number of marked pixels of every slice."""
        return self.mask.sum(axis=(1, 2), dtype=np.int64)

    @property
    def _k(self) -> slice:
        return self.box[0]

    @cached_property
    def volume_ml(self) -> float:
        """Sum over slices of marked area times local slice thickness."""
        return float(self.slice_counts @ self.volume.voxel_volumes_ml[self._k])

    @property
    def slices(self) -> np.ndarray:
        """Indices k of the slices that show the lesion."""
        return np.flatnonzero(self.slice_counts) + self.start[0]

    @property
    def centroid_ras(self) -> np.ndarray | None:
        """(3,) centre of mass in RAS mm, slices weighted by their thickness; None for an empty mask."""
        if not self.mask.any():
            return None
        k, j, i = np.nonzero(self.mask)
        k, j, i = k + self.start[0], j + self.start[1], i + self.start[2]
        weight = self.volume.slice_thicknesses_mm[k]
        weight = weight / weight.sum()
        in_plane = (weight @ i) * self.volume.column_step_ras + (weight @ j) * self.volume.row_step_ras
        return in_plane + weight @ self.volume.origins_ras[k]

    @cached_property
    def largest_diameter_mm(self) -> float | None:
        """Largest distance between two corners of marked voxels in 3-D (maximum Feret diameter); None if empty.

        Corners lie half a pixel out in-plane and halfway to the neighbouring slices, so a box measures its true
        diagonal.
        """
        if not self.mask.any():
            return None
        rows, first, last = _row_ends(self.mask)
        k, j = rows[:, 0] + self.start[0], rows[:, 1] + self.start[1]
        edges = _slice_edges_ras(self.volume)
        corners = [
            edges[k + dk] + (j + dj)[:, None] * self.volume.row_step_ras + i[:, None] * self.volume.column_step_ras
            for dk in (0, 1)
            for dj in (-0.5, 0.5)
            for i in (first + self.start[2] - 0.5, last + self.start[2] + 0.5)
        ]
        return float(np.linalg.norm(np.subtract(*_farthest_pair(np.concatenate(corners)))))

    def abc2(self, weighting: str = "whole") -> Abc2:
        """ABC/2, the bedside estimate of a bleed's volume (Kothari et al., Stroke 27:1304, 1996).

        A is the largest distance between pixel corners on the slice of the largest area, B the extent at right
        angles to it, C the summed local thickness of the slices: each wholly (``"whole"``), or weighted 1, 0.5 or 0
        for an area of at least 75 %, at least 25 %, or less of the largest (``"kothari"``). An ideal ellipsoid
        gives 3 / pi = 0.955 of its true volume; crescents are overestimated, since B spans their bow.

        Raises:
            ValueError: unknown weighting.
        """
        if weighting not in ("whole", "kothari"):
            raise ValueError(f"unknown ABC/2 weighting {weighting!r}; use 'whole' or 'kothari'")
        if not self.mask.any():
            return Abc2(0.0, 0.0, 0.0, None)
        largest = int(np.argmax(self.slice_counts))
        corners = self._corners_in_plane_mm(self.mask[largest])
        one, other = _farthest_pair(corners)
        a_mm = float(np.linalg.norm(other - one))
        across = corners @ (np.array([one[1] - other[1], other[0] - one[0]]) / a_mm)
        share = self.slice_counts / self.slice_counts[largest]
        weight = (share > 0).astype(float)
        if weighting == "kothari":
            weight = np.where(share >= KOTHARI_WHOLE, 1.0, np.where(share >= KOTHARI_HALF, 0.5, 0.0))
        c_mm = float(weight @ self.volume.slice_thicknesses_mm[self._k])
        return Abc2(a_mm, float(np.ptp(across)), c_mm, largest + self.start[0])

    def _corners_in_plane_mm(self, mask: np.ndarray) -> np.ndarray:
        """(N, 2) outer pixel corners of a 2-D mask in mm along columns and rows (at right angles on any scanner)."""
        self.volume.require_perpendicular_rows()
        rows, first, last = _row_ends(mask)
        width, height = self.volume.spacing_mm[:2]
        return np.concatenate(
            [
                np.column_stack([i * width, (rows[:, 0] + dj) * height])
                for dj in (-0.5, 0.5)
                for i in (first - 0.5, last + 0.5)
            ]
        )


def components(
    mask: np.ndarray, volume: Volume, min_volume_ml: float = 0.0, probability: np.ndarray | None = None
) -> list[Lesion]:
    """The connected parts of a mask, largest first, without those smaller than ``min_volume_ml``.

    Voxels that share a face, an edge or a corner belong together (26 neighbours): slices of head CT are thick, and
    a bleed that shifts by its width between two of them is still one bleed.

    Args:
        mask: (k, j, i), non-zero is marked.
        volume: the grid.
        min_volume_ml: the small-component rule; smaller parts are dropped.
        probability: (k, j, i) map on the same grid; adds each lesion's mean and peak probability.

    Raises:
        GeometryError: mask or map do not have the grid's shape.
    """
    from scipy import ndimage

    whole = Lesion.of(mask, volume)
    if probability is not None:
        probability = _check(probability, volume)[whole.box]
    if not whole.mask.size:
        return []
    labels, _ = ndimage.label(whole.mask, structure=np.ones((3, 3, 3)))
    lesions = []
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        part = labels[box] == value
        start = tuple(outer + inner.start for outer, inner in zip(whole.start, box))
        inside = None if probability is None else probability[box][part]
        statistics = () if inside is None else (float(inside.mean()), float(inside.max()))
        lesions.append(Lesion(part, start, volume, *statistics))
    lesions = [lesion for lesion in lesions if lesion.volume_ml >= min_volume_ml]
    return sorted(lesions, key=lambda lesion: -lesion.volume_ml)


def volume_ml(mask: np.ndarray, volume: Volume) -> float:
    """Volume of a mask in mL: sum over slices of marked area times local slice thickness."""
    return Lesion.of(mask, volume).volume_ml


def abc2(mask: np.ndarray, volume: Volume, weighting: str = "whole") -> Abc2:
    """ABC/2 of a mask; see :meth:`Lesion.abc2`."""
    return Lesion.of(mask, volume).abc2(weighting)


def largest_diameter_mm(mask: np.ndarray, volume: Volume) -> float | None:
    """Largest 3-D diameter of a mask in mm; see :attr:`Lesion.largest_diameter_mm`."""
    return Lesion.of(mask, volume).largest_diameter_mm


def slices_touched(mask: np.ndarray, volume: Volume) -> np.ndarray:
    """Indices k of the slices with marked voxels."""
    return Lesion.of(mask, volume).slices


def centroid_ras(mask: np.ndarray, volume: Volume) -> np.ndarray | None:
    """Centre of mass in RAS mm; None for an empty mask."""
    return Lesion.of(mask, volume).centroid_ras


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box (k, j, i) that holds every non-zero voxel; empty slices at 0 for an empty mask."""
    box: list[slice] = []
    for axis in range(3):
        cut = mask[tuple(box)]
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(cut.any(axis=others))
        if not len(found):
            return (slice(0, 0),) * 3
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _check(array: np.ndarray, volume: Volume) -> np.ndarray:
    if array.shape != volume.array.shape[-3:]:
        raise GeometryError(f"A mask of shape {array.shape} does not fit an image of {volume.array.shape[-3:]}.")
    return array


def _row_ends(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every marked pixel row: its index (all axes but the last), first and last marked pixel.

    The convex hull of a mask is that of its row ends, and these are far fewer than its voxels.
    """
    rows = np.argwhere(mask.any(axis=-1))
    marked = mask[tuple(rows.T)]
    return rows, marked.argmax(axis=1), mask.shape[-1] - 1 - marked[:, ::-1].argmax(axis=1)


def _slice_edges_ras(volume: Volume) -> np.ndarray:
    """(K + 1, 3) RAS mm of voxel (0, 0) on the faces between slices: midpoints, extrapolated at both ends."""
    origins = volume.origins_ras
    if len(origins) == 1:
        half = volume.ijk_to_ras[:3, 2] / 2
        return np.stack([origins[0] - half, origins[0] + half])
    middle = (origins[:-1] + origins[1:]) / 2
    return np.concatenate([[2 * origins[0] - middle[0]], middle, [2 * origins[-1] - middle[-1]]])


def _farthest_pair(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two points farthest apart of an (N, 2) or (N, 3) cloud; they are corners of its convex hull."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist, squareform

    hull = points[ConvexHull(points).vertices]
    one, other = np.unravel_index(np.argmax(squareform(pdist(hull, "sqeuclidean"))), (len(hull), len(hull)))
    return hull[one], hull[other]
