"""Boluses of the anatomical simulation: artery with recirculation, vein by conservation of blood, tissue by residue.

All curves lie on one fine time grid from which any sample times are read. The vein is the artery carried through a
distribution of transit times, so that both have the same area (ct_perfusion.md 2.5, 2.6); widths and heights are drawn
around those that a clinical package measured on acute strokes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc

from Training.simulation.ctp_phantom import DENSITY, HAEMATOCRIT_RATIO, GammaVariate

FINE_S, LENGTH_S = 0.05, 130.0
#: Transit times and delays of tissue that curves are made for; every voxel's truth is one of these.
MTT_S = np.geomspace(1.5, 40.0, 97)
DELAY_S = np.arange(0.0, 16.01, 0.1)
#: True arterial height in HU and width at half height in s: median, relative SD of its logarithm, bounds.
PEAK_HU, WIDTH_S = (190.0, 0.40, 90.0, 450.0), (11.0, 0.18, 8.0, 18.0)
#: Width in s of the bolus of a failing heart.
SLOW_WIDTH_S = (16.0, 22.0)


@dataclass(frozen=True)
class Bolus:
    """The curves of one patient on the fine grid, in HU above the baseline.

    Attributes:
        artery: (n,) at the entry of the brain's arteries, at its true height. vein: (n,) of the large sinuses.
        start_s: contrast reaches the arteries. slow_heart: whether cardiac output is low.
    """

    artery: np.ndarray
    vein: np.ndarray
    start_s: float
    slow_heart: bool

    def artery_at(self, times_s: np.ndarray, delay_s: float = 0.0) -> np.ndarray:
        """Arterial HU at any times."""
        return np.interp(np.asarray(times_s) - delay_s, fine_times(), self.artery)

    def vein_at(self, times_s: np.ndarray, delay_s: float = 0.0) -> np.ndarray:
        """Venous HU at any times."""
        return np.interp(np.asarray(times_s) - delay_s, fine_times(), self.vein)


def fine_times() -> np.ndarray:
    """The fine grid (n,) in s."""
    return np.arange(round(LENGTH_S / FINE_S)) * FINE_S


def draw_bolus(rng: np.random.Generator, start_s: float, slow_heart: bool) -> Bolus:
    """Draw a patient's bolus that reaches the brain at ``start_s``."""
    width_s = rng.uniform(*SLOW_WIDTH_S) if slow_heart else _drawn(WIDTH_S, rng)
    peak_hu = _drawn(PEAK_HU, rng) * (0.75 if slow_heart else 1.0)
    alpha = rng.uniform(2.5, 4.5)
    first = GammaVariate(start_s, alpha, width_s / (2.36 * np.sqrt(alpha + 0.15)), peak_hu)
    once = first(fine_times())
    back_s = rng.uniform(13, 18) * (1.3 if slow_heart else 1.0)
    shares = rng.uniform((0.25, 0.2), (0.45, 0.4))  # of a first and a second round; the rest is diluted
    again = shares[0] * carried(once, 0.4 * back_s, 4.0, 0.6 * back_s)
    again += shares[1] * carried(once, 1.2 * back_s, 3.0, 1.0 * back_s)
    artery = once + again
    vein = carried(artery, rng.uniform(4.0, 6.0), rng.uniform(2.5, 4.0), rng.uniform(0.3, 1.2))
    return Bolus(artery, vein, start_s, slow_heart)


def _drawn(statistics: tuple[float, float, float, float], rng: np.random.Generator) -> float:
    median, spread, low, high = statistics
    return float(np.clip(median * np.exp(spread * rng.standard_normal()), low, high))


def carried(curve: np.ndarray, mean_s: float, shape: float, delay_s: float = 0.0) -> np.ndarray:
    """A curve (n,) on the fine grid carried through gamma-distributed transit times; its area stays."""
    edges = np.concatenate([[0.0], fine_times() + FINE_S / 2]) - delay_s
    weights = np.diff(gammainc(shape, shape * np.maximum(edges, 0) / mean_s))
    return _convolved(curve, weights)


def residue_integral(shape: float, mtt_s: float, times_s: np.ndarray) -> np.ndarray:
    """Integral from 0 to t of one minus the distribution function of gamma transit times of ``shape`` and mean MTT."""
    t = np.maximum(np.asarray(times_s, float), 0)
    x = shape * t / mtt_s
    return t * (1 - gammainc(shape, x)) + mtt_s * gammainc(shape + 1, x)


def unit_curves(artery: np.ndarray, shape: float) -> np.ndarray:
    """(mtt, n) HU on the fine grid of tissue with a CBV of 1 mL/100 g, one row per :data:`MTT_S`."""
    edges = np.concatenate([[0.0], fine_times() + FINE_S / 2])
    rows = [_convolved(artery, np.diff(residue_integral(shape, mtt, edges))) / mtt for mtt in MTT_S]
    return np.stack(rows) * DENSITY / HAEMATOCRIT_RATIO / 100


def sampled(curves: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """(mtt * delay, t) float32 of :func:`unit_curves` at sample times (t,), delay running fastest."""
    at = (np.asarray(times_s)[None] - DELAY_S[:, None]) / FINE_S
    low = np.clip(np.floor(at).astype(int), 0, curves.shape[1] - 2)
    share = np.clip(at - low, 0, 1)
    values = curves[:, low] * (1 - share) + curves[:, low + 1] * share
    return values.reshape(-1, len(times_s)).astype(np.float32)


def index_of(mtt_s: np.ndarray, delay_s: np.ndarray) -> np.ndarray:
    """Row of :func:`sampled` that is nearest to transit times and delays of any shape."""
    step = np.log(MTT_S[1] / MTT_S[0])
    mtt = np.rint(np.log(np.maximum(mtt_s, MTT_S[0]) / MTT_S[0]) / step)
    delay = np.rint(np.asarray(delay_s) / (DELAY_S[1] - DELAY_S[0]))
    mtt, delay = np.clip(mtt, 0, len(MTT_S) - 1), np.clip(delay, 0, len(DELAY_S) - 1)
    return (mtt * len(DELAY_S) + delay).astype(np.int32)


def _convolved(curve: np.ndarray, weights: np.ndarray) -> np.ndarray:
    length = 2 * len(curve)
    return np.fft.irfft(np.fft.rfft(curve, length) * np.fft.rfft(weights, length), length)[: len(curve)]
