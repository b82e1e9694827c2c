"""Scores of a network on banked heads, against answers that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_training_inputs import bank  # noqa: F401 - a fixture
from tiny_training import tiny_recipe

from Training import validation
from Training.simulation.bank import CLEAN, BankedHead
from Training.validation import evaluate


def test_auc_by_hand():
    scores = np.array([0.1, 0.4, 0.4, 0.8])
    assert validation.area_under_curve(scores, np.array([False, False, True, True])) == pytest.approx(3.5 / 4)
    assert validation.area_under_curve(scores, np.array([True, False, False, False])) == 0
    assert np.isnan(validation.area_under_curve(scores, np.ones(4, bool)))


def test_scores_of_networks_whose_answer_is_known(bank):  # noqa: F811
    class Threshold(torch.nn.Module):
        """Blood is what is brighter than 48 HU (the window is 0 to 90)."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            smooth = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
            return (smooth - (48 / 45 - 1)) * 10

    heads = [BankedHead.load(bank / f"planted_{n:05d}.npz") for n in range(3)]
    recipe, device = tiny_recipe(), torch.device("cpu")
    bright = evaluate(Threshold(), heads, recipe, device)
    nothing = evaluate(type("Never", (torch.nn.Module,), {"forward": lambda s, x: x * 0 - 1})(), heads, recipe, device)
    assert bright["dice"] > 0.3 and nothing["dice"] == 0
    assert np.isnan(bright["auc"]) and bright["score"] == pytest.approx(bright["dice"], abs=1e-4)
    real = BankedHead.load(bank / "real_phantom.npz")
    hot = real.slabs_hu.copy()
    for k in range(len(hot)):
        hot[k][real.brain[k]] = 30 if real.slice_label[k] == CLEAN else 90
    bleeding = BankedHead(hot, real.truth, real.brain, real.slice_label, "real")
    scores = evaluate(Threshold(), [*heads, bleeding], recipe, device)
    assert scores["auc"] == 1.0 and scores["score"] == pytest.approx((bright["dice"] + 1) / 2, abs=1e-4)
