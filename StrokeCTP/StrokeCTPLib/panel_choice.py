"""What the panel's parameter node says: input, patient, thresholds, options of the task."""

from __future__ import annotations

from typing import Any

import numpy as np

from NeuraxisLib import scene, scene_frames, scene_masks
from StrokeCTPLib.live_lesions import Thresholds
from StrokeCTPLib.mismatch import Patient

#: Maps of another program that can be chosen; the first is the one that results are tied to.
MAP_KINDS = ("cbf", "cbv", "mtt", "tmax", "ttp", "delay", "mip")
#: Maps without which thresholds draw no lesion.
NEEDED_MAPS = ("cbf", "tmax")


def starts_from_frames(parameters: Any) -> bool:
    """Whether the acquisition itself is the input, not maps of another program."""
    return parameters.inputKind == "frames"


def chosen_maps(parameters: Any) -> dict[str, Any]:
    """Kind -> volume node of the maps that are chosen."""
    chosen = {kind: getattr(parameters, f"{kind}Map") for kind in MAP_KINDS}
    return {kind: node for kind, node in chosen.items() if node is not None}


def chosen_input(parameters: Any) -> Any:
    """The node with the frames, or kind -> volume node of the maps."""
    return parameters.frames if starts_from_frames(parameters) else chosen_maps(parameters)


def source_of(parameters: Any) -> Any:
    """The volume node that the result of the chosen input belongs to; None if there is none yet."""
    return scene_frames.average_node(parameters.frames) if starts_from_frames(parameters) else parameters.cbfMap


def choose_source(parameters: Any, source: Any) -> None:
    """Choose the input that the result of a volume node was computed from."""
    frames = source.GetNodeReference(scene_frames.FRAMES_ROLE)
    if frames is not None:
        parameters.inputKind, parameters.frames = "frames", frames
    else:
        parameters.inputKind, parameters.cbfMap = "maps", source


def why_not(parameters: Any) -> str:
    """One sentence on why the chosen input cannot be computed on; empty if it can."""
    return _why_no_input(parameters) or _why_no_exclusion(parameters)


def excluded_tissue(parameters: Any) -> np.ndarray | None:
    """What the chosen mask rules out, bool (k, j, i) on the grid of the result; None for nothing, or no result yet."""
    source = source_of(parameters)
    if parameters.exclude is None or source is None or _why_no_exclusion(parameters):
        return None
    return scene_masks.mask_of(parameters.exclude, source)


def _why_no_exclusion(parameters: Any) -> str:
    source = source_of(parameters)
    if parameters.exclude is None or source is None:
        return ""
    return scene_masks.why_no_mask(parameters.exclude, source)


def _why_no_input(parameters: Any) -> str:
    if starts_from_frames(parameters):
        reason = scene_frames.why_no_frames(parameters.frames)
        if not reason and not scene_frames.has_times(parameters.frames) and parameters.intervalS <= 0:
            name = parameters.frames.GetName()
            reason = f"'{name}' does not say when its frames were taken; give the seconds between frames."
        return reason
    maps = chosen_maps(parameters)
    needed = NEEDED_MAPS[:1] if parameters.modelName else NEEDED_MAPS  # a network says itself what it needs
    missing = [kind.upper() for kind in needed if kind not in maps]
    if missing:
        return f"Choose the {' and the '.join(missing)} map; lesions are drawn from CBF and Tmax."
    return next(filter(None, map(scene.why_unsuitable, maps.values())), "")


def patient_of(parameters: Any) -> Patient:
    """What trials ask beside the images; -1 in the panel is unknown."""
    values = (parameters.nihss, parameters.ageYears, parameters.hoursSinceWell)
    return Patient(*(None if value < 0 else value for value in values))


def thresholds_of(parameters: Any) -> Thresholds:
    """Maps, thresholds and clean-up with which lesions are drawn."""
    rcbf = parameters.rcbfPercent / 100
    return Thresholds(parameters.family, parameters.lateS, rcbf, parameters.smallestMl, parameters.smallestCoreMl)


def options_of(parameters: Any) -> dict[str, Any]:
    """Options of the task as the panel says them; what is unknown or the user left alone is left out."""
    patient, options = patient_of(parameters), _rule_options(parameters)
    options |= {"nihss": patient.nihss, "age": patient.age_years, "onset_hours": patient.hours_since_well}
    options |= {"gender": parameters.gender if parameters.gender >= 0 else None}
    if starts_from_frames(parameters):
        options |= {"kind": "frames", "family": parameters.family, **_method_options(parameters)}
        options |= {"artery": parameters.artery, "vein": parameters.vein}
        options |= {"interval_s": parameters.intervalS if parameters.intervalS > 0 else None}
    else:
        options |= {"kind": "maps"}
    return _given(options)


def reading_options(parameters: Any) -> dict[str, Any]:
    """Options of the task with which files are read: what they do not say themselves."""
    interval_s = parameters.intervalS if parameters.intervalS > 0 else None
    return _given(
        {"interval_s": interval_s, "ranges": parameters.colourRanges, "spacing_mm": parameters.pictureSpacing}
    )


def folder_options(parameters: Any) -> dict[str, Any]:
    """Options of the task for many cases: nothing that is true of one patient alone."""
    family = parameters.family if parameters.family != "model" or starts_from_frames(parameters) else "calibrated"
    options = {**_rule_options(parameters), **_method_options(parameters), **reading_options(parameters)}
    return _given({**options, "family": family})


def _rule_options(parameters: Any) -> dict[str, Any]:
    rules = thresholds_of(parameters)
    edited = {"smallest_ml": rules.smallest_ml, "smallest_core_ml": rules.smallest_core_ml}
    return {"late_s": rules.late_s, "rcbf": rules.rcbf, **edited}


def _method_options(parameters: Any) -> dict[str, Any]:
    return {
        "deconvolution": parameters.deconvolution,
        "residue": parameters.residue,
        "pooling_mm": parameters.poolingMm,
        "smoothing_mm": parameters.smoothingMm,
        "motion": parameters.motion,
    }


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, "")}
