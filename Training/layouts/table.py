"""Layout ``csv``: one line per case; the form that simulate writes and that any set can be brought into.

Columns: ``id`` and ``image``; and as far as known ``truth``, ``region``, ``patient``, ``group``, ``split``,
``bleeding_slices`` and ``unknown_slices`` (slice indices from the file's first, parted by spaces or semicolons, for
scans whose slices are labelled but not outlined). Paths count from the table's folder; an image may be a DICOM folder.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError
from Training.layouts.base import Found, LayoutOptions, Source
from Training.layouts.grids import facts_of, read_image, read_mask
from Training.store import BLEEDING, CLEAN, UNKNOWN, StoredCase

COLUMNS = (
    "id", "image", "truth", "region", "patient", "group", "split", "bleeding_slices", "unknown_slices",
)  # fmt: skip
_FILES = ("image", "truth", "region")


def read_table(path: Path, needed: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """The lines of a CSV (comma, semicolon or tab) as column -> text, column names in lower case.

    Raises:
        InputError: not readable, or a needed column is missing.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"The table '{path.name}' cannot be read; check its name and save it as UTF-8.") from None
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    except csv.Error:
        raise InputError(f"The table '{path.name}' is damaged; export it again.") from None
    rows = [{name.strip().lower(): (value or "").strip() for name, value in line.items() if name} for line in lines]
    columns = {name.strip().lower() for name in first.split(delimiter)}
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(f"The table '{path.name}' has no column '{missing[0]}'; it needs {', '.join(needed)}.")
    return rows


def find(root: Path, options: LayoutOptions) -> Found:
    """The cases of a table, or of ``cases.csv`` in a folder."""
    path = root / "cases.csv" if root.is_dir() else root
    found = Found()
    rows = read_table(path, ("id", "image"))
    other = sorted({name for row in rows for name in row} - set(COLUMNS))
    if other:
        found.warn("table", f"Columns that are not known were left out: {', '.join(other)}.")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        name = row["id"]
        if not name or not row["image"]:
            found.fault("table", f"Line {number} of '{path.name}' lacks an id or an image; fill it in.")
            continue
        if name in seen:
            found.fault("double", f"'{name}' is listed twice; give every case a name of its own.", name)
            continue
        seen.add(name)
        source = _source(path.parent, row, found)
        if source is not None:
            found.sources.append(source)
    return found


def _source(folder: Path, row: dict[str, str], found: Found) -> Source | None:
    name, files = row["id"], {}
    for word in _FILES:
        if row.get(word):
            files[word] = folder / row[word].replace("\\", "/")
    missing = [word for word, path in files.items() if not os.path.exists(path)]
    for word in missing:
        found.fault("pairing", f"The {word} of '{name}' was not found; correct its path in the table.", name)
    if missing:
        return None
    facts = {word: row[word] for word in ("bleeding_slices", "unknown_slices") if word in row}
    return Source(name, row.get("patient") or name, row.get("group", ""), row.get("split", ""), files, facts)


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one case of the table."""
    image = read_image(source.files["image"], options)
    facts, truth, region = facts_of(image), None, None
    if "truth" in source.files:
        truth, warnings = read_mask(source.files["truth"], image, options)
        facts["warnings"] = [*facts.get("warnings", []), *warnings]
    if "region" in source.files:
        region = read_mask(source.files["region"], image, LayoutOptions(binary=True))[0] > 0
    label = _slice_labels(source, image.slice_count)
    return StoredCase(
        source.id, source.patient, source.group, source.split, image, truth, region, label, source.flags, facts
    )


def _slice_labels(source: Source, count: int) -> np.ndarray | None:
    if not source.facts.get("bleeding_slices") and not source.facts.get("unknown_slices"):
        # An empty cell beside a truth says nothing; without a truth it says that no slice bleeds.
        return None if "truth" in source.files or "bleeding_slices" not in source.facts else np.zeros(count, np.int8)
    label = np.full(count, CLEAN, np.int8)
    for word, value in (("bleeding_slices", BLEEDING), ("unknown_slices", UNKNOWN)):
        text = str(source.facts.get(word, ""))
        numbers = [part for part in re.split(r"[;\s]+", text) if part]
        if not all(part.isdigit() and int(part) < count for part in numbers):
            what = word.replace("_", " ")
            raise InputError(f"The {what} of '{source.id}' are not slices 0 to {count - 1}; correct them.")
        label[[int(part) for part in numbers]] = value
    return label
