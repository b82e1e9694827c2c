"""A small real task for tests of inputs that are no plain image: the mean curve of frames, within an optional mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from NeuraxisLib.exchange import SUFFIX, read_exchange
from NeuraxisLib.result import Curve, CurvePlot, Landmark, Measurement, Result
from NeuraxisLib.task import Task


@dataclass(frozen=True)
class Options:
    """Options of the frames task."""

    device: str = field(default="auto", metadata={"help": "Where to compute."})
    interval_s: float = field(default=1.0, metadata={"help": "Seconds between frames."})
    limit: int | None = field(default=None, metadata={"help": "A whole number that may be unknown."})


def read(path: Path, options: Options, series, allow_gaps, progress):
    """Frames with the time of every frame, or of every slice of every frame."""
    from NeuraxisLib.files import read_volume

    progress(0.0, "Reading frames")
    if path.name.endswith(SUFFIX):
        return read_exchange(path)
    volume = read_volume(path, dimensions=4)
    times = np.arange(len(volume.array)) * options.interval_s
    return type(volume)(volume.array, volume.ijk_to_ras, "HU", frame_times_s=times, meta={"series": series})


def run(inputs, model, options: Options, progress) -> Result:
    """The mean of every frame over time."""
    frames = inputs["frames"]
    mask = inputs["mask"].array > 0 if "mask" in inputs else np.ones(frames.array.shape[1:], bool)
    means = frames.array[:, mask].mean(axis=1)
    times = frames.frame_times_s.reshape(len(means), -1).mean(axis=1)
    source = type(frames)(frames.array.mean(axis=0), frames.ijk_to_ras, "HU")
    return Result(
        "frames",
        source,
        measurements=[Measurement("Largest mean", float(means.max()), "HU")],
        curves={"means": CurvePlot("Mean over time", curves=(Curve("mean", times, means),))},
        points=[Landmark("Origin", frames.ijk_to_ras[:3, 3], None, "first voxel")],
        provenance={
            "model": None if model is None else model.name,
            "limit": options.limit,
            "times_of_slices": None if frames.frame_times_s.ndim == 1 else frames.frame_times_s.ravel().tolist(),
        },
    )


TASK = Task(
    name="frames",
    title="Average frames",
    inputs={"frames": "a 4-D series", "mask": "where to average"},
    options_type=Options,
    resources=Path(__file__).resolve().parent / "Resources",
    run=run,
    readers={"frames": "frames_task:read"},
    optional=frozenset({"mask"}),
    needs_model=False,
)
