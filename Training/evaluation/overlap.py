"""Overlap of two masks: Dice and its relatives, from the four counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import GeometryError


@dataclass(frozen=True)
class Overlap:
    """Voxels by what was called and what is true.

    Attributes:
        tp, fp, fn, tn: true and false positives, false and true negatives.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, prediction: np.ndarray, truth: np.ndarray) -> Overlap:
        """Count two masks of one shape; non-zero is marked. Raises GeometryError if the shapes differ."""
        if prediction.shape != truth.shape:
            raise GeometryError(
                f"A prediction of shape {prediction.shape} does not fit a truth of {truth.shape}; use one grid."
            )
        prediction, truth = (mask if mask.dtype == bool else mask != 0 for mask in (prediction, truth))
        tp = int(np.count_nonzero(prediction & truth))
        called, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
        return cls(tp, called - tp, true - tp, truth.size - called - true + tp)

    def __add__(self, other: Overlap) -> Overlap:
        """The counts of both together."""
        return Overlap(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def emptiness(self) -> str:
        """``"both"``, ``"prediction"`` (a miss), ``"truth"`` (a false alarm), or empty text if both mark something."""
        called, true = self.tp + self.fp, self.tp + self.fn
        return "" if called and true else "prediction" if true else "truth" if called else "both"

    def measures(self, epsilon: float = 0.0, dice_epsilon: float = 0.0) -> dict[str, float]:
        """Dice, IoU, VOE, RVD (signed, and its size), sensitivity, specificity, precision and accuracy.

        Dice = 2TP / (2TP + FP + FN), IoU = TP / (TP + FP + FN), VOE = 1 - IoU, RVD = (FP - FN) / (TP + FN).
        Both masks empty: overlap, sensitivity and precision are 1, RVD is 0: nothing was there and nothing called.
        Prediction empty, truth not: all of these are 0 and RVD is -1. Truth empty, prediction not: Dice, IoU and
        precision are 0; sensitivity and RVD are undefined (NaN), as there was nothing to find.

        Args:
            epsilon: added to every denominator, as DR-UNet's released code does (1e-10); two empty masks score 0.
            dice_epsilon: added to that of Dice only, as SLEX-Net's does (1e-5).
        """
        both = self.emptiness == "both"

        def ratio(part: float, whole: float, undefined: float, more: float = epsilon) -> float:
            return part / (whole + more) if whole + more else undefined

        agree = 1.0 if both else 0.0
        iou = ratio(self.tp, self.tp + self.fp + self.fn, 1.0)
        rvd = ratio(self.fp - self.fn, self.tp + self.fn, 0.0 if both else math.nan)
        return {
            "dice": ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn, 1.0, epsilon + dice_epsilon),
            "iou": iou,
            "voe": 1 - iou,
            "rvd": rvd,
            "rvd_abs": abs(rvd),
            "sensitivity": ratio(self.tp, self.tp + self.fn, 1.0 if both else math.nan),
            "specificity": ratio(self.tn, self.tn + self.fp, math.nan),
            "precision": ratio(self.tp, self.tp + self.fp, agree),
            "accuracy": ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn, math.nan),
        }


def slice_overlaps(prediction: np.ndarray, truth: np.ndarray) -> dict[int, Overlap]:
    """Slice index k -> overlap on that slice, for the slices on which the truth (k, j, i) marks anything."""
    lesion = np.flatnonzero((truth != 0).any(axis=(1, 2)))
    return {int(k): Overlap.of(prediction[k], truth[k]) for k in lesion}
