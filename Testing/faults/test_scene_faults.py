"""What a person may do to the scene while a run is under way, on the real panel and the stand-in for Slicer."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.slicer_stand_in.fake_worker import FakeClient, bleed_result, compute_with
from Testing.slicer_stand_in.fixtures import add_head, application, stand_in  # noqa: F401

MOVED = np.array([[0.98, -0.17, 0, 12], [0.17, 0.98, 0, -7], [0, 0, 1, 31], [0, 0, 0, 1.0]])


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A fake worker behind the module's real logic, with a model installed and nothing missing."""
    fake = FakeClient(tmp_path)
    compute_with(monkeypatch, fake)
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


def world_of(node) -> np.ndarray:
    """IJK-to-world matrix of a volume node, its parent transform included."""
    from NeuraxisLib.scene import volume_from_node

    return volume_from_node(node).ijk_to_ras


def segment_centre(segmentation) -> np.ndarray:
    """Centre in the world of all that is outlined."""
    import slicer
    import vtk

    bounds = np.zeros(6)
    segmentation.GetSegmentation().GetNthSegment(0)
    segmentation.GetRASBounds(bounds)
    assert vtk.vtkMath.AreBoundsInitialized(bounds) and slicer.mrmlScene is not None
    return bounds.reshape(3, 2).mean(axis=1)


def test_a_transform_that_comes_during_a_run_moves_volume_and_outline_alike(widget, client, head):
    import slicer

    widget.ui.applyButton.click()
    measured = client.handle.job.volume
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved meanwhile")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(MOVED))
    head.SetAndObserveTransformNodeID(transform.GetID())
    client.finish(bleed_result(measured))
    widget._panel.run.on_timer()
    segmentation = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert segmentation.GetTransformNodeID() == transform.GetID()
    k, j, i = (np.argwhere(bleed_result(measured).labels.array > 0).mean(axis=0))
    expected = (world_of(head) @ [i, j, k, 1])[:3]
    np.testing.assert_allclose(segment_centre(segmentation), expected, atol=6)  # bounds of a turned box, a tilted grid
    np.testing.assert_allclose(world_of(head), MOVED @ measured.ijk_to_ras, atol=1e-6)


def test_saved_and_loaded_while_running(application, widget, client, head, tmp_path):  # noqa: F811
    """The bundle holds the scene without the run; after loading it the panel runs as ever."""
    import slicer

    widget.ui.applyButton.click()
    running = client.handle
    assert application.scene.WriteToMRB(str(tmp_path / "case.mrb"))
    assert widget._panel.run.is_running
    application.scene.Clear(0)
    application.scene.ReadFromMRB(str(tmp_path / "case.mrb"))
    widget._panel.run.on_timer()
    assert running.state == "cancelled" and not widget._panel.run.is_running
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert widget.ui.applyButton.enabled
    widget.ui.applyButton.click()
    assert client.handle is not running
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
