"""The cases of a batch and where they come from: a folder tree, a CSV table, files in a list; DICOM in batch_dicom."""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
import hashlib
import os
import re
import shutil
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import READABLE, is_image_file
from NeuraxisLib.private_folder import private_folder, remove_private
from NeuraxisLib.remote import local_path
from NeuraxisLib.result_folder import RESULT_FILE
from NeuraxisLib.task import Progress, Task

_SUFFIXES = (*READABLE, ".dcm", ".ima")
#: Columns of a CSV table that are neither an input nor an option of the task.
CASE_COLUMN, SERIES_COLUMN = "case", "series"
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
#: A folder name longer than this is cut; the case keeps its name in the tables.
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Case:
    """One case of a batch.

    Attributes:
        name: as the tables call it, relative: never a path of this computer.
        inputs: input name of the task -> path of a file or folder, or several files that belong together.
        series: DICOM series to take where the main input holds several.
        options: options of the task that differ from those of the batch.
        chosen: what a rule chose among the series of the study, and why; empty where nothing was to choose.
        fault: why the case cannot be run; empty if it can.
    """

    name: str
    inputs: Mapping[str, str | tuple[str, ...]]
    series: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    chosen: str = ""
    fault: str = ""


def find_cases(
    source: str | Path, task: Task, output: str | Path, match: str = "", progress: Progress | None = None
) -> list[Case]:
    """The cases that a path stands for, by name.

    An address (http, https) is that of a DICOMweb server. A ``.csv`` file is a table of cases. A folder with a
    DICOMDIR, or with DICOM files directly in it, is a DICOM directory: one case per study. Any other folder is a tree:
    every image file is a case, and every folder in which DICOM lies is one or, where it holds several studies, one for
    each. An empty folder, and one with damaged DICOM files only, is a case that cannot be run, not one that is lost.

    Args:
        source: folder or CSV file.
        task: whose rule chooses the series and whose inputs and options the CSV names.
        output: left out where it lies in the folder.
        match: only files whose name fits this pattern, such as ``*_T2w.nii.gz``.
        progress: told how far it is; may cancel.

    Raises:
        InputError: nothing there, or a table that cannot be understood.
    """
    progress = progress or Progress()
    if str(source).startswith(("http://", "https://")):
        from NeuraxisLib.batch_dicomweb import cases_of_dicomweb

        return cases_of_dicomweb(str(source), task, progress)
    source = Path(source)
    if not source.exists():
        raise InputError(f"'{source.name}' was not found; check the name and the folder.")
    if source.is_file() and source.suffix.lower() == ".csv":
        return cases_of_csv(source, task)
    if source.is_file():
        return cases_of_files([source], task)
    cases = list(_walk(source, source, task, local_path(output).resolve(), match, progress))
    if not cases:
        wanted = f" that fits '{match}'" if match else ""
        raise InputError(
            f"There is no case{wanted} in '{source.name}'; choose a folder that holds image files, or a folder for "
            "each case."
        )
    return sorted(cases, key=lambda case: case.name)


def cases_of_files(files: Iterable[str | Path], task: Task) -> list[Case]:
    """One case for every file or folder, named after it; numbered where two share a name."""
    main, taken = next(iter(task.inputs)), set()
    return [Case(free_name(Path(file), taken), {main: str(file)}) for file in files]


def cases_in(folder: str | Path, output: str | Path) -> list[Path]:
    """What lies directly in a folder and may be a case, by name: image files and folders; no results, none hidden."""
    output = Path(output).resolve()
    found = [path for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".")]
    return [path for path in found if is_image_file(path) or (path.is_dir() and _may_be_case(path, output))]


# -- folder trees ---------------------------------------------------------------------------------------------


def _walk(folder: Path, root: Path, task: Task, output: Path, match: str, progress: Progress) -> Iterator[Case]:
    """Cases below a folder. Stroke's images are folders of frames or maps, so such a folder is one case there."""
    from NeuraxisLib.batch_dicom import cases_of_dicom, holds_dicom

    main = next(iter(task.inputs))
    progress(0.0, "Looking for cases")
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    if holds_dicom(entries):
        yield from cases_of_dicom(folder, task, _name(folder, root), progress)
        return
    images = [path for path in entries if path.is_file() and is_image_file(path)]
    if images and task.series.whole_study and folder != root:
        yield Case(_name(folder, root), {main: str(folder)})
        return
    for path in entries:
        if path in images and fnmatch.fnmatch(path.name, match or "*"):
            yield Case(_name(path, root), {main: str(path)})
        elif path.is_dir() and _may_be_case(path, output):
            if only_dicom_below(path):
                yield from cases_of_dicom(path, task, _name(path, root), progress)
            else:
                yield from _walk(path, root, task, output, match, progress)
        elif path.is_dir() and path.resolve() != output and not any(path.iterdir()):
            fault = f"The folder '{path.name}' is empty; copy the study again, or remove the folder."
            yield Case(_name(path, root), {main: str(path)}, fault=fault)


def only_dicom_below(folder: Path) -> bool:
    """Whether what lies in the subfolders is DICOM and no image file: then the folder is one patient or study."""
    from NeuraxisLib.batch_dicom import is_dicom

    seen = False
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(map(is_image_file, names)):
            return False
        seen = seen or any(is_dicom(Path(parent, name)) for name in names[:5])
    return seen


def _may_be_case(folder: Path, output: Path) -> bool:
    return folder.resolve() != output and not (folder / RESULT_FILE).is_file() and any(folder.iterdir())


def _name(path: Path, root: Path) -> str:
    """The path relative to the root, without image suffixes; the root's own name for the root."""
    if path == root:
        return root.name
    relative = path.relative_to(root)
    return relative.with_name(_stem(relative.name)).as_posix() if not path.is_dir() else relative.as_posix()


def _stem(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)] or name
    return name


def free_name(file: Path, taken: set[str]) -> str:
    """The file's name without its image suffixes; numbered where it is taken already."""
    name = _stem(file.name)
    candidate, number = name, 2
    while candidate.lower() in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate.lower())
    return candidate


# -- CSV ------------------------------------------------------------------------------------------------------


def cases_of_csv(table: Path, task: Task) -> list[Case]:
    """Cases of a table with the columns ``case``, one per input of the task, ``series`` and options of the task.

    Paths are relative to the table. An empty cell is not given; a column whose name begins with ``_`` is ignored.

    Raises:
        InputError: not a table, a column that is not known, a case without a name or input, or named twice.
    """
    rows = _rows(table)
    main = next(iter(task.inputs))
    kinds = typing.get_type_hints(task.options_type)
    known = {CASE_COLUMN, SERIES_COLUMN, *task.inputs, *kinds} - {"device"}
    unknown = [name for name in rows[0] if name not in known and not name.startswith("_")] if rows else []
    if unknown:
        raise InputError(
            f"'{table.name}' has the column '{unknown[0]}', which is no input or option of '{task.name}'; rename it, "
            "or begin its name with _ to have it left out."
        )
    cases = []
    for number, row in enumerate(rows, 2):
        given = {name: cell for name, cell in row.items() if cell and not name.startswith("_")}
        if CASE_COLUMN not in given or main not in given:
            raise InputError(f"Line {number} of '{table.name}' has no '{CASE_COLUMN}' or no '{main}'; fill it in.")
        inputs = {name: os.path.normpath(table.parent / given[name]) for name in task.inputs if name in given}
        options = {name: _option(given[name], kinds[name]) for name in kinds if name in given}
        cases.append(Case(given[CASE_COLUMN], inputs, given.get(SERIES_COLUMN), options))
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise InputError(f"'{table.name}' names the case '{twice[0]}' twice; give every case a name of its own.")
    if not cases:
        raise InputError(f"'{table.name}' holds no case; write one line for each below the names of the columns.")
    return cases


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            sample = file.read(4096)
            file.seek(0)
            delimiter = ";" if sample.split("\n")[0].count(";") > sample.split("\n")[0].count(",") else ","
            reader = csv.DictReader(file, delimiter=delimiter, restkey="_more", restval="")
            rows = [{(name or "_").strip(): str(cell).strip() for name, cell in row.items()} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{table.name}' cannot be read as a CSV table (UTF-8); export it again.") from error
    known = [(name, cell) for row in rows for name, cell in row.items() if not name.startswith("_")]
    if any(len(f"{name}{cell}x".splitlines()) > 1 for name, cell in known):
        raise InputError(f"'{table.name}' has a line break within a cell; close the quotes of its cells.")
    return rows


def _option(text: str, kind: Any) -> Any:
    """A cell as the option takes it; numbers stay text, which the task's options convert."""
    if kind is bool and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    return text


# -- what the runner needs of a case --------------------------------------------------------------------------


def folder_names(names: Iterable[str]) -> dict[str, str]:
    """Case name -> name of its result folder: safe on every system, and different for different cases."""
    plain = {name: _safe(name) for name in names}
    shared = Counter(folder.casefold() for folder in plain.values())
    by_right = Counter(folder.casefold() for name, folder in plain.items() if name == folder)
    folders = {}
    for name, folder in plain.items():
        key = folder.casefold()
        alone = shared[key] == 1 or (name == folder and by_right[key] == 1)
        folders[name] = folder if alone and len(folder) <= _LONGEST_NAME else _marked(name, folder)
    return folders


def _safe(name: str) -> str:
    safe = re.sub(r"[^\w.+=@ -]+", "_", name).strip(" ._")
    return safe or "case"


def _marked(name: str, folder: str) -> str:
    return f"{folder[: _LONGEST_NAME - 7]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


@contextmanager
def gathered(inputs: Mapping[str, str | tuple[str, ...]]) -> Iterator[dict[str, str]]:
    """Inputs as single paths: files that belong together are linked into a private folder, removed at the end."""
    private, paths = gather(inputs)
    try:
        yield paths
    finally:
        remove_gathered(private)


def gather(inputs: Mapping[str, str | tuple[str, ...]]) -> tuple[str | None, dict[str, str]]:
    """(private folder or None, inputs as single paths); give the folder to :func:`remove_gathered` afterwards."""
    private, paths = None, {}
    try:
        for name, value in inputs.items():
            if isinstance(value, (str, Path)):
                paths[name] = str(value)
                continue
            private = private or str(private_folder("case"))
            folder = Path(private, name)
            folder.mkdir()
            for number, file in enumerate(value):
                _bring(str(file), folder / f"{number:06d}")
            paths[name] = str(folder)
    except BaseException:
        remove_gathered(private)
        raise
    return private, paths


def remove_gathered(private: str | None) -> None:
    """Remove the links; the files stay where they are."""
    if private:
        remove_private(private)


def _bring(file: str, place: Path) -> None:
    """Link a file, or fetch the series of an address into a folder."""
    if file.startswith(("http://", "https://")):
        from NeuraxisLib.batch_dicomweb import fetch_series

        place.mkdir()
        fetch_series(file, place)
        return
    link = place.with_suffix(Path(file).suffix)
    for way in (os.symlink, os.link, shutil.copyfile):  # Windows lets few users make links
        try:
            way(file, link)
            return
        except OSError as error:
            fault = error
    raise InputError(f"'{Path(file).name}' could not be read from its disk; copy it to this computer first.") from fault


def merged_options(case: Case, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the batch with those of the case over them."""
    return {**options, **case.options}


def option_values(options: Any) -> dict[str, Any]:
    """The values of a task's options that bear on the result: all but the device."""
    return {name: value for name, value in dataclasses.asdict(options).items() if name != "device"}
