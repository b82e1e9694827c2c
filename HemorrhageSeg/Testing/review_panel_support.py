"""What the tests of the review section share: the hemorrhage panel with one bleed of 6 mL, and a brush."""

from __future__ import annotations

import time

import numpy as np
import pytest

from Testing.slicer_stand_in.fake_worker import FakeClient, bleed_result, compute_with
from Testing.slicer_stand_in.fixtures import add_head, application, stand_in  # noqa: F401
from Testing.slicer_stand_in.segment_editor import paint

#: mL of a voxel of the head: 2 x 2 x 5 mm.
VOXEL_ML = 0.02


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A fake worker behind the module's real logic; nobody has given initials yet."""
    import qt

    qt.QSettings().clear()
    fake = FakeClient(tmp_path)
    compute_with(monkeypatch, fake)
    return fake


@pytest.fixture
def head(client):
    """A volume in the scene."""
    return add_head("Smith John")


@pytest.fixture
def widget(application, client, head):  # noqa: F811
    """The panel with a result: one bleed of 300 voxels, 6 mL."""
    panel = application.new_widget("HemorrhageSeg")
    run(panel, client)
    yield panel
    application.close_widget(panel)


@pytest.fixture
def ui(widget):
    """Widgets of the section, which is unfolded."""
    widget._panel.review.top.collapsed = False
    return widget._panel.review.ui


def run(widget, client):
    """Click the button and let the fake worker finish."""
    widget.ui.applyButton.click()
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()


def nodes(head):
    """Part -> node of the result."""
    from NeuraxisLib import scene

    return scene.result_nodes(head, "hemorrhage")


def rows(widget):
    """The table of measurements: first cell -> the others."""
    model = widget.ui.resultTableView.model()
    cells = [[model.item(r, c).text() for c in range(model.columnCount())] for r in range(model.rowCount())]
    return {row[0]: row[1:] for row in cells}


def paint_bleed(head, size=20):
    """Paint one slice more below the bleed: 100 + 2 * 100 voxels become 100 * 4."""
    mask = np.zeros((24, 64, 64), bool)
    mask[11:14, 20:30, 20:30] = True
    mask[14, 20:30, 20 : 20 + size // 2] = True
    paint(nodes(head)["labels"], "Segment_1", mask, head)
    return mask


def settle(application, widget):  # noqa: F811
    """Let the timer that waits for a pause in painting end."""
    edits = widget._panel.review.edits
    until = time.monotonic() + 10
    while edits._timer.active and time.monotonic() < until:
        application.app.processEvents()
    assert not edits._timer.active
