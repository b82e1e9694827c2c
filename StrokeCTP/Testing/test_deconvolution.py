"""Deconvolution: the matrix product against FFT and explicit SVD, delay, units, oscillation, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from StrokeCTPLib.concentration import K_H_OVER_DENSITY
from StrokeCTPLib.deconvolution import (
    circulant_operator,
    find_peaks,
    find_peaks_osvd,
    oscillation_index,
    residues,
    simpson,
    ssvd_operator,
)
from Training.simulation.ctp_phantom import GammaVariate, tissue_curve

STEP_S = 1.5
TIMES_S = np.arange(40) * STEP_S
ARTERY = GammaVariate(t0_s=8.0, peak_hu=300.0)
FLOW = 6000 * K_H_OVER_DENSITY


def tensor(*curves: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.stack(curves), dtype=torch.float32)


def noisy_curves(count: int = 50) -> torch.Tensor:
    rng = np.random.default_rng(0)
    base = tissue_curve(ARTERY, TIMES_S, 3.0, 6.0, 1.0)
    return tensor(*(base * scale + rng.standard_normal(40) for scale in rng.uniform(0.3, 2, count)))


def explicit_block_circulant(curves: np.ndarray, artery: np.ndarray, cut: float) -> np.ndarray:
    """Truncated SVD of the written-out 2T x 2T circulant matrix; residues at all 2T lags."""
    column = np.concatenate([artery, np.zeros(len(artery))])
    column = (np.roll(column, 1) + 4 * column + np.roll(column, -1)) / 6
    matrix = np.stack([np.roll(column, shift) for shift in range(len(column))], 1) * STEP_S
    u, s, vt = np.linalg.svd(matrix)
    inverse = np.where(s >= cut * s[0], 1 / s, 0)
    return np.pad(curves, ((0, 0), (0, len(artery)))) @ (vt.T * inverse @ u.T).T


def by_fft(curves: np.ndarray, artery: np.ndarray, cut: float) -> np.ndarray:
    """The same by division of spectra, voxel by voxel."""
    length = 2 * len(artery)
    spectrum = np.fft.fft(artery, length) * (4 + 2 * np.cos(2 * np.pi * np.arange(length) / length)) / 6
    keep = np.abs(spectrum) >= cut * np.abs(spectrum).max()
    return np.stack([np.fft.ifft(np.where(keep, np.fft.fft(c, length) / spectrum, 0)).real for c in curves]) / STEP_S


@pytest.mark.parametrize("cut", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("reference", [explicit_block_circulant, by_fft])
def test_one_matrix_product_is_the_block_circulant_svd(cut, reference):
    curves = noisy_curves()
    operator = circulant_operator(ARTERY(TIMES_S), STEP_S, cut, oversampling=1)
    expected = reference(curves.numpy().astype(float), ARTERY(TIMES_S), cut)
    places = np.rint(operator.lags_s / STEP_S).astype(int) % (2 * len(TIMES_S))
    difference = residues(curves, operator).numpy() - expected[:, places]
    assert np.abs(difference).max() < 1e-5 * np.abs(expected).max()


def test_finer_lags_pass_through_the_coarse_ones():
    coarse, fine = (circulant_operator(ARTERY(TIMES_S), STEP_S, oversampling=n) for n in (1, 4))
    k, finer = residues(noisy_curves(), coarse), residues(noisy_curves(), fine)
    assert np.allclose(coarse.lags_s, fine.lags_s[::4])
    assert torch.allclose(k, finer[:, ::4], atol=1e-5 * float(k.abs().max()))


def test_simpson_and_plain_samples_agree_within_three_percent():
    curves = tensor(tissue_curve(ARTERY, TIMES_S, 4.0, 4.8, 0.0, "box"), tissue_curve(ARTERY, TIMES_S, 2.0, 5, 1))
    weighted, plain = (
        find_peaks(curves, circulant_operator(ARTERY(TIMES_S), STEP_S, weighting=w)).height for w in ("simpson", "none")
    )
    assert torch.allclose(weighted, plain, rtol=0.03)


@pytest.mark.parametrize("method", ["bsvd", "osvd", "tikhonov"])
@pytest.mark.parametrize("lead_s", [0.0, 3.0])
def test_flow_does_not_depend_on_delay(method, lead_s):
    """Nor on an artery that fills 3 s after the tissue."""
    artery = GammaVariate(ARTERY.t0_s + lead_s, peak_hu=300.0)(TIMES_S)
    curves = tensor(*(tissue_curve(ARTERY, TIMES_S, 3.0, 7.0, delay) for delay in (0.0, 1.5, 3.0, 6.0, 8.0)))
    if method == "osvd":
        peaks = find_peaks_osvd(curves, artery, STEP_S)
    else:
        peaks = find_peaks(curves, circulant_operator(artery, STEP_S, tikhonov=0.15 if method == "tikhonov" else None))
    # oSVD picks its cut for each voxel among a few, so that a curve may fall to either side of one.
    tolerance = 0.08 if method == "osvd" else 0.03
    assert (peaks.height / peaks.height[0]).numpy() == pytest.approx(np.ones(5), abs=tolerance)
    shift = peaks.lag_s - peaks.lag_s[0]
    assert shift.numpy() == pytest.approx([0, 1.5, 3, 6, 8], abs=0.5 if method == "osvd" else 0.1)


def test_the_standard_svd_depends_on_delay():
    curves = tensor(*(tissue_curve(ARTERY, TIMES_S, 3.0, 7.0, delay) for delay in (0.0, 3.0)))
    height = find_peaks(curves, ssvd_operator(ARTERY(TIMES_S), STEP_S)).height
    assert abs(float(height[1] / height[0]) - 1) > 0.05


def test_standard_svd_solves_the_convolution_without_a_cut():
    k = np.exp(-TIMES_S / 5)
    curve = np.convolve(simpson(ARTERY(TIMES_S) + 1), k)[:40] * STEP_S
    found = residues(tensor(curve).double(), ssvd_operator(ARTERY(TIMES_S) + 1, STEP_S, cut=0.0))
    assert np.isfinite(found.numpy()).all()
    smooth = residues(tensor(curve).double(), ssvd_operator(ARTERY(TIMES_S) + 1, STEP_S, cut=0.02)).numpy()[0]
    assert np.corrcoef(smooth, k)[0, 1] > 0.9


def test_flow_has_its_unit():
    """The height of a box's plateau is the flow, in the mean over its ripples."""
    curves = tensor(*(tissue_curve(ARTERY, TIMES_S, cbv, 12.0, 2.0, "box") for cbv in (2.0, 4.0)))
    operator = circulant_operator(ARTERY(TIMES_S), STEP_S, 0.05)
    plateau = (operator.lags_s > 4) & (operator.lags_s < 12)
    flow = residues(curves, operator)[:, torch.from_numpy(plateau)].mean(1) * FLOW
    assert flow.numpy() == pytest.approx([10.0, 20.0], rel=0.06)


def test_oscillation_index_by_hand():
    k = torch.tensor([[0.0, 2.0, 0.0, 2.0]])
    assert float(oscillation_index(k)) == pytest.approx((4 + 4) / (4 * 2))


def test_osvd_cuts_more_where_there_is_more_noise():
    rng = np.random.default_rng(1)
    base = tissue_curve(ARTERY, TIMES_S, 3.0, 6.0, 1.0)
    quiet, loud = (tensor(*(base + sd * rng.standard_normal((200, 40)))) for sd in (0.05, 1.5))
    spread = [
        float(find_peaks(loud, circulant_operator(ARTERY(TIMES_S), STEP_S, 0.02)).height.std()),
        float(find_peaks_osvd(loud, ARTERY(TIMES_S), STEP_S).height.std()),
    ]
    assert spread[1] < 0.7 * spread[0]
    calm = find_peaks_osvd(quiet, ARTERY(TIMES_S), STEP_S).height.mean() * FLOW
    assert float(calm) == pytest.approx(30.0, rel=0.25)


def test_no_curves_give_no_peaks():
    assert find_peaks(torch.zeros(0, 40), circulant_operator(ARTERY(TIMES_S), STEP_S)).height.shape == (0,)
