"""What a result remembers of the grey values of its image: enough to know the image again, too little to show it.

Two series of one scanner often lie on the same grid, so geometry alone does not say that a series is the one that a
result was computed from, and a wrong answer would write one patient's findings into another's study.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Blocks along the rows and the columns of a slice.
_BLOCKS = 2
#: Root mean square difference, as a share of the spread, up to which means are those of one image: rounding of grey
#: values and another scale leave less than 0.001, the heads of two people more than 0.05.
SAME_IMAGE = 0.01


def block_means(array: np.ndarray) -> list[float] | None:
    """Mean grey values of the blocks of every slice.

    Args:
        array: (k, j, i).

    Returns:
        Slice by slice, five digits each; None for an image over time, or one that is the same everywhere (results
        that were read without their image have zeros in its place).
    """
    if array.ndim != 3:
        return None
    rows, columns = (np.linspace(0, n, _BLOCKS + 1).astype(int)[:-1] for n in array.shape[1:])
    if len(set(rows)) < _BLOCKS or len(set(columns)) < _BLOCKS:
        return None
    sums = np.add.reduceat(np.add.reduceat(array, rows, axis=1, dtype=float), columns, axis=2)
    counts = np.outer(np.diff([*rows, array.shape[1]]), np.diff([*columns, array.shape[2]]))
    means = (sums / counts).ravel()
    return [float(f"{mean:.5g}") for mean in means] if np.isfinite(means).all() and np.ptp(means) > 0 else None


def is_same_image(means: Sequence[float], array: np.ndarray) -> bool:
    """Whether an image can be the one whose :func:`block_means` these are, whatever the scale of its grey values."""
    found = block_means(array)
    if found is None or len(found) != len(means):
        return False
    one, other = np.asarray(means, float), np.asarray(found)
    correlation = np.corrcoef(one, other)[0, 1]
    return bool(np.sqrt(max(0.0, 1 - correlation**2)) <= SAME_IMAGE and correlation > 0)
