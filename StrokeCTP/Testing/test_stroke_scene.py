"""Acquisitions and maps in the scene: frames with true times, their average, curves of voxels, layout and legends."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume
from Testing.slicer_stand_in.fixtures import TILTED, application, stand_in  # noqa: F401

TIMES_S = np.array([0.0, 1.5, 3.0, 6.5, 8.0])


def frames(times_s=TIMES_S) -> Volume:
    """Five frames (t, 4, 12, 10) of numbers that tell frame and voxel apart, on a tilted grid."""
    array = np.arange(5 * 4 * 12 * 10, dtype=np.int16).reshape(5, 4, 12, 10)
    return Volume(array, TILTED, "HU", frame_times_s=times_s)


def add_multi_volume(labels: str | None):
    """A node with five values per voxel and the attribute of Slicer's import."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Multi")
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(np.moveaxis(frames().array, 0, -1)))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(TILTED))
    if labels:
        node.SetAttribute("MultiVolume.FrameLabels", labels)
    return node


def test_a_sequence_comes_back_with_its_times_and_place(application):  # noqa: F811
    from NeuraxisLib import scene_frames

    node = scene_frames.add_sequence(frames(), "CTP")
    back, average = scene_frames.placed_frames(node)
    assert np.array_equal(back.array, frames().array) and np.allclose(back.frame_times_s, TIMES_S)
    assert np.allclose(back.ijk_to_ras, TILTED) and back.unit == "HU"
    assert scene_frames.average_node(node) is average and scene_frames.placed_frames(node)[1] is average


def test_times_of_slices_survive_the_scene(application):  # noqa: F811
    from NeuraxisLib import scene_frames

    times = TIMES_S[:, None] + np.array([0.0, 0.0, 0.75, 0.75])
    back, _ = scene_frames.placed_frames(scene_frames.add_sequence(frames(times), "Shuttle"))
    assert np.allclose(back.frame_times_s, times)


def test_a_multi_volume_has_the_times_of_its_labels(application):  # noqa: F811
    from NeuraxisLib import scene_frames

    back, _ = scene_frames.placed_frames(add_multi_volume("0,1500,3000,6500,8000"))
    assert np.array_equal(back.array, frames().array) and np.allclose(back.frame_times_s, TIMES_S)


def test_frame_numbers_are_no_times(application):  # noqa: F811
    from NeuraxisLib import scene_frames

    node = scene_frames.add_sequence(frames(), "CTP")
    node.SetIndexUnit("")
    assert scene_frames.placed_frames(node)[0].frame_times_s is None
    node.SetAttribute("MultiVolume.FrameLabels", "0,1500,3000,6500,8000")
    assert np.allclose(scene_frames.placed_frames(node)[0].frame_times_s, TIMES_S)


def test_average_and_frames_follow_the_transform_of_what_is_shown(application):  # noqa: F811
    import slicer

    from NeuraxisLib import scene, scene_frames

    node = scene_frames.add_sequence(frames(), "CTP")
    application.app.processEvents()
    browser = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    moved = np.eye(4)
    moved[:3, 3] = 5, -3, 2
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(moved))
    browser.GetProxyNode(node).SetAndObserveTransformNodeID(transform.GetID())
    back, average = scene_frames.placed_frames(node)
    assert np.allclose(back.ijk_to_ras, moved @ TILTED) and np.allclose(scene.ijk_to_world(average), moved @ TILTED)
    assert np.allclose(slicer.util.arrayFromVolume(average), frames().array.mean(0))
    point = (moved @ TILTED @ [7, 5, 2, 1])[:3]
    assert scene_frames.voxel_at(average, point) == (2, 5, 7)
    assert scene_frames.voxel_at(average, point + 500) is None


@pytest.mark.parametrize("make", ["sequence", "multi-volume"])
def test_curve_of_a_voxel(application, make):  # noqa: F811
    from NeuraxisLib import scene_frames

    node = scene_frames.add_sequence(frames(), "CTP") if make == "sequence" else add_multi_volume(None)
    assert np.array_equal(scene_frames.voxel_curve(node, (3, 2, 1)), frames().array[:, 3, 2, 1])


def test_what_is_no_acquisition_is_refused_in_a_sentence(application):  # noqa: F811
    import slicer

    from NeuraxisLib import scene_frames

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Empty")
    head = slicer.util.addVolumeFromArray(frames().array[0], name="Head")
    assert scene_frames.why_no_frames(None).startswith("Choose the frames")
    for node in (empty, head):
        assert node.GetName() in scene_frames.why_no_frames(node)
        with pytest.raises(InputError):
            scene_frames.placed_frames(node)


def layout():
    """Two slice views and a plot."""
    from NeuraxisLib.scene_views import MapLayout

    return MapLayout(20999, (("TestCBF", "CBF"), ("TestTmax", "Tmax")), ("TestCurves", "Curves"), columns=2)


def test_layout_comes_and_goes(application):  # noqa: F811
    from NeuraxisLib import scene_views

    assert not scene_views.is_layout_shown(layout())
    before = scene_views.show_layout(layout())
    assert scene_views.is_layout_shown(layout()) and application.layout.layout == 20999
    assert application.layout.sliceWidget("TestTmax") is not None and application.layout.plotViewCount >= 1
    scene_views.leave_layout(layout(), before)
    assert application.layout.layout == before == 3


def test_a_map_in_its_colours_with_a_legend(application):  # noqa: F811
    import slicer

    from NeuraxisLib import scene_views

    values = np.zeros((4, 32, 32), np.float32)
    values[:, 8:24, 8:16], values[:, 8:24, 16:24] = 1.0, 9.0
    node = slicer.util.addVolumeFromArray(values, ijkToRAS=np.diag([-6.0, -6, 6, 1]), name="Tmax")
    colors = scene_views.color_table("TestColors", "Test", np.array([[0, 0, 255]] * 128 + [[255, 0, 0]] * 128))
    assert scene_views.color_table("TestColors", "Test", np.zeros((2, 3))) is colors
    scene_views.color_volume(node, colors, 0, 10)
    scene_views.show_layout(layout())
    view = application.layout.sliceWidget("TestTmax").sliceView()
    scene_views.put_in_view("TestTmax", node)
    scene_views.align(layout(), node)
    plain = view.pixels().astype(int)
    red, blue = (np.count_nonzero(plain[..., c] - plain[..., 2 - c] > 200) for c in (0, 2))
    assert red == pytest.approx(blue, rel=0.1) and red > 2000
    assert plain[2, 2].sum() == 0, "what is zero stays black"
    scene_views.legend(node, "s")
    with_bar = view.pixels().astype(int)
    assert np.count_nonzero(np.abs(with_bar - plain).sum(-1)) > 1000
    scene_views.legend(node, "s", shown=False)
    assert np.array_equal(view.pixels(), plain)


def test_overlay_spares_the_views_that_show_maps(application):  # noqa: F811
    import slicer

    from NeuraxisLib import scene_views

    node = slicer.util.addVolumeFromArray(np.ones((3, 8, 8), np.float32), name="Map")
    node.SetAttribute("Neuraxis.Part", "map cbf")
    scene_views.show_layout(layout())
    scene_views.lay_over(node, 0.5, except_in=("TestCBF", "TestTmax"))
    assert scene_views.composite_of("Red").GetForegroundVolumeID() == node.GetID()
    assert scene_views.composite_of("TestCBF").GetForegroundVolumeID() is None
    scene_views.lay_over(None, 0.5, except_in=("TestCBF", "TestTmax"))
    assert scene_views.composite_of("Red").GetForegroundVolumeID() is None
