"""Disc measures on cases counted by hand: names matter in ours and not in the published ones."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from Training.evaluation.discs import DiscSummary, compare_discs, per_level
from Training.evaluation.discs_published import in_plane, published_scores

TRUTH = {number: (0.0, 0.0, -36.0 * (number - 20)) for number in range(20, 26)}


def points(shift: int = 0, offset=(0.0, 0.0, 0.0)) -> list[tuple[int, tuple[float, ...]]]:
    return [(number + shift, tuple(np.add(place, offset))) for number, place in TRUTH.items()]


def test_a_perfect_chain():
    case = compare_discs(TRUTH, points(offset=(0, 3, 0)))
    assert (case.named_right, case.off_by_one, case.missed, case.false) == (6, 0, (), ())
    assert case.chain_named_right and case.whole_chain_right
    summary = DiscSummary.of([case])
    assert (summary.found, summary.false, summary.accuracy, summary.distance_mm) == (1.0, 0.0, 1.0, (3.0, 0.0))


def test_a_shifted_numbering_costs_everything_here_and_nothing_in_the_published_measures():
    right, shifted = (compare_discs(TRUTH, points(shift)) for shift in (0, 1))
    assert DiscSummary.of([right]).accuracy == 1.0 and DiscSummary.of([shifted]).accuracy == 0.0
    assert DiscSummary.of([shifted]).off_by_one == 1.0
    assert DiscSummary.of([shifted]).found == 1.0
    assert not shifted.chain_named_right and not shifted.whole_chain_right
    assert shifted.same_name_mm[22] == pytest.approx(36.0) and shifted.same_name_mm[20] is None
    plane = [in_plane([place for _, place in points(shift)]) for shift in (0, 1)]
    truth = in_plane(list(TRUTH.values()))
    assert published_scores([(truth, plane[0])]) == published_scores([(truth, plane[1])])


def test_one_point_finds_one_disc():
    """Two points on one disc: one of them is false, and the nearer one counts."""
    found = [*points(), (24, (0.0, 1.0, -36.0 * 4 - 2.0))]
    case = compare_discs(TRUTH, found)
    assert len(case.pairs) == 6 and case.false == (24,)
    assert all(pair.distance_mm == 0 for pair in case.pairs)
    assert DiscSummary.of([case]).false == pytest.approx(1 / 7)
    assert not case.chain_named_right


def test_pairs_are_matched_as_a_whole():
    """Nearest-first would pair 20 with the point at 4 and leave 21 without; together both find one."""
    truth = {20: (0.0, 0.0, 0.0), 21: (0.0, 0.0, 7.0)}
    case = compare_discs(truth, [(20, (0, 0, -4.5)), (21, (0, 0, 3.5))])
    assert [(pair.truth, pair.found) for pair in case.pairs] == [(20, 20), (21, 21)]


def test_missed_and_far():
    found = points()[:-1]
    found[0] = (20, (0.0, 5.1, 0.0))
    case = compare_discs(TRUTH, found)
    assert case.missed == (20, 25) and case.false == (20,)
    assert compare_discs(TRUTH, found, within_mm=5.2).missed == (25,)
    assert compare_discs(TRUTH, found, axes=(2,)).missed == (25,)
    flat = compare_discs({20: (0.0, 0.0, 0.0)}, [(20, (9.0, 3.0, 4.0))], within_mm=5.0, axes=(1, 2))
    assert [pair.distance_mm for pair in flat.pairs] == [5.0]
    assert compare_discs(TRUTH, []).missed == tuple(TRUTH)
    summary = DiscSummary.of([case, compare_discs(TRUTH, points())])
    assert summary.found == pytest.approx(10 / 12) and summary.whole_chains_right == 0.5
    assert summary.false == pytest.approx(1 / 11)


def test_per_level():
    both = [compare_discs(TRUTH, points(shift)) for shift in (1, 0)]
    levels = {entry.disc: entry for entry in per_level(both)}
    assert (levels[22].truths, levels[22].found, levels[22].named_right, levels[22].mean_mm) == (2, 2, 1, 0.0)
    far = per_level([compare_discs({25: (0, 0, 0)}, [(19, (0, 0, 90))])])
    assert [(entry.disc, entry.truths, entry.false, entry.mean_mm) for entry in far] == [
        (19, 0, 1, None), (25, 1, 0, None),
    ]  # fmt: skip


def test_nothing_to_compare():
    for call in (lambda: compare_discs({}, points()), lambda: DiscSummary.of([])):
        with pytest.raises(InputError):
            call()


# -- published rules, by hand ------------------------------------------------------------------------------------

#: Along and across in pixels. Nearest of the truths: (10, 51), (30, 50), (57.5, 50), (57.5, 50).
PIXEL_TRUTH = np.array([[10, 50], [30, 50], [50, 50], [70, 50]], float)
PIXEL_FOUND = np.array([[10, 51], [30, 50], [30, 52], [57.5, 50], [95, 50]], float)


def test_released_rule_by_hand():
    """Offsets along: 0, 0, 7.5, 12.5. Two beyond 7 are missed (2 of 4); 95 is 25 from 70: false (1 of 4 truths).

    The second point on the disc at 30 costs nothing, as in the released code.
    """
    scores = published_scores([(PIXEL_TRUTH, PIXEL_FOUND)])
    assert scores.missed_percent == 50.0 and scores.false_percent == 25.0
    assert scores.distance[0] == pytest.approx((1 + 7.5) / 2)
    assert scores.distance[1] == pytest.approx(np.std([1, 0, 7.5, 12.5]))
    assert scores.mean_distance == pytest.approx(21 / 4)
    assert scores.along == pytest.approx((5.0, np.std([0, 0, 7.5, 12.5])))


def test_rouhier_s_rule_by_hand():
    """Along only; beyond 5: two missed of 4; false: 57.5 (7.5 from 50) and 95, of 5 predictions."""
    scores = published_scores([(PIXEL_TRUTH, PIXEL_FOUND)], "rouhier")
    assert scores.missed_percent == 50.0 and scores.false_percent == 40.0
    assert scores.mean_distance == pytest.approx(5.0)


def test_limits_are_beyond_not_at():
    truth = np.array([[0.0, 0.0]])
    assert published_scores([(truth, np.array([[7.0, 0.0]]))]).missed_percent == 0.0
    assert published_scores([(truth, np.array([[7.01, 0.0]]))]).missed_percent == 100.0
    assert published_scores([(truth, np.array([[10.0, 0.0]]))]).false_percent == 0.0


def test_published_rules_refuse_what_they_do_not_define():
    with pytest.raises(InputError, match="undefined"):
        published_scores([(PIXEL_TRUTH, np.zeros((0, 2)))])
    with pytest.raises(InputError, match="no rule"):
        published_scores([(PIXEL_TRUTH, PIXEL_FOUND)], "best")
