"""The search behind naming against every chain written out: sums, the best chain, and the steps that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise, product

import numpy as np
import pytest

from SpineDiscLabelLib.anatomy import FORMS, USUAL
from SpineDiscLabelLib.naming_search import COARSE_LONGEST, COARSE_SPREAD, NEGLIGIBLE, Search, prune
from SpineDiscLabelLib.naming_steps import (
    LEVELS,
    Hypotheses,
    Steps,
    bend_weights,
    consecutive_steps,
    possible_steps,
    step_weights,
)

Path = tuple[tuple[int, int], ...]


def four_points(rng: np.random.Generator) -> np.ndarray:
    """(4, 3) RAS mm from above, about a disc apart."""
    return np.cumsum(rng.uniform((-4, -8, -32), (4, 8, -14), (4, 3)), axis=0)


def random_unary(rng: np.random.Generator) -> np.ndarray:
    """(l, v, c) weights, 0 where a form has no such level."""
    unary = rng.exponential(1.0, (LEVELS, len(FORMS), 4))
    for number, form in enumerate(FORMS):
        unary[len(form.names) :, number] = 0.0
    return unary


def every_chain(steps: Steps) -> Iterator[Path]:
    """All chains of (candidate, level) over the steps."""
    known = set(zip(steps.above.tolist(), steps.below.tolist()))
    count = len(steps.points)
    for size in range(count if steps.forced else 1, count + 1):
        for taken in combinations(range(count), size):
            if not set(pairwise(taken)) <= known:
                continue
            for first, *gaps in product(range(LEVELS), *[range(1, steps.longest + 1)] * (size - 1)):
                levels = np.cumsum([first, *gaps]).tolist()
                if levels[-1] < LEVELS:
                    yield tuple(zip(taken, levels))


def written_out(
    steps: Steps, unary: np.ndarray, hypotheses: Hypotheses, spread: float = 0.0, bends: bool = True
) -> dict[Path, np.ndarray]:
    """Chain -> (v, s) weight."""
    step, bend = step_weights(steps, hypotheses, spread).astype(float), bend_weights(steps, hypotheses.forms)
    step_of = {pair: e for e, pair in enumerate(zip(steps.above.tolist(), steps.below.tolist()))}
    meeting = {pair: p for p, pair in enumerate(zip(*(index.tolist() for index in steps.pairs)))}
    result = {}
    for path in every_chain(steps):
        weight = hypotheses.prior.copy()
        for candidate, level in path:
            weight *= unary[level, :, candidate][:, None]
        taken = [step_of[above, below] for (above, _), (below, _) in pairwise(path)]
        for e, ((_, first), (_, last)) in zip(taken, pairwise(path)):
            weight *= step[last, steps.longest - (last - first), :, :, e]
        for pair, (_, level) in zip(pairwise(taken) if bends else (), path[1:]):
            weight *= bend[level, :, meeting[pair]][:, None]
        result[path] = weight
    return result


@pytest.mark.parametrize("forced", [False, True], ids=["candidates", "points"])
def test_sums_and_best_chain_are_those_of_all_chains(forced):
    rng = np.random.default_rng(3)
    hypotheses = Hypotheses.of(FORMS, 3)
    for _ in range(3):
        points, unary = four_points(rng), random_unary(rng)
        steps = consecutive_steps(points, 4) if forced else possible_steps(points, np.zeros(4))
        chains = written_out(steps, unary, hypotheses)
        search = Search(steps, unary, hypotheses)
        found = search.posterior()
        total = sum(chains.values()) / LEVELS
        every = total.sum() + (0.0 if forced else 1.0)
        np.testing.assert_allclose(found.hypothesis, total / every, rtol=1e-9)
        assert found.nothing == pytest.approx(0.0 if forced else 1 / every)
        level = np.zeros_like(unary)
        for path, weight in chains.items():
            for candidate, at in path:
                level[at, :, candidate] += weight.sum(axis=1) / LEVELS / every
        np.testing.assert_allclose(found.level, level, atol=1e-10)
        for form, size in product(range(3), range(3)):
            best = max(chains, key=lambda path: chains[path][form, size])
            assert search.best_chain(form, size) == list(best)
        shifted = search.shifted(list(best))
        for start in range(LEVELS - (best[-1][1] - best[0][1])):
            moved = tuple((candidate, level - best[0][1] + start) for candidate, level in best)
            np.testing.assert_allclose(shifted[:, :, start], chains[moved], rtol=1e-9)


def test_steps_that_may_lie_on_a_chain_are_kept():
    rng = np.random.default_rng(4)
    hypotheses, dropped = Hypotheses.of((USUAL,), 3), 0
    for _ in range(6):
        points, unary = four_points(rng), random_unary(rng)[:, :1]
        unary[:, :, 2] *= rng.choice([1.0, 1e-7])  # a candidate that is no disc
        steps = possible_steps(points, np.zeros(4))
        kept, likely = prune(steps, unary, hypotheses)
        chains = written_out(replace(steps, longest=COARSE_LONGEST), unary, hypotheses, COARSE_SPREAD, bends=False)
        total = sum(chains.values())
        np.testing.assert_allclose(likely, total / total.sum(), rtol=1e-9)
        share = {pair: 0.0 for pair in zip(steps.above.tolist(), steps.below.tolist())}
        for path, weight in chains.items():
            for (above, _), (below, _) in pairwise(path):
                share[above, below] += weight.sum() / total.sum()
        assert set(zip(kept.above.tolist(), kept.below.tolist())) == {p for p, one in share.items() if one > NEGLIGIBLE}
        dropped += len(steps.above) - len(kept.above)
    assert dropped
