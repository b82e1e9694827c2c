"""Corrections of a chain without Slicer: names, undo, what a person says, other numberings, what is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from disc_panel_support import candidates, disc_result, discs_ras_mm, spine_mr

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.discs import DISC_NAMES
from SpineDiscLabelLib.findings import evidence_from_text, evidence_text
from SpineDiscLabelLib.naming import renumber
from SpineDiscLabelLib.panel_chain import ChainEditor
from SpineDiscLabelLib.panel_state import ChainState, DiscPoint, OtherNumbering, Seen
from SpineDiscLabelLib.panel_words import all_names, numbering_line, other_line, percent

NAMES = ["T11/T12", "T12/L1", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"]
LUMBAR = NAMES[1:]


def editor_of(found=None) -> ChainEditor:
    """An editor on the discs as the task finds them."""
    chain = disc_result(spine_mr(), found)
    told = chain.provenance["chain"]
    points = [DiscPoint(n, p.position_ras_mm, p.name, p.confidence) for n, p in enumerate(chain.points, 1)]
    seen = {p.key: Seen(p.position_ras_mm, tuple(evidence_from_text(told["evidence_percent"][p.name]))) for p in points}
    others = tuple(OtherNumbering(title, *rest) for title, rest in told["others"].items())
    state = ChainState(tuple(points), told["probability"], told["relative"], others, tuple(told["notes"]))
    return ChainEditor(state, seen)


def names(editor: ChainEditor) -> list[str]:
    """Names from above."""
    return [disc.name for disc in editor.state.discs()]


def test_the_case_is_what_it_says():
    assert names(editor_of()) == LUMBAR and len(discs_ras_mm()) == 6


def test_deleting_the_lowest_keeps_the_names_of_the_rest_and_undo_brings_it_back():
    editor = editor_of()
    before = editor.state
    editor.delete(6)
    assert names(editor) == LUMBAR[:-1]
    editor.undo()
    assert editor.state == before and not editor.can_undo and editor.can_redo
    editor.redo()
    assert names(editor) == LUMBAR[:-1] and not editor.can_redo


def test_deleting_one_between_leaves_a_gap_that_is_told():
    editor = editor_of()
    editor.delete(3)
    assert names(editor) == [name for name in LUMBAR if name != "L2/L3"]
    assert any("L2/L3" in note for note in editor.state.notes)


def test_adding_one_above_continues_the_chain():
    editor = editor_of()
    editor.add(discs_ras_mm()[0] + (0, 6, 27))
    assert names(editor) == NAMES
    assert editor.state.points[-1].name == "T11/T12" and editor.state.points[-1].placed


def test_a_disc_between_that_was_deleted_can_be_added_again():
    editor = editor_of()
    editor.delete(4)
    editor.add(discs_ras_mm()[3])
    assert names(editor) == LUMBAR


def test_saying_one_name_counts_all_from_it():
    editor = editor_of()
    editor.say(6, "L4/L5")
    assert names(editor) == NAMES[:-1]
    assert editor.state.points[5].said == "L4/L5" and editor.state.points[5].confidence == pytest.approx(1)
    assert not editor.state.relative and numbering_line(editor.state) == "T11/T12 to L4/L5, as you said"
    assert "named by hand" in editor.state.landmarks()[5].note


def test_what_was_said_holds_through_later_corrections():
    editor = editor_of()
    editor.say(6, "L4/L5")
    editor.move(2, discs_ras_mm()[1] + (0, 1, 1))
    editor.delete(1)
    assert names(editor) == NAMES[1:-1]


def test_the_latest_word_wins_over_one_that_contradicts_it():
    editor = editor_of()
    editor.say(6, "L4/L5")
    editor.say(5, "L4/L5")
    assert names(editor)[-2:] == ["L4/L5", "L5/S1"]
    assert [point.said for point in editor.state.points] == ["", "", "", "", "L4/L5", ""]


def test_other_numberings_come_with_probabilities_and_choosing_one_renames_all():
    editor = editor_of(candidates(evidence=0.05))
    others = editor.state.others
    assert others and all(0 <= other.probability < 1 for other in others)
    lower = next(other for other in others if other.lowest == "L4/L5")
    editor.choose(lower)
    assert names(editor) == NAMES[:-1]
    back = next(other for other in editor.state.others if other.lowest == "L5/S1" and other.highest == "T12/L1")
    editor.choose(back)
    assert names(editor) == LUMBAR


def test_a_sixth_lumbar_vertebra_is_offered_and_can_be_chosen():
    editor = editor_of(candidates(evidence=0.1))
    six = next(other for other in editor.state.others if other.lowest == "L6/S1")
    assert "six lumbar" in six.title
    editor.choose(six)
    assert names(editor) == ["L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/L6", "L6/S1"]
    editor.move(3, discs_ras_mm()[2] + (0, 0.5, 0))
    assert names(editor)[-1] == "L6/S1"


def test_probabilities_of_other_numberings_rest_on_what_was_seen_not_on_the_names():
    """Nudging a point must not make an uncertain level look certain."""
    editor = editor_of(candidates(evidence=0.05))
    before = {(o.highest, o.lowest): o.probability for o in editor.state.others}
    editor.move(2, discs_ras_mm()[1] + (0, 0.3, 0))
    after = {(o.highest, o.lowest): o.probability for o in editor.state.others}
    top = max(before, key=before.get)
    assert after[top] == pytest.approx(before[top], abs=0.1) and after[top] > 0.02


def test_evidence_that_a_person_moved_away_from_is_not_used():
    seen = Seen((0, 0, 0), tuple(np.full(24, 0.5)))
    assert seen.at((0, 0, 7), 8).sum() == 12 and seen.at((0, 0, 9), 8).sum() == 0


def test_renumber_with_evidence_follows_it():
    points, seen = discs_ras_mm(), np.full((6, 24), 0.02)
    for shift in (0, -1):
        seen[:] = 0.02
        seen[np.arange(6), np.arange(18, 24) + shift] = 0.8
        assert [disc.name for disc in renumber(points, evidence=seen).discs] == [
            DISC_NAMES[20 + shift + n] for n in range(6)
        ]


def test_a_list_changed_by_other_tools_is_taken_as_one_correction():
    editor = editor_of()
    told = [(p.key, p.position_ras_mm, p.name) for p in editor.state.points]
    assert not editor.take(told) and not editor.can_undo
    told[0] = (1, (told[0][1][0], told[0][1][1], told[0][1][2] + 2.0), told[0][2])
    told[5] = (6, told[5][1], "L4/L5")
    assert editor.take([*told[1:], told[0], (None, discs_ras_mm()[0] + (0, 6, 29), "F-1")])
    assert names(editor) == ["T10/T11", *NAMES[:-1]]
    editor.undo()
    assert names(editor) == LUMBAR and not editor.can_undo


@pytest.mark.parametrize("name", ["Nonsense", "L4-L5", "L7/S1"])
def test_no_such_disc(name):
    editor = editor_of()
    with pytest.raises(InputError, match="no disc"):
        editor.say(1, name)
    assert not editor.can_undo


def test_too_many_points_are_refused_and_nothing_changes():
    editor = editor_of()
    far = [(None, (0, 0, 100 + 20 * n), "") for n in range(25)]
    with pytest.raises(InputError, match="more than a spine has"):
        editor.take([*((p.key, p.position_ras_mm, p.name) for p in editor.state.points), *far])
    assert names(editor) == LUMBAR and not editor.can_undo


def test_no_point_is_left():
    editor = editor_of()
    editor.take([])
    assert editor.state.points == () and editor.state.discs() == [] and numbering_line(editor.state) == ""
    editor.undo()
    assert names(editor) == LUMBAR


def test_corrections_are_kept_as_json():
    editor = editor_of()
    editor.say(6, "L4/L5")
    editor.delete(2)
    editor.undo()
    again = ChainEditor.from_json(json.loads(json.dumps(editor.to_json())))
    assert again.state == editor.state and again.can_redo
    again.redo()
    assert len(again.state.points) == 5
    again.undo()
    again.undo()
    assert names(again) == LUMBAR
    again.add(discs_ras_mm()[0] + (0, 6, 27))
    assert len({point.key for point in again.state.points}) == 7


def test_undo_reaches_back_fifty_corrections():
    editor = editor_of()
    for step in range(55):
        editor.move(1, discs_ras_mm()[0] + (0, 0, 0.1 + step / 50))
    assert editor.steps == 50 and editor.is_corrected
    while editor.can_undo:
        editor.undo()
    assert editor.is_corrected, "the first five cannot be taken back"


def test_words():
    assert percent(0.999) == "over 99 %" and percent(0.174) == "17 %" and percent(0.0001) == "below 1 %"
    assert (
        other_line(OtherNumbering("one level lower", "L1/L2", "L5/S1", 0.2)) == "20 %  L1/L2 to L5/S1: one level lower"
    )
    assert all_names()[0] == "C1/C2" and {"L4/S1", "L5/L6", "L6/S1"} <= set(all_names())
    assert np.allclose(evidence_from_text(evidence_text(np.linspace(0, 1, 24))), np.linspace(0, 1, 24), atol=0.005)
    assert evidence_from_text("nothing of the kind").sum() == 0


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_names_follow_each_other_and_all_can_be_undone(seed):
    rng, editor = np.random.default_rng(seed), editor_of(candidates(evidence=float(0.05 + 0.1 * seed)))
    first = editor.state
    for _ in range(25):
        keys = [point.key for point in editor.state.points]
        key, at = int(rng.choice(keys)), discs_ras_mm()[rng.integers(6)] + rng.normal(0, 3, 3)
        acts = [
            lambda key=key, at=at: editor.move(key, at),
            lambda key=key: editor.delete(key) if len(editor.state.points) > 2 else None,
            lambda at=at: editor.add(np.add(at, (0, 0, 36 * rng.integers(-1, 2)))),
            lambda key=key: editor.say(key, str(rng.choice(all_names()[15:]))),
            lambda: editor.choose(editor.state.others[0]) if editor.state.others else None,
        ]
        before = editor.state
        try:
            acts[rng.integers(len(acts))]()
        except InputError:
            assert editor.state == before
        numbers = [disc.disc for disc in editor.state.discs()]
        assert numbers == sorted(set(numbers)) and 0 not in numbers
        assert all(point.said in ("", point.name) for point in editor.state.points)
    last = editor.state
    while editor.can_undo:
        editor.undo()
    assert editor.state == first
    while editor.can_redo:
        editor.redo()
    assert editor.state == last
