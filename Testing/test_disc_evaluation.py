"""The evaluation of the disc task on results whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result import Landmark, Measurement, Result
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.task import TASK
from Testing.evaluation import evaluate_discs as evaluation

TRUTH = {number: (0.0, 8.0, 200.0 - 25.0 * (number - 2)) for number in range(2, 22)}


def points(numbers: list[int], shift: int = 0, offset=(0.0, 0.0, 0.0)) -> list[tuple[int, tuple[float, ...]]]:
    return [(number + shift, tuple(np.add(TRUTH[number], offset))) for number in numbers]


def written(folder, points, chance: float = 0.9) -> None:
    """A result folder with these points."""
    names = evaluation.DISC_NAMES
    result = Result(
        task="discs",
        source=Volume(np.zeros((2, 3, 4), np.int16), np.eye(4)),
        points=[Landmark(names[number], place, 0.9) for number, place in points],
        measurements=[Measurement("Probability of this numbering", chance, "")],
    )
    write_result(result, folder, LabelTable.read(TASK.resources / "labels.csv"), report=False)


def test_the_template_is_compared_along_its_axis_from_the_first_disc_on():
    every = list(range(2, 22))
    good = evaluation.compare_template(TRUTH, points(every, offset=(0, 9, 2)))
    assert good.whole_chain_right and good.truths == 19
    without_joint = evaluation.compare_template(TRUTH, points(every[1:], offset=(0, 9, 2)))
    assert without_joint.whole_chain_right
    shifted = evaluation.compare_template(TRUTH, points(every[:-1], shift=1))
    assert shifted.named_right == 0 and not shifted.whole_chain_right
    aside = evaluation.compare_template(TRUTH, [*points(every), (22, (0.0, 60.0, 100.0))])
    assert aside.false == (22,) and not aside.whole_chain_right


def test_table_of_the_lumbar_scans(tmp_path, shared_data):
    truth = evaluation.lumbar_truth(shared_data / "spine_mr")
    scans = list(truth)
    for scan in scans[:-1]:
        written(tmp_path / scan, [(number, tuple(np.add(place, (1, 0, 0)))) for number, place in truth[scan].items()])
    shifted = [(number - 1, place) for number, place in truth[scans[-1]].items()]
    written(tmp_path / scans[-1], shifted, 0.4)
    results = {scan: evaluation.read(tmp_path, scan) for scan in scans}
    cases = {scan: evaluation.compare_discs(truth[scan], evaluation.points_of(results[scan])) for scan in scans}
    lines = "\n".join(evaluation.lumbar_table(cases, results, len(truth)))
    assert "100.0% of discs within 5 mm" in lines and "0.0% of points false" in lines
    assert f"{(len(scans) - 1) / len(scans):.0%} of chains fully right" in lines
    assert "names off by -1" in lines and "NOT reached" not in lines
    missing = evaluation.lumbar_table(cases, results, len(truth) + 3)
    assert any("chains fully right" in line and "NOT" in line for line in missing)  # no result is no right chain
    published = evaluation.published_table(truth, results)
    assert published[0] == "8 scans"
    fewer = {scan: results[scan] for scan in scans[1:]}
    assert evaluation.published_table(truth, fewer)[0] == "7 scans; 1 more gave no point and are left out"
    assert [line.split()[-2:] for line in published[2:]] == [["0.00", "0.00"]] * 2  # shifted, and they do not notice


@pytest.mark.parametrize("scan", ["107_t2space"])
def test_truth_is_where_the_discs_are(scan, shared_data):
    """The centres lie inside the outlined discs, from right to left too; the lowest is L5/S1."""
    truth = evaluation.lumbar_truth(shared_data / "spine_mr")[scan]
    assert max(truth) == 25 and min(place[2] for place in truth.values()) == truth[25][2]
    labels = evaluation.read_volume(shared_data / "spine_mr" / f"{scan.split('_')[0]}_label.nii.gz")
    inside = []
    for place in truth.values():
        i, j, k = np.rint((np.linalg.inv(labels.ijk_to_ras) @ [*place, 1.0])[:3]).astype(int)
        inside.append(labels.array[k, j, i] == 3)
    assert np.mean(inside) > 0.8
    middle = np.argwhere(labels.array == 3).mean(axis=0)
    across = (labels.ijk_to_ras @ [*middle[::-1], 1.0])[0]
    assert np.abs(np.array(list(truth.values()))[:, 0] - across).max() < 2.0  # the list of centres is 5 mm beside


def test_truth_of_the_template(shared_data):
    truth = evaluation.template_truth(shared_data / "spine_mr")
    assert sorted(truth) == list(range(2, 22))
    heights = [truth[number][2] for number in sorted(truth)]
    assert heights == sorted(heights, reverse=True)
