"""The grid of frames and slices when images are missing, and the pairing of times behind it."""

from __future__ import annotations

from itertools import combinations

import ctp_dicom as build
import numpy as np
import pytest
from ctp_dicom import UNIFORM_S

from NeuraxisLib.errors import InputError
from StrokeCTPLib.frames_dicom_grid import _match, build_grid


def pair_cost(images, frames, pairs, gap):
    """The cost of a pairing without offset, once it is sure that it takes every time once and in order."""
    assert [n for n, _ in pairs if n >= 0] == list(range(len(images)))
    assert [n for _, n in pairs if n >= 0] == list(range(len(frames)))
    return sum(abs(images[i] - frames[j]) if i >= 0 and j >= 0 else gap for i, j in pairs)


def test_pairing_is_the_cheapest():
    rng = np.random.default_rng(5)
    for _ in range(20):
        images, frames = np.sort(rng.uniform(0, 8, 4)), np.sort(rng.uniform(0, 8, 5))
        cost, pairs = _match(images, frames, 0.7)
        best = min(
            np.abs(images[list(own)] - frames[list(other)]).sum() + 0.7 * (9 - 2 * count)
            for count in range(5)
            for own in combinations(range(4), count)
            for other in combinations(range(5), count)
        )
        assert cost == pytest.approx(best) == pytest.approx(pair_cost(images, frames, pairs, 0.7))


TABLES = {
    "still": UNIFORM_S,
    "shuttle": build.shuttle_times(),
    "wide shuttle": build.shuttle_times(2.8, 30, 12),
    "one-way": np.arange(25.0)[:, None] * 2.8 + np.arange(10) * 0.25,
}


@pytest.mark.parametrize("times_s", TABLES.values(), ids=TABLES)
def test_whatever_is_missing_no_image_gets_a_wrong_time(times_s):
    rng, refused = np.random.default_rng(0), 0
    for _ in range(25):
        there = np.ones(times_s.shape, dtype=bool)
        for _ in range(rng.integers(1, 5)):
            there[rng.integers(len(times_s)), rng.integers(times_s.shape[1])] = False
        t, k = rng.permutation(np.argwhere(there)).T
        try:
            grid = build_grid(times_s[t, k], k, "The series")
        except InputError:
            refused += 1  # two in a row, or more than two frames at an end
            continue
        frame = np.nanmin(np.where(grid.missing, np.nan, t[grid.images]), axis=1).astype(int)
        assert np.abs(grid.times_s - times_s[frame]).max() <= 0.01
        assert (k[grid.images] == np.arange(times_s.shape[1])).all()
    assert refused <= 5
