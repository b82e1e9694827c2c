"""``neuraxis models``: what is installed, and ``neuraxis models import``: model files from original checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from NeuraxisLib import RESEARCH_USE_NOTICE
from NeuraxisLib.cli_process import faults_reported, prepare_process
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import TASKS, get_task


def models_group() -> typer.Typer:
    """The commands under ``neuraxis models``; without one, the installed models are listed."""
    group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    group.callback()(show_models)
    group.command("import")(import_model)
    return group


def show_models(
    context: typer.Context,
    task: Annotated[str, typer.Option("--task", help="Only models of this task.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the installed models and what they were trained for; or import one."""
    if context.invoked_subcommand:
        return
    from NeuraxisLib.cli_pages import models_page

    with faults_reported(as_json):
        print(models_page([get_task(name) for name in ([task] if task else TASKS)], as_json))


def import_model(
    file: Annotated[
        Path,
        typer.Argument(
            help="PyTorch checkpoint, Keras HDF5 file, or index of a TensorFlow checkpoint.",
            metavar="FILE",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Argument(help="Model file to write, .safetensors.", metavar="OUTPUT", show_default=False)
    ],
    architecture: Annotated[
        str, typer.Option("--architecture", help="The network it was made for, such as SLEXNet.", show_default=False)
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An argument of the network that is not as published, such as base=16.",
            metavar="ARGUMENT=VALUE",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Short name of the model; the output's if not given.")] = "",
    title: Annotated[str, typer.Option("--title", help="Its name for people.")] = "",
    licence: Annotated[str, typer.Option("--licence", help="Licence of the weights.")] = "unknown",
    threshold: Annotated[
        float, typer.Option("--threshold", help="Probability from which a voxel is marked.", min=0.001, max=0.999)
    ] = 0.5,
    preprocessing: Annotated[
        Path | None,
        typer.Option(
            "--preprocessing", help="JSON file that replaces the published preprocessing.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the model's card as JSON.")] = False,
) -> None:
    """Make a model file from an original checkpoint. Nothing in the checkpoint is executed."""
    with faults_reported(as_json):
        prepare_process(None, hide_gpu=True)
        from NeuraxisLib.checkpoint_import import Card, import_checkpoint

        shown = _json_file(preprocessing) if preprocessing else None
        card = Card(name, title, licence, threshold, shown)
        header = import_checkpoint(file, output, architecture, _settings(arguments or []), card)
        print(json.dumps(header, indent=1) if as_json else _summary(header, output))


def _settings(texts: list[str]) -> dict[str, Any]:
    """``["base=16", "sem=se"]`` as names and values; a value that is no JSON is a text."""
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"'{text[:80]}' is not of the form argument=value; correct --set.")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _json_file(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"The preprocessing '{path.name}' cannot be read as a JSON object; correct it.")
    return content


def _summary(header: dict, output: Path) -> str:
    rows = {
        "Model file": output,
        "Network": header["architecture"]["name"],
        "Licence": header["licence"],
        "Notice": header["notice"].removesuffix(RESEARCH_USE_NOTICE).strip(),
    }
    return "\n".join([*(f"{name}: {value}" for name, value in rows.items()), RESEARCH_USE_NOTICE])
