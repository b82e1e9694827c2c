"""Dilation and erosion of the brain extraction: what scipy gives, whatever the shape of mask and disc."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from HemorrhageSegLib._brain_morphology import FLAT, FLAT_3D, box_in_plane, deeper_than, dilated, disc, eroded, grow

ELEMENTS = {
    "cross": FLAT,
    "square": np.ones((3, 3), bool),
    "one voxel": disc(1.0, (5.0, 1.8, 1.8)),
    "disc": disc(8.0, (5.0, 1.8, 1.8)),
    "disc of unequal steps": disc(4.0, (5.0, 0.6, 0.9)),
}


@pytest.mark.parametrize("element", ELEMENTS.values(), ids=ELEMENTS)
@pytest.mark.parametrize("shape", [(4, 40, 50), (3, 7, 5), (1, 4, 30)])
def test_dilation_is_that_of_scipy(element: np.ndarray, shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(4).random(shape) > 0.93
    flat = element.reshape(element.shape[-2:])
    np.testing.assert_array_equal(dilated(mask, element), ndimage.binary_dilation(mask, flat[None]))
    np.testing.assert_array_equal(dilated(mask[0], element), ndimage.binary_dilation(mask[0], flat))


@pytest.mark.parametrize("element", ELEMENTS.values(), ids=ELEMENTS)
def test_dilated_labels_are_those_of_scipy(element: np.ndarray) -> None:
    generator = np.random.default_rng(6)
    labels = generator.integers(1, 9, (4, 40, 50)) * (generator.random((4, 40, 50)) > 0.93)
    flat = element.reshape(element.shape[-2:])[None]
    np.testing.assert_array_equal(dilated(labels, element), ndimage.grey_dilation(labels, footprint=flat))


@pytest.mark.parametrize("element", ELEMENTS.values(), ids=ELEMENTS)
@pytest.mark.parametrize("outside", [False, True])
def test_erosion_is_that_of_scipy(element: np.ndarray, outside: bool) -> None:
    mask = np.random.default_rng(7).random((4, 40, 50)) > 0.02
    flat = element.reshape(element.shape[-2:])[None]
    expected = ndimage.binary_erosion(mask, flat, border_value=outside)
    np.testing.assert_array_equal(eroded(mask, element, outside), expected)


@pytest.mark.parametrize("spacing", [(5.0, 1.8, 1.8), (2.5, 1.25, 1.0), (2.0, 1.5, 1.5)])
@pytest.mark.parametrize("slices", [1, 2, 9])
def test_depth_is_that_of_the_distance_transform(spacing: tuple[float, ...], slices: int) -> None:
    """Ties at exactly the depth included: 4 pixels of 1.25 mm are not deeper than 5 mm."""
    mask = np.random.default_rng(8).random((slices, 40, 50)) > 0.003
    expected = ndimage.distance_transform_edt(mask, sampling=spacing) > 5.0
    np.testing.assert_array_equal(deeper_than(mask, 5.0, spacing), expected)
    assert 0 < expected.sum() < mask.sum()


def test_the_box_of_all_slices() -> None:
    mask = np.zeros((3, 20, 30), bool)
    assert box_in_plane(mask) == (slice(0, 0), slice(0, 0))
    mask[0, 4, 9] = mask[2, 18, 6] = True
    assert box_in_plane(mask) == (slice(4, 19), slice(6, 10))
    assert box_in_plane(mask, margin=5) == (slice(0, 20), slice(1, 15))


def test_growth_is_that_of_steps_with_scipy() -> None:
    generator = np.random.default_rng(5)
    within, spacing = generator.random((6, 30, 30)) > 0.3, (5.0, 1.8, 1.8)
    core = generator.random(within.shape) > 0.99
    square = np.zeros((3, 3, 3), bool)
    square[1] = True
    expected = core & within
    for step in range(1, 6):  # 9 mm in steps of 1.8; every third also to the next slice
        element = ndimage.generate_binary_structure(3, 1) if step % 3 == 0 else (FLAT_3D, square)[step % 2]
        expected = ndimage.binary_dilation(expected, element, mask=within) | expected
    np.testing.assert_array_equal(grow(core, within, 9.0, spacing), expected)
    assert expected.sum() > 2 * (core & within).sum()
