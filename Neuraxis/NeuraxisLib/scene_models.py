"""The section "Models" of the Neuraxis panel: what is installed and available, and everything one does with it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.model_index import is_address
from NeuraxisLib.model_store import (
    ALTERED,
    AVAILABLE,
    BUNDLED,
    INSTALLED,
    NEWER,
    UNREADABLE,
    VERIFIED,
    Installed,
    StoredModel,
    make_folder,
)
from NeuraxisLib.panel import INDEX_SETTING, megabytes, model_card, plain_tip
from NeuraxisLib.task import Progress

UI_FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "UI"


class ModelsSection:
    """Table, card and buttons of the model manager.

    Args:
        panel: the Neuraxis panel: ``panel.logic.store`` is the :class:`~NeuraxisLib.model_store.ModelStore`,
            ``panel.start(work, done, then)`` runs work in the background, ``panel.say(sentence)``, ``panel.isBusy``.
    """

    def __init__(self, panel: Any):
        self._panel, self._store = panel, panel.logic.store
        self._rows: list[StoredModel] = []
        self.top = slicer.util.loadUI(str(UI_FOLDER / "NeuraxisModels.ui"))
        self.ui = ui = slicer.util.childWidgetVariables(self.top)
        ui.modelsTable.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        ui.modelsTable.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        ui.modelsTable.verticalHeader().hide()
        ui.modelsTable.setWordWrap(False)
        ui.indexLineEdit.text = self._store.index
        ui.modelsTable.connect("itemSelectionChanged()", self.onSelected)
        ui.installButton.connect("clicked(bool)", self.onInstall)
        ui.addFileButton.connect("clicked(bool)", self.onAddFile)
        ui.addFolderButton.connect("clicked(bool)", self.onAddFolder)
        ui.removeButton.connect("clicked(bool)", self.onRemove)
        ui.undoButton.connect("clicked(bool)", self.onUndo)
        ui.verifyButton.connect("clicked(bool)", self.onVerify)
        ui.openFolderButton.connect("clicked(bool)", self.onOpenFolder)
        ui.indexLineEdit.connect("textChanged(QString)", self.onIndexChanged)
        ui.browseIndexButton.connect("clicked(bool)", self.onBrowseIndex)
        ui.lookButton.connect("clicked(bool)", self.onLook)

    # -- showing --------------------------------------------------------------------------------------------------

    def refresh(self, volume: Any = None, folder: Path | None = None) -> None:
        """Fill the table anew; the chosen row stays chosen."""
        chosen = self._chosen()
        self._rows, table = self._store.models(), self.ui.modelsTable
        heads = [_("Model"), _("State"), _("MB"), _("Task"), _("Licence")]
        was = table.blockSignals(True)
        table.setColumnCount(len(heads))
        table.setHorizontalHeaderLabels(heads)
        table.setRowCount(len(self._rows))
        for number, row in enumerate(self._rows):
            size = megabytes(row.size_bytes).partition(" ")[0]
            facts = (row.card.get("task", ""), row.card.get("licence", ""))
            texts = (row.card.get("title", row.name), state_of(row), size, *facts)
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
                item.setToolTip(plain_tip(row.note or f"{texts[0]} ({row.name})"))
                table.setItem(number, column, item)
        table.resizeColumnsToContents()
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)  # titles give way
        table.resizeRowsToContents()
        same = [
            n for n, row in enumerate(self._rows) if chosen and (row.name, row.place) == (chosen.name, chosen.place)
        ]
        table.clearSelection()
        table.setCurrentCell(same[0] if same else -1, 0)
        table.blockSignals(was)
        self.ui.diskLabel.text = _("Your models take {size}.").format(size=megabytes(self._store.disk_use_bytes()))
        self.onSelected()

    def leave(self) -> None:
        """The panel goes: what was removed is gone for good."""
        try:
            self._store.forget_removed()
        except NeuraxisError as error:
            self._panel.say(str(error))

    def onSelected(self) -> None:
        """Show the card of the chosen model, and what can be done with it."""
        row, ui, busy = self._chosen(), self.ui, self._panel.isBusy
        card = model_card(row.card) if row and row.card else ""
        note = f"<b>{html.escape(row.note)}</b>" if row and row.note else ""
        ui.modelCardLabel.text = "<br>".join(words for words in (note, card) if words)
        ui.installButton.enabled = not busy and row is not None and row.can_be_installed
        ui.removeButton.enabled = not busy and row is not None and row.can_be_removed
        ui.undoButton.enabled = not busy and self._store.can_bring_back
        for button in (ui.addFileButton, ui.addFolderButton, ui.verifyButton):
            button.enabled = not busy
        ui.lookButton.enabled = not busy and bool(ui.indexLineEdit.text.strip())

    def _chosen(self) -> StoredModel | None:
        number = self.ui.modelsTable.currentRow()
        return self._rows[number] if 0 <= number < len(self._rows) else None

    # -- installing -----------------------------------------------------------------------------------------------

    def onInstall(self, checked: bool = False) -> None:
        """Fetch the chosen model."""
        name = self._chosen().name
        self._start(lambda progress: self._store.install_named(name, progress))

    def onAddFile(self, checked: bool = False) -> None:
        """Install a model file."""
        path = qt.QFileDialog.getOpenFileName(self.top, _("Install a model file"), "", "*.safetensors")
        if path:
            self._start(lambda progress: self._store.install_file(path))

    def onAddFolder(self, checked: bool = False) -> None:
        """Install every model file of a folder."""
        path = qt.QFileDialog.getExistingDirectory(self.top, _("Install the models of a folder"))
        if path:
            self._start(lambda progress: self._store.install_folder(path, progress))

    def _start(self, work: Any) -> None:
        self._panel.start(work, _("Installed."), self._sayInstalled)

    def _sayInstalled(self, done: Installed) -> None:
        words = [_("Installed: {names}.").format(names=", ".join(done.models))] if done.models else []
        self._panel.say(" ".join([*words, *done.refused]))

    # -- other buttons --------------------------------------------------------------------------------------------

    def onRemove(self, checked: bool = False) -> None:
        """Remove the chosen model; Undo brings it back."""
        row = self._chosen()
        part = _("Removed the unfinished download of {name}.")
        whole = _("Removed {name}; Undo brings it back until another is removed or Slicer closes.")
        self._do(lambda: self._store.remove(row), (part if row.path is None else whole).format(name=row.name))

    def onUndo(self, checked: bool = False) -> None:
        """Bring the removed model back."""
        self._do(self._store.bring_back, _("The model is back."))

    def _do(self, work: Any, done: str) -> None:
        try:
            work()
            self._panel.say(done)
        except NeuraxisError as error:
            self._panel.say(str(error))
        self.refresh()

    def onVerify(self, checked: bool = False) -> None:
        """Compare the hashes of all models."""
        rows = self._rows

        def work(progress: Progress) -> list[StoredModel]:
            return self._store.verify(rows, progress)

        self._panel.start(work, _("Verified."), self._sayVerified)

    def _sayVerified(self, rows: list[StoredModel]) -> None:
        bad = [row.note for row in rows if row.note]
        good = _("{good} of {count} models are as they should be.").format(good=len(rows) - len(bad), count=len(rows))
        self._panel.say(" ".join([good, *bad]))

    def onOpenFolder(self, checked: bool = False) -> None:
        """Open the folder of the user's models."""
        try:
            make_folder(self._store.folder)
        except NeuraxisError as error:
            self._panel.say(str(error))
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._store.folder)))

    def onIndexChanged(self, text: str) -> None:
        """Another index."""
        self._store.index = text.strip()
        slicer.app.userSettings().setValue(INDEX_SETTING, self._store.index)
        self.onSelected()

    def onBrowseIndex(self, checked: bool = False) -> None:
        """Choose an index file."""
        path = qt.QFileDialog.getOpenFileName(self.top, _("Index of models"), "", "*.json")
        if path:
            self.ui.indexLineEdit.text = path

    def onLook(self, checked: bool = False) -> None:
        """Read the index and show what it offers."""

        def work(progress: Progress) -> int:
            progress(0.0, _("Reading the index"))
            return self._store.read_index()

        def then(count: int) -> None:
            place = _("the address") if is_address(self._store.index) else _("the file")
            self._panel.say(_("The index at {place} names {count} models.").format(place=place, count=count))

        self._panel.start(work, _("Read."), then)


def state_of(row: StoredModel) -> str:
    """The :attr:`~NeuraxisLib.model_store.StoredModel.state` of a model in the user's language."""
    words = {
        BUNDLED: _("bundled"), INSTALLED: _("installed"), AVAILABLE: _("available"), VERIFIED: _("verified"),
        ALTERED: _("altered"), NEWER: _("newer than this version"), UNREADABLE: _("unreadable"), "": "",
    }  # fmt: skip
    started = _("{size} of it here").format(size=megabytes(row.part_bytes)) if row.part_bytes else ""
    return ", ".join(filter(None, (words[row.place], words[row.check], started)))
