"""The faults of DR-UNet's released code, imitated: cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from HemorrhageSegLib import legacy

PIXEL_CM2 = (25.4 / 96) ** 2 / 100


def square(side: int, size: int = 60, at: tuple[int, int] = (10, 10)) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = True
    return mask


def test_a_contour_runs_through_pixel_centres() -> None:
    assert legacy.contour_areas_px(square(11)) == [100.0]  # 11 pixels wide, 10 between the outer centres


def test_a_single_pixel_and_a_line_have_no_area() -> None:
    line = np.zeros((20, 20), bool)
    line[5, 3:15] = True
    assert legacy.contour_areas_px(square(1)) == [0.0]
    assert legacy.contour_areas_px(line) == [0.0]


def test_a_diamond_is_cut_along_its_diagonals() -> None:
    rows, columns = np.indices((21, 21))
    diamond = abs(rows - 10) + abs(columns - 10) <= 5
    assert legacy.contour_areas_px(diamond) == [50.0]  # diagonals of 10


def test_a_hole_is_a_contour_of_its_own_and_runs_on_the_pixels_around_it() -> None:
    mask = square(21)
    mask[20, 20] = False
    assert legacy.contour_areas_px(mask) == [400.0, 2.0]
    mask[18:23, 18:23] = False  # five by five: the contour is six wide with its corners cut
    assert legacy.contour_areas_px(mask) == [400.0, 36.0 - 2.0]


def test_pixels_that_touch_at_a_corner_are_one_contour() -> None:
    mask = square(11) | square(11, at=(21, 21))
    assert legacy.contour_areas_px(mask) == [200.0]


def test_an_island_in_a_hole_counts_too() -> None:
    mask = square(41)
    mask[15:46, 15:46] = False
    mask[25:36, 25:36] = True
    areas = legacy.contour_areas_px(mask)
    assert sorted(areas) == [100.0, 32.0 * 32 - 2, 1600.0]


def test_the_border_of_the_picture_is_no_obstacle() -> None:
    assert legacy.contour_areas_px(np.ones((15, 15), bool)) == [196.0]


def test_areas_become_cm2_at_96_dots_per_inch() -> None:
    assert legacy.slice_area_cm2(square(21)) == pytest.approx(400 * PIXEL_CM2)
    assert legacy.slice_area_cm2(square(21)) == pytest.approx(0.2800, abs=1e-4)


def test_small_and_very_large_contours_do_not_count() -> None:
    assert legacy.slice_area_cm2(square(15)) == 0  # 14 * 14 = 196
    assert legacy.slice_area_cm2(square(16)) > 0  # 225
    assert legacy.slice_area_cm2(np.ones((60, 60), bool)) == 0  # 59 * 59 = 3481 > 0.94 * 3600
    assert legacy.slice_area_cm2(square(58, at=(1, 1))) > 0  # 57 * 57 = 3249


def test_holes_add_area() -> None:
    mask = square(41)
    mask[20:40, 20:40] = False
    assert legacy.slice_area_cm2(mask) == pytest.approx((1600 + 21 * 21 - 2) * PIXEL_CM2)


@pytest.mark.parametrize(("count", "counted"), [(8, True), (9, False)])
def test_more_than_eight_contours_make_a_slice_count_nothing(count: int, counted: bool) -> None:
    mask = np.zeros((200, 200), bool)
    for number in range(count):
        row, column = 5 + 60 * (number // 3), 5 + 60 * (number % 3)
        mask[row : row + 21, column : column + 21] = True
    mask[190:195, 190:195] = True  # too small to be one of the contours
    assert legacy.slice_area_cm2(mask) == (pytest.approx(count * 400 * PIXEL_CM2) if counted else 0)


def test_a_picture_is_enlarged_before_it_is_cut_above_zero() -> None:
    picture = np.zeros((64, 64), np.uint8)
    picture[20:30, 20:30] = 255
    faint = np.where(picture > 0, 1, 0).astype(np.uint8)
    bright, weak = legacy.screen_mask(picture, 640), legacy.screen_mask(faint, 640)
    # 10 pixels are 100; linear enlargement reaches 1 pixel further at either side while 255 w >= 0.5, 1 w > 0.5
    assert bright.any(axis=1).sum() == 110
    assert weak.any(axis=1).sum() == pytest.approx(100, abs=1)


def test_probabilities_are_rounded_down_to_eight_bits() -> None:
    values = np.array([0, 0.9 / 255, 1 / 255, 1.99 / 255, 0.5, 1.0], np.float32)
    np.testing.assert_array_equal(legacy.floor_to_8_bit(values), [0, 0, 1, 1, 127, 255])
    np.testing.assert_array_equal(legacy.floor_to_8_bit(np.arange(256, dtype=np.float32) / 255), np.arange(256))


def test_a_sheet_is_stretched_to_its_own_range() -> None:
    np.testing.assert_allclose(legacy.stretch(np.array([0.02, 0.06, 0.1])), [0, 0.5, 1])
    np.testing.assert_array_equal(legacy.stretch(np.full(3, 0.3)), 0)


def test_volume_of_slices_by_hand() -> None:
    probability = np.zeros((3, 256, 256), np.float32)
    probability[0, 64:128, 64:128] = 1.0
    probability[1, 64:128, 64:128] = 1 / 255  # 0.4 % counts like certain blood
    probability[2, 64:128, 64:128] = 0.9 / 255
    per_pixel = 1440 / 256
    certain = (64 * per_pixel + per_pixel) ** 2  # half a network pixel of ramp at either side; corners are round
    faint = (64 * per_pixel) ** 2
    expected = 0.45 * (certain + faint) * PIXEL_CM2
    assert legacy.fixed_dpi_volume_ml(probability) == pytest.approx(expected, rel=0.01)
    assert legacy.fixed_dpi_measurement(probability).value == legacy.fixed_dpi_volume_ml(probability)
