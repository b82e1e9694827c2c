"""The panel's life on the stand-in for Slicer: scenes saved, loaded and closed, nodes deleted, packages missing."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from test_disc_widget import (  # noqa: F401
    HIGHER,
    LUMBAR,
    click_row,
    client,
    names,
    points,
    run,
    say,
    settle,
    spine,
    widget,
)

from Testing.slicer_stand_in.fake_worker import lack
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401


def test_scene_bundle_brings_corrections_and_undo_back(application, widget, client, tmp_path):  # noqa: F811
    run(widget, client)
    say(widget, 5, "L4/L5")
    click_row(widget, 0)
    widget.ui.deleteButton.click()
    widget.ui.overlayCheckBox.click()
    widget.ui.backwardSpinBox.value = 9.0
    assert application.scene.WriteToMRB(str(tmp_path / "case.mrb"))
    application.scene.Clear(0)
    assert widget.ui.discTableView.model().rowCount() == 0 and not widget.ui.undoButton.enabled
    assert application.scene.ReadFromMRB(str(tmp_path / "case.mrb"))
    settle()
    assert names(widget) == HIGHER[1:] and widget.ui.backwardSpinBox.value == 9.0
    assert widget.ui.overlayCheckBox.checked and widget.ui.numberingLabel.text.endswith("as you said")
    widget.ui.undoButton.click()
    widget.ui.undoButton.click()
    assert names(widget) == LUMBAR and not widget.ui.undoButton.enabled
    widget.ui.redoButton.click()
    assert names(widget) == HIGHER


def test_closing_the_scene_during_a_run(application, widget, client):  # noqa: F811
    widget.ui.applyButton.click()
    application.scene.Clear(0)
    widget._panel.run.on_timer()
    assert client.handle.state == "cancelled" and not widget.ui.applyButton.enabled


def test_closing_the_scene_while_a_point_is_placed(application, widget, client):  # noqa: F811
    run(widget, client)
    widget.ui.addButton.click()
    application.scene.Clear(0)
    settle()
    assert not widget._points.is_placing and not widget.ui.addButton.enabled


def test_deleting_the_point_list_leaves_the_panel_alive(application, widget, client):  # noqa: F811
    run(widget, client)
    application.scene.RemoveNode(points(widget))
    widget._panel.refresh()
    assert not widget.ui.undoButton.enabled and not widget.ui.exportButton.enabled
    run(widget, client)
    assert names(widget) == LUMBAR


def test_missing_packages_are_named_and_offered(application, client, spine, monkeypatch):  # noqa: F811
    lack(monkeypatch, "torch", "safetensors>=0.4")
    panel = application.new_widget("SpineDiscLabel")
    assert "torch" in panel.ui.installLabel.text and not panel.ui.applyButton.enabled
    panel.ui.installButton.click()
    assert panel.ui.installFrame.isHidden() and panel.ui.applyButton.enabled
    application.close_widget(panel)


def test_sample_data_is_registered(application, monkeypatch):  # noqa: F811
    registered = []
    sample_data = SimpleNamespace(
        SampleDataLogic=SimpleNamespace(registerCustomSampleDataSource=lambda **source: registered.append(source))
    )
    monkeypatch.setitem(sys.modules, "SampleData", sample_data)
    sys.modules["SpineDiscLabel"].registerSampleData()
    assert registered[0]["sampleName"] == "LumbarSpineMR" and registered[0]["uris"].startswith("file:")
