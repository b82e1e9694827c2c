"""Runs of a task on volumes of the scene: volume node -> worker -> result nodes. What every module's Logic calls."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from NeuraxisLib import result_folder, scene
from NeuraxisLib.batch import Batch, CaseOutcome
from NeuraxisLib.batch_cases import cases_of_files
from NeuraxisLib.batch_local import LocalWorkers
from NeuraxisLib.errors import InputError, NeuraxisError
from NeuraxisLib.task import get_task
from NeuraxisLib.volume import Volume

#: Attribute of a result's measurement table that tells which run made it.
RUN_ATTRIBUTE = "Neuraxis.Run"
#: Mark of a result that was loaded from its folder -> that folder.
_loaded: dict[str, Path] = {}
#: What a caller may hear of a run.
EVENTS = ("onProgress", "onDone", "onFailed", "onCancelled")


class SceneRuns:
    """Runs one task through a worker and puts the results into the scene.

    Args:
        task: name of the task.
        input_name: name of the task's image.
        make_client: makes the :class:`~NeuraxisLib.worker_client.WorkerClient` when the first run needs it.
    """

    def __init__(self, task: str, input_name: str, make_client: Callable[[], Any]):
        self._task, self._input, self._make_client = task, input_name, make_client
        self._client: Any = None
        self._batch: Batch | None = None
        self._handles: dict[str, Any] = {}  # mark on the result nodes -> handle whose folder holds their files

    @property
    def client(self) -> Any:
        """The worker client, made when first asked for."""
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def process(
        self,
        node: Any,
        model: str,
        device: str,
        options: Mapping[str, Any],
        wait: bool,
        on_progress: Callable[[float, str], None] | None = None,
        on_done: Callable[[Any], None] | None = None,
        on_failed: Callable[[Exception], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the task on a volume node and show its result.

        Args:
            node: the volume that the result belongs to; the main input, unless ``inputs`` holds another form of it.
            inputs: further inputs, or the main one in another form (the frames of a sequence, a DICOM folder): name of
                the task's input -> volume node, Volume, or path of a file or folder.

        Returns:
            With ``wait``, the :class:`~NeuraxisLib.scene.SceneResult`; without, the handle of the run, whose end
            :meth:`poll` reports through exactly one of the last three callbacks.

        Raises:
            NeuraxisError: the volume does not suit; with ``wait``, also whatever ended the run.
        """
        client = self.client
        given = {self._input: node, **(inputs or {})}
        job = client.job(self._task, {name: _sent(value) for name, value in given.items()}, model, options, device)
        if wait:
            handle = client.run(job, on_progress=on_progress)
            try:
                client.wait(handle)
            except NeuraxisError:
                client.release(handle)
                raise
            return self._show(node, handle)

        def done(folder: Path) -> None:
            try:
                shown = self._show(node, handle)
            except (NeuraxisError, OSError) as error:
                if on_failed:
                    on_failed(error)
            else:
                if on_done:
                    on_done(shown)

        def released(callback: Callable | None) -> Callable:
            """The callback, after the copy of the image that the run no longer needs was removed."""

            def end(*arguments: Any) -> None:
                client.release(handle)
                if callback:
                    callback(*arguments)

            return end

        handle = client.run(job, on_progress, done, released(on_failed), released(on_cancelled))
        return handle

    def process_folder(
        self,
        files: Iterable[str | Path],
        output: str | Path,
        model: str,
        device: str,
        options: Mapping[str, Any],
        wait: bool = True,
        on_progress: Callable[[int, int, str], None] | None = None,
        on_done: Callable[[list[CaseOutcome]], None] | None = None,
        on_failed: Callable[[Exception], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
    ) -> list[CaseOutcome] | Batch:
        """Run the task on files, one result folder each below ``output``; a bad case does not stop the rest.

        What is finished there already, of the same input with the same model and options, is not done again.

        Args:
            files: images or DICOM folders.
            on_progress: called before each case with (index from 0, count, file name).
            on_failed: called with what stopped the whole batch; the failures of cases are among the outcomes.

        Returns:
            With ``wait``, the outcomes; without, the handle of the batch, whose end :meth:`poll` reports.

        Raises:
            CancelledError: with ``wait``, the user cancelled; what was finished stays.
            NeuraxisError: options, model or output folder cannot be used, or the worker cannot be started.
        """
        task = get_task(self._task)
        self._batch = Batch(
            self._task,
            cases_of_files(files, task),
            output,
            LocalWorkers(lambda: self.client, shared=True),
            model=model,
            options=options,
            device=device,
            on_progress=on_progress,
            on_done=on_done,
            on_failed=on_failed,
            on_cancelled=on_cancelled,
        )
        if wait:
            return self._batch.wait()
        self._batch.poll()
        return self._batch

    @staticmethod
    def take_callbacks(given: dict[str, Any]) -> list[Callable | None]:
        """The callbacks among options: taken out of ``given``, in the order of :data:`EVENTS`; None where missing."""
        return [given.pop(event, None) for event in EVENTS]

    def poll(self) -> None:
        """Deliver what the worker has said; for a timer."""
        if self._batch is not None:
            self._batch.poll()
        if self._client is not None:
            self._client.poll()

    def cancel(self, handle: Any) -> None:
        """Cancel a run, or a batch of them."""
        if isinstance(handle, Batch):
            handle.cancel()
        else:
            self.client.cancel(handle)

    def stop(self) -> None:
        """End the worker and remove its private files; a later run starts afresh."""
        if self._client is not None:
            self._client.stop()
        if self._batch is not None:
            self._batch.close()
        self._client = self._batch = None
        self._handles.clear()

    def result_folder(self, node: Any) -> Path | None:
        """Folder with the newest result of a volume; None if it was neither computed nor loaded in this session."""
        handle = self._handles.get(self._mark(node))
        folder = handle.result_folder if handle is not None else _loaded.get(self._mark(node))
        return folder if folder is not None and folder.is_dir() else None

    def _mark(self, node: Any) -> str:
        """What marks the result of a volume: unlike node ids, it is never given again after a scene was closed."""
        table = scene.result_nodes(node, self._task).get("table measurements")
        return (table.GetAttribute(RUN_ATTRIBUTE) or "") if table is not None else ""

    def _show(self, node: Any, handle: Any) -> scene.SceneResult:
        if node.GetScene() is None:
            self.client.release(handle)
            raise InputError("The volume was removed while it was being computed, so its result was dropped.")
        result, earlier = result_folder.read_result(handle.result_folder), self._mark(node)
        shown = scene.show_result(result, node)
        if earlier in self._handles:
            self.client.release(self._handles.pop(earlier))
        mark = uuid.uuid4().hex
        shown.tables["measurements"].SetAttribute(RUN_ATTRIBUTE, mark)
        self._handles[mark] = handle
        return shown


def loaded_from(shown: scene.SceneResult, folder: Path) -> None:
    """Let the modules know where the files of a result lie that was loaded into the scene."""
    mark = uuid.uuid4().hex
    shown.tables["measurements"].SetAttribute(RUN_ATTRIBUTE, mark)
    _loaded[mark] = folder


def _sent(value: Any) -> Any:
    """An input in the form that the worker client takes: volume nodes become Volumes."""
    return value if isinstance(value, (Volume, str, Path)) else scene.volume_from_node(value)
