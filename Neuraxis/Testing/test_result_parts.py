"""Curves and points in a result folder: what the files hold, and that they come back."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from test_result_folder import FILES, TABLE, entries, make_result

from NeuraxisLib.result import Curve, CurvePlot, Landmark, Result
from NeuraxisLib.result_folder import read_result, write_result


def with_curves_and_points() -> Result:
    result = make_result()
    result.curves["vessels"] = CurvePlot(
        "Vessels",
        curves=(Curve("Artery", (0, 1.5, 3), (0, 20.25, math.nan)), Curve("Vein", (0, 2, 3), (0.5, 1, 30))),
    )
    result.points = [
        Landmark("L4/L5", (1.5, -20, 33), 0.925, "fourth from below"),
        Landmark("Artery", np.array([-3, 4, 5.5])),
    ]
    return result


def test_curves_and_points_come_back_as_they_were(tmp_path):
    result = with_curves_and_points()
    folder = write_result(result, tmp_path / "case", TABLE)
    assert entries(folder) == FILES | {"vessels.csv", "points.mrk.json"}
    again = read_result(folder)
    assert again.points == result.points
    plot = again.curves["vessels"]
    assert (plot.title, plot.x_label, plot.y_label) == ("Vessels", ("Time", "s"), ("Contrast", "HU"))
    assert plot.curves[1] == result.curves["vessels"].curves[1]
    assert plot.curves[0].y[:2] == (0, 20.25) and math.isnan(plot.curves[0].y[2])
    write_result(make_result(), folder, TABLE)  # a result with curves and points is replaced as any other
    assert entries(folder) == FILES
    assert read_result(folder).curves == {} and read_result(folder).points == []


def test_curves_share_one_column_of_places_in_the_csv(tmp_path):
    folder = write_result(with_curves_and_points(), tmp_path / "case", TABLE)
    rows = list(csv.reader((folder / "vessels.csv").read_text().splitlines()))
    assert rows == [
        ["Time [s]", "Artery [HU]", "Vein [HU]"],
        ["0.0", "0.0", "0.5"],
        ["1.5", "20.25", ""],
        ["2.0", "", "1.0"],
        ["3.0", "", "30.0"],
    ]


def test_points_are_a_markups_file(tmp_path):
    folder = write_result(with_curves_and_points(), tmp_path / "case", TABLE)
    (markup,) = json.loads((folder / "points.mrk.json").read_text())["markups"]
    assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == ("Fiducial", "RAS", "mm")
    first, second = markup["controlPoints"]
    assert (first["label"], first["position"]) == ("L4/L5", [1.5, -20, 33])
    assert first["description"] == "confidence 0.93; fourth from below"
    assert (second["label"], second["description"]) == ("Artery", "")


def test_a_result_from_before_there_were_curves_is_read(tmp_path):
    folder = write_result(make_result(), tmp_path / "case", TABLE)
    document = json.loads((folder / "result.json").read_text())
    del document["curves"], document["points"]
    (folder / "result.json").write_text(json.dumps(document))
    assert read_result(folder).curves == {}
    write_result(make_result(), folder, TABLE)


def test_curves_and_a_table_may_not_share_a_file(tmp_path):
    result = with_curves_and_points()
    result.curves["components"] = result.curves["vessels"]
    with pytest.raises(ValueError, match="share a file"):
        write_result(result, tmp_path / "case", TABLE)


@pytest.mark.parametrize("make", [lambda: Curve("c", (0, 1), (0,)), lambda: Landmark("p", (1, 2))])
def test_curves_and_points_of_the_wrong_size_are_refused(make):
    with pytest.raises(ValueError, match="has"):
        make()
