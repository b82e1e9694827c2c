"""The text files of a result folder: tables and curves as CSV, points as a markups file of Slicer."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from NeuraxisLib.result import CurvePlot, Landmark, Measurement, Result

MEASUREMENTS_FILE, POINTS_FILE = "measurements.csv", "points.mrk.json"
_MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def write_text_files(result: Result, folder: Path) -> None:
    """Write measurements, tables, curves and points of a result into a folder."""
    write_csv(folder / MEASUREMENTS_FILE, *_measurement_rows(result.measurements))
    for name, table in result.tables.items():
        write_csv(folder / f"{name}.csv", [_head(*column) for column in table.columns], table.rows)
    for name, plot in result.curves.items():
        write_csv(folder / f"{name}.csv", *_curve_rows(plot))
    if result.points:
        with open(folder / POINTS_FILE, "x", encoding="utf-8") as file:
            json.dump(markups(result.points), file, indent=1, ensure_ascii=False)


def plain(value: Any, infinite: bool = False) -> Any:
    """Numbers, words, lists and mappings as JSON has them; what is not a finite number becomes null.

    ``infinite``: an infinite number becomes the word ``inf`` or ``-inf`` instead.
    """
    if isinstance(value, dict):
        return {str(key): plain(item, infinite) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, np.ndarray)):
        return [plain(item, infinite) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if infinite and not math.isnan(value) else None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


# -- CSV ------------------------------------------------------------------------------------------------------


def _head(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _measurement_rows(measurements: Iterable[Measurement]) -> tuple[list[str], list[tuple]]:
    heads = ["name", "value", "unit", "low", "high", "segment", "note"]
    rows = [(m.name, m.value, m.unit, *(m.interval or (None, None)), m.segment, m.note) for m in measurements]
    return heads, rows


def _curve_rows(plot: CurvePlot) -> tuple[list[str], list[tuple]]:
    """Every place on the x axis in rising order, and what each curve has there (nothing where it has no sample)."""
    heads = [_head(*plot.x_label), *(_head(curve.name, plot.y_label[1]) for curve in plot.curves)]
    values = [dict(zip(curve.x, curve.y)) for curve in plot.curves]
    places = sorted({x for curve in values for x in curve})
    return heads, [(x, *(curve.get(x) for curve in values)) for x in places]


def write_csv(path: Path, heads: Iterable[str], rows: Iterable[Iterable], infinite: bool = False) -> None:
    """Write a new CSV file of cells as :func:`csv_cell` makes them."""
    with open(path, "x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([csv_cell(head) for head in heads])
        writer.writerows([csv_cell(value, infinite) for value in row] for row in rows)


def csv_cell(value: Any, infinite: bool = False) -> Any:
    """A CSV cell; words that a spreadsheet would run as a formula get an apostrophe in front (OWASP).

    ``infinite``: an infinite number is written as ``inf`` or ``-inf``; else it is empty, as what is undefined.
    """
    shown = plain(value, infinite)
    number = isinstance(value, (float, np.floating))
    if isinstance(shown, str) and not number and shown.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + shown
    return "" if shown is None else shown


# -- points ---------------------------------------------------------------------------------------------------


def description(point: Landmark) -> str:
    """Confidence and note of a point in one line, such as ``"confidence 0.93; second of five"``."""
    known = [] if point.confidence is None else [f"confidence {point.confidence:.2f}"]
    return "; ".join([*known, *([point.note] if point.note else [])])


def markups(points: Iterable[Landmark]) -> dict:
    """Points as the content of a ``.mrk.json`` file, which Slicer opens as a point list (RAS mm)."""
    control_points = [
        {
            "id": str(number),
            "label": point.name,
            "description": description(point),
            "position": list(point.position_ras_mm),
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, point in enumerate(points, 1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "RAS",
        "coordinateUnits": "mm",
        "controlPoints": control_points,
        "measurements": [],
    }
    return {"@schema": _MARKUPS_SCHEMA, "markups": [markup]}
