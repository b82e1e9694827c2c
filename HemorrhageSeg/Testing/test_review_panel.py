"""Editing and reviewing in the real panel on the stand-in: every button of the section."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from review_panel_support import (  # noqa: F401
    VOXEL_ML,
    application,
    client,
    head,
    nodes,
    paint_bleed,
    rows,
    run,
    settle,
    stand_in,
    ui,
    widget,
)

from Testing.slicer_stand_in.fake_worker import bleed_result
from Testing.slicer_stand_in.fixtures import add_head
from Testing.slicer_stand_in.segment_editor import paint

# -- editing ------------------------------------------------------------------------------------------------------


def test_edit_button_opens_segment_editor_with_segments_and_image(application, widget, ui, head):  # noqa: F811
    segmentation = nodes(head)["labels"]
    before = segmentation.GetSegmentation().GetSegment("Segment_1")
    named, color = before.GetTerminology() if hasattr(before, "GetTerminology") else "", before.GetColor()
    ui.editButton.click()
    import slicer

    panel = slicer.modules.segmenteditor.widgetRepresentation()
    assert panel.isEntered and not widget.parent.isEntered
    editor = panel.self().editor
    assert editor.segmentationNode() is segmentation and editor.sourceVolumeNode() is head
    assert editor.currentSegmentID() == "Segment_1"
    paint_bleed(head)
    after = segmentation.GetSegmentation().GetSegment("Segment_1")
    assert after.GetColor() == color and after.GetName() == "Hemorrhage"
    assert (after.GetTerminology() if hasattr(after, "GetTerminology") else "") == named


def test_measures_follow_an_edit_and_lose_their_interval(application, widget, ui, head):  # noqa: F811
    assert rows(widget)["Total volume"][:3] == ["6.00", "mL", "5.40 to 6.60"] and not ui.revertButton.enabled
    ui.editButton.click()
    paint_bleed(head)
    settle(application, widget)
    application.enter(widget)
    assert rows(widget)["Total volume"][:3] == ["8.00", "mL", "edited by hand"]
    assert rows(widget)["Slices touched"][0] == "4"
    assert "edited by hand</td>" in widget.ui.headlineLabel.text, "words have no unit"
    assert ui.revertButton.enabled and not ui.editedLabel.isHidden()
    assert "Edited by hand: Total volume 8.00 mL (was 6.00)" in " ".join(application.recorded.status)


def test_many_strokes_are_measured_once(application, widget, head, monkeypatch):  # noqa: F811
    from NeuraxisLib import scene_review_edits

    counted = []
    real = scene_review_edits.corrected
    monkeypatch.setattr(scene_review_edits, "corrected", lambda *given: counted.append(1) or real(*given))
    for size in (4, 8, 12, 16, 20):
        paint_bleed(head, size)
        application.app.processEvents()
    assert counted == []
    settle(application, widget)
    assert counted == [1] and rows(widget)["Total volume"][0] == "8.00"


def test_back_to_the_networks_outline(application, widget, ui, head):  # noqa: F811
    from NeuraxisLib.scene_review_result import label_table, labels_of

    table, labels = rows(widget), labels_of(nodes(head)["labels"], head, label_table("hemorrhage"))
    paint_bleed(head)
    settle(application, widget)
    assert rows(widget) != table
    ui.revertButton.click()
    assert rows(widget) == table and not ui.revertButton.enabled and ui.editedLabel.isHidden()
    assert np.array_equal(labels_of(nodes(head)["labels"], head, label_table("hemorrhage")), labels)
    assert set(nodes(head)) == {"labels", "map entropy", "table measurements"}


def test_a_removed_segment_counts_as_empty_and_comes_back(application, widget, ui, head):  # noqa: F811
    segmentation = nodes(head)["labels"].GetSegmentation()
    mine = segmentation.AddEmptySegment("", "mine")
    segmentation.RemoveSegment("Segment_1")
    settle(application, widget)
    assert float(rows(widget)["Total volume"][0]) == 0 and rows(widget)["ABC/2"][0] == "\u2013"
    ui.revertButton.click()
    assert rows(widget)["Total volume"][0] == "6.00"
    assert segmentation.GetSegment("Segment_1").GetName() == "Hemorrhage" and segmentation.GetSegment(mine) is not None


def test_segments_of_another_kind_are_told_of(application, widget, ui, head):  # noqa: F811
    """What a person adds is measured in the panel alone, which says so, once and in place, until it is gone."""
    segmentation = nodes(head)["labels"].GetSegmentation()
    mine = segmentation.AddEmptySegment("", "Oedema")
    settle(application, widget)
    told = "'Oedema' is none of this task's segments: in the table, but in no report and no export."
    told += " Paint in 'Hemorrhage'."
    assert ui.editedLabel.text == told and not ui.editedLabel.isHidden() and told in application.recorded.status
    assert rows(widget)["Total volume"][:3] == ["6.00", "mL", "5.40 to 6.60"] and not ui.revertButton.enabled
    paint_bleed(head)
    settle(application, widget)
    assert ui.editedLabel.text.startswith("The outline was edited by hand") and ui.editedLabel.text.endswith(told)
    segmentation.RemoveSegment(mine)
    settle(application, widget)
    assert "Oedema" not in ui.editedLabel.text and not ui.editedLabel.isHidden()


def test_a_segment_of_one_s_own_is_measured_beside_the_task_s(application, widget, client, ui, head):  # noqa: F811
    """Its mL stand in the table while the outline is found, edited, and found again, and never in the files."""
    from NeuraxisLib.result_folder import read_result
    from NeuraxisLib.scene_tables import table_rows

    mine = nodes(head)["labels"].GetSegmentation().AddEmptySegment("", "Oedema")
    mask = np.zeros((24, 64, 64), bool)
    mask[5, 10:20, 10:30] = True
    paint(nodes(head)["labels"], mine, mask, head)
    settle(application, widget)
    found = ["6.00", "mL", "5.40 to 6.60"]
    assert rows(widget)["Volume of Oedema"][:3] == ["4.00", "mL", ""] and rows(widget)["Total volume"][:3] == found
    paint_bleed(head)
    settle(application, widget)
    assert rows(widget)["Volume of Oedema"][0] == "4.00" and rows(widget)["Total volume"][0] == "8.00"
    mask[6] = mask[5]
    paint(nodes(head)["labels"], mine, mask, head)
    settle(application, widget)
    assert rows(widget)["Volume of Oedema"][0] == "8.00"
    ui.acceptButton.click()
    kept = read_result(client.handle.result_folder)
    assert "Volume of Oedema" not in {m.name for m in kept.measurements} and set(np.unique(kept.labels.array)) == {0, 1}
    ui.revertButton.click()
    assert rows(widget)["Volume of Oedema"][0] == "8.00" and rows(widget)["Total volume"][:3] == found
    widget.ui.inputSelector.setCurrentNode(add_head("Doe Jane"))
    widget.ui.inputSelector.setCurrentNode(head)
    names = [row[0] for row in table_rows(nodes(head)["table measurements"])]
    assert names.count("Volume of Oedema") == 1
    nodes(head)["labels"].GetSegmentation().RemoveSegment(mine)
    settle(application, widget)
    assert "Volume of Oedema" not in rows(widget) and rows(widget)["Total volume"][:3] == found


def test_a_new_run_asks_before_an_edit_is_lost(application, widget, client, ui, head, monkeypatch):  # noqa: F811
    import slicer

    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", asked.append)  # which is no
    job = client.handle
    paint_bleed(head)
    settle(application, widget)
    widget.ui.applyButton.click()
    assert len(asked) == 1 and "replaces your corrections" in asked[0] and client.handle is job
    assert widget.ui.statusLabel.text == "Nothing was started; your corrections are kept."
    assert rows(widget)["Total volume"][0] == "8.00" and not widget._panel.run.is_running
    ui.revertButton.click()
    widget.ui.applyButton.click()
    assert len(asked) == 1 and client.handle is not job, "an outline that nobody has edited is no loss"
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()


def test_a_new_run_is_no_edit(application, widget, client, ui, head, monkeypatch):  # noqa: F811
    import slicer

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda question: True)
    paint_bleed(head)
    settle(application, widget)
    run(widget, client)
    settle(application, widget)
    assert rows(widget)["Total volume"][2] == "5.40 to 6.60" and not ui.revertButton.enabled
    assert "labels as found" not in nodes(head)


def test_edits_survive_saving_and_loading_the_scene(application, widget, ui, head, tmp_path):  # noqa: F811
    paint_bleed(head)
    settle(application, widget)
    assert application.scene.WriteToMRB(str(tmp_path / "case.mrb"))
    application.scene.Clear(0)
    assert application.scene.ReadFromMRB(str(tmp_path / "case.mrb"))
    application.app.processEvents()
    settle(application, widget)
    assert rows(widget)["Total volume"][:3] == ["8.00", "mL", "edited by hand"] and ui.revertButton.enabled
    ui.revertButton.click()
    assert rows(widget)["Total volume"][:3] == ["6.00", "mL", "5.40 to 6.60"]


def test_report_and_files_say_what_was_edited(application, widget, client, ui, head, tmp_path):  # noqa: F811
    from NeuraxisLib.result_folder import read_result

    folder = client.handle.result_folder
    mask = paint_bleed(head)
    settle(application, widget)
    application.recorded.answers.append(str(tmp_path / "saved.html"))
    widget.ui.saveReportButton.click()
    assert "A person has edited this outline" in (tmp_path / "saved.html").read_text()
    result = read_result(folder)
    assert np.array_equal(result.labels.array, mask) and result.provenance["corrected"]["voxels_added"] == 100
    total = result.measurements[0]
    assert total.value == pytest.approx(400 * VOXEL_ML) and total.interval is None
    ui.revertButton.click()
    widget.ui.openFolderButton.click()
    result = read_result(folder)
    assert result.labels.array.sum() == 300 and result.measurements[0].interval == pytest.approx((5.4, 6.6))
    assert "corrected" not in result.provenance and not (folder / "as_found.json").exists()


# -- verdicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, verdict", [("accept", "accepted"), ("corrected", "corrected"), ("reject", "rejected")])
def test_verdict_is_saved_with_the_result_and_taken_back(widget, client, ui, head, name, verdict):  # noqa: F811
    from NeuraxisLib import __version__
    from NeuraxisLib.result_folder import read_result
    from NeuraxisLib.review import fingerprint_of, read_review

    folder, button = client.handle.result_folder, getattr(ui, f"{name}Button")
    ui.commentLineEdit.text, ui.initialsLineEdit.text = "thin rim at the tentorium", "AB"
    button.click()
    saved = read_review(folder)
    assert (saved.verdict, saved.comment, saved.reader) == (verdict, "thin rim at the tentorium", "AB")
    assert saved.sha256 == fingerprint_of(read_result(folder)) and saved.software == __version__
    assert button.checked and ui.casesList.item(0).text() == f"Smith John: {verdict}"
    button.click()
    assert read_review(folder) is None and not button.checked
    assert ui.casesList.item(0).text() == "Smith John: not reviewed"


def test_another_verdict_replaces_the_first(widget, client, ui):  # noqa: F811
    ui.acceptButton.click()
    ui.rejectButton.click()
    assert (ui.acceptButton.checked, ui.rejectButton.checked) == (False, True)


def test_comment_changed_later_is_saved(widget, client, ui):  # noqa: F811
    from NeuraxisLib.review import read_review

    ui.acceptButton.click()
    ui.commentLineEdit.text = "second look"
    ui.commentLineEdit.editingFinished.emit()
    assert read_review(client.handle.result_folder).comment == "second look"
    ui.initialsLineEdit.text = "CD"
    ui.initialsLineEdit.editingFinished.emit()
    assert read_review(client.handle.result_folder).reader == "CD"
    ui.initialsLineEdit.text = "12 3"
    ui.initialsLineEdit.editingFinished.emit()
    assert "no initials" in widget.ui.statusLabel.text and read_review(client.handle.result_folder).reader == "CD"


def test_initials_are_remembered(application, client, head):  # noqa: F811
    for typed, shown in (("EF", "EF"), ("12 3", "EF")):
        panel = application.new_widget("HemorrhageSeg")
        panel._panel.review.ui.initialsLineEdit.text = typed
        panel._panel.review.ui.initialsLineEdit.editingFinished.emit()
        application.close_widget(panel)
        panel = application.new_widget("HemorrhageSeg")
        assert panel._panel.review.ui.initialsLineEdit.text == shown
        application.close_widget(panel)


def test_accepting_an_edited_outline_corrects_it(application, widget, client, ui, head):  # noqa: F811
    from NeuraxisLib.result_folder import read_result
    from NeuraxisLib.review import reviewed_case

    paint_bleed(head)
    settle(application, widget)
    ui.acceptButton.click()
    case = reviewed_case(client.handle.result_folder)
    assert case.review.verdict == "corrected" and case.is_current
    assert "counts as corrected" in widget.ui.statusLabel.text
    assert read_result(client.handle.result_folder).labels.array.sum() == 400


def test_an_edit_after_the_verdict_is_told(application, widget, ui, head):  # noqa: F811
    ui.acceptButton.click()
    paint_bleed(head)
    settle(application, widget)
    assert "changed after that" in ui.verdictLabel.text


def test_verdict_comes_back_with_the_scene(application, widget, ui, head, tmp_path):  # noqa: F811
    ui.commentLineEdit.text = "good"
    ui.acceptButton.click()
    assert application.scene.WriteToMRB(str(tmp_path / "case.mrb"))
    application.scene.Clear(0)
    assert not ui.acceptButton.enabled and not ui.acceptButton.checked
    assert application.scene.ReadFromMRB(str(tmp_path / "case.mrb"))
    application.app.processEvents()
    assert ui.acceptButton.checked and ui.commentLineEdit.text == "good"


def test_next_unreviewed_case_and_the_list(application, widget, client, ui, head):  # noqa: F811
    other = add_head("Doe Jane")
    widget.ui.inputSelector.setCurrentNode(other)
    run(widget, client)
    ui.commentLineEdit.text = "of Jane"
    ui.acceptButton.click()
    assert [ui.casesList.item(row).text() for row in range(2)] == ["Smith John: not reviewed", "Doe Jane: accepted"]
    ui.nextCaseButton.click()
    assert widget.ui.inputSelector.currentNode() is head and ui.commentLineEdit.text == ""
    red = application.layout.sliceWidget("Red").mrmlSliceCompositeNode()
    assert red.GetBackgroundVolumeID() == head.GetID()
    shown = [nodes(volume)["labels"].GetDisplayNode().GetVisibility() for volume in (head, other)]
    assert shown == [1, 0], "outlines of other cases do not lie over this one"
    widget.ui.inputSelector.setCurrentNode(other)
    assert nodes(other)["labels"].GetDisplayNode().GetVisibility() == 1, "and come back with their case"
    widget.ui.inputSelector.setCurrentNode(head)
    ui.rejectButton.click()
    assert not ui.nextCaseButton.enabled
    ui.casesList.itemClicked.emit(ui.casesList.item(1))
    assert widget.ui.inputSelector.currentNode() is other and ui.commentLineEdit.text == "of Jane"


def test_a_result_that_was_opened_from_its_folder_is_reviewed_there(application, widget, ui, tmp_path):  # noqa: F811
    """As the batch panel opens one: its verdict is shown, and a new one goes into its folder."""
    from NeuraxisLib import scene, scene_runs
    from NeuraxisLib.result_folder import read_result, write_result
    from NeuraxisLib.review import fingerprint_of, new_review, read_review, write_review

    other = add_head("From a batch")
    folder = write_result(bleed_result(scene.volume_from_node(other)), tmp_path / "batch" / "case", report=False)
    write_review(folder, new_review("rejected", fingerprint_of(read_result(folder)), "motion", "GH"))
    scene_runs.loaded_from(scene.show_result(read_result(folder), other), folder)
    widget.ui.inputSelector.setCurrentNode(other)
    assert ui.rejectButton.checked and ui.commentLineEdit.text == "motion" and ui.initialsLineEdit.text == "GH"
    paint_bleed(other)
    settle(application, widget)
    ui.acceptButton.click()
    assert read_review(folder).verdict == "corrected" and read_result(folder).labels.array.sum() == 400


# -- export -------------------------------------------------------------------------------------------------------


def test_export_writes_usable_cases_without_names(application, widget, client, ui, head, tmp_path):  # noqa: F811
    from NeuraxisLib.files import read_volume

    assert not ui.exportButton.enabled
    mask = paint_bleed(head)
    settle(application, widget)
    ui.commentLineEdit.text = "of Smith"
    ui.correctedButton.click()
    other = add_head("Doe Jane", np.diag([-1.0, -1.0, 5.0, 1.0]))
    widget.ui.inputSelector.setCurrentNode(other)
    run(widget, client)
    ui.rejectButton.click()
    chosen = tmp_path / "training"
    chosen.mkdir()
    application.recorded.answers.append(str(chosen))
    ui.exportButton.click()
    assert widget.ui.statusLabel.text == "1 case exported. Left out: 'Doe Jane': it was rejected."
    (row,) = csv.DictReader((chosen / "hemorrhage" / "cases.csv").open())
    truth = read_volume(chosen / "hemorrhage" / row["truth"])
    assert np.array_equal(truth.array, mask) and row["patient"] == row["id"]
    from NeuraxisLib import scene

    assert np.allclose(truth.ijk_to_ras, scene.ijk_to_world(head)), "on the grid of the scan, tilt and all"
    text = "".join(p.name + p.read_text(errors="ignore") for p in chosen.rglob("*") if p.is_file())
    assert "Smith" not in text and "Jane" not in text
    about = json.loads((chosen / "about.json").read_text())
    assert about["prepare"]["hemorrhage"] == "neuraxis prepare hemorrhage hemorrhage.h5 --layout csv"
    application.recorded.answers.append(str(chosen))
    ui.exportButton.click()
    assert (chosen / "corrected cases" / "about.json").is_file(), "nothing that lies there is touched"
