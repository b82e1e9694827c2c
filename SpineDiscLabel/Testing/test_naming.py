"""Names of discs: the right ones on chains with known names, and probabilities that mean something."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic_spines import SyntheticSpine, spine_points, synthetic_spine

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.anatomy import FORMS, USUAL, number_of
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_COUNT, DISC_NAMES
from SpineDiscLabelLib.naming import Chain, name_chain, renumber

SIX, FOUR = FORMS[1], FORMS[2]


def plain(points: np.ndarray, strength: float = 0.9) -> list[Candidate]:
    """Candidates that do not look like any disc in particular."""
    return [Candidate(point, strength, np.zeros(DISC_COUNT)) for point in points]


def looking_like(candidate: Candidate, number: int, share: float = 0.8) -> Candidate:
    evidence = np.zeros(DISC_COUNT)
    evidence[number - 2] = share
    return Candidate(candidate.position_ras_mm, candidate.strength, evidence)


def names(chain: Chain) -> list[str]:
    return [disc.name for disc in chain.discs]


def right(spine: SyntheticSpine, chain: Chain) -> float:
    """Share of true discs with their true name."""
    given = {disc.candidate: disc.name for disc in chain.discs}
    return float(np.mean([given.get(i) == name for i, name in enumerate(spine.names) if name]))


def mean_spine(form=USUAL) -> np.ndarray:
    """The mean spine itself, without noise."""
    lean = np.radians(form.tilt_deg)
    return np.cumsum(-form.step_mm[:, None] * np.stack([0 * lean, np.sin(lean), np.cos(lean)], axis=1), axis=0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def test_a_mean_spine_is_named_from_its_shape_alone():
    chain = name_chain(plain(mean_spine()))
    assert names(chain) == list(DISC_NAMES.values())
    assert [disc.disc for disc in chain.discs] == list(range(2, 26))
    assert not chain.missing


def test_candidates_keep_their_places_and_indices(rng):
    points = mean_spine()
    order = rng.permutation(len(points))
    chain = name_chain(plain(points[order]))
    for disc in chain.discs:
        assert order[disc.candidate] == disc.disc - 2
        np.testing.assert_array_equal(disc.position_ras_mm, points[disc.disc - 2])


def test_names_of_noisy_whole_spines(rng):
    spines = [synthetic_spine(rng) for _ in range(25)]
    assert np.mean([right(spine, name_chain(spine.candidates)) for spine in spines]) > 0.9


def test_false_candidates_are_left_out(rng):
    for _ in range(8):
        spine = synthetic_spine(rng, false=100, missing=0.0, noise_mm=1.0, shift_sd=0.3)
        taken = [disc.candidate for disc in name_chain(spine.candidates).discs]
        false = [index for index in taken if spine.names[index] is None]
        assert len(false) <= 3 and len(taken) - len(false) >= 22


def test_missing_discs_leave_gaps_and_are_placed(rng):
    points = mean_spine()
    gone = [7, 8, 15]
    kept = [i for i in range(len(points)) if i not in gone]
    chain = name_chain(plain(points[kept]))
    assert names(chain) == [USUAL.names[i] for i in kept]
    assert [disc.name for disc in chain.missing] == [USUAL.names[i] for i in gone]
    for disc, index in zip(chain.missing, gone):
        assert disc.candidate is None
        assert np.linalg.norm(disc.position_ras_mm - points[index]) < 3.0


def test_confidence_is_a_probability(rng):
    """Of names given with so much confidence about as many are right; where it errs, it is by being too careful."""
    sure, hit = [], []
    for _ in range(150):
        first = int(rng.integers(0, 16))
        spine = synthetic_spine(rng, levels=(first, first + 8), evidence=rng.choice([0.0, 0.1, 0.4]))
        for disc in name_chain(spine.candidates).discs:
            sure.append(disc.confidence)
            hit.append(spine.names[disc.candidate] == disc.name)
    sure, hit = np.array(sure), np.array(hit, float)
    assert ((sure >= 0) & (sure <= 1)).all()
    assert -0.1 < hit.mean() - sure.mean() < 0.2
    means = []
    for low, high in ((0.0, 0.45), (0.45, 0.8), (0.8, 1.01)):
        inside = (sure >= low) & (sure < high)
        means.append(hit[inside].mean())
        assert inside.sum() > 100 and hit[inside].mean() > sure[inside].mean() - 0.1
    assert means == sorted(means)


def test_without_evidence_a_stretch_is_relative_and_offers_its_neighbours():
    chain = name_chain(plain(mean_spine()[9:16]))  # mid-thoracic: all steps nearly alike
    assert chain.relative
    assert any("shifted" in note for note in chain.notes)
    titles = {other.title for other in chain.alternatives}
    assert {"one level lower", "one level higher"} <= titles
    assert chain.probability + sum(other.probability for other in chain.alternatives) <= 1 + 1e-9
    assert sum(other.probability for other in chain.alternatives) > 0.3


def test_the_sacrum_settles_the_level():
    candidates = plain(mean_spine()[16:])
    before = name_chain(candidates)
    candidates[-1] = looking_like(candidates[-1], 25)
    after = name_chain(candidates)
    assert names(after) == list(USUAL.names[16:])
    assert not after.relative
    assert after.probability > before.probability


def test_the_dens_settles_the_level(rng):
    for _ in range(5):
        candidates = plain(spine_points(rng)[1:9])
        candidates[0] = looking_like(candidates[0], 3)
        assert names(name_chain(candidates)) == list(USUAL.names[1:9])


@pytest.mark.parametrize("form", [SIX, FOUR], ids=["six", "four"])
def test_transitional_spines_are_found_where_both_ends_are_seen(form):
    candidates = plain(mean_spine(form))
    for index in (0, 1, 2, 3, 4, 5):
        candidates[index] = looking_like(candidates[index], 2 + index)
    for back in (1, 2, 3):
        candidates[-back] = looking_like(candidates[-back], 26 - back)
    chain = name_chain(candidates)
    assert names(chain) == list(form.names)
    assert [disc.disc for disc in chain.discs] == list(form.numbers)
    assert chain.probability > 0.5


def test_transitional_spines_are_offered_where_only_the_sacrum_is_seen():
    candidates = plain(mean_spine()[16:])
    candidates[-1] = looking_like(candidates[-1], 25)
    offered = [other for other in name_chain(candidates).alternatives if "vertebrae" in other.title]
    assert {other.names[-1] for other in offered} >= {"L6/S1", "L4/S1"}
    assert all(0 < other.probability < 0.2 for other in offered)


def test_one_anchor_moves_the_whole_chain():
    points = mean_spine()[16:24]
    for name in ("L3/L4", 23):
        chain = name_chain(plain(points), {5: name})
        assert names(chain) == list(USUAL.names[16:24])  # index 5 of 16.. is L3/L4
    shifted = name_chain(plain(points), {5: "L2/L3"})
    assert names(shifted) == list(USUAL.names[15:23])
    assert not shifted.relative and shifted.discs[5].confidence > 0.95


def test_an_anchor_on_a_weak_candidate_holds(rng):
    points = mean_spine()[16:]
    candidates = plain(points)
    candidates[3] = Candidate(points[3] + (0, 9, 4), 0.05, np.zeros(DISC_COUNT))
    chain = name_chain(candidates, {3: "L1/L2"})
    assert next(disc for disc in chain.discs if disc.candidate == 3).name == "L1/L2"


# -- renumbering, for the panel -------------------------------------------------------------------------------


def test_current_numbers_hold_while_points_are_dragged_deleted_and_added(rng):
    points, numbers = mean_spine()[17:24], list(range(19, 26))
    dragged = points + rng.normal(0, 1.5, points.shape)
    assert [d.disc for d in renumber(dragged, current=numbers).discs] == numbers
    without = np.delete(points, 3, axis=0)
    chain = renumber(without, current=numbers[:3] + numbers[4:])
    assert [d.disc for d in chain.discs] == numbers[:3] + numbers[4:]
    assert [d.disc for d in chain.missing] == [numbers[3]]
    again = renumber(np.vstack([without, points[3]]), current=[*numbers[:3], *numbers[4:], None])
    assert [d.disc for d in again.discs] == numbers
    assert again.discs[3].candidate == 6


def test_renaming_one_point_renames_all():
    points = mean_spine()[17:24]
    chain = renumber(points, {2: "T11/T12"})
    assert [d.disc for d in chain.discs] == list(range(17, 24))
    back = renumber(points, {2: "L1/L2"}, current=[d.disc for d in chain.discs])
    assert [d.disc for d in back.discs] == list(range(19, 26))


def test_every_point_of_a_person_is_a_disc():
    points = mean_spine()[17:24].copy()
    points[3] += (0, 14, 5)  # far from where it belongs
    assert len(renumber(points, {0: "T11/T12"}).discs) == len(points)


@pytest.mark.filterwarnings("error")
def test_two_points_in_one_place_are_two_discs():
    points = mean_spine()[17:24]
    chain = renumber(np.vstack([points, points[3]]), {0: "T11/T12"})
    assert len(chain.discs) == 8 and len(set(names(chain))) == 8
    assert len(name_chain(plain(np.vstack([points, points[3]]))).discs) == 7  # of two candidates one is false


def test_an_anchor_for_a_sixth_lumbar_vertebra():
    points = mean_spine(SIX)[18:]
    assert names(renumber(points, {len(points) - 1: "L6/S1"})) == list(SIX.names[18:])
    assert names(renumber(points, {len(points) - 1: 26})) == list(SIX.names[18:])


def test_renumbering_agrees_with_itself_on_its_own_output(rng):
    points = spine_points(rng)[4:18]
    first = renumber(points, {3: 10})
    again = renumber(points, current=[disc.disc for disc in first.discs])
    assert [d.disc for d in again.discs] == [d.disc for d in first.discs]


def test_one_disc_needs_an_anchor():
    alone = [[0.0, 0.0, 0.0]]
    assert any("which disc it is" in note for note in renumber(alone).notes)
    assert names(renumber(alone, {0: "C4/C5"})) == ["C4/C5"]
    assert any("which disc it is" in note for note in name_chain(plain(np.zeros((1, 3)))).notes)


def test_nothing_found():
    assert name_chain([]).discs == [] and renumber(np.zeros((0, 3))).discs == []
    weak = name_chain(plain(np.array([[0.0, 0, 0], [0, 60, 3]]), strength=0.03))
    assert weak.discs == [] and weak.notes == ["No disc was found."]


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ({0: "L9/S3"}, "no disc 'L9/S3'"),
        ({0: 40}, "no disc '40'"),
        ({12: "L4/L5"}, "not among the points"),
        ({0: "L4/L5", 3: "L1/L2"}, "cannot lie above"),
        ({0: "L4/L5", 3: "L4/L5"}, "cannot lie above"),
    ],
)
def test_bad_anchors(anchors, message):
    with pytest.raises(InputError, match=message):
        renumber(mean_spine()[16:], anchors)


def test_more_points_than_discs():
    with pytest.raises(InputError, match="more than a spine has"):
        renumber(np.column_stack([np.zeros((30, 2)), -20.0 * np.arange(30)]))


def test_anchors_too_close_to_leave_room():
    """Two neighbouring names with points between cannot be kept; that is said, not guessed."""
    with pytest.raises(InputError, match="points between"):
        renumber(mean_spine()[16:22], {0: "L1/L2", 4: "L2/L3"})


# -- anatomy --------------------------------------------------------------------------------------------------


def test_forms_count_from_above():
    assert SIX.names[-3:] == ("L4/L5", "L5/L6", "L6/S1") and SIX.numbers[-1] == 26
    assert FOUR.names[-2:] == ("L3/L4", "L4/S1") and FOUR.numbers[-1] == 24
    assert (number_of("C7/T1"), number_of("T12/L1"), number_of("L6/S1"), number_of("L4/S1")) == (8, 20, 26, 24)
    assert number_of("L7/S1") is None
    assert 520 < USUAL.step_mm.sum() < 620  # C1/C2 to L5/S1 of an adult


def test_the_training_spines_are_named_from_their_sacrum(shared_data):
    """Real lumbar spines; only the lowest disc looks like anything, as where the sacrum is recognised."""
    cases = json.loads((shared_data / "spine_mr_training" / "disc_centres.json").read_text())
    whole = 0
    for case in cases.values():
        discs = sorted(case["discs"], key=lambda disc: -disc["from_bottom"])
        candidates = plain(np.array([disc["ras_mm"] for disc in discs]))
        candidates[-1] = looking_like(candidates[-1], 25, 0.7)
        chain = name_chain(candidates)
        whole += names(chain) == list(USUAL.names[-len(discs) :])
    assert whole >= len(cases) - 1  # one has a crushed vertebra
