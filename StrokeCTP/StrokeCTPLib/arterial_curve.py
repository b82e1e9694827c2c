"""The arterial curve between its samples: a gamma-variate first pass plus what was measured beyond it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError


@dataclass(frozen=True)
class GammaFit:
    """A gamma-variate: peak * (x / (a b))^a * exp(a - x / b), x = t - t0 in s; zero before t0.

    Attributes:
        t0_s, alpha, beta_s, peak_hu: its parameters. rmse_hu: of the fitted samples.
    """

    t0_s: float
    alpha: float
    beta_s: float
    peak_hu: float
    rmse_hu: float

    def __call__(self, times_s: np.ndarray) -> np.ndarray:
        """HU at the given times."""
        return _gamma(np.asarray(times_s, float), self.t0_s, self.alpha, self.beta_s, self.peak_hu)

    @property
    def area_hu_s(self) -> float:
        """Integral over all times, the unseen tail included."""
        from scipy.special import gamma

        return float(self.peak_hu * self.beta_s * gamma(self.alpha + 1) * (np.e / self.alpha) ** self.alpha)


def _gamma(t: np.ndarray, t0: float, alpha: float, beta: float, peak: float) -> np.ndarray:
    x = np.maximum(t - t0, 1e-9)
    return peak * np.exp(alpha * np.log(x / (alpha * beta)) + alpha - x / beta)


def fit_gamma(curve_hu: np.ndarray, times_s: np.ndarray, tail: float = 0.3) -> GammaFit:
    """Fit a gamma-variate to the first pass of a bolus (T,) above its baseline.

    The first pass ends where the curve, past its peak, falls below ``tail`` of it; recirculation lies beyond.

    Raises:
        InputError: the curve has no peak above its baseline.
    """
    from scipy.optimize import least_squares

    curve, times = np.asarray(curve_hu, float), np.asarray(times_s, float)
    top = int(curve.argmax())
    if not np.isfinite(curve).all() or curve[top] <= 0:
        raise InputError("The chosen vessel shows no bolus; choose another artery or vein.")
    low = np.flatnonzero(curve[top:] < tail * curve[top])
    last = top + int(low[0]) + 1 if len(low) else len(curve)
    t, c = times[: max(last, min(5, len(times)))], curve[: max(last, min(5, len(times)))]
    before = np.flatnonzero(curve[: top + 1] < 0.1 * curve[top])
    start = times[before[-1]] if len(before) else times[0] - 2
    rise = max(times[top] - start, 1.0)
    lower = [times[0] - 20, 0.5, 0.2, 0.2 * curve[top]]
    upper = [times[top], 20.0, 20.0, 3.0 * curve[top]]
    first = np.clip([start, 3.0, rise / 3, curve[top]], np.add(lower, 1e-6), np.subtract(upper, 1e-6))
    found = least_squares(
        lambda p: _gamma(t, *p) - c, first, bounds=(lower, upper), x_scale=[1, 1, 0.5, curve[top]], max_nfev=400
    )
    return GammaFit(*(float(v) for v in found.x), float(np.sqrt(np.mean(found.fun**2))))


def continuous(curve_hu: np.ndarray, times_s: np.ndarray, fine_s: np.ndarray) -> np.ndarray:
    """An arterial curve (T,) at any times: its gamma fit plus the interpolated (PCHIP) remainder.

    The fit draws the narrow peak better than any interpolation; the remainder keeps recirculation and tail as
    measured. Before the first sample the curve is zero, after the last it stays.
    """
    from scipy.interpolate import PchipInterpolator

    fit = fit_gamma(curve_hu, times_s)
    rest = PchipInterpolator(times_s, curve_hu - fit(times_s))(np.clip(fine_s, times_s[0], times_s[-1]))
    return np.where(fine_s < times_s[0], 0.0, fit(np.minimum(fine_s, times_s[-1])) + rest)
