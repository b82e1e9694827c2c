"""Studies of a simulated archive that are broken, each in its own way, with the sentence that it must get."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK

from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from Testing import dicom_series
from Testing.archive_studies import (
    Picture,
    Study,
    as_dicom,
    as_file,
    images_of,
    perfusion,
    phantom,
    real_head,
    spine,
)

Rng = np.random.Generator


@dataclass(frozen=True)
class Fault:
    """A way to be broken.

    Attributes:
        kind: in words.
        write: called with the path of the study without suffix and a random generator.
        sentence: pattern of the sentence that the study must get.
    """

    kind: str
    write: Callable[[Path, Rng], None]
    sentence: str


def write_broken(task: str, number: int, place: Path, rng: Rng) -> Study:
    """Write the number-th broken study of a task; ``place`` is its path without suffix."""
    fault = FAULTS[task][number % len(FAULTS[task])]
    fault.write(place, rng)
    return Study(task, place.name, fault.kind, sentence=fault.sentence)


# -- files ----------------------------------------------------------------------------------------------------


def _beside(place: Path, suffix: str) -> Path:
    return place.with_name(place.name + suffix)


def _cut(picture: Callable[[Rng], Picture], suffix: str) -> Callable[[Path, Rng], None]:
    """A good file that lost its end."""

    def write(place: Path, rng: Rng) -> None:
        as_file(suffix)(picture(rng).volume, place)
        path = _beside(place, suffix)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * rng.uniform(0.3, 0.9))])

    return write


def _no_bytes(place: Path, rng: Rng) -> None:
    _beside(place, ".nii.gz").write_bytes(b"")


def _no_image(place: Path, rng: Rng) -> None:
    _beside(place, ".nii.gz").write_text("Sorry, this scan was moved to another archive.\n")


def _broken_header(place: Path, rng: Rng) -> None:
    as_file(".nrrd")(real_head(rng).volume, place)
    path = _beside(place, ".nrrd")
    path.write_bytes(path.read_bytes().replace(b"sizes:", b"s!zes:", 1))


def _changed(
    picture: Callable[[Rng], Picture], change: Callable[[np.ndarray, Rng], np.ndarray], suffix: str = ".nrrd"
) -> Callable[[Path, Rng], None]:
    """A file with other voxels on the grid of a good one."""

    def write(place: Path, rng: Rng) -> None:
        volume = picture(rng).volume
        as_file(suffix)(replace(volume, array=change(volume.array, rng)), place)

    return write


def _with_nan(array: np.ndarray, rng: Rng) -> np.ndarray:
    array = array.astype(np.float32)
    array[rng.integers(len(array)), 5, 6:8] = np.nan
    return array


def _without_head(array: np.ndarray, rng: Rng) -> np.ndarray:
    empty = np.full(array.shape, -1000, np.int16)
    empty[:, -20:-16] = 300  # the table
    return empty


def _mr_values(array: np.ndarray, rng: Rng) -> np.ndarray:
    return np.where(array > -500, rng.uniform(100, 1500, array.shape), 0).astype(np.int16)


def _one_slice(picture: Callable[[Rng], Picture]) -> Callable[[Path, Rng], None]:
    """A file of one slice, which knows of no third dimension."""

    def write(place: Path, rng: Rng) -> None:
        array = picture(rng).volume.array
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array[len(array) // 2]), str(_beside(place, ".nrrd")))

    return write


def _axial(place: Path, rng: Rng) -> None:
    """A spine MR whose header says that it was taken in thick axial slices."""
    volume = spine(rng).volume
    write_volume(Volume(volume.array, np.diag([-0.9, -0.9, 4.0, 1.0])), _beside(place, ".nii.gz"))


def _one_frame(place: Path, rng: Rng) -> None:
    volume = perfusion(rng).volume
    write_volume(Volume(volume.array[0], volume.ijk_to_ras, "HU"), _beside(place, ".nii.gz"))


def _few_frames(place: Path, rng: Rng) -> None:
    volume = perfusion(rng).volume
    few = replace(volume, array=volume.array[:4], frame_times_s=volume.frame_times_s[:4])
    write_volume(few, _beside(place, ".nii.gz"))


# -- DICOM ----------------------------------------------------------------------------------------------------


def _images(picture: Callable[[Rng], Picture], change: Callable[[list], list]) -> Callable[[Path, Rng], None]:
    """A DICOM series in which something is changed."""

    def write(place: Path, rng: Rng) -> None:
        dicom_series.save(change(images_of(picture(rng).volume)), place)

    return write


def _set(images: list, index: int | None = None, **elements) -> list:
    """Set elements of one image or of all; None deletes."""
    for one in images if index is None else [images[index]]:
        for word, value in elements.items():
            if value is None:
                delattr(one, word)
            else:
                setattr(one, word, value)
    return images


def _twice(images: list) -> list:
    """One place twice, with other pixels."""
    again = copy.deepcopy(images[12])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = dicom_series.new_uid()
    again.PixelData = np.roll(np.frombuffer(again.PixelData, "<i2"), 7).tobytes()
    return [*images, again]


def _scouts(images: list) -> list:
    return _set(images[:2], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


def _one_file_of_no_bytes(place: Path, rng: Rng) -> None:
    place.mkdir()
    (place / "0001.dcm").write_bytes(b"")


def _file_cut(place: Path, rng: Rng) -> None:
    as_dicom(phantom(rng).volume, place)
    path = place / "0012.dcm"
    path.write_bytes(path.read_bytes()[:-3000])


#: task -> its faults, taken in turn.
FAULTS = {
    "hemorrhage": (
        Fault("one slice missing (DICOM)", _images(phantom, lambda images: images[:10] + images[11:]),
              "one slice is missing between"),
        Fault("file cut short (NIfTI)", _cut(real_head, ".nii.gz"), "is damaged or cut short"),
        Fault("two patients in one series", _images(phantom, lambda images: _set(images, 9, PatientID="OTHER")),
              "mixes patients"),
        Fault("localizers only", _images(phantom, _scouts), r"No series suits the task.*\(localizer\)"),
        Fault("corrupt NRRD header", _broken_header, "is damaged or cut short"),
        Fault("CT without a head", _changed(phantom, _without_head), "There is no brain in view"),
        Fault("file of no bytes", _no_bytes, "is not a NIfTI image"),
        Fault("empty folder", lambda place, rng: place.mkdir(), "is empty"),
        Fault("MR in place of CT (DICOM)", _images(spine, list), r"No series suits the task.*\(MR\)"),
        Fault("voxels that are no number", _changed(real_head, _with_nan), "2 voxels that are not a number"),
        Fault("two-dimensional image", _one_slice(real_head), "is a two-dimensional image"),
        Fault("label map in place of CT", _changed(phantom, lambda a, rng: (a > 50).astype(np.uint8)),
              "not a head CT in Hounsfield units"),
        Fault("DICOM files of no bytes", _one_file_of_no_bytes, r"'0001.dcm' cannot be read as DICOM"),
        Fault("DICOM image cut short", _file_cut, r"'0012.dcm' is cut short"),
        Fault("one place twice (DICOM)", _images(phantom, _twice), "25 images at 24 places"),
        Fault("MR values in a CT file", _changed(phantom, _mr_values), "not a head CT in Hounsfield units"),
        Fault("text in place of an image", _no_image, "is not a NIfTI image"),
    ),
    "stroke": (
        Fault("frames without times (DICOM)",
              _images(perfusion, lambda images: _set(images, AcquisitionDate=None, AcquisitionTime=None)),
              "does not say when its images were taken"),
        Fault("file cut short (4-D NIfTI)", _cut(perfusion, ".nii.gz"), "is damaged or cut short"),
        Fault("one volume in place of frames", _one_frame, "single three-dimensional image"),
        Fault("slices missing in all frames (DICOM)",
              _images(perfusion, lambda images: [one for n, one in enumerate(images) if n % 4 != 1]), "missing"),
        Fault("four frames only", _few_frames, "has 4 frames where perfusion needs at least"),
        Fault("no HU (rescale lost)", _changed(perfusion, lambda a, rng: np.maximum(a + 1024, 0), ".nii.gz"),
              "does not hold HU"),
    ),
    "discs": (
        Fault("CT in place of MR", _changed(real_head, lambda a, rng: a), "The image is a CT"),
        Fault("voxels that are no number", _changed(spine, _with_nan), "2 voxels that are not a number"),
        Fault("two-dimensional image", _one_slice(spine), "is a two-dimensional image"),
        Fault("label map in place of MR", _changed(spine, lambda a, rng: (a // 90).astype(np.uint8)), "as a label map"),
        Fault("upside down in its header", _changed(spine, lambda a, rng: a[:, :, ::-1].copy()),
              "lies upside down in the image"),
        Fault("noise without a spine", _changed(spine, lambda a, rng: rng.integers(0, 256, a.shape, np.uint8)),
              "There is no spine in view"),
        Fault("head CT in DICOM", _images(phantom, list), r"No series suits the task.*\(CT\)"),
        Fault("axial slices", _axial, "was acquired axially"),
        Fault("file cut short (NRRD)", _cut(spine, ".nrrd"), "is damaged or cut short"),
    ),
}  # fmt: skip
