"""Ratios and trial criteria, by hand."""

from __future__ import annotations

import pytest

from NeuraxisLib.errors import InputError
from StrokeCTPLib.mismatch import MET, NOT_MET, UNKNOWN, Mismatch, Patient, trial_criteria


def verdicts(core: float, hypo: float, **patient) -> dict[str, str]:
    ratio = hypo / core if core else None
    found = Mismatch(hypo, core, hypo - core, ratio, None, None)
    return {c.trial: c.verdict for c in trial_criteria(found, Patient(**patient))}


def test_a_clear_case_meets_what_its_time_allows():
    assert verdicts(20, 100, nihss=15, age_years=70, hours_since_well=8) == {
        "DEFUSE 3": MET,
        "EXTEND": MET,
        "DAWN": MET,
    }
    assert verdicts(20, 100, nihss=15, age_years=70, hours_since_well=20)["DEFUSE 3"] == NOT_MET


def test_unknown_input_is_unknown_unless_another_criterion_fails():
    assert set(verdicts(20, 100).values()) == {UNKNOWN}
    assert verdicts(75, 300)["DEFUSE 3"] == NOT_MET
    assert verdicts(75, 300)["DAWN"] == NOT_MET


@pytest.mark.parametrize(
    ("core", "age", "nihss", "verdict"),
    [
        (20.9, 82, 10, MET),
        (21, 82, 10, NOT_MET),
        (30.9, 79, 10, MET),
        (31, 79, 10, NOT_MET),
        (31, 79, 20, MET),
        (50.9, 60, 20, MET),
        (51, 60, 20, NOT_MET),
        (10, 60, 9, NOT_MET),
    ],
)
def test_dawn_weighs_age_severity_and_core(core, age, nihss, verdict):
    assert verdicts(core, 200, age_years=age, nihss=nihss, hours_since_well=12)["DAWN"] == verdict


def test_dawn_says_how_each_group_stands():
    found = Mismatch(200, 31, 169, 200 / 31, None, None)
    dawn = trial_criteria(found, Patient(nihss=20, age_years=60, hours_since_well=12))[2]
    assert [met for text, met in dawn.items.items() if text.startswith("group")] == [False, False, True]
    assert dawn.items["any of groups A, B and C"] is True and dawn.verdict == MET
    unknown = trial_criteria(found, Patient(nihss=20, hours_since_well=25))[2]
    assert [met for text, met in unknown.items.items() if text.startswith("group")] == [False, False, None]
    assert unknown.items["any of groups A, B and C"] is None and unknown.verdict == NOT_MET


def test_no_core_is_an_infinite_mismatch_but_no_lesion_is_none():
    known = {"nihss": 12, "age_years": 60, "hours_since_well": 7}
    assert verdicts(0, 40, **known)["DEFUSE 3"] == MET
    assert verdicts(0, 0, **known)["DEFUSE 3"] == NOT_MET


def test_boundaries_of_defuse_3():
    known = {"nihss": 6, "age_years": 90, "hours_since_well": 16}
    assert verdicts(18.75, 33.75, **known)["DEFUSE 3"] == MET  # 15 mL and 1.8
    assert verdicts(18.75, 33.7, **known)["DEFUSE 3"] == NOT_MET


@pytest.mark.parametrize("bad", [{"nihss": 43}, {"nihss": -1}, {"age_years": 130}, {"hours_since_well": -2}])
def test_impossible_patients_are_refused(bad):
    with pytest.raises(InputError):
        Patient(**bad)
