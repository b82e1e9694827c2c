"""A worker client that computes nothing: the test says when and how a run ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from NeuraxisLib.errors import CancelledError
from NeuraxisLib.result import Measurement, Result, ScalarMap
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.volume import Volume


def bleed_result(volume: Volume, k: int = 12, size: int = 10) -> Result:
    """A result with one block of blood around slice k and uncertainty at its rim."""
    labels, entropy = np.zeros(volume.array.shape, np.uint8), np.zeros(volume.array.shape, np.float32)
    entropy[k - 1 : k + 3, 18 : 22 + size, 18 : 22 + size] = 0.9
    labels[k - 1 : k + 2, 20 : 20 + size, 20 : 20 + size] = 1
    entropy[labels > 0] = 0.2
    milliliters = float((labels.sum(axis=(1, 2)) * volume.voxel_volumes_ml).sum())
    return Result(
        "hemorrhage",
        volume,
        volume.like(labels),
        {"entropy": ScalarMap(volume.like(entropy), "Uncertainty (entropy in bits)", (0.0, 1.0))},
        [
            Measurement("Total volume", milliliters, "mL", (0.9 * milliliters, 1.1 * milliliters), "Hemorrhage"),
            Measurement("ABC/2", 0.52 * milliliters, "mL", None, "Hemorrhage"),
            Measurement("Bleeds", 1.0, "", None, "Hemorrhage"),
        ],
        key_slices=[k + 2, k - 1, k],
        warnings=[],
        provenance={"model": "fake"},
    )


class FakeClient:
    """Takes the place of NeuraxisLib.worker_client.WorkerClient."""

    def __init__(self, folder: Path):
        self._folder, self._events, self._count = folder, [], 0
        self.handle, self.stopped, self.released = None, False, []

    def job(self, task, volumes, model="", options=None, device="auto", output=None):
        volume = next(iter(volumes.values()))
        return SimpleNamespace(
            task=task, volume=volume, inputs=dict(volumes), model=model, options=options, device=device
        )

    def run(self, job, on_progress=None, on_done=None, on_failed=None, on_cancelled=None):
        self.handle = SimpleNamespace(
            job=job, state="running", fraction=0.0, stage="Starting", seconds_left=None, result_folder=None, error=None
        )
        self._callbacks = (on_progress, on_done, on_failed, on_cancelled)
        return self.handle

    def wait(self, handle):
        self.finish(bleed_result(handle.job.volume))
        self.poll()

    def poll(self) -> None:
        events, self._events = self._events, []
        for event in events:
            event()

    # -- what the test says ---------------------------------------------------------------------------------------

    def progress(self, fraction: float, stage: str, seconds_left: float | None = None) -> None:
        """The worker reports."""
        self.handle.fraction, self.handle.stage, self.handle.seconds_left = fraction, stage, seconds_left

    def finish(self, result: Result) -> None:
        """The worker is done; the next poll says so."""
        self._count += 1
        folder = write_result(result, self._folder / f"result{self._count}", report=False)
        (folder / "report.html").write_text("<html>report</html>")
        self.handle.result_folder = folder
        self._end("done", 1, folder)

    def fail(self, error: Exception) -> None:
        """The run failed; the next poll says so."""
        self.handle.error = error
        self._end("failed", 2, error)

    def cancel(self, handle) -> None:
        handle.error = CancelledError()
        self._end("cancelled", 3)

    def _end(self, state: str, callback: int, *arguments) -> None:
        def event() -> None:
            self.handle.state = state
            if self._callbacks[callback]:
                self._callbacks[callback](*arguments)

        self._events.append(event)

    def stop(self) -> None:
        self.stopped, self._events = True, []

    def release(self, handle) -> None:
        self.released.append(handle)
