"""The section of a panel in which a reader judges results: edit, accept, correct or reject, export, go to the next."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NeuraxisLib import review, scene
from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.result import Result
from NeuraxisLib.review import ACCEPTED, CORRECTED, REJECTED, Review
from NeuraxisLib.review_corrections import corrections_of
from NeuraxisLib.scene_cases import show_case
from NeuraxisLib.scene_review_edits import SegmentEdits, is_edited, open_editor
from NeuraxisLib.scene_review_keys import ACCEPT, NEXT_CASE, NEXT_SLICE, OVERLAY, UNDO, Keys, tell
from NeuraxisLib.scene_review_result import fingerprint_in_scene, result_in_scene
from NeuraxisLib.scene_runs import RUN_ATTRIBUTE

UI_FILE = Path(__file__).resolve().parents[1] / "Resources" / "UI" / "Review.ui"
#: Attribute of a result's table of measurements: the verdict on it and the mark of its run, as JSON.
REVIEW_ATTRIBUTE = "Neuraxis.Review"
INITIALS_SETTING = "Neuraxis/ReaderInitials"
#: Folder of an export, where the chosen one is not empty.
EXPORT_FOLDER = "corrected cases"


class ReviewSection:
    """Verdicts on the results of one task in the scene.

    Args:
        panel: the :class:`~NeuraxisLib.scene_panel.ModulePanel`; gives ``task``, ``ui``, ``parameterNode``, ``say``,
            ``refresh``, ``choose`` and ``resultFolder``.
    """

    def __init__(self, panel: Any):
        self._panel = panel
        self.top = slicer.util.loadUI(str(UI_FILE))
        self.ui = slicer.util.childWidgetVariables(self.top)
        self._volume: Any = None
        self._folder: Path | None = None
        self._shown: tuple | None = None  # case and review that the text fields show
        self._next, self._lastMap = 0, 1
        self._printed: tuple = (None, "")  # what the fingerprint is of, and the fingerprint
        self._looked: set[tuple] = set()  # results whose folders were looked into for a verdict
        self.edits = SegmentEdits(panel.task, self._measured)
        self._corrections = corrections_of(panel.task)
        ui, of_panel = self.ui, panel.ui
        self._editedWords = ui.editedLabel.text
        self._buttons = {ACCEPTED: ui.acceptButton, CORRECTED: ui.correctedButton, REJECTED: ui.rejectButton}
        for verdict, button in self._buttons.items():
            button.connect("clicked(bool)", functools.partial(self.onVerdict, verdict))
        for button, slot in (
            (ui.editButton, self.onEdit), (ui.revertButton, self.onRevert), (ui.nextCaseButton, self.onNextCase),
            (ui.exportButton, self.onExport), (ui.nextSliceButton, self.onNextSlice),
        ):  # fmt: skip
            button.connect("clicked(bool)", slot)
        for line in (ui.commentLineEdit, ui.initialsLineEdit):
            line.connect("editingFinished()", self.onTextEdited)
        ui.casesList.connect("itemClicked(QListWidgetItem*)", self.onCaseClicked)
        ui.initialsLineEdit.text = str(qt.QSettings().value(INITIALS_SETTING) or "")
        ui.editButton.visible = ui.revertButton.visible = self._corrections.HAS_OUTLINE
        ui.nextSliceButton.visible = not hasattr(of_panel, "nextSliceButton")
        actions = {NEXT_SLICE: self.nextSlice, OVERLAY: self.toggleOverlay, ACCEPT: self.accept, UNDO: self.undo}
        self._keys = Keys(actions | {NEXT_CASE: functools.partial(_click, ui.nextCaseButton)})
        tell(getattr(of_panel, "nextSliceButton", ui.nextSliceButton), NEXT_SLICE)
        tell(getattr(of_panel, "overlayCheckBox", None) or of_panel.mapComboBox, OVERLAY)
        tell(ui.acceptButton, ACCEPT)
        tell(ui.nextCaseButton, NEXT_CASE)
        tell(getattr(of_panel, "undoButton", ui.revertButton), UNDO)

    # -- life ---------------------------------------------------------------------------------------------------

    def refresh(self, volume: Any, folder: Path | None) -> None:
        """Show the verdict on the result of a volume, and the cases of the session."""
        if volume is not self._volume:
            self._next = 0
        self._volume, self._folder = volume, folder
        self._keys.install()
        self.edits.follow(volume, folder)
        nodes = scene.result_nodes(volume, self._panel.task)
        there, edited, ui = "table measurements" in nodes, is_edited(nodes), self.ui
        ui.editButton.enabled = "labels" in nodes
        ui.revertButton.enabled = edited
        words = [self._editedWords] * edited + [self.edits.about_others]
        ui.editedLabel.text = " ".join(words).strip()
        ui.editedLabel.visible = bool(ui.editedLabel.text)
        ui.nextSliceButton.enabled = bool(_key_slices(nodes))
        for widget in (*self._buttons.values(), ui.commentLineEdit, ui.initialsLineEdit):
            widget.enabled = there
        self._showReview(self.review(volume))
        self._listCases()

    def leave(self) -> None:
        """The module is left, or the scene goes: no keys any more. Edits in another module are still followed."""
        self._keys.remove()

    def cleanup(self) -> None:
        """The panel goes."""
        self._keys.remove()
        self.edits.leave()

    # -- editing ------------------------------------------------------------------------------------------------

    def onEdit(self, checked: bool = False) -> None:
        """Open the segments in Segment Editor."""
        segmentation = scene.result_nodes(self._volume, self._panel.task)["labels"]
        try:
            open_editor(segmentation, self._volume)
        except RuntimeError as error:
            self._panel.say(_("Segment Editor cannot be opened: {reason}").format(reason=error))

    def onRevert(self, checked: bool = False) -> None:
        """Back to the outline that was found."""
        self.edits.revert()

    def _measured(self, sentence: str) -> None:
        """Measures have followed an edit, or are those of the outline that was found again."""
        self._panel.say(sentence or _("Outline and measures are those that were found."))
        self._panel.refresh()

    # -- verdicts -----------------------------------------------------------------------------------------------

    def review(self, volume: Any) -> Review | None:
        """The verdict on the result of a volume, as the scene keeps it or else its files; None if there is none."""
        nodes = scene.result_nodes(volume, self._panel.task)
        if "table measurements" not in nodes:
            return None
        try:
            found, folder = _kept(nodes), self._panel.resultFolder(volume)
            if found is None and folder is not None and (folder, _run(nodes)) not in self._looked:
                self._looked.add((folder, _run(nodes)))
                found = review.read_review(folder)
                if found is not None:
                    _keep(nodes, found)
            return found
        except NeuraxisError as error:
            self._panel.say(str(error))
            return None

    def _fingerprint(self) -> str:
        """Of the result that is shown, as it is in the scene."""
        key = (self._volume.GetID(), self.edits.mark)
        if not self.edits.mark:
            return fingerprint_in_scene(self._volume, self._panel.task)
        if self._printed[0] != key:
            self._printed = key, fingerprint_in_scene(self._volume, self._panel.task)
        return self._printed[1]

    def onVerdict(self, verdict: str, checked: bool = False) -> None:
        """A verdict was clicked; a second click takes it back."""
        now = self.review(self._volume)
        if now is not None and now.verdict == verdict and now.sha256 == self._fingerprint():
            self._takeBack()
        else:
            self._judge(verdict)
        self._panel.refresh()

    def accept(self) -> None:
        """Accept the result that is shown; an edited one counts as corrected."""
        if self.ui.acceptButton.enabled:
            self._judge(ACCEPTED)
            self._panel.refresh()

    def onTextEdited(self) -> None:
        """Comment or initials were changed: they go with the verdict there is."""
        now, words = self.review(self._volume), self._words()
        try:
            review.check_initials(words[1])
        except NeuraxisError as error:
            self._panel.say(str(error))
            return
        qt.QSettings().setValue(INITIALS_SETTING, words[1])
        if now is not None and words != (now.comment, now.reader):
            self._judge(now.verdict)
            self._panel.refresh()

    def _words(self) -> tuple[str, str]:
        """Comment and initials."""
        return self.ui.commentLineEdit.text.strip(), self.ui.initialsLineEdit.text.strip()

    def _judge(self, verdict: str) -> None:
        edited = is_edited(scene.result_nodes(self._volume, self._panel.task))
        told = CORRECTED if edited and verdict == ACCEPTED else verdict
        try:
            given = review.new_review(told, self._fingerprint(), *self._words())
            if self._folder is not None:
                with slicer.util.WaitCursor():
                    self._panel.bringUpToDate(self._folder)
                    review.write_review(self._folder, given)
        except NeuraxisError as error:
            self._panel.say(str(error))
            return
        _keep(scene.result_nodes(self._volume, self._panel.task), given)
        self._shown = None
        edited_words = _("The outline was edited, so the case counts as corrected.")
        self._panel.say(_sentence_of(told) if told == verdict else edited_words)

    def _takeBack(self) -> None:
        try:
            if self._folder is not None:
                review.remove_review(self._folder)
        except NeuraxisError as error:
            self._panel.say(str(error))
            return
        _keep(scene.result_nodes(self._volume, self._panel.task), None)
        self._panel.say(_("The verdict was taken back."))

    def _showReview(self, found: Review | None) -> None:
        ui = self.ui
        for verdict, button in self._buttons.items():
            button.checked = found is not None and found.verdict == verdict
        ui.verdictLabel.text = self._aboutReview(found)
        shown = (self._volume.GetID() if self._volume is not None else "", found)
        if shown != self._shown and not (found is None and self._shown and self._shown[0] == shown[0]):
            ui.commentLineEdit.text = found.comment if found is not None else ""
            if found is not None and found.reader:
                ui.initialsLineEdit.text = found.reader
        self._shown = shown

    def _aboutReview(self, found: Review | None) -> str:
        if found is None:
            return _("Not reviewed yet.")
        words = _sentence_of(found.verdict)
        if found.sha256 != self._fingerprint():
            words += " " + _("It was changed after that; review it again.")
        return f"{words} ({found.time.replace('T', ' ').rstrip('Z')} UTC)"

    # -- cases --------------------------------------------------------------------------------------------------

    def cases(self) -> list[Any]:
        """The volumes of the scene that have a result of the task."""
        tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
        own = [
            table.GetNodeReference(scene.SOURCE_ROLE)
            for table in tables
            if table.GetAttribute(scene.TASK_ATTRIBUTE) == self._panel.task
            and table.GetAttribute(scene.PART_ATTRIBUTE) == "table measurements"
        ]
        return [volume for volume in own if volume is not None]

    def _listCases(self) -> None:
        ui, lines = self.ui, []
        for volume in self.cases():
            found = self.review(volume)
            lines.append((volume.GetID(), f"{volume.GetName()}: {_word_of(found)}"))
        box = ui.casesList
        if [(box.item(row).data(qt.Qt.UserRole), box.item(row).text()) for row in range(box.count)] != lines:
            box.clear()
            for node_id, line in lines:
                item = qt.QListWidgetItem(line)
                item.setData(qt.Qt.UserRole, node_id)
                box.addItem(item)
        shown = [node_id for node_id, line in lines]
        own = self._volume.GetID() if self._volume is not None else ""
        box.setCurrentRow(shown.index(own) if own in shown else -1)
        ui.nextCaseButton.enabled = self._nextOpen() is not None
        ui.exportButton.enabled = any(found.is_usable for found in filter(None, map(self.review, self.cases())))

    def onCaseClicked(self, item: Any) -> None:
        """A case of the list was clicked: show it."""
        self._showCase(slicer.mrmlScene.GetNodeByID(item.data(qt.Qt.UserRole)))

    def _showCase(self, volume: Any) -> None:
        """Show a case in the views and in the panel."""
        self._panel.choose(volume)
        show_case(volume)
        self._panel.refresh()

    def _nextOpen(self) -> Any:
        """The next volume behind the one that is shown whose result has no verdict; None if there is none."""
        cases = self.cases()
        start = cases.index(self._volume) + 1 if self._volume in cases else 0
        return next((volume for volume in cases[start:] + cases[:start] if self.review(volume) is None), None)

    def onNextCase(self, checked: bool = False) -> None:
        """Show the next case that nobody has judged; nothing where a verdict has come in meanwhile."""
        volume = self._nextOpen()
        if volume is not None:
            self._showCase(volume)

    def onExport(self, checked: bool = False) -> None:
        """Write accepted and corrected cases of the session as training data."""
        from NeuraxisLib.review_export import Case, export_cases

        chosen = qt.QFileDialog.getExistingDirectory(self.top, _("Folder for the training data"))
        if not chosen:
            return
        output = Path(chosen) if not any(Path(chosen).iterdir()) else Path(chosen, EXPORT_FOLDER)
        cases = [Case(v.GetName(), self.review(v), functools.partial(self._result, v)) for v in self.cases()]
        try:
            with slicer.util.WaitCursor():
                self._panel.say(export_cases(cases, output).summary())
        except NeuraxisError as error:
            self._panel.say(str(error))

    def _result(self, volume: Any) -> Result:
        """The result of a volume as it is in the scene."""
        return result_in_scene(volume, self._panel.task)

    # -- keys ---------------------------------------------------------------------------------------------------

    def nextSlice(self) -> None:
        """Show the next uncertain slice, by the panel's own button where it has one."""
        _click(getattr(self._panel.ui, "nextSliceButton", self.ui.nextSliceButton))

    def onNextSlice(self, checked: bool = False) -> None:
        """Show the next of the most uncertain slices."""
        slices = _key_slices(scene.result_nodes(self._volume, self._panel.task))
        rank = self._next % len(slices)
        self._next = rank + 1
        scene.show_slice(self._volume, slices[rank])
        words = _("Slice {slice}, number {rank} of the {count} most uncertain.")
        self._panel.say(words.format(slice=slices[rank] + 1, rank=rank + 1, count=len(slices)))

    def toggleOverlay(self) -> None:
        """The map over the image on or off: by its check box, or by its list, of which the last choice is kept."""
        box = getattr(self._panel.ui, "overlayCheckBox", None)
        if box is not None:
            _click(box)
            return
        box = self._panel.ui.mapComboBox
        if box.enabled and box.count > 1:
            shown = box.currentIndex
            box.setCurrentIndex(0 if shown > 0 else min(self._lastMap, box.count - 1))
            self._lastMap = shown if shown > 0 else self._lastMap

    def undo(self) -> None:
        """Take back the last correction of a chain, or all that was edited in an outline."""
        _click(getattr(self._panel.ui, "undoButton", self.ui.revertButton))


def _sentence_of(verdict: str) -> str:
    """What to say of a verdict."""
    return {ACCEPTED: _("Accepted."), CORRECTED: _("Corrected."), REJECTED: _("Rejected.")}[verdict]


def _word_of(found: Review | None) -> str:
    """A verdict in a list of cases."""
    if found is None:
        return _("not reviewed")
    return {ACCEPTED: _("accepted"), CORRECTED: _("corrected"), REJECTED: _("rejected")}[found.verdict]


def _click(button: Any) -> None:
    if button.enabled:
        button.click()


def _key_slices(nodes: dict[str, Any]) -> list[int]:
    node = nodes.get("labels") or nodes.get("points")
    return scene.key_slices(node) if node is not None else []


def _run(nodes: dict[str, Any]) -> str:
    """The mark of the run that made a result."""
    return nodes["table measurements"].GetAttribute(RUN_ATTRIBUTE) or ""


def _keep(nodes: dict[str, Any], given: Review | None) -> None:
    """Keep a verdict with the result in the scene, or take it away."""
    document = {"run": _run(nodes), **given.to_json()} if given is not None else None
    nodes["table measurements"].SetAttribute(REVIEW_ATTRIBUTE, json.dumps(document) if document else None)


def _kept(nodes: dict[str, Any]) -> Review | None:
    """The verdict that the scene keeps with a result; one on an earlier run does not count."""
    document = json.loads(nodes["table measurements"].GetAttribute(REVIEW_ATTRIBUTE) or "{}")
    return Review.from_json(document) if document and document.get("run") == _run(nodes) else None
