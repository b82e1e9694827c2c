"""By which rules results are judged: the default ones, and by name those of published evaluations.

What an empty mask, a miss or a failed case counts is part of the rules and is said in every report; the defaults drop
nothing. The legacy rules have the faults of the released codes and serve to imitate their tables, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from NeuraxisLib.errors import InputError


@dataclass(frozen=True)
class Rules:
    """How cases are judged.

    Attributes:
        name: how the command line calls them.
        title: whose rules they are, in a few words.
        words: what they do, one sentence each, for the report.
        unit: of Hausdorff distances, ``"mm"`` or ``"voxels"``.
        no_surface: Hausdorff distance where only one mask is empty; see
            :meth:`~Training.evaluation.surface.SurfaceDistances.hausdorff`.
        epsilon, dice_epsilon: added to the denominators of all overlap measures, and to that of Dice.
        skip_empty_predictions: leave cases without any predicted voxel out of every mean.
        by_slice: overlap measures are of the slices on which the truth shows a lesion, not of whole cases.
        published_interval: the interval of HemSeg's code instead of a percentile bootstrap.
        calibrate_everywhere: calibration counts every voxel of the image, not only the searched region.
        tolerances_mm: of the normalised surface distance.
        bands_ml: edges of the volume bands.
        seed: of the bootstrap.
    """

    name: str
    title: str
    words: tuple[str, ...]
    unit: str = "mm"
    no_surface: str = "diagonal"
    epsilon: float = 0.0
    dice_epsilon: float = 0.0
    skip_empty_predictions: bool = False
    by_slice: bool = False
    published_interval: bool = False
    calibrate_everywhere: bool = False
    tolerances_mm: tuple[float, ...] = (0.42, 2.0)
    bands_ml: tuple[float, ...] = (5.0, 30.0, 60.0)
    seed: int = 0


@dataclass(frozen=True)
class Metric:
    """One number per case.

    Attributes:
        key: column of cases.csv.
        head: name in tables.
        unit: unit in tables; empty for ratios.
        better: ``"high"``, ``"low"``, ``"zero"``, or empty where none is.
        digits: decimals in tables.
    """

    key: str
    head: str
    unit: str = ""
    better: str = ""
    digits: int = 3


_MISSES = "A prediction that is empty where the truth is not scores 0, and its RVD is -1."
_FAILED = "A case that failed, or has no result, counts as an empty prediction of 0 mL and is listed with its error."
_BOOTSTRAP = "Intervals: percentile bootstrap of the mean over cases, 5000 resamples, 95 %."

RULES = {
    rules.name: rules
    for rules in (
        Rules(
            "neuraxis",
            "Neuraxis",
            (
                "Both masks empty: Dice, IoU, sensitivity, precision and NSD are 1, distances and RVD 0.",
                f"{_MISSES} Its Hausdorff distances are the diagonal of the image, the worst that can be.",
                "A prediction where the truth is empty scores Dice, IoU, precision and NSD 0 and the diagonal; "
                "sensitivity and RVD are undefined there and counted as such.",
                f"{_FAILED} If its truth is empty, too, it scores 0: an empty answer would have been right.",
                "Hausdorff distances: between border voxels in the patient's mm, larger of both directions; HD95 is "
                "the larger of both directed 95th percentiles. NSD weighs the surfaces by area.",
                "Calibration counts the voxels of the searched region where the truth has one, else all.",
                _BOOTSTRAP,
            ),
        ),
        Rules(
            "instance",
            "INSTANCE 2022",
            (
                "Dice with 1e-5 in the denominator; |RVD|; surface Dice by area at 0.42 mm.",
                "The Hausdorff distance is infinite where one mask is empty, and so is the mean then.",
                _FAILED,
                _BOOTSTRAP,
            ),
            no_surface="infinite",
            dice_epsilon=1e-5,
            tolerances_mm=(0.42,),
        ),
        Rules(
            "legacy_hemseg",
            "HemSeg's released evaluation",
            (
                "Hausdorff distances are in voxels, as if every voxel were a unit cube; empty predictions have none "
                "and are DROPPED from their mean.",
                f"{_MISSES} {_FAILED}",
                "Intervals: RandomState(47), 5000 resamples, elements 125 and 4875 of the sorted means.",
                "The released code judges on its resampled grid; here the grid is that of the truth given.",
            ),
            unit="voxels",
            no_surface="dropped",
            published_interval=True,
        ),
        Rules(
            "legacy_drunet",
            "DR-UNet's released evaluation",
            (
                "Overlap measures are per slice, over the slices on which the truth shows a lesion; false alarms on "
                "other slices do NOT count.",
                "1e-10 in every denominator: two empty masks score 0.",
                "The released code judges pictures of 256 x 256 pixels; here the pixels are those of the truth given.",
                _FAILED,
                _BOOTSTRAP,
            ),
            epsilon=1e-10,
            by_slice=True,
        ),
        Rules(
            "legacy_slex",
            "SLEX-Net's released evaluation",
            (
                "Cases with an empty prediction, failed ones too, are LEFT OUT of every mean, which flatters.",
                "Dice with 1e-5 in the denominator; calibration counts every voxel of the image, air and bone too.",
                "Distances and volumes are in true mm and mL (the released code used the spacing of another grid).",
                _BOOTSTRAP,
            ),
            dice_epsilon=1e-5,
            skip_empty_predictions=True,
            calibrate_everywhere=True,
        ),
    )
}  # fmt: skip


def rules_named(name: str, **changes: object) -> Rules:
    """The rules of that name, with fields replaced; InputError names the known ones."""
    if name not in RULES:
        raise InputError(f"There are no rules '{name}'; choose one of: {', '.join(RULES)}.")
    rules = replace(RULES[name], **changes)
    if list(rules.bands_ml) != sorted(set(rules.bands_ml)) or any(not edge > 0 for edge in rules.bands_ml):
        raise InputError("The edges of volume bands must be positive and rising, such as 5,30,60; correct them.")
    if any(not tolerance >= 0 for tolerance in rules.tolerances_mm):
        raise InputError("A tolerance of the surface distance is negative; give millimetres from 0 upward.")
    return rules


def nsd_key(tolerance_mm: float) -> str:
    """Column of the normalised surface distance at a tolerance."""
    return f"nsd_{tolerance_mm:g}mm"


def metrics(rules: Rules) -> list[Metric]:
    """Every metric that a case gets, in the order of the tables."""
    distances = [
        Metric(f"hd_{rules.unit}", "HD", rules.unit, "low", 2),
        Metric(f"hd95_{rules.unit}", "HD95", rules.unit, "low", 2),
    ]
    nsd = [Metric(nsd_key(t), f"NSD at {t:g} mm", "", "high") for t in rules.tolerances_mm]
    return [
        Metric("dice", "Dice", "", "high"),
        Metric("iou", "IoU", "", "high"),
        Metric("voe", "VOE", "", "low"),
        Metric("rvd", "RVD", "", "zero"),
        Metric("rvd_abs", "|RVD|", "", "low"),
        Metric("sensitivity", "Sensitivity", "", "high"),
        Metric("specificity", "Specificity", "", "high"),
        Metric("precision", "Precision", "", "high"),
        Metric("accuracy", "Accuracy", "", "high"),
        *distances,
        *nsd,
        Metric("volume_error_ml", "Volume error", "mL", "zero", 2),
        Metric("volume_error_abs_ml", "|Volume error|", "mL", "low", 2),
        Metric("interval_covers", "Interval holds truth", "", "high"),
        Metric("ece", "ECE", "", "low", 4),
        Metric("nll", "NLL", "", "low", 4),
        Metric("brier", "Brier", "", "low", 4),
        Metric("uncertainty_correlation", "Uncertainty-error r", "", "high"),
        Metric("uncertainty_auc", "Uncertainty-error AUC", "", "high"),
        Metric("seconds", "Time", "s", "low", 2),
    ]
