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
    grid = _simultaneous(columns, seconds)
    if grid is None:
        grid = _aligned(columns, seconds, count, dropped)
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


def _simultaneous(columns: list[np.ndarray], seconds: np.ndarray) -> np.ndarray | None:
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
    if np.bincount(bursts * len(columns) + places).max() > 1:
        return None
    grid[bursts, places] = images
    return grid


def _aligned(columns: list[np.ndarray], seconds: np.ndarray, count: int, dropped: Counter) -> np.ndarray:
    """(frames, K) image indices, -1 where a place lacks a frame, matched by the times of the nearest fullest place.

    The fullest places may hold up to END_FRAMES images more than the usual ``count``, which others lost.
    """
    sizes = np.array([len(column) for column in columns])
    frames = int(sizes[sizes <= count + END_FRAMES].max())
    grid = np.full((frames, len(columns)), -1)
    full = np.flatnonzero(sizes == frames)
    for k, column in enumerate(columns):
        reference = seconds[columns[full[np.abs(full - k).argmin()]]]
        if len(column) == frames:
            grid[:, k] = column
        elif len(column) < frames:
            grid[match_in_order(seconds[column], reference), k] = column
        else:
            grid[:, k] = column[match_in_order(reference, seconds[column])]
            dropped["surplus image of a place"] += len(column) - frames
    return grid


def match_in_order(few: np.ndarray, many: np.ndarray) -> np.ndarray:
    """For every one of ``few`` rising times, the index of its own partner among ``many``, in order.

    The assignment with the least sum of absolute differences, by dynamic programming.
    """
    cost = np.full((len(few) + 1, len(many) + 1), np.inf)
    cost[0] = 0.0
    for i in range(1, len(few) + 1):
        for j in range(i, len(many) + 1):
            cost[i, j] = min(cost[i, j - 1], cost[i - 1, j - 1] + abs(few[i - 1] - many[j - 1]))
    match, j = np.empty(len(few), dtype=int), len(many)
    for i in range(len(few), 0, -1):
        while cost[i, j] == cost[i, j - 1]:
            j -= 1
        match[i - 1] = j = j - 1
    return match


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
    complete = np.array([k for k in range(grid.shape[1]) if (grid[:, k] >= 0).all()], dtype=int)
    for t, k in np.argwhere(grid < 0):
        if grid[t + 1, k] < 0:
            raise InputError(
                f"{name} lacks several images in a row of slice {k + 1} (from frame {t + 1}); send the series again."
            )
        near = complete[np.argsort(np.abs(complete - k), kind="stable")[:2]]
        before, after = times[t - 1, k], times[t + 1, k]
        guess = _predicted(times[:, k], times[:, near])[t] if len(near) else np.nan
        times[t, k] = guess if before < guess < after else (before + after) / 2
        grid[t, k] = grid[t - 1, k]


def _predicted(column: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Times of a slice as the linear combination of its neighbours' times that fits where they are known.

    Exact for tables that stand still, move to and fro, or toggle between two places.
    """
    start = np.nanmin(column)
    system = np.column_stack([neighbours - start, np.ones(len(column))])
    known = np.isfinite(column)
    weights = np.linalg.lstsq(system[known], column[known] - start, rcond=1e-9)[0]
    return system @ weights + start
