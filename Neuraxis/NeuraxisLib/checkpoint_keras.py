"""Keras weights in HDF5 (the layout of Keras 1 and 2, which Keras 3 still writes as ``.h5``), without TensorFlow.

A file is a list of layers, in the attribute ``layer_names`` of its root or of its group ``model_weights``. Each layer
is a group whose attribute ``weight_names`` lists its arrays, such as ``conv2d_3/kernel:0``. The list is sorted by
depth in the network, not by the order in which the code made the layers, but Keras counts as it makes them: the number
at the end of an automatic name tells that order.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from NeuraxisLib.atomic import output_error
from NeuraxisLib.errors import ModelError, WorkerError, WorkerStartError
from NeuraxisLib.private_folder import private_folder, remove_private
from NeuraxisLib.process import error_of_code
from NeuraxisLib.worker_client import default_python
from NeuraxisLib.worker_process import child_environment, kill_tree, own_group

#: Seconds that any file may take to be read, and bytes of it that a slow disk gives in one more.
LIMIT_S, SLOWEST_BYTES_PER_S = 60.0, 5e6
#: Memory that reading may take: for the libraries, and per byte of the file (one becomes four, and packing).
MEMORY_BYTES, MEMORY_PER_BYTE = 2 << 30, 8
#: Files that the reading process leaves: what the layers are called (JSON), or its error; their arrays, by number.
ANSWER, ARRAYS = "answer.json", "arrays.npz"
#: What they are called when there is no room for them.
TEMPORARY = "the temporary copy of the weights"

CONVOLUTION, TRANSPOSED, NORM, DENSE, RECURRENT = (
    "convolution", "transposed convolution", "batch normalisation", "dense layer", "convolutional LSTM"
)  # fmt: skip
_AUTOMATIC = re.compile(r"(?:conv\dd(?:_transpose)?|batch_normalization(?:_v\d)?|dense|conv_?lst_?m_?2d)(?:_(\d+))?")
#: Keras' name of an array -> ours of a norm.
_NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


#: Short names of the arrays of the kinds above.
WEIGHTS = ("kernel", "recurrent_kernel", "bias", *_NORM_NAMES)


@dataclass(frozen=True)
class KerasLayer:
    """A layer that has weights.

    Attributes:
        name: as Keras or the author named it, such as ``conv2d_3`` or ``block1_conv1``.
        weights: short name (kernel, bias, gamma ...) -> array as Keras lays it out: kernels (rows, columns, inputs,
            outputs), of transposed convolutions (rows, columns, outputs, inputs), of dense layers (inputs, outputs).
    """

    name: str
    weights: dict[str, np.ndarray]

    @property
    def kind(self) -> str:
        """One of the kinds above, or ``""`` for a layer of another kind."""
        dimensions = self.weights["kernel"].ndim if "kernel" in self.weights else 0
        if "moving_mean" in self.weights:
            return NORM
        if "recurrent_kernel" in self.weights:
            return RECURRENT if dimensions == 4 else ""
        if dimensions == 2:
            return DENSE
        if dimensions in (3, 4, 5):
            return TRANSPOSED if "transpose" in self.name.lower() else CONVOLUTION
        return ""

    @property
    def number(self) -> int | None:
        """Its place among the layers of its kind that the code made; None if its author named it."""
        match = _AUTOMATIC.fullmatch(self.name)
        return int(match[1] or 0) if match else None

    def as_torch(self) -> list[tuple[str, str, np.ndarray]]:
        """(name in PyTorch, name in Keras, array as PyTorch lays it out) of each array.

        Kernels become (outputs, inputs, rows, columns), of transposed convolutions (inputs, outputs, rows, columns).
        A ConvLSTM2D becomes the convolution of its input (``input.weight``, ``input.bias``) and that of its state
        (``recurrent.weight``), gates in Keras' order input, forget, cell, output along the outputs. A norm without
        gamma or beta gets 1 or 0.
        """
        if self.kind == NORM:
            mean = self.weights["moving_mean"]
            weights = {"gamma": np.ones_like(mean), "beta": np.zeros_like(mean), **self.weights}
            return [(_NORM_NAMES.get(name, name), name, value) for name, value in weights.items()]
        prefix = "input." if self.kind == RECURRENT else ""
        names = {"kernel": f"{prefix}weight", "recurrent_kernel": "recurrent.weight", "bias": f"{prefix}bias"}
        return [(names.get(name, name), name, _channels_first(value)) for name, value in self.weights.items()]


def read_keras(path: Path, limit_s: float = LIMIT_S) -> list[KerasLayer]:
    """The layers with weights of a Keras HDF5 file, in the order of the file.

    A network inside the network (a VGG16 used as one layer, say) gives its own layers. Nothing but arrays of numbers
    is read: the description of the network, in which Keras may keep code, is not looked at, and links out of the file
    are not followed. HDF5 itself crashes on some damaged files and never comes back from others, so it runs in a
    process of its own with a limit of memory and of time, which is ``limit_s`` and more for a large file.

    Raises:
        ModelError: not such a file, damaged, or it points outside itself.
        OutputError: the temporary folder has no room for the arrays.
        WorkerError: that process cannot be started, or failed for another reason than the file.
    """
    try:
        folder = private_folder("keras")
    except OSError as error:
        raise output_error(error, TEMPORARY) from None
    try:
        code = _run_reader(path, folder, limit_s)
        return _layers_in(folder, path.name, code)
    finally:
        remove_private(folder)


def damaged(name: str, why: str = "") -> ModelError:
    """The error for a file that HDF5 cannot read; ``why`` where more is known than that."""
    why = f" ({why})" if why else ""
    return ModelError(f"The Keras file '{name}' is damaged or was cut short{why}; obtain it again.")


def in_order_of_making(layers: Iterable[KerasLayer]) -> list[KerasLayer]:
    """Layers of one kind in the order in which the original's code made them, by Keras' own numbers."""
    return sorted(layers, key=lambda layer: layer.number or 0)


def _channels_first(value: np.ndarray) -> np.ndarray:
    """(..., inputs, outputs) -> (outputs, inputs, ...); vectors stay."""
    if value.ndim < 2:
        return value
    return np.ascontiguousarray(np.moveaxis(value, (-1, -2), (0, 1)))


# -- the process that reads ----------------------------------------------------------------------------------------


def _run_reader(path: Path, folder: Path, limit_s: float) -> int:
    """Let :mod:`NeuraxisLib.checkpoint_keras_process` fill a folder; its exit code, ModelError if it does not end."""
    size = 0
    with contextlib.suppress(OSError):  # which the reader says in its own words
        size = path.stat().st_size
    limit_s += size / SLOWEST_BYTES_PER_S
    job = {
        "path": str(path.absolute()),
        "folder": str(folder),
        "limit_s": limit_s,
        "memory_gb": (MEMORY_BYTES + MEMORY_PER_BYTE * size) / 1e9,
    }
    python = default_python()
    try:
        child = subprocess.Popen(
            [python, "-m", "NeuraxisLib.checkpoint_keras_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment((), None, 1, hide_gpu=True),
            **own_group(),
        )
    except OSError as error:
        sentence = f"The interpreter '{python}' cannot be started ({error.strerror}); choose another one."
        raise WorkerStartError(sentence) from None
    try:
        child.communicate(json.dumps(job).encode(), timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise damaged(path.name, f"no answer within {limit_s:.0f} s") from None
    finally:  # also of Ctrl-C; a launcher may stand between, so the whole tree goes
        if child.poll() is None:
            kill_tree(child)
    return child.returncode


def _layers_in(folder: Path, name: str, code: int) -> list[KerasLayer]:
    """What the reading process left: the layers, or the error that it told or that its exit code tells."""
    try:
        answer = json.loads((folder / ANSWER).read_bytes())
        if "code" not in answer:
            with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
                taken = (arrays[str(number)] for number in itertools.count())
                return [KerasLayer(layer, dict(zip(names, taken))) for layer, names in answer["layers"]]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        raise _error_of_exit(name, code) from None
    raise error_of_code(str(answer["code"]), str(answer.get("message")))


def _error_of_exit(name: str, code: int) -> ModelError | WorkerError:
    """Why a reading process of that exit code left no answer."""
    if 0 < code < 128:  # Python's own; a crash is a signal, beyond 128 where a launcher passes it on
        return WorkerError(
            f"The process that reads Keras files failed (exit code {code}); check that the system's temporary folder "
            "has room, and install Neuraxis again if it has."
        )
    killed = code in (-9, 137)
    return damaged(name, "reading it took all memory" if killed else "the HDF5 library crashed on it")
