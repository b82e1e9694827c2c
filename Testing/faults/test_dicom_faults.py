"""DICOM series of the fault catalogue that no other file has: each is measured right, warned of, or refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLSLossless, generate_uid

from NeuraxisLib.dicom import read_series
from NeuraxisLib.errors import DependencyError, GeometryError, InputError
from Testing import dicom_series as build


def warnings_of(folder) -> str:
    """All warnings of the series in a folder."""
    return " ".join(read_series(folder).meta["warnings"])


def test_pixels_of_nested_data_sets_are_not_read(tmp_path):
    """An icon before the image's own pixels."""
    images = build.series(build.SPARSE_MM)
    right = read_series(build.save(images, tmp_path / "plain")).array
    for image in images:
        icon = Dataset()
        icon.Rows = icon.Columns = 8
        icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
        icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 8, 8, 7, 0
        icon.PixelData = bytes(range(64))
        image.IconImageSequence = Sequence([icon])
    np.testing.assert_array_equal(read_series(build.save(images, tmp_path / "icons")).array, right)


def test_more_pixels_than_the_header_says(tmp_path):
    """A header with fewer rows than were stored shows a part of the image as if it were the whole."""
    folder = build.change(build.save(build.series(build.SPARSE_MM), tmp_path / "series"), Rows=100)
    with pytest.raises(InputError, match=r"'0001.dcm' holds more pixels than its header says") as error:
        read_series(folder)
    build.one_sentence(error)


@pytest.mark.parametrize("surplus", [2, 200])
def test_padding_behind_the_pixels_is_no_fault(surplus, tmp_path):
    images = build.series(build.SPARSE_MM)
    right = read_series(build.save(images, tmp_path / "plain")).array
    for image in images:
        image.PixelData += bytes(surplus)
    np.testing.assert_array_equal(read_series(build.save(images, tmp_path / "padded")).array, right)


def test_names_in_other_character_sets_do_no_harm(tmp_path):
    images = build.series(build.SPARSE_MM)
    for image in images:
        image.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        image.PatientName = "Yamada^Tarou=山田^太郎"
        image.SeriesDescription = "頭部"
    folder = build.save(images, tmp_path / "山田 太郎" / ("ä" * 60) / ("b" * 200))
    assert build.lesion_ml(read_series(folder)) == pytest.approx(build.LESION_ML, rel=0.05)


@pytest.mark.parametrize("degrees", [-30, 30])
def test_a_gantry_at_its_limit(degrees, tmp_path):
    volume = read_series(build.save(build.series(tilt_deg=degrees), tmp_path / "series"))
    assert build.lesion_ml(volume) == pytest.approx(build.LESION_ML, rel=0.02)
    assert volume.meta["tilt_deg"] == pytest.approx(30, abs=0.1)


def test_a_table_that_jumps_is_told(tmp_path):
    heights = np.arange(-90.0, 90.1, 5.0)
    heights[::2] += 0.8
    folder = build.save(build.series(heights), tmp_path / "series")
    assert "Slice gaps differ (4.2 to 5.8 mm)" in warnings_of(folder)
    assert build.lesion_ml(read_series(folder)) == pytest.approx(build.LESION_ML, rel=0.02)


def test_images_without_numbers_are_sorted_by_place(tmp_path):
    images = build.series(build.SPARSE_MM)
    right = read_series(build.save(images, tmp_path / "plain")).array
    for image in images:
        del image["InstanceNumber"]
    shuffled = [images[at] for at in np.random.default_rng(0).permutation(len(images))]
    np.testing.assert_array_equal(read_series(build.save(shuffled, tmp_path / "shuffled")).array, right)


@pytest.mark.parametrize(
    "turn",
    [np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1]), np.diag([1.0, -1, -1])],
    ids=["feet first", "prone", "both"],
)
def test_however_the_patient_lies(turn, tmp_path):
    """The stack is turned with the scanner; in the patient's axes the lesion stays where it is."""
    volume = read_series(build.save(build.series(rotation=turn), tmp_path / "series"))
    assert build.lesion_ml(volume) == pytest.approx(build.LESION_ML, rel=0.02)
    inside = np.argwhere(np.abs(volume.array.astype(float) - build.LESION_HU) < 15)
    centre = (volume.ijk_to_ras @ np.append(inside.mean(axis=0)[::-1], 1))[:3]
    np.testing.assert_allclose(centre, build.LESION_CENTRE_LPS * (-1, -1, 1), atol=2)


def test_two_pixel_sizes_are_told(tmp_path):
    folder = build.change(build.save(build.series(build.SPARSE_MM), tmp_path / "series"), ImagerPixelSpacing=[0.9, 0.9])
    assert "two pixel sizes (1.700 and 0.900 mm)" in warnings_of(folder)
    build.change(folder, ImagerPixelSpacing=[build.PIXEL_MM, build.PIXEL_MM])
    assert "two pixel sizes" not in warnings_of(folder)


def test_contrast_medium_is_told(tmp_path):
    folder = build.save(build.series(build.SPARSE_MM), tmp_path / "series")
    assert "contrast" not in warnings_of(folder)
    build.change(folder, ContrastBolusAgent="Iomeprol")
    assert "taken with contrast medium" in warnings_of(folder)


def test_images_of_two_patients_in_one_series(tmp_path):
    """As after a merge in an archive went wrong. The sentence must not say who they are."""
    folder = build.save(build.series(build.SPARSE_MM), tmp_path / "series")
    build.change(folder, 7, PatientID="ANOTHERCANARY")
    with pytest.raises(GeometryError, match=r"'0008.dcm' is of another patient") as error:
        read_series(folder)
    assert "ANOTHER" not in build.one_sentence(error)


def test_bits_that_wrapped_around(tmp_path):
    """Dense bone beyond 12 bits came out below air."""
    images = build.series(build.SPARSE_MM)
    for image in images:
        stored = np.frombuffer(image.PixelData, "<i2").astype("<u2")
        stored[stored > 1000] += 32768  # head and skull
        image.PixelRepresentation, image.PixelData = 0, stored.tobytes()
    with pytest.raises(InputError, match="implausible HU"):
        read_series(build.save(images, tmp_path / "series"))


def test_an_object_that_is_copied_and_changed_is_no_copy(tmp_path):
    """The same SOP instance UID twice with other pixels."""
    images = build.series(build.SPARSE_MM)
    again = copy.deepcopy(images[9])
    again.PixelData = np.roll(np.frombuffer(again.PixelData, "<i2"), 3).tobytes()
    with pytest.raises(GeometryError, match="20 images at 19 places"):
        read_series(build.save([*images, again], tmp_path / "series"))


def test_a_directory_file_and_reports_lie_beside_the_images(tmp_path):
    images = build.series(build.SPARSE_MM)
    right = read_series(build.save(images, tmp_path / "series")).array
    directory = copy.deepcopy(images[0])
    for word in ("Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "HighBit"):
        del directory[word]
    dose = copy.deepcopy(directory)
    directory.SOPClassUID = directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.save_as(tmp_path / "series" / "DICOMDIR")
    dose.Modality, dose.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.67"
    dose.SOPInstanceUID, dose.SeriesInstanceUID = generate_uid(), images[0].SeriesInstanceUID
    dose.save_as(tmp_path / "series" / "dose.dcm")
    volume = read_series(tmp_path / "series")
    np.testing.assert_array_equal(volume.array, right)
    assert volume.meta["dropped"] == {"DICOM directory file": 1, "report or other object": 1}


def test_large_matrices_are_read_in_bounded_memory(tmp_path):
    """1024 x 1024 pixels: beside the volume itself, reading holds less than four of its sixteen slices."""
    import tracemalloc

    folder = build.save(build.series(np.arange(0.0, 80, 5), matrix=1024, pixel_mm=0.25), tmp_path / "series")
    tracemalloc.start()
    try:
        volume = read_series(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert volume.array.shape == (16, 1024, 1024)
    assert peak < volume.array.nbytes + 4 * volume.array[0].nbytes


# -- compressions ---------------------------------------------------------------------------------------------------


def test_jpeg_ls_gives_the_same_pixels(tmp_path):
    pytest.importorskip("jpeg_ls", reason="pyjpegls brings the decoder, here as in Slicer")
    right = read_series(build.save(build.series(build.SPARSE_MM), tmp_path / "plain")).array
    read = read_series(build.in_syntax(tmp_path / "packed", JPEGLSLossless)).array
    np.testing.assert_array_equal(read, right)


def test_high_throughput_jpeg_2000_is_read_or_its_decoder_named(tmp_path):
    folder = build.in_syntax(tmp_path / "series", "JPEG2000")
    for path in folder.iterdir():
        image = dcmread(path)
        image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        image.save_as(path)
    with pytest.raises((DependencyError, InputError), match=r"for which no decoder is installed|is damaged") as error:
        read_series(folder)
    build.one_sentence(error)


def test_the_scale_of_grey_values_is_no_matter_to_the_disc_network():
    """Private slopes of MR scanners: what the network sees is the same at any scale."""
    from SpineDiscLabelLib.preprocessing import SagittalPreprocessing

    images = np.random.default_rng(0).uniform(100, 200, (1, 3, 64, 64))
    inside = np.ones((1, 64, 64), bool)
    shown = SagittalPreprocessing(tile=64, overlap=16, pixel_mm=1.5)
    for scale in (0.01, 1000.0):
        np.testing.assert_allclose(
            shown.normalise(images * scale, inside), shown.normalise(images.copy(), inside), atol=1e-6
        )
