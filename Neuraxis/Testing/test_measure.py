"""Measures against shapes worked out by hand, on plain, tilted, anisotropic and unequal grids."""

from __future__ import annotations

import math

import numpy as np
import pytest

from NeuraxisLib.errors import GeometryError
from NeuraxisLib.measure import (
    Lesion,
    abc2,
    bounding_box,
    centroid_ras,
    components,
    largest_diameter_mm,
    slices_touched,
    volume_ml,
)
from NeuraxisLib.volume import Volume


def grid(shape=(10, 40, 50), spacing_mm=(1.0, 1.0, 1.0), tilt_degrees=0.0, origin=(0.0, 0.0, 0.0)) -> Volume:
    """An axial grid (i left, j posterior, k up); tilted, its slices lean about the left-right axis."""
    angle = math.radians(tilt_degrees)
    matrix = np.eye(4)
    matrix[:3, 0] = (-spacing_mm[0], 0, 0)
    matrix[:3, 1] = (0, -spacing_mm[1] * math.cos(angle), -spacing_mm[1] * math.sin(angle))
    matrix[:3, 2] = (0, 0, spacing_mm[2])
    matrix[:3, 3] = origin
    return Volume(np.zeros(shape, np.uint8), matrix)


def points_ras(volume: Volume) -> np.ndarray:
    """(k, j, i, 3) RAS mm of every voxel centre."""
    k, j, i = np.indices(volume.array.shape)
    return (
        volume.origins_ras[k] + i[..., None] * volume.column_step_ras + j[..., None] * volume.row_step_ras
    )


def ellipsoid(volume: Volume, centre, radii) -> np.ndarray:
    return (((points_ras(volume) - centre) / radii) ** 2).sum(axis=-1) <= 1


def box_mask(volume: Volume, k, j, i) -> np.ndarray:
    mask = np.zeros(volume.array.shape, bool)
    mask[k[0] : k[1], j[0] : j[1], i[0] : i[1]] = True
    return mask


def unequal(positions_mm, shape_ji=(20, 30)) -> Volume:
    """Axial slices of 1 mm pixels at the given heights."""
    origins = np.array([(0.0, 0.0, z) for z in positions_mm])
    matrix = np.diag([-1.0, -1.0, np.diff(positions_mm).mean(), 1.0])
    return Volume(np.zeros((len(origins), *shape_ji), np.uint8), matrix, slice_origins_ras=origins)


# -- volume -----------------------------------------------------------------------------------------------------


def test_box_volume_is_its_edges_multiplied():
    volume = grid(spacing_mm=(0.5, 0.75, 5.0))
    mask = box_mask(volume, (2, 5), (10, 20), (7, 27))
    assert volume_ml(mask, volume) == pytest.approx(3 * 5.0 * 10 * 0.75 * 20 * 0.5 / 1000)


def test_unequal_gaps_weigh_each_slice_by_its_own_thickness():
    volume = unequal([0.0, 4.0, 8.0, 15.0, 22.0])  # local thicknesses 4, 4, 5.5, 7, 7
    for k, thickness in enumerate((4, 4, 5.5, 7, 7)):
        assert volume_ml(box_mask(volume, (k, k + 1), (0, 10), (0, 10)), volume) == pytest.approx(0.1 * thickness)


def test_volume_on_a_grid_tilted_by_20_degrees_equals_the_upright_one_within_2_percent():
    radii = (22.0, 17.0, 19.0)
    upright = grid((30, 160, 140), (0.5, 0.5, 2.5), origin=(35.0, 40.0, -36.0))
    tilted = grid((50, 160, 140), (0.5, 0.5, 2.5), tilt_degrees=20, origin=(35.0, 38.0, -47.0))
    assert tilted.is_sheared
    a, b = (volume_ml(ellipsoid(v, (0.0, 0.0, 0.0), radii), v) for v in (upright, tilted))
    truth = 4 / 3 * math.pi * np.prod(radii) / 1000
    assert b == pytest.approx(a, rel=0.02)
    assert b == pytest.approx(truth, rel=0.02)


def test_volume_counts_any_non_zero_value_and_left_handed_grids():
    volume = grid()
    flipped = Volume(volume.array, volume.ijk_to_ras @ np.diag([1.0, 1.0, -1.0, 1.0]))
    mask = box_mask(volume, (0, 1), (0, 10), (0, 10)).astype(np.uint8) * 3
    assert volume_ml(mask, volume) == volume_ml(mask, flipped) == pytest.approx(0.1)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(GeometryError):
        volume_ml(np.zeros((1, 2, 3)), grid())
    with pytest.raises(GeometryError):
        components(grid().array, grid(), probability=np.zeros((1, 2, 3)))


# -- ABC/2 ------------------------------------------------------------------------------------------------------


def test_abc2_of_a_box():
    """40 x 30 mm on 3 slices of 5 mm: A is the diagonal 50; across it the box spans 2 * 40 * 30 / 50 = 48; C 15."""
    volume = grid((6, 60, 60), (1.0, 1.0, 5.0))
    measured = abc2(box_mask(volume, (1, 4), (5, 35), (10, 50)), volume)
    assert (measured.a_mm, measured.b_mm, measured.c_mm) == pytest.approx((50.0, 48.0, 15.0))
    assert measured.volume_ml == pytest.approx(50 * 48 * 15 / 2000)
    assert measured.slice_index == 1


def test_abc2_of_an_ellipsoid_is_3_over_pi_of_its_volume():
    volume = grid((120, 160, 120), (0.5, 0.5, 0.5))
    mask = ellipsoid(volume, points_ras(volume)[60, 80, 60] + 0.25, (20.0, 30.0, 25.0))
    measured = abc2(mask, volume)
    assert measured.volume_ml / (4 / 3 * math.pi * 20 * 30 * 25 / 1000) == pytest.approx(3 / math.pi, rel=0.03)
    assert measured.a_mm == pytest.approx(60.0, abs=1.0)
    assert measured.b_mm == pytest.approx(40.0, abs=1.0)
    assert measured.slice_index in (60, 61)


def test_abc2_respects_anisotropic_pixels():
    """10 columns of 2 mm by 10 rows of 0.5 mm: 20 x 5 mm, diagonal sqrt(425)."""
    volume = grid((3, 30, 30), (2.0, 0.5, 3.0))
    measured = abc2(box_mask(volume, (0, 1), (4, 14), (4, 14)), volume)
    assert measured.a_mm == pytest.approx(math.sqrt(425))
    assert measured.b_mm == pytest.approx(2 * 20 * 5 / math.sqrt(425))


def test_kothari_weights_at_75_and_25_percent():
    """Areas 100, 75, 74, 25, 24 % of the largest: weights 1, 1, 0.5, 0.5, 0 make 3 slices of 5 mm."""
    volume = grid((5, 12, 120), (1.0, 1.0, 5.0))
    mask = np.zeros(volume.array.shape, bool)
    for k, area in enumerate((100, 75, 74, 25, 24)):
        mask[k, 3, :area] = True
    assert abc2(mask, volume).c_mm == pytest.approx(25.0)
    assert abc2(mask, volume, "kothari").c_mm == pytest.approx(15.0)


def test_abc2_height_sums_local_thicknesses_and_skips_empty_slices():
    volume = unequal([0.0, 4.0, 8.0, 15.0, 22.0])
    mask = box_mask(volume, (1, 5), (2, 12), (2, 12))
    mask[3] = False
    assert abc2(mask, volume).c_mm == pytest.approx(4 + 5.5 + 7)


def test_abc2_of_nothing_is_zero_and_unknown_weighting_fails():
    volume = grid()
    assert abc2(volume.array, volume).volume_ml == 0
    assert abc2(volume.array, volume).slice_index is None
    with pytest.raises(ValueError, match="whole"):
        abc2(volume.array, volume, "half")


def test_abc2_refuses_rows_that_lean_on_columns():
    matrix = np.eye(4)
    matrix[0, 1] = 0.3
    volume = Volume(np.ones((2, 5, 5), np.uint8), matrix)
    with pytest.raises(GeometryError, match="right angles"):
        abc2(volume.array, volume)


# -- diameter, extent, centre -----------------------------------------------------------------------------------


def test_largest_diameter_of_a_box_is_its_space_diagonal():
    volume = grid((6, 30, 30), (0.5, 2.0, 3.0))
    mask = box_mask(volume, (1, 5), (3, 6), (10, 26))  # 12 mm, 6 mm, 8 mm
    assert largest_diameter_mm(mask, volume) == pytest.approx(math.sqrt(12**2 + 6**2 + 8**2))


def test_largest_diameter_of_one_voxel_and_of_none():
    volume = grid(spacing_mm=(3.0, 4.0, 12.0))
    assert largest_diameter_mm(box_mask(volume, (0, 1), (0, 1), (0, 1)), volume) == pytest.approx(13.0)
    assert largest_diameter_mm(volume.array, volume) is None


def test_largest_diameter_is_the_same_on_a_tilted_grid():
    tilted = grid((50, 160, 140), (0.5, 0.5, 1.0), tilt_degrees=20, origin=(35.0, 38.0, -36.0))
    assert largest_diameter_mm(ellipsoid(tilted, (0, 5, 0), (12.0, 12.0, 12.0)), tilted) == pytest.approx(24.0, abs=1.0)


def test_largest_diameter_with_unequal_gaps_and_with_one_slice():
    volume = unequal([0.0, 4.0, 8.0, 15.0, 22.0])
    mask = box_mask(volume, (0, 5), (4, 5), (4, 5))  # from -2 to 25.5
    assert largest_diameter_mm(mask, volume) == pytest.approx(math.sqrt(27.5**2 + 2))
    single = grid((1, 20, 20), (3.0, 4.0, 12.0))
    assert largest_diameter_mm(box_mask(single, (0, 1), (2, 3), (2, 3)), single) == pytest.approx(13.0)


def test_slices_touched_are_those_marked():
    volume = grid()
    mask = box_mask(volume, (2, 4), (0, 3), (0, 3)) | box_mask(volume, (7, 8), (0, 3), (0, 3))
    assert slices_touched(mask, volume).tolist() == [2, 3, 7]
    assert slices_touched(volume.array, volume).tolist() == []


def test_centroid_is_in_ras_and_weighted_by_thickness():
    volume = grid(spacing_mm=(2.0, 3.0, 5.0), origin=(10.0, 20.0, 30.0))
    mask = box_mask(volume, (0, 2), (0, 3), (1, 2))
    assert centroid_ras(mask, volume) == pytest.approx([10 - 2, 20 - 3, 30 + 2.5])
    assert centroid_ras(volume.array, volume) is None
    thick = unequal([0.0, 4.0, 8.0, 15.0, 22.0])
    column = box_mask(thick, (0, 5), (0, 1), (0, 1))
    assert centroid_ras(column, thick)[2] == pytest.approx((0 * 4 + 4 * 4 + 8 * 5.5 + 15 * 7 + 22 * 7) / 27.5)


# -- components -------------------------------------------------------------------------------------------------


def test_components_are_sorted_and_small_ones_dropped():
    volume = grid()
    mask = box_mask(volume, (0, 1), (0, 2), (0, 2)) | box_mask(volume, (5, 9), (10, 20), (10, 20))
    mask |= box_mask(volume, (0, 2), (30, 35), (30, 40))
    found = components(mask, volume)
    assert [lesion.volume_ml for lesion in found] == pytest.approx([0.4, 0.1, 0.004])
    assert [lesion.volume_ml for lesion in components(mask, volume, 0.1)] == pytest.approx([0.4, 0.1])
    assert components(mask, volume, 1.0) == []
    painted = np.zeros(mask.shape, np.uint8)
    for number, lesion in enumerate(found, start=1):
        lesion.paint(painted, number)
    assert np.array_equal(painted > 0, mask)
    assert painted[5, 10, 10] == 1 and painted[0, 0, 0] == 3


def test_voxels_that_touch_at_a_corner_are_one_component():
    volume = grid()
    mask = np.zeros(volume.array.shape, bool)
    mask[2, 2, 2] = mask[3, 3, 3] = True
    assert len(components(mask, volume)) == 1
    mask[3, 3, 3], mask[4, 4, 4] = False, True
    assert len(components(mask, volume)) == 2


def test_components_know_their_probabilities_and_slices():
    volume = grid()
    mask = box_mask(volume, (3, 5), (10, 12), (10, 12))
    probability = np.where(mask, 0.6, 1.0)
    probability[3, 10, 10] = 0.9
    (lesion,) = components(mask, volume, probability=probability)
    assert lesion.peak_probability == pytest.approx(0.9)
    assert lesion.mean_probability == pytest.approx((7 * 0.6 + 0.9) / 8)
    assert lesion.slices.tolist() == [3, 4]
    assert lesion.abc2().slice_index == 3
    assert lesion.largest_diameter_mm == pytest.approx(math.sqrt(12))
    assert components(volume.array, volume, probability=probability) == []


def test_component_measures_equal_those_of_its_whole_grid_mask():
    rng = np.random.default_rng(7)
    volume = unequal([0.0, 4.0, 8.0, 15.0, 22.0])
    mask = rng.random(volume.array.shape) > 0.8
    for lesion in components(mask, volume)[:5]:
        alone = np.zeros(mask.shape, bool)
        lesion.paint(alone, True)
        again = Lesion.of(alone, volume)
        assert again.volume_ml == pytest.approx(lesion.volume_ml)
        assert again.abc2() == lesion.abc2()
        assert again.centroid_ras == pytest.approx(lesion.centroid_ras)


def test_bounding_box_is_tight_and_empty_for_nothing():
    volume = grid()
    mask = box_mask(volume, (3, 5), (10, 12), (20, 29))
    assert bounding_box(mask) == (slice(3, 5), slice(10, 12), slice(20, 29))
    assert bounding_box(volume.array) == (slice(0, 0),) * 3
