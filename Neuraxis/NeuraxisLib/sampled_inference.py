"""Uncertainties that average several predictions of one network: dropout, BatchNorm batches, augmentation.

Only the worker loads this file. Every pass draws from a generator seeded by (seed, number of the pass), so that the
same seed gives the same result on the same device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from NeuraxisLib.errors import ModelError
from NeuraxisLib.inference import Predictor, choose_device, dropouts, torch_device

#: Images whose statistics one pass of Monte-Carlo BatchNorm takes: a third of what there is, within these bounds.
STATISTICS_IMAGES = (2, 8)
#: Test-time augmentation: largest turn, largest change of scale, standard deviation of the noise in network units.
LARGEST_TURN_DEG, LARGEST_SCALE, NOISE = 15.0, 0.1, 0.05

Images = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sampler:
    """Makes the predictors of one network's passes.

    Attributes:
        method: ``"mc_dropout"``, ``"mc_batchnorm"`` or ``"tta"``.
        kind: which predictor suits the network.
        device: see :func:`NeuraxisLib.inference.choose_device`; OpenVINO's is for ``"tta"`` alone, as the others make a
            network of their own for every pass.
        precision: ``"auto"`` is float32 here, as random passes cannot be compared.
        passes: how many predictions are averaged.
        seed: of all that is random.
    """

    method: str
    kind: type[Predictor]
    device: str
    precision: str
    passes: int
    seed: int

    def predictors(self, network: nn.Module, name: str, images: Images, count: int) -> Iterator[Predictor]:
        """One predictor per pass; each must be used before the next is asked for.

        Args:
            network: in evaluation mode on the CPU.
            name: of the model, for messages.
            images: takes image numbers (n,), returns network input; what the network will predict.
            count: number of images.

        Raises:
            ModelError: the method does not apply to this network.
        """
        require(self.method, network, name)
        make = {"mc_dropout": self._with_dropout, "mc_batchnorm": self._with_statistics, "tta": self._augmented}
        for number, predictor in enumerate(make[self.method](network, images, count)):
            with _seeded(self.seed, number, predictor.device):
                yield predictor

    def _predictor(self, network: nn.Module, drop: bool = False) -> Predictor:
        precision = "float32" if self.precision == "auto" else self.precision
        return self.kind(network, self.device, precision, drop=drop)

    def _with_dropout(self, network: nn.Module, images: Images, count: int) -> Iterator[Predictor]:
        predictor = self._predictor(network, drop=True)
        for _ in range(self.passes):
            yield predictor

    def _with_statistics(self, network: nn.Module, images: Images, count: int) -> Iterator[Predictor]:
        least, most = STATISTICS_IMAGES
        size = min(count, most, max(least, count // 3))
        device = torch_device(choose_device(self.device))
        for number in range(self.passes):
            chosen = _generator(self.seed, number).choice(count, size, replace=False)
            changed = with_statistics_of(network, images(np.sort(chosen)), device)
            yield replace(self, device=device)._predictor(changed)

    def _augmented(self, network: nn.Module, images: Images, count: int) -> Iterator[Predictor]:
        predictor = self._predictor(network)
        side = predictor.flip_axis % images(np.array([0])).ndim
        for number in range(self.passes):
            augmentation = Augmentation.draw(_generator(self.seed, number), side) if number else None
            predictor.run = augmentation or (lambda network, x: network(x))  # the first pass sees the image itself
            yield predictor


def require(method: str, network: nn.Module, name: str) -> None:
    """ModelError, in one sentence, if a method does not apply to a network."""
    if method == "mc_dropout" and not dropouts(network):
        raise ModelError(
            f"The uncertainty 'mc_dropout' needs a network with dropout, and the model '{name}' has none; "
            "choose another uncertainty or a model trained with dropout."
        )
    if method == "mc_batchnorm" and not _norms(network):
        raise ModelError(
            f"The uncertainty 'mc_batchnorm' needs a network with BatchNorm, and the model '{name}' has none; "
            "choose another uncertainty."
        )


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


@torch.inference_mode()
def with_statistics_of(network: nn.Module, images: np.ndarray, device: str = "cpu") -> nn.Module:
    """A copy, without dropout, whose BatchNorms hold the statistics of one batch of images (Teye et al. 2018).

    Args:
        network: in evaluation mode on the CPU.
        images: the batch (n, channels, ...).
        device: where to compute it.

    A layer that is called several times in a pass holds the mean of its statistics. What does not fit into a graphics
    card's memory is computed on the CPU.
    """
    found = copy.deepcopy(network)
    for norm in _norms(found):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all calls
        norm.train()
    for layer in dropouts(found):
        layer.p = 0.0
    x = torch.from_numpy(images)
    try:
        found.to(device)(x.to(device))
    except RuntimeError as error:
        if device == "cpu" or "out of memory" not in str(error).lower():
            raise
        torch.cuda.empty_cache()
        return with_statistics_of(network, images)
    return found.cpu().eval()


@dataclass(frozen=True)
class Augmentation:
    """One random view of an image: mirrored, turned and scaled in the axial plane, with noise; and the way back.

    Called with a network and a batch, it shows the network the view and returns the logits on the original grid.

    Attributes:
        mirror: whether the patient's sides are exchanged.
        turn_deg: rotation in the plane.
        scale: above 1 enlarges.
        noise: standard deviation of the noise added, in the network's units.
        side: axis of the batch along which the patient's sides lie; the plane is that of axes 2 and 3.
    """

    mirror: bool
    turn_deg: float
    scale: float
    noise: float
    side: int

    @classmethod
    def draw(cls, generator: np.random.Generator, side: int) -> Augmentation:
        """A random one."""
        return cls(
            bool(generator.random() < 0.5),
            float(generator.uniform(-LARGEST_TURN_DEG, LARGEST_TURN_DEG)),
            float(generator.uniform(1 - LARGEST_SCALE, 1 + LARGEST_SCALE)),
            NOISE,
            side,
        )

    def __call__(self, network: nn.Module, x: Tensor) -> Tensor:
        """(n, channels, ...) -> logits (n, outputs, ...) of the original grid."""
        view = self._view(x)
        view = view + self.noise * torch.randn(view.shape, device=x.device, dtype=x.dtype)
        return self._undo(network(view.contiguous()).float())

    def _view(self, x: Tensor) -> Tensor:
        x = x.flip(self.side) if self.mirror else x
        return _moved(x, self._matrix())

    def _undo(self, x: Tensor) -> Tensor:
        x = _moved(x, np.linalg.inv(self._matrix()))
        return x.flip(self.side) if self.mirror else x

    def _matrix(self) -> np.ndarray:
        """Positions in the view -> positions in the image, both from the centre in pixels."""
        angle = np.radians(self.turn_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return turn / self.scale


def _moved(x: Tensor, matrix: np.ndarray) -> Tensor:
    """(n, channels, a, b) or (n, channels, a, b, c) read at ``matrix`` @ position in the plane (a, b), bilinear."""
    planes = x.movedim(-1, 2).flatten(1, 2) if x.ndim == 5 else x
    rows, columns = planes.shape[-2:]
    # affine_grid counts -1..1 along columns first; equal units along both axes keep a turn a turn
    sizes = np.array([columns, rows], float)
    theta = np.zeros((2, 3), np.float32)
    theta[:, :2] = matrix * sizes[None, :] / sizes[:, None]
    grid = functional.affine_grid(
        torch.from_numpy(theta).expand(len(x), 2, 3), list(planes.shape), align_corners=False
    ).to(x.device, x.dtype)
    moved = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if x.ndim == 4:
        return moved
    return moved.unflatten(1, (x.shape[1], -1)).movedim(2, -1).reshape(x.shape)


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


@contextmanager
def _seeded(seed: int, number: int, device: str) -> Iterator[None]:
    """PyTorch's generators seeded for one pass, and set back afterwards."""
    with torch.random.fork_rng(list(range(torch.cuda.device_count())) if device == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        yield
