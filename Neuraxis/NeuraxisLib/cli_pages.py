"""What ``neuraxis models`` and ``neuraxis info`` print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from NeuraxisLib.model_store import StoredModel
from NeuraxisLib.models import ModelFile, installed_models
from NeuraxisLib.panel import megabytes, score_words, trained_on
from NeuraxisLib.task import Task
from NeuraxisLib.volume import Volume

#: Facts on a training that :func:`~NeuraxisLib.panel.trained_on` puts into words.
_TOLD = ("data", "steps", "date")
_AXES = (("R", "L"), ("A", "P"), ("S", "I"))


def models_page(tasks: Iterable[Task], as_json: bool = False) -> str:
    """The installed models of the tasks: name, title, training, licence and notice of each card."""
    found = [(task, model) for task in tasks for model in installed_models(task)]
    if as_json:
        return json.dumps([{**_card(model), "path": str(model.path)} for _, model in found], indent=1)
    if not found:
        return "No model is installed."
    return "\n\n".join(_card_text(model) for _, model in found)


def stored_page(rows: Sequence[StoredModel], disk_use_bytes: int, as_json: bool = False) -> str:
    """The models of a store as a table, and what the user's folder takes on the disk."""
    if as_json:
        records = [
            {
                "name": row.name,
                "task": row.card.get("task", ""),
                "licence": row.card.get("licence", ""),
                "size_bytes": row.size_bytes,
                "place": row.place,
                "check": row.check,
                "note": row.note,
                "path": str(row.path) if row.path else None,
            }
            for row in rows
        ]
        return json.dumps({"models": records, "disk_use_bytes": disk_use_bytes}, indent=1)
    heads = ["model", "task", "licence", "size", "state"]
    table = [
        [row.name, row.card.get("task", ""), row.card.get("licence", ""), megabytes(row.size_bytes), row.state]
        for row in rows
    ]
    return "\n".join([*_columns([heads, *table]), f"Installed models take {megabytes(disk_use_bytes)}."])


def _card(model: ModelFile) -> dict[str, Any]:
    keys = ("name", "task", "title", "architecture", "threshold", "training", "scores", "licence", "notice")
    return {key: model.header[key] for key in keys}


def _card_text(model: ModelFile) -> str:
    card = _card(model)
    arguments = ", ".join(f"{name} {value}" for name, value in card["architecture"]["arguments"].items())
    rows = [
        ("title", card["title"]),
        ("task", card["task"]),
        ("network", f"{card['architecture']['name']} ({arguments})"),
        *_flat("training", card["training"]),
        ("trained on", trained_on(card["training"])),
        *((f"score: {name}", value) for name, value in score_words(card["scores"])),
        ("licence", card["licence"]),
        ("notice", card["notice"]),
        ("file", str(model.path)),
    ]
    return "\n".join([card["name"], *_aligned([row for row in rows if row[1]])])


def _flat(name: str, values: dict[str, Any]) -> list[tuple[str, str]]:
    """The single facts of a part of the card, but for those that are told in a sentence."""
    plain = [(key, value) for key, value in values.items() if isinstance(value, str | int | float | bool)]
    return [(f"{name}: {key}", str(value)) for key, value in plain if key not in _TOLD]


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]


def info_page(file: Path, series: str | None, as_json: bool = False) -> str:
    """The geometry of an image; for a DICOM folder without ``series`` the list of its series."""
    if file.is_dir() and series is None:
        from NeuraxisLib.dicom import list_series

        found = [entry.choice() for entry in list_series(file)]
        return json.dumps(found, indent=1, default=str) if as_json else series_table(found)
    from NeuraxisLib.run import read_input

    facts = geometry(read_input(file, series))
    if as_json:
        return json.dumps(facts, indent=1, default=str)
    return "\n".join(_aligned([(name.replace("_", " "), _text(value)) for name, value in facts.items()]))


def geometry(volume: Volume) -> dict[str, Any]:
    """Facts on an image's grid and values, with units in the names."""
    columns, rows, slices = volume.spacing_mm
    array = np.asarray(volume.array)
    thicknesses = volume.slice_thicknesses_mm
    return {
        "size": list(array.shape[::-1]),
        "voxel_mm": [round(columns, 4), round(rows, 4), round(slices, 4)],
        "axes": orientation(volume),
        "equal_slice_gaps": volume.is_uniform,
        "slice_thickness_mm": [round(float(thicknesses.min()), 4), round(float(thicknesses.max()), 4)],
        "shear_degrees": round(shear_degrees(volume), 2),
        "field_of_view_mm": [round(s * n, 1) for s, n in zip(volume.spacing_mm, array.shape[:-4:-1])],
        "value_range": [array.min().item(), array.max().item()],
        "value_type": str(array.dtype),
        "unit": volume.unit or "unknown",
        **{name: value for name, value in volume.meta.items() if value not in (None, "", [], {})},
    }


def orientation(volume: Volume) -> str:
    """Where columns, rows and slices run, nearest anatomical directions: ``"LPS"`` for the usual axial scan."""
    letters = []
    for axis in range(3):
        step = volume.ijk_to_ras[:3, axis]
        ras = int(np.argmax(np.abs(step)))
        letters.append(_AXES[ras][0 if step[ras] > 0 else 1])
    return "".join(letters)


def shear_degrees(volume: Volume) -> float:
    """Angle between the slice normal and the way from slice to slice: the gantry tilt of a tilted CT."""
    step = volume.ijk_to_ras[:3, 2]
    cosine = abs(step @ volume.normal_ras) / np.linalg.norm(step)
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def series_table(found: Sequence[dict]) -> str:
    """DICOM series as a table; the columns are the facts that any of them has."""
    columns = [key for key in found[0] if any(row[key] not in ("", None) for row in found)]
    table = [[column.replace("_", " ") for column in columns], *[[_text(row[key]) for key in columns] for row in found]]
    return "\n".join(_columns(table))


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with aligned columns."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        numbers = all(isinstance(item, int | float) for item in value)
        return (" x " if numbers else "; ").join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{item} {name}" for name, item in value.items())
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
