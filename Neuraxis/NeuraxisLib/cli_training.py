"""``neuraxis prepare|train|sweep|evaluate|simulate``: the programs of the Training package, where it is installed.

They read their own command lines (``neuraxis train --help``) and have their own exit statuses: 0 done, 1 a fault told
in one sentence, 2 a command line that cannot be read, 3 done but for some cases, 130 stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import typer

from NeuraxisLib.cli_process import faults_reported
from NeuraxisLib.errors import DependencyError

#: Command -> what it is for. Each is ``main(arguments) -> status`` of the module of that name.
PROGRAMS = {
    "prepare": "Put scans and their masks into one store for training and evaluation.",
    "train": "Fit a network from a recipe and write a model file.",
    "sweep": "Train from several recipes, values and folds, here or on a cluster, and name the best.",
    "evaluate": "Judge models or results against the truth and write a report.",
    "simulate": "Write simulated head CTs, perfusion series or spine MR with their exact truth.",
}
#: The package that holds them, named and not imported: no library depends on it.
PACKAGE = "Training"


def add_training_commands(app: typer.Typer) -> None:
    """Add the commands; without the package each says that it is missing."""
    for name, text in PROGRAMS.items():
        settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
        app.command(name, help=text, context_settings=settings, add_help_option=False)(_command(name))


def _command(name: str) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        with faults_reported():
            program = _program(name)
        raise typer.Exit(program(context.args))

    return command


def _program(name: str) -> Callable[[list[str]], int]:
    """``main`` of a program; DependencyError where the package is not there."""
    try:
        return import_module(f"{PACKAGE}.{name}").main
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(PACKAGE):
            raise
        raise DependencyError(
            f"'neuraxis {name}' needs the package '{PACKAGE}', which is not part of this installation; "
            "run it from a copy of the project's repository or install neuraxis with pip."
        ) from None
