"""Perfusion maps of any origin as one set of numbers on one grid.

    a result folder of ours | NRRD and NIfTI files | DICOM series | folders of pictures  ->  MapSet

Maps in colours are turned into numbers by their own bar, whose range has to be known (:mod:`StrokeCTPLib.colour_maps`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.result_folder import RESULT_FILE
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.frames_folder import refuse_simulated
from StrokeCTPLib.map_files import find_files, read_map_files, read_result_maps
from StrokeCTPLib.map_units import MAP_UNITS, FoundMap, in_field_unit

#: Grids whose corners differ by less than this are one.
SAME_GRID_MM = 0.1


@dataclass(frozen=True)
class MapSet:
    """Maps of one examination on one grid.

    Attributes:
        maps: of cbf, cbv, mtt, tmax, ttp, delay and mip those that there are; float32 in the units of
            :data:`~StrokeCTPLib.map_units.MAP_UNITS`, NaN where there is no value (outside the brain, text, grey).
        source: what they were read from, in words.
        notes: sentences about what was assumed, converted or left out.
        confidence: 0 to 1 for every map that was read from colours, 0 where it has no value.
    """

    maps: dict[str, Volume]
    source: str
    notes: list[str] = field(default_factory=list)
    confidence: dict[str, Volume] = field(default_factory=dict)

    @property
    def grid(self) -> Volume:
        """One of the maps, for its geometry."""
        return next(iter(self.maps.values()))

    @property
    def known(self) -> np.ndarray:
        """bool (k, j, i): where the perfusion maps have a value; the brain, or what its vendor left of it."""
        perfusion = [volume.array for name, volume in self.maps.items() if name != "mip"]
        return np.any([np.isfinite(array) for array in perfusion], axis=0)

    def require(self, names: Iterable[str]) -> MapSet:
        """The set itself if it has these maps; InputError names the missing ones otherwise."""
        missing = [name.upper() for name in names if name not in self.maps]
        if missing:
            there = " and ".join(name.upper() for name in self.maps)
            raise InputError(
                f"The map set is incomplete: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing "
                f"({there} found); add the missing map or choose another method."
            )
        return self


def read_map_set(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    progress: Progress | None = None,
    ranges: Mapping[str, float] | None = None,
    required: Iterable[str] = (),
    spacing_mm: tuple[float, float, float] | None = None,
) -> MapSet:
    """Read the perfusion maps of one examination.

    Args:
        path: a result folder of ours; a folder with NRRD, NIfTI or MetaImage files named after their maps (cbf, rCBF,
            Tmax, tmaxd ...); a DICOM folder; a folder of picture folders CBF, CBV, TTP, TMAX, MIP (NN.png); or files.
        progress: told how far reading is; may cancel.
        ranges: map -> value at the upper end of its colour bar, for maps in colours whose files do not say it; the
            lower end is 0. See :func:`~StrokeCTPLib.colour_scales.parse_ranges`.
        required: maps without which the set is refused.
        spacing_mm: (column, row, slice) size of a voxel, for pictures that do not say it.

    Raises:
        InputError: no maps; a map twice; missing maps; wrong units; colours without a bar or without a range.
        GeometryError: maps on different grids, or slices that cannot be placed.
    """
    progress = progress or Progress()
    source, read = _reader(path, spacing_mm)
    found, notes = _in_field_units(read(progress, ranges or {}))
    progress(1.0, "Reading maps")
    if not found:
        raise InputError(f"{_called(path)} holds no perfusion map; name files or series after their maps (CBF, Tmax).")
    found.sort(key=lambda entry: list(MAP_UNITS).index(entry.kind))
    found, left_out = _on_one_grid(found)
    maps = _without_background({entry.kind: entry.volume for entry in found})
    confidence = {
        entry.kind: entry.volume.like(entry.confidence.astype(np.float32))
        for entry in found
        if entry.confidence is not None
    }
    notes += [*dict.fromkeys(note for entry in found for note in entry.notes), *left_out]
    return MapSet(maps, source, notes, confidence).require(required)


def holds_maps(path: str | os.PathLike, progress: Progress | None = None) -> bool:
    """Whether there are perfusion maps under a path, so that it is no acquisition to compute them from.

    Raises:
        InputError: the folder of a simulation, whose true maps are not meant.
    """
    path = Path(path)
    refuse_simulated(path)
    if path.is_dir() and (path / RESULT_FILE).is_file():
        return True
    if any(kind != "mip" for kind in find_files(path)):
        return True
    from StrokeCTPLib.map_dicom import find_series
    from StrokeCTPLib.map_pictures import find_pictures

    if path.is_dir() and find_pictures(path):
        return True
    if not path.is_dir():
        return False
    try:
        return any(series.kind != "mip" for series in find_series(path, progress or Progress()))
    except InputError:
        return False


Read = Callable[[Progress, Mapping[str, float]], list[FoundMap]]


def _reader(path, spacing_mm: tuple[float, float, float] | None) -> tuple[str, Read]:
    """What the maps are in, in words, and what reads them."""
    paths = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(one) for one in path]
    for one in paths:
        if not one.exists():
            raise InputError(f"'{one.name}' was not found; check the name and the folder.")
        refuse_simulated(one)
    files = find_files(*paths)
    if files and not (len(paths) == 1 and (paths[0] / RESULT_FILE).is_file()):
        return "image files", lambda progress, ranges: read_map_files(files, progress, ranges)
    if len(paths) > 1:
        raise InputError("None of the files is named after a perfusion map; rename them (cbf, cbv, mtt, tmax, ttp).")
    (one,) = paths
    if (one / RESULT_FILE).is_file():
        return "result of Neuraxis", lambda progress, ranges: read_result_maps(one)
    from StrokeCTPLib.map_dicom import read_dicom_maps
    from StrokeCTPLib.map_files import refuse_unnamed
    from StrokeCTPLib.map_pictures import find_pictures, read_pictures

    if one.is_dir() and (pictures := find_pictures(one)):
        return "pictures", lambda progress, ranges: read_pictures(pictures, progress, ranges, spacing_mm)
    refuse_unnamed(one)
    return "DICOM", lambda progress, ranges: read_dicom_maps(one, progress, ranges, spacing_mm)


def _called(path) -> str:
    return f"'{Path(path).name}'" if isinstance(path, (str, os.PathLike)) else "The choice of files"


def _in_field_units(found: list[FoundMap]) -> tuple[list[FoundMap], list[str]]:
    """The maps in their units; a maximum-intensity image that cannot be HU is left out, with a note."""
    kept, notes = [], []
    for entry in found:
        try:
            kept.append(in_field_unit(entry))
        except InputError:
            if entry.kind != "mip":
                raise
            notes.append(f"{entry.name} is no maximum-intensity image in HU and was left out.")
    return kept, notes


def _on_one_grid(found: list[FoundMap]) -> tuple[list[FoundMap], list[str]]:
    """The maps if they are on one grid; a maximum-intensity image on another is left out, with a note."""
    first, kept, notes = found[0], [found[0]], []
    for other in found[1:]:
        fault = _difference(first.volume, other.volume)
        if fault and other.kind == "mip":  # of an angiography, perhaps
            notes.append(f"MIP lies on another grid than the maps ({fault}) and was left out.")
        elif fault:
            raise GeometryError(
                f"The maps {first.kind.upper()} and {other.kind.upper()} lie on different grids ({fault}); "
                "give maps of one calculation, or resample them to one grid."
            )
        else:
            kept.append(other)
    return kept, notes


def _difference(one: Volume, two: Volume) -> str:
    """How two grids differ, in words; empty if they do not."""
    if one.array.shape != two.array.shape:
        sizes = [" x ".join(str(size) for size in volume.array.shape[::-1]) for volume in (one, two)]
        return f"{sizes[0]} and {sizes[1]} voxels"
    apart = _apart_mm(one, two)
    return f"{apart:.1f} mm apart" if apart > SAME_GRID_MM else ""


def _apart_mm(one: Volume, two: Volume) -> float:
    """Largest distance between the same corners of two grids of the same shape."""
    rows, columns = one.array.shape[1:]
    corners = []
    for volume in (one, two):
        sides = [i * volume.column_step_ras + j * volume.row_step_ras for i in (0, columns - 1) for j in (0, rows - 1)]
        corners.append(volume.origins_ras[:, None] + np.array(sides))
    return float(np.linalg.norm(corners[0] - corners[1], axis=-1).max())


def _without_background(maps: dict[str, Volume]) -> dict[str, Volume]:
    """Perfusion maps without the voxels where none of them has a value other than zero; these become NaN."""
    perfusion = [volume.array for name, volume in maps.items() if name != "mip"]
    if not perfusion:
        return maps
    nothing = np.all([np.isnan(array) | (array == 0) for array in perfusion], axis=0)
    return {
        name: volume if name == "mip" else replace(volume, array=np.where(nothing, np.float32(np.nan), volume.array))
        for name, volume in maps.items()
    }
