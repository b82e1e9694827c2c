"""Many cases through a worker, one after the other: a bad one stops no other, and Cancel keeps what is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.files import is_image_file
from NeuraxisLib.result_folder import RESULT_FILE

_SUFFIXES = (".gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")


@dataclass(frozen=True)
class CaseOutcome:
    """How one case of a batch ended.

    Attributes:
        file: the input.
        folder: its result folder; None if it failed.
        error: the sentence that says why it failed; empty if it did not.
    """

    file: Path
    folder: Path | None
    error: str = ""


class BatchRun:
    """Cases through a worker client; looks to a panel like the handle of one run.

    Args:
        client: a :class:`~NeuraxisLib.worker_client.WorkerClient`; polling it moves the batch on.
        make_job: makes the job of (input, result folder).
        files: images, or folders with one case each.
        output: folder that gets one result folder for each of them.
        on_progress: called before each case with (index from 0, count, file name).
        on_done: called at the end with the list of outcomes.
        on_cancelled: called once a case was cancelled; what was finished before stays.

    Raises:
        WorkerError: the first case cannot be begun, so that none can.

    Attributes:
        outcomes: of the cases that are finished.
        state: "running", "done" or "cancelled".
    """

    seconds_left = None

    def __init__(
        self,
        client: Any,
        make_job: Callable[[Path, Path], Any],
        files: Iterable[str | Path],
        output: str | Path,
        on_progress: Callable[[int, int, str], None] | None = None,
        on_done: Callable[[list[CaseOutcome]], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
    ):
        self._client, self._make_job, self._output = client, make_job, Path(output)
        self._files, self._taken = [Path(file) for file in files], set()
        self._on_progress, self._on_done, self._on_cancelled = on_progress, on_done, on_cancelled
        self.outcomes: list[CaseOutcome] = []
        self.state = "running"
        self._case: Any = None
        self._next()

    @property
    def fraction(self) -> float:
        """Progress, 0 to 1, over all cases."""
        of_case = self._case.fraction if self._case is not None else 0.0
        return (len(self.outcomes) + of_case) / max(len(self._files), 1)

    @property
    def stage(self) -> str:
        """Which case it is at, and what is done with it."""
        number, count = len(self.outcomes), len(self._files)
        if self._case is None or number == count:
            return ""
        return f"Case {number + 1} of {count}, {self._files[number].name}: {self._case.stage}"

    def cancel(self) -> None:
        """Cancel the case under way and begin no other."""
        if self._case is not None:
            self._client.cancel(self._case)

    def wait(self) -> list[CaseOutcome]:
        """Poll until the end; the outcomes, or CancelledError."""
        while self.state == "running":
            case = self._case
            try:
                self._client.wait(case)
            except NeuraxisError:
                if self.state == "cancelled":
                    raise
        return self.outcomes

    def _next(self) -> None:
        """Begin the next case that can be begun; the end if there is none."""
        while len(self.outcomes) < len(self._files):
            file = self._files[len(self.outcomes)]
            if self._on_progress:
                self._on_progress(len(self.outcomes), len(self._files), file.name)
            try:
                job = self._make_job(file, self._output / free_name(file, self._taken))
                self._case = self._client.run(job, None, self._done, self._failed, self._cancelled)
                return
            except NeuraxisError as error:
                if self._case is None:
                    raise  # not even one can be begun
                self.outcomes.append(CaseOutcome(file, None, str(error)))
        self._case, self.state = None, "done"
        if self._on_done:
            self._on_done(self.outcomes)

    def _done(self, folder: Path) -> None:
        self.outcomes.append(CaseOutcome(self._files[len(self.outcomes)], folder))
        self._next()

    def _failed(self, error: Exception) -> None:
        self.outcomes.append(CaseOutcome(self._files[len(self.outcomes)], None, str(error)))
        self._next()

    def _cancelled(self) -> None:
        self._case, self.state = None, "cancelled"
        if self._on_cancelled:
            self._on_cancelled()


def cases_in(folder: str | Path, output: str | Path) -> list[Path]:
    """What lies in a folder and may be a case, by name: image files and folders; no results, nothing hidden."""
    output = Path(output).resolve()
    found = [path for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".")]
    return [path for path in found if is_image_file(path) or (path.is_dir() and _is_case(path, output))]


def summary(outcomes: list[CaseOutcome]) -> str:
    """One line on how a batch ended, and on the first case that failed."""
    failed = [outcome for outcome in outcomes if outcome.folder is None]
    line = f"{len(outcomes) - len(failed)} of {len(outcomes)} cases are done."
    if failed:
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        line += f" Failed: '{failed[0].file.name}'{others}: {failed[0].error}"
    return line


def free_name(file: Path, taken: set[str]) -> str:
    """A folder name from the file's, without its image suffixes; numbered where two files share it."""
    name = file.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    candidate, number = name, 2
    while candidate.lower() in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate.lower())
    return candidate


def _is_case(folder: Path, output: Path) -> bool:
    return folder.resolve() != output and not (folder / RESULT_FILE).is_file() and any(folder.iterdir())
