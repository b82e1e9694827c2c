"""A small real task for tests of the worker and the command line: voxels above a threshold, and their volume.

Its options also make faults and long stages happen on purpose, so that every stage can be cancelled or killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.result import Measurement, Result, Table
from NeuraxisLib.task import Progress, Task

STAGES = ("Preparing", "Computing", "Measuring")


@dataclass(frozen=True)
class Options:
    """Options of the threshold task."""

    device: str = field(default="auto", metadata={"help": "Where to compute."})
    threshold_hu: float = field(default=60.0, metadata={"help": "Voxels above this are marked."})
    smallest_ml: float = field(default=0.0, metadata={"help": "Volumes below this count as nothing."})
    steps: int = field(default=3, metadata={"help": "Progress reports per stage."})
    keep_empty: bool = field(default=True, metadata={"help": "Accept an image with no voxel above the threshold."})
    slow_stage: str = field(default="", metadata={"help": "Stage that takes long and asks whether to go on."})
    deaf_stage: str = field(default="", metadata={"help": "Stage that takes long and does not ask."})
    fault: str = field(default="", metadata={"help": "Fault to bring about while computing."})


def run(inputs, model, options: Options, progress: Progress) -> Result:
    """Mark the voxels above the threshold."""
    volume = inputs["ct"]
    for number, stage in enumerate(STAGES):
        _spend(progress.part(number / len(STAGES), (number + 1) / len(STAGES)), stage, options)
        if stage == "Computing" and options.fault:
            _bring_about(options.fault)
    mask = np.asarray(volume.array) > options.threshold_hu
    if not mask.any() and not options.keep_empty:
        raise InputError("The image has no voxel above the threshold; choose a lower one.")
    total_ml = float((mask.sum(axis=(1, 2)) * volume.voxel_volumes_ml).sum())
    total_ml = total_ml if total_ml >= options.smallest_ml else 0.0
    slices = [(int(k), int(count)) for k, count in enumerate(mask.sum(axis=(1, 2)))]
    return Result(
        task="threshold",
        source=volume,
        labels=volume.like(mask.astype(np.uint8)),
        measurements=[Measurement("Total volume", total_ml, "mL", (0.9 * total_ml, 1.1 * total_ml))],
        tables={"slices": Table("Voxels per slice", (("Slice", ""), ("Voxels", "")), tuple(slices))},
        key_slices=[max(slices, key=lambda row: row[1])[0]],
        provenance={
            "process": os.getpid(),
            "model": model.name,
            "device": options.device,
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        },
    )


def _spend(progress: Progress, stage: str, options: Options) -> None:
    print(f"a stray print in stage {stage}")  # must not reach the protocol
    for step in range(options.steps):
        progress(step / options.steps, stage)
    if options.slow_stage == stage:
        for _ in range(1000):
            progress(0.5, stage)
            time.sleep(0.02)
    if options.deaf_stage == stage:
        time.sleep(60)


def _bring_about(fault: str) -> None:
    if fault == "killed":
        time.sleep(0.8)  # long enough for a report of memory
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.startswith("killed once:"):
        marker = Path(fault.partition(":")[2])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fault == "exit":
        os._exit(3)
    elif fault == "memory":
        np.ones(1 << 55, np.uint8)
    elif fault == "two gigabytes":
        np.empty(2_000_000_000, np.uint8)
    elif fault == "torch memory":
        import torch

        torch.empty(1 << 55, dtype=torch.uint8)
    elif fault == "graphics card":
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later.")
    elif fault == "no package":
        import a_package_that_is_not_there  # noqa: F401
    elif fault == "bug":
        raise ZeroDivisionError("division by zero")
    elif fault == "quote":
        raise ValueError("could not convert '/data/KANARIENVOGEL Hulda/1.dcm'")
    elif fault == "noise":
        os.write(1, b"a library that writes to file descriptor 1\n")
        sys.stdout.write("and one that writes to sys.stdout\n")


TASK = Task(
    name="threshold",
    title="Mark bright voxels",
    inputs={"ct": "an image"},
    options_type=Options,
    resources=Path(__file__).resolve().parent / "Resources",
    run=run,
)
