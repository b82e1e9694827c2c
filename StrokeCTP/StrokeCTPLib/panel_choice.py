"""What the panel's parameter node says: input, patient, thresholds, options of the task."""

from __future__ import annotations

from typing import Any

from NeuraxisLib import scene, scene_frames
from StrokeCTPLib.live_lesions import Thresholds
from StrokeCTPLib.mismatch import Patient

#: Maps of another program that can be chosen; the first is the one that results are tied to.
MAP_KINDS = ("cbf", "cbv", "mtt", "tmax", "ttp")
#: Maps without which no lesion can be drawn.
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


def why_not(parameters: Any) -> str:
    """One sentence on why the chosen input cannot be computed on; empty if it can."""
    if starts_from_frames(parameters):
        reason = scene_frames.why_no_frames(parameters.frames)
        if not reason and not scene_frames.has_times(parameters.frames) and parameters.intervalS <= 0:
            name = parameters.frames.GetName()
            reason = f"'{name}' does not say when its frames were taken; give the seconds between frames."
        return reason
    maps = chosen_maps(parameters)
    missing = [kind.upper() for kind in NEEDED_MAPS if kind not in maps]
    if missing:
        return f"Choose the {' and the '.join(missing)} map; lesions are drawn from CBF and Tmax."
    return next(filter(None, map(scene.why_unsuitable, maps.values())), "")


def patient_of(parameters: Any) -> Patient:
    """What trials ask beside the images; -1 in the panel is unknown."""
    values = (parameters.nihss, parameters.ageYears, parameters.hoursSinceWell)
    return Patient(*(None if value < 0 else value for value in values))


def thresholds_of(parameters: Any) -> Thresholds:
    """Maps and thresholds from which lesions are drawn."""
    return Thresholds(parameters.family, parameters.lateS, parameters.rcbfPercent / 100)


def options_of(parameters: Any) -> dict[str, Any]:
    """Options of the task as the panel says them; what is unknown or the user left alone is left out."""
    patient, thresholds = patient_of(parameters), thresholds_of(parameters)
    options = {"late_s": thresholds.late_s, "rcbf": thresholds.rcbf}
    options |= {"nihss": patient.nihss, "age": patient.age_years, "onset_hours": patient.hours_since_well}
    if starts_from_frames(parameters):
        options |= {"kind": "frames", "family": thresholds.family}
        options |= {"artery": parameters.artery, "vein": parameters.vein}
        options |= {"interval_s": parameters.intervalS if parameters.intervalS > 0 else None}
    else:
        options |= {"kind": "maps"}
    return {name: value for name, value in options.items() if value not in (None, "")}
