"""The perfusion phantoms: areas, truth, sampling, seeds, true volumes."""

from __future__ import annotations

import numpy as np
import pytest

from Training.simulation.ctp_phantom import (
    DENSITY,
    HAEMATOCRIT_RATIO,
    SHAPES,
    TILE_DELAY_S,
    TILE_MTT_S,
    GammaVariate,
    residue_integral,
    tile_phantom,
    tissue_curve,
    vein_of,
)
from Training.simulation.ctp_stroke_phantom import ARTERY, VEIN, stroke_phantom


def test_the_artery_is_the_published_one():
    artery = GammaVariate()
    times = np.arange(0, 60, 0.01)
    assert artery(times).max() == pytest.approx(464, abs=0.1)
    assert times[artery(times).argmax()] == pytest.approx(16.5, abs=0.02)
    assert artery(times).sum() * 0.01 == pytest.approx(artery.area_hu_s, rel=1e-3)
    assert vein_of(artery).area_hu_s == pytest.approx(artery.area_hu_s, rel=1e-12)
    assert vein_of(artery)(times).max() == pytest.approx(207, abs=1)  # 247 HU over a baseline of 40


@pytest.mark.parametrize("shape", SHAPES)
def test_residue_integrals_are_those_of_their_densities(shape):
    times = np.linspace(0, 200, 200001)
    integral = residue_integral(shape, 6.0, times)
    residue = np.gradient(integral, times)
    assert residue[0] == pytest.approx(1, abs=2e-3)
    assert integral[-1] == pytest.approx(6.0, rel=1e-6)
    assert (np.diff(residue) < 1e-3).all()
    if shape == "exponential":
        assert np.allclose(residue[1:-1], np.exp(-times[1:-1] / 6), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_blood_volume_is_the_ratio_of_areas(shape):
    artery, times = GammaVariate(), np.arange(0, 300, 0.5)
    area = tissue_curve(artery, times, 3.0, 8.0, 2.0, shape).sum() * 0.5
    assert 100 * HAEMATOCRIT_RATIO / DENSITY * area / artery.area_hu_s == pytest.approx(3.0, rel=1e-3)


def test_a_delay_moves_the_curve_and_nothing_else():
    artery, times = GammaVariate(), np.arange(0, 80, 0.5)
    now, later = (tissue_curve(artery, times, 4.0, 5.0, delay, "gamma") for delay in (0.0, 3.0))
    assert np.allclose(later[6:], now[:-6], atol=2e-3)


def test_tiles_hold_delay_in_rows_and_transit_time_in_columns():
    phantom = tile_phantom(tile_px=6, noise_hu=0)
    box = phantom.slices_of("box")
    assert phantom.frames_hu.shape == (30, 16, 42, 42)
    assert np.unique(phantom.truth["delay"][box][:, 6:12]) == pytest.approx([TILE_DELAY_S[1]])
    assert np.unique(phantom.truth["mtt"][box][:, :, 12:18]) == pytest.approx([TILE_MTT_S[2]])
    assert [np.unique(phantom.truth["cbv"][k]).max() for k in range(1, 6)] == [1, 2, 3, 4, 5]
    assert phantom.truth["cbf"][box].max() == pytest.approx(87.5)
    assert np.allclose(phantom.truth["tmax"][box], phantom.truth["delay"][box] + phantom.truth["mtt"][box] / 2)
    inside = phantom.tile_interiors[box][0]
    assert inside.sum() == 49 * 2 * 2 and not inside[:2].any()


def test_artery_is_seen_partly_and_vein_wholly_where_the_original_has_them():
    phantom = tile_phantom(shapes=("box",), margin_px=144, noise_hu=0)
    assert phantom.frames_hu.shape[-2:] == (512, 512) and phantom.artery_roi[123, 251] and phantom.vein_roi[425, 262]
    seen = phantom.frames_hu[:, 0, phantom.artery_roi] - 40
    assert np.allclose(seen, 0.485 * phantom.artery_hu[:, None], atol=1e-3)
    assert np.allclose(phantom.frames_hu[:, 0, phantom.vein_roi] - 40, phantom.vein_hu[:, None], atol=1e-3)


def test_noise_is_seeded_and_has_its_size():
    first, again, other = (tile_phantom(("box",), 8, noise_hu=9, seed=seed).frames_hu for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    clean = tile_phantom(("box",), 8, noise_hu=0).frames_hu
    assert (first - clean).std() == pytest.approx(9, rel=0.01)


def test_the_stroke_head_has_its_true_volumes():
    head = stroke_phantom((16, 128, 128), (1.72, 1.72, 5.0), noise_hu=0)
    assert head.volume_ml(head.hypoperfused) == pytest.approx(210.7, abs=0.02)
    assert head.volume_ml(head.core) == pytest.approx(50.5, abs=0.02)
    assert not (head.core & ~head.hypoperfused).any() and not (head.hypoperfused & ~head.brain).any()
    assert (head.truth["delay"][head.hypoperfused] >= 4).all()
    seen = head.frames.array[:, head.tissue == ARTERY] - 40
    assert np.allclose(seen, 0.5 * head.artery_hu[:, None], atol=1e-3)
    assert np.allclose(head.frames.array[:, head.tissue == VEIN] - 45, head.vein_hu[:, None], atol=1e-3)


def test_the_lesion_lies_in_the_patients_left():
    head = stroke_phantom((6, 64, 64), (3.4, 3.4, 12.0), noise_hu=0, hypoperfused_ml=100, core_ml=20)
    i = np.nonzero(head.hypoperfused)[2].mean()
    assert (head.frames.ijk_to_ras @ [i, 32, 3, 1])[0] < (head.frames.ijk_to_ras @ [31.5, 32, 3, 1])[0]
