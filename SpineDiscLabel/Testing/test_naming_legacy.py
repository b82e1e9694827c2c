"""The comparators: the exhaustive skeleton search, its fork, and the condition rules."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_COUNT
from SpineDiscLabelLib.naming_legacy import (
    MEAN_SKELETON,
    legacy_channels,
    legacy_condition_rules,
    legacy_fork_search,
    legacy_name_chain,
    legacy_skeleton_search,
    skeleton_cost,
    skeleton_search,
)


def test_cost_of_the_skeleton_itself_is_nothing_at_any_scale():
    """The published skeleton is an average, whose own first to fifth disc is 0.9815: scaled, it differs by 1.9 %."""
    assert skeleton_cost(MEAN_SKELETON * 61 + (30, 90)) == pytest.approx(0.0986, abs=2e-4)
    exact = MEAN_SKELETON / np.linalg.norm(MEAN_SKELETON[4])
    assert skeleton_cost(exact * 61 + (30, 90), exact) == pytest.approx(0.0, abs=1e-12)


def test_cost_by_hand():
    """Points on a straight line, one unit from first to fifth, against a skeleton 0.1 to the side at the last."""
    line = np.stack([np.arange(5) * 10.0, np.zeros(5)], axis=1)
    skeleton = np.stack([np.arange(5) * 0.25, [0, 0, 0, 0, 0.1]], axis=1)
    assert skeleton_cost(line, skeleton) == pytest.approx(0.1)


def test_the_search_finds_the_true_disc_of_every_channel():
    rng = np.random.default_rng(4)
    true = MEAN_SKELETON * 61 + (20, 120)
    channels = [np.vstack([rng.uniform((0, 60), (180, 150), (1, 2)), point]) for point in true]
    found = legacy_skeleton_search(channels)
    assert found.chosen == (1,) * 11 and found.combinations == 2**11


def test_the_same_choice_is_made_without_trying_every_combination():
    rng = np.random.default_rng(6)
    for _ in range(20):
        count = int(rng.integers(5, 9))
        channels = [rng.uniform((0, 60), (180, 150), (rng.integers(1, 4), 2)) for _ in range(count)]
        tried, found = legacy_skeleton_search(channels), skeleton_search(channels)
        assert found.chosen == tried.chosen and found.combinations == tried.combinations
        assert found.cost == pytest.approx(tried.cost, rel=1e-12)


def test_a_skeleton_of_no_length_is_no_choice():
    channels = [np.zeros((1, 2))] * 5
    assert skeleton_search(channels).chosen == (None,) * 5


@pytest.mark.parametrize("search", [legacy_skeleton_search, skeleton_search])
def test_it_cannot_do_with_fewer_than_five_or_an_empty_channel(search):
    channels = [np.array([[float(i), 0.0]]) for i in range(12)]
    with pytest.raises(InputError, match="at least five"):
        search(channels[:4])
    with pytest.raises(InputError, match="at most 11"):
        search(channels)
    with pytest.raises(InputError, match="one candidate or more"):
        search([*channels[:5], np.zeros((0, 2))])


def test_the_fork_leaves_crowded_channels_out_and_wants_rows_to_increase():
    true = MEAN_SKELETON * 61
    channels = [point[None] for point in true]
    channels[2] = np.vstack([true[2]] * 4)
    channels[6] = np.vstack([true[4] - (3, 0), true[6]])
    assert legacy_fork_search(channels).chosen == (0, 0, None, 0, 0, 0, 1, 0, 0, 0, 0)
    channels = [np.vstack([point] * 2) for point in true]  # 2048 combinations
    assert legacy_fork_search(channels).chosen == (None,) * 11


def test_condition_rules_by_hand():
    column = 50.0
    rows = [10, 30, 50, 70, 90, 110, 130]
    points = np.array([[row, column] for row in rows], float)
    np.testing.assert_array_equal(legacy_condition_rules(points), points)
    off = np.vstack([points, [60.0, column + 16]])
    np.testing.assert_array_equal(legacy_condition_rules(off), points)
    on = np.vstack([points, [60.0, column + 15]])  # not more than 15 off; 10 from its neighbours: not merged
    assert len(legacy_condition_rules(on)) == 8
    close = np.vstack([points, [54.0, column]])  # a pair 4 apart: the mean of all but the last is the first
    np.testing.assert_array_equal(legacy_condition_rules(close), points)
    assert legacy_condition_rules(np.zeros((0, 2))).shape == (0, 2)


def test_naming_by_the_old_methods():
    view = MEAN_SKELETON * 61
    candidates = []
    for channel, (row, column) in enumerate(view):
        evidence = np.zeros(DISC_COUNT)
        evidence[channel + 1] = 0.9  # C2/C3 is number 3, the second of the 24
        candidates.append(Candidate(np.array([0.0, column, -row]), 0.9, evidence))
    expected = {i: i + 3 for i in range(11)}
    assert legacy_name_chain(candidates) == expected
    assert legacy_name_chain(candidates, "fork") == expected
    straight = [Candidate(np.array([0.0, 0.0, -20.0 * i]), 0.9, np.zeros(DISC_COUNT)) for i in range(11)]
    assert legacy_name_chain(straight, "conditions") == expected
    with pytest.raises(InputError, match="no naming method"):
        legacy_name_chain(candidates, "best")
    everywhere = [Candidate(c.position_ras_mm, 0.9, np.ones(DISC_COUNT)) for c in candidates]
    assert legacy_name_chain(everywhere) == expected  # 11 ** 11 combinations


def test_channels_end_with_the_last_that_shows_a_disc():
    evidence = np.zeros((3, DISC_COUNT))
    evidence[:, 1:7] = [[0.9, 0.03, 0, 0, 0, 0], [0.5, 0.01, 0.8, 0, 0, 0], [0.1, 0.02, 0.3, 0.05, 0.04, 0]]
    candidates = [Candidate(np.zeros(3), 0.9, row) for row in evidence]
    assert legacy_channels(candidates) == [[0, 1], [0, 2], [1]]  # C2/C3, C3/C4 although weak, C4/C5
    assert legacy_channels([]) == []
    assert legacy_channels([Candidate(np.zeros(3), 0.9, np.full(DISC_COUNT, 0.05))]) == []
