"""Noise that lossy storing leaves in colour maps: how much there is, and colours without it where that costs nothing.

Only the picture's own facts are used: the noise is what varies along a row of the colour bar, which has one colour
there. A pixel is drawn towards the mean of opposite neighbours as far as its neighbourhood differs from such means by
no more than noise does (the adaptive filter of Lee 1980, on the residual of a linear prediction). A slope passes
unchanged, an edge or a texture is left as it is.
"""

from __future__ import annotations

import numpy as np

#: Noise (SD of a channel) below which colours are left alone: rounding alone gives 0.3.
LEAST_NOISE = 0.7
#: Side in pixels of the neighbourhood in which differences are judged.
NEIGHBOURHOOD = 5
#: One of each pair of opposite neighbours: (rows, columns).
_PAIRS = ((0, 1), (1, -1), (1, 0), (1, 1))


def noise_of(strip: np.ndarray) -> float:
    """SD of a channel in the strip of a colour bar (k, rows, columns, 3), whose rows have one colour each.

    The outermost columns may be blends and are left out; 0 if too little is left to tell.
    """
    inner = strip[:, :, 1:-1].astype(np.float32)
    return float(np.sqrt(inner.var(axis=2, ddof=1).mean())) if inner.shape[2] > 1 and inner.size else 0.0


def without_noise(rgb: np.ndarray, taken: np.ndarray, noise: float) -> np.ndarray:
    """Colours (k, h, w, 3) float32 with less noise where ``taken`` (k, h, w); the others as they are."""
    from scipy.ndimage import uniform_filter

    colours, inner = rgb.astype(np.float32), taken.astype(np.float32)
    inner[:, [0, -1]] = 0
    inner[:, :, [0, -1]] = 0
    total, count = np.zeros_like(colours), np.zeros_like(inner)
    for step in _PAIRS:
        there, back = (tuple(sign * size for size in step) for sign in (-1, 1))
        both = inner * np.roll(inner, there, (1, 2)) * np.roll(inner, back, (1, 2))
        total += both[..., None] * (np.roll(colours, there, (1, 2)) + np.roll(colours, back, (1, 2)))
        count += 2 * both
    paired, count = count > 0, np.maximum(count, 1)
    residual = np.where(paired[..., None], colours - total / count[..., None], 0)
    window = (0, NEIGHBOURHOOD, NEIGHBOURHOOD)
    found = uniform_filter((residual**2).sum(axis=-1), window)
    expected = uniform_filter(np.where(paired, np.float32(3 * noise**2) * (1 + 1 / count), 0), window)
    share = np.clip(expected / np.maximum(found, 1e-6), 0, 1)
    return colours - share[..., None] * residual
