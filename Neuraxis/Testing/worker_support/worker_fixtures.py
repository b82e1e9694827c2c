"""What tests of workers and batches share: the small test task in this process, an image for it, and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from NeuraxisLib import task
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_client import WorkerClient


@pytest.fixture(autouse=True)
def threshold_task(monkeypatch) -> None:
    """The test task, in this process, for every test of a file that imports this; workers get it from sitecustomize."""
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")


def sheared_volume() -> Volume:
    """A sheared 4-slice image with 20 bright voxels of 0.72 x 0.72 x 5 mm."""
    array = np.zeros((4, 8, 9), np.int16)
    array[1:3, 2:4, 2:7] = 100
    matrix = np.array([[-0.72, 0, 0, 10], [0, -0.72, 1.3, 20], [0, 0, 5, -30], [0, 0, 0, 1]])
    return Volume(array, matrix, "HU", meta={"modality": "CT"})


def poll_until(client: WorkerClient, condition: Callable[[], bool], seconds: float = 120.0) -> float:
    """Poll as Slicer's timer does until the condition holds; returns the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"waited {seconds} s in vain; log: {client.log_text}"
        client.poll()
        time.sleep(0.01)
    return time.monotonic() - start
