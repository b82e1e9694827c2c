"""Slicer module: what all Neuraxis modules share in Slicer: models, compute settings, self-test, packages."""

import logging
import weakref
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

#: What every worker needs besides torch.
REQUIREMENTS_FILE = Path(__file__).parent / "NeuraxisLib" / "Resources" / "requirements.txt"
TORCH_REQUIREMENT = ">=2.2"
POLL_INTERVAL_MS = 100


class Neuraxis(ScriptedLoadableModule):
    """Metadata of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Neuraxis")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The Neuraxis contributors"]
        self.parent.helpText = _(
            "Models, compute settings and self-test of the Neuraxis modules. Research use only; not a medical device. "
            "<a href='https://github.com/neuraxis-project/SlicerNeuraxis'>Documentation</a>"
        )
        self.parent.acknowledgementText = _("Part of Neuraxis, tools for neuroradiology research.")
        slicer.app.connect("startupCompleted()", registerTerminology)


def registerTerminology():
    """Let Slicer know what the segments of all modules are, by their codes."""
    from NeuraxisLib.scene_terminology import register_terminology

    register_terminology()


class NeuraxisWidget(ScriptedLoadableModuleWidget):
    """Panel: notice, status and progress on top, then one section after the other; only one of them works at a time.

    Attributes:
        logic: the module's logic.
        ui: the widgets above the sections, by name.
        task, parameterNode: None, as the panel belongs to no task; sections that serve several panels may ask.
    """

    task = parameterNode = None

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        from NeuraxisLib.background import BackgroundRuns
        from NeuraxisLib.panel import research_use_notice
        from NeuraxisLib.run_panel import RunPanel
        from NeuraxisLib.scene_batch import BatchSection
        from NeuraxisLib.scene_models import ModelsSection
        from NeuraxisLib.scene_selftest import SelfTestSection
        from NeuraxisLib.scene_settings import SettingsSection

        self.logic = NeuraxisLogic()
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/Neuraxis.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.ui.noticeLabel.text = research_use_notice()
        self._timer = qt.QTimer()
        self._timer.interval = POLL_INTERVAL_MS
        self._background = BackgroundRuns()
        self.run = RunPanel(self.ui, self._background, self._timer, self.say, self.refresh)
        self._timer.connect("timeout()", self.run.on_timer)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self._sections = []
        self.add(ModelsSection(self))
        self.add(SettingsSection(self))
        self.add(SelfTestSection(self))
        self.add(BatchSection(self))
        self.layout.addStretch(1)
        self.refresh()

    def add(self, section):
        """Put a section below the others: ``top`` is its widget; ``refresh()`` and ``leave()`` are called on it."""
        self.layout.addWidget(section.top)
        self._sections.append(section)
        return section

    def enter(self):
        """Called whenever the user opens the module."""
        self.refresh()

    def cleanup(self):
        """The panel goes: nothing is left running."""
        self.run.cancel()
        self.run.drop()
        for section in self._sections:
            section.leave()

    @property
    def isBusy(self):
        """Whether a section works on something."""
        return self.run.is_running

    def start(self, work, done, then=None):
        """Call ``work(progress)`` in the background, with progress bar and Cancel; one such work at a time.

        ``done``: what to say at its end. ``then``: called with what it returned.
        """
        if self.isBusy:
            return
        words = {
            "starting": _("Starting"),
            "cancelling": _("Cancelling"),
            "done": done,
            "cancelled": _("Cancelled; what was finished before was kept."),
        }
        self.run.start(lambda **callbacks: self._background.begin(work, **callbacks), words, then)
        self.refresh()

    def refresh(self, caller=None, event=None):
        """Let every section show what there is now."""
        self.ui.progressFrame.visible = self.isBusy
        for section in self._sections:
            section.refresh(None, None)

    def say(self, message):
        """A sentence in the status line."""
        self.ui.statusLabel.text = message
        slicer.util.showStatusMessage(message, 5000)

    def onCancel(self, checked=False):
        """Stop what is under way."""
        self.run.cancel()


class NeuraxisLogic(ScriptedLoadableModuleLogic):
    """What the other modules ask for: workers, packages, models."""

    #: Clients that the modules were given; other settings reach them too.
    _clients = weakref.WeakSet()

    def newClient(self):
        """A worker client with the settings of this module, and with those that are chosen later."""
        from NeuraxisLib.worker_client import WorkerClient

        client = WorkerClient(**self._settings())
        self._clients.add(client)
        return client

    def settingsChanged(self):
        """Hand the settings on to every worker client; each takes them from its next run on."""
        for client in list(self._clients):
            client.configure(**self._settings())

    def _settings(self):
        from NeuraxisLib.panel import worker_settings

        settings = worker_settings(slicer.app.userSettings().value)
        # an interpreter outside Slicer must not load Slicer's libraries
        return {**settings, "environment": slicer.util.startupEnvironment() if settings["python"] else None}

    def describeWorker(self):
        """Sentences on the worker's Python and this computer; WorkerError if that Python does not answer."""
        return self.questionForWorker()()

    def questionForWorker(self):
        """:meth:`describeWorker` as a function of a Progress that any thread may call, with the settings of now."""
        from NeuraxisLib import machine
        from NeuraxisLib.worker_client import default_python

        settings = self._settings()
        python = settings["python"] or default_python()
        return lambda progress=None: machine.sentences(machine.ask(python, settings["environment"], progress))

    def batch(self, cases, outputFolder, task, modelName="", device="auto", workers=1, wait=True, **options):
        """Run many cases (folder tree, CSV table, DICOM directory) into one result folder each; see NeuraxisLib.batch.

        ``options``: of the task. Returns the outcomes (``.file``, ``.folder``, ``.error``); without ``wait`` the
        :class:`~NeuraxisLib.batch.Batch`, to be polled and closed.
        """
        from NeuraxisLib.batch import Batch
        from NeuraxisLib.batch_cases import find_cases
        from NeuraxisLib.batch_local import LocalWorkers
        from NeuraxisLib.task import get_task

        found, pool = find_cases(cases, get_task(task), outputFolder), LocalWorkers(self.newClient, workers)
        batch = Batch(task, found, outputFolder, pool, model=modelName, device=device, options=options)
        return batch.wait() if wait else batch

    # -- packages -------------------------------------------------------------------------------------------------

    def missingPackages(self, requirementsFile):
        """Packages that the worker needs and Slicer's Python does not have; none if another Python was chosen.

        ``requirementsFile``: of the module that asks; what every worker needs is checked with it.
        """
        from NeuraxisLib.panel import is_torch_there, missing_packages, worker_settings

        if worker_settings(slicer.app.userSettings().value)["python"]:
            return []
        torch = [] if is_torch_there(TORCH_REQUIREMENT) else ["torch"]
        return torch + missing_packages(REQUIREMENTS_FILE) + missing_packages(requirementsFile)

    def installPackages(self, requirementsFile):
        """Install what is missing, asking first; returns the sentence to show, also when it could not be had."""
        missing = self.missingPackages(requirementsFile)
        try:
            reason = self._installTorch() if "torch" in missing else ""
            if not reason and [name for name in missing if name != "torch"]:
                self._installRequirements(requirementsFile)
        except Exception as error:  # declined, no network, no room, no rights: whatever pip and Slicer raise
            logging.exception("Installing packages failed")
            words = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
            return _(
                "Nothing was installed ({reason}); check the network, or install the packages from wheel files as the "
                "documentation says."
            ).format(reason=words)
        if reason:
            return reason
        missing = self.missingPackages(requirementsFile)
        return _("Still missing: {names}.").format(names=", ".join(missing)) if missing else _("Installed.")

    def _installTorch(self):
        """Install torch through the PyTorch extension; returns why it is not there yet, or an empty text."""
        try:
            import PyTorchUtils
        except ImportError:
            if slicer.app.extensionsManagerModel().installExtensionFromServer("PyTorch") is False:
                return _(
                    "The PyTorch extension could not be installed; check the network, or install its file with the "
                    "Extensions Manager, then restart Slicer."
                )
            return _("Restart Slicer once the PyTorch extension is installed, then press Install again.")
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT
        )
        return "" if torch is not None else _("PyTorch was not installed.")

    def _installRequirements(self, requirementsFile):
        """With slicer.packaging (5.12), or with pip_install after a question (5.10 and older)."""
        from NeuraxisLib.panel import missing_packages

        try:
            from slicer.packaging import load_requirements, pip_ensure
        except ImportError:
            missing = missing_packages(REQUIREMENTS_FILE) + missing_packages(requirementsFile)
            question = _("Install {packages} into Slicer's Python?").format(packages=", ".join(missing))
            if slicer.util.confirmOkCancelDisplay(question):
                slicer.util.pip_install(missing)
        else:
            wanted = load_requirements(REQUIREMENTS_FILE) + load_requirements(requirementsFile)
            pip_ensure(wanted, requester="Neuraxis")

    # -- models ---------------------------------------------------------------------------------------------------

    @property
    def store(self):
        """The :class:`~NeuraxisLib.model_store.ModelStore` of this computer."""
        from NeuraxisLib.model_store import ModelStore
        from NeuraxisLib.panel import INDEX_SETTING

        if self._store is None:
            self._store = ModelStore(str(slicer.app.userSettings().value(INDEX_SETTING) or ""))
        return self._store

    _store = None


class NeuraxisTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: the worker's Python answers, and every installed model has a readable header."""

    def runTest(self):
        """All tests, for Reload and Test."""
        self.test_workerAnswers()
        self.test_modelsAreReadable()

    def test_workerAnswers(self):
        """The check says a version of Python."""
        self.assertIn("Python 3.", NeuraxisLogic().describeWorker()[0])

    def test_modelsAreReadable(self):
        """Each model has a card."""
        from NeuraxisLib.panel import model_card

        for row in NeuraxisLogic().store.models():
            self.assertIn(row.card["licence"], model_card(row.card))
