"""Slicer module: from the frames of a CT perfusion acquisition, or maps of another program, to core and penumbra."""

import functools
import unittest
from typing import Annotated

import qt
import slicer
from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

TASK_NAME = "stroke"
#: The live curve follows the mouse at most this often.
CURVE_INTERVAL_MS = 40


class StrokeCTP(ScriptedLoadableModule):
    """Metadata of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Stroke CT Perfusion")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Neuraxis", "Sequences"]
        self.parent.contributors = ["The Neuraxis contributors"]
        self.parent.helpText = _(
            "Computes perfusion maps (CBF, CBV, MTT, Tmax, TTP) from a CT perfusion acquisition and draws core and "
            "penumbra on them, or on the maps of another program. Research use only; not a medical device. "
            "<a href='https://github.com/neuraxis-project/SlicerNeuraxis'>Documentation</a>"
        )
        self.parent.acknowledgementText = _("Part of Neuraxis, tools for neuroradiology research.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the bundled simulated acquisition in the Sample Data module; it works without a network."""
    from NeuraxisLib.scene_samples import register_sample

    register_sample(TASK_NAME, "simulated_ct_perfusion.seq.nrrd", "SimulatedCTPerfusion", __file__, "SequenceFile")


@parameterNodeWrapper
class StrokeCTPParameterNode:
    """What the panel remembers in the scene.

    inputKind - "frames" or "maps". frames - sequence or multi-volume; intervalS - seconds between frames, 0 as it says.
    cbfMap ... mipMap - maps of another program. colourRanges, pictureSpacing - what their files do not say.
    modelName - network, empty for threshold rules. device - where to compute.
    nihss, ageYears, hoursSinceWell, gender (0 male, 1 female) - of the patient; -1 where unknown.
    artery, vein - voxels "k,j,i" that the user chose; empty to find them. exclude - tissue to leave out.
    family, lateS, rcbfPercent, smallestMl, smallestCoreMl - maps and rules by which lesions are drawn.
    deconvolution ... motion - how maps are computed. shownMap, overlayOpacity - the map over the image.
    safeColours - colours that every eye can order, in place of the usual ones.
    """

    inputKind: str = "frames"
    frames: vtkMRMLNode
    intervalS: float = 0.0
    cbfMap: vtkMRMLScalarVolumeNode
    cbvMap: vtkMRMLScalarVolumeNode
    mttMap: vtkMRMLScalarVolumeNode
    tmaxMap: vtkMRMLScalarVolumeNode
    ttpMap: vtkMRMLScalarVolumeNode
    delayMap: vtkMRMLScalarVolumeNode
    mipMap: vtkMRMLScalarVolumeNode
    colourRanges: str = ""
    pictureSpacing: str = ""
    modelName: str = ""
    device: str = "auto"
    nihss: int = -1
    ageYears: int = -1
    hoursSinceWell: float = -1.0
    gender: int = -1
    artery: str = ""
    vein: str = ""
    family: str = "calibrated"
    lateS: float = 6.0
    rcbfPercent: float = 30.0
    smallestMl: float = 3.0
    smallestCoreMl: float = 1.0
    exclude: vtkMRMLNode
    deconvolution: str = "bsvd"
    residue: str = "gamma"
    poolingMm: float = 0.0
    smoothingMm: float = 2.15
    motion: str = "auto"
    shownMap: str = ""
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.6
    safeColours: bool = False


class StrokeCTPWidget(ScriptedLoadableModuleWidget):
    """Panel: binds widgets to the parameter node, starts runs, shows what they found and lets thresholds move."""

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        from NeuraxisLib.result_panel import ModelChooser
        from NeuraxisLib.scene_panel import ModulePanel
        from StrokeCTPLib.panel_curves import CurvePanel
        from StrokeCTPLib.panel_lesions import LesionPanel
        from StrokeCTPLib.panel_maps import MapViews
        from StrokeCTPLib.panel_methods import ChoiceBoxes
        from StrokeCTPLib.panel_vessels import VesselPanel

        self.logic = StrokeCTPLogic()
        self._panel = ModulePanel(self, self.logic, TASK_NAME)
        self.ui = self._panel.ui
        self._models = ModelChooser(self.ui, without=_("Threshold rules, no network"))
        self._maps, self._curves, self._lesions = MapViews(self.ui), CurvePanel(self.ui), LesionPanel(self.ui)
        self._vessels = VesselPanel(self.onVesselChosen, self._panel.say)
        self._choices = ChoiceBoxes(self.ui, lambda: self._parameterNode)
        self.choose = self._choices.choose  # shows the result of another volume
        self._curveTimer = qt.QTimer()
        self._curveTimer.interval, self._curveTimer.singleShot = CURVE_INTERVAL_MS, True
        self._connectButtons()
        self._panel.begin()

    def _connectButtons(self):
        self._curveTimer.connect("timeout()", self.onCurveTimer)
        ui = self.ui
        for button, slot in (
            (ui.applyButton, self.onApply), (ui.loadFolderButton, self.onLoadFolder), (ui.layoutButton, self.onLayout),
            (ui.saveReportButton, self.onSaveReport), (ui.openFolderButton, self.onOpenFolder),
            (ui.placeArteryButton, functools.partial(self.onPlace, "Artery", _("Click on an artery in a slice view."))),
            (ui.placeVeinButton, functools.partial(self.onPlace, "Vein", _("Click on a large vein in a slice view."))),
            (ui.findVesselsButton, self.onFindVessels), (ui.resetThresholdsButton, self.onResetThresholds),
        ):  # fmt: skip
            button.connect("clicked(bool)", slot)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChosen)
        self.ui.lateSlider.connect("valueIsChanging(double)", self.onThresholdMoving)
        self.ui.rcbfSlider.connect("valueIsChanging(double)", self.onThresholdMoving)

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
        """Choose the first acquisition that can be computed on."""
        from NeuraxisLib import scene_frames

        if self._parameterNode.frames is None:
            sequences = slicer.util.getNodesByClass("vtkMRMLSequenceNode")
            self._parameterNode.frames = next((n for n in sequences if not scene_frames.why_no_frames(n)), None)
        self._models.fill(self.logic.models(refresh=True), self._parameterNode.modelName)

    def follow(self):
        """Follow the mouse."""
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._panel.addObserver(crosshair, crosshair.CursorPositionModifiedEvent, self.onCursorMoved)

    def unfollow(self):
        """Follow neither mouse nor points."""
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._panel.removeObserver(crosshair, crosshair.CursorPositionModifiedEvent, self.onCursorMoved)
        self._curveTimer.stop()
        self._vessels.stop()
        self._vessels.follow(None, None)

    def refresh(self):
        """Make the panel and the views say what the parameter node and the scene hold."""
        from StrokeCTPLib import panel_choice

        parameters, ui, idle = self._parameterNode, self.ui, not self._panel.run.is_running
        frames, source = panel_choice.starts_from_frames(parameters), panel_choice.source_of(parameters)
        self._choices.refresh()
        ui.framesWidget.visible, ui.mapsWidget.visible = frames, not frames
        self._models.choose(parameters.modelName)
        self._panel.refreshStart(panel_choice.why_not(parameters), _("Compute the maps and draw core and penumbra."))
        nodes = self.logic.resultNodes(source)
        self._lesions.refresh(source, nodes, parameters)
        self._maps.refresh(source, nodes, parameters)
        self._vessels.follow(nodes.get("points"), source)
        computed = idle and frames and "table measurements" in nodes
        ui.placeArteryButton.enabled = ui.placeVeinButton.enabled = computed
        ui.findVesselsButton.enabled = computed and bool(parameters.artery or parameters.vein)
        ui.saveReportButton.enabled = ui.openFolderButton.enabled = idle and bool(self.logic.resultFolder(source))

    def source(self):
        """The volume whose result the panel shows, or None."""
        return self._choices.source

    def onModelChosen(self, index=None):
        """Another network was picked, or none."""
        if self._parameterNode is not None:
            self._parameterNode.modelName = self._models.show_card()

    def onThresholdMoving(self, value=None):
        """A slider is being dragged: the lesions follow."""
        if self._parameterNode is not None:
            self._lesions.follow(self.ui.lateSlider.value, self.ui.rcbfSlider.value / 100)

    def onResetThresholds(self, checked=False):
        """The usual thresholds and clean-up again."""
        p = self._parameterNode
        p.lateS, p.rcbfPercent, p.smallestMl, p.smallestCoreMl = 6.0, 30.0, 3.0, 1.0

    def onLayout(self, checked=False):
        """All maps side by side, or the layout before."""
        source = self.source()
        self._maps.show_side_by_side(source, self.logic.resultNodes(source), bool(checked))
        self.refresh()

    def onCursorMoved(self, caller=None, event=None):
        """The mouse moved in a view: look at its voxel soon, however often it moves."""
        if not self._curveTimer.active:
            self._curveTimer.start()

    def onCurveTimer(self):
        """Show curve and values of the voxel under the mouse."""
        if self._parameterNode is not None:
            source = self.source()
            self._curves.follow_mouse(source, self._parameterNode, self.logic.resultNodes(source))

    def onApply(self, checked=False):
        """Start a run; its maps are shown side by side, where the lesion is largest."""
        self._start(lambda shown: (self.onLayout(True), self._panel.showFinding(shown.segmentation)))

    def _start(self, then=None):
        self._curves.forget()
        done = _("Done. Look at maps and vessels before you use any number.")
        self._panel.startRun(functools.partial(self.logic.start, self._parameterNode), done, then)

    def onPlace(self, vessel, request, checked=False):
        """The next click in a view is the artery, or the vein."""
        self._vessels.place(vessel, self.source())
        self._panel.say(request)

    def onVesselChosen(self, vessel, voxel):
        """Compute anew with the artery or the vein that was chosen."""
        setattr(self._parameterNode, vessel.lower(), ",".join(map(str, voxel)))
        if not self._panel.run.is_running:
            self._start()

    def onFindVessels(self, checked=False):
        """Back to the vessels that are found automatically."""
        self._parameterNode.artery = self._parameterNode.vein = ""
        self._start()

    def onSaveReport(self, checked=False):
        """Copy the report to where the user wants it; bring it up to date first if thresholds were changed."""
        target = qt.QFileDialog.getSaveFileName(self.parent, _("Save report"), "perfusion_report.html", "HTML (*.html)")
        if target:
            self._upToDate(lambda shown=None: self._panel.copyReport(self.logic.resultFolder(self.source()), target))

    def onOpenFolder(self, checked=False):
        """Open the result folder in the file browser, brought up to date first."""
        self._upToDate(lambda shown=None: self._panel.openFolder(self.logic.resultFolder(self.source())))

    def _upToDate(self, then):
        if self.logic.isUpToDate(self._parameterNode):
            then()
        else:
            self._start(then)

    def onLoadFolder(self, checked=False):
        """Read an acquisition, or maps, from a folder into the scene."""
        from NeuraxisLib.scene_attempt import attempt

        folder = qt.QFileDialog.getExistingDirectory(self.parent, _("Folder with CT perfusion"))
        if folder:
            read = functools.partial(self.logic.loadFolder, folder, self._parameterNode)
            self._panel.say(attempt(read, _("The folder was not read.")))


class StrokeCTPLogic(ScriptedLoadableModuleLogic):
    """The task on what the scene holds; for the panel and for the Python console alike.

    In the console::

        logic = slicer.util.getModuleLogic("StrokeCTP")
        shown = logic.process(slicer.util.getNode("CTP"), nihss=14)
        print(shown.tables["measurements"].GetCellText(0, 1), "mL")

    What the logics of all tasks do alike, such as ``processFolder``, ``resultFolder``, ``poll`` and ``models``, it has
    from :class:`NeuraxisLib.scene_logic.TaskLogic`.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        from NeuraxisLib.scene_logic import TaskLogic
        from StrokeCTPLib.stroke_runs import StrokeRuns

        self._runs = TaskLogic(self, TASK_NAME, StrokeRuns).runs

    def getParameterNode(self):
        """The wrapped parameter node."""
        return StrokeCTPParameterNode(super().getParameterNode())

    def process(self, chosen, modelName=None, device="auto", wait=True, exclude=None, **optionsAndCallbacks):
        """Compute maps, core and penumbra; an earlier result of the same frames or maps is replaced.

        :param chosen: sequence or multi-volume node with the frames, or a dict of volume nodes by map
            (``{"cbf": ..., "tmax": ..., "cbv": ...}``)
        :param modelName: network that draws the lesions; None for threshold rules
        :param device: "auto", "cpu", "cuda", "mps" or "openvino"
        :param wait: return when it is done, with the nodes (``.segmentation``, ``.maps``, ``.tables``, ``.curves``);
            otherwise return a handle at once, call ``poll`` now and then, and one of onDone(nodes),
            onFailed(error), onCancelled() follows
        :param exclude: segmentation or label map node of tissue to leave out of the lesions, or None
        :param optionsAndCallbacks: onProgress(fraction, stage) and the three above; options of the task, such as
            ``artery="7,120,96"``, ``late_s=6.0``, ``rcbf=0.3``, ``nihss=14``, ``interval_s=1.5``
        :raises NeuraxisLib.errors.NeuraxisError: one sentence on what is wrong and what to do
        """
        how = (modelName or "", device, optionsAndCallbacks, wait)
        return self._runs.process_chosen(chosen, *how, *self._runs.take_callbacks(optionsAndCallbacks), exclude)

    def start(self, parameters, **callbacks):
        """Begin the run that the panel asks for; returns its handle."""
        from StrokeCTPLib import panel_choice

        chosen, options = panel_choice.chosen_input(parameters), panel_choice.options_of(parameters)
        how = (parameters.modelName, parameters.device, False, parameters.exclude)
        return self.process(chosen, *how, **options, **callbacks)

    def startFolder(self, parameters, files, outputFolder, **callbacks):
        """Begin the batch that the panel asks for; returns its handle."""
        from StrokeCTPLib.panel_choice import folder_options

        how = (parameters.modelName, parameters.device, False)
        return self.processFolder(files, outputFolder, *how, **folder_options(parameters) | callbacks)

    def loadFolder(self, folder, parameters=None, **options):
        """Read an acquisition as a sequence, or maps as volumes, into the scene, and choose them in the panel.

        :param options: what the files do not say, such as ``interval_s=1.5`` or ``ranges="cbf=100,tmax=12"``
        :return: a sentence on what was found
        """
        from StrokeCTPLib.stroke_loading import load_folder

        return load_folder(folder, parameters, **options)

    def isUpToDate(self, parameters):
        """Whether the result in the scene was computed with what the panel says now."""
        from StrokeCTPLib.panel_choice import source_of
        from StrokeCTPLib.stroke_runs import is_up_to_date

        return is_up_to_date(self.resultNodes(source_of(parameters)), parameters)


class StrokeCTPTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: a small acquisition made here, or a message on what it would need."""

    def setUp(self):
        """Start from an empty scene, and leave one."""
        slicer.mrmlScene.Clear()
        self.addCleanup(slicer.mrmlScene.Clear)

    def runTest(self):
        """All tests, for Reload and Test."""
        self.setUp()
        try:
            self.test_mapsOfAnotherProgram()
        except unittest.SkipTest as reason:
            self.delayDisplay(f"Skipped: {reason}")
        self.doCleanups()

    def test_mapsOfAnotherProgram(self):
        """A block of late and slow tissue in otherwise even maps becomes core and penumbra of known volume."""
        import numpy as np

        logic = StrokeCTPLogic()
        if logic.missingPackages():
            self.skipTest(f"needs {', '.join(logic.missingPackages())}")
        cbf, tmax = np.full((2, 12, 64, 64), 0.0, np.float32)
        cbf[:, 8:56, 8:56], tmax[:, 8:56, 8:56] = 50, 2
        tmax[3:9, 16:48, 36:52], cbf[5:7, 20:40, 40:50] = 9, 8
        add = functools.partial(slicer.util.addVolumeFromArray, ijkToRAS=np.diag([-2.0, -2.0, 5.0, 1.0]))
        maps = {"cbf": add(cbf, name="cbf"), "tmax": add(tmax, name="tmax")}
        try:
            shown = logic.process(maps, device="cpu")
        finally:
            logic.stop()
        core = slicer.util.arrayFromSegmentBinaryLabelmap(shown.segmentation, "Segment_2", maps["cbf"])
        self.assertEqual(core.sum(), 2 * 20 * 10)
