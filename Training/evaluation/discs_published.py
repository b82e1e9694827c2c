"""The published measures of disc labelling, by their own rules: distance to target, missed and false discs.

None of them looks at names: a chain shifted by one level loses nothing but its ends. They are here to compare with
published numbers; :mod:`Training.evaluation.discs` measures what matters.

``released``: the hourglass network's code. Of each true point the nearest predicted point (in the plane), without
regard to names or to whether it was used before: distance in the plane, and along the spine. Missed: that point is
further than 7 along the spine (its comment says 5). False: a predicted point further than 10 along the spine from its
nearest true point; a second point on the same disc was meant to count too but never does. Both are divided by the
number of true points. Units are pixels there, printed as mm: give points in pixels to reproduce a number, in mm (the
default use here) to make it mean what it says.

``rouhier``: distance along the spine only; missed further than 5; false further than 5, divided by the number of
predicted points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError, check_choice


@dataclass(frozen=True)
class PublishedRule:
    """One way to count.

    Attributes:
        name: for tables.
        missed_beyond, false_beyond: limits along the spine.
        false_per_prediction: whether false points are divided by predictions instead of truths.
        along_only: whether the distance to target is along the spine only.
    """

    name: str
    missed_beyond: float
    false_beyond: float
    false_per_prediction: bool = False
    along_only: bool = False


RULES = {
    "released": PublishedRule("released", 7.0, 10.0),
    "rouhier": PublishedRule("rouhier", 5.0, 5.0, false_per_prediction=True, along_only=True),
}


@dataclass(frozen=True)
class PublishedScores:
    """What the published tables print.

    Attributes:
        distance: (median, SD) of the distance to target, as printed by the released code.
        mean_distance: its mean.
        along: (mean, SD) of the distance along the spine.
        missed_percent, false_percent: FNR and FPR.
    """

    distance: tuple[float, float]
    mean_distance: float
    along: tuple[float, float]
    missed_percent: float
    false_percent: float


def published_scores(
    cases: Sequence[tuple[np.ndarray, np.ndarray]], rule: PublishedRule | str = "released"
) -> PublishedScores:
    """Score cases together.

    Args:
        cases: (truth, prediction) per case, each (n, 2): along the spine, across it; mm, or pixels for the old number.
        rule: a rule or its name.

    Raises:
        InputError: an unknown rule; no case; a case without truth or without prediction, where the rule is undefined.
    """
    if isinstance(rule, str):
        check_choice("rule", rule, RULES)
        rule = RULES[rule]
    distances, along, missed, false, truths, predictions = [], [], 0, 0, 0, 0
    for truth, prediction in cases:
        truth, prediction = (np.asarray(points, float).reshape(-1, 2) for points in (truth, prediction))
        if not len(truth) or not len(prediction):
            raise InputError("The published measures are undefined for a case without points; leave it out.")
        apart = np.linalg.norm(truth[:, None] - prediction[None], axis=2)
        nearest = prediction[apart.argmin(axis=1)]
        offset = np.abs(truth[:, 0] - nearest[:, 0])
        distances += (offset if rule.along_only else apart.min(axis=1)).tolist()
        along += offset.tolist()
        missed += int((offset > rule.missed_beyond).sum())
        back = np.abs(prediction[:, 0] - truth[apart.argmin(axis=0), 0])
        false += int((back > rule.false_beyond).sum())
        truths += len(truth)
        predictions += len(prediction)
    if not truths:
        raise InputError("There is no case to score; give at least one.")
    return PublishedScores(
        (float(np.median(distances)), float(np.std(distances))),
        float(np.mean(distances)),
        (float(np.mean(along)), float(np.std(along))),
        100.0 * missed / truths,
        100.0 * false / (predictions if rule.false_per_prediction else truths),
    )


def in_plane(points_ras_mm: Sequence[Sequence[float]]) -> np.ndarray:
    """(n, 2) of RAS points: along the spine (downward) and across it (to the front), mm."""
    points = np.asarray(points_ras_mm, float).reshape(-1, 3)
    return np.stack([-points[:, 2], points[:, 1]], axis=1)
