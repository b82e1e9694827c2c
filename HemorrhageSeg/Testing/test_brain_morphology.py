"""Dilation of the brain extraction: what scipy gives, whatever the shape of mask and disc."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from HemorrhageSegLib._brain_morphology import FLAT, FLAT_3D, dilated, disc, grow

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
