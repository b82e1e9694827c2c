"""A folder of DICOM images to perfusion frames, whatever their layout.

The folder's headers are read once, without pixels; images of one reconstruction are gathered over series
(``frames_dicom_select``), get a time each (``frames_dicom_times``) and a cell of the frames x slices grid
(``frames_dicom_grid``); only then are pixels read, straight into the 4-D array.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from NeuraxisLib.dicom_geometry import Layout, lay_out
from NeuraxisLib.dicom_headers import SliceHeader, is_dicom_file, scan_folder
from NeuraxisLib.dicom_pixels import read_pixels, same_pixels
from NeuraxisLib.dicom_series import check_one_patient
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_checks import check_volume
from StrokeCTPLib.frames import Frames, checked_times, make_frames
from StrokeCTPLib.frames_dicom_grid import Grid, build_grid, main_run
from StrokeCTPLib.frames_dicom_select import Acquisition, acquisitions, choose_acquisition, usable_images
from StrokeCTPLib.frames_dicom_times import TIME_WORDS, ImageTimes, image_times
from StrokeCTPLib.times_file import fit_times, times_from

#: Contrast and motion never change the mean of a whole image by this much; another rescale does.
_RESCALE_JUMP_HU = 150.0


def read_dicom_frames(
    path: Path,
    times: str | os.PathLike | np.ndarray | None,
    interval_s: float | None,
    series: str | None,
    allow_gaps: bool,
    progress: Progress,
) -> Frames:
    """Read the perfusion acquisition of a DICOM folder; arguments and errors as :func:`frames.read_frames`."""
    if path.is_file() and not is_dicom_file(path):
        raise InputError(f"'{path.name}' is not an image known here; choose NIfTI, NRRD, MetaImage or DICOM.")
    folder = path if path.is_dir() else path.parent
    scan = scan_folder(folder, progress.part(0.0, 0.3), (*TIME_WORDS, "KVP"))
    dropped = Counter(scan.skipped)
    if scan.damaged:
        dropped["damaged file"] += len(scan.damaged)
    headers = usable_images(scan.headers, dropped)
    found = acquisitions(headers, same_pixels)
    own = [one for one in found if series is None and any(header.path == path for header in one.headers)]
    chosen = choose_acquisition(own or found, series, "The DICOM folder")
    for other in found:
        kind = "derived image" if other.derived else "image of another series or reconstruction"
        dropped[kind] += 0 if other is chosen else len(other.headers)
    name = f"Series {chosen.key}"
    given = None if times is None else times_from(times)
    chosen, clock = _timed(chosen, name, given is not None or interval_s is not None)
    grid = build_grid(clock.seconds, chosen.places, name)
    matrix, source = _times(grid, clock, given, interval_s)
    matrix = checked_times(matrix, name)
    volume = _volume(chosen, grid, matrix, name, allow_gaps, progress.part(0.3, 1.0))
    volume.meta["warnings"] += [*clock.warnings, *grid.warnings, *_damage_warning(len(scan.damaged))]
    notes = [*volume.meta["notes"], *clock.notes]
    dropped = dict(dropped + chosen.dropped + grid.dropped)
    volume.meta["dropped"] = dropped
    return make_frames(volume, matrix, describe_layout(chosen, grid), source, dropped, notes)


def _timed(chosen: Acquisition, name: str, ordered_only: bool) -> tuple[Acquisition, ImageTimes]:
    """The images with their times, without what was taken long before or after."""
    clock = image_times(chosen.headers, chosen.places, name, ordered_only)
    if clock.ranks_only:
        return chosen, clock
    keep = main_run(clock.seconds, chosen.places)
    chosen = chosen.without(["" if wanted else "image taken before or after the perfusion" for wanted in keep])
    seconds = clock.seconds[keep]
    return chosen, ImageTimes(seconds, clock.label, clock.warnings, clock.notes)


def _times(grid: Grid, clock: ImageTimes, given: np.ndarray | None, interval_s: float | None) -> tuple[np.ndarray, str]:
    """The (t, k) times in seconds and where they come from: a times file, a frame interval or the images."""
    if given is not None:
        return fit_times(given, grid.images.shape, "The times file"), "the times given"
    if interval_s is not None:
        frames, slices = grid.images.shape
        return np.repeat(np.arange(frames)[:, None] * interval_s, slices, axis=1), f"the interval of {interval_s:g} s"
    return grid.times_s, clock.label


def _damage_warning(count: int) -> list[str]:
    plural = "s" if count > 1 else ""
    return [f"{count} damaged file{plural} could not be read and may be missing from the frames."] if count else []


# -- pixels ----------------------------------------------------------------------------------------------------


def _volume(
    chosen: Acquisition, grid: Grid, times_s: np.ndarray, name: str, allow_gaps: bool, progress: Progress
) -> Volume:
    headers = [chosen.headers[index] for index in grid.images.ravel()]
    slices = grid.images.shape[1]
    check_one_patient(headers, name)
    layout = lay_out(headers[:slices], same_pixels, name, allow_gaps)
    _check_order(layout, headers[:slices], name)
    array, notes = read_pixels(headers, progress, name, mixed_scaling=True)
    array = array.reshape(*grid.images.shape, *array.shape[1:])
    _interpolate(array, grid)
    _check_scaling(array, headers, name)
    first = headers[0]
    meta = {
        "format": "DICOM", "modality": "CT", "kernel": first.kernel, "image_type": "/".join(first.image_type),
        "thickness_mm": first.thickness, "tilt_deg": round(layout.tilt_deg, 2), "series_key": chosen.key,
        "warnings": list(layout.warnings), "notes": notes,
    }  # fmt: skip
    if chosen.derived:
        meta["warnings"].append("The frames say that they were computed from other images; their HU may be altered.")
    if any(header.lossy for header in headers):
        meta["warnings"].append("The images were compressed with loss; fine detail and HU may be off.")
    volume = Volume(array, layout.ijk_to_ras, "HU", layout.slice_origins_ras, times_s.mean(axis=1), meta)
    return check_volume(volume, name)


def _check_order(layout: Layout, headers: list[SliceHeader], name: str) -> None:
    """The grid and the geometry sort places alike, unless a place is there twice."""
    if [id(header) for header in layout.headers] != [id(header) for header in headers]:
        raise InputError(f"{name} has slice places that cannot be told apart; export the series again.")


def _interpolate(array: np.ndarray, grid: Grid) -> None:
    """Fill missing images (t, k) linearly in time between the frames before and after, in place."""
    for t, k in np.argwhere(grid.missing):
        before, now, after = grid.times_s[t - 1 : t + 2, k]
        share = (now - before) / (after - before)
        blend = (1 - share) * array[t - 1, k].astype(np.float32) + share * array[t + 1, k].astype(np.float32)
        array[t, k] = np.rint(blend) if array.dtype.kind == "i" else blend


def _check_scaling(array: np.ndarray, headers: list[SliceHeader], name: str) -> None:
    """Refuse an image whose mean HU lies far from that of its place at other times: its rescale is wrong."""
    means = array[..., ::2, ::2].mean(axis=(2, 3), dtype=np.float64)
    far = np.abs(means - np.median(means, axis=0)) > _RESCALE_JUMP_HU
    if far.any():
        odd = headers[int(np.flatnonzero(far.ravel())[0])]
        raise InputError(
            f"{name} has {int(far.sum())} images scaled unlike the others of their place ('{odd.name}'); "
            "send or export the series again."
        )


# -- words -----------------------------------------------------------------------------------------------------


def describe_layout(chosen: Acquisition, grid: Grid) -> str:
    """How the images were stored, in words that follow "Found"."""
    used = np.unique(grid.images)
    headers = [chosen.headers[index] for index in used]
    frames, slices = grid.images.shape
    size = f"({frames} frames x {slices} slices)"
    series = {header.series_uid for header in headers}
    if all(header.frames > 1 for header in headers):
        files = len({header.path for header in headers})
        return f"{'an enhanced multi-frame file' if files == 1 else f'{files} enhanced multi-frame files'} {size}"
    if len(series) == 1:
        return f"one series with every place {_run_words(chosen, grid)} {size}"
    places = Counter(uid for uid, _ in {(chosen.headers[i].series_uid, chosen.places[i]) for i in used})
    images = Counter(header.series_uid for header in headers)
    if images == places and len(series) >= frames:
        return f"one series per time point {size}"
    if sum(places.values()) == slices:
        return f"{len(series)} series, one per table position {size}"
    return f"{len(series)} series that continue each other {size}"


def _run_words(chosen: Acquisition, grid: Grid) -> str:
    """Whether the numbers run through the places first or through the time points first."""
    numbers = np.array([header.instance if header.instance is not None else 0 for header in chosen.headers])
    table = numbers[grid.images].astype(float)
    along_time = np.median(np.abs(np.diff(table, axis=0)))
    along_places = np.median(np.abs(np.diff(table, axis=1)))
    return "again and again" if along_time >= along_places else "through all time points in turn"
