"""A small case of the disc task: the bundled lumbar spine, in which eight discs are in view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from NeuraxisLib.task import Example

if TYPE_CHECKING:
    from NeuraxisLib.result import Result

IMAGE = Path(__file__).resolve().parent / "Resources" / "SampleData" / "lumbar_spine_mr.nrrd"
#: Discs that any working model finds of the eight.
LEAST_DISCS = 6


def example(folder: Path) -> Example:
    """The bundled image; ``folder`` is not needed."""
    return Example({"mr": IMAGE}, _fault)


def _fault(result: Result) -> str:
    count = len(result.points)
    if count >= LEAST_DISCS:
        return ""
    return f"Only {count} of the 8 discs of the sample were found; install the default model again."
