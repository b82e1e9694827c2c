"""Smoothing: against scipy, no leakage through the mask, edges kept, noise left white."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from StrokeCTPLib.calibration import noise_of
from StrokeCTPLib.smoothing import edge_preserving, gaussian, temporal, voxel_pool


def random(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_gaussian_is_scipys_normalised_within_the_mask():
    images, mask = random((2, 3, 20, 25)), random((3, 20, 25), 1) > -0.5
    weights = mask.numpy().astype(float)
    found = gaussian(images, mask, (0.7, 1.5, 2.0)).numpy()
    for image, mine in zip(images.numpy(), found):
        above, below = (
            ndimage.gaussian_filter(a, (0.7, 1.5, 2.0), mode="constant", radius=(3, 5, 6))
            for a in (image * weights, weights)
        )
        assert np.allclose(mine, np.where(weights > 0, above / np.maximum(below, 1e-9), 0), atol=1e-4)


def test_nothing_leaks_in_from_outside():
    images = torch.full((1, 1, 16, 16), 7.0)
    mask = torch.zeros((1, 16, 16), dtype=torch.bool)
    mask[:, 4:12, 4:12] = True
    images[:, ~mask] = 1000.0
    found = gaussian(images, mask, 2.0)
    assert torch.allclose(found[:, mask], torch.tensor(7.0), atol=1e-4)
    assert (found[:, ~mask] == 0).all()


def test_pooling_features_is_smoothing_their_images():
    mask = random((2, 12, 12)) > 0
    features = random((int(mask.sum()), 5), 2)
    images = torch.zeros((5, 2, 12, 12))
    images[:, mask] = features.T
    assert torch.allclose(voxel_pool(mask, 1.5, group=2)(features), gaussian(images, mask, 1.5)[:, mask].T, atol=1e-5)


def test_empty_masks_give_zeros():
    assert not gaussian(random((2, 1, 4, 4)), torch.zeros((1, 4, 4), dtype=torch.bool), 1.0).any()


def test_temporal_weights():
    frames = torch.zeros((5, 1, 1, 1))
    frames[2] = 4.0
    assert temporal(frames).flatten().tolist() == [0, 1, 2, 1, 0]


@pytest.fixture
def two_tissues() -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and noisy frames with an early tissue on the left and a late one on the right."""
    times = torch.arange(30.0)
    early, late = (10 * torch.exp(-((times - t) ** 2) / 20) for t in (9.0, 16.0))
    clean = torch.empty((30, 1, 32, 32))
    clean[..., :16], clean[..., 16:] = early[:, None, None, None], late[:, None, None, None]
    return clean, clean + 2.0 * random(clean.shape)


def test_edges_are_kept_where_a_gaussian_blurs_them(two_tissues):
    clean, noisy = two_tissues
    mask = torch.ones((1, 32, 32), dtype=torch.bool)
    edge, inner = (..., slice(14, 18)), (..., slice(4, 10))
    blurred, kept = gaussian(noisy, mask, 2.5), edge_preserving(noisy, mask)
    errors = [[float((f - clean)[where].square().mean().sqrt()) for f in (blurred, kept)] for where in (edge, inner)]
    assert errors[0][1] < 0.6 * errors[0][0]
    assert errors[1][1] < 0.45  # of a noise of 2


def test_the_noise_left_is_white(two_tissues):
    clean, noisy = two_tissues
    mask = torch.ones((1, 32, 32), dtype=torch.bool)
    rest = (edge_preserving(noisy, mask) - clean)[..., 4:10].reshape(30, -1)
    correlation = float((rest[1:] * rest[:-1]).mean() / rest.square().mean())
    assert abs(correlation) < 0.15


def test_noise_is_measured_beside_a_signal():
    mask = torch.ones((4, 64, 64), dtype=torch.bool)
    noise = gaussian(3.0 * random((40, 4, 64, 64)), mask, 1.5)
    signal = torch.exp(-((torch.arange(40.0) - 15) ** 2) / 30)[:, None, None, None] * (5 + random((4, 64, 64), 1))
    assert noise_of((noise + signal).flatten(1).T) == pytest.approx(float(noise.std()), rel=0.05)
