"""The section "Batch" of the Neuraxis panel: many cases from a folder, a table or the DICOM database."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NeuraxisLib import scene, scene_frames
from NeuraxisLib.batch import Batch, Entry
from NeuraxisLib.batch_cases import Case, find_cases, gathered
from NeuraxisLib.batch_entry import DONE, FAILED, RUNNING, WAITING
from NeuraxisLib.batch_local import LocalWorkers
from NeuraxisLib.batch_record import main_value
from NeuraxisLib.errors import CancelledError, NeuraxisError
from NeuraxisLib.models import installed_models
from NeuraxisLib.panel import plain_tip, time_left
from NeuraxisLib.remote import RemoteFolder, local_copy
from NeuraxisLib.result import Result
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.scene_cases import show_case
from NeuraxisLib.scene_runs import loaded_from
from NeuraxisLib.task import TASKS, Progress, Task, get_task
from NeuraxisLib.volume import Volume

UI_FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "UI"
POLL_INTERVAL_MS = 100
#: How long one turn of the timer may draw rows of the table.
DRAWING_S = 0.05
#: In pixels; the last column takes the rest.
COLUMN_WIDTHS = (140, 90, 90)
FOLDER, TABLE, DATABASE = "folder", "table", "database"


class BatchSection:
    """Choice of cases, live table, and what one does with a batch.

    Args:
        panel: the Neuraxis panel: ``panel.logic.newClient()``, ``panel.start(work, done, then)`` runs work in the
            background, ``panel.isBusy``.
    """

    def __init__(self, panel: Any):
        self._panel = panel
        self._batch: Batch | None = None
        self._numbers: dict[str, int] = {}  # name of a case -> its row
        self._shown: dict[str, None] = {}  # cases whose row has to be drawn anew, in their order
        self.top = slicer.util.loadUI(str(UI_FOLDER / "BatchPanel.ui"))
        self.ui = ui = slicer.util.childWidgetVariables(self.top)
        self._timer = qt.QTimer()
        self._timer.interval = POLL_INTERVAL_MS
        self._timer.connect("timeout()", self.onTimer)
        self.top.connect("contentsCollapsed(bool)", self.onUnfolded)
        for kind, title in ((FOLDER, _("Folder")), (TABLE, _("Table (CSV)")), (DATABASE, _("DICOM database"))):
            ui.sourceComboBox.addItem(title, kind)
        for name in TASKS:
            ui.taskComboBox.addItem(get_task(name).title, name)
        ui.casesTable.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        ui.casesTable.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        ui.patientsList.setSelectionMode(qt.QAbstractItemView.ExtendedSelection)
        ui.sourceComboBox.connect("currentIndexChanged(int)", self.onSource)
        ui.taskComboBox.connect("currentIndexChanged(int)", self.onTask)
        ui.browseSourceButton.connect("clicked(bool)", self.onBrowseSource)
        ui.browseOutputButton.connect("clicked(bool)", self.onBrowseOutput)
        ui.startButton.connect("clicked(bool)", self.onStart)
        ui.pauseButton.connect("toggled(bool)", self.onPause)
        ui.cancelBatchButton.connect("clicked(bool)", self.onCancel)
        ui.retryButton.connect("clicked(bool)", self.onRetry)
        ui.openCaseButton.connect("clicked(bool)", self.onOpen)
        ui.openFolderButton.connect("clicked(bool)", self.onOpenFolder)
        ui.exportButton.connect("clicked(bool)", self.onExport)
        ui.casesTable.connect("cellDoubleClicked(int,int)", self.onDoubleClick)
        ui.casesTable.connect("itemSelectionChanged()", self.refresh)
        self._fill([])
        self.onSource()
        self.onTask()

    # -- life ---------------------------------------------------------------------------------------------------

    @property
    def isRunning(self) -> bool:
        """Whether a batch is under way or paused."""
        return self._batch is not None and not self._batch.is_finished

    def refresh(self, volume: Any = None, folder: Path | None = None) -> None:
        """Enable what can be done now."""
        ui, batch, running = self.ui, self._batch, self.isRunning
        ui.startButton.enabled = not running and not self._panel.isBusy
        ui.pauseButton.enabled = ui.cancelBatchButton.enabled = running
        ui.retryButton.enabled = batch is not None and batch.count("failed") > 0
        ui.openFolderButton.enabled = batch is not None and isinstance(batch.output, Path)
        ui.exportButton.enabled = batch is not None and not running
        entry = self._selected()
        ui.openCaseButton.enabled = entry is not None and entry.status == "done" and not self._panel.isBusy
        ui.batchProgressBar.visible = running

    def leave(self) -> None:
        """The panel goes: nothing is left running; the batch goes on when it is started again."""
        self._drop()

    # -- choosing -------------------------------------------------------------------------------------------------

    def onSource(self, index: int | None = None) -> None:
        """Another kind of source: a path, or patients of the database."""
        self._showSource()
        self.ui.patientsList.clear()
        for patient, name in patients() if self.ui.sourceComboBox.currentData == DATABASE else ():
            item = qt.QListWidgetItem(name)
            item.setData(qt.Qt.UserRole, patient)
            self.ui.patientsList.addItem(item)

    def onUnfolded(self, collapsed: bool) -> None:
        """Unfolding shows every widget of the section, also those that do not belong to the choice."""
        if not collapsed:
            self._showSource()
            self.refresh()

    def _showSource(self) -> None:
        ui, database = self.ui, self.ui.sourceComboBox.currentData == DATABASE
        for widget in (ui.patientsLabel, ui.patientsList):
            widget.visible = database
        for widget in (ui.sourcePathLabel, ui.sourceLineEdit, ui.browseSourceButton):
            widget.visible = not database

    def onTask(self, index: int | None = None) -> None:
        """Another task has other models."""
        box, task = self.ui.modelComboBox, get_task(self.ui.taskComboBox.currentData)
        box.clear()
        box.addItem(_("Default model") if task.needs_model else _("No model (thresholds)"), "")
        for model in installed_models(task):
            box.addItem(model.title, str(model.path))

    def onBrowseSource(self, checked: bool = False) -> None:
        """Choose the folder or the table."""
        if self.ui.sourceComboBox.currentData == TABLE:
            path = qt.QFileDialog.getOpenFileName(self.top, _("Table of cases"), "", "CSV (*.csv)")
        else:
            path = qt.QFileDialog.getExistingDirectory(self.top, _("Folder of cases"))
        if path:
            self.ui.sourceLineEdit.text = path

    def onBrowseOutput(self, checked: bool = False) -> None:
        """Choose the folder for the results."""
        path = qt.QFileDialog.getExistingDirectory(self.top, _("Folder for the results"))
        if path:
            self.ui.outputLineEdit.text = path

    # -- running --------------------------------------------------------------------------------------------------

    def onStart(self, checked: bool = False) -> None:
        """Find the cases in the background, then run them."""
        ui = self.ui
        output, source = ui.outputLineEdit.text.strip(), ui.sourceLineEdit.text.strip()
        task, kind = get_task(ui.taskComboBox.currentData), ui.sourceComboBox.currentData
        chosen = [item.data(qt.Qt.UserRole) for item in ui.patientsList.selectedItems()]
        if not output:
            self._say(_("Choose a folder for the results first."))
        elif kind == DATABASE and not chosen:
            self._say(_("Choose one patient or more first."))
        elif kind != DATABASE and not source:
            self._say(_("Choose the folder or the table of the cases first."))
        else:
            files = files_of(chosen) if kind == DATABASE else []
            workers = LocalWorkers(self._panel.logic.newClient, ui.workersSpinBox.value)
            model = ui.modelComboBox.currentData or ""
            self._drop()

            def prepare(progress: Progress) -> Batch:
                cases = _find(kind, source, files, task, output, progress)
                progress(1.0, "Looking at earlier results")
                batch = Batch(task.name, cases, output, workers, model=model, on_case=self._onCase)
                try:
                    progress(1.0, "Starting")
                except CancelledError:
                    batch.close()  # else it would keep the folder of the results for itself
                    raise
                return batch

            self._panel.start(prepare, _("The cases were found."), self.startBatch)

    def startBatch(self, batch: Batch) -> None:
        """Run a batch; its cases are in the table from now on."""
        self._batch = batch
        self._fill(batch.entries)
        self._begin()

    def _drop(self) -> None:
        """Let go of the batch of before."""
        self._timer.stop()
        if self._batch is not None:
            self._batch.close()
        self._batch = None
        self._fill([])

    def _begin(self) -> None:
        self.ui.pauseButton.checked = False
        self.ui.exportButton.enabled = False
        self._timer.start()
        self.onTimer()

    def onTimer(self) -> None:
        """Hear what the workers said; show what has changed."""
        batch = self._batch
        if batch is None:
            return
        batch.poll()
        until = time.monotonic() + DRAWING_S
        while self._shown:
            name = next(iter(self._shown))
            del self._shown[name]
            self._showEntry(batch.entries[self._numbers[name]])
            if time.monotonic() > until:
                break
        self.ui.batchProgressBar.value = round(100 * batch.fraction)
        self._say(self._sentence())
        if batch.is_finished and not self._shown:
            self._timer.stop()
        self.refresh()

    def onPause(self, paused: bool) -> None:
        """Begin no other case, or go on."""
        self.ui.pauseButton.text = _("Resume") if paused else _("Pause")
        if self.isRunning:
            (self._batch.pause if paused else self._batch.resume)()
            self._say(self._sentence())

    def onCancel(self, checked: bool = False) -> None:
        """Stop; finished cases are kept."""
        self._batch.cancel()
        self._say(_("Cancelling"))

    def onRetry(self, checked: bool = False) -> None:
        """Try the failed cases again."""
        try:
            self._batch.retry_failed()
        except NeuraxisError as error:
            self._say(str(error))
            return
        self._begin()

    # -- results --------------------------------------------------------------------------------------------------

    def onDoubleClick(self, row: int, column: int) -> None:
        """Open the case of that row."""
        if self.ui.openCaseButton.enabled:
            self.onOpen()

    def onOpen(self, checked: bool = False) -> None:
        """Load the chosen case with its result into the scene; reading goes on in the background."""
        entry, task = self._selected(), self._batch.task
        self._panel.start(
            lambda progress: _read(entry, task, progress),
            _("{case} is loaded.").format(case=entry.case.name),
            lambda found: _show(entry.case.name, *found, entry.folder),
        )

    def onOpenFolder(self, checked: bool = False) -> None:
        """Open the folder of the results in the file browser."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._batch.output)))

    def onExport(self, checked: bool = False) -> None:
        """Save the table of all cases where the user wants it."""
        path = qt.QFileDialog.getSaveFileName(self.top, _("Export table"), "cases.csv", "CSV (*.csv)")
        if not path:
            return
        try:
            shutil.copyfile(self._batch.tables / "cases.csv", path)
        except OSError as error:
            self._say(_("The table was not saved ({reason}); choose another place.").format(reason=error.strerror))
            return
        self._say(_("Table saved."))

    # -- showing --------------------------------------------------------------------------------------------------

    def _say(self, sentence: str) -> None:
        self.ui.batchStatusLabel.text = sentence

    def _sentence(self) -> str:
        batch = self._batch
        done, failed = batch.count("done"), batch.count("failed")
        words = _("{done} of {count} cases are done, {failed} failed.").format(
            done=done, count=len(batch.entries), failed=failed
        )
        if batch.state == "stopped":
            return f"{batch.failure} {words}"
        if batch.is_finished:
            end = _("Cancelled; finished cases are kept. ") if batch.state == "cancelled" else ""
            return " ".join([end + words, *batch.notes])
        rate = batch.cases_per_hour
        speed = _("{rate} cases per hour").format(rate=round(rate)) if rate else ""
        more = [_("Paused") if batch.state == "paused" else "", speed, time_left(batch.seconds_left)]
        return " ".join([words, ", ".join(word for word in more if word)]).strip()

    def _onCase(self, entry: Entry) -> None:
        self._shown[entry.case.name] = None

    def _selected(self) -> Entry | None:
        row = self.ui.casesTable.currentRow()
        entries = self._batch.entries if self._batch is not None else []
        return entries[row] if 0 <= row < len(entries) else None

    def _fill(self, entries: list[Entry]) -> None:
        table = self.ui.casesTable
        heads = [_("Case"), _("Status"), _("Result"), _("What is wrong")]
        table.setColumnCount(len(heads))
        table.setHorizontalHeaderLabels(heads)
        table.setRowCount(len(entries))
        self._numbers = {entry.case.name: number for number, entry in enumerate(entries)}
        self._shown = dict.fromkeys(self._numbers)  # by the timer, some at a time: there may be 10,000
        for column, width in enumerate(COLUMN_WIDTHS):
            table.setColumnWidth(column, width)
        table.horizontalHeader().setStretchLastSection(True)

    def _showEntry(self, entry: Entry) -> None:
        status = status_word(entry.status)
        if entry.status == RUNNING:
            status = f"{status} {round(100 * entry.fraction)} %"
        wrong = entry.error or " ".join(entry.record.get("warnings", ()))
        for column, text in enumerate((entry.case.name, status, main_value(entry.record), wrong)):
            item = qt.QTableWidgetItem(text)
            item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
            item.setToolTip(plain_tip(entry.case.chosen if column == 0 else text))
            self.ui.casesTable.setItem(self._numbers[entry.case.name], column, item)


def status_word(status: str) -> str:
    """The status of a case in the user's language."""
    words = {WAITING: _("waiting"), RUNNING: _("running"), DONE: _("done"), FAILED: _("failed")}
    return words.get(status, status)


# -- the DICOM database -----------------------------------------------------------------------------------------


def patients() -> list[tuple[str, str]]:
    """(patient of Slicer's DICOM database, name to show); empty where there is no database."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        return []
    found = [(patient, database.nameForPatient(patient) or _("without a name")) for patient in database.patients()]
    return sorted(found, key=lambda entry: entry[1])


def files_of(chosen: list[str]) -> list[str]:
    """The files of all series of patients in the database."""
    database = slicer.dicomDatabase
    return [
        str(file)
        for patient in chosen
        for study in database.studiesForPatient(patient)
        for series in database.seriesForStudy(study)
        for file in database.filesForSeries(series)
    ]


def _find(kind: str, source: str, files: list[str], task: Task, output: str, progress: Progress) -> list[Case]:
    if kind != DATABASE:
        return find_cases(source, task, output, progress=progress)
    from NeuraxisLib.batch_dicom import cases_of_dicom_files

    return cases_of_dicom_files(files, task, progress)


# -- a case in the scene ----------------------------------------------------------------------------------------


def _read(entry: Entry, task: Task, progress: Progress) -> tuple[Result, Volume]:
    """(result, image) of a finished case; a map stands in for frames, which only their task can read."""
    from NeuraxisLib.run import read_input

    progress(0.0, "Reading the result")
    with local_copy(entry.folder) as folder:
        result, main = read_result(folder), next(iter(task.inputs))
    if task.reader(main) is not None:
        shown = next(iter(result.maps.values()), None)
        return result, result.source if shown is None else shown.volume
    with gathered(entry.case.inputs) as inputs:
        volume = read_input(Path(inputs[main]), entry.case.series, allow_gaps=True, progress=progress.part(0.2, 1.0))
    return result, volume


def _show(name: str, result: Result, volume: Volume, folder: Path | RemoteFolder) -> None:
    node = scene_frames.add_volume(volume, name)
    shown = scene.show_result(_on_equal_gaps(result), node)
    show_case(node)
    if result.source.is_uniform and isinstance(folder, Path):  # else the files hold other slices, or lie elsewhere
        loaded_from(shown, folder)


def _on_equal_gaps(result: Result) -> Result:
    """The result on the grid that the scene's volume has: one matrix holds equal gaps only."""
    if result.source.is_uniform:
        return result
    maps = {name: replace(shown, volume=shown.volume.regular()) for name, shown in result.maps.items()}
    labels = None if result.labels is None else result.labels.regular()
    return replace(result, source=result.source.regular(), labels=labels, maps=maps)
