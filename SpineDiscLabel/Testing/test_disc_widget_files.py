"""Files that the panel writes, read back; many cases at once; the whole way through the real worker."""

from __future__ import annotations

import csv
import json
import sys
import time
import unittest

import numpy as np
import pytest
from disc_panel_support import add_spine, discs_ras_mm, spine_mr
from test_disc_widget import HIGHER, LUMBAR, client, names, run, say, spine, widget  # noqa: F401

from NeuraxisLib.errors import InputError, OutputError
from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.result_folder import read_result
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401


@pytest.fixture
def corrected(widget, client):  # noqa: F811
    """The panel with a result in which a person has named the lowest disc L4/L5."""
    run(widget, client)
    say(widget, 5, "L4/L5")
    return widget


def export(panel, application, path):  # noqa: F811
    """Click Export and answer with a path."""
    application.recorded.answers.append(str(path))
    panel.ui.exportButton.click()
    return panel.ui.statusLabel.text


def test_point_list_is_one_that_slicer_opens(application, corrected, tmp_path):  # noqa: F811
    import slicer

    assert export(corrected, application, tmp_path / "discs.mrk.json") == "Exported."
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(str(tmp_path / "discs.mrk.json"))
    node = slicer.vtkMRMLMarkupsFiducialNode()
    assert storage.ReadData(node)
    assert [node.GetNthControlPointLabel(n) for n in range(6)] == HIGHER
    assert "named by hand" in node.GetNthControlPointDescription(5)
    position = [0.0, 0.0, 0.0]
    node.GetNthControlPointPositionWorld(5, position)
    assert np.allclose(position, discs_ras_mm()[5], atol=1e-3)


def test_table_as_csv(application, corrected, tmp_path):  # noqa: F811
    assert export(corrected, application, tmp_path / "discs.csv") == "Exported."
    rows = list(csv.DictReader((tmp_path / "discs.csv").open()))
    assert [row["name"] for row in rows] == HIGHER and [row["disc"] for row in rows] == [str(n) for n in range(19, 25)]
    assert np.allclose([float(rows[2][axis]) for axis in ("R_mm", "A_mm", "S_mm")], discs_ras_mm()[2], atol=1e-3)


@pytest.mark.parametrize("backward_mm", [0.0, 9.0])
def test_labels_of_single_voxels(application, corrected, tmp_path, backward_mm):  # noqa: F811
    corrected.ui.backwardSpinBox.value = backward_mm
    assert export(corrected, application, tmp_path / "discs.nii.gz") == "Exported."
    labels = read_volume(tmp_path / "discs.nii.gz")
    assert labels.array.shape == spine_mr().array.shape and np.allclose(labels.ijk_to_ras, spine_mr().ijk_to_ras)
    for number, point in zip(range(19, 25), discs_ras_mm()):
        (voxel,) = np.argwhere(labels.array == number)
        ras = (labels.ijk_to_ras @ [*voxel[::-1], 1])[:3]
        assert np.all(np.abs(ras - (point - (0, backward_mm, 0))) <= np.array([2.0, 0.75, 0.75]) + 1e-3)
    assert np.count_nonzero(labels.array) == 6


def test_bids_derivative(application, corrected, tmp_path):  # noqa: F811
    ui = corrected.ui
    ui.subjectLineEdit.text, ui.sessionLineEdit.text, ui.reviewedCheckBox.checked = "07", "first", True
    ui.suffixComboBox.setCurrentIndex(ui.suffixComboBox.findText("T1w"))
    application.recorded.answers.append(str(tmp_path))
    ui.bidsButton.click()
    assert ui.statusLabel.text == "Exported."
    folder = tmp_path / "derivatives" / "labels" / "sub-07" / "ses-first" / "anat"
    sidecar = json.loads((folder / "sub-07_ses-first_T1w_label-discs_dlabel.json").read_text())
    assert sidecar["Reviewed"] is True and list(sidecar["Labels"].values()) == HIGHER
    assert read_volume(folder / "sub-07_ses-first_T1w_label-discs_dlabel.nii.gz").array.max() == 24


def test_what_cannot_be_written_is_said_in_one_sentence(application, corrected, tmp_path):  # noqa: F811
    assert "does not say what to write" in export(corrected, application, tmp_path / "discs.docx")
    assert "discs.csv" in export(corrected, application, tmp_path / "no such folder" / "discs.csv")
    application.recorded.answers.append(str(tmp_path))
    corrected.ui.bidsButton.click()
    assert "is no BIDS label" in corrected.ui.statusLabel.text
    application.recorded.answers.append("")
    corrected.ui.exportButton.click()
    assert list(tmp_path.glob("discs*")) == [] and application.recorded.dialogs[-1][0] == "save file"


def test_report_and_folder_hold_the_corrections(application, corrected, client, tmp_path):  # noqa: F811
    application.recorded.answers.append(str(tmp_path / "saved.html"))
    corrected.ui.saveReportButton.click()
    page = (tmp_path / "saved.html").read_text()
    assert "A person has corrected these discs." in page and "T11/T12 to L4/L5" in page and "named by hand" in page
    corrected.ui.openFolderButton.click()
    (folder,) = application.recorded.opened
    result = read_result(folder)
    assert [point.name for point in result.points] == HIGHER
    assert [row[0] for row in result.tables["discs"].rows] == HIGHER
    assert result.provenance["corrected"] == {"names_by_hand": ["L4/L5"], "steps": 1}
    corrected.ui.undoButton.click()
    corrected.ui.openFolderButton.click()
    assert [point.name for point in read_result(folder).points] == LUMBAR
    assert not any("corrected" in warning for warning in read_result(folder).warnings)


def test_without_corrections_the_report_is_the_computation_s_own(application, widget, client, tmp_path):  # noqa: F811
    assert not widget.ui.saveReportButton.enabled and not widget.ui.openFolderButton.enabled
    run(widget, client)
    application.recorded.answers.append(str(tmp_path / "saved.html"))
    widget.ui.saveReportButton.click()
    assert (tmp_path / "saved.html").read_text() == "<html>report</html>"


def test_console_says_what_is_missing(application, client, spine, tmp_path):  # noqa: F811
    logic = sys.modules["SpineDiscLabel"].SpineDiscLabelLogic()
    assert logic.chain(spine) is None
    with pytest.raises(InputError, match="no disc labels yet"):
        logic.export(spine, tmp_path / "discs.csv")
    logic.process(spine, device="cpu", lowest="L5/S1")
    assert client.handle.job.options == {"lowest": "L5/S1"}
    chain = logic.chain(spine)
    for point in chain.state.points:
        chain.correct(lambda editor, key=point.key: editor.delete(key))
    with pytest.raises(OutputError, match="no disc to export"):
        logic.export(spine, tmp_path / "discs.csv")


# -- the real worker ------------------------------------------------------------------------------------------


@pytest.fixture
def logic(application):  # noqa: F811
    """The module's logic with its own worker, ended after the test."""
    made = sys.modules["SpineDiscLabel"].SpineDiscLabelLogic()
    yield made
    made.stop()


@pytest.mark.slow
def test_an_untrained_network_sees_no_spine_and_the_others_of_the_batch_go_on(logic, tmp_path):
    torch = pytest.importorskip("torch")
    from test_disc_pipeline import header

    from NeuraxisLib.models import write_model
    from SpineDiscLabelLib.networks.hourglass import StackedHourglass

    torch.manual_seed(0)
    model = tmp_path / "tiny.safetensors"
    write_model(model, StackedHourglass(stacks=1, width=8, classes=25).state_dict(), header())
    with pytest.raises(InputError, match="no spine in view"):
        logic.process(add_spine(), None, str(model), "cpu", threshold=0.999)
    write_volume(spine_mr(), tmp_path / "spine.nii.gz")
    write_volume(spine_mr().like(np.zeros(spine_mr().array.shape, np.int16)), tmp_path / "empty.nii.gz")
    files = [tmp_path / "empty.nii.gz", tmp_path / "spine.nii.gz", tmp_path / "absent.nii.gz"]
    outcomes = logic.processFolder(files, tmp_path / "out", str(model), "cpu", threshold=0.999)
    assert "same value" in outcomes[0].error and "no spine in view" in outcomes[1].error and outcomes[2].error


@pytest.mark.slow
def test_the_bundled_scan_through_the_panel_and_the_real_worker(application, tmp_path):  # noqa: F811
    import slicer

    from SpineDiscLabelLib.task import TASK

    mr = read_volume(TASK.resources / "SampleData" / "lumbar_spine_mr.nrrd")
    slicer.util.addVolumeFromArray(mr.array, ijkToRAS=mr.ijk_to_ras, name="Spine")
    panel = application.new_widget("SpineDiscLabel")
    try:
        panel.ui.applyButton.click()
        until = time.monotonic() + 300
        while panel._panel.run.is_running and time.monotonic() < until:
            application.app.processEvents()
            time.sleep(0.02)
        assert panel.ui.statusLabel.text.startswith("Done."), panel.ui.statusLabel.text
        found = names(panel)
        assert found[-1] == "L5/S1" and len(found) >= 7 and panel.ui.saveReportButton.enabled
        say(panel, len(found) - 1, "L4/L5")
        assert names(panel)[-1] == "L4/L5"
        panel.ui.undoButton.click()
        assert names(panel) == found
    finally:
        application.close_widget(panel)


@pytest.mark.slow
def test_the_module_s_own_test_for_slicer(application):  # noqa: F811
    result = unittest.TestResult()
    sys.modules["SpineDiscLabel"].SpineDiscLabelTest("test_bundledScan").run(result)
    assert result.testsRun == 1 and result.wasSuccessful() and not result.skipped, result.errors + result.failures
