"""Confidence intervals of a mean by resampling cases (Efron's percentile bootstrap)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

#: Resamples of either interval.
RESAMPLES = 5000
#: Seed, sorted elements (from 0) and digits of the interval that HemSeg's released code prints.
PUBLISHED_SEED, PUBLISHED_ELEMENTS, PUBLISHED_DIGITS = 47, (125, 4875), 4


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
    means = np.sort(values[_draws(len(values), seed)].mean(axis=1))
    tail = (1 - level) / 2
    # by rank, not interpolated: between a finite and an infinite mean nothing can be interpolated
    low, high = math.floor(tail * (RESAMPLES - 1)), math.ceil((1 - tail) * (RESAMPLES - 1))
    return float(means[low]), float(means[high])


def published_interval(values: np.ndarray) -> tuple[float, float]:
    """(low, high) exactly as HemSeg's released code: RandomState(47), 5000 resamples, elements 125 and 4875."""
    values = np.asarray(values, float)
    if not len(values):
        return math.nan, math.nan
    means = np.sort(values[_published_draws(len(values))].mean(axis=1))
    low, high = (round(float(means[element]), PUBLISHED_DIGITS) for element in PUBLISHED_ELEMENTS)
    return low, high


@lru_cache(maxsize=16)
def _draws(n: int, seed: int) -> np.ndarray:
    """(RESAMPLES, n) indices drawn with replacement."""
    return np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))


@lru_cache(maxsize=16)
def _published_draws(n: int) -> np.ndarray:
    """(RESAMPLES, n) indices as 5000 calls of ``choice`` on one RandomState draw them."""
    return np.random.RandomState(PUBLISHED_SEED).randint(0, n, (RESAMPLES, n))
