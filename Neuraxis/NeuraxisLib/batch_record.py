"""The record of a finished case: what the ledger keeps of it and what the tables of the batch show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from NeuraxisLib.atomic import remove_unfinished
from NeuraxisLib.batch_cases import Case
from NeuraxisLib.errors import InputError, NeuraxisError
from NeuraxisLib.result_folder import RESULT_FILE
from NeuraxisLib.run import remove_leftovers

#: What the line of a finished case may hold beside its name, state and folder.
_TEXTS = ("recipe", "stamp", "chosen", "finished", "input_sha256", "version", "model", "code", "error")
#: Numbers beyond this are no measurement of a patient, and no table takes them.
_LARGEST = 1e15


def is_record(record: object) -> bool:
    """Whether this can be a line of a ledger. One that the disk has damaged is passed over: its case is done again."""
    if not isinstance(record, dict):
        return False
    texts = [record[name] for name in ("case", "state", "folder", *_TEXTS) if record.get(name) is not None]
    numbers = record.get("values", {})
    warned = record.get("warnings", [])
    if not (all(isinstance(text, str) for text in texts) and isinstance(numbers, dict) and isinstance(warned, list)):
        return False
    folder = record.get("folder") or ""
    return (
        bool(record.get("case"))
        and record.get("state") in ("done", "failed")
        and Path(folder).name == folder
        and folder not in ("", "..")
        and all(isinstance(text, str) for text in (*numbers, *warned))
        and all(_is_number(number) for number in (record.get("seconds"), *numbers.values()) if number is not None)
        and isinstance(record.get("attempts", 0), int)
        and _is_number(record.get("attempts", 0))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def done_record(entry: Any, seconds: float) -> dict[str, Any]:
    """The ledger's line for a case whose result folder is complete.

    Args:
        entry: of the batch; its ``folder`` holds the result.
        seconds: from giving it to a worker to the end of writing.

    Raises:
        InputError: the folder does not hold a readable result.
    """
    document = _document(entry.folder)
    try:
        provenance = document.get("provenance") or {}
        record = {
            **_common(entry, "done", seconds),
            "input_sha256": provenance.get("input_sha256", ""),
            "values": values(document.get("measurements") or []),
            "warnings": list(document.get("warnings") or []),
            "version": document.get("neuraxis_version", ""),
            "model": _model_name(provenance),
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        record = None
    if not is_record(record):
        raise InputError(f"The result in '{entry.folder.name}' is damaged; run the case again.")
    return record


def failed_record(entry: Any, error: NeuraxisError, seconds: float) -> dict[str, Any]:
    """The ledger's line for a case that failed, with the sentence that says why."""
    sentence = _without_paths(str(error), entry.case)
    if entry.attempts > 1:
        sentence += f" (It was tried {entry.attempts} times.)"
    return {**_common(entry, "failed", seconds), "code": error.code, "error": sentence}


def values(measurements: list[Mapping[str, Any]]) -> dict[str, float | None]:
    """Column name with unit -> number; the ends of an interval have columns of their own."""
    found: dict[str, float | None] = {}
    for m in measurements:
        name = f"{m['segment']}: {m['name']}" if m.get("segment") else m["name"]
        unit = f" [{m['unit']}]" if m.get("unit") else ""
        found[f"{name}{unit}"] = m["value"]
        if m.get("interval"):
            found[f"{name}, low{unit}"], found[f"{name}, high{unit}"] = m["interval"]
    return found


def main_value(record: Mapping[str, Any]) -> str:
    """The first measurement of a record with its unit, such as ``"12.3 mL"``; empty if there is none."""
    for column, value in (record.get("values") or {}).items():
        if value is not None:
            unit = column.rpartition("[")[2].rstrip("]") if column.endswith("]") else ""
            number = f"{value:.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"
            return f"{number} {unit}".strip()
    return ""


def mark_of(folder: Path) -> dict[str, str]:
    """``recipe`` and ``input_sha256`` that a batch has written into a result; empty if there is no such result."""
    try:
        provenance = _document(folder).get("provenance") or {}
    except InputError:
        return {}
    if not isinstance(provenance, dict):
        return {}
    return {key: provenance[key] for key in ("recipe", "input_sha256") if key in provenance}


def sweep(output: Path) -> None:
    """Remove what killed processes left half written in the output folder of a batch that has come to its end.

    A worker on another computer, or one whose end nobody has taken note of, cannot be told from a living one by its
    number; that the batch is through tells it.
    """
    remove_unfinished(output)
    for partial in list(output.glob(".*.partial")):
        kind, _, owner = partial.name.removesuffix(".partial").rpartition(".")
        if owner.isdigit():
            remove_leftovers(output / kind[1:].removesuffix(".old"), dead=[int(owner)])


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _common(entry: Any, state: str, seconds: float) -> dict[str, Any]:
    return {
        "case": entry.case.name,
        "state": state,
        "folder": entry.folder.name,
        "recipe": entry.recipe,
        "stamp": entry.stamp,
        "chosen": entry.case.chosen,
        "seconds": round(seconds, 3),
        "attempts": entry.attempts,
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _document(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The result in '{folder.name}' cannot be read; run the case again.") from error
    if not isinstance(document, dict):
        raise InputError(f"The result in '{folder.name}' is damaged; run the case again.")
    return document


def _model_name(provenance: Mapping[str, Any]) -> str:
    model = provenance.get("model") or ""
    return str(model.get("name", "")) if isinstance(model, Mapping) else str(model)


def _without_paths(sentence: str, case: Case) -> str:
    """The sentence with file names in the place of whole paths."""
    for value in case.inputs.values():
        for path in [value] if isinstance(value, str) else value[:1]:
            parent = str(Path(path).parent)
            if len(parent) > 1:
                sentence = sentence.replace(f"{parent}/", "").replace(f"{parent}\\", "").replace(parent, "the folder")
    return sentence
