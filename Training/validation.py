"""How good a network is on heads that it was not trained on: pooled Dice, and AUC of slices where only these are known.

With several processes each judges its share of the heads, and every one gets the scores of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from Training.distributed import gathered, rank, world_size
from Training.families import found
from Training.losses import blood_logits, slice_score
from Training.recipe import Recipe
from Training.sampling import PICTURE, neighbours, network_view, resized, slice_stack
from Training.simulation.bank import BLEEDING, UNKNOWN, BankedHead


def evaluate(network: nn.Module, cases: Sequence[Any], recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Scores of a network on the cases of its family; ``score`` is what the best weights are chosen by.

    Args:
        network: with the weights to judge.
        cases: as the family's data function returned them.
        recipe: of the network.
        device: where to compute.
    """
    return found(recipe.family.scores)(network, cases, recipe, device)


@torch.inference_mode()
def slice_scores(
    network: nn.Module, heads: Sequence[BankedHead], recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """Scores of a network on banked heads: ``dice``, ``auc`` and their mean, ``score``.

    Dice is pooled over every second slice of the heads whose truth is exact, AUC is that of the slice score over the
    labelled slices of the others; where there are none of these, ``auc`` is NaN and ``score`` is the Dice.
    """
    network.eval()
    sums = np.zeros(3)  # overlap, predicted, true
    scores: list[float] = []
    labels: list[bool] = []
    for head in heads[rank() :: world_size()]:
        used = np.flatnonzero(head.brain.any(axis=(1, 2)))[:: 2 if head.source != "real" else 1]
        for k in used:
            logits, truth, brain = predict_slice(network, head, int(k), recipe, device)
            if head.source == "real":
                if head.slice_label[k] != UNKNOWN:
                    scores.append(float(slice_score(logits, brain)))
                    labels.append(bool(head.slice_label[k] == BLEEDING))
                continue
            found, true = (logits > 0) & (brain > 0.5), truth & (brain > 0.5)
            sums += [float((found & true).sum()), float(found.sum()), float(true.sum())]
    shares = gathered((sums, scores, labels))
    overlap, predicted, true = sum(share[0] for share in shares).tolist()
    scores, labels = ([value for share in shares for value in share[part]] for part in (1, 2))
    dice = 2 * overlap / max(predicted + true, 1)
    auc = area_under_curve(np.array(scores), np.array(labels)) if scores else float("nan")
    return {"dice": round(dice, 4), "auc": round(auc, 4), "score": dice if np.isnan(auc) else (dice + auc) / 2}


def predict_slice(
    network: nn.Module, head: BankedHead, k: int, recipe: Recipe, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(logits of blood, truth, searched space) of one slice, each (1, 1, size, size) on the CPU."""
    image, truth, searched = view_of(head, k, recipe)
    logits = blood_logits(network(torch.from_numpy(image).to(device)).float()).cpu()
    return logits, torch.from_numpy(truth)[None], torch.from_numpy(searched)[None].float()


def view_of(head: BankedHead, k: int, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the network sees of one slice, as :func:`Training.sampling.network_view` gives it, not moved."""
    around = neighbours(head, k, recipe.preprocessing)
    stack = resized(slice_stack(head, k, around, recipe.preprocessing), recipe.preprocessing.size)
    return network_view(stack, stack[: len(around)], recipe.preprocessing, head.source == PICTURE)


@torch.inference_mode()
def picture_of(network: nn.Module, heads: Sequence[BankedHead], recipe: Recipe, device: torch.device) -> np.ndarray:
    """Image | truth | probability of the bloodiest slice of the first heads, (h, w, 3) uint8; for people to look at."""
    network.eval()
    rows = []
    for head in heads[:3]:
        k = int(head.truth.astype(bool).sum(axis=(1, 2)).argmax())
        k = k if head.truth[k].any() else len(head.truth) // 2
        image = view_of(head, k, recipe)[0][0]
        logits, truth, searched = predict_slice(network, head, k, recipe, device)
        middle = next((n for n, channel in enumerate(recipe.preprocessing.channels) if channel.offset == 0), 0)
        grey = image[middle]
        grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-6)
        rows.append(triptych(grey, truth[0, 0].numpy(), (logits.sigmoid() * searched)[0, 0].numpy()))
    return np.concatenate(rows)


def triptych(grey: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """(h, 3 w, 3) uint8: the picture (0..1), the truth over it in green, the probability over it in red."""
    plain = np.repeat(grey[..., None], 3, axis=2)
    over = []
    for amount, colour in ((truth, (0, 1, 0)), (probability, (1, 0, 0))):
        weight = 0.6 * np.asarray(amount, np.float32)[..., None]
        over.append(plain * (1 - weight) + weight * np.array(colour, np.float32))
    return np.rint(255 * np.clip(np.concatenate([plain, *over], axis=1), 0, 1)).astype(np.uint8)


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney), ties counted half; NaN where all labels are the same."""
    if labels.all() or not labels.any():
        return float("nan")
    positive, negative = scores[labels][:, None], scores[~labels][None]
    return float((positive > negative).mean() + 0.5 * (positive == negative).mean())
