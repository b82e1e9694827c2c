"""The real panel on the stand-in for Slicer: every button clicked, sliders dragged, the mouse over the maps."""

from __future__ import annotations

import numpy as np
import pytest
from stroke_panel_support import StrokeClient, phantom

from Testing.slicer_stand_in.fake_worker import compute_with, lack
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

pytest.importorskip("torch")


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A worker that answers when told to, behind the module's real logic; nothing is missing."""
    fake = StrokeClient(tmp_path)
    compute_with(monkeypatch, fake, models=None)
    return fake


@pytest.fixture
def frames(client):
    """The phantom's frames as a sequence in the scene."""
    from NeuraxisLib import scene_frames

    return scene_frames.add_sequence(phantom().frames, "CTP")


@pytest.fixture
def widget(application, client, frames):  # noqa: F811
    """The panel, opened on a scene with an acquisition."""
    panel = application.new_widget("StrokeCTP")
    yield panel
    application.close_widget(panel)


def run(widget, client):
    """Click the button and let the worker finish."""
    widget.ui.applyButton.click()
    client.answer()
    widget._panel.run.on_timer()


def nodes(widget):
    """Part -> node of the result."""
    return widget.logic.resultNodes(widget.source())


def rows(view):
    """(first, second) cell of every row of a table view."""
    model = view.model()
    return [(model.item(row, 0).text(), model.item(row, 1).text()) for row in range(model.rowCount())]


def number(widget, name):
    """A measurement as the table shows it."""
    return float(dict(rows(widget.ui.resultTableView))[name])


def drag(slider, *values):
    """Drag a slider through values and let it go at the last."""
    inside = slider._slider
    inside.setSliderDown(True)
    for value in values:
        inside.setValue(round((value - slider.minimum) / (slider.maximum - slider.minimum) * 1000))
        yield slider.value
    inside.setSliderDown(False)


def volume_ml(widget, label):
    """Volume of a segment in the scene."""
    import slicer

    segmentation = nodes(widget)["labels"]
    if segmentation.GetSegmentation().GetSegment(f"Segment_{label}").GetRepresentation("Binary labelmap") is None:
        return 0.0
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, f"Segment_{label}", widget.source())
    return float(mask.sum(axis=(1, 2)) @ phantom().frames.voxel_volumes_ml)


def test_first_acquisition_is_chosen_and_the_button_is_ready(widget, frames):
    assert widget.ui.framesSelector.currentNode() is frames
    assert widget.ui.applyButton.enabled and not widget.ui.cancelButton.enabled
    assert "esearch use" in widget.ui.noticeLabel.text
    assert widget.ui.modelComboBox.currentText == "Threshold rules, no network"


def test_without_frames_the_button_says_what_to_do(application, client):  # noqa: F811
    widget = application.new_widget("StrokeCTP")
    assert not widget.ui.applyButton.enabled and widget.ui.applyButton.toolTip.startswith("Choose the frames")
    application.close_widget(widget)


def test_worker_gets_frames_times_and_what_is_known_of_the_patient(widget, client):
    widget.ui.nihssSpinBox.value = 14
    widget.ui.hoursSpinBox.value = 7.5
    widget.ui.applyButton.click()
    sent, options = client.handle.job.inputs["perfusion"], client.handle.job.options
    assert np.array_equal(sent.array, phantom().frames.array)
    assert np.allclose(sent.frame_times_s, phantom().frames.frame_times_s)
    assert (options["nihss"], options["onset_hours"]) == (14, 7.5) and "age" not in options and "artery" not in options


def test_result_is_in_tables_views_and_colours(application, widget, client):  # noqa: F811
    run(widget, client)
    assert widget.ui.statusLabel.text.startswith("Done.") and application.recorded.dialogs == []
    assert number(widget, "Core volume") == pytest.approx(volume_ml(widget, 2), rel=0.01)
    assert number(widget, "Hypoperfused volume") == pytest.approx(volume_ml(widget, 1) + volume_ml(widget, 2), rel=0.01)
    assert ("DEFUSE 3", "all of") in rows(widget.ui.criteriaTableView)
    assert widget.ui.layoutButton.checked and application.layout.layout == 20417
    cbf = application.layout.sliceWidget("StrokeCBF").sliceView().pixels().astype(int)
    assert np.count_nonzero(np.ptp(cbf, axis=2) > 60) > 3000, "the map is in colours"
    plots = [application.layout.plotWidget(n).mrmlPlotViewNode() for n in range(application.layout.plotViewCount)]
    assert any(view.GetPlotChartNode() for view in plots), "the curves are drawn"


def test_the_maps_are_shown_where_the_lesion_is_largest_and_stay_where_they_are_put(widget, client):
    import slicer

    from NeuraxisLib import scene, scene_views

    run(widget, client)
    source, labels = widget.source(), nodes(widget)["labels"]
    masks = [slicer.util.arrayFromSegmentBinaryLabelmap(labels, f"Segment_{value}", source) for value in (1, 2)]
    k = int(np.any(masks, axis=0).sum(axis=(1, 2)).argmax())
    view = scene_views.slice_node_of("StrokeTmax")
    middle = (np.array(source.GetImageData().GetDimensions()) - 1) / 2
    height_mm = (scene.ijk_to_world(source) @ [*middle[:2], k, 1])[2]
    assert view.GetSliceToRAS().GetElement(2, 3) == pytest.approx(height_mm, abs=0.01)
    view.SetSliceOffset(view.GetSliceOffset() + 5.0)
    point_at(widget, (2, 30, 30))
    widget.ui.findVesselsButton.click()
    widget.onVesselChosen("Artery", (2, 30, 30))
    client.answer()
    widget._panel.run.on_timer()
    assert view.GetSliceToRAS().GetElement(2, 3) == pytest.approx(height_mm + 5.0, abs=0.01)


def test_dragging_a_threshold_moves_the_lesion_and_letting_go_measures_it(widget, client):
    run(widget, client)
    before, table = volume_ml(widget, 1) + volume_ml(widget, 2), rows(widget.ui.resultTableView)
    seen = []
    for late_s in drag(widget.ui.lateSlider, 7.0, 8.0):
        seen.append(volume_ml(widget, 1) + volume_ml(widget, 2))
        assert rows(widget.ui.resultTableView) == table, f"the table waits at {late_s}"
        assert "Core" in widget.ui.statusLabel.text
    assert before > seen[0] > seen[1]
    assert number(widget, "Hypoperfused volume") == pytest.approx(volume_ml(widget, 1) + volume_ml(widget, 2), rel=0.01)
    assert number(widget, "Hypoperfused volume") < before - 5
    widget.ui.resetThresholdsButton.click()
    assert widget.ui.lateSlider.value == 6.0 and rows(widget.ui.resultTableView) == table


def test_other_maps_for_the_thresholds_give_what_the_task_gives_for_them(widget, client):
    from stroke_panel_support import result

    run(widget, client)
    for family in ("svd", "model", "calibrated"):
        widget.ui.familyComboBox.setCurrentIndex(widget.ui.familyComboBox.findData(family))
        values = {m.name: m.value for m in result(family=family).measurements}
        for name in ("Core volume", "Hypoperfused volume", "Relative CBF threshold"):
            assert number(widget, name) == pytest.approx(values[name], rel=0.02, abs=0.06), (family, name)


def test_clinical_data_decide_the_criteria_without_a_run(widget, client):
    run(widget, client)
    assert dict(rows(widget.ui.criteriaTableView))["DEFUSE 3"] is not None
    verdicts = lambda: {t: widget.ui.criteriaTableView.model().item(r, 2).text()  # noqa: E731
                        for r, (t, c) in enumerate(rows(widget.ui.criteriaTableView)) if c == "all of"}  # fmt: skip
    assert verdicts()["DEFUSE 3"] == "unknown input"
    job = client.handle
    widget.ui.nihssSpinBox.value = 14
    widget.ui.ageSpinBox.value = 66
    widget.ui.hoursSpinBox.value = 8.0
    assert verdicts()["DEFUSE 3"] == "criteria met" and client.handle is job
    widget.ui.nihssSpinBox.value = 3
    assert verdicts()["DEFUSE 3"] == "criteria not met"


def point_at(widget, voxel_kji):
    """Move the mouse over a voxel in a view."""
    import slicer

    from NeuraxisLib import scene

    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    k, j, i = voxel_kji
    position = (scene.ijk_to_world(widget.source()) @ [i, j, k, 1])[:3]
    crosshair.SetCursorPositionRAS(position)
    return position


def curve_at(k, j, i):
    """Mean of 3 x 3 voxels of the phantom's frames."""
    return phantom().frames.array[:, k, j - 1 : j + 2, i - 1 : i + 2].mean(axis=(1, 2))


def test_the_curve_follows_the_mouse(widget, client):
    from NeuraxisLib import scene_points

    run(widget, client)
    k, j, i = np.argwhere(phantom().core)[0]
    point_at(widget, (k, j, i))
    assert widget._curveTimer.active, "many moves, one look"
    widget.onCurveTimer()
    chart = nodes(widget)["curves vessels"]
    count = chart.GetNumberOfPlotSeriesNodes()
    x, y = scene_points.series_values(chart, count - 1)
    assert np.allclose(x, phantom().frames.frame_times_s)
    assert np.corrcoef(y, curve_at(k, j, i))[0, 1] == pytest.approx(1)
    assert f"Voxel {i}, {j}, {k}: " in widget.ui.curveLabel.text and "CBF" in widget.ui.curveLabel.text
    point_at(widget, (k, j, i + 1))
    widget.onCurveTimer()
    assert chart.GetNumberOfPlotSeriesNodes() == count
    assert np.corrcoef(scene_points.series_values(chart, count - 1)[1], curve_at(k, j, i + 1))[0, 1] > 0.999


def click(node, widget, voxel_kji):
    """What a click in place mode does: the point is there."""
    from NeuraxisLib import scene

    k, j, i = voxel_kji
    node.AddControlPointWorld(*(scene.ijk_to_world(widget.source()) @ [i, j, k, 1])[:3])


@pytest.mark.parametrize("vessel", ["Artery", "Vein"])
def test_a_click_chooses_the_vessel_and_everything_is_computed_anew(widget, client, vessel):
    import slicer

    run(widget, client)
    first = nodes(widget)
    button = widget.ui.placeArteryButton if vessel == "Artery" else widget.ui.placeVeinButton
    assert button.enabled and not widget.ui.findVesselsButton.enabled
    button.click()
    interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    voxel = tuple(int(v) for v in np.argwhere(phantom().tissue == (6 if vessel == "Artery" else 7))[3])
    click(slicer.util.getNode(vessel), widget, voxel)
    assert interaction.GetCurrentInteractionMode() != interaction.Place
    assert client.handle.job.options[vessel.lower()] == ",".join(map(str, voxel))
    client.answer()
    widget._panel.run.on_timer()
    assert nodes(widget)["map cbf"] is first["map cbf"], "recomputed in place"
    widget.ui.findVesselsButton.click()
    assert vessel.lower() not in client.handle.job.options


def test_dragging_the_artery_s_point_chooses_it_too(widget, client):
    from NeuraxisLib import scene

    run(widget, client)
    points = nodes(widget)["points"]
    index = points.GetControlPointIndexByLabel("Artery (AIF)")
    k, j, i = (int(v) for v in np.argwhere(phantom().tissue == 6)[-1])
    points.SetNthControlPointPositionWorld(index, *(scene.ijk_to_world(widget.source()) @ [i, j, k, 1])[:3])
    points.InvokeEvent(points.PointEndInteractionEvent)
    assert client.handle.job.options["artery"] == f"{k},{j},{i}" and "vein" not in client.handle.job.options


def test_report_is_brought_up_to_date_before_it_is_saved(application, widget, client, tmp_path):  # noqa: F811
    assert not widget.ui.saveReportButton.enabled and not widget.ui.openFolderButton.enabled
    run(widget, client)
    first = client.handle
    application.recorded.answers.append(str(tmp_path / "first.html"))
    widget.ui.saveReportButton.click()
    assert client.handle is first and (tmp_path / "first.html").read_text() == "<html>report</html>"
    list(drag(widget.ui.rcbfSlider, 40.0))
    application.recorded.answers.append(str(tmp_path / "second.html"))
    widget.ui.saveReportButton.click()
    assert client.handle is not first and client.handle.job.options["rcbf"] == pytest.approx(0.4, abs=0.01)
    assert not (tmp_path / "second.html").exists()
    client.answer()
    widget._panel.run.on_timer()
    assert (tmp_path / "second.html").exists() and widget.ui.statusLabel.text == "Report saved."
    widget.ui.openFolderButton.click()
    assert application.recorded.opened == [str(client.handle.result_folder)]


def test_cancel_failure_and_progress(widget, client):
    from NeuraxisLib.errors import WorkerError

    widget.ui.applyButton.click()
    client.progress(0.3, "Looking for motion", 20.0)
    widget._panel.run.on_timer()
    assert widget.ui.progressBar.value == 30 and widget.ui.statusLabel.text == "Looking for motion, about 20 s left"
    assert not widget.ui.applyButton.enabled
    widget.ui.cancelButton.click()
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text == "Cancelled; nothing was changed." and nodes(widget) == {}
    widget.ui.applyButton.click()
    client.fail(WorkerError("Memory ran out; close other programs and run again."))
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text.startswith("Memory ran out") and widget.ui.applyButton.enabled


def test_a_map_over_the_image_and_the_layout_before(application, widget, client):  # noqa: F811
    from NeuraxisLib import scene_views

    run(widget, client)
    widget.ui.layoutButton.click()
    assert application.layout.layout == 3 and not widget.ui.layoutButton.checked
    widget.ui.mapComboBox.setCurrentIndex(widget.ui.mapComboBox.findData("tmax"))
    red = scene_views.composite_of("Red")
    assert red.GetForegroundVolumeID() == nodes(widget)["map tmax"].GetID()
    widget.ui.overlayOpacitySlider.value = 0.35
    assert red.GetForegroundOpacity() == pytest.approx(0.35)
    widget.ui.mapComboBox.setCurrentIndex(0)
    assert red.GetForegroundVolumeID() is None


def test_closing_the_scene_during_a_run_and_with_a_result(application, widget, client):  # noqa: F811
    run(widget, client)
    widget.ui.applyButton.click()
    application.scene.Clear(0)
    widget._panel.run.on_timer()
    assert client.handle.state == "cancelled" and not widget.ui.applyButton.enabled
    assert widget.ui.segmentsTableView.segmentCount == 0 and not widget.ui.layoutButton.enabled


def test_a_scene_bundle_brings_panel_and_lesions_back(application, widget, client, tmp_path):  # noqa: F811
    run(widget, client)
    widget.ui.nihssSpinBox.value = 9
    core = number(widget, "Core volume")
    assert application.scene.WriteToMRB(str(tmp_path / "case.mrb"))
    application.scene.Clear(0)
    assert application.scene.ReadFromMRB(str(tmp_path / "case.mrb"))
    application.app.processEvents()
    assert widget.ui.nihssSpinBox.value == 9 and number(widget, "Core volume") == core
    before = volume_ml(widget, 1) + volume_ml(widget, 2)
    list(drag(widget.ui.lateSlider, 9.0))
    assert volume_ml(widget, 1) + volume_ml(widget, 2) < before


def test_frames_without_times_ask_for_the_interval(widget, client, frames):
    frames.SetIndexUnit("")
    widget._panel.refresh()
    assert not widget.ui.applyButton.enabled and "seconds between frames" in widget.ui.applyButton.toolTip
    widget.ui.intervalSpinBox.value = 1.5
    assert widget.ui.applyButton.enabled
    widget.ui.applyButton.click()
    assert client.handle.job.options["interval_s"] == 1.5


def test_leaving_the_module_keeps_the_run(application, widget, client):  # noqa: F811
    widget.ui.applyButton.click()
    application.leave(widget)
    client.answer()
    widget._panel.run.on_timer()
    application.enter(widget)
    assert widget.ui.segmentsTableView.segmentCount == 2


def test_missing_packages_are_named_and_offered(application, client, frames, monkeypatch):  # noqa: F811
    lack(monkeypatch, "torch")
    widget = application.new_widget("StrokeCTP")
    assert "torch" in widget.ui.installLabel.text and not widget.ui.applyButton.enabled
    widget.ui.installButton.click()
    assert widget.ui.installFrame.isHidden() and widget.ui.applyButton.enabled
    application.close_widget(widget)


def test_closing_the_panel_stops_the_worker(application, client, frames):  # noqa: F811
    widget = application.new_widget("StrokeCTP")
    widget.ui.applyButton.click()
    application.close_widget(widget)
    assert client.stopped
