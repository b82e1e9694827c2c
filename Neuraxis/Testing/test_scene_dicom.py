"""The section "DICOM export" on the real panel of a module: every button clicked, the real files written."""

from __future__ import annotations

import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pydicom
import pytest
from dicom_results import marked_voxels

from NeuraxisLib.errors import InputError, WorkerError
from NeuraxisLib.files import read_volume
from Testing.dicom_series import save, series
from Testing.slicer_stand_in.fake_worker import FakeClient, bleed_result, compute_with
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401


class Database:
    """The part of ctkDICOMDatabase that is asked: files by SOP instance UID."""

    isOpen = True

    def __init__(self, folder):
        files = sorted(folder.glob("*.dcm"))
        self._files = {str(pydicom.dcmread(file).SOPInstanceUID): str(file) for file in files}

    @property
    def uids(self) -> list[str]:
        return list(self._files)

    def fileForInstance(self, uid: str) -> str:
        return self._files.get(uid, "")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A tilted series of 24 slices."""
    images = series(np.arange(-58.0, 60.0, 5.0), tilt_deg=15.0, matrix=64, pixel_mm=3.0)
    return save(images, tmp_path_factory.mktemp("scan") / "scan")


@pytest.fixture
def client(application, tmp_path, monkeypatch):  # noqa: F811
    """A fake worker for the computation; the export's process is real."""
    fake = FakeClient(tmp_path / "runs")
    (tmp_path / "runs").mkdir()
    compute_with(monkeypatch, fake)
    return fake


@pytest.fixture
def scan(source, client):
    """The series in the scene."""
    import slicer

    volume = read_volume(source)
    return slicer.util.addVolumeFromArray(volume.array, ijkToRAS=volume.ijk_to_ras, name="Scan")


@pytest.fixture
def widget(application, client, scan):  # noqa: F811
    panel = application.new_widget("HemorrhageSeg")
    yield panel
    application.close_widget(panel)


@pytest.fixture
def section(widget):
    found = next(one for one in widget._panel.sections if type(one).__name__ == "DicomExportSection")
    found.top.collapsed = False
    return found


def compute(widget, client):
    """Click the module's button and let the fake worker finish."""
    widget.ui.applyButton.click()
    client.finish(bleed_result(client.handle.job.volume))
    widget._panel.run.on_timer()


def finish(section, seconds: float = 60) -> None:
    """Let the timer's slot run until the export has ended."""
    until = time.monotonic() + seconds
    while section.run.is_running:
        assert time.monotonic() < until, "the export has not ended"
        section.run.on_timer()
        time.sleep(0.05)


def reason(section) -> str:
    assert not section.ui.exportButton.enabled
    return section.ui.exportButton.toolTip


def test_the_button_says_why_it_cannot_be_pressed(application, widget, section, client, scan, source):  # noqa: F811
    ui = section.ui
    assert "no result yet" in reason(section) and not ui.segmentationCheckBox.enabled
    compute(widget, client)
    assert "choose its folder" in reason(section) and ui.sourceLabel.text.endswith("not known")
    application.recorded.answers.append(str(source))
    ui.sourceButton.click()
    assert ui.exportButton.enabled and "all or nothing" in ui.exportButton.toolTip
    assert ui.sourceLabel.text == "Source series: folder 'scan'"
    for box in (ui.segmentationCheckBox, ui.measurementsCheckBox, ui.mapsCheckBox, ui.reportCheckBox):
        assert box.enabled
        box.click()
    assert reason(section) == "Tick what to export."
    ui.reportCheckBox.click()
    assert ui.exportButton.enabled


def test_a_dialog_that_is_closed_changes_nothing(application, widget, section, client):  # noqa: F811
    compute(widget, client)
    application.recorded.answers.append("")
    section.ui.sourceButton.click()
    assert section.ui.sourceLabel.text.endswith("not known")


def test_export_from_a_folder(application, widget, section, client, source, tmp_path):  # noqa: F811
    compute(widget, client)
    application.recorded.answers += [str(source), str(tmp_path)]
    section.ui.sourceButton.click()
    section.ui.reportCheckBox.click()
    section.ui.exportButton.click()
    assert section.run.is_running and section.ui.cancelExportButton.enabled
    assert not section.ui.segmentationCheckBox.enabled
    assert reason(section) == "An export is under way."
    finish(section)
    output = tmp_path / "hemorrhage_dicom"
    files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.dcm"))
    assert files == ["maps/entropy.dcm", "measurements.dcm", "segmentation.dcm"]
    assert "'hemorrhage_dicom': 3" in section.ui.statusLabel.text
    assert [kind for kind, _ in application.recorded.dialogs] == ["choose folder"] * 2
    places = {marked.position_lps for marked in marked_voxels(output / "segmentation.dcm")}
    result = bleed_result(client.handle.job.volume)
    assert len(places) == np.count_nonzero(result.labels.array)
    k, j, i = np.argwhere(result.labels.array)[0]
    place = (result.labels.ijk_to_ras @ [i, j, k, 1])[:3] * [-1, -1, 1]
    assert min(np.abs(np.subtract(place, other)).max() for other in places) < 2e-3


def test_export_and_import_with_the_database(application, widget, section, client, scan, source, tmp_path, monkeypatch):  # noqa: F811
    import slicer

    database, imported = Database(source), []
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    library = ModuleType("DICOMLib")
    library.DICOMUtils = SimpleNamespace(importDicom=imported.append)
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    scan.SetAttribute("DICOM.instanceUIDs", " ".join(database.uids))
    compute(widget, client)
    assert section.ui.sourceLabel.text == "Source series: 24 images in the DICOM database"
    assert not section.ui.sourceButton.enabled and section.ui.importButton.isHidden()
    for box in (section.ui.mapsCheckBox, section.ui.reportCheckBox):
        box.click()
    (tmp_path / "hemorrhage_dicom").mkdir()  # a name that is taken
    application.recorded.answers.append(str(tmp_path))
    section.ui.exportButton.click()
    finish(section)
    output = tmp_path / "hemorrhage_dicom_2"
    referenced = pydicom.dcmread(output / "segmentation.dcm").ReferencedSeriesSequence[0]
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == set(database.uids)
    assert section.ui.importButton.enabled
    section.ui.importButton.click()
    assert imported == [str(output)] and section.ui.importButton.isHidden()
    assert "in the DICOM database" in section.ui.statusLabel.text


def test_images_that_the_database_has_lost(application, widget, section, client, scan, source, monkeypatch):  # noqa: F811
    import slicer

    database = Database(source)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    scan.SetAttribute("DICOM.instanceUIDs", " ".join([*database.uids, "1.2.3"]))
    compute(widget, client)
    assert "choose its folder" in reason(section) and section.ui.sourceButton.enabled


def test_a_wrong_series_is_one_sentence(application, widget, section, client, tmp_path):  # noqa: F811
    compute(widget, client)
    other = save(series(np.arange(-58.0, 60.0, 5.0), matrix=64, pixel_mm=3.0), tmp_path / "other")
    application.recorded.answers += [str(other), str(tmp_path)]
    section.ui.sourceButton.click()
    section.ui.exportButton.click()
    finish(section)
    assert "has the slices of the result" in section.ui.statusLabel.text
    assert not (tmp_path / "hemorrhage_dicom").exists() and section.ui.exportButton.enabled
    assert section.ui.importButton.isHidden()


def test_cancel_leaves_nothing(application, widget, section, client, source, tmp_path):  # noqa: F811
    compute(widget, client)
    out = tmp_path / "out"
    out.mkdir()
    application.recorded.answers += [str(source), str(out)]
    section.ui.sourceButton.click()
    section.ui.exportButton.click()
    section.ui.cancelExportButton.click()
    assert section.ui.statusLabel.text == "Cancelling"
    finish(section, 10)
    assert section.ui.statusLabel.text == "Cancelled; nothing was written." and list(out.iterdir()) == []


def test_closing_the_panel_ends_the_export(application, widget, section, client, source, tmp_path):  # noqa: F811
    compute(widget, client)
    out = tmp_path / "out"
    out.mkdir()
    application.recorded.answers += [str(source), str(out)]
    section.ui.sourceButton.click()
    section.ui.exportButton.click()
    child = section._runs._current._child
    section.cleanup()
    assert child.poll() is not None and list(out.iterdir()) == []


def test_a_wrong_interpreter(application, widget, section, client, source, tmp_path, monkeypatch):  # noqa: F811
    import slicer

    from NeuraxisLib.panel import PYTHON_SETTING

    compute(widget, client)
    application.recorded.answers += [str(source), str(tmp_path)]
    section.ui.sourceButton.click()
    monkeypatch.setattr(slicer.util, "startupEnvironment", lambda: {})
    slicer.app.userSettings().setValue(PYTHON_SETTING, str(tmp_path / "no python"))
    section.ui.exportButton.click()
    slicer.app.userSettings().remove(PYTHON_SETTING)
    assert "cannot be started" in section.ui.statusLabel.text and not section.run.is_running


def test_failed_corrections_stop_it(application, widget, section, client, source, tmp_path, monkeypatch):  # noqa: F811
    def broken(folder):
        raise InputError("The result is gone; compute it again.")

    compute(widget, client)
    application.recorded.answers += [str(source), str(tmp_path)]
    section.ui.sourceButton.click()
    monkeypatch.setattr(widget._panel, "bringUpToDate", broken)
    section.ui.exportButton.click()
    assert section.ui.statusLabel.text == "The result is gone; compute it again." and not section.run.is_running


def test_missing_packages_can_be_installed(application, widget, section, client, monkeypatch):  # noqa: F811
    logic, missing = sys.modules["Neuraxis"].NeuraxisLogic, ["highdicom>=0.28"]

    def install(self, file):
        missing.clear()
        return f"Installed {file.name}."

    monkeypatch.setattr(logic, "missingPackages", lambda self, file: list(missing))
    monkeypatch.setattr(logic, "installPackages", install)
    compute(widget, client)
    assert reason(section) == "Install the missing packages first: highdicom>=0.28."
    assert not section.ui.installButton.isHidden()
    section.ui.installButton.click()
    assert section.ui.statusLabel.text == "Installed requirements-dicom.txt." and section.ui.installButton.isHidden()
    assert "choose its folder" in reason(section)


def test_every_panel_has_the_section(application, client):  # noqa: F811
    for module in ("HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"):
        panel = application.new_widget(module)
        sections = [one for one in panel._panel.sections if type(one).__name__ == "DicomExportSection"]
        assert len(sections) == 1 and sections[0].top.collapsed
        application.close_widget(panel)


def test_a_child_that_dies(tmp_path):
    from NeuraxisLib.dicom_export_process import ExportProcess

    ends: list = []
    job = {"result_folder": str(tmp_path), "source": None, "output": str(tmp_path / "out")}
    process = ExportProcess(job, sys.executable, None, ends.append, ends.append, lambda: ends.append("cancelled"))
    process._child.kill()
    until = time.monotonic() + 20
    while not ends and time.monotonic() < until:
        process.poll()
    assert len(ends) == 1 and isinstance(ends[0], WorkerError)
