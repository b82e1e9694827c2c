"""The report of a Result: one HTML page that needs no network, for reading, printing and archiving."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.curve_view import curve_view
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.measure import components
from NeuraxisLib.result import Landmark, Measurement, Result, ScalarMap, Table
from NeuraxisLib.slice_view import SliceView, css_color, css_ramp, grey_window, slice_views
from NeuraxisLib.uncertainty import COVERAGE
from NeuraxisLib.volume import FREE_TEXT_FACTS

_TEMPLATE = Path(__file__).parent / "Resources" / "report.html.jinja"
#: Lesions whose largest slice is shown.
_LESIONS_SHOWN = 3
_DASH = "–"


@dataclass(frozen=True)
class Figure:
    """A slice in the report: the view, why it is shown, and where it lies."""

    view: SliceView
    reasons: list[str]
    position: str


def render_report(result: Result, table: LabelTable) -> str:
    """The page as text. Nothing in it is fetched from elsewhere; every word of the result is escaped.

    Args:
        result: a finished result whose ``source`` holds the image.
        table: the task's label table (names and colours).
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number_text, "mm": "{:.2f}".format}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    content = report_content(result, table)
    return template.render(**content, interval_text=interval_text, ramp=css_ramp(content["overlay"]))


def report_content(result: Result, table: LabelTable) -> dict[str, Any]:
    """What the report says, whatever page it is put on; arguments as :func:`render_report`."""
    overlay = _overlay(result)
    return {
        "title": f"{result.task.capitalize()} report",
        "headline": result.measurements[0] if result.measurements else None,
        "scale": _interval_scale(result.measurements[0]) if result.measurements else None,
        "measurements": result.measurements,
        "notes": list(dict.fromkeys(m.note for m in result.measurements if m.note)),
        "coverage": f"{COVERAGE:.0%}",
        "tables": [t for t in (*result.tables.values(), _point_table(result.points)) if t.rows],
        "plots": [view for plot in result.curves.values() if (view := curve_view(plot)) is not None],
        "warnings": result.warnings,
        "figures": _figures(result, table, overlay),
        "overlay": overlay,
        "legend": [(label.name, css_color(label.color)) for label in table] if result.labels is not None else [],
        "window": _window_text(result),
        "provenance": _rows(result.provenance),
        "image": _image_rows(result),
        "notice": RESEARCH_USE_NOTICE,
        "version": __version__,
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    }


# -- numbers --------------------------------------------------------------------------------------------------


def number_text(value: Any, unit: str = "") -> str:
    """A value as a reader expects it: mL and mm to a tenth (small mL to a hundredth), others to 3 digits."""
    if value is None or (isinstance(value, (float, np.floating)) and not math.isfinite(value)):
        return _DASH
    if isinstance(value, (bool, str)):
        return "yes" if value is True else "no" if value is False else value
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    value = float(value)
    if unit == "mL":
        return f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.2f}"
    if unit == "mm":
        return f"{value:.1f}"
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.3g}"


def interval_text(measurement: Measurement) -> str:
    """``low to high`` without the unit; empty if there is no interval."""
    if measurement.interval is None:
        return ""
    return " to ".join(number_text(value, measurement.unit) for value in measurement.interval)


def _interval_scale(measurement: Measurement) -> dict[str, float | str] | None:
    """Where low, value and high lie on a line from 0 to a round end, in percent; None where they reach below 0."""
    if measurement.interval is None or measurement.value is None or measurement.interval[1] <= 0:
        return None
    if measurement.interval[0] < 0:
        return None
    low, high = measurement.interval
    step = 10 ** math.floor(math.log10(high))
    end = next(step * factor for factor in (1, 1.5, 2, 3, 5, 7.5, 10) if step * factor >= high)
    low, value, high = (100 * x / end for x in (low, measurement.value, high))
    return {"low": low, "value": value, "high": high, "end": number_text(float(end), "")}


def _point_table(points: list[Landmark]) -> Table:
    """Points as rows, in RAS mm as Slicer shows them."""
    heads = (("Point", ""), ("R", "mm"), ("A", "mm"), ("S", "mm"), ("Confidence", ""), ("Note", ""))
    return Table("Points", heads, tuple((p.name, *p.position_ras_mm, p.confidence, p.note) for p in points))


# -- figures --------------------------------------------------------------------------------------------------


def _overlay(result: Result) -> ScalarMap | None:
    """The uncertainty map if there is one, else the last map."""
    for name, scalar_map in result.maps.items():
        if "uncertain" in f"{name} {scalar_map.title}".lower() or "entropy" in name.lower():
            return scalar_map
    return next(reversed(result.maps.values()), None)


def _figures(result: Result, table: LabelTable, overlay: ScalarMap | None) -> list[Figure]:
    """Slices worth a look with the reasons; a few from the middle where nothing stands out."""
    if result.source.array.ndim != 3:
        return []
    reasons: dict[int, list[str]] = {}
    lesions = components(result.labels.array, result.labels)[:_LESIONS_SHOWN] if result.labels is not None else []
    for number, lesion in enumerate(lesions, start=1):
        k = lesion.start[0] + int(np.argmax(lesion.slice_counts))
        which = "" if len(lesions) == 1 else f" of lesion {number}"
        reasons.setdefault(k, []).append(f"largest area{which}")
    for rank, k in enumerate(result.key_slices, start=1):
        reasons.setdefault(k, []).append(f"uncertainty rank {rank}")
    if not reasons:
        count = result.source.slice_count
        reasons = {k: ["overview"] for k in sorted({round(count * share) for share in (0.4, 0.55, 0.7)}) if k < count}
    views = slice_views(result.source, list(reasons), result.labels, table, overlay)
    return [Figure(view, reasons[view.index], _position(result, view.index)) for view in views]


def _position(result: Result, k: int) -> str:
    """Number of the slice, and the coordinate of its centre that Slicer shows for its stack."""
    source = result.source
    axis = int(np.abs(source.normal_ras).argmax())
    rows, columns = source.array.shape[-2:]
    centre = source.origins_ras[k] + (columns - 1) / 2 * source.column_step_ras + (rows - 1) / 2 * source.row_step_ras
    letter = "RAS"[axis] if centre[axis] >= 0 else "LPI"[axis]
    place = f"{letter} {abs(centre[axis]):.1f} mm".replace(" ", "\N{NO-BREAK SPACE}")
    return f"slice {k + 1} of {source.slice_count} · {place}"


# -- facts ----------------------------------------------------------------------------------------------------


def _window_text(result: Result) -> str:
    low, high = grey_window(result.source)
    return f"level {(low + high) / 2:.0f}, width {high - low:.0f} {result.source.unit}".strip()


def _image_rows(result: Result) -> list[tuple[str, str]]:
    """Size and geometry of the measured image."""
    source = result.source
    slices, rows, columns = source.array.shape[-3:]
    width, height, gap = source.spacing_mm
    thickness = source.slice_thicknesses_mm
    gaps = f"{gap:.2f}" if source.is_uniform else f"{thickness.min():.2f} to {thickness.max():.2f}"
    step = source.ijk_to_ras[:3, 2]
    tilt = math.degrees(math.acos(min(1.0, abs(step @ source.normal_ras) / float(np.linalg.norm(step)))))
    facts = [
        ("Voxels", f"{columns} × {rows} × {slices}"),
        ("Voxel size", f"{width:.3g} × {height:.3g} × {gaps} mm"),
        ("Gantry tilt", f"{tilt:.1f}°" if source.is_sheared else "none"),
    ]
    left_out = ("warnings", *FREE_TEXT_FACTS)  # warnings stand at the top of the page
    return facts + _rows({key: value for key, value in source.meta.items() if key not in left_out})


def _rows(facts: dict, prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as (name, text) rows; empty ones are left out."""
    rows = []
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            rows += _rows(value, f"{name} · ")
        elif isinstance(value, (list, tuple)):
            rows.append((name, ", ".join(number_text(item) for item in value)))
        elif value not in (None, ""):
            rows.append((name, number_text(value)))
    return [(name, text) for name, text in rows if text]
