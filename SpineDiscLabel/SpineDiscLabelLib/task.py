"""The disc task as every door of the product sees it; importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from NeuraxisLib.errors import InputError, check_choice
from NeuraxisLib.series_rule import SeriesRule
from NeuraxisLib.task import Progress, Task, option

if TYPE_CHECKING:
    from NeuraxisLib.models import ModelFile
    from NeuraxisLib.result import Result
    from NeuraxisLib.volume import Volume

PRECISIONS = ("auto", "float32", "bfloat16")
#: How discs are named: by the search over ordered chains, or by an earlier method to compare it with.
NAMINGS = ("chain", "skeleton", "fork", "conditions")
#: Names of the inputs: the main image, and another contrast of the same spine.
IMAGE, SECOND = "mr", "second"


@dataclass(frozen=True)
class DiscOptions:
    """Options of the disc task. A negative number means: as the model file says."""

    device: str = option("auto", "Where to compute: auto, cpu, cuda, mps or openvino.")
    precision: str = option("float32", "float32, bfloat16 or auto; with the latter two faint discs may come and go.")
    threshold: float = option(-1.0, "Evidence from which a place is a candidate; negative: the model's.")
    lowest: str = option("", "Name of the lowest disc in view where you know it, such as L5/S1; the chain obeys.")
    highest: str = option("", "Name of the highest disc in view where you know it, such as C2/C3; the chain obeys.")
    naming: str = option(
        "chain",
        "How discs are named: chain; to compare with: skeleton (released search), fork (its later guards), conditions "
        "(rules).",
    )
    check_direction: bool = option(True, "Refuse an image whose header seems to name wrong directions.")

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("naming", self.naming, NAMINGS)
        if self.naming != NAMINGS[0] and (self.lowest or (self.highest and self.naming != "conditions")):
            raise InputError(f"The naming '{self.naming}' takes no disc that you know; leave lowest and highest out.")
        if self.threshold >= 1 or self.threshold == 0:
            raise InputError(f"The threshold lies between 0 and 1, not at {self.threshold:g}; correct it.")


def _run(inputs: dict[str, Volume], model: ModelFile, options: DiscOptions, progress: Progress) -> Result:
    from SpineDiscLabelLib.pipeline import run

    return run(inputs, model, options, progress)


TASK = Task(
    name="discs",
    title="Label discs",
    inputs={IMAGE: "a sagittal T1 or T2 MR of a spine", SECOND: "another contrast of the same spine, in its place"},
    optional=frozenset({SECOND}),
    options_type=DiscOptions,
    resources=Path(__file__).resolve().parent / "Resources",
    run=_run,
    originals="SpineDiscLabelLib.networks.originals:ORIGINALS",
    corrections="SpineDiscLabelLib.corrections",
    series=SeriesRule(
        "MR", "sagittal", least_slices=5, thickness_mm=(0.5, 6.0), wished=("T2",),
        avoided=("STIR", "DWI", "ADC", "MYELO", "SURVEY", "LOC"),
    ),
    example="SpineDiscLabelLib.example:example",
)
