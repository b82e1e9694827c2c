"""Curves, points and time series in the scene, on Slicer's own MRML classes."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from NeuraxisLib.result import Curve, CurvePlot, Landmark
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.volume import Volume
from Testing.slicer_stand_in.fake_worker import FakeClient, bleed_result
from Testing.slicer_stand_in.fixtures import TILTED, add_head, application, head_array, stand_in  # noqa: F401

MOTION = np.array([[0.0, -1, 0, 10], [1, 0, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1]])
POINTS = [Landmark("L4/L5", (10.0, -5.0, 20.0), 0.93, "fourth"), Landmark("L3/L4", (11.0, -6.0, 55.0), 0.2)]


@pytest.fixture
def scene(application):  # noqa: F811
    """The file under test; it can be imported only where slicer is."""
    from NeuraxisLib import scene

    return scene


def vessels() -> CurvePlot:
    return CurvePlot("Vessels", curves=(Curve("Artery", (0, 1.5, 3), (0, 200, 20)), Curve("Vein", (0, 2), (1, 300.5))))


def result_of(scene, node, **parts):
    result = bleed_result(scene.volume_from_node(node))
    for name, value in parts.items():
        setattr(result, name, value)
    return result


# -- curves -------------------------------------------------------------------------------------------------------


def test_curves_become_a_chart(scene):
    import slicer

    node = add_head()
    chart = scene.show_result(result_of(scene, node, curves={"vessels": vessels()}), node).curves["vessels"]
    assert chart.IsA("vtkMRMLPlotChartNode") and chart.GetTitle() == "Vessels"
    assert (chart.GetXAxisTitle(), chart.GetYAxisTitle()) == ("Time [s]", "Contrast [HU]")
    series = [chart.GetNthPlotSeriesNode(index) for index in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [one.GetName() for one in series] == ["Artery", "Vein"]
    table = series[1].GetTableNode().GetTable()
    drawn = [
        [table.GetColumnByName(name).GetValue(row) for row in range(table.GetNumberOfRows())]
        for name in (series[1].GetXColumnName(), series[1].GetYColumnName())
    ]
    assert drawn == [[0, 2], [1, 300.5]]
    assert series[0].GetColor() != series[1].GetColor()
    assert series[0].GetPlotType() == slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter


def test_curves_of_a_new_result_take_the_place_of_the_earlier_ones(scene):
    import slicer

    node = add_head()
    first = scene.show_result(result_of(scene, node, curves={"vessels": vessels()}), node).curves["vessels"]
    one = CurvePlot("Vessels", curves=(Curve("Artery", (0, 1), (0, 7)),))
    second = scene.show_result(result_of(scene, node, curves={"vessels": one}), node).curves["vessels"]
    assert second is first and second.GetNumberOfPlotSeriesNodes() == 1
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")) == 1
    scene.show_result(result_of(scene, node), node)
    for name in ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode"):
        assert slicer.util.getNodesByClass(name) == []
    assert set(scene.result_nodes(node, "hemorrhage")) == {"labels", "map entropy", "table measurements"}


# -- points -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "under a transform"])
def test_points_lie_where_they_were_found(scene, moved):
    import slicer

    node = add_head()
    if moved:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Motion")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(MOTION))
        node.SetAndObserveTransformNodeID(transform.GetID())
    points = scene.show_result(result_of(scene, node, points=POINTS), node).points
    assert points.GetTransformNodeID() == node.GetTransformNodeID()
    assert [points.GetNthControlPointLabel(n) for n in range(2)] == ["L4/L5", "L3/L4"]
    assert points.GetNthControlPointDescription(0) == "confidence 0.93; fourth"
    for number, point in enumerate(POINTS):
        place = [0.0, 0.0, 0.0]
        points.GetNthControlPointPositionWorld(number, place)
        assert place == pytest.approx(point.position_ras_mm)
    assert [points.GetNthControlPointSelected(n) for n in range(2)] == [True, False]  # the uncertain one is pale


def test_points_of_a_new_result_take_the_place_of_the_earlier_ones(scene):
    node = add_head()
    first = scene.show_result(result_of(scene, node, points=POINTS), node).points
    second = scene.show_result(result_of(scene, node, points=POINTS[:1]), node).points
    assert second is first and second.GetNumberOfControlPoints() == 1
    assert scene.show_result(result_of(scene, node), node).points is None
    assert "points" not in scene.result_nodes(node, "hemorrhage")


def test_slicer_reads_the_points_of_a_result_folder(scene, tmp_path):
    import slicer

    node = add_head()
    folder = write_result(result_of(scene, node, points=POINTS), tmp_path / "case", report=False)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsJsonStorageNode")
    storage.SetFileName(str(folder / "points.mrk.json"))
    read = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    assert storage.ReadData(read)
    assert read.GetNumberOfControlPoints() == 2
    place = [0.0, 0.0, 0.0]
    read.GetNthControlPointPosition(0, place)
    assert place == pytest.approx(POINTS[0].position_ras_mm)
    assert read.GetNthControlPointLabel(0) == "L4/L5"
    assert read.GetNthControlPointDescription(0) == "confidence 0.93; fourth"


# -- time series --------------------------------------------------------------------------------------------------


def add_sequence(count: int = 4, unit: str = "s", step: float = 1.5):
    """A sequence of heads that brighten by 10 with every frame."""
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Perfusion")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit(unit)
    for frame in range(count):
        node = add_head(f"frame {frame}")
        slicer.util.updateVolumeFromArray(node, head_array() + 10 * frame)
        sequence.SetDataNodeAtValue(node, f"{frame * step:g}")
        slicer.mrmlScene.RemoveNode(node)
    return sequence


@pytest.fixture
def frames_from_node(scene):
    from NeuraxisLib.scene_sequences import frames_from_node

    return frames_from_node


@pytest.mark.parametrize("unit, seconds", [("s", 1.5), ("ms", 0.0015)])
def test_a_sequence_keeps_its_true_times(frames_from_node, unit, seconds):
    volume = frames_from_node(add_sequence(unit=unit))
    assert volume.array.shape == (4, *head_array().shape) and volume.unit == "HU"
    assert np.array_equal(volume.array[3], head_array() + 30)
    assert np.allclose(volume.ijk_to_ras, TILTED)
    assert volume.frame_times_s == pytest.approx(np.arange(4) * seconds)


def test_frame_labels_of_dicom_loading_come_before_a_count_of_frames(frames_from_node):
    sequence = add_sequence(unit="", step=1)
    assert frames_from_node(sequence).frame_times_s is None  # the index only counts
    sequence.SetAttribute("MultiVolume.FrameLabels", "0,1500,3000,5500")
    assert frames_from_node(sequence).frame_times_s == pytest.approx([0, 1.5, 3.0, 5.5])


def test_what_is_no_time_series_is_refused_by_name(frames_from_node):
    import slicer

    with pytest.raises(InputError, match="Choose a sequence"):
        frames_from_node(None)
    with pytest.raises(InputError, match="'Head' holds no time series"):
        frames_from_node(add_head())
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Empty")
    with pytest.raises(InputError, match="'Empty' holds no frames"):
        frames_from_node(empty)
    sequence = add_sequence(3)
    shifted = add_head("shifted", TILTED + np.array([[0, 0, 0, 5.0], [0] * 4, [0] * 4, [0] * 4]))
    sequence.SetDataNodeAtValue(shifted, "9")
    with pytest.raises(InputError, match="Frame 4 of 'Perfusion' lies elsewhere"):
        frames_from_node(sequence)


# -- several inputs -----------------------------------------------------------------------------------------------


def test_further_inputs_go_along_as_nodes_volumes_or_paths(scene, tmp_path):
    from NeuraxisLib.scene_runs import SceneRuns

    client = FakeClient(tmp_path)
    runs = SceneRuns("hemorrhage", "ct", lambda: client)
    node, second = add_head(), add_head("Second")
    inputs = {"mask": second, "map": Volume(np.zeros((2, 2, 2)), np.eye(4)), "study": tmp_path}
    handle = runs.process(node, "", "cpu", {}, wait=False, inputs=inputs)
    sent = handle.job.inputs
    assert list(sent) == ["ct", "mask", "map", "study"]
    assert isinstance(sent["ct"], Volume) and isinstance(sent["mask"], Volume)
    assert sent["map"] is inputs["map"] and sent["study"] == tmp_path


def test_the_main_input_may_come_in_another_form(scene, tmp_path):
    from NeuraxisLib.scene_runs import SceneRuns

    client = FakeClient(tmp_path)
    node = add_head()
    frames = Volume(np.zeros((3, *head_array().shape), np.int16), TILTED, "HU", frame_times_s=np.arange(3.0))
    shown = []
    runs = SceneRuns("hemorrhage", "ct", lambda: client)
    handle = runs.process(node, "", "cpu", {}, wait=False, inputs={"ct": frames}, on_done=shown.append)
    assert handle.job.inputs == {"ct": frames}
    client.finish(bleed_result(scene.volume_from_node(node)))
    client.poll()
    assert shown[0].segmentation is scene.result_nodes(node, "hemorrhage")["labels"]
