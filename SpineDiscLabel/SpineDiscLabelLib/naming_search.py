"""The search behind naming: all ordered chains of candidates at once, by dynamic programming.

A chain takes some of the candidates, from above downward, and gives them discs that follow each other downward. Its
weight is a product: for every candidate taken, the odds that it is a disc and how far it looks like the disc it is
given; for every step, how well length and tilt fit the vertebrae between; for every two steps, how well the bend fits;
and a price for each disc skipped. What a spine does as a whole (its size, its number of lumbar vertebrae) is a
hypothesis, and the weights of all hypotheses are summed.

Weights are summed over steps (pairs of candidates), because the bend ties two steps together. Every candidate has at
most :data:`MOST_STEPS` steps upward, so time grows with candidates times levels. Weights stay below 1e250 for 26
discs, so plain float64 holds them without logarithms. Arrays: c candidates (from above), e steps, p pairs of steps,
l levels of a form (padded to 25), h hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from SpineDiscLabelLib.naming_steps import LEVELS, Hypotheses, Steps, bend_weights, step_weights

#: Steps upward that a candidate keeps: those that may lie on a chain.
MOST_STEPS = 4
#: A step counts as possible from this posterior on in the first pass.
NEGLIGIBLE = 1e-5
#: Extra relative SD of a step's length in the coarse first pass, whose sizes are spaced widely.
COARSE_SPREAD = 0.08
COARSE_LONGEST = 3

# -- first pass: what may be on a chain at all ------------------------------------------------------------------


def prune(steps: Steps, unary: np.ndarray, hypotheses: Hypotheses) -> tuple[Steps, np.ndarray]:
    """Keep the steps that may lie on a chain, judged without bends; at most :data:`MOST_STEPS` per candidate.

    Args:
        unary: (v, c, l) weights of candidates at levels.

    Returns:
        the steps, and the (h,) probability of the hypotheses as far as seen yet.
    """
    if not len(steps.above):
        return steps, hypotheses.prior
    weights = step_weights(replace(steps, longest=min(steps.longest, COARSE_LONGEST)), hypotheses, COARSE_SPREAD)
    own = unary[hypotheses.form].transpose(2, 0, 1)  # (l, h, c)
    down, up = _sweep(own, weights, steps, forward=True), _sweep(own, weights, steps, forward=False)
    posterior = np.zeros(len(steps.above))
    for level in range(LEVELS):
        for gap in range(1, min(len(weights), level) + 1):
            flow = down[level - gap].take(steps.above, axis=1) * up[level].take(steps.below, axis=1)
            posterior += hypotheses.prior @ (flow * weights[gap - 1, level])
    each = hypotheses.prior * down.sum(axis=(0, 2))
    total = float(each.sum())
    kept = posterior > NEGLIGIBLE * max(total, 1e-300)
    order = np.lexsort((-posterior, steps.below))
    below = steps.below[order]
    rank = np.arange(len(below)) - np.searchsorted(below, below)
    best = np.zeros(len(below), bool)
    best[order] = rank < MOST_STEPS
    kept &= best
    return steps.only(kept), each / max(total, 1e-300)


def _sweep(own: np.ndarray, weights: np.ndarray, steps: Steps, forward: bool) -> np.ndarray:
    """(l, h, c) summed weights of all chains that end (or start) at a candidate and level, that one included."""
    source, target = (steps.above, steps.below) if forward else (steps.below, steps.above)
    collect = _Sums(target, own.shape[2])
    sums = np.zeros_like(own)
    for level in range(LEVELS) if forward else range(LEVELS - 1, -1, -1):
        incoming = np.zeros((own.shape[1], len(source)))
        for gap in range(1, len(weights) + 1):
            other = level - gap if forward else level + gap
            if 0 <= other < LEVELS:
                incoming += weights[gap - 1, max(level, other)] * sums[other].take(source, axis=1)
        sums[level] = own[level] * (1.0 + collect(incoming))
    return sums


class _Sums:
    """Adds (or takes the largest of) values that belong together: ``values[..., k]`` to ``result[..., target[k]]``."""

    def __init__(self, target: np.ndarray, size: int):
        self._size = size
        self._order = np.argsort(target, kind="stable")
        self._targets, self._starts = np.unique(target[self._order], return_index=True)

    def __call__(self, values: np.ndarray, combine: np.ufunc = np.add) -> np.ndarray:
        result = np.zeros((*values.shape[:-1], self._size))
        if len(self._targets):
            result[..., self._targets] = combine.reduceat(values.take(self._order, axis=-1), self._starts, axis=-1)
        return result


# -- second pass: exact ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """What the search found.

    Attributes:
        level: (v, c, l) probability that the spine has this form and the candidate this level of it.
        hypothesis: (h,) probability of every hypothesis; with ``nothing`` they sum to 1.
        nothing: probability that no candidate is a disc.
    """

    level: np.ndarray
    hypothesis: np.ndarray
    nothing: float


class Search:
    """All chains over given steps, weighted.

    Args:
        steps: which steps there are.
        unary: (v, c, l) weights of candidates at levels, one row of v per form.
        hypotheses: what the spine may be.
    """

    def __init__(self, steps: Steps, unary: np.ndarray, hypotheses: Hypotheses):
        self.steps, self.hypotheses = steps, hypotheses
        self.own = np.ascontiguousarray(unary[hypotheses.form].transpose(2, 0, 1))  # (l, h, c)
        self.step = step_weights(steps, hypotheses)  # (g, l, h, e)
        self.bend = bend_weights(steps, hypotheses.forms)[hypotheses.form].transpose(1, 0, 2)  # (l, h, p)
        count, step_count = unary.shape[1], len(steps.above)
        self.may_start, self.may_end = np.ones(count), np.ones(count)
        if steps.forced:
            self.may_start[1:] = 0.0
            self.may_end[:-1] = 0.0
        self.first, self.second = steps.pairs
        self._by_second, self._by_first = _Sums(self.second, step_count), _Sums(self.first, step_count)
        self._by_below, self._by_above = _Sums(steps.below, count), _Sums(steps.above, count)

    def forward(self, rows: slice = slice(None), combine: np.ufunc = np.add) -> tuple[np.ndarray, np.ndarray]:
        """Weights of chains down to a step, over levels.

        Returns:
            (before, entered), both (l, h, e): of chains that end at the step's upper candidate at this level, with
            the bend into the step; and of chains that end with the step, its lower candidate at this level.
        """
        steps, own = self.steps, self.own[:, rows]
        before = np.zeros((LEVELS, own.shape[1], len(steps.above)))
        entered = np.zeros_like(before)
        for level in range(LEVELS):
            for gap in range(1, min(steps.longest, level) + 1):
                step = self.step[gap - 1, level, rows] * before[level - gap]
                entered[level] = combine(entered[level], step)
            entered[level] *= own[level][:, steps.below]
            joined = entered[level][:, self.first] * self.bend[level, rows]
            started = (own[level] * self.may_start)[:, steps.above]
            before[level] = combine(started, self._by_second(joined, combine))
        return before, entered

    def backward(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights of what follows, over levels.

        Returns:
            (leaving, after), both (l, h, e): of all that follows the step's upper candidate at this level if it takes
            the step; and of all that follows its lower candidate at this level if the step led there.
        """
        steps = self.steps
        leaving = np.zeros((LEVELS, self.own.shape[1], len(steps.above)))
        after = np.zeros_like(leaving)
        reached = np.zeros_like(leaving)  # own weight of the lower candidate times what follows it
        for level in range(LEVELS - 1, -1, -1):
            for gap in range(1, min(steps.longest, LEVELS - 1 - level) + 1):
                leaving[level] += self.step[gap - 1, level + gap] * reached[level + gap]
            joined = leaving[level][:, self.second] * self.bend[level]
            after[level] = self.may_end[steps.below] + self._by_first(joined)
            reached[level] = self.own[level][:, steps.below] * after[level]
        return leaving, after

    def posterior(self) -> Posterior:
        """Forward-backward over all chains and hypotheses; every start level is as likely as another."""
        _, entered = self.forward()
        leaving, after = self.backward()
        started = self.own * self.may_start * (self.may_end + self._by_above(leaving))
        weight = self._by_below(entered * after) + started
        scale = self.hypotheses.prior / LEVELS
        total = started.sum(axis=(0, 2)) * scale
        empty = 0.0 if self.steps.forced else 1.0
        every = total.sum() + empty
        if not every > 0:
            return Posterior(np.zeros((len(self.hypotheses.forms), weight.shape[2], LEVELS)), total, 1.0)
        level = np.zeros((len(self.hypotheses.forms), weight.shape[2], LEVELS))
        np.add.at(level, self.hypotheses.form, (weight * scale[:, None]).transpose(1, 2, 0) / every)
        return Posterior(level, total / every, empty / every)

    def best_chain(self, row: int) -> list[tuple[int, int]]:
        """[(candidate, level)] from above of the heaviest chain under hypothesis ``row``."""
        rows = slice(row, row + 1)
        before, entered = (array[:, 0] for array in self.forward(rows, np.maximum))
        own = self.own[:, row]
        ends = entered * self.may_end[self.steps.below]
        alone = own * self.may_start * self.may_end
        if not ends.size or ends.max() <= alone.max():
            level, candidate = np.unravel_index(alone.argmax(), alone.shape)
            return [(int(candidate), int(level))] if alone.max() > 0 else []
        level, step = (int(i) for i in np.unravel_index(ends.argmax(), ends.shape))
        chain = [(int(self.steps.below[step]), level)]
        while True:
            gaps = np.arange(1, min(self.steps.longest, level) + 1)
            level -= int(gaps[np.argmax(self.step[gaps - 1, level, row, step] * before[level - gaps, step])])
            chain.append((int(self.steps.above[step]), level))
            pairs = np.flatnonzero(self.second == step)
            joined = entered[level, self.first[pairs]] * self.bend[level, row, pairs]
            if not len(pairs) or joined.max() <= own[level, chain[-1][0]] * self.may_start[chain[-1][0]]:
                return chain[::-1]
            step = int(self.first[pairs[joined.argmax()]])

    def shifted(self, chain: list[tuple[int, int]]) -> np.ndarray:
        """(h, l) weight of the same candidates with the same gaps, starting at level l, under every hypothesis."""
        candidates, levels = np.array(chain).T
        starts = np.arange(LEVELS - (levels[-1] - levels[0]))
        weight = np.zeros((len(self.hypotheses.prior), LEVELS))
        weight[:, starts] = self.hypotheses.prior[:, None]
        steps = [self._step_between(*pair) for pair in pairwise(candidates)]
        for number, (candidate, level) in enumerate(zip(candidates, levels - levels[0])):
            weight[:, starts] *= self.own[starts + level, :, candidate].T
            if number:
                gap = level - (levels[number - 1] - levels[0])
                weight[:, starts] *= self.step[gap - 1, starts + level, :, steps[number - 1]].T
            if 0 < number < len(chain) - 1:
                meeting = (self.first == steps[number - 1]) & (self.second == steps[number])
                weight[:, starts] *= self.bend[starts + level, :, np.flatnonzero(meeting)[0]].T
        return weight

    def _step_between(self, above: int, below: int) -> int:
        return int(np.flatnonzero((self.steps.above == above) & (self.steps.below == below))[0])
