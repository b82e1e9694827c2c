"""Perfusion maps as folders of pictures: CBF, CBV, TTP, TMAX and MIP with a PNG for every slice (NN.png).

The layout of the Stavanger data (stroke and disc specification 1.7). Pictures know neither voxel size nor range: the
range has to be given, and a voxel size that is not given is taken as that of these data, with a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.colour_maps import BLACK, invert
from StrokeCTPLib.colour_scales import MIP_RANGE_HU, full_scale
from StrokeCTPLib.map_names import kind_of
from StrokeCTPLib.map_units import MAP_UNITS, FoundMap

#: (column, row, slice) voxel size of the published maps.
STAVANGER_SPACING_MM = (0.4366455, 0.4366455, 5.0)


def find_pictures(folder: Path) -> dict[str, Path]:
    """Map -> folder with its pictures, in a folder or in the one folder (of a date) below it that has them.

    Raises:
        InputError: several folders below hold maps.
    """
    if here := _map_folders(folder):
        return here
    below = {path: maps for path in _folders(folder) if (maps := _map_folders(path))}
    if len(below) > 1:
        names = " and ".join(f"'{path.name}'" for path in list(below)[:2])
        raise InputError(f"'{folder.name}' holds maps of several examinations ({names}); choose one of these folders.")
    return next(iter(below.values()), {})


def read_pictures(
    folders: Mapping[str, Path],
    progress: Progress,
    ranges: Mapping[str, float],
    spacing_mm: tuple[float, float, float] | None,
) -> list[FoundMap]:
    """The maps of folders as :func:`find_pictures` found them.

    Raises:
        InputError: no range for a map; a picture that cannot be read or has no bar.
        GeometryError: maps with other slices or sizes than the rest.
    """
    scales = {kind: full_scale(kind, ranges, f"The folder {kind.upper()}") for kind in folders if kind != "mip"}
    stacks, numbers = {}, {}
    for index, (kind, folder) in enumerate(folders.items()):
        progress(0.5 * index / len(folders), "Reading pictures")
        files = sorted(folder.glob("*.png"), key=lambda path: (len(path.stem), path.stem))
        stacks[kind], numbers[kind] = _stack(files), [path.stem for path in files]
    first = next(iter(folders))
    for kind in folders:
        if numbers[kind] != numbers[first] or stacks[kind].shape != stacks[first].shape:
            raise GeometryError(
                f"The folders {first.upper()} and {kind.upper()} hold pictures of different slices or sizes; "
                "export the maps of one examination again."
            )
    unsaid = "The pictures state no voxel size; 0.437 x 0.437 x 5 mm of the published data was taken."
    notes = [] if spacing_mm else [unsaid]
    matrix = upright_matrix(spacing_mm or STAVANGER_SPACING_MM)
    found, last_column = [], stacks[first].shape[2]
    for index, (kind, scale) in enumerate(scales.items()):
        progress(0.5 + 0.5 * index / len(scales), "Reading colours")
        inverted = invert(stacks[kind], scale, name=f"The folder {kind.upper()}")
        last_column = min(last_column, inverted.bar.columns[0])
        volume = Volume(inverted.values, matrix, MAP_UNITS[kind])
        found.append(FoundMap(kind, volume, volume.unit, kind.upper(), inverted.confidence, notes))
    if "mip" in folders:
        values, note = grey_intensity(stacks["mip"], last_column)
        found.append(FoundMap("mip", Volume(values, matrix, "HU"), "HU", "MIP", notes=[note]))
    return found


def upright_matrix(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """IJK-to-RAS of axial slices from below seen as on the screen (left on the right), for images without position."""
    return np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])


def grey_intensity(rgb: np.ndarray, end: int | None = None) -> tuple[np.ndarray, str]:
    """HU of a maximum-intensity image in greys (k, h, w, 3), NaN where black and from column ``end`` on, and a note.

    Its window was not published; only its greys matter to the networks.
    """
    grey = rgb.astype(np.float32).mean(axis=-1)
    low, high = MIP_RANGE_HU
    values = np.where(grey > BLACK, low + (high - low) * grey / 255, np.float32(np.nan)).astype(np.float32)
    values[:, :, end if end is not None else values.shape[2] :] = np.nan
    note = f"The greys of MIP were taken as {low:g} to {high:g} HU, as the networks show them; they are no measured HU."
    return values, note


def _map_folders(folder: Path) -> dict[str, Path]:
    """The folders of maps in a folder; none if there is no perfusion map."""
    found = {kind: path for path in _folders(folder) if (kind := kind_of(path.name)) and any(path.glob("*.png"))}
    return found if set(found) - {"mip"} else {}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _stack(files: list[Path]) -> np.ndarray:
    """(k, h, w, 3) uint8 of pictures of one size."""
    images = [_picture(path) for path in files]
    if len({image.shape for image in images}) > 1:
        raise GeometryError(f"The pictures in '{files[0].parent.name}' differ in size; export them again.")
    if len(images) < 2:
        raise InputError(f"'{files[0].parent.name}' holds a single picture; give all slices of the map.")
    return np.stack(images)


def _picture(path: Path) -> np.ndarray:
    try:
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        raise InputError(f"The picture '{path.name}' is damaged; export it again.") from None
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise InputError(f"The picture '{path.name}' has not 8 bits for each colour; export it again.")
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image[..., :3]
