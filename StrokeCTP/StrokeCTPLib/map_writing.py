"""Perfusion maps of a result as DICOM: parametric maps for machines, pictures with a colour bar for people.

Pictures are secondary captures of one series for each map. Range and width of the map stand in private elements, so
that :mod:`StrokeCTPLib.map_dicom` reads the numbers back by the very bar that people see.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.atomic import new_folder
from NeuraxisLib.dicom_export_header import patient_and_study, require_highdicom
from NeuraxisLib.dicom_source import source_images
from NeuraxisLib.errors import InputError, check_choice
from NeuraxisLib.parametric_map import MANUFACTURER, Quantity, planes_lps, unknown_source, write_parametric_map
from NeuraxisLib.result import ScalarMap
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.colour_scales import OWN_SCALE, SCALE_OF, SCALES, colour_map
from StrokeCTPLib.map_dicom_tags import state_range
from StrokeCTPLib.map_names import kind_of
from StrokeCTPLib.map_units import MAP_TITLES, MAP_UNITS

#: What maps are written as.
FORMATS = ("parametric", "rgb")
#: Instead of one scale for all maps, the one that vendors usually take for each.
USUAL = "usual"
_CODES = {
    "cbf": ("113055", "DCM", "Regional Cerebral Blood Flow"),
    "cbv": ("113056", "DCM", "Regional Cerebral Blood Volume"),
    "mtt": ("113052", "DCM", "Mean Transit Time"),
    "tmax": ("113084", "DCM", "Tmax"),
    "ttp": ("113069", "DCM", "Time To Peak"),
    "delay": ("delay", "99NEURAXIS", "Delay of the tissue behind the artery"),
    "mip": ("113078", "DCM", "Maximum intensity projection"),
}
#: Unit as it is shown -> UCUM code.
_UCUM = {
    "mL/100 g/min": "ml/(100.g.min)", "mL/100 g": "ml/(100.g)", "s": "s", "HU": "[hnsf'U]", "mL": "ml", "mm": "mm",
}  # fmt: skip


def export_maps(
    result_folder: str | os.PathLike,
    folder: str | os.PathLike,
    form: str = FORMATS[0],
    source_folder: str | os.PathLike | None = None,
    scale: str = OWN_SCALE,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the maps of a result folder as DICOM, all or none.

    Args:
        result_folder: as a task wrote it.
        folder: a new or empty folder for the DICOM files.
        form: ``"parametric"`` (one file for each map) or ``"rgb"`` (a folder of pictures for each map).
        source_folder: DICOM images that the result was made from: the maps become part of that study and refer to
            them. None makes up a nameless study.
        scale: of the pictures: one of SCALES, or ``"usual"``.
        progress: told how far writing is; may cancel.

    Returns:
        Paths of the files.

    Raises:
        InputError: no result, no maps in it, no such form or scale.
        GeometryError: the source is not what the result was made from.
        OutputError: the folder is not empty or cannot be written to.
        DependencyError: the package highdicom is not installed.
    """
    progress = progress or Progress()
    maps = read_result(result_folder).maps
    if not maps:
        raise InputError(f"The result in '{Path(result_folder).name}' has no maps; compute it with maps.")
    grid = next(iter(maps.values())).volume
    source = source_images(source_folder, grid, progress.part(0.0, 0.3)) if source_folder else None
    return write_maps(maps, folder, form, source, scale, progress.part(0.3, 1.0))


def write_maps(
    maps: Mapping[str, ScalarMap],
    folder: str | os.PathLike,
    form: str = FORMATS[0],
    source: Sequence[Dataset] | None = None,
    scale: str = OWN_SCALE,
    progress: Progress | None = None,
) -> list[Path]:
    """Write maps on one grid as DICOM, all or none; see :func:`export_maps`.

    Args:
        maps: short name -> map; perfusion maps are recognised by name. Where all of them are 0 or NaN there is no
            value.
        source: headers of the images that they were made from, one for each place; None makes up a nameless study.
    """
    if form not in FORMATS:
        raise InputError(f"There is no format '{form}' for maps; choose one of: {', '.join(FORMATS)}.")
    check_choice("colour scale", scale, (*SCALES, USUAL))
    folder, progress = Path(folder), progress or Progress()
    images = list(source) if source else unknown_source(next(iter(maps.values())).volume)
    with new_folder(folder) as partial:
        written: list[Path] = []
        for number, (name, shown) in enumerate(_without_background(maps).items()):
            part = progress.part(number / len(maps), (number + 1) / len(maps))
            part(0.0, f"Writing {name}")
            quantity, series_number = quantity_of_map(name, shown), 9001 + number
            if form == "parametric":
                path = partial / f"{name}.dcm"
                write_parametric_map(shown.volume, path, quantity, images, shown.value_range, series_number)
                written.append(path)
            else:
                used = SCALE_OF.get(kind_of(name) or "", OWN_SCALE) if scale == USUAL else scale
                written += _write_pictures(shown, partial / name, quantity, used, images, series_number, part)
        progress(1.0, "Writing maps")
    return [folder / path.relative_to(partial) for path in written]


def quantity_of_map(name: str, shown: ScalarMap) -> Quantity:
    """What the values of a map are, coded where DICOM has a code."""
    kind, unit = kind_of(name), shown.volume.unit
    known = kind is not None and unit == MAP_UNITS[kind]
    title = shown.title or (MAP_TITLES[kind] if known else name)
    return Quantity(title, name.upper(), _UCUM.get(unit, "1"), unit or "no units", _CODES[kind] if known else None)


def _without_background(maps: Mapping[str, ScalarMap]) -> dict[str, ScalarMap]:
    perfusion = {name for name in maps if (kind_of(name) or "mip") != "mip"}
    if not perfusion:
        return dict(maps)
    nothing = np.all([np.nan_to_num(maps[name].volume.array) == 0 for name in perfusion], axis=0)
    return {
        name: replace(shown, volume=_masked(shown.volume, nothing)) if name in perfusion else shown
        for name, shown in maps.items()
    }


def _masked(volume: Volume, nothing: np.ndarray) -> Volume:
    return replace(volume, array=np.where(nothing, np.float32(np.nan), volume.array).astype(np.float32))


# -- pictures -------------------------------------------------------------------------------------------------


def _write_pictures(
    shown: ScalarMap,
    folder: Path,
    quantity: Quantity,
    scale: str,
    images: list[Dataset],
    series_number: int,
    progress: Callable[[float, str], None],
) -> list[Path]:
    """A folder with one secondary capture for each slice."""
    shown.volume.require_perpendicular_rows()
    folder.mkdir()
    rgb = np.ascontiguousarray(colour_map(shown.volume.array, shown.value_range, scale))
    low, high = shown.value_range
    texts = {
        "SeriesDescription": f"{quantity.label} RGB {low:g}-{high:g} {quantity.unit}"[:64],
        "DerivationDescription": f"{quantity.title}, colour scale '{scale}' from {low:g} to {high:g} {quantity.unit}",
        "ImageComments": RESEARCH_USE_NOTICE,
    }
    series_uid, paths = generate_uid(), []
    for k, pixels in enumerate(rgb):
        progress(k / len(rgb), f"Writing {folder.name}")
        picture = _picture(pixels, shown.volume, k, images, series_uid, series_number)
        for word, text in texts.items():
            setattr(picture, word, text)
        state_range(picture, low, high, shown.volume.array.shape[2])
        paths.append(folder / f"{k + 1:04d}.dcm")
        picture.save_as(paths[-1], enforce_file_format=True)
    return paths


def _picture(pixels: np.ndarray, volume: Volume, k: int, images: list[Dataset], series_uid: str, series_number: int):
    hd, first = require_highdicom(), images[0]
    orientation, spacing, positions = planes_lps(volume)
    picture = hd.sc.SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        **patient_and_study(first),
        series_instance_uid=series_uid,
        series_number=series_number,
        sop_instance_uid=generate_uid(),
        instance_number=k + 1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=__version__,
        pixel_spacing=spacing,
        patient_orientation=(_letter(orientation[:3]), _letter(orientation[3:])),
    )
    picture.BurnedInAnnotation = "YES"  # the numbers beside the bar
    picture.FrameOfReferenceUID = first.FrameOfReferenceUID if "FrameOfReferenceUID" in first else generate_uid()
    picture.PositionReferenceIndicator = ""
    picture.ImagePositionPatient = [_decimal(value) for value in positions[k]]
    picture.ImageOrientationPatient = [_decimal(value) for value in orientation]
    picture.SliceThickness = _decimal(float(volume.slice_thicknesses_mm[k]))
    if not getattr(first, "is_stand_in", False):
        picture.SourceImageSequence = [_reference(_nearest(images, positions[k]))]
    return picture


def _letter(direction: Sequence[float]) -> str:
    """The anatomical direction nearest to one in LPS."""
    axis = int(np.abs(direction).argmax())
    return ("LR", "PA", "HF")[axis][int(direction[axis] < 0)]


def _decimal(value: float):
    from pydicom.valuerep import DSfloat

    return DSfloat(float(value), auto_format=True)


def _nearest(images: list[Dataset], position: np.ndarray) -> Dataset:
    placed = [image for image in images if "ImagePositionPatient" in image]
    if not placed:  # one enhanced file
        return images[0]
    return min(placed, key=lambda image: float(np.linalg.norm(np.array(image.ImagePositionPatient, float) - position)))


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item
