"""What a person's correction means for the stroke task: volumes of the new outlines, maps and truth to train with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Measurement, Result
from NeuraxisLib.review_corrections import EDITED_NOTE
from NeuraxisLib.volume import Volume
from StrokeCTPLib.findings import NO_CORE, criteria_table
from StrokeCTPLib.lesions import volume_ml
from StrokeCTPLib.live_lesions import CORE
from StrokeCTPLib.map_units import MAP_UNITS
from StrokeCTPLib.mismatch import Mismatch, Patient

LAYOUT, HAS_OUTLINE = "maps", True
#: Measures that say nothing of an outline drawn by hand: the rules that the one before came from.
_OF_RULES = ("Tmax threshold", "Delay threshold", "Relative CBF threshold", "Reference CBF")
#: Delay below which tissue outside the lesion is normal, Tmax in s.
_NORMAL_S = 4.0


def remeasured(result: Result) -> Result:
    """The result with volumes, ratio, CBV index and trial criteria of its label map.

    Grades of delay and the intensity ratio come from Tmax, not from the outline; they stay.
    """
    maps = {name: entry.volume.array for name, entry in result.maps.items()}
    found = outlined(result.labels, maps, result.provenance)
    own = _measurements(found)
    named = {measurement.name for measurement in own}
    kept = [m for m in result.measurements if m.name not in named and m.name not in _OF_RULES]
    tables = {**result.tables, "criteria": criteria_table(found, patient_told(result.provenance))}
    return replace(result, measurements=[*own, *kept], tables=tables)


def outlined(labels: Volume, maps: Mapping[str, np.ndarray], provenance: Mapping) -> Mismatch:
    """Volumes and ratios of outlines.

    Args:
        labels: 1 hypoperfused outside the core, 2 core.
        maps: name in the result -> (k, j, i), as stored. provenance: of the run; which family of maps was drawn on.
    """
    axial, order = labels.axial()
    hypoperfused = axial.array > 0
    hypo_ml, core_ml = (volume_ml(mask, axial.voxel_volumes_ml) for mask in (hypoperfused, axial.array == CORE))
    family = "_model" if (provenance.get("lesions") or {}).get("family") == "model" else ""
    cbv, tmax = maps.get(f"cbv{family}"), maps.get("tmax")
    index = None
    if cbv is not None and tmax is not None:
        index = _cbv_index(hypoperfused, order.apply_array(cbv), order.apply_array(tmax), _tissue(maps, order))
    return Mismatch(hypo_ml, core_ml, hypo_ml - core_ml, hypo_ml / core_ml if core_ml > 0 else None, None, index)


def _tissue(maps: Mapping[str, np.ndarray], order) -> np.ndarray:
    """Where maps have values: bool (k, j, i), axial."""
    if "brain" in maps:
        return order.apply_array(maps["brain"]) > 1
    return np.any([order.apply_array(maps[name]) != 0 for name in ("cbf", "cbv", "tmax") if name in maps], axis=0)


def _cbv_index(hypoperfused: np.ndarray, cbv: np.ndarray, tmax: np.ndarray, tissue: np.ndarray) -> float | None:
    """Mean CBV of the hypoperfused tissue over that of normal tissue; None where either is missing."""
    within, normal = hypoperfused & tissue, tissue & ~hypoperfused & (tmax < _NORMAL_S)
    if not within.any() or not normal.any() or float(cbv[normal].mean()) <= 0:
        return None
    return float(cbv[within].mean() / cbv[normal].mean())


def _measurements(found: Mismatch) -> list[Measurement]:
    ratio_note = "Hypoperfused / core." if found.ratio else NO_CORE
    return [
        Measurement("Core volume", found.core_ml, "mL", None, "", EDITED_NOTE),
        Measurement("Hypoperfused volume", found.hypoperfused_ml, "mL", None, "", "Core included."),
        Measurement("Mismatch volume", found.mismatch_ml, "mL", None, "", "Hypoperfused minus core."),
        Measurement("Mismatch ratio", found.ratio, "", None, "", ratio_note),
        Measurement("CBV index", found.cbv_index, "", None, "", "Mean CBV, hypoperfused / normal tissue."),
    ]


def patient_told(provenance: Mapping) -> Patient:
    """What the run was told of the patient."""
    options = provenance.get("options") or {}
    return Patient(*(options.get(name) for name in ("nihss", "age", "onset_hours")))


def write_case(result: Result, image: Volume, folder: Path, name: str) -> dict[str, str]:
    """Write maps and label map of a case; returns its line in the table of layout ``maps``.

    The image itself is not needed: networks of this task read maps.
    """
    place = folder / "maps" / name
    place.mkdir(parents=True)
    (folder / "labels").mkdir(exist_ok=True)
    for kind, unit in MAP_UNITS.items():
        if kind in result.maps:
            volume = replace(result.maps[kind].volume, unit=unit)
            write_volume(volume, place / f"{kind}.nrrd", compress=True, make_regular=True)
    write_volume(result.labels, folder / "labels" / f"{name}.nrrd", compress=True, make_regular=True)
    told = patient_told(result.provenance)
    known = {"nihss": told.nihss, "age": told.age_years}
    row = {"id": name, "maps": f"maps/{name}", "truth": f"labels/{name}.nrrd", "patient": name}
    return row | {key: "" if value is None else f"{value:g}" for key, value in known.items()}
