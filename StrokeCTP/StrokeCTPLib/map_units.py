"""Which perfusion maps there are, the units in which they are kept, and maps of other units made to fit or refused.

Blood flow and volume are kept per 100 g of tissue; per 100 mL is 1.05 times as much (brain tissue of 1.05 g/mL,
CT perfusion specification 2.9). A unit is never guessed from a scale: what states none is taken in the unit of the
field only if its values can be that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume

#: Map -> unit in which it is kept.
MAP_UNITS = {
    "cbf": "mL/100 g/min", "cbv": "mL/100 g", "mtt": "s", "tmax": "s", "ttp": "s", "delay": "s", "mip": "HU",
}  # fmt: skip
#: Map -> what it is called.
MAP_TITLES = {
    "cbf": "Cerebral blood flow", "cbv": "Cerebral blood volume", "mtt": "Mean transit time", "tmax": "Tmax",
    "ttp": "Time to peak", "delay": "Delay", "mip": "Maximum intensity projection",
}  # fmt: skip
#: Grams of brain tissue in a mL.
DENSITY = 1.05
_TIMES = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "min": 60.0}
#: Map -> unit, lower case and without blanks, brackets and dots -> factor to the unit in which it is kept.
_FACTORS = {
    "cbf": {
        **dict.fromkeys(("ml/100g/min", "ml/100gmin", "ml/min/100g"), 1.0),
        **dict.fromkeys(("ml/100ml/min", "ml/100mlmin", "ml/min/100ml"), 1 / DENSITY),
        **dict.fromkeys(("ml/g/min", "ml/gmin", "ml/min/g"), 100.0),
        **dict.fromkeys(("ml/ml/min", "ml/mlmin", "ml/min/ml"), 100 / DENSITY),
    },
    "cbv": {"ml/100g": 1.0, "ml/100ml": 1 / DENSITY, "ml/g": 100.0, "ml/ml": 100 / DENSITY},
    **dict.fromkeys(("mtt", "tmax", "ttp", "delay"), _TIMES),
    "mip": {"hu": 1.0, "hnsf'u": 1.0},
}
#: Words with which a file says that it knows no unit; CT images say HU of anything.
_UNSTATED = ("", "us", "unspecified", "unknown", "none", "nounits", "1", "hu", "hnsf'u")
#: Where the median of a brain's values lies, lesions included; other scales of ten and other units lie outside.
_MEDIANS = {
    "cbf": (3.0, 200.0), "cbv": (0.3, 25.0), "mtt": (0.8, 60.0), "tmax": (0.05, 60.0), "ttp": (0.3, 90.0),
    "delay": (-5.0, 60.0), "mip": (-200.0, 500.0),
}  # fmt: skip


@dataclass(frozen=True)
class FoundMap:
    """A map as a reader found it.

    Attributes:
        kind: one of :data:`MAP_UNITS`.
        volume: float (k, j, i), in ``unit``; NaN where it has no value.
        unit: as the source states it; empty if it does not.
        name: how messages call it; a file name or series key, never a path.
        confidence: 0 to 1 on the same grid, for maps read from colours.
        notes: sentences to tell the user.
    """

    kind: str
    volume: Volume
    unit: str
    name: str
    confidence: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def unit_factor(kind: str, unit: str, name: str) -> float | None:
    """What values of a map have to be multiplied by to be in the unit of the field; None if no unit is stated.

    Raises:
        InputError: the unit is not one of this kind of map, or the map is relative.
    """
    plain = _plain(unit)
    if plain in _FACTORS[kind]:
        return _FACTORS[kind][plain]
    if plain in _UNSTATED:
        return None
    if plain in ("%", "pct", "percent", "ratio"):
        raise InputError(
            f"{name} is relative ('{unit}'), not {kind.upper()} in {MAP_UNITS[kind]}; choose the absolute map."
        )
    raise InputError(
        f"{name} is in '{unit}', which is no unit of {kind.upper()}; convert it to {MAP_UNITS[kind]} or choose another."
    )


def in_field_unit(found: FoundMap) -> FoundMap:
    """The map in the unit of the field, float32.

    Raises:
        InputError: another unit, or values that cannot be in that unit.
    """
    factor = unit_factor(found.kind, found.unit, found.name)
    unit, notes = MAP_UNITS[found.kind], list(found.notes)
    values = found.volume.array.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    if factor is None:
        notes.append(f"{found.name} states no unit; it was taken as {found.kind.upper()} in {unit}.")
    elif factor != 1:
        values *= np.float32(factor)
        notes.append(f"{found.name} was converted from {found.unit} to {unit}.")
    _check_values(found, values)
    return replace(found, volume=found.volume.like(values, unit), unit=unit, notes=notes)


def _check_values(found: FoundMap, values: np.ndarray) -> None:
    known = values[np.isfinite(values) & (values != 0)]
    if not known.size:
        raise InputError(f"{found.name} is empty: it has no value other than zero; export the map again.")
    (low, high), median = _MEDIANS[found.kind], float(np.median(known))
    if not low <= median <= high:
        raise InputError(
            f"{found.name} cannot be {found.kind.upper()} in {MAP_UNITS[found.kind]} (its median is {median:.3g}); "
            "convert it to that unit or export it again."
        )


def _plain(unit: str) -> str:
    """Such as ``"ml/100g/min"`` for ``"mL/(100.g.min)"``, ``"ml/[100]g/min"`` and ``"ml per 100 g per minute"``."""
    plain = re.sub(r"\bper\b", "/", unit.lower())
    plain = re.sub(r"minutes?", "min", plain)
    return re.sub(r"[\s()\[\]{}.*·_]", "", plain)
