"""Networks computed by OpenVINO on the processor, where a user asks for ``openvino``. Only the worker loads this file.

PyTorch stays what prepares and combines; only passes through a network are exchanged. A network is converted when it
is first called with images of a size, and compiled once more for every precision. Images of a batch are taken one by
one, which is fastest on a processor, so that the size of the batch asks for no further conversion.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

#: Largest difference of a converted network from PyTorch in float32, as a share of its largest value.
LARGEST_DIFFERENCE = 1e-3
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class ConversionError(RuntimeError):
    """OpenVINO cannot be loaded, or does not take a network."""


class Converted(nn.Module):
    """A network of one input and one output, computed by OpenVINO; the input's type says in which precision.

    Args:
        network: in evaluation mode, float32, on the CPU, every image of a batch on its own; it is traced at the first
            pass.
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
                    self._convert(images[0])
                self._passes[key] = _compiled(self._models[images[0].shape], _HINTS[x.dtype])
            except Exception as error:  # of many kinds, from PyTorch's tracing to OpenVINO's compiler
                raise ConversionError(" ".join(str(error).split())[:200] or type(error).__name__) from error
        return torch.cat([self._passes[key](image) for image in images])

    def _convert(self, image: Tensor) -> None:
        """Trace the network on an image and compare with PyTorch on another, as what a trace cannot hold is frozen."""
        network = self.network.to(memory_format=torch.contiguous_format)
        with _undisturbed():
            model = load_openvino().convert_model(network, example_input=image)
        model.reshape(list(image.shape))
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        expected = network(noise)
        difference = float((_compiled(model, "f32")(noise) - expected).abs().max())
        if not difference <= LARGEST_DIFFERENCE * max(1.0, float(expected.abs().max())):
            raise ValueError(f"its values differ by {difference:.2g}")
        self._models[image.shape] = model


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
