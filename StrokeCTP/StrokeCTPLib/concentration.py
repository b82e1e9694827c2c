"""From HU to concentration: constants of the perfusion equations, contrast arrival, baseline, regular time grid.

Iodine raises HU linearly, so concentration is HU above the baseline; negative values are kept, as cutting them off
would bias blood volume upward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from NeuraxisLib.errors import InputError

#: Haematocrit of large and small vessels, and density of brain tissue in g/mL.
HAEMATOCRIT_LARGE, HAEMATOCRIT_SMALL, DENSITY_G_ML = 0.45, 0.25, 1.05
#: kH = (1 - H_large) / (1 - H_small) = 0.7333 and kH / rho = 0.698 mL/g, the factor of every perfusion value.
K_H = (1 - HAEMATOCRIT_LARGE) / (1 - HAEMATOCRIT_SMALL)
K_H_OVER_DENSITY = K_H / DENSITY_G_ML
#: Fewer baseline frames than this are flagged; a mean brain curve that rises by less is no bolus.
LEAST_BASELINE_FRAMES, LEAST_RISE_HU = 3, 2.0
#: A start that lies higher than this share of the bolus above what follows it is no baseline.
LEAST_BASELINE = 0.25
#: Relative spread of frame gaps up to which frames count as equally spaced.
REGULAR_TOLERANCE = 0.1
#: Frames further apart than this are not joined by splines, which would swing between them.
LONGEST_GAP_S = 4.0


@dataclass(frozen=True)
class Arrival:
    """When contrast reaches the brain, and what is known of the time before.

    Attributes:
        frame: first frame with contrast. time_s: its time.
        baseline_frames: indices of the frames before, without an outlying first frame; never empty.
        rise_hu: peak of the smoothed mean brain curve above the baseline. noise_hu: SD of that curve in the baseline.
    """

    frame: int
    time_s: float
    baseline_frames: tuple[int, ...]
    rise_hu: float
    noise_hu: float


def find_arrival(curve_hu: np.ndarray, times_s: np.ndarray) -> Arrival:
    """Find contrast arrival on a mean brain curve (T,) in HU.

    Going back from the peak, arrival is the first frame after the last one that lies within 3 SD of the baseline, or
    within 5 % of the rise, whichever is more (a drift of 1 % does not count). The SD comes from differences of
    neighbouring frames in the first third, so that a late arrival does not inflate it, or from second differences of
    all frames, which an early bolus does not inflate: whichever is less.

    Raises:
        InputError: fewer than five frames, values that are not finite, a rise below 2 HU (no contrast), or contrast
            from the first frame on (no baseline).
    """
    curve, times = np.asarray(curve_hu, float), np.asarray(times_s, float)
    if len(curve) < 5 or curve.shape != times.shape or not np.isfinite(curve).all():
        raise InputError("The perfusion series has too few usable frames (at least 5); load the whole acquisition.")
    smooth = np.convolve(np.pad(curve, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    peak = int(smooth.argmax())
    _require_baseline(smooth, peak)
    start = float(np.median(curve[: max(2, min(peak, 3))])) if peak > 1 else float(curve[0])
    early = curve[: max(3, min(peak + 1, len(curve) // 3))]
    steps, bends = (float(np.median(np.abs(values))) for values in (np.diff(early), np.diff(curve, 2)))
    noise = min(steps / 0.954, bends / 1.652)
    rise = float(smooth[peak]) - start
    if rise < LEAST_RISE_HU:
        raise InputError(
            f"The brain brightens by only {max(rise, 0):.1f} HU, no contrast reached it; choose the perfusion series."
        )
    quiet = np.flatnonzero(curve[: peak + 1] - start <= max(3 * noise, 0.05 * rise))
    frame = int(quiet[-1]) + 1 if len(quiet) else 1
    frame = min(max(frame, 1), peak) or 1
    frames = list(range(frame - 1 if frame > 2 else frame))  # arteries fill a little earlier
    if len(frames) > 3 and abs(curve[0] - np.median(curve[frames[1:]])) > max(5 * noise, 1.0):
        frames = frames[1:]
    return Arrival(frame, float(times[frame]), tuple(frames), rise, noise)


def _require_baseline(smooth: np.ndarray, peak: int) -> None:
    """Refuse a curve whose first frames lie above what is left when the bolus has passed: contrast was there before."""
    left = float(smooth[peak:].min())
    height = float(smooth[peak]) - left
    if height >= LEAST_RISE_HU and float(np.median(smooth[: max(1, min(peak, 3))])) - left > LEAST_BASELINE * height:
        raise InputError(
            "Contrast is in the brain from the first frame on, so there is no baseline to measure it from; load the "
            "acquisition with its first frames."
        )


def concentration(frames_hu: torch.Tensor, arrival: Arrival) -> torch.Tensor:
    """HU above the mean of the baseline frames, float32; ``frames_hu`` has time first, any dtype."""
    frames = frames_hu.float()
    return frames - frames[list(arrival.baseline_frames)].mean(0)


def curves_of(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Curves (n, t), contiguous per voxel, of the marked voxels of frames (t, k, j, i)."""
    return frames.flatten(1)[:, mask.flatten()].T.contiguous()


def is_regular(times_s: np.ndarray) -> bool:
    """Whether all frame gaps are equal to 10 %."""
    gaps = np.diff(times_s)
    return bool(np.ptp(gaps) <= REGULAR_TOLERANCE * gaps.mean())


def regular_times(times_s: np.ndarray, step_s: float = 1.0) -> np.ndarray:
    """The regular grid for frame times (t,), or (t, k) where slices have their own: their mean, made regular.

    Equally spaced frames keep their spacing, others go to steps of ``step_s``.

    Raises:
        InputError: times that do not ascend.
    """
    times = np.asarray(times_s, float)
    if not (np.diff(times, axis=0) > 0).all():
        raise InputError("The frame times do not ascend; sort the frames or give the true times.")
    mean = times.reshape(len(times), -1).mean(1)
    if is_regular(mean):
        return mean[0] + np.arange(len(mean)) * float(np.diff(mean).mean())
    return np.arange(mean[0], mean[-1] + 1e-6, step_s)


def resampling_matrix(times_s: np.ndarray, regular_s: np.ndarray) -> np.ndarray:
    """(regular, t) weights from frame times (t,) to others: cubic splines, or lines where frames are over 4 s apart.

    Beyond the first and last frame the curve stays as it is there.
    """
    from scipy.interpolate import CubicSpline

    times = np.asarray(times_s, float)
    at = np.clip(regular_s, times[0], times[-1])
    if np.diff(times).max() <= LONGEST_GAP_S and len(times) > 3:
        return CubicSpline(times, np.eye(len(times)), bc_type="natural")(at)
    return np.stack([np.interp(at, times, unit) for unit in np.eye(len(times))], 1)


def to_regular(frames: torch.Tensor, times_s: np.ndarray, regular_s: np.ndarray) -> torch.Tensor:
    """Frames (t, k, j, i) at ``times_s`` (t,) or (t, k) brought to regular times; unchanged where they are these."""
    times = np.asarray(times_s, float)
    times = np.repeat(times[:, None], frames.shape[1], 1) if times.ndim == 1 else times
    if len(regular_s) == len(times) and np.abs(times - regular_s[:, None]).max() < 0.02 * np.diff(regular_s).mean():
        return frames
    whole = not frames.dtype.is_floating_point  # HU stay whole: half the memory, and rounding hides in the noise
    result = frames.new_empty((len(regular_s), *frames.shape[1:]))
    for k, (t, part) in enumerate(zip(times.T, frames.unbind(1))):
        values = torch.tensordot(torch.from_numpy(resampling_matrix(t, regular_s)).float(), part.float(), 1)
        result[:, k] = values.round_() if whole else values
    return result


def chunks(values: torch.Tensor, width: int) -> tuple[torch.Tensor, ...]:
    """Rows in chunks whose products of ``width`` columns stay in a processor's cache (2 MB), or fill a GPU (1 GB)."""
    return values.split(max(64, (500_000 if values.device.type == "cpu" else 250_000_000) // width))


def largest(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maximum of every row and where it lies; numpy's search is several times faster than torch's on a CPU."""
    if values.device.type != "cpu" or not len(values):
        return values.max(1)
    at = torch.from_numpy(values.numpy().argmax(1))
    return values.gather(1, at[:, None])[:, 0], at


@dataclass(frozen=True)
class Tops:
    """The highest value of every row of a product.

    Attributes:
        value: (n,) it. at: (n,) its column.
        beside: (n, s) the row's values at the columns so many steps away, those of the first or last column beyond.
    """

    value: torch.Tensor
    at: torch.Tensor
    beside: torch.Tensor


def highest(values: torch.Tensor, factors: Sequence[torch.Tensor], steps: Sequence[int]) -> Tops:
    """Tops of ``values @ factors[0] @ factors[1] ...``, whose rows are looked at while they lie in the cache.

    Args:
        values: (n, t). factors: matrices, none for the values themselves. steps: from the top to what is kept beside.
    """
    width = factors[-1].shape[1] if factors else values.shape[1]
    away = torch.tensor(steps, device=values.device)
    tops = Tops(values.new_empty(len(values)), away.new_empty(len(values)), values.new_empty(len(values), len(steps)))
    start = 0
    for part in chunks(values, width):
        rows = slice(start, start + len(part))
        for factor in factors:
            part = part @ factor
        tops.value[rows], tops.at[rows] = largest(part)
        tops.beside[rows] = part.gather(1, (tops.at[rows, None] + away).clamp(0, width - 1))
        start = rows.stop
    return tops


def time_weights(times_s: np.ndarray) -> np.ndarray:
    """Weights (t,) in s of the trapezoid rule at any sample times."""
    gaps = np.diff(np.asarray(times_s, float))
    return np.concatenate([gaps[:1], gaps[:-1] + gaps[1:], gaps[-1:]]) / 2
