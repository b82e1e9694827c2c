"""The search behind naming: all ordered chains of candidates at once, by dynamic programming.

A chain takes some of the candidates, from above downward, and gives them discs that follow each other downward. Its
weight is a product: for every candidate taken, the odds that it is a disc and how far it looks like the disc it is
given; for every step, how well length and tilt fit the vertebrae between; for every two steps, how well the bend fits;
and a price for each disc skipped. What a spine does as a whole (its size, its number of lumbar vertebrae) is a
hypothesis, and the weights of all hypotheses are summed.

Weights are summed over steps (pairs of candidates), because the bend ties two steps together. Every candidate has at
most :data:`MOST_STEPS` steps upward, so time grows with candidates times levels. Weights stay below 1e250 for 26
discs, so plain float64 holds them without logarithms. Arrays: c candidates (from above), e steps, p pairs of steps,
l levels of a form (padded to 25), g levels that a step spans (the most first), v forms, s sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from SpineDiscLabelLib.naming_steps import LEVELS, Hypotheses, Steps, bend_weights, step_weights

#: Steps upward that a candidate keeps: those that may lie on a chain.
MOST_STEPS = 4
#: A step counts as possible from this posterior on in the first pass.
NEGLIGIBLE = 1e-5
#: Sizes less likely than this once all chains have been summed downward are left out of the sums upward.
UNSEEN = 1e-11
#: Extra relative SD of a step's length in the coarse first pass, whose sizes are spaced widely.
COARSE_SPREAD = 0.08
COARSE_LONGEST = 3
#: Given a level and chains whose last step ends there, puts those that begin each step there into the third argument.
GoOn = Callable[[int, np.ndarray, np.ndarray], None]

# -- chains, level by level: each begins with the last of all steps, which leads from nowhere to nowhere and weighs 1


def _downward(step: np.ndarray, go_on: GoOn, combine: np.ufunc = np.add) -> tuple[np.ndarray, np.ndarray]:
    """Weights of all chains from above down to a step.

    Args:
        step: (l, g, ..., e + 1) weights of steps.
        go_on: leads (..., e + 1) chains from step to step at a level.
        combine: how chains are taken together.

    Returns:
        (l, ..., e + 1) what ``go_on`` was given (the lower candidate at this level), and (g + l, ..., e + 1) what it
        gave (the upper one) after what lies above the first level.
    """
    levels, gaps, *lanes = step.shape
    ended, begun = np.empty((levels, *lanes)), np.zeros((gaps + levels, *lanes))
    begun[gaps - 1, ..., -1] = 1.0
    product = np.empty(step.shape[1:])
    for level in range(levels):
        here = ended[level]
        np.multiply(step[level], begun[level : level + gaps], out=product)
        combine.reduce(product, axis=0, out=here)
        go_on(level, here, begun[gaps + level])
    return ended, begun


def _upward(step: np.ndarray, go_on: GoOn) -> tuple[np.ndarray, np.ndarray]:
    """Weights of all chains from below up to a step.

    Returns:
        (l, ..., e + 1) what ``go_on`` was given (the upper candidate at this level) and what it gave (the lower one).
    """
    levels, gaps, *lanes = step.shape
    begun, ended = np.zeros((gaps + levels, *lanes)), np.empty((levels, *lanes))
    begun[-1, ..., -1] = 1.0
    product = np.empty(step.shape[1:])
    for level in range(levels - 1, -1, -1):
        here, window = ended[level], begun[level : level + gaps]
        go_on(level, begun[gaps + level], here)
        np.multiply(step[level], here, out=product)
        np.add(window, product, out=window)
    return begun[gaps:], ended


def _seen(weight: np.ndarray) -> slice:
    """The sizes that are worth looking at, of (v, s) summed weights."""
    of_size = weight.sum(axis=0)
    seen = np.flatnonzero(of_size > UNSEEN * of_size.sum())
    return slice(seen[0], seen[-1] + 1) if seen.size else slice(0, 1)


# -- first pass: what may be on a chain at all ------------------------------------------------------------------


def prune(steps: Steps, unary: np.ndarray, hypotheses: Hypotheses) -> tuple[Steps, np.ndarray]:
    """Keep the steps that may lie on a chain, judged without bends; at most :data:`MOST_STEPS` per candidate.

    Args:
        unary: (l, v, c) weights of candidates at levels.

    Returns:
        the steps, and the (v, s) probability of the hypotheses as far as seen yet.
    """
    if not len(steps.above):
        return steps, hypotheses.prior
    step = step_weights(replace(steps, longest=min(steps.longest, COARSE_LONGEST)), hypotheses, COARSE_SPREAD)
    count, step_count = unary.shape[2], len(steps.above)
    own = np.concatenate([unary, np.ones((*unary.shape[:2], 1))], axis=-1)[:, :, None]
    above, below = np.append(steps.above, count), np.append(steps.below, count)
    (into, starts_into), (out, starts_out) = _by_place(steps.below, count), _by_place(steps.above, count)
    down = np.empty((LEVELS, *hypotheses.prior.shape, count + 1))

    def go_down(level: int, ended: np.ndarray, begun: np.ndarray) -> None:
        here = np.add.reduceat(ended.take(into, axis=-1), starts_into, axis=-1, out=down[level])
        here *= own[level]
        here.take(above, axis=-1, out=begun, mode="clip")

    def go_up(level: int, ended: np.ndarray, begun: np.ndarray) -> None:
        here = np.add.reduceat(ended.take(out, axis=-1), starts_out, axis=-1)
        here *= own[level]
        here.take(below, axis=-1, out=begun, mode="clip")

    _, begun = _downward(step, go_down)
    each = hypotheses.prior * down[..., :-1].sum(axis=(0, 3))
    total = max(float(each.sum()), 1e-300)
    seen = _seen(each)
    ended, _ = _upward(step[:, :, :, seen], go_up)
    ended *= begun[-LEVELS:, :, seen]
    posterior = (hypotheses.prior[:, seen, None] * ended.sum(axis=0)).sum(axis=(0, 1))[:-1]
    order = np.lexsort((-posterior, steps.below))
    ends = steps.below[order]
    kept = posterior > NEGLIGIBLE * total
    kept[order] &= np.arange(step_count) - np.searchsorted(ends, ends) < MOST_STEPS
    return steps.only(kept), each / total


def _by_place(ends: np.ndarray, places: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps in the order of the places (0 ... ``places``) where they end, each after that from nowhere; and starts."""
    every = np.concatenate([np.arange(places + 1), ends])
    order = np.argsort(every, kind="stable")
    source = np.concatenate([np.full(places + 1, len(ends)), np.arange(len(ends))])
    return source[order], np.searchsorted(every, np.arange(places + 1), sorter=order)


# -- second pass: exact ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """What the search found.

    Attributes:
        level: (l, v, c) probability that the spine has this form and the candidate this level of it.
        hypothesis: (v, s) probability of every hypothesis; with ``nothing`` they sum to 1.
        nothing: probability that no candidate is a disc.
    """

    level: np.ndarray
    hypothesis: np.ndarray
    nothing: float


class Search:
    """All chains over given steps, weighted.

    Args:
        steps: which steps there are.
        unary: (l, v, c) weights of candidates at levels.
        hypotheses: what the spine may be.
    """

    def __init__(self, steps: Steps, unary: np.ndarray, hypotheses: Hypotheses):
        self.steps, self.hypotheses, self.own = steps, hypotheses, unary
        self.step = step_weights(steps, hypotheses).astype(float)  # (l, g, v, s, e + 1)
        self.first, self.second = steps.pairs
        # A chain goes on from step to step through the candidate between, (l, v, p), or begins or ends, (l, v, e).
        self.bend = bend_weights(steps, hypotheses.forms)
        self.through = self.bend * unary.take(steps.below[self.first], axis=-1)
        may_start, may_end = np.ones((2, unary.shape[2]))
        if steps.forced:
            may_start[1:], may_end[:-1] = 0.0, 0.0
        self.starting, self.ending, self.alone = unary * may_start, unary * may_end, unary * (may_start * may_end)
        self._down = self._following(self.first, self.second, self.starting.take(steps.above, axis=-1))
        self._end = self.ending.take(steps.below, axis=-1)
        self._up = self._following(self.second, self.first, self._end)

    def _following(self, source: np.ndarray, target: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k, e + 1) steps that each step follows, and the (l, v, 1, k, e + 1) weights of that.

        Every one follows that from nowhere, which is the first and weighs ``first``, and those from ``source``.
        """
        count = len(self.steps.above)
        order = np.argsort(target, kind="stable")
        place = target[order]
        rank = 1 + np.arange(len(place)) - np.searchsorted(place, place)
        follows = np.full((1 + rank.max(initial=0), count + 1), count)
        follows[rank, place] = source[order]
        weights = np.zeros((*first.shape[:2], 1, *follows.shape))
        weights[:, :, 0, 0, :-1], weights[:, :, 0, 0, -1] = first, 1.0
        weights[:, :, 0, rank, place] = self.through[:, :, order]
        return follows, weights

    def posterior(self) -> Posterior:
        """Forward-backward over all chains and hypotheses; every start level is as likely as another."""
        steps, prior = self.steps, self.hypotheses.prior / LEVELS
        ended, _ = _downward(self.step, _going_on(*self._down))
        whole = (ended[..., :-1] @ self._end[..., None]).sum(axis=0)[..., 0] + self.alone.sum(axis=(0, 2))[:, None]
        total = prior * whole
        empty = 0.0 if steps.forced else 1.0
        every = total.sum() + empty
        if not every > 0:
            return Posterior(np.zeros_like(self.own), total, 1.0)
        seen = _seen(total)
        leaving, reached = _upward(self.step[:, :, :, seen], _going_on(*self._up))
        share = prior[:, seen] / every
        reached *= ended[:, :, seen]
        arriving, leaving = ((share[:, None] @ each)[:, :, 0, :-1] for each in (reached, leaving))
        place = np.eye(self.own.shape[2])
        level = arriving @ place[steps.below] + self.starting * (leaving @ place[steps.above])
        level += self.alone * share.sum(axis=1)[:, None]
        return Posterior(level, total / every, empty / every)

    def best_chain(self, form: int, size: int) -> list[tuple[int, int]]:
        """[(candidate, level)] from above of the heaviest chain under a hypothesis."""
        above, below = self.steps.above.tolist(), self.steps.below.tolist()
        alone, step = self.alone[:, form], self.step[:, :, form, size]  # (l, c), (l, g, e + 1)
        follows, weights = self._down[0], self._down[1][:, form, 0]
        ended, begun = _downward(step, _going_on(follows, weights, np.maximum), np.maximum)
        ends = ended[:, :-1] * self._end[:, form]
        if not ends.size or ends.max() <= alone.max():
            level, candidate = np.unravel_index(alone.argmax(), alone.shape)
            return [(int(candidate), int(level))] if alone.max() > 0 else []
        level, last = (int(i) for i in np.unravel_index(ends.argmax(), ends.shape))
        chain = [(below[last], level)]
        before = (ended.take(follows, axis=1) * weights).argmax(axis=1)
        longest = step.shape[1]
        while last < len(above):
            spans = step[level, :, last] * begun[level : level + longest, last]
            level -= 1 + int(spans[::-1].argmax())
            chain.append((above[last], level))
            last = int(follows[before[level, last], last])
        return chain[::-1]

    def shifted(self, chain: list[tuple[int, int]]) -> np.ndarray:
        """(v, s, l) weight of the same candidates with the same gaps, starting at level l, under every hypothesis."""
        candidates, levels = np.array(chain).T
        starts = np.arange(LEVELS - (levels[-1] - levels[0]))
        at = (levels - levels[0])[:, None] + starts  # (n, starts)
        weight = self.own[at, :, candidates[:, None]][..., None] * np.ones(len(self.hypotheses.size))
        if len(chain) > 1:
            steps = _find((self.steps.above, self.steps.below), (candidates[:-1], candidates[1:]))
            weight[1:] *= self.step[at[1:], -np.diff(levels)[:, None], :, :, steps[:, None]]
            meeting = _find((self.first, self.second), (steps[:-1], steps[1:]))
            weight[1:-1] *= self.bend[at[1:-1], :, meeting[:, None]][..., None]
        result = np.zeros((*self.hypotheses.prior.shape, LEVELS))
        result[..., starts] = np.moveaxis(weight.prod(axis=0), 0, -1) * self.hypotheses.prior[..., None]
        return result


def _going_on(follows: np.ndarray, weights: np.ndarray, combine: np.ufunc = np.add) -> GoOn:
    """From chains that have ended with a step to those that begin the next: (k, e + 1) steps that it follows."""

    def go_on(level: int, ended: np.ndarray, begun: np.ndarray) -> None:
        taken = ended.take(follows, axis=-1)
        taken *= weights[level]
        combine.reduce(taken, axis=-2, out=begun)

    return go_on


def _find(pairs: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(n,) where the (n,) wanted pairs are among (m,) pairs, which hold them all."""
    (one, other), (first, second) = pairs, wanted
    return np.nonzero((one == first[:, None]) & (other == second[:, None]))[1]
