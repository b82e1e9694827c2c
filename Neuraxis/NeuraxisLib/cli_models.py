"""``neuraxis models``: what is installed, and ``neuraxis models import``: model files from original checkpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from NeuraxisLib.cli_process import faults_reported
from NeuraxisLib.task import TASKS, get_task


def models_group() -> typer.Typer:
    """The commands under ``neuraxis models``; without one, the installed models are listed."""
    group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    group.callback()(show_models)
    return group


def show_models(
    context: typer.Context,
    task: Annotated[str, typer.Option("--task", help="Only models of this task.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the installed models and what they were trained for."""
    if context.invoked_subcommand:
        return
    from NeuraxisLib.cli_pages import models_page

    with faults_reported(as_json):
        print(models_page([get_task(name) for name in ([task] if task else TASKS)], as_json))
