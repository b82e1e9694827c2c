"""What is reported of a follow-up: changes with their intervals, expansion, and what a reader has to beware of."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from HemorrhageSegLib.followup_change import (
    INTERVAL_NOTE,
    UNKNOWN,
    Estimate,
    Verdict,
    change_ml,
    change_percent,
    ventricular_verdict,
    verdicts,
)
from HemorrhageSegLib.followup_inputs import TimePoint, measured_volume
from HemorrhageSegLib.followup_registration import Registration
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.measure import volume_ml
from NeuraxisLib.result import Measurement, Table
from NeuraxisLib.volume import Volume

#: Differences between the scans from which a reader is told.
SLICES_DIFFER, TILT_DIFFERS_DEG, MUCH_TURNED_DEG, LITTLE_COVERED = 0.25, 3.0, 25.0, 0.9
#: A reported volume belongs to the label map if it differs by no more than this share (or 0.02 mL).
SAME_VOLUME = 0.01
UNSEEN_ML = 0.1
EXPANSION_HEADS = (("Definition", ""), ("By the measured volumes", ""), ("Given the intervals", ""), ("Source", ""))
SCAN_HEADS = (
    ("Scan", ""), ("Volume", "mL"), ("Low", "mL"), ("High", "mL"), ("Slice gap", "mm"), ("Tilt", "degrees"),
    ("Kernel", ""), ("Model", ""),
)  # fmt: skip
PART_NOTE = (
    "Counted on the earlier scan's grid after moving the later scan onto it; where blood is, not how much it changed: "
    "rims thinner than a slice or a pixel come from resampling."
)


@dataclass(frozen=True)
class Comparison:
    """Two scans, their volumes and where the later head lies; all that the report is made from.

    Attributes:
        baseline, later: the scans.
        totals: volume of all blood, earlier and later.
        kinds: segment name -> the same for one kind of blood, where the label table has several.
        found: the registration.
        part_ml: mL of the parts of the change map, by name.
        unseen_ml: earlier blood outside the later scan, later blood outside the earlier one.
        hours: between the scans; None if not known.
        notes: on volumes that were measured anew.
    """

    baseline: TimePoint
    later: TimePoint
    totals: tuple[Estimate, Estimate]
    kinds: dict[str, tuple[Estimate, Estimate]]
    found: Registration
    part_ml: dict[str, float]
    unseen_ml: tuple[float, float]
    hours: float | None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        baseline: TimePoint,
        later: TimePoint,
        table: LabelTable,
        found: Registration,
        part_ml: dict[str, float],
        unseen_ml: tuple[float, float],
        hours: float | None,
    ) -> Comparison:
        """Volumes of both scans, each on its own grid; ``table`` is the hemorrhage task's label table."""
        notes: list[str] = []
        points = (("earlier", baseline), ("later", later))
        totals = tuple(_estimate(name, point, None, notes) for name, point in points)
        kinds = {}
        if len(table) > 1:
            kinds = {x.name: tuple(_estimate(name, p, x, notes) for name, p in points) for x in table}
        return cls(baseline, later, totals, kinds, found, part_ml, unseen_ml, hours, notes)

    @property
    def verdicts(self) -> list[Verdict]:
        """What the definitions of expansion say, the usual one first."""
        ventricular = [pair for name, pair in self.kinds.items() if "ventric" in name.lower()]
        return verdicts(*self.totals) + [ventricular_verdict(*pair) for pair in ventricular]


def _estimate(name: str, point: TimePoint, label, notes: list[str]) -> Estimate:
    """Volume of one kind of blood (None: all) on the scan's own grid, with the interval that was reported for it."""
    labels = point.result.labels.array
    ml = volume_ml(labels > 0 if label is None else labels == label.value, point.volume)
    reported = measured_volume(point.result, "" if label is None else label.name)
    if reported is None or reported.interval is None or reported.value is None:
        notes.append(f"The {name} volume has no interval, so none is known for the change.")
        return Estimate(ml)
    if abs(ml - reported.value) > max(0.02, SAME_VOLUME * reported.value):
        notes.append(f"The {name} outline was changed after it was measured, so its interval no longer holds.")
        return Estimate(ml)
    return Estimate(ml, reported.interval)


# -- numbers --------------------------------------------------------------------------------------------------


def measurements(comparison: Comparison) -> list[Measurement]:
    """The change first, then the volumes, its parts, time and movement."""
    earlier, later = comparison.totals
    found = [
        *_changes(earlier, later, ""),
        Measurement("Earlier volume", earlier.ml, "mL", earlier.interval, "", "On the scan's own grid."),
        Measurement("Later volume", later.ml, "mL", later.interval, "", "On the scan's own grid."),
    ]
    for kind, pair in comparison.kinds.items():
        found += _changes(*pair, kind)
    found += [Measurement("Volume", ml, "mL", None, part, PART_NOTE) for part, ml in comparison.part_ml.items()]
    if comparison.hours is not None:
        found.append(Measurement("Time between the scans", round(comparison.hours, 2), "h"))
    moved = comparison.found
    found += [
        Measurement("Head turned by", moved.rotation_deg, "degrees", None, "", "Undone by the registration."),
        Measurement("Correlation of the aligned heads", moved.correlation, "", None, "", "At least 0.9 is usual."),
    ]
    return found


def _changes(earlier: Estimate, later: Estimate, segment: str) -> list[Measurement]:
    change, (percent, percents) = change_ml(earlier, later), change_percent(earlier, later)
    note = INTERVAL_NOTE if change.interval else ""
    if percents is not None and not isfinite(percents[1]):
        open_end = f"At least {percents[0]:.0f} %, without an upper limit: the earlier volume may be next to nothing."
        relative = Measurement("Change in percent", percent, "%", None, segment, open_end)
    else:
        relative = Measurement("Change in percent", percent, "%", percents, segment, note)
    return [Measurement("Change", change.ml, "mL", change.interval, segment, note), relative]


def tables(comparison: Comparison) -> dict[str, Table]:
    """``expansion``: what the definitions say; ``scans``: how the two scans were made."""
    rows = [(v.rule, "yes" if v.measured else "no", v.given_intervals, v.source) for v in comparison.verdicts]
    points = zip(("earlier", "later"), (comparison.baseline, comparison.later), comparison.totals)
    scans = [_scan_row(*one) for one in points]
    return {
        "expansion": Table("Expansion", EXPANSION_HEADS, tuple(rows)),
        "scans": Table("Scans", SCAN_HEADS, tuple(scans)),
    }


def _scan_row(name: str, point: TimePoint, estimate: Estimate) -> tuple:
    low, high = estimate.interval or (None, None)
    volume = point.volume
    model = (point.result.provenance.get("model") or {}).get("name", "")
    numbers = (estimate.ml, low, high, volume.spacing_mm[2], tilt_deg(volume))
    rounded = (None if value is None else round(float(value), 3) for value in numbers)
    return name, *rounded, str(volume.meta.get("kernel", "") or ""), model


def tilt_deg(volume: Volume) -> float:
    """Angle between the way the slices are stacked and their normal: the gantry's tilt."""
    step = volume.ijk_to_ras[:3, 2]
    return float(np.degrees(np.arccos(min(1.0, abs(step @ volume.normal_ras) / float(np.linalg.norm(step))))))


# -- words ----------------------------------------------------------------------------------------------------


def warnings(comparison: Comparison) -> list[str]:
    """Expansion in a sentence, then what a reader has to know, the gravest first."""
    said = [expansion_sentence(comparison.verdicts[0], comparison.totals[0])]
    if comparison.baseline.sha256 == comparison.later.sha256:
        said.append("Both inputs are the same scan, so the change says only that the comparison works.")
    notes = [
        dict.fromkeys([*point.volume.meta.get("warnings", ()), *point.result.warnings])
        for point in (comparison.baseline, comparison.later)
    ]
    said += [f"Both scans: {words}" for words in notes[0] if words in notes[1]]
    for name, own, other in (("Earlier", *notes), ("Later", *reversed(notes))):
        said += [f"{name} scan: {words}" for words in own if words not in other]
    return [*said, *comparison.notes, *_view_warnings(comparison), *_technical_warnings(comparison)]


def expansion_sentence(verdict: Verdict, earlier: Estimate) -> str:
    """The verdict of the usual definition, for a reader."""
    if earlier.ml <= 0:
        return "The earlier scan shows no hemorrhage, so the later one is new and percents are undefined."
    measured = f"Expansion ({verdict.rule}): {'yes' if verdict.measured else 'no'} by the measured volumes"
    given = verdict.given_intervals
    return measured + ("." if given == UNKNOWN else f", {given} given the intervals.")


def _view_warnings(comparison: Comparison) -> list[str]:
    said, (before, after) = [], comparison.unseen_ml
    if before > UNSEEN_ML:
        said.append(f"{before:.1f} mL of the earlier blood lies outside the later scan; the change is a least value.")
    if after > UNSEEN_ML:
        said.append(f"{after:.1f} mL of the later blood lies outside the earlier scan and may have been there before.")
    if comparison.found.covered < LITTLE_COVERED:
        said.append(f"The later scan shows only {comparison.found.covered:.0%} of the earlier scan's head.")
    turned = comparison.found.rotation_deg
    if turned > MUCH_TURNED_DEG:
        said.append(f"The head was turned by {turned:.0f} degrees between the scans; check the overlay.")
    return said


def _technical_warnings(comparison: Comparison) -> list[str]:
    said, (one, other) = [], (comparison.baseline.volume, comparison.later.volume)
    gaps = one.spacing_mm[2], other.spacing_mm[2]
    if max(gaps) > (1 + SLICES_DIFFER) * min(gaps):
        said.append(
            f"The slices differ in thickness ({gaps[0]:.1f} and {gaps[1]:.1f} mm): small or flat bleeds may change "
            "in volume by that alone."
        )
    tilts = tilt_deg(one), tilt_deg(other)
    if abs(tilts[0] - tilts[1]) > TILT_DIFFERS_DEG:
        said.append(f"The gantry was tilted differently ({tilts[0]:.0f} and {tilts[1]:.0f} degrees).")
    kernels = [str(volume.meta.get("kernel", "") or "") for volume in (one, other)]
    if all(kernels) and kernels[0] != kernels[1]:
        said.append(f"The scans were reconstructed with different kernels ({kernels[0]} and {kernels[1]}).")
    models = [point.result.provenance.get("model") or {} for point in (comparison.baseline, comparison.later)]
    if models[0].get("sha256") != models[1].get("sha256"):
        said.append("The two scans were not outlined by the same model, which alone may change the volume.")
    return said
