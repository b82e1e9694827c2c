"""DICOM as a source of cases: studies found in a folder, and in each the series that the task's rule takes."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from NeuraxisLib.batch_cases import Case
from NeuraxisLib.dicom_headers import Scan, is_dicom_file, read_headers, scan_folder
from NeuraxisLib.dicom_series import Series, group_series
from NeuraxisLib.errors import InputError
from NeuraxisLib.files import is_image_file
from NeuraxisLib.series_rule import choose_by_rule
from NeuraxisLib.task import Progress, Task

#: Files looked at to tell a DICOM folder from another.
_LOOKED_AT = 20


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM; one that cannot be opened is not."""
    try:
        return path.is_file() and is_dicom_file(path)
    except OSError:
        return False


def holds_dicom(entries: Iterable[Path]) -> bool:
    """Whether DICOM files (or a DICOMDIR) lie directly among the entries of a folder.

    Files that are only called so count where no image file lies beside them: the reader says what is wrong with them.
    """
    files = [path for path in entries if path.is_file()]
    others = [path for path in files if not is_image_file(path)]
    if any(path.name.upper() == "DICOMDIR" for path in others) or any(map(is_dicom, others[:_LOOKED_AT])):
        return True
    return len(others) == len(files) and any(path.suffix.lower() in (".dcm", ".ima") for path in others)


def cases_of_dicom(folder: Path, task: Task, name: str, progress: Progress | None = None) -> list[Case]:
    """One case per study below a folder, with the series that the task's rule takes.

    Args:
        folder: searched with its subfolders.
        name: of the case where there is one study; several get the study's pseudonym behind it.
    """
    try:
        scan = scan_folder(folder, progress or Progress())
    except InputError as error:
        return [Case(name, {next(iter(task.inputs)): str(folder)}, fault=str(error))]
    if not scan.headers:  # nothing but damaged files: the reader says so
        return [Case(name, {next(iter(task.inputs)): str(folder)})]
    return _cases_of_scan(scan, task, name)


def cases_of_dicom_files(files: Iterable[str], task: Task, progress: Progress | None = None) -> list[Case]:
    """One case per study among DICOM files (of a database), named by the study's pseudonym."""
    scan, files, progress = Scan([], Counter(), []), [Path(file) for file in files], progress or Progress()
    for index, path in enumerate(files):
        if index % 16 == 0:
            progress(index / len(files), "Reading DICOM headers")
        try:
            scan.headers.extend(read_headers(path))
        except InputError:
            if path.exists():  # a report or a damaged image: one of a series makes its folder refused
                scan.damaged.append(path)
    return _cases_of_scan(scan, task, "")


def _cases_of_scan(scan: Scan, task: Task, name: str) -> list[Case]:
    studies: dict[str, list[Series]] = defaultdict(list)
    for series in group_series(scan.headers):
        studies[series.headers[0].study_uid].append(series)
    folders = Counter(folder for study in studies.values() for folder in _folders(study))
    cases = []
    for uid, study in sorted(studies.items(), key=lambda item: study_key(item[0])):
        several = f"{name}/{study_key(uid)}" if name else study_key(uid)
        cases.append(_case_of_study(study, task, name if name and len(studies) == 1 else several, scan, folders))
    return cases


def study_key(uid: str) -> str:
    """A short pseudonym of a study."""
    return f"study-{hashlib.sha256(uid.encode()).hexdigest()[:8]}"


def _case_of_study(study: list[Series], task: Task, name: str, scan: Scan, folders: Counter) -> Case:
    main, rule = next(iter(task.inputs)), task.series
    if rule.whole_study:
        suitable = [series for series in study if rule.modality in ("", series.info.modality)]
        if not suitable:
            return Case(name, {main: ""}, fault=f"The study has no {rule.modality} series; leave it out.")
        chosen = f"all {len(suitable)} {rule.modality} series of the study; the task finds its images among them"
        return Case(name, {main: _place(suitable, scan, folders)}, chosen=chosen)
    choice = choose_by_rule(rule, study)
    if choice.series is None:
        return Case(name, {main: ""}, fault=f"No series suits the task: {choice.reason}; name one in a CSV table.")
    place = _place([choice.series], scan, folders)
    return Case(name, {main: place}, choice.series.info.key, chosen=choice.reason)


def _place(series: list[Series], scan: Scan, folders: Counter) -> str | tuple[str, ...]:
    """The folder of the series if it holds no other study, else its files.

    A damaged file in a folder of the series alone may be one of its slices, so the folder is given whole and the
    reader refuses it.
    """
    parents = {header.path.parent for one in series for header in one.headers}
    if len(parents) == 1 and folders[next(iter(parents))] == 1:
        return str(next(iter(parents)))
    files = {str(header.path) for one in series for header in one.headers}
    own = {folder for folder in parents if folders[folder] == 1}
    files |= {str(path) for path in scan.damaged if path.parent in own}
    return tuple(sorted(files))


def _folders(study: list[Series]) -> set[Path]:
    return {header.path.parent for series in study for header in series.headers}
