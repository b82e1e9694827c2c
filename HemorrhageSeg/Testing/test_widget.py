"""The real panel on the stand-in for Slicer: clicks, pictures, cancelling, closing and loading scenes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from NeuraxisLib.errors import WorkerError
from Testing.slicer_stand_in.fake_worker import FakeClient, bleed_result, compute_with, installed_model, lack
from Testing.slicer_stand_in.fixtures import add_head, application, head_array, reddish, stand_in  # noqa: F401


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A fake worker behind the module's real logic, with two models installed and nothing missing."""
    fake = FakeClient(tmp_path)
    compute_with(monkeypatch, fake, [installed_model(title, dice=0.913) for title in ("Starter", "Large")])
    return fake


@pytest.fixture
def head(client):
    """A volume in the scene."""
    return add_head()


@pytest.fixture
def widget(application, client, head):  # noqa: F811
    """The panel, opened on a scene with a head."""
    panel = application.new_widget("HemorrhageSeg")
    yield panel
    application.close_widget(panel)


@pytest.fixture
def red(application):  # noqa: F811
    """The axial view."""
    return application.layout.sliceWidget("Red")


def run(widget, client):
    """Click the button and let the fake worker finish."""
    widget.ui.applyButton.click()
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()


def show_bleed(head):
    """Turn the axial view to the slice with the bleed."""
    from NeuraxisLib import scene

    scene.show_slice(head, 12)


def nodes():
    """How many nodes of each kind results are made of."""
    import slicer

    kinds = ("vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode", "vtkMRMLTableNode")
    return [slicer.mrmlScene.GetNumberOfNodesByClass(kind) for kind in kinds]


def test_first_suitable_volume_is_chosen_and_the_button_is_ready(widget, head):
    assert widget.ui.inputSelector.currentNode() is head
    assert widget.ui.applyButton.enabled and not widget.ui.cancelButton.enabled
    assert "esearch use" in widget.ui.noticeLabel.text


def test_without_a_volume_the_button_says_what_to_do(application, client):  # noqa: F811
    widget = application.new_widget("HemorrhageSeg")
    assert not widget.ui.applyButton.enabled
    assert widget.ui.applyButton.toolTip == "Choose a volume first."
    application.close_widget(widget)


def test_model_and_device_go_to_the_worker(widget, client):
    assert "Trained on simulation, research use only." in widget.ui.modelCardLabel.text
    assert "Apache-2.0" in widget.ui.modelCardLabel.text and "0.913" in widget.ui.modelCardLabel.text
    widget.ui.modelComboBox.setCurrentIndex(1)
    widget.ui.deviceComboBox.setCurrentIndex(widget.ui.deviceComboBox.findData("cpu"))
    widget.ui.applyButton.click()
    assert (client.handle.job.model, client.handle.job.device) == ("large", "cpu")
    assert "Large" in widget.ui.modelCardLabel.text


def test_worker_gets_the_image_with_its_tilted_geometry(widget, client):
    widget.ui.applyButton.click()
    assert np.array_equal(client.handle.job.volume.array, head_array())
    assert client.handle.job.volume.is_sheared and client.handle.job.volume.unit == "HU"


def test_progress_shows_stage_and_time_left(widget, client):
    widget.ui.applyButton.click()
    client.progress(0.42, "Finding the brain", 12.0)
    widget._panel.run.on_timer()
    assert widget.ui.progressBar.value == 42
    assert widget.ui.statusLabel.text == "Finding the brain, about 12 s left"
    assert not widget.ui.applyButton.enabled and widget.ui.cancelButton.enabled


def test_timer_polls_by_itself(application, widget, client):  # noqa: F811
    import time

    widget.ui.applyButton.click()
    client.finish(bleed_result(client.handle.job.volume))
    until = time.monotonic() + 10
    while widget._panel.run.is_running and time.monotonic() < until:
        application.app.processEvents()
    assert not widget._panel.run.is_running


def test_result_is_seen_in_table_segments_and_slices(application, widget, client, head, red):  # noqa: F811
    show_bleed(head)
    before = red.sliceView().pixels()
    run(widget, client)
    after = red.sliceView().pixels()
    assert reddish(before) == 0 and reddish(after) > 200
    table = widget.ui.resultTableView.model()
    assert [table.item(row, 0).text() for row in range(3)] == ["Total volume", "ABC/2", "Bleeds"]
    assert table.item(0, 1).text() == "6.00" and table.item(0, 3).text() == "5.40 to 6.60"
    assert widget.ui.segmentsTableView.segmentCount == 1
    assert widget.ui.statusLabel.text.startswith("Done.") and application.recorded.dialogs == []


def test_segment_visibility(widget, client, head, red):
    show_bleed(head)
    run(widget, client)
    eye = widget.ui.segmentsTableView.tableWidget().item(0, 0)
    eye.setCheckState(type(eye.checkState()).Unchecked)
    assert reddish(red.sliceView().pixels()) == 0


def test_overlay_and_its_opacity_change_the_picture(widget, client, head, red):
    show_bleed(head)
    run(widget, client)
    plain = red.sliceView().pixels()
    widget.ui.overlayCheckBox.click()
    half = red.sliceView().pixels()
    assert reddish(half) > reddish(plain) + 200
    widget.ui.overlayOpacitySlider.value = 1.0
    full = red.sliceView().pixels()
    image = np.s_[:, : plain.shape[1] * 3 // 4]  # beside it is the legend, the same at every opacity
    first, second = (np.abs(b[image].astype(int) - a[image]).sum() for a, b in ((plain, half), (half, full)))
    assert second > first / 2
    widget.ui.overlayCheckBox.click()
    assert np.array_equal(red.sliceView().pixels(), plain)


def test_next_uncertain_slice_walks_through_the_slices(widget, client, head, red):
    from NeuraxisLib import scene

    run(widget, client)
    center = [31.5, 31.5]
    for k in (14, 11, 12, 14):
        widget.ui.nextSliceButton.click()
        to_slice = np.linalg.inv([[red.mrmlSliceNode().GetSliceToRAS().GetElement(i, j) for j in range(4)] for i in range(4)])  # noqa: E501
        for corner in ([0, 0], [63, 0], [0, 63], center):
            assert abs((to_slice @ scene.ijk_to_world(head) @ [*corner, k, 1])[2]) < 1e-3
        assert widget.ui.statusLabel.text.startswith(f"Slice {k + 1},")


def test_3d_only_on_demand(application, widget, client, head):  # noqa: F811
    from NeuraxisLib import scene

    view = application.layout.threeDWidget(0).threeDView()
    run(widget, client)
    segmentation = scene.result_nodes(head, "hemorrhage")["labels"]
    assert not scene.is_shown_3d(segmentation)
    before = reddish(view.pixels())
    widget.ui.show3DButton.click()
    assert scene.is_shown_3d(segmentation) and reddish(view.pixels()) > before + 100
    widget.ui.show3DButton.click()
    assert not scene.is_shown_3d(segmentation) and reddish(view.pixels()) == before


def test_running_again_replaces_the_result(widget, client, head):
    from NeuraxisLib import scene

    run(widget, client)
    first, counts = scene.result_nodes(head, "hemorrhage"), nodes()
    widget.ui.applyButton.click()
    client.finish(bleed_result(client.handle.job.volume, size=4))
    widget._panel.run.on_timer()
    assert nodes() == counts and scene.result_nodes(head, "hemorrhage") == first
    assert widget.ui.resultTableView.model().item(0, 1).text() == "0.96"
    assert len(client.released) == 1


def test_failure_is_one_sentence_and_changes_nothing(application, widget, client, head):  # noqa: F811
    counts = nodes()
    widget.ui.applyButton.click()
    client.fail(WorkerError("Memory ran out; close other programs and run again."))
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text == "Memory ran out; close other programs and run again."
    assert nodes() == counts and widget.ui.applyButton.enabled and application.recorded.dialogs == []
    assert client.released == [client.handle]


def test_cancel(widget, client):
    counts = nodes()
    widget.ui.applyButton.click()
    widget.ui.cancelButton.click()
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text == "Cancelled; nothing was changed."
    assert nodes() == counts and widget.ui.applyButton.enabled and not widget.ui.cancelButton.enabled
    assert client.released == [client.handle]


def test_closing_the_scene_during_a_run(application, widget, client, head):  # noqa: F811
    widget.ui.applyButton.click()
    application.scene.Clear(0)
    widget._panel.run.on_timer()
    assert client.handle.state == "cancelled" and nodes() == [0, 0, 0]
    assert not widget.ui.applyButton.enabled and not widget.ui.cancelButton.enabled
    add_head("Another")
    assert widget.ui.inputSelector.nodeCount() == 1


def test_result_of_a_removed_volume_is_dropped(application, widget, client, head):  # noqa: F811
    widget.ui.applyButton.click()
    application.scene.RemoveNode(head)
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()
    assert "removed" in widget.ui.statusLabel.text and nodes() == [0, 0, 0]


def test_closing_the_scene_with_a_result(application, widget, client, head, red):  # noqa: F811
    run(widget, client)
    widget.ui.overlayCheckBox.click()
    application.scene.Clear(0)
    assert widget.ui.segmentsTableView.segmentCount == 0 and not widget.ui.nextSliceButton.enabled
    assert reddish(red.sliceView().pixels()) == 0


def test_scene_bundle_brings_everything_back(application, widget, client, head, red, tmp_path):  # noqa: F811
    widget.ui.modelComboBox.setCurrentIndex(1)
    run(widget, client)
    widget.ui.overlayCheckBox.click()
    widget.ui.overlayOpacitySlider.value = 0.8
    assert application.scene.WriteToMRB(str(tmp_path / "case.mrb"))
    application.scene.Clear(0)
    assert application.scene.ReadFromMRB(str(tmp_path / "case.mrb"))
    application.app.processEvents()
    assert widget._parameterNode.modelName == "large" and widget.ui.modelComboBox.currentData == "large"
    assert widget.ui.overlayCheckBox.checked and widget.ui.overlayOpacitySlider.value == pytest.approx(0.8)
    assert widget.ui.inputSelector.currentNode().GetName() == "Head"
    assert widget.ui.resultTableView.model().item(0, 1).text() == "6.00"
    assert widget.ui.segmentsTableView.segmentCount == 1
    widget.ui.nextSliceButton.click()
    assert reddish(red.sliceView().pixels()) > 200
    assert widget.ui.openFolderButton.enabled, "the files of this session are still there"
    widget.logic.stop()
    widget.refresh()
    assert not widget.ui.openFolderButton.enabled and not widget.ui.saveReportButton.enabled


def test_a_new_scene_does_not_offer_the_report_of_the_old_one(application, widget, client):  # noqa: F811
    run(widget, client)
    application.scene.Clear(0)
    add_head("Another")  # gets the node id of the first
    widget._panel.enter()
    assert not widget.ui.saveReportButton.enabled


def test_report_and_folder(application, widget, client, head, tmp_path):  # noqa: F811
    assert not widget.ui.saveReportButton.enabled and not widget.ui.openFolderButton.enabled
    run(widget, client)
    application.recorded.answers.append(str(tmp_path / "saved.html"))
    widget.ui.saveReportButton.click()
    assert (tmp_path / "saved.html").read_text() == "<html>report</html>"
    application.recorded.answers.append(str(tmp_path / "no such folder" / "saved.html"))
    widget.ui.saveReportButton.click()
    assert "was not saved" in widget.ui.statusLabel.text
    widget.ui.openFolderButton.click()
    assert application.recorded.opened == [str(client.handle.result_folder)]


def test_leaving_the_module_keeps_the_run(application, widget, client, head):  # noqa: F811
    widget.ui.applyButton.click()
    application.leave(widget)
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()
    application.enter(widget)
    assert widget.ui.segmentsTableView.segmentCount == 1


def test_closing_the_panel_stops_the_worker(application, client, head):  # noqa: F811
    widget = application.new_widget("HemorrhageSeg")
    widget.ui.applyButton.click()
    application.close_widget(widget)
    assert client.stopped


def test_missing_packages_are_named_and_offered(application, client, head, monkeypatch):  # noqa: F811
    lack(monkeypatch, "torch", "safetensors>=0.4")
    widget = application.new_widget("HemorrhageSeg")
    assert "torch" in widget.ui.installLabel.text and not widget.ui.installFrame.isHidden()
    assert not widget.ui.applyButton.enabled
    widget.ui.installButton.click()
    assert widget.ui.installFrame.isHidden() and widget.ui.applyButton.enabled
    application.close_widget(widget)


def test_console_call_waits_and_returns_the_nodes(client, head):
    logic = sys.modules["HemorrhageSeg"].HemorrhageSegLogic()
    shown = logic.process(head, "large", device="cpu", threshold=0.4)
    assert client.handle.job.options == {"threshold": 0.4}
    assert shown.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert set(shown.tables) == {"measurements"} and logic.resultFolder(head).is_dir()
