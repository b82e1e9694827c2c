"""What a disc network is asked for: heat maps of physical size, one channel per disc."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from SpineDiscLabelLib.preprocessing import SagittalPreprocessing


def heat_maps(
    preprocessing: SagittalPreprocessing,
    discs_mm: np.ndarray,
    numbers: Sequence[int | None],
    positions_mm: Sequence[float],
    tile: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Heat maps (n, classes, tile, tile) float32, 0..1, in the network's frame.

    A disc is a Gaussian of ``sigma_mm`` in the plane whose height falls with ``sigma_x_mm`` from right to left; a disc
    that is out of view, or has no channel, leaves its channel at 0.

    Args:
        preprocessing: pixel size, sigmas and channels.
        discs_mm: (discs, 3) centres as (x, row, column) mm of the frame of
            :class:`~SpineDiscLabelLib.sagittal.SagittalImages`.
        numbers: their numbers (2 = C1/C2 ... 25 = L5/S1); None for a disc whose level is not known, which shows in
            the channel of any disc alone.
        positions_mm: x of the slabs that the network looks at.
        tile: (row, column) of the tile's first pixel, as in :meth:`SagittalImages.stack`.
    """
    size, pixel_mm = preprocessing.tile, preprocessing.pixel_mm
    out = np.zeros((len(positions_mm), preprocessing.classes, size, size), np.float32)
    for (x, row, column), number in zip(np.asarray(discs_mm, float).reshape(-1, 3), numbers):
        down = _bell((tile[0] + np.arange(size)) * pixel_mm - row, preprocessing.sigma_mm)
        back = _bell((tile[1] + np.arange(size)) * pixel_mm - column, preprocessing.sigma_mm)
        across = _bell(np.asarray(positions_mm, float) - x, preprocessing.sigma_x_mm)
        blob = (across[:, None, None] * down[:, None] * back).astype(np.float32)
        for channel in _channels(preprocessing, number):
            np.maximum(out[:, channel], blob, out=out[:, channel])
    return np.ascontiguousarray(preprocessing.to_network(out))


def _bell(distance_mm: np.ndarray, sigma_mm: float) -> np.ndarray:
    return np.exp(-0.5 * (distance_mm / sigma_mm) ** 2)


def _channels(preprocessing: SagittalPreprocessing, number: int | None) -> list[int]:
    """The channels that show a disc of that number."""
    level = -1 if number is None else number - preprocessing.first_disc
    own = [level] if 0 <= level < preprocessing.levels else []
    return own + [preprocessing.levels] * preprocessing.any_disc
