"""The section "DICOM export" of a panel: a result as DICOM files in the study of the series that it came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NeuraxisLib import scene
from NeuraxisLib.dicom_export_process import ExportRuns
from NeuraxisLib.panel import worker_settings
from NeuraxisLib.run_panel import RunPanel
from NeuraxisLib.scene_attempt import attempt
from NeuraxisLib.scene_logic import neuraxis_logic
from NeuraxisLib.worker_client import default_python

UI_FILE = Path(__file__).resolve().parents[1] / "Resources" / "UI" / "DicomExport.ui"
REQUIREMENTS_FILE = Path(__file__).parent / "Resources" / "requirements-dicom.txt"
#: Attribute that DICOM loading gives a volume: its SOP instance UIDs, with blanks between.
INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"
POLL_INTERVAL_MS = 100


class DicomExportSection:
    """Exports the result of the volume that the panel shows.

    Args:
        panel: the :class:`~NeuraxisLib.scene_panel.ModulePanel`; gives ``task``, ``say`` and ``bringUpToDate``.
    """

    def __init__(self, panel: Any):
        self._panel = panel
        self.top = slicer.util.loadUI(str(UI_FILE))
        self.ui = slicer.util.childWidgetVariables(self.top)
        self._boxes = {
            "seg": self.ui.segmentationCheckBox,
            "sr": self.ui.measurementsCheckBox,
            "maps": self.ui.mapsCheckBox,
            "report": self.ui.reportCheckBox,
        }
        self._volume: Any = None
        self._folder: Path | None = None
        self._chosen: dict[str, str] = {}  # id of a volume -> DICOM folder that the user named for it
        self._written: Path | None = None  # folder of the last export, as long as it may be imported
        self._timer = qt.QTimer()
        self._timer.interval = POLL_INTERVAL_MS
        self._runs = ExportRuns()
        self.run = RunPanel(self.ui, self._runs, self._timer, self._say, self._refresh)
        self._timer.connect("timeout()", self.run.on_timer)
        ui = self.ui
        for button, slot in (
            (ui.sourceButton, self.onSource), (ui.exportButton, self.onExport), (ui.cancelExportButton, self.onCancel),
            (ui.importButton, self.onImport), (ui.installButton, self.onInstall),
        ):  # fmt: skip
            button.connect("clicked(bool)", slot)
        for box in self._boxes.values():
            box.connect("toggled(bool)", self.onPartToggled)
        self._refresh()

    # -- life ---------------------------------------------------------------------------------------------------

    def refresh(self, volume: Any, folder: Path | None) -> None:
        """Show what can be exported of the result of a volume."""
        if volume is not self._volume and not self.run.is_running:
            self._written = None
            self.ui.statusLabel.text = ""
        self._volume, self._folder = volume, folder
        self._refresh()

    def leave(self) -> None:
        """An export that is under way goes on: it needs files alone."""

    def cleanup(self) -> None:
        """The panel goes, and an export with it."""
        self.run.drop()
        self._runs.drop()

    def _say(self, sentence: str) -> None:
        self.ui.statusLabel.text = sentence
        slicer.util.showStatusMessage(sentence, 5000)

    def _refresh(self) -> None:
        ui, nodes, running = self.ui, scene.result_nodes(self._volume, self._panel.task), self.run.is_running
        there = {"seg": "labels" in nodes, "maps": any(part.startswith("map ") for part in nodes)}
        for part, box in self._boxes.items():
            box.enabled = bool(nodes) and there.get(part, True) and not running
        ui.sourceLabel.text = self._aboutSource()
        ui.sourceButton.enabled = self._volume is not None and not self._instances() and not running
        missing = self._missingPackages()
        ui.installButton.visible = bool(missing)
        reason = self._whyNot(nodes, missing)
        ui.exportButton.enabled = not reason
        done = _("Write the ticked parts as DICOM files into a new folder, all or nothing.")
        ui.exportButton.toolTip = reason or done
        ui.cancelExportButton.enabled = ui.progressBar.visible = running
        importable = self._written is not None and not running
        ui.importButton.visible, ui.importButton.enabled = importable, importable and _database() is not None

    def _whyNot(self, nodes: dict, missing: list[str]) -> str:
        """One sentence on why nothing can be exported; empty if something can."""
        if self.run.is_running:
            return _("An export is under way.")
        if not nodes:
            return _("There is no result yet; compute one first.")
        if self._folder is None:
            return _("The files of this result belong to an earlier session; compute it again to export it.")
        if missing:
            return _("Install the missing packages first: {packages}.").format(packages=", ".join(missing))
        if self._source() is None:
            return _("The DICOM series of this volume is not known; choose its folder first.")
        return "" if self._parts() else _("Tick what to export.")

    @staticmethod
    def _missingPackages() -> list[str]:
        return neuraxis_logic().missingPackages(REQUIREMENTS_FILE)

    def _parts(self) -> list[str]:
        return [part for part, box in self._boxes.items() if box.enabled and box.checked]

    def onPartToggled(self, checked: bool = False) -> None:
        """Something was ticked or not."""
        self._refresh()

    # -- source -------------------------------------------------------------------------------------------------

    def _instances(self) -> list[str]:
        """Files of the volume's own DICOM images in Slicer's database; empty if it was not loaded from there."""
        database = _database()
        uids = (self._volume.GetAttribute(INSTANCES_ATTRIBUTE) or "").split() if self._volume is not None else []
        files = [database.fileForInstance(uid) for uid in uids] if database is not None else []
        return files if files and all(files) else []

    def _source(self) -> list[str] | str | None:
        """Files or folder of the source series; None if they are not known."""
        if self._volume is None:
            return None
        return self._instances() or self._chosen.get(self._volume.GetID())

    def _aboutSource(self) -> str:
        source = self._source()
        if source is None:
            return _("Source series: not known")
        if isinstance(source, str):
            return _("Source series: folder '{name}'").format(name=Path(source).name)
        return _("Source series: {count} images in the DICOM database").format(count=len(source))

    def onSource(self, checked: bool = False) -> None:
        """Ask for the DICOM folder of the series that the volume came from."""
        folder = qt.QFileDialog.getExistingDirectory(self.top, _("DICOM folder of the source series"))
        if folder:
            self._chosen[self._volume.GetID()] = folder
            self._refresh()

    # -- export -------------------------------------------------------------------------------------------------

    def onExport(self, checked: bool = False) -> None:
        """Ask for a folder and write the ticked parts into a new one there."""
        chosen = qt.QFileDialog.getExistingDirectory(self.top, _("Folder to put the DICOM files in"))
        if not chosen:
            return
        fault = attempt(lambda: self._panel.bringUpToDate(self._folder) or "", _("Nothing was exported."))
        if fault:
            self._say(fault)
            return
        output, self._written = new_name(Path(chosen), f"{self._panel.task}_dicom"), None
        job = {"result_folder": str(self._folder), "source": self._source(), "output": str(output)}
        job["parts"] = self._parts()
        python = worker_settings(slicer.app.userSettings().value)["python"]
        environment = slicer.util.startupEnvironment() if python else None
        words = {
            "starting": _("Starting"),
            "cancelling": _("Cancelling"),
            "done": "",
            "cancelled": _("Cancelled; nothing was written."),
        }

        def begin(**callbacks: Any) -> Any:
            return self._runs.begin(job, python or default_python(), environment, **callbacks)

        self.run.start(begin, words, lambda found: self._done(output, *found))
        self._refresh()

    def _done(self, output: Path, files: list[Path], leftOut: list[str]) -> None:
        self._written = output
        words = _("DICOM files written to '{name}': {count}.").format(count=len(files), name=output.name)
        words = " ".join([words, *leftOut])
        if _database() is not None:
            words += " " + _("Import adds them to the DICOM database of Slicer.")
        self._say(words)
        self._refresh()

    def onCancel(self, checked: bool = False) -> None:
        """Cancel the export."""
        self.run.cancel()

    def onImport(self, checked: bool = False) -> None:
        """Add the written files to Slicer's DICOM database."""
        self._say(attempt(self._addToDatabase, _("The files could not be imported.")))
        self._refresh()

    def _addToDatabase(self) -> str:
        from DICOMLib import DICOMUtils

        DICOMUtils.importDicom(str(self._written))
        self._written = None
        return _("The files are in the DICOM database, in the study of the source series.")

    def onInstall(self, checked: bool = False) -> None:
        """Install what writing DICOM needs, after asking."""
        install = neuraxis_logic().installPackages
        self._say(attempt(lambda: install(REQUIREMENTS_FILE), _("Installation failed.")))
        self._refresh()


def _database() -> Any:
    """Slicer's DICOM database if it is open, else None."""
    database = getattr(slicer, "dicomDatabase", None)
    return database if database is not None and database.isOpen else None


def new_name(parent: Path, name: str) -> Path:
    """A path in a folder at which nothing is yet: ``name``, or ``name_2`` and so on."""
    number, path = 1, parent / name
    while os.path.lexists(path):
        number += 1
        path = parent / f"{name}_{number}"
    return path
