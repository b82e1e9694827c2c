"""The arterial input and the venous output found in the frames, and the correction of partial volume between them.

Arteries are high, early, narrow, smooth and return to the baseline; the largest vein is later, and high over a large
area. As blood is conserved, both curves have the same area, so that their ratio tells how much of the artery's height
its small size hides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError
from StrokeCTPLib.arterial_curve import fit_gamma
from StrokeCTPLib.concentration import Arrival, time_weights

#: Bounds of the partial-volume factor, and the range outside which a reader should look at the vessels.
FACTOR_BOUNDS, FACTOR_EXPECTED = (1.0, 10.0), (1.2, 6.0)
#: A bolus whose last samples exceed this share of its peak is truncated.
TRUNCATED_TAIL = 0.3
#: Fewest voxels averaged into a curve; voxels looked at closely; candidates returned.
FEWEST, CLOSELY, CANDIDATES = 3, 2000, 5
#: Voxels of a cluster that count have this share of its best ones' score.
ARTERY_SHARE, VEIN_SHARE = 0.5, 0.75
#: Seconds of a later half rise that cost an artery's score a factor of e: sinuses, seen whole and so several times
#: higher than arteries, rise about 5 s later.
LATE_S = 2.0
#: Candidates score more than this share of the best one, in clusters of at least so many voxels; the next pair where
#: this leaves none, as in slabs above the large arteries.
CANDIDATE_SHARES = ((0.2, FEWEST), (0.2, 2), (0.07, FEWEST), (0.02, FEWEST))


@dataclass(frozen=True)
class Vessel:
    """A cluster of voxels whose mean curve may serve as arterial input or venous output.

    Attributes:
        voxels: (n, 3) indices (k, j, i). curve_hu: (t,) mean concentration. score: higher is better; only comparable
            within one search. peak_hu, time_to_peak_s, width_s: of the curve (width at half height).
    """

    voxels: np.ndarray
    curve_hu: np.ndarray
    score: float
    peak_hu: float
    time_to_peak_s: float
    width_s: float


@dataclass(frozen=True)
class ArterialInput:
    """The chosen artery and vein with what was considered.

    Attributes:
        artery: the chosen artery. vein: the chosen vein, or None. candidates: arteries, best first.
        factor: by which the artery's curve was multiplied (1 without a vein). factor_measured: before its bounds.
        curve_hu: (t,) the corrected arterial curve. truncated: whether the vein (or artery) is cut off by the end.
    """

    artery: Vessel
    vein: Vessel | None
    candidates: tuple[Vessel, ...]
    factor: float
    factor_measured: float
    curve_hu: np.ndarray
    truncated: bool


@dataclass(frozen=True)
class Contrast:
    """Frames with their baseline, subtracted where it is asked for: no copy of the whole acquisition is made.

    Attributes:
        frames_hu: (t, k, j, i), any dtype, not smoothed. baseline_hu: (k, j, i) mean before contrast.
    """

    frames_hu: np.ndarray
    baseline_hu: np.ndarray

    def curves(self, voxels_kji: np.ndarray) -> np.ndarray:
        """(n, t) HU above the baseline at (n, 3) indices."""
        k, j, i = np.asarray(voxels_kji).T
        return (self.frames_hu[:, k, j, i] - self.baseline_hu[k, j, i]).T.astype(np.float64)

    def quick_peaks(self, inside: np.ndarray) -> np.ndarray:
        """(k, j, i) largest mean of two neighbouring frames above the baseline; 0 outside."""
        best = np.zeros(self.baseline_hu.shape, np.float32)
        for before, after in zip(self.frames_hu[:-1], self.frames_hu[1:]):
            np.maximum(best, 0.5 * (before.astype(np.float32) + after) - self.baseline_hu, out=best)
        return best * inside


@dataclass(frozen=True)
class _Shape:
    """Measures of curves (n, t): peak in HU, times of half the rise and of the peak, width in s, tail and roughness
    relative to the peak."""

    peak: np.ndarray
    rise_s: np.ndarray
    at_s: np.ndarray
    width_s: np.ndarray
    tail: np.ndarray
    roughness: np.ndarray


def find_arterial_input(
    scan: Contrast,
    inside: np.ndarray,
    times_s: np.ndarray,
    arrival: Arrival,
    exclude: np.ndarray | None = None,
) -> ArterialInput:
    """Find artery and vein.

    Args:
        scan: the acquisition, not smoothed. inside: bool (k, j, i), within the skull. times_s: (t,).
        exclude: bool (k, j, i), where an artery must not lie (tissue that fills late).

    Raises:
        InputError: no artery was found.
    """
    peaks = scan.quick_peaks(inside)
    arteries = _arteries(scan, inside if exclude is None else inside & ~exclude, peaks, times_s, arrival)
    if not arteries:
        raise InputError("No artery was found in the perfusion series; click on an artery to choose it yourself.")
    vein = _vein(scan, inside, peaks, times_s, arteries[0])
    return with_vessels(arteries[0], vein, tuple(arteries), times_s)


def vessel_at(scan: Contrast, voxel_kji: tuple[int, int, int], times_s: np.ndarray) -> Vessel:
    """The vessel at a voxel that a user clicked: those of its 3 x 3 neighbours in the slice that come
    within 60 % of the highest contrast."""
    k, j, i = voxel_kji
    rows = range(max(j - 1, 0), min(j + 2, scan.frames_hu.shape[2]))
    columns = range(max(i - 1, 0), min(i + 2, scan.frames_hu.shape[3]))
    around = np.array([(k, row, column) for row in rows for column in columns])
    area = scan.curves(around).sum(1)
    return _vessel(scan, around[area >= 0.6 * area.max()], times_s, 0.0)


def with_vessels(
    artery: Vessel, vein: Vessel | None, candidates: tuple[Vessel, ...], times_s: np.ndarray
) -> ArterialInput:
    """Correct the artery's partial volume by the vein: also after the user has chosen others.

    Both areas end at the last frame; where either bolus is truncated, the areas of their gamma fits are compared.
    """
    if vein is None:
        truncated = is_truncated(artery.curve_hu)
        return ArterialInput(artery, None, candidates, 1.0, 1.0, artery.curve_hu, truncated)
    truncated = is_truncated(vein.curve_hu) or is_truncated(artery.curve_hu)
    if truncated:
        areas = [fit_gamma(v.curve_hu, times_s).area_hu_s for v in (vein, artery)]
    else:
        areas = [float(time_weights(times_s) @ v.curve_hu) for v in (vein, artery)]
    measured = areas[0] / max(areas[1], 1e-6)
    factor = float(np.clip(measured, *FACTOR_BOUNDS))
    return ArterialInput(artery, vein, candidates, factor, measured, factor * artery.curve_hu, truncated)


def is_truncated(curve_hu: np.ndarray) -> bool:
    """Whether a bolus (t,) still exceeds 30 % of its peak in the last three frames."""
    return bool(np.mean(curve_hu[-3:]) > TRUNCATED_TAIL * _smooth(curve_hu[None])[0].max())


def _smooth(curves: np.ndarray) -> np.ndarray:
    """Weights 1/4, 1/2, 1/4 along the last axis."""
    padded = np.pad(curves, ((0, 0), (1, 1)), mode="edge")
    return 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]


def _shape_of(curves: np.ndarray, times_s: np.ndarray) -> _Shape:
    smooth = _smooth(curves)
    top = smooth.argmax(1)
    peak = np.maximum(smooth.max(1), 1e-6)
    height = smooth / peak[:, None]
    weights = time_weights(times_s)
    share = np.clip((height - 0.35) / 0.3, 0, 1)  # a soft count of the samples above half
    rough = np.square(np.diff(height, n=2, axis=1)).sum(1)
    times = np.asarray(times_s, float)
    return _Shape(peak, _half_rise(height, top, times), times[top], share @ weights, height[:, -3:].mean(1), rough)


def _half_rise(height: np.ndarray, top: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """(n,) when curves relative to their peak at frame ``top`` last pass one half on their way up, between frames."""
    low = np.where((np.arange(height.shape[1]) < top[:, None]) & (height < 0.5), np.arange(height.shape[1]), -1).max(1)
    rows, before = np.arange(len(height)), np.maximum(low, 0)
    under, over = height[rows, before], height[rows, before + 1] if height.shape[1] > 1 else height[rows, before]
    share = np.clip((0.5 - under) / np.maximum(over - under, 1e-6), 0, 1)
    return np.where(low < 0, times_s[0], times_s[before] + share * np.diff(times_s, append=times_s[-1])[before])


def _roughest(times_s: np.ndarray) -> float:
    """Highest roughness of a vessel's curve: 0.04 per frame at 1 s; it grows with the square of the gap."""
    return 0.04 * len(times_s) * max(1.0, float(np.diff(times_s).mean())) ** 2


def _arteries(
    scan: Contrast, allowed: np.ndarray, peaks: np.ndarray, times_s: np.ndarray, arrival: Arrival
) -> list[Vessel]:
    """Candidate arteries, best first."""
    voxels = _highest(np.where(allowed, peaks, 0), 0.01, 4000)
    if not len(voxels):
        return []
    curves = scan.curves(voxels)
    shape = _shape_of(curves, times_s)
    start = curves[:, list(arrival.baseline_frames)]
    quiet = np.abs(start.mean(1)) < 0.15 * shape.peak
    good = quiet & (shape.tail < 0.5) & (shape.roughness < _roughest(times_s)) & (shape.at_s > times_s[0])
    late = np.maximum(shape.rise_s - arrival.time_s, -1.0)
    score = np.where(good, shape.peak * np.exp(-late / LATE_S) / np.maximum(shape.width_s, 1.0), 0)
    found: list[Vessel] = []
    for least, fewest in CANDIDATE_SHARES:
        order = score.argsort()[::-1][:CLOSELY]
        order = order[score[order] > least * score[order[0]]] if score[order[0]] > 0 else order[:0]
        found = found or _clusters(scan, voxels[order], score[order], times_s, ARTERY_SHARE, fewest)
    judged = [(_fit_quality(v, times_s) * v.score, v) for v in found]
    return [v for _, v in sorted(judged, key=lambda pair: -pair[0])][:CANDIDATES]


def _vein(scan: Contrast, inside: np.ndarray, peaks: np.ndarray, times_s: np.ndarray, artery: Vessel) -> Vessel | None:
    """The cluster with the largest area that peaks 1 to 20 s after the artery and at least as high."""
    voxels = _highest(peaks, 0.02, 6000)
    curves = scan.curves(voxels)
    shape = _shape_of(curves, times_s)
    later = shape.at_s - artery.time_to_peak_s
    area = curves @ time_weights(times_s)
    ok = (later >= 1) & (later <= 20) & (shape.peak > artery.peak_hu) & (shape.roughness < _roughest(times_s))
    ok |= (later >= 1) & (later <= 20) & (area > 1.2 * area_of(artery.curve_hu, times_s))
    score = np.where(ok, area, 0)
    order = score.argsort()[::-1][:CLOSELY]
    order = order[score[order] > 0.4 * score[order[0]]] if score[order[0]] > 0 else order[:0]
    found = _clusters(scan, voxels[order], score[order], times_s, VEIN_SHARE)
    return max(found, key=lambda v: v.score, default=None)


def area_of(curve_hu: np.ndarray, times_s: np.ndarray) -> float:
    """Area in HU s by the trapezoid rule."""
    return float(time_weights(times_s) @ curve_hu)


def _highest(values: np.ndarray, share: float, most: int) -> np.ndarray:
    """(n, 3) indices of the given share of positive voxels (at most ``most``, at least 200) with the highest values."""
    positive = np.flatnonzero(values > 0)
    count = int(np.clip(share * len(positive), min(200, len(positive)), most))
    if not count:
        return np.zeros((0, 3), int)
    chosen = positive[np.argpartition(values.flat[positive], len(positive) - count)[len(positive) - count :]]
    return np.stack(np.unravel_index(chosen, values.shape), 1)


def _clusters(
    scan: Contrast, voxels: np.ndarray, score: np.ndarray, times_s: np.ndarray, share: float, fewest: int = FEWEST
) -> list[Vessel]:
    """One vessel per connected group of voxels: the mean of those that score a good share of its best ones.

    A mean of the very best alone would be one of favourable noise: too large an area of veins, too small of arteries.
    """
    from scipy import ndimage

    if not len(voxels):
        return []
    low = voxels.min(0)
    grid = np.zeros(voxels.max(0) - low + 1, bool)
    grid[tuple((voxels - low).T)] = True
    labels = ndimage.label(grid, np.ones((3, 3, 3)))[0][tuple((voxels - low).T)]
    found = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) >= fewest:
            members = members[score[members].argsort()[::-1]]
            top = float(score[members[:fewest]].mean())
            best = members[score[members] > share * top]
            found.append(_vessel(scan, voxels[best], times_s, top))
    return found


def _vessel(scan: Contrast, voxels: np.ndarray, times_s: np.ndarray, score: float) -> Vessel:
    curve = scan.curves(voxels).mean(0)
    shape = _shape_of(curve[None], times_s)
    return Vessel(voxels, curve, score, float(curve.max()), float(shape.at_s[0]), float(shape.width_s[0]))


def _fit_quality(vessel: Vessel, times_s: np.ndarray) -> float:
    """1 minus the relative error of the gamma fit, 0 to 1."""
    return float(np.clip(1 - fit_gamma(vessel.curve_hu, times_s).rmse_hu / max(vessel.peak_hu, 1e-6), 0, 1))
