"""A folder on disk into the scene: frames as a sequence with the times of all slices, maps as volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuraxisLib import scene_frames
from NeuraxisLib.task import Progress
from StrokeCTPLib.panel_choice import MAP_KINDS, reading_options

if TYPE_CHECKING:
    from StrokeCTPLib.frames import Frames
    from StrokeCTPLib.map_set import MapSet


def load_folder(folder: str | Path, parameters: Any = None, **options: Any) -> str:
    """Read an acquisition or maps into the scene.

    Args:
        folder: DICOM folder in any layout, folder with one 4-D image file, folder of map files or pictures, or a result
            folder of ours; a single file will do too.
        parameters: of the panel, where what was read is chosen, and which says what the files do not (interval, colour
            ranges, voxel size of pictures); None chooses nothing.
        options: of the task, such as ``interval_s``, ``ranges`` and ``spacing_mm``, instead of those of the panel.

    Returns:
        What was found, in a few sentences.

    Raises:
        NeuraxisError: nothing usable is there; one sentence.
    """
    from StrokeCTPLib.inputs import read_perfusion
    from StrokeCTPLib.map_set import holds_maps
    from StrokeCTPLib.task import StrokeOptions

    folder = Path(folder)
    kind = "maps" if folder.exists() and holds_maps(folder) else "frames"
    if parameters is not None:
        parameters.inputKind = kind  # before reading, as the fields for what the files do not say go with it
        options = {**reading_options(parameters), **options}
    found = read_perfusion(folder, StrokeOptions(kind=kind, **options), None, False, Progress())
    return (_add_maps if kind == "maps" else _add_frames)(found, parameters)


def _add_frames(frames: Frames, parameters: Any) -> str:
    shared = np.ptp(frames.times_s, axis=1).max() < 1e-6
    times = frames.times_s[:, 0] if shared else frames.times_s
    node = scene_frames.add_sequence(replace(frames.volume, frame_times_s=times), "CT perfusion")
    scene_frames.show_frames(node)
    if parameters is not None:
        parameters.frames = node
    return " ".join(frames.report.sentences())


def _add_maps(found: MapSet, parameters: Any) -> str:
    nodes = {
        kind: scene_frames.add_volume(replace(volume, array=np.nan_to_num(volume.array)), kind.upper())
        for kind, volume in found.maps.items()
    }
    if parameters is not None:
        for kind in MAP_KINDS:
            setattr(parameters, f"{kind}Map", nodes.get(kind))
    named = ", ".join(kind.upper() for kind in nodes)
    return " ".join([f"Found the maps {named} ({found.source}).", *found.notes])
