"""A disc network made ready to be run. Only the worker loads this file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from NeuraxisLib.inference import Predictor, predictor_for
from NeuraxisLib.models import ModelFile
from NeuraxisLib.openvino_inference import Converted
from SpineDiscLabelLib.networks import NETWORKS
from SpineDiscLabelLib.networks.hourglass import STRIDE


class DiscPredictor(Predictor):
    """A disc network made ready; it gives scores at a quarter of the image's size, not yet limited to 0..1."""

    def _values(self, network: nn.Module, x: Tensor) -> Tensor:
        return network.scores(x)[-1].float()

    def _probability(self, values: Tensor) -> Tensor:
        return values.clamp(0, 1)

    def _converted(self, network: nn.Module) -> nn.Module:
        return _ConvertedScores(network)


class _ConvertedScores(nn.Module):
    """Stands for a disc network whose scores OpenVINO computes; it gives the last stack's alone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self._last = Converted(_LastScores(network))

    def scores(self, x: Tensor) -> list[Tensor]:
        """The last scores of a batch, float32."""
        return [self._last(x)]


class _LastScores(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self._network = network

    def forward(self, x: Tensor) -> Tensor:
        """The scores of the network's last stack."""
        return self._network.scores(x)[-1]


def disc_predictor(model: ModelFile, device: str = "auto", precision: str = "auto") -> DiscPredictor:
    """The predictor of a model, kept ready in this process; see :func:`NeuraxisLib.inference.predictor_for`."""
    return predictor_for(model, NETWORKS, device, precision, kind=DiscPredictor)


def enlarge(maps: np.ndarray) -> np.ndarray:
    """(n, rows, columns) on the scores' grid -> STRIDE times the size, as the network's own output is enlarged."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
    return F.interpolate(tensor, scale_factor=STRIDE, mode="bilinear")[:, 0].numpy()
