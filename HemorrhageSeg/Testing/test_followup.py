"""Follow-up of a real head that was turned, moved and scanned anew, with a ball of blood whose growth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from followup_heads import DOWN, UP, Ball, bundled, moved, points_ras, time_point

from HemorrhageSegLib import followup
from HemorrhageSegLib.brain import extract_brain
from HemorrhageSegLib.followup import GONE, NEW, UNCHANGED, follow_up, hours_between
from HemorrhageSegLib.followup_registration import register
from NeuraxisLib.errors import CancelledError, InputError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result_folder import read_result, write_result
from NeuraxisLib.task import Progress, get_task
from NeuraxisLib.volume import Volume

FORMER, TURN, SHIFT = 12.0, (-14.0, 8.0, 17.0), (9.0, 16.0, -22.0)
GROWN = 15.0


@pytest.fixture(scope="module")
def pair():
    """Earlier and later time point of one head (5 mm slices; then 3 mm, tilted by 15 degrees), and the movement."""
    head, brain = bundled()
    later, move = moved(head, brain, TURN, SHIFT, slice_mm=3.0, tilt_deg=15.0)
    centre = points_ras(head, brain).mean(axis=0) + np.array([20, -5, 10])
    there = move[:3, :3] @ centre + move[:3, 3]
    before = time_point(head, brain, Ball(centre, FORMER))
    return before, time_point(later, extract_brain(later).mask, Ball(there, GROWN)), move


@pytest.fixture(scope="module")
def registered():
    """(arguments, found) of the registration within the follow-up of the pair."""
    return []


@pytest.fixture(scope="module")
def result(pair, registered):
    """Their follow-up."""

    def noted(*arguments):
        registered.extend((arguments[:4], register(*arguments)))
        return registered[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(followup, "register", noted)
        return follow_up(pair[0], pair[1], 6.5)


def value(result, name: str, segment: str = ""):
    """The measurement of that name."""
    return next(m for m in result.measurements if (m.name, m.segment) == (name, segment))


def test_brain_is_aligned_to_less_than_a_millimetre(pair, result):
    before, _, move = pair
    found = np.array(result.provenance["registration"]["matrix_ras_mm"]).reshape(4, 4)
    places = points_ras(before.volume, bundled()[1])[::101]
    error = np.linalg.norm(places @ (found - move)[:3, :3].T + (found - move)[:3, 3], axis=1)
    assert error.mean() < 0.6 and error.max() < 1.0
    assert result.provenance["registration"]["correlation"] > 0.9


def test_change_is_that_of_the_two_balls_on_their_own_grids(result):
    known = Ball(np.zeros(3), GROWN).ml - Ball(np.zeros(3), FORMER).ml  # 6.9 mL
    change, percent = value(result, "Change"), value(result, "Change in percent")
    assert result.measurements[0] is change
    assert change.value == pytest.approx(known, rel=0.04)
    earlier, later = value(result, "Earlier volume"), value(result, "Later volume")
    assert change.value == later.value - earlier.value
    assert percent.value == pytest.approx(100 * (later.value / earlier.value - 1))
    down = np.hypot(DOWN * later.value, UP * earlier.value)
    assert change.interval[0] == pytest.approx(change.value - down)
    assert percent.interval[0] < percent.value < percent.interval[1]


def test_what_is_new_lies_around_what_was_there(pair, result):
    labels, table = result.labels.array, LabelTable.read(get_task("followup").resources / "labels.csv")
    assert [(x.value, x.name) for x in table] == [(UNCHANGED, "Unchanged"), (NEW, "New"), (GONE, "Gone")]
    before = pair[0].result.labels.array > 0
    assert set(np.unique(labels[before])) <= {UNCHANGED, GONE}
    assert value(result, "Volume", "Gone").value < 0.1
    assert value(result, "Volume", "New").value == pytest.approx(value(result, "Change").value, rel=0.1)
    assert value(result, "Volume", "Unchanged").value == pytest.approx(value(result, "Earlier volume").value, rel=0.02)


def test_expansion_and_what_a_reader_has_to_know(result):
    rows = result.tables["expansion"].rows
    assert rows[0][:2] == ("> 6 mL or > 33 %", "yes") and rows[0][2] in ("certain", "possible")
    assert result.warnings[0].startswith("Expansion (> 6 mL or > 33 %): yes by the measured volumes, ")
    text = " ".join(result.warnings)
    assert "slices differ in thickness" in text and "tilted differently (0 and 15 degrees)" in text
    assert value(result, "Time between the scans").value == 6.5
    assert value(result, "Head turned by").value == pytest.approx(23.4, abs=1.0)


@pytest.mark.slow
def test_other_way_round_the_ball_shrinks(pair):
    before, after, _ = pair
    result = follow_up(after, before)
    assert value(result, "Change").value == pytest.approx(-6.9, rel=0.05)
    assert value(result, "Volume", "New").value < 0.1 < value(result, "Volume", "Gone").value
    assert result.tables["expansion"].rows[0][1:3] == ("no", "no")
    assert all(m.name != "Time between the scans" for m in result.measurements)


def test_result_folder_holds_both_scans_and_hashes(pair, result, tmp_path):
    folder = write_result(result, tmp_path / "out")
    back = read_result(folder, result.source)
    assert np.array_equal(back.labels.array, result.labels.array) and back.measurements == result.measurements
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Later scan" in page and "New" in page and page.count("data:image/png") >= 2
    facts = json.loads((folder / "result.json").read_text())["provenance"]
    assert facts["earlier"]["scan_sha256"] == pair[0].sha256 != facts["later"]["scan_sha256"] == pair[1].sha256


def test_later_scan_is_moved_onto_the_earlier_one(pair, result):
    """Within the brain, away from the blood, both show the same tissue."""
    moved_hu, there = result.maps["later"].volume.array, bundled()[1] & (result.labels.array == 0)
    source = result.source.array
    there &= (source > -50) & (source < 100)
    assert np.corrcoef(source[there], moved_hu[there])[0, 1] > 0.5
    assert abs(np.median(moved_hu[there] - source[there])) <= 2


@pytest.mark.slow
def test_same_scan_twice_is_told(pair):
    result = follow_up(pair[0], pair[0])
    assert value(result, "Change").value == 0 and value(result, "Head turned by").value < 0.1
    assert "Both inputs are the same scan" in " ".join(result.warnings)
    assert not np.isin(result.labels.array, (NEW, GONE)).any()


# -- what is refused ------------------------------------------------------------------------------------------


def refusal(*arguments) -> str:
    """The sentence that a comparison is refused with."""
    with pytest.raises(InputError) as refused:
        follow_up(*arguments)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
    return str(refused.value)


def test_no_blood_on_either(pair):
    bare = [time_point(point.volume, point.result.maps["brain"].volume.array > 0, None) for point in pair[:2]]
    assert "Neither scan shows a hemorrhage" in refusal(*bare)


def test_other_patient_by_dicom(pair):
    assert "different patient ids" in refusal(replace(pair[0], patient="a"), replace(pair[1], patient="b"))


def test_order_by_dicom(pair):
    noon = datetime(2026, 3, 1, 12)
    before, after = (replace(p, moment=noon + timedelta(hours=h)) for p, h in zip(pair[:2], (0, 24)))
    assert hours_between(before, after) == 24.0
    assert hours_between(pair[0], after) is None and hours_between(pair[0], after, 3.0) == 3.0
    with pytest.raises(InputError, match="24.0 hours before the earlier one; exchange them"):
        hours_between(after, before)


def test_another_head_is_refused(pair):
    """A head of another shape: squeezed from side to side by a sixth, stretched from front to back."""
    head, brain = bundled()
    matrix = np.diag([0.84, 1.12, 1.0, 1.0]) @ head.ijk_to_ras
    other = time_point(Volume(head.array, matrix, "HU"), brain, Ball(np.zeros(3), 0.0))
    other.result.labels.array[0, 0, 0] = 1
    assert "The two heads do not match" in refusal(pair[0], other)


def test_what_shows_no_brain_is_named(pair):
    array = np.full((12, 64, 64), -1000, np.int16)
    array[:, 8:56, 8:56] = 40
    array[:, 30:34, 30:34] = 900
    leg = Volume(array, np.diag([-3.0, -3.0, 5.0, 1.0]), "HU")
    other = replace(time_point(leg, array > 0, None))
    del other.result.maps["brain"]
    assert refusal(pair[0], other).startswith("Later scan: ")


def test_cancel(pair):
    said = []
    with pytest.raises(CancelledError):
        follow_up(*pair[:2], None, Progress(lambda *step: said.append(step), lambda: len(said) > 1))


@pytest.mark.slow
def test_registration_repeats_itself(result, registered):
    arguments, found = registered
    assert np.array_equal(register(*arguments).matrix, found.matrix)
