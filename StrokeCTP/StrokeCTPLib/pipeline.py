"""From perfusion frames, or from maps, to a measured stroke: motion, maps, lesions, criteria, Result.

    frames -> study (motion, smoothing) -> vessels -> maps -> lesions -> findings -> Result
    maps   ------------------------------------------------> lesions -> findings -> Result

With a model file the lesions come from the network instead of from thresholds; all else stays.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from NeuraxisLib.clock import Clock
from NeuraxisLib.errors import InputError
from NeuraxisLib.models import ModelFile
from NeuraxisLib.provenance import model_facts, software
from NeuraxisLib.result import Result, ScalarMap
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import AxisOrder, Volume
from StrokeCTPLib.findings import Findings, Noise, measure_stroke
from StrokeCTPLib.frames import Frames
from StrokeCTPLib.lesions import LesionRules, rules_for
from StrokeCTPLib.live_lesions import ShownMaps
from StrokeCTPLib.map_preprocessing import RANGES
from StrokeCTPLib.map_set import MapSet
from StrokeCTPLib.map_units import MAP_TITLES, MAP_UNITS
from StrokeCTPLib.network_findings import measure_by_network
from StrokeCTPLib.perfusion_maps import PerfusionMaps
from StrokeCTPLib.quality import motion_flags
from StrokeCTPLib.study import Study, maps_for, study_of
from StrokeCTPLib.task import StrokeOptions
from StrokeCTPLib.vessels import vessel_facts, vessel_plot, vessel_points

_CALIBRATED_NOTE = "By a stronger cut, scaled so that normal tissue reads as in the plain map."
#: Grids whose voxels lie within this of each other are one.
_SAME_PLACE_MM = 0.1


def run(inputs: dict[str, Any], model: ModelFile | None, options: StrokeOptions, progress: Progress) -> Result:
    """Compute and measure what ``inputs["perfusion"]`` holds.

    Args:
        inputs: ``perfusion``: Frames or a MapSet (:func:`StrokeCTPLib.inputs.read_perfusion`), or a 4-D Volume with
            times; ``exclude``: a mask on the same grid, optional.
        model: a network that draws the lesions; None for thresholds.
        options: see :class:`~StrokeCTPLib.task.StrokeOptions`.
        progress: told about every stage; cancels between and within them.

    Raises:
        InputError: the acquisition or the maps cannot be measured; the sentence says why.
        GeometryError: the mask or the maps lie on another grid.
        ModelError: the model file cannot be used.
    """
    given = inputs["perfusion"]
    if isinstance(given, Volume):
        from StrokeCTPLib.inputs import frames_of_volume

        given = frames_of_volume(given, options)
    made = _of_maps if isinstance(given, MapSet) else _of_frames
    result = made(given, inputs.get("exclude"), model, options, progress)
    progress(1.0, "Measuring")
    return result


# -- from frames ----------------------------------------------------------------------------------------------


def _of_frames(
    frames: Frames, exclude: Volume | None, model: ModelFile | None, options: StrokeOptions, progress: Progress
) -> Result:
    from NeuraxisLib.inference import choose_device, torch_device

    chosen, clock = torch_device(choose_device(options.device)), Clock()
    device = "cpu" if chosen == "mps" else chosen  # double precision, which that device does not have
    with clock.stage("preparing"):
        study = study_of(frames, options, device, progress.part(0.0, 0.6))
    with clock.stage("maps"):
        maps = maps_for(study, options, progress.part(0.6, 0.85))
    progress(0.85, "Measuring")
    rules = _rules(rules_for(maps, options.family), options)
    spread = maps.calibration.plain_spread if options.family == "svd" else maps.calibration.spread
    ruled_out = _excluded(exclude, study.source, study.order)
    with clock.stage("lesions"):
        patient = options.patient
        findings = measure_stroke(maps, study.grid, rules, Noise(spread.flow, spread.lag_s), patient, ruled_out)
    facts: dict[str, Any] = {}
    if model is not None:
        with clock.stage("network"):
            shown = _for_network(study, maps)
            findings, facts = measure_by_network(shown, study.grid, model, options, findings, progress.part(0.88, 0.97))
    result = _result(study.source, study.order, findings, frames.report.warnings)
    result.warnings += [flag.text for flag in maps.flags] + _motion_words(study)
    result.maps = _maps_of_frames(study, maps, findings)
    result.curves["vessels"] = vessel_plot(study.prepared, maps.arterial)
    result.points = vessel_points(study.grid, maps.arterial, options)
    result.provenance = {
        **_provenance(options, model, facts, rules, findings, clock),
        "acquisition": _acquisition(frames),
        "motion": _motion_facts(study),
        "vessels": vessel_facts(maps),
        "calibration": _calibration_facts(maps),
    }
    _add_model_notice(result, model)
    return result


def _rules(rules: LesionRules, options: StrokeOptions) -> LesionRules:
    """The family's rules with what the options edit; its own thresholds already stand for those of the options."""
    rules = replace(rules, smallest_ml=options.smallest_ml, smallest_core_ml=options.smallest_core_ml)
    if options.family == "svd":
        return replace(rules, late_s=options.late_s, rcbf=options.rcbf)
    return replace(rules, rcbf=options.rcbf) if options.family == "model" else rules


def _for_network(study: Study, maps: PerfusionMaps) -> dict[str, Volume]:
    """Axial maps for a network: NaN outside the tissue; the maximum over time as MIP."""
    shown = {
        name: Volume(np.where(maps.tissue, array, np.float32(np.nan)), study.grid.ijk_to_ras, MAP_UNITS[name],
                     study.grid.slice_origins_ras)
        for name, array in {**maps.svd, "delay": maps.model["delay"]}.items()
    }  # fmt: skip
    brightest = study.prepared.scan.frames_hu.max(0).astype(np.float32)
    shown["mip"] = Volume(brightest, study.grid.ijk_to_ras, "HU", study.grid.slice_origins_ras)
    return shown


def _maps_of_frames(study: Study, maps: PerfusionMaps, findings: Findings) -> dict[str, ScalarMap]:
    """All maps in the stored order; Tmax last, as the report lays the last one over its pictures."""
    families = {
        "_model": (maps.model, ("cbf", "cbv", "mtt"), "by the model"),
        "_calibrated": (maps.calibrated, ("cbf", "tmax"), "calibrated"),
        "": (maps.svd, ("cbf", "cbv", "mtt", "ttp"), "by deconvolution"),
    }
    made = {
        "brain": _stored(study, maps.inside.astype(np.uint8) + maps.tissue, "", "Brain", (0.0, 2.0),
                         "1 within the skull, 2 tissue with maps."),
        "doubt": _doubt(study.source, study.order, findings),
        "delay": _stored(study, maps.model["delay"], "s", "Delay by the model", RANGES["delay"]),
    }  # fmt: skip
    for ending, (family, names, words) in families.items():
        for name in names:
            title = f"{MAP_TITLES[name]}, {words}"
            note = _CALIBRATED_NOTE if (name, ending) == ("cbf", "_calibrated") else ""
            made[name + ending] = _stored(study, family[name], MAP_UNITS[name], title, RANGES[name], note)
    title = f"{MAP_TITLES['tmax']}, by deconvolution"
    made["tmax"] = _stored(study, maps.svd["tmax"], "s", title, RANGES["tmax"])
    return made


def _stored(
    study: Study, array: np.ndarray, unit: str, title: str, value_range: tuple[float, float], note: str = ""
) -> ScalarMap:
    """A map in the stored order of the axes; where that is the axial one, the very array that is kept."""
    array = np.ascontiguousarray(study.order.undo_array(array))
    return ScalarMap(study.source.like(array, unit), title, value_range, note)


def _acquisition(frames: Frames) -> dict:
    report = frames.report
    names = ("layout", "time_source", "frames", "slices", "interval_s", "largest_gap_s", "duration_s", "slice_spread_s")
    facts = {name: getattr(report, name) for name in names}
    return {**facts, "left_out": report.dropped, "notes": report.notes}


def _motion_words(study: Study) -> list[str]:
    own_times = study.prepared.source_times_s.ndim > 1
    flags = motion_flags(study.motion, own_times) if study.motion else []
    words = [flag.text for flag in flags if flag.code != "beyond-repair"]
    if study.left_out:
        numbers = ", ".join(str(frame + 1) for frame in study.left_out)
        words.append(f"Frames that no movement brings back were left out: {numbers}.")
    return words


def _motion_facts(study: Study) -> dict:
    if study.motion is None:
        return {"corrected": False, "reason": "none seen" if study.still else "not asked for"}
    return {
        "corrected": bool(study.motion.corrected.any()),
        "frames_corrected": int(study.motion.corrected.sum()),
        "largest_displacement_mm": float(study.motion.displacement_mm.max()),
        "largest_rotation_deg": float(study.motion.rotation_deg.max()),
        "frames_left_out": len(study.left_out),
    }


def _calibration_facts(maps: PerfusionMaps) -> dict:
    facts = asdict(maps.calibration)
    return {**facts, "noise_hu": maps.noise_hu, "arrival_s": maps.arrival.time_s}


# -- from maps ------------------------------------------------------------------------------------------------


def _of_maps(
    given: MapSet, exclude: Volume | None, model: ModelFile | None, options: StrokeOptions, progress: Progress
) -> Result:
    """Lesions by the plain rules on maps that were computed elsewhere, or by a network."""
    clock = Clock()
    if options.family == "model":
        raise InputError("Maps that are given have no model of ours; choose the family svd, or give the frames.")
    if model is None:
        given.require(("cbf", "tmax"))
    progress(0.1, "Measuring")
    grid, order = given.grid.axial()
    arrays = {name: order.apply_array(volume.array) for name, volume in given.maps.items()}
    tissue = order.apply_array(given.known)
    findings, facts = None, {}
    rules = _rules(LesionRules("svd"), replace(options, family="svd"))
    if "cbf" in arrays and "tmax" in arrays:
        with clock.stage("lesions"):
            ruled_out = _excluded(exclude, given.grid, order)
            findings = measure_stroke(_shown(arrays, tissue), grid, rules, Noise(), options.patient, ruled_out)
    if model is not None:
        with clock.stage("network"):
            volumes = {name: order.apply(volume) for name, volume in given.maps.items()}
            findings, facts = measure_by_network(volumes, grid, model, options, findings, progress.part(0.3, 0.9))
    source = _background(given)
    result = _result(source, order, findings, given.notes)
    result.maps = {"doubt": _doubt(source, order, findings)}
    for name in sorted(given.maps, key=lambda name: name == "tmax"):
        values = np.nan_to_num(given.maps[name].array).astype(np.float32)
        value_range = RANGES[name]
        result.maps[name] = ScalarMap(source.like(values, MAP_UNITS[name]), MAP_TITLES[name], value_range, "As given.")
    result.provenance = {
        **_provenance(options, model, facts, rules, findings, clock),
        "maps": {"source": given.source, "given": list(given.maps)},
    }
    _add_model_notice(result, model)
    return result


def _shown(arrays: dict[str, np.ndarray], tissue: np.ndarray) -> ShownMaps:
    svd = {name: np.nan_to_num(array) for name, array in arrays.items() if name != "mip"}
    svd.setdefault("cbv", np.zeros_like(svd["cbf"]))  # nothing is known of vessels, then
    return ShownMaps(svd, tissue, tissue)


def _background(given: MapSet) -> Volume:
    """What results of given maps are laid over: the maximum of intensity, else the flow or the first map."""
    name = next((name for name in ("mip", "cbf") if name in given.maps), next(iter(given.maps)))
    volume = given.maps[name]
    return replace(volume, array=np.nan_to_num(volume.array).astype(np.float32), unit=MAP_UNITS[name])


# -- the result -----------------------------------------------------------------------------------------------


def _result(source: Volume, order: AxisOrder, findings: Findings, warnings: list[str]) -> Result:
    """The Result without maps, in the stored order of the axes."""
    backward = order.axes[0] == 0 and order.flips[0]
    slices = findings.key_slices if order.axes[0] == 0 else []  # slices of another direction are not those of the image
    return Result(
        task="stroke",
        source=source,
        labels=source.like(np.ascontiguousarray(order.undo_array(findings.labels))),
        measurements=findings.measurements,
        tables=findings.tables,
        key_slices=[source.slice_count - 1 - k if backward else k for k in slices],
        warnings=[*warnings, *findings.warnings],
    )


def _doubt(source: Volume, order: AxisOrder, findings: Findings) -> ScalarMap:
    array = np.ascontiguousarray(order.undo_array(findings.doubt.astype(np.float32)))
    note = "1 where core or hypoperfused tissue depends on the side to which the thresholds err."
    return ScalarMap(source.like(array), "Doubt", (0.0, 1.0), note)


def _excluded(mask: Volume | None, source: Volume, order: AxisOrder) -> np.ndarray | None:
    """The mask of excluded tissue in axial order; InputError unless it lies on the grid of the source."""
    if mask is None:
        return None
    same = mask.array.shape == source.array.shape[-3:]
    if (
        not same
        or np.abs(mask.origins_ras - source.origins_ras).max() > _SAME_PLACE_MM
        or not np.allclose(mask.ijk_to_ras[:3, :2], source.ijk_to_ras[:3, :2], atol=1e-3)
    ):
        raise InputError("The mask of excluded tissue lies on another grid than the perfusion; draw it on that image.")
    return order.apply_array(mask.array > 0)


def _provenance(
    options: StrokeOptions,
    model: ModelFile | None,
    facts: dict,
    rules: LesionRules,
    findings: Findings,
    clock: Clock,
) -> dict:
    kept = {**asdict(options), "times": "given" if options.times else ""}  # where the file lies is nobody's business
    return {
        **software(),
        "model": None if model is None else model_facts(model),
        "options": kept,
        "lesions": {**asdict(rules), "drawn_by": "thresholds" if model is None else "network"},
        "network": facts,
        "seconds": clock.seconds,
    }


def _add_model_notice(result: Result, model: ModelFile | None) -> None:
    if model is not None:
        result.warnings.append(model.header["notice"])
