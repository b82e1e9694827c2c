"""DICOM pixels: every transfer syntax gives the same HU; what is not HU is refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from NeuraxisLib import dicom_headers, dicom_pixels
from NeuraxisLib.dicom import read_series
from NeuraxisLib.errors import (
    DependencyError,
    InputError,
)
from Testing import dicom_series as build


@pytest.fixture(scope="module")
def sparse(tmp_path_factory) -> np.ndarray:
    """HU of the faultless series at 10 mm, to compare with."""
    return read_series(build.save(build.series(build.SPARSE_MM), tmp_path_factory.mktemp("sparse"))).array


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, "JPEG2000", "JPEG"],
)
def test_transfer_syntaxes_give_the_same_pixels(syntax, sparse, tmp_path):
    np.testing.assert_array_equal(read_series(build.in_syntax(tmp_path / "series", syntax)).array, sparse)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_without_preamble_are_read(syntax, sparse, tmp_path):
    np.testing.assert_array_equal(read_series(build.without_preamble(tmp_path / "series", syntax)).array, sparse)


def test_compressed_multi_frame_files_are_read(sparse, tmp_path):
    folder = build.enhanced(tmp_path / "series", build.SPARSE_MM, compress=True)
    np.testing.assert_array_equal(read_series(folder).array, sparse)
    data = bytearray((folder / "0001.dcm").read_bytes())
    (folder / "0001.dcm").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match="'0001.dcm' (is damaged|cannot be read)"):
        read_series(folder)


def test_absent_decoder_is_named_with_its_remedy(tmp_path):
    folder = build.in_syntax(tmp_path / "series", "JPEG2000")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.106"  # a film format, which no decoder takes
        dataset.save_as(path)
    with pytest.raises(DependencyError, match=r"'0000.dcm' is compressed as 'MPEG-4 .* install .* or export"):
        read_series(folder)


def test_itk_gets_no_file_whose_last_element_ends_beyond_it(monkeypatch, tmp_path):
    path = build.in_syntax(tmp_path / "series", "JPEG") / "0004.dcm"
    header = dicom_headers.read_headers(path)[0]
    monkeypatch.setattr(dicom_pixels, "_has_decoder", lambda syntax: False)
    assert dicom_pixels._is_for_itk(header)
    path.write_bytes(path.read_bytes() + b"\xfc\xff\xfc\xffOB\0\0" + (3_000_000_000).to_bytes(4, "little") + b"\0" * 8)
    assert not dicom_pixels._is_for_itk(header)  # which would take 3 GB


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"RescaleIntercept": None}, "no rescale intercept"),
        ({"RescaleSlope": 0}, "slope of zero"),
        ({"RescaleIntercept": 0}, "implausible HU: there is no air"),
        ({"RescaleIntercept": 9000}, "implausible HU: 100 % of the voxels are above"),
        ({"SamplesPerPixel": 3}, "colour pictures"),
        ({"BitsAllocated": 8, "BitsStored": 8}, "8-bit screenshots"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "32-bit pixels"),
        ({"Rows": 65535, "Columns": 65535}, "claims 65535 x 65535 pixels"),
        ({"BitsStored": 0}, "0 bits per pixel"),
        ({"Rows": 200}, "cut short"),
        ({"NumberOfFrames": 12}, "where its frames lie"),
    ],
)
def test_pixels_that_are_not_hu_are_refused(elements, words, tmp_path):
    folder = build.change(build.save(build.series(np.arange(-90, 91, 20.0)), tmp_path / "series"), **elements)
    with pytest.raises(InputError, match=words) as error:
        read_series(folder)
    build.one_sentence(error)


def test_a_wrong_sign_bit_is_refused(tmp_path):
    folder = build.save(build.series(build.SPARSE_MM, intercept=0), tmp_path / "series")
    with pytest.raises(InputError, match="implausible HU: .* above 3500 .wrong sign bit"):
        read_series(build.change(folder, PixelRepresentation=0))


def test_one_slice_scaled_unlike_the_rest_is_refused(tmp_path):
    folder = build.change(build.save(build.series(build.SPARSE_MM), tmp_path / "series"), 10, RescaleIntercept=-1124)
    with pytest.raises(InputError, match=r"'0011.dcm' is scaled unlike the rest"):
        read_series(folder)


def test_missing_rescale_is_accepted_where_values_are_plainly_hu(sparse, tmp_path):
    folder = build.save(build.series(build.SPARSE_MM, intercept=0), tmp_path / "series")
    build.change(folder, RescaleIntercept=None, RescaleSlope=None)
    np.testing.assert_array_equal(read_series(folder).array, sparse)


def test_metal_is_clipped_not_wrapped(tmp_path):
    images = build.series(build.SPARSE_MM)
    for dataset in images:  # as unsigned, which can hold 40,000 HU where int16 cannot
        stored = np.frombuffer(dataset.PixelData, "<i2").astype("<u2").reshape(build.MATRIX, build.MATRIX)
        stored[40:46, 40:46] = 41_024
        dataset.PixelRepresentation, dataset.PixelData = 0, stored.tobytes()
    volume = read_series(build.save(images, tmp_path / "series"))
    assert (volume.array[:, 40:46, 40:46] == 32767).all() and volume.array.min() == -1000


def test_overlay_bits_above_the_stored_ones_are_ignored(sparse, tmp_path):
    images = build.series(build.SPARSE_MM)
    for dataset in images:
        stored = np.frombuffer(dataset.PixelData, "<i2").astype("<u2") | np.uint16(0x8000)
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        dataset.PixelData = stored.tobytes()
    np.testing.assert_array_equal(read_series(build.save(images, tmp_path / "s")).array, sparse)


def test_padding_declared_as_a_tissue_value_is_left_alone(sparse, tmp_path):
    images = build.series(build.SPARSE_MM)
    for dataset in images:
        dataset.add_new("PixelPaddingValue", "SS", 1024 + build.BRAIN_HU)
    np.testing.assert_array_equal(read_series(build.save(images, tmp_path / "s")).array, sparse)


def test_fractional_scaling_gives_float(tmp_path):
    volume = read_series(build.save(build.series(slope=0.5), tmp_path / "series"))
    assert volume.array.dtype == np.float32
    assert build.lesion_ml(volume) == pytest.approx(build.LESION_ML, rel=0.02)


def test_lossy_sources_are_marked(tmp_path):
    folder = build.change(build.save(build.series(build.SPARSE_MM), tmp_path / "series"), LossyImageCompression="01")
    assert any("with loss" in text for text in read_series(folder).meta["warnings"])
