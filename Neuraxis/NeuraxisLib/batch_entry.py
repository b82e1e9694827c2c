"""A case on its way through a batch, how it ended, and what tells whether its result is still the right one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from NeuraxisLib.batch_cases import Case, gathered, option_values
from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.input_digest import input_digest

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass
class Entry:
    """A case on its way through the batch.

    Attributes:
        case: what it is. folder: of its result. number: its place in the batch, from 0.
        status: "waiting", "running", "done" or "failed".
        record: its line in the ledger, once finished.
        earlier: whether it was finished before this run.
        fraction, stage: progress while it runs.
        attempts: how often it was given to a worker.
    """

    case: Case
    folder: Path
    status: str = WAITING
    record: dict[str, Any] = field(default_factory=dict)
    earlier: bool = False
    fraction: float = 0.0
    stage: str = ""
    attempts: int = 0
    stamp: str = ""
    recipe: str = ""
    begun: float = 0.0
    number: int = 0

    @property
    def error(self) -> str:
        """Why it failed, in one sentence; empty if it did not."""
        return self.record.get("error", "") if self.status == FAILED else ""


@dataclass(frozen=True)
class CaseOutcome:
    """How one case ended: its input, its result folder (None if it failed) and why it failed."""

    file: Path
    folder: Path | None
    error: str = ""


def summary(outcomes: list[CaseOutcome]) -> str:
    """One line on how a batch ended, and on the first case that failed."""
    failed = [outcome for outcome in outcomes if outcome.folder is None]
    line = f"{len(outcomes) - len(failed)} of {len(outcomes)} cases are done."
    if failed:
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        line += f" Failed: '{failed[0].file.name}'{others}: {failed[0].error}"
    return line


def recipe(task: Any, model_sha256: str, options: Mapping[str, Any], series: str | None, allow_gaps: bool) -> str:
    """What a result was made with, in a few letters: another recipe means another result.

    Raises:
        InputError: an option that the task does not take.
    """
    from NeuraxisLib.run import task_options

    values = option_values(task_options(task, options))
    facts = [task.name, model_sha256, values, series, allow_gaps]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def model_digest(task: Any, model: str) -> str:
    """SHA-256 of the model file that a run would take; empty where it takes none. Raises ModelError."""
    from NeuraxisLib.models import find_model, load_model

    if not model and not task.needs_model:
        return ""
    return load_model(find_model(task, model), task.name).sha256


def digest_of(case: Case) -> str:
    """SHA-256 over the inputs of a case as a worker sees them; empty if they cannot be read."""
    try:
        with gathered(case.inputs) as inputs:
            return input_digest(inputs)
    except (OSError, NeuraxisError):
        return ""


def main_input(case: Case) -> Path:
    """The path of the main input; the name of the case where it is several files."""
    value = next(iter(case.inputs.values()), "")
    return Path(value) if isinstance(value, (str, Path)) else Path(case.name)
