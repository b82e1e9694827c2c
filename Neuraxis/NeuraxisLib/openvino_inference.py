"""Networks computed by OpenVINO on the processor, where a user asks for ``openvino``. Only the worker loads this file.

PyTorch stays what prepares and combines; only passes through a network are exchanged. A network is converted when it
is first called with images of a size, and compiled once more for every precision. Images of a batch are taken one by
one, which is fastest on a processor, so that the size of the batch asks for no further conversion.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from NeuraxisLib import __version__
from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.models import user_model_folder

#: Largest difference of a converted network from PyTorch in float32, as a share of its largest value.
LARGEST_DIFFERENCE = 1e-3
#: Converting takes seconds, so conversions are kept beside the user's models: at most so many, in files of this kind.
KEPT, SUFFIX = 12, ".openvino"
_DIGEST, _LENGTH = 32, 8
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class ConversionError(RuntimeError):
    """OpenVINO cannot be loaded, or does not take a network."""


class Converted(nn.Module):
    """A network of one input and one output, computed by OpenVINO; the input's type says in which precision.

    Args:
        network: in evaluation mode, float32, on the CPU, every image of a batch on its own; at the first pass it is
            traced, or found converted already.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self._models: dict[tuple, Any] = {}
        self._passes: dict[tuple, Callable[[Tensor], Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """What the network makes of ``x`` (n, ...), float32 or bfloat16; as float32.

        Raises:
            ConversionError: OpenVINO does not take the network or images of this size, or answers otherwise.
        """
        images = x.float().contiguous().split(1)
        key = (images[0].shape, x.dtype)
        if key not in self._passes:
            try:
                if images[0].shape not in self._models:
                    self._prepare(images[0])
                if key not in self._passes:
                    self._passes[key] = _compiled(self._models[images[0].shape], _HINTS[x.dtype])
            except Exception as error:  # of many kinds, from PyTorch's tracing to OpenVINO's compiler
                raise ConversionError(" ".join(str(error).split())[:200] or type(error).__name__) from error
        return torch.cat([self._passes[key](image) for image in images])

    def _prepare(self, image: Tensor) -> None:
        """The model for images of a size and its pass in float32: as it was kept, if it agrees, or converted now."""
        network, shape = self.network.to(memory_format=torch.contiguous_format), image.shape
        path = _place(network, shape)
        try:
            model = _kept(path)
            exact = _checked(model, network, shape)
        except (OSError, ValueError, RuntimeError):
            with _undisturbed():
                model = load_openvino().convert_model(network, example_input=image)
            model.reshape(list(shape))
            exact = _checked(model, network, shape)
            _keep(model, path)
        self._models[shape], self._passes[shape, torch.float32] = model, exact


def _checked(model: Any, network: nn.Module, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The pass of a model in float32; ValueError if it differs from PyTorch's.

    They see noise, not the image that was traced: what a trace cannot hold is frozen in it.
    """
    exact, noise = _compiled(model, "f32"), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = network(noise)
    difference = float((exact(noise) - expected).abs().max())
    if not difference <= LARGEST_DIFFERENCE * max(1.0, float(expected.abs().max())):
        raise ValueError(f"its values differ by {difference:.2g}")
    return exact


def _compiled(model: Any, precision: str) -> Callable[[Tensor], Tensor]:
    """A pass of a model through OpenVINO; its precision is "f32" or "bf16", what goes in and comes out float32."""
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # workers side by side would all take the same cores
    }
    request = load_openvino().Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda image: torch.from_numpy(request.infer([image.numpy()], share_inputs=True)[0].copy())


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No word of sizes that tracing takes for constants; and our log goes on, which a failed conversion would end."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


@lru_cache(maxsize=1)
def load_openvino() -> Any:
    """The package openvino, without the part of it that tells its makers over the network that it is used.

    It imports ``openvino_telemetry`` where that can be imported, and does without where not.

    Raises:
        ConversionError: the package is absent or broken.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # from now on its import fails
    try:
        import openvino
    except ImportError as error:
        raise ConversionError(f"it cannot be loaded ({error})") from error
    return openvino


# -- conversions that are kept ----------------------------------------------------------------------------------


def _place(network: nn.Module, shape: tuple[int, ...]) -> Path:
    """The file of a conversion; its name is a digest of the weights, the layers, the size and all versions."""
    versions = __version__, torch.__version__, load_openvino().__version__
    digest = hashlib.sha256(repr((versions, tuple(shape), str(network))).encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return user_model_folder().parent / "Converted" / (digest.hexdigest() + SUFFIX)


def _kept(path: Path) -> Any:
    """The model in a file of :func:`_keep`; OSError if there is none, ValueError if it is not as it was written."""
    content = path.read_bytes()
    digest, content = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("the file was changed")
    split = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    model = load_openvino().Core().read_model(content[_LENGTH:split], content[split:])
    with suppress(OSError):
        os.utime(path)
    return model


def _keep(model: Any, path: Path) -> None:
    """Write a model and its digest as one file and remove those not used for longest; without a disk, do nothing."""
    with suppress(OSError, RuntimeError, NeuraxisError), tempfile.TemporaryDirectory() as folder:
        layers = Path(folder) / "model.xml"
        load_openvino().save_model(model, layers, compress_to_fp16=False)
        text = layers.read_bytes()
        content = len(text).to_bytes(_LENGTH, "little") + text + layers.with_suffix(".bin").read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_bytes(hashlib.sha256(content).digest() + content)
        for old in sorted(path.parent.glob(f"*{SUFFIX}"), key=lambda one: one.stat().st_mtime)[:-KEPT]:
            old.unlink()
