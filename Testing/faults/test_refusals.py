"""Every image and model that must be refused: one clear sentence, a stable code, no traceback, no partial output."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import dicom_series
import numpy as np
import pytest
import SimpleITK as sitk
from fault_support import (
    assert_refused,
    changed,
    entries,
    head,
    neuraxis,
    neuraxis_process,
)
from untrained_models import write_untrained_model

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume

# -- the image ------------------------------------------------------------------------------------------------


def noise_where_inside(low: float, high: float) -> np.ndarray:
    """Noise between two values in the head, 0 around it: an MR, or a windowed picture."""
    inside = head().array > -500
    return np.where(inside, np.random.default_rng(0).uniform(low, high, inside.shape), 0)


def without_head() -> np.ndarray:
    """A table in air: a CT, but nobody on it."""
    array = np.full(head().array.shape, -1000, np.int16)
    array[:, 52:55] = 300
    return array


def thigh() -> np.ndarray:
    """A cylinder of muscle around one of bone."""
    j, i = np.meshgrid(np.arange(64) - 32, np.arange(64) - 32, indexing="ij")
    slice_hu = np.where(np.hypot(j, i) < 5, 900, np.where(np.hypot(j, i) < 22, 55, -1000))
    return np.broadcast_to(slice_hu, head().array.shape).astype(np.int16)


def with_nan() -> np.ndarray:
    array = head().array.astype(np.float32)
    array[3, 4, 5:7] = np.nan
    return array


IMAGES = {
    "MR in place of CT": (lambda: noise_where_inside(100, 1500).astype(np.int16), "not a head CT in Hounsfield units"),
    "windowed picture": (lambda: noise_where_inside(1, 255).astype(np.uint8), "not a head CT in Hounsfield units"),
    "zeros": (lambda: np.zeros((19, 64, 64), np.int16), "same value"),
    "constant": (lambda: np.full((19, 64, 64), 40, np.int16), "same value"),
    "NaN": (with_nan, "2 voxels that are not a number"),
    "nobody in view": (without_head, "no brain"),
    "another part of the body": (thigh, "no brain"),
}


@pytest.mark.parametrize("fault", IMAGES)
def test_image_that_shows_no_head_ct(fault, model, tmp_path):
    make, words = IMAGES[fault]
    write_volume(changed(make()), tmp_path / "image.nrrd")
    before = entries(tmp_path)
    assert_refused(neuraxis("hemorrhage", tmp_path / "image.nrrd", tmp_path / "a" / "out", "--model", model), 3, words)
    assert entries(tmp_path) == before


def corrupt_nifti(folder: Path) -> Path:
    write_volume(head(), folder / "scan.nii.gz")
    data = bytearray((folder / "scan.nii.gz").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (folder / "scan.nii.gz").write_bytes(data)
    return folder / "scan.nii.gz"


def corrupt_nifti_header(folder: Path) -> Path:
    write_volume(head(), folder / "scan.nii")
    data = bytearray((folder / "scan.nii").read_bytes())
    data[40:56] = struct.pack("<8h", -5, 30000, 30000, 30000, 1, 1, 1, 1)
    (folder / "scan.nii").write_bytes(data)
    return folder / "scan.nii"


def truncated_nifti(folder: Path) -> Path:
    write_volume(head(), folder / "scan.nii.gz")
    data = gzip.decompress((folder / "scan.nii.gz").read_bytes())
    (folder / "scan.nii.gz").write_bytes(gzip.compress(data[: len(data) // 2]))
    return folder / "scan.nii.gz"


def truncated_nrrd(folder: Path) -> Path:
    write_volume(head(), folder / "scan.nrrd")
    data = (folder / "scan.nrrd").read_bytes()
    (folder / "scan.nrrd").write_bytes(data[: len(data) // 2])
    return folder / "scan.nrrd"


def two_dimensional(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(head().array[9]), str(folder / "slice.nrrd"))
    return folder / "slice.nrrd"


def four_dimensional(folder: Path) -> Path:
    array = np.stack([head().array] * 3)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(folder / "perfusion.nii.gz"))
    return folder / "perfusion.nii.gz"


def text_file(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("This is not a scan.")
    return folder / "scan.nii.gz"


def photograph(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((40, 50), np.uint8)), str(folder / "photo.png"))
    return folder / "photo.png"


def empty_folder(folder: Path) -> Path:
    (folder / "dicom").mkdir()
    return folder / "dicom"


def dicom_of_other_modality(folder: Path) -> Path:
    images = dicom_series.series(np.arange(-90.0, 90.1, 10.0))
    for image in images:
        image.Modality = "MR"
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    return dicom_series.save(images, folder / "dicom")


def dicom(name: str) -> Callable[[Path], Path]:
    """A faulty series of dicom_series."""
    return lambda folder: getattr(dicom_series, name)(folder / "dicom")


def two_series(folder: Path) -> Path:
    for _ in range(2):
        dicom_series.save(dicom_series.series(np.arange(-90.0, 90.1, 10.0)), folder / "dicom")
    return folder / "dicom"


FILES = {
    "not an image": (text_file, 3, "scan.nii.gz"),
    "photograph": (photograph, 3, "photo.png"),
    "corrupt NIfTI": (corrupt_nifti, 3, "scan.nii.gz"),
    "corrupt NIfTI header": (corrupt_nifti_header, 3, "scan.nii"),
    "truncated NIfTI": (truncated_nifti, 3, "scan.nii.gz"),
    "truncated NRRD": (truncated_nrrd, 3, "scan.nrrd"),
    "2-D image": (two_dimensional, 3, "two-dimensional"),
    "4-D image": (four_dimensional, 3, "3 time frames"),
    "no DICOM in the folder": (empty_folder, 3, "dicom"),
    "DICOM of MR": (dicom_of_other_modality, 3, "MR"),
    "DICOM slice missing": (dicom("one_missing"), 4, "missing"),
    "DICOM file truncated": (dicom("truncated_file"), 3, "0021.dcm"),
    "two DICOM series": (two_series, 5, "series"),
}


@pytest.mark.parametrize("fault", FILES)
def test_file_that_cannot_be_measured_on(fault, model, tmp_path):
    make, code, words = FILES[fault]
    path = make(tmp_path)
    before = entries(tmp_path)
    assert_refused(neuraxis("hemorrhage", path, tmp_path / "out", "--model", model), code, words)
    assert entries(tmp_path) == before


def test_of_two_series_one_can_be_named(model, tmp_path):
    folder = two_series(tmp_path)
    choices = json.loads(neuraxis("hemorrhage", folder, tmp_path / "out", "--model", model, "--json").stdout)["choices"]
    assert len(choices) == 2
    done = neuraxis("hemorrhage", folder, tmp_path / "out", "--model", model, "--series", choices[1]["key"])
    assert done.returncode == 0 and (tmp_path / "out" / "report.html").is_file(), done.stderr


def test_a_localizer_among_the_slices_is_left_out(model, tmp_path):
    """Not a fault of the scan: the result is that of the series without its localizer."""
    measured = []
    for name in ("plain", "localizer"):
        make = dicom_series.localizer_inside if name == "localizer" else lambda f: dicom_series.save(
            dicom_series.series(), f
        )
        make(tmp_path / name)
        done = neuraxis("hemorrhage", tmp_path / name, tmp_path / f"{name} out", "--model", model, "--json")
        assert done.returncode == 0, done.stderr
        measured.append(json.loads(done.stdout)["measurements"])
    assert measured[0] == measured[1]


def test_images_from_slicer_are_refused_as_files_are(client, model):
    for make, words in IMAGES.values():
        handle = client.run(client.job("hemorrhage", {"ct": changed(make())}, str(model)))
        with pytest.raises(InputError, match=words):
            client.wait(handle, timeout=120)


# -- the model ------------------------------------------------------------------------------------------------


def unreadable(good: Path, path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def pickled(good: Path, path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(3)}, path)


def cut_short(good: Path, path: Path) -> None:
    path.write_bytes(good.read_bytes()[:-1000])


def altered(good: Path, path: Path) -> None:
    data = bytearray(good.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def of_another_task(good: Path, path: Path) -> None:
    write_untrained_model(path, task="stroke")


MODELS = {
    "unreadable": (unreadable, "not a model file"),
    "pickle": (pickled, "pickle"),
    "cut short": (cut_short, "cut short"),
    "hash does not match": (altered, "damaged or was altered"),
    "of another task": (of_another_task, "made for the task 'stroke'"),
    "absent": (lambda good, path: None, "no model file"),
}


@pytest.mark.parametrize("fault", MODELS)
def test_model_that_cannot_be_used(fault, model, scan, tmp_path):
    make, words = MODELS[fault]
    make(model, tmp_path / "bad.safetensors")
    before = entries(tmp_path)
    done = neuraxis("hemorrhage", scan, tmp_path / "out", "--model", tmp_path / "bad.safetensors")
    assert_refused(done, 6, words)
    assert entries(tmp_path) == before


@pytest.mark.parametrize("package", ["torch", "safetensors", "pydicom", "jinja2"])
def test_package_that_is_absent(package, model, scan, tmp_path):
    source = dicom_series.save(dicom_series.series(), tmp_path / "dicom") if package == "pydicom" else scan
    before = entries(tmp_path)
    done = neuraxis_process("hemorrhage", source, tmp_path / "out", "--model", model, TEST_ABSENT=package)
    assert_refused(done, 8, f"'{package}' is not installed")
    assert entries(tmp_path) == before
