"""Keras weights in HDF5 (the layout of Keras 1 and 2, which Keras 3 still writes as ``.h5``), without TensorFlow.

A file is a list of layers, in the attribute ``layer_names`` of its root or of its group ``model_weights``. Each layer
is a group whose attribute ``weight_names`` lists its arrays, such as ``conv2d_3/kernel:0``. The list is sorted by
depth in the network, not by the order in which the code made the layers, but Keras counts as it makes them: the number
at the end of an automatic name tells that order.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.errors import ModelError
from NeuraxisLib.models import MAX_FILE_BYTES

if TYPE_CHECKING:
    import h5py

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


def read_keras(path: Path) -> list[KerasLayer]:
    """The layers with weights of a Keras HDF5 file, in the order of the file.

    A network inside the network (a VGG16 used as one layer, say) gives its own layers. Nothing but arrays of numbers
    is read: the description of the network, in which Keras may keep code, is not looked at, and links out of the file
    are not followed.

    Raises:
        ModelError: not such a file, damaged, or it points outside itself.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return list(_Reader(path.name).layers(file))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError):
        raise ModelError(f"The Keras file '{path.name}' is damaged or was cut short; obtain it again.") from None


def in_order_of_making(layers: Iterable[KerasLayer]) -> list[KerasLayer]:
    """Layers of one kind in the order in which the original's code made them, by Keras' own numbers."""
    return sorted(layers, key=lambda layer: layer.number or 0)


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


def _channels_first(value: np.ndarray) -> np.ndarray:
    """(..., inputs, outputs) -> (outputs, inputs, ...); vectors stay."""
    if value.ndim < 2:
        return value
    return np.ascontiguousarray(np.moveaxis(value, (-1, -2), (0, 1)))
