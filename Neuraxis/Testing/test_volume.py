"""Reordering to axial slices keeps every voxel where it is in the patient, however the volume is stored."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from NeuraxisLib import measure
from NeuraxisLib.errors import GeometryError
from NeuraxisLib.volume import Volume

SHAPE_KJI = (6, 5, 7)
PERMUTATIONS = list(itertools.permutations(range(3)))


def stored(directions: tuple[int, ...], signs: tuple[int, ...], shear: float, unequal: bool) -> Volume:
    """A volume of numbered voxels whose i, j and k run along the RAS axes ``directions``, sheared along j."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for column, (axis, sign, spacing) in enumerate(zip(directions, signs, (0.5, 0.7, 4.0))):
        matrix[axis, column] = sign * spacing
    matrix[:3, 2] += shear * matrix[:3, 1]
    matrix[:3, 3] = (3, -7, 11)
    origins = None
    if unequal:
        origins = matrix[:3, 3] + np.array([0, 1, 2, 3.5, 5, 6.5])[:, None] * matrix[:3, 2]
        matrix[:3, 2] *= 6.5 / 5
    return Volume(np.arange(np.prod(SHAPE_KJI)).reshape(SHAPE_KJI), matrix, "HU", slice_origins_ras=origins)


def places(volume: Volume) -> np.ndarray:
    """(voxels, 3) RAS mm of every voxel, in the order of the numbers in the array."""
    k, j, i = np.indices(volume.array.shape).reshape(3, -1)
    ras = volume.origins_ras[k] + j[:, None] * volume.row_step_ras + i[:, None] * volume.column_step_ras
    return ras[np.argsort(volume.array.ravel())]


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("shear", [0.0, 1.5])
@pytest.mark.parametrize("directions", PERMUTATIONS)
def test_reordering_moves_no_voxel(directions, shear, unequal):
    for signs in itertools.product((1, -1), repeat=3):
        volume = stored(directions, signs, shear, unequal)
        if unequal and directions[2] != 2:
            with pytest.raises(GeometryError, match="unequal slice gaps"):
                volume.axial()
            continue
        axial, order = volume.axial()
        np.testing.assert_array_equal(order.undo_array(axial.array), volume.array)
        np.testing.assert_allclose(places(axial), places(volume), atol=1e-9)
        right, anterior, superior = (axial.ijk_to_ras[axis, column] for axis, column in ((0, 0), (1, 1), (2, 2)))
        assert right < 0 and anterior < 0 and superior > 0
        mask = (volume.array % 7 < 3) & (volume.array > 40)
        assert measure.volume_ml(order.apply_array(mask), axial) == pytest.approx(measure.volume_ml(mask, volume))


def frames(directions: tuple[int, ...], signs: tuple[int, ...], times: np.ndarray) -> Volume:
    """Three frames, numbered voxels plus 1000 t, on one of the stored grids."""
    one = stored(directions, signs, 0.0, False)
    return Volume(np.stack([one.array + 1000 * t for t in range(3)]), one.ijk_to_ras, "HU", frame_times_s=times)


@pytest.mark.parametrize("directions", PERMUTATIONS)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_every_frame_is_reordered_as_one_image_is(directions, signs):
    volume = frames(directions, signs, np.array([0.0, 1.5, 3.0]))
    axial, order = volume.axial()
    single, _ = Volume(volume.array[0], volume.ijk_to_ras, "HU").axial()
    assert np.array_equal(axial.array[0], single.array) and np.array_equal(axial.array[2], single.array + 2000)
    assert np.allclose(axial.ijk_to_ras, single.ijk_to_ras)
    assert np.array_equal(axial.frame_times_s, volume.frame_times_s)
    assert np.array_equal(order.undo_array(axial.array), volume.array)


def test_times_of_slices_turn_with_the_slices():
    times = np.arange(3.0)[:, None] * 2 + np.arange(SHAPE_KJI[0]) * 0.1
    upward, _ = frames((0, 1, 2), (-1, -1, 1), times).axial()
    assert np.array_equal(upward.frame_times_s, times)
    downward, _ = frames((0, 1, 2), (-1, -1, -1), times).axial()
    assert np.array_equal(downward.frame_times_s, times[:, ::-1])
    with pytest.raises(GeometryError, match="times of their own must be axial"):
        frames((0, 2, 1), (-1, -1, 1), times).axial()
