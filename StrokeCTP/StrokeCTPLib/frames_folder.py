"""Folders that hold frames as 4-D image files: which file is meant, and what a simulation has written."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from NeuraxisLib.dicom_headers import is_dicom_file
from NeuraxisLib.errors import InputError
from NeuraxisLib.files import is_image_file

#: What ``simulate --stroke`` writes: its table, and the folders of true maps, of frames and of maps made from these.
CASES, TRUE_MAPS, FRAMES, MAPS = "cases.csv", "truth_maps", "frames", "maps"
#: More components of a voxel than this are frames, as Slicer stores them; fewer may be colours.
COLOURS = 4


def frames_file(folder: Path) -> Path | None:
    """The one 4-D image file of a folder; None if there is none, or DICOM lies beside it.

    Raises:
        InputError: there are several; or the folder is that of a simulation.
    """
    refuse_simulated(folder)
    files = _files(folder)
    found = [path for path in files if is_image_file(path) and holds_frames(path)]
    if not found or any(is_dicom_file(path) for path in files if not is_image_file(path)):
        return None
    if len(found) > 1:
        raise InputError(
            f"'{folder.name}' holds {len(found)} 4-D image files; choose one of them, such as "
            f"'{folder.name}/{found[0].name}'."
        )
    return found[0]


def holds_frames(path: Path) -> bool:
    """Whether an image file is 4-D, by its header alone: four axes, or frames as the components of a voxel."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    if reader.GetDimension() == 4:
        return reader.GetSize()[3] > 1
    return reader.GetDimension() == 3 and reader.GetNumberOfComponents() > COLOURS


def refuse_simulated(path: Path) -> None:
    """Raise InputError for the whole folder of a simulation: its true maps are no maps of a scanner."""
    if not ((path / CASES).is_file() and (path / TRUE_MAPS).is_dir()):
        return
    frames = [file for file in _files(path / FRAMES) if is_image_file(file)]
    cases = sorted(case for case in (path / MAPS).glob("*") if case.is_dir())
    choose = (
        f"one of its frames, such as '{path.name}/{FRAMES}/{frames[0].name}'"
        if frames
        else f"the maps of one case, such as '{path.name}/{MAPS}/{cases[0].name}'"
        if cases
        else "the frames of one case"
    )
    raise InputError(f"'{path.name}' holds simulated strokes with their truth; choose {choose}.")


def _files(folder: Path) -> list[Path]:
    """What lies in a folder itself, without hidden files; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
