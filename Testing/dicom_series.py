"""DICOM series with known faults, for tests: a head phantom with a lesion of exactly known volume.

The phantom is a formula in patient space (LPS mm), sampled where each slice lies, so that a tilted, turned or
unevenly spaced series shows the same anatomy. Patient fields hold a canary that must never come out again.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

#: Semi-axes (mm, LPS) of the lesion; a fresh clot.
LESION_RADII_MM = (18.0, 16.5, 24.0)
#: Analytic volume of the lesion.
LESION_ML = 4 / 3 * np.pi * np.prod(LESION_RADII_MM) / 1000  # 29.86
LESION_CENTRE_LPS = np.array([20.0, 5.0, 12.0])
LESION_HU, BRAIN_HU, SKULL_HU, AIR_HU = 75, 33, 900, -1000
CANARY = "CANARYNAME"
MATRIX, PIXEL_MM = 128, 1.7
#: Slice heights of a short series, for tests of what does not depend on the geometry.
SPARSE_MM = np.arange(-90.0, 90.1, 10.0)


def phantom_hu(points_lps: np.ndarray) -> np.ndarray:
    """HU of the phantom at (..., 3) LPS points in mm: skull and brain ellipsoids and the lesion."""

    def inside(radii, centre=(0, 0, 0)):
        return (((points_lps - centre) / radii) ** 2).sum(axis=-1) <= 1

    hu = np.full(points_lps.shape[:-1], AIR_HU, dtype=np.int16)
    hu[inside((82, 100, 92))] = SKULL_HU
    hu[inside((75, 93, 85))] = BRAIN_HU
    hu[inside(LESION_RADII_MM, LESION_CENTRE_LPS)] = LESION_HU
    return hu


def lesion_ml(volume) -> float:
    """The lesion's volume as measured on a Volume: voxels at its HU, each slice with its own voxel volume."""
    voxels = (np.abs(volume.array.astype(float) - LESION_HU) < 15).sum(axis=(1, 2))
    return float((voxels * volume.voxel_volumes_ml).sum())


def image(
    position_lps: tuple[float, float, float],
    row=(1.0, 0.0, 0.0),
    column=(0.0, 1.0, 0.0),
    *,
    series_uid: str,
    number: int,
    intercept: int = -1024,
    slope: float = 1.0,
    thickness_mm: float = 5.0,
    contents: Callable[[np.ndarray], np.ndarray] = phantom_hu,
    matrix: int = MATRIX,
    pixel_mm: float = PIXEL_MM,
) -> FileDataset:
    """One CT image of the phantom, 16-bit signed, uncompressed."""
    offsets = np.arange(matrix) * pixel_mm
    points = np.array(position_lps) + offsets[None, :, None] * np.array(row) + offsets[:, None, None] * np.array(column)
    stored = np.rint((contents(points) - intercept) / slope).astype("<i2")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = f"{CANARY}^Jürgen", CANARY + "ID", "19010101"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = series_uid.rsplit(".", 1)[0], series_uid
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesDescription, dataset.SeriesNumber, dataset.InstanceNumber = "HEAD 5mm", 2, number
    dataset.ConvolutionKernel, dataset.AcquisitionNumber = "H31s", 1
    dataset.PixelSpacing, dataset.SliceThickness = [pixel_mm, pixel_mm], thickness_mm
    dataset.ImagePositionPatient = [float(f"{x:.6f}") for x in position_lps]
    dataset.ImageOrientationPatient = [float(f"{x:.8f}") for x in (*row, *column)]
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.Rows = dataset.Columns = matrix
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation, dataset.SamplesPerPixel = 1, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = stored.tobytes()
    return dataset


def new_uid() -> str:
    """A fresh series UID."""
    return str(generate_uid())


def series(
    heights_mm=None,
    tilt_deg: float = 0.0,
    rotation: np.ndarray | None = None,
    uid: str | None = None,
    **options,
) -> list[FileDataset]:
    """A head CT of the phantom, one image per table height.

    Args:
        heights_mm: where along z the slice centres lie; every 5 mm over the head by default.
        tilt_deg: gantry tilt about the x axis; the table still moves along z, so the stack is sheared.
        rotation: 3x3 rotation of the whole stack (an oblique head is an oblique stack through an upright head).
        options: passed to :func:`image`.
    """
    heights = np.arange(-90.0, 90.1, 5.0) if heights_mm is None else np.asarray(heights_mm, dtype=float)
    angle = np.radians(tilt_deg)
    row, column = np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(angle), -np.sin(angle)])
    rotation = np.eye(3) if rotation is None else rotation
    half = (options.get("matrix", MATRIX) - 1) / 2 * options.get("pixel_mm", PIXEL_MM)
    uid = uid or new_uid()
    images = []
    for number, height in enumerate(heights, start=1):
        corner = np.array([0.0, 0.0, height]) - half * (row + column)
        images.append(
            image(tuple(rotation @ corner), rotation @ row, rotation @ column, series_uid=uid, number=number, **options)
        )
    return images


def save(images: list[Dataset], folder: Path) -> Path:
    """Write images as ``0001.dcm`` ... in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    start = len(list(folder.glob("*.dcm"))) + 1
    for index, dataset in enumerate(images, start=start):
        dataset.save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)
    return folder


def change(folder: Path, index: int | None = None, **elements) -> Path:
    """Set elements in one file of a folder (or in all); None deletes the element."""
    paths = sorted(folder.glob("*.dcm"))
    for path in paths if index is None else [paths[index]]:
        dataset = dcmread(path)
        for word, value in elements.items():
            if value is None:
                del dataset[word]
            else:
                setattr(dataset, word, value)
        dataset.save_as(path)
    return folder


def one_sentence(error) -> str:
    """The message of a caught error, once it is sure that it is one sentence and names neither patient nor folder."""
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and ". " not in text
    assert CANARY not in text and os.sep not in text
    return text


# -- the faulty and the odd series -------------------------------------------------------------------------------


def one_missing(folder: Path) -> Path:
    """The slice through the lesion's middle is absent."""
    images = series()
    return save(images[:20] + images[21:], folder)


def five_missing(folder: Path) -> Path:
    """Five slices in a row through the lesion are absent."""
    images = series()
    return save(images[:18] + images[23:], folder)


def duplicate_position(folder: Path) -> Path:
    """One place twice, with different pixels (a repeated slice after motion)."""
    images = series()
    again = copy.deepcopy(images[20])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = new_uid()
    again.PixelData = np.roll(np.frombuffer(again.PixelData, "<i2"), 3).tobytes()
    return save([*images, again], folder)


def copied_file(folder: Path) -> Path:
    """One image file twice, equal to the last byte."""
    images = series()
    return save([*images, copy.deepcopy(images[20])], folder)


def gantry_tilt(folder: Path) -> Path:
    """Gantry tilted by 20 degrees, table along z."""
    return save(series(tilt_deg=20.0), folder)


def mixed_spacing(folder: Path) -> Path:
    """5 mm steps through the skull base, 10 mm above; the change lies within the lesion."""
    return save(series(np.concatenate([np.arange(-90, 10, 5.0), np.arange(10, 91, 10.0)])), folder)


def localizer_inside(folder: Path) -> Path:
    """A lateral scout with the same series UID."""
    images = series()
    scout = image((0, -100, 100), (0, 1, 0), (0, 0, -1), series_uid=images[0].SeriesInstanceUID, number=0)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return save([scout, *images], folder)


def lone_sagittal_inside(folder: Path) -> Path:
    """A lateral view with the same series UID that does not say it is a scout."""
    images = series()
    scout = image((0, -100, 100), (0, 1, 0), (0, 0, -1), series_uid=images[0].SeriesInstanceUID, number=0)
    return save([scout, *images], folder)


def truncated_file(folder: Path) -> Path:
    """One file cut off in its pixels."""
    save(series(), folder)
    path = folder / "0021.dcm"
    path.write_bytes(path.read_bytes()[:-5000])
    return folder


def truncated_header(folder: Path) -> Path:
    """One file cut off in its header."""
    save(series(), folder)
    path = folder / "0021.dcm"
    path.write_bytes(path.read_bytes()[:700])
    return folder


def corrupt_header(folder: Path) -> Path:
    """One file with noise over its first data elements."""
    save(series(), folder)
    path = folder / "0021.dcm"
    data = bytearray(path.read_bytes())
    data[128:600] = np.random.default_rng(1).integers(0, 256, 472, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return folder


def corrupt_elements(folder: Path) -> Path:
    """One file that still has its mark, with noise further into the header."""
    save(series(), folder)
    path = folder / "0021.dcm"
    data = bytearray(path.read_bytes())
    data[400:700] = np.random.default_rng(2).integers(0, 256, 300, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return folder


def two_time_points(folder: Path) -> Path:
    """Every place twice, ten minutes apart, with the same series UID."""
    first = series()
    second = series(uid=first[0].SeriesInstanceUID, contents=lambda p: phantom_hu(p - [0.0, 4.0, 0.0]))
    for dataset in second:
        dataset.AcquisitionNumber = 2
    return save([*first, *second], folder)


def jitter(folder: Path) -> Path:
    """Positions off by up to 0.3 mm, as after motion of the table."""
    heights = np.arange(-90.0, 90.1, 5.0)
    return save(series(heights + np.random.default_rng(0).uniform(-0.3, 0.3, len(heights))), folder)


def single_slice(folder: Path) -> Path:
    """One image."""
    return save(series([10.0]), folder)


def per_slice_intercept(folder: Path) -> Path:
    """Every slice with its own rescale intercept."""
    uid = new_uid()
    images = [series([z], uid=uid, intercept=-1024 - 10 * k)[0] for k, z in enumerate(np.arange(-90.0, 90.1, 5.0))]
    return save(images, folder)


def reversed_numbers(folder: Path) -> Path:
    """Instance numbers that run against the positions."""
    images = series()
    for number, dataset in enumerate(reversed(images), start=1):
        dataset.InstanceNumber = number
    return save(images, folder)


def descending(folder: Path) -> Path:
    """Files from the vertex down."""
    return save(series(np.arange(90.0, -90.1, -5.0)), folder)


def padding(folder: Path) -> Path:
    """-3024 HU outside the round field of view, declared as padding."""

    def contents(points):
        hu = phantom_hu(points).astype(np.int16)
        hu[np.hypot(points[..., 0], points[..., 1]) > 105] = -3024
        return hu

    images = series(contents=contents, intercept=-1024)
    for dataset in images:
        dataset.add_new("PixelPaddingValue", "SS", -2000)
    return save(images, folder)


def oblique_head(folder: Path) -> Path:
    """The stack turned by 25, 15 and 10 degrees about x, y and z."""
    x, y, z = np.radians([25.0, 15.0, 10.0])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return save(series(rotation=about_z @ about_y @ about_x), folder)


def enhanced(folder: Path, heights_mm=None, compress: bool = False) -> Path:
    """The same scan as one enhanced multi-frame CT file, RLE compressed on request."""
    images = series(heights_mm)
    dataset = copy.deepcopy(images[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2.1")
    for word in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
                 "RescaleIntercept", "ConvolutionKernel"):  # fmt: skip
        del dataset[word]
    dataset.NumberOfFrames = len(images)
    shared = _item(
        PixelMeasuresSequence=_item(PixelSpacing=images[0].PixelSpacing, SliceThickness=5.0),
        PlaneOrientationSequence=_item(ImageOrientationPatient=images[0].ImageOrientationPatient),
        PixelValueTransformationSequence=_item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"),
        CTReconstructionSequence=_item(ConvolutionKernel="H31s"),
    )
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        _item(PlanePositionSequence=_item(ImagePositionPatient=one.ImagePositionPatient)) for one in images
    )
    dataset.PixelData = b"".join(one.PixelData for one in images)
    if compress:
        dataset.compress(RLELossless)
    return save([dataset], folder)


def _item(**elements) -> Dataset:
    """A data set of these elements; nested data sets become sequences of one item."""
    dataset = Dataset()
    for word, value in elements.items():
        setattr(dataset, word, Sequence([value]) if isinstance(value, Dataset) else value)
    return dataset


# -- transfer syntaxes -------------------------------------------------------------------------------------------


def in_syntax(folder: Path, syntax: str) -> Path:
    """Slices 10 mm apart in another transfer syntax, named as in :func:`save_in`."""
    folder.mkdir(parents=True)
    for index, dataset in enumerate(series(SPARSE_MM)):
        save_in(dataset, folder / f"{index:04d}.dcm", syntax)
    return folder


def save_in(dataset: FileDataset, path: Path, syntax: str) -> None:
    """Write one image in a transfer syntax: a UID of an uncompressed one, RLE or JPEG-LS, ``JPEG2000`` or ``JPEG``."""
    if syntax in ("JPEG2000", "JPEG"):
        _compress_with_itk(dataset, syntax, path)
    elif syntax in (RLELossless, JPEGLSLossless):
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset["PixelData"].VR = "OW"
        big = syntax == ExplicitVRBigEndian  # pydicom writes it only without its checks
        how = {"force_encoding": True} if big else {"enforce_file_format": True}
        dcmwrite(path, dataset, implicit_vr=UID(syntax).is_implicit_VR, little_endian=not big, **how)


def without_preamble(folder: Path, syntax: str) -> Path:
    """Slices 10 mm apart as bare data sets: no preamble, no meta header, no suffix."""
    in_syntax(folder, syntax)
    for path in list(folder.iterdir()):
        data = path.read_bytes()
        path.with_suffix("").write_bytes(data[144 + int.from_bytes(data[140:144], "little") :])
        path.unlink()
    return folder


def _compress_with_itk(dataset: FileDataset, compressor: str, path: Path) -> None:
    """ITK has the encoders but not the header: let it encode the pixels, and keep the header."""
    stored = np.frombuffer(dataset.PixelData, "<i2").reshape(1, dataset.Rows, dataset.Columns)
    writer = SimpleITK.ImageFileWriter()
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.SetFileName(str(path))
    writer.Execute(SimpleITK.GetImageFromArray(stored))
    encoded = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
    dataset.PixelData = encoded.PixelData
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
