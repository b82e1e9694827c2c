"""Colour maps into numbers by their own bar: our own maps and back, a vendor's real one, and what must be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from NeuraxisLib.errors import InputError
from StrokeCTPLib.colour_maps import BLANK, FOREIGN, GREY, VALUE, find_bar, invert, read_colour_map
from StrokeCTPLib.colour_noise import noise_of
from StrokeCTPLib.colour_scales import OWN_SCALE, SCALES, colour_map, colour_table, coloured, with_bar

SIDE = 256
#: What noise of 4 in each channel may cost, in percent of the range: mean and 99th percentile.
NOISE_LIMITS = (0.5, 2.0)
#: The same on maps whose neighbouring pixels have nothing in common, where no neighbour helps. "flow", measured on
#: published figures, changes colour slowly where it is blue and yellow, and no reading of single pixels does better
#: than 4 x 0.8 over that pace, 0.55 on average.
TEXTURE_LIMITS = {"flow": (0.6, 2.6), "time": (0.42, 1.7), OWN_SCALE: (0.35, 1.3)}


def head_map(seed: int = 0, slices: int = 1, smooth_px: float = 12) -> np.ndarray:
    """A map (slices, SIDE, SIDE) with a sharp lesion, every value of 0 to 1 as often as any; NaN outside."""
    random = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(random.normal(size=(slices, SIDE, SIDE)), (0, smooth_px, smooth_px))
    values[:, 90:130, 150:190] = values.min()
    values = values.ravel().argsort().argsort().reshape(values.shape) / (values.size - 1)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    values[:, np.hypot(rows, columns) > 0.85] = np.nan
    return values


def noisy(rgb: np.ndarray, deviation: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, deviation, rgb.shape)
    return np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)


def errors_percent(scale: str, deviation: float, seed: int = 0, smooth_px: float = 12) -> np.ndarray:
    """Absolute errors of a map written with its bar, made noisy, and read back; all its pixels must come back."""
    values = head_map(seed, smooth_px=smooth_px)
    found = invert(noisy(with_bar(coloured(values, scale, (0, 1)), scale), deviation), (0, 1)).values[..., :SIDE]
    brain = ~np.isnan(values)
    assert np.isfinite(found[brain]).mean() > 0.999 and not np.isfinite(found[~brain]).any()
    return 100 * np.abs(found - values)[np.isfinite(found)]


# -- our own maps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_what_we_write_is_read_back(scale):
    errors = errors_percent(scale, 0)
    assert errors.max() <= 0.21  # half an entry of 256


@pytest.mark.parametrize("scale", SCALES)
def test_noise_as_of_lossy_storing(scale):
    errors, (mean, percentile) = errors_percent(scale, 4), NOISE_LIMITS
    print(f"{scale}, noise 4: mean {errors.mean():.2f} %, 99th percentile {np.percentile(errors, 99):.2f} % of range")
    assert errors.mean() <= mean and np.percentile(errors, 99) <= percentile


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("smooth_px", [0, 2])
def test_noise_in_maps_with_texture(scale, smooth_px):
    """Neighbours that differ by more than noise are let be: no worse than reading pixel by pixel."""
    errors, (mean, percentile) = errors_percent(scale, 4, smooth_px=smooth_px), TEXTURE_LIMITS[scale]
    print(f"{scale}, texture: mean {errors.mean():.2f} %, 99th percentile {np.percentile(errors, 99):.2f} % of range")
    assert errors.mean() <= mean and np.percentile(errors, 99) <= percentile


def test_a_single_pixel_of_another_value_survives_noise():
    """A dot and a thin line keep their values beside tissue of quite another one."""
    values = np.full((1, SIDE, SIDE), 0.2)
    values[0, 60, 60], values[0, 120, 40:200] = 0.7, 0.9
    values[:, :20], values[:, -20:] = np.nan, np.nan
    found = invert(noisy(with_bar(coloured(values, "flow", (0, 1)), "flow"), 4), (0, 1)).values[..., :SIDE]
    assert abs(found[0, 60, 60] - 0.7) < 0.05 and np.abs(found[0, 120, 40:200] - 0.9).mean() < 0.02


def test_noise_is_what_varies_along_the_rows_of_the_bar():
    strip = np.broadcast_to(colour_table("flow")[None, ::-1, None], (3, 256, 20, 3))
    assert noise_of(strip) == 0
    assert noise_of(noisy(np.clip(strip, 20, 235).astype(np.uint8), 3)) == pytest.approx(3, rel=0.03)
    assert noise_of(strip[:, :, :3]) == 0


def test_our_own_maps_with_numbers_beside_the_bar():
    values = head_map(slices=2) * 100
    rgb = colour_map(values, (0, 100))
    found = invert(rgb, (0, 100))
    assert np.nanmax(np.abs(found.values[..., :SIDE] - values)) <= 0.21
    assert not np.isfinite(found.values[..., SIDE:]).any()
    numbers = rgb[0, :, SIDE + 36 :, 0] > 0
    assert numbers[:10].any() and numbers[120:136].any() and numbers[-10:].any() and not numbers[12:118].any()
    # 100, 50 and 0 from top to bottom: three characters, two, one, each 6 pixels wide and 2 apart.
    ends = [int(np.flatnonzero(rows.any(axis=0)).max()) + 1 for rows in (numbers[:10], numbers[120:136], numbers[-10:])]
    assert ends == [22, 14, 6]


def test_range_and_unit_values():
    values = head_map() * 12
    found = invert(with_bar(coloured(values, "time", (0, 12)), "time"), (0, 12))
    assert np.nanmax(np.abs(found.values[..., :SIDE] - values)) <= 12 * 0.0021
    assert found.bar.columns == (SIDE + 8, SIDE + 28) and found.bar.rows == (0, 256)


def test_bar_on_the_left_and_smaller_than_the_image():
    rgb = with_bar(
        coloured(np.pad(head_map(), ((0, 0), (64, 192), (0, 0)), constant_values=np.nan), "flow", (0, 1)), "flow"
    )
    rgb = np.concatenate([rgb[:, :, -36:], rgb[:, :, :-36]], axis=2)
    bar = find_bar(rgb)
    assert bar.columns == (8, 28) and bar.rows == (128, 384)
    assert np.array_equal(bar.table, colour_table("flow"))
    found = invert(rgb, (0, 1), bar)
    assert np.nanmax(np.abs(found.values[:, 64:-192, 36:] - head_map())) <= 0.0021


@pytest.mark.parametrize("entries", [128, 254, 512])
def test_bars_of_other_heights(entries):
    table = colour_table("time", entries)
    rgb = np.zeros((1, 600, 300, 3), np.uint8)
    rgb[0, 50 : 50 + entries, 280:290] = table[::-1, None]
    shares = np.linspace(0, 1, 100 * 100).reshape(100, 100)
    rgb[0, 100:200, 100:200] = colour_table("time", 2001)[np.rint(shares * 2000).astype(int)]
    found = invert(rgb, (0, 1)).values[0, 100:200, 100:200]
    assert np.abs(found - shares).mean() <= 0.005


def test_a_scale_that_ends_in_white():
    share = np.linspace(0, 1, 256)[:, None]
    table = np.where(share < 0.5, [0, 0, 128] + share * 2 * np.array([0, 200, 127]), [0, 200, 255])
    table = np.where(share < 0.5, table, [0, 200, 255] + (share - 0.5) * 2 * np.array([255, 55, 0]))
    table = np.rint(table).astype(np.uint8)
    rgb = np.zeros((1, 300, 320, 3), np.uint8)
    rgb[0, 20:276, 300:312] = table[::-1, None]
    rgb[0, 100:150, 50:306] = table
    rgb[0, 100:150, 306:] = 0
    rgb[0, 20:276, 300:312] = table[::-1, None]
    found = invert(rgb, (0, 100))
    assert found.bar.rows == (20, 276)
    assert np.allclose(found.values[0, 120, 50:290], np.arange(240) / 2.55, atol=0.3)


# -- what is no value -----------------------------------------------------------------------------------------


def test_black_grey_text_and_foreign_colours_have_no_value():
    values = head_map()
    rgb = with_bar(coloured(values, "flow", (0, 1)), "flow")
    rgb[:, 100:140, 100:140] = np.arange(40, 240, 5, dtype=np.uint8)[None, :, None, None]  # grey anatomy
    rgb[:, 10:30, 30:34] = 255  # a letter in white
    rgb[:, 10:13, 60:65] = (255, 255, 0)  # a mark in a colour that the bar has
    rgb[:, 200:220, 100:120] = (0, 255, 255)  # a colour that the bar does not have
    rgb[:, 150:160, 100:120] = 0
    found = invert(rgb, (0, 1))
    assert (found.status[:, 100:140, 100:140] == GREY).all() and (found.status[:, 10:30, 30:34] == GREY).all()
    assert (found.status[:, 10:13, 60:65] == FOREIGN).all() and (found.status[:, 200:220, 100:120] == FOREIGN).all()
    assert (found.status[:, 150:160, 100:120] == BLANK).all() and (found.status[:, :, SIDE + 7 :] == FOREIGN).all()
    assert np.array_equal(np.isnan(found.values), found.status != VALUE)
    assert not found.confidence[found.status != VALUE].any()
    untouched = ~np.isnan(values)
    for box in (np.s_[:, 100:140, 100:140], np.s_[:, 200:220, 100:120], np.s_[:, 150:160, 100:120]):
        untouched[box] = False
    assert (found.status[..., :SIDE][untouched] == VALUE).all()


def test_confidence_falls_with_distance_from_the_bar():
    rgb = with_bar(coloured(head_map(), "flow", (0, 1)), "flow")
    clean, worse = invert(rgb, (0, 1)), invert(noisy(rgb, 6), (0, 1))
    assert clean.confidence[clean.status == VALUE].min() > 0.99
    assert 0.5 < worse.confidence[worse.status == VALUE].mean() < 0.95


# -- refused --------------------------------------------------------------------------------------------------


def test_the_range_is_never_guessed():
    rgb = with_bar(coloured(head_map(), "flow", (0, 1)), "flow")
    with pytest.raises(InputError, match="give the lowest and the highest value that are written beside"):
        invert(rgb, None)
    for wrong in ((5, 5), (6, 0), (0, float("nan"))):
        with pytest.raises(InputError, match="give the lowest value first"):
            invert(rgb, wrong)


def cyclic(rows: int) -> np.ndarray:
    """A bar whose ends have the same colour."""
    angle = np.linspace(0, 2 * np.pi, rows)[:, None]
    return np.rint(127 + 120 * np.cos(angle + np.array([0, 2, 4]))).astype(np.uint8)


@pytest.mark.parametrize("strip", ["none", "grey", "one colour", "cyclic", "too short"])
def test_without_a_bar_that_names_values(strip):
    rgb = np.zeros((2, SIDE, SIDE + 30, 3), np.uint8)
    rgb[:, :, :SIDE] = coloured(head_map(), "flow", (0, 1))
    bars = {
        "grey": np.repeat(np.arange(240, dtype=np.uint8)[:, None], 3, 1),
        "one colour": np.full((240, 3), (200, 30, 60), np.uint8),
        "cyclic": cyclic(240),
        "too short": colour_table("flow", 40),
    }
    if strip != "none":
        rgb[:, 8 : 8 + len(bars[strip]), -20:-4] = bars[strip][:, None]
    with pytest.raises(InputError, match=r"CBF shows no colour bar .* export the colour map with its bar"):
        invert(rgb, (0, 100), name="CBF")


def test_bars_that_differ_between_slices():
    flow, time = (with_bar(coloured(head_map(), scale, (0, 1)), scale) for scale in ("flow", "time"))
    with pytest.raises(InputError, match="different colour bars"):
        find_bar(np.concatenate([flow, flow, time]))


def test_images_of_another_scale_than_the_bar():
    rgb = with_bar(coloured(head_map(), "jet", (0, 1)), "flow")
    with pytest.raises(InputError, match="not those of its colour bar"):
        invert(rgb, (0, 1))


def test_not_an_rgb_image():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 4, 4, 4), np.uint8)):
        with pytest.raises(InputError, match="no RGB image with 8 bits"):
            find_bar(wrong)
    with pytest.raises(InputError, match="no colour scale 'viridis'"):
        colour_table("viridis")


# -- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upwards", [False, True])
def test_a_file_whose_rows_run_upwards(tmp_path, upwards):
    values = head_map() * 20
    rgb = with_bar(coloured(values, "time", (0, 20)), "time")
    image = sitk.GetImageFromArray(rgb[:, ::-1] if upwards else rgb, isVector=True)
    image.SetSpacing((0.8, 0.8, 5.0))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1) if upwards else (1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "map.nrrd"))
    volume, found = read_colour_map(tmp_path / "map.nrrd", (0, 20), "s")
    stored = volume.array[:, ::-1] if upwards else volume.array
    assert np.nanmax(np.abs(stored[..., :SIDE] - values)) <= 20 * 0.0021
    assert np.array_equal(stored, found.values, equal_nan=True)
    assert volume.unit == "s" and volume.row_step_ras[1] == pytest.approx(0.8 if upwards else -0.8)


def jet(shares: np.ndarray) -> np.ndarray:
    """The common rainbow, from its formula: (n,) -> (n, 3)."""
    return 255 * np.stack([np.clip(1.5 - np.abs(4 * shares - centre), 0, 1) for centre in (3, 2, 1)], -1)


def test_a_vendors_map_is_read_by_its_bar(shared_data):
    path = shared_data / "perfusion" / "vendor_rgb_map.nii.gz"
    with pytest.raises(InputError, match="give the lowest and the highest value"):
        read_colour_map(path, None)
    volume, found = read_colour_map(path, (0, 20), "s")
    assert volume.array.shape == (15, 286, 256) and volume.spacing_mm == pytest.approx((0.78125, 0.78125, 10))
    assert found.bar.rows == (68, 247) and found.bar.columns == (5, 13)
    # The title and the numbers beside the bar are grey, the brain is all coloured: nothing else has a value.
    assert not np.isfinite(found.values[:, :40]).any() and not np.isfinite(found.values[:, 60:210, 13:30]).any()
    assert np.isfinite(found.values[7, 100:200, 80:170]).mean() > 0.999
    # The bar is the common rainbow: its formula gives the same numbers, without the bar.
    rgb = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[7, ::-1]
    shares = np.linspace(0, 1, 1001)
    pixels = rgb[found.status[7] == VALUE].astype(float)
    colours, place = np.unique(pixels, axis=0, return_inverse=True)
    nearest = ((colours[:, None] - jet(shares)) ** 2).sum(-1).argmin(1)[place]
    error = np.abs(20 * shares[nearest] - found.values[7][found.status[7] == VALUE])
    assert error.mean() < 0.1 and error.max() < 0.2  # half a percent of the range, and one


def test_files_that_are_no_colour_map(tmp_path, shared_data):
    with pytest.raises(InputError, match="no colour map of several slices"):
        read_colour_map(shared_data / "perfusion" / "test_concentration.nii.gz", (0, 1))
    (tmp_path / "a.nrrd").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged or no image"):
        read_colour_map(tmp_path / "a.nrrd", (0, 1))
    with pytest.raises(InputError, match="is no image file"):
        read_colour_map(Path("absent.png"), (0, 1))
