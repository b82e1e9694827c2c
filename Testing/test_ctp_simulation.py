"""Simulated CT perfusion of strokes: curves, truth, vessels, lesions, motion, noise; and what the chain makes of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from project_tree import ROOT
from scipy import ndimage

from StrokeCTPLib.arterial_input import Contrast, find_arterial_input
from StrokeCTPLib.brain_mask import find_brain
from StrokeCTPLib.calibration import calibrate
from StrokeCTPLib.concentration import find_arrival
from StrokeCTPLib.deconvolution import circulant_operator, find_peaks
from StrokeCTPLib.model_fit import modelled_curves
from StrokeCTPLib.motion import estimate_motion
from Training.simulation.ctp_anatomy import StrokeSources, TerritoryAtlas
from Training.simulation.ctp_bolus import (
    DELAY_S,
    FINE_S,
    MTT_S,
    carried,
    draw_bolus,
    fine_times,
    index_of,
    sampled,
    unit_curves,
)
from Training.simulation.ctp_head import SimulatedStroke, StrokeOptions, simulate_stroke
from Training.simulation.ctp_phantom import DENSITY, HAEMATOCRIT_RATIO, GammaVariate, tissue_curve
from Training.simulation.ctp_scan import PIXEL_MM, add_noise, draw_motion, draw_times, motion_matrices
from Training.simulation.ctp_stroke_phantom import BONE, SCALP, stroke_phantom

SAMPLES = ROOT / "Training" / "SampleAnatomy"
SMALL = StrokeOptions(
    size_px=128, slices=6, thickness_mm=10, step_s=1.5, duration_s=63, noise_hu=0.0, kind="m1", grade="moderate",
    moves="still", head=1,
)  # fmt: skip


@cache
def sources() -> StrokeSources:
    return StrokeSources(SAMPLES, SAMPLES / "ArterialAtlas136.nii.gz")


@cache
def case(seed: int = 5, **changes) -> SimulatedStroke:
    return simulate_stroke(sources(), np.random.default_rng(seed), replace(SMALL, **changes))


# -- curves ---------------------------------------------------------------------------------------------------------


def test_a_vein_has_its_arterys_area_and_comes_later_and_lower():
    bolus = draw_bolus(np.random.default_rng(0), 10.0, slow_heart=False)
    times = fine_times()
    assert np.abs(bolus.artery[times < 10]).max() < 1e-9 * bolus.artery.max()
    assert bolus.vein.sum() == pytest.approx(bolus.artery.sum(), rel=0.03)  # what is still under way at the end
    assert 3 < times[bolus.vein.argmax()] - times[bolus.artery.argmax()] < 11
    assert bolus.vein.max() < bolus.artery.max()


def test_what_is_carried_keeps_its_area_and_is_late_by_the_transit_time():
    curve = GammaVariate(10.0, 3.0, 1.5, 200.0)(fine_times())
    later = carried(curve, 5.0, 3.0, 2.0)
    assert later.sum() == pytest.approx(curve.sum(), rel=1e-4)
    moment = [(c * fine_times()).sum() / c.sum() for c in (curve, later)]
    assert moment[1] - moment[0] == pytest.approx(7.0, abs=0.05)


def test_boluses_have_the_measured_statistics():
    widths = []
    for seed in range(40):
        artery = draw_bolus(np.random.default_rng(seed), 8.0, slow_heart=False).artery
        widths.append(np.ptp(np.flatnonzero(artery > artery.max() / 2)) * FINE_S)
    assert np.median(widths) == pytest.approx(11, abs=1.5)
    slow = draw_bolus(np.random.default_rng(0), 8.0, slow_heart=True).artery
    assert np.ptp(np.flatnonzero(slow > slow.max() / 2)) * FINE_S > 15


def test_tissue_curves_agree_with_the_phantoms():
    artery, times = GammaVariate(10.0, 3.0, 2.4, 220.0), np.arange(45) * 1.5
    row = int(index_of(np.array(4.5), np.array(2.0)))
    mtt, delay = MTT_S[row // len(DELAY_S)], DELAY_S[row % len(DELAY_S)]
    found = 3 * sampled(unit_curves(artery(fine_times()), 3.0), times)[row]
    assert np.allclose(found, tissue_curve(artery, times, 3.0, mtt, delay), atol=5e-3)


# -- the head -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_series_and_another_one_another():
    again = simulate_stroke(sources(), np.random.default_rng(5), SMALL)
    assert np.array_equal(again.frames.array, case().frames.array) and again.facts == case().facts
    assert not np.array_equal(case(6).labels, case().labels)


def test_a_series_holds_what_was_asked_and_its_truth_fits_together():
    found = case()
    assert found.frames.array.shape == (43, 6, 128, 128) and found.frames.array.dtype == np.int16
    assert found.times_s.shape == (43, 6) and found.facts["kind"] == "m1"
    core, hypoperfused = found.labels == 2, found.labels > 0
    assert 0 < core.sum() < hypoperfused.sum() < 0.6 * found.brain.sum()
    assert not (hypoperfused & ~found.brain).any()
    assert found.volume_ml(core) == pytest.approx(found.facts["core_ml"], abs=0.01)
    cbf, cbv, mtt = (found.maps[name][found.brain] for name in ("cbf", "cbv", "mtt"))
    assert np.allclose(mtt, 60 * cbv / np.maximum(cbf, 1e-6), rtol=1e-4)


def test_truth_is_the_tissue_that_the_frames_show():
    """Area of the curves over the artery's is CBV, but for what has not passed at the end; rounded HU average out."""
    found = case(6)
    deep = ndimage.binary_erosion(found.brain, np.ones((1, 3, 3))) & (found.maps["delay"] < 2)
    deep &= ~ndimage.binary_dilation(found.artery | found.vein, np.ones((3, 5, 5)))
    rise = found.frames.array[:, deep] - found.frames.array[:3, deep].mean(0)
    seen = rise.sum(0) / found.artery_hu.sum() * 100 * HAEMATOCRIT_RATIO / DENSITY
    true = found.maps["cbv"][deep]
    for group in np.array_split(true.argsort(), 5):
        assert 0.88 < seen[group].mean() / true[group].mean() < 1.08


def test_lost_and_late_tissue_have_their_flow_and_delay():
    found = case()
    late = ndimage.binary_erosion(found.labels == 1, np.ones((1, 3, 3)))
    core = ndimage.binary_erosion(found.labels == 2, np.ones((1, 3, 3)))
    normal = found.brain & (found.labels == 0)
    flow = [np.median(found.maps["cbf"][part]) for part in (core, late, normal)]
    assert flow[0] < 0.25 * flow[2] < flow[1] < 0.75 * flow[2]
    assert np.median(found.maps["delay"][late]) > 4 and np.median(found.maps["delay"][normal]) < 1.6


def test_the_side_of_the_stroke_is_the_patients():
    found = case()
    columns = np.nonzero(found.labels)[2].mean() - np.nonzero(found.brain)[2].mean()
    assert (columns > 0) == (found.facts["side"] == "left")  # column numbers rise toward the patient's left


def test_vessels_show_their_curves_where_truth_says():
    found = case()
    assert found.artery.sum() >= 3 and found.vein.sum() >= 10
    baseline = found.frames.array[:3].mean(0)
    vein = (found.frames.array[:, found.vein] - baseline[found.vein]).mean(1)
    artery = (found.frames.array[:, found.artery] - baseline[found.artery]).mean(1)
    assert np.corrcoef(vein, found.vein_hu)[0, 1] > 0.999 and np.corrcoef(artery, found.artery_hu)[0, 1] > 0.99
    assert 0.3 < artery.max() / found.artery_hu.max() < 1.0  # seen partly
    assert vein.max() / found.vein_hu.max() > 0.8
    veins_row = np.nonzero(found.vein)[1].mean()
    assert veins_row > np.nonzero(found.brain)[1].mean()  # behind: the sagittal sinus


def test_an_occluded_artery_does_not_fill():
    both = case().artery
    i = np.nonzero(both)[2] - np.nonzero(case().brain)[2].mean()
    left = case().facts["side"] == "left"
    lateral = np.abs(i) * case().frames.spacing_mm[0] > 15
    ill, well = ((i[lateral] > 0) == left).sum(), ((i[lateral] > 0) != left).sum()
    assert well > 3 * ill


@pytest.mark.parametrize("kind", ["m2_superior", "m2_inferior", "aca", "pca", "watershed", "lacune"])
def test_every_kind_of_stroke_lies_in_its_territory(kind):
    found = case(7, kind=kind)
    hypoperfused = found.labels > 0
    assert hypoperfused.any()
    j, i = (np.nonzero(hypoperfused)[axis].mean() for axis in (1, 2))
    middle_j, middle_i = (np.nonzero(found.brain)[axis].mean() for axis in (1, 2))
    away = abs(i - middle_i) * found.frames.spacing_mm[0]
    behind = (j - middle_j) * found.frames.spacing_mm[1]
    if kind == "aca":
        assert away < 25
    elif kind == "pca":
        assert behind > 10
    elif kind == "lacune":
        assert found.facts["hypoperfused_ml"] < 20
    else:
        assert away > 20


def test_collaterals_spare_tissue():
    poor, good = (case(8, grade=grade).facts for grade in ("poor", "good"))
    assert good["core_ml"] < 0.3 * poor["core_ml"] and good["hypoperfused_ml"] < poor["hypoperfused_ml"]


def test_without_a_stroke_nothing_is_marked():
    found = case(9, kind="none")
    assert not found.labels.any() and found.facts["side"] == "none" and found.facts["core_ml"] == 0


def test_depth_counts_from_other_tissue_not_from_the_surface():
    atlas = TerritoryAtlas(SAMPLES / "ArterialAtlas136.nii.gz")
    depth = atlas.depth(("deep", "mca_superior", "mca_inferior"), True)
    outer = np.isin(atlas.labels[::2, ::2, ::2], atlas.values(("mca_superior",), True))
    rim = outer & ~ndimage.binary_erosion(atlas.labels[::2, ::2, ::2] > 0, iterations=2)
    assert np.percentile(depth[rim], 75) > 20 and depth[outer].min() > 0
    assert depth[np.isin(atlas.labels[::2, ::2, ::2], atlas.values(("aca",), False))].max() < 0


# -- the scanner ----------------------------------------------------------------------------------------------------


def test_a_moving_table_gives_every_slice_its_own_times():
    drawn = [draw_times(8, np.random.default_rng(seed), 60.0, 1.5) for seed in range(12)]
    assert any(np.ptp(times, axis=1).max() > 0 for times in drawn)
    for times in drawn:
        assert (np.diff(times, axis=0) > 0).all() and np.ptp(times) >= 59


def test_noise_has_its_size_and_smooth_averages_are_quiet():
    frames = np.zeros((8, 2, 128, 128), np.float32)
    add_noise(frames, 5.0, PIXEL_MM, np.random.default_rng(0))
    assert frames.std() == pytest.approx(5, rel=0.12)
    smooth = ndimage.gaussian_filter(frames, (0, 0, 2.5, 2.5))
    assert 0.05 < smooth.std() / frames.std() < 0.16
    coarse = np.zeros((8, 2, 64, 64), np.float32)
    add_noise(coarse, 5.0, 2 * PIXEL_MM, np.random.default_rng(0))
    binned = frames.reshape(8, 2, 64, 2, 64, 2).mean((3, 5))
    assert coarse.std() == pytest.approx(binned.std(), rel=0.35)


def test_motion_is_what_the_truth_says():
    found, still = (case(5, moves=moves, slices=12, thickness_mm=5.0) for moves in ("strong", "still"))
    measured = estimate_motion(found.frames.array, np.array(found.frames.spacing_mm))
    corner = np.array([60.0, 60.0, 0.0, 1.0])
    true, seen = ((matrices @ corner - corner)[:, :2] for matrices in (found.motion, measured.matrices))
    moved = np.linalg.norm(true, axis=1)
    assert moved.max() > 1 and np.allclose(found.motion[:3], np.eye(4))
    assert np.median(np.linalg.norm(true - seen, axis=1)[moved > 0.5]) < 0.4  # thick slices say less of the third axis
    assert np.array_equal(found.labels, still.labels)


def test_motion_is_drawn_within_bounds():
    assert not draw_motion("still", 30, np.random.default_rng(0)).any()
    strong = [draw_motion("strong", 30, np.random.default_rng(seed)) for seed in range(20)]
    assert max(np.abs(m).max() for m in strong) <= 5 and max(np.abs(m[:, 3]).max() for m in strong) > 1.5
    rigid = motion_matrices(strong[0])[:, :3, :3]
    assert np.allclose(rigid @ rigid.transpose(0, 2, 1), np.eye(3), atol=1e-12)


# -- the chain ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lowest", [3, 8])
def test_brain_is_found_where_the_skull_is_open_in_front(lowest):
    """As at the orbits: in the lowest slices, or in all of a thin slab."""
    phantom = stroke_phantom((8, 96, 96), (2.2, 2.2, 10.0), noise_hu=0.0, times_s=np.arange(3.0))
    baseline = phantom.frames.array[0].copy()
    columns = np.abs(np.arange(96) - 47.5) * 2.2 < 11
    front = (np.arange(96) < 48)[:, None] & columns
    baseline[:lowest][(phantom.tissue[:lowest] == BONE) & front] = 20.0
    found = find_brain(baseline, phantom.frames.spacing_mm)
    assert (found.tissue & phantom.brain).sum() > 0.95 * phantom.brain.sum()
    assert (found.inside & (phantom.tissue == SCALP)).sum() < 0.02 * found.inside.sum()


@pytest.mark.parametrize("kind,seed", [("m1", 5), ("pca", 7), ("none", 9)])
def test_the_artery_is_found_and_not_a_vein(kind, seed):
    found = case(seed, kind=kind, noise_hu=5.0)
    times = found.frames.frame_times_s
    regions = find_brain(found.frames.array[:3].mean(0), found.frames.spacing_mm)
    arrival = find_arrival(found.frames.array[:, regions.tissue].mean(1), times)
    scan = Contrast(found.frames.array, found.frames.array[list(arrival.baseline_frames)].mean(0, dtype=np.float32))
    chosen = find_arterial_input(scan, regions.inside, times, arrival)
    k, j, i = chosen.artery.voxels.T
    assert found.artery[k, j, i].mean() > 0.6 and not found.vein[k, j, i].any()
    assert np.corrcoef(chosen.curve_hu, found.artery_hu)[0, 1] > 0.98
    assert chosen.curve_hu.max() == pytest.approx(found.artery_hu.max(), rel=0.25)


def test_a_wide_bolus_does_not_make_healthy_delays_pathological():
    times = np.arange(45) * 1.5
    narrow, wide = (GammaVariate(10.0, 3.0, beta, 220.0)(times) for beta in (1.2, 3.6))
    lines = [calibrate(artery, 1.5, 0.6, 30.0).line_delay_s for artery in (narrow, wide)]
    assert 3.0 < lines[0] <= 4.0 and lines[1] == 3.0


@pytest.mark.parametrize("width_s", [1.2, 2.4, 3.6, 5.5])
@pytest.mark.parametrize("length", [35, 50])
def test_the_line_of_tmax_lies_between_normal_and_late_tissue(width_s, length):
    """Whatever the bolus: it neither takes the whole brain for late nor spares tissue that is 6 s late."""
    times = np.arange(length) * 1.5
    artery = GammaVariate(10.0, 3.0, width_s, 150.0)(times)
    found = calibrate(artery, 1.5, 0.7, 30.0)
    operator = circulant_operator(artery, 1.5, found.cut, oversampling=2)
    curves = modelled_curves(artery, times, "gamma", np.array([4.5, 10.0]), np.array([0.5, 6.0]))
    lags = [float(find_peaks(torch.tensor(c[None], dtype=torch.float32), operator).lag_s[0])
            for c in (curves[0, 0], curves[1, 1])]  # fmt: skip
    assert lags[0] + 0.5 < found.tmax_s < lags[1]
