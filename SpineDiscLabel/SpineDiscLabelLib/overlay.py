"""The network's evidence as a map on the grid of the image it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.preprocessing import linear_weights
from NeuraxisLib.volume import Volume

if TYPE_CHECKING:
    from SpineDiscLabelLib.evidence import Evidence

#: Weaker evidence is left out, and the rest is kept in steps of this: finer digits are noise, and do not compress.
FAINTEST, STEP = 0.05, 1 / 256


def evidence_map(evidence: Evidence, source: Volume) -> Volume:
    """How much of a disc is where, 0..1 float32, on the grid of ``source``, from which the evidence was taken."""
    images, strength = evidence.images, evidence.strength_pixels()
    strength[strength < FAINTEST] = 0
    count, (rows, columns) = len(images.slices_mm), (images.back_rows.shape[1], images.back_columns.shape[1])
    out = np.zeros((count, rows, columns), np.float32)
    scales = [abs(float(back[0, 1] - back[0, 0])) for back in (images.back_rows, images.back_columns)]
    for k, weights in enumerate(_between_slabs(images.slices_mm, images.positions_mm)):
        plane = np.tensordot(weights, strength, axes=1)
        used = [np.flatnonzero(plane.any(axis=1 - axis)) for axis in (0, 1)]
        if used[0].size:
            there, back = (
                linear_weights(at[k], length, scale)[:, axis]
                for at, length, scale, axis in zip((images.back_rows, images.back_columns), plane.shape, scales, used)
            )
            out[k] = there @ plane[np.ix_(*used)] @ back.T
    stored = images.order.undo_array(np.rint(np.clip(out, 0, 1) / STEP) * np.float32(STEP))
    return source.like(np.ascontiguousarray(stored[_slices_of(source)], np.float32))


def _between_slabs(slices_mm: np.ndarray, positions_mm: np.ndarray) -> np.ndarray:
    """(K, n) weights of the slabs for every slice, linear between them."""
    if len(positions_mm) == 1:
        return np.ones((len(slices_mm), 1), np.float32)
    step = positions_mm[1] - positions_mm[0]
    at = np.clip((slices_mm - positions_mm[0]) / step, 0, len(positions_mm) - 1)
    return linear_weights(at, len(positions_mm), 1.0)


def _slices_of(source: Volume) -> np.ndarray:
    """Which slice of the series made regular shows each slice of the source."""
    if source.is_uniform:
        return np.arange(source.slice_count)
    regular = source.regular().slice_positions_mm
    return np.argmin(np.abs(source.slice_positions_mm[:, None] - regular), axis=1)
