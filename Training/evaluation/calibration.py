"""Whether probabilities can be believed, and whether uncertainty is high where the mask is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: Equal bins on 0..1, as SLEX-Net's evaluation takes them.
BINS = 10
#: Probabilities are kept this far from 0 and 1 in the likelihood, where a certain error would be infinite.
CLIP = 1e-7


@dataclass(frozen=True)
class Calibration:
    """Sums over voxels that give ECE, NLL and Brier score; those of several cases add up to the pooled ones.

    Attributes:
        counts: (BINS,) voxels by probability, bins closed below.
        confidence: (BINS,) sum of their probabilities.
        positives: (BINS,) how many of them are lesion.
        nll_sum: sum of -ln of the probability given to what is true.
        brier_sum: sum of the squared difference of probability and truth.
    """

    counts: np.ndarray
    confidence: np.ndarray
    positives: np.ndarray
    nll_sum: float
    brier_sum: float

    @classmethod
    def of(cls, probability: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> Calibration:
        """Sums of one case.

        Args:
            probability: (k, j, i) of lesion, 0..1.
            truth: (k, j, i), non-zero is lesion.
            region: voxels that count; all if None.
        """
        inside = np.ones(truth.shape, bool) if region is None else region != 0
        p, y = np.clip(probability[inside].astype(np.float64), 0, 1), truth[inside] != 0
        which = np.minimum((p * BINS).astype(np.int64), BINS - 1)
        given = np.clip(np.where(y, p, 1 - p), CLIP, 1)
        return cls(
            counts=np.bincount(which, minlength=BINS).astype(float),
            confidence=np.bincount(which, weights=p, minlength=BINS),
            positives=np.bincount(which, weights=y, minlength=BINS),
            nll_sum=float(-np.log(given).sum()),
            brier_sum=float(((p - y) ** 2).sum()),
        )

    def __add__(self, other: Calibration) -> Calibration:
        """The sums of both together."""
        return Calibration(
            self.counts + other.counts,
            self.confidence + other.confidence,
            self.positives + other.positives,
            self.nll_sum + other.nll_sum,
            self.brier_sum + other.brier_sum,
        )

    @property
    def n(self) -> int:
        """Voxels that counted."""
        return int(self.counts.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error: sum over bins of n_k / N times |mean probability - share of lesion|."""
        return float(np.abs(self.confidence - self.positives).sum() / self.n) if self.n else math.nan

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood (natural logarithm)."""
        return self.nll_sum / self.n if self.n else math.nan

    @property
    def brier(self) -> float:
        """Brier score: mean squared difference (half of the sum over both classes)."""
        return self.brier_sum / self.n if self.n else math.nan

    def reliability(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """((BINS,) mean probability, share of lesion, voxels) of the reliability curve; NaN in empty bins."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.confidence / self.counts, self.positives / self.counts, self.counts


def uncertainty_error(
    uncertainty: np.ndarray, prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None
) -> tuple[float, float]:
    """(correlation, AUC): whether voxels that are wrong are uncertain.

    Correlation is Pearson's between the uncertainty and the error (1 where prediction and truth differ, else 0);
    AUC is the chance that a wrong voxel is more uncertain than a right one. NaN where no voxel, or every one, is
    wrong, or all are equally uncertain (correlation only).

    Args:
        uncertainty: (k, j, i), higher is less certain.
        prediction, truth: (k, j, i), non-zero is marked.
        region: voxels that count; all if None.
    """
    inside = np.ones(truth.shape, bool) if region is None else region != 0
    u = np.nan_to_num(uncertainty[inside].astype(np.float64))
    wrong = (prediction[inside] != 0) != (truth[inside] != 0)
    if not wrong.any() or wrong.all():
        return math.nan, math.nan
    correlation = float(np.corrcoef(u, wrong)[0, 1]) if np.ptp(u) > 0 else math.nan
    return correlation, area_under_curve(u[wrong], u[~wrong])


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties by half (Mann-Whitney)."""
    from scipy.stats import rankdata

    if not len(positive) or not len(negative):
        return math.nan
    ranks = rankdata(np.concatenate([positive, negative]))
    return float((ranks[: len(positive)].mean() - (len(positive) + 1) / 2) / len(negative))
