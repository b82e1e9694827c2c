"""What a miss, a false alarm, a failure and an empty mask count, by every set of rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_cases import GRID, SHAPE, TRUTHS, Known, Scripted, box, case, prediction

from NeuraxisLib.errors import CancelledError, InputError
from Training.evaluation.bootstrap import published_interval
from Training.evaluation.judge import judge
from Training.evaluation.rules import RULES, metrics, rules_named
from Training.evaluation.scores import failure, score
from Training.evaluation.summary import Evaluation, Statistic, band_of, differences
from Training.evaluation.tables import drunet_table, hemseg_table, mean_interval, mean_sd, slex_table

NOTHING = np.zeros(SHAPE, bool)
DIAGONAL = math.sqrt(25**2 + 39**2 + 39**2)
RULE = RULES["neuraxis"]


def judged(answers: dict, rules=RULE, ids=None) -> Evaluation:
    """One method on the known cases."""
    return judge(Known(ids=list(ids or answers)), [Scripted("A", answers)], rules)


def the(evaluation: Evaluation, kind: str = "all", group: str = ""):
    return next(s for s in evaluation.summaries() if (s.kind, s.group) == (kind, group))


def test_a_case_by_hand() -> None:
    """Truth 10 rows, prediction 8 of them and 2 beyond, on two slices of 10 columns: Dice 0.8, 2 mm off."""
    made = score(case("small"), "A", prediction(box(slice(12, 22))), RULE)
    values = made.values
    assert values["dice"] == pytest.approx(0.8) and values["iou"] == pytest.approx(160 / 240)
    assert values["hd_mm"] == values["hd95_mm"] == pytest.approx(2.0) and values["nsd_2mm"] == 1.0
    assert 0 < values["nsd_0.42mm"] < 1
    assert (made.truth_ml, made.predicted_ml, values["volume_error_ml"]) == pytest.approx((1.0, 1.0, 0.0))
    # ABC/2: A is the diagonal of 10 x 10 mm, B the same across, C two slices
    assert made.abc2_ml == pytest.approx(200 * 10 / 2000)
    # calibration: 160 voxels rightly 0.9, 40 wrongly 0.9, 40 wrongly 0, of 9600
    assert values["brier"] == pytest.approx((160 * 0.01 + 40 * 0.81 + 40) / 9600, rel=1e-5)
    assert values["ece"] == pytest.approx((abs(200 * 0.9 - 160) + 40) / 9600, rel=1e-4)
    assert values["seconds"] == 2.0 and set(values) == {metric.key for metric in metrics(RULE)}


def test_interval_covers_only_if_the_truth_lies_inside() -> None:
    for interval, inside in (((0.5, 1.0), 1.0), ((1.1, 2.0), 0.0)):
        made = score(case("small"), "A", prediction(TRUTHS["small"], interval_ml=interval), RULE)
        assert made.values["interval_covers"] == inside


def test_ignored_voxels_are_judged_nowhere() -> None:
    known = ~box(slice(20, 30))
    made = score(case("small", known=known), "A", prediction(box(slice(10, 30))), RULE)
    assert made.values["dice"] == 1.0 and made.predicted_ml == pytest.approx(1.0)
    assert made.calibration.n == known.sum()


def test_region_limits_calibration_but_keeps_every_lesion_voxel() -> None:
    region = box(slice(14, 16))
    made = score(case("small", region=region), "A", prediction(TRUTHS["small"]), RULE)
    assert made.calibration.n == TRUTHS["small"].sum()
    assert score(case("small", region=region), "A", prediction(NOTHING), RULES["legacy_slex"]).calibration.n == 9600


def test_a_miss_counts_and_a_false_alarm_counts() -> None:
    found = judged({"small": NOTHING, "large": TRUTHS["large"], "clean": box(slice(0, 2))})
    miss, hit, alarm = found.scores
    assert (miss.values["dice"], miss.values["hd95_mm"], miss.values["rvd"]) == (0, pytest.approx(DIAGONAL), -1)
    assert (alarm.values["dice"], alarm.values["nsd_2mm"]) == (0, 0) and math.isnan(alarm.values["sensitivity"])
    assert hit.values["dice"] == 1
    summary = the(found)
    assert summary.statistics["dice"].mean == pytest.approx(1 / 3) and summary.statistics["dice"].n == 3
    assert (summary.statistics["sensitivity"].n, summary.statistics["sensitivity"].undefined) == (2, 1)
    assert (summary.counts.misses, summary.counts.false_alarms, summary.counts.failed) == (1, 1, 0)


def test_a_failure_is_listed_and_counts_as_a_miss() -> None:
    answers = {"small": InputError("No head in view; choose another scan."), "clean": RuntimeError("boom"),
               "large": TRUTHS["large"]}  # fmt: skip
    found = judged(answers)
    failed = {s.case: s for s in found.scores if s.failed}
    assert failed["small"].error == "No head in view; choose another scan." and set(failed) == {"small", "clean"}
    assert failed["small"].values["dice"] == 0 and failed["small"].values["volume_error_ml"] == pytest.approx(-1.0)
    # an empty answer would have been right for the clean scan, but there was none
    assert failed["clean"].values["dice"] == 0 and failed["clean"].values["hd95_mm"] == pytest.approx(DIAGONAL)
    assert math.isnan(failed["clean"].values["specificity"])
    counts = the(found).counts
    assert (counts.cases, counts.failed, counts.misses, counts.both_empty) == (3, 2, 1, 0)
    assert the(found).statistics["dice"].mean == pytest.approx(1 / 3)
    assert any("2 results are missing or failed" in note for note in found.notes)


def test_a_prediction_of_another_size_is_a_failure() -> None:
    found = judged({"small": np.zeros((2, 2, 2), bool)})
    assert "size of its truth" in found.scores[0].error and found.scores[0].values["dice"] == 0


def test_a_truth_that_cannot_be_read_is_not_judged_and_said() -> None:
    found = judged({"small": TRUTHS["small"]}, ids=["broken", "small"])
    assert list(found.unjudged) == ["broken"] and len(found.scores) == 1
    assert any("1 cases have no readable truth" in note for note in found.notes)


def test_a_cancel_is_no_failure() -> None:
    with pytest.raises(CancelledError):
        judged({"small": CancelledError()})


def test_instance_rules_make_the_mean_infinite() -> None:
    found = judged({"small": NOTHING, "large": TRUTHS["large"]}, RULES["instance"])
    statistic = the(found).statistics["hd_mm"]
    assert statistic.mean == math.inf and statistic.high == math.inf and statistic.n == 2
    assert mean_interval(statistic).startswith("∞ [")


def test_hemseg_rules_drop_the_distance_of_empty_predictions_and_say_so() -> None:
    answers = {"small": NOTHING, "large": box(slice(8, 28))}
    found = judged(answers, RULES["legacy_hemseg"])
    statistic = the(found).statistics["hd95_voxels"]
    # 20 of the 400 border voxels lie 3 rows off, 20 lie 2: the 95th percentile is 5 % of the way from 2 to 3
    assert (statistic.n, statistic.undefined, statistic.mean) == (1, 1, pytest.approx(2.05))
    dice = [0.0, 2 * 340 / 800]
    assert the(found).statistics["dice"].mean == pytest.approx(np.mean(dice))
    assert (the(found).statistics["dice"].low, the(found).statistics["dice"].high) == published_interval(dice)
    assert any("faults included" in note for note in found.notes)
    cells = hemseg_table(found, found.summaries()).rows[0]
    assert cells[0] == "A" and cells[1].startswith("42.50 [") and cells[3] == "2.05 [2.05, 2.05]"


def test_hemseg_voxels_take_thick_slices_for_thin_ones() -> None:
    moved = np.roll(TRUTHS["small"], 1, axis=0)  # one slice of 5 mm
    mm, voxels = (score(case("small"), "A", prediction(moved), r).values for r in (RULE, RULES["legacy_hemseg"]))
    assert mm["hd_mm"] == pytest.approx(5.0) and voxels["hd_voxels"] == 1.0


def test_drunet_rules_judge_lesion_slices() -> None:
    half = box(slice(10, 20), slice(2, 3)) | box(slice(0, 40), slice(5, 6))  # one of two slices, and a false alarm
    found = judged({"small": half}, RULES["legacy_drunet"])
    statistic = the(found).statistics["dice"]
    assert (statistic.n, statistic.mean) == (2, pytest.approx(0.5))  # 1 and 0; the alarm's slice does not count
    row = drunet_table(found, found.summaries()).rows[0]
    assert row[:2] == ("all", "A") and row[5] == "0.500±0.707" and row[2] == "0.500±0.707"
    assert "lesion slices" in drunet_table(found, found.summaries()).title


def test_slex_rules_skip_empty_predictions_and_say_so() -> None:
    found = judged({"small": NOTHING, "large": TRUTHS["large"]}, RULES["legacy_slex"])
    summary = the(found)
    assert (summary.statistics["dice"].n, summary.counts.left_out) == (1, 1)
    assert summary.statistics["dice"].mean == pytest.approx(800 / (800 + 1e-5))
    assert any("left out of every mean" in note for note in found.notes)
    assert slex_table(found, found.summaries()).rows[0][1] == "1.000±–"


def test_groups_and_bands_hold_every_case_once() -> None:
    found = judged({name: truth for name, truth in TRUTHS.items()})
    summaries = found.summaries()
    for kind, names in (("group", ["IPH", "SDH", "none"]), ("band", ["no lesion", "<5 mL"])):
        parts = [s for s in summaries if s.kind == kind]
        assert [s.group for s in parts] == names
        assert sum(s.counts.cases for s in parts) == 3


def test_a_volume_on_an_edge_belongs_above_it() -> None:
    names = [band_of(ml, RULE) for ml in (0, 0.01, 4.99, 5, 29.9, 30, 60, 200)]
    assert names == ["no lesion", "<5 mL", "<5 mL", "5-30 mL", "5-30 mL", "30-60 mL", ">=60 mL", ">=60 mL"]
    assert band_of(12, rules_named("neuraxis", bands_ml=(10.0,))) == ">=10 mL"


def test_methods_are_compared_case_by_case() -> None:
    good, bad = Scripted("A", dict(TRUTHS)), Scripted("B", {**TRUTHS, "small": box(slice(15, 25))})
    found = differences(judge(Known(), [good, bad], RULE), ["dice"])
    assert [(d.method, d.reference, d.n) for d in found] == [("B", "A", 3)]
    assert found[0].mean == pytest.approx(-0.5 / 3) and found[0].low <= found[0].mean <= found[0].high


def test_a_statistic_leaves_undefined_out_and_counts_it() -> None:
    found = Statistic.of([1.0, math.nan, 3.0], RULE)
    assert (found.n, found.undefined, found.mean, found.median) == (2, 1, 2.0, 2.0)
    assert mean_sd(found) == "2.000±1.414" and mean_sd(Statistic.of([math.nan], RULE)) == "–"


def test_rules_are_chosen_by_name_only() -> None:
    with pytest.raises(InputError, match="no rules 'hemseg'; choose one of: neuraxis, instance"):
        rules_named("hemseg")
    with pytest.raises(InputError, match="rising"):
        rules_named("neuraxis", bands_ml=(30.0, 5.0))


def test_a_failure_takes_the_rules_distance() -> None:
    for name, wanted in (("neuraxis", DIAGONAL), ("instance", math.inf), ("legacy_hemseg", math.nan)):
        made = failure(case("clean"), "A", "It failed.", RULES[name])
        assert made.values[f"hd95_{RULES[name].unit}"] == pytest.approx(wanted, nan_ok=True)
    assert GRID.spacing_mm == (1.0, 1.0, 5.0)
