"""Frames: a CT perfusion acquisition as one 4-D volume in HU, with the time of every slice of every frame.

The one door for all inputs: folders of DICOM files in any layout (``frames_dicom``) and 4-D NIfTI, NRRD or MetaImage
files with a times file (``frames_files``). What was found, used and left out is told in words by the report.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import is_image_file
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

#: Fewer frames than this hold no bolus that could be measured.
LEAST_FRAMES = 5
#: Below these, and above this gap, a perfusion acquisition is worth a warning (ct_perfusion.md 7).
USUAL_FRAMES, USUAL_DURATION_S, SAFE_DURATION_S, LARGEST_GAP_S = 15, 40.0, 60.0, 4.0


@dataclass(frozen=True)
class FramesReport:
    """What was found, used and left out, in words; never a name, id or path.

    Attributes:
        layout: how the frames were stored, such as "one series per time point".
        time_source: where the times come from, such as "AcquisitionDateTime of every image".
        frames, slices: size of what is used.
        interval_s, largest_gap_s: median and largest time between neighbouring frames of one slice.
        duration_s: from the first to the last sample.
        slice_spread_s: largest time between the slices of one frame (0 where all slices share a time).
        dropped: what was left out: kind -> count of images or frames.
        warnings: sentences that bear on the maps. notes: sentences that do not.
    """

    layout: str
    time_source: str
    frames: int
    slices: int
    interval_s: float
    largest_gap_s: float
    duration_s: float
    slice_spread_s: float
    dropped: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """The whole report as sentences: found, used, left out, warnings, notes."""
        spread = f", slices of one frame up to {self.slice_spread_s:.2f} s apart" if self.slice_spread_s >= 0.01 else ""
        lines = [
            f"Found {self.layout}.",
            f"Used {self.frames} frames of {self.slices} slices over {self.duration_s:.1f} s (every "
            f"{self.interval_s:.2f} s, largest gap {self.largest_gap_s:.2f} s{spread}).",
            f"Times come from {self.time_source}.",
        ]
        if self.dropped:
            lines.append("Left out: " + ", ".join(f"{count} x {kind}" for kind, count in self.dropped.items()) + ".")
        return lines + self.warnings + self.notes


@dataclass(frozen=True)
class Frames:
    """A perfusion acquisition.

    Attributes:
        volume: array (t, k, j, i) in HU; ``frame_times_s`` holds the mean time of every frame.
        times_s: (t, k) seconds from the first sample to every slice of every frame, rising along t.
        report: what was found, used and left out.
    """

    volume: Volume
    times_s: np.ndarray
    report: FramesReport

    def __post_init__(self) -> None:
        times = np.asarray(self.times_s, dtype=float)
        if self.volume.array.ndim != 4 or times.shape != self.volume.array.shape[:2]:
            raise InputError(
                f"The perfusion frames of shape {self.volume.array.shape} do not fit a time matrix of {times.shape}; "
                "give one time per frame, or one per frame and slice."
            )
        object.__setattr__(self, "times_s", times)


def read_frames(
    path: str | os.PathLike,
    times: str | os.PathLike | np.ndarray | None = None,
    interval_s: float | None = None,
    series: str | None = None,
    allow_gaps: bool = False,
    progress: Progress | None = None,
) -> Frames:
    """Read a CT perfusion acquisition with the time of every slice.

    Args:
        path: a folder of DICOM files, one DICOM file (then its folder), a 4-D NIfTI, NRRD or MetaImage file, or a
            folder with one such file.
        times: a times file (.json, .csv, .txt; see ``times_file.read_times``) or an array (t,) or (t, k) in seconds;
            overrides what the images say. For image files, a file beside them of the same name is found by itself.
        interval_s: constant time between frames, for images that give no usable times.
        series: which DICOM series to take: key, number, UID or description; None takes the perfusion series.
        allow_gaps: measure across missing slice places, with a warning, instead of refusing.
        progress: told how far reading is; may cancel.

    Raises:
        InputError: not found, no perfusion series, several 4-D files, too few frames, no times, constant or unsorted
            times, damaged files.
        GeometryError: geometry missing or contradictory, slices missing.
        SeriesChoiceError: several examinations would do.
        DependencyError: a decoder for compressed pixels is not installed.
    """
    path, progress = Path(path), progress or Progress()
    if not path.exists():
        raise InputError(f"'{path.name}' was not found; check the name and the folder.")
    if interval_s is not None and not 0.1 <= interval_s <= 30:
        raise InputError(f"A frame interval of {interval_s:g} s is not possible in CT perfusion; give it in seconds.")
    if path.is_dir():
        from StrokeCTPLib.frames_folder import frames_file

        path = frames_file(path) or path
    if path.is_file() and is_image_file(path):
        from StrokeCTPLib.frames_files import read_image_frames

        return read_image_frames(path, times, interval_s, progress)
    from StrokeCTPLib.frames_dicom import read_dicom_frames

    return read_dicom_frames(path, times, interval_s, series, allow_gaps, progress)


def checked_times(times_s: np.ndarray, name: str) -> np.ndarray:
    """The (t, k) times counted from the first sample, once it is sure that they can be used.

    Raises:
        InputError: too few frames; times that are not finite, all equal, twice the same, falling, or not in seconds.
    """
    times = np.asarray(times_s, dtype=float)
    count = len(times)
    if count < LEAST_FRAMES:
        noun = "frame" if count == 1 else "frames"
        raise InputError(
            f"{name} has {count} {noun} where perfusion needs at least {LEAST_FRAMES}; load the whole acquisition."
        )
    if not np.isfinite(times).all():
        raise InputError(f"{name} has times that are not numbers; give a times file with one time per frame.")
    steps = np.diff(times, axis=0)
    if np.ptp(times, axis=0).max() < 1e-3:
        raise InputError(f"{name} gives all frames the same time; give a times file or the frame interval.")
    if (steps < 1e-3).any():
        late = int(np.argwhere(steps < 1e-3)[0, 0]) + 1
        fault = "the same time as" if abs(steps[late - 1]).min() < 1e-3 else "an earlier time than"
        raise InputError(f"{name} gives frame {late + 1} {fault} frame {late}; give a times file in the right order.")
    median = float(np.median(steps))
    if not 0.1 <= median <= 30:
        raise InputError(f"{name} has frames {median:.4g} s apart, which no CT perfusion has; give times in seconds.")
    return times - times.min()


def make_frames(
    volume: Volume, times_s: np.ndarray, layout: str, time_source: str, dropped: dict[str, int], notes: list[str]
) -> Frames:
    """Frames with their report, once the times have passed :func:`checked_times`.

    ``volume.meta["warnings"]`` (what the reader of the images says) comes first among the report's warnings.
    """
    steps = np.diff(times_s, axis=0)
    report = FramesReport(
        layout=layout,
        time_source=time_source,
        frames=times_s.shape[0],
        slices=times_s.shape[1],
        interval_s=float(np.median(steps)),
        largest_gap_s=float(steps.max()),
        duration_s=float(np.ptp(times_s)),
        slice_spread_s=float(np.ptp(times_s, axis=1).max()),
        dropped=dropped,
        warnings=[*volume.meta.get("warnings", []), *_acquisition_warnings(times_s)],
        notes=notes,
    )
    return Frames(volume, times_s, report)


def _acquisition_warnings(times_s: np.ndarray) -> list[str]:
    """What is unusual about the sampling; nothing here stops a computation."""
    warnings, steps = [], np.diff(times_s, axis=0)
    duration = float(np.ptp(times_s, axis=0).max())
    if len(times_s) < USUAL_FRAMES:
        warnings.append(f"Only {len(times_s)} frames were taken; at least {USUAL_FRAMES} are usual.")
    if duration < USUAL_DURATION_S:
        warnings.append(f"The acquisition is only {duration:.0f} s long; the bolus is probably cut off.")
    elif duration < SAFE_DURATION_S:
        warnings.append(f"The acquisition is {duration:.0f} s long; below 60 s the bolus may be cut off.")
    if steps.max() > LARGEST_GAP_S:
        frame = int(steps.max(axis=1).argmax())
        warnings.append(f"Up to {steps.max():.1f} s pass between frames {frame + 1} and {frame + 2}.")
    return warnings
