"""The threshold that a model file carries, chosen on held-out simulated heads and on nothing else."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from Training.fitting import predict_slice
from Training.recipe import Recipe
from Training.simulation.bank import BankedHead

#: Thresholds that are tried.
CANDIDATES = tuple(round(0.3 + 0.05 * step, 2) for step in range(13))
#: Blood pixels below which a head says nothing about where to cut.
LEAST_PIXELS = 150


@torch.inference_mode()
def best_threshold(
    network: nn.Module, heads: list[BankedHead], recipe: Recipe, device: torch.device, default: float = 0.5
) -> float:
    """The candidate with the highest mean Dice over simulated heads that bleed; ``default`` if there are none."""
    network.eval()
    scores = [_dice(network, head, recipe, device) for head in heads if head.source != "real"]
    scores = [score for score in scores if score is not None]
    return CANDIDATES[int(np.argmax(np.mean(scores, axis=0)))] if scores else default


def _dice(network: nn.Module, head: BankedHead, recipe: Recipe, device: torch.device) -> np.ndarray | None:
    """Dice of one head for every candidate, or None if it hardly bleeds."""
    overlap, found, true = np.zeros(len(CANDIDATES)), np.zeros(len(CANDIDATES)), 0.0
    for k in np.flatnonzero(head.brain.any(axis=(1, 2))):
        logits, truth, brain = predict_slice(network, head, int(k), recipe, device)
        probability = (logits.sigmoid() * brain).numpy()
        blood = truth.numpy() & (brain.numpy() > 0.5)
        true += blood.sum()
        for number, threshold in enumerate(CANDIDATES):
            called = probability >= threshold
            overlap[number] += (called & blood).sum()
            found[number] += called.sum()
    return None if true < LEAST_PIXELS else 2 * overlap / (found + true)
