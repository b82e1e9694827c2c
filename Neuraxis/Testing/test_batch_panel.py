"""The batch section of the Neuraxis panel on the stand-in, with real workers and a small real task: every button."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib import task
from NeuraxisLib.worker_client import WorkerClient
from Testing.dicom_series import SPARSE_MM, save, series
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from bare_models import write_bare_model  # noqa: E402
from batch_support import VOXEL_ML, write_scan  # noqa: E402
from remote_servers import FtpServer  # noqa: E402


class Database:
    """Slicer's DICOM database, with no more of ctkDICOMDatabase than Python sees and the panel may use."""

    def __init__(self, files: dict[str, list[str]]):
        self._files, self.isOpen = files, True

    def patients(self):
        return tuple(self._files)

    def nameForPatient(self, patient):
        return f"Doe^{patient}"

    def studiesForPatient(self, patient):
        return (f"{patient}.1",)

    def seriesForStudy(self, study):
        return (f"{study}.1",)

    def filesForSeries(self, one):
        return tuple(self._files[one.removesuffix(".1.1")])


@pytest.fixture
def section(application, tmp_path, monkeypatch):  # noqa: F811
    """The section in its panel, with the small task and workers that know it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    logic = sys.modules["Neuraxis"].NeuraxisLogic
    clients = []
    monkeypatch.setattr(
        logic, "newClient", lambda self: clients.append(WorkerClient(paths=[SUPPORT], threads=1)) or clients[-1]
    )
    models = tmp_path / "home" / "Neuraxis" / "Models"
    models.mkdir(parents=True)
    write_bare_model(models / "bright.safetensors")
    widget = application.new_widget("Neuraxis")
    (made,) = [one for one in widget._sections if type(one).__name__ == "BatchSection"]
    made.widget = widget
    yield made
    application.close_widget(widget)
    assert all(client._process is None for client in clients), "a worker was left running"


@pytest.fixture
def scans(tmp_path) -> Path:
    for number in (1, 2, 3):
        write_scan(tmp_path / "scans" / f"case{number}.nrrd", 10 * number)
    (tmp_path / "scans" / "wrong.nrrd").write_bytes(b"no image")
    return tmp_path / "scans"


def choose(section, source: Path, output: Path, kind: str = "folder") -> None:
    ui = section.ui
    ui.sourceComboBox.setCurrentIndex(ui.sourceComboBox.findData(kind))
    ui.taskComboBox.setCurrentIndex(ui.taskComboBox.findData("threshold"))
    ui.modelComboBox.setCurrentIndex(1)
    ui.sourceLineEdit.text, ui.outputLineEdit.text = str(source), str(output)


def until(section, condition, seconds: float = 60.0) -> None:
    """Let the panel's timers run, as Slicer would."""
    since = time.monotonic()
    while not condition():
        assert time.monotonic() < since + seconds, section.ui.batchStatusLabel.text
        section.widget.run.on_timer()
        section.onTimer()
        time.sleep(0.01)


def column(section, number: int) -> list[str]:
    table = section.ui.casesTable
    return [table.item(row, number).text() for row in range(table.rowCount)]


def test_a_folder_of_cases_with_live_table_retry_and_export(application, section, scans, tmp_path):  # noqa: F811
    ui = section.ui
    choose(section, scans, tmp_path / "out")
    assert not ui.retryButton.enabled and not ui.exportButton.enabled and not ui.openCaseButton.enabled
    ui.startButton.click()
    until(section, lambda: section.isRunning)
    assert not ui.startButton.enabled and ui.pauseButton.enabled and ui.cancelBatchButton.enabled
    assert column(section, 0) == ["case1", "case2", "case3", "wrong"]
    until(section, lambda: not section.isRunning)
    assert column(section, 1) == ["done", "done", "done", "failed"]
    assert column(section, 2)[:3] == ["0.05 mL", "0.1 mL", "0.15 mL"]
    assert "'wrong.nrrd' is not an image" in column(section, 3)[3]
    assert ui.batchStatusLabel.text.startswith("3 of 4 cases are done, 1 failed.") and ui.retryButton.enabled
    write_scan(scans / "wrong.nrrd", 40)
    ui.retryButton.click()
    until(section, lambda: not section.isRunning)
    assert column(section, 1)[3] == "done" and not ui.retryButton.enabled
    application.recorded.answers.append(str(tmp_path / "saved.csv"))
    ui.exportButton.click()
    with open(tmp_path / "saved.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done"] * 4
    application.recorded.answers.append(str(tmp_path / "no folder" / "saved.csv"))
    ui.exportButton.click()
    assert "was not saved" in ui.batchStatusLabel.text
    ui.openFolderButton.click()
    assert application.recorded.opened == [str(tmp_path / "out")]


def test_rows_are_drawn_over_several_turns_so_that_slicer_stays_alive(section, scans, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["NeuraxisLib.scene_batch"], "DRAWING_S", 0.0)
    choose(section, scans, tmp_path / "out")
    section.ui.startButton.click()
    until(section, lambda: section._batch is not None)
    assert section.ui.casesTable.rowCount == 4 and section.ui.casesTable.item(3, 0) is None
    until(section, lambda: not section.isRunning and not section._shown)
    assert column(section, 1) == ["done", "done", "done", "failed"]


def test_results_at_an_address_are_shown_opened_and_exported(application, section, scans, tmp_path):  # noqa: F811
    """What lies on another computer is fetched to be looked at; the console takes the same address, and it is done."""
    import slicer

    ui = section.ui
    with FtpServer(tmp_path / "server") as server:
        choose(section, scans, server.at("study"))
        ui.startButton.click()
        until(section, lambda: section.isRunning)
        until(section, lambda: not section.isRunning)
        assert column(section, 1) == ["done", "done", "done", "failed"]
        assert not ui.openFolderButton.enabled and server.password not in ui.batchStatusLabel.text
        ui.casesTable.selectRow(1)
        ui.openCaseButton.click()
        until(section, lambda: ui.batchStatusLabel.text and slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
        application.recorded.answers.append(str(tmp_path / "saved.csv"))
        ui.exportButton.click()
        outcomes = section.widget.logic.batch(str(scans), server.at("study"), "threshold", "bright")
    table = (tmp_path / "server" / "study" / "cases.csv").read_text()
    assert (tmp_path / "saved.csv").read_text() == table and table.count(",done,") == 3
    assert [outcome.folder and outcome.folder.name for outcome in outcomes] == ["case1", "case2", "case3", None]


def test_pause_resume_and_cancel(section, scans, tmp_path):
    ui = section.ui
    choose(section, scans, tmp_path / "out")
    ui.startButton.click()
    until(section, lambda: section.isRunning and section._batch.count("running") == 1)
    ui.pauseButton.click()
    assert ui.pauseButton.text == "Resume" and "Paused" in ui.batchStatusLabel.text
    until(section, lambda: section._batch.count("running") == 0)
    finished = column(section, 1).count("done")
    for _ in range(5):
        section.onTimer()
    assert section.isRunning and column(section, 1).count("done") == finished < 3
    ui.pauseButton.click()
    assert ui.pauseButton.text == "Pause"
    until(section, lambda: section._batch.count("running") == 1)
    ui.cancelBatchButton.click()
    until(section, lambda: not section.isRunning)
    assert "finished cases are kept" in ui.batchStatusLabel.text and ui.startButton.enabled
    ui.startButton.click()
    until(section, lambda: section.isRunning)
    until(section, lambda: not section.isRunning)
    assert column(section, 1) == ["done", "done", "done", "failed"]


def test_open_loads_case_and_result_into_the_scene(section, scans, tmp_path):
    import slicer

    ui = section.ui
    choose(section, scans, tmp_path / "out")
    ui.startButton.click()
    until(section, lambda: section.isRunning)
    until(section, lambda: not section.isRunning)
    ui.casesTable.selectRow(3)
    assert not ui.openCaseButton.enabled, "a failed case has no result"
    ui.casesTable.selectRow(1)
    ui.openCaseButton.click()
    until(section, lambda: slicer.mrmlScene.GetFirstNodeByName("case2") is not None)
    node = slicer.util.getNode("case2")
    assert np.count_nonzero(slicer.util.arrayFromVolume(node) == 100) == 20
    (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(
        segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), node
    )
    assert mask.sum() == 20
    until(section, lambda: not section.widget.isBusy)
    section.ui.casesTable.selectRow(0)
    section.ui.casesTable.cellDoubleClicked.emit(0, 0)
    until(section, lambda: slicer.mrmlScene.GetFirstNodeByName("case1") is not None)
    until(section, lambda: not section.widget.isBusy)


def test_a_table_of_cases_is_chosen_with_its_dialog(application, section, scans, tmp_path):  # noqa: F811
    ui = section.ui
    (tmp_path / "cases.csv").write_text("case,ct\nA,scans/case1.nrrd\n")
    choose(section, Path(), Path(), "table")
    application.recorded.answers += [str(tmp_path / "cases.csv"), str(tmp_path / "out")]
    ui.browseSourceButton.click()
    ui.browseOutputButton.click()
    ui.startButton.click()
    until(section, lambda: section.isRunning)
    until(section, lambda: not section.isRunning)
    assert (column(section, 0), column(section, 1)) == (["A"], ["done"])
    ui.sourceComboBox.setCurrentIndex(0)
    application.recorded.answers += [str(scans)]
    ui.browseSourceButton.click()
    assert ui.sourceLineEdit.text == str(scans)


def test_patients_of_the_dicom_database(section, tmp_path, monkeypatch):
    import slicer

    files = {}
    for name in ("a", "b"):
        folder = save(series(SPARSE_MM, matrix=32, pixel_mm=7.0), tmp_path / "dicom" / name)
        files[name] = sorted(map(str, folder.glob("*.dcm")))
    ui = section.ui
    section.top.collapsed = False
    assert ui.patientsList.isHidden() and not ui.sourceLineEdit.isHidden() and ui.batchProgressBar.isHidden()
    ui.sourceComboBox.setCurrentIndex(ui.sourceComboBox.findData("database"))
    assert ui.patientsList.count == 0, "there is no database"
    monkeypatch.setattr(slicer, "dicomDatabase", Database(files), raising=False)
    choose(section, Path(), tmp_path / "out", "folder")
    choose(section, Path(), tmp_path / "out", "database")
    assert [ui.patientsList.item(row).text() for row in range(2)] == ["Doe^a", "Doe^b"]
    assert ui.sourceLineEdit.isHidden() and not ui.patientsList.isHidden()
    ui.startButton.click()
    assert "patient" in ui.batchStatusLabel.text and not section.widget.isBusy
    ui.patientsList.item(1).setSelected(True)
    ui.startButton.click()
    until(section, lambda: section.isRunning)
    until(section, lambda: not section.isRunning)
    (name,) = column(section, 0)
    assert name.startswith("study-") and column(section, 1) == ["done"]
    for path in (tmp_path / "out").rglob("*.csv"):
        assert "Doe" not in path.read_text()


def test_what_is_missing_is_asked_for(section, scans, tmp_path):
    ui = section.ui
    ui.startButton.click()
    assert "folder for the results" in ui.batchStatusLabel.text
    ui.outputLineEdit.text = str(tmp_path / "out")
    ui.startButton.click()
    assert "folder or the table" in ui.batchStatusLabel.text
    choose(section, tmp_path / "nowhere", tmp_path / "out")
    ui.startButton.click()
    until(section, lambda: not section.widget.isBusy)
    assert "'nowhere' was not found" in section.widget.ui.statusLabel.text and section._batch is None
    ui.taskComboBox.setCurrentIndex(ui.taskComboBox.findData("stroke"))
    assert ui.modelComboBox.itemText(0) == "No model (thresholds)"


def test_the_console_runs_batches_too(section, scans, tmp_path):
    logic = section.widget.logic
    outcomes = logic.batch(scans, tmp_path / "out", "threshold", "bright", threshold_hu=50)
    assert [bool(outcome.folder) for outcome in outcomes] == [True, True, True, False]
    with open(tmp_path / "out" / "cases.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["Total volume [mL]"]) == pytest.approx(10 * VOXEL_ML)
