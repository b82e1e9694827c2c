"""Earlier ways to choose discs among candidates, to compare with: the exhaustive skeleton search and condition rules.

Frame of all of them: (row, column) of the picture seen from the side, rows downward, columns toward the front.

Skeleton search (released with the hourglass network): one candidate per channel, all combinations, the one closest to
a mean skeleton wins. Its time is the product of the candidates per channel; :func:`skeleton_search` makes the same
choice without trying them all. A disc can never be absent, and fewer than five channels fail, as the skeleton is scaled
by the distance of its first disc to its fifth. The later fork leaves channels with more than three candidates out,
gives up on more than 1000 combinations, and wants rows to increase.

Condition rules (of the inception network before it, which knows no channels): drop what lies off the median column,
merge what lies close, drop what stands too close between two others. They need a straightened spine; their limits are
pixels of 1 mm.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.anatomy import number_of
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_COUNT, DISC_NAMES, FIRST_DISC
from SpineDiscLabelLib.naming import Chain, NamedDisc

#: Mean skeleton of 11 discs from C2/C3, in units of the distance from the first to the fifth: (row, column), read
#: from the published scatter plot (to 0.02).
MEAN_SKELETON = np.array([
    (0.0, 0.0), (0.26, -0.02), (0.50, -0.06), (0.74, -0.10), (0.97, -0.15), (1.21, -0.23),
    (1.46, -0.36), (1.73, -0.54), (2.01, -0.70), (2.33, -0.82), (2.67, -0.90),
])  # fmt: skip
#: A candidate belongs to a channel from this share of the channel's maximum on.
CHANNEL_SHARE = 0.5
#: A channel shows a disc from this evidence on. The released code looked in the truth which channels to use.
LEAST_EVIDENCE = 0.1
#: The released convention: 11 channels from C2/C3.
LEGACY_FIRST_DISC, LEGACY_CHANNELS = 3, 11
FORK_MOST_PER_CHANNEL, FORK_MOST_COMBINATIONS = 3, 1000
#: Limits of the condition rules in pixels of 1 mm.
OFF_COLUMN, CLOSE_ROWS, GROUP_ROWS = 15.0, 10.0, 20.0


@dataclass(frozen=True)
class LegacyChoice:
    """What a search chose.

    Attributes:
        chosen: per channel the index of its candidate, or None where the channel was left out.
        cost: distance to the mean skeleton.
        combinations: how many there were to compare.
    """

    chosen: tuple[int | None, ...]
    cost: float
    combinations: int


def skeleton_cost(points: np.ndarray, skeleton: np.ndarray = MEAN_SKELETON) -> float:
    """Frobenius distance of (n, 2) points to the first n of a mean skeleton, first disc at 0, first to fifth 1 long.

    Raises:
        InputError: fewer than five points.
    """
    _check_count(len(points))
    scaled = (points - points[0]) / np.linalg.norm(points[0] - points[4])
    return float(np.linalg.norm(skeleton[: len(points)] - scaled))


def _check_count(discs: int) -> None:
    if discs < 5:
        raise InputError(
            "The released skeleton search needs at least five discs from C2/C3 downward; use the chain search."
        )


def _check_channels(channels: Sequence[np.ndarray], skeleton: np.ndarray) -> None:
    if len(channels) > len(skeleton) or any(not len(channel) for channel in channels):
        raise InputError("The released skeleton search needs one candidate or more in each of at most 11 channels.")


def legacy_skeleton_search(
    channels: Sequence[np.ndarray], skeleton: np.ndarray = MEAN_SKELETON, increasing_rows: bool = False
) -> LegacyChoice:
    """One candidate per channel, by trying every combination, as released. Time grows exponentially.

    Args:
        channels: per channel (n, 2) candidates, at least one each.
        skeleton: the mean skeleton.
        increasing_rows: skip combinations whose rows do not increase (the fork).

    Raises:
        InputError: fewer than five channels, more channels than the skeleton has discs, or a channel without one.
    """
    _check_channels(channels, skeleton)
    best, chosen, count = math.inf, (), 0
    for combination in itertools.product(*(range(len(channel)) for channel in channels)):
        count += 1
        points = np.array([channel[index] for channel, index in zip(channels, combination)], float)
        if increasing_rows and not (np.diff(points[:, 0]) > 0).all():
            continue
        cost = skeleton_cost(points, skeleton)
        if cost < best:
            best, chosen = cost, combination
    return LegacyChoice(tuple(chosen) or (None,) * len(channels), best, count)


def skeleton_search(channels: Sequence[np.ndarray], skeleton: np.ndarray = MEAN_SKELETON) -> LegacyChoice:
    """What :func:`legacy_skeleton_search` chooses, without trying every combination.

    The first and the fifth disc lay the skeleton over the picture, and then the best candidate of a channel, that
    nearest to its disc, does not depend on the other channels. Time grows with the cube of the candidates per channel.

    Raises:
        InputError: as the released search.
    """
    _check_channels(channels, skeleton)
    _check_count(len(channels))
    # Rows and columns as complex numbers, which Python subtracts and measures fastest.
    points = iter(np.concatenate([skeleton, *channels]).astype(float).view(complex)[:, 0].tolist())
    discs, *places = [list(itertools.islice(points, len(part))) for part in (skeleton, *channels)]
    between = [(discs[n], places[n]) for n in range(1, len(places)) if n != 4]
    best, laid = math.inf, None
    for first, fifth in itertools.product(range(len(places[0])), range(len(places[4]))):
        top = places[0][first]
        arm = places[4][fifth] - top
        length = abs(arm)
        cost, limit = abs(discs[0] * length) ** 2 + abs(discs[4] * length - arm) ** 2, best * length**2
        for disc, channel in between:
            if cost >= limit:
                break
            at = top + disc * length
            cost += min([abs(place - at) for place in channel]) ** 2
        if cost < limit:
            best, laid = cost / length**2, (first, fifth)
    count = math.prod(map(len, channels))
    if laid is None:
        return LegacyChoice((None,) * len(channels), math.inf, count)
    top = places[0][laid[0]]
    length = abs(places[4][laid[1]] - top)
    chosen = [0] * len(places)
    for number, channel in enumerate(places):
        if len(channel) > 1:
            at = top + discs[number] * length
            distances = [abs(place - at) for place in channel]
            chosen[number] = distances.index(min(distances))
    chosen[0], chosen[4] = laid
    return LegacyChoice(tuple(chosen), math.sqrt(best), count)


def legacy_fork_search(channels: Sequence[np.ndarray], skeleton: np.ndarray = MEAN_SKELETON) -> LegacyChoice:
    """The same with the fork's guards; channels that it leaves out are None, and their skeleton discs are skipped."""
    kept = [i for i, channel in enumerate(channels) if 1 <= len(channel) <= FORK_MOST_PER_CHANNEL]
    combinations = math.prod(len(channels[i]) for i in kept)
    chosen: list[int | None] = [None] * len(channels)
    if len(kept) < 5 or combinations > FORK_MOST_COMBINATIONS:
        return LegacyChoice(tuple(chosen), math.inf, 0)
    part = skeleton[kept] - skeleton[kept[0]]
    part = part / np.linalg.norm(part[4])
    found = legacy_skeleton_search([channels[i] for i in kept], part, increasing_rows=True)
    for channel, index in zip(kept, found.chosen):
        chosen[channel] = index
    return LegacyChoice(tuple(chosen), found.cost, found.combinations)


def legacy_condition_rules(points: np.ndarray) -> np.ndarray:
    """(m, 2) what the condition rules leave of (n, 2) candidates in pixels of 1 mm, from above.

    A merged group lies at the mean of all its members but the last, and the last two candidates are never merged, as in
    the released code.
    """
    points = np.asarray(points, float).reshape(-1, 2)
    points = points[np.argsort(points[:, 0], kind="stable")]
    if not len(points):
        return points
    points = points[np.abs(points[:, 1] - np.median(points[:, 1])) <= OFF_COLUMN]
    return _without_crowded(_merged(points))


def _merged(points: np.ndarray) -> np.ndarray:
    """Runs of candidates within CLOSE_ROWS of the next, no longer than GROUP_ROWS, become one."""
    rows, result, i = points[:, 0], [], 0
    while i < len(points):
        j = i
        while j < len(points) - 2 and abs(rows[j + 1] - rows[j]) < CLOSE_ROWS:
            if j > i and abs(rows[j + 1] - rows[i]) > GROUP_ROWS:
                break
            j += 1
        result.append(np.round(points[i:j].mean(axis=0)) if j > i else points[i])
        i = j + 1
    return np.array(result).reshape(-1, 2)


def _without_crowded(points: np.ndarray) -> np.ndarray:
    """Drop points nearer than 0.9 of the usual distance to the one above and 0.3 of it to the one below."""
    rows = points[:, 0]
    if len(points) < 3:
        return points
    kept = np.ones(len(points), bool)
    for i in range(1, len(points) - 1):
        usual = float(np.mean(np.diff(rows)))
        if i < len(points) - 4:
            usual = float(np.median(np.diff(rows[i - 1 : i + 4])))
        if abs(rows[i] - rows[i - 1]) < 0.9 * usual and abs(rows[i + 1] - rows[i]) < 0.3 * usual:
            kept[i] = False
    return points[kept]


# -- candidates of this product in the old frame ------------------------------------------------------------------


def side_view(candidates: Sequence[Candidate]) -> np.ndarray:
    """(n, 2) row (mm downward) and column (mm to the front) of candidates."""
    positions = np.array([candidate.position_ras_mm for candidate in candidates], float).reshape(-1, 3)
    return np.stack([-positions[:, 2], positions[:, 1]], axis=1)


def legacy_channels(
    candidates: Sequence[Candidate], first_disc: int = LEGACY_FIRST_DISC, channels: int = LEGACY_CHANNELS
) -> list[list[int]]:
    """Per channel the indices of the candidates with at least half of the channel's highest evidence.

    Channels after the last that shows a disc are left off; the released code took their number from the truth. Those
    before it have a candidate however weak, so that a disc is never absent, as released.
    """
    evidence = np.array([c.evidence for c in candidates], float).reshape(-1, DISC_COUNT)
    evidence = evidence[:, first_disc - FIRST_DISC :][:, :channels]
    shows = np.flatnonzero(evidence.max(axis=0, initial=0.0) >= LEAST_EVIDENCE)
    result = []
    for column in evidence.T[: shows[-1] + 1 if shows.size else 0]:
        if column.max() <= 0:
            break
        result.append(np.flatnonzero(column >= CHANNEL_SHARE * column.max()).tolist())
    return result


def legacy_name_chain(
    candidates: Sequence[Candidate],
    method: str = "skeleton",
    first_disc: int = LEGACY_FIRST_DISC,
) -> dict[int, int]:
    """Candidate index -> disc number by an earlier method: ``skeleton``, ``fork`` or ``conditions``.

    ``conditions`` knows no level: it counts from ``first_disc``, the first that it keeps. A merged candidate is the
    nearest of those it was made of.

    Raises:
        InputError: an unknown method.
    """
    view = side_view(candidates)
    if method == "conditions":
        left = legacy_condition_rules(view)
        return {int(np.argmin(np.linalg.norm(view - p, axis=1))): first_disc + n for n, p in enumerate(left)}
    if method not in ("skeleton", "fork"):
        raise InputError(f"There is no naming method '{method}'; choose skeleton, fork or conditions.")
    channels = legacy_channels(candidates, first_disc)
    search = skeleton_search if method == "skeleton" else legacy_fork_search
    found = search([view[indices] for indices in channels])
    pairs = ((channel, index) for channel, index in enumerate(found.chosen) if index is not None)
    return {channels[channel][index]: first_disc + channel for channel, index in pairs}


def legacy_chain(candidates: Sequence[Candidate], method: str, highest: str = "") -> Chain:
    """The discs by an earlier method as the product's own chain, without probabilities.

    Args:
        candidates: one or more, in any order.
        method: as in :func:`legacy_name_chain`.
        highest: name of the highest disc in view, from which ``conditions`` counts; C2/C3 if empty.

    Raises:
        InputError: the method fails on these candidates or keeps none, or ``highest`` is no disc.
    """
    first = number_of(highest) if highest else LEGACY_FIRST_DISC
    if first is None:
        raise InputError(f"There is no disc '{highest}'; name one between C1/C2 and L5/S1.")
    named = legacy_name_chain(candidates, method, first)
    discs = [
        NamedDisc(number, DISC_NAMES[number], candidates[index].position_ras_mm, candidates[index].strength, index)
        for index, number in named.items()
        if number in DISC_NAMES
    ]
    if not discs:
        raise InputError(f"The naming method '{method}' keeps no disc of this image; use the chain search.")
    discs.sort(key=lambda disc: -disc.position_ras_mm[2])
    note = f"Named by the earlier method '{method}', to compare with: confidences are heights of the heat map."
    return Chain(discs, probability=None, relative=method == "conditions" and not highest, notes=[note])
