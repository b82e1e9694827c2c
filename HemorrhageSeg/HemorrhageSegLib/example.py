"""A small case of the hemorrhage task: the bundled head CT, whose bleed the data set's radiologists marked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.task import Example

if TYPE_CHECKING:
    from NeuraxisLib.result import Result

SCAN = Path(__file__).resolve().parent / "Resources" / "SampleData" / "head_ct_hemorrhage.nrrd"
#: Slices (from 0) in the middle of the bleed.
BLEEDING = slice(14, 22)
#: Least volume in mL that any working model finds there.
LEAST_ML = 2.0


def example(folder: Path) -> Example:
    """The bundled scan; ``folder`` is not needed."""
    return Example({"ct": SCAN}, _fault)


def _fault(result: Result) -> str:
    labels = result.labels
    found_ml = float(np.count_nonzero(labels.array[BLEEDING], axis=(1, 2)) @ labels.voxel_volumes_ml[BLEEDING])
    if found_ml >= LEAST_ML:
        return ""
    return f"Only {found_ml:.1f} mL of the epidural bleed of the sample were found; install the default model again."
