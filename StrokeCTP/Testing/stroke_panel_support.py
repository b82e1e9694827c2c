"""What the panel's tests share: a small simulated stroke, what the task finds in it, a worker that answers with it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from NeuraxisLib.result import Result
from NeuraxisLib.task import Progress
from StrokeCTPLib.task import StrokeOptions
from Testing.slicer_stand_in.fake_worker import FakeClient
from Training.simulation.ctp_stroke_phantom import StrokePhantom, stroke_phantom


@cache
def phantom() -> StrokePhantom:
    """A stroke head of 6 slices of 64 x 64, int16 HU."""
    made = stroke_phantom((6, 64, 64), (3.4, 3.4, 12.0), noise_hu=2.0, hypoperfused_ml=180.0, core_ml=50.0)
    frames = replace(made.frames, array=np.rint(made.frames.array).astype(np.int16))
    return replace(made, frames=frames)


@cache
def result(**options) -> Result:
    """What the task finds in the phantom with these options."""
    from StrokeCTPLib.pipeline import run

    return run({"perfusion": phantom().frames}, None, StrokeOptions(device="cpu", **options), Progress())


class StrokeClient(FakeClient):
    """Answers with the real result for the options of the job."""

    def answer(self) -> None:
        """The worker is done."""
        self.finish(self.result())

    def result(self) -> Result:
        """What the task finds with the options of the last job."""
        options = dict(self.handle.job.options)
        perfusion = self.handle.job.inputs["perfusion"]
        if not hasattr(perfusion, "array"):
            return maps_result(perfusion, options)
        return result(**options)

    def wait(self, handle) -> None:
        """As the client's own: until the run has ended."""
        self.answer()
        self.poll()


def maps_result(folder, options: dict) -> Result:
    """What the task finds in a folder of maps."""
    from StrokeCTPLib.inputs import read_perfusion
    from StrokeCTPLib.pipeline import run

    chosen = StrokeOptions(device="cpu", **options)
    given = read_perfusion(folder, chosen, None, False, Progress())
    return run({"perfusion": given}, None, chosen, Progress())
