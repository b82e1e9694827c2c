"""Perfusion maps in NRRD, NIfTI and MetaImage files, in numbers or in colours, and in result folders of ours."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import is_image_file, read_volume
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.task import Progress
from StrokeCTPLib.colour_maps import read_colour_map
from StrokeCTPLib.colour_scales import full_scale
from StrokeCTPLib.map_names import kind_of
from StrokeCTPLib.map_units import MAP_UNITS, FoundMap

#: Folders below the chosen one in which maps are looked for.
DEPTH = 2


def find_files(*paths: Path) -> dict[str, list[Path]]:
    """Map -> image files named after it, among files and in folders (two levels down)."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        for file in _image_files(path):
            if kind := kind_of(_stem(file), file.parent.name if file != path else ""):
                found[kind].append(file)
    return {kind: _exactly_named(kind, files) for kind, files in found.items()}


def read_map_files(files: Mapping[str, list[Path]], progress: Progress, ranges: Mapping[str, float]) -> list[FoundMap]:
    """The maps of files as :func:`find_files` found them.

    Raises:
        InputError: two files for one map; a file that cannot be read; colours without a bar or a range.
    """
    found = []
    for index, (kind, candidates) in enumerate(files.items()):
        progress(index / len(files), "Reading maps")
        if len(candidates) > 1:
            names = " and ".join(f"'{path.name}'" for path in candidates[:2])
            raise InputError(f"The map {kind.upper()} is there more than once ({names}); keep the one to use.")
        found.append(_read_file(kind, candidates[0], ranges))
    return found


def read_result_maps(folder: Path) -> list[FoundMap]:
    """The perfusion maps of a result folder: those whose name is a map's.

    Raises:
        InputError: not a result folder, or damaged.
    """
    maps = read_result(folder).maps
    return [
        FoundMap(kind, maps[kind].volume, maps[kind].volume.unit, f"The map {kind.upper()} of the result")
        for kind in MAP_UNITS
        if kind in maps
    ]


def refuse_unnamed(path: Path) -> None:
    """Raise InputError if a path has image files but none that is named after a map."""
    files = _image_files(path)
    if files:
        where = "" if path.is_file() else f" in '{path.name}'"
        raise InputError(
            f"'{files[0].name}'{where} is not named after a perfusion map, so what it shows is not known; rename it "
            "(cbf, cbv, mtt, tmax, ttp)."
        )


def _image_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if is_image_file(path) else []
    found = []
    for parent, folders, names in os.walk(path):
        if len(Path(parent).relative_to(path).parts) >= DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(names) if is_image_file(name) and not name.startswith(".")]
    return found


def _stem(file: Path) -> str:
    return file.name[: len(file.name) - sum(map(len, file.suffixes[-2:] if file.suffix == ".gz" else [file.suffix]))]


def _exactly_named(kind: str, files: list[Path]) -> list[Path]:
    """The file that is called just like the map, if there is one; else all."""
    return [file for file in files if _stem(file).lower() == kind][:1] or files


def _read_file(kind: str, path: Path, ranges: Mapping[str, float]) -> FoundMap:
    if _is_coloured(path):
        volume, found = read_colour_map(path, full_scale(kind, ranges, f"'{path.name}'"), MAP_UNITS[kind], path.name)
        stored = found.confidence if np.array_equal(volume.array, found.values, equal_nan=True) else None
        confidence = found.confidence[:, ::-1] if stored is None else stored
        return FoundMap(kind, volume, MAP_UNITS[kind], f"'{path.name}'", np.ascontiguousarray(confidence))
    volume = read_volume(path, allow_nan=True)
    return FoundMap(kind, volume, volume.unit, f"'{path.name}'", notes=list(volume.meta.get("warnings", ())))


def _is_coloured(path: Path) -> bool:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False  # read_volume says what is wrong with it
    return reader.GetNumberOfComponents() == 3 and reader.GetPixelIDValue() == sitk.sitkVectorUInt8
