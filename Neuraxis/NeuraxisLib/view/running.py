"""Running a task on the case of the page: in the worker process, with progress and Cancel."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from NeuraxisLib.errors import InputError
from NeuraxisLib.models import installed_models
from NeuraxisLib.panel import progress_line
from NeuraxisLib.process import as_user_error
from NeuraxisLib.scene_runs import SceneRuns
from NeuraxisLib.task import TASKS, get_task
from NeuraxisLib.view.display import CaseDisplay
from NeuraxisLib.view.errors import told
from NeuraxisLib.view.reading import OpenedCase
from NeuraxisLib.worker_client import WorkerClient

POLL_INTERVAL_S = 0.1
#: What the list of models calls the choice of none, for a task that can do without.
_WITHOUT = "Thresholds, no network"


class CaseRuns:
    """One run at a time.

    Args:
        server: of the page.
        display: whose case is computed on, and which shows the result.
        device: as in :data:`NeuraxisLib.task.DEVICES`.
        threads: of the worker; None leaves one core free.
    """

    def __init__(self, server: Any, display: CaseDisplay, device: str = "auto", threads: int | None = None):
        self._state, self._display, self._device = server.state, display, device
        # Not the client's own choice of interpreter: there is no Slicer here, though its libraries are loaded.
        self._client = WorkerClient(python=sys.executable, threads=threads)
        self._runs = {name: SceneRuns(name, self._input_of(name), lambda: self._client) for name in TASKS}
        self._handle: Any = None
        self._following: asyncio.Future | None = None
        self._state.update({"models": [], "model": "", "running": False, "percent": 0, "progress": ""})
        self._state.tasks = [{"value": name, "title": get_task(name).title} for name in TASKS]
        self._state.task = next(iter(TASKS))
        self._state.change("task")(self._on_task)
        self._on_task(self._state.task)

    def suit(self, case: OpenedCase) -> None:
        """A case was opened: an earlier run is given up, and its task is chosen."""
        self._cancel()
        with self._state:
            self._state.task = case.task

    @told
    def start(self) -> None:
        """Run the chosen task with the chosen model on the case."""
        case, task = self._display.case, self._state.task
        if case is None or not case.has_image:
            raise InputError("There is no image to compute on; open a scan first.")
        if self._handle is not None:
            return
        if self._state.model not in self._models_of(task):  # what the page says is a stranger's word
            raise InputError("That model is not installed here; choose one of the list.")
        inputs = {self._input_of(task): case.path} if case.path is not None else {}
        self._handle = self._runs[task].process(
            self._display.node, self._state.model, self._device, {}, wait=False, inputs=inputs,
            on_done=lambda shown: self._done(task), on_failed=self._failed,
            on_cancelled=lambda: self._end("Cancelled; nothing was changed."),
        )  # fmt: skip
        self._state.update({"running": True, "percent": 0, "progress": "Starting"})
        self._following = asyncio.ensure_future(self._follow())

    @told
    def cancel(self) -> None:
        """Give up the run."""
        self._cancel()

    def stop(self) -> None:
        """End the worker and remove its private files."""
        self._client.stop()

    async def _follow(self) -> None:
        while (handle := self._handle) is not None:
            self._runs[handle.job.task].poll()
            if self._handle is handle and not handle.is_finished:
                with self._state:
                    self._state.percent = round(100 * handle.fraction)
                    self._state.progress = progress_line(handle.stage, handle.seconds_left)
            await asyncio.sleep(POLL_INTERVAL_S)

    def _cancel(self) -> None:
        if self._handle is not None:
            self._client.cancel(self._handle)
            self._state.progress = "Cancelling"

    def _done(self, task: str) -> None:
        try:
            self._display.show_result(task, self._runs[task].result_folder(self._display.node))
        except Exception as fault:
            self._failed(as_user_error(fault))
        else:
            self._end("Done")

    def _failed(self, error: Exception) -> None:
        if self._display.node is not None and self._display.node.GetScene() is not None:
            self._state.error = str(error)
        self._end("")

    def _end(self, words: str) -> None:
        self._handle = None
        with self._state:
            self._state.update({"running": False, "percent": 0, "progress": words})

    def _on_task(self, task: str, **_: Any) -> None:
        models = [{"value": name, "title": title} for name, title in self._models_of(task).items()]
        self._state.update({"models": models, "model": models[0]["value"] if models else ""})

    @staticmethod
    def _models_of(task: str) -> dict[str, str]:
        """Name -> title of what a task can be run with; the empty name for none, where it can do without."""
        chosen = get_task(task)
        none = {} if chosen.needs_model else {"": _WITHOUT}
        return none | {model.name: model.title for model in installed_models(chosen)}

    @staticmethod
    def _input_of(task: str) -> str:
        return next(iter(get_task(task).inputs))
