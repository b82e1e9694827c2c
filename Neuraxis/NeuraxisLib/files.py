"""Reading any image a user may bring, and writing volumes, each with an exact position matrix.

Reads NIfTI, NRRD, MetaImage and DICOM; writes NRRD, NIfTI and MetaImage, whole or not at all.
"""

from __future__ import annotations

import gzip
import locale
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import GeometryError, InputError, OutputError
from NeuraxisLib.nifti import read_nifti, write_nifti
from NeuraxisLib.nrrd import write_nrrd
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_checks import check_shape, check_volume

if TYPE_CHECKING:  # who only looks for images, as the help of the command line does, needs no ITK
    import SimpleITK as sitk

__all__ = ["READABLE", "atomic_write", "is_image_file", "read_volume", "write_volume"]

_ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
_NIFTI_SUFFIXES = (".nii", ".nii.gz")
#: Names that hold one whole volume; anything else is tried as DICOM.
READABLE = _NIFTI_SUFFIXES + _ITK_SUFFIXES
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def is_image_file(path: str | os.PathLike) -> bool:
    """Whether the name is that of a volume file (not DICOM)."""
    return Path(path).name.lower().endswith(READABLE)


def read_volume(
    path: str | os.PathLike,
    series: str | None = None,
    dimensions: int = 3,
    allow_gaps: bool = False,
    progress: Progress | None = None,
    allow_nan: bool = False,
) -> Volume:
    """Read one image with its geometry.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a folder of DICOM files, or one DICOM file (then its whole series).
        series: which DICOM series to take: its key, number, UID or description; None chooses (see ``dicom``).
        dimensions: 3 for one image (k, j, i), 4 for a time series (t, k, j, i).
        allow_gaps: measure across missing DICOM slices, with a warning, instead of refusing.
        progress: told how far reading is; may cancel.
        allow_nan: accept voxels that are not a number, as maps have outside the brain.

    Returns:
        A volume whose voxels are as stored (whole numbers stay whole). ``meta["warnings"]`` is a list of sentences.

    Raises:
        InputError: not found, not an image, damaged, wrong number of dimensions, colours, NaN.
        GeometryError: position matrix or spacing missing or unsafe to measure on.
        SeriesChoiceError: several DICOM series would do.
    """
    path, progress = Path(path), progress or Progress()
    if not os.path.exists(path):
        raise InputError(f"'{path.name}' was not found; check the name and the folder.")
    progress(0.0, "Reading the image")
    try:
        if path.is_file() and path.name.lower().endswith(_NIFTI_SUFFIXES):
            volume = read_nifti(path)
        elif path.is_file() and path.name.lower().endswith(_ITK_SUFFIXES):
            volume = _read_itk(path)
        else:
            from NeuraxisLib.dicom import read_series

            volume = read_series(path, series, allow_gaps=allow_gaps, progress=progress)
    except PermissionError as error:
        raise InputError(f"'{path.name}' may not be read by this account; ask for permission or copy it.") from error
    except OSError as error:
        raise InputError(f"'{path.name}' could not be read from its disk; copy it to this computer first.") from error
    except MemoryError as error:
        raise InputError(f"'{path.name}' does not fit in memory; close other programs or crop the image.") from error
    _check_dimensions(volume, dimensions, path.name)
    progress(1.0, "Reading the image")
    return check_volume(volume, path.name, allow_nan)


def _check_dimensions(volume: Volume, dimensions: int, name: str) -> None:
    if volume.array.ndim == 4 and dimensions == 3:
        raise InputError(
            f"'{name}' has {len(volume.array)} time frames, and this task takes one three-dimensional image; choose or "
            "export one of them."
        )
    if volume.array.ndim == 3 and dimensions == 4:
        raise InputError(f"'{name}' is a single three-dimensional image; this task takes a time series.")


def _read_itk(path: Path) -> Volume:
    """NRRD and MetaImage through SimpleITK, which keeps sheared matrices of these formats exactly."""
    import SimpleITK as sitk

    name = path.name
    _check_dimension_count(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with _decimal_points():
            reader.ReadImageInformation()
            size = reader.GetSize()
            _check_itk_header(reader, name)
            check_shape(tuple(size[::-1]), name)
            image = reader.Execute()
    except RuntimeError as error:
        raise _itk_error(error, name) from error
    array = sitk.GetArrayFromImage(image)
    matrix = np.eye(4)
    dimension = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    spacing = np.array(image.GetSpacing())
    if (spacing[:3] <= 0).any() or not np.isfinite(spacing).all():
        raise GeometryError(f"'{name}' has a voxel size of zero or less; export it again.")
    if not np.isfinite(direction).all() or abs(np.linalg.det(direction)) < 1e-3:
        raise GeometryError(f"'{name}' has a position matrix that is singular or not finite; export it again.")
    matrix[:3, :3] = direction * spacing[:3]
    matrix[:3, 3] = image.GetOrigin()[:3]
    frames = np.arange(len(array)) * spacing[3] if array.ndim == 4 else None
    unit = image.GetMetaData("unit") if image.HasMetaDataKey("unit") else ""
    meta = {"format": path.suffix.lstrip(".").upper(), "warnings": []}
    return Volume(array, _LPS_TO_RAS @ matrix, unit=unit, frame_times_s=frames, meta=meta)


def _check_dimension_count(path: Path) -> None:
    """InputError for a MetaImage of absurdly many dimensions, for which ITK takes memory on the stack and crashes."""
    with open(path, "rb") as file:
        found = re.findall(rb"NDims\s*=\s*(-?\w+)", file.read(1 << 14))
    if not all(re.fullmatch(rb"[1-9]", count) for count in found):  # the last one counts, wherever in a line it stands
        raise InputError(f"'{path.name}' is damaged or cut short; copy or export it again.")


@contextmanager
def _decimal_points() -> Iterator[None]:
    """Numbers with a point while ITK reads: under a locale that writes 0,7 it takes 0.7 mm for 0, without an error."""
    before = locale.setlocale(locale.LC_NUMERIC)
    if locale.localeconv()["decimal_point"] == ".":
        yield
        return
    locale.setlocale(locale.LC_NUMERIC, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


def _check_itk_header(reader: sitk.ImageFileReader, name: str) -> None:
    import SimpleITK as sitk

    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if components in (3, 4) and reader.GetPixelIDValue() == sitk.sitkVectorUInt8:
        raise InputError(f"'{name}' holds colours, not measured values; choose the original grey-value image.")
    if components > 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise InputError(f"'{name}' holds several values per voxel; choose an image with one grey value per voxel.")
    if len(size) < 3 or size[2] == 1:
        raise InputError(f"'{name}' is a two-dimensional image; choose a whole series with all its slices.")


def _itk_error(error: RuntimeError, name: str) -> InputError:
    text = str(error)
    if "determinant is 0" in text or "Bad direction" in text or "singular" in text.lower():
        return GeometryError(f"'{name}' has a position matrix that is singular or not finite; export it again.")
    if "spacing" in text.lower() and ("zero" in text.lower() or "negative" in text.lower()):
        return GeometryError(f"'{name}' has a voxel size of zero or less; export it again.")
    if "allocate memory" in text or "bad_alloc" in text:
        return InputError(f"'{name}' does not fit in memory; close other programs or crop the image.")
    if "Unable to determine ImageIO" in text or "no ImageIO" in text:
        return InputError(f"'{name}' is not an image of the kind its name says; choose another file.")
    return InputError(f"'{name}' is damaged or cut short; copy or export it again.")


def write_volume(volume: Volume, path: str | os.PathLike, compress: bool = False, make_regular: bool = False) -> None:
    """Write a volume in the format its name says: ``.nrrd``, ``.nii``, ``.nii.gz`` or ``.mha``.

    Args:
        volume: what to write; whole numbers stay whole, truth values become 0 and 1.
        path: where; an existing file is replaced only when the new one is complete.
        compress: gzip NRRD and MetaImage. Off by default: exchange with a worker is much faster without.
        make_regular: resample unequal slice gaps to equal ones first (see ``Volume.regular``).

    Raises:
        GeometryError: the format cannot hold this geometry (unequal gaps; sheared slices in NIfTI).
        OutputError: unknown format, disk full, folder missing or not writable.
    """
    path, lower = Path(path), Path(path).name.lower()
    if not volume.is_uniform:
        if not make_regular:
            raise GeometryError(f"'{path.name}' cannot hold slices at unequal gaps; resample them to equal gaps first.")
        volume = volume.regular()
    if not lower.endswith((".nrrd", ".mha", *_NIFTI_SUFFIXES)):
        raise OutputError(f"'{path.name}' has no image suffix known here; use .nrrd, .nii.gz or .mha.")
    with atomic_write(path) as temporary:
        if lower.endswith(".mha"):
            _write_itk(volume, temporary, path.name, compress)
            return
        with open(temporary, "wb") as file:
            if lower.endswith(".nrrd"):
                write_nrrd(volume, file, compress)
            elif lower.endswith(".gz"):
                with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=4, mtime=0, filename="") as packed:
                    write_nifti(volume, packed, path.name)
            else:
                write_nifti(volume, file, path.name)


def _write_itk(volume: Volume, path: Path, name: str, compress: bool) -> None:
    import SimpleITK as sitk

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    if array.ndim != 3:
        raise InputError("Only three-dimensional images are written as MetaImage; write NIfTI instead.")
    image = sitk.GetImageFromArray(array)
    lps = _LPS_TO_RAS @ volume.ijk_to_ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=compress)
    except RuntimeError as error:
        raise OutputError(f"'{name}' could not be written; check free space and choose another folder.") from error
    if not compress and path.stat().st_size < array.nbytes:
        raise OutputError(f"'{name}' could not be written: the disk is full; choose another folder.")
