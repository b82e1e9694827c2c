"""Two contrasts of one spine: what both show is surer than what one shows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from SpineDiscLabelLib.candidates import Candidate

#: Candidates of two contrasts nearer than this are the same disc.
SAME_DISC_MM = 8.0
#: A disc that one contrast does not show although it lies in view keeps this share of its strength.
SEEN_ONCE = 0.7
#: Less than this share of discs in common means that the images do not show the same place.
LEAST_COMMON = 0.5


def merged(
    first: Sequence[Candidate],
    second: Sequence[Candidate],
    in_first: Callable[[np.ndarray], bool],
    in_second: Callable[[np.ndarray], bool],
) -> tuple[list[Candidate], float]:
    """(candidates of both, share of the first's candidates that the second shows too, of those in its view).

    The place of what both show is the mean weighted by strength, its evidence the mean, its strength the larger one.

    Args:
        first, second: candidates of either contrast.
        in_first, in_second: whether a place in RAS mm lies in the field of view of that contrast.
    """
    unused, out, common, visible = list(second), [], 0, 0
    for one in sorted(first, key=lambda candidate: -candidate.strength):
        near = [other for other in unused if _distance_mm(one, other) <= SAME_DISC_MM]
        seen = in_second(one.position_ras_mm)
        visible += seen
        if near:
            other = min(near, key=lambda candidate: _distance_mm(one, candidate))
            unused = [candidate for candidate in unused if candidate is not other]
            common += seen
            out.append(_mean(one, other))
        else:
            out.append(_weakened(one) if seen else one)
    out += [_weakened(one) if in_first(one.position_ras_mm) else one for one in unused]
    return sorted(out, key=lambda candidate: -candidate.position_ras_mm[2]), common / visible if visible else 0.0


def _distance_mm(one: Candidate, other: Candidate) -> float:
    return float(np.linalg.norm(one.position_ras_mm - other.position_ras_mm))


def _mean(one: Candidate, other: Candidate) -> Candidate:
    weights = np.array([one.strength, other.strength])
    places = np.stack([one.position_ras_mm, other.position_ras_mm])
    position = weights @ places / weights.sum()
    return Candidate(position, float(weights.max()), (one.evidence + other.evidence) / 2)


def _weakened(one: Candidate) -> Candidate:
    return replace(one, strength=one.strength * SEEN_ONCE)
