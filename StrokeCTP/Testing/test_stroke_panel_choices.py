"""What the panel lets a user choose beside frames and thresholds: clean-up, excluded tissue, methods, odd files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stroke_panel_support import phantom
from test_stroke_widget import client, frames, nodes, number, run, volume_ml, widget  # noqa: F401

from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

pytest.importorskip("torch")


def add_label_map(mask, name="Artefact"):
    """A label map on the phantom's grid."""
    import slicer

    return slicer.util.addVolumeFromArray(
        mask.astype(np.uint8), phantom().frames.ijk_to_ras, name, "vtkMRMLLabelMapVolumeNode"
    )


def choose(box, data):
    """Pick an entry of a combo box by what stands behind it."""
    box.setCurrentIndex(box.findData(data))


def test_excluded_tissue_leaves_the_lesions_at_once_and_goes_with_the_next_run(widget, client):  # noqa: F811
    run(widget, client)
    lesion = volume_ml(widget, 1) + volume_ml(widget, 2)
    mask = np.zeros(phantom().tissue.shape, bool)
    mask[:, :, : mask.shape[2] // 2] = True
    mask = mask if (mask & phantom().core).sum() > (~mask & phantom().core).sum() else ~mask
    widget.ui.excludeSelector.setCurrentNode(add_label_map(mask))
    assert number(widget, "Core volume") == 0 and volume_ml(widget, 1) + volume_ml(widget, 2) < 0.2 * lesion
    assert not widget.logic.isUpToDate(widget._parameterNode)
    run(widget, client)
    sent = client.handle.job.inputs["exclude"]
    assert np.array_equal(sent.array > 0, mask) and np.allclose(sent.ijk_to_ras, phantom().frames.ijk_to_ras)
    assert widget.logic.isUpToDate(widget._parameterNode)
    widget.ui.excludeSelector.setCurrentNode(None)
    assert volume_ml(widget, 1) + volume_ml(widget, 2) == pytest.approx(lesion, rel=0.01)


def test_a_segmentation_excludes_too_and_the_result_s_own_does_not(widget, client):  # noqa: F811
    import slicer

    run(widget, client)
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Old infarct")
    widget.ui.excludeSelector.setCurrentNode(drawn)
    assert "no segment" in widget.ui.applyButton.toolTip
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        phantom().core.astype(np.uint8), drawn, drawn.GetSegmentation().AddEmptySegment(), widget.source()
    )
    drawn.GetSegmentation().AddEmptySegment()  # nothing was drawn in it yet
    widget._panel.refresh()
    assert widget.ui.applyButton.enabled
    from StrokeCTPLib.panel_choice import excluded_tissue

    assert np.array_equal(excluded_tissue(widget._parameterNode), phantom().core)
    widget.ui.excludeSelector.setCurrentNode(nodes(widget)["labels"])
    assert "a result itself" in widget.ui.applyButton.toolTip and not widget.ui.applyButton.enabled


def test_regions_below_the_smallest_volume_go_and_reset_brings_them_back(widget, client):  # noqa: F811
    run(widget, client)
    core = number(widget, "Core volume")
    assert core > 5
    widget.ui.smallestCoreSpinBox.value = 100.0
    assert number(widget, "Core volume") == 0 and volume_ml(widget, 2) == 0
    widget.ui.resetThresholdsButton.click()
    assert number(widget, "Core volume") == core and widget.ui.smallestCoreSpinBox.value == 1.0


def test_methods_and_patient_reach_the_worker(widget, client):  # noqa: F811
    assert widget.ui.methodsCollapsibleButton.collapsed
    choose(widget.ui.deconvolutionComboBox, "tikhonov")
    choose(widget.ui.residueComboBox, "box")
    choose(widget.ui.motionComboBox, "off")
    choose(widget.ui.genderComboBox, 1)
    widget.ui.poolingSpinBox.value, widget.ui.smoothingSpinBox.value = 2.0, 0.0
    widget.ui.applyButton.click()
    expected = {"deconvolution": "tikhonov", "residue": "box", "motion": "off", "gender": 1, "pooling_mm": 2.0}
    options = client.handle.job.options
    assert {name: options[name] for name in expected} == expected and options["smoothing_mm"] == 0.0


def test_the_boxes_offer_what_the_task_takes():
    from StrokeCTPLib.panel_methods import choices
    from StrokeCTPLib.task import CHOICES as TAKEN
    from StrokeCTPLib.task import StrokeOptions

    for field in ("deconvolution", "residue", "motion"):
        offered = next(titles for name, titles in choices().values() if name == field)
        assert set(offered) == set(TAKEN[field]) and getattr(StrokeOptions(), field) in offered


def test_a_report_of_another_network_is_not_up_to_date(widget, client):  # noqa: F811
    run(widget, client)
    assert widget.logic.isUpToDate(widget._parameterNode)
    widget._parameterNode.modelName = "another"
    assert not widget.logic.isUpToDate(widget._parameterNode)
    widget._parameterNode.modelName, widget._parameterNode.device = "", "cpu"
    assert widget.logic.isUpToDate(widget._parameterNode), "where it is computed changes nothing"


def load(application, widget, folder):  # noqa: F811
    """Choose a folder by the button; returns what the panel says."""
    application.recorded.answers.append(str(folder))
    widget.ui.loadFolderButton.click()
    return widget.ui.statusLabel.text


def test_pictures_are_read_with_the_ranges_and_the_voxel_size_of_the_panel(application, widget, tmp_path):  # noqa: F811
    import slicer
    from test_map_set import SIDE, brain, values, write_pictures

    folder = write_pictures(tmp_path / "CTP_01_001" / "20200101")
    assert "as the range of cbf" in load(application, widget, folder)
    assert not widget.ui.mapsWidget.isHidden() and not widget.ui.rangesLineEdit.isHidden(), "where to say it is shown"
    widget.ui.rangesLineEdit.text = "cbf=hundred"
    assert "write such as cbf=100,tmax=12" in load(application, widget, folder)
    widget.ui.rangesLineEdit.text, widget.ui.pictureSpacingLineEdit.text = "stavanger", "0.5,0.6,4"
    assert "CBF, CBV, TMAX, TTP, MIP" in load(application, widget, folder)
    parameters = widget._parameterNode
    assert parameters.tmaxMap.GetSpacing() == pytest.approx((0.5, 0.6, 4))
    read = slicer.util.arrayFromVolume(parameters.tmaxMap)[..., :SIDE][brain()]
    assert np.abs(read - values("tmax")[brain()]).max() < 0.2
    assert widget.ui.mipSelector.currentNode() is parameters.mipMap is not None
    from StrokeCTPLib.panel_choice import chosen_maps

    assert set(chosen_maps(parameters)) == {"cbf", "cbv", "tmax", "ttp", "mip"}


def test_a_folder_with_one_image_of_frames_is_read_with_the_interval_of_the_panel(
    application, widget, tmp_path  # noqa: F811
):  # fmt: skip
    import SimpleITK as sitk

    from NeuraxisLib import scene_frames

    image = sitk.GetImageFromArray(phantom().frames.array, isVector=False)
    (tmp_path / "frames").mkdir()
    sitk.WriteImage(image, str(tmp_path / "frames" / "stroke.nii.gz"))
    widget.ui.intervalSpinBox.value = 1.5
    assert "the interval of 1.5 s" in load(application, widget, tmp_path / "frames")
    back, _ = scene_frames.placed_frames(widget._parameterNode.frames)
    assert np.array_equal(back.array, phantom().frames.array) and back.frame_times_s[1] == pytest.approx(1.5)


def write_cases(folder):
    """Two cases of maps, and one that is none, in this order: a broken one, first, second."""
    from dataclasses import replace

    from test_stroke_logic import even_maps

    from NeuraxisLib.files import write_volume

    grid = replace(phantom().frames, ijk_to_ras=np.diag([-2.0, -2, 5, 1]), frame_times_s=None)
    for case in ("case_1", "case_2"):
        (folder / case).mkdir(parents=True)
        for kind, array in even_maps().items():
            unit = {"cbf": "mL/100 g/min", "tmax": "s"}[kind]
            write_volume(replace(grid, array=array, unit=unit), folder / case / f"{kind}.nrrd")
    (folder / "broken.nrrd").write_bytes(b"nothing")
    return folder


def let_it_end(run) -> None:
    """Let a panel's timer turn until the tables are written, too."""
    for _ in range(600):
        if not run.is_running:
            return
        run.on_timer()
    raise AssertionError("the batch never ended")


def test_a_folder_of_cases_runs_with_the_rules_of_the_panel(application, widget, client, tmp_path):  # noqa: F811
    from NeuraxisLib.errors import InputError

    cases = write_cases(tmp_path / "cases")
    widget.ui.nihssSpinBox.value, widget._parameterNode.lateS = 14, 8.0
    application.recorded.answers += [str(cases), str(tmp_path / "out")]
    widget.ui.batchButton.click()
    assert not widget.ui.applyButton.enabled and not widget.ui.batchButton.enabled and widget.ui.cancelButton.enabled
    job = client.handle.job
    assert job.inputs == {"perfusion": cases / "broken.nrrd"} and Path(job.output) == tmp_path / "out" / "broken"
    assert job.options["late_s"] == 8.0 and "nihss" not in job.options and "kind" not in job.options
    client.fail(InputError("'broken.nrrd' is damaged; copy it again."))
    widget._panel.run.on_timer()
    client.progress(0.5, "Measuring")
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text.startswith("Case 2 of 3, case_1: Measuring")
    assert widget.ui.progressBar.value == 50
    for _ in range(2):
        client.answer()
        widget._panel.run.on_timer()
    let_it_end(widget._panel.run)
    assert widget.ui.statusLabel.text.startswith("2 of 3 cases are done. Failed: 'broken.nrrd'")
    assert widget.ui.applyButton.enabled and widget.ui.batchButton.enabled and nodes(widget) == {}


def test_a_batch_outlives_the_scene_and_can_be_cancelled(application, widget, client, tmp_path):  # noqa: F811
    application.recorded.answers += [str(write_cases(tmp_path / "cases")), str(tmp_path / "out")]
    widget.ui.batchButton.click()
    application.scene.Clear(0)
    assert client.handle.state == "running"
    widget.ui.cancelButton.click()
    let_it_end(widget._panel.run)
    assert client.handle.state == "cancelled" and "finished cases were kept" in widget.ui.statusLabel.text
    application.recorded.answers += [str(tmp_path / "cases" / "case_1"), ""]
    widget.ui.batchButton.click()
    assert not widget._panel.run.is_running, "no folder for the results, no batch"
    (tmp_path / "nothing").mkdir()
    application.recorded.answers += [str(tmp_path / "nothing"), str(tmp_path / "out")]
    widget.ui.batchButton.click()
    assert widget.ui.statusLabel.text.startswith("There is no case in that folder")


def test_excluded_tissue_inside_a_lesion_is_not_filled_in():
    from test_stroke_logic import live

    from StrokeCTPLib.findings import Noise, measure_stroke
    from StrokeCTPLib.live_lesions import Thresholds
    from StrokeCTPLib.mismatch import Patient

    lesions, rules = live(), Thresholds("svd").rules(None)
    excluded = np.zeros((12, 64, 64), bool)
    excluded[4:7, 28:32, 40:50] = True  # within late tissue on all sides, across the core
    for mask, marked in ((None, True), (excluded, False)):
        lesions.leave_out(mask)
        found = measure_stroke(lesions.maps, lesions.grid, rules, Noise(), Patient(), lesions.excluded)
        assert lesions.stored(found.labels)[excluded].any() == marked
        assert lesions.quick(rules).labels[excluded].any() == marked
