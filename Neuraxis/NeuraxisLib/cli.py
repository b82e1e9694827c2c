"""The command line: ``neuraxis TASK INPUT OUTPUT``, ``neuraxis batch CASES OUTPUT``, ``neuraxis models [import]``.

And ``neuraxis prepare|train|sweep|evaluate|simulate``, which have exit statuses of their own (:mod:`cli_training`).

Exit codes, for scripts; they do not change:

====  =====================================================================
0     done
1     unexpected fault (please report it)
2     the command was not understood
3     the input cannot be read or is not what the task takes
4     the input's geometry is missing, contradictory or unsafe to measure on
5     a DICOM folder holds several series; name one with --series
6     the model is missing, unreadable, altered, or for another task
7     the result cannot be written
8     a Python package is missing
9     memory ran out
10    a batch has ended, but some of its cases failed
130   cancelled with Ctrl-C (143 by SIGTERM); nothing was written, but for finished cases of a batch
141   the reader of the output, such as ``head``, had enough of it
====  =====================================================================

An error is one sentence on stderr. Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.cli_batch import run_batch
from NeuraxisLib.cli_dicom import write_dicom
from NeuraxisLib.cli_followup import follow_up_command
from NeuraxisLib.cli_labels import write_disc_labels
from NeuraxisLib.cli_maps import write_dicom_maps
from NeuraxisLib.cli_models import models_group
from NeuraxisLib.cli_process import faults_reported, prepare_process, shown_progress
from NeuraxisLib.cli_review import review_group
from NeuraxisLib.cli_selftest import self_test_command
from NeuraxisLib.cli_training import add_training_commands
from NeuraxisLib.cli_view import view_case
from NeuraxisLib.remote import is_remote, local_path, refuse_memory, without_password
from NeuraxisLib.result import Landmark, Measurement, Result
from NeuraxisLib.result_folder import REPORT_FILE
from NeuraxisLib.run import run_case
from NeuraxisLib.task import DEVICES, TASKS, Task, get_task


def main() -> None:
    """Entry point of the console command ``neuraxis``."""
    make_app()()


def make_app() -> typer.Typer:
    """The command line with one command per task in :data:`NeuraxisLib.task.TASKS`."""
    app = typer.Typer(
        help=f"Neuraxis: measurements in brain and spine scans. {RESEARCH_USE_NOTICE}",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    for name in TASKS:
        task = get_task(name)
        app.command(name, help=f"{task.title}. Writes a result folder with report.html.")(task_command(task))
    app.add_typer(models_group(), name="models")
    app.command("batch")(run_batch)
    app.add_typer(review_group(), name="review")
    app.command("selftest")(self_test_command)
    app.command("followup")(follow_up_command)
    app.command("info")(show_info)
    app.command("maps")(write_dicom_maps)
    app.command("dicom")(write_dicom)
    app.command("labels")(write_disc_labels)
    app.command("view")(view_case)
    add_training_commands(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"neuraxis {__version__}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options of the command line as a whole."""


# -- tasks ----------------------------------------------------------------------------------------------------


def task_command(task: Task) -> Callable[..., None]:
    """The function behind ``neuraxis <task>``; its signature, and so its help, comes from the task's options."""
    main_input, *other_inputs = task.inputs

    def command(**values: Any) -> None:
        inputs = {main_input: values.pop("input")}
        others = {name: values.pop(f"input_{name}") for name in other_inputs}
        inputs |= {name: path for name, path in others.items() if path is not None}
        output, model, device = values.pop("output"), values.pop("model"), values.pop("device")
        reading = {"series": values.pop("series"), "allow_gaps": values.pop("allow_gaps")}
        threads, as_json = values.pop("threads"), values.pop("as_json")
        with faults_reported(as_json):
            refuse_memory(output)
            prepare_process(threads, hide_gpu=device == "cpu")
            with shown_progress() as progress, contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
                result = run_case(task.name, inputs, model, values, device, output, progress, **reading)
            shown = without_password(output) if is_remote(output) else local_path(output)
            print(json.dumps(as_record(result, shown), indent=1) if as_json else summary(result, shown))

    unneeded = "" if task.needs_model else " Without it no network is used."
    kinds = "" if main_input in task.readers else ": NIfTI, NRRD, MetaImage or a DICOM folder"
    parameters = [
        _argument("input", Path, f"{task.inputs[main_input]}{kinds}."),
        _argument(
            "output", str, "Folder for the result; new, empty, or an earlier result, which is replaced. Or its address."
        ),
        *(_input_option(task, name) for name in other_inputs),
        _option("model", str, "", "--model", f"Installed model or model file; see 'neuraxis models'.{unneeded}"),
        _option("device", str, "auto", "--device", f"Where to compute: {', '.join(DEVICES)}."),
        _option("series", str | None, None, "--series", "Series of a DICOM folder; see 'neuraxis info FOLDER'."),
        _option("allow_gaps", bool, False, "--allow-gaps", "Measure a DICOM series although slices are missing."),
        _option("threads", int | None, None, "--threads", "Threads to compute with; all cores if not given.", min=1),
        _option("as_json", bool, False, "--json", "Print the result, or the error, as JSON."),
        *_task_options(task),
    ]
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _input_option(task: Task, name: str) -> inspect.Parameter:
    """The option for an input beside the main one."""
    kind, default = (Path | None, None) if name in task.optional else (Path, ...)
    return _option(f"input_{name}", kind, default, f"--{name.replace('_', '-')}", task.inputs[name])


def _task_options(task: Task) -> list[inspect.Parameter]:
    hints = get_type_hints(task.options_type)
    options = []
    for field in dataclasses.fields(task.options_type):
        if field.name == "device":  # every task has it; it stands with the common options
            continue
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        flag = "--" + field.name.replace("_", "-")
        if hints[field.name] is bool and default:
            flag = f"{flag}/--no-{flag[2:]}"
        options.append(_option(field.name, hints[field.name], default, flag, field.metadata.get("help", "")))
    return options


def _argument(name: str, kind: Any, text: str) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, typer.Argument(help=text, metavar=name.upper(), show_default=False)],
    )


def _option(name: str, kind: Any, default: Any, flag: str, text: str, **more: Any) -> inspect.Parameter:
    show_default = default not in (None, "", ..., False)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is ... else default,
        annotation=Annotated[kind, typer.Option(flag, help=text, show_default=show_default, **more)],
    )


# -- other commands -------------------------------------------------------------------------------------------


def show_info(
    file: Annotated[Path, typer.Argument(help="Image file or DICOM folder.", metavar="FILE", show_default=False)],
    series: Annotated[str | None, typer.Option("--series", help="Series of a DICOM folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the geometry of an image, or the series in a DICOM folder."""
    from NeuraxisLib.cli_pages import info_page

    with faults_reported(as_json):
        print(info_page(file, series, as_json))


# -- results --------------------------------------------------------------------------------------------------


def in_words(measurement: Measurement, with_segment: bool = True) -> str:
    """Such as ``"Total volume: 12.3 mL (11 to 13.9)"``."""
    name = f"{measurement.segment}, {measurement.name}" if with_segment and measurement.segment else measurement.name
    if measurement.value is None:
        return f"{name}: undefined"
    low_high = " ({} to {})".format(*map(_number, measurement.interval)) if measurement.interval else ""
    unit = "" if measurement.unit in ("", *measurement.name.lower().split()) else f" {measurement.unit}"
    return f"{name}: {_number(measurement.value)}{unit}{low_high}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _point_in_words(point: Landmark) -> str:
    sure = "" if point.confidence is None else f" ({100 * point.confidence:.0f} %)"
    return f"{point.name}{sure}"


def summary(result: Result, output: Path | str) -> str:
    """The headline numbers, what to beware of, and where the report is."""
    several = len({measurement.segment for measurement in result.measurements} - {""}) > 1
    lines = [in_words(measurement, several) for measurement in result.measurements]
    if result.points:
        lines.append(f"Points: {', '.join(map(_point_in_words, result.points))}")
    if result.key_slices:
        numbers = ", ".join(str(k + 1) for k in result.key_slices)  # counted from 1, as in the report
        lines.append(f"Least certain slices: {numbers} of {result.source.slice_count}")
    lines += [f"Note: {warning}" for warning in result.warnings]
    report = output / REPORT_FILE if isinstance(output, Path) and (output / REPORT_FILE).exists() else output
    return "\n".join([*lines, f"Report: {report}", RESEARCH_USE_NOTICE])


def as_record(result: Result, output: Path | str) -> dict:
    """The result for scripts: numbers with units and intervals, warnings, and where the folder is."""
    return {
        "status": "done",
        "task": result.task,
        "output": str(output),
        "measurements": [dataclasses.asdict(measurement) for measurement in result.measurements],
        "points": [dataclasses.asdict(point) for point in result.points],
        "key_slices": result.key_slices,
        "warnings": result.warnings,
        "provenance": result.provenance,
    }


if __name__ == "__main__":
    main()
