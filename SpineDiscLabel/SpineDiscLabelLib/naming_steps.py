"""Steps from one candidate to the next in the search behind naming, and what each weighs under each hypothesis.

A hypothesis is what a spine does as a whole: its form (its number of lumbar vertebrae) and its size. Arrays: c
candidates (from above), e steps, p pairs of steps, l levels of a form (padded to 25), h hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

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
#: Steps upward that a candidate has at most at first: the strongest in reach.
MOST_FIRST_STEPS = 12
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
