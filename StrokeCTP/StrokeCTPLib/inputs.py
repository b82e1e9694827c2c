"""The door of the stroke task: raw frames or a set of maps, whichever a path holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.exchange import SUFFIX, read_exchange
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.frames import Frames, checked_times, make_frames, read_frames
from StrokeCTPLib.map_set import MapSet, holds_maps, read_map_set

if TYPE_CHECKING:
    from StrokeCTPLib.task import StrokeOptions


def read_perfusion(
    path: Path, options: StrokeOptions, series: str | None, allow_gaps: bool, progress: Progress
) -> Frames | MapSet:
    """Read what a path holds; arguments as :attr:`NeuraxisLib.task.Task.readers` says.

    Args:
        path: a DICOM folder, a 4-D image file, a folder with one, or an exchange file of the worker (frames); a folder
            or file of maps.
        options: ``kind`` says which, or that it is to be found out; times and ranges for what the files do not say.

    Raises:
        NeuraxisError: as :func:`~StrokeCTPLib.frames.read_frames` and :func:`~StrokeCTPLib.map_set.read_map_set`.
    """
    if path.name.endswith(SUFFIX):
        progress(0.0, "Reading frames")
        return frames_of_volume(read_exchange(path), options, f"'{path.name.removesuffix(SUFFIX)}'")
    if options.kind == "maps" or (options.kind == "auto" and path.exists() and holds_maps(path, progress.part(0, 0.3))):
        from StrokeCTPLib.colour_scales import parse_ranges

        ranges = parse_ranges(options.ranges) if options.ranges else None
        return read_map_set(path, progress.part(0.3, 1.0), ranges, spacing_mm=options.picture_spacing_mm)
    times = options.times or None
    return read_frames(path, times, options.interval_s, series, allow_gaps, progress.part(0.3, 1.0))


def frames_of_volume(volume: Volume, options: StrokeOptions, name: str = "The sequence") -> Frames:
    """Frames that are in memory already, checked as those of files are.

    Args:
        volume: (t, k, j, i) in HU with ``frame_times_s`` (t,) or (t, k), unless the options give times.
        name: how messages call it.

    Raises:
        InputError: no frames, no times, times that cannot be used, values that are no HU.
    """
    from StrokeCTPLib.frames_files import as_hu
    from StrokeCTPLib.times_file import fit_times, times_from

    if volume.array.ndim != 4:
        raise InputError(f"{name} is one image without frames over time; choose the whole perfusion acquisition.")
    if options.times:
        times, source = times_from(options.times), "the times given"
    elif options.interval_s is not None:
        times, source = np.arange(len(volume.array)) * options.interval_s, f"the interval of {options.interval_s:g} s"
    elif volume.frame_times_s is not None:
        times, source = volume.frame_times_s, "the times of the sequence"
    else:
        raise InputError(f"{name} does not say when its frames were taken; give a times file or the interval.")
    matrix = checked_times(fit_times(times, volume.array.shape[:2], name), name)
    array, notes = as_hu(volume.array, name)
    meta = {"modality": "CT", **volume.meta}
    volume = Volume(array, volume.ijk_to_ras, "HU", volume.slice_origins_ras, matrix.mean(axis=1), meta)
    return make_frames(volume, matrix, "a sequence of volumes", source, {}, notes)
