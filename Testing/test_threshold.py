"""The threshold of a model file comes from held-out simulated heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import tiny_recipe
from torch import nn

from Training.simulation.bank import CLEAN, UNKNOWN, BankedHead
from Training.threshold import best_threshold


class Density(nn.Module):
    """A network whose probability is the density of the pixel within the first channel's window."""

    def forward(self, x):
        return torch.logit(((x[:, :1] + 1) / 2).clamp(0.01, 0.99))


def head(source: str = "planted", bleeds: bool = True) -> BankedHead:
    """Blood at 80 % of the window with a rim at 70 % that is not blood, in brain at a third."""
    recipe = tiny_recipe()
    channel, size = recipe.preprocessing.channels[0], recipe.preprocessing.size
    at = lambda share: channel.low_hu + share * (channel.high_hu - channel.low_hu)  # noqa: E731
    rows, columns = np.indices((size, size)) - size / 2
    distance = np.hypot(rows, columns)
    slab = np.where(distance < size / 4, at(0.8), np.where(distance < size / 3, at(0.7), at(0.33)))
    truth = (distance < size / 4).astype(np.uint8) * bleeds
    shape = (3, size, size)
    return BankedHead(
        np.broadcast_to(np.rint(slab).astype(np.int16), shape),
        np.broadcast_to(truth, shape),
        np.ones(shape, bool),
        np.full(3, CLEAN if source == "real" else UNKNOWN, np.int8),
        source,
    )


def test_threshold_lies_between_the_rim_and_the_blood():
    found = best_threshold(Density(), [head(), head()], tiny_recipe(), torch.device("cpu"))
    assert 0.7 < found <= 0.8


@pytest.mark.parametrize("heads", [[], [head("real")], [head(bleeds=False)]])
def test_without_blood_to_judge_by_the_default_stays(heads):
    assert best_threshold(Density(), heads, tiny_recipe(), torch.device("cpu"), default=0.6) == 0.6


def test_real_heads_without_bleeding_raise_the_threshold():
    clean = head("real")  # what is as dense as blood here is none
    found = best_threshold(Density(), [head(), clean], tiny_recipe(), torch.device("cpu"))
    assert found == 0.85  # above the 0.8 of the false blood, below nothing else
