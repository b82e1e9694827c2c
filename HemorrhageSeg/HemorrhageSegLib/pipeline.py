"""From a head CT to a measured hemorrhage: geometry, brain, a model's finding, density rules, measures.

Which model finds blood how is :mod:`HemorrhageSegLib.prediction`'s business; a new kind of model (or a method without
weights, see :data:`HemorrhageSegLib.prediction.CLASSICAL`) is added there and changes nothing here.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from HemorrhageSegLib import legacy
from HemorrhageSegLib.brain import BrainMask
from HemorrhageSegLib.checks import require_head_ct
from HemorrhageSegLib.density import drop_bone_edges, searched_space
from HemorrhageSegLib.findings import Findings, measure_hemorrhage
from HemorrhageSegLib.prediction import Prediction, chosen_method, finder_for
from HemorrhageSegLib.task import HemorrhageOptions
from NeuraxisLib.clock import Clock
from NeuraxisLib.models import ModelFile
from NeuraxisLib.provenance import model_facts, software
from NeuraxisLib.result import Result, ScalarMap
from NeuraxisLib.task import Progress
from NeuraxisLib.uncertainty import binary_entropy, most_uncertain_slices
from NeuraxisLib.uncertainty_methods import UncertaintyMethod
from NeuraxisLib.volume import AxisOrder, Volume

#: Probability and entropy are kept in steps of this: finer digits are noise, and noise does not compress.
MAP_STEP = 1 / 1024
#: Below this confidence of the brain extraction a reader is warned; far below it the scan is refused.
SURE_BRAIN = 0.6
KEY_SLICES = 5


def run(inputs: dict[str, Volume], model: ModelFile, options: HemorrhageOptions, progress: Progress) -> Result:
    """Find and measure hemorrhage in ``inputs["ct"]``.

    Args:
        inputs: ``ct``: a non-contrast head CT in HU, (k, j, i), any orientation, tilt or slice gaps.
        model: the network and how it sees a head.
        options: see :class:`~HemorrhageSegLib.task.HemorrhageOptions`.
        progress: told about every stage; cancels between and within them.

    Returns:
        Label map, probability and uncertainty on the source grid, measurements, tables, warnings, provenance.

    Raises:
        InputError: no head CT with a brain in view.
        GeometryError: the grid cannot be measured on.
        ModelError: the model file does not hold what its header says.
    """
    source, clock = replace(inputs["ct"], unit="HU"), Clock()
    method, find = chosen_method(model, options), finder_for(model, options)
    progress(0.0, "Finding the brain")
    with clock.stage("brain"):
        brain = require_head_ct(source)
        axial, order = source.axial()
        brain = replace(brain, mask=order.apply_array(brain.mask))
    found = find(axial, brain.mask, progress.part(0.1, 0.8), clock)
    progress(0.8, "Measuring")
    with clock.stage("measures"):
        threshold, smallest_ml = _rules(model, options)
        _keep_searched_space(found, axial, brain, options, threshold)
        findings = measure_hemorrhage(axial, found.probability, brain.mask, threshold, smallest_ml, found.meaning)
        if options.legacy_fixed_dpi_volume and found.slices is not None:
            findings.measurements.append(legacy.fixed_dpi_measurement(found.slices))
        progress(0.9, "Measuring")
        result = _result(source, order, brain, findings)
        _add_maps(result, order, brain, found, method, options)
    result.warnings += [*found.warnings, model.header["notice"]]
    result.provenance = _provenance(model, options, method, found, clock)
    progress(1.0, "Measuring")
    return result


def _keep_searched_space(
    found: Prediction, axial: Volume, brain: BrainMask, options: HemorrhageOptions, threshold: float
) -> None:
    """Leave what was found where blood can be, without the blurred edge of bone, in steps of MAP_STEP."""
    _in_steps(found.probability)
    if options.legacy_no_skull_strip:
        return
    space = searched_space(axial, brain.mask)
    maps = [found.probability] if found.doubt is None else [found.probability, found.doubt]
    for values in maps:
        values *= space
    drop_bone_edges(maps[0], axial, space, threshold, *maps[1:])


def _in_steps(values: np.ndarray) -> np.ndarray:
    values *= 1 / MAP_STEP
    np.rint(values, out=values)
    values *= MAP_STEP
    return values


def _rules(model: ModelFile, options: HemorrhageOptions) -> tuple[float, float]:
    """Threshold and smallest component in mL: the options' if given, else the model's."""
    threshold = options.threshold if options.threshold > 0 else float(model.header["threshold"])
    if options.legacy_mask_threshold:
        threshold = MAP_STEP  # whatever is left after rounding to 8 bits
    smallest = options.min_component_ml if options.min_component_ml >= 0 else float(model.header["min_component_ml"])
    return threshold, smallest


def _result(source: Volume, order: AxisOrder, brain: BrainMask, findings: Findings) -> Result:
    """The Result, without maps, with labels taken back to the stored order of the axes."""
    warnings = [*brain.notes, *findings.warnings]
    if brain.confidence < SURE_BRAIN:
        warnings.append("The brain was found with little confidence; check the outline of the searched space.")
    return Result(
        task="hemorrhage",
        source=source,
        labels=source.like(np.ascontiguousarray(order.undo_array(findings.labels))),
        measurements=findings.measurements,
        tables=findings.tables,
        warnings=warnings,
    )


def _add_maps(
    result: Result,
    order: AxisOrder,
    brain: BrainMask,
    found: Prediction,
    method: UncertaintyMethod,
    options: HemorrhageOptions,
) -> None:
    """Probability, uncertainty (always called "entropy", whatever the method) and the slices to look at first."""

    def stored(axial: np.ndarray, title: str, unit: str = "", value_range: tuple = (0.0, 1.0), note: str = ""):
        array = np.ascontiguousarray(order.undo_array(axial))
        return ScalarMap(result.source.like(array, unit), title, value_range, note)

    doubt = found.probability if found.doubt is None else found.doubt
    title = f"Hemorrhage ({found.meaning})" if found.meaning else "Probability of hemorrhage"
    uncertainty = _in_steps(method.of(doubt))
    result.maps["probability"] = stored(found.probability, title)
    result.maps["entropy"] = stored(uncertainty, method.title, method.unit, method.value_range, method.description)
    if options.keep_brain_mask:
        result.maps["brain"] = stored(brain.mask.astype(np.uint8), "Intracranial space")
    # slices are ranked by entropy, whatever is shown, so that the same slices count as certain
    entropy = _in_steps(binary_entropy(doubt)) if method.paper_formula else uncertainty
    result.key_slices = most_uncertain_slices(order.undo_array(entropy), result.source, KEY_SLICES)


def _provenance(
    model: ModelFile, options: HemorrhageOptions, method: UncertaintyMethod, found: Prediction, clock: Clock
) -> dict:
    ensemble = ", ".join(member["name"] for member in found.facts.get("members", [])[1:])  # names, not where they lie
    return {
        **software(),
        "model": model_facts(model),
        "options": {**asdict(options), "ensemble": ensemble},
        "uncertainty": {
            "method": method.name,
            "map": "entropy",
            "unit": method.unit,
            "range": list(method.value_range),
            "description": method.description,
        },
        **found.facts,
        "seconds": clock.seconds,
    }
