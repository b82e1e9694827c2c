"""Slicer module: finds the discs in a sagittal spine MR, names them, and lets a person put the chain right."""

import functools
import unittest
from typing import Annotated

import qt
import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class SpineDiscLabel(ScriptedLoadableModule):
    """Metadata of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Spine Disc Labels")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Neuraxis"]
        self.parent.contributors = ["The Neuraxis contributors"]
        self.parent.helpText = _(
            "Finds the intervertebral discs in sagittal T1 or T2 MRI of any part of the spine, names them, says how "
            "sure it is, and renumbers the whole chain when one disc is corrected. Research use only; not a medical "
            "device. <a href='https://github.com/neuraxis-project/SlicerNeuraxis'>Documentation</a>"
        )
        self.parent.acknowledgementText = _("Part of Neuraxis, tools for neuroradiology research.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the bundled spine MR in the Sample Data module; it works without a network."""
    from NeuraxisLib.scene_samples import register_sample

    register_sample("discs", "lumbar_spine_mr.nrrd", "LumbarSpineMR", __file__)


@parameterNodeWrapper
class SpineDiscLabelParameterNode:
    """What the panel remembers in the scene; the corrections of a chain are kept with its point list.

    inputVolume - the spine MR; results are found through it. secondVolume - another contrast, or none.
    modelName - chosen model; empty for the default one. device - where to compute.
    overlayVisible, overlayOpacity - the heat map over the slices.
    backwardMm - how far labels for other programs are moved toward the back.
    subject, session, reviewed - for a BIDS data set.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    secondVolume: vtkMRMLScalarVolumeNode
    modelName: str = ""
    device: str = "auto"
    overlayVisible: bool = False
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.5
    backwardMm: float = 0.0
    subject: str = ""
    session: str = ""
    reviewed: bool = False


class SpineDiscLabelWidget(ScriptedLoadableModuleWidget):
    """Panel: binds widgets to the parameter node, starts runs, hands corrections to the chain, shows it."""

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        from NeuraxisLib.result_panel import ModelChooser
        from NeuraxisLib.scene_panel import ModulePanel
        from SpineDiscLabelLib.panel_discs import DiscPanel
        from SpineDiscLabelLib.panel_points import PointPanel

        self.logic = SpineDiscLabelLogic()
        self._panel = ModulePanel(self, self.logic, "discs")
        self.ui = self._panel.ui
        self.ui.suffixComboBox.addItems(["T2w", "T1w"])
        self._models = ModelChooser(self.ui)
        self._discs = DiscPanel(self.ui)
        self._points = PointPanel(self.onPointsChanged, self.onDiscPlaced)
        self._editTimer = qt.QTimer()
        self._editTimer.interval, self._editTimer.singleShot = 0, True
        self._connectButtons()
        self._panel.begin()

    def _connectButtons(self):
        self._editTimer.connect("timeout()", self.onEditTimer)
        ui = self.ui
        for button, slot in (
            (ui.applyButton, self.onApply), (ui.addButton, self.onAdd), (ui.deleteButton, self.onDelete),
            (ui.undoButton, self.onUndo), (ui.redoButton, self.onRedo), (ui.saveReportButton, self.onSaveReport),
            (ui.openFolderButton, self.onOpenFolder), (ui.exportButton, self.onExport),
            (ui.bidsButton, self.onExportBids),
        ):  # fmt: skip
            button.connect("clicked(bool)", slot)
        self.ui.discTableView.connect("clicked(QModelIndex)", self.onRowClicked)
        self.ui.nameComboBox.connect("activated(int)", self.onNameChosen)
        self.ui.othersList.connect("itemClicked(QListWidgetItem*)", self.onOtherChosen)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChosen)

    @property
    def _parameterNode(self):
        return self._panel.parameterNode

    def enter(self):
        """Called whenever the user opens the module."""
        self._panel.enter()

    def exit(self):
        """Called whenever the user leaves the module; a run goes on."""
        self._panel.exit()

    def cleanup(self):
        """Called when the panel goes: nothing is left running."""
        self._panel.cleanup()

    def preselect(self):
        """Choose the first volume that can be computed on."""
        from NeuraxisLib import scene

        if self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = scene.first_suitable()
        self._models.fill(self.logic.models(refresh=True), self._parameterNode.modelName)

    def follow(self):
        """The panel is open: what was done to the points meanwhile is taken in."""
        self._editTimer.start()

    def unfollow(self):
        """Follow no points."""
        self._editTimer.stop()
        self._points.stop_placing()
        self._points.follow(None)

    def refresh(self):
        """Make the panel and the views say what the parameter node and the scene hold."""
        parameters, ui, idle = self._parameterNode, self.ui, not self._panel.run.is_running
        self._models.choose(parameters.modelName)
        self._panel.refreshStart(self._whyNot(), _("Find and name the discs in this spine MR."))
        nodes, chain = self.logic.resultNodes(self.source()), self._chain()
        self._points.follow(nodes.get("points"))
        self._discs.refresh(chain, nodes, parameters.overlayOpacity if parameters.overlayVisible else None)
        there = idle and self.logic.resultFolder(self.source()) is not None
        ui.saveReportButton.enabled = ui.openFolderButton.enabled = there
        ui.exportButton.enabled = ui.bidsButton.enabled = chain is not None and bool(chain.state.points)

    def _whyNot(self):
        from NeuraxisLib import scene

        if not self.logic.models():
            return _("No model is installed; see the Neuraxis module.")
        second = self._parameterNode.secondVolume
        if second is not None and second is self.source():
            return _("The second contrast is the same volume; choose another one or none.")
        return scene.why_unsuitable(self.source()) or (scene.why_unsuitable(second) if second is not None else "")

    def source(self):
        """The volume whose result the panel shows, or None."""
        return self._parameterNode.inputVolume

    def _chain(self):
        return self.logic.chain(self.source())

    def _answer(self, act, done=""):
        """Do something that may be refused with one sentence, and say that sentence, or what was done."""
        from NeuraxisLib.errors import NeuraxisError

        try:
            act()
        except NeuraxisError as error:
            done = str(error)
        if done:
            self._panel.say(done)
        self._panel.refresh()

    # -- runs ---------------------------------------------------------------------------------------------------

    def onModelChosen(self, index=None):
        """Another model was picked."""
        if self._parameterNode is not None:
            self._parameterNode.modelName = self._models.show_card()

    def onApply(self, checked=False):
        """Start a run; its middle is shown in the slice views."""
        parameters = self._parameterNode
        self._points.stop_placing()
        chosen = (parameters.inputVolume, parameters.secondVolume, parameters.modelName, parameters.device)
        begin = functools.partial(self.logic.process, *chosen, wait=False)
        done = _("Done. Check the names before you use any number; drag, delete or rename what is wrong.")
        self._panel.startRun(begin, done, lambda shown: self._discs.show_middle())

    # -- corrections --------------------------------------------------------------------------------------------

    def onPointsChanged(self):
        """Something happened to the point list: look at it once it is over, however many events it made."""
        self._editTimer.start()

    def onEditTimer(self):
        """Take over what was done to the points, or show what a drag would come to."""
        chain = self._chain() if self._parameterNode is not None else None
        if chain is not None:
            self._answer(chain.preview if self._points.is_dragging else chain.take_in)

    def _correct(self, change, done=""):
        self._answer(lambda: self._chain().correct(change), done)

    def onRowClicked(self, index):
        """A row of the table was clicked: that disc is chosen and shown."""
        self._discs.choose_row(index.row())

    def onNameChosen(self, index):
        """The person says which disc the chosen one is."""
        key, name = self._discs.chosen, self.ui.nameComboBox.itemText(index)
        done = _("All discs are counted from {name}.").format(name=name)
        if key is not None:
            self._correct(lambda editor: editor.say(key, name), done)

    def onOtherChosen(self, item):
        """Another way to count was chosen."""
        other = self._discs.other(self.ui.othersList.row(item))
        if other is not None:
            self._correct(lambda editor: editor.choose(other))

    def onAdd(self, checked=False):
        """The next click in a view adds a disc."""
        self._points.place()
        self._panel.say(_("Click on the middle of a disc in a slice view."))

    def onDiscPlaced(self, position):
        """A click added a disc."""
        if self._parameterNode is not None and self._chain() is not None:
            self._correct(lambda editor: editor.add(position))

    def onDelete(self, checked=False):
        """The chosen disc is none."""
        self._correct(lambda editor: editor.delete(self._discs.chosen))

    def onUndo(self, checked=False):
        """Take the last correction back."""
        self._correct(lambda editor: editor.undo())

    def onRedo(self, checked=False):
        """Make it again."""
        self._correct(lambda editor: editor.redo())

    # -- files --------------------------------------------------------------------------------------------------

    def onSaveReport(self, checked=False):
        """Copy the report to where the user wants it, with all corrections."""
        target = qt.QFileDialog.getSaveFileName(self.parent, _("Save report"), "disc_report.html", "HTML (*.html)")
        if target:
            self._answer(lambda: self._panel.copyReport(self.logic.correctedFolder(self.source()), target))

    def onOpenFolder(self, checked=False):
        """Open the result folder in the file browser, with all corrections."""
        self._answer(lambda: self._panel.openFolder(self.logic.correctedFolder(self.source())))

    def onExport(self, checked=False):
        """Write points, table or labels, as the chosen name says."""
        from SpineDiscLabelLib.panel_export import file_filter

        target = qt.QFileDialog.getSaveFileName(self.parent, _("Export discs"), "discs.mrk.json", file_filter())
        if target:
            back = self._parameterNode.backwardMm
            self._answer(lambda: self.logic.export(self.source(), target, back), _("Exported."))

    def onExportBids(self, checked=False):
        """Write the labels into a BIDS data set."""
        parameters = self._parameterNode
        dataset = qt.QFileDialog.getExistingDirectory(self.parent, _("BIDS data set"))
        if dataset:
            options = {"subject": parameters.subject, "session": parameters.session, "reviewed": parameters.reviewed}
            options |= {"suffix": self.ui.suffixComboBox.currentText, "backward_mm": parameters.backwardMm}
            self._answer(lambda: self.logic.exportBids(self.source(), dataset, **options), _("Exported."))


class SpineDiscLabelLogic(ScriptedLoadableModuleLogic):
    """The task on volumes of the scene; for the panel and for the Python console alike.

    In the console::

        logic = slicer.util.getModuleLogic("SpineDiscLabel")
        spine = slicer.util.getNode("LumbarSpineMR")
        logic.process(spine)
        chain = logic.chain(spine)
        chain.correct(lambda editor: editor.say(chain.state.points[-1].key, "L5/S1"))
        print([disc.name for disc in chain.discs])
        logic.export(spine, "discs.csv")

    What the logics of all tasks do alike, such as ``processFolder``, ``resultFolder``, ``poll`` and ``models``, it has
    from :class:`NeuraxisLib.scene_logic.TaskLogic`.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        from NeuraxisLib.scene_logic import TaskLogic
        from SpineDiscLabelLib.panel_runs import DiscRuns

        self._runs = TaskLogic(self, "discs", DiscRuns).runs

    def getParameterNode(self):
        """The wrapped parameter node."""
        return SpineDiscLabelParameterNode(super().getParameterNode())

    def process(self, volumeNode, secondNode=None, modelName=None, device="auto", wait=True, **optionsAndCallbacks):
        """Find, name and measure the discs in a sagittal spine MR; an earlier result of that volume is replaced.

        :param secondNode: another contrast of the same spine in the same place, or None
        :param modelName: installed model or path of a model file; None for the default one
        :param device: "auto", "cpu", "cuda", "mps" or "openvino"
        :param wait: return when it is done, with the nodes (``.points``, ``.maps``, ``.tables``); otherwise return a
            handle at once, call ``poll`` now and then, and one of onDone(nodes), onFailed(error),
            onCancelled() follows
        :param optionsAndCallbacks: onProgress(fraction, stage) and the three above; options of the task, such as
            ``threshold=0.2`` or ``lowest="L5/S1"``
        :raises NeuraxisLib.errors.NeuraxisError: one sentence on what is wrong and what to do
        """
        how = (modelName or "", device, optionsAndCallbacks, wait)
        return self._runs.process_pair(volumeNode, secondNode, *how, *self._runs.take_callbacks(optionsAndCallbacks))

    def chain(self, volumeNode):
        """The named discs of a volume with all corrections, as a ``SceneChain``; None if it has no result."""
        return self._runs.chain(volumeNode)

    def export(self, volumeNode, path, backwardMm=0.0):
        """Write the discs of a volume as the name says: .mrk.json, .csv, .nii.gz or .nii."""
        from SpineDiscLabelLib.panel_export import write_chain

        write_chain(self._runs.needed_chain(volumeNode), path, backwardMm)

    def exportBids(self, volumeNode, dataset, subject, **options):
        """Write the discs into a BIDS data set; ``session``, ``suffix``, ``backward_mm``, ``reviewed`` may be given."""
        from SpineDiscLabelLib.panel_export import write_bids

        return write_bids(self._runs.needed_chain(volumeNode), dataset, subject, **options)

    def correctedFolder(self, volumeNode):
        """The result folder, brought up to date with the corrections."""
        return self._runs.corrected_folder(volumeNode)


class SpineDiscLabelTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: the real job on the bundled scan, or a message on what it would need."""

    def setUp(self):
        """Start from an empty scene, and leave one."""
        slicer.mrmlScene.Clear()
        self.addCleanup(slicer.mrmlScene.Clear)

    def runTest(self):
        """All tests, for Reload and Test."""
        self.setUp()
        try:
            self.test_bundledScan()
        except unittest.SkipTest as reason:
            self.delayDisplay(f"Skipped: {reason}")
        self.doCleanups()

    def test_bundledScan(self):
        """The bundled scan gives a chain of discs; naming its lowest one renames all, and undo brings them back."""
        from NeuraxisLib import files
        from SpineDiscLabelLib.task import TASK

        logic = SpineDiscLabelLogic()
        if logic.missingPackages() or not logic.models():
            self.skipTest(f"needs {', '.join(logic.missingPackages()) or 'an installed model'}")
        mr = files.read_volume(TASK.resources / "SampleData" / "lumbar_spine_mr.nrrd")
        node = slicer.util.addVolumeFromArray(mr.array, ijkToRAS=mr.ijk_to_ras, name="Spine")
        try:
            logic.process(node, device="cpu")
        finally:
            logic.stop()
        chain = logic.chain(node)
        found = [disc.name for disc in chain.discs]
        self.assertGreaterEqual(len(found), 5)
        chain.correct(lambda editor: editor.say(chain.state.from_above()[-1][1].key, "L4/L5"))
        self.assertEqual(chain.discs[-1].name, "L4/L5")
        chain.correct(lambda editor: editor.undo())
        self.assertEqual([disc.name for disc in chain.discs], found)
