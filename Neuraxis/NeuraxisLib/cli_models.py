"""``neuraxis models``: what is installed; list, install, verify, remove; indexes; import of original checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from NeuraxisLib import RESEARCH_USE_NOTICE
from NeuraxisLib.cli_process import EXIT_CODES, faults_reported, prepare_process, shown_progress
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.task import TASKS, get_task


def models_group() -> typer.Typer:
    """The commands under ``neuraxis models``; without one, the installed models are listed."""
    group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    group.callback()(show_models)
    group.command("list")(list_models)
    group.command("install")(install_models)
    group.command("verify")(verify_models)
    group.command("remove")(remove_model)
    group.command("index")(write_model_index)
    group.command("import")(import_model)
    return group


def show_models(
    context: typer.Context,
    task: Annotated[str, typer.Option("--task", help="Only models of this task.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the cards of the installed models; or do one of the commands below."""
    if context.invoked_subcommand:
        return
    from NeuraxisLib.cli_pages import models_page

    with faults_reported(as_json):
        print(models_page([get_task(name) for name in ([task] if task else TASKS)], as_json))


_Index = Annotated[
    str, typer.Option("--index", help="File or https address of an index of further models.", show_default=False)
]
_Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def list_models(index: _Index = "", as_json: _Json = False) -> None:
    """List the models that are here, and those of an index that are available, with their state and size."""
    from NeuraxisLib.cli_pages import stored_page

    with faults_reported(as_json):
        store = _store(index)
        print(stored_page(store.models(), store.disk_use_bytes(), as_json))


def install_models(
    source: Annotated[
        str, typer.Argument(help="Model file, folder of model files, or name in the index.", show_default=False)
    ],
    index: _Index = "",
    as_json: _Json = False,
) -> None:
    """Install a model file, every good one of a folder, or one that an index names.

    A download that was cut goes on where it stopped. If a file of a folder is refused, the others are installed and
    the exit code is 6.
    """
    with faults_reported(as_json):
        with shown_progress() as progress:
            store = _store(index)
            if Path(source).is_dir():
                done = store.install_folder(source, progress)
            elif Path(source).is_file():
                done = store.install_file(source)
            else:
                done = store.install_named(source, progress)
        record = {"status": "done", "installed": done.models, "refused": done.refused, "folder": str(store.folder)}
        print(json.dumps(record, indent=1) if as_json else "\n".join(f"Installed {name}." for name in done.models))
    _leave_if(done.refused)


def verify_models(index: _Index = "", as_json: _Json = False) -> None:
    """Compare the hashes of every model on this computer; the exit code is 6 if one is not as it should be."""
    from NeuraxisLib.cli_pages import stored_page

    with faults_reported(as_json):
        store = _store(index)
        with shown_progress() as progress:
            rows = store.verify(store.models(), progress)
        print(stored_page(rows, store.disk_use_bytes(), as_json))
    _leave_if([row.note for row in rows if row.note])


def remove_model(
    name: Annotated[str, typer.Argument(help="Name of an installed model.", show_default=False)],
    as_json: _Json = False,
) -> None:
    """Delete an installed model from the folder of the user; bundled models stay."""
    with faults_reported(as_json):
        store = _store("")
        found = [row for row in store.models() if row.name == name]
        if not found:
            raise ModelError(f"There is no model '{name}'; see 'neuraxis models list'.")
        row = next((row for row in found if row.can_be_removed), found[0])
        store.remove(row)
        store.forget_removed()
        freed = f"{row.size_bytes / 1e6:.1f} MB"
        record = {"status": "done", "removed": name, "freed_bytes": row.size_bytes}
        print(json.dumps(record, indent=1) if as_json else f"Removed {name}; {freed} are free again.")


def write_model_index(
    output: Annotated[Path, typer.Argument(help="Index file to write, .json.", metavar="OUTPUT", show_default=False)],
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of model files; the bundled models if not given.", show_default=False),
    ] = None,
    url: Annotated[
        str, typer.Option("--url", help="https address of the folder; empty where the models lie beside the index.")
    ] = "",
) -> None:
    """Write an index of a folder of models, for others to install from."""
    from NeuraxisLib.model_index import index_of_bundled, index_of_folder, write_index

    with faults_reported():
        entries, refused = index_of_folder(folder, url) if folder else (index_of_bundled(), [])
        if not entries and not refused:
            raise InputError(f"There is no model file in '{folder.name}'; name the folder of the models.")
        write_index(output, entries)
        print(f"{len(entries)} models are in {output}.")
    _leave_if(refused)


def _leave_if(refused: Sequence[str]) -> None:
    """Say what is no good, if anything, and leave with the code for models."""
    if refused:
        print("\n".join(refused), file=sys.stderr)
        raise typer.Exit(EXIT_CODES["model"])


def _store(index: str) -> Any:
    """The model store, with the index read."""
    from NeuraxisLib.model_store import ModelStore

    store = ModelStore(index)
    store.read_index()
    return store


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
        except (ValueError, RecursionError):
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
