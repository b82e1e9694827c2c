"""A network of several classes made ready to predict."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from NeuraxisLib.inference import SlicePredictor


def class_probabilities(logits: Tensor) -> Tensor:
    """(n, classes, ...) probabilities that sum to 1; of one logit those of background and foreground."""
    if logits.shape[1] > 1:
        return logits.softmax(dim=1)
    foreground = logits.sigmoid()
    return torch.cat([1 - foreground, foreground], dim=1)


class ClassPredictor(SlicePredictor):
    """Predicts the probability of every class, background first."""

    def _values(self, network: nn.Module, x: Tensor) -> Tensor:
        return class_probabilities(self.run(network, x).float())
