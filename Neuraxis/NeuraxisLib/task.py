"""Task: one clinical question with its inputs, options, labels and the function that answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuraxisLib.errors import CancelledError, InputError
from NeuraxisLib.series_rule import SeriesRule

if TYPE_CHECKING:
    from NeuraxisLib.result import Result

#: The task list: name -> "module:attribute" of its Task. Another clinical task is one more line here.
TASKS = {
    "hemorrhage": "HemorrhageSegLib.task:TASK",
    "stroke": "StrokeCTPLib.task:TASK",
    "discs": "SpineDiscLabelLib.task:TASK",
}
#: Tasks that compare two results of one of these; found by name, but none of them is a choice for a single scan.
COMPARISONS = {"followup": "HemorrhageSegLib.followup_task:TASK"}
#: Where a task may be computed; ``openvino`` is the processor too, and only taken if it is named.
OPENVINO = "openvino"
DEVICES = ("auto", "cpu", "cuda", "mps", OPENVINO)


@dataclass(frozen=True)
class Example:
    """A small case that shows whether a task works on a computer.

    Attributes:
        inputs: input name of the task -> file.
        fault: says in a sentence what is wrong with the result of the task's default model; empty if it is as it
            should be.
        options: of the run.
    """

    inputs: dict[str, Path]
    fault: Callable[[Result], str]
    options: dict[str, Any] = field(default_factory=dict)


def option(default: Any, help_text: str) -> Any:
    """A field of a task's options dataclass, with what ``--help`` says of it."""
    return field(default=default, metadata={"help": help_text})


class Progress:
    """What a long computation reports to, and where it learns that the user cancelled.

    Args:
        report: called with (fraction 0..1, stage in a few words); None drops the reports.
        cancelled: asked before each report; when it answers True, :class:`CancelledError` is raised.
    """

    def __init__(
        self,
        report: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ):
        self._report = report or (lambda fraction, stage: None)
        self._cancelled = cancelled or (lambda: False)

    def __call__(self, fraction: float, stage: str) -> None:
        """Report progress; raise CancelledError if the user cancelled."""
        if self._cancelled():
            raise CancelledError()
        self._report(min(max(float(fraction), 0.0), 1.0), stage)

    def part(self, start: float, stop: float) -> Progress:
        """A Progress whose 0..1 is the range start..stop of this one."""
        return Progress(lambda f, stage: self._report(start + f * (stop - start), stage), self._cancelled)


@dataclass(frozen=True)
class Task:
    """A clinical task as every door of the product sees it.

    Attributes:
        name: short name used on the command line and in model files.
        title: what the button says.
        inputs: input name -> what it must be, in words; the first is the main one.
        options_type: dataclass of the options, with defaults; every field is an :func:`option`; one is
            ``device`` (auto, cpu, cuda, mps or openvino).
        resources: folder with ``labels.csv`` and ``Models/*.safetensors``.
        run: ``run(inputs, model, options, progress) -> Result``; inputs maps names to Volumes, model is a
            :class:`~NeuraxisLib.models.ModelFile`.
        originals: ``"module:attribute"`` of the table of networks whose original checkpoints can be imported, network
            name -> :class:`~NeuraxisLib.checkpoint_import.Original`; "" if there is none.
        readers: input name -> ``"module:function"`` for inputs that are no plain 3-D image. The function is called as
            ``read(path, options, series, allow_gaps, progress)`` and what it returns goes to ``run``; ``series`` is
            None but for the main input. The worker's exchange files come to it too (:mod:`NeuraxisLib.exchange`).
        optional: inputs that may be missing; the main one never is.
        needs_model: whether the task cannot run without a model file. One that can gets None unless a model is named.
        rules: published rules that ``evaluate`` compares models with and that are no models.
        series: which DICOM series of a study a batch takes.
        example: ``"module:function"``, called with an empty folder that it may write to; returns an :class:`Example`.
            Slicer calls it in its own process: no heavy imports.
        corrections: name of the module that measures what a person has corrected and writes cases to learn from
            (:mod:`NeuraxisLib.review_corrections`); "" if there is none.
    """

    name: str
    title: str
    inputs: dict[str, str]
    options_type: type
    resources: Path
    run: Callable[[dict[str, Any], Any, Any, Progress], Result]
    originals: str = ""
    readers: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    needs_model: bool = True
    rules: tuple[str, ...] = ()
    series: SeriesRule = field(default_factory=SeriesRule)
    example: str = ""
    corrections: str = ""

    def reader(self, name: str) -> Callable[..., Any] | None:
        """The function that reads an input; None where it is a plain 3-D image."""
        return _named(self.readers[name]) if name in self.readers else None

    def make_example(self, folder: Path) -> Example | None:
        """The task's small case, its files perhaps written to an empty folder; None if it has none."""
        return _named(self.example)(folder) if self.example else None


def get_task(name: str) -> Task:
    """The task of that name; InputError names the known ones otherwise."""
    known = TASKS | COMPARISONS
    if name not in known:
        raise InputError(f"There is no task '{name}'; choose one of: {', '.join(TASKS)}.")
    return _named(known[name])


def _named(place: str) -> Any:
    """What stands at ``"module:attribute"``."""
    module, attribute = place.split(":")
    return getattr(import_module(module), attribute)
