"""Model maps: every tissue curve is compared with a dictionary of modelled ones over mean transit time and delay.

A curve is CBV * rho / kH * (AIF convolved with R / MTT)(t - delay) + constant. Amplitude and constant have a closed
form, so that the fit is a matrix product and a maximum: the best atom is the one whose projection explains most. As
smooth curves span few dimensions, curves and atoms are first written in the dictionary's own leading singular vectors.
There, pooling the likelihood of neighbouring voxels (each with its own amplitude) needs only the local second moments
of the coefficients: sum_y g(x - y) (d'c(y))^2 = d' [sum_y g(x - y) c(y) c(y)'] d.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from StrokeCTPLib.arterial_curve import continuous
from StrokeCTPLib.concentration import K_H_OVER_DENSITY, Tops, chunks, highest, time_weights

#: Share of the dictionary's energy that the leading singular vectors may leave out.
LEFT_OUT = 1e-4
_FINE_S = 0.1


@dataclass(frozen=True)
class Dictionary:
    """Modelled tissue curves of unit blood volume.

    Attributes:
        mtt_s: (m,) logarithmic grid. delay_s: (d,) regular grid.
        atoms: float32 (m * d, r), unit length, in the leading singular vectors. norms: (m * d,) of the curves before.
        project: float32 (t, r): curves to coefficients, constant removed.
    """

    mtt_s: np.ndarray
    delay_s: np.ndarray
    atoms: torch.Tensor
    norms: torch.Tensor
    project: torch.Tensor


@dataclass(frozen=True)
class ModelFit:
    """Fitted values per voxel: CBV in mL/100 g, MTT and delay in s, and the share of the curve's energy explained."""

    cbv: torch.Tensor
    mtt_s: torch.Tensor
    delay_s: torch.Tensor
    explained: torch.Tensor


def residue_integral(shape: str, mtt_s: float, times_s: np.ndarray) -> np.ndarray:
    """Integral of a residue function from 0 to t in s: "box", "linear", "exponential" or "gamma" (k = 3 transit)."""
    from scipy.special import gammainc

    t = np.maximum(np.asarray(times_s, float), 0)
    if shape == "box":
        return np.minimum(t, mtt_s)
    if shape == "linear":
        t = np.minimum(t, 2 * mtt_s)
        return t - t**2 / (4 * mtt_s)
    if shape == "exponential":
        return -mtt_s * np.expm1(-t / mtt_s)
    if shape == "gamma":
        return t * (1 - gammainc(3, 3 * t / mtt_s)) + mtt_s * gammainc(4, 3 * t / mtt_s)
    raise ValueError(f"No residue function is called {shape!r}; choose box, linear, exponential or gamma.")


def build_dictionary(
    artery_hu: np.ndarray,
    times_s: np.ndarray,
    shape: str = "gamma",
    mtt_s: np.ndarray | None = None,
    delay_s: np.ndarray | None = None,
) -> Dictionary:
    """Model curves at the sample times (regular or not) from an arterial curve (t,) in HU above its baseline.

    Delays start at -4 s, as tissue may be earlier than the artery that was chosen; what lies outside the grid is fitted
    with a wrong transit time and flow.
    """
    mtt_s = np.geomspace(1.5, 35.0, 32) if mtt_s is None else np.asarray(mtt_s, float)
    delay_s = np.arange(-4.0, 12.01, 0.5) if delay_s is None else np.asarray(delay_s, float)
    curves = modelled_curves(artery_hu, times_s, shape, mtt_s, delay_s)
    return _compressed(curves.reshape(-1, len(times_s)), mtt_s, delay_s)


def modelled_curves(
    artery_hu: np.ndarray, times_s: np.ndarray, shape: str, mtt_s: np.ndarray, delay_s: np.ndarray
) -> np.ndarray:
    """Tissue curves (m, d, t) in HU for a CBV of 1 mL/100 g, from an arterial curve (t,) at the same times."""
    times = np.asarray(times_s, float)
    fine = np.arange(times[0], times[-1] - min(min(delay_s), 0) + _FINE_S, _FINE_S)
    length = 2 * len(fine)
    artery = np.fft.rfft(continuous(artery_hu, times, fine), length)
    edges = np.concatenate([[0.0], fine - fine[0] + _FINE_S / 2])
    curves = np.empty((len(mtt_s), len(delay_s), len(times)))
    for row, mtt in enumerate(mtt_s):
        weights = np.diff(residue_integral(shape, mtt, edges)) / mtt
        convolved = np.fft.irfft(artery * np.fft.rfft(weights, length), length)[: len(fine)]
        curves[row] = np.interp(times - np.asarray(delay_s)[:, None], fine, convolved, left=0.0)
    return curves / (100 * K_H_OVER_DENSITY)


def _compressed(curves: np.ndarray, mtt_s: np.ndarray, delay_s: np.ndarray) -> Dictionary:
    """Unit atoms without their constant, written in the leading singular vectors of all atoms."""
    centred = curves - curves.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    unit = centred / norms[:, None]
    _, s, vt = np.linalg.svd(unit, full_matrices=False)
    rank = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), 1 - LEFT_OUT)) + 1
    basis = vt[:rank].T
    basis = basis - basis.mean(0)  # so that a constant in a curve projects to nothing, to the last bit
    tensors = (torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in (unit @ basis, norms, basis))
    return Dictionary(mtt_s, delay_s, *tensors)


def fit(curves: torch.Tensor, dictionary: Dictionary) -> ModelFit:
    """Fit curves (n, t), each on its own."""
    atoms, project = dictionary.atoms.to(curves).T, dictionary.project.to(curves)
    coefficients = (part @ project for part in chunks(curves, curves.shape[1]))
    steps = _beside(dictionary)
    return _gathered((_refined(highest(part, [atoms], steps), part, dictionary) for part in coefficients), curves)


def fit_pooled(curves: torch.Tensor, dictionary: Dictionary, pool: Callable[[torch.Tensor], torch.Tensor]) -> ModelFit:
    """Fit curves (n, t) with the likelihood pooled over neighbours, amplitudes being each voxel's own.

    Voxels of more than the usual contrast weigh no more than usual ones: a vessel would else speak for all around it,
    and healthy cortex for the tissue at risk beside it.

    Args:
        pool: averages features (n, f) over neighbouring voxels (see smoothing.voxel_pool).
    """
    coefficients = curves @ dictionary.project.to(curves)
    rank = coefficients.shape[1]
    row, column = torch.triu_indices(rank, rank)
    energy = coefficients.square().sum(1, keepdim=True)
    usual = energy.median() if len(energy) else 1.0
    moments = pool(coefficients[:, row] * coefficients[:, column] * (usual / energy.clamp(min=usual)))
    twice = torch.where(row == column, 1.0, 2.0).to(curves)
    atoms = dictionary.atoms.to(curves)
    pairs = (atoms[:, row] * atoms[:, column] * twice).T.contiguous()
    steps = _beside(dictionary)

    def scored(part: torch.Tensor) -> Tops:
        """Of the energy that is explained, whose root is the score."""
        tops = highest(part, [pairs], steps)
        return Tops(tops.value.clamp(min=0).sqrt(), tops.at, tops.beside.clamp(min=0).sqrt())

    parts = zip(*(chunks(values, len(row)) for values in (moments, coefficients)))
    return _gathered((_refined(scored(m), c, dictionary) for m, c in parts), curves)


def _gathered(parts: Iterable[ModelFit], curves: torch.Tensor) -> ModelFit:
    """The parts one after the other, each written where it belongs as it comes.

    Kept in a list, the small results would lie between the large values that are freed, and memory could not be used
    again: gigabytes at a whole brain.
    """
    whole, start = ModelFit(*curves.new_empty(4, len(curves))), 0
    for part in parts:
        stop = start + len(part.cbv)
        for name in ("cbv", "mtt_s", "delay_s", "explained"):
            getattr(whole, name)[start:stop] = getattr(part, name)
        start = stop
    return whole


def _beside(dictionary: Dictionary) -> tuple[int, int, int, int]:
    """Steps from an atom to those of the next shorter and longer transit time and delay."""
    count = len(dictionary.delay_s)
    return -count, count, -1, 1


def _refined(tops: Tops, coefficients: torch.Tensor, dictionary: Dictionary) -> ModelFit:
    """The best atom per voxel, moved between grid points by a parabola through its neighbours' scores."""
    count = len(dictionary.delay_s)
    best, at = tops.value, tops.at
    row, column = at // count, at % count
    log_mtt = np.log(dictionary.mtt_s)
    row_shift = _shift(tops.beside[:, :2], best, row, len(log_mtt))
    column_shift = _shift(tops.beside[:, 2:], best, column, count)
    mtt = torch.exp(log_mtt[0] + (row + row_shift) * float(log_mtt[1] - log_mtt[0])) if len(log_mtt) > 1 else None
    mtt = torch.full_like(best, float(dictionary.mtt_s[0])) if mtt is None else mtt
    step = float(dictionary.delay_s[1] - dictionary.delay_s[0]) if count > 1 else 0.0
    delay = float(dictionary.delay_s[0]) + (column + column_shift) * step
    own = (coefficients * dictionary.atoms.to(best)[at]).sum(1).clamp(min=0)
    energy = coefficients.square().sum(1).clamp(min=1e-20)
    return ModelFit(own / dictionary.norms.to(best)[at], mtt, delay, own.square() / energy)


def _shift(beside: torch.Tensor, best: torch.Tensor, place: torch.Tensor, size: int) -> torch.Tensor:
    """Offset (-0.5 to 0.5) of a parabola's top along one axis of the grid; 0 at its ends."""
    inside = (place > 0) & (place < size - 1)
    below, above = beside.unbind(1)
    bend = below - 2 * best + above
    shift = (below - above) / (2 * bend).clamp(max=-1e-12)
    return torch.where(inside & (bend < 0), shift.clamp(-0.5, 0.5), torch.zeros_like(shift))


def bolus_area(curves: torch.Tensor, times_s: np.ndarray) -> torch.Tensor:
    """Area under curves (n, t) in HU s by the trapezoid rule at the true times."""
    return curves @ torch.as_tensor(time_weights(times_s), dtype=curves.dtype, device=curves.device)
