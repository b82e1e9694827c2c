"""What a person's correction means for the disc task: nothing to measure here, and a case to train with."""

from __future__ import annotations

from pathlib import Path

from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Result
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.exports import label_volume, named_discs

LAYOUT, HAS_OUTLINE = "sct-discs", False


def remeasured(result: Result) -> Result:
    """The result itself: whoever corrects the chain measures it anew (:mod:`SpineDiscLabelLib.panel_scene`)."""
    return result


def write_case(result: Result, image: Volume, folder: Path, name: str) -> dict[str, str]:
    """Write image and single-voxel labels at the centres of the discs; layout ``sct-discs`` has no table.

    Raises:
        OutputError: no disc. InputError, GeometryError: two discs in one voxel, a disc outside the image.
    """
    grid = image.regular()
    labels = label_volume(named_discs(result.points), grid)
    write_volume(grid, folder / f"{name}.nrrd", compress=True)
    write_volume(labels, folder / f"{name}_label-disc.nrrd", compress=True)
    return {}
