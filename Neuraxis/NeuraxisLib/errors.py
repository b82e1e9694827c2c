"""The errors a user may see: one sentence that names the input, the fault and the remedy."""

from __future__ import annotations

from collections.abc import Iterable


class NeuraxisError(Exception):
    """Base of every error meant for a user; ``str(error)`` is one sentence, ``code`` is stable for scripts."""

    code = "error"


class InputError(NeuraxisError):
    """The input cannot be read or is not what the task takes (wrong modality, empty, NaN, no head in view)."""

    code = "input"


class GeometryError(InputError):
    """The input's geometry is missing, contradictory or unsafe to measure on."""

    code = "geometry"


class SeriesChoiceError(InputError):
    """A DICOM folder holds several candidate series and the user has to name one; ``choices`` lists them."""

    code = "choose-series"

    def __init__(self, message: str, choices: list[dict]):
        super().__init__(message)
        self.choices = choices


class ModelError(NeuraxisError):
    """A model file is missing, unreadable, altered, or belongs to another task."""

    code = "model"


class NewerModelError(ModelError):
    """A model file or a model index is of a format that only a newer version of Neuraxis reads."""


class OutputError(NeuraxisError):
    """The result cannot be written (folder not writable, disk full)."""

    code = "output"


class DependencyError(NeuraxisError):
    """A Python package that the chosen function needs is absent or broken (torch, most often)."""

    code = "dependency"


class WorkerError(NeuraxisError):
    """The computing process died or ran out of memory."""

    code = "worker"


class WorkerStartError(WorkerError):
    """The computing process cannot be started at all, whatever it would have computed."""


class CancelledError(NeuraxisError):
    """The user cancelled; not a failure."""

    code = "cancelled"

    def __init__(self, message: str = "Cancelled; nothing was changed."):
        super().__init__(message)


def check_choice(what: str, chosen: object, choices: Iterable[str]) -> None:
    """Raise InputError, naming the choices, unless ``chosen`` is one of them; ``what`` it is, such as precision."""
    known = list(choices)
    if chosen not in known:
        raise InputError(f"There is no {what} '{chosen}'; choose one of: {', '.join(known)}.")
