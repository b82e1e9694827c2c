"""The result folder: the one form of a Result on disk.

    result.json        everything but the voxels: measurements, tables, key slices, warnings, provenance, geometry
    labels.seg.nrrd    the label map, a Slicer segmentation with names, colours and terminology
    <map>.nrrd         each scalar map
    measurements.csv   all measurements; <table>.csv each table; <curves>.csv each plot, the x axis first
    points.mrk.json    named points, a markups file of Slicer
    report.html        for reading and printing, self-contained

The source image is not copied. A folder is written beside its place and moved there whole, so what carries the
name is complete or the earlier result. Files have one matrix each: a source with unequal slice gaps is written
on equal gaps, ``grid`` in result.json says so, and :func:`read_result` takes labels and maps back.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.atomic import output_error
from NeuraxisLib.block_means import block_means
from NeuraxisLib.errors import InputError, OutputError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.nrrd import write_nrrd
from NeuraxisLib.result import Curve, CurvePlot, Landmark, Measurement, Result, ScalarMap, Table
from NeuraxisLib.result_text import MEASUREMENTS_FILE, POINTS_FILE, plain, write_text_files
from NeuraxisLib.seg_nrrd import segmentation_keys
from NeuraxisLib.task import get_task
from NeuraxisLib.volume import FREE_TEXT_FACTS, Volume

SCHEMA, SCHEMA_VERSION = "neuraxis-result", 1
RESULT_FILE, LABELS_FILE, REPORT_FILE = "result.json", "labels.seg.nrrd", "report.html"
#: What file browsers leave in folders that were looked at.
_SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
_STEM = re.compile(r"[A-Za-z0-9_-]+")
_GRID_NOTE = "The slices lie at unequal gaps; the files hold labels (nearest slice) and maps (linear) on equal gaps."


# -- writing --------------------------------------------------------------------------------------------------


def write_result(
    result: Result,
    folder: str | os.PathLike,
    label_table: LabelTable | None = None,
    report: bool = True,
    before_replace: Callable[[], None] = lambda: None,
    carry_over: bool = False,
) -> Path:
    """Write a result to ``folder``, whole or not at all.

    Args:
        result: what to write.
        folder: may be absent, empty, or an earlier result to which nothing was added; that one is replaced once the
            new one is complete.
        label_table: None takes the table of the result's task.
        report: whether to write report.html.
        before_replace: called when all is written; what it raises leaves everything as it was.
        carry_over: keep files that lie beside an earlier result instead of refusing to replace it.

    Returns:
        The folder as an absolute path.

    Raises:
        OutputError: the folder holds something else, may not be written to, or the disk is full.
    """
    folder = Path(os.path.abspath(folder))
    if not (carry_over and (folder / RESULT_FILE).is_file()):
        check_replaceable(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        _write_files(result, partial, label_table, report)
        if carry_over:
            _carry_over(folder, partial)
        _flush(partial)
        before_replace()
        _replace(partial, folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in made:
            _remove_if_empty(parent)
        if isinstance(error, OSError):
            raise output_error(error, folder.name) from error
        raise
    return folder


def write(
    result: Result, folder: str | os.PathLike, label_table: LabelTable | None = None, report: bool = True
) -> None:
    """Write the files of a result into a new folder; half a folder stays behind if that fails.

    :func:`write_result` is the safe way; this is its inner part.

    Raises:
        OutputError: a file cannot be written.
        ValueError: a map or table has a name that is no file stem, or the label map a value without a label.
    """
    try:
        _write_files(result, Path(folder), label_table, report)
    except OSError as error:
        raise output_error(error, Path(folder).name) from error


def _write_files(result: Result, folder: Path, label_table: LabelTable | None, report: bool) -> None:
    _check_names(result)
    table = label_table or LabelTable.read(get_task(result.task).resources / "labels.csv")
    folder.mkdir()
    with ThreadPoolExecutor(2) as pool:  # most of the time is compression, which runs beside Python
        writing = [
            pool.submit(_write_volume, folder / f"{name}.nrrd", scalar_map.volume)
            for name, scalar_map in result.maps.items()
        ]
        if result.labels is not None:
            labels = replace(result.labels, array=result.labels.array.astype(np.uint8, copy=False), unit="")
            keys = segmentation_keys(labels.regular().array, table)
            _write_volume(folder / LABELS_FILE, labels, keys)
        write_text_files(result, folder)
        if report:
            _write_report(result, table, folder / REPORT_FILE)
        for file in writing:
            file.result()
    with open(folder / RESULT_FILE, "x", encoding="utf-8") as file:  # last: a folder that has it is complete
        json.dump(_to_json(result, table, report), file, indent=1, ensure_ascii=False, allow_nan=False)


def _carry_over(earlier: Path, folder: Path) -> None:
    """Copy what lies beside an earlier result to the new one."""
    for name in sorted({path.name for path in earlier.iterdir()} - written_names(earlier)):
        kept = earlier / name
        (shutil.copytree if kept.is_dir() else shutil.copy2)(kept, folder / name)


def _flush(folder: Path) -> None:
    """Wait until the files are on the disk, so that a power cut after the rename cannot leave empty ones."""
    for path in filter(Path.is_file, folder.iterdir()):
        with open(path, "r+b") as file:
            os.fsync(file.fileno())


def _write_volume(path: Path, volume: Volume, keys: dict[str, str] | None = None) -> None:
    with open(path, "xb") as file:
        write_nrrd(volume.regular(), file, compress=True, keys=keys)


def _write_report(result: Result, table: LabelTable, path: Path) -> None:
    from NeuraxisLib.report import render_report

    with open(path, "x", encoding="utf-8", newline="") as file:
        file.write(render_report(result, table))


def check_replaceable(folder: Path) -> None:
    """Raise OutputError unless ``folder`` is absent, an empty folder or an earlier result with nothing added."""
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise OutputError(f"'{folder.name}' is a file; name a folder for the result.")
        added = sorted({path.name for path in folder.iterdir()} - written_names(folder))
    except OSError as error:
        raise output_error(error, folder.name) from error
    if added and (folder / RESULT_FILE).is_file():
        raise OutputError(
            f"The folder '{folder.name}' holds '{added[0]}' beside an earlier result, which would be lost; "
            "move it away or name another folder."
        )
    if added:
        raise OutputError(
            f"The folder '{folder.name}' holds something else than an earlier result; name a new or an empty folder."
        )


def written_names(folder: Path) -> set[str]:
    """Names of the files that the earlier result in ``folder`` consists of; empty if there is no readable one."""
    try:
        document = _read_document(folder)
        groups = (document["maps"], document["tables"], document.get("curves", {}))
        parts = [*(part for group in groups for part in group.values()), document["labels"] or {}]
        parts.append(document.get("points") or {})
        files = {part.get("file") for part in parts}
    except (InputError, KeyError, TypeError, AttributeError):
        return set()
    return {RESULT_FILE, MEASUREMENTS_FILE, REPORT_FILE, *files, *_SYSTEM_FILES}


def _replace(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``; the earlier result is removed only after that."""
    if not folder.exists():
        new.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.old.{os.getpid()}.partial")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _check_names(result: Result) -> None:
    for name in (*result.maps, *result.tables, *result.curves):
        if not _STEM.fullmatch(name) or f"{name}.csv" == MEASUREMENTS_FILE:
            raise ValueError(f"{name!r} cannot be the name of a file in a result folder")
    for name in result.tables.keys() & result.curves.keys():
        raise ValueError(f"{name!r} names both a table and curves, which would share a file")


# -- JSON -----------------------------------------------------------------------------------------------------


def _to_json(result: Result, table: LabelTable, report: bool) -> dict:
    source = result.source
    segments = [{"value": x.value, "name": x.name, "color": x.color, "terminology": x.terminology} for x in table]
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "neuraxis_version": __version__,
        "research_use_notice": RESEARCH_USE_NOTICE,
        "task": result.task,
        "measurements": [asdict(measurement) for measurement in result.measurements],
        "tables": {name: {"file": f"{name}.csv", **asdict(rows)} for name, rows in result.tables.items()},
        "curves": {name: {"file": f"{name}.csv", **asdict(plot)} for name, plot in result.curves.items()},
        "points": {"file": POINTS_FILE, "points": [asdict(p) for p in result.points]} if result.points else None,
        "key_slices": result.key_slices,
        "warnings": result.warnings,
        "labels": None if result.labels is None else {"file": LABELS_FILE, "segments": segments},
        "maps": {
            name: {
                "file": f"{name}.nrrd",
                "title": m.title,
                "value_range": m.value_range,
                "unit": m.volume.unit,
                "note": m.note,
            }
            for name, m in result.maps.items()
        },
        "grid": {"equal_gaps": source.is_uniform, "note": "" if source.is_uniform else _GRID_NOTE},
        "report": REPORT_FILE if report else None,
        "provenance": result.provenance,
        "source": {
            "shape_kji": source.array.shape[-3:],
            "ijk_to_ras": source.ijk_to_ras,
            "slice_origins_ras": source.slice_origins_ras,
            "frame_times_s": source.frame_times_s,
            "unit": source.unit,
            "block_means": block_means(source.array),
            "meta": {name: fact for name, fact in source.meta.items() if name not in FREE_TEXT_FACTS},
        },
    }
    return plain(document)


# -- reading --------------------------------------------------------------------------------------------------


def read_result(folder: str | os.PathLike, source: Volume | None = None, file: str = RESULT_FILE) -> Result:
    """Read a result folder back.

    Args:
        folder: a folder that :func:`write_result` wrote.
        source: the measured image; None stands in zeros on the same grid (the folder does not hold the image).
        file: the document in it to read.

    Returns:
        The Result; maps of a source with unequal slice gaps come back to interpolation accuracy, labels exactly
        (unless the smallest gap is less than a quarter of the mean gap).

    Raises:
        InputError: not a result folder, damaged, from a newer version, or of another image than ``source``.
    """
    folder = Path(folder)
    document = _read_document(folder, file)
    try:
        grid = _read_source(document["source"])
        if source is not None and source.array.shape[-3:] != grid.array.shape[-3:]:
            raise InputError(f"The result in '{folder.name}' was made from another image; choose that image.")
        source = source or grid
        labels = None
        if document["labels"] is not None:
            labels = _read_onto(source, _part(folder, document["labels"]), "")
        maps = {
            name: ScalarMap(
                _read_onto(source, _part(folder, m), m["unit"]),
                m["title"],
                tuple(m["value_range"]),
                m.get("note", ""),
            )
            for name, m in document["maps"].items()
        }
        tables = {
            name: Table(t["title"], _tuples(t["columns"]), _tuples(t["rows"])) for name, t in document["tables"].items()
        }
        return Result(
            task=document["task"],
            source=source,
            labels=labels,
            maps=maps,
            measurements=[_read_measurement(entry) for entry in document["measurements"]],
            tables=tables,
            curves={name: _read_plot(entry) for name, entry in document.get("curves", {}).items()},
            points=[Landmark(**entry) for entry in (document.get("points") or {}).get("points", ())],
            key_slices=document["key_slices"],
            warnings=document["warnings"],
            provenance=document["provenance"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"The result in '{folder.name}' is damaged; compute it again.") from error


def _read_document(folder: Path, file: str = RESULT_FILE) -> dict:
    try:
        document = json.loads((folder / file).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{folder.name}' is not a result folder (no {file}); choose another.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"The result in '{folder.name}' is damaged; compute it again.") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"'{folder.name}' does not hold a result of Neuraxis; choose another folder.")
    version = document.get("schema_version", 0)
    if not isinstance(version, int):
        raise InputError(f"The result in '{folder.name}' is damaged; compute it again.")
    if version > SCHEMA_VERSION:
        raise InputError(f"The result in '{folder.name}' was made by a newer Neuraxis; update this one.")
    return document


def _part(folder: Path, entry: dict) -> Path:
    """The file of the folder that an entry names; ValueError for one elsewhere, also behind a link."""
    path = folder / entry["file"]
    if Path(entry["file"]).name != entry["file"] or os.path.islink(path):
        raise ValueError("a result holds its own files only")
    return path


def _read_source(entry: dict) -> Volume:
    """The grid of the source with zeros in it, which take no memory."""
    times = entry["frame_times_s"]
    shape = tuple(entry["shape_kji"]) if times is None else (len(times), *entry["shape_kji"])
    return Volume(
        array=np.broadcast_to(np.int16(0), shape),
        ijk_to_ras=np.array(entry["ijk_to_ras"]),
        unit=entry["unit"],
        slice_origins_ras=None if entry["slice_origins_ras"] is None else np.array(entry["slice_origins_ras"]),
        frame_times_s=None if times is None else np.array(times),
        meta=entry["meta"],
    )


def _read_onto(source: Volume, path: Path, unit: str) -> Volume:
    """A file of the folder on the source grid: from equal gaps, each source slice takes the nearest slice."""
    from NeuraxisLib.files import read_volume

    array = read_volume(path).array
    if not source.is_uniform:
        positions = source.slice_positions_mm
        step = (positions[-1] - positions[0]) / (len(array) - 1)
        array = array[np.rint((positions - positions[0]) / step).astype(int)]
    return source.like(array, unit)


def _read_measurement(entry: dict) -> Measurement:
    interval = entry["interval"]
    return Measurement(**{**entry, "interval": None if interval is None else tuple(interval)})


def _read_plot(entry: dict) -> CurvePlot:
    """A plot; a value that JSON could not hold is a gap."""
    curves = [
        Curve(curve["name"], curve["x"], tuple(np.nan if y is None else y for y in curve["y"]))
        for curve in entry["curves"]
    ]
    return CurvePlot(entry["title"], tuple(entry["x_label"]), tuple(entry["y_label"]), tuple(curves))


def _tuples(rows: list) -> tuple[tuple, ...]:
    return tuple(tuple(row) for row in rows)
