"""The simulated spine as numbers: sizes, order, numbers of the discs, curvature."""

from __future__ import annotations

import numpy as np
import pytest

from Training.simulation.spine_anatomy import Disc, Spine, Vertebra, centroid, draw_spine
from Training.simulation.spine_pathology import add_pathology


def spines(count: int, straight: bool = False) -> list[Spine]:
    return [draw_spine(np.random.default_rng([1, seed]), straight) for seed in range(count)]


@pytest.fixture(scope="module")
def many() -> list[Spine]:
    return spines(150)


def usual(spine: Spine) -> bool:
    return len(spine.vertebrae) == 28  # 23 from C2 to L5, five of the sacrum


def test_every_disc_from_c1_c2_to_l5_s1_has_its_number_once(many):
    for spine in filter(usual, many):
        points = spine.points()
        assert sorted(points) == list(range(2, 26)) and all(len(found) == 1 for found in points.values())
        named = {disc.value: f"{disc.upper.name}/{disc.lower.name}" for disc in spine.discs if disc.value}
        assert (named[3], named[8], named[20], named[25]) == ("C2/C3", "C7/T1", "T12/L1", "L5/S1")


def test_a_lumbar_vertebra_too_many_or_too_few_is_counted_from_both_ends(many):
    counts = {len(spine.vertebrae): spine for spine in many}
    assert {27, 28, 29} <= set(counts)
    six, four = counts[29].points(), counts[27].points()
    assert len(six[20]) == 2 and sorted(six) == list(range(2, 26))
    assert sorted(set(range(2, 26)) - set(four)) == [21]  # T12/L1 from above, L2/L3's number from below


def test_discs_lie_below_each_other_and_between_their_vertebrae(many):
    for spine in many:
        presacral = [disc for disc in spine.discs if disc.value]
        heights = [disc.centre[1] for disc in presacral]
        assert (np.diff(heights) > 0).all()
        for disc in presacral:
            middle = (disc.upper.centre + disc.lower.centre) / 2
            assert np.linalg.norm(disc.centre - middle) < 0.2 * disc.upper.depth + 3


def test_an_average_spine_is_as_long_as_in_an_adult(many):
    lengths = [
        (spine.named("C2").centre[1] - spine.named("S1").centre[1]) / spine.size for spine in filter(usual, many)
    ]
    assert 480 < np.mean(lengths) < 620  # C2 to S1, mm
    assert min(spine.size for spine in many) < 0.8 < 1.1 < max(spine.size for spine in many)


def test_curves_turn_the_right_way(many):
    tilt = np.rad2deg([[s.named(name).tilt for name in ("S1", "L1", "T1", "C2")] for s in filter(usual, many)])
    sacrum, l1, t1, c2 = tilt.mean(axis=0)
    assert 25 < sacrum < 45  # the sacrum's endplate looks forward
    assert l1 < 0 < t1  # lordosis brings L1 behind the vertical, kyphosis T1 before it
    assert 25 < t1 - l1 < 55 and c2 < t1


def test_straight_spines_are_straight():
    for spine in spines(5, straight=True):
        backs = np.array([body.place(-body.depth / 2, 0) for body in spine.vertebrae if body.region != "S"])
        across = np.polyfit(backs[:, 1], backs[:, 0], 1)
        assert np.abs(backs[:, 0] - np.polyval(across, backs[:, 1])).max() < 8
        assert np.ptp([body.x_mm for body in spine.vertebrae]) < 12


def test_the_centre_of_a_polygon_is_that_of_its_area():
    assert centroid(np.array([(0.0, 0.0), (4, 0), (4, 2), (0, 2)])) == pytest.approx([2, 1])
    assert centroid(np.array([(0.0, 0.0), (3, 0), (0, 3)])) == pytest.approx([1, 1])


def test_a_disc_that_opens_forward_has_its_centre_in_front_of_the_middle():
    lower, upper = Vertebra("L5", 1, 20, 30, 40), Vertebra("L4", 2, 20, 30, 40)
    upper.centre, upper.tilt = np.array([0.0, 30.0]), -0.2
    lower.concave = upper.concave = 0.0
    assert Disc(upper, lower, 24, 3, 10, 0.2).centre[0] > 1.0


def test_the_same_seed_gives_the_same_spine_with_the_same_findings():
    made = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        spine = draw_spine(rng)
        add_pathology(spine, rng)
        made.append([(body.centre.tolist(), body.marks) for body in spine.vertebrae])
    assert made[0] == made[1]


def test_findings_occur():
    kinds = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        spine = draw_spine(rng)
        add_pathology(spine, rng)
        kinds |= {mark[0] for body in spine.vertebrae for mark in body.marks}
    assert {"haemangioma", "schmorl", "fatty", "oedema", "screw"} <= kinds
