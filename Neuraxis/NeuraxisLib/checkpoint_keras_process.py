"""Reads a Keras HDF5 file in a process of its own, as HDF5 may crash on a damaged one or never come back.

Run as ``python -m NeuraxisLib.checkpoint_keras_process`` by :func:`NeuraxisLib.checkpoint_keras.read_keras`. The job
comes as JSON from stdin: ``{"path": ..., "folder": ..., "limit_s": ..., "memory_gb": ...}``. The folder gets the arrays
in an .npz, named ``0``, ``1`` ..., and then a JSON file: ``{"layers": [[name, [short name of an array, ...]], ...]}``,
or ``{"code": "...", "message": "..."}``.
"""

from __future__ import annotations

import itertools
import json
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuraxisLib.atomic import output_error
from NeuraxisLib.checkpoint_keras import ANSWER, ARRAYS, TEMPORARY, KerasLayer, damaged
from NeuraxisLib.errors import ModelError
from NeuraxisLib.models import MAX_FILE_BYTES
from NeuraxisLib.process import as_user_error, keep_no_core, limit_memory

if TYPE_CHECKING:
    import h5py


def read_layers(path: Path) -> list[KerasLayer]:
    """The layers of a file, read in this process; see :func:`NeuraxisLib.checkpoint_keras.read_keras`.

    Raises:
        ModelError: not such a file, damaged, asks for more memory than there is, or it points outside itself.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return list(_Reader(path.name).layers(file))
    except MemoryError:
        raise damaged(path.name, "it asks for more memory than it may take") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError):
        raise damaged(path.name) from None


class _Reader:
    """Reads one file, called ``name`` in errors, and no more from it than a model file may hold."""

    def __init__(self, name: str):
        self._name = name
        self._bytes_left = MAX_FILE_BYTES

    def layers(self, root: h5py.Group) -> Iterator[KerasLayer]:
        """The layers with weights that a root lists, a whole model's in its group ``model_weights``."""
        if "model_weights" in root and "layer_names" not in root.attrs:
            root = self._member(root, "model_weights")
        names = _names(root, "layer_names")
        if not names and ("layers" in root or "_layer_checkpoint_dependencies" in root):
            raise ModelError(
                f"The Keras file '{self._name}' is in the newer layout of '.weights.h5'; load it in Keras and save it "
                "with model.save('NAME.h5')."
            )
        if not names:
            raise ModelError(
                f"The HDF5 file '{self._name}' holds no Keras weights (no 'layer_names'); choose another file."
            )
        for name in names:
            yield from self._layers_of(self._member(root, name), name)

    def _layers_of(self, group: h5py.Group, own: str) -> Iterator[KerasLayer]:
        """The layer of a group, or several if it holds a network of its own."""
        arrays = {name: self._array(group, name) for name in _names(group, "weight_names")}
        short = {name: name.split("/")[-1].split(":")[0] for name in arrays}
        one = len(set(short.values())) == len(arrays)
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, value in arrays.items():
            part = own if one or "/" not in name else name.split("/")[-2]
            parts.setdefault(part, {})[short[name]] = value
        yield from (KerasLayer(part, weights) for part, weights in parts.items())

    def _array(self, group: h5py.Group, name: str) -> np.ndarray:
        """An array of numbers as float32."""
        data = self._member(group, name)
        if data.external or data.is_virtual:
            raise self._leads_outside(name)
        self._bytes_left -= 4 * math.prod(data.shape)
        if data.dtype.kind not in "fiu" or self._bytes_left < 0:
            raise ModelError(
                f"'{name[:80]}' in the Keras file '{self._name}' is no array of weights or far too large; choose "
                "another file."
            )
        return np.asarray(data[()], np.float32)

    def _member(self, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
        """What lies under a name of several parts, reached by links inside the file alone."""
        import h5py

        for part in name.split("/"):
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                raise self._leads_outside(name)
            group = group[part]
        return group

    def _leads_outside(self, name: str) -> ModelError:
        return ModelError(f"The Keras file '{self._name}' leads outside itself at '{name[:80]}'; choose another file.")


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names in an attribute; Keras cuts a long one into ``layer_names0``, ``layer_names1`` ..."""
    numbered = itertools.takewhile(group.attrs.__contains__, (f"{attribute}{n}" for n in itertools.count()))
    chunks = [attribute] if attribute in group.attrs else list(numbered)
    names = [name for chunk in chunks for name in np.atleast_1d(group.attrs[chunk])]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


# -- the process ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Read the job, then the file, and leave what is in it or why it cannot be read."""
    job = json.loads(sys.stdin.buffer.read())
    keep_no_core()
    limit_memory(job["memory_gb"])
    if hasattr(signal, "alarm"):  # should the parent be gone by then, this ends even what never comes back
        signal.alarm(math.ceil(job["limit_s"]) + 5)
    folder = Path(job["folder"])
    try:
        answer = _read_into(folder, Path(job["path"]))
    except Exception as fault:
        error = as_user_error(fault)
        answer = {"code": error.code, "message": str(error)}
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8")


def _read_into(folder: Path, path: Path) -> dict[str, Any]:
    """Write the arrays of a file; what the layers are called."""
    layers = read_layers(path)
    arrays = (value for layer in layers for value in layer.weights.values())
    try:
        np.savez(folder / ARRAYS, **{str(number): value for number, value in enumerate(arrays)})
    except OSError as error:
        raise output_error(error, TEMPORARY) from None
    return {"layers": [[layer.name, list(layer.weights)] for layer in layers]}


if __name__ == "__main__":
    main()
