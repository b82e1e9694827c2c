"""From frames to maps and lesions on a small stroke head: brain, vessels, flags, both families, bad input."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume
from StrokeCTPLib.arterial_input import Contrast, find_arterial_input, vessel_at, with_vessels
from StrokeCTPLib.brain_mask import find_brain
from StrokeCTPLib.concentration import find_arrival, regular_times, to_regular
from StrokeCTPLib.lesions import find_lesions, left_side, rules_for
from StrokeCTPLib.perfusion_maps import PerfusionMaps, PerfusionOptions, compute_maps, maps_of, prepare
from Training.simulation.ctp_phantom import GammaVariate
from Training.simulation.ctp_stroke_phantom import ARTERY, CSF, VEIN, StrokePhantom, stroke_phantom

SMALL = {"shape_kji": (8, 96, 96), "spacing_mm": (2.2, 2.2, 10.0)}


@cache
def head(**changes) -> StrokePhantom:
    return stroke_phantom(**{**SMALL, "noise_hu": 3.0, **changes})


@cache
def maps(**changes) -> PerfusionMaps:
    return compute_maps(head(**changes).frames)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def scan_of(phantom: StrokePhantom, baseline: int = 6) -> Contrast:
    return Contrast(phantom.frames.array, phantom.frames.array[:baseline].mean(0))


# -- arrival, brain, times ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_s", [6.0, 10.0, 20.0])
def test_arrival_is_found_on_a_noisy_drifting_curve(start_s):
    times = np.arange(45) * 1.5
    curve = 33 + GammaVariate(start_s, 3.0, 2.5, 6.0)(times) + 0.002 * times
    curve += np.random.default_rng(0).normal(0, 0.05, 45)
    found = find_arrival(curve, times)
    assert start_s - 0.1 <= found.time_s <= start_s + 4.5
    assert found.rise_hu == pytest.approx(6, abs=0.5)
    assert max(found.baseline_frames) < found.frame


def test_an_outlying_first_frame_is_left_out():
    times = np.arange(45) * 1.5
    curve = 33 + GammaVariate(12.0, 3.0, 2.5, 6.0)(times) + np.random.default_rng(0).normal(0, 0.05, 45)
    curve[0] += 3
    assert 0 not in find_arrival(curve, times).baseline_frames


def test_a_scan_without_contrast_is_refused():
    with pytest.raises(InputError, match="no contrast"):
        find_arrival(33 + np.random.default_rng(0).normal(0, 0.1, 45), np.arange(45) * 1.5)


def test_the_brain_is_what_the_skull_encloses():
    phantom = head()
    found = find_brain(phantom.frames.array[:4].mean(0), phantom.frames.spacing_mm)
    assert (found.tissue & phantom.brain).sum() > 0.97 * phantom.brain.sum()
    deep = ndimage.binary_erosion(phantom.tissue == CSF, np.ones((1, 3, 3)))
    assert not (found.tissue & deep).any()
    assert (found.inside & (phantom.tissue == VEIN)).sum() > 0.6 * (phantom.tissue == VEIN).sum()


def test_no_skull_is_no_brain():
    with pytest.raises(InputError, match="No brain"):
        find_brain(np.full((4, 32, 32), 30.0), (2.0, 2.0, 5.0))


def test_slices_with_their_own_times_come_to_common_ones():
    times = np.arange(30)[:, None] * 2.0 + np.array([0.0, 1.0])
    curve = GammaVariate(8.0, 3.0, 3.0, 100.0)
    frames = torch.tensor(curve(times), dtype=torch.float32)[:, :, None, None]
    regular = regular_times(times)
    found = to_regular(frames, times, regular)[:, :, 0, 0].numpy()
    assert np.diff(regular) == pytest.approx(np.full(29, 2.0))
    assert found[2:-2] == pytest.approx(np.repeat(curve(regular)[2:-2, None], 2, 1), abs=2.0)


@pytest.mark.parametrize("times", [[0, 1, 1, 3], [0, 2, 1, 3]])
def test_times_that_do_not_ascend_are_refused(times):
    with pytest.raises(InputError, match="ascend"):
        regular_times(np.array(times, float))


# -- vessels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partial", [0.3, 0.6])
def test_artery_and_vein_are_found_and_the_factor_is_right(partial):
    phantom = stroke_phantom(noise_hu=5.0, partial_volume=partial, shape_kji=(8, 128, 128), spacing_mm=(1.7, 1.7, 10))
    times = phantom.frames.frame_times_s
    arrival = find_arrival(phantom.frames.array[:, phantom.brain].mean(1), times)
    found = find_arterial_input(scan_of(phantom), phantom.tissue > 0, times, arrival)
    assert set(phantom.tissue[tuple(found.artery.voxels.T)]) == {ARTERY}
    assert set(phantom.tissue[tuple(found.vein.voxels.T)]) == {VEIN}
    assert np.corrcoef(found.curve_hu, phantom.artery_hu)[0, 1] > 0.98
    assert found.factor == pytest.approx(1 / partial, rel=0.10)
    assert not found.truncated
    assert len(found.candidates) >= 2 and found.candidates[0] is found.artery


def test_the_artery_is_not_sought_where_tissue_fills_late():
    phantom, one_side = head(), np.zeros(head().brain.shape, bool)
    one_side[:, :, 48:] = True
    times = phantom.frames.frame_times_s
    arrival = find_arrival(phantom.frames.array[:, phantom.brain].mean(1), times)
    found = find_arterial_input(scan_of(phantom), phantom.tissue > 0, times, arrival, exclude=one_side)
    assert (found.artery.voxels[:, 2] < 48).all()


def test_a_truncated_vein_is_completed_by_its_fit():
    artery, times = GammaVariate(10.0, 3.0, 1.5, 220.0), np.arange(24) * 1.5
    phantom = stroke_phantom(**SMALL, noise_hu=0.5, artery=artery, times_s=times)
    scan = scan_of(phantom)
    vessels = [vessel_at(scan, np.argwhere(phantom.tissue == kind)[4], times) for kind in (ARTERY, VEIN)]
    found = with_vessels(*vessels, (), times)
    assert found.truncated and found.factor == pytest.approx(2.0, rel=0.10)


def test_the_factor_has_bounds():
    phantom = head()
    vessel = vessel_at(scan_of(phantom), tuple(np.argwhere(phantom.tissue == VEIN)[4]), phantom.frames.frame_times_s)
    thin = replace(vessel, curve_hu=vessel.curve_hu / 30)
    found = with_vessels(thin, vessel, (), phantom.frames.frame_times_s)
    assert found.factor == 10 and found.factor_measured == pytest.approx(30)


# -- maps -----------------------------------------------------------------------------------------------------------


def test_both_families_are_near_the_truth():
    phantom, found = head(), maps()
    normal = ndimage.binary_erosion(phantom.brain & ~phantom.hypoperfused, np.ones((1, 3, 3)))
    deep = ndimage.binary_erosion(phantom.hypoperfused & ~phantom.core, np.ones((1, 3, 3)))
    for family in (found.svd, found.model):
        for region in (normal, deep):
            assert family["cbv"][region].mean() == pytest.approx(phantom.truth["cbv"][region].mean(), rel=0.12)
    flow = {
        n: f["cbf"][normal].mean() / phantom.truth["cbf"][normal].mean()
        for n, f in vars(found).items()
        if n in ("svd", "model")
    }
    assert 0.6 < flow["svd"] < 1.0 and 0.85 < flow["model"] < 1.15
    assert np.median(found.model["delay"][deep]) == pytest.approx(4.0, abs=0.4)
    assert np.median(found.model["delay"][normal]) == pytest.approx(0.0, abs=0.4)
    assert found.svd["tmax"].min() >= 0 and np.median(found.svd["tmax"][deep]) == pytest.approx(7.5, abs=0.6)
    assert np.median(found.svd["ttp"][deep]) > np.median(found.svd["ttp"][normal]) + 3
    assert not any(values[~found.tissue].any() for values in found.svd.values())


def test_time_offsets_between_slices_do_not_reach_the_maps():
    phantom = head(noise_hu=0.5)
    shift = np.arange(8) % 2 * 0.75
    times = phantom.frames.frame_times_s[:, None] + shift
    shuttled = phantom.frames.array.copy()
    for k in range(8):
        shuttled[:, k] = torch.tensordot(
            torch.from_numpy(_at(phantom.frames.frame_times_s, times[:, k])),
            torch.from_numpy(phantom.frames.array[:, k]),
            1,
        )
    moved = compute_maps(Volume(shuttled, phantom.frames.ijk_to_ras, "HU", frame_times_s=times[:, 0]), times)
    plain = compute_maps(phantom.frames)
    difference = (moved.svd["tmax"] - plain.svd["tmax"])[ndimage.binary_erosion(phantom.brain, np.ones((1, 5, 5)))]
    assert abs(np.median(difference)) < 0.2 and np.percentile(abs(difference), 90) < 0.6


def _at(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    from StrokeCTPLib.concentration import resampling_matrix

    return resampling_matrix(times, wanted).astype(np.float32)


def test_another_artery_costs_no_second_preparation():
    phantom = head()
    prepared = prepare(phantom.frames)
    artery = vessel_at(prepared.scan, tuple(np.argwhere(phantom.tissue == ARTERY)[0]), prepared.times_s)
    found = maps_of(prepared, with_vessels(artery, maps().arterial.vein, (), prepared.times_s))
    normal = phantom.brain & ~phantom.hypoperfused
    assert found.svd["cbv"][normal].mean() == pytest.approx(maps().svd["cbv"][normal].mean(), rel=0.15)


@pytest.mark.parametrize("method", ["osvd", "ssvd", "tikhonov"])
def test_every_deconvolution_gives_maps(method):
    found = compute_maps(head().frames, options=PerfusionOptions(deconvolution=method, edge_preserving=False))
    normal = head().brain & ~head().hypoperfused
    assert 0.5 < found.svd["cbf"][normal].mean() / head().truth["cbf"][normal].mean() < 1.3


# -- lesions --------------------------------------------------------------------------------------------------------


def test_lesions_of_the_calibrated_family_have_their_volumes():
    found = find_lesions(maps(), head().frames)
    assert (
        found.hypoperfused_ml == pytest.approx(210.7, rel=0.12) and dice(found.hypoperfused, head().hypoperfused) > 0.9
    )
    assert found.core_ml == pytest.approx(50.5, rel=0.25) and dice(found.core, head().core) > 0.8
    assert found.left_affected is True
    assert found.graded_ml[4.0] >= found.graded_ml[6.0] >= found.graded_ml[10.0]


def test_calibration_keeps_the_core_that_noise_hides():
    noisy = {"noise_hu": 12.0, "seed": 3}
    plain, calibrated = (
        find_lesions(maps(**noisy), head(**noisy).frames, rules_for(maps(**noisy), family))
        for family in ("svd", "calibrated")
    )
    assert abs(calibrated.core_ml - 50.5) < 0.5 * abs(plain.core_ml - 50.5)


def test_calibrated_flow_reads_as_the_plain_one_and_its_scale_moves_no_lesion():
    found, normal = maps(), head().brain & ~head().hypoperfused
    assert found.calibration.cut > 0.2 and found.calibration.flow_scale > 1.2  # strong cuts lower all flow
    plain, calibrated = (float(np.median(family["cbf"][normal])) for family in (found.svd, found.calibrated))
    assert calibrated == pytest.approx(plain, rel=0.12)
    drawn = find_lesions(found, head().frames)
    assert drawn.reference_cbf == pytest.approx(plain, rel=0.12)
    unscaled = {**found.calibrated, "cbf": found.calibrated["cbf"] / found.calibration.flow_scale}
    before = find_lesions(replace(found, calibrated=unscaled), head().frames)
    assert before.reference_cbf < 0.75 * plain
    assert np.array_equal(before.core, drawn.core) and np.array_equal(before.hypoperfused, drawn.hypoperfused)


def test_excluded_tissue_is_in_no_lesion():
    found = find_lesions(maps(), head().frames, exclude=head().hypoperfused)
    assert not (found.hypoperfused & head().hypoperfused).any()


def test_a_turned_head_is_divided_along_its_own_midline():
    j, i = np.mgrid[:64, :64] - 31.5
    angle = np.deg2rad(12)
    x, y = i * np.cos(angle) - j * np.sin(angle), i * np.sin(angle) + j * np.cos(angle)
    inside = np.repeat(((x / 20) ** 2 + (y / 27) ** 2 < 1)[None], 3, 0)
    grid = Volume(inside, np.diag([-1.0, -1.0, 5.0, 1.0]))
    left = left_side(inside, grid)
    assert (left & inside).sum() == pytest.approx(inside.sum() / 2, rel=0.02)
    wrong = left[0] ^ (x > 0)
    assert (wrong & inside[0]).sum() < 0.08 * inside[0].sum()
    assert left[0, 32, 60] and not left[0, 32, 3]


# -- flags and bad input --------------------------------------------------------------------------------------------


def test_a_good_scan_has_no_flags_and_a_short_noisy_one_has():
    assert maps().flags == []
    short = stroke_phantom(**SMALL, noise_hu=25.0, times_s=np.arange(24) * 1.5, artery=GammaVariate(10, 3, 2.4, 220))
    codes = {flag.code for flag in compute_maps(short.frames, options=PerfusionOptions(edge_preserving=False)).flags}
    assert {"truncated", "short", "noise"} <= codes


def test_bad_series_are_refused_in_a_sentence():
    frames = head().frames
    few = replace(frames, array=frames.array[:10], frame_times_s=frames.frame_times_s[:10])
    with pytest.raises(InputError, match="10 frames"):
        compute_maps(few)
    with pytest.raises(InputError, match="one time each"):
        compute_maps(replace(frames, array=frames.array[0], frame_times_s=None))
    with pytest.raises(InputError, match="ascend"):
        compute_maps(frames, np.zeros(45))
    still = replace(frames, array=np.repeat(frames.array[:1], 45, 0))
    with pytest.raises(InputError, match="no contrast"):
        compute_maps(still)
    with pytest.raises(InputError, match="No deconvolution"):
        compute_maps(frames, options=PerfusionOptions(deconvolution="magic", edge_preserving=False))
