"""Small acquisitions and maps for tests of the stroke task, with their truth."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from NeuraxisLib.volume import AxisOrder, Volume
from StrokeCTPLib.inputs import frames_of_volume
from StrokeCTPLib.map_set import MapSet
from StrokeCTPLib.map_units import MAP_UNITS
from StrokeCTPLib.task import StrokeOptions
from Training.simulation.ctp_stroke_phantom import StrokePhantom, stroke_phantom

SMALL = {"shape_kji": (8, 96, 96), "spacing_mm": (2.2, 2.2, 10.0), "noise_hu": 2.0}
#: Fast and the same on every machine: no motion, no edges preserved.
QUICK = {"device": "cpu", "motion": "off", "edge_preserving": False}
LPS = np.diag([-1.0, -1.0, 5.0, 1.0])


@cache
def head(**changes) -> StrokePhantom:
    """The stroke head of the simulation, coarse."""
    return stroke_phantom(**{**SMALL, **changes})


def scan(**changes) -> Volume:
    """Its frames as whole HU, as scanners store them."""
    frames = head(**changes).frames
    return replace(frames, array=np.rint(frames.array).astype(np.int16))


def stored(volume: Volume, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Volume:
    """The same acquisition with its axes in another order."""
    return AxisOrder(axes, flips).apply(volume)


def with_times(volume: Volume, times_s: np.ndarray) -> Volume:
    return replace(volume, frame_times_s=times_s)


def frames(volume: Volume, **options):
    return frames_of_volume(volume, StrokeOptions(**options))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def maps_array() -> dict[str, np.ndarray]:
    """A brain of 6 slices of 5 mm, 1 mm pixels: CBF 50, CBV 4, Tmax 2; on the patient's left 20 x 30 pixels in 4 slices
    are late (12 mL at 8 s, CBF 30), and of these 10 x 15 in 2 slices (1.5 mL) have a CBF of 10."""
    brain = np.zeros((6, 100, 80), bool)
    brain[:, 10:90, 8:72] = True
    maps = {"cbf": np.where(brain, 50.0, 0), "cbv": np.where(brain, 4.0, 0), "tmax": np.where(brain, 2.0, 0)}
    maps["tmax"][1:5, 30:50, 42:72], maps["cbf"][1:5, 30:50, 42:72] = 8.0, 30.0
    maps["cbf"][2:4, 35:45, 50:65] = 10.0
    return {name: array.astype(np.float32) for name, array in maps.items()}


def map_set(**changes: np.ndarray) -> MapSet:
    """The maps of :func:`maps_array` as a set, some of them replaced; None leaves one out."""
    arrays = {name: array for name, array in {**maps_array(), **changes}.items() if array is not None}
    nothing = np.all([array == 0 for array in arrays.values()], axis=0)
    volumes = {
        name: Volume(np.where(nothing, np.float32(np.nan), array), LPS, MAP_UNITS[name])
        for name, array in arrays.items()
    }
    return MapSet(volumes, "image files")
