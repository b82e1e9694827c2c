"""The curve of the voxel under the mouse, made comparable with the curves of artery and vein."""

from __future__ import annotations

import numpy as np

#: Contrast has arrived once the artery's curve exceeds this share of its peak.
ARRIVED = 0.05
#: Tissue curves whose peak is lower than this share of the artery's are drawn ten times as high.
LOW, ENLARGED = 0.25, 10


def contrast_curve(values_hu: np.ndarray, times_s: np.ndarray, artery: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(t,) HU above the mean of the frames before contrast reaches the artery (of the first frame if there is none).

    Args:
        values_hu: (t,) of one voxel. times_s: (t,).
        artery: (times in s, HU above the baseline) of the arterial curve.
    """
    values, at = np.asarray(values_hu, float), np.asarray(artery[1], float)
    arrived = np.flatnonzero(at > ARRIVED * np.nanmax(at))
    before = np.asarray(times_s) < np.asarray(artery[0])[arrived[0]] - 1e-6 if len(arrived) else np.zeros(len(values))
    before = np.asarray(before, bool)
    before[0] = True
    return values - values[before].mean()


def enlargement(curve_hu: np.ndarray, artery_hu: np.ndarray) -> int:
    """By how much a curve is to be drawn higher so that it can be seen beside the artery's: 1 or ENLARGED."""
    return ENLARGED if np.nanmax(curve_hu) < LOW * np.nanmax(artery_hu) else 1
