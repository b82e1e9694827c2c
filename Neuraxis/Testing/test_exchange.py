"""Exchange files between Slicer and its worker keep voxels, geometry and facts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib import exchange
from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume

sys.path.append(str(Path(__file__).resolve().parent / "worker_support"))
from worker_fixtures import sheared_volume


@pytest.fixture
def volume() -> Volume:
    return sheared_volume()


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64", "bool", ">i2"])
def test_exchange_keeps_voxels_and_geometry(tmp_path, volume, dtype):
    sent = Volume(volume.array.astype(dtype), volume.ijk_to_ras, "HU", meta={"kernel": "H30s", "warnings": ["ä"]})
    got = exchange.read_exchange(exchange.write_exchange(sent, tmp_path / "a.exchange.nrrd"))
    assert np.array_equal(got.array, sent.array)
    assert np.array_equal(got.ijk_to_ras, sent.ijk_to_ras)
    assert (got.unit, got.meta) == (sent.unit, sent.meta)


def test_exchange_keeps_unequal_slices_and_frame_times(tmp_path):
    origins = np.array([[0, 0, 0], [0, 0, 5], [0, 1, 15.0]])
    sent = Volume(
        np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5),
        np.diag([1, 1, 7.5, 1]),
        slice_origins_ras=origins,
        frame_times_s=np.array([0, 1.5]),
    )
    got = exchange.read_exchange(exchange.write_exchange(sent, tmp_path / "a.exchange.nrrd"))
    assert np.array_equal(got.array, sent.array)
    assert np.array_equal(got.slice_origins_ras, origins)
    assert np.array_equal(got.frame_times_s, [0, 1.5])


def test_exchange_keeps_the_time_of_every_slice_of_every_frame(tmp_path):
    times = np.arange(6.0)[:, None] * 1.5 + np.array([0, 0.25, 0.5])
    array = np.arange(6 * 3 * 4 * 5, dtype=np.int16).reshape(6, 3, 4, 5)
    sent = Volume(array, np.diag([-1, -1, 5, 1]), "HU", frame_times_s=times)
    got = exchange.read_exchange(exchange.write_exchange(sent, tmp_path / "a.exchange.nrrd"))
    assert np.array_equal(got.array, array) and np.array_equal(got.frame_times_s, times)


def test_frames_are_nrrd_to_other_programs(tmp_path):
    import SimpleITK as sitk

    array = np.arange(6 * 3 * 4 * 5, dtype=np.int16).reshape(6, 3, 4, 5)
    sent = Volume(array, np.diag([-1, -2, 5, 1]), "HU", frame_times_s=np.arange(6))
    image = sitk.ReadImage(str(exchange.write_exchange(sent, tmp_path / "a.exchange.nrrd")))
    # frames come as a list axis, which SimpleITK reads as the components of a voxel or as a fourth dimension
    frames = sitk.GetArrayFromImage(image)
    frames = np.moveaxis(frames, -1, 0) if image.GetNumberOfComponentsPerPixel() == 6 else frames
    assert np.array_equal(frames, array)
    assert image.GetSpacing()[:3] == (1, 2, 5)


def test_exchange_is_nrrd_to_other_programs(tmp_path, volume):
    import SimpleITK as sitk

    image = sitk.ReadImage(str(exchange.write_exchange(volume, tmp_path / "a.exchange.nrrd")))
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)
    index = (3, 2, 1)
    ras = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
    assert np.allclose(ras, (volume.ijk_to_ras @ [*index, 1])[:3])


def test_writing_to_a_read_exchange_volume_leaves_the_file(tmp_path, volume):
    path = exchange.write_exchange(volume, tmp_path / "a.exchange.nrrd")
    exchange.read_exchange(path).array[:] = 7
    assert np.array_equal(exchange.read_exchange(path).array, volume.array)


def test_a_foreign_file_is_not_an_exchange_file(tmp_path):
    (tmp_path / "a.exchange.nrrd").write_bytes(b"NRRD0005\ntype: short\n\n")
    with pytest.raises(InputError, match="not an exchange file"):
        exchange.read_exchange(tmp_path / "a.exchange.nrrd")
