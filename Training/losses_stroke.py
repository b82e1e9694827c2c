"""Losses of the stroke networks: focal Tversky over several classes, weighted by class and by image.

All sums over images run over all processes, as in :mod:`Training.losses`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from NeuraxisLib.errors import InputError
from Training.distributed import total
from Training.losses import Loss
from Training.sampling import Batch

#: Number of classes -> their weights as published; the last are penumbra and core, with two classes both in one.
CLASS_WEIGHTS: dict[int, tuple[float, ...]] = {2: (0.1, 1.0), 3: (0.1, 50.0, 440.0), 4: (0.0, 0.1, 50.0, 440.0)}
#: Weight of missed pixels against false alarms, and the focusing exponent's inverse.
ALPHA, GAMMA = 0.7, 1.33
#: By how much penumbra and core of a patient without large vessel occlusion count more in an image's weight.
SMALL_VESSEL_FACTOR = 6.0
EPSILON = 1e-7


def focal_tversky(
    logits: Tensor,
    truth: Tensor,
    class_weights: Sequence[float] | None = None,
    alpha: float = ALPHA,
    gamma: float = GAMMA,
) -> Tensor:
    """(n,) focal Tversky loss of each image: one index pooled over its pixels and classes (specification 1.8).

    TI = S w y p / (S w (y p + alpha y (1 - p) + (1 - alpha) (1 - y) p) + 1e-7); loss = (1 - TI) ^ (1 / gamma).

    Args:
        logits: (n, classes, ...); of one channel the logit is that of a lesion (sigmoid).
        truth: (n, ...) class of each pixel.
        class_weights: one for each class; None takes :data:`CLASS_WEIGHTS`, and 1 for a sigmoid.
        alpha: weight of missed pixels; 1 - alpha is that of false alarms.
        gamma: above 1 the loss stays steep where little is missing.

    Raises:
        InputError: another number of weights than of classes.
    """
    weights = _weights(logits.shape[1], class_weights).to(logits)
    p, y = _shares(logits, truth)
    both = (p * y).flatten(2).sum(-1)
    missed, alarms = (y * (1 - p)).flatten(2).sum(-1), ((1 - y) * p).flatten(2).sum(-1)
    index = (weights * both).sum(1) / ((weights * (both + alpha * missed + (1 - alpha) * alarms)).sum(1) + EPSILON)
    # The slope of the root is infinite at 0.
    return (1 - index).clamp(min=EPSILON) ** (1 / gamma)


def image_weights(
    truth: Tensor, classes: int, class_weights: Sequence[float] | None = None, small_vessel: Tensor | None = None
) -> Tensor:
    """(n,) by how much an image counts: the mean over its pixels of the weight of penumbra and core, else background's.

    Lesions are so emphasised twice, by pixel and by image (specification 1.8).

    Args:
        truth: (n, ...) class of each pixel.
        classes: how many there are.
        class_weights: see :func:`focal_tversky`.
        small_vessel: (n,) whether the patient has a stroke without large vessel occlusion; for training alone.
    """
    classes = max(classes, 2)  # a sigmoid's are background and lesion
    weights = _weights(classes, class_weights).to(truth.device)
    lesions = min(classes - 1, 2)
    plain = torch.cat([weights[:1].expand(classes - lesions), weights[classes - lesions :]])
    raised = plain.clone()
    raised[classes - lesions :] *= SMALL_VESSEL_FACTOR
    if small_vessel is None:
        small_vessel = torch.zeros(len(truth), dtype=torch.bool)
    return torch.stack(
        [(raised if small else plain)[t.long()].mean() for small, t in zip(small_vessel.tolist(), truth)]
    )


def weighted_focal_tversky(
    logits: Tensor,
    truth: Tensor,
    class_weights: Sequence[float] | None = None,
    alpha: float = ALPHA,
    gamma: float = GAMMA,
    small_vessel: Tensor | None = None,
) -> Tensor:
    """The published loss as one number: the sum of image weight x :func:`focal_tversky`, over the number of images.

    Args:
        logits, truth, class_weights, alpha, gamma: see :func:`focal_tversky`.
        small_vessel: see :func:`image_weights`.
    """
    of_images = class_weights if logits.shape[1] > 1 else None
    weights = image_weights(truth, logits.shape[1], of_images, small_vessel).to(logits)
    losses = focal_tversky(logits, truth, class_weights, alpha, gamma)
    value, count = total(torch.stack([(weights * losses).sum(), losses.new_tensor(float(len(losses)))]))
    return value / count.clamp(min=1)


def _shares(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(probabilities, truth), both (n, classes, ...)."""
    if logits.shape[1] == 1:
        return logits.sigmoid(), (truth > 0).to(logits)[:, None]
    hot = functional.one_hot(truth.long(), logits.shape[1])
    return logits.softmax(dim=1), hot.movedim(-1, 1).to(logits)


def _weights(classes: int, class_weights: Sequence[float] | None) -> Tensor:
    given = (1.0,) if classes == 1 and class_weights is None else class_weights or CLASS_WEIGHTS.get(classes, ())
    if len(given) != classes:
        raise InputError(
            f"The network predicts {classes} classes but the loss has {len(given)} weights; make them equal."
        )
    return torch.tensor([float(weight) for weight in given])


# -- by the names that recipes give them -----------------------------------------------------------------------------


def focal_tversky_loss(
    logits: Tensor, batch: Batch, class_weights: Sequence[float] | None, alpha: float, gamma: float, image_weights: bool
) -> Tensor:
    """The published loss (:func:`weighted_focal_tversky`), or without weights of images its mean.

    Args:
        logits: (n, classes, h, w).
        batch: its truth (n, 1, h, w) holds numbers of classes; ``extra["small_vessel"]`` says whose penumbra and core
            count more.
        class_weights, alpha, gamma: see :func:`focal_tversky`.
        image_weights: whether images with lesions count more.
    """
    truth = batch.truth[:, 0]
    if image_weights:
        return weighted_focal_tversky(logits, truth, class_weights, alpha, gamma, batch.extra.get("small_vessel"))
    losses = focal_tversky(logits, truth, class_weights, alpha, gamma)
    value, count = total(torch.stack([losses.sum(), losses.new_tensor(float(len(losses)))]))
    return value / count.clamp(min=1)


def dice_ce_loss(logits: Tensor, batch: Batch, class_weights: Sequence[float] | None) -> Tensor:
    """Cross-entropy in the brain + 1 - Dice of every lesion class over the whole batch, averaged over these; ours.

    Args:
        logits: (n, classes, h, w).
        batch: truth (n, 1, h, w) of class numbers; ``brain`` 1 where there is something to learn.
        class_weights: of the cross-entropy; None counts all classes alike.
    """
    given = [1.0] * max(logits.shape[1], 2) if class_weights is None else class_weights
    weights = _weights(max(logits.shape[1], 2), given).to(logits)
    truth, inside = batch.truth[:, 0].long(), (batch.brain[:, 0] > 0.5).to(logits)
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    entropy = (functional.cross_entropy(logits, truth, weights, reduction="none") * inside).sum()
    p, y = (part * inside[:, None] for part in _shares(logits, truth))
    sums = torch.cat(
        [torch.stack([entropy, inside.sum()]), *((q.transpose(0, 1).flatten(1).sum(1)) for q in (p * y, p, y))]
    )
    entropy, pixels, *rest = total(sums)
    both, found, true = torch.stack(rest).view(3, -1)[:, 1:]
    dice = (2 * both + 1) / (found + true + 1)
    return entropy / pixels.clamp(min=1) + (1 - dice).mean()


#: Name -> loss, of the family of perfusion maps.
LOSSES: dict[str, Loss] = {
    "focal_tversky": Loss(
        focal_tversky_loss, {"class_weights": None, "alpha": ALPHA, "gamma": GAMMA, "image_weights": True}
    ),
    "dice_ce": Loss(dice_ce_loss, {"class_weights": None}),
}
