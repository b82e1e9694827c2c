"""Intervals, ratios and doubt of a stroke, by hand on maps of known volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stroke_cases import LPS, maps_array

from NeuraxisLib.volume import Volume
from StrokeCTPLib.calibration import calibrate
from StrokeCTPLib.findings import Noise, margins, measure_stroke, moved
from StrokeCTPLib.lesions import LesionRules
from StrokeCTPLib.live_lesions import ShownMaps
from StrokeCTPLib.mismatch import Patient
from Training.simulation.ctp_phantom import GammaVariate

SVD, NO_NOISE = LesionRules("svd"), Noise()


def measured(maps: dict[str, np.ndarray] | None = None, noise: Noise = NO_NOISE, rules: LesionRules = SVD):
    maps = maps or maps_array()
    tissue = maps["cbf"] > 0
    return measure_stroke(ShownMaps(maps, tissue, tissue), Volume(maps["cbf"], LPS), rules, noise, Patient())


def test_thresholds_move_by_the_published_spread_and_half_the_noise():
    assert margins(SVD, Noise()) == pytest.approx((0.075, 0.5))
    flow, late_s = margins(SVD, Noise(0.4, 1.2))
    assert flow == pytest.approx(0.3 * np.hypot(0.25, 0.2)) and late_s == pytest.approx(np.hypot(0.5, 0.6))
    assert margins(SVD, Noise(50.0, 50.0)) == pytest.approx((0.27, np.hypot(0.5, 1.5)))  # noise counts so much at most
    strict = moved(SVD, -0.075, 0.5)
    assert (strict.rcbf, strict.late_s, strict.grade_shift_s) == pytest.approx((0.225, 6.5, 0.5))


def test_where_all_thresholds_agree_half_a_pixel_of_outline_is_left():
    """20 x 30 pixels less 4 corners, in 4 slices; the core of 10 x 15 in 2; a pixel is 0.005 mL."""
    core, hypo, gap = measured().measurements[:3]
    assert hypo.value == pytest.approx(596 * 4 * 0.005)
    assert hypo.interval == pytest.approx(((596 + 504) / 2 * 0.02, (596 + 692) / 2 * 0.02))
    assert core.interval == pytest.approx(((150 + 104) / 2 * 0.01, (150 + 200) / 2 * 0.01))
    assert gap.interval == pytest.approx((hypo.interval[0] - core.interval[1], hypo.interval[1] - core.interval[0]))
    ratio = next(m for m in measured().measurements if m.name == "Mismatch ratio")
    expected = (hypo.interval[0] / core.interval[1], hypo.interval[1] / core.interval[0])
    assert ratio.interval == pytest.approx(expected)
    assert not measured().doubt.any() and measured().key_slices == []


def test_tissue_near_a_threshold_is_in_doubt_and_in_the_interval():
    maps = maps_array()
    maps["tmax"][4, 30:50, 42:72] = 6.3  # above 6 s, below 6.5 s: 3 mL that the strict threshold leaves out
    found = measured(maps)
    hypo = found.measurements[1]
    assert hypo.value == pytest.approx(596 * 4 * 0.005)
    assert hypo.interval[0] == pytest.approx((596 + 504) / 2 * 0.015)
    assert found.key_slices == [4] and found.doubt[4].sum() == 596 and not found.doubt[:4].any()
    wide = measured(maps, Noise(0.0, 4.0)).measurements[1].interval
    assert wide[0] <= hypo.interval[0] and wide[1] >= hypo.interval[1]


def test_a_core_that_only_a_loose_threshold_sees_has_no_upper_bound_of_the_ratio():
    maps = maps_array()
    maps["cbf"][2:4, 35:45, 50:65] = 14.0  # 28 % of the other side: core, but not to the strict threshold of 22.5 %
    found = measured(maps)
    ratio = next(m for m in found.measurements if m.name == "Mismatch ratio")
    assert ratio.value == pytest.approx(596 * 4 / 300) and ratio.interval is None and "No upper bound" in ratio.note
    assert found.measurements[0].interval[0] == 0


def test_a_lesion_at_the_end_of_the_scan_is_said_to_be_cut():
    maps = maps_array()
    maps["tmax"][5, 30:50, 42:72] = 8.0
    assert any("first or last slice" in words for words in measured(maps).warnings)
    assert measured().warnings == []


def test_small_regions_are_dropped_as_the_rules_say():
    assert measured(rules=replace(SVD, smallest_ml=12.5)).measurements[1].value == 0
    assert measured(rules=replace(SVD, smallest_core_ml=2.0)).measurements[0].value == 0


def test_noise_spreads_what_equal_tissue_shows():
    artery = GammaVariate(10.0, 3.0, 2.0, 200.0)(np.arange(45) * 1.5)
    quiet, noisy = (calibrate(artery, 1.5, noise_hu, 40.0) for noise_hu in (0.05, 1.0))
    assert quiet.spread.flow < 0.1 < noisy.spread.flow < 1
    assert quiet.spread.lag_s < noisy.spread.lag_s
    assert quiet.plain_tmax_s == 6.0 and quiet.plain_spread.flow < noisy.plain_spread.flow
