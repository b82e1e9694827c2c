"""Reviewing discs in the real panel on the stand-in: the chain is corrected as ever, verdict and export follow it."""

from __future__ import annotations

import numpy as np
import pytest
from disc_panel_support import DiscClient, add_spine

from Testing.slicer_stand_in.fake_worker import compute_with
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A worker that answers when told to, behind the module's real logic."""
    fake = DiscClient(tmp_path)
    compute_with(monkeypatch, fake)
    return fake


@pytest.fixture
def widget(application, client):  # noqa: F811
    """The panel with a result: six discs down to L5/S1."""
    add_spine("Miller Ann")
    panel = application.new_widget("SpineDiscLabel")
    panel.ui.applyButton.click()
    client.answer()
    panel._panel.run.on_timer()
    application.app.processEvents()
    yield panel
    application.close_widget(panel)


def say_lowest(widget, name):
    """A person says which disc the lowest is."""
    chain = widget.logic.chain(widget.source())
    chain.correct(lambda editor: editor.say(chain.state.from_above()[-1][1].key, name))
    widget._panel.refresh()


def test_there_is_nothing_to_paint_and_undo_is_the_chains(application, widget):  # noqa: F811
    section, ui = widget._panel.review, widget._panel.review.ui
    assert ui.editButton.isHidden() and ui.revertButton.isHidden()
    assert widget.ui.undoButton.toolTip.endswith("[Shift+U]")
    say_lowest(widget, "L4/L5")
    section.undo()
    assert widget.logic.chain(widget.source()).discs[-1].name == "L5/S1"
    section.toggleOverlay()
    assert widget.ui.overlayCheckBox.checked
    from NeuraxisLib import scene

    points = scene.result_nodes(widget.source(), "discs")["points"]
    points.SetAttribute(scene.KEY_SLICES_ATTRIBUTE, "[4, 2]")
    widget._panel.refresh()
    ui.nextSliceButton.click()
    assert widget.ui.statusLabel.text.startswith("Slice 5, number 1 of the 2")


def test_verdict_speaks_of_the_corrected_chain(application, widget, client):  # noqa: F811
    from NeuraxisLib.result_folder import read_result
    from NeuraxisLib.review import reviewed_case

    ui, folder = widget._panel.review.ui, client.handle.result_folder
    ui.acceptButton.click()
    assert reviewed_case(folder).is_current and ui.casesList.item(0).text() == "Miller Ann: accepted"
    say_lowest(widget, "L4/L5")
    assert "changed after that" in ui.verdictLabel.text
    ui.correctedButton.click()
    case = reviewed_case(folder)
    assert (case.review.verdict, case.is_current) == ("corrected", True)
    assert read_result(folder).points[-1].name == "L4/L5"
    say_lowest(widget, "L5/S1")
    widget.ui.openFolderButton.click()
    assert reviewed_case(folder).review.verdict == "corrected", "bringing the files up to date keeps the verdict"


def test_export_is_read_by_prepare(application, widget, client, tmp_path):  # noqa: F811
    pytest.importorskip("h5py")
    from Training.prepare import main
    from Training.store import Store

    say_lowest(widget, "L4/L5")
    ui = widget._panel.review.ui
    ui.correctedButton.click()
    (tmp_path / "out").mkdir()
    application.recorded.answers.append(str(tmp_path / "out"))
    ui.exportButton.click()
    assert widget.ui.statusLabel.text == "1 case exported."
    arguments = ["--layout", "sct-discs", "--disc-points", "centre", "--workers", "1"]
    assert main([str(tmp_path / "out" / "discs"), str(tmp_path / "d.h5"), *arguments]) == 0
    with Store(tmp_path / "d.h5") as store:
        (info,) = store
    stored, discs = info.provenance["discs"], widget.logic.chain(widget.source()).discs
    assert [number for number, *_ in stored] == [disc.disc for disc in discs] and stored[-1][0] == 24
    apart = np.array([place for _, *place in stored]) - [disc.position_ras_mm for disc in discs]
    assert np.abs(apart).max() <= 2.0, "half a voxel"
