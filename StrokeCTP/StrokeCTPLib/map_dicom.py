"""Perfusion maps in DICOM: parametric maps, scaled grey values, palette colour, and pictures in colour with their bar.

Numbers are preferred to colours where a study has both. What vendors call their series is in
:mod:`StrokeCTPLib.map_names`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from NeuraxisLib.dicom_geometry import lay_out
from NeuraxisLib.dicom_headers import SliceHeader, scan_folder
from NeuraxisLib.dicom_pixels import read_stored
from NeuraxisLib.dicom_series import Series, group_series
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.parametric_map import PARAMETRIC_MAP, mapping_of, quantity_of, read_parametric_map, real_world
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.colour_maps import ColourBar, find_bar, invert, palette_bar
from StrokeCTPLib.colour_scales import check_range, full_scale
from StrokeCTPLib.map_dicom_tags import stated_columns, stated_range
from StrokeCTPLib.map_names import kind_of
from StrokeCTPLib.map_pictures import grey_intensity, upright_matrix
from StrokeCTPLib.map_units import MAP_UNITS, FoundMap, unit_factor

PARAMETRIC, NUMBERS, PALETTE, COLOURS = range(4)


@dataclass(frozen=True)
class MapSeries:
    """A series that is a perfusion map: which, in what form (PARAMETRIC, NUMBERS, PALETTE or COLOURS)."""

    kind: str
    form: int
    series: Series
    first: Dataset

    @property
    def is_main(self) -> bool:
        """Whether it bears just the name of its map, unlike the same map by another method beside it."""
        if self.form == PARAMETRIC:
            return quantity_of(mapping_of(self.first)).label.lower() == self.kind
        own = stated_columns(self.first) is not None
        return own and self.series.info.description.lower().startswith(f"{self.kind} ")

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"Series {self.series.info.key} ({self.kind.upper()})"


def find_series(folder: Path, progress: Progress) -> list[MapSeries]:
    """The perfusion maps under a folder.

    Raises:
        InputError: no DICOM images there.
    """
    found = []
    for series in group_series(scan_folder(folder, progress).headers):
        header = series.headers[0]
        first = _dataset(header.path)
        if kind := kind_of(*_texts(first, header)):
            found.append(MapSeries(kind, _form(first), series, first))
    return found


def read_dicom_maps(
    path: Path, progress: Progress, ranges: Mapping[str, float], spacing_mm: tuple[float, float, float] | None
) -> list[FoundMap]:
    """The perfusion maps under a folder, or in the folder of a file; each in its best form.

    Raises:
        InputError: no DICOM images; two maps of a kind; colours without a bar or range; pixels that cannot be read.
        GeometryError: slices that cannot be placed.
    """
    folder = path if path.is_dir() else path.parent
    chosen = _best(find_series(folder, progress.part(0.0, 0.3)))
    found = []
    for index, entry in enumerate(chosen):
        progress(0.3 + 0.7 * index / len(chosen), f"Reading {entry.kind.upper()}")
        if entry.form == PARAMETRIC:
            found.append(_read_parametric(entry))
        elif entry.form == NUMBERS:
            found.append(_read_numbers(entry))
        else:
            found.append(_read_colours(entry, ranges, spacing_mm))
    return found


def _best(series: list[MapSeries]) -> list[MapSeries]:
    chosen = []
    for kind in MAP_UNITS:
        entries = [entry for entry in series if entry.kind == kind]
        best = [entry for entry in entries if entry.form == min(entry.form for entry in entries)]
        best = [entry for entry in best if entry.is_main] or best
        if len(best) > 1 and kind == "mip":
            continue  # angiography has such series too; no map is lost
        if len(best) > 1:
            listed = "; ".join(entry.series.info.text() for entry in best)
            raise InputError(
                f"The folder holds the map {kind.upper()} {len(best)} times ({listed}); give a folder with one of them."
            )
        chosen += best
    return chosen


@lru_cache(maxsize=4)
def _dataset(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)


def _texts(first: Dataset, header: SliceHeader) -> list[str]:
    """What may name the map, the most reliable first."""
    quantity = quantity_of(mapping_of(first, header.frame))
    words = (quantity.label, quantity.code[2] if quantity.code else "", quantity.title, header.description)
    more = (first.get(word) for word in ("ContentDescription", "ImageComments", "DerivationDescription"))
    return [str(word or "") for word in (*words, *more)] + list(header.image_type[2:])


def _form(first: Dataset) -> int:
    if first.get("SOPClassUID") == PARAMETRIC_MAP:
        return PARAMETRIC
    if int(first.get("SamplesPerPixel", 1)) == 3:
        return COLOURS
    measured = mapping_of(first) is not None
    return PALETTE if first.get("PhotometricInterpretation") == "PALETTE COLOR" and not measured else NUMBERS


# -- numbers --------------------------------------------------------------------------------------------------


def _read_parametric(entry: MapSeries) -> FoundMap:
    paths = sorted({header.path for header in entry.series.headers})
    if len(paths) > 1:
        raise InputError(f"{entry.name} consists of several parametric maps; give a folder with one of them.")
    volume, quantity = read_parametric_map(paths[0])
    return FoundMap(entry.kind, volume, quantity.unit_code or quantity.unit, entry.name)


def _read_numbers(entry: MapSeries) -> FoundMap:
    layout = lay_out(entry.series.headers, _same_stored, entry.name)
    planes = [_values(header, entry.name) for header in layout.headers]
    if len({plane.shape for plane in planes}) > 1:
        raise GeometryError(f"{entry.name} has images of different sizes; export the series again.")
    notes = [*_left_out(entry), *layout.warnings]
    volume = Volume(np.stack(planes), layout.ijk_to_ras, slice_origins_ras=layout.slice_origins_ras)
    return FoundMap(entry.kind, volume, _unit(entry), entry.name, notes=notes)


def _stored(header: SliceHeader) -> np.ndarray:
    plane = np.empty((header.rows, header.columns), f"<{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    read_stored(header, plane)
    return plane


def _same_stored(one: SliceHeader, other: SliceHeader) -> bool:
    return one.samples == other.samples == 1 and np.array_equal(_stored(one), _stored(other))


def _values(header: SliceHeader, name: str) -> np.ndarray:
    """Real-world values of one image, NaN where it is padded."""
    if header.bits_allocated not in (8, 16, 32):
        raise InputError(f"{name} has {header.bits_allocated}-bit pixels, which are not supported; convert it.")
    stored, mapping = _stored(header), mapping_of(_dataset(header.path), header.frame)
    if mapping is not None:
        values = real_world(stored, mapping, name)
    elif header.bits_allocated == 8 and header.slope is None:
        raise InputError(f"{name} is a grey picture without numbers; choose the scaled series or the colour map.")
    else:
        slope = 1.0 if header.slope is None else header.slope
        values = (stored * slope + (header.intercept or 0.0)).astype(np.float32)
    if header.padding is not None:
        values[stored == header.padding] = np.nan
    return values


def _unit(entry: MapSeries) -> str:
    """The unit that a series states: coded, as the type of its rescaling, or in brackets in its description."""
    coded = quantity_of(mapping_of(entry.first, entry.series.headers[0].frame))
    rescale = str(entry.first.get("RescaleType") or entry.first.get("Units") or "")
    bracketed = [unit for unit in re.findall(r"[\[(]([^\])]+)[\])]", entry.series.info.description) if "/" in unit
                 or unit.strip() in ("s", "ms", "sec", "%")]  # fmt: skip
    for unit in (coded.unit_code, coded.unit, rescale, *bracketed):
        if unit and unit_factor(entry.kind, unit, entry.name) is not None:
            return unit
    return ""


def _left_out(entry: MapSeries) -> list[str]:
    count = len(entry.series.stray)
    return [f"{entry.name}: {count} image(s) unlike the rest were left out."] if count else []


# -- colours --------------------------------------------------------------------------------------------------


def _read_colours(entry: MapSeries, ranges: Mapping[str, float], spacing_mm) -> FoundMap:
    if entry.kind == "mip":
        headers, matrix, origins, notes = _placed(entry, spacing_mm)
        values, note = grey_intensity(np.stack([_rgb(header, entry.name) for header in headers]))
        return FoundMap(
            "mip", Volume(values, matrix, slice_origins_ras=origins), "HU", entry.name, None, [*notes, note]
        )
    stated = stated_range(entry.first, entry.kind)
    scale = check_range(stated) if stated and entry.kind not in ranges else full_scale(entry.kind, ranges, entry.name)
    headers, matrix, origins, notes = _placed(entry, spacing_mm)
    rgb = np.stack([_rgb(header, entry.name) for header in headers])
    found = invert(rgb, scale, _bar(entry, rgb), entry.name)
    columns = stated_columns(entry.first) or rgb.shape[2]
    volume = Volume(np.ascontiguousarray(found.values[..., :columns]), matrix, slice_origins_ras=origins)
    confidence = np.ascontiguousarray(found.confidence[..., :columns])
    return FoundMap(entry.kind, volume, MAP_UNITS[entry.kind], entry.name, confidence, [*_left_out(entry), *notes])


def _bar(entry: MapSeries, rgb: np.ndarray) -> ColourBar:
    if entry.form == COLOURS:
        return find_bar(rgb, entry.name)
    try:
        return find_bar(rgb, entry.name)
    except InputError:
        tables = [np.frombuffer(entry.first[f"{colour}PaletteColorLookupTableData"].value, "<u2")
                  for colour in ("Red", "Green", "Blue")]  # fmt: skip
        return palette_bar((np.stack(tables, axis=-1) >> 8).astype(np.uint8), entry.name)


def _rgb(header: SliceHeader, name: str) -> np.ndarray:
    """(rows, columns, 3) uint8 of one image in colour."""
    from pydicom.pixels import apply_color_lut

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(header.path, force=True)
            pixels = dataset.pixel_array
            if header.samples == 1:
                pixels = apply_color_lut(pixels, dataset)
        except Exception as error:  # damaged streams fail in many ways, inside several decoders
            raise InputError(f"'{header.name}' cannot be decoded; export it again, uncompressed.") from error
    pixels = pixels[header.frame] if pixels.ndim == 4 else pixels
    pixels = (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8)
    if pixels.shape != (header.rows, header.columns, 3):
        raise InputError(f"{name} has images of different sizes; export the series again.")
    return pixels


def _placed(entry: MapSeries, spacing_mm):
    """(headers in order, IJK-to-RAS, slice origins or None, notes) of pictures, which often have no position."""
    headers = entry.series.headers
    if any(header.plain_frames for header in headers):
        raise GeometryError(f"{entry.name} is a multi-frame picture without positions; export it as single images.")
    if all(header.position and header.orientation and header.pixel_spacing for header in headers):
        layout = lay_out(headers, lambda *_: False, entry.name)
        return layout.headers, layout.ijk_to_ras, layout.slice_origins_ras, layout.warnings
    spacing_mm = spacing_mm or _stated_spacing(entry)
    if len(headers) < 2:
        raise GeometryError(f"{entry.name} is a single picture; give all slices of the map.")
    note = f"{entry.name} does not say where its slices lie; they were taken as upright, in the order of their numbers."
    ordered = sorted(headers, key=lambda header: (header.instance or 0, header.path.name))
    return ordered, upright_matrix(spacing_mm), None, [note]


def _stated_spacing(entry: MapSeries) -> tuple[float, float, float]:
    first = entry.first
    words = ("PixelSpacing", "NominalScannedPixelSpacing", "ImagerPixelSpacing")
    inside = next((first.get(word) for word in words if first.get(word)), None)
    between = first.get("SpacingBetweenSlices") or first.get("SliceThickness")
    if inside is None or not between or min(*inside, float(between)) <= 0:
        raise GeometryError(
            f"{entry.name} does not state the size of its voxels; give it (column, row and slice in mm), or choose the "
            "series of numbers."
        )
    return float(inside[1]), float(inside[0]), float(between)
