"""Slice preprocessing: there and back between a stored grid and a network's square images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from NeuraxisLib.errors import GeometryError, InputError, ModelError
from NeuraxisLib.preprocessing import AIR_HU, Channel, SlicePreprocessing, slice_grid
from NeuraxisLib.volume import Volume


def preprocessing(size: int = 64, margin: float = 0.05, slab_mm: float = 5.0) -> SlicePreprocessing:
    return SlicePreprocessing(size, margin, slab_mm, (Channel(0, 0, 80),))


def axial_matrix(spacing=(1.0, 1.0, 5.0), origin=(40.0, 30.0, -20.0), shift_per_slice_mm: float = 0.0) -> np.ndarray:
    """IJK-to-RAS of an axial CT: columns toward left, rows toward posterior; slices may be sheared along rows."""
    matrix = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    matrix[1, 2] = -shift_per_slice_mm
    matrix[:3, 3] = origin
    return matrix


def coordinates(volume: Volume) -> np.ndarray:
    """(k, j, i, 3) RAS mm of every voxel."""
    k, j, i = np.indices(volume.array.shape)
    in_plane = i[..., None] * volume.column_step_ras + j[..., None] * volume.row_step_ras
    return volume.origins_ras[k] + in_plane


def with_values(volume: Volume, function) -> Volume:
    """The volume filled with ``function(r, a, s)`` of its voxel positions."""
    return replace(volume, array=function(*np.moveaxis(coordinates(volume), -1, 0)).astype(np.float32))


def empty(shape=(8, 60, 70), **matrix) -> Volume:
    return Volume(np.zeros(shape, np.float32), axial_matrix(**matrix), "HU")


def smooth(r, a, s):
    return 40 + 20 * np.sin(r / 9) * np.cos(a / 11) + 0.5 * s


def body(volume: Volume) -> np.ndarray:
    """A box in patient space as mask: the same tissue on every grid."""
    r, a, _ = np.moveaxis(coordinates(volume), -1, 0)
    return (np.abs(r - 5) < 22) & (np.abs(a) < 22)


# -- in-plane -------------------------------------------------------------------------------------------------


def test_a_linear_image_is_read_exactly_where_the_grid_lies() -> None:
    volume = with_values(empty(), lambda r, a, s: 100 + 2 * r - 3 * a)
    mask = body(volume)
    grid = slice_grid(volume, mask, preprocessing(size=96))
    columns = np.flatnonzero(mask.any(axis=(0, 1)))
    rows = np.flatnonzero(mask.any(axis=(0, 2)))
    side = max(np.ptp(columns) + 1, np.ptp(rows) + 1) * 1.1
    assert grid.pixel_mm == pytest.approx(side / 96)
    # column index counts leftward from r = 40, row index posteriorly from a = 30
    places = (np.arange(96) - 47.5) * grid.pixel_mm
    r = 40 - (columns.mean() + places)
    a = 30 - (rows.mean() + places)
    inside = (r > -29) & (r < 40)
    expected = 100 + 2 * r[None, :] - 3 * a[:, None]
    np.testing.assert_allclose(grid.forward(volume.array)[3][:, inside], expected[:, inside], atol=0.02)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 5.0), (0.45, 0.45, 5.0), (0.5, 0.9, 4.0), (1.7, 1.7, 6.0)])
def test_there_and_back_keeps_a_smooth_image(spacing) -> None:
    shape = (6, int(60 / spacing[1]), int(70 / spacing[0]))
    volume = with_values(empty(shape, spacing=spacing), smooth)
    mask = body(volume)
    grid = slice_grid(volume, mask, preprocessing(size=96))
    back = grid.backward(grid.forward(volume.array))
    assert np.abs(back - volume.array)[mask].max() < 0.6  # of a swing of 40


def test_a_mask_keeps_its_area_through_the_grid() -> None:
    volume = empty((3, 140, 160), spacing=(0.45, 0.45, 5.0), origin=(36.0, 31.0, 0.0))
    r, a, _ = np.moveaxis(coordinates(volume), -1, 0)
    disc = np.hypot(r - 5, a - 2) < 9
    grid = slice_grid(volume, body(volume), preprocessing(size=64))
    back = grid.backward(grid.forward(disc.astype(np.float32), outside=0.0)) >= 0.5
    assert back[1].sum() == pytest.approx(disc[1].sum(), rel=0.01)
    assert grid.backward(grid.forward(disc.astype(np.float32), outside=0.0)).sum() == pytest.approx(
        disc.sum(), rel=5e-3
    )


def test_fine_detail_is_averaged_away_not_aliased() -> None:
    volume = empty((2, 400, 400), spacing=(0.2, 0.2, 5.0), origin=(40.0, 40.0, 0.0))
    stripes = np.where(np.arange(400) % 2, 80.0, 0.0)[None, None, :] + np.zeros((2, 400, 1))
    grid = slice_grid(volume, np.ones(volume.array.shape, bool), preprocessing(size=64, margin=0.0))
    image = grid.forward(stripes)[0]
    assert grid.pixel_mm == pytest.approx(80 / 64)
    assert np.abs(image[2:-2, 2:-2] - 40).max() < 2.5
    assert image[2:-2, 2:-2].mean() == pytest.approx(40, abs=0.05)


def test_beyond_the_field_of_view_is_air_and_its_border_is_shared() -> None:
    volume = replace(empty((2, 60, 60)), array=np.full((2, 60, 60), 40.0, np.float32))
    grid = slice_grid(volume, np.ones(volume.array.shape, bool), preprocessing(size=64, margin=0.25))
    image = grid.forward(volume.array)[0]
    assert image[0, 0] == pytest.approx(AIR_HU)
    assert image[32, 32] == pytest.approx(40)
    profile = image[32]
    assert ((profile > AIR_HU + 1) & (profile < 39)).sum() == 2  # one mixed pixel at either side
    assert grid.forward(volume.array, outside=7.0)[0][0, 0] == pytest.approx(7.0)


def test_backward_is_zero_outside_the_grid() -> None:
    volume = empty((2, 60, 60))
    mask = np.zeros(volume.array.shape, bool)
    mask[:, 20:30, 20:30] = True
    grid = slice_grid(volume, mask, preprocessing(size=32, margin=0.0))
    back = grid.backward(np.ones((2, 32, 32), np.float32))
    assert back[:, :18].max() == 0
    np.testing.assert_allclose(back[:, 21:29, 21:29], 1, atol=1e-5)


def test_a_mask_of_one_voxel_makes_a_grid() -> None:
    volume = with_values(empty(), smooth)
    mask = np.zeros(volume.array.shape, bool)
    mask[3, 20, 20] = True
    grid = slice_grid(volume, mask, preprocessing(size=32))
    assert grid.pixel_mm == pytest.approx(1.1 / 32)
    assert np.isfinite(grid.forward(volume.array)).all()


# -- tilt and order -------------------------------------------------------------------------------------------


def test_tilted_slices_come_to_lie_above_each_other() -> None:
    """A straight vertical bar stays in place from slice to slice, though its rows shift in the stored array."""
    tilted = with_values(empty((8, 80, 70), shift_per_slice_mm=1.7), lambda r, a, s: 100.0 * (np.hypot(r - 5, a) < 6))
    stored = tilted.array.sum(axis=2)
    assert abs(stored[7].argmax() - stored[0].argmax()) > 5
    grid = slice_grid(tilted, body(tilted), preprocessing(size=64))
    images = grid.forward(tilted.array, outside=0.0)
    rows = np.arange(64)
    centres = [(image.sum(axis=1) @ rows) / image.sum() for image in images]
    assert np.ptp(centres) < 0.15
    back = grid.backward(images)
    for k in (0, 7):
        stored_centre = (tilted.array[k].sum(axis=1) @ np.arange(80)) / tilted.array[k].sum()
        back_centre = (back[k].sum(axis=1) @ np.arange(80)) / back[k].sum()
        assert back_centre == pytest.approx(stored_centre, abs=0.1)


def test_tilted_and_upright_grids_show_the_network_the_same_picture() -> None:
    def picture(shift: float) -> np.ndarray:
        volume = with_values(empty((5, 100, 90), origin=(45.0, 45.0, -10.0), shift_per_slice_mm=shift), smooth)
        return slice_grid(volume, body(volume), preprocessing(size=64)).forward(volume.array)[2]

    # boxes end at voxel edges, which differ by up to a pixel
    assert np.abs(picture(0.0) - picture(1.0))[8:-8, 8:-8].max() < 3.0


@pytest.mark.parametrize(
    "flips", [(False, True, False), (False, False, True), (True, False, False), (True, True, True)]
)
def test_stored_order_does_not_matter_after_axial(flips) -> None:
    upright = with_values(empty(), smooth)
    matrix, array, origin = upright.ijk_to_ras.copy(), upright.array, upright.ijk_to_ras[:3, 3].copy()
    for axis, flip in zip((2, 1, 0), flips):
        if flip:
            origin += matrix[:3, axis] * (array.shape[2 - axis] - 1)
            matrix[:3, axis] *= -1
            array = np.flip(array, 2 - axis)
    matrix[:3, 3] = origin
    stored = Volume(array, matrix, "HU")
    axial, order = stored.axial()
    images = slice_grid(axial, body(axial), preprocessing()).forward(axial.array)
    expected = slice_grid(upright, body(upright), preprocessing()).forward(upright.array)
    np.testing.assert_allclose(images, expected, atol=1e-3)
    np.testing.assert_array_equal(order.undo_array(axial.array), stored.array)


def test_skewed_rows_are_refused() -> None:
    matrix = axial_matrix()
    matrix[0, 1] = 0.2
    volume = Volume(np.zeros((3, 20, 20), np.float32), matrix, "HU")
    with pytest.raises(GeometryError, match="right angles"):
        slice_grid(volume, np.ones(volume.array.shape, bool), preprocessing())


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(InputError, match="No brain is in view"):
        slice_grid(empty(), np.zeros((8, 60, 70), bool), preprocessing())


# -- slabs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [3.5, 5.0, 7.0])
def test_thick_slices_are_used_as_they_are(gap: float) -> None:
    volume = empty(spacing=(1.0, 1.0, gap))
    grid = slice_grid(volume, body(volume), preprocessing())
    np.testing.assert_array_equal(grid.slabs, np.eye(8))
    np.testing.assert_array_equal(grid.back_slabs, np.eye(8))


def test_thin_slices_are_averaged_to_slabs_of_five_mm() -> None:
    volume = with_values(empty((40, 60, 60), spacing=(1.0, 1.0, 1.0)), lambda r, a, s: s)
    grid = slice_grid(volume, body(volume), preprocessing())
    images = grid.forward(volume.array)
    assert len(images) == 8
    np.testing.assert_allclose(grid.slabs.sum(axis=1), 1, atol=1e-6)
    # slices at s = -20 ... 19 in groups of five: their means
    np.testing.assert_allclose(images[:, 32, 32], -18 + 5.0 * np.arange(8), atol=1e-3)


def test_slabs_weigh_slices_by_the_part_that_lies_in_them() -> None:
    volume = empty((10, 60, 60), spacing=(1.0, 1.0, 2.0))
    grid = slice_grid(volume, body(volume), preprocessing())
    assert grid.slabs.shape == (4, 10)
    np.testing.assert_allclose(grid.slabs[0], [0.4, 0.4, 0.2, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(grid.slabs[1], [0, 0, 0.2, 0.4, 0.4, 0, 0, 0, 0, 0], atol=1e-6)


def test_the_way_back_from_slabs_is_linear_between_their_centres() -> None:
    volume = empty((40, 60, 60), spacing=(1.0, 1.0, 1.0))
    grid = slice_grid(volume, body(volume), preprocessing())
    np.testing.assert_allclose(grid.back_slabs.sum(axis=1), 1, atol=1e-6)
    values = np.repeat(np.arange(8.0, dtype=np.float32), 64 * 64).reshape(8, 64, 64)
    back = grid.backward(values)[:, 30, 30]
    expected = np.clip((np.arange(40) - 2) / 5, 0, 7)  # slab n is centred on slice 5 n + 2
    np.testing.assert_allclose(back, expected, atol=1e-4)


def test_unequal_gaps_weigh_slices_by_their_own_thickness() -> None:
    """Slices 1 mm apart below and 3 mm apart above: every slab is the average over its five mm of tissue."""
    positions = np.concatenate([np.arange(15.0), 14 + 3 * np.arange(1.0, 6.0)])
    matrix = axial_matrix(spacing=(1.0, 1.0, positions[-1] / 19))
    origins = np.tile([40.0, 30.0, 0.0], (20, 1))
    origins[:, 2] = positions
    volume = Volume(np.zeros((20, 60, 70), np.float32), matrix, "HU", slice_origins_ras=origins)
    volume = with_values(volume, lambda r, a, s: s)
    grid = slice_grid(volume, body(volume), preprocessing())
    images = grid.forward(volume.array)[:, 32, 32]
    assert len(images) == 6
    np.testing.assert_allclose(grid.slabs.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.diff(images), 5, atol=0.8)
    back = grid.backward(np.repeat(images, 64 * 64).reshape(-1, 64, 64))[:, 30, 30]
    np.testing.assert_allclose(back[2:-2], positions[2:-2], atol=1.0)


def test_one_slice_is_its_own_slab() -> None:
    volume = empty((1, 60, 70), spacing=(1.0, 1.0, 1.0))
    assert slice_grid(volume, body(volume), preprocessing()).slabs.shape == (1, 1)


def test_many_thin_slices_share_their_weights() -> None:
    volume = empty((300, 64, 64), spacing=(1.0, 1.0, 0.5))
    grid = slice_grid(volume, np.ones(volume.array.shape, bool), preprocessing())
    assert grid.rows.strides[0] == grid.back_columns.strides[0] == 0


# -- channels and description ---------------------------------------------------------------------------------


def test_channels_are_windowed_neighbours() -> None:
    made = SlicePreprocessing(32, 0.0, 5.0, (Channel(-1, 0, 80), Channel(0, 0, 80), Channel(1, -50, 150)))
    slabs = np.array([-500.0, 0, 40, 80, 500])[:, None, None] * np.ones((1, 32, 32))
    images = made.images(slabs, np.array([0, 2, 4]))
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[:, :, 5, 5], [[-1, -1, -0.5], [-1, 0, 0.3], [1, 1, 1]], atol=1e-6)
    np.testing.assert_array_equal(made.images(slabs)[[0, 2, 4]], images)


def test_zscore_is_over_all_channels_of_an_input() -> None:
    """As SLEX-Net's loader: mean 0 and standard deviation 1 over the stack, so neighbours share one scale."""
    made = SlicePreprocessing(32, 0.0, 5.0, (Channel(-1, 0, 80), Channel(0, 0, 80), Channel(1, 0, 80)), "zscore")
    slabs = np.random.default_rng(4).normal(40, 15, (6, 32, 32))
    images = made.images(slabs)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std(axis=(1, 2, 3)), 1, atol=1e-4)
    stack = np.clip(slabs[1:4], 0, 80)
    np.testing.assert_allclose(images[2], (stack - stack.mean()) / stack.std(), atol=1e-4)
    np.testing.assert_array_equal(made.images(np.full((3, 32, 32), 55.0)), 0)  # one value has no spread


@pytest.mark.parametrize("normalisation", ["window", "zscore"])
def test_outside_the_brain_is_black_before_it_is_normalised(normalisation: str) -> None:
    made = SlicePreprocessing(32, 0.0, 5.0, (Channel(0, 0, 80), Channel(1, 0, 80)), normalisation, True)
    slabs = np.random.default_rng(4).uniform(100, 1000, (4, 32, 32))
    brain = np.zeros(slabs.shape, bool)
    brain[:, 8:24, 8:24] = True
    brain[2] = False
    slabs[brain] = 60
    images = made.images(slabs, brain=brain)
    if normalisation == "window":
        np.testing.assert_allclose(images[0, 0], np.where(brain[0], 0.5, -1))
        np.testing.assert_allclose(images[1, 1], -1)  # each channel has the brain of its own slab
    else:
        grey = np.where(brain[:2], 0.75, 0)
        np.testing.assert_allclose(images[0], (grey - grey.mean()) / grey.std(), atol=1e-4)
    with pytest.raises(ValueError, match="needs its mask"):
        made.images(slabs)


def test_the_description_survives_json() -> None:
    made = SlicePreprocessing(256, 0.05, 5.0, (Channel(0, 0, 80),), "zscore", True)
    assert SlicePreprocessing.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_description_without_the_newer_entries_is_that_of_older_files() -> None:
    assert set(preprocessing().to_dict()) == {"size", "margin", "slab_mm", "channels"}
    assert SlicePreprocessing.from_dict(preprocessing().to_dict()).normalisation == "window"


def test_the_description_of_an_older_file_survives_json() -> None:
    made = SlicePreprocessing(256, 0.05, 5.0, (Channel(-1, 0, 80), Channel(0, -20, 120)))
    assert SlicePreprocessing.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    "change",
    [
        {"size": 100},
        {"size": 0},
        {"size": -32},
        {"size": 32 * 10**6},
        {"margin": -0.1},
        {"margin": float("nan")},
        {"slab_mm": 0},
        {"slab_mm": float("inf")},
        {"channels": []},
        {"channels": [{"offset": 0, "low_hu": 80, "high_hu": 80}]},
        {"channels": [{"offset": 0, "low_hu": 80}]},
        {"channels": 3},
        {"size": None},
        {"normalisation": "percentile"},
        {"brain_only": 1},
    ],
)
def test_impossible_descriptions_are_refused(change: dict) -> None:
    with pytest.raises(ModelError, match="preprocessing"):
        SlicePreprocessing.from_dict({**preprocessing().to_dict(), **change})
