"""Several cases in one session, on the stand-in: what is seen follows what is chosen and what was found."""

from __future__ import annotations

import numpy as np
import pytest
from review_panel_support import application, client, head, nodes, run, stand_in, widget  # noqa: F401

from Testing.slicer_stand_in.fake_worker import bleed_result
from Testing.slicer_stand_in.fixtures import TILTED, add_head, head_array


def add_scan(array: np.ndarray, name: str = "Scan"):
    """A volume as a file without a window gives it: Slicer chooses the window."""
    import slicer

    node = slicer.util.addVolumeFromArray(array, ijkToRAS=TILTED, name=name)
    node.CreateDefaultDisplayNodes()
    return node


def head_with_bone() -> np.ndarray:
    """The head, in a skull."""
    array = head_array()
    array[:, 8:10, 8:56] = 1200
    return array


def window_of(node) -> tuple[bool, float, float]:
    """Whether Slicer chooses the window; width and level."""
    display = node.GetDisplayNode()
    return bool(display.GetAutoWindowLevel()), display.GetWindow(), display.GetLevel()


def background(application) -> str:  # noqa: F811
    """Id of the volume in the axial view."""
    return application.layout.sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID()


def listed(selector) -> list[str]:
    """Names in a list of volumes."""
    return [selector.nodeFromIndex(index).GetName() for index in range(selector.nodeCount())]


# -- windows ------------------------------------------------------------------------------------------------------


def test_a_head_ct_without_a_window_is_seen_in_that_of_the_brain_once(application, client):  # noqa: F811
    scan = add_scan(head_with_bone())
    panel = application.new_widget("HemorrhageSeg")
    assert window_of(scan) == (False, 80, 40)
    scan.GetDisplayNode().AutoWindowLevelOn()
    panel._panel.refresh()
    assert window_of(scan)[0], "what the user chooses afterwards stays"
    application.close_widget(panel)


@pytest.mark.parametrize("values", [np.abs(head_array()), np.clip(head_array(), -1000, 100)], ids=["MR", "air only"])
def test_other_images_keep_their_window(application, client, values):  # noqa: F811
    scan = add_scan(values)
    before = window_of(scan)
    panel = application.new_widget("HemorrhageSeg")
    assert window_of(scan) == before and before[0]
    application.close_widget(panel)


def test_a_window_from_dicom_is_left_alone(application, client):  # noqa: F811
    scan = add_scan(head_with_bone())
    scan.GetDisplayNode().AutoWindowLevelOff()
    scan.GetDisplayNode().SetWindowLevel(120, 50)
    panel = application.new_widget("HemorrhageSeg")
    assert window_of(scan) == (False, 120, 50)
    application.close_widget(panel)


# -- which case ---------------------------------------------------------------------------------------------------


def test_the_scan_that_is_seen_is_chosen_first(application, client):  # noqa: F811
    add_head("Earlier loaded")
    seen = add_head("Seen")
    panel = application.new_widget("HemorrhageSeg")
    assert panel.ui.inputSelector.currentNode() is seen
    application.close_widget(panel)


def test_a_case_that_is_chosen_is_seen_and_nothing_of_the_others(application, widget, client, head):  # noqa: F811
    import slicer

    other = add_scan(head_with_bone(), "Doe Jane")
    assert background(application) == head.GetID()
    widget.ui.inputSelector.setCurrentNode(other)
    assert background(application) == other.GetID()
    assert not nodes(head)["labels"].GetDisplayNode().GetVisibility(), "it has no result yet, and shows none"
    run(widget, client)
    widget.ui.inputSelector.setCurrentNode(head)
    assert background(application) == head.GetID()
    shown = [nodes(volume)["labels"].GetDisplayNode().GetVisibility() for volume in (head, other)]
    assert shown == [1, 0]
    slicer.util.setSliceViewerLayers(background=other)
    widget._panel.refresh()
    assert background(application) == other.GetID(), "the views are the user's between two choices"


def test_outlines_hidden_by_the_user_stay_hidden(application, widget, head):  # noqa: F811
    nodes(head)["labels"].GetDisplayNode().SetVisibility(False)
    widget.ui.inputSelector.setCurrentNode(add_head("Doe Jane"))
    widget.ui.inputSelector.setCurrentNode(head)
    assert not nodes(head)["labels"].GetDisplayNode().GetVisibility()


def test_a_case_that_was_opened_elsewhere_is_chosen_when_the_module_is_opened(application, widget, client, head):  # noqa: F811
    """As the batch opens one: what is seen is what is measured and judged."""
    from NeuraxisLib import scene
    from NeuraxisLib.scene_cases import show_case

    application.leave(widget)
    other, bare = add_head("From a batch"), add_scan(head_with_bone(), "No result")
    scene.show_result(bleed_result(scene.volume_from_node(other)), other)
    show_case(other)
    assert [nodes(v)["labels"].GetDisplayNode().GetVisibility() for v in (head, other)] == [0, 1]
    application.enter(widget)
    assert widget.ui.inputSelector.currentNode() is other
    application.leave(widget)
    show_case(bare)
    application.enter(widget)
    assert widget.ui.inputSelector.currentNode() is other, "a scan without a result takes no place"
    widget.ui.inputSelector.setCurrentNode(head)
    assert [nodes(v)["labels"].GetDisplayNode().GetVisibility() for v in (head, other)] == [1, 0]


def test_lists_of_scans_offer_no_maps_of_results(application, widget, client, head):  # noqa: F811
    followUp = widget._followUp.ui
    add_head("Doe Jane")
    assert listed(widget.ui.inputSelector) == listed(followUp.earlierSelector) == ["Smith John", "Doe Jane"]


def test_a_map_that_was_chosen_in_an_earlier_session_stays_chosen(application, widget, head):  # noqa: F811
    import slicer

    chosen = nodes(head)["map entropy"]
    application.leave(widget)
    slicer.util.setSliceViewerLayers(background=chosen)
    widget.logic.getParameterNode().inputVolume = chosen
    panel = application.new_widget("HemorrhageSeg")
    assert panel.ui.inputSelector.currentNode() is chosen
    panel.ui.inputSelector.setCurrentNode(head)
    assert listed(panel.ui.inputSelector) == ["Smith John"]
    application.close_widget(panel)


# -- what was found -----------------------------------------------------------------------------------------------


def test_views_go_to_the_largest_section(application, widget, client, head):  # noqa: F811
    from NeuraxisLib import scene

    widget.ui.applyButton.click()
    result = bleed_result(client.handle.job.volume)
    result.labels.array[12, 20:34, 20:30] = 1
    client.finish(result)
    widget._panel.run.on_timer()
    place = (scene.ijk_to_world(head) @ [24.5, 26.5, 12, 1])[:3]
    for name, axis in (("Red", 2), ("Green", 1), ("Yellow", 0)):
        slice_to_ras = application.layout.sliceWidget(name).mrmlSliceNode().GetSliceToRAS()
        assert slice_to_ras.GetElement(axis, 3) == pytest.approx(place[axis], abs=0.01), name


def test_views_stay_where_nothing_was_found_or_another_case_was_chosen(application, widget, client):  # noqa: F811
    red = application.layout.sliceWidget("Red").mrmlSliceNode()
    widget.ui.applyButton.click()
    empty = bleed_result(client.handle.job.volume)
    empty.labels.array[:] = 0
    red.SetSliceOffset(33.0)
    client.finish(empty)
    widget._panel.run.on_timer()
    assert red.GetSliceOffset() == 33.0
    widget.ui.applyButton.click()
    widget.ui.inputSelector.setCurrentNode(add_head("Doe Jane"))
    red.SetSliceOffset(44.0)
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()
    assert red.GetSliceOffset() == 44.0


def test_3d_view_looks_at_the_surfaces_inside_the_box(application, widget, head):  # noqa: F811
    widget.ui.show3DButton.click()
    view = application.layout.threeDWidget(0).threeDView()
    bounds = np.zeros(6)
    nodes(head)["labels"].GetRASBounds(bounds)
    middle = view.renderer.GetActiveCamera().GetFocalPoint()
    assert ((bounds[::2] <= middle) & (middle <= bounds[1::2])).all()
    box = [actor for actor in view.renderer.GetActors() if actor.GetProperty().GetColor() == (1, 0, 1)]
    around = np.array(box[0].GetBounds())
    assert (around[::2] <= bounds[::2]).all() and (bounds[1::2] <= around[1::2]).all()
