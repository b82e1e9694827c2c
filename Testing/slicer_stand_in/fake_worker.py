"""A worker client that computes nothing, and how it gets behind a module's real logic: the test says how a run ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from NeuraxisLib.errors import CancelledError
from NeuraxisLib.result import Measurement, Result, ScalarMap, Table
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.volume import Volume

#: The definition of expansion in :func:`follow_up_result`.
FOLLOW_UP_RULE = "> 6 mL or > 33 %"


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


def follow_up_result(volume) -> Result:
    """As the follow-up task makes it: a block that grew on slice 12, with the later scan brighter by 20 HU."""
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[11:14, 20:30, 20:30] = 1
    labels[12, 30:50, 20:40], labels[13, 30:36, 20:40] = 2, 3
    numbers = [("Change", 8.5, "mL", (6.5, 11.0)), ("Change in percent", 142.0, "%", (80.0, 210.0)),
               ("Earlier volume", 6.0, "mL", (5.4, 6.6)), ("Later volume", 14.5, "mL", (12.5, 17.0))]  # fmt: skip
    found = [Measurement(*number) for number in numbers]
    found += [Measurement("Volume", ml, "mL", None, part) for part, ml in (("New", 9.6), ("Unchanged", 5.9))]
    found.append(Measurement("Time between the scans", 6.5, "h"))
    heads = (("Definition", ""), ("By the measured volumes", ""), ("Given the intervals", ""), ("Source", ""))
    later = volume.like((volume.array + 20).astype(np.int16), "HU")
    return Result(
        "followup",
        volume,
        volume.like(labels),
        {"later": ScalarMap(later, "Later scan", (0.0, 80.0))},
        found,
        {"expansion": Table("Expansion", heads, ((FOLLOW_UP_RULE, "yes", "certain", "somebody"),))},
        warnings=["Expansion: yes.", "Later scan: look twice."],
    )


def installed_model(title: str = "Starter", **scores: float) -> Any:
    """A model as the panels see it: a name and a header."""
    header = {"title": title, "notice": "Trained on simulation, research use only.", "licence": "Apache-2.0"}
    return SimpleNamespace(name=title.lower(), title=title, header={**header, "scores": scores})


def compute_with(monkeypatch: Any, client: Any, models: Sequence[Any] | None = (installed_model(),)) -> None:
    """Let the real logic of every module made from now on compute with a client; no package is missing.

    ``models``: what is installed; None for the models that really are.
    """
    from NeuraxisLib.scene_logic import TaskLogic

    monkeypatch.setattr(TaskLogic, "newClient", lambda self: client)
    monkeypatch.setattr(TaskLogic, "missingPackages", lambda self: [])
    if models is not None:
        monkeypatch.setattr(TaskLogic, "models", lambda self, refresh=False: list(models))


def lack(monkeypatch: Any, *packages: str) -> None:
    """Let packages be missing until the panel installs them."""
    from NeuraxisLib.scene_logic import TaskLogic

    missing = list(packages)
    monkeypatch.setattr(TaskLogic, "missingPackages", lambda self: list(missing))
    monkeypatch.setattr(TaskLogic, "installPackages", lambda self: missing.clear() or "Installed.")


class FakeClient:
    """Takes the place of NeuraxisLib.worker_client.WorkerClient."""

    def __init__(self, folder: Path):
        self._folder, self._events, self._count = folder, [], 0
        self.handle, self.stopped, self.released = None, False, []

    def job(self, task, volumes, model="", options=None, device="auto", output=None):
        volume = next(iter(volumes.values()))
        return SimpleNamespace(
            task=task, volume=volume, inputs=dict(volumes), model=model, options=options, device=device, output=output
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
        wanted = self.handle.job.output or self._folder / f"result{self._count}"
        folder = write_result(result, Path(wanted), report=False)
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
