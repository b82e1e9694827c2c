"""What layouts of perfusion maps share: maps of numbers as a stored case, numbers of the patient from a table."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.volume import Volume
from StrokeCTPLib.map_preprocessing import SCALAR_RANGES
from StrokeCTPLib.networks.configurations import ALL_MAPS, MIP
from Training.layouts.base import Source
from Training.store import StoredCase
from Training.stroke_cache import NUMBERS

#: What a table says of a number that nobody knows.
_UNKNOWN = ("", "-", "na", "nan", "?", "unknown")


def stored_numbers(
    source: Source,
    maps: Mapping[str, Volume],
    truth: np.ndarray | None,
    scalars: dict[str, float],
    brain: np.ndarray | None = None,
    warnings: list[str] | None = None,
) -> StoredCase:
    """Maps of numbers on one grid as a case; 0 where they have no value, which is outside its region.

    Args:
        source: the case.
        maps: name -> map, NaN where it has no value.
        truth: labels on their grid, or None.
        scalars: numbers of the patient.
        brain: bool, narrows the region down; None takes all that has a value.
        warnings: of reading.

    Raises:
        GeometryError: the truth has another size.
    """
    names = [name for name in ALL_MAPS if name in maps]
    arrays = [np.asarray(maps[name].array, np.float32) for name in names]
    if truth is not None and truth.shape != arrays[0].shape:
        raise GeometryError(f"The truth of '{source.id}' does not have the size of its maps; bring both onto one grid.")
    finite = [np.isfinite(array) for name, array in zip(names, arrays) if name != MIP]
    region = np.any(finite, axis=0) if brain is None else np.any(finite, axis=0) & brain
    image = Volume(np.stack([np.nan_to_num(array, nan=0.0) for array in arrays]), maps[names[0]].ijk_to_ras, NUMBERS)
    return source.stored(image, truth, warnings=warnings, region=region, channels=tuple(names), scalars=scalars)


def numbers_of_patient(row: Mapping[str, str]) -> dict[str, float]:
    """NIHSS, age (also ``071Y``) and gender (M is 0, F is 1) of a line of a table, those that are known.

    Raises:
        InputError: one of them is no number, or cannot be.
    """
    found = {}
    for name, (low, high) in SCALAR_RANGES.items():
        text = row.get(name, "").strip()
        if text.lower() in _UNKNOWN:
            continue
        if name == "gender" and text[0].upper() in "MFW":
            found[name] = 0.0 if text[0].upper() == "M" else 1.0
            continue
        number = re.fullmatch(r"(\d+(?:[.,]\d+)?)\s*Y?", text, re.IGNORECASE)
        value = float(number[1].replace(",", ".")) if number else float("nan")
        if not low <= value <= high:
            raise InputError(f"The {name} '{text}' in the table is no number from {low} to {high}; correct it.")
        found[name] = value
    return found
