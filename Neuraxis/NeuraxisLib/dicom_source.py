"""The DICOM images that a result was made from, so that what is written as DICOM can refer to them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, TM

from NeuraxisLib.dicom_headers import SliceHeader, scan_folder
from NeuraxisLib.dicom_series import Series, group_series, normal_of
from NeuraxisLib.errors import GeometryError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

#: Cosine between normals from which slices are parallel (0.6 degrees).
_PARALLEL = 0.99995
#: How far outside the series' slices those of the result may lie, in mm.
_MARGIN_MM = 5.0
#: What every DICOM image has, if only empty.
_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
          "StudyTime", "ReferringPhysicianName")  # fmt: skip
_SEXES = ("", "M", "F", "O")
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def source_images(folder: str | os.PathLike, volume: Volume, progress: Progress | None = None) -> list[Dataset]:
    """Headers (without pixels) of the series under a folder whose slices are those of a volume, one for each place.

    Args:
        folder: searched with its subfolders.
        volume: on the grid of the series that is looked for.
        progress: told how far reading is; may cancel.

    Raises:
        InputError: no DICOM images there.
        GeometryError: no series whose slices lie where those of the volume do.
    """
    folder = Path(folder)
    fits: list[tuple[float, int, Series]] = []
    for index, series in enumerate(group_series(scan_folder(folder, progress or Progress()).headers)):
        distance = _distance_mm(series, volume)
        if distance is not None:
            fits.append((round(distance, 1), index, series))
    if not fits:
        raise GeometryError(
            f"No series in '{folder.name}' has its slices where those of the result lie; choose the DICOM folder that "
            "the result was made from."
        )
    chosen = min(fits, key=lambda fit: fit[:2])[2]
    places = {tuple(np.round(header.position, 1)): header for header in reversed(chosen.headers)}
    headers = [chosen.headers[0]] if chosen.headers[0].frames > 1 else sorted(places.values(), key=_height)
    return images_of(headers)


def images_of(headers: Sequence[SliceHeader]) -> list[Dataset]:
    """Data sets, without pixels, of the files that slices lie in, in their order; all in one frame of reference."""
    images = [_header(path) for path in dict.fromkeys(header.path for header in headers)]
    if not all(image.get("FrameOfReferenceUID") for image in images):  # old files; their places agree all the same
        made_up = generate_uid()
        for image in images:
            image.FrameOfReferenceUID = made_up
    return images


def _distance_mm(series: Series, volume: Volume) -> float | None:
    """Mean distance of the volume's slices from the nearest image of a series; None if they are no slices of it."""
    headers = [header for header in series.headers if header.position is not None]
    normal = normal_of(series.headers[0])
    if not headers or normal is None or series.info.excluded in ("localizer", "screenshot"):
        return None
    normal = normal * _LPS_TO_RAS
    if abs(normal @ volume.normal_ras) < _PARALLEL:
        return None
    there = np.array([header.position for header in headers]) * _LPS_TO_RAS @ normal
    here = volume.origins_ras @ normal
    if here.min() < there.min() - _MARGIN_MM or here.max() > there.max() + _MARGIN_MM:
        return None
    return float(np.abs(here[:, None] - there).min(axis=1).mean())


def _height(header: SliceHeader) -> float:
    return float(np.dot(header.position, normal_of(header)))


def _header(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        for word in _EMPTY:
            if word not in dataset:
                setattr(dataset, word, "")
        _make_conform(dataset)
    return dataset


def _make_conform(dataset: Dataset) -> None:
    """Say what old or careless devices wrote as the standard has it, as writers refuse it otherwise.

    What says nothing in the standard's terms stays empty; nothing is made up.
    """
    if str(dataset.PatientSex) not in _SEXES:
        dataset.PatientSex = ""
    for word, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        if not _is_valid(kind, str(dataset[word].value or "")):
            plain = str(dataset[word].value).replace(":", "")
            setattr(dataset, word, plain if _is_valid(kind, plain) else "")
    sets = dataset.get("SpecificCharacterSet")
    if isinstance(sets, MultiValue):  # an empty first one is the default one by another name
        dataset.SpecificCharacterSet = [one or "ISO 2022 IR 6" for one in sets]


def _is_valid(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
