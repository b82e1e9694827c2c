"""The dictionary: exact curves found again, constants projected out, irregular times, pooling, arterial curve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from NeuraxisLib.errors import InputError
from StrokeCTPLib.arterial_curve import continuous, fit_gamma
from StrokeCTPLib.concentration import K_H_OVER_DENSITY
from StrokeCTPLib.model_fit import bolus_area, build_dictionary, fit, fit_pooled
from StrokeCTPLib.smoothing import voxel_pool
from Training.simulation.ctp_phantom import SHAPES, GammaVariate, tissue_curve

ARTERY = GammaVariate(t0_s=8.0, peak_hu=300.0)
TIMES = {
    "1 s": np.arange(60) * 1.0,
    "1.5 s": np.arange(40) * 1.5,
    "2 s": np.arange(30) * 2.0,
    "2.8 s": np.arange(22) * 2.8,
    "irregular": np.concatenate([np.arange(0, 36, 1.5), np.arange(36, 62, 3.0)]),
}


def tensor(*curves: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.stack(curves), dtype=torch.float32)


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_grey_matter_has_its_units_at_every_sampling(times):
    """CBV 4, CBF 60, MTT 4: CBV within 3 % by both ways, MTT of the model within 10 %."""
    curve = tensor(tissue_curve(ARTERY, times, 4.0, 4.0, 1.0))
    found = fit(curve, build_dictionary(ARTERY(times), times))
    assert float(found.cbv) == pytest.approx(4.0, rel=0.03)
    assert float(found.mtt_s) == pytest.approx(4.0, rel=0.10)
    assert float(found.delay_s) == pytest.approx(1.0, abs=0.2)
    area = bolus_area(curve, times) / bolus_area(tensor(ARTERY(times)), times)
    assert float(area) * 100 * K_H_OVER_DENSITY == pytest.approx(4.0, rel=0.03)
    assert pytest.approx(0.698, abs=5e-4) == K_H_OVER_DENSITY


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_found_again(shape):
    times = TIMES["1.5 s"]
    truth = [(2.0, 12.0, 4.0), (4.0, 6.0, 0.0), (1.0, 9.0, 6.0)]
    curves = tensor(*(tissue_curve(ARTERY, times, *values, shape) for values in truth))
    found = fit(curves, build_dictionary(ARTERY(times), times, shape))
    assert found.cbv.numpy() == pytest.approx([v[0] for v in truth], rel=0.04)
    assert found.mtt_s.numpy() == pytest.approx([v[1] for v in truth], rel=0.06)
    assert found.delay_s.numpy() == pytest.approx([v[2] for v in truth], abs=0.4)
    assert (found.explained > 0.997).all()


@pytest.mark.parametrize("cbv, mtt_s", [(4.0, 4.0), (2.0, 10.0), (1.5, 15.0)])
def test_no_delay_from_before_the_artery_to_far_behind_it_is_fitted_wrongly(cbv, mtt_s):
    """-3 to 8 s without noise, on and between the points of the grid; between them flow is off by up to a tenth."""
    artery, times = GammaVariate(t0_s=12.0, peak_hu=300.0), np.arange(45) * 1.5
    for delays, flow, volume in ((np.arange(-3, 8.1, 0.5), 0.03, 0.025), (np.arange(-3, 8.1, 0.3), 0.12, 0.04)):
        curves = tensor(*(tissue_curve(artery, times, cbv, mtt_s, delay) for delay in delays))
        found = fit(curves, build_dictionary(artery(times), times))
        assert (60 * found.cbv / found.mtt_s).numpy() == pytest.approx(np.full(len(delays), 60 * cbv / mtt_s), rel=flow)
        assert found.cbv.numpy() == pytest.approx(np.full(len(delays), cbv), rel=volume)
        assert found.delay_s.numpy() == pytest.approx(delays, abs=0.25)


def test_a_constant_changes_nothing():
    times = TIMES["2 s"]
    curve = tissue_curve(ARTERY, times, 3.0, 7.0, 2.0)
    plain, shifted = (fit(tensor(c), build_dictionary(ARTERY(times), times)) for c in (curve, curve + 5.0))
    assert float(shifted.cbv) == pytest.approx(float(plain.cbv), rel=1e-3)
    assert float(shifted.mtt_s) == pytest.approx(float(plain.mtt_s), rel=1e-2)


@pytest.mark.parametrize("length_s", [48, 40])
def test_blood_volume_survives_truncation(length_s):
    times = np.arange(0, length_s + 0.1, 1.5)
    curve = tensor(tissue_curve(ARTERY, times, 2.0, 9.0, 4.0))
    found = fit(curve, build_dictionary(ARTERY(times), times))
    area = bolus_area(curve, times) / bolus_area(tensor(ARTERY(times)), times)
    assert float(found.cbv) == pytest.approx(2.0, rel=0.05)
    assert float(area) * 100 * K_H_OVER_DENSITY < float(found.cbv)


def test_pooling_lessens_errors_and_keeps_each_voxels_amplitude():
    times, rng = TIMES["1.5 s"], np.random.default_rng(0)
    mask = torch.ones((1, 24, 24), dtype=torch.bool)
    cbv = np.where(np.arange(24) < 12, 2.0, 4.0)[None, :].repeat(24, 0).ravel()
    curves = tensor(*(tissue_curve(ARTERY, times, 1.0, 8.0, 2.0)[None] * cbv[:, None]))
    curves += 1.0 * torch.from_numpy(rng.standard_normal(curves.shape).astype(np.float32))
    dictionary = build_dictionary(ARTERY(times), times)
    alone, pooled = fit(curves, dictionary), fit_pooled(curves, dictionary, voxel_pool(mask, 2.0))
    errors = [float((found.mtt_s - 8.0).abs().mean()) for found in (alone, pooled)]
    assert errors[1] < 0.5 * errors[0]
    sides = pooled.cbv.numpy().reshape(24, 24)
    assert sides[:, :12].mean() == pytest.approx(2, rel=0.05) and sides[:, 12:].mean() == pytest.approx(4, rel=0.05)


def test_pooling_over_nothing_is_the_plain_fit():
    times, rng = TIMES["1.5 s"], np.random.default_rng(0)
    curves = tensor(*(tissue_curve(ARTERY, times, 3.0, m, 1.0) for m in np.linspace(3, 15, 64)))
    curves += torch.from_numpy(rng.standard_normal(curves.shape).astype(np.float32)) * 0.3
    dictionary = build_dictionary(ARTERY(times), times)
    alone = fit(curves, dictionary)
    pooled = fit_pooled(curves, dictionary, voxel_pool(torch.ones((1, 8, 8), dtype=torch.bool), 0.0))
    assert torch.allclose(alone.mtt_s, pooled.mtt_s, rtol=1e-2)
    assert torch.allclose(alone.cbv, pooled.cbv, rtol=1e-2)


def test_the_gamma_fit_finds_a_sparse_bolus_again():
    times = TIMES["2.8 s"]
    found = fit_gamma(ARTERY(times), times)
    assert (found.t0_s, found.alpha, found.beta_s, found.peak_hu) == pytest.approx((8.0, 3.0, 1.5, 300.0), rel=0.02)
    assert found.area_hu_s == pytest.approx(ARTERY.area_hu_s, rel=0.01)


def test_recirculation_stays_as_measured():
    times, fine = TIMES["1.5 s"], np.arange(0, 58, 0.1)
    second = GammaVariate(t0_s=24.0, alpha=3.0, beta_s=3.0, peak_hu=40.0)
    curve = continuous(ARTERY(times) + second(times), times, fine)
    assert np.abs(curve - ARTERY(fine) - second(fine)).max() < 6.0


def test_a_flat_vessel_is_refused():
    with pytest.raises(InputError, match="no bolus"):
        fit_gamma(np.zeros(20), np.arange(20.0))
