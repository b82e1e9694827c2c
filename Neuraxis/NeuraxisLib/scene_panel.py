"""What the panels of clinical modules do alike: their life with the scene, runs, installing, report and folder."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from NeuraxisLib.batch import summary
from NeuraxisLib.batch_cases import cases_in
from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.headline import headline
from NeuraxisLib.panel import device_choices, research_use_notice
from NeuraxisLib.run_panel import RunPanel
from NeuraxisLib.scene import result_nodes
from NeuraxisLib.scene_attempt import attempt
from NeuraxisLib.scene_cases import CaseViews, offer_scans_only, seen_in_place_of, show_finding
from NeuraxisLib.scene_dicom import DicomExportSection
from NeuraxisLib.scene_review import ReviewSection
from NeuraxisLib.scene_review_edits import is_edited
from NeuraxisLib.scene_tables import table_rows

POLL_INTERVAL_MS = 100


class ModulePanel(VTKObservationMixin):
    """The common part of a module's Widget, which makes it in ``setup`` and hands its life on to it.

    Args:
        widget: the module's Widget. It gives ``refresh()``, ``source()`` (the volume whose result it shows, or None),
            ``preselect()`` (choose what is not chosen yet), and ``follow()`` and ``unfollow()`` (what it observes
            while it is open).
        logic: of the module, with ``getParameterNode``, ``poll``, ``cancel``, ``stop``, ``missingPackages``,
            ``installPackages``, ``resultFolder`` and ``startFolder``; its parameter node has a ``device``.
        task: name of the module's task.

    Attributes:
        ui: the widgets of the module's .ui file, by name.
        parameterNode: what they are bound to; None while the module is closed.
        run: the :class:`~NeuraxisLib.run_panel.RunPanel`.
        task: name of the module's task.
        sections: what :meth:`add` put below the module's own widgets.
    """

    def __init__(self, widget: Any, logic: Any, task: str):
        VTKObservationMixin.__init__(self)
        top = slicer.util.loadUI(widget.resourcePath(f"UI/{widget.moduleName}.ui"))
        widget.layout.addWidget(top)
        self.ui = slicer.util.childWidgetVariables(top)
        top.setMRMLScene(slicer.mrmlScene)
        self._widget, self._logic, self.task = widget, logic, task
        self.parameterNode = self._guiTag = None
        self.sections: list[Any] = []
        self._views = CaseViews()
        self._selectors = _lists_of_scans(self.ui)
        self._batchRuns = False  # a batch needs no scene
        self._timer = qt.QTimer()
        self._timer.interval = POLL_INTERVAL_MS
        self.run = RunPanel(self.ui, logic, self._timer, self.say, self.refresh)
        self.ui.noticeLabel.text = research_use_notice()
        for name, title in device_choices().items():
            self.ui.deviceComboBox.addItem(title, name)
        self._timer.connect("timeout()", self.run.on_timer)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.ui.batchButton.connect("clicked(bool)", self.onBatch)
        self.ui.installButton.connect("clicked(bool)", self.onInstall)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self.onDeviceChosen)

    def add(self, section: Any) -> Any:
        """Put a section below the module's own widgets and keep it in step with them; returns it.

        A section serves several modules. It has a ``top`` (its widget), its widgets by name (``ui``),
        ``refresh(volume, folder)``, called whenever
        the panel is refreshed with the volume whose result is shown and the folder of that result (either None), and
        ``leave()``, called when the module is left or the scene goes. It may have a ``cleanup()``, called when the
        panel goes.
        """
        self._widget.layout.addWidget(section.top)
        self.sections.append(section)
        self._selectors += _lists_of_scans(section.ui)
        return section

    # -- life ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Follow the scene from now on; called at the end of ``setup``."""
        self.review = self.add(ReviewSection(self))
        self.add(DicomExportSection(self))
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._sceneCloses)
        self.addObserver(scene, scene.EndCloseEvent, self._sceneReady)
        self.addObserver(scene, scene.EndImportEvent, self._sceneReady)
        self.enter()

    def enter(self) -> None:
        """The user opens the module: bind to the scene's parameter node."""
        self._bind(self._logic.getParameterNode())
        self._widget.preselect()
        seen = seen_in_place_of(self._widget.source(), self.task)
        if seen is not None:  # say, one that the batch has opened meanwhile
            self.choose(seen)
        self.refresh()

    def exit(self) -> None:
        """The user leaves the module; a run goes on."""
        self._bind(None)

    def cleanup(self) -> None:
        """The panel goes: nothing is left running."""
        self.run.drop()
        self._bind(None)
        self.removeObservers()
        for section in self.sections:
            if hasattr(section, "cleanup"):
                section.cleanup()
        self._logic.stop()

    def _sceneCloses(self, caller, event) -> None:
        """The nodes are about to go: a run under way has nowhere to put its result."""
        if not self._batchRuns:
            self.run.cancel()
        self._bind(None)

    def _sceneReady(self, caller, event) -> None:
        """The scene is empty again, or one was loaded, perhaps with results in it."""
        if self._widget.parent.isEntered:
            self.enter()

    def _bind(self, parameterNode) -> None:
        if self.parameterNode is not None:
            self.parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self.parameterNode, vtk.vtkCommand.ModifiedEvent, self.refresh)
            self._widget.unfollow()
            for section in self.sections:
                section.leave()
        self.parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.refresh)
            self._widget.follow()

    def refresh(self, caller: Any = None, event: Any = None) -> None:
        """Let the widget say what the parameter node and the scene hold, if it is open."""
        if self.parameterNode is not None:
            offer_scans_only(self._selectors)
            self._widget.refresh()
            volume = self._widget.source()
            if self._views.turn_to(volume):
                self._widget.refresh()  # what it lays over the image comes after the image
            self._showHeadline(volume)
            folder = self._logic.resultFolder(volume)
            for section in self.sections:
                section.refresh(volume, folder)

    def showFinding(self, segmentation: Any) -> None:
        """Move the views to the largest section of an outline, if it is the one that the panel shows."""
        volume = self._widget.source()
        if segmentation is not None and result_nodes(volume, self.task).get("labels") is segmentation:
            show_finding(segmentation, volume)

    def _showHeadline(self, volume: Any) -> None:
        """The key numbers of the result, large."""
        table = result_nodes(volume, self.task).get("table measurements")
        self.ui.headlineLabel.text = headline(table_rows(table)) if table is not None else ""
        self.ui.headlineLabel.visible = bool(self.ui.headlineLabel.text)

    # -- what every panel shows ---------------------------------------------------------------------------------

    def say(self, message: str) -> None:
        """A sentence in the status line."""
        self.ui.statusLabel.text = message
        slicer.util.showStatusMessage(message, 5000)

    def refreshStart(self, whyNot: str, toolTip: str) -> None:
        """Missing packages, and whether a run can start.

        Args:
            whyNot: sentence on why the input cannot be computed on; empty if it can.
            toolTip: of the button that starts a run.
        """
        ui, missing = self.ui, self._logic.missingPackages()
        ui.deviceComboBox.setCurrentIndex(max(0, ui.deviceComboBox.findData(self.parameterNode.device)))
        ui.installFrame.visible = bool(missing)
        ui.installLabel.text = _("Needed before the first run: {packages}.").format(packages=", ".join(missing))
        reason = _("Install the missing packages first.") if missing else whyNot
        ui.applyButton.enabled = not reason and not self.run.is_running
        ui.applyButton.toolTip = reason or toolTip
        ui.cancelButton.enabled = self.run.is_running
        ui.batchButton.enabled = not missing and not self.run.is_running

    def onDeviceChosen(self, index: int | None = None) -> None:
        """Another device was picked."""
        if self.parameterNode is not None and self.ui.deviceComboBox.currentData:
            self.parameterNode.device = self.ui.deviceComboBox.currentData

    def startRun(
        self, begin: Callable[..., Any], done: str, then: Callable[[Any], None] | None = None, replaces: bool = True
    ) -> None:
        """Start a run; the panel stays alive. Who has corrected the result by hand is asked before that is lost.

        Args:
            begin: called with onDone, onFailed and onCancelled; returns the handle.
            done: what to say when it is done.
            then: called with the result's nodes after that, if the module is still open.
            replaces: whether it makes the result that is shown anew.
        """
        question = _("You have corrected this result by hand. A new run replaces your corrections.")
        if replaces and self._isCorrected() and not slicer.util.confirmOkCancelDisplay(question):
            self.say(_("Nothing was started; your corrections are kept."))
            return

        def follow_up(shown: Any) -> None:
            if then is not None and self.parameterNode is not None:
                then(shown)

        words = {"starting": _("Starting"), "cancelling": _("Cancelling"), "done": done}
        self._batchRuns = False
        self.run.start(begin, {**words, "cancelled": _("Cancelled; nothing was changed.")}, follow_up)
        self.refresh()

    def _isCorrected(self) -> bool:
        """Whether a person has changed the result that is shown: its outline, or its chain of discs."""
        volume = self._widget.source()
        chain = self._logic.chain(volume) if hasattr(self._logic, "chain") else None
        return is_edited(result_nodes(volume, self.task)) or (chain is not None and chain.editor.can_undo)

    def onBatch(self, checked: bool = False) -> None:
        """Ask for a folder of cases and one for their results, and run them one after the other."""
        folder = qt.QFileDialog.getExistingDirectory(self._widget.parent, _("Folder of cases"))
        output = (
            qt.QFileDialog.getExistingDirectory(self._widget.parent, _("Folder for their results")) if folder else ""
        )
        if not output:
            return
        cases = cases_in(folder, output)
        if not cases:
            self.say(
                _("There is no case in that folder; choose one that holds image files, or a folder for each case.")
            )
            return
        self._batchRuns = True
        words = {
            "starting": _("Starting"),
            "cancelling": _("Cancelling"),
            "done": "",
            "cancelled": _("Cancelled; results of finished cases were kept."),
        }
        self.run.start(
            functools.partial(self._logic.startFolder, self.parameterNode, cases, output),
            words,
            lambda outcomes: self.say(summary(outcomes)),
        )
        self.refresh()

    def onCancel(self, checked: bool = False) -> None:
        """Cancel the run."""
        self.run.cancel()

    def onInstall(self, checked: bool = False) -> None:
        """Install what is missing, after asking."""
        self.say(attempt(self._logic.installPackages, _("Installation failed.")))
        self.refresh()

    # -- results ------------------------------------------------------------------------------------------------

    def resultFolder(self, volume: Any) -> Path | None:
        """Folder with the files of a volume's result, or None."""
        return self._logic.resultFolder(volume)

    def choose(self, volume: Any) -> None:
        """Show the result of another volume of the scene."""
        if hasattr(self._widget, "choose"):
            self._widget.choose(volume)
        else:
            self.parameterNode.inputVolume = volume

    def bringUpToDate(self, folder: Path) -> None:
        """Let the files of the result that is shown say what a person has corrected in the scene.

        Raises:
            NeuraxisError: they cannot be written.
        """
        if hasattr(self._logic, "correctedFolder"):
            self._logic.correctedFolder(self._widget.source())
        else:
            self.review.edits.bring_up_to_date(folder)

    def _isUpToDate(self, folder: Path) -> bool:
        """Bring the files up to date; whether that worked, else what is wrong is said."""
        try:
            with slicer.util.WaitCursor():
                self.bringUpToDate(folder)
        except NeuraxisError as error:
            self.say(str(error))
            return False
        return True

    def copyReport(self, folder: Path, target: str) -> None:
        """Copy the report of a result folder, with all corrections, to where the user wants it."""
        if not self._isUpToDate(folder):
            return
        try:
            shutil.copyfile(folder / "report.html", target)
        except OSError as error:
            self.say(_("The report was not saved ({reason}); choose another place.").format(reason=error.strerror))
            return
        self.say(_("Report saved."))

    def openFolder(self, folder: Path) -> None:
        """Open a result folder in the file browser, with all corrections."""
        if self._isUpToDate(folder):
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))


def _lists_of_scans(ui: Any) -> list[Any]:
    """The widgets of a .ui file that list scans to choose from."""
    return [getattr(ui, name) for name in ("inputSelector", "secondSelector", "earlierSelector") if hasattr(ui, name)]
