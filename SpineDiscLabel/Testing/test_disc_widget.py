"""The real panel on the stand-in for Slicer: runs, every button clicked, points dragged, deleted, added, renamed."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from disc_panel_support import DiscClient, add_spine, candidates, discs_ras_mm, spine_mr

from NeuraxisLib.errors import WorkerError
from Testing.slicer_stand_in.fake_worker import compute_with, installed_model
from Testing.slicer_stand_in.fixtures import application, reddish, stand_in  # noqa: F401

LUMBAR = ["T12/L1", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"]
HIGHER = ["T11/T12", *LUMBAR[:-1]]


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A worker that answers when told to, behind the module's real logic; two models, nothing missing."""
    fake = DiscClient(tmp_path)
    compute_with(monkeypatch, fake, [installed_model(title, chains=0.85) for title in ("Starter", "Large")])
    return fake


@pytest.fixture
def spine(client):
    """A spine MR in the scene."""
    return add_spine()


@pytest.fixture
def widget(application, client, spine):  # noqa: F811
    """The panel, opened on a scene with a spine."""
    panel = application.new_widget("SpineDiscLabel")
    yield panel
    application.close_widget(panel)


def run(widget, client):
    """Click the button and let the worker finish."""
    widget.ui.applyButton.click()
    client.answer()
    widget._panel.run.on_timer()
    settle()


def settle():
    """Let what the panel has postponed happen."""
    import slicer

    slicer.app.processEvents()


def points(widget):
    """The point list of the result."""
    return widget.logic.resultNodes(widget.source())["points"]


def names(widget):
    """Names in the point list, from above."""
    node = points(widget)
    labels = [node.GetNthControlPointLabel(n) for n in range(node.GetNumberOfControlPoints())]
    return [label for _, label in sorted(zip(heights(node), labels), reverse=True)]


def heights(node):
    """S of every point in mm."""
    position = [0.0, 0.0, 0.0]
    found = []
    for index in range(node.GetNumberOfControlPoints()):
        node.GetNthControlPointPositionWorld(index, position)
        found.append(position[2])
    return found


def cells(view, column):
    """A column of a table view as text."""
    model = view.model()
    return [model.item(row, column).text() for row in range(model.rowCount())]


def number(widget, name):
    """A measurement as the table shows it."""
    return float(dict(zip(cells(widget.ui.resultTableView, 0), cells(widget.ui.resultTableView, 1)))[name])


def click_row(widget, row):
    """Click a row of the table of discs."""
    view = widget.ui.discTableView
    view.clicked.emit(view.model().index(row, 0))


def say(widget, row, name):
    """Choose a disc and tell which it is."""
    click_row(widget, row)
    box = widget.ui.nameComboBox
    box.setCurrentIndex(box.findText(name))
    box.activated.emit(box.currentIndex)


def drag(node, index, *offsets):
    """Drag a point with the mouse: start, some places on the way, end."""
    before = [0.0, 0.0, 0.0]
    node.GetNthControlPointPositionWorld(index, before)
    node.InvokeEvent(node.PointStartInteractionEvent)
    for offset in offsets:
        node.SetNthControlPointPositionWorld(index, *np.add(before, offset))
        settle()
        yield
    node.InvokeEvent(node.PointEndInteractionEvent)
    settle()


# -- a run ----------------------------------------------------------------------------------------------------


def test_first_suitable_volume_is_chosen_and_the_button_is_ready(widget, spine):
    assert widget.ui.inputSelector.currentNode() is spine and widget.ui.secondSelector.currentNode() is None
    assert widget.ui.applyButton.enabled and not widget.ui.cancelButton.enabled
    assert "esearch use" in widget.ui.noticeLabel.text and "Apache-2.0" in widget.ui.modelCardLabel.text
    for button in ("addButton", "deleteButton", "undoButton", "redoButton", "exportButton", "bidsButton"):
        assert not getattr(widget.ui, button).enabled


def test_without_a_volume_the_button_says_what_to_do(application, client):  # noqa: F811
    widget = application.new_widget("SpineDiscLabel")
    assert not widget.ui.applyButton.enabled and widget.ui.applyButton.toolTip == "Choose a volume first."
    application.close_widget(widget)


def test_worker_gets_both_contrasts_model_and_device(widget, client, spine):
    other = add_spine("T1")
    widget.ui.secondSelector.setCurrentNode(spine)
    assert not widget.ui.applyButton.enabled and "same volume" in widget.ui.applyButton.toolTip
    widget.ui.secondSelector.setCurrentNode(other)
    widget.ui.modelComboBox.setCurrentIndex(1)
    widget.ui.deviceComboBox.setCurrentIndex(widget.ui.deviceComboBox.findData("cpu"))
    widget.ui.applyButton.click()
    job = client.handle.job
    assert (job.task, job.model, job.device, set(job.inputs)) == ("discs", "large", "cpu", {"mr", "second"})
    assert job.inputs["mr"].unit == "" and np.array_equal(job.inputs["mr"].array, spine_mr().array)


def test_result_is_in_points_tables_and_views(application, widget, client, spine):  # noqa: F811
    view = application.layout.sliceWidget("Yellow").sliceView()
    run(widget, client)
    assert names(widget) == LUMBAR and widget.ui.numberingLabel.text.startswith("T12/L1 to L5/S1, ")
    assert points(widget).GetNthControlPointDescription(0).startswith("confidence ")
    assert cells(widget.ui.discTableView, 0) == LUMBAR
    table = widget.ui.discTableView
    heads = [table.model().horizontalHeaderItem(c).text() for c in range(9) if not table.isColumnHidden(c)]
    assert heads == ["Disc", "Sure", "To next (mm)", "Angle (°)", "Height (mm)"]
    gap = np.linalg.norm(discs_ras_mm()[1] - discs_ras_mm()[0])
    assert float(cells(table, 5)[0]) == pytest.approx(gap, abs=0.06)
    assert number(widget, "Discs found") == 6 and "Lumbar lordosis" in cells(widget.ui.resultTableView, 0)
    assert "research use only" in widget.ui.warningsLabel.text
    assert widget.ui.statusLabel.text.startswith("Done.") and application.recorded.dialogs == []
    green = view.pixels().astype(int)
    assert np.count_nonzero(green[..., 1] > green[..., 0] + 60) > 100, "points and names over the sagittal slice"


def test_uncertain_points_have_another_colour(widget, client):
    faint, *others = candidates(evidence=0.03)
    client.found = [replace(faint, strength=0.2), *others]
    run(widget, client)
    node = points(widget)
    confidences = [float(node.GetNthControlPointDescription(n).split(";")[0].split()[1]) for n in range(6)]
    assert min(confidences) < 0.5, confidences
    assert [node.GetNthControlPointSelected(n) for n in range(6)] == [c >= 0.5 for c in confidences]


def test_progress_and_cancel(widget, client):
    widget.ui.applyButton.click()
    client.progress(0.42, "Looking for discs", 12.0)
    widget._panel.run.on_timer()
    assert widget.ui.progressBar.value == 42
    assert widget.ui.statusLabel.text == "Looking for discs, about 12 s left" and not widget.ui.applyButton.enabled
    widget.ui.cancelButton.click()
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text == "Cancelled; nothing was changed." and widget.ui.applyButton.enabled
    assert widget.logic.chain(widget.source()) is None


def test_failure_is_one_sentence(application, widget, client):  # noqa: F811
    widget.ui.applyButton.click()
    client.fail(WorkerError("Memory ran out; close other programs and run again."))
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text == "Memory ran out; close other programs and run again."
    assert application.recorded.dialogs == []


def test_heat_map_and_its_opacity(application, widget, client):  # noqa: F811
    view = application.layout.sliceWidget("Yellow").sliceView()
    run(widget, client)
    points(widget).GetDisplayNode().SetVisibility(False)
    plain = view.pixels()
    widget.ui.overlayCheckBox.click()
    half = reddish(view.pixels())
    assert reddish(plain) == 0 and half > 100
    widget.ui.overlayOpacitySlider.value = 0.1
    assert reddish(view.pixels()) < half
    widget.ui.overlayCheckBox.click()
    assert np.array_equal(view.pixels(), plain)


def test_a_click_on_a_row_shows_that_level(application, widget, client):  # noqa: F811
    run(widget, client)
    for row in (0, 4):
        click_row(widget, row)
        for tag, axis in (("Red", 2), ("Yellow", 0), ("Green", 1)):
            origin = application.layout.sliceWidget(tag).mrmlSliceNode().GetSliceToRAS().GetElement(axis, 3)
            assert origin == pytest.approx(discs_ras_mm()[row][axis], abs=1e-3)
        assert widget.ui.nameComboBox.currentText == LUMBAR[row] and widget.ui.deleteButton.enabled


# -- corrections ----------------------------------------------------------------------------------------------


def test_this_disc_is_renames_all_and_undo_redo(widget, client):
    run(widget, client)
    say(widget, 5, "L4/L5")
    assert names(widget) == HIGHER == cells(widget.ui.discTableView, 0)
    assert widget.ui.numberingLabel.text == "T11/T12 to L4/L5, as you said"
    assert widget.ui.nameComboBox.currentText == "L4/L5", "the disc stays chosen"
    assert "named by hand" in points(widget).GetNthControlPointDescription(5)
    assert "Lumbar lordosis" not in cells(widget.ui.resultTableView, 0), "L5/S1 is no longer in view"
    widget.ui.undoButton.click()
    assert names(widget) == LUMBAR and "Lumbar lordosis" in cells(widget.ui.resultTableView, 0)
    assert not widget.ui.undoButton.enabled and widget.ui.redoButton.enabled
    widget.ui.redoButton.click()
    assert names(widget) == HIGHER and not widget.ui.redoButton.enabled


def test_dragging_a_point_moves_the_measures_along_and_is_one_step(widget, client):
    run(widget, client)
    node, chain = points(widget), widget.logic.chain(widget.source())
    before, seen = number(widget, "Length of the chain"), []
    for _ in drag(node, 0, (0, 0, 2), (0, 0, 5), (0, 0, 8)):
        seen.append(number(widget, "Length of the chain"))
        assert not chain.editor.can_undo, "not before it is let go"
    assert before < seen[0] < seen[1] < seen[2] == number(widget, "Length of the chain")
    assert chain.editor.steps == 1 and "placed by hand" in node.GetNthControlPointDescription(0)
    gap = np.linalg.norm(discs_ras_mm()[1] - discs_ras_mm()[0] - (0, 0, 8))
    assert float(cells(widget.ui.discTableView, 5)[0]) == pytest.approx(gap, abs=0.06)
    widget.ui.undoButton.click()
    assert number(widget, "Length of the chain") == before
    assert max(heights(node)) == pytest.approx(discs_ras_mm()[0][2], abs=1e-3)


def test_a_point_that_is_deleted_while_it_is_dragged(widget, client):
    run(widget, client)
    node = points(widget)
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(5, *(discs_ras_mm()[5] + (0, 0, 3)))
    settle()
    node.RemoveNthControlPoint(5)
    settle()
    assert names(widget) == LUMBAR[:-1] == cells(widget.ui.discTableView, 0)
    widget.ui.undoButton.click()
    assert names(widget) == LUMBAR and min(heights(node)) == pytest.approx(discs_ras_mm()[5][2], abs=1e-3)


def test_a_point_that_follows_the_mouse_before_it_is_placed_is_no_disc_yet(widget, client):
    run(widget, client)
    node = points(widget)
    node.AddControlPointWorld(*(discs_ras_mm()[0] + (0, 6, 27)))
    node.SetNthControlPointPositionWorld(6, 0.0, 0.0, 0.0, node.PositionPreview)
    settle()
    assert cells(widget.ui.discTableView, 0) == LUMBAR and not widget.ui.undoButton.enabled
    node.SetNthControlPointPositionWorld(6, *(discs_ras_mm()[0] + (0, 6, 27)), node.PositionDefined)
    settle()
    assert cells(widget.ui.discTableView, 0) == ["T11/T12", *LUMBAR]


def test_dragging_a_point_past_its_neighbour_swaps_their_names(widget, client):
    run(widget, client)
    node = points(widget)
    away = discs_ras_mm()[1] - discs_ras_mm()[0]
    for _ in drag(node, 0, tuple(away * 1.4)):
        pass
    assert names(widget) == cells(widget.ui.discTableView, 0)
    assert heights(node)[0] < heights(node)[1]
    assert [node.GetNthControlPointLabel(n) for n in (1, 0)] == names(widget)[:2]


def test_deleting_by_button_and_in_the_view(widget, client):
    run(widget, client)
    click_row(widget, 5)
    widget.ui.deleteButton.click()
    assert names(widget) == LUMBAR[:-1] and not widget.ui.deleteButton.enabled
    points(widget).RemoveNthControlPoint(0)
    settle()
    assert names(widget) == LUMBAR[1:-1] == cells(widget.ui.discTableView, 0)
    widget.ui.undoButton.click()
    widget.ui.undoButton.click()
    assert names(widget) == LUMBAR and number(widget, "Discs found") == 6
    assert points(widget).GetNthControlPointLabel(0) == "T12/L1", "it is back in its place in the list"


def test_adding_by_a_click_in_a_view(widget, client):
    import slicer

    run(widget, client)
    widget.ui.addButton.click()
    interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert "Click" in widget.ui.statusLabel.text
    slicer.util.getNode("Disc").AddControlPointWorld(*(discs_ras_mm()[0] + (0, 6, 27)))
    settle()
    assert interaction.GetCurrentInteractionMode() != interaction.Place
    assert names(widget) == ["T11/T12", *LUMBAR]
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 1
    widget.ui.undoButton.click()
    assert names(widget) == LUMBAR


def test_adding_to_the_list_itself(widget, client):
    run(widget, client)
    points(widget).AddControlPointWorld(*(discs_ras_mm()[0] + (0, 6, 27)))
    settle()
    assert names(widget) == ["T11/T12", *LUMBAR] == cells(widget.ui.discTableView, 0)


def test_renaming_a_point_in_the_list(widget, client):
    run(widget, client)
    points(widget).SetNthControlPointLabel(5, "L4/L5")
    settle()
    assert names(widget) == HIGHER and widget.ui.undoButton.enabled
    points(widget).SetNthControlPointLabel(0, "tumour")
    settle()
    assert names(widget) == HIGHER and "no disc 'tumour'" in widget.ui.statusLabel.text


def test_other_numberings_are_offered_and_a_click_renames_all(widget, client):
    client.found = candidates(evidence=0.05)
    run(widget, client)
    box = widget.ui.othersList
    lines = [box.item(row).text() for row in range(box.count)]
    assert any("L6/S1" in line for line in lines) and all("%" in line for line in lines)
    before = names(widget)
    row = next(row for row, line in enumerate(lines) if "to L6/S1" in line)
    box.itemClicked.emit(box.item(row))
    assert names(widget) == ["L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/L6", "L6/S1"]
    assert any("as found" in box.item(row).text() for row in range(box.count)), "the first way is offered too"
    widget.ui.undoButton.click()
    assert names(widget) == before


def test_a_correction_that_cannot_be_says_why_and_changes_nothing(widget, client):
    run(widget, client)
    for step in range(25):
        points(widget).AddControlPointWorld(0, 0, 100 + 20 * step)
    settle()
    assert "more than a spine has" in widget.ui.statusLabel.text
    assert names(widget) == LUMBAR and not widget.ui.undoButton.enabled


def test_running_again_begins_anew_after_asking(widget, client, monkeypatch):
    import slicer

    answers = [False, True]
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda question: answers.pop(0))
    run(widget, client)
    say(widget, 5, "L4/L5")
    widget.ui.applyButton.click()
    assert names(widget) != LUMBAR and widget.ui.undoButton.enabled and not widget._panel.run.is_running
    run(widget, client)
    assert not answers
    assert names(widget) == LUMBAR and not widget.ui.undoButton.enabled and len(client.released) == 1


def test_corrections_while_the_module_is_closed_are_taken_in(application, widget, client, spine):  # noqa: F811
    run(widget, client)
    application.leave(widget)
    widget.logic.resultNodes(spine)["points"].RemoveNthControlPoint(5)
    settle()
    application.enter(widget)
    settle()
    assert names(widget) == LUMBAR[:-1] and cells(widget.ui.discTableView, 0) == LUMBAR[:-1]
    assert widget.ui.undoButton.enabled


def test_a_parent_transform_moves_points_and_measures_alike(application, client):  # noqa: F811
    import slicer
    import vtk

    node, transform = add_spine(), slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(2, 3, 50.0)
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    logic = sys.modules["SpineDiscLabel"].SpineDiscLabelLogic()
    client.found = [type(c)(np.add(c.position_ras_mm, (0, 0, 50.0)), c.strength, c.evidence) for c in candidates()]
    logic.process(node)
    chain = logic.chain(node)
    assert chain.discs[0].position_ras_mm[2] == pytest.approx(discs_ras_mm()[0][2] + 50)
    key = chain.state.points[0].key
    chain.correct(lambda editor: editor.move(key, discs_ras_mm()[0] + (0, 0, 53)))
    assert heights(logic.resultNodes(node)["points"])[0] == pytest.approx(discs_ras_mm()[0][2] + 53)


def test_points_beside_the_slice_are_seen_and_their_colour_does_not_claim_more_than_is_sure(widget, client):
    run(widget, client)
    display = points(widget).GetDisplayNode()
    assert display.GetSliceProjection() and display.GetSliceProjectionUseFiducialColor()
    faint, *others = candidates(evidence=0.03)
    client.found = [replace(faint, strength=0.2), *others]
    run(widget, client)
    assert display.GetSliceProjection() and not display.GetSliceProjectionUseFiducialColor()
