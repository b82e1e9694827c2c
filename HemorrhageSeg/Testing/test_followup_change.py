"""Change of a volume with its interval, and expansion: cases worked out by hand."""

from __future__ import annotations

import math

import pytest

from HemorrhageSegLib.followup_change import (
    CERTAIN,
    NO,
    POSSIBLE,
    UNKNOWN,
    Estimate,
    change_ml,
    change_percent,
    ratio_interval,
    ventricular_verdict,
    verdicts,
)


def test_errors_of_two_scans_add_in_squares():
    change = change_ml(Estimate(20.0, (17.0, 24.0)), Estimate(30.0, (27.0, 34.0)))
    assert change.ml == 10.0
    assert change.interval == pytest.approx((10 - 5.0, 10 + 5.0))  # 3 and 4 mL, either way


def test_limits_of_a_difference_follow_the_lopsided_intervals():
    """Down: the later volume falls by 1, the earlier rises by 0; up: the later rises by 12, the earlier falls by 5."""
    change = change_ml(Estimate(20.0, (15.0, 20.0)), Estimate(30.0, (29.0, 42.0)))
    assert change.interval == pytest.approx((10 - 1.0, 10 + 13.0))


def test_no_interval_without_both():
    assert change_ml(Estimate(20.0), Estimate(30.0, (29.0, 42.0))).interval is None
    assert change_percent(Estimate(20.0), Estimate(30.0, (29.0, 42.0))) == (pytest.approx(50.0), None)


def test_percent_with_an_earlier_volume_known_exactly():
    percent, interval = change_percent(Estimate(20.0, (20.0, 20.0)), Estimate(30.0, (28.0, 33.0)))
    assert percent == pytest.approx(50.0) and interval == pytest.approx((40.0, 65.0))


def test_limits_of_a_ratio_are_where_the_interval_of_the_difference_touches_zero():
    earlier, later = Estimate(20.0, (15.0, 26.0)), Estimate(30.0, (24.0, 40.0))
    low, high = ratio_interval(earlier, later)

    def scaled(r: float) -> Estimate:
        return Estimate(r * earlier.ml, (r * earlier.interval[0], r * earlier.interval[1]))

    assert change_ml(scaled(low), later).interval[0] == pytest.approx(0.0, abs=1e-9)
    assert change_ml(scaled(high), later).interval[1] == pytest.approx(0.0, abs=1e-9)
    assert low < 1.5 < high


def test_very_wide_earlier_interval_still_gives_a_lower_limit():
    low, high = ratio_interval(Estimate(10.0, (2.0, 35.0)), Estimate(20.0, (15.0, 30.0)))
    assert 0 < low < 2.0 < high < math.inf


def test_ratio_has_no_upper_limit_where_there_may_have_been_nothing():
    percent, (low, high) = change_percent(Estimate(1.0, (0.0, 3.0)), Estimate(5.0, (4.0, 7.0)))
    assert percent == pytest.approx(400.0) and high == math.inf and low < 400


def test_percent_of_nothing_is_undefined():
    assert change_percent(Estimate(0.0, (0.0, 1.0)), Estimate(5.0, (4.0, 7.0))) == (None, None)


@pytest.mark.parametrize(
    "earlier, later, measured, given",
    [
        (Estimate(20.0, (19.0, 21.0)), Estimate(30.0, (29.0, 31.0)), True, CERTAIN),  # +10 mL
        (Estimate(3.0, (2.9, 3.1)), Estimate(5.0, (4.9, 5.1)), True, CERTAIN),  # +2 mL, but +67 %
        (Estimate(20.0, (15.0, 25.0)), Estimate(25.0, (20.0, 32.0)), False, POSSIBLE),
        (Estimate(20.0, (15.0, 25.0)), Estimate(27.0, (20.0, 32.0)), True, POSSIBLE),
        (Estimate(20.0, (19.5, 20.5)), Estimate(21.0, (20.5, 21.5)), False, NO),
        (Estimate(20.0, (19.5, 20.5)), Estimate(10.0, (9.0, 11.0)), False, NO),
        (Estimate(100.0, (100.0, 100.0)), Estimate(106.0, (106.0, 106.0)), False, NO),  # exactly 6 mL is not more
        (Estimate(20.0), Estimate(30.0), True, UNKNOWN),
    ],
)
def test_usual_definition(earlier, later, measured, given):
    verdict = verdicts(earlier, later)[0]
    assert verdict.rule == "> 6 mL or > 33 %"
    assert (verdict.measured, verdict.given_intervals) == (measured, given)


def test_wider_definition():
    six, twelve = verdicts(Estimate(40.0, (39.0, 41.0)), Estimate(48.0, (47.0, 49.0)))
    assert (six.given_intervals, twelve.given_intervals) == (CERTAIN, NO) and twelve.rule == "> 12.5 mL or > 33 %"


def test_new_bleed_counts_by_its_volume():
    assert not verdicts(Estimate(0.0, (0.0, 0.0)), Estimate(5.0, (4.0, 5.9)))[0].measured
    assert verdicts(Estimate(0.0, (0.0, 0.0)), Estimate(9.0, (8.0, 12.0)))[0].given_intervals == CERTAIN


@pytest.mark.parametrize(
    "earlier, later, measured, given",
    [
        (Estimate(0.0, (0.0, 0.0)), Estimate(0.4, (0.2, 0.8)), True, CERTAIN),
        (Estimate(0.0, (0.0, 0.5)), Estimate(0.0, (0.0, 0.5)), False, POSSIBLE),
        (Estimate(2.0, (2.0, 2.0)), Estimate(3.0, (3.0, 3.0)), True, CERTAIN),
        (Estimate(2.0, (1.9, 2.1)), Estimate(2.1, (2.0, 2.2)), False, NO),
        (Estimate(2.0), Estimate(3.5), True, UNKNOWN),
    ],
)
def test_blood_in_the_ventricles(earlier, later, measured, given):
    verdict = ventricular_verdict(earlier, later)
    assert (verdict.measured, verdict.given_intervals) == (measured, given)


def test_every_column_of_the_tables_is_explained():
    from HemorrhageSegLib.followup_report import EXPANSION_HEADS, SCAN_HEADS
    from HemorrhageSegLib.followup_task import TASK
    from NeuraxisLib.columns import column_meanings

    meanings = column_meanings(TASK.resources)
    assert all(meanings[head].endswith(".") for head, _ in (*EXPANSION_HEADS, *SCAN_HEADS))
