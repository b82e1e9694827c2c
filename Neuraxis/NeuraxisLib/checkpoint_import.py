"""From an original checkpoint to a model file that runs: what the file is, which network it is for, what is said of it.

A task names its table of originals in :attr:`NeuraxisLib.task.Task.originals`: network name -> :class:`Original`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.checkpoint_tensorflow import MAGIC, data_files, read_tensorflow
from NeuraxisLib.errors import InputError, ModelError, OutputError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.models import SUFFIX, write_model
from NeuraxisLib.task import TASKS, Task, get_task

if TYPE_CHECKING:
    from torch import nn

PYTORCH, KERAS, TENSORFLOW = "PyTorch checkpoint", "Keras HDF5 file", "TensorFlow checkpoint"
_HDF5, _ZIP, _PICKLE = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80"


@dataclass(frozen=True)
class Original:
    """How checkpoints of one network's original become ours.

    Attributes:
        network: ``"module:attribute"`` of our network.
        source: whose code wrote them, in words.
        preprocessing: what that code showed its network, as a model file says it.
        input_shape: from such a description to the shape (1, channels, ...) of what the network is given; ModelError
            for one that cannot be read.
        assumed: what of the preprocessing is ours because its authors did not publish it, a sentence; "" if nothing.
        arguments: of our network, where those of the original are not the defaults.
        refused: argument -> why no checkpoint can be read into a network made with it.
        uncertainty: how it is judged, as a model file says it.
        torch_names: (regular expression, replacement) pairs from the original's tensor names to ours.
        keras_module: from a layer name given by the author to our module, None for other names; see
            :func:`~NeuraxisLib.checkpoint_fit.place_keras` for the layers that Keras named.
    """

    network: str
    source: str
    preprocessing: dict
    input_shape: Callable[[dict], tuple[int, ...]]
    assumed: str = ""
    arguments: dict = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    uncertainty: dict = field(default_factory=lambda: {"kind": "entropy"})
    torch_names: tuple[tuple[str, str], ...] = ()
    keras_module: Callable[[str], str | None] = lambda name: None


@dataclass(frozen=True)
class Card:
    """What the person who imports says of the model.

    Attributes:
        name: short unique name; the output's by default.
        title: for people.
        licence: of the checkpoint.
        threshold: probability from which a voxel is marked.
        preprocessing: in place of the original's.
    """

    name: str = ""
    title: str = ""
    licence: str = "unknown"
    threshold: float = 0.5
    preprocessing: dict | None = None


def import_checkpoint(
    source: Path, output: Path, architecture: str, arguments: Mapping[str, Any] | None = None, card: Card | None = None
) -> dict:
    """Write the model file ``output`` from the original checkpoint ``source``; the header that was written.

    Args:
        source: a PyTorch file, Keras weights in HDF5, or the index of a TensorFlow checkpoint; nothing in it is
            executed.
        output: must end in .safetensors and not exist yet.
        architecture: a network of some task's table of originals.
        arguments: of that network, where they are not the published ones.
        card: what to say of the model.

    Raises:
        ModelError: the file is not what the network was made from (names the first tensor that does not fit),
            damaged, or asks for code to be run; no such network.
        InputError: the network does not take these arguments.
        OutputError: the model file cannot be written.
    """
    from NeuraxisLib.checkpoint_fit import fitted

    card = card or Card()
    task, original = find_original(architecture)
    if output.suffix.lower() != SUFFIX or output.exists():
        fault = "exists already" if output.exists() else f"does not end in {SUFFIX}"
        raise OutputError(f"The output '{output.name}' {fault}; choose another name.")
    kind = kind_of_file(source)
    arguments = {**original.arguments, **(arguments or {})}
    network = _network_of_shapes(architecture, original, arguments)
    _check_preprocessing(architecture, original, network, card)
    weights = fitted(_placed(source, kind, original, network), network, source.name, architecture)
    described = {"name": architecture, "arguments": arguments}
    header = {**_header(task, original, card, output), "architecture": described}
    header["training"] = _provenance(source, kind, original)
    header["notice"] = _notice(kind, original, card)
    write_model(output, weights, header)
    return header


def find_original(architecture: str) -> tuple[Task, Original]:
    """The task and the entry of its table for a network; ModelError lists those there are."""
    known: list[str] = []
    for name in TASKS:
        task = get_task(name)
        if not task.originals:
            continue
        module, attribute = task.originals.split(":")
        table = getattr(import_module(module), attribute)
        if architecture in table:
            return task, table[architecture]
        known += table
    raise ModelError(
        f"There is no network '{architecture}' whose checkpoints can be imported; choose one of: {', '.join(known)}."
    )


def kind_of_file(path: Path) -> str:
    """:data:`PYTORCH`, :data:`KERAS` or :data:`TENSORFLOW` (its index), by the first or last bytes of a file.

    Raises:
        ModelError: cannot be opened, or another kind of file (named where it is one that people have).
    """
    try:
        with open(path, "rb") as file:
            first = file.read(8)
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 8))
            last = file.read(8)
    except OSError as error:
        reason = (error.strerror or "unknown fault").lower()
        raise ModelError(f"The checkpoint '{path.name}' cannot be opened ({reason}); choose another.") from None
    if first == _HDF5:
        return KERAS
    if first.startswith((_ZIP, _PICKLE)):
        return PYTORCH
    if last == MAGIC:
        return TENSORFLOW
    if ".data-0" in path.name:
        raise ModelError(f"'{path.name}' is the data of a TensorFlow checkpoint; choose its '.index' instead.")
    raise ModelError(
        f"'{path.name}' is no PyTorch checkpoint, Keras weights in HDF5 or index of a TensorFlow checkpoint; choose "
        "the file that the original code saved."
    )


def _network_of_shapes(architecture: str, original: Original, arguments: Mapping[str, Any]) -> nn.Module:
    """The network without values: a wrong argument cannot make us reserve memory for a monster."""
    import torch

    refused = next((name for name in original.refused if arguments.get(name)), None)
    if refused:
        raise InputError(f"{architecture} with '{refused}' cannot be imported: {original.refused[refused]}.")
    module, attribute = original.network.split(":")
    try:
        with torch.device("meta"):
            return getattr(import_module(module), attribute)(**arguments).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{architecture} cannot be made with these arguments ({reason}); correct --set.") from None


def _check_preprocessing(architecture: str, original: Original, network: nn.Module, card: Card) -> None:
    """InputError unless the network takes what the model file will say it is shown; runs on shapes alone."""
    import torch

    try:
        shape = original.input_shape(card.preprocessing or original.preprocessing)
    except ModelError as error:
        raise InputError(f"{str(error).partition(';')[0]}; correct the file given with --preprocessing.") from None
    try:
        with torch.device("meta"):
            network(torch.empty(shape))
    except (RuntimeError, ValueError, IndexError, AssertionError):
        _, channels, *size = shape
        raise InputError(
            f"{architecture} with these arguments does not take images of {channels} channels and size "
            f"{' x '.join(map(str, size))}, as its preprocessing makes them; describe what it was trained on with "
            "--preprocessing."
        ) from None


def _placed(source: Path, kind: str, original: Original, network: nn.Module) -> dict[str, Any]:
    """Our tensor name -> tensor of the file."""
    from NeuraxisLib.checkpoint_fit import place_keras, place_torch

    if kind == KERAS:
        from NeuraxisLib.checkpoint_keras import read_keras

        return place_keras(read_keras(source), network, original.keras_module)
    if kind == TENSORFLOW:
        return place_keras(read_tensorflow(source), network, original.keras_module)
    from NeuraxisLib.checkpoint_torch import read_torch

    return place_torch(read_torch(source), original.torch_names)


def _header(task: Task, original: Original, card: Card, output: Path) -> dict:
    name = card.name or output.stem
    return {
        "name": name,
        "title": card.title or f"{name} (imported)",
        "task": task.name,
        "preprocessing": card.preprocessing or original.preprocessing,
        "labels": {str(label.value): label.name for label in LabelTable.read(task.resources / "labels.csv")},
        "threshold": card.threshold,
        "min_component_ml": 0.0,
        "uncertainty": original.uncertainty,
        "licence": card.licence,
        "scores": {},
    }


def _provenance(source: Path, kind: str, original: Original) -> dict:
    """Where the weights came from; no path and no file name, which may tell of a patient or a person.

    The hash is of the file; of a TensorFlow checkpoint, of its index and then its data.
    """
    digest = hashlib.sha256()
    for path in [source, *(data_files(source) if kind == TENSORFLOW else [])]:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return {
        "imported_from": kind,
        "original": original.source,
        "source_sha256": digest.hexdigest(),
        "importer": f"Neuraxis {__version__}",
        "date": date.today().isoformat(),
    }


def _notice(kind: str, original: Original, card: Card) -> str:
    assumed = original.assumed if card.preprocessing is None else ""
    parts = (f"Imported from a {kind} of others; neither trained nor tested here.", assumed, RESEARCH_USE_NOTICE)
    return " ".join(filter(None, parts))
