"""Outlines that a person has changed: measured anew by the task's own code, and back to what was found.

What a correction means is the task's business: :attr:`NeuraxisLib.task.Task.corrections` names a module with

    LAYOUT                              the layout of ``prepare`` that its training cases have
    HAS_OUTLINE                         whether there are segments to edit
    remeasured(result) -> Result        all measures taken from the result's label map, without intervals
    write_case(result, image, folder, name) -> dict
                                        writes a training case; its line in ``cases.csv``, empty where there is none

The first correction of a result folder keeps what was found beside it, as ``as_found.json`` and ``as_found.seg.nrrd``.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from NeuraxisLib.atomic import output_error
from NeuraxisLib.errors import InputError, OutputError
from NeuraxisLib.result import Result
from NeuraxisLib.result_folder import LABELS_FILE, RESULT_FILE, read_result, write_result
from NeuraxisLib.task import get_task
from NeuraxisLib.volume import Volume

FOUND_FILE, FOUND_LABELS_FILE = "as_found.json", "as_found.seg.nrrd"
#: What a corrected result says first.
CORRECTED_WARNING = "A person has edited this outline; its volumes have no interval."
#: What stands in the place of an interval.
EDITED = "edited by hand"
EDITED_NOTE = "Edited by hand, so the interval of what was found does not apply."


def corrections_of(task: str) -> ModuleType:
    """The module that knows what a correction means for a task; InputError if nothing is learnt from its results."""
    name = get_task(task).corrections
    if not name:
        raise InputError(f"nothing is learnt from results of the task '{task}'; choose results of another.")
    return import_module(name)


def corrected(result: Result, labels: np.ndarray) -> Result:
    """The result with another outline: measured anew, marked as edited by hand.

    Args:
        result: as it was.
        labels: (k, j, i) on its grid, values of the task's label table.
    """
    before = result.labels.array
    changed = corrections_of(result.task).remeasured(replace(result, labels=result.source.like(labels)))
    added = int(np.count_nonzero((before == 0) & (labels != 0)))
    removed = int(np.count_nonzero((before != 0) & (labels == 0)))
    relabelled = int(np.count_nonzero(before != labels)) - added - removed
    facts = {"by": "hand", "voxels_added": added, "voxels_removed": removed, "voxels_relabelled": relabelled}
    warnings = [CORRECTED_WARNING, *(w for w in changed.warnings if w != CORRECTED_WARNING)]
    return replace(changed, warnings=warnings, provenance={**changed.provenance, "corrected": facts})


# -- result folders -------------------------------------------------------------------------------------------


def found_result(folder: Path, image: Volume | None = None) -> Result:
    """The result of a folder as it was found, before any correction."""
    return read_result(folder, image, FOUND_FILE if is_corrected(folder) else RESULT_FILE)


def is_corrected(folder: Path) -> bool:
    """Whether the outline in a result folder was edited by hand."""
    return (folder / FOUND_FILE).is_file()


def write_corrected(folder: Path, labels: np.ndarray, image: Volume, provenance: dict[str, Any] | None = None) -> None:
    """Bring a result folder and its report up to date with an outline that a person has edited.

    Args:
        folder: the result.
        labels: (k, j, i) on the grid of the result.
        image: what was measured, for the pictures of the report.
        provenance: what the scene knows of the run, if more than the folder; patient data that were given later.

    Raises:
        InputError: no result of that image. OutputError: it cannot be written.
    """
    found, now = found_result(folder, _placed(folder, image)), read_result(folder)
    if provenance:
        found = replace(found, provenance=provenance)
    changed = corrected(found, labels)
    if is_corrected(folder) and _says_the_same(now, changed):
        return
    if not is_corrected(folder):
        _keep_found(folder)
    _rewrite(changed, folder)


def write_found(folder: Path, image: Volume) -> None:
    """Bring a result folder back to what was found. Raises as :func:`write_corrected`."""
    if is_corrected(folder):
        _rewrite(found_result(folder, _placed(folder, image)), folder)
        for name in (FOUND_FILE, FOUND_LABELS_FILE):
            (folder / name).unlink(missing_ok=True)


def _placed(folder: Path, image: Volume) -> Volume:
    """The image with what the folder knows of its source and a scene does not: unequal gaps, facts."""
    source = read_result(folder).source
    return replace(image, slice_origins_ras=source.slice_origins_ras, meta=source.meta)


def _says_the_same(one: Result, other: Result) -> bool:
    same = np.array_equal(one.labels.array, other.labels.array)
    return same and one.provenance.get("options") == json.loads(json.dumps(other.provenance.get("options")))


def _keep_found(folder: Path) -> None:
    document = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    try:
        shutil.copyfile(folder / LABELS_FILE, folder / FOUND_LABELS_FILE)
        document["labels"]["file"] = FOUND_LABELS_FILE
        (folder / FOUND_FILE).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        (folder / FOUND_FILE).unlink(missing_ok=True)
        raise output_error(error, FOUND_FILE) from error


def _rewrite(result: Result, folder: Path) -> None:
    try:
        write_result(result, folder, carry_over=True)
    except ImportError as error:
        raise OutputError(f"The report needs the package {error.name} in Slicer's Python; install it.") from error
