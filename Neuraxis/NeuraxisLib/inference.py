"""Running networks: which device, which precision, how many images at a time. Only the worker loads this file.

On a CPU one slice at a time in channels-last order is fastest (a batch falls out of the caches). Lower precision is
never assumed to be faster: on CPUs without the instructions it can be a hundred times slower, so it is tried out on
one image, and taken only if it is faster and agrees. The device ``openvino`` is the CPU with passes through the network
made by OpenVINO (:mod:`NeuraxisLib.openvino_inference`).
"""

from __future__ import annotations

import copy
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from NeuraxisLib.errors import DependencyError, InputError, ModelError, check_choice
from NeuraxisLib.models import ModelFile
from NeuraxisLib.openvino_inference import ConversionError, Converted
from NeuraxisLib.task import DEVICES, OPENVINO, Progress

PRECISIONS = ("auto", "float32", "bfloat16")
#: Slices per batch at first; halved when the device runs out of memory.
BATCH = {"cpu": 1, "cuda": 16, "mps": 4, OPENVINO: 1}
#: bfloat16 is taken if it saves at least this share of the time ...
WORTHWHILE_SAVING = 0.15
#: ... and no probability of the probed image changes by more than this.
LARGEST_DIFFERENCE = 0.02
_NOT_STORED = "num_batches_tracked"


def choose_device(name: str = "auto") -> str:
    """``"cpu"``, ``"cuda"``, ``"mps"`` or ``"openvino"``; ``"auto"`` takes the fastest that PyTorch alone has.

    Raises:
        InputError: unknown, or not there.
        DependencyError: OpenVINO is not installed.
    """
    check_choice("device", name, DEVICES)
    if name == OPENVINO:
        if find_spec("openvino") is None:
            raise DependencyError("Device 'openvino' needs a package: pip install openvino; or choose 'auto' or 'cpu'.")
        return name
    mps = getattr(torch.backends, "mps", None)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps is not None and mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[name]:
        raise InputError(f"Device '{name}' is not available to PyTorch on this machine; choose 'auto' or 'cpu'.")
    return name


def torch_device(chosen: str) -> str:
    """Where PyTorch computes with a device of :func:`choose_device`: on the CPU, if that is OpenVINO."""
    return "cpu" if chosen == OPENVINO else chosen


def build_network(model: ModelFile, networks: Mapping[str, str]) -> nn.Module:
    """The network of a model file with its weights, in evaluation mode on the CPU.

    Args:
        model: the model file.
        networks: architecture name -> ``"module:class"``; a task's table of what its model files may name.

    Raises:
        ModelError: unknown architecture, arguments it does not take, or a tensor that does not fit (named).
    """
    architecture = model.header["architecture"]
    if architecture["name"] not in networks:
        raise ModelError(
            f"The model '{model.name}' needs the network '{architecture['name']}', which this version does not have; "
            "update the extension."
        )
    module, attribute = networks[architecture["name"]].split(":")
    weights = model.weights()
    try:
        with torch.device("meta"), _Unfilled():  # shapes only: a header cannot make us reserve memory for a monster
            network = getattr(import_module(module), attribute)(**architecture["arguments"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"The model '{model.name}' describes an impossible network ({error}); install it again."
        ) from None
    wanted = network.state_dict()
    _check_fit(model.name, wanted, weights)
    for name in wanted:
        if name.endswith(_NOT_STORED):
            weights.setdefault(name, torch.zeros((), dtype=torch.long))
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval()


class _Unfilled(TorchFunctionMode):
    """Leaves out filling with random numbers: without memory there is nothing to fill.

    Saves more than a second, as drawing normal numbers for such a tensor loads a good part of PyTorch's compiler.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _check_fit(name: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """ModelError naming the first tensor that is missing, too many, or of another shape."""
    for key, tensor in wanted.items():
        if key not in found and not key.endswith(_NOT_STORED):
            raise ModelError(f"The model '{name}' lacks the tensor '{key}' of its network; install it again.")
        if key in found and found[key].shape != tensor.shape:
            raise ModelError(
                f"The tensor '{key}' of the model '{name}' has shape {tuple(found[key].shape)}, its network needs "
                f"{tuple(tensor.shape)}; install it again."
            )
    extra = next((key for key in found if key not in wanted), None)
    if extra:
        raise ModelError(f"The model '{name}' holds a tensor '{extra}' that its network lacks; install it again.")


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy whose BatchNorms behind a convolution are part of that convolution; same output, fewer passes."""
    network = copy.deepcopy(network).eval()
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for (first, one), (second, other) in itertools.pairwise(list(block.named_children())):
            if isinstance(one, nn.Conv2d) and isinstance(other, nn.BatchNorm2d) and other.track_running_stats:
                setattr(block, first, fuse_conv_bn_eval(one, other))
                setattr(block, second, nn.Identity())
    return network


def with_batch_statistics(network: nn.Module) -> nn.Module:
    """A copy that normalises with the statistics of each batch, as in training, without learning them."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


def foreground(logits: Tensor) -> Tensor:
    """Probability (n, outputs, ...) of the foreground: softmax of two logits (background, foreground), else sigmoid."""
    return torch.softmax(logits, dim=1)[:, 1:] if logits.shape[1] == 2 else torch.sigmoid(logits)


def dropouts(network: nn.Module) -> list[_DropoutNd]:
    """The dropout layers of a network that would drop something."""
    return [module for module in network.modules() if isinstance(module, _DropoutNd) and module.p > 0]


class Predictor:
    """A network made ready to predict images on one device.

    Attributes:
        device: where it computes; changes to ``"cpu"`` if a graphics card's memory does not hold one image, or
            OpenVINO does not take the network or what is asked of it.
        precision: ``"float32"`` or ``"bfloat16"``; with ``"auto"`` it is settled at the first image.
        warnings: what a reader should know about how it was computed.
        network: the network as given, on the CPU.
        run: ``run(network, x) -> logits``; how the network is called, for those who augment what it sees.

    Args:
        network: in evaluation mode.
        device: see :func:`choose_device`.
        precision: ``"float32"``, ``"bfloat16"`` or ``"auto"``.
        whole_batch: predict all images in one batch, for networks that normalise by batch statistics.
        drop: let dropout act, for Monte-Carlo dropout; by default even a network that was built to drop when
            predicting does not, so that a result can be repeated.
    """

    #: Images per batch at first; halved when the device runs out of memory.
    batch_sizes = BATCH
    #: Axis of an image batch that runs from one side of the patient to the other, for averaging with the mirror image.
    flip_axis = -1
    _memory_format = torch.channels_last

    def __init__(
        self,
        network: nn.Module,
        device: str = "auto",
        precision: str = "auto",
        whole_batch: bool = False,
        drop: bool = False,
    ):
        if precision not in PRECISIONS:
            raise InputError(f"There is no precision '{precision}'; choose one of: {', '.join(PRECISIONS)}.")
        self.network = network
        self._whole_batch, self._drop = whole_batch, drop
        self.precision = precision
        self.warnings: list[str] = []
        self.run: Callable[[nn.Module, Tensor], Tensor] = lambda network, x: network(x)
        self._ready: dict[str, nn.Module] = {}
        self._move(choose_device(device))
        if self.device == OPENVINO and (whole_batch or drop):
            what = "drop at random" if drop else "normalise by the batch"
            self._leave(f"OpenVINO cannot {what}, so PyTorch computed on the processor.")

    def _move(self, device: str) -> None:
        self.device, self.batch = device, self.batch_sizes[device]
        network = fold_batch_norm(self.network)
        for layer in dropouts(network):
            layer.train(self._drop)
            layer.p *= self._drop
        self._ready = {"float32": network.to(torch_device(device), memory_format=self._memory_format)}
        if device == OPENVINO:
            self._ready = {"float32": self._converted(network)}

    def _leave(self, why: str) -> None:
        """Go on with PyTorch on the processor; ``why`` is for the reader."""
        self.warnings.append(why)
        logging.getLogger(__name__).warning(why)
        self._move("cpu")

    def _converted(self, network: nn.Module) -> nn.Module:
        """A network, which is this function's own, with its passes made by OpenVINO."""
        return Converted(network)

    def batches(
        self,
        images: Callable[[np.ndarray], np.ndarray],
        count: int,
        progress: Progress | None = None,
        flip: bool = False,
        stage: str = "Predicting",
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(image numbers (n,), values (n, outputs, ...) float32) of every batch of ``count`` images.

        Args:
            images: takes image numbers (n,), returns network input (n, channels, ...) float32.
            count: number of images.
            progress: told after every batch; cancels between batches.
            flip: average with the prediction of the mirrored image.
            stage: what the progress says.

        Raises:
            CancelledError: the user cancelled.
        """
        progress = progress or Progress()
        if self.precision == "auto" and count:
            self.precision = self._probe(images(np.array([count // 2])))
        if self._whole_batch:
            self.batch = count
        start = 0
        while start < count:
            progress(start / count, stage)
            numbers = np.arange(start, min(start + self.batch, count))
            values = self._batch(images(numbers), flip)
            if values is not None:
                yield numbers, values
                start += len(numbers)
        progress(1.0, stage)

    def _batch(self, images: np.ndarray, flip: bool) -> np.ndarray | None:
        """Values of one batch; None if it has to be tried again with less memory."""
        try:
            values = self._forward(images, self.precision)
            if flip:
                mirrored = np.flip(images, self.flip_axis).copy()
                values = (values + self._forward(mirrored, self.precision).flip(self.flip_axis)) / 2
            return values.cpu().numpy()
        except ConversionError as error:
            logging.getLogger(__name__).warning("OpenVINO: %s", error)
            self._leave("OpenVINO cannot compute this network, so PyTorch computed on the processor.")
            return None
        except RuntimeError as error:
            if torch_device(self.device) == "cpu" or "out of memory" not in str(error).lower():
                raise
        if self.device == "cuda":
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch //= 2
        else:
            self._leave("The graphics card ran out of memory, so the processor computed instead.")
            self.precision = "float32"
        return None

    @torch.inference_mode()
    def _forward(self, images: np.ndarray, precision: str) -> Tensor:
        if precision not in self._ready:
            exact = self._ready["float32"]  # converted, it takes both
            other = exact if self.device == OPENVINO else copy.deepcopy(exact).to(getattr(torch, precision))
            self._ready[precision] = other
        kind, place = getattr(torch, precision), torch_device(self.device)
        x = torch.from_numpy(images).to(place, dtype=kind, memory_format=self._memory_format)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._values(self._ready[precision], x)

    def _values(self, network: nn.Module, x: Tensor) -> Tensor:
        """What is predicted of a batch (n, channels, ...): (n, outputs, ...) float32, the foreground's probability."""
        return foreground(self.run(network, x).float())

    def _probability(self, values: Tensor) -> Tensor:
        """The probability that goes with what :meth:`_values` gives."""
        return values

    def _probe(self, image: np.ndarray) -> str:
        """The faster precision whose probabilities agree with float32 on this image."""
        try:
            exact, exact_s = self._timed(image, "float32")
            rough, rough_s = self._timed(image, "bfloat16", give_up_s=2 * exact_s)
        except (RuntimeError, TypeError):  # no such kernels here; running out of memory is met again, and handled
            return "float32"
        difference = float((self._probability(exact) - self._probability(rough)).abs().max())
        if rough_s <= (1 - WORTHWHILE_SAVING) * exact_s and difference <= LARGEST_DIFFERENCE:
            return "bfloat16"
        return "float32"

    def _timed(self, image: np.ndarray, precision: str, give_up_s: float = np.inf) -> tuple[Tensor, float]:
        """Prediction and the shortest time of three; of two (the first warms up) if they take over ``give_up_s``.

        On a processor its own time counts, so that other programs do not decide the precision of a result.
        """
        clock, best = time.process_time if torch_device(self.device) == "cpu" else time.perf_counter, np.inf
        for attempt in range(3):
            start = clock()
            values = self._forward(image, precision).cpu()
            elapsed = clock() - start
            best = min(best, elapsed)
            if attempt and best > give_up_s:
                break
        return values, best


class SlicePredictor(Predictor):
    """A network made ready to predict slices."""

    def predict(
        self,
        images: Callable[[np.ndarray], np.ndarray],
        count: int,
        progress: Progress | None = None,
        flip: bool = False,
        stage: str = "Predicting slices",
    ) -> np.ndarray:
        """Probabilities (count, outputs, H, W) float32 of ``count`` slices; arguments as :meth:`Predictor.batches`."""
        out: np.ndarray | None = None
        for numbers, values in self.batches(images, count, progress, flip, stage):
            if out is None:
                out = np.empty((count, *values.shape[1:]), np.float32)
            out[numbers] = values
        return np.empty((0, 1, 0, 0), np.float32) if out is None else out


_predictors: dict[tuple, Predictor] = {}
#: Networks kept ready in a warm worker.
KEPT_PREDICTORS = 2


def predictor_for(
    model: ModelFile,
    networks: Mapping[str, str],
    device: str = "auto",
    precision: str = "auto",
    batch_statistics: bool = False,
    kind: type[Predictor] = SlicePredictor,
) -> Predictor:
    """The predictor of a model, made at the first call and kept for later ones in this process.

    So that the probe of the precision runs once and later results of a worker agree with the first. One that had to
    leave its graphics card is not kept: the next run tries the card again. (What OpenVINO refused, it would refuse.)

    Args:
        model, networks: see :func:`build_network`.
        device, precision: see :class:`Predictor`.
        batch_statistics: normalise all slices together by their own statistics (:func:`with_batch_statistics`).
        kind: which predictor.
    """
    chosen = choose_device(device)
    key = (model.sha256, chosen, precision, batch_statistics, kind)
    predictor = _predictors.pop(key, None)
    if predictor is None or (predictor.warnings and chosen != OPENVINO):
        network = build_network(model, networks)
        network = with_batch_statistics(network) if batch_statistics else network
        predictor = kind(network, device, precision, whole_batch=batch_statistics)
    _predictors[key] = predictor
    while len(_predictors) > KEPT_PREDICTORS:
        _predictors.pop(next(iter(_predictors)))
    return predictor
