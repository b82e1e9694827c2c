"""DICOM folders: what is skipped, which series is chosen, what is asked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

from NeuraxisLib.dicom import list_series, read_series
from NeuraxisLib.dicom_series import kernel_class
from NeuraxisLib.errors import (
    CancelledError,
    InputError,
    NeuraxisError,
    SeriesChoiceError,
)
from NeuraxisLib.files import read_volume
from NeuraxisLib.task import Progress
from Testing import dicom_series as build


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The faultless series; tests that change files make their own."""
    return build.save(build.series(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sparse(tmp_path_factory) -> np.ndarray:
    """HU of the faultless series at 10 mm, to compare with."""
    return read_series(build.save(build.series(build.SPARSE_MM), tmp_path_factory.mktemp("sparse"))).array


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
