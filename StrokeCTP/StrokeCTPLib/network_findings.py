"""Findings from a network's classes instead of from thresholds, in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuraxisLib.result import Measurement
from NeuraxisLib.task import Progress
from NeuraxisLib.uncertainty import interval_note, volume_interval
from NeuraxisLib.volume import Volume
from StrokeCTPLib.findings import KEY_SLICES, NO_CORE, Findings, criteria_table
from StrokeCTPLib.lesions import volume_ml
from StrokeCTPLib.mismatch import Mismatch

if TYPE_CHECKING:
    from NeuraxisLib.models import ModelFile
    from StrokeCTPLib.task import StrokeOptions

#: Probability around which the intervals are made: classes are told by the likeliest.
_EVEN = 0.5
#: Between these probabilities a voxel is in doubt.
_DOUBT = (0.1, 0.9)


def measure_by_network(
    maps: Mapping[str, Volume],
    grid: Volume,
    model: ModelFile,
    options: StrokeOptions,
    by_thresholds: Findings | None,
    progress: Progress,
) -> tuple[Findings, dict[str, Any]]:
    """Lesions as a network draws them; those of the thresholds, where there are any, stay as numbers to compare with.

    Args:
        maps: axial, NaN outside the tissue. grid: their geometry.

    Returns:
        Findings, and facts for provenance.
    """
    from StrokeCTPLib.networks.classes import LABEL_OF, decoded
    from StrokeCTPLib.prediction import predict
    from StrokeCTPLib.threshold_rules import CORE

    probabilities, facts = predict(maps, model, options, progress)
    classes = tuple(facts["classes"])
    labels = decoded(probabilities, classes)
    known = np.any([np.isfinite(volume.array) for name, volume in maps.items() if name != "mip"], axis=0)
    labels *= known
    late = sum(part for part, name in zip(probabilities, classes) if LABEL_OF[name]) * known
    core = probabilities[classes.index("core")] * known if "core" in classes else None
    found = _volumes(labels, grid, core is not None, CORE)
    measurements = _measurements(found, labels, grid, late, core, CORE)
    tables = {"criteria": criteria_table(found, options.patient)} if core is not None else {}
    if by_thresholds is not None:
        measurements += [
            Measurement(f"{m.name} by thresholds", m.value, m.unit, m.interval, "", m.note)
            for m in by_thresholds.measurements[:2]
        ]
        tables["grades"] = by_thresholds.tables["grades"]
    doubt = (late > _DOUBT[0]) & (late < _DOUBT[1])
    if core is not None:
        doubt |= (core > _DOUBT[0]) & (core < _DOUBT[1])
    amount = doubt.sum(axis=(1, 2)) * grid.voxel_volumes_ml
    ranked = [int(k) for k in np.argsort(-amount, kind="stable")[:KEY_SLICES] if amount[k] > 0]
    lesions = None if by_thresholds is None else by_thresholds.lesions
    warnings = [*facts.pop("warnings", []), *_beyond_its_view(known, grid, model)]
    if core is None:
        warnings.append("The network tells no core from penumbra, so there is no mismatch.")
    return Findings(labels, doubt, lesions, found, measurements, tables, warnings, ranked), facts


def _volumes(labels: np.ndarray, grid: Volume, tells_core: bool, core: int) -> Mismatch:
    voxel_ml = grid.voxel_volumes_ml
    hypo, core_ml = volume_ml(labels > 0, voxel_ml), volume_ml(labels == core, voxel_ml)
    ratio = hypo / core_ml if tells_core and core_ml > 0 else None
    return Mismatch(hypo, core_ml, hypo - core_ml, ratio, None, None)


def _measurements(
    found: Mismatch, labels: np.ndarray, grid: Volume, late: np.ndarray, core: np.ndarray | None, core_label: int
) -> list[Measurement]:
    note = interval_note(_EVEN)
    hypo = volume_interval(late, grid, _EVEN, labels > 0)
    whole = Measurement("Hypoperfused volume", found.hypoperfused_ml, "mL", hypo, "", "Core included.")
    if core is None:
        return [whole]
    inner = volume_interval(core, grid, _EVEN, labels == core_label)
    gap = (max(hypo[0] - inner[1], 0.0), hypo[1] - inner[0])
    return [
        Measurement("Core volume", found.core_ml, "mL", inner, "", note),
        whole,
        Measurement("Mismatch volume", found.mismatch_ml, "mL", gap, "", "Hypoperfused minus core."),
        Measurement("Mismatch ratio", found.ratio, "", None, "", "Hypoperfused / core." if found.ratio else NO_CORE),
    ]


def _beyond_its_view(known: np.ndarray, grid: Volume, model: ModelFile) -> list[str]:
    """What to say if the brain is larger than the square that the network is shown."""
    shown = model.header.get("preprocessing", {})
    if not known.any() or "size" not in shown or "pixel_mm" not in shown:
        return []
    view_mm = float(shown["size"]) * float(shown["pixel_mm"])
    extents = (np.ptp(np.flatnonzero(known.any(axis=axes))) + 1 for axes in ((0, 1), (0, 2)))
    widest_mm = max(extent * spacing for extent, spacing in zip(extents, grid.spacing_mm))
    if widest_mm <= view_mm + 1:
        return []
    return [f"The network sees {view_mm:.0f} mm of a brain of {widest_mm:.0f} mm; what lies beyond was not looked at."]
