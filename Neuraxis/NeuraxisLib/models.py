"""Model files: one .safetensors whose header says everything that is needed to run it. Nothing is ever unpickled.

The header's metadata holds one JSON object under ``neuraxis``: ``format_version``, ``name``, ``title``, ``task``,
``architecture`` {name, arguments}, ``preprocessing``, ``labels``, ``threshold``, ``min_component_ml``,
``uncertainty``, ``training``, ``licence``, ``notice``, ``scores``, optionally ``default``, ``comparator`` (a method to
compare with, never taken unless it is named) and ``flip_averaging``, and ``content_sha256`` over all of it and the
weights, so that a damaged or altered file is refused.

Reading a header needs the standard library alone, so that a model's card can be shown where torch is absent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from NeuraxisLib.errors import ModelError, NewerModelError

if TYPE_CHECKING:
    from torch import Tensor

    from NeuraxisLib.task import Task

FORMAT_VERSION = 1
SUFFIX = ".safetensors"
#: A real header is a few ten kB; a larger one is damaged or hostile.
MAX_HEADER_BYTES = 1_000_000
MAX_FILE_BYTES = 8 << 30
_KEY, _DIGEST = "neuraxis", "content_sha256"
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
#: What a header must say, and in which form.
_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "format_version": int,
    "name": str,
    "title": str,
    "task": str,
    "architecture": dict,
    "preprocessing": dict,
    "labels": dict,
    "threshold": (int, float),
    "min_component_ml": (int, float),
    "uncertainty": dict,
    "training": dict,
    "licence": str,
    "notice": str,
    "scores": dict,
}
#: First bytes of files that people take for model files.
_DISGUISES = {
    b"PK\x03\x04": "a PyTorch pickle or another zip archive",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"\x89HDF": "a Keras (HDF5) file",
    b"<": "a web page",
}


@dataclass(frozen=True)
class ModelFile:
    """A model file whose header has been read and checked; its weights are read and checked on demand.

    Attributes:
        path: where it is.
        header: the JSON object described at the top of this file.
    """

    path: Path
    header: dict

    @property
    def name(self) -> str:
        """Short unique name, as options and provenance call it."""
        return self.header["name"]

    @property
    def title(self) -> str:
        """Name for people."""
        return self.header["title"]

    @property
    def task(self) -> str:
        """Name of the task it serves."""
        return self.header["task"]

    @property
    def content_sha256(self) -> str:
        """What the header says the hash of its content is; empty if it says none. :meth:`check` compares it."""
        return str(self.header.get(_DIGEST, ""))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the whole file, for provenance."""
        digest = hashlib.sha256()
        with _opened(self.path) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    @property
    def is_comparator(self) -> bool:
        """Whether it is there to compare with, and never chosen unless somebody names it."""
        return bool(self.header.get("comparator", False))

    def check(self) -> bytes:
        """The whole file, after its hash has been found right; ModelError if the file was altered. Needs no torch."""
        with _opened(self.path) as file:
            content = file.read()
        table, metadata, start = _split(content, self.path.name)
        if _content_sha256(metadata, table, memoryview(content)[start:]) != metadata.get(_DIGEST):
            raise ModelError(f"The model file '{self.path.name}' is damaged or was altered; install it again.")
        return content

    def weights(self) -> dict[str, Tensor]:
        """Name -> tensor, half precision widened to float32. Raises ModelError if the file was altered."""
        from safetensors.torch import load

        tensors = load(self.check())
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def read_header(path: str | Path) -> dict:
    """The header of a model file, read without torch; the weights are not looked at.

    Raises:
        ModelError: not a file, not safetensors (a pickle, a web page), a header that is too long or lies about the
            size of the data, no Neuraxis header or an incomplete one, or a newer format.
    """
    path = Path(path)
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 0 < length <= MAX_HEADER_BYTES or 8 + length > size or size > MAX_FILE_BYTES:
            raise _unreadable(path.name, first)
        _, header = _parse(file.read(length), size - 8 - length, path.name)
    return header


def load_model(path: str | Path, task: str | None = None) -> ModelFile:
    """Open a model file: header only; ModelError as :func:`read_header`, and if it serves another task."""
    path = Path(path)
    model = ModelFile(path, read_header(path))
    if task is not None and model.task != task:
        raise ModelError(f"The model '{model.name}' is made for the task '{model.task}', not '{task}'; choose another.")
    return model


def write_model(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a model file, whole or not at all; the format version and the hash are filled in.

    Tensors are stored in the precision they come in. Raises ModelError for an incomplete header or weights that
    are not finite, OutputError if the file cannot be written.
    """
    from safetensors.torch import save

    from NeuraxisLib.atomic import atomic_write

    path = Path(path)
    header = {**header, "format_version": FORMAT_VERSION}
    header.pop(_DIGEST, None)
    _check_header(header, path.name)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    broken = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
    if broken:
        raise ModelError(f"The weights '{broken}' are not finite numbers; do not keep this model.")
    content = save(tensors, {_KEY: json.dumps(header)})
    table, header, start = _split(content, path.name)
    header[_DIGEST] = _content_sha256(header, table, memoryview(content)[start:])
    content = save(tensors, {_KEY: json.dumps(header)})
    _split(content, path.name)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


# -- installed models -----------------------------------------------------------------------------------------


def user_model_folder() -> Path:
    """Where a user puts further model files; it need not exist.

    ``%LOCALAPPDATA%\\Neuraxis\\Models`` on Windows, ``~/Library/Application Support/Neuraxis/Models`` on macOS,
    ``$XDG_DATA_HOME/Neuraxis/Models`` (``~/.local/share`` by default) elsewhere.
    """
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "Neuraxis" / "Models"


def installed_models(task: Task) -> list[ModelFile]:
    """The models of a task, those marked as default first, methods to compare with last, else by name.

    Looks into the task's ``Models`` folder and the user's. A file of the user replaces a shipped one of the same
    name. Files that cannot be read are logged and left out: one bad file must not hide the others.
    """
    found: dict[str, ModelFile] = {}
    for folder in (task.resources / "Models", user_model_folder()):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                model = load_model(path)
            except ModelError as error:
                logging.getLogger(__name__).warning("%s", error)
                continue
            if model.task == task.name:
                found[model.name] = model
    return sorted(
        found.values(), key=lambda model: (model.is_comparator, not model.header.get("default", False), model.name)
    )


def find_model(task: Task, name_or_path: str | Path | None = None) -> Path:
    """Path of the model with that name or path; the default one for None or an empty text.

    Raises:
        ModelError: there is none (methods to compare with are no default), or the file is missing.
    """
    wanted = str(name_or_path or "")
    if wanted.lower().endswith(SUFFIX) or (wanted and Path(wanted).is_file()):
        if not Path(wanted).is_file():
            raise ModelError(f"There is no model file '{Path(wanted).name}'; check the path.")
        return Path(wanted)
    if wanted in task.rules:
        raise ModelError(f"'{wanted}' is a rule that 'neuraxis evaluate' compares models with; name a model file here.")
    models = installed_models(task)
    if not models or (not wanted and models[0].is_comparator):
        raise ModelError(
            f"No model for the task '{task.name}' is installed; install the extension again or put a model file into "
            f"'{user_model_folder()}'."
        )
    if not wanted:
        return models[0].path
    for model in models:
        if model.name == wanted:
            return model.path
    names = ", ".join(model.name for model in models)
    raise ModelError(f"There is no model '{wanted}'; choose one of: {names}; or name a {SUFFIX} file.")


# -- the format -----------------------------------------------------------------------------------------------


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        reason = (error.strerror or "unknown fault").lower()
        raise ModelError(f"The model file '{path.name}' cannot be opened ({reason}); choose another.") from None


def _unreadable(name: str, first: bytes = b"") -> ModelError:
    """What to say of a file that is no safetensors; ``first``: its first bytes, which may tell what it is instead."""
    for start, kind in _DISGUISES.items():
        if first.startswith(start):
            return ModelError(f"'{name}' is {kind}, not a model file; choose a {SUFFIX} file of Neuraxis.")
    return ModelError(f"'{name}' is not a model file or was cut short; install it again.")


def _split(content: bytes, name: str) -> tuple[dict, dict, int]:
    """Tensor table, Neuraxis header and start of the data of a whole file in memory."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if not 0 < length <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise _unreadable(name)
    return *_parse(content[8 : 8 + length], len(content) - 8 - length, name), 8 + length


def _parse(text: bytes, data_bytes: int, name: str) -> tuple[dict, dict]:
    """(tensor table, Neuraxis header) of a safetensors header; ModelError unless both hold together."""
    try:
        table = json.loads(text)
        metadata = table.pop("__metadata__", {})
        _check_table(table, data_bytes)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _unreadable(name) from None
    try:
        header = json.loads(metadata[_KEY])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ModelError(
            f"'{name}' holds weights but not how to use them (no Neuraxis header); choose a model file of Neuraxis."
        ) from None
    _check_header(header, name)
    return table, header


def _check_table(table: dict, data_bytes: int) -> None:
    """ValueError unless the tensors fill the data exactly, one after the other, with sizes as their shapes say."""
    end = 0
    for entry in sorted(table.values(), key=lambda entry: entry["data_offsets"]):
        start, stop = entry["data_offsets"]
        shape = entry["shape"]
        if not all(type(number) is int and number >= 0 for number in (start, stop, *shape)):
            raise ValueError("offsets and shapes are whole numbers")
        if start != end or stop - start != math.prod(shape) * _ITEM_BYTES[entry["dtype"]]:
            raise ValueError("offsets do not agree with shapes")
        end = stop
    if end != data_bytes:
        raise ValueError("the data are longer or shorter than the tensors")


def _check_header(header: Any, name: str) -> None:
    """ModelError unless the Neuraxis header is complete and of a format that this version knows."""
    version = header.get("format_version") if isinstance(header, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerModelError(f"The model file '{name}' needs a newer version of Neuraxis; update the extension.")
    for key, kind in _REQUIRED.items():
        if not isinstance(header, dict) or not isinstance(header.get(key), kind):
            raise ModelError(f"The model file '{name}' does not say its '{key}'; install it again.")
    architecture = header["architecture"]
    if not isinstance(architecture.get("name"), str) or not isinstance(architecture.get("arguments"), dict):
        raise ModelError(f"The model file '{name}' does not say its network; install it again.")
    if not 0 < header["threshold"] < 1 or not 0 <= header["min_component_ml"] < 1000:
        raise ModelError(f"The model file '{name}' has an impossible threshold or smallest volume; install it again.")


def _content_sha256(header: dict, table: dict, data: memoryview) -> str:
    """Hash of the header (without the hash itself), the tensor table and the data, free of how JSON is laid out."""
    digest = hashlib.sha256()
    for part in ({key: value for key, value in header.items() if key != _DIGEST}, table):
        digest.update(json.dumps(part, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    digest.update(data)
    return digest.hexdigest()
