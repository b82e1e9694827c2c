"""Confidence intervals of a mean by resampling cases (Efron's percentile bootstrap)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

#: Resamples of either interval.
RESAMPLES = 5000
#: Seed, sorted elements (from 0) and digits of the interval that HemSeg's released code prints.
PUBLISHED_SEED, PUBLISHED_ELEMENTS, PUBLISHED_DIGITS = 47, (125, 4875), 4
#: Indices drawn at a time.
_MOST_DRAWN = 4_000_000


def mean_interval(values: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """(low, high): percentile interval of the mean; the sole value twice for one case, NaN for none.

    Args:
        values: (n,) one number per case, all defined; infinite ones give an infinite end.
        seed: of the generator; the same seed and n draw the same cases, so that methods are resampled together.
        level: share of the resampled means inside.
    """
    values = np.asarray(values, float)
    if not len(values):
        return math.nan, math.nan
    means = _means(values, np.random.default_rng(seed).integers)
    tail = (1 - level) / 2
    # by rank, not interpolated: between a finite and an infinite mean nothing can be interpolated
    low, high = math.floor(tail * (RESAMPLES - 1)), math.ceil((1 - tail) * (RESAMPLES - 1))
    return float(means[low]), float(means[high])


def published_interval(values: np.ndarray) -> tuple[float, float]:
    """(low, high) exactly as HemSeg's released code: RandomState(47), 5000 resamples, elements 125 and 4875."""
    values = np.asarray(values, float)
    if not len(values):
        return math.nan, math.nan
    means = _means(values, np.random.RandomState(PUBLISHED_SEED).randint)
    low, high = (round(float(means[element]), PUBLISHED_DIGITS) for element in PUBLISHED_ELEMENTS)
    return low, high


def _means(values: np.ndarray, draw: Callable[[int, int, tuple[int, int]], np.ndarray]) -> np.ndarray:
    """(RESAMPLES,) sorted means of resampled values; thousands of slices are drawn in parts that fit in memory."""
    n = len(values)
    rows = max(1, _MOST_DRAWN // n)
    parts = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    return np.sort(np.concatenate([values[draw(0, n, (part, n))].mean(axis=1) for part in parts]))
