"""Shapes of real lesions as bleeds."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from Training.simulation.lesion_shapes import LesionShapes


def test_traced_bleeds_take_the_shape_of_a_real_lesion(tmp_path):
    grid = np.indices((9, 30, 30))
    ring = (np.hypot(grid[1] - 15, grid[2] - 15) > 6) & (np.hypot(grid[1] - 15, grid[2] - 15) < 12)
    write_volume(Volume(ring.astype(np.uint8), np.eye(4)), tmp_path / "ring.nii.gz")
    library = LesionShapes(tmp_path)
    rng = np.random.default_rng(0)
    mask = library.pick(rng)
    offsets = [axis - 25.0 for axis in np.ogrid[:51, :51, :51]]
    drawn = library.draw(offsets, 1.0, mask, rng)
    assert drawn.sum() == pytest.approx(ring.sum(), rel=0.05)  # turned, not resized
    assert drawn[25, 25, 25] < 0.1  # the hole of the ring is at the centre
    larger = library.draw(offsets, 1.2, mask, rng)
    assert larger.sum() == pytest.approx(1.2**3 * ring.sum(), rel=0.06)


def test_a_folder_without_usable_shapes_is_refused(tmp_path):
    write_volume(Volume(np.ones((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "speck.nii.gz")
    with pytest.raises(InputError, match="0.3 to 70 mL"):
        LesionShapes(tmp_path).pick(np.random.default_rng(0))
