"""Volumes out of the MRML scene and results into it, on Slicer's own MRML classes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.volume import Volume
from Testing.slicer_stand_in.fake_worker import bleed_result
from Testing.slicer_stand_in.fixtures import TILTED, add_head, application, head_array, stand_in  # noqa: F401


@pytest.fixture
def scene(application):  # noqa: F811
    """The file under test; it can be imported only where slicer is."""
    from NeuraxisLib import scene

    return scene


def add_transform(matrix: np.ndarray):
    """A linear transform node."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Motion")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


MOTION = np.array([[0.0, -1, 0, 10], [1, 0, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1]])


def test_volume_keeps_voxels_and_tilted_geometry(scene):
    volume = scene.volume_from_node(add_head())
    assert np.array_equal(volume.array, head_array()) and volume.unit == "HU"
    assert np.allclose(volume.ijk_to_ras, TILTED) and volume.is_sheared


def test_volume_is_a_copy(scene):
    import slicer

    node = add_head()
    volume = scene.volume_from_node(node)
    slicer.util.arrayFromVolume(node)[:] = 0
    assert volume.array.max() == 35


def test_linear_parent_transform_is_in_the_geometry(scene):
    node = add_head()
    node.SetAndObserveTransformNodeID(add_transform(MOTION).GetID())
    assert np.allclose(scene.volume_from_node(node).ijk_to_ras, MOTION @ TILTED)


def test_non_linear_parent_transform_is_refused(scene):
    import slicer
    import vtk

    node = add_head()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
    grid = slicer.vtkOrientedGridTransform()
    field = vtk.vtkImageData()
    field.SetDimensions(2, 2, 2)
    field.AllocateScalars(vtk.VTK_DOUBLE, 3)
    grid.SetDisplacementGridData(field)
    transform.SetAndObserveTransformToParent(grid)
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(GeometryError, match="'Head' lies under a non-linear transform.*harden"):
        scene.volume_from_node(node)


def test_what_is_no_plain_image_is_refused_by_name(scene):
    import slicer

    with pytest.raises(InputError, match="Choose a volume"):
        scene.volume_from_node(None)
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    with pytest.raises(InputError, match="'Empty' holds no image"):
        scene.volume_from_node(empty)
    flat = slicer.util.addVolumeFromArray(np.zeros((1, 8, 8), np.int16), name="Flat")
    with pytest.raises(InputError, match="single picture"):
        scene.volume_from_node(flat)
    for class_name in ("vtkMRMLLabelMapVolumeNode", "vtkMRMLVectorVolumeNode"):
        shape = (4, 8, 8, 3) if "Vector" in class_name else (4, 8, 8)
        other = slicer.util.addVolumeFromArray(np.zeros(shape, np.uint8), name="Other", nodeClassName=class_name)
        with pytest.raises(InputError, match="not a plain image"):
            scene.volume_from_node(other)


def test_modality_comes_from_the_subject_hierarchy_and_no_name(scene):
    import slicer

    node = add_head("Doe^John")
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(node), "DICOM.Modality", "CT")
    assert scene.volume_from_node(node).meta == {"modality": "CT"}


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "under a transform"])
def test_segmentation_lies_on_the_source_s_voxels(scene, moved):
    import slicer

    node = add_head()
    if moved:
        node.SetAndObserveTransformNodeID(add_transform(MOTION).GetID())
    result = bleed_result(scene.volume_from_node(node))
    shown = scene.show_result(result, node)
    assert shown.segmentation.GetTransformNodeID() == node.GetTransformNodeID()
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(shown.segmentation, "Segment_1", node)
    assert np.array_equal(mask, result.labels.array)
    reference = shown.segmentation.GetNodeReference(
        shown.segmentation.GetReferenceImageGeometryReferenceRole()
    )
    assert reference is node


def test_segment_has_name_colour_and_terminology_of_the_label_table(scene):
    node = add_head()
    shown = scene.show_result(bleed_result(scene.volume_from_node(node)), node)
    segment = shown.segmentation.GetSegmentation().GetSegment("Segment_1")
    assert segment.GetName() == "Hemorrhage"
    assert np.allclose(segment.GetColor(), np.array([188, 65, 28]) / 255)
    assert "SCT^50960005^Hemorrhage" in segment.GetTerminology()
    assert "SCT^12738006^Brain" in segment.GetTerminology()


def test_terminology_is_understood_by_slicer(scene, application):  # noqa: F811
    import slicer

    node = add_head()
    shown = scene.show_result(bleed_result(scene.volume_from_node(node)), node)
    entry = slicer.vtkSlicerTerminologyEntry()
    text = shown.segmentation.GetSegmentation().GetSegment("Segment_1").GetTerminology()
    assert application.logics.modules["Terminologies"].DeserializeTerminologyEntry(text, entry)
    assert entry.GetTypeObject().GetCodeValue() == "50960005"
    assert entry.GetCategoryObject().GetCodeValue() == "49755003"


def test_no_blood_still_gives_the_segment(scene):
    node = add_head()
    result = bleed_result(scene.volume_from_node(node))
    result.labels.array[:] = 0
    shown = scene.show_result(result, node)
    assert shown.segmentation.GetSegmentation().GetNumberOfSegments() == 1


def test_heat_map_has_geometry_colours_and_threshold(scene):
    import slicer

    node = add_head()
    shown = scene.show_result(bleed_result(scene.volume_from_node(node)), node)
    entropy = shown.maps["entropy"]
    assert np.allclose(scene.ijk_to_world(entropy), TILTED)
    display = entropy.GetDisplayNode()
    assert display.GetColorNode().GetName() == "Neuraxis heat"
    assert display.GetApplyThreshold() and 0 < display.GetLowerThreshold() < 0.2
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0.0, 1.0)
    scene.show_result(bleed_result(scene.volume_from_node(node)), node)
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLColorTableNode")]
    assert names.count("Neuraxis heat") == 1


def test_heat_colours_rise_in_lightness(scene):
    from NeuraxisLib.scene_maps import heat_colors

    table = heat_colors().GetLookupTable()
    colors = np.array([table.GetTableValue(i)[:3] for i in range(256)])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all() and luminance[-1] - luminance[0] > 0.8


def test_table_says_what_was_measured(scene):
    node = add_head()
    table = scene.show_result(bleed_result(scene.volume_from_node(node)), node).tables["measurements"].GetTable()
    rows = [[table.GetValue(r, c).ToString() for c in range(4)] for r in range(table.GetNumberOfRows())]
    # 10 x 10 x 3 voxels of 2 x 2 x 5 mm are 6 mL, whatever the tilt
    assert rows[0] == ["Total volume", "6.00", "mL", "5.40 to 6.60"]
    assert rows[2][:2] == ["Bleeds", "1"]


def test_what_is_kept_with_the_segmentation(scene):
    node = add_head()
    result = bleed_result(scene.volume_from_node(node))
    result.warnings.append("Check the vertex.")
    segmentation = scene.show_result(result, node).segmentation
    assert scene.key_slices(segmentation) == [14, 11, 12]
    assert segmentation.GetAttribute(scene.WARNINGS_ATTRIBUTE) == "Check the vertex."
    assert json.loads(segmentation.GetAttribute(scene.PROVENANCE_ATTRIBUTE)) == {"model": "fake"}


def test_results_of_two_volumes_stay_apart(scene):
    first, second = add_head("First"), add_head("Second")
    shown = [scene.show_result(bleed_result(scene.volume_from_node(n)), n) for n in (first, second)]
    assert shown[0].segmentation is not shown[1].segmentation
    assert scene.result_nodes(first, "hemorrhage")["labels"] is shown[0].segmentation
    assert shown[0].segmentation.GetName() == "First segmentation"


def test_a_map_that_is_gone_from_the_result_is_gone_from_the_scene(scene):
    node = add_head()
    result = bleed_result(scene.volume_from_node(node))
    scene.show_result(result, node)
    result.maps.clear()
    scene.show_result(result, node)
    assert set(scene.result_nodes(node, "hemorrhage")) == {"labels", "table measurements"}


def test_results_are_filed_under_the_study_of_the_source(scene):
    import slicer

    node = add_head()
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)
    shown = scene.show_result(bleed_result(scene.volume_from_node(node)), node)
    for result_node in (shown.segmentation, shown.maps["entropy"], shown.tables["measurements"]):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result_node)) == study


def test_result_of_another_shape_is_refused_and_nothing_is_added(scene):
    node = add_head()
    other = Volume(np.zeros((16, 64, 64), np.int16), TILTED, "HU")
    with pytest.raises(GeometryError, match="run it again"):
        scene.show_result(bleed_result(other), node)
    assert scene.result_nodes(node, "hemorrhage") == {}


def test_overlay_of_someone_else_is_left_alone(scene):
    import slicer

    from NeuraxisLib import scene_views

    node, other = add_head(), add_head("Other")
    slicer.util.setSliceViewerLayers(foreground=other)
    scene_views.overlay(None, 0.5)
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() == other.GetID()
    shown = scene.show_result(bleed_result(scene.volume_from_node(node)), node)
    scene_views.overlay(shown.maps["entropy"], 0.7)
    assert composite.GetForegroundVolumeID() == shown.maps["entropy"].GetID()
    assert composite.GetForegroundOpacity() == 0.7
    scene_views.overlay(None, 0.7)
    assert not composite.GetForegroundVolumeID()
