"""The focal Tversky loss of the stroke networks, against numbers worked out pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from NeuraxisLib.errors import InputError
from Training.losses_stroke import CLASS_WEIGHTS, focal_tversky, image_weights, weighted_focal_tversky


def by_hand(p: list[list[float]], y: list[int], weights: tuple[float, ...], alpha: float, gamma: float) -> float:
    """The formula, pixel by pixel and class by class, for one image."""
    above = below = 0.0
    for shares, true in zip(p, y):
        for c, share in enumerate(shares):
            w, t = weights[c], float(c == true)
            above += w * t * share
            below += w * (t * share + alpha * t * (1 - share) + (1 - alpha) * (1 - t) * share)
    return (1 - above / (below + 1e-7)) ** (1 / gamma)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.7, 1.33), (0.3, 2.0)])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_formula(classes, alpha, gamma):
    random = torch.Generator().manual_seed(classes)
    logits = torch.randn(2, classes, 2, 3, generator=random)
    truth = torch.randint(classes, (2, 2, 3), generator=random)
    found = focal_tversky(logits, truth, alpha=alpha, gamma=gamma)
    for image in range(2):
        p = logits[image].softmax(0).flatten(1).T.tolist()
        wanted = by_hand(p, truth[image].flatten().tolist(), CLASS_WEIGHTS[classes], alpha, gamma)
        assert found[image].item() == pytest.approx(wanted, rel=1e-5)


def test_missed_pixels_cost_more_than_false_alarms():
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    truth[0, 1:3, 1:3] = 2
    sure = torch.full((1, 3, 4, 4), -20.0).scatter(1, truth[:, None], 20.0)
    missed, alarm = sure.clone(), sure.clone()
    missed[0, :, 1, 1] = torch.tensor([20.0, -20.0, -20.0])
    alarm[0, :, 0, 0] = torch.tensor([-20.0, -20.0, 20.0])
    assert focal_tversky(missed, truth) > focal_tversky(alarm, truth) > focal_tversky(sure, truth)
    assert focal_tversky(sure, truth) < 1e-4


def test_a_perfect_answer_has_a_finite_gradient():
    truth = torch.ones(1, 4, 4, dtype=torch.long)
    logits = torch.full((1, 3, 4, 4), -200.0).scatter(1, truth[:, None], 200.0).requires_grad_()
    focal_tversky(logits, truth).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_a_sigmoid_is_scored_on_its_lesion():
    logits, truth = torch.tensor([[[[0.0, 2.0, -1.0]]]]), torch.tensor([[[0, 1, 1]]])
    p = logits.sigmoid().flatten()
    missed, alarm = 2 - p[1] - p[2], p[0]
    index = (p[1] + p[2]) / (p[1] + p[2] + 0.7 * missed + 0.3 * alarm)
    assert focal_tversky(logits, truth).item() == pytest.approx((1 - index.item()) ** (1 / 1.33), rel=1e-5)
    assert math.isfinite(weighted_focal_tversky(logits, truth).item())


def test_weights_of_images():
    truth = torch.tensor([[[0, 0, 1, 2]], [[0, 0, 0, 0]]])
    assert image_weights(truth, 3).tolist() == pytest.approx([(0.2 + 50 + 440) / 4, 0.1])
    small = torch.tensor([True, True])
    assert image_weights(truth, 3, small_vessel=small).tolist() == pytest.approx([(0.2 + 6 * 490) / 4, 0.1])
    # With four classes the brain counts as background does: not at all.
    assert image_weights(truth, 4).tolist() == pytest.approx([50 / 4, 0.0])
    assert image_weights(truth.clamp(max=1), 2).tolist() == pytest.approx([(0.2 + 2) / 4, 0.1])


def test_the_whole_loss_is_the_weighted_sum_over_the_number_of_images():
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 3, 5, 5, generator=random).requires_grad_()
    truth = torch.randint(3, (4, 5, 5), generator=random)
    small = torch.tensor([True, False, False, True])
    wanted = (focal_tversky(logits, truth) * image_weights(truth, 3, small_vessel=small)).sum() / 4
    found = weighted_focal_tversky(logits, truth, small_vessel=small)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    found.backward()
    assert logits.grad.abs().max() > 0


def test_wrong_weights_are_refused():
    with pytest.raises(InputError, match="3 classes but the loss has 2 weights"):
        focal_tversky(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2), (0.1, 1.0))
