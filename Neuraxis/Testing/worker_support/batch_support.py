"""What tests of batches share: small scans with known volumes, and workers that compute in the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from NeuraxisLib.batch_cases import gathered
from NeuraxisLib.batch_local import CANCELLED, DONE, FAILED, CaseEvent, CaseJob
from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.files import write_volume
from NeuraxisLib.run import run_case
from NeuraxisLib.volume import Volume

#: A voxel of the scans: 1 x 1 x 5 mm.
VOXEL_ML = 0.005


def write_scan(path: Path, voxels: int = 10) -> Path:
    """A scan of 3 slices with that many bright voxels of 0.005 mL."""
    array = np.zeros((3, 8, 9), np.int16)
    array.reshape(3, -1)[1, :voxels] = 100
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(array, np.diag([-1.0, -1.0, 5.0, 1.0]), "HU"), path)
    return path


class InlineWorkers:
    """Workers of a batch that compute at once, in this process; ``before`` may bring about what a test wants.

    Args:
        count: cases at once.
        before: called with every job; what it raises is the end of the case.
    """

    attempts = 2

    def __init__(self, count: int = 1, before: Callable[[CaseJob], None] | None = None):
        self._count, self._before, self._jobs = count, before or (lambda job: None), {}
        self.computed: list[str] = []
        self.closed = 0

    @property
    def free(self) -> int:
        return self._count - len(self._jobs)

    def submit(self, number: int, job: CaseJob) -> None:
        self._jobs[number] = job

    def progress_of(self, number: int):
        return 0.5, "Working"

    def poll(self, patience_s: float = 0.0) -> list[CaseEvent]:
        """One case is done per poll."""
        if not self._jobs:
            return []
        number = next(iter(self._jobs))
        return [self._run(number, self._jobs.pop(number))]

    def cancel(self) -> None:
        self.poll = lambda patience_s=0.0: [CaseEvent(number, CANCELLED) for number in [*self._jobs]]

    def close(self) -> None:
        self.closed += 1

    def _run(self, number: int, job: CaseJob) -> CaseEvent:
        self.computed.append(Path(job.output).name)
        try:
            self._before(job)
            with gathered(job.inputs) as inputs:
                run_case(
                    job.task, inputs, job.model, job.options, job.device, job.output,
                    series=job.series, allow_gaps=job.allow_gaps, recipe=job.recipe,
                )  # fmt: skip
        except NeuraxisError as error:
            return CaseEvent(number, FAILED, error=error)
        return CaseEvent(number, DONE)
