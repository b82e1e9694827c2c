"""Slicer module: one click from a head CT to a measured hemorrhage."""

import logging
import shutil
import unittest
from pathlib import Path
from typing import Annotated

import qt
import slicer
import vtk
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
from slicer.util import VTKObservationMixin

TASK_NAME = "hemorrhage"
POLL_INTERVAL_MS = 100
REQUIREMENTS_FILE = Path(__file__).parent / "HemorrhageSegLib" / "Resources" / "requirements.txt"


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
    import SampleData

    from HemorrhageSegLib.task import TASK

    file = TASK.resources / "SampleData" / "head_ct_hemorrhage.nrrd"
    if file.is_file():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="Neuraxis",
            sampleName="HeadCTHemorrhage",
            thumbnailFileName=str(Path(__file__).parent / "Resources" / "Icons" / "HemorrhageSeg.png"),
            uris=file.as_uri(),
            fileNames=file.name,
            nodeNames="HeadCTHemorrhage",
        )


@parameterNodeWrapper
class HemorrhageSegParameterNode:
    """What the panel remembers in the scene.

    inputVolume - the head CT; results are found through it.
    modelName - chosen model; empty for the default one.
    device - where to compute.
    overlayVisible, overlayOpacity - the uncertainty map over the slices.
    show3D - surfaces in the 3D view.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    modelName: str = ""
    device: str = "auto"
    overlayVisible: bool = False
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.5
    show3D: bool = False


class HemorrhageSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Panel: binds widgets to the parameter node, starts runs, shows what they found."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag = None
        self._run = None
        self._results = self._models = None

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        from NeuraxisLib import RESEARCH_USE_NOTICE
        from NeuraxisLib.panel import device_choices
        from NeuraxisLib.result_panel import ModelChooser, ResultPanel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/HemorrhageSeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = HemorrhageSegLogic()
        self._models = ModelChooser(self.ui)
        self._results = ResultPanel(self.ui, TASK_NAME, overlay="entropy")
        self.ui.noticeLabel.text = RESEARCH_USE_NOTICE
        for name, title in device_choices().items():
            self.ui.deviceComboBox.addItem(title, name)
        self._timer = qt.QTimer()
        self._timer.interval = POLL_INTERVAL_MS
        self._timer.connect("timeout()", self.onTimer)
        self._connectButtons()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneReady)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneReady)
        self.initializeParameterNode()

    def _connectButtons(self):
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.ui.nextSliceButton.connect("clicked(bool)", self.onNextSlice)
        self.ui.saveReportButton.connect("clicked(bool)", self.onSaveReport)
        self.ui.openFolderButton.connect("clicked(bool)", self.onOpenFolder)
        self.ui.installButton.connect("clicked(bool)", self.onInstall)
        self.ui.show3DButton.connect("toggled(bool)", self.onShow3D)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChosen)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self.onDeviceChosen)

    def enter(self):
        """Called whenever the user opens the module."""
        self.initializeParameterNode()

    def exit(self):
        """Called whenever the user leaves the module; a run goes on."""
        self.setParameterNode(None)

    def cleanup(self):
        """Called when the panel goes: nothing is left running."""
        self._timer.stop()
        self.setParameterNode(None)
        self.removeObservers()
        self._run = None
        self.logic.stop()

    def onSceneStartClose(self, caller, event):
        """The nodes are about to go: a run under way has nowhere to put its result."""
        if self._run is not None:
            self.logic.cancel(self._run)
        self.setParameterNode(None)

    def onSceneReady(self, caller, event):
        """The scene is empty again, or one was loaded, perhaps with results in it."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Bind to the scene's parameter node and preselect the first volume that can be computed on."""
        from NeuraxisLib import scene

        self.setParameterNode(self.logic.getParameterNode())
        if self._parameterNode.inputVolume is None:
            nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            suitable = [n for n in nodes if not scene.why_unsuitable(n) and not n.GetAttribute(scene.PART_ATTRIBUTE)]
            if suitable:
                self._parameterNode.inputVolume = suitable[0]
        self._models.fill(self.logic.models(refresh=True), self._parameterNode.modelName)
        self.refresh()

    def setParameterNode(self, parameterNode):
        """Connect the widgets to a parameter node, or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.refresh)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.refresh)

    def refresh(self, caller=None, event=None):
        """Make the panel and the views say what the parameter node and the scene hold."""
        if self._parameterNode is None:
            return
        parameters, ui = self._parameterNode, self.ui
        self._models.choose(parameters.modelName)
        ui.deviceComboBox.setCurrentIndex(max(0, ui.deviceComboBox.findData(parameters.device)))
        missing = self.logic.missingPackages()
        ui.installFrame.visible = bool(missing)
        ui.installLabel.text = _("Needed before the first run: {packages}.").format(packages=", ".join(missing))
        reason = self._whyNot(missing)
        running = self._run is not None
        ui.applyButton.enabled = not reason and not running
        ui.applyButton.toolTip = reason or _("Outline and measure the blood in this head CT.")
        ui.cancelButton.enabled = running
        self._results.refresh(
            parameters.inputVolume,
            parameters.overlayOpacity if parameters.overlayVisible else None,
            parameters.show3D,
            self.logic.resultFolder(parameters.inputVolume),
        )

    def _whyNot(self, missing):
        from NeuraxisLib import scene

        if missing:
            return _("Install the missing packages first.")
        if not self.logic.models():
            return _("No model is installed; see the Neuraxis module.")
        return scene.why_unsuitable(self._parameterNode.inputVolume)

    def _say(self, message):
        self.ui.statusLabel.text = message
        slicer.util.showStatusMessage(message, 5000)

    def onModelChosen(self, index=None):
        """Another model was picked."""
        if self._parameterNode is not None:
            self._parameterNode.modelName = self._models.show_card()

    def onDeviceChosen(self, index=None):
        """Another device was picked."""
        if self._parameterNode is not None and self.ui.deviceComboBox.currentData:
            self._parameterNode.device = self.ui.deviceComboBox.currentData

    def onShow3D(self, checked):
        """Surfaces on or off."""
        if self._parameterNode is not None:
            self._parameterNode.show3D = bool(checked)

    def onApply(self, checked=False):
        """Start a run; the panel stays alive."""
        parameters = self._parameterNode
        self._results.restart()
        try:
            self._run = self.logic.process(
                parameters.inputVolume,
                parameters.modelName or None,
                parameters.device,
                wait=False,
                onDone=self.onDone,
                onFailed=self.onFailed,
                onCancelled=self.onCancelled,
            )
        except Exception as error:
            self.onFailed(error)
            return
        self._say(_("Starting"))
        self.ui.progressBar.value = 0
        self._timer.start()
        self.refresh()

    def onTimer(self):
        """Hear what the worker said and move the progress bar."""
        from NeuraxisLib.panel import progress_line

        self.logic.poll()
        if self._run is not None:
            self.ui.progressBar.value = round(100 * self._run.fraction)
            self.ui.statusLabel.text = progress_line(self._run.stage, self._run.seconds_left)

    def onCancel(self, checked=False):
        """Cancel the run."""
        if self._run is not None:
            self.logic.cancel(self._run)
            self.ui.statusLabel.text = _("Cancelling")

    def _finish(self, message, fraction=0):
        self._run = None
        self._timer.stop()
        self.ui.progressBar.value = fraction
        self._say(message)
        self.refresh()

    def onDone(self, shown):
        """The result is in the scene."""
        self._finish(_("Done. Check the outline before you use any number."), 100)

    def onFailed(self, error):
        """The run failed; the error is one sentence."""
        logging.error("%s", error)
        self._finish(str(error))

    def onCancelled(self):
        """The run was cancelled."""
        self._finish(_("Cancelled; nothing was changed."))

    def onNextSlice(self, checked=False):
        """Show the next of the most uncertain slices."""
        k, rank, count = self._results.show_next_slice(self._parameterNode.inputVolume)
        self._say(
            _("Slice {slice}, number {rank} of the {count} most uncertain.").format(slice=k + 1, rank=rank, count=count)
        )

    def onSaveReport(self, checked=False):
        """Copy the report to where the user wants it."""
        target = qt.QFileDialog.getSaveFileName(
            self.parent, _("Save report"), "hemorrhage_report.html", "HTML (*.html)"
        )
        if not target:
            return
        try:
            shutil.copyfile(self.logic.resultFolder(self._parameterNode.inputVolume) / "report.html", target)
        except OSError as error:
            self._say(_("The report was not saved ({reason}); choose another place.").format(reason=error.strerror))
            return
        self._say(_("Report saved."))

    def onOpenFolder(self, checked=False):
        """Open the result folder in the file browser."""
        folder = self.logic.resultFolder(self._parameterNode.inputVolume)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def onInstall(self, checked=False):
        """Install what is missing, after asking."""
        with slicer.util.tryWithErrorDisplay(_("Installation failed."), waitCursor=True):
            self._say(self.logic.installPackages())
        self.refresh()


class HemorrhageSegLogic(ScriptedLoadableModuleLogic):
    """The task on volumes of the scene; for the panel and for the Python console alike.

    In the console::

        logic = slicer.util.getModuleLogic("HemorrhageSeg")
        shown = logic.process(slicer.util.getNode("HeadCT"))
        print(slicer.util.arrayFromTableColumn(shown.tables["measurements"], "Value"))
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        from NeuraxisLib.scene_runs import SceneRuns

        self._runs = SceneRuns(TASK_NAME, "ct", self.newClient)
        self._models = None

    def newClient(self):
        """A worker client with the settings of the Neuraxis module."""
        return slicer.util.getModuleLogic("Neuraxis").newClient()

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
        :param device: "auto", "cpu", "cuda" or "mps"
        :param wait: return when it is done, with the nodes (``.segmentation``, ``.maps``, ``.tables``); otherwise
            return a handle at once, call :meth:`poll` now and then, and one of onDone(nodes), onFailed(error),
            onCancelled() follows
        :param optionsAndCallbacks: onProgress(fraction, stage) and the three above; options of the task, such as
            ``threshold=0.4``
        :raises NeuraxisLib.errors.NeuraxisError: one sentence on what is wrong and what to do
        """
        events = ("onProgress", "onDone", "onFailed", "onCancelled")
        callbacks = [optionsAndCallbacks.pop(event, None) for event in events]
        return self._runs.process(volumeNode, modelName or "", device, optionsAndCallbacks, wait, *callbacks)

    def processFolder(self, files, outputFolder, modelName=None, device="auto", onProgress=None, **options):
        """Process files (or DICOM folders) into one result folder each; a bad case does not stop the rest.

        :param onProgress: called before each case with (index, count, file name)
        :return: list of outcomes with ``.file``, ``.folder`` (None if it failed) and ``.error``
        """
        return self._runs.process_folder(files, outputFolder, modelName or "", device, options, onProgress)

    def poll(self):
        """Deliver what the worker has said."""
        self._runs.poll()

    def cancel(self, handle):
        """Cancel a run that was started with ``wait=False``."""
        self._runs.cancel(handle)

    def stop(self):
        """End the worker."""
        self._runs.stop()

    def resultFolder(self, volumeNode):
        """Folder with the files of a volume's result, or None if it was not computed in this session."""
        return self._runs.result_folder(volumeNode)

    def models(self, refresh=False):
        """Installed models, the default one first."""
        from HemorrhageSegLib.task import TASK
        from NeuraxisLib.models import installed_models

        if refresh or self._models is None:
            self._models = installed_models(TASK)
        return self._models

    def missingPackages(self):
        """Packages that a run needs and the worker's Python does not have."""
        return slicer.util.getModuleLogic("Neuraxis").missingPackages(REQUIREMENTS_FILE)

    def installPackages(self):
        """Install what is missing, asking first; returns the sentence to show."""
        return slicer.util.getModuleLogic("Neuraxis").installPackages(REQUIREMENTS_FILE)


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
