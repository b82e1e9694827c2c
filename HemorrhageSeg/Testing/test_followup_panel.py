"""The follow-up's section of the hemorrhage panel on the stand-in for Slicer: two scans in, change and pictures out."""

from __future__ import annotations

from pathlib import Path

import pytest

from NeuraxisLib.errors import InputError
from Testing.slicer_stand_in.fake_worker import FOLLOW_UP_RULE, FakeClient, bleed_result, compute_with, follow_up_result
from Testing.slicer_stand_in.fixtures import add_head, application, stand_in  # noqa: F401


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A fake worker behind the module's real logic."""
    fake = FakeClient(tmp_path)
    compute_with(monkeypatch, fake)
    return fake


@pytest.fixture
def scans(client):
    """(earlier, later) volumes."""
    later, earlier = add_head("Second"), add_head("First")
    return earlier, later


@pytest.fixture
def widget(application, client, scans):  # noqa: F811
    """The panel, opened with the later scan as its head CT."""
    panel = application.new_widget("HemorrhageSeg")
    panel._parameterNode.inputVolume = scans[1]
    yield panel
    application.close_widget(panel)


@pytest.fixture
def ui(widget):
    """Widgets of the section, which is unfolded."""
    widget._followUp.top.collapsed = False
    return widget._followUp.ui


def compare(widget, client, scans):
    """Choose the earlier scan, click, and let the fake worker finish."""
    widget._followUp.ui.earlierSelector.setCurrentNode(scans[0])
    widget._followUp.ui.compareButton.click()
    client.finish(follow_up_result(client.handle.job.volume))
    widget._panel.run.on_timer()


def shown(application):  # noqa: F811
    """(background, foreground, its opacity) of the axial view."""
    import slicer

    composite = application.layout.sliceWidget("Red").mrmlSliceCompositeNode()
    names = [slicer.mrmlScene.GetNodeByID(i).GetName() if i else "" for i in (
        composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID())]  # fmt: skip
    return (*names, composite.GetForegroundOpacity())


def test_button_says_what_is_missing(widget, ui, scans):
    assert not ui.compareButton.enabled and ui.compareButton.toolTip == "Choose the earlier scan first."
    assert ui.changeFrame.isHidden()
    ui.earlierSelector.setCurrentNode(scans[0])
    assert ui.compareButton.enabled and widget._parameterNode.earlierVolume is scans[0]
    widget._parameterNode.inputVolume = None
    assert not ui.compareButton.enabled and "later scan" in ui.compareButton.toolTip


def test_worker_gets_both_scans_and_the_results_that_are_there(widget, ui, client, scans):
    widget.ui.applyButton.click()
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()
    ui.earlierSelector.setCurrentNode(scans[0])
    ui.compareButton.click()
    job = client.handle.job
    assert job.task == "followup" and list(job.inputs) == ["baseline", "later"] and job.model == ""
    assert job.options["model"] == "starter" or job.options["model"] == widget._parameterNode.modelName
    assert job.options["baseline_result"] == ""
    assert Path(job.options["later_result"]) == widget.logic.resultFolder(scans[1])
    assert widget.ui.cancelButton.enabled and not ui.compareButton.enabled
    widget.ui.cancelButton.click()
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text == "Cancelled; nothing was changed." and ui.compareButton.enabled
    assert widget.logic.resultFolder(scans[1]) is not None


def test_change_is_large_with_its_interval_and_verdict(widget, ui, client, scans):
    compare(widget, client, scans)
    assert "font-size:xx-large" in ui.changeLabel.text and "+8.50 mL (+142.0 %)" in ui.changeLabel.text
    assert "6.50 to 11.0 mL" in ui.changeLabel.text and "6.50 h between" in ui.changeLabel.text
    assert f"Expansion {FOLLOW_UP_RULE.replace('>', '&gt;')}: yes as measured, certain given" in ui.expansionLabel.text
    assert ui.partsLabel.text == "unchanged 5.90 mL, new 9.60 mL"
    assert ui.followUpWarningsLabel.text == "Later scan: look twice."
    assert "#d55e00" in ui.legendLabel.text and "New" in ui.legendLabel.text
    assert widget.ui.statusLabel.text.startswith("Compared.")


def test_changes_are_seen_over_the_earlier_scan(application, widget, ui, client, scans):  # noqa: F811
    from NeuraxisLib import scene

    compare(widget, client, scans)
    assert ui.growthCheckBox.checked and shown(application)[0] == "First"
    pixels = application.layout.sliceWidget("Red").sliceView().pixels().astype(int)
    orange = (pixels[..., 0] > pixels[..., 2] + 40) & (pixels[..., 1] < pixels[..., 0] - 20)
    assert orange.sum() > 200
    ui.growthCheckBox.click()
    assert shown(application)[0] == "Second"
    assert not scene.result_nodes(scans[0], "followup")["labels"].GetDisplayNode().GetVisibility()


def test_outlines_of_the_scans_make_room_and_come_back(widget, ui, client, scans):
    from NeuraxisLib import scene

    widget.ui.applyButton.click()
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()
    outline = scene.result_nodes(scans[1], "hemorrhage")["labels"].GetDisplayNode()
    compare(widget, client, scans)
    assert not outline.GetVisibility()
    ui.growthCheckBox.click()
    assert outline.GetVisibility()


def test_fading_to_the_later_scan_in_grey(application, widget, ui, client, scans):  # noqa: F811
    from NeuraxisLib import scene

    compare(widget, client, scans)
    ui.laterSlider.value = 1.0
    node = scene.result_nodes(scans[0], "followup")["map later"]
    assert shown(application)[1:] == (node.GetName(), 1.0)
    assert node.GetDisplayNode().GetColorNodeID() == "vtkMRMLColorTableNodeGrey"
    widget._panel.refresh()
    assert shown(application)[1] == node.GetName(), "a refresh leaves it there"
    ui.laterSlider.value = 0.0
    assert shown(application)[1] == ""


def test_next_change_goes_to_the_slice_with_most(widget, ui, client, scans):
    compare(widget, client, scans)
    ui.nextChangeButton.click()
    assert widget.ui.statusLabel.text == "Slice 13 of the earlier scan, number 1 of 2 with a change."
    ui.nextChangeButton.click()
    assert widget.ui.statusLabel.text.startswith("Slice 14 ")


def test_report_and_folder(application, widget, ui, client, scans, tmp_path):  # noqa: F811
    compare(widget, client, scans)
    application.recorded.answers.append(str(tmp_path / "saved.html"))
    ui.changeReportButton.click()
    assert (tmp_path / "saved.html").is_file()
    ui.changeFolderButton.click()
    assert len(application.recorded.opened) == 1


def test_another_pair_shows_no_numbers_of_this_one(widget, ui, client, scans):
    compare(widget, client, scans)
    third = add_head("Third")
    widget._parameterNode.inputVolume = third
    assert ui.changeFrame.isHidden()
    widget._parameterNode.inputVolume = scans[1]
    assert not ui.changeFrame.isHidden()


def test_scene_can_close_with_a_result(application, widget, ui, client, scans):  # noqa: F811
    compare(widget, client, scans)
    application.scene.Clear(0)
    assert ui.changeFrame.isHidden() and not ui.compareButton.enabled


def in_study(node, patient: str, date: str, time: str):
    """File a volume as DICOM loading does."""
    import slicer

    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    top = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), patient)
    hierarchy.SetItemUID(top, "DICOM", patient)
    study = hierarchy.CreateStudyItem(top, "Study")
    hierarchy.SetItemAttribute(study, "DICOM.StudyDate", date)
    hierarchy.SetItemAttribute(study, "DICOM.StudyTime", time)
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)


def test_time_and_order_come_from_the_dicom_studies(widget, client, scans):
    from HemorrhageSegLib.scene_followup import hours_between

    in_study(scans[0], "A", "20260301", "101500")
    in_study(scans[1], "A", "20260302", "091500")
    assert hours_between(*scans) == 23.0
    with pytest.raises(InputError, match="exchange them"):
        hours_between(*reversed(scans))
    compare(widget, client, scans)
    assert client.handle.job.options["hours_between"] == 23.0


def test_other_patient_is_refused_before_anything_runs(widget, ui, client, scans):
    in_study(scans[0], "A", "20260301", "101500")
    in_study(scans[1], "B", "20260302", "091500")
    ui.earlierSelector.setCurrentNode(scans[0])
    ui.compareButton.click()
    assert "different patient ids" in widget.ui.statusLabel.text and client.handle is None


def test_console_call_waits_and_returns_the_nodes(widget, client, scans, monkeypatch):
    monkeypatch.setattr(client, "wait", lambda handle: client.finish(follow_up_result(handle.job.volume)))
    nodes = widget.logic.followUp(*scans, wait=True)
    assert nodes.tables["measurements"].GetNodeReferenceID("NeuraxisLater") == scans[1].GetID()
    assert widget.logic.followUpFolder(scans[0]) is not None
