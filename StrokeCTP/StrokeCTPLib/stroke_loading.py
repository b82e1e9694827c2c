"""A folder on disk into the scene: frames as a sequence with the times of all slices, maps as volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from NeuraxisLib import scene_frames
from StrokeCTPLib.panel_choice import MAP_KINDS


def load_folder(folder: str | Path, parameters: Any = None) -> str:
    """Read an acquisition or maps into the scene.

    Args:
        folder: DICOM folder in any layout, folder of map files or pictures, or a result folder of ours.
        parameters: of the panel, where what was read is chosen; None chooses nothing.

    Returns:
        What was found, in a few sentences.

    Raises:
        NeuraxisError: nothing usable is there; one sentence.
    """
    from StrokeCTPLib.map_set import holds_maps

    folder = Path(folder)
    return _load_maps(folder, parameters) if holds_maps(folder) else _load_frames(folder, parameters)


def _load_frames(folder: Path, parameters: Any) -> str:
    from StrokeCTPLib.frames import read_frames

    frames = read_frames(folder)
    shared = np.ptp(frames.times_s, axis=1).max() < 1e-6
    times = frames.times_s[:, 0] if shared else frames.times_s
    node = scene_frames.add_sequence(replace(frames.volume, frame_times_s=times), "CT perfusion")
    scene_frames.show_frames(node)
    if parameters is not None:
        parameters.inputKind, parameters.frames = "frames", node
    return " ".join(frames.report.sentences())


def _load_maps(folder: Path, parameters: Any) -> str:
    from StrokeCTPLib.map_set import read_map_set

    found = read_map_set(folder)
    nodes = {
        kind: scene_frames.add_volume(replace(volume, array=np.nan_to_num(volume.array)), kind.upper())
        for kind, volume in found.maps.items()
    }
    if parameters is not None:
        parameters.inputKind = "maps"
        for kind in MAP_KINDS:
            setattr(parameters, f"{kind}Map", nodes.get(kind))
    named = ", ".join(kind.upper() for kind in nodes)
    return " ".join([f"Found the maps {named} ({found.source}).", *found.notes])
