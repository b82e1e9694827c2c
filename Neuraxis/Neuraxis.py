"""Slicer module: what all Neuraxis modules share in Slicer: compute settings, packages, installed models."""

import importlib.util
import logging
import shutil
import subprocess
import sys
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
#: Asks an interpreter what it has, without importing torch (which takes seconds).
CHECK_CODE = (
    "import sys, importlib.metadata as m\n"
    "def version(name):\n"
    "    try: return m.version(name)\n"
    "    except m.PackageNotFoundError: return 'missing'\n"
    "print('Python', sys.version.split()[0] + ';', ', '.join(n + ' ' + version(n) for n in sys.argv[1:]))"
)
CHECKED_PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "safetensors")


class Neuraxis(ScriptedLoadableModule):
    """Metadata of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Neuraxis")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The Neuraxis contributors"]
        self.parent.helpText = _(
            "Compute settings and models of the Neuraxis modules. Research use only; not a medical device. "
            "<a href='https://github.com/neuraxis-project/SlicerNeuraxis'>Documentation</a>"
        )
        self.parent.acknowledgementText = _("Part of Neuraxis, tools for neuroradiology research.")


class NeuraxisWidget(ScriptedLoadableModuleWidget):
    """Panel: settings of the worker and the list of models."""

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        from NeuraxisLib import RESEARCH_USE_NOTICE
        from NeuraxisLib.panel import PYTHON_SETTING, THREADS_SETTING

        self.logic = NeuraxisLogic()
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/Neuraxis.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        settings = slicer.app.userSettings()
        self.ui.noticeLabel.text = RESEARCH_USE_NOTICE
        self.ui.pythonPathLineEdit.currentPath = settings.value(PYTHON_SETTING) or ""
        self.ui.threadsSpinBox.value = int(settings.value(THREADS_SETTING) or 0)
        self.ui.pythonPathLineEdit.connect("currentPathChanged(QString)", self.onPythonChanged)
        self.ui.threadsSpinBox.connect("valueChanged(int)", self.onThreadsChanged)
        self.ui.checkButton.connect("clicked(bool)", self.onCheck)
        self.ui.modelsTable.connect("itemSelectionChanged()", self.onModelSelected)
        self.ui.addModelButton.connect("clicked(bool)", self.onAddModel)
        self.ui.removeModelButton.connect("clicked(bool)", self.onRemoveModel)
        self.ui.openModelsButton.connect("clicked(bool)", self.onOpenModels)
        self.refreshModels()

    def enter(self):
        """Called whenever the user opens the module."""
        self.refreshModels()

    def refreshModels(self):
        """Fill the list of models."""
        self._models, table = self.logic.models(), self.ui.modelsTable
        heads = [_("Model"), _("Task"), _("Licence"), _("Place")]
        table.setColumnCount(len(heads))
        table.setHorizontalHeaderLabels(heads)
        table.setRowCount(len(self._models))
        for row, model in enumerate(self._models):
            place = _("user folder") if self.logic.isUserModel(model) else _("extension")
            for column, text in enumerate((model.title, model.task, model.header["licence"], place)):
                item = qt.QTableWidgetItem(text)
                item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
                table.setItem(row, column, item)
        table.resizeColumnsToContents()
        self.onModelSelected()

    def _selectedModel(self):
        row = self.ui.modelsTable.currentRow()
        return self._models[row] if 0 <= row < len(self._models) else None

    def onModelSelected(self):
        """Show the card of the chosen model."""
        from NeuraxisLib.panel import model_card

        model = self._selectedModel()
        self.ui.modelCardLabel.text = model_card(model.header) if model else ""
        self.ui.removeModelButton.enabled = model is not None and self.logic.isUserModel(model)

    def onPythonChanged(self, path):
        """Another interpreter for the worker; the next worker that starts takes it."""
        from NeuraxisLib.panel import PYTHON_SETTING

        slicer.app.userSettings().setValue(PYTHON_SETTING, path.strip())
        self.ui.checkLabel.text = ""

    def onThreadsChanged(self, count):
        """Another number of threads."""
        from NeuraxisLib.panel import THREADS_SETTING

        slicer.app.userSettings().setValue(THREADS_SETTING, count)

    def onCheck(self, checked=False):
        """Say what the worker's Python has."""
        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self.ui.checkLabel.text = self.logic.describeWorker()
        finally:
            qt.QApplication.restoreOverrideCursor()

    def onAddModel(self, checked=False):
        """Copy a model file into the folder of the user."""
        path = qt.QFileDialog.getOpenFileName(self.parent, _("Add model file"), "", "*.safetensors")
        if not path:
            return
        try:
            model = self.logic.addModel(path)
        except Exception as error:
            logging.error("%s", error)
            self.ui.statusLabel.text = str(error)
            return
        self.refreshModels()
        self.ui.statusLabel.text = _("Added {title}.").format(title=model.title)

    def onRemoveModel(self, checked=False):
        """Remove the chosen model from the folder of the user, after asking."""
        model = self._selectedModel()
        if not slicer.util.confirmOkCancelDisplay(_("Remove {title} from this computer?").format(title=model.title)):
            return
        model.path.unlink()
        self.refreshModels()
        self.ui.statusLabel.text = _("Removed {title}.").format(title=model.title)

    def onOpenModels(self, checked=False):
        """Open the folder of the user's models."""
        from NeuraxisLib.models import user_model_folder

        user_model_folder().mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(user_model_folder())))


class NeuraxisLogic(ScriptedLoadableModuleLogic):
    """What the other modules ask for: workers, packages, models."""

    def newClient(self):
        """A worker client with the settings of this module."""
        from NeuraxisLib.panel import worker_settings
        from NeuraxisLib.worker_client import WorkerClient

        settings = worker_settings(slicer.app.userSettings().value)
        environment = slicer.util.startupEnvironment() if settings["python"] else None
        return WorkerClient(environment=environment, **settings)

    def describeWorker(self):
        """One line on the worker's Python: its version and the packages that matter."""
        from NeuraxisLib.panel import worker_settings
        from NeuraxisLib.worker_client import default_python

        chosen = worker_settings(slicer.app.userSettings().value)["python"]
        python, environment = chosen or default_python(), slicer.util.startupEnvironment() if chosen else None
        flags = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
        try:
            done = subprocess.run(
                [python, "-c", CHECK_CODE, *CHECKED_PACKAGES],
                **{"capture_output": True, "text": True, "timeout": 30, "env": environment, **flags},
            )
        except (OSError, subprocess.TimeoutExpired):
            return _("This Python does not start; choose another or leave the line empty.")
        return done.stdout.strip() or _("This Python does not answer; choose another or leave the line empty.")

    # -- packages -------------------------------------------------------------------------------------------------

    def missingPackages(self, requirementsFile):
        """Packages that the worker needs and Slicer's Python does not have; none if another Python was chosen.

        ``requirementsFile``: of the module that asks; what every worker needs is checked with it.
        """
        from NeuraxisLib.panel import missing_packages, worker_settings

        if worker_settings(slicer.app.userSettings().value)["python"]:
            return []
        torch = [] if importlib.util.find_spec("torch") else ["torch"]
        return torch + missing_packages(REQUIREMENTS_FILE) + missing_packages(requirementsFile)

    def installPackages(self, requirementsFile):
        """Install what is missing, asking first; returns the sentence to show."""
        missing = self.missingPackages(requirementsFile)
        if "torch" in missing:
            reason = self._installTorch()
            if reason:
                return reason
        if [name for name in missing if name != "torch"]:
            self._installRequirements(requirementsFile)
        missing = self.missingPackages(requirementsFile)
        return _("Still missing: {names}.").format(names=", ".join(missing)) if missing else _("Installed.")

    def _installTorch(self):
        """Install torch through the PyTorch extension; returns why it is not there yet, or an empty text."""
        try:
            import PyTorchUtils
        except ImportError:
            slicer.app.extensionsManagerModel().installExtensionFromServer("PyTorch")
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

    def models(self):
        """Installed models of all tasks."""
        from NeuraxisLib.models import installed_models
        from NeuraxisLib.task import TASKS, get_task

        return [model for name in TASKS for model in installed_models(get_task(name))]

    def isUserModel(self, model):
        """Whether a model lies in the folder of the user and so can be removed."""
        from NeuraxisLib.models import user_model_folder

        return user_model_folder() in Path(model.path).parents

    def addModel(self, path):
        """Check a model file and copy it into the folder of the user; ModelError or OutputError says why not."""
        from NeuraxisLib.atomic import atomic_write
        from NeuraxisLib.models import load_model, user_model_folder

        model = load_model(path)
        user_model_folder().mkdir(parents=True, exist_ok=True)
        with atomic_write(user_model_folder() / Path(path).name) as temporary:
            shutil.copyfile(path, temporary)
        return model


class NeuraxisTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: the worker's Python answers, and every installed model has a readable header."""

    def runTest(self):
        """All tests, for Reload and Test."""
        self.test_workerAnswers()
        self.test_modelsAreReadable()

    def test_workerAnswers(self):
        """The check says a version of Python."""
        self.assertIn("Python 3.", NeuraxisLogic().describeWorker())

    def test_modelsAreReadable(self):
        """Each model has a card."""
        from NeuraxisLib.panel import model_card

        for model in NeuraxisLogic().models():
            self.assertIn(model.header["licence"], model_card(model.header))
