"""Augmentation: what must stay, what must move together, and the same sample wherever it is made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from NeuraxisLib.errors import InputError
from Training.augmentation import PRESETS, Augmentation, Blur, Flip, Intensity, Noise, augmentation_of
from Training.sampling import Batch
from Training.simulation.bank import UNKNOWN
from Training.warp import Warp, _bent

PLANE, SPACE = (40, 48), (24, 28, 12)
SIZES = pytest.mark.parametrize("size", [PLANE, SPACE], ids=["2-D", "3-D"])


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, n]) for n in range(count)]


def ball(size: tuple[int, ...], share: float = 0.28) -> torch.Tensor:
    """(1, 1, *size) 1 within ``share`` of the size around the centre."""
    axes = [(torch.arange(n) - (n - 1) / 2) / n for n in size]
    distance = sum(a**2 for a in torch.meshgrid(*axes, indexing="ij")).sqrt()
    return (distance < share).float()[None, None]


def batch_of(size: tuple[int, ...], count: int = 4, channels: int = 2) -> Batch:
    """Samples whose first channel is 2 inside the truth, 1 in the rest of the region and -1 around it."""
    truth, region = ball(size, 0.22).repeat(count, 1, *[1] * len(size)), ball(size, 0.4)
    region = region.expand_as(truth).clone()
    texture = torch.rand(count, channels - 1, *size, generator=torch.Generator().manual_seed(1))
    images = torch.cat([2 * region - 1 + truth, texture], dim=1)
    return Batch(images, truth, region, torch.full((count,), UNKNOWN), tuple(f"case {n}" for n in range(count)))


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("images", "truth", "brain"))


# -- each transform --------------------------------------------------------------------------------------------------


@SIZES
def test_flipping_twice_is_as_before_and_loses_no_value(size):
    batch = batch_of(size)
    for axis in range(len(size)):
        once = Flip(axis)(batch.images, batch.truth, [])
        again = Flip(axis)(*once, [])
        assert torch.equal(again[0], batch.images) and torch.equal(again[1], batch.truth)
        assert not torch.equal(once[0], batch.images)
        assert torch.equal(once[0].sort(dim=2 + axis).values, batch.images.sort(dim=2 + axis).values)


@SIZES
def test_a_warp_without_movement_changes_nothing(size):
    batch = batch_of(size)
    images, truth = Warp()(batch.images, batch.truth, generators(4))
    assert torch.allclose(images, batch.images, atol=2e-5)
    assert torch.equal(truth, batch.truth)


def test_a_quarter_turn_is_clockwise_and_exact():
    image = torch.rand(1, 1, 32, 32)
    turned, _ = Warp(rotate_deg=(90, 90))(image, image, generators(1))
    assert torch.allclose(turned[0, 0], image[0, 0].rot90(-1), atol=1e-4)


def test_rotation_and_scale_are_scipy_s():
    """The plane of a grid whose columns are twice as wide as its rows turns as the head does, not as the grid."""
    rng = np.random.default_rng(3)
    image = ndimage.gaussian_filter(rng.random((48, 40)), 2)
    image -= image.min()
    warp = Warp(rotate_deg=(25, 25), scale=(1.2, 1.2), spacing=(1.0, 2.0))
    got, _ = warp(torch.tensor(image, dtype=torch.float32)[None, None], torch.zeros(1, 1, 48, 40), generators(1))
    angle, spacing = np.deg2rad(25), np.diag([1.0, 2.0])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # columns towards rows
    back = np.linalg.inv(spacing) @ turn.T @ spacing / 1.2
    centre = (np.array(image.shape) - 1) / 2
    expected = ndimage.affine_transform(image, back, centre - back @ centre, order=1, mode="grid-constant")
    assert np.abs(got[0, 0].numpy() - expected).max() < 1e-4


def test_a_shift_moves_content_forward_along_its_axis():
    image = torch.zeros(1, 1, 20, 30)
    image[0, 0, 5, 6] = 1
    moved, mask = Warp(shift=(0.2, 0.2))(image, image, generators(1))
    assert torch.equal(mask.nonzero(), torch.tensor([[0, 0, 9, 12]]))
    assert float(moved[0, 0, 9, 12]) == pytest.approx(1, abs=1e-4)


def test_tilt_needs_the_third_axis_and_turns_about_the_first_two():
    volume = torch.zeros(1, 1, 21, 21, 21)
    volume[0, 0, :, 10, 10] = 1  # a line along x
    _, tilted = Warp(tilt_deg=(90, 90))(volume, volume, generators(1))
    assert tilted[0, 0, 10, :, 10].sum() == tilted.sum() == 21  # x went to z, and z to y


@SIZES
def test_masks_keep_their_values_and_nearly_their_volume(size):
    batch = batch_of(size, count=6)
    labels = batch.truth * 3 + batch.brain  # 0, 1 and 4
    warp = Warp(rotate_deg=(-30, 30), tilt_deg=(-5, 5), shift=(-0.03, 0.03), bend=2.0)
    _, moved = warp(batch.images, labels, generators(6))
    assert set(moved.unique().tolist()) == {0.0, 1.0, 4.0}
    assert not torch.equal(moved, labels)
    before, after = (labels == 4).flatten(1).sum(dim=1), (moved == 4).flatten(1).sum(dim=1)
    assert ((after / before - 1).abs() < 0.2).all()


@SIZES
def test_scale_changes_the_volume_by_its_power(size):
    truth = ball(size, 0.25)
    for factor in (0.8, 1.2):
        _, moved = Warp(scale=(factor, factor))(truth, truth, generators(1))
        assert float(moved.sum() / truth.sum()) == pytest.approx(factor ** len(size), rel=0.12)


def test_integer_masks_stay_integer():
    labels = (ball(PLANE) * 200).to(torch.uint8)
    _, moved = Warp(rotate_deg=(10, 40))(labels.float(), labels, generators(1))
    assert moved.dtype == torch.uint8 and set(moved.unique().tolist()) == {0, 200}


@SIZES
def test_image_truth_and_region_move_together(size):
    """The image was drawn from truth and region; redrawn after the warp it must be the warped image."""
    batch = batch_of(size)
    moved = Augmentation((Warp(rotate_deg=(-40, 40), scale=(0.9, 1.2), bend=2.0), Flip(0)))(batch, 5, 0)
    drawn = 2 * moved.brain - 1 + moved.truth
    assert float((moved.images[:, :1] - drawn).abs().mean()) < 0.1  # linear against nearest at the edges
    apart = 2 * batch.brain - 1 + batch.truth
    assert float((moved.images[:, :1] - apart).abs().mean()) > float((moved.images[:, :1] - drawn).abs().mean())
    assert moved.cases == batch.cases and torch.equal(moved.slice_label, batch.slice_label)


def test_what_comes_from_outside_is_air():
    image = torch.full((1, 2, 16, 16), 7.0)
    image[:, 1] = 3.0
    image[:, :, 0, 0] = -5.0  # the lowest value of either channel
    moved, mask = Warp(shift=(0.5, 0.5))(image, torch.ones(1, 1, 16, 16), generators(1))
    assert (moved[:, :, :7, :7] == -5).all() and (mask[..., :7, :7] == 0).all()


@SIZES
def test_bending_never_folds(size):
    """However strongly it is drawn, the map keeps the order of neighbours: its determinant stays positive."""
    warp = Warp(bend=1e6)
    half = np.array(size) / 2
    for generator in generators(20):
        _, points = warp._draw(generator, size)
        assert np.abs(points).max() > 0
        shift = _bent(torch.from_numpy(points)[None], size)[0].numpy() * half.reshape(-1, *[1] * len(size))
        gradient = np.stack([np.stack(np.gradient(part)) for part in shift])
        jacobian = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(len(size))
        assert np.linalg.det(jacobian).min() > 0


def test_blur_is_scipy_s_and_keeps_masks():
    images = torch.rand(3, 2, *PLANE)
    blurred, masks = Blur(sigma=(0.5, 2.5))(images, images, generators(3))
    assert masks is images
    for n, generator in enumerate(generators(3)):
        sigma = generator.uniform(0.5, 2.5)
        expected = ndimage.gaussian_filter(images[n].numpy(), (0, sigma, sigma), mode="mirror", truncate=4)
        assert np.abs(blurred[n].numpy() - expected).max() < 1e-5


def test_blur_of_nothing_changes_nothing_and_small_images_pass():
    images = torch.rand(2, 1, 5, 6, 4)
    assert torch.equal(Blur(sigma=(0.0, 0.0))(images, images, generators(2))[0], images)
    strong, _ = Blur(sigma=(3.0, 3.0))(images, images, generators(2))
    assert torch.isfinite(strong).all() and strong.std() < images.std()
    assert torch.allclose(strong.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=0.1)  # slice by slice


def test_noise_has_the_deviation_drawn():
    images = torch.zeros(1, 1, 200, 200)
    noisy, masks = Noise(deviation=(0.3, 0.3))(images, images, generators(1))
    assert float(noisy.std()) == pytest.approx(0.3, rel=0.03) and abs(float(noisy.mean())) < 0.01
    assert not masks.any()


def test_intensity_by_hand():
    image = torch.tensor([[0.0, 0.25], [0.75, 1.0]])[None, None] * 4 - 1  # -1 .. 3
    got, _ = Intensity(scale=(2.0, 2.0), shift=(0.5, 0.5), gamma=(2.0, 2.0))(image, image, generators(1))
    curved = torch.tensor([[0.0, 0.0625], [0.5625, 1.0]]) * 4 - 1
    assert torch.allclose(got[0, 0], (curved - curved.mean()) * 2 + curved.mean() + 0.5, atol=1e-6)
    flat = torch.full((1, 1, 4, 4), 2.0)
    assert torch.isfinite(Intensity(gamma=(0.5, 2.0))(flat, flat, generators(1))[0]).all()


# -- whole augmentations ---------------------------------------------------------------------------------------------


@SIZES
@pytest.mark.parametrize("name", PRESETS)
def test_a_sample_is_the_same_wherever_it_is_made(name, size):
    batch = batch_of(size, count=6)
    augment = augmentation_of(name, len(size), (0.5,) * len(size))
    whole = augment(batch, 11, 3)
    assert equal(whole, augment(batch, 11, 3))
    parts = []
    for samples in (range(0, 2), range(2, 6)):
        own = replace(batch, **{k: getattr(batch, k)[list(samples)] for k in ("images", "truth", "brain")})
        parts.append(augment(own, 11, 3, samples))
    for key in ("truth", "brain"):
        assert torch.equal(torch.cat([getattr(part, key) for part in parts]), getattr(whole, key))
    assert torch.allclose(torch.cat([part.images for part in parts]), whole.images, atol=1e-5)
    if name != "none":
        assert not equal(whole, augment(batch, 11, 4)) and not equal(whole, augment(batch, 12, 3))
    assert whole.images.shape == batch.images.shape and torch.isfinite(whole.images).all()


def test_probability_is_the_share_of_samples():
    batch = batch_of((8, 8), count=400)
    batch.images[:, 0, 0, 0] = 9
    flipped = Augmentation((Flip(1, probability=0.3),))(batch, 1, 1).images[:, 0, 0, 0] != 9
    assert 0.22 < float(flipped.float().mean()) < 0.38


def test_slex_augmentation_is_the_published_one():
    """Mirrored half of the time each way, always turned by 30, 60 or 330 degrees, blurred on the image alone."""
    flips, (warp, blur) = augmentation_of("slex").transforms[:2], augmentation_of("slex").transforms[2:]
    assert [(flip.axis, flip.probability) for flip in flips] == [(1, 0.5), (0, 0.5)]
    assert (warp.rotate_choices_deg, warp.scale, warp.bend, warp.probability) == ((30, 60, 330), (1, 1), 0, 1)
    assert (blur.sigma, blur.probability) == ((0, 3), 1)
    angles = set()
    for generator in generators(60):
        matrix, _ = warp._draw(generator, (32, 32))
        angles.add(round(float(np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0])))))
    assert {abs(angle) for angle in angles} == {30, 60} and len(angles) == 3


def test_hemseg_flips_each_axis_half_of_the_time():
    batch = batch_of((4, 4, 4), count=200)
    batch.images[:] = 0
    batch.images[:, :, 0, 0, 0] = 1
    where = augmentation_of("hemseg", 3)(batch, 2, 2).images[:, 0].nonzero()[:, 1:]
    assert set(where.flatten().tolist()) == {0, 3}
    assert ((where > 0).float().mean(dim=0) - 0.5).abs().max() < 0.12


def test_an_unknown_augmentation_is_named():
    with pytest.raises(InputError, match=r"no augmentation 'tta'; choose one of: none, hemseg, slex, standard\."):
        augmentation_of("tta")
