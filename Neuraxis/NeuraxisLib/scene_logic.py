"""What the Logics of the clinical modules do alike: folders of cases, results, models, packages, the worker's life."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from NeuraxisLib.batch import Batch, CaseOutcome
from NeuraxisLib.models import ModelFile, installed_models
from NeuraxisLib.scene import result_nodes
from NeuraxisLib.scene_runs import SceneRuns
from NeuraxisLib.task import get_task


def neuraxis_logic() -> Any:
    """The Logic of module Neuraxis without its panel, which ``slicer.util.getModuleLogic`` would build."""
    return importlib.import_module("Neuraxis").NeuraxisLogic()


class TaskLogic:
    """The common part of a module's Logic, which makes it when it is made itself and takes its methods over.

    It is no base class because Slicer reads a module file perhaps before NeuraxisLib is on its path.

    Args:
        logic: gets every public method of this class that its own class does not define.
        task: name of the module's task.
        make_runs: makes the module's :class:`~NeuraxisLib.scene_runs.SceneRuns` from what makes a worker client.

    Attributes:
        runs: what ``make_runs`` made.
    """

    def __init__(self, logic: Any, task: str, make_runs: Callable[[Callable[[], Any]], SceneRuns]):
        self._task = get_task(task)
        self._models: list[ModelFile] | None = None
        self.runs = make_runs(self.newClient)
        for name in vars(TaskLogic):
            if not name.startswith("_") and not hasattr(type(logic), name):
                setattr(logic, name, getattr(self, name))

    # -- folders of cases ---------------------------------------------------------------------------------------

    def processFolder(
        self,
        files: Iterable[str | Path],
        outputFolder: str | Path,
        modelName: str | None = None,
        device: str = "auto",
        wait: bool = True,
        **optionsAndCallbacks: Any,
    ) -> list[CaseOutcome] | Batch:
        """Process files (or DICOM folders) into one result folder each; a bad case does not stop the rest.

        Args:
            modelName: installed model or path of a model file; None for what the task takes where none is named.
            optionsAndCallbacks: as of the module's ``process``, but onProgress(index, count, file name) before each
                case.

        Returns:
            Outcomes with ``.file``, ``.folder`` (None if it failed), ``.error``; without ``wait`` a handle.
        """
        callbacks = self.runs.take_callbacks(optionsAndCallbacks)
        return self.runs.process_folder(
            files, outputFolder, modelName or "", device, optionsAndCallbacks, wait, *callbacks
        )

    def startFolder(
        self, parameters: Any, files: Iterable[str | Path], outputFolder: str | Path, **callbacks: Any
    ) -> list[CaseOutcome] | Batch:
        """Begin the batch that the panel asks for; returns its handle."""
        return self.processFolder(files, outputFolder, parameters.modelName, parameters.device, False, **callbacks)

    # -- runs and results ---------------------------------------------------------------------------------------

    def newClient(self) -> Any:
        """A worker client with the settings of the Neuraxis module."""
        return neuraxis_logic().newClient()

    def poll(self) -> None:
        """Deliver what the worker has said."""
        self.runs.poll()

    def cancel(self, handle: Any) -> None:
        """Cancel a run that was started with ``wait=False``."""
        self.runs.cancel(handle)

    def stop(self) -> None:
        """End the worker."""
        self.runs.stop()

    def resultFolder(self, volumeNode: Any) -> Path | None:
        """Folder with the files of a volume's result, or None if it was not computed in this session."""
        return self.runs.result_folder(volumeNode)

    def resultNodes(self, volumeNode: Any) -> Mapping[str, Any]:
        """Part -> node of the result that belongs to a volume."""
        return result_nodes(volumeNode, self._task.name)

    # -- models and packages ------------------------------------------------------------------------------------

    def models(self, refresh: bool = False) -> list[ModelFile]:
        """Installed models of the task, the default one first."""
        if refresh or self._models is None:
            self._models = installed_models(self._task)
        return self._models

    def missingPackages(self) -> list[str]:
        """Packages that a run needs and the worker's Python does not have."""
        return neuraxis_logic().missingPackages(self._requirements)

    def installPackages(self) -> str:
        """Install what is missing, asking first; returns the sentence to show."""
        return neuraxis_logic().installPackages(self._requirements)

    @property
    def _requirements(self) -> Path:
        return self._task.resources / "requirements.txt"
