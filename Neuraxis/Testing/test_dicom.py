"""DICOM series: each faulty or odd one is measured right within 2 % or refused by name."""

from __future__ import annotations

import os
from pathlib import Path

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

from NeuraxisLib.dicom import list_series, read_series
from NeuraxisLib.dicom_geometry import find_holes
from NeuraxisLib.dicom_series import kernel_class
from NeuraxisLib.errors import (
    CancelledError,
    DependencyError,
    GeometryError,
    InputError,
    NeuraxisError,
    SeriesChoiceError,
)
from NeuraxisLib.files import read_volume
from NeuraxisLib.task import Progress
from Testing import dicom_series as build


def change(folder: Path, index: int | None = None, **elements) -> Path:
    """Set elements in one file (or all) of a folder; None deletes."""
    paths = sorted(folder.glob("*.dcm"))
    for path in paths if index is None else [paths[index]]:
        dataset = pydicom.dcmread(path)
        for word, value in elements.items():
            if value is None:
                del dataset[word]
            else:
                setattr(dataset, word, value)
        dataset.save_as(path)
    return folder


def one_sentence(error: pytest.ExceptionInfo) -> str:
    """The message, once it is sure that it is one sentence and names neither patient nor folder."""
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and ". " not in text.replace("mm. ", "")
    assert build.CANARY not in text and os.sep not in text
    return text


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The faultless series; tests that change files make their own."""
    return build.save(build.series(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sparse(tmp_path_factory) -> np.ndarray:
    """HU of the faultless series at 10 mm, to compare with."""
    return read_series(build.save(build.series(build.SPARSE_MM), tmp_path_factory.mktemp("sparse"))).array


# -- the catalogue -----------------------------------------------------------------------------------------------

RIGHT = {
    "gantry_tilt": 37,
    "mixed_spacing": 29,
    "localizer_inside": 37,
    "lone_sagittal_inside": 37,
    "jitter": 37,
    "copied_file": 37,
    "per_slice_intercept": 37,
    "reversed_numbers": 37,
    "descending": 37,
    "padding": 37,
    "oblique_head": 37,
    "enhanced": 37,
}
REFUSED = {
    "one_missing": (GeometryError, r"one slice is missing between '0020.dcm' and '0021.dcm' \(a gap of 10.0 mm"),
    "five_missing": (GeometryError, r"5 slices are missing between '0018.dcm' and '0019.dcm'"),
    "duplicate_position": (GeometryError, r"38 images at 37 places \('0038.dcm'"),
    "truncated_file": (InputError, r"'0021.dcm' is cut short"),
    "truncated_header": (InputError, r"'0021.dcm' cannot be read as DICOM"),
    "corrupt_header": (InputError, r"'0021.dcm' cannot be read as DICOM"),
    "corrupt_elements": (InputError, r"'0021.dcm'"),
    "two_time_points": (SeriesChoiceError, r"--series"),
    "single_slice": (GeometryError, r"is a single slice"),
}


@pytest.mark.parametrize("case", RIGHT)
def test_odd_series_are_measured_right(case, tmp_path):
    volume = read_series(getattr(build, case)(tmp_path / "series"))
    assert volume.slice_count == RIGHT[case]
    assert build.lesion_ml(volume) == pytest.approx(build.LESION_ML, rel=0.02)
    assert volume.array.dtype == np.int16 and volume.unit == "HU"


@pytest.mark.parametrize("case", REFUSED)
def test_faulty_series_are_refused_by_name(case, tmp_path):
    kind, words = REFUSED[case]
    with pytest.raises(kind, match=words) as error:
        read_series(getattr(build, case)(tmp_path / "series"))
    assert type(error.value) is kind
    one_sentence(error)


def test_voxels_lie_where_the_phantom_says(tmp_path):
    """Tilt, turn and unequal gaps in one: the HU at every voxel is the phantom's HU at that voxel's place."""
    turned = build.series(np.r_[np.arange(-90, 0, 5.0), np.arange(0, 91, 7.5)], tilt_deg=-15, rotation=_turn(20))
    volume = read_series(build.save(turned, tmp_path / "turned"))
    k, j, i = np.meshgrid(*(np.arange(0, size, 3) for size in volume.array.shape), indexing="ij")
    ras = volume.origins_ras[k] + i[..., None] * volume.column_step_ras + j[..., None] * volume.row_step_ras
    expected = build.phantom_hu(ras * (-1, -1, 1))
    assert np.mean(volume.array[k, j, i] == expected) > 0.999
    assert volume.meta["tilt_deg"] == pytest.approx(15, abs=0.1)


def _turn(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_slices_run_up_whatever_the_order_of_files(tmp_path):
    volume = read_series(build.descending(tmp_path / "series"))
    assert volume.slice_positions_mm[0] == pytest.approx(-90) and volume.slice_positions_mm[-1] == pytest.approx(90)
    assert volume.is_uniform and volume.slice_origins_ras is None


def test_missing_slices_are_measured_on_request(tmp_path):
    volume = read_series(build.one_missing(tmp_path / "series"), allow_gaps=True)
    assert build.lesion_ml(volume) == pytest.approx(build.LESION_ML, rel=0.02)
    assert "One slice is missing" in volume.meta["warnings"][0] and volume.slice_origins_ras is not None


def test_time_points_can_be_chosen(tmp_path):
    folder = build.two_time_points(tmp_path / "series")
    with pytest.raises(SeriesChoiceError) as error:
        read_series(folder)
    keys = [choice["key"] for choice in error.value.choices]
    assert len(set(keys)) == 2 and [entry.key for entry in list_series(folder)] == keys
    first, second = (read_series(folder, series=key) for key in keys)
    assert first.slice_count == second.slice_count == 37
    assert (first.array != second.array).any()


def test_warnings_and_notes_say_what_was_done(tmp_path):
    assert "duplicate" in read_series(build.copied_file(tmp_path / "a")).meta["warnings"][0]
    assert "gaps differ" in read_series(build.mixed_spacing(tmp_path / "b")).meta["warnings"][0]
    padded = read_series(build.padding(tmp_path / "c"))
    assert padded.array.min() == -1024 and "set to air" in padded.meta["notes"][0]
    assert read_series(build.localizer_inside(tmp_path / "d")).meta["dropped"] == {"localizer": 1}


# -- holes against protocols -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gaps", "thickness", "missing"),
    [
        ([5, 5, 5, 5], 5, 0),
        ([5, 5, 10, 5, 5], 5, 1),
        ([5, 5, 10, 5, 10, 5], 5, 2),
        ([5, 5, 10, 10, 5, 5], 5, 2),
        ([5, 5, 5, 10, 10, 10], 5, 0),  # protocol: thin base, thick vertex
        ([10, 10, 10, 5, 5, 5], 5, 0),
        ([5, 5, 5, 10, 10], 5, 2),  # too short a run to be sure
        ([5, 5, 5, 10, 10], [5, 5, 5, 10, 10, 10], 0),  # unless the slices are thick there
        ([4.0] * 13 + [1.08] + [7.0] * 13, [4.0] * 14 + [7.0] * 14, 0),  # two blocks that overlap
        ([4.0] * 6 + [1.08] + [7.0] * 3 + [14.0] + [7.0] * 3, [4.0] * 7 + [7.0] * 8, 1),
        ([4.6, 5.4, 5.0, 4.7, 5.3], 5, 0),
        ([10], 5, 0),
        ([5, 10], None, 1),
    ],
)
def test_a_hole_differs_from_a_change_of_spacing(gaps, thickness, missing):
    thicknesses = thickness if isinstance(thickness, list) else [thickness] * (len(gaps) + 1)
    assert sum(hole.missing for hole in find_holes(np.array(gaps, dtype=float), thicknesses)) == missing


# -- geometry that is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "elements", "words"),
    [
        (None, {"ImageOrientationPatient": None}, "no orientation"),
        (None, {"ImagePositionPatient": None}, "no position"),
        (None, {"PixelSpacing": None}, "no pixel spacing"),
        (5, {"ImageOrientationPatient": None}, "'0006.dcm' has no orientation"),
        (5, {"ImagePositionPatient": None}, "'0006.dcm' has no position"),
        (5, {"PixelSpacing": [1.9, 1.9]}, "'0006.dcm' has another pixel spacing"),
        (5, {"ImageOrientationPatient": [1, 0, 0, 0, 0.9962, 0.0872]}, "'0006.dcm' has another orientation"),
        (None, {"PixelSpacing": [0, 1.7]}, "zero or less"),
        (None, {"PixelSpacing": [0.018, 0.018]}, "implausible voxel size"),
        (None, {"PixelSpacing": [40, 40]}, "5.1 m wide"),
        (None, {"ImageOrientationPatient": [1, 0, 0, 0.5, 0.866, 0]}, "right angles"),
    ],
)
def test_unsafe_geometry_is_refused(index, elements, words, tmp_path):
    folder = change(build.save(build.series(build.SPARSE_MM), tmp_path / "series"), index, **elements)
    with pytest.raises(GeometryError, match=words) as error:
        read_series(folder)
    one_sentence(error)


def test_images_at_one_place_are_no_volume(tmp_path):
    images = build.series([10.0] * 4)
    for number, dataset in enumerate(images):
        dataset.AcquisitionNumber = number
    with pytest.raises(GeometryError, match="all its 4 images lie at one place"):
        read_series(build.save(images, tmp_path / "series"))


# -- pixels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, "JPEG2000", "JPEG"],
)
def test_transfer_syntaxes_give_the_same_pixels(syntax, sparse, tmp_path):
    np.testing.assert_array_equal(read_series(build.in_syntax(tmp_path / "series", syntax)).array, sparse)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_without_preamble_are_read(syntax, sparse, tmp_path):
    np.testing.assert_array_equal(read_series(build.without_preamble(tmp_path / "series", syntax)).array, sparse)


def test_absent_decoder_is_named_with_its_remedy(tmp_path):
    folder = build.in_syntax(tmp_path / "series", "JPEG2000")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.106"  # a film format, which no decoder takes
        dataset.save_as(path)
    with pytest.raises(DependencyError, match=r"'0000.dcm' is compressed as 'MPEG-4 .* install .* or export"):
        read_series(folder)


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
    folder = change(build.save(build.series(np.arange(-90, 91, 20.0)), tmp_path / "series"), **elements)
    with pytest.raises(InputError, match=words) as error:
        read_series(folder)
    one_sentence(error)


def test_a_wrong_sign_bit_is_refused(tmp_path):
    folder = build.save(build.series(build.SPARSE_MM, intercept=0), tmp_path / "series")
    with pytest.raises(InputError, match="implausible HU: .* above 3500 .wrong sign bit"):
        read_series(change(folder, PixelRepresentation=0))


def test_one_slice_scaled_unlike_the_rest_is_refused(tmp_path):
    folder = change(build.save(build.series(build.SPARSE_MM), tmp_path / "series"), 10, RescaleIntercept=-1124)
    with pytest.raises(InputError, match=r"'0011.dcm' is scaled unlike the rest"):
        read_series(folder)


def test_missing_rescale_is_accepted_where_values_are_plainly_hu(sparse, tmp_path):
    folder = build.save(build.series(build.SPARSE_MM, intercept=0), tmp_path / "series")
    change(folder, RescaleIntercept=None, RescaleSlope=None)
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
    folder = change(build.save(build.series(build.SPARSE_MM), tmp_path / "series"), LossyImageCompression="01")
    assert any("with loss" in text for text in read_series(folder).meta["warnings"])


# -- folders -----------------------------------------------------------------------------------------------------


def test_other_files_are_skipped_and_counted(sparse, tmp_path):
    folder = build.save(build.series(build.SPARSE_MM), tmp_path / "série dose ü" / ("x" * 100) / ("y" * 100))
    (folder / "notes.txt").write_text("hello")
    (folder / ".DS_Store").write_bytes(b"\0" * 100)
    report = build.series([0.0])[0]
    for word in ("Rows", "Columns", "PixelData", "BitsAllocated"):
        del report[word]
    report.Modality, report.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(folder / "report.dcm")
    os.symlink(tmp_path, folder / "loop")
    volume = read_series(tmp_path)
    assert volume.meta["dropped"] == {"file that is not DICOM": 1, "report or other object": 1}
    np.testing.assert_array_equal(volume.array, sparse)


def test_a_zero_byte_image_is_never_passed_over(tmp_path):
    folder = build.save(build.series(build.SPARSE_MM), tmp_path / "series")
    (folder / "0020.dcm").touch()
    with pytest.raises(InputError, match=r"'0020.dcm' cannot be read"):
        read_series(folder)


def test_folders_without_images_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no DICOM images .no files"):
        read_series(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match="1 x file that is not DICOM"):
        read_volume(tmp_path)
    with pytest.raises(InputError, match="'a.txt' is not an image known here"):
        read_volume(tmp_path / "a.txt")
    with pytest.raises(InputError, match="'nowhere' was not found"):
        read_series(tmp_path / "nowhere")


def test_one_file_stands_for_its_series(tmp_path):
    build.save(build.series(np.arange(-90, 91, 5.0)), tmp_path)
    build.save(build.series(np.arange(-90, 91, 10.0)), tmp_path)
    assert read_volume(tmp_path / "0040.dcm").slice_count == 19
    assert read_volume(tmp_path / "0004.dcm").slice_count == 37


def _study(folder: Path, *changes: dict) -> Path:
    """Series of one examination, each with these elements changed and 10 more slices than the one before."""
    study = build.new_uid()
    for index, elements in enumerate(changes):
        count = elements.pop("count", 20)
        images = build.series(np.linspace(-90, 90, count), matrix=32, pixel_mm=6.8)
        for dataset in images:
            dataset.StudyInstanceUID, dataset.SeriesNumber = study, index + 1
            for word, value in elements.items():
                setattr(dataset, word, value)
        build.save(images, folder)
    return folder


def test_the_axial_soft_series_is_chosen(tmp_path):
    folder = _study(
        tmp_path,
        {"ConvolutionKernel": "H60s", "SeriesDescription": "BONE", "count": 60},
        {"ConvolutionKernel": "H31s", "SeriesDescription": "BRAIN", "count": 30},
        {"ConvolutionKernel": "H31s", "SeriesDescription": "BRAIN THICK", "count": 20},
        {"ConvolutionKernel": "H31s", "ContrastBolusAgent": "Iomeprol", "count": 40},
        {"ConvolutionKernel": "H31s", "ImageType": ["DERIVED", "SECONDARY", "MIP"], "count": 50},
    )
    volume = read_series(folder)
    assert volume.meta["description"] == "BRAIN" and volume.slice_count == 30
    assert volume.meta["dropped"] == {"image from other series": 170}
    assert [entry.slices for entry in list_series(folder)] == [60, 30, 20, 40, 50]


def test_series_are_named_by_key_number_uid_or_description(tmp_path):
    folder = _study(tmp_path, {"SeriesDescription": "First", "count": 12}, {"SeriesDescription": "Second", "count": 8})
    second = list_series(folder)[1]
    for name in (second.key, "2", second.uid, "second"):
        assert read_series(folder, series=name).slice_count == 8
    with pytest.raises(SeriesChoiceError, match="no series 'third'") as error:
        read_series(folder, series="third")
    assert {choice["description"] for choice in error.value.choices} == {"First", "Second"}
    assert "uid" not in error.value.choices[0]


def test_undecidable_choices_are_asked(tmp_path):
    with pytest.raises(SeriesChoiceError, match="several series that would do"):
        read_series(_study(tmp_path / "a", {}, {}))
    with pytest.raises(SeriesChoiceError, match="several modalities"):
        read_series(_study(tmp_path / "b", {}, {"Modality": "MR"}))
    _study(tmp_path / "c", {})
    with pytest.raises(SeriesChoiceError, match="several examinations"):
        read_series(_study(tmp_path / "c", {"count": 30}))


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("H31s", "soft"), ("J40f", "soft"), ("Hr38", "soft"), ("H60s", "sharp"), ("B70f", "sharp"),
        ("STANDARD", "soft"), ("STD+", "soft"), ("BONEPLUS", "sharp"), ("LUNG", "sharp"), ("UB", "soft"),
        ("D", "sharp"), ("FC21", "soft"), ("FC30", "sharp"), ("FC81", "sharp"), ("", "unknown"),
        ("['J30s', '2']", "unknown"),
    ],
)  # fmt: skip
def test_kernels_of_all_vendors(kernel, kind):
    assert kernel_class(kernel) == kind


def test_nothing_of_the_patient_comes_out(plain):
    volume = read_series(plain)
    facts = repr(volume.meta) + repr([entry.choice() for entry in list_series(plain)])
    assert build.CANARY not in facts and "19010101" not in facts
    assert pydicom.dcmread(plain / "0001.dcm").SeriesInstanceUID not in facts


def test_progress_runs_and_cancel_works(plain):
    seen = []
    read_series(plain, progress=Progress(lambda fraction, stage: seen.append(fraction)))
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) > 10
    with pytest.raises(CancelledError):
        read_series(plain, progress=Progress(cancelled=lambda: len(seen) > 0))


def test_damaged_headers_never_give_a_wrong_volume_in_silence(tmp_path):
    """Random damage to one header: the volume is right within 2 %, or carries a warning, or is refused."""
    folder = build.save(build.series(np.arange(-90, 91, 10.0), matrix=64, pixel_mm=3.4), tmp_path / "series")
    right = build.lesion_ml(read_series(folder))
    path, rng, outcomes = folder / "0011.dcm", np.random.default_rng(5), []
    original = path.read_bytes()
    header_size = len(original) - 64 * 64 * 2
    for _ in range(60):
        data = bytearray(original)
        for at in rng.integers(128, header_size, 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            volume = read_series(folder)
            outcomes.append("read")
            assert volume.meta["warnings"] or build.lesion_ml(volume) == pytest.approx(right, rel=0.02)
        except NeuraxisError:
            outcomes.append("refused")
    assert set(outcomes) == {"read", "refused"}


# -- real scans --------------------------------------------------------------------------------------------------


def test_real_tilted_head_with_overlapping_blocks(shared_data):
    volume = read_series(shared_data / "dicom" / "ge_head_tilted")
    assert volume.slice_count == 28 and volume.array.dtype == np.int16
    assert volume.meta["tilt_deg"] == pytest.approx(18.5, abs=0.05)
    gaps = np.diff(volume.slice_positions_mm)
    np.testing.assert_allclose(gaps, [4.0] * 13 + [1.08] + [7.0] * 13, atol=0.01)
    assert volume.is_sheared and not volume.is_uniform
    first = pydicom.dcmread(shared_data / "dicom" / "ge_head_tilted" / "01.dcm")
    np.testing.assert_allclose(volume.origins_ras[0], np.multiply(first.ImagePositionPatient, (-1, -1, 1)), atol=1e-4)
    np.testing.assert_array_equal(volume.array[0], np.maximum(first.pixel_array, -1024))


@pytest.mark.parametrize(
    ("case", "slices", "words"),
    [
        ("failing/gantrytilting_001", 4, None),
        ("failing/slicecount_001", 2, None),
        ("failing/sliceorientation_001", 2, None),
        ("failing/sliceincrement_001", None, "one slice is missing"),
        ("failing/sliceincrement_002", None, "one slice is missing"),
        ("failing/notavolume_001", None, "lie at one place"),
        ("philips_phantom", None, "8 slices are missing between 'I10' and 'I100'"),
    ],
)
def test_real_series_that_break_importers(case, slices, words, shared_data):
    folder = shared_data / "dicom" / case
    if words is None:
        volume = read_series(folder)
        assert volume.slice_count == slices
        assert len(volume.meta["warnings"]) == (1 if slices == 2 else 0)
    else:
        with pytest.raises(GeometryError, match=words):
            read_series(folder)


def test_the_phantom_with_lost_slices_reads_on_request(shared_data):
    volume = read_series(shared_data / "dicom" / "philips_phantom", allow_gaps=True)
    assert volume.slice_count == 5 and volume.meta["tilt_deg"] == pytest.approx(18.5, abs=0.05)
    assert volume.meta["dropped"] == {"DICOM directory file": 1}
