"""From images with a place and a time to a grid of frames x slices, across missing and surplus images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError
from StrokeCTPLib.frames_dicom_select import most_common

#: A pause longer than this, and than four usual steps, parts an acquisition from what was taken before or after it.
PAUSE_S, PAUSE_STEPS = 20.0, 4.0
#: Frames that may be cut off at either end because slices lack them.
END_FRAMES = 2
#: A place with less than this part of the usual images was not part of the acquisition.
_THIN = 0.75


@dataclass(frozen=True)
class Grid:
    """Which image is slice k of frame t.

    Attributes:
        images: (t, k) index of the image; of the image next in time where ``missing``.
        times_s: (t, k) time of every slice, interpolated where missing.
        missing: (t, k) True where no image exists and values have to be interpolated in time.
        dropped: images left out: kind -> count. warnings: what to tell the user.
    """

    images: np.ndarray
    times_s: np.ndarray
    missing: np.ndarray
    dropped: Counter
    warnings: list[str]


def main_run(seconds: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Mask (n,) of the images of the longest run without a pause.

    A plain scan before the perfusion or a delayed volume after it is a run of its own; a wider step within the
    acquisition (a CT angiography between two phases) is none unless it is longer than 20 s.
    """
    order = np.lexsort((seconds, places))
    steps = np.diff(seconds[order])[np.diff(places[order]) == 0]
    pause = max(PAUSE_S, PAUSE_STEPS * float(np.median(steps))) if len(steps) else np.inf
    order = np.argsort(seconds, kind="stable")
    runs = np.concatenate([[0], np.cumsum(np.diff(seconds[order]) > pause)])
    mask = np.empty(len(seconds), dtype=bool)
    mask[order] = runs == np.bincount(runs).argmax()
    return mask


def build_grid(seconds: np.ndarray, places: np.ndarray, name: str) -> Grid:
    """Put images on a grid of frames and slices.

    Frames are those that at least half of the places have. A place with few images at an end of the stack is left out;
    frames at either end that some slices lack are cut off (two at most); a single missing image is to be interpolated.

    Args:
        seconds: (n,) time of every image; distinct at each place.
        places: (n,) index of its place, 0 .. K-1 from low to high.
        name: how messages call the series.

    Raises:
        InputError: more is missing than can be mended.
    """
    dropped, warnings = Counter(), []
    columns = [np.flatnonzero(places == place) for place in range(places.max() + 1)]
    columns = [column[np.argsort(seconds[column], kind="stable")] for column in columns]
    count = most_common(np.array([len(column) for column in columns]))
    columns = _without_thin(columns, count, name, dropped, warnings)
    grid = _simultaneous(columns, seconds, count)
    if grid is None:
        grid = _aligned(columns, seconds, count)
    common = (grid >= 0).mean(axis=1) >= 0.5
    dropped["surplus image of a place"] += int((grid[~common] >= 0).sum())
    grid = grid[common]
    times = np.where(grid >= 0, seconds[grid], np.nan)
    first, last = _ends(grid, name)
    if first or last < len(grid):
        cut = first + len(grid) - last
        warnings.append(
            f"{cut} frame{'s' if cut > 1 else ''} at the ends of the acquisition, which not all slices have, "
            f"{'were' if cut > 1 else 'was'} left out."
        )
        dropped["image of an incomplete frame"] += int((grid[:first] >= 0).sum() + (grid[last:] >= 0).sum())
    grid, times = grid[first:last], times[first:last]
    missing = grid < 0
    _fill(grid, times, name)
    if missing.any():
        number = int(missing.sum())
        warnings.append(f"{number} missing image{'s were' if number > 1 else ' was'} interpolated in time.")
    spread, step = np.ptp(times, axis=1), float(np.median(np.diff(times, axis=0)))
    if spread.max() > np.median(spread) + 0.75 * step:
        warnings.append(f"Images are missing such that slices of one frame lie up to {spread.max():.1f} s apart.")
    return Grid(grid, times, missing, +dropped, warnings)


def _without_thin(columns: list[np.ndarray], count: int, name: str, dropped, warnings) -> list[np.ndarray]:
    """Without places at the ends of the stack that have few of the ``count`` images."""
    thick = [k for k, column in enumerate(columns) if len(column) >= _THIN * count]
    low, high = thick[0], thick[-1]
    inside = [k for k in range(low, high + 1) if k not in thick]
    if inside:
        raise InputError(
            f"{name} has only {len(columns[inside[0]])} of {count} images of slice {inside[0] + 1}; "
            "send the series again."
        )
    outside = columns[:low] + columns[high + 1 :]
    if outside:
        dropped["image of an incomplete slice place"] += sum(map(len, outside))
        plural = "s" if len(outside) > 1 else ""
        warnings.append(f"{len(outside)} slice place{plural} at the ends of the stack without all frames left out.")
    return columns[low : high + 1]


def _simultaneous(columns: list[np.ndarray], seconds: np.ndarray, count: int) -> np.ndarray | None:
    """(frames, K) image indices, -1 where missing, if the images fall into bursts with each place at most once.

    So every lost image is found wherever slices are taken together; None for a table that moves.
    """
    images = np.concatenate(columns)
    places = np.repeat(np.arange(len(columns)), [len(column) for column in columns])
    step = float(np.median(np.concatenate([np.diff(seconds[column]) for column in columns])))
    order = np.argsort(seconds[images], kind="stable")
    bursts = np.empty(len(images), dtype=int)
    bursts[order] = np.concatenate([[0], np.cumsum(np.diff(seconds[images][order]) > step / 2)])
    grid = np.full((bursts.max() + 1, len(columns)), -1)
    if bursts.max() >= count + 2 * END_FRAMES or np.bincount(bursts * len(columns) + places).max() > 1:
        return None
    grid[bursts, places] = images
    return grid


def _aligned(columns: list[np.ndarray], seconds: np.ndarray, count: int) -> np.ndarray:
    """(frames, K) image indices, -1 where missing, for a table that moves: place by place, by the times of neighbours.

    Begins with a place that has as many images as most have, and goes outward, to such places first; an image that
    fits no frame yet makes one.
    """
    usual = np.array([k for k, column in enumerate(columns) if len(column) == count])
    start = int(usual[np.abs(usual - len(columns) / 2).argmin()])
    gap = float(np.median(np.diff(seconds[columns[start]]))) / 2
    grid = np.full((count, len(columns)), -1)
    grid[:, start] = columns[start]
    placed = [start]
    others = set(range(len(columns))) - {start}
    for k in sorted(others, key=lambda place: (len(columns[place]) != count, abs(place - start))):
        near = sorted(placed, key=lambda place: abs(place - k))
        first = (grid[:, near] >= 0).argmax(axis=1)
        rows = seconds[grid[np.arange(len(grid)), np.array(near)[first]]]
        pairs = match_times(seconds[columns[k]], rows, gap)
        wider = np.vstack([grid, np.full((1, len(columns)), -1)])[[row for _, row in pairs]]
        wider[:, k] = np.append(columns[k], -1)[[image for image, _ in pairs]]
        grid = wider
        placed.append(k)
    return grid


def match_times(images: np.ndarray, frames: np.ndarray, gap: float) -> list[tuple[int, int]]:
    """Pair rising times of one place with those of frames: (image, frame) in order, -1 for one without a partner.

    A constant offset between the two counts once: of those that occur between times at most two ranks apart, the one
    is taken that leaves the least cost.

    Args:
        gap: cost in seconds of leaving one time without a partner.
    """
    if len(images) == len(frames):
        apart = images - frames
        if np.abs(apart - np.median(apart)).max() < gap:
            return [(n, n) for n in range(len(images))]
    found = [(abs(offset), *_match(images - offset, frames, gap)) for offset in _offsets(images, frames, gap)]
    return min(found, key=lambda one: one[0] + one[1])[2]


def _offsets(images: np.ndarray, frames: np.ndarray, gap: float) -> list[float]:
    """Offsets between images and frames that hold over a good part of them, whichever images are missing."""
    offsets = {}
    for lag in range(-END_FRAMES, END_FRAMES + 1):
        one, other = images[max(lag, 0) :], frames[max(-lag, 0) :]
        count = min(len(one), len(other))
        if count:
            parts = np.quantile(one[:count] - other[:count], (0.1, 0.3, 0.5, 0.7, 0.9), method="nearest")
            offsets.update({round(part / (0.1 * gap)): part for part in parts.tolist()})
    return list(offsets.values())


def _match(images: np.ndarray, frames: np.ndarray, gap: float) -> tuple[float, list[tuple[int, int]]]:
    """The cheapest pairing and its cost: differences of partners, and ``gap`` for each that has none."""
    cost = np.zeros((len(images) + 1, len(frames) + 1))
    cost[:, 0], cost[0] = gap * np.arange(len(images) + 1), gap * np.arange(len(frames) + 1)
    apart = np.abs(images[:, None] - frames)
    for i in range(1, len(images) + 1):
        for j in range(1, len(frames) + 1):
            alone = min(cost[i - 1, j], cost[i, j - 1]) + gap
            cost[i, j] = min(cost[i - 1, j - 1] + apart[i - 1, j - 1], alone)
    pairs, (i, j) = [], (len(images), len(frames))
    while i and j:
        if cost[i, j] == cost[i - 1, j - 1] + apart[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif cost[i - 1, j] <= cost[i, j - 1]:
            i -= 1
            pairs.append((i, -1))
        else:
            j -= 1
            pairs.append((-1, j))
    pairs += [(n, -1) for n in reversed(range(i))] + [(-1, n) for n in reversed(range(j))]
    return float(cost[-1, -1]), pairs[::-1]


def _ends(grid: np.ndarray, name: str) -> tuple[int, int]:
    """(first, stop) of the frames left when incomplete ones at the ends are cut off."""
    first, stop = 0, len(grid)
    while first < min(END_FRAMES, stop) and (grid[first] < 0).any():
        first += 1
    while len(grid) - stop < END_FRAMES and stop > first and (grid[stop - 1] < 0).any():
        stop -= 1
    for frame in (first, stop - 1):
        if (grid[frame] < 0).any():
            raise InputError(f"{name} lacks images of frame {frame + 1}; send the whole series again.")
    return first, stop


def _fill(grid: np.ndarray, times: np.ndarray, name: str) -> None:
    """Put times into single gaps of a slice, and the earlier neighbour's image, in place."""
    known = np.isfinite(times)
    measured = times.copy()
    for t, k in np.argwhere(~known):
        if not known[t + 1, k]:
            raise InputError(
                f"{name} lacks several images in a row of slice {k + 1} (from frame {t + 1}); send the series again."
            )
        others = np.flatnonzero(known[t])
        near = others[np.argsort(np.abs(others - k), kind="stable")[:2]]
        before, after = times[t - 1, k], times[t + 1, k]
        guess = _predicted(measured[:, k], measured[:, near])[t] if len(near) else np.nan
        times[t, k] = guess if before < guess < after else (before + after) / 2
        grid[t, k] = grid[t - 1, k]


def _predicted(column: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Times of a slice as the linear combination of its neighbours' times that fits where they are known.

    Exact for tables that stand still, move to and fro, or toggle between two places.
    """
    start = np.nanmin(column)
    system = np.column_stack([neighbours - start, np.ones(len(column))])
    known = np.isfinite(column) & np.isfinite(system).all(axis=1)
    weights = np.linalg.lstsq(system[known], column[known] - start, rcond=1e-9)[0]
    return system @ weights + start
