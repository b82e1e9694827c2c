"""Editing and reviewing core and penumbra in the real panel on the stand-in; measures of outlines computed by hand."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from stroke_panel_support import StrokeClient, phantom

from NeuraxisLib.result import Measurement, Result, ScalarMap
from NeuraxisLib.volume import Volume
from StrokeCTPLib.corrections import remeasured
from Testing.slicer_stand_in.fake_worker import compute_with
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401
from Testing.slicer_stand_in.segment_editor import paint

pytest.importorskip("torch")


def by_hand() -> Result:
    """1 x 4 x 5 voxels of 1 mL: 6 hypoperfused, 2 of them core; CBV is 2 in the lesion and 4 around it."""
    labels = np.zeros((1, 4, 5), np.uint8)
    labels[0, :2, :3] = 1
    labels[0, 0, :2] = 2
    grid = Volume(np.zeros((1, 4, 5), np.float32), np.diag([-10.0, -10.0, 10.0, 1.0]))
    cbv, tmax = np.where(labels > 0, 2.0, 4.0), np.where(labels > 0, 9.0, 1.0)
    maps = {"cbf": np.full(labels.shape, 50.0), "cbv": cbv, "tmax": tmax}
    measurements = [
        Measurement("Core volume", 9.0, "mL", (8.0, 10.0)), Measurement("Tmax threshold", 6.0, "s"),
        Measurement("Hypoperfusion intensity ratio", 0.4, ""),
    ]  # fmt: skip
    shown = {name: ScalarMap(grid.like(array), name, (0, 1)) for name, array in maps.items()}
    told = {"options": {"nihss": 12, "age": 60, "onset_hours": 8.0}}
    return Result("stroke", grid, grid.like(labels), shown, measurements, provenance=told)


def test_measures_of_an_outline():
    result = remeasured(by_hand())
    found = {m.name: (m.value, m.interval) for m in result.measurements}
    assert found["Core volume"] == (2.0, None) and found["Hypoperfused volume"] == (6.0, None)
    assert found["Mismatch volume"] == (4.0, None) and found["Mismatch ratio"] == (3.0, None)
    assert found["CBV index"] == (0.5, None) and found["Hypoperfusion intensity ratio"] == (0.4, None)
    assert "Tmax threshold" not in found, "what was drawn by hand has no threshold"
    criteria = {row[1]: row[2] for row in result.tables["criteria"].rows if row[0] == "DEFUSE 3"}
    assert criteria["mismatch of at least 15 mL"] == "not met" and criteria["mismatch ratio of at least 1.8"] == "met"
    assert criteria["6 to 16 h since last seen well"] == "met"


def test_without_core_there_is_no_ratio():
    result = by_hand()
    result.labels.array[result.labels.array == 2] = 1
    found = {m.name: m for m in remeasured(result).measurements}
    assert found["Core volume"].value == 0 and found["Mismatch ratio"].value is None
    assert "no ratio" in found["Mismatch ratio"].note


# -- panel --------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A worker that answers when told to, behind the module's real logic."""
    fake = StrokeClient(tmp_path)
    compute_with(monkeypatch, fake, models=None)
    return fake


@pytest.fixture
def widget(application, client):  # noqa: F811
    """The panel with the result of the phantom."""
    from NeuraxisLib import scene_frames

    scene_frames.add_sequence(phantom().frames, "CTP")
    panel = application.new_widget("StrokeCTP")
    run(panel, client)
    yield panel
    application.close_widget(panel)


def run(widget, client):
    """Click the button and let the worker finish."""
    widget.ui.applyButton.click()
    client.answer()
    widget._panel.run.on_timer()


def rows(view):
    """First cell -> the others."""
    model = view.model()
    cells = [[model.item(r, c).text() for c in range(model.columnCount())] for r in range(model.rowCount())]
    return {row[0]: row[1:] for row in cells}


def settle(application, widget):  # noqa: F811
    """Measure what was painted, as the timer does after a pause."""
    widget._panel.review.edits.take_in()


def grow_core(widget):
    """Paint core over the whole of two slices of the penumbra, as Segment Editor does; returns (core, all) in mL."""
    from NeuraxisLib.scene_review_result import label_table, labels_of

    nodes, source = widget.logic.resultNodes(widget.source()), widget.source()
    labels = labels_of(nodes["labels"], source, label_table("stroke"))
    core = (labels == 2) | (labels > 0) & (np.arange(len(labels)) < 4)[:, None, None]
    paint(nodes["labels"], "Segment_2", core, source)
    paint(nodes["labels"], "Segment_1", (labels > 0) & ~core, source)
    ml = phantom().frames.voxel_volumes_ml
    return float(core.sum(axis=(1, 2)) @ ml), float((labels > 0).sum(axis=(1, 2)) @ ml)


def test_volumes_mismatch_and_criteria_follow_the_edit(application, widget):  # noqa: F811
    before, criteria = rows(widget.ui.resultTableView), rows(widget.ui.criteriaTableView)
    assert widget.ui.lateSlider.enabled
    core_ml, all_ml = grow_core(widget)
    settle(application, widget)
    after = rows(widget.ui.resultTableView)
    assert float(after["Core volume"][0]) == pytest.approx(core_ml, rel=0.01)
    assert core_ml > float(before["Core volume"][0])
    assert float(after["Hypoperfused volume"][0]) == pytest.approx(all_ml, rel=0.01)
    assert float(after["Mismatch volume"][0]) == pytest.approx(all_ml - core_ml, rel=0.01)
    assert float(after["Mismatch ratio"][0]) == pytest.approx(all_ml / core_ml, abs=0.01)
    assert {after[name][2] for name in ("Core volume", "Hypoperfused volume")} == {"edited by hand"}
    assert not widget.ui.lateSlider.enabled, "thresholds do not wipe an edit out"
    widget.ui.nihssSpinBox.value = 3
    assert "DEFUSE 3: criteria not met" in widget.ui.criteriaLabel.text
    assert float(rows(widget.ui.resultTableView)["Core volume"][0]) == pytest.approx(core_ml, rel=0.01)
    widget.ui.nihssSpinBox.value = -1
    widget._panel.review.ui.revertButton.click()
    assert rows(widget.ui.resultTableView) == before and rows(widget.ui.criteriaTableView) == criteria
    assert widget.ui.lateSlider.enabled


def test_report_keeps_the_edit_and_what_is_known_of_the_patient(application, widget, client, tmp_path):  # noqa: F811
    from NeuraxisLib.result_folder import read_result

    core_ml, _ = grow_core(widget)
    settle(application, widget)
    widget.ui.nihssSpinBox.value = 14
    application.recorded.answers.append(str(tmp_path / "saved.html"))
    widget.ui.saveReportButton.click()
    assert "A person has edited this outline" in (tmp_path / "saved.html").read_text()
    result = read_result(client.handle.result_folder)
    assert result.measurements[0].value == pytest.approx(core_ml) and result.provenance["options"]["nihss"] == 14
    assert ("DEFUSE 3", "NIHSS of at least 6", "met") in result.tables["criteria"].rows


def test_review_keys_and_next_case(application, widget, client):  # noqa: F811
    from NeuraxisLib import scene_frames

    section, first = widget._panel.review, widget.source()
    ui, section.top.collapsed = section.ui, False
    assert not ui.nextSliceButton.isHidden()
    ui.nextSliceButton.click()
    assert widget.ui.statusLabel.text.startswith("Slice ") and "number 1 of" in widget.ui.statusLabel.text
    widget.ui.mapComboBox.setCurrentIndex(2)
    section.toggleOverlay()
    assert widget.ui.mapComboBox.currentIndex == 0
    section.toggleOverlay()
    assert widget.ui.mapComboBox.currentIndex == 2
    other = scene_frames.add_sequence(phantom().frames, "Second")
    widget._parameterNode.frames = other
    run(widget, client)
    ui.acceptButton.click()
    assert ui.acceptButton.checked
    ui.nextCaseButton.click()
    assert widget.source() is first and widget._parameterNode.frames is not other and not ui.acceptButton.checked


def test_export_is_read_by_prepare(application, widget, client, tmp_path):  # noqa: F811
    """The loop closes: the corrected voxels are in the store that training reads."""
    from NeuraxisLib.scene_review_result import label_table, labels_of
    from Training.prepare import main
    from Training.store import Store

    grow_core(widget)
    settle(application, widget)
    drawn = labels_of(widget.logic.resultNodes(widget.source())["labels"], widget.source(), label_table("stroke"))
    ui = widget._panel.review.ui
    ui.correctedButton.click()
    (tmp_path / "out").mkdir()
    application.recorded.answers.append(str(tmp_path / "out"))
    ui.exportButton.click()
    folder = tmp_path / "out" / "stroke"
    (row,) = csv.DictReader((folder / "cases.csv").open())
    assert main([str(folder), str(tmp_path / "s.h5"), "--layout", "maps", "--workers", "1"]) == 0
    with Store(tmp_path / "s.h5") as store:
        assert store.ids == [row["id"]] and np.array_equal(store.case(row["id"]).truth, drawn)
