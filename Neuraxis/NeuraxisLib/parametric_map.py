"""DICOM parametric maps: measured values as floating-point numbers with coded unit and quantity, written and read.

A parametric map (DICOM supplement 172) is one multi-frame file. Every frame carries its own position, so that
tilted and unevenly spaced slices need no resampling. Values that are not there are stored as NaN.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from NeuraxisLib import __version__
from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.dicom_export_header import MANUFACTURER, require_highdicom, with_notice
from NeuraxisLib.dicom_geometry import lay_out
from NeuraxisLib.dicom_headers import read_headers
from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_SHORT, _LONG = 16, 64
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Quantity:
    """What the values of a map are.

    Attributes:
        title: in words, at most 64 characters.
        label: a short name, at most 16 characters.
        unit_code: UCUM code of the unit, such as ``"ml/(100.g.min)"``; ``"1"`` for none.
        unit: the unit as it is shown.
        code: (value, scheme, meaning) of the quantity, or None.
    """

    title: str
    label: str
    unit_code: str = "1"
    unit: str = "no units"
    code: tuple[str, str, str] | None = None


# -- writing --------------------------------------------------------------------------------------------------


def unknown_source(volume: Volume) -> list[Dataset]:
    """A stand-in for the source images of a map that was not made from DICOM: a new, nameless examination.

    Give the same one to all maps of a result, so that they belong to one study and one frame of reference.
    """
    now, source = datetime.now(), Dataset()
    for word in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                 "ReferringPhysicianName"):  # fmt: skip
        setattr(source, word, "")
    source.StudyDate, source.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    source.SOPClassUID, source.Modality = "1.2.840.10008.5.1.4.1.1.2", "CT"
    for word in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(source, word, generate_uid())
    source.Rows, source.Columns = volume.array.shape[1:]
    orientation, spacing, positions = planes_lps(volume)
    source.ImageOrientationPatient, source.PixelSpacing = list(orientation), list(spacing)
    source.ImagePositionPatient, source.SliceThickness = list(positions[0]), volume.spacing_mm[2]
    source.is_stand_in = True  # an attribute of the object, no element of the data set
    return [source]


def write_parametric_map(
    volume: Volume,
    path: str | os.PathLike,
    quantity: Quantity,
    source_images: Sequence[Dataset] | None = None,
    window: tuple[float, float] | None = None,
    series_number: int = 1,
) -> Path:
    """Write a map as one DICOM parametric map of its own series, whole or not at all.

    Args:
        volume: float (k, j, i), NaN where there is no value.
        path: of the file.
        quantity: what the values are.
        source_images: single-frame images of the series that the map was made from, one for each of its places; the map
            takes their patient, study and frame of reference, and refers to them. None makes up a nameless study.
        window: lowest and highest value to show; None takes those of the map.
        series_number: of the new series.

    Raises:
        DependencyError: the package highdicom is not installed.
        GeometryError: rows and columns that are not at right angles.
        OutputError: the file cannot be written.
    """
    volume.require_perpendicular_rows()
    images = list(source_images) if source_images else unknown_source(volume)
    array = np.ascontiguousarray(volume.array, np.float32)
    made = _parametric_map(volume, array, quantity, images, window, series_number)
    made.SeriesDescription = with_notice(quantity.title)
    for word in ("ContentCreatorName", "Laterality"):  # must be there, may be empty
        if word not in made:
            setattr(made, word, "")
    if getattr(images[0], "is_stand_in", False):
        _without_references(made)
    path = Path(path)
    with atomic_write(path) as temporary:
        made.save_as(temporary, enforce_file_format=True)
    return path


def _parametric_map(volume, array, quantity, images, window, series_number: int) -> Dataset:
    hd = require_highdicom()
    known = array[np.isfinite(array)]
    extent = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    low, high = window or extent
    orientation, spacing, positions = planes_lps(volume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd characters in the source's texts, which are kept as they are
        return hd.pm.ParametricMap(
            source_images=images,
            pixel_array=array,
            series_instance_uid=generate_uid(),
            series_number=series_number,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=__version__,
            device_serial_number="1",
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[_mapping(quantity, extent)],
            voi_lut_transformations=[
                hd.VOILUTTransformation(window_center=(low + high) / 2, window_width=max(high - low, 1e-3))
            ],
            content_label=_code_string(quantity.label),
            content_description=quantity.title[:_LONG],
            content_qualification="RESEARCH",
            image_flavor="VOLUME",
            derived_pixel_contrast="QUANTITY",
            pixel_measures=hd.PixelMeasuresSequence(
                pixel_spacing=spacing,
                slice_thickness=volume.spacing_mm[2],
                spacing_between_slices=volume.spacing_mm[2] if volume.is_uniform else None,
            ),
            plane_orientation=hd.PlaneOrientationSequence("PATIENT", orientation),
            plane_positions=[hd.PlanePositionSequence("PATIENT", place) for place in positions],
        )


def _mapping(quantity: Quantity, extent: tuple[float, float]) -> Any:
    """What the stored numbers mean: the quantity itself, whose values lie within ``extent``."""
    from pydicom.sr.coding import Code

    return require_highdicom().pm.RealWorldValueMapping(
        lut_label=quantity.label[:_SHORT],
        lut_explanation=quantity.title[:_LONG],
        unit=Code(quantity.unit_code, "UCUM", quantity.unit),
        value_range=extent,
        slope=1.0,
        intercept=0.0,
        quantity_definition=None if quantity.code is None else Code(*quantity.code),
    )


def planes_lps(volume: Volume) -> tuple[tuple[float, ...], tuple[float, float], np.ndarray]:
    """(orientation of rows and columns, spacing between rows and columns in mm, (K, 3) positions in mm) for DICOM."""
    row, column = (_LPS_TO_RAS * step for step in (volume.column_step_ras, volume.row_step_ras))
    between_columns, between_rows = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    orientation = tuple(float(x) for x in (*(row / between_columns), *(column / between_rows)))
    return orientation, (between_rows, between_columns), volume.origins_ras * _LPS_TO_RAS


def _code_string(text: str) -> str:
    """A DICOM code string: capitals, digits, blanks and underscores."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text.upper())[:_SHORT]


def _without_references(dataset: Dataset) -> None:
    """Take out what refers to source images that do not exist."""
    elsewhere = "StudiesContainingOtherReferencedInstancesSequence"
    for word in ("ReferencedSeriesSequence", "SourceImageSequence", elsewhere):
        if word in dataset:
            del dataset[word]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence


# -- reading --------------------------------------------------------------------------------------------------


def read_parametric_map(path: str | os.PathLike) -> tuple[Volume, Quantity]:
    """A DICOM parametric map as real-world values: float32 (k, j, i), slices sorted by position.

    Raises:
        InputError: not a parametric map, damaged, or without a real-world value mapping.
        GeometryError: frames without positions, or several maps in one file.
    """
    path = Path(path)
    headers = read_headers(path)
    name = f"'{path.name}'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if dataset.get("SOPClassUID") != PARAMETRIC_MAP:
            raise InputError(f"{name} is no parametric map; choose another file.")
        layout = lay_out(headers, lambda *_: False, name, allow_gaps=True)
        try:
            stored = dataset.pixel_array
        except Exception as error:  # damaged streams fail in many ways
            raise InputError(f"{name} is damaged: its pixels cannot be decoded; send it again.") from error
    stored = stored.reshape(-1, dataset.Rows, dataset.Columns)
    planes = [real_world(stored[h.frame], mapping_of(dataset, h.frame), name) for h in layout.headers]
    quantity = quantity_of(mapping_of(dataset, layout.headers[0].frame))
    meta = {"format": "DICOM", "modality": headers[0].modality, "description": headers[0].description,
            "warnings": list(layout.warnings)}  # fmt: skip
    volume = Volume(np.stack(planes), layout.ijk_to_ras, quantity.unit, layout.slice_origins_ras, meta=meta)
    return volume, quantity


def mapping_of(dataset: Dataset, frame: int = 0) -> Dataset | None:
    """The real-world value mapping of a frame, or of a single-frame image; None if there is none."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    holders = [frames[frame]] if frames else []
    for holder in (*holders, *(dataset.get("SharedFunctionalGroupsSequence") or ()), dataset):
        if found := holder.get("RealWorldValueMappingSequence"):
            return found[0]
    return None


def real_world(stored: np.ndarray, mapping: Dataset | None, name: str) -> np.ndarray:
    """Real-world values, float32, of stored ones.

    Raises:
        InputError: no mapping, or one that says nothing.
    """
    if mapping is not None and "RealWorldValueSlope" in mapping:
        slope, intercept = float(mapping.RealWorldValueSlope), float(mapping.get("RealWorldValueIntercept", 0.0))
        return (stored * np.float64(slope) + intercept).astype(np.float32)
    if mapping is not None and mapping.get("RealWorldValueLUTData"):
        table = np.atleast_1d(np.asarray(mapping.RealWorldValueLUTData, np.float32))
        index = stored.astype(int) - int(mapping.RealWorldValueFirstValueMapped)
        inside = (index >= 0) & (index < len(table))
        return np.where(inside, table[np.clip(index, 0, len(table) - 1)], np.float32(np.nan))
    raise InputError(f"{name} does not say what its stored values stand for; export the map again.")


def quantity_of(mapping: Dataset | None) -> Quantity:
    """What a real-world value mapping says that its values are; empty words where it says nothing."""
    if mapping is None:
        return Quantity("", "", "", "")
    units, quantities = mapping.get("MeasurementUnitsCodeSequence"), mapping.get("QuantityDefinitionSequence")
    unit = (str(units[0].get("CodeValue", "")), str(units[0].get("CodeMeaning", ""))) if units else ("", "")
    code = None
    for concept in (entry.get("ConceptCodeSequence") for entry in quantities or ()):
        if concept:
            code = tuple(str(concept[0].get(w, "")) for w in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
    return Quantity(str(mapping.get("LUTExplanation", "")), str(mapping.get("LUTLabel", "")), *unit, code)
