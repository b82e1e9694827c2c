"""The threshold that a model file carries: chosen on simulated heads held out, and on real heads known to be clean."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from Training.recipe import Recipe
from Training.simulation.bank import CLEAN, BankedHead
from Training.validation import predict_slice

#: Thresholds that are tried.
CANDIDATES = tuple(round(0.3 + 0.05 * step, 2) for step in range(13))
#: Blood pixels below which a head says nothing about where to cut.
LEAST_PIXELS = 150
#: Pixels of false blood that a real head without bleeding may show (about 0.25 mL at 1 mm and 5 mm slices).
MOST_FALSE_PIXELS = 50


@torch.inference_mode()
def best_threshold(
    network: nn.Module, heads: list[BankedHead], recipe: Recipe, device: torch.device, default: float = 0.5
) -> float:
    """The candidate of highest mean Dice over simulated heads that bleed, among those that keep clean heads clean.

    Args:
        network: with the weights to judge.
        heads: simulated heads that it was not trained on, and real ones; of these, those without any bleeding slice
            count. If even the highest candidate leaves :data:`MOST_FALSE_PIXELS` in one of them, that one is taken.
        recipe: of the network.
        device: where to compute.
        default: answer when no simulated head bleeds.
    """
    network.eval()
    clean = [head for head in heads if head.source == "real" and (head.slice_label == CLEAN).all()]
    false = np.array([_counts(network, head, recipe, device)[1] for head in clean]).reshape(-1, len(CANDIDATES))
    allowed = (false <= MOST_FALSE_PIXELS).all(axis=0)
    allowed[-1] = True
    simulated = (_counts(network, head, recipe, device) for head in heads if head.source != "real")
    scores = [2 * overlap / (found + true) for overlap, found, true in simulated if true >= LEAST_PIXELS]
    if not scores:
        return default
    return CANDIDATES[int(np.argmax(np.where(allowed, np.mean(scores, axis=0), -1)))]


def _counts(
    network: nn.Module, head: BankedHead, recipe: Recipe, device: torch.device
) -> tuple[np.ndarray, np.ndarray, float]:
    """Pixels of one head: (overlap, called) for every candidate, and true ones."""
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
    return overlap, found, true
