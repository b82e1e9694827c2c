"""How well discs are found and named: measures that look at the names, one case at a time and over many.

A disc is found if a point lies within :data:`WITHIN_MM` of its centre. Points and discs are paired one to one so that
the sum of distances is smallest (Hungarian method); what is left over is missed or false. A found disc counts as named
right only under its own name, so that a chain shifted by one level, which the published measures
(:mod:`Training.evaluation.discs_published`) do not notice, scores nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from NeuraxisLib.errors import InputError

WITHIN_MM = 5.0
#: Cost of a pair that is too far apart; larger than any sum of pairs within reach.
_FAR = 1e6


@dataclass(frozen=True)
class DiscPair:
    """A true disc and the point that found it.

    Attributes:
        truth, found: disc numbers.
        distance_mm: between them.
    """

    truth: int
    found: int
    distance_mm: float


@dataclass(frozen=True)
class DiscCase:
    """One case compared with its truth.

    Attributes:
        pairs: found discs, from above.
        missed: numbers of true discs without a point.
        false: numbers given to points without a disc.
        same_name_mm: true disc number -> distance to the point of that very name, however far; None if there is none.
    """

    pairs: tuple[DiscPair, ...]
    missed: tuple[int, ...]
    false: tuple[int, ...]
    same_name_mm: Mapping[int, float | None]

    @property
    def truths(self) -> int:
        """Number of true discs."""
        return len(self.pairs) + len(self.missed)

    @property
    def named_right(self) -> int:
        """Found discs with their own name."""
        return sum(pair.truth == pair.found for pair in self.pairs)

    @property
    def off_by_one(self) -> int:
        """Found discs with the name of the neighbour above or below."""
        return sum(abs(pair.truth - pair.found) == 1 for pair in self.pairs)

    @property
    def chain_named_right(self) -> bool:
        """Whether every disc that was found has its own name, some were, and no false point stands among them."""
        return bool(self.pairs) and self.named_right == len(self.pairs) and not self.false

    @property
    def whole_chain_right(self) -> bool:
        """Whether every true disc was found under its name, and nothing else."""
        return self.chain_named_right and not self.missed


def compare_discs(
    truth: Mapping[int, Sequence[float]],
    found: Sequence[tuple[int, Sequence[float]]],
    within_mm: float = WITHIN_MM,
    axes: Sequence[int] = (0, 1, 2),
) -> DiscCase:
    """Compare one case.

    Args:
        truth: disc number -> RAS mm of its centre.
        found: (disc number, RAS mm) of every point.
        within_mm: farthest distance of a pair.
        axes: measure along these RAS axes only: (2,) up and down, for truths that lie beside the disc's centre; (1, 2)
            in the sagittal plane, where nobody knows how far to the side it lies.

    Raises:
        InputError: no truth.
    """
    if not truth:
        raise InputError("The case has no true disc to compare with; leave it out.")
    numbers, points = list(truth), _points([truth[number] for number in truth], axes)
    given, places = [number for number, _ in found], _points([place for _, place in found], axes)
    distance = np.linalg.norm(points[:, None] - places[None], axis=2)
    rows, columns = linear_sum_assignment(np.where(distance <= within_mm, distance, _FAR))
    linked = [(r, c) for r, c in zip(rows, columns) if distance[r, c] <= within_mm]
    pairs = [DiscPair(numbers[r], given[c], float(distance[r, c])) for r, c in linked]
    taken_rows, taken_columns = {r for r, _ in linked}, {c for _, c in linked}
    same = {
        number: min((float(distance[r, c]) for c in range(len(given)) if given[c] == number), default=None)
        for r, number in enumerate(numbers)
    }
    return DiscCase(
        tuple(sorted(pairs, key=lambda pair: pair.truth)),
        tuple(sorted(number for r, number in enumerate(numbers) if r not in taken_rows)),
        tuple(sorted(number for c, number in enumerate(given) if c not in taken_columns)),
        same,
    )


def _points(places: Sequence[Sequence[float]], axes: Sequence[int]) -> np.ndarray:
    return np.asarray(places, float).reshape(-1, 3)[:, list(axes)]


@dataclass(frozen=True)
class DiscSummary:
    """Measures over cases; shares are of all true discs together unless said otherwise.

    Attributes:
        cases, discs: how many.
        found: share of discs with a point within reach.
        false: share of points without a disc, of all points.
        accuracy: share of discs found under their own name (missed discs count as wrong).
        off_by_one: share of discs found under a neighbour's name.
        distance_mm: (mean, SD) of found discs.
        chains_named_right: share of cases whose found discs all have their names, without a false point.
        whole_chains_right: the same with no disc missed.
    """

    cases: int
    discs: int
    found: float
    false: float
    accuracy: float
    off_by_one: float
    distance_mm: tuple[float, float]
    chains_named_right: float
    whole_chains_right: float

    @classmethod
    def of(cls, cases: Sequence[DiscCase]) -> DiscSummary:
        """Summarise; raises InputError for no case."""
        if not cases:
            raise InputError("There is no case to summarise; compare one first.")
        discs = sum(case.truths for case in cases)
        points = sum(len(case.pairs) + len(case.false) for case in cases)
        distances = [pair.distance_mm for case in cases for pair in case.pairs]
        spread = (float(np.mean(distances)), float(np.std(distances))) if distances else (float("nan"),) * 2
        return cls(
            len(cases),
            discs,
            len(distances) / discs,
            sum(len(case.false) for case in cases) / points if points else 0.0,
            sum(case.named_right for case in cases) / discs,
            sum(case.off_by_one for case in cases) / discs,
            spread,
            float(np.mean([case.chain_named_right for case in cases])),
            float(np.mean([case.whole_chain_right for case in cases])),
        )


@dataclass(frozen=True)
class LevelError:
    """What happened at one level over all cases.

    Attributes:
        disc: number.
        truths: cases that show it.
        found, named_right: how many of them were found, and found under this name.
        mean_mm: distance of the found ones; None if there is none.
        false: points of this name without a disc.
    """

    disc: int
    truths: int
    found: int
    named_right: int
    mean_mm: float | None
    false: int


def per_level(cases: Sequence[DiscCase]) -> list[LevelError]:
    """One entry for every disc number that is true or given anywhere, from above."""
    true = {number for case in cases for number in case.same_name_mm}
    levels = sorted(true | {number for case in cases for number in case.false})
    result = []
    for level in levels:
        pairs = [pair for case in cases for pair in case.pairs if pair.truth == level]
        mean = float(np.mean([pair.distance_mm for pair in pairs])) if pairs else None
        result.append(
            LevelError(
                level,
                sum(level in case.same_name_mm for case in cases),
                len(pairs),
                sum(pair.found == level for pair in pairs),
                mean,
                sum(case.false.count(level) for case in cases),
            )
        )
    return result
