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
        size: (s,) factor on all steps.
        prior: (v, s) probability of each form in each size.
    """

    forms: tuple[SpineForm, ...]
    size: np.ndarray
    prior: np.ndarray

    @classmethod
    @cache
    def of(cls, forms: tuple[SpineForm, ...], sizes: int) -> Hypotheses:
        """All forms in so many sizes; nine of ten people are adults, the others of any size."""
        size = np.geomspace(SMALLEST_SIZE, LARGEST_SIZE, sizes)
        adult = np.exp(-0.5 * (np.log(size) / SIZE_SD) ** 2)
        of_size = 0.9 * adult / adult.sum() + 0.1 / sizes
        share = np.array([form.share for form in forms])
        return cls(forms, size, np.outer(share / share.sum(), of_size))

    def near(self, sizes: np.ndarray) -> Hypotheses:
        """Those whose size is within 10 % of one of these; all where none are given."""
        if not len(sizes):
            return self
        kept = (np.abs(np.log(self.size[:, None] / sizes)) < 0.1).any(axis=1)
        return Hypotheses(self.forms, self.size[kept], self.prior[:, kept])


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

    @cached_property
    def vectors(self) -> np.ndarray:
        """(e, 3) from the lower to the upper candidate, mm."""
        return self.points[self.above] - self.points[self.below]

    @cached_property
    def lengths_mm(self) -> np.ndarray:
        """(e,) how long they are; two points that a person put in one place count as a millimetre apart."""
        return np.maximum(np.linalg.norm(self.vectors, axis=1), 1.0)

    @cached_property
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
def _expected(forms: tuple[SpineForm, ...], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """What a step is like that ends at level l of a form, and spans ``longest - g`` levels.

    Returns:
        (u, 4) log length in mm at size 1, relative SD, tilt in degrees and weight at best (0 where the levels do not
        exist) of all that differ; and (l, g, v) which of them it is.
    """
    result = np.zeros((LEVELS, longest, len(forms), 4))
    result[..., 1] = 1.0
    for number, form in enumerate(forms):
        place = np.cumsum(form.step_mm)
        lean = np.cumsum(form.step_mm * np.tan(np.radians(form.tilt_deg)))
        for gap in range(1, longest + 1):
            length, forward = place[gap:] - place[:-gap], lean[gap:] - lean[:-gap]
            here = result[gap : len(place), longest - gap, number]
            here[:, 0] = np.log(length)
            here[:, 1] = [form.spread[i + 1 : i + gap + 1].mean() for i in range(len(length))]
            here[:, 2] = np.degrees(np.arctan2(forward, length))
            here[:, 3] = FIT_REWARD * SKIP_WEIGHT ** (gap - 1)
    different, which = np.unique(result.reshape(-1, 4), axis=0, return_inverse=True)
    return different, which.reshape(result.shape[:-1])


def step_weights(steps: Steps, hypotheses: Hypotheses, extra_spread: float = 0.0) -> np.ndarray:
    """(l, g, v, s, e + 1) float32 weight of a step that ends at level l; 0 where there are no such levels.

    Steps over the most levels come first, those over one come last. The last of all is the step from nowhere to
    nowhere: 1 over one level, 0 over more.
    """
    different, which = _expected(hypotheses.forms, steps.longest)
    mean, own, lean, best = different.T[:, :, None]
    length, (tilt, _) = steps.lengths_mm, steps.tilts_deg
    sized = (np.log(length) - np.log(hypotheses.size)[:, None]).astype(np.float32)
    spread = np.sqrt(own**2 + 2 * (LOCATION_SD_MM / length) ** 2 + extra_spread**2)
    narrow = (-0.5 / spread**2).astype(np.float32)
    height = (STEP_REFERENCE / spread).astype(np.float32)
    lying = (best * np.exp(-0.5 * TILT_TRUST * ((tilt - lean) / TILT_SD_DEG) ** 2)).astype(np.float32)
    off2 = np.square(sized - mean.astype(np.float32)[..., None])
    fit = np.exp(off2 * narrow[:, None])
    fit *= height[:, None]
    off2 *= np.float32(-0.5 / ODD_SPREAD**2)
    np.exp(off2, out=off2)
    off2 *= np.float32(ODD_SHARE)
    fit += off2
    weights = np.zeros((*fit.shape[:-1], len(length) + 1), np.float32)
    np.multiply(fit, lying[:, None], out=weights[..., :-1])
    weights = weights.take(which, axis=0)
    weights[:, -1, ..., -1] = 1.0
    return weights


@cache
def _expected_bends(forms: tuple[SpineForm, ...]) -> np.ndarray:
    """(l, v) mean bend in degrees where two steps meet at a level."""
    result = np.zeros((LEVELS, len(forms)))
    for number, form in enumerate(forms):
        result[1 : len(form.tilt_deg) - 1, number] = np.diff(form.tilt_deg[1:])
    return result


def bend_weights(steps: Steps, forms: tuple[SpineForm, ...]) -> np.ndarray:
    """(l, v, p) weight of two steps that meet at level l, in each form."""
    tilt, lateral = steps.tilts_deg
    first, second = steps.pairs
    bend = tilt[second] - tilt[first]  # from the step above to the step below
    side = lateral[second] - lateral[first]
    length = steps.lengths_mm
    blur = np.degrees(LOCATION_SD_MM * np.sqrt(6.0) / np.minimum(length[second], length[first]))
    bend_sd, side_sd = np.hypot(BEND_SD_DEG, blur), np.hypot(LATERAL_BEND_SD_DEG, blur)
    z2 = ((bend - _expected_bends(forms)[..., None]) / bend_sd) ** 2 + (side / side_sd) ** 2
    return np.exp(-0.5 * BEND_TRUST * z2) + BEND_FLOOR
