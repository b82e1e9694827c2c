"""Layout ``maps``: one line per examination of perfusion maps in numbers, or in colours whose range is known.

Columns: ``id`` and ``maps`` (a result folder of ours, a folder of map files, DICOM or pictures; see
:mod:`StrokeCTPLib.map_set`); and as far as known ``truth`` (a label map on their grid: 1 penumbra, 2 core),
``patient``, ``group`` (LVO, Non-LVO, WIS), ``split``, ``nihss``, ``age``, ``gender``, ``simulated`` (1 for cases that
are). Paths count from the table's folder. Maps in colours need ``--ranges cbf=100,cbv=6,ttp=20,tmax=12``.
"""

from __future__ import annotations

import os
from pathlib import Path

from NeuraxisLib.errors import NeuraxisError
from StrokeCTPLib.map_set import read_map_set
from Training.layouts.base import Found, LayoutOptions, Source
from Training.layouts.grids import read_mask
from Training.layouts.maps_base import numbers_of_patient, stored_numbers
from Training.layouts.table import read_table
from Training.store import StoredCase
from Training.stroke_cache import SIMULATED

COLUMNS = ("id", "maps", "truth", "patient", "group", "split", "nihss", "age", "gender", "simulated")


def find(root: Path, options: LayoutOptions) -> Found:
    """The cases of a table, or of ``cases.csv`` in a folder."""
    path = root / "cases.csv" if root.is_dir() else root
    found, seen = Found(), set()
    rows = read_table(path, ("id", "maps"))
    other = sorted({name for row in rows for name in row} - set(COLUMNS))
    if other:
        found.warn("table", f"Columns that are not known were left out: {', '.join(other)}.")
    for number, row in enumerate(rows, start=2):
        name = row["id"]
        if not name or not row["maps"] or name in seen:
            what = "lists a case twice" if name in seen else "lacks an id or maps"
            found.fault("table", f"Line {number} of '{path.name}' {what}; correct it.", *([name] if name else []))
            continue
        seen.add(name)
        files = {word: path.parent / row[word].replace("\\", "/") for word in ("maps", "truth") if row.get(word)}
        missing = [word for word, place in files.items() if not os.path.exists(place)]
        if missing:
            found.fault("pairing", f"The {missing[0]} of '{name}' was not found; correct its path in the table.", name)
            continue
        try:
            facts = {"scalars": numbers_of_patient(row)}
        except NeuraxisError as error:
            found.fault("table", f"'{name}': {error}", name)
            continue
        flags = (SIMULATED,) if row.get("simulated", "").strip() in ("1", "true", "yes") else ()
        words = (row.get("patient") or name, row.get("group", ""), row.get("split", ""))
        found.sources.append(Source(name, *words, files, facts, flags))
    return found


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one examination."""
    found = read_map_set(source.files["maps"], ranges=dict(options.ranges) or None, spacing_mm=options.spacing_mm)
    truth, warnings = None, list(found.notes)
    if "truth" in source.files:
        truth, more = read_mask(source.files["truth"], found.grid, options)
        warnings += more
    return stored_numbers(source, found.maps, truth, dict(source.facts["scalars"]), warnings=warnings)
