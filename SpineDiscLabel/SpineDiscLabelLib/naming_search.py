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
from functools import cache, cached_property
from itertools import pairwise

import numpy as np

from SpineDiscLabelLib.anatomy import (
    BEND_SD_DEG,
    FORMS,
    LARGEST_SIZE,
    LATERAL_BEND_SD_DEG,
    SIZE_SD,
    SMALLEST_SIZE,
    TILT_SD_DEG,
    SpineForm,
)

LEVELS = max(len(form.numbers) for form in FORMS)
#: Steps upward that a candidate keeps: at first the strongest in reach, then those that may lie on a chain.
MOST_FIRST_STEPS, MOST_STEPS = 12, 4
#: A step counts as possible from this posterior on in the first pass.
NEGLIGIBLE = 1e-5
#: Price of every disc skipped, and how much better a step that fits is than a chance one (both as factors).
SKIP_WEIGHT, FIT_REWARD = 0.03, 6.0
#: Relative SD of a step at which an exact fit is worth just the reward; where less is expected, it is worth less.
STEP_REFERENCE = 0.06
#: Fractures, fusions and scoliosis exist: a small share of steps is spread widely (relative SD), and what remains of
#: the weight of a bend however sharp. A step of double length must stay dearer than a disc skipped.
ODD_SHARE, ODD_SPREAD, BEND_FLOOR = 0.1, 0.2, 0.05
#: Share of the exponent of the absolute tilt that is used: tilts of one spine go together (how it lies), so that
#: counting each in full would make a tilted spine look certain.
TILT_TRUST = 0.25
#: The same for bends: a displaced candidate bends the chain at its neighbours too.
BEND_TRUST = 0.6
#: SD of a candidate's place about the disc's centre, per axis, in mm: it makes short steps look uneven and bent.
LOCATION_SD_MM = 1.5
#: Steps steeper than this against the long axis are no steps along a spine.
STEEPEST_DEG = 62.0
#: Extra relative SD of a step's length in the coarse first pass, whose sizes are spaced widely.
COARSE_SPREAD = 0.08
COARSE_LONGEST = 3


@dataclass(frozen=True)
class Hypotheses:
    """What a spine may be like as a whole: every form in every size.

    Attributes:
        forms: the forms.
        form: (h,) index into them.
        size: (h,) factor on all steps.
        prior: (h,) probability, sums to 1.
    """

    forms: tuple[SpineForm, ...]
    form: np.ndarray
    size: np.ndarray
    prior: np.ndarray

    @classmethod
    def of(cls, forms: tuple[SpineForm, ...], sizes: int) -> Hypotheses:
        """All forms in so many sizes; nine of ten people are adults, the others of any size."""
        size = np.geomspace(SMALLEST_SIZE, LARGEST_SIZE, sizes)
        adult = np.exp(-0.5 * (np.log(size) / SIZE_SD) ** 2)
        of_size = 0.9 * adult / adult.sum() + 0.1 / sizes
        share = np.array([form.share for form in forms])
        prior = np.outer(share / share.sum(), of_size).ravel()
        return cls(forms, np.repeat(np.arange(len(forms)), sizes), np.tile(size, len(forms)), prior)

    def near(self, sizes: np.ndarray) -> Hypotheses:
        """Those whose size is within 10 % of one of these; all where none are given."""
        if not len(sizes):
            return self
        kept = (np.abs(np.log(self.size[:, None] / sizes)) < 0.1).any(axis=1)
        return Hypotheses(self.forms, self.form[kept], self.size[kept], self.prior[kept])


@dataclass(frozen=True)
class Steps:
    """Which candidates may follow each other, and which steps.

    Attributes:
        points: (c, 3) RAS mm, from above.
        above, below: (e,) candidates at the ends of a step, sorted by ``below``.
        forced: whether a chain has to take every candidate (the user's own points).
        longest: most levels that a step may span.
    """

    points: np.ndarray
    above: np.ndarray
    below: np.ndarray
    forced: bool
    longest: int

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(p,) first and (p,) second step of all that follow each other, sorted by the second."""
        second, first = np.nonzero(self.above[:, None] == self.below[None, :])
        return first, second

    def only(self, kept: np.ndarray) -> Steps:
        """The steps marked in a (e,) mask."""
        return replace(self, above=self.above[kept], below=self.below[kept])

    @property
    def vectors(self) -> np.ndarray:
        """(e, 3) from the lower to the upper candidate, mm."""
        return self.points[self.above] - self.points[self.below]

    @property
    def lengths_mm(self) -> np.ndarray:
        """(e,) how long they are; two points that a person put in one place count as a millimetre apart."""
        return np.maximum(np.linalg.norm(self.vectors, axis=1), 1.0)

    @property
    def tilts_deg(self) -> tuple[np.ndarray, np.ndarray]:
        """(e,) tilt to anterior, and to the right."""
        r, a, s = self.vectors.T
        return np.degrees(np.arctan2(a, s)), np.degrees(np.arctan2(r, s))


def possible_steps(points: np.ndarray, log_odds: np.ndarray, longest: int = 4) -> Steps:
    """Steps between candidates that some vertebrae of some spine could fill; per candidate the likeliest upward."""
    delta = points[:, None, :] - points[None, :, :]  # [below, above] from above to below
    down = -delta[..., 2]
    length = np.linalg.norm(delta, axis=-1)
    steps = FORMS[0].step_mm[1:]
    near, far = 0.7 * SMALLEST_SIZE * steps.min(), 1.1 * LARGEST_SIZE * longest * steps.max()
    fits = (length > near) & (length < far) & (down > length * np.cos(np.radians(STEEPEST_DEG)))
    # Near and strong ones first; what lies beyond three strong ones is skipped too often to matter.
    rank = np.where(fits, log_odds[None, :] - length / 25.0, -np.inf)
    kept = np.argsort(-rank, axis=1)[:, :MOST_FIRST_STEPS]
    below, column = np.nonzero(np.take_along_axis(fits, kept, axis=1))
    return Steps(points, kept[below, column], below, False, longest)


def consecutive_steps(points: np.ndarray, longest: int = 8) -> Steps:
    """The only steps of a chain that takes every point."""
    index = np.arange(len(points) - 1)
    return Steps(points, index, index + 1, True, longest)


# -- weights --------------------------------------------------------------------------------------------------


@cache
def _expected(form: int, gap: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) log length in mm at size 1, relative SD and tilt in degrees of steps over ``gap`` levels of a form."""
    spine = FORMS[form]
    place = np.cumsum(spine.step_mm)
    lean = np.cumsum(spine.step_mm * np.tan(np.radians(spine.tilt_deg)))
    length, forward = place[gap:] - place[:-gap], lean[gap:] - lean[:-gap]
    spread = np.array([spine.spread[i + 1 : i + gap + 1].mean() for i in range(len(length))])
    return np.log(length), spread, np.degrees(np.arctan2(forward, length))


def step_weights(steps: Steps, hypotheses: Hypotheses, extra_spread: float = 0.0) -> np.ndarray:
    """(g, l, h, e) weight of a step that ends at level l after g + 1 levels; 0 where the levels do not exist."""
    length, (tilt, _) = steps.lengths_mm, steps.tilts_deg
    result = np.zeros((steps.longest, LEVELS, len(hypotheses.size), len(length)), np.float32)
    blur2 = 2 * (LOCATION_SD_MM / length) ** 2 + extra_spread**2
    sized = (np.log(length) - np.log(hypotheses.size)[:, None]).astype(np.float32)
    for number, form in enumerate(hypotheses.forms):
        rows = np.flatnonzero(hypotheses.form == number)
        rows = slice(rows[0], rows[-1] + 1)
        for gap in range(1, steps.longest + 1):
            mean, own, lean = _expected(FORMS.index(form), gap)
            spread = np.sqrt(own[:, None] ** 2 + blur2)
            off2 = np.square(sized[rows] - mean.astype(np.float32)[:, None, None])
            fit = np.exp(off2 * (-0.5 / spread**2).astype(np.float32)[:, None])
            fit *= (STEP_REFERENCE / spread).astype(np.float32)[:, None]
            off2 *= np.float32(-0.5 / ODD_SPREAD**2)
            fit += np.float32(ODD_SHARE) * np.exp(off2, out=off2)
            lying = np.exp(-0.5 * TILT_TRUST * ((tilt - lean[:, None]) / TILT_SD_DEG) ** 2)
            fit *= (FIT_REWARD * SKIP_WEIGHT ** (gap - 1) * lying).astype(np.float32)[:, None]
            result[gap - 1, gap : len(form.names), rows] = fit
    return result


def bend_weights(steps: Steps, forms: tuple[SpineForm, ...]) -> np.ndarray:
    """(v, l, p) weight of two steps that meet at level l, in each form."""
    tilt, lateral = steps.tilts_deg
    first, second = steps.pairs
    bend = tilt[second] - tilt[first]  # from the step above to the step below
    side = lateral[second] - lateral[first]
    length = steps.lengths_mm
    blur = np.degrees(LOCATION_SD_MM * np.sqrt(6.0) / np.minimum(length[second], length[first]))
    bend_sd, side_sd = np.hypot(BEND_SD_DEG, blur), np.hypot(LATERAL_BEND_SD_DEG, blur)
    result = np.ones((len(forms), LEVELS, len(bend)))
    for number, form in enumerate(forms):
        expected = np.zeros(LEVELS)
        expected[1 : len(form.tilt_deg) - 1] = np.diff(form.tilt_deg[1:])
        z2 = ((bend - expected[:, None]) / bend_sd) ** 2 + (side / side_sd) ** 2
        result[number] = np.exp(-0.5 * BEND_TRUST * z2) + BEND_FLOOR
    return result


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
