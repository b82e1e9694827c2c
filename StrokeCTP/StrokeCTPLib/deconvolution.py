"""Deconvolution of tissue curves by an arterial curve: standard, block-circulant and oscillation-limited SVD, Tikhonov.

C = dt * A k with k(t) = CBF * R(t - delay) up to a constant. Every linear method is one matrix G built once from the
arterial curve, so that the voxels cost one matrix product, k = C G'. The truncated SVD of a block-circulant matrix is
exactly a division of spectra in which frequencies with |A| below a share of the largest are left out; padding that
spectrum samples k on a finer grid at no cost. Wu et al. 2003 (bSVD, oSVD), Ostergaard et al. 1996 (sSVD).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from StrokeCTPLib.concentration import chunks, highest

#: Tissue that fills before the chosen artery is looked for up to this lead.
LONGEST_LEAD_S = 6.0
#: Share of the largest singular value, or frequency, below which the SVD methods cut.
SSVD_CUT, BSVD_CUT, TIKHONOV_LAMBDA = 0.2, 0.1, 0.15
#: Limit of the oscillation index. Toolboxes for MR take 0.035; noise of CT needs more.
OSCILLATION_LIMIT = 0.095
#: From so many curves on it pays to factorise the matrix; singular values below this share of the largest are rounding.
MANY_CURVES, RANK_TOLERANCE = 10_000, 1e-6


@dataclass(frozen=True)
class Operator:
    """A linear deconvolution: k = curves @ matrix.T at the lags ``lags_s``.

    Attributes:
        matrix: float32 (lags, t), in 1/s for unit arterial curve.
        lags_s: (lags,) ascending and equally spaced; negative ones are tissue that fills before the artery.
    """

    matrix: torch.Tensor
    lags_s: np.ndarray


@dataclass(frozen=True)
class Peaks:
    """The residue functions' maxima.

    Attributes:
        height: (n,) maximum of k in 1/s (times 6000 kH/rho: CBF in mL/100 g/min).
        lag_s: (n,) where it lies, by a parabola through three samples; negative for tissue ahead of the artery.
    """

    height: torch.Tensor
    lag_s: torch.Tensor


def simpson(artery: np.ndarray) -> np.ndarray:
    """Arterial samples weighted (a[n-1] + 4 a[n] + a[n+1]) / 6: the volterra rule between samples."""
    padded = np.pad(np.asarray(artery, float), 1)
    return (padded[:-2] + 4 * padded[1:-1] + padded[2:]) / 6


def circulant_operator(
    artery: np.ndarray,
    step_s: float,
    cut: float = BSVD_CUT,
    tikhonov: float | None = None,
    oversampling: int = 4,
    weighting: str = "simpson",
) -> Operator:
    """Block-circulant deconvolution as one matrix: bSVD cut at ``cut``, or Tikhonov where ``tikhonov`` is given.

    Args:
        artery: (t,) arterial concentration at steps of ``step_s``. cut, tikhonov: as shares of the largest spectral
            magnitude. oversampling: residue samples per frame. weighting: "simpson" or "none" between the samples.
    """
    t = len(artery)
    spectrum = _spectrum(artery, weighting)
    inverse = _inverse_filter(spectrum, cut, tikhonov)
    unit = np.fft.rfft(np.eye(t), 2 * t, axis=1) * inverse
    matrix = _upsampled(unit, 2 * t, oversampling).T / step_s
    lags = np.arange(2 * t * oversampling)
    lags[lags >= t * oversampling] -= 2 * t * oversampling
    lead = min(int(LONGEST_LEAD_S / step_s), t // 4) * oversampling
    order = np.argsort(lags)
    order = order[lags[order] >= -lead]
    return Operator(_tensor(matrix[order]), lags[order] * step_s / oversampling)


def _spectrum(artery: np.ndarray, weighting: str) -> np.ndarray:
    """Spectrum of the arterial curve padded to twice its length."""
    spectrum = np.fft.rfft(np.asarray(artery, float), 2 * len(artery))
    if weighting == "simpson":  # the three-point weights are a factor in frequency, wrapping around
        angle = np.pi * np.arange(len(spectrum)) / len(artery)
        spectrum = spectrum * (4 + 2 * np.cos(angle)) / 6
    return spectrum


def _inverse_filter(spectrum: np.ndarray, cut: float, tikhonov: float | None) -> np.ndarray:
    """Regularised 1 / spectrum."""
    size = np.abs(spectrum)
    if tikhonov is not None:
        return spectrum.conj() / (size**2 + (tikhonov * size.max()) ** 2)
    keep = size >= cut * size.max()
    return np.where(keep, 1 / np.where(keep, spectrum, 1), 0)


def _upsampled(spectra: np.ndarray, length: int, factor: int) -> np.ndarray:
    """Inverse transform (n, length * factor) of half spectra of even ``length``, on a finer grid."""
    if factor > 1:
        spectra = np.pad(spectra, ((0, 0), (0, length * factor // 2 + 1 - spectra.shape[1])))
        spectra[:, length // 2] /= 2
    return np.fft.irfft(spectra, length * factor, axis=1) * factor


def ssvd_operator(artery: np.ndarray, step_s: float, cut: float = SSVD_CUT) -> Operator:
    """Standard SVD: lower-triangular convolution matrix, singular values below ``cut`` of the largest left out.

    Depends on delay by its nature; offered for comparison.
    """
    weighted = simpson(artery)
    t = len(weighted)
    matrix = np.tril(weighted[np.subtract.outer(np.arange(t), np.arange(t)) % t]) * step_s
    u, s, vt = np.linalg.svd(matrix)
    inverse = np.where(s >= cut * s[0], 1 / np.maximum(s, 1e-30), 0)
    return Operator(_tensor(vt.T * inverse @ u.T), np.arange(t) * step_s)


def residues(curves: torch.Tensor, operator: Operator) -> torch.Tensor:
    """k at the operator's lags (n, lags) in 1/s for curves (n, t); for plots and small numbers of voxels."""
    return curves @ operator.matrix.to(curves).T


def find_peaks(curves: torch.Tensor, operator: Operator) -> Peaks:
    """Deconvolve curves (n, t) chunk by chunk and keep each maximum only."""
    factors = _factors(operator.matrix) if len(curves) > MANY_CURVES else [operator.matrix.T]
    return _peaks(curves, [factor.to(curves) for factor in factors], operator.lags_s)


def _factors(matrix: torch.Tensor) -> list[torch.Tensor]:
    """(t, r) and (r, lags) whose product is the transposed matrix to the last digits, where that saves operations.

    A cut leaves few frequencies, and so few singular values.
    """
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank = int((s > RANK_TOLERANCE * s[0]).sum())
    if rank * sum(matrix.shape) > 0.8 * matrix.numel():
        return [matrix.T]
    return [vt[:rank].T.contiguous(), (u[:, :rank] * s[:rank]).T.contiguous()]


def _peaks(curves: torch.Tensor, factors: list[torch.Tensor], lags_s: np.ndarray) -> Peaks:
    """Maxima of each row of the product, refined by a parabola."""
    tops = highest(curves, factors, (-1, 1))
    height, at = tops.value, tops.at
    below, above = tops.beside.unbind(1)
    bend = below - 2 * height + above
    shift = torch.where(bend < 0, (below - above) / (2 * bend).clamp(max=-1e-20), 0.0).clamp(-0.5, 0.5)
    inside = (at > 0) & (at < len(lags_s) - 1)
    shift = torch.where(inside, shift, 0.0)
    step = float(lags_s[1] - lags_s[0])
    return Peaks(height - 0.25 * (below - above) * shift, lags_s[0] + (at + shift) * step)


def _chunked(curves: torch.Tensor, width: int, peaks_of: Callable[[torch.Tensor], Peaks]) -> Peaks:
    parts = [peaks_of(chunk) for chunk in chunks(curves, width)]
    if not parts:
        return Peaks(curves.new_zeros(0), curves.new_zeros(0))
    return Peaks(torch.cat([part.height for part in parts]), torch.cat([part.lag_s for part in parts]))


def oscillation_index(k: torch.Tensor) -> torch.Tensor:
    """1 / L * sum |k[j] - 2 k[j-1] + k[j-2]| / max k for residue functions (n, L) sampled once per frame."""
    bend = k.diff(n=2, dim=1).abs().sum(1)
    return bend / (k.shape[1] * k.amax(1).clamp(min=1e-20))


def find_peaks_osvd(
    curves: torch.Tensor, artery: np.ndarray, step_s: float, limit: float = OSCILLATION_LIMIT, oversampling: int = 4
) -> Peaks:
    """oSVD: for each voxel the lowest cut of bSVD (2 to 95 %) whose residue function oscillates less than ``limit``.

    Cuts that leave the same frequencies are tried once. Voxels that still oscillate at the last cut keep it.
    """
    steps = list(_distinct_cuts(artery))
    coarse = [circulant_operator(artery, step_s, cut, oversampling=1) for cut in steps]
    fine = [circulant_operator(artery, step_s, cut, oversampling=oversampling) for cut in steps]

    def of_chunk(chunk: torch.Tensor) -> Peaks:
        height, lag = torch.zeros_like(chunk[:, 0]), torch.zeros_like(chunk[:, 0])
        open_ = torch.arange(len(chunk), device=chunk.device)
        for number, (operator, finer) in enumerate(zip(coarse, fine)):
            calm = oscillation_index(residues(chunk[open_], operator)) < limit
            done = open_ if number == len(steps) - 1 else open_[calm]
            peaks = _peaks(chunk[done], [finer.matrix.to(chunk).T], finer.lags_s)
            height[done], lag[done] = peaks.height, peaks.lag_s
            open_ = open_[~calm]
            if not len(open_):
                break
        return Peaks(height, lag)

    return _chunked(curves, len(fine[0].lags_s), of_chunk)


def _distinct_cuts(artery: np.ndarray) -> Iterator[float]:
    """Cuts of 2 to 95 % that keep different sets of frequencies."""
    size = np.abs(_spectrum(artery, "simpson"))
    kept_before = -1
    for cut in np.linspace(0.02, 0.95, 32):
        kept = int((size >= cut * size.max()).sum())
        if kept != kept_before:
            yield float(cut)
        kept_before = kept


def _tensor(matrix: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix, np.float32))
