"""DICOM series: each faulty or odd one is measured right within 2 % or refused by name."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from NeuraxisLib.dicom import list_series, read_series
from NeuraxisLib.dicom_geometry import find_holes
from NeuraxisLib.errors import (
    GeometryError,
    InputError,
    SeriesChoiceError,
)
from Testing import dicom_series as build

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
    build.one_sentence(error)


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
    folder = build.change(build.save(build.series(build.SPARSE_MM), tmp_path / "series"), index, **elements)
    with pytest.raises(GeometryError, match=words) as error:
        read_series(folder)
    build.one_sentence(error)


def test_images_at_one_place_are_no_volume(tmp_path):
    images = build.series([10.0] * 4)
    for number, dataset in enumerate(images):
        dataset.AcquisitionNumber = number
    with pytest.raises(GeometryError, match="all its 4 images lie at one place"):
        read_series(build.save(images, tmp_path / "series"))


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
