"""Slicer module: one click from a head CT to a measured hemorrhage."""

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

TASK_NAME = "hemorrhage"


class HemorrhageSeg(ScriptedLoadableModule):
    """Metadata of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Hemorrhage Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Neuraxis"]
        self.parent.contributors = ["The Neuraxis contributors"]
        self.parent.helpText = _(
            "Outlines and measures intracranial hemorrhage in non-contrast head CT, with an uncertainty map and an "
            "interval on every volume. Research use only; not a medical device. "
            "<a href='https://github.com/neuraxis-project/SlicerNeuraxis'>Documentation</a>"
        )
        self.parent.acknowledgementText = _("Part of Neuraxis, tools for neuroradiology research.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the bundled head CT in the Sample Data module; it works without a network."""
    from NeuraxisLib.scene_samples import register_sample

    register_sample(TASK_NAME, "head_ct_hemorrhage.nrrd", "HeadCTHemorrhage", __file__)


@parameterNodeWrapper
class HemorrhageSegParameterNode:
    """What the panel remembers in the scene.

    inputVolume - the head CT; results are found through it.
    earlierVolume - an earlier head CT of the same patient, for the follow-up.
    modelName - chosen model; empty for the default one.
    device - where to compute.
    overlayVisible, overlayOpacity - the uncertainty map over the slices.
    show3D - surfaces in the 3D view.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    earlierVolume: vtkMRMLScalarVolumeNode
    modelName: str = ""
    device: str = "auto"
    overlayVisible: bool = False
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.5
    show3D: bool = False


class HemorrhageSegWidget(ScriptedLoadableModuleWidget):
    """Panel: binds widgets to the parameter node, starts runs, shows what they found."""

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        from HemorrhageSegLib.scene_followup import FollowUpSection
        from NeuraxisLib.result_panel import ModelChooser, ResultPanel
        from NeuraxisLib.scene_panel import ModulePanel

        self.logic = HemorrhageSegLogic()
        self._panel = ModulePanel(self, self.logic, TASK_NAME)
        self.ui = self._panel.ui
        self._models = ModelChooser(self.ui)
        self._results = ResultPanel(self.ui, TASK_NAME, overlay="entropy")
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.nextSliceButton.connect("clicked(bool)", self.onNextSlice)
        self.ui.saveReportButton.connect("clicked(bool)", self.onSaveReport)
        self.ui.openFolderButton.connect("clicked(bool)", self.onOpenFolder)
        self.ui.show3DButton.connect("toggled(bool)", self.onShow3D)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChosen)
        followUpFile = self.resourcePath("UI/HemorrhageSegFollowUp.ui")
        self._followUp = self._panel.add(FollowUpSection(self._panel, self.logic, followUpFile))
        self._panel.begin()

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

    def source(self):
        """The volume whose result the panel shows."""
        return self._parameterNode.inputVolume

    def preselect(self):
        """Choose the first volume that can be computed on."""
        from NeuraxisLib import scene

        if self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = scene.first_suitable()
        self._models.fill(self.logic.models(refresh=True), self._parameterNode.modelName)

    def follow(self):
        """Nothing but the parameter node is followed."""

    def unfollow(self):
        """Nothing but the parameter node was followed."""

    def refresh(self):
        """Make the panel and the views say what the parameter node and the scene hold."""
        from NeuraxisLib.scene_cases import show_brain_window

        parameters = self._parameterNode
        for scan in (parameters.inputVolume, parameters.earlierVolume):
            show_brain_window(scan)
        self._models.choose(parameters.modelName)
        self._panel.refreshStart(self._whyNot(), _("Outline and measure the blood in this head CT."))
        self._results.refresh(
            parameters.inputVolume,
            parameters.overlayOpacity if parameters.overlayVisible else None,
            parameters.show3D,
            self.logic.resultFolder(parameters.inputVolume),
        )

    def _whyNot(self):
        from NeuraxisLib import scene

        if not self.logic.models():
            return _("No model is installed; see the Neuraxis module.")
        return scene.why_unsuitable(self._parameterNode.inputVolume)

    def onModelChosen(self, index=None):
        """Another model was picked."""
        if self._parameterNode is not None:
            self._parameterNode.modelName = self._models.show_card()

    def onShow3D(self, checked):
        """Surfaces on or off."""
        if self._parameterNode is not None:
            self._parameterNode.show3D = bool(checked)

    def onApply(self, checked=False):
        """Start a run; the panel stays alive, and the views go to what was found."""
        parameters = self._parameterNode
        self._results.restart()
        chosen = (parameters.inputVolume, parameters.modelName, parameters.device)
        done = _("Done. Check the outline before you use any number.")
        begin = functools.partial(self.logic.process, *chosen, wait=False)
        self._panel.startRun(begin, done, lambda shown: self._panel.showFinding(shown.segmentation))

    def onNextSlice(self, checked=False):
        """Show the next of the most uncertain slices."""
        k, rank, count = self._results.show_next_slice(self._parameterNode.inputVolume)
        words = _("Slice {slice}, number {rank} of the {count} most uncertain.")
        self._panel.say(words.format(slice=k + 1, rank=rank, count=count))

    def onSaveReport(self, checked=False):
        """Copy the report to where the user wants it."""
        name = "hemorrhage_report.html"
        target = qt.QFileDialog.getSaveFileName(self.parent, _("Save report"), name, "HTML (*.html)")
        if target:
            self._panel.copyReport(self.logic.resultFolder(self._parameterNode.inputVolume), target)

    def onOpenFolder(self, checked=False):
        """Open the result folder in the file browser."""
        self._panel.openFolder(self.logic.resultFolder(self._parameterNode.inputVolume))


class HemorrhageSegLogic(ScriptedLoadableModuleLogic):
    """The task on volumes of the scene; for the panel and for the Python console alike.

    In the console::

        logic = slicer.util.getModuleLogic("HemorrhageSeg")
        shown = logic.process(slicer.util.getNode("HeadCT"))
        print(shown.tables["measurements"].GetCellText(0, 1), "mL")

    What the logics of all tasks do alike, such as ``processFolder``, ``resultFolder``, ``poll`` and ``models``, it has
    from :class:`NeuraxisLib.scene_logic.TaskLogic`.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        from HemorrhageSegLib.scene_followup import SceneFollowUps
        from NeuraxisLib.scene_logic import TaskLogic
        from NeuraxisLib.scene_runs import SceneRuns

        self._shared = TaskLogic(self, TASK_NAME, functools.partial(SceneRuns, TASK_NAME, "ct"))
        self._runs = self._shared.runs
        self._followUps = SceneFollowUps(self._runs)

    def getParameterNode(self):
        """The wrapped parameter node."""
        return HemorrhageSegParameterNode(super().getParameterNode())

    def process(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        modelName: str | None = None,
        device: str = "auto",
        wait: bool = True,
        **optionsAndCallbacks,
    ):
        """Segment and measure the hemorrhage in a head CT; an earlier result of that volume is replaced.

        :param modelName: installed model or path of a model file; None for the default one
        :param device: "auto", "cpu", "cuda", "mps" or "openvino"
        :param wait: return when it is done, with the nodes (``.segmentation``, ``.maps``, ``.tables``); otherwise
            return a handle at once, call ``poll`` now and then, and one of onDone(nodes), onFailed(error),
            onCancelled() follows
        :param optionsAndCallbacks: onProgress(fraction, stage) and the three above; options of the task, such as
            ``threshold=0.4``
        :raises NeuraxisLib.errors.NeuraxisError: one sentence on what is wrong and what to do
        """
        callbacks = self._runs.take_callbacks(optionsAndCallbacks)
        return self._runs.process(volumeNode, modelName or "", device, optionsAndCallbacks, wait, *callbacks)

    def followUp(self, earlierNode, laterNode, modelName=None, device="auto", wait=True, **callbacks):
        """Compare the hemorrhage in two head CTs of one patient; the result belongs to the earlier one.

        A volume that has no result of this session is outlined first, with the model that is named.

        :param callbacks: onProgress(fraction, stage), onDone(nodes), onFailed(error), onCancelled()
        :return: with ``wait`` the nodes, otherwise a handle; see :meth:`process`
        """
        return self._followUps.compare(earlierNode, laterNode, modelName or "", device, wait, callbacks)

    def followUpFolder(self, earlierNode):
        """Folder with the files of the newest follow-up from a volume, or None if there is none of this session."""
        return self._followUps.result_folder(earlierNode)

    def stop(self):
        """End the worker."""
        self._followUps.stop()
        self._shared.stop()


class HemorrhageSegTest(ScriptedLoadableModuleTest):
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
        """The bundled scan gives a segmentation on its grid and a volume with an interval."""
        from HemorrhageSegLib.task import TASK
        from NeuraxisLib import files

        logic = HemorrhageSegLogic()
        if logic.missingPackages() or not logic.models():
            self.skipTest(f"needs {', '.join(logic.missingPackages()) or 'an installed model'}")
        ct = files.read_volume(TASK.resources / "SampleData" / "head_ct_hemorrhage.nrrd")
        node = slicer.util.addVolumeFromArray(ct.array, ijkToRAS=ct.ijk_to_ras, name="HeadCT")
        try:
            shown = logic.process(node, device="cpu")
        finally:
            logic.stop()
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(shown.segmentation, "Segment_1", node)
        self.assertEqual(mask.shape, ct.array.shape)
        self.assertGreater(mask.sum(), 0)
        self.assertGreater(shown.tables["measurements"].GetTable().GetNumberOfRows(), 0)
