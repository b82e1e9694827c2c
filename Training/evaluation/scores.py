"""The score of one method on one case, by the rules chosen; failures and empty masks included."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.measure import abc2, volume_ml
from Training.evaluation.calibration import Calibration, uncertainty_error
from Training.evaluation.cases import Case
from Training.evaluation.methods import Prediction
from Training.evaluation.overlap import Overlap, slice_overlaps
from Training.evaluation.rules import Rules, metrics, nsd_key
from Training.evaluation.surface import normalised_surface_distance, surface_distances

#: Values of an overlap measure at its worst; what is not listed is undefined when a case failed.
_WORST = {"dice": 0.0, "iou": 0.0, "voe": 1.0, "precision": 0.0}


@dataclass
class Score:
    """One row of cases.csv.

    Attributes:
        case, group, method: names.
        error: why the case failed; empty if it did not.
        emptiness: ``""``, ``"both"``, ``"prediction"`` (a miss) or ``"truth"`` (a false alarm).
        counted: whether means include it; False only where legacy rules leave empty predictions out.
        truth_ml, predicted_ml: volumes.
        abc2_ml: ABC/2 of the truth, the bedside estimate to compare with; NaN where it cannot be measured.
        overlap: voxel counts.
        values: metric key -> number; NaN where undefined.
        calibration: the sums to pool; None without a probability.
        slices: k -> overlap, where the rules are by slice.
    """

    case: str
    group: str
    method: str
    truth_ml: float
    predicted_ml: float
    abc2_ml: float
    overlap: Overlap
    error: str = ""
    counted: bool = True
    values: dict[str, float] = field(default_factory=dict)
    calibration: Calibration | None = None
    slices: dict[int, Overlap] = field(default_factory=dict)

    @property
    def emptiness(self) -> str:
        """As :attr:`Training.evaluation.overlap.Overlap.emptiness`."""
        return self.overlap.emptiness

    @property
    def failed(self) -> bool:
        """Whether there was no result to judge."""
        return bool(self.error)


def score(case: Case, method: str, prediction: Prediction, rules: Rules) -> Score:
    """Judge a prediction.

    Raises:
        InputError: the prediction does not lie on the case's grid.
    """
    if prediction.mask.shape != case.truth.shape:
        raise InputError(f"The result of '{case.id}' does not have the size of its truth; bring both to one grid.")
    mask = prediction.mask if case.known is None else prediction.mask & case.known
    made = _masks_score(case, method, mask, rules)
    if prediction.seconds is not None:
        made.values["seconds"] = prediction.seconds
    if prediction.interval_ml is not None and case.known is None:
        low, high = prediction.interval_ml
        made.values["interval_covers"] = float(low <= made.truth_ml <= high)
    region = _calibrated(case, rules)
    if prediction.probability is not None:
        sums = made.calibration = Calibration.of(prediction.probability, case.truth, region)
        made.values |= {"ece": sums.ece, "nll": sums.nll, "brier": sums.brier}
    if prediction.uncertainty is not None:
        found = uncertainty_error(prediction.uncertainty, mask, case.truth, region)
        made.values |= dict(zip(("uncertainty_correlation", "uncertainty_auc"), found))
    return made


def failure(case: Case, method: str, error: str, rules: Rules) -> Score:
    """The score of a case for which there is no result: that of an empty prediction, or worse.

    Where the truth is empty, an empty prediction would have been right by luck; overlap is 0 there and distances are
    those of a false alarm. Specificity, accuracy and calibration are undefined.
    """
    made = _masks_score(case, method, np.zeros(case.truth.shape, bool), rules)
    made.error = error
    made.values |= {"specificity": math.nan, "accuracy": math.nan}
    if made.overlap.emptiness == "both":
        made.values |= dict.fromkeys(("sensitivity", "rvd", "rvd_abs"), math.nan) | _WORST
        made.values |= {nsd_key(tolerance): 0.0 for tolerance in rules.tolerances_mm}
        worst = surface_distances(case.truth, case.truth, case.grid, rules.unit).diagonal
        worst = {"diagonal": worst, "infinite": math.inf, "dropped": math.nan}[rules.no_surface]
        made.values |= {f"hd_{rules.unit}": worst, f"hd95_{rules.unit}": worst}
    return made


def _masks_score(case: Case, method: str, mask: np.ndarray, rules: Rules) -> Score:
    """What follows from the masks alone."""
    overlap = Overlap.of(mask, case.truth)
    truth_ml, predicted_ml = volume_ml(case.truth, case.grid), volume_ml(mask, case.grid)
    distances = surface_distances(mask, case.truth, case.grid, rules.unit)
    surface_shares = normalised_surface_distance(mask, case.truth, case.grid, rules.tolerances_mm)
    values = dict.fromkeys((metric.key for metric in metrics(rules)), math.nan)
    values |= overlap.measures(rules.epsilon, rules.dice_epsilon)
    values |= {
        f"hd_{rules.unit}": distances.hausdorff(100, rules.no_surface),
        f"hd95_{rules.unit}": distances.hausdorff(95, rules.no_surface),
        "volume_error_ml": predicted_ml - truth_ml,
        "volume_error_abs_ml": abs(predicted_ml - truth_ml),
    }
    values |= {nsd_key(t): share for t, share in zip(rules.tolerances_mm, surface_shares)}
    return Score(
        case=case.id,
        group=case.group,
        method=method,
        truth_ml=truth_ml,
        predicted_ml=predicted_ml,
        abc2_ml=_abc2_ml(case),
        overlap=overlap,
        counted=not (rules.skip_empty_predictions and overlap.tp + overlap.fp == 0),
        values=values,
        slices=slice_overlaps(mask, case.truth) if rules.by_slice else {},
    )


def _abc2_ml(case: Case) -> float:
    """ABC/2 of the truth on axial slices, every slice counted wholly; NaN if the grid has none."""
    try:
        axial, order = case.grid.axial()
        return abc2(order.apply_array(case.truth), axial).volume_ml
    except GeometryError:
        return math.nan


def _calibrated(case: Case, rules: Rules) -> np.ndarray | None:
    """Voxels that calibration counts: the searched region and every lesion voxel, where the truth is known."""
    region = None if rules.calibrate_everywhere or case.region is None else case.region | case.truth
    if case.known is None:
        return region
    return case.known if region is None else region & case.known
