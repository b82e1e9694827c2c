"""The logic: console calls, maps of other programs, folders; lesions that follow thresholds; the real worker."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from ctp_dicom import shuttle, shuttle_times
from stroke_panel_support import StrokeClient, phantom, result

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from Testing.slicer_stand_in.fake_worker import compute_with
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

pytest.importorskip("torch")


@pytest.fixture
def logic(application, tmp_path, monkeypatch):  # noqa: F811
    """The module's logic with a worker that answers at once."""
    compute_with(monkeypatch, StrokeClient(tmp_path), models=None)
    made = sys.modules["StrokeCTP"].StrokeCTPLogic()
    yield made
    made.stop()


def even_maps():
    """CBF and Tmax of a block with 19.2 mL of core in 92.16 mL of late tissue (2 x 2 x 5 mm), on a turned grid."""
    cbf, tmax = np.zeros((2, 12, 64, 64), np.float32)
    cbf[:, 8:56, 8:56], tmax[:, 8:56, 8:56] = 50, 2
    tmax[3:9, 16:64, 36:52], cbf[3:9, 20:60, 40:44] = 9, 8
    tmax[:, 56:], cbf[:, 56:] = 0, 0
    return {"cbf": cbf, "tmax": tmax}


def add_maps(matrix=None):
    """The maps as nodes."""
    import slicer

    grid = np.diag([-2.0, -2.0, 5.0, 1.0]) if matrix is None else matrix
    return {
        kind: slicer.util.addVolumeFromArray(array, ijkToRAS=grid, name=kind) for kind, array in even_maps().items()
    }


def test_console_call_returns_the_nodes(logic):
    from NeuraxisLib import scene_frames

    node = scene_frames.add_sequence(phantom().frames, "CTP")
    shown = logic.process(node, device="cpu", nihss=12)
    assert shown.segmentation.GetSegmentation().GetNumberOfSegments() == 2
    assert {"measurements", "criteria"} <= set(shown.tables) and "vessels" in shown.curves
    assert logic.resultFolder(scene_frames.average_node(node)).is_dir()
    truth = phantom().volume_ml(phantom().hypoperfused)
    found = {m.name: m.value for m in result(nihss=12).measurements}["Hypoperfused volume"]
    assert found == pytest.approx(truth, rel=0.25), "a coarse phantom, but the lesion is found"


def test_maps_of_another_program_have_the_volumes_that_were_drawn_into_them(logic):
    import slicer

    maps = add_maps()
    shown = logic.process(maps)
    late = 6 * (40 * 16 - 4)  # the median takes the corners
    expected = {"Segment_1": late - 6 * 36 * 4, "Segment_2": 6 * 36 * 4}
    for segment, voxels in expected.items():
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(shown.segmentation, segment, maps["cbf"])
        assert mask.sum() == voxels, segment


def test_maps_on_different_grids_are_refused(logic):
    import slicer

    maps = add_maps()
    maps["tmax"].SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.diag([-2.0, -2.0, 4.0, 1.0])))
    with pytest.raises(Exception, match="different grids"):
        logic.process(maps)


def test_panel_on_maps(application, logic):  # noqa: F811
    maps = add_maps()
    widget = application.new_widget("StrokeCTP")
    widget.ui.inputKindComboBox.setCurrentIndex(1)
    assert not widget.ui.applyButton.enabled and "Tmax" in widget.ui.applyButton.toolTip.replace("TMAX", "Tmax")
    widget.ui.cbfSelector.setCurrentNode(maps["cbf"])
    widget.ui.tmaxSelector.setCurrentNode(maps["tmax"])
    assert widget.ui.applyButton.enabled and not widget.ui.mapsWidget.isHidden() and widget.ui.framesWidget.isHidden()
    widget.ui.applyButton.click()
    widget.logic._runs.client.answer()
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text.startswith("Done.")
    assert [widget.ui.familyComboBox.itemData(i) for i in range(widget.ui.familyComboBox.count)] == ["svd"]
    assert not widget.ui.placeArteryButton.enabled and widget.ui.saveReportButton.enabled
    application.close_widget(widget)


def test_a_dicom_folder_becomes_a_sequence_with_all_times(application, logic, tmp_path):  # noqa: F811
    from NeuraxisLib import scene_frames

    parameters = logic.getParameterNode()
    message = logic.loadFolder(shuttle(tmp_path / "dicom"), parameters)
    assert "frames" in message and parameters.inputKind == "frames"
    back, _ = scene_frames.placed_frames(parameters.frames)
    times = shuttle_times()
    assert np.allclose(np.sort(back.frame_times_s.ravel()), np.sort((times - times.min()).ravel()), atol=0.01)


def test_a_folder_of_maps_becomes_volumes(application, logic, tmp_path):  # noqa: F811
    for kind, array in even_maps().items():
        write_volume(replace(phantom().frames, array=array, ijk_to_ras=np.diag([-2.0, -2, 5, 1]), frame_times_s=None,
                             unit={"cbf": "mL/100 g/min", "tmax": "s"}[kind]), tmp_path / f"{kind}.nrrd")  # fmt: skip
    parameters = logic.getParameterNode()
    assert "CBF, TMAX" in logic.loadFolder(tmp_path, parameters)
    assert parameters.inputKind == "maps" and parameters.cbfMap is not None and parameters.cbvMap is None
    assert logic.process({"cbf": parameters.cbfMap, "tmax": parameters.tmaxMap}).segmentation is not None


# -- lesions by thresholds -----------------------------------------------------------------------------------


def live(axes=(0, 1, 2), flips=(False, False, False)):
    """Lesions by thresholds on the block, whose axes may be stored in another order."""
    from NeuraxisLib.volume import AxisOrder
    from StrokeCTPLib.live_lesions import LiveLesions, ShownMaps

    order, maps = AxisOrder(axes, flips), even_maps()
    grid = replace(phantom().frames, array=maps["cbf"], ijk_to_ras=np.diag([-2.0, -2, 5, 1]), frame_times_s=None)
    stored = {kind: np.ascontiguousarray(order.apply_array(array)) for kind, array in maps.items()}
    tissue = stored["cbf"] > 0
    return LiveLesions(ShownMaps(stored, tissue, tissue), order.apply(grid))


def test_moving_thresholds_draw_the_block():
    from StrokeCTPLib.live_lesions import Thresholds

    quick = live().quick(Thresholds("svd", 6.0, 0.3).rules(None))
    assert quick.core_ml == pytest.approx(6 * 36 * 4 * 0.02, rel=1e-4)
    assert quick.hypoperfused_ml == pytest.approx(6 * 40 * 16 * 0.02, rel=0.02)
    assert live().quick(Thresholds("svd", 10.0, 0.3).rules(None)).hypoperfused_ml == 0
    assert live().quick(Thresholds("svd", 6.0, 0.1).rules(None)).core_ml == 0


@pytest.mark.parametrize("axes, flips", [((0, 1, 2), (True, False, True)), ((2, 0, 1), (False, True, False))])
def test_lesions_lie_where_the_image_has_them_however_it_is_stored(axes, flips):
    from NeuraxisLib.volume import AxisOrder
    from StrokeCTPLib.live_lesions import Thresholds

    rules = Thresholds("svd", 6.0, 0.3).rules(None)
    expected = AxisOrder(axes, flips).apply_array(live().quick(rules).labels)
    assert expected.any() and np.array_equal(live(axes, flips).quick(rules).labels, expected)


def test_thresholds_become_those_of_the_family():
    from StrokeCTPLib.live_lesions import Thresholds

    calibration = {"tmax_s": 7.2, "plain_tmax_s": 6.0, "rcbf": 0.42, "plain_rcbf": 0.30, "line_delay_s": 3.1}
    rules = Thresholds("calibrated", 8.0, 0.20).rules(calibration)
    assert (rules.late_s, rules.rcbf) == (pytest.approx(9.2), pytest.approx(0.28))
    assert rules.grade_shift_s == pytest.approx(1.2)
    assert Thresholds("model", 7.0, 0.3).rules(calibration).late_s == pytest.approx(4.1)
    plain = Thresholds("svd", 7.0, 0.3).rules(calibration)
    assert (plain.late_s, plain.rcbf, plain.grade_shift_s) == (7.0, 0.3, 0.0)


def test_maps_without_tmax_cannot_be_thresholded():
    from StrokeCTPLib.live_lesions import LiveLesions, ShownMaps

    maps = even_maps()
    del maps["tmax"]
    with pytest.raises(InputError, match="TMAX"):
        LiveLesions(ShownMaps(maps, maps["cbf"] > 0, maps["cbf"] > 0), phantom().frames)


def test_holes_are_filled_as_scipy_fills_them():
    from scipy import ndimage

    from StrokeCTPLib.lesions import fill_holes

    rng = np.random.default_rng(3)
    for share in (0.3, 0.5, 0.7):
        mask = rng.random((4, 30, 40)) > share
        assert np.array_equal(fill_holes(mask), np.stack([ndimage.binary_fill_holes(part) for part in mask]))


# -- the real worker ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_frames_through_the_real_worker_and_another_artery_in_place(application):  # noqa: F811
    from NeuraxisLib import scene_frames

    logic = sys.modules["StrokeCTP"].StrokeCTPLogic()
    node = scene_frames.add_sequence(phantom().frames, "CTP")
    try:
        seen = []
        first = logic.process(node, device="cpu", onProgress=lambda fraction, stage: seen.append(stage))
        artery = tuple(int(v) for v in np.argwhere(phantom().tissue == 6)[0])
        second = logic.process(node, device="cpu", artery=",".join(map(str, artery)))
        assert (logic.resultFolder(scene_frames.average_node(node)) / "report.html").is_file()
    finally:
        logic.stop()
    assert len(set(seen)) > 3 and first.maps["cbf"] is second.maps["cbf"]
    assert second.points.GetNthControlPointDescription(0)
