"""What the network is shown lies where the geometry says, from every stored orientation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from NeuraxisLib.errors import GeometryError, ModelError
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.preprocessing import PUBLISHED, SagittalPreprocessing
from SpineDiscLabelLib.sagittal import sagittal_images
from SpineDiscLabelLib.targets import heat_maps

SMALL = SagittalPreprocessing(tile=64, overlap=16, pixel_mm=1.5)
#: Pixels finer than the source, so that nothing is averaged and a linear field comes out as it went in.
FINE = SagittalPreprocessing(tile=64, overlap=16, pixel_mm=0.8)
#: A field that linear interpolation reproduces: grey value of a place in RAS mm.
SLOPES, LEVEL = np.array([0.7, -1.3, 2.1]), 500.0


def field(points_ras_mm: np.ndarray) -> np.ndarray:
    return points_ras_mm @ SLOPES + LEVEL


def painted(matrix: np.ndarray, shape_ijk: tuple[int, int, int]) -> Volume:
    """A volume whose voxels hold the field at their places."""
    ijk = np.stack(np.meshgrid(*map(np.arange, shape_ijk), indexing="ij"), axis=-1)
    values = field(ijk @ matrix[:3, :3].T + matrix[:3, 3])
    return Volume(np.ascontiguousarray(values.T), matrix)


def sagittal_matrix(spacing_mm: tuple[float, float, float] = (1.1, 0.9, 3.0)) -> np.ndarray:
    """Columns run posterior, rows inferior, slices to the right: an ordinary sagittal series."""
    matrix = np.eye(4)
    matrix[:3, 0] = (0, -spacing_mm[0], 0)
    matrix[:3, 1] = (0, 0, -spacing_mm[1])
    matrix[:3, 2] = (spacing_mm[2], 0, 0)
    matrix[:3, 3] = (-12, 40, 55)
    return matrix


def assert_planes_show_the_field(volume: Volume, preprocessing: SagittalPreprocessing = FINE) -> None:
    images = sagittal_images(volume, preprocessing)
    count, rows, columns = images.planes.shape
    assert rows > 20 and columns > 20
    pixel_mm = preprocessing.pixel_mm
    row, column = np.meshgrid(np.arange(2, rows - 2), np.arange(2, columns - 2), indexing="ij")
    for k in range(count):
        points = np.stack([np.full(row.shape, images.slices_mm[k]), row * pixel_mm, column * pixel_mm], axis=-1)
        inside = images.inside[k, 2:-2, 2:-2] & images.inside[k, 4:, 4:] & images.inside[k, :-4, :-4]
        assert inside.any()
        found = images.planes[k, 2:-2, 2:-2]
        assert np.allclose(found[inside], field(images.to_ras(points))[inside], atol=0.01)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_every_stored_orientation_shows_the_same_spine(axes: tuple[int, ...], flips: tuple[int, ...]):
    matrix, shape = sagittal_matrix((1.2, 1.2, 2.0)), np.array([40, 44, 8])
    steps, origin = matrix[:3, :3].copy(), matrix[:3, 3].copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            origin += steps[:, axis] * (shape[axis] - 1)
            steps[:, axis] *= -1
    stored = np.eye(4)
    stored[:3, :3], stored[:3, 3] = steps[:, axes], origin
    volume = painted(stored, tuple(int(n) for n in shape[list(axes)]))
    images = sagittal_images(volume, FINE)
    assert np.allclose(images.axes_ras, [[1, 0, 0], [0, 0, -1], [0, -1, 0]])
    assert_planes_show_the_field(volume)
    assert np.allclose(images.planes, sagittal_images(painted(matrix, tuple(shape)), FINE).planes, atol=0.01)


def test_oblique_series_keeps_its_planes():
    angle = np.deg2rad(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = sagittal_matrix()
    matrix[:3, :3] = turn @ matrix[:3, :3]
    assert_planes_show_the_field(painted(matrix, (50, 60, 7)))


def test_coarser_pixels_average_about_their_place():
    images = sagittal_images(painted(sagittal_matrix((0.7, 0.6, 4.0)), (90, 110, 3)), SMALL)
    points = np.array([[4.0, 20 * 1.5, 15 * 1.5]])
    assert images.planes[1, 20, 15] == pytest.approx(field(images.to_ras(points))[0], abs=0.5)  # 0.25 mm


def test_shifted_slices_come_out_straight():
    matrix = sagittal_matrix()
    matrix[:3, 2] += (0, 2.5, -1.5)  # each slice 2.5 mm farther forward and 1.5 mm lower than the one before
    volume = painted(matrix, (50, 60, 7))
    assert volume.is_sheared
    assert_planes_show_the_field(volume)


def test_unequal_slice_gaps_are_made_equal():
    matrix = sagittal_matrix()
    uneven = painted(matrix, (50, 60, 9))
    keep = [0, 1, 2, 4, 6, 8]
    origins = matrix[:3, 3] + np.array(keep)[:, None] * matrix[:3, 2]
    volume = Volume(uneven.array[keep], matrix, unit="a.u.", slice_origins_ras=origins)
    assert_planes_show_the_field(volume)


def test_rows_and_columns_askew_are_refused():
    matrix = sagittal_matrix()
    matrix[:3, 0] += (0, 0, 0.3)
    with pytest.raises(GeometryError, match="right angles"):
        sagittal_images(painted(matrix, (50, 60, 7)), SMALL)


def test_slabs_lie_every_four_mm_in_thin_slices_and_on_thick_ones():
    thin = sagittal_images(painted(sagittal_matrix((1, 1, 0.9)), (40, 40, 25)), SMALL)
    assert np.allclose(np.diff(thin.positions_mm), 4.0)
    assert np.isclose(thin.positions_mm.mean(), 24 * 0.9 / 2)
    thick = sagittal_images(painted(sagittal_matrix((1, 1, 4.4)), (40, 40, 11)), SMALL)
    assert np.allclose(thick.positions_mm, 4.4 * np.arange(11))


def test_slab_weights_average_about_their_place_and_repeat_the_edge():
    images = sagittal_images(painted(sagittal_matrix((1, 1, 0.9)), (40, 40, 25)), SMALL)
    weights = images._slab_weights(np.array([8.0, 11.3, -30.0, 100.0]))
    assert np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights[:2] @ images.slices_mm, [8.0, 11.3], atol=0.02)
    assert np.count_nonzero(weights[0]) == 9  # a triangle that reaches 4 mm to either side of 0.9 mm slices
    assert weights[2].argmax() == 0 and weights[3].argmax() == 24
    thick = sagittal_images(painted(sagittal_matrix((1, 1, 4.4)), (40, 40, 11)), SMALL)
    assert np.allclose(thick._slab_weights(thick.positions_mm), np.eye(11), atol=1e-6)


def test_stack_shows_left_middle_and_right_with_padding():
    matrix = sagittal_matrix((1.5, 1.5, 4.0))
    volume = painted(matrix, (30, 40, 5))
    images = sagittal_images(volume, SMALL)
    assert images.tiles() == [(-12, -17)]
    stack = images.stack([8.0], (-12, -17))
    assert stack.shape == (1, 3, 64, 64)
    shown = stack[0, :, 12:52, 17:47]
    outside = stack.copy()
    outside[0, :, 12:52, 17:47] = 0
    assert not outside.any()
    assert np.allclose(images.planes.shape, (5, 40, 30))
    wanted = volume.array[1:4]  # rows and columns as stored, slices 4 mm apart about the third
    low, high = np.percentile(wanted, [1, 99])
    assert np.allclose(shown, np.clip((wanted - low) / (high - low), 0, 1.25), atol=1e-3)


def test_published_frame_has_the_head_to_the_right_and_the_face_down():
    array = np.zeros((5, 40, 30))
    array[2, :8, :8] = 1.0  # superior and anterior
    images = sagittal_images(Volume(array, sagittal_matrix((1.25, 1.25, 4.0))), PUBLISHED)
    rows, columns = np.nonzero(images.stack([8.0], images.tiles()[0])[0, 1] > 0.5)
    assert rows.min() > 128  # anterior is below
    assert columns.min() > 128  # superior is to the right


@pytest.mark.parametrize("preprocessing", [SagittalPreprocessing(), PUBLISHED])
def test_heat_maps_have_their_disc_in_its_channel_and_place(preprocessing: SagittalPreprocessing):
    discs = np.array([[8.0, 100.0, 90.0], [4.0, 130.0, 95.0], [8.0, 160.0, 95.0]])
    maps = heat_maps(preprocessing, discs, [5, 6, None], [8.0, 14.0], (-10, -20))
    assert maps.shape == (2, preprocessing.classes, 256, 256)
    upright = preprocessing.from_network(maps)
    channel = 5 - preprocessing.first_disc
    row, column = np.unravel_index(upright[0, channel].argmax(), (256, 256))
    assert (row, column) == (round(100 / 1.25) + 10, round(90 / 1.25) + 20)
    assert upright[0, channel].max() == pytest.approx(1.0)
    assert upright[0, channel + 1].max() == pytest.approx(np.exp(-0.5 * (4 / preprocessing.sigma_x_mm) ** 2), abs=0.02)
    assert upright[1, channel].max() == pytest.approx(np.exp(-0.5 * (6 / preprocessing.sigma_x_mm) ** 2))
    sigma_px = preprocessing.sigma_mm / preprocessing.pixel_mm
    assert upright[0, channel, row + 3, column] == pytest.approx(np.exp(-0.5 * (3 / sigma_px) ** 2))
    named = [channel, channel + 1]
    empty = [c for c in range(preprocessing.levels) if c not in named]
    assert not upright[:, empty].any()
    if preprocessing.any_disc:
        assert upright[0, -1, round(160 / 1.25) + 10, round(95 / 1.25) + 20] == pytest.approx(1.0)


def test_description_survives_the_model_file_and_refuses_nonsense():
    for preprocessing in (SagittalPreprocessing(), PUBLISHED, SMALL):
        assert SagittalPreprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    good = SagittalPreprocessing().to_dict()
    faults = {"tile": 100, "levels": 25, "pixel_mm": 0, "frame": "side", "offsets_mm": [], "overlap": 200}
    for fault in faults.items():
        with pytest.raises(ModelError, match="impossible"):
            SagittalPreprocessing.from_dict({**good, **dict([fault])})
    with pytest.raises(ModelError, match="cannot be read"):
        SagittalPreprocessing.from_dict({"kind": "sagittal"})
    with pytest.raises(ModelError, match="not made for spines"):
        SagittalPreprocessing.from_dict({**good, "kind": "slices"})


def test_grey_values_outside_the_field_of_view_count_for_nothing():
    images = np.random.default_rng(0).uniform(100, 200, (1, 3, 64, 64))
    inside = np.zeros((1, 64, 64), bool)
    inside[:, 10:50, 10:50] = True
    images[:, :, ~inside[0]] = 1e6
    shown = SMALL.normalise(images, inside)
    assert shown[:, :, ~inside[0]].max() == 0
    assert 0.95 < shown[:, :, inside[0]].max() < 1.1
    assert not SMALL.normalise(np.full((1, 3, 64, 64), 7.0)).any()
