"""Volume files: exact geometry both ways, and one sentence for each that cannot be used."""

from __future__ import annotations

import errno
import gzip
import os
import struct
import sys

import numpy as np
import pytest
import SimpleITK

from NeuraxisLib.errors import CancelledError, GeometryError, InputError, OutputError
from NeuraxisLib.files import atomic_write, is_image_file, read_volume, write_volume
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

FORMATS = ("nrrd", "nii", "nii.gz", "mha")


def matrix(seed: int = 0, left_handed: bool = False, tilt_deg: float = 0.0) -> np.ndarray:
    """A turned, anisotropic, shifted IJK-to-RAS matrix, sheared if tilted."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    if (np.linalg.det(turn) < 0) != left_handed:
        turn[:, 2] *= -1
    result = np.eye(4)
    result[:3, :3] = turn * (0.45, 0.5, 5.0)
    result[:3, 2] += np.tan(np.radians(tilt_deg)) * 5.0 * turn[:, 1]
    result[:3, 3] = rng.normal(size=3) * 80
    return result


def volume(dtype="int16", **geometry) -> Volume:
    """A small volume of random values."""
    values = np.random.default_rng(1).integers(0, 200, (5, 7, 9))
    return Volume(values.astype(dtype), matrix(**geometry), unit="HU")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("left_handed", [False, True])
def test_round_trip(suffix, compress, left_handed, tmp_path):
    for seed in range(5):
        written = volume(seed=seed, left_handed=left_handed)
        write_volume(written, tmp_path / f"a.{suffix}", compress=compress)
        read = read_volume(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(read.array, written.array)
        np.testing.assert_allclose(read.ijk_to_ras, written.ijk_to_ras, atol=2e-5)
        assert read.array.dtype == np.int16 and read.meta["warnings"] == []
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{suffix}"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "bool"])
def test_pixel_types_are_kept(suffix, dtype, tmp_path):
    write_volume(volume(dtype), tmp_path / f"a.{suffix}")
    assert read_volume(tmp_path / f"a.{suffix}").array.dtype == ("uint8" if dtype == "bool" else dtype)


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_programs_read_the_same(suffix, tmp_path):
    written = volume()
    write_volume(written, tmp_path / f"a.{suffix}")
    image = SimpleITK.ReadImage(str(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), written.array)
    for ijk in ((0, 0, 0), (8, 6, 4), (3, 5, 1)):
        lps = image.TransformIndexToPhysicalPoint(ijk)
        np.testing.assert_allclose(np.multiply(lps, (-1, -1, 1)), (written.ijk_to_ras @ (*ijk, 1))[:3], atol=1e-3)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_sheared_matrices_are_exact(suffix, tmp_path):
    written = volume(tilt_deg=20)
    assert written.is_sheared
    write_volume(written, tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(read_volume(tmp_path / f"a.{suffix}").ijk_to_ras, written.ijk_to_ras, atol=1e-9)


def test_nifti_is_refused_where_it_would_lie(tmp_path):
    with pytest.raises(GeometryError, match="slices are tilted"):
        write_volume(volume(tilt_deg=20), tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_unequal_gaps_are_written_only_as_asked(tmp_path):
    even = volume()
    origins = even.origins_ras + np.array([0, 0, 0, 3, 6])[:, None] * even.normal_ras
    uneven = Volume(even.array, even.ijk_to_ras, "HU", slice_origins_ras=origins)
    with pytest.raises(GeometryError, match="unequal gaps"):
        write_volume(uneven, tmp_path / "a.nrrd")
    write_volume(uneven, tmp_path / "a.nrrd", make_regular=True)
    read = read_volume(tmp_path / "a.nrrd")
    assert read.slice_count == 6
    np.testing.assert_allclose(read.origins_ras[[0, -1]], origins[[0, -1]], atol=1e-6)


def test_the_unit_travels_in_nrrd(tmp_path):
    write_volume(volume(), tmp_path / "a.nrrd")
    assert read_volume(tmp_path / "a.nrrd").unit == "HU"


# -- NIfTI headers -----------------------------------------------------------------------------------------------


def nifti(path, change=lambda header: None, data: bytes | None = None, **geometry):
    """A NIfTI file with its 352 header bytes changed."""
    write_volume(volume(**geometry), path)
    raw = bytearray(path.read_bytes())
    change(raw)
    path.write_bytes(bytes(raw) if data is None else bytes(raw[:352]) + data)
    return path


def pack(fmt: str, offset: int, *values):
    """A change that writes values at an offset of the header."""
    return lambda header: struct.pack_into("<" + fmt, header, offset, *values)


def test_a_sheared_sform_is_read_as_it_is(tmp_path):
    sheared = matrix(tilt_deg=15)
    path = nifti(tmp_path / "a.nii", pack("12f", 280, *sheared[:3].ravel()))
    read = read_volume(path)
    np.testing.assert_allclose(read.ijk_to_ras, sheared, atol=1e-4)
    assert read.is_sheared and "sform was used" in read.meta["warnings"][0]  # the qform cannot say the same


def test_the_sform_wins_and_the_user_is_told(tmp_path):
    moved = matrix()
    moved[0, 3] += 12.0
    read = read_volume(nifti(tmp_path / "a.nii", pack("12f", 280, *moved[:3].ravel())))
    np.testing.assert_allclose(read.ijk_to_ras, moved, atol=1e-4)
    assert read.meta["warnings"] == ["The file gives two positions that differ by 12.0 mm; the sform was used."]


@pytest.mark.parametrize("left_handed", [False, True])
def test_the_qform_serves_alone(left_handed, tmp_path):
    path = nifti(tmp_path / "a.nii", pack("2h", 252, 1, 0), left_handed=left_handed)
    np.testing.assert_allclose(read_volume(path).ijk_to_ras, matrix(left_handed=left_handed), atol=1e-4)


def test_metres_and_microns_become_mm(tmp_path):
    def in_metres(header):
        pack("12f", 280, *(matrix()[:3] / 1000).ravel())(header)
        pack("2h", 252, 0, 1)(header)
        pack("b", 123, 1)(header)

    path = nifti(tmp_path / "a.nii", in_metres)
    np.testing.assert_allclose(read_volume(path).ijk_to_ras, matrix(), rtol=1e-4, atol=1e-4)


def test_whole_number_scaling_keeps_whole_numbers(tmp_path):
    read = read_volume(nifti(tmp_path / "a.nii", pack("2f", 112, 1.0, -1024.0)))
    assert read.array.dtype == np.int16
    np.testing.assert_array_equal(read.array, volume().array - 1024)
    scaled = read_volume(nifti(tmp_path / "b.nii", pack("2f", 112, 0.5, 10.0)))
    np.testing.assert_allclose(scaled.array, volume().array * 0.5 + 10, rtol=1e-6)


def test_big_endian_and_nifti_2(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values, affine = volume().array.T.copy(), matrix()
    for index, (kind, order) in enumerate([(nibabel.Nifti1Image, ">"), (nibabel.Nifti2Image, "<")]):
        header = kind.header_class(endianness=order)
        header.set_data_dtype(np.dtype("int16").newbyteorder(order))
        path = tmp_path / f"{index}.nii.gz"
        nibabel.save(kind(values, affine, header), path)
        read = read_volume(path)
        np.testing.assert_array_equal(read.array, volume().array)
        np.testing.assert_allclose(read.ijk_to_ras, affine, atol=1e-4)


def test_time_series_only_where_they_are_wanted(tmp_path):
    four = Volume(np.zeros((45, 3, 4, 5), np.int16), matrix(), frame_times_s=1.5 * np.arange(45))
    write_volume(four, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="has 45 time frames, .* choose or export one"):
        read_volume(tmp_path / "a.nii.gz")
    read = read_volume(tmp_path / "a.nii.gz", dimensions=4)
    assert read.array.shape == (45, 3, 4, 5)
    np.testing.assert_allclose(read.frame_times_s, 1.5 * np.arange(45))
    write_volume(volume(), tmp_path / "b.nrrd")
    with pytest.raises(InputError, match="single three-dimensional image"):
        read_volume(tmp_path / "b.nrrd", dimensions=4)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(four.array, isVector=False), str(tmp_path / "c.nrrd"))
    with pytest.raises(InputError, match="45 time frames"):
        read_volume(tmp_path / "c.nrrd")


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (pack("8h", 40, 2, 9, 7, 1, 1, 1, 1, 1), InputError, "two-dimensional"),
        (pack("8h", 40, 3, 9, 7, 1, 1, 1, 1, 1), InputError, "two-dimensional"),
        (pack("8h", 40, 3, 9, 0, 5, 1, 1, 1, 1), InputError, "is empty"),
        (pack("8h", 40, 3, 9, -7, 5, 1, 1, 1, 1), InputError, "is empty"),
        (pack("8h", 40, 3, 32767, 32767, 32767, 1, 1, 1, 1), InputError, "which no scan has"),
        (pack("8h", 40, 3, 900, 700, 500, 1, 1, 1, 1), InputError, "cut short"),
        (pack("8h", 40, 5, 9, 7, 5, 1, 3, 1, 1), InputError, "several values per voxel"),
        (pack("8h", 40, 99, 9, 7, 5, 1, 3, 1, 1), InputError, "damaged header"),
        (pack("h", 70, 128), InputError, "holds colours"),
        (pack("h", 70, 32), InputError, "not supported"),
        (pack("2h", 252, 0, 0), GeometryError, "does not say how it lies"),
        (pack("12f", 280, *[0.0] * 12), GeometryError, "singular"),
        (pack("12f", 280, *[float("nan")] * 12), GeometryError, "singular or not finite"),
        (pack("12f", 280, 0.018, 0, 0, 0, 0, 0.018, 0, 0, 0, 0, 5, 0), GeometryError, "implausible voxel size"),
        (pack("12f", 280, 50, 0, 0, 0, 0, 500, 0, 0, 0, 0, 50, 0), GeometryError, "implausible voxel size"),
        (lambda header: header.__setitem__(slice(0, 4), b"\x89PNG"), InputError, "not a NIfTI image"),
    ],
)
def test_nifti_refusals(change, kind, words, tmp_path):
    path = nifti(tmp_path / "a.nii", change)
    with pytest.raises(kind, match=words) as error:
        read_volume(path)
    assert str(error.value).startswith("'a.nii'") and str(error.value).endswith(".")


def test_an_image_ten_metres_wide_is_refused(tmp_path):
    wide = Volume(np.zeros((3, 8, 300), np.int16), np.diag([35.0, 1, 1, 1]))
    write_volume(wide, tmp_path / "a.nrrd")
    with pytest.raises(GeometryError, match=r"10.5 m wide"):
        read_volume(tmp_path / "a.nrrd")


@pytest.mark.parametrize("suffix", ["nrrd", "nii", "nii.gz", "mha"])
@pytest.mark.parametrize("compress", [False, True])
def test_files_cut_short_are_refused(suffix, compress, tmp_path):
    path = tmp_path / f"a.{suffix}"
    rng = np.random.default_rng(0)
    write_volume(Volume(rng.integers(0, 999, (20, 40, 40)).astype(np.int16), matrix()), path, compress=compress)
    whole = path.read_bytes()
    for keep in (len(whole) - 40, len(whole) // 2, 200, 20, 0):
        path.write_bytes(whole[:keep])
        with pytest.raises(InputError, match=f"'a.{suffix}' is") as error:
            read_volume(path)
        assert "\n" not in str(error.value)


def test_damage_inside_a_packed_nifti_is_found(tmp_path):
    path = tmp_path / "a.nii.gz"
    rng = np.random.default_rng(0)
    write_volume(Volume(rng.integers(0, 999, (20, 40, 40)).astype(np.int16), matrix()), path)
    whole = path.read_bytes()
    for at in rng.integers(20, len(whole) - 9, 20):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged or cut short"):
            read_volume(path)
    path.write_bytes(b"\x1f\x8b" + os.urandom(500))
    with pytest.raises(InputError, match="damaged or cut short"):
        read_volume(path)


@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz", "mha"])
def test_numbers_that_are_none_are_counted(suffix, tmp_path):
    bad = volume("float32")
    bad.array[0, 0, :3] = np.nan
    bad.array[1, 0, 0] = np.inf
    write_volume(bad, tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match="has 4 voxels that are not a number"):
        read_volume(tmp_path / f"a.{suffix}")


def test_itk_images_that_are_no_volumes(tmp_path):
    grey = np.zeros((6, 8), np.int16)
    colour = SimpleITK.GetImageFromArray(np.zeros((4, 6, 8, 3), np.uint8), isVector=True)
    vector = SimpleITK.GetImageFromArray(np.zeros((4, 6, 8, 2), np.float32), isVector=True)
    for suffix in ("nrrd", "mha"):
        for image, words in (
            (SimpleITK.GetImageFromArray(grey), "two-dimensional"),
            (SimpleITK.GetImageFromArray(grey[None]), "two-dimensional"),
            (colour, "holds colours"),
            (vector, "several values per voxel"),
        ):
            SimpleITK.WriteImage(image, str(tmp_path / f"a.{suffix}"))
            with pytest.raises(InputError, match=words):
                read_volume(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("(0.0,1.0,0.0)", "(1.0,0.0,0.0)", "singular"),
        ("(0.0,1.0,0.0)", "(0.0,0.0,0.0)", "zero or less|singular"),
        ("(0.0,1.0,0.0)", "(0.0,nan,0.0)", "a.nrrd"),
        ("sizes: 4 6 5", "sizes: 4 6 50000", "cut short"),
        ("sizes: 4 6 5", "sizes: 4 6 0", "a.nrrd"),
    ],
)
def test_damaged_nrrd_headers(old, new, words, tmp_path):
    path = tmp_path / "a.nrrd"
    write_volume(Volume(np.zeros((5, 6, 4), np.int16), np.diag([-1.0, -1, 1, 1])), path)
    text = path.read_bytes()
    assert old.encode() in text
    path.write_bytes(text.replace(old.encode(), new.encode()))
    with pytest.raises(InputError, match=words):
        read_volume(path)


def test_wrong_names_and_missing_files(tmp_path):
    (tmp_path / "a.nrrd").write_text("hello")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"hello"))
    for name, words in (("a.nrrd", "is not an image"), ("b.nii.gz", "not a NIfTI|damaged"), ("c.nii", "was not found")):
        with pytest.raises(InputError, match=words):
            read_volume(tmp_path / name)
    assert is_image_file("x/Y.NII.GZ") and is_image_file("a.mhd") and not is_image_file("a.dcm")
    with pytest.raises(OutputError, match="no image suffix"):
        write_volume(volume(), tmp_path / "a.png")


def test_cancel_while_reading(tmp_path):
    write_volume(volume(), tmp_path / "a.nrrd")
    with pytest.raises(CancelledError):
        read_volume(tmp_path / "a.nrrd", progress=Progress(cancelled=lambda: True))


# -- whole or not at all -----------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "may not be written to"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "input/output error"),
    ],
)
def test_disk_errors_become_sentences(code, words, tmp_path):
    with pytest.raises(OutputError, match=words) as error, atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
        raise OSError(code, os.strerror(code))
    assert str(error.value).startswith("'a.txt' could not be written: ") and str(tmp_path) not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_or_wrong_folders(tmp_path):
    with pytest.raises(OutputError, match="folder does not exist"):
        write_volume(volume(), tmp_path / "no" / "a.nrrd")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="folder"):
        write_volume(volume(), tmp_path / "file" / "a.nrrd")
    (tmp_path / "a.nrrd").mkdir()
    with pytest.raises(OutputError, match="in the way|not empty"):
        write_volume(volume(), tmp_path / "a.nrrd")


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_fills_half_way(suffix, tmp_path):
    """A real failed write (the account's file size limit), not a pretended one."""
    import resource

    rng = np.random.default_rng(0)
    large = Volume(rng.integers(-1000, 1000, (10, 64, 64)).astype(np.int16), matrix())
    path = tmp_path / f"a.{suffix}"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="could not be written"):
            write_volume(large, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# -- real files --------------------------------------------------------------------------------------------------


def test_real_files_read_as_nibabel_reads_them(shared_data):
    nibabel = pytest.importorskip("nibabel")
    for name in ("head_ct/partial_head_neck", "planted/ge_a", "label_maps/sccsf", "spine_mr/PAM50_small_t2"):
        path = shared_data / f"{name}.nii.gz"
        read, peer = read_volume(path), nibabel.load(path)
        np.testing.assert_allclose(read.ijk_to_ras, peer.affine, atol=1e-4)
        np.testing.assert_allclose(read.array, np.asanyarray(peer.dataobj).squeeze().T, rtol=1e-5, atol=1e-6)


def test_a_colour_map_is_not_data(shared_data):
    with pytest.raises(InputError, match="holds colours"):
        read_volume(shared_data / "perfusion" / "vendor_rgb_map.nii.gz")
