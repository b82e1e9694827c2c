"""What is reported about a hemorrhage: label map, volumes with intervals, ABC/2, diameters, one table row per bleed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from HemorrhageSegLib.task import TASK
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.measure import Lesion, components
from NeuraxisLib.result import Measurement, Table
from NeuraxisLib.review_corrections import EDITED_NOTE
from NeuraxisLib.uncertainty import component_intervals, cutoffs, interval_note, volume_interval
from NeuraxisLib.volume import Volume

COLUMNS = (
    ("Bleed", ""),
    ("Volume", "mL"),
    ("Volume, low", "mL"),
    ("Volume, high", "mL"),
    ("ABC/2", "mL"),
    ("ABC/2, Kothari", "mL"),
    ("Largest diameter", "mm"),
    ("Slices", ""),
    ("Mean density", "HU"),
    ("Mean probability", ""),
    ("Centre R", "mm"),
    ("Centre A", "mm"),
    ("Centre S", "mm"),
)
ABC2_NOTE = "Largest bleed; half the product of its diameters and height, as estimated at the bedside."
KOTHARI_NOTE = "Largest bleed; slices weighted 1, 0.5 or 0 by their share of the largest area (Kothari 1996)."


@dataclass
class Findings:
    """What was found, on the grid it was measured on.

    Attributes:
        labels: (k, j, i) uint8, 1 where there is blood.
        measurements: total volume first.
        tables: ``bleeds``: one row per connected bleed, largest first.
        warnings: sentences for the reader.
    """

    labels: np.ndarray
    measurements: list[Measurement]
    tables: dict[str, Table]
    warnings: list[str] = field(default_factory=list)


def measure_hemorrhage(
    axial: Volume,
    probability: np.ndarray,
    brain: np.ndarray,
    threshold: float,
    min_component_ml: float,
    meaning: str = "",
) -> Findings:
    """Threshold a probability map, drop small components, and measure what is left.

    Args:
        axial: the CT in HU with axial slices.
        probability: (k, j, i) on its grid, 0 outside the brain.
        brain: (k, j, i) bool, the space that was searched.
        threshold: probability at or above which a voxel is blood.
        min_component_ml: connected bleeds below this are dropped.
        meaning: what the map is where it is no probability, for the note on the interval.
    """
    label = LabelTable.read(TASK.resources / "labels.csv").named("Hemorrhage")
    lesions = components(probability >= threshold, axial, min_component_ml, probability)
    labels = np.zeros(probability.shape, np.uint8)
    for lesion in lesions:
        lesion.paint(labels, label.value)
    interval = volume_interval(probability, axial, threshold, labels, min_component_ml)
    note = _cut_note(threshold, meaning) if meaning else interval_note(threshold)
    measurements = _measurements(lesions, interval, note, label.name)
    intervals = component_intervals(probability, axial, threshold, lesions)
    rows = tuple(_row(number, lesion, *pair, axial) for number, (lesion, pair) in enumerate(zip(lesions, intervals), 1))
    return Findings(labels, measurements, {"bleeds": Table("Bleeds", COLUMNS, rows)}, _warnings(lesions, brain))


def measure_outline(axial: Volume, labels: np.ndarray, probability: np.ndarray | None = None) -> Findings:
    """Measure an outline that a person has drawn: every island counts, and nothing has an interval.

    Args:
        axial: the CT in HU with axial slices.
        labels: (k, j, i) label map on its grid.
        probability: (k, j, i) map of the network; gives mean probabilities. None leaves them out.
    """
    label = LabelTable.read(TASK.resources / "labels.csv").named("Hemorrhage")
    lesions = components(labels == label.value, axial, 0.0, probability)
    rows = tuple(_row(number, lesion, None, None, axial) for number, lesion in enumerate(lesions, 1))
    tables = {"bleeds": Table("Bleeds", COLUMNS, rows)}
    drawn = (labels == label.value).astype(np.uint8) * label.value
    return Findings(drawn, _measurements(lesions, None, EDITED_NOTE, label.name), tables, _warnings(lesions, labels))


def _measurements(
    lesions: list[Lesion], interval: tuple[float, float] | None, note: str, segment: str
) -> list[Measurement]:
    total = sum(lesion.volume_ml for lesion in lesions)
    slices = {int(k) for lesion in lesions for k in lesion.slices}
    largest = lesions[0] if lesions else None
    abc2 = {weighting: largest.abc2(weighting).volume_ml if largest else None for weighting in ("whole", "kothari")}
    return [
        Measurement("Total volume", total, "mL", interval, segment, note),
        Measurement("Bleeds", float(len(lesions)), "", None, segment, "Connected in three dimensions."),
        Measurement("ABC/2", abc2["whole"], "mL", None, segment, ABC2_NOTE),
        Measurement("ABC/2, Kothari", abc2["kothari"], "mL", None, segment, KOTHARI_NOTE),
        Measurement(
            "Largest diameter", largest.largest_diameter_mm if largest else None, "mm", None, segment, "Largest bleed."
        ),
        Measurement("Slices touched", float(len(slices)), "slices", None, segment),
    ]


def _cut_note(threshold: float, meaning: str) -> str:
    """What the interval of a map means that is no probability."""
    strict, loose = cutoffs(threshold)
    return (
        f"The interval runs from the volume at a value of at least {strict:g} to the volume at {loose:g} (reported: "
        f"{threshold:g}). The values are a {meaning}, no probability: it shows how far the volume depends on the cut, "
        "not how often the truth lies within."
    )


def _row(number: int, lesion: Lesion, low: float | None, high: float | None, axial: Volume) -> tuple:
    """One row of the table of bleeds, as :data:`COLUMNS`."""
    density = axial.array[lesion.box][lesion.mask].mean(dtype=np.float64)
    centre = lesion.centroid_ras
    numbers = (
        lesion.volume_ml,
        low,
        high,
        lesion.abc2("whole").volume_ml,
        lesion.abc2("kothari").volume_ml,
        lesion.largest_diameter_mm,
        len(lesion.slices),
        density,
        lesion.mean_probability,
        *centre,
    )
    return number, *(value if value is None or isinstance(value, int) else round(float(value), 3) for value in numbers)


def _warnings(lesions: list[Lesion], brain: np.ndarray) -> list[str]:
    """What makes the measured volume incomplete: blood where the scan ends."""
    ends = np.array(brain.shape) - 1
    at_edge = any(
        start == 0 or start + size - 1 == end
        for lesion in lesions
        for start, size, end in zip(lesion.start, lesion.mask.shape, ends)
    )
    if at_edge:
        return ["A bleed reaches the edge of the scanned field, so its volume is at least what is given here."]
    return []
