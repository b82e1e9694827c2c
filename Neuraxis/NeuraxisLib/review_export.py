"""Reviewed cases as training data: what ``prepare`` reads, with the outlines as a person left them.

    OUT/about.json                  what was exported, how to prepare it, and the verdict on every case
    OUT/hemorrhage/cases.csv ...    layout csv: images and label maps listed in a table
    OUT/stroke/cases.csv ...        layout maps: folders of maps and label maps
    OUT/discs/case-....nrrd ...     layout sct-discs: images with single-voxel labels

Cases are called after the SHA-256 of their voxels: no name, id, comment or reader goes out, and the same scan has the
same name in every export. Only accepted and corrected cases are exported, and only if the verdict speaks of the result
as it is.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.atomic import new_folder
from NeuraxisLib.errors import GeometryError, InputError, NeuraxisError
from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Result
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.review import Review, fingerprint_of, read_review
from NeuraxisLib.review_corrections import corrections_of
from NeuraxisLib.task import get_task
from NeuraxisLib.volume import Volume

ABOUT_FILE, TABLE_FILE = "about.json", "cases.csv"
#: Layout of a task whose networks read the maps of a result, not its image.
MAPS = "maps"
#: What ``prepare`` has to be told beside the layout.
_PREPARE_OPTIONS = {"sct-discs": " --disc-points centre"}
_SAME_PLACE_MM = 0.1


@dataclass(frozen=True)
class Case:
    """A result that may be exported.

    Attributes:
        name: how messages call it.
        review: the verdict, or None.
        read: gives the result as it is now, with the measured image as its source.
        fault: why it cannot be exported; empty if it may.
    """

    name: str
    review: Review | None
    read: Callable[[], Result]
    fault: str = ""


@dataclass
class Exported:
    """What came of an export: (name, id) of the cases that were written, name -> why the others were not."""

    written: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """A line for a reader."""
        cases = "1 case" if len(self.written) == 1 else f"{len(self.written)} cases"
        if not self.left_out:
            return f"{cases} exported."
        name, reason = next(iter(self.left_out.items()))
        others = f" (and {len(self.left_out) - 1} more)" if len(self.left_out) > 1 else ""
        return f"{cases} exported. Left out: '{name}'{others}: {reason}"


def export_cases(cases: Iterable[Case], output: str | Path) -> Exported:
    """Write accepted and corrected cases as training data, whole or not at all.

    Args:
        cases: of any task.
        output: folder, new or empty.

    Raises:
        InputError: no case can be exported; says why the first cannot.
        OutputError: the folder is not empty, or cannot be written.
    """
    done, rows, about = Exported(), {}, {}
    with new_folder(output) as folder:
        for case in cases:
            try:
                _export(case, folder, done, rows, about)
            except NeuraxisError as error:
                done.left_out[case.name] = str(error)
        if not done.written:
            name, reason = next(iter(done.left_out.items()), ("", "none was given."))
            first = f"'{name}': {reason}" if name else reason
            raise InputError(f"There is no case to export: {first}")
        for task, lines in rows.items():
            _write_table(folder / task / TABLE_FILE, lines)
        _write_about(folder / ABOUT_FILE, done, about)
    return done


def _export(case: Case, folder: Path, done: Exported, rows: dict, about: dict) -> None:
    if case.fault:
        raise InputError(case.fault)
    if case.review is None:
        raise InputError("it has no verdict yet; review it first.")
    if not case.review.is_usable:
        raise InputError(f"it was {case.review.verdict}.")
    result = case.read()
    if case.review.sha256 != fingerprint_of(result):
        raise InputError("it was changed after the verdict; review it again.")
    task, corrections = result.task, corrections_of(result.task)
    name = case_id(_learnt_from(result, corrections.LAYOUT))
    if name in about:
        raise InputError("the same scan is exported already.")
    (folder / task).mkdir(exist_ok=True)
    row = corrections.write_case(result, result.source, folder / task, name)
    if row:
        rows.setdefault(task, []).append(row)
    done.layouts[task] = corrections.LAYOUT
    done.written.append((case.name, name))
    told = {key: getattr(case.review, key) for key in ("verdict", "time", "software", "sha256")}
    about[name] = {"task": task, **told}


def _learnt_from(result: Result, layout: str) -> Volume:
    """The image that a network of the task reads; of several maps the blood flow."""
    if layout != MAPS:
        return result.source
    return result.maps["cbf" if "cbf" in result.maps else min(result.maps)].volume


def case_id(image: Volume) -> str:
    """What a case is called: after its voxels and their place, so that nobody is named."""
    found = hashlib.sha256(np.round(image.ijk_to_ras, 3).tobytes())
    found.update(np.ascontiguousarray(image.array).data)
    return f"case-{found.hexdigest()[:12]}"


def write_pair(image: Volume, labels: Volume, folder: Path, name: str) -> dict[str, str]:
    """Write an image and its label map for layout ``csv``; returns the line of its table.

    Slices at unequal gaps go to equal ones, as files have one matrix.
    """
    places = {"image": f"images/{name}.nrrd", "truth": f"labels/{name}.nrrd"}
    for volume, place in zip((image, labels), places.values()):
        (folder / place).parent.mkdir(exist_ok=True)
        write_volume(volume, folder / place, compress=True, make_regular=True)
    return {"id": name, **places, "patient": name}


def prepare_command(task: str, layout: str) -> str:
    """How the exported cases of a task become a store."""
    return f"neuraxis prepare {task} {task}.h5 --layout {layout}{_PREPARE_OPTIONS.get(layout, '')}"


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with open(path, "x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_about(path: Path, done: Exported, about: dict) -> None:
    document = {
        "neuraxis_version": __version__,
        "research_use_notice": RESEARCH_USE_NOTICE,
        "prepare": {task: prepare_command(task, layout) for task, layout in done.layouts.items()},
        "cases": about,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


# -- cases in result folders ----------------------------------------------------------------------------------


def cases_of(folders: Iterable[Path], images: str | Path | None = None) -> list[Case]:
    """The results in folders as cases.

    Args:
        folders: result folders, which do not hold the image.
        images: what the results were computed from: the folder or table that the batch was given, or the image of the
            only result. Not needed where a task is learnt by its maps.
    """
    folders = list(folders)
    known = None if images is None else _Images(Path(images), only=len(folders) == 1)
    return [_case(folder, known) for folder in folders]


def _case(folder: Path, images: _Images | None) -> Case:
    try:
        return Case(folder.name, read_review(folder), lambda: _read(folder, images))
    except InputError as error:
        return Case(folder.name, None, lambda: read_result(folder), str(error))


def _read(folder: Path, images: _Images | None) -> Result:
    result = read_result(folder)
    if corrections_of(result.task).LAYOUT == MAPS:
        return result
    if images is None:
        raise InputError("its image is not in the result; name what it was computed from with --images.")
    source, grid = images.read(folder, result.task), result.source
    if source.array.shape != grid.array.shape[-3:] or _apart_mm(source, grid) > _SAME_PLACE_MM:
        raise GeometryError("the image of that name is not the one that it was made from; choose that image.")
    return read_result(folder, source)


class _Images:
    """The images that results were made from, found as the batch finds them; ``only``: there is just one result."""

    def __init__(self, place: Path, only: bool):
        self._place, self._only = place, only
        self._found: dict[str, dict[str, Any]] = {}  # task -> result name -> case of the batch

    def read(self, folder: Path, task_name: str) -> Volume:
        """The image of a result folder. Raises InputError if it is not there."""
        from NeuraxisLib.batch_cases import find_cases, folder_names, gathered
        from NeuraxisLib.run import read_input

        task = get_task(task_name)
        if task_name not in self._found:
            cases = find_cases(self._place, task, folder.parent)
            names = folder_names(case.name for case in cases)
            self._found[task_name] = {names[case.name]: case for case in cases}
        found = self._found[task_name]
        case = next(iter(found.values())) if self._only and len(found) == 1 else found.get(folder.name)
        if case is None:
            raise InputError(f"its image was not found in '{self._place.name}'; it is called like the result.")
        with gathered(case.inputs) as inputs:
            return read_input(Path(inputs[next(iter(task.inputs))]), case.series)


def _apart_mm(one: Volume, other: Volume) -> float:
    """Largest distance of equal corners of two grids of one size."""
    _, rows, columns = one.array.shape[-3:]
    apart = 0.0
    for i in (0, columns - 1):
        for j in (0, rows - 1):
            first, second = (v.origins_ras + i * v.column_step_ras + j * v.row_step_ras for v in (one, other))
            apart = max(apart, float(np.linalg.norm(first - second, axis=1).max()))
    return apart
