"""Follow-up of a hemorrhage as a task of two scans; importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuraxisLib.task import Progress, Task, option

if TYPE_CHECKING:
    from NeuraxisLib.result import Result


@dataclass(frozen=True)
class FollowUpOptions:
    """Options of the follow-up; a scan that no result is named for is outlined first."""

    device: str = option("auto", "Where to compute: auto, cpu, cuda, mps or openvino.")
    model: str = option("", "Installed model or model file that outlines a scan without a result.")
    baseline_result: str = option("", "Result folder (or label map) of the earlier scan.")
    later_result: str = option("", "Result folder (or label map) of the later scan.")
    baseline_series: str = option("", "Series of the earlier scan where its DICOM folder holds several.")
    later_series: str = option("", "Series of the later scan where its DICOM folder holds several.")
    hours_between: float = option(-1.0, "Hours from the earlier scan to the later one; negative: as DICOM says.")


def _run(inputs: dict[str, Any], model: None, options: FollowUpOptions, progress: Progress) -> Result:
    from HemorrhageSegLib.followup import run

    return run(inputs, options, progress)


TASK = Task(
    name="followup",
    title="Follow up a hemorrhage",
    inputs={"baseline": "the earlier non-contrast head CT", "later": "the later head CT of the same patient"},
    options_type=FollowUpOptions,
    resources=Path(__file__).resolve().parent / "Resources" / "FollowUp",
    run=_run,
    readers={
        "baseline": "HemorrhageSegLib.followup_inputs:read_baseline",
        "later": "HemorrhageSegLib.followup_inputs:read_later",
    },
    needs_model=False,
)
