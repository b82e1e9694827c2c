"""One case from files to result folder: the line that the command line, the worker and batches all walk.

What can be refused cheaply is refused first: options, output folder, model header, image. Only then is torch loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import os
import shutil
import tempfile
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from NeuraxisLib.atomic import output_error
from NeuraxisLib.errors import InputError, NeuraxisError, OutputError, check_choice
from NeuraxisLib.exchange import SUFFIX, read_exchange
from NeuraxisLib.input_digest import input_digest
from NeuraxisLib.process import as_user_error, is_alive
from NeuraxisLib.remote import is_remote, local_path, uploaded
from NeuraxisLib.result import Result
from NeuraxisLib.result_folder import check_replaceable, write_result
from NeuraxisLib.task import DEVICES, Progress, Task, get_task
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_checks import check_volume

_PARTIAL = ".partial"
# How the progress bar is shared between reading, computing and writing.
_READ, _COMPUTE, _WRITE = (0.0, 0.08), (0.08, 0.92), (0.92, 1.0)


def run_case(
    task_name: str,
    inputs: Mapping[str, str | Path],
    model: str | Path,
    options: Mapping[str, Any],
    device: str,
    output: str | Path,
    progress: Progress | None = None,
    *,
    series: str | None = None,
    allow_gaps: bool = False,
    models: ModelCache | None = None,
    recipe: str = "",
) -> Result:
    """Read the inputs, run the task, write the result folder; nothing is left behind if any of it fails.

    Args:
        task_name: name in :data:`NeuraxisLib.task.TASKS`.
        inputs: input name of the task -> image file or DICOM folder, or what the task's own reader takes.
        model: name of an installed model or path of a model file; empty for the task's default, or for none where the
            task can do without.
        options: option name -> value; missing ones take their defaults.
        device: one of :data:`~NeuraxisLib.task.DEVICES`.
        output: folder of the result; may be absent, empty, or an earlier result, which is replaced. Or the address of
            one (:mod:`NeuraxisLib.remote`).
        progress: told how far it is, and asked whether to go on.
        series: DICOM series (its key) of the main input, where a folder holds several.
        allow_gaps: measure a DICOM series although slices are missing; the result carries a warning.
        models: models already read; None reads afresh.
        recipe: what a batch knows its results by; goes into the provenance with a digest of the input, if given.

    Raises:
        NeuraxisError: with one sentence for the user; every other exception is turned into one.
    """
    progress = progress or Progress()
    try:
        if is_remote(output):
            more = {"series": series, "allow_gaps": allow_gaps, "models": models, "recipe": recipe}
            with uploaded(output, progress) as (folder, part):
                return run_case(task_name, inputs, model, options, device, folder, part, **more)
        output = Path(os.path.abspath(local_path(output)))
        task = get_task(task_name)
        check_choice("device", device, DEVICES)
        chosen = task_options(task, {**options, "device": device})
        check_output(output)
        remove_leftovers(output)
        model_file = (models or ModelCache()).get(task, model) if model or task.needs_model else None
        mark = {"recipe": recipe, "input_sha256": input_digest(inputs)} if recipe and _are_there(inputs) else {}
        given = read_inputs(task, inputs, chosen, series, allow_gaps, progress.part(*_READ))
        result = task.run(given, model_file, chosen, progress.part(*_COMPUTE))
        volumes = [value for value in given.values() if isinstance(value, Volume)]
        result.warnings[:0] = [warning for volume in volumes for warning in volume.meta.get("warnings", ())]
        result.provenance |= mark
        del given, volumes  # a whole acquisition, which writing does not need
        writing = progress.part(*_WRITE)
        writing(0.0, "Writing the result")
        # The last moment at which a cancel leaves everything as it was is just before the folder takes its place.
        write_result(result, output, before_replace=lambda: writing(1.0, "Writing the result"))
    except NeuraxisError:
        raise
    except Exception as error:
        raise as_user_error(error) from error
    return result


def _are_there(inputs: Mapping[str, str | Path]) -> bool:
    """Whether all inputs exist; the reader says in words which does not."""
    return all(os.path.exists(path) for path in inputs.values())


# -- input ----------------------------------------------------------------------------------------------------


def read_inputs(
    task: Task,
    inputs: Mapping[str, str | Path],
    options: Any,
    series: str | None,
    allow_gaps: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Read every given input of the task; InputError if one is missing that may not be, or is not asked for."""
    unknown = [name for name in inputs if name not in task.inputs]
    missing = [name for name in task.inputs if name not in inputs and name not in task.optional]
    if unknown or missing:
        given = ", ".join(inputs) or "nothing"
        asked = ", ".join(f"{name} (optional)" if name in task.optional else name for name in task.inputs)
        raise InputError(f"The task '{task.name}' takes {asked}, but got {given}.")
    read, main = {}, next(iter(task.inputs))
    for number, (name, path) in enumerate(inputs.items()):
        part, own = progress.part(number / len(inputs), (number + 1) / len(inputs)), task.reader(name)
        chosen = series if name == main else None
        if own is None:
            read[name] = read_input(Path(path), chosen, allow_gaps, part)
        else:
            read[name] = own(Path(path), options, chosen, allow_gaps, part)
    return read


def read_input(
    path: Path, series: str | None = None, allow_gaps: bool = False, progress: Progress | None = None
) -> Volume:
    """Read an image file, a DICOM folder, or an exchange file of the worker; all pass the same checks."""
    if not path.name.endswith(SUFFIX):
        from NeuraxisLib.files import read_volume

        return read_volume(path, series, allow_gaps=allow_gaps, progress=progress)
    (progress or Progress())(0.0, "Reading the image")
    volume = read_exchange(path)
    if volume.array.ndim != 3:
        raise InputError(f"'{path.name.removesuffix(SUFFIX)}' has time frames; choose one three-dimensional image.")
    return check_volume(volume, path.name.removesuffix(SUFFIX))


def task_options(task: Task, values: Mapping[str, Any]) -> Any:
    """The task's options dataclass filled from names and values; InputError names what does not fit."""
    hints = _kinds(task.options_type)
    known = {field.name for field in dataclasses.fields(task.options_type)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"The task '{task.name}' has no option '{unknown[0]}'; it has: {', '.join(sorted(known))}.")
    return task.options_type(**{name: _converted(name, value, hints[name]) for name, value in values.items()})


@functools.cache
def _kinds(options_type: type) -> dict[str, Any]:
    """Name -> type of the options; read once, as a batch asks for every case."""
    return typing.get_type_hints(options_type)


def _converted(name: str, value: Any, kind: Any) -> Any:
    """``value`` as the option's type: numbers may come as text or as the other kind of number.

    An option that may be unknown (``int | None``) takes None, or an empty text for it.
    """
    kinds = [one for one in typing.get_args(kind) if one is not type(None)]
    if isinstance(kind, types.UnionType) and len(kinds) == 1:
        return None if value is None or value == "" else _converted(name, value, kinds[0])
    if kind is bool and not isinstance(value, bool):
        raise InputError(f"Option '{name}' is true or false, not '{value}'.")
    if kind not in (int, float, str):
        return value
    try:
        converted = kind(value)
        is_whole = kind is not int or converted == float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"Option '{name}' takes a value of type {kind.__name__}, not '{value}'.") from None
    if not is_whole:
        raise InputError(f"Option '{name}' takes a whole number, not '{value}'.")
    return converted


# -- models ---------------------------------------------------------------------------------------------------


class ModelCache:
    """Models already read, by path and content, so that a warm worker reads and checks each only once."""

    def __init__(self) -> None:
        self._models: dict[tuple, Any] = {}

    def get(self, task: Task, model: str | Path) -> Any:
        """The model of that name or path for the task; empty for the default. Raises ModelError."""
        from NeuraxisLib import models

        path = models.find_model(task, str(model))
        facts = path.stat()
        key = (str(path), facts.st_mtime_ns, facts.st_size)
        if key not in self._models:
            self._models = {known: value for known, value in self._models.items() if known[0] != str(path)}
            self._models[key] = models.load_model(path, task.name)
        return self._models[key]


# -- output ---------------------------------------------------------------------------------------------------


def check_output(output: Path) -> None:
    """Raise OutputError now, not after minutes of computing, if the result could not be put there."""
    check_replaceable(output)
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise OutputError(f"'{parent.name}' is a file, so no folder can be made in it; choose another output folder.")
    try:
        with tempfile.TemporaryFile(dir=parent, prefix=".neuraxis-"):  # without a name where the system can
            pass
    except OSError as error:
        raise output_error(error, output.name) from error


def remove_leftovers(output: Path, dead: Collection[int] = ()) -> None:
    """Remove what a killed process left beside ``output``; what a living one is writing stays.

    An earlier result that it had moved aside, but not yet replaced, goes back to its place.

    Args:
        output: the result folder.
        dead: process ids known to have ended, for systems where that cannot be asked.
    """
    for partial in list(output.parent.glob(f".{glob.escape(output.name)}.*{_PARTIAL}")):
        kind, _, owner = partial.name.removesuffix(_PARTIAL).rpartition(".")
        if not owner.isdigit() or (int(owner) not in dead and is_alive(int(owner))):
            continue
        if kind == f".{output.name}.old" and not output.exists():
            with contextlib.suppress(OSError):
                partial.rename(output)
        else:
            shutil.rmtree(partial, ignore_errors=True)
