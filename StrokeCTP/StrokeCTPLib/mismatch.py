"""Mismatch, hypoperfusion intensity ratio, CBV index, and the imaging criteria of three trials.

Criteria are reported as met, not met or unknown, for research; nothing here is advice. An input that was not given
makes a criterion unknown, unless another one already fails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.errors import InputError
from StrokeCTPLib.lesions import Lesions

if TYPE_CHECKING:
    from StrokeCTPLib.perfusion_maps import PerfusionMaps

MET, NOT_MET, UNKNOWN = "criteria met", "criteria not met", "unknown input"


@dataclass(frozen=True)
class Mismatch:
    """Volumes in mL and ratios; a ratio without a denominator is None (no core, no delayed tissue).

    Attributes:
        mismatch_ml: hypoperfused minus core. ratio: hypoperfused / core.
        intensity_ratio: volume with Tmax above 10 s over that above 6 s (HIR). cbv_index: mean CBV of the
            hypoperfused tissue over that of normal tissue.
    """

    hypoperfused_ml: float
    core_ml: float
    mismatch_ml: float
    ratio: float | None
    intensity_ratio: float | None
    cbv_index: float | None


def mismatch(lesions: Lesions, maps: PerfusionMaps) -> Mismatch:
    """Compute all ratios of a set of lesions."""
    core, hypo = lesions.core_ml, lesions.hypoperfused_ml
    graded = lesions.graded_ml
    cbv = maps.model["cbv"] if lesions.rules.family == "model" else maps.svd["cbv"]
    normal = maps.tissue & ~lesions.hypoperfused & (maps.svd["tmax"] < 4)
    within = lesions.hypoperfused
    comparable = within.any() and normal.any() and float(cbv[normal].mean()) > 0
    return Mismatch(
        hypo,
        core,
        hypo - core,
        hypo / core if core > 0 else None,
        graded[10.0] / graded[6.0] if graded[6.0] > 0 else None,
        float(cbv[within].mean() / cbv[normal].mean()) if comparable else None,
    )


@dataclass(frozen=True)
class Patient:
    """What the trials ask beside the images; None where unknown.

    Raises:
        InputError: NIHSS outside 0 to 42, an age outside 0 to 120, or negative hours.
    """

    nihss: int | None = None
    age_years: float | None = None
    hours_since_well: float | None = None

    def __post_init__(self) -> None:
        if self.nihss is not None and not 0 <= self.nihss <= 42:
            raise InputError(f"An NIHSS of {self.nihss} does not exist; give a value from 0 to 42.")
        if self.age_years is not None and not 0 <= self.age_years <= 120:
            raise InputError(f"An age of {self.age_years} years is not plausible; give a value from 0 to 120.")
        if self.hours_since_well is not None and self.hours_since_well < 0:
            raise InputError("The hours since last seen well are negative; give the time from then to the scan.")


@dataclass(frozen=True)
class Criteria:
    """A trial's criteria: ``verdict`` is MET, NOT_MET or UNKNOWN; ``items`` maps each one's text to True/False/None.

    All items must hold, but for the groups of DAWN, of which one is enough; the item before them says whether one does.
    """

    trial: str
    verdict: str
    items: dict[str, bool | None]


def trial_criteria(found: Mismatch, patient: Patient | None = None) -> list[Criteria]:
    """DEFUSE 3, EXTEND and DAWN, as published (imaging, time window, age and NIHSS where the trial asks for them)."""
    patient = patient or Patient()
    return [_defuse3(found, patient), _extend(found, patient), _dawn(found, patient)]


def _defuse3(found: Mismatch, patient: Patient) -> Criteria:
    ratio = np.inf if found.ratio is None else found.ratio
    return _judge(
        "DEFUSE 3",
        {
            "core below 70 mL": found.core_ml < 70,
            "mismatch of at least 15 mL": found.mismatch_ml >= 15,
            "mismatch ratio of at least 1.8": found.hypoperfused_ml > 0 and bool(ratio >= 1.8),
            "NIHSS of at least 6": _within(patient.nihss, 6, 42),
            "age 18 to 90": _within(patient.age_years, 18, 90),
            "6 to 16 h since last seen well": _within(patient.hours_since_well, 6, 16),
        },
    )


def _extend(found: Mismatch, patient: Patient) -> Criteria:
    ratio = np.inf if found.ratio is None else found.ratio
    return _judge(
        "EXTEND",
        {
            "core below 70 mL": found.core_ml < 70,
            "mismatch above 10 mL": found.mismatch_ml > 10,
            "mismatch ratio above 1.2": found.hypoperfused_ml > 0 and bool(ratio > 1.2),
            "NIHSS 4 to 26": _within(patient.nihss, 4, 26),
            "4.5 to 9 h since last seen well": _within(patient.hours_since_well, 4.5, 9),
        },
    )


def _dawn(found: Mismatch, patient: Patient) -> Criteria:
    """Age, NIHSS and core belong together: one of group A (from 80 years), B and C (below) is enough."""
    core, age, nihss = found.core_ml, patient.age_years, patient.nihss
    wanted = {
        "group A: 80 years or more, NIHSS from 10, core below 21 mL": ((80, 120), (10, 42), core < 21),
        "group B: under 80 years, NIHSS from 10, core below 31 mL": ((18, 79.999), (10, 42), core < 31),
        "group C: under 80 years, NIHSS from 20, core 31 to 51 mL": ((18, 79.999), (20, 42), 31 <= core < 51),
    }
    groups = {
        text: _all([_within(age, *ages), _within(nihss, *scores), bool(fits)])
        for text, (ages, scores, fits) in wanted.items()
    }
    asked = {"any of groups A, B and C": _any(list(groups.values()))}
    window = {"6 to 24 h since last seen well": _within(patient.hours_since_well, 6, 24)}
    return replace(_judge("DAWN", asked | window), items=asked | groups | window)


def _within(value: float | None, low: float, high: float) -> bool | None:
    return None if value is None else bool(low <= value <= high)


def _all(items: list[bool | None]) -> bool | None:
    """Whether all hold: False as soon as one fails, None while one is unknown."""
    return False if False in items else (None if None in items else True)


def _any(items: list[bool | None]) -> bool | None:
    """Whether one holds: True as soon as one does, None while one is unknown."""
    return True if True in items else (None if None in items else False)


def _judge(trial: str, items: dict[str, bool | None]) -> Criteria:
    items = {text: None if met is None else bool(met) for text, met in items.items()}
    return Criteria(trial, {True: MET, False: NOT_MET, None: UNKNOWN}[_all(list(items.values()))], items)
