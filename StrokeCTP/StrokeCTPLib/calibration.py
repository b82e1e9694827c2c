"""Thresholds calibrated on the patient's own arterial curve and noise.

The maximum of a noisy residue function lies above its true height, the more so the lower the flow: a plain rule
"flow below 30 % of normal" loses half the core at clinical noise. Here tissue with the patient's arterial curve and
noise is simulated. Of several regularisations, the one is taken that separates core from penumbra best, and the
threshold becomes what tissue exactly on the line of the standard engine (bSVD cut at 10 %, no noise) shows in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from StrokeCTPLib.concentration import K_H_OVER_DENSITY
from StrokeCTPLib.deconvolution import BSVD_CUT, Operator, circulant_operator, find_peaks
from StrokeCTPLib.model_fit import modelled_curves

#: CBF in mL/100 g/min per 1/s of deconvolved height.
FLOW_FACTOR = 6000 * K_H_OVER_DENSITY
#: Mean transit time in s of normal tissue and of tissue at the line; delay of the latter in s.
NORMAL_MTT_S, ISCHAEMIC_MTT_S, ISCHAEMIC_DELAY_S = 4.5, 10.0, 4.0
#: The usual line of Tmax in s, and bounds of what stands for it: share of the way from the lag of normal to that of
#: slow tissue, and delay in s (ct_perfusion.md 1.2, 8.4). A wide bolus moves Tmax, not the delay, and healthy tissue is
#: up to 2 s late.
PLAIN_TMAX_S, BETWEEN, DELAYS_S = 6.0, (0.4, 0.9), (3.0, 4.0)
#: Cuts to choose from, and the flows (as shares of the line's flow) that they should tell apart.
CUTS, APART = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4), (0.6, 1.4)
_SAMPLES = 1500


@dataclass(frozen=True)
class Spread:
    """SD of what maps show of equal tissue: of its flow, as a share of it, and of its lag in s."""

    flow: float = 0.0
    lag_s: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """How to draw the line between core and penumbra in this patient.

    Attributes:
        cut: of the bSVD whose flow map is to be thresholded.
        rcbf: its threshold, as a share of the contralateral flow in the same map.
        plain_rcbf: the threshold of the standard engine that it stands for.
        noise_hu: SD of the smoothed tissue curves. separation: of flows APART, in SD.
        tmax_s: what tissue on the line of Tmax of the standard engine has in the map of this cut.
        line_delay_s: delay in the model maps that such tissue has. plain_tmax_s: that line of the standard engine.
        flow_scale: what the flow map of this cut, which lowers all flow, is multiplied by so that normal tissue reads
            as in the map of the standard engine.
        spread, plain_spread: what noise does to single voxels on the line, in the maps of this cut and of the
            standard engine.
    """

    cut: float
    rcbf: float
    plain_rcbf: float
    noise_hu: float
    separation: float
    tmax_s: float
    line_delay_s: float
    plain_tmax_s: float = 6.0
    flow_scale: float = 1.0
    spread: Spread = Spread()
    plain_spread: Spread = Spread()


def noise_of(curves: torch.Tensor, most: int = 20000) -> float:
    """SD in HU of the noise of curves (n, t): what the ten leading principal components leave."""
    some = curves[:: max(1, len(curves) // most)].double()
    values = torch.linalg.eigvalsh(some.T @ some / max(1, len(some)))
    return float(values[: -min(10, len(values) // 2)].mean().clamp(min=0).sqrt())


def calibrate(
    artery: np.ndarray,
    step_s: float,
    noise_hu: float,
    reference_cbf: float,
    plain_rcbf: float = 0.30,
    tmax_s: float = 6.0,
    seed: int = 0,
) -> Calibration:
    """Find cut and threshold for the patient's arterial curve (t,) in HU at regular steps.

    Args:
        noise_hu: SD of the tissue curves as they are deconvolved (see noise_of).
        reference_cbf: contralateral flow in the standard bSVD map, which says how strong normal tissue's curves are.
        plain_rcbf, tmax_s: thresholds of the standard engine to stand for.
    """
    normal, slow = _unit_tissue(artery, step_s)
    noise = np.random.default_rng(seed).standard_normal((_SAMPLES, len(artery))) * noise_hu
    standard = circulant_operator(artery, step_s, BSVD_CUT)
    flow = reference_cbf / _height(normal[None], standard)
    flow *= reference_cbf / _height(flow * normal + noise, standard)  # noise lifts normal tissue too
    line = plain_rcbf * flow * _height(normal[None], standard) / _height(slow[None], standard)
    best = None
    for cut in CUTS:
        operator = circulant_operator(artery, step_s, cut, oversampling=2)
        low, high = (_heights(share * line * slow + noise, operator) for share in APART)
        separation = float((high.mean() - low.mean()) / np.sqrt((high.var() + low.var()) / 2 + 1e-12))
        if best is None or separation > 1.03 * best[0]:  # rather the milder cut, unless the stronger gains
            best = (separation, cut, operator)
    separation, cut, operator = best
    shown = _height(flow * normal + noise, operator)
    share = _height(line * slow + noise, operator) / shown
    late_s, delay_s = _lines(normal, slow, operator, standard)
    late_s, delay_s = late_s + tmax_s - PLAIN_TMAX_S, delay_s + tmax_s - PLAIN_TMAX_S
    spreads = (_spread(line * slow + noise, one) for one in (operator, standard))
    scale = reference_cbf / shown
    return Calibration(cut, share, plain_rcbf, noise_hu, separation, late_s, delay_s, tmax_s, scale, *spreads)


def _lines(normal: np.ndarray, slow: np.ndarray, operator: Operator, standard: Operator) -> tuple[float, float]:
    """Tmax in the map of ``operator``, and delay, of tissue with PLAIN_TMAX_S in the standard map, in s.

    The line lies as far between the lags of normal and slow tissue as in the standard map. Residues of wide boluses
    oscillate and their lags jump; bounds keep the line between both kinds of tissue then.
    """
    lags = [[float(find_peaks(_tensor(c[None]), o).lag_s[0]) for c in (normal, slow)] for o in (operator, standard)]
    (early, late), (early_standard, late_standard) = lags
    between = (PLAIN_TMAX_S - early_standard) / max(late_standard - early_standard, 0.1)
    delay_s = ISCHAEMIC_DELAY_S + PLAIN_TMAX_S - late_standard
    return early + float(np.clip(between, *BETWEEN)) * (late - early), float(np.clip(delay_s, *DELAYS_S))


def _unit_tissue(artery: np.ndarray, step_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Curves (t,) of normal and of slow, late tissue with a flow of 1 mL/100 g/min."""
    mtt, delay = np.array([NORMAL_MTT_S, ISCHAEMIC_MTT_S]), np.array([0.0, ISCHAEMIC_DELAY_S])
    curves = modelled_curves(artery, np.arange(len(artery)) * step_s, "gamma", mtt, delay)
    return curves[0, 0] * NORMAL_MTT_S / 60, curves[1, 1] * ISCHAEMIC_MTT_S / 60


def _tensor(curves: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(curves, np.float32))


def _heights(curves: np.ndarray, operator: Operator) -> np.ndarray:
    return find_peaks(_tensor(curves), operator).height.numpy() * FLOW_FACTOR


def _height(curves: np.ndarray, operator: Operator) -> float:
    """Median flow that an operator shows for curves (n, t)."""
    return float(np.median(_heights(curves, operator)))


def _spread(curves: np.ndarray, operator: Operator) -> Spread:
    """Spread of equal tissue's curves (n, t); by quartiles, as a lag that jumps to a peak of noise is no SD."""
    peaks = find_peaks(_tensor(curves), operator)
    low, middle, high = np.percentile(peaks.height.numpy(), (25, 50, 75))
    early, late = np.percentile(peaks.lag_s.numpy(), (25, 75))
    return Spread(float((high - low) / 1.349 / max(middle, 1e-12)), float((late - early) / 1.349))
