"""What a person's correction means for the hemorrhage task: measures of the new outline, a case to train with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from HemorrhageSegLib.findings import measure_outline
from NeuraxisLib.result import Result
from NeuraxisLib.review_export import write_pair
from NeuraxisLib.volume import Volume

LAYOUT, HAS_OUTLINE = "csv", True


def remeasured(result: Result) -> Result:
    """The result with all measures taken from its label map; every island that was drawn counts.

    The probability map stays what it was; it gives the mean probability of each bleed where there is one.
    """
    axial, order = replace(result.source, unit="HU").axial()
    probability = result.maps.get("probability")
    given = None if probability is None else order.apply_array(probability.volume.array)
    found = measure_outline(axial, order.apply_array(result.labels.array), given)
    return replace(result, measurements=found.measurements, tables={**result.tables, **found.tables})


def write_case(result: Result, image: Volume, folder: Path, name: str) -> dict[str, str]:
    """Write image and label map of a case; returns its line in the table of layout ``csv``."""
    return write_pair(replace(image, unit="HU"), result.labels, folder, name)
