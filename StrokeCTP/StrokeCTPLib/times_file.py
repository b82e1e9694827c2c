"""Times of frames from a file beside the images (.json, .csv, .txt), in seconds or milliseconds."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError

SUFFIXES = (".json", ".csv", ".txt", ".tsv", ".times")
#: Frames this far apart are not in seconds but in milliseconds.
_MILLISECONDS_ABOVE = 100.0
#: Keys of a JSON file that hold times in seconds; VolumeTiming and FrameTimesStart are those of BIDS.
_JSON_KEYS = ("times_s", "times", "frame_times_s", "frame_times", "VolumeTiming", "FrameTimesStart")
_JSON_KEYS_MS = ("times_ms", "frame_times_ms", "FrameLabels", "MultiVolume.FrameLabels")


def times_from(times: str | os.PathLike | np.ndarray | list) -> np.ndarray:
    """The times given by a caller as an array (t,) or (t, k) or (k, t) in seconds: a file's, or the array itself.

    Raises:
        InputError: the file is missing or holds no times.
    """
    return read_times(Path(times)) if isinstance(times, (str, os.PathLike)) else np.asarray(times, dtype=float)


def read_times(path: Path) -> np.ndarray:
    """Read a times file.

    JSON: a list, or an object with ``times_s``, ``times``, ``times_ms``, BIDS ``VolumeTiming`` (with ``SliceTiming``
    if there is one) or ``FrameTimesStart``. CSV and TSV: one row per frame; the columns whose title holds "time" where
    there are titles, else all columns (of two, not the
    first if it counts the frames). Text: numbers in one row, one column or one row per
    frame. Times in milliseconds are recognised by a title or key that ends in "ms", or by steps above 100.

    Raises:
        InputError: the file is missing or holds no times.
    """
    if not path.is_file():
        raise InputError(f"'{path.name}' was not found; check the name of the times file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = _from_json(text) if path.suffix.lower() == ".json" else _from_table(text)
        values = None if values is None else np.asarray(values, dtype=float)
    except (OSError, ValueError, TypeError, IndexError, OverflowError, RecursionError, csv.Error) as error:
        raise _no_times(path) from error
    if values is None or values.size < 2 or values.ndim > 2 or not np.isfinite(values).all():
        raise _no_times(path)
    if min(values.shape) == 1:
        values = values.ravel()
    step = max(abs(float(np.median(np.diff(values, axis=axis)))) for axis in range(values.ndim))
    return values / 1000.0 if step > _MILLISECONDS_ABOVE else values


def _no_times(path: Path) -> InputError:
    return InputError(f"'{path.name}' holds no times of frames; write one time in seconds per frame into it.")


def _from_json(text: str) -> np.ndarray | list | None:
    content = json.loads(text)
    if isinstance(content, list):
        return content
    if "VolumeTiming" in content and "SliceTiming" in content:
        return np.add.outer(np.array(content["VolumeTiming"], float), np.array(content["SliceTiming"], float))
    for key in _JSON_KEYS:
        if key in content:
            return content[key]
    for key in _JSON_KEYS_MS:
        if key in content:
            return _numbers(content[key]) / 1000.0
    return None


def _numbers(value: str | list) -> np.ndarray:
    return np.array(value.split(",") if isinstance(value, str) else value, dtype=float)


def _from_table(text: str) -> np.ndarray:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if any(";" in line or "," in line or "\t" in line for line in lines):
        delimiter = next(mark for mark in ";\t," if any(mark in line for line in lines))
        rows = [[cell.strip() for cell in row if cell.strip()] for row in csv.reader(lines, delimiter=delimiter)]
    else:
        rows = [line.split() for line in lines]
    titles = rows.pop(0) if rows and not all(map(_is_number, rows[0])) else None
    table = np.array([[float(cell) for cell in row] for row in rows])
    if titles is None:
        return _without_counter(table)
    columns = [index for index, title in enumerate(titles) if "time" in title.casefold()]
    columns = columns or ([0] if table.shape[1] == 1 else [])
    in_ms = all(re.search(r"(^|[^a-z])ms\b|_ms$|milli", titles[index].casefold()) for index in columns)
    return table[:, columns] / (1000.0 if in_ms and columns else 1.0)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _without_counter(table: np.ndarray) -> np.ndarray:
    """Without the first of two columns if it merely counts the frames."""
    if table.ndim != 2 or table.shape[1] != 2 or len(table) < 3:
        return table
    first = table[:, 0]
    return table[:, 1:] if first[0] in (0, 1) and (np.diff(first) == 1).all() else table


def fit_times(values: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """Times as given, (t,), (t, k) or (k, t), as a (t, k) matrix for frames of that shape.

    Raises:
        InputError: the numbers of times and of frames and slices differ.
    """
    frames, slices = shape
    if values.shape == (frames,):
        return np.repeat(values[:, None], slices, axis=1)
    if values.shape == (frames, slices):
        return values
    if values.shape == (slices, frames):
        return values.T
    size = " x ".join(map(str, values.shape))
    raise InputError(
        f"{name} holds {size} times for {frames} frames of {slices} slices; "
        "give one per frame, or one per frame and slice."
    )
