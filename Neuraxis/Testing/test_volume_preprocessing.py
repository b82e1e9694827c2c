"""Volume preprocessing: the grid of the published networks, and the way there and back from every kind of series."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from NeuraxisLib.errors import GeometryError, ModelError
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_preprocessing import VolumePreprocessing, volume_grid

PUBLISHED = {
    "kind": "volume",
    "spacing_mm": [0.4882810115814209, 0.4882810115814209, 4.649400138854981],
    "clip_hu": [11.99969482421875, 79.0],
    "mean_hu": 48.13441467285156,
    "std_hu": 13.457549095153809,
    "patch": [256, 256, 16],
    "overlap": 0.25,
    "padding_hu": None,
}


def preprocessing(**changes) -> VolumePreprocessing:
    return VolumePreprocessing.from_dict({**PUBLISHED, "spacing_mm": [2.0, 2.0, 4.0], "patch": [16, 16, 8], **changes})


def axial_matrix(spacing=(1.7, 2.3, 5.0), origin=(40.0, 30.0, -20.0), shift_per_slice_mm=0.0, turn_deg=0.0):
    """Columns toward left, rows toward posterior; sheared along rows, turned about the left-right axis."""
    matrix = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    matrix[1, 2] = -shift_per_slice_mm
    angle = np.radians(turn_deg)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = turn @ matrix
    matrix[:3, 3] = origin
    return matrix


def smooth(r, a, s):
    return 40 + 20 * np.sin(r / 15) * np.cos(a / 17) + 0.5 * s


def filled(volume: Volume, function=smooth) -> Volume:
    """The volume filled with ``function(r, a, s)`` of its voxel positions."""
    k, j, i = np.indices(volume.array.shape)
    places = volume.origins_ras[k] + i[..., None] * volume.column_step_ras + j[..., None] * volume.row_step_ras
    return replace(volume, array=function(*np.moveaxis(places, -1, 0)).astype(np.float32))


def series(shape=(9, 40, 50), **matrix) -> Volume:
    return filled(Volume(np.zeros(shape, np.float32), axial_matrix(**matrix), "HU"))


# -- the published grid ---------------------------------------------------------------------------------------


def monai_grid(volume: Volume, spacing, mode: str):
    """Orientation and Spacing as the HemSeg scripts call them: (x, y, z) values and their matrix."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Orientation, Spacing

    image = MetaTensor(torch.from_numpy(volume.array.T.astype(np.float32))[None], affine=volume.ijk_to_ras)
    out = Spacing(spacing, mode=mode)(Orientation("RAS")(image))
    return out[0].numpy(), out.affine.numpy()


@pytest.mark.parametrize("turn_deg", [0.0, 12.0])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((9, 40, 50), (1.7, 2.3, 5.0)), ((23, 33, 31), (0.9, 1.1, 1.3)), ((2, 20, 20), (3, 3, 7))]
)
def test_the_grid_is_that_of_monai(shape, spacing, turn_deg) -> None:
    pytest.importorskip("monai")
    volume = series(shape, spacing=spacing, turn_deg=turn_deg)
    wanted = preprocessing()
    grid = volume_grid(volume, wanted)
    values, matrix = monai_grid(volume, wanted.spacing_mm, "bilinear")
    assert grid.shape == values.shape
    np.testing.assert_allclose(grid.ijk_to_ras, matrix, atol=1e-4)
    np.testing.assert_allclose(grid.forward(volume.array), values, atol=2e-3)


def test_labels_are_those_of_monai() -> None:
    pytest.importorskip("monai")
    volume = series((9, 41, 50))
    labels = replace(volume, array=np.random.default_rng(3).integers(0, 4, volume.array.shape).astype(np.uint8))
    wanted = preprocessing(spacing_mm=[1.31, 1.47, 3.3])
    expected, _ = monai_grid(labels, wanted.spacing_mm, "nearest")
    found = volume_grid(labels, wanted).forward_labels(labels.array)
    assert found.dtype == np.uint8
    assert (found != expected).mean() < 1e-3  # halfway between two samples either may be taken


def test_axes_run_right_anterior_superior() -> None:
    volume = filled(series(), lambda r, a, s: r + 100 * a + 10000 * s)
    values = volume_grid(volume, preprocessing()).forward(volume.array)
    steps = [float(np.mean(np.diff(values, axis=axis)[1:-1, 1:-1, 1:-1])) for axis in range(3)]
    np.testing.assert_allclose(steps, [2, 200, 40000], rtol=1e-3)


# -- there and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["upright", "tilted", "oblique", "thin"])
def test_there_and_back_keeps_a_smooth_image(kind) -> None:
    volume = {
        "upright": lambda: series(),
        "tilted": lambda: series(shift_per_slice_mm=1.8),
        "oblique": lambda: series(turn_deg=15.0),
        "thin": lambda: series((40, 40, 50), spacing=(1.0, 1.0, 1.0)),
    }[kind]()
    grid = volume_grid(volume, preprocessing())
    back = grid.backward(grid.forward(volume.array))
    assert back.shape == volume.array.shape
    inside = np.s_[1:-1, 8:-2, 2:-2]
    assert np.abs(back - volume.array)[inside].max() < 0.8  # of a swing of 40


def test_tilted_slices_come_to_lie_above_each_other() -> None:
    bar = filled(series(shift_per_slice_mm=2.1), lambda r, a, s: 100.0 * (np.hypot(r, a + 10) < 8))
    values = volume_grid(bar, preprocessing()).forward(bar.array)
    rows = np.arange(values.shape[1])
    centres = [(plane.sum(axis=0) @ rows) / plane.sum() for plane in values.transpose(2, 0, 1)]
    stored = [(plane.sum(axis=1) @ np.arange(40)) / plane.sum() for plane in bar.array]
    assert np.ptp(stored) > 6
    assert np.ptp(centres) < 0.4


def test_unequal_gaps_keep_their_places() -> None:
    positions = np.array([0.0, 2, 4, 6, 11, 16, 21, 26])
    origins = np.tile([40.0, 30.0, 0.0], (8, 1))
    origins[:, 2] = positions
    matrix = axial_matrix(spacing=(1.7, 2.3, positions[-1] / 7), origin=(40.0, 30.0, 0.0))
    volume = filled(
        Volume(np.zeros((8, 40, 50), np.float32), matrix, "HU", slice_origins_ras=origins), lambda r, a, s: s
    )
    grid = volume_grid(volume, preprocessing())
    values = grid.forward(volume.array)
    heights = grid.ijk_to_ras[2, 3] + 4.0 * np.arange(grid.shape[2])
    np.testing.assert_allclose(values[10, 10], np.minimum(heights, 26), atol=1e-3)
    back = grid.backward(values)[:, 20, 20]
    np.testing.assert_allclose(back[:-1], positions[:-1], atol=1e-3)
    assert back[-1] == pytest.approx(25)  # halfway between the planes at 24 and 28 mm; the last repeats the scan's end


def test_what_lies_beyond_is_the_nearest_voxel_there_and_the_edge_of_the_grid_back() -> None:
    volume = replace(series((3, 20, 20)), array=np.full((3, 20, 20), 7.0, np.float32))
    grid = volume_grid(volume, preprocessing(spacing_mm=[3.1, 3.1, 6.3]))
    np.testing.assert_allclose(grid.forward(volume.array), 7)
    np.testing.assert_allclose(grid.backward(np.full(grid.shape, 2.0, np.float32)), 2, rtol=1e-6)


def test_one_slice_is_one_plane() -> None:
    volume = series((1, 20, 20))
    grid = volume_grid(volume, preprocessing())
    assert grid.shape[2] == 1
    assert grid.backward(grid.forward(volume.array)).shape == (1, 20, 20)
    assert grid.forward_labels(volume.array > 40).dtype == bool


def test_skewed_rows_are_refused() -> None:
    matrix = axial_matrix()
    matrix[0, 1] = 0.5
    with pytest.raises(GeometryError, match="right angles"):
        volume_grid(Volume(np.zeros((3, 20, 20), np.float32), matrix, "HU"), preprocessing())


# -- intensities and padding ----------------------------------------------------------------------------------


def test_intensities_are_those_of_the_published_networks() -> None:
    made = VolumePreprocessing.from_dict(PUBLISHED)
    seen = made.normalised(np.array([-1000, 12, 48.13441467285156, 79, 3000]))
    np.testing.assert_allclose(seen, [-2.6852, -2.6852, 0, 2.2936, 2.2936], atol=1e-3)  # specification 3.4
    assert seen.dtype == np.float32


@pytest.mark.parametrize(("padding_hu", "expected"), [(None, 0.0), (48.13441467285156 - 13.457549095153809, -1.0)])
def test_small_volumes_are_padded_on_both_sides(padding_hu, expected) -> None:
    values, inside = preprocessing(padding_hu=padding_hu).padded(np.full((11, 20, 8), 2.0, np.float32))
    assert values.shape == (16, 20, 8)
    assert inside == (slice(2, 13), slice(0, 20), slice(0, 8))
    np.testing.assert_allclose(values[inside], 2)
    np.testing.assert_allclose(values[[0, 1, 13, 15]], expected, atol=1e-6)


# -- the description ------------------------------------------------------------------------------------------


def test_the_description_survives_json() -> None:
    made = VolumePreprocessing.from_dict(json.loads(json.dumps(PUBLISHED)))
    assert made.to_dict() | {"patch": list(made.patch)} == PUBLISHED | {
        "spacing_mm": tuple(PUBLISHED["spacing_mm"]),
        "clip_hu": tuple(PUBLISHED["clip_hu"]),
    }
    assert VolumePreprocessing.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "slices"}, "kind"),
        ({"spacing_mm": [0, 1, 1]}, "spacing_mm"),
        ({"spacing_mm": [1, 1]}, "not 3 numbers"),
        ({"spacing_mm": [1, 1, float("nan")]}, "nan"),
        ({"clip_hu": [80, 10]}, "clip_hu"),
        ({"std_hu": 0}, "std_hu"),
        ({"mean_hu": "48"}, "'48' is not a number"),
        ({"patch": [256, 256, 1.5]}, "1.5 is not a whole number"),
        ({"patch": [256, 256, 0]}, "patch"),
        ({"patch": [1024, 1024, 1024]}, "patch"),
        ({"overlap": 1.0}, "overlap"),
        ({"overlap": True}, "True is not a number"),
        ({"padding_hu": "air"}, "'air' is not a number"),
        ({"blending": "gaussian"}, "unknown entry 'blending'"),
    ],
)
def test_impossible_descriptions_are_refused(change: dict, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        VolumePreprocessing.from_dict({**PUBLISHED, **change})


def test_a_missing_entry_is_named() -> None:
    with pytest.raises(ModelError, match="no entry 'std_hu'"):
        VolumePreprocessing.from_dict({key: value for key, value in PUBLISHED.items() if key != "std_hu"})
