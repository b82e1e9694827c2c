"""A spine in the frame of a disc network: from any stored orientation to its images, and back to the patient.

Millimetres in that frame are (x, row, column): toward the patient's right, inferior and posterior, counted from the
centre of the first pixel of the first slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.preprocessing import in_plane, linear_weights, weights_of_slices
from NeuraxisLib.volume import AxisOrder, Volume
from SpineDiscLabelLib.preprocessing import SagittalPreprocessing

#: Slice gaps at or above this share of ``slab_mm`` are used as they are; thinner slices are averaged into slabs.
KEEP_GAP_SHARE = 0.7
#: RAS axes in the order of the frame, and the direction in which each counts: right, inferior, posterior.
_RAS_AXES, _RAS_SIGNS = (0, 2, 1), (1, -1, -1)


def sagittal_order(volume: Volume) -> AxisOrder:
    """The order that makes slices k run right, rows j inferior and columns i posterior, as nearly as axes allow."""
    steps = volume.ijk_to_ras[:3, :3] / np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)
    wanted: list[int] = []  # the stored ijk axis that becomes k, then j, then i
    for ras in _RAS_AXES:
        free = [axis for axis in range(3) if axis not in wanted]
        wanted.append(max(free, key=lambda axis: abs(steps[ras, axis])))
    flips = tuple(bool(steps[ras, axis] * sign < 0) for ras, axis, sign in zip(_RAS_AXES, wanted, _RAS_SIGNS))
    return AxisOrder(axes=tuple(2 - axis for axis in wanted), flips=flips)


@dataclass(frozen=True, eq=False)
class SagittalImages:
    """The sagittal images of one volume at a network's pixel size.

    Attributes:
        planes: (K, rows, columns) float32 source slices, resampled in their own plane.
        inside: (K, rows, columns) bool: the field of view.
        slices_mm: (K,) x of the source slices.
        positions_mm: (n,) x of the slabs to look at.
        origin_ras: (3,) RAS mm of the frame's origin.
        axes_ras: (3, 3) unit vectors of x, rows and columns, one per row.
        order: from the stored axes to (k, j, i) of the frame.
        back_rows, back_columns: row and column (in pixels of the frame) of the source's rows (K, J), columns (K, I).
        preprocessing: how they were made.
    """

    planes: np.ndarray
    inside: np.ndarray
    slices_mm: np.ndarray
    positions_mm: np.ndarray
    origin_ras: np.ndarray
    axes_ras: np.ndarray
    order: AxisOrder
    back_rows: np.ndarray
    back_columns: np.ndarray
    preprocessing: SagittalPreprocessing

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of the whole images."""
        return self.planes.shape[1:]

    def to_ras(self, points_mm: np.ndarray) -> np.ndarray:
        """Points (..., 3) from (x, row, column) mm to RAS mm."""
        return self.origin_ras + np.asarray(points_mm, float) @ self.axes_ras

    def from_ras(self, points_ras_mm: np.ndarray) -> np.ndarray:
        """Points (..., 3) from RAS mm to (x, row, column) mm."""
        return (np.asarray(points_ras_mm, float) - self.origin_ras) @ self.axes_ras.T

    def shows(self, point_ras_mm: np.ndarray) -> bool:
        """Whether a place (3,) in RAS mm lies in the field of view."""
        x, *in_plane_mm = self.from_ras(point_ras_mm)
        row, column = (int(round(mm / self.preprocessing.pixel_mm)) for mm in in_plane_mm)
        half = (self.slices_mm[-1] - self.slices_mm[0]) / max(len(self.slices_mm) - 1, 1) / 2
        if not self.slices_mm[0] - half <= x <= self.slices_mm[-1] + half:
            return False
        inside = 0 <= row < self.size[0] and 0 <= column < self.size[1]
        return inside and bool(self.inside[int(np.argmin(np.abs(self.slices_mm - x))), row, column])

    def tiles(self) -> list[tuple[int, int]]:
        """(row, column) of the first pixel of every tile that covers the images; negative where a tile is larger."""
        tile, overlap = self.preprocessing.tile, self.preprocessing.overlap
        rows, columns = (_starts(length, tile, overlap) for length in self.size)
        return [(row, column) for row in rows for column in columns]

    def stack(self, positions_mm: Sequence[float], tile: tuple[int, int]) -> np.ndarray:
        """What the network is given: (n, channels, tile, tile) float32, normalised, in the network's frame.

        Beyond the first and the last slice these are repeated; what lies outside the field of view is 0.

        Args:
            positions_mm: x of the slabs looked at.
            tile: (row, column) of the tile's first pixel in the whole images; may be negative or reach beyond.
        """
        here, there = self._overlap(tile)
        size, shown = self.preprocessing.tile, self.preprocessing
        images = np.zeros((len(positions_mm), len(shown.offsets_mm), size, size), np.float32)
        inside = np.zeros((len(positions_mm), size, size), bool)
        for number, position in enumerate(positions_mm):
            weights = self._slab_weights(position + np.asarray(shown.offsets_mm))
            used = np.flatnonzero(weights.any(axis=0))
            images[number][(..., *there)] = np.tensordot(weights[:, used], self.planes[used][(..., *here)], axes=1)
            nearest = int(np.argmin(np.abs(self.slices_mm - position)))
            inside[number][there] = self.inside[nearest][here]
        return np.ascontiguousarray(shown.to_network(shown.normalise(images, inside)))

    def _overlap(self, tile: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of the images that a tile shows, and where in the tile that lies."""
        spans = []
        for start, length in zip(tile, self.size):
            low, high = max(start, 0), min(start + self.preprocessing.tile, length)
            high = max(low, high)
            spans.append((slice(low, high), slice(low - start, high - start)))
        return tuple(span[0] for span in spans), tuple(span[1] for span in spans)

    def _slab_weights(self, at_mm: np.ndarray) -> np.ndarray:
        """(len(at_mm), K) weights of the source slices in slabs centred at ``at_mm``; each row sums to one."""
        count = len(self.slices_mm)
        gap_mm = (self.slices_mm[-1] - self.slices_mm[0]) / max(count - 1, 1)
        at = np.clip((at_mm - self.slices_mm[0]) / max(gap_mm, 1e-9), 0, count - 1)
        weights = linear_weights(at, count, self.preprocessing.slab_mm / max(gap_mm, 1e-9) if count > 1 else 1.0)
        return weights / weights.sum(axis=1, keepdims=True)


def sagittal_images(volume: Volume, preprocessing: SagittalPreprocessing) -> SagittalImages:
    """The images of a volume of any orientation; slices that are shifted against each other come out straight.

    Raises:
        GeometryError: rows and columns are not at right angles.
    """
    volume = volume.regular()
    order = sagittal_order(volume)
    volume = order.apply(volume)
    volume.require_perpendicular_rows()
    pixel_mm = preprocessing.pixel_mm
    offsets, steps = in_plane(volume)  # along (columns, rows)
    counts = volume.array.shape[:-3:-1]
    low = offsets.min(axis=0) - steps / 2
    high = offsets.max(axis=0) + steps * (np.array(counts) - 0.5)
    sizes = np.maximum(1, np.ceil((high - low) / pixel_mm - 1e-6).astype(int))
    first = (low + high) / 2 - (sizes - 1) / 2 * pixel_mm
    there, back = [], []
    for axis in range(2):
        targets = first[axis] + pixel_mm * np.arange(sizes[axis])
        at = (targets - offsets[:, axis, None]) / steps[axis]
        there.append(weights_of_slices(at, counts[axis], pixel_mm / steps[axis]))
        back.append((offsets[:, axis, None] + steps[axis] * np.arange(counts[axis]) - first[axis]) / pixel_mm)
    columns, rows = there
    axes = np.stack([volume.normal_ras, volume.row_step_ras / steps[1], volume.column_step_ras / steps[0]])
    slices_mm = volume.slice_positions_mm - volume.slice_positions_mm[0]
    origin = axes.T @ np.array([volume.slice_positions_mm[0], first[1], first[0]])
    return SagittalImages(
        planes=_resampled(volume.array, rows, columns),
        inside=(rows.sum(axis=2) > 0.5)[:, :, None] & (columns.sum(axis=2) > 0.5)[:, None, :],
        slices_mm=slices_mm,
        positions_mm=_positions(slices_mm, preprocessing.slab_mm),
        origin_ras=origin,
        axes_ras=axes,
        order=order,
        back_rows=back[1],
        back_columns=back[0],
        preprocessing=preprocessing,
    )


def _resampled(array: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(K, R, C) float32 slices: ``rows`` (K, R, J) times ``array`` (K, J, I) times ``columns`` (K, C, I) transposed."""
    from scipy.sparse import csr_array

    def thin(weights: np.ndarray) -> list[csr_array]:
        """One matrix per slice, or one for all where they share it."""
        return [csr_array(weights[0])] * len(weights) if weights.strides[0] == 0 else list(map(csr_array, weights))

    along, across = thin(rows), thin(columns)
    planes = (one @ np.ascontiguousarray(plane, np.float32) for one, plane in zip(along, array))
    return np.stack([(one @ np.ascontiguousarray(plane.T)).T for one, plane in zip(across, planes)])


def _positions(slices_mm: np.ndarray, slab_mm: float) -> np.ndarray:
    """x of the slabs to look at: the slices if they are thick, else every ``slab_mm`` about their middle."""
    extent = slices_mm[-1] - slices_mm[0]
    if len(slices_mm) == 1 or extent / (len(slices_mm) - 1) >= KEEP_GAP_SHARE * slab_mm:
        return slices_mm
    count = int(extent // slab_mm) + 1
    return extent / 2 + (np.arange(count) - (count - 1) / 2) * slab_mm


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels, multiples of 4 apart, of the tiles that cover ``length`` pixels; a single one is centred."""
    if length <= tile:
        return [-((tile - length) // 2)]
    count = -(-(length - overlap) // (tile - overlap))
    last = -(-(length - tile) // 4) * 4
    return [int(round(last * n / (count - 1) / 4)) * 4 for n in range(count)]
