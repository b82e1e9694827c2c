"""Noise-free curves whose truth has a closed form, and colours read back: parts of ``benchmark_perfusion.py``.

Within 1 % come blood volume by area, which sampling keeps, and both values of the model where its residue is the true
one. Flow by deconvolution does not, even without noise: the usual cut lowers the top of the residue, most where that
falls from its first moment on (exponential), and a fine cut lets a residue with an edge ring above its height (box).
That is shown beside them, without bounds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage

from StrokeCTPLib.calibration import FLOW_FACTOR
from StrokeCTPLib.colour_maps import invert
from StrokeCTPLib.colour_scales import SCALES, coloured, with_bar
from StrokeCTPLib.deconvolution import circulant_operator, find_peaks
from StrokeCTPLib.model_fit import bolus_area, build_dictionary, fit
from Training.simulation.ctp_phantom import SHAPES, GammaVariate, tissue_curve

#: CBV in mL/100 g, MTT and delay in s of the reference tissue; CBF is 60 CBV / MTT.
CBV, MTT_S, DELAY_S = 4.0, 4.0, 2.0
ARTERY = GammaVariate(t0_s=10.0, peak_hu=220.0)
#: Step in s and cut: of the clinic, and fine.
SAMPLINGS = {"1 s, cut 10 %": (1.0, 0.1), "0.25 s, cut 0.1 %": (0.25, 0.001)}
#: Mean and 99th percentile of the error of colours, in % of the range, at a noise of 4 of 255.
NOISE, COLOUR_GOALS = 4.0, (0.5, 2.0)
#: A line of the benchmark: name, what was found over the truth (or an error), bounds if it has any.
Line = tuple[str, float, tuple[float, float] | None]


def closed_form() -> Iterator[Line]:
    """Found over true for every residue function; within 1 % where that can be."""
    exact = (0.99, 1.01)
    for shape in SHAPES:
        for sampling, (step_s, cut) in SAMPLINGS.items():
            times = np.arange(0, 90 + step_s / 2, step_s)
            artery = ARTERY(times)
            curve = torch.tensor(tissue_curve(ARTERY, times, CBV, MTT_S, DELAY_S, shape))[None].float()
            area = bolus_area(curve, times) / bolus_area(torch.tensor(artery)[None].float(), times)
            name = f"{shape}, {sampling}"
            yield f"{name}: CBV by area", float(area) * FLOW_FACTOR / 60 / CBV, exact
            height = float(find_peaks(curve, circulant_operator(artery, step_s, cut)).height)
            yield f"{name}: CBF by bSVD", height * FLOW_FACTOR / (60 * CBV / MTT_S), None
        dictionary = build_dictionary(artery, times, shape, mtt_s=np.geomspace(1.0, 16.0, 33))  # holds the true one
        found = fit(curve, dictionary)
        yield f"{shape}, model of that residue, 0.25 s: CBV", float(found.cbv) / CBV, exact
        yield (
            f"{shape}, model of that residue, 0.25 s: CBF",
            float(60 * found.cbv / found.mtt_s) / (60 * CBV / MTT_S),
            exact,
        )


def colour_errors(scale: str, noise: float = NOISE, side: int = 256, seed: int = 0) -> tuple[float, float]:
    """Mean and 99th percentile, in % of the range, of a map written in colours with its bar, made noisy, and read back.

    Every value of the range is there as often as any other; neighbours are alike, as in smoothed maps.
    """
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.normal(size=(1, side, side)), (0, 12, 12))
    values = values.ravel().argsort().argsort().reshape(values.shape) / (values.size - 1)
    shown = with_bar(coloured(values, scale, (0, 1)), scale)
    shown = np.clip(np.rint(shown + rng.normal(0, noise, shown.shape)), 0, 255).astype(np.uint8)
    errors = 100 * np.abs(invert(shown, (0, 1)).values[..., :side] - values)
    return float(np.nanmean(errors)), float(np.nanpercentile(errors, 99))


def colours() -> Iterator[Line]:
    """Errors of every scale."""
    for scale in SCALES:
        for name, error, most in zip(("mean", "99th percentile"), colour_errors(scale), COLOUR_GOALS):
            yield f"colours {scale}, noise {NOISE:g}: {name}, % of range", error, (0.0, most)
