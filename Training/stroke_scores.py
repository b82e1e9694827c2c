"""How good a stroke network is on cases that it was not trained on: pooled Dice of every lesion class, and the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from NeuraxisLib.task import Progress
from StrokeCTPLib.networks.class_predictor import class_probabilities
from StrokeCTPLib.networks.classes import classes_of, coded
from StrokeCTPLib.prediction import tiled
from Training.distributed import alone, gathered, rank, world_size
from Training.families import found
from Training.losses import named
from Training.recipe import Recipe
from Training.sampling import Batch
from Training.store import IGNORED
from Training.stroke_cache import CachedMaps
from Training.validation import triptych


class _Tiles:
    """What :func:`StrokeCTPLib.prediction.tiled` asks for, of a network in training: logits as they come."""

    def __init__(self, network: nn.Module, device: torch.device):
        self.network, self.device = network, device

    def predict(self, images, count: int, progress: Progress, flip: bool) -> np.ndarray:
        each = (self.network(torch.from_numpy(images(np.array([n]))).to(self.device)) for n in range(count))
        return np.concatenate([logits.float().cpu().numpy() for logits in each])


@torch.inference_mode()
def class_scores(
    network: nn.Module, cases: Sequence[CachedMaps], recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """Dice of every lesion class pooled over all voxels of all cases, their mean ``dice``, and the mean ``loss``.

    ``score`` is the Dice, or minus the loss where the recipe's ``fitting.monitor`` says so. Without cases it is 0.
    """
    network.eval()
    names = classes_of(recipe["architecture"]["arguments"].get("out_channels", 3))
    lesions = [index for index, name in enumerate(names) if name not in ("background", "brain")]
    sums, losses = np.zeros((len(lesions), 3)), []
    for case in cases[rank() :: world_size()]:
        logits, truth, brain = predict_case(network, case, recipe, device, len(names))
        found_class = class_probabilities(torch.from_numpy(logits)).argmax(dim=1).numpy()
        for row, index in enumerate(lesions):
            one, two = (found_class == index) & brain, (truth == index) & brain
            sums[row] += [(one & two).sum(), one.sum(), two.sum()]
        with alone():
            losses += _losses(logits, truth, brain, recipe)
    shares = gathered((sums, losses))
    both, predicted, true = sum(share[0] for share in shares).T
    dice = 2 * both / np.maximum(predicted + true, 1)
    loss = float(np.mean([value for share in shares for value in share[1]] or [0.0]))
    told = {f"dice_{names[index]}": round(float(value), 4) for index, value in zip(lesions, dice)}
    score = -loss if recipe["fitting"]["monitor"] == "loss" else float(dice.mean())
    return {**told, "dice": round(float(dice.mean()), 4), "loss": round(loss, 5), "score": score}


def predict_case(
    network: nn.Module, case: CachedMaps, recipe: Recipe, device: torch.device, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits (k, outputs, size, size), truth as class numbers, where it counts) of a case's slices with brain."""
    read, shown = case.read(), recipe.preprocessing
    used = np.flatnonzero(read.brain.any(axis=(1, 2)))
    if not len(used):
        used = np.arange(len(read.brain))
    maps, truth, brain = read.maps[:, used], read.truth[used], read.brain[used]
    logits = tiled(_Tiles(network, device), case.images(maps, shown), shown.side, Progress())
    return logits, coded(truth, brain, classes), brain & (truth != IGNORED)


def _losses(logits: np.ndarray, truth: np.ndarray, brain: np.ndarray, recipe: Recipe) -> list[float]:
    """The recipe's loss of every slice by itself."""
    fitting = recipe["fitting"]
    loss = named(fitting["loss"], found(recipe.family.losses))
    options = {key: fitting.get(key, value) for key, value in loss.options.items()}
    values = []
    for k in range(len(logits)):
        parts = (torch.from_numpy(part[k][None, None]).float() for part in (truth, brain))
        output = torch.from_numpy(logits[k : k + 1])
        values.append(float(loss.function(output, Batch(output, *parts), **options)))
    return values


@torch.inference_mode()
def picture_of(network: nn.Module, cases: Sequence[CachedMaps], recipe: Recipe, device: torch.device) -> np.ndarray:
    """Last map | lesions | probability of these, of the slice with most of them of the first cases; uint8 (h, w, 3)."""
    network.eval()
    rows = []
    for case in cases[:3]:
        read = case.read()
        k = int((read.truth % IGNORED > 0).sum(axis=(1, 2)).argmax())
        images = case.images(read.maps[:, k : k + 1], recipe.preprocessing)
        logits = tiled(_Tiles(network, device), images, recipe.preprocessing.side, Progress())
        names = classes_of(logits.shape[1])
        probability = class_probabilities(torch.from_numpy(logits))[0].numpy()
        lesion = sum(part for part, name in zip(probability, names) if name not in ("background", "brain"))
        count = len(recipe.preprocessing.scalars)
        grey = images[0, images.shape[1] - count - 1]
        grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-6)
        rows.append(triptych(grey, read.truth[k] % IGNORED > 0, lesion * read.brain[k]))
    return np.concatenate(rows)
