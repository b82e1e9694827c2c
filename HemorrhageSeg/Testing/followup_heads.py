"""A real head at two times: the bundled scan, turned, moved and scanned again, with a ball of blood of known size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from HemorrhageSegLib.brain import extract_brain
from HemorrhageSegLib.followup_grid import resample
from HemorrhageSegLib.followup_inputs import TimePoint
from HemorrhageSegLib.task import TASK
from NeuraxisLib.files import read_volume
from NeuraxisLib.measure import volume_ml
from NeuraxisLib.result import Measurement, Result, ScalarMap
from NeuraxisLib.volume import Volume

#: Share of the volume by which the interval of a ball reaches down and up.
DOWN, UP = 0.1, 0.2


@dataclass(frozen=True)
class Ball:
    """A ball of blood, RAS mm."""

    centre_ras: np.ndarray
    radius_mm: float

    @property
    def ml(self) -> float:
        """Volume by formula."""
        return 4 / 3 * np.pi * self.radius_mm**3 / 1000


@cache
def bundled() -> tuple[Volume, np.ndarray]:
    """(the bundled head CT at half its in-plane resolution, its intracranial space)."""
    full = read_volume(TASK.resources / "SampleData" / "head_ct_hemorrhage.nrrd")
    matrix = full.ijk_to_ras.copy()
    matrix[:3, :2] *= 2
    head = Volume(np.ascontiguousarray(full.array[:, ::2, ::2]), matrix, "HU", meta={"modality": "CT"})
    return head, extract_brain(head).mask


def points_ras(volume: Volume, mask: np.ndarray | None = None) -> np.ndarray:
    """(N, 3) RAS mm of the voxel centres of a mask; None for all voxels, in their order."""
    kji = np.argwhere(np.ones(volume.array.shape, bool) if mask is None else mask)
    return volume.origins_ras[kji[:, 0]] + kji[:, 1:2] * volume.row_step_ras + kji[:, 2:] * volume.column_step_ras


def rotation(pitch: float, roll: float, yaw: float) -> np.ndarray:
    """3x3 rotation by angles in degrees about R, A and S."""
    (a, b, c), one = np.radians([pitch, roll, yaw]), np.eye(3)
    about_r, about_a, about_s = one.copy(), one.copy(), one.copy()
    about_r[1:, 1:] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    about_a[::2, ::2] = [[np.cos(b), np.sin(b)], [-np.sin(b), np.cos(b)]]
    about_s[:2, :2] = [[np.cos(c), -np.sin(c)], [np.sin(c), np.cos(c)]]
    return about_s @ about_a @ about_r


def moved(
    head: Volume, brain: np.ndarray, turn_deg: tuple, shift_mm: tuple, slice_mm: float = 5.0, tilt_deg: float = 0.0
) -> tuple[Volume, np.ndarray]:
    """(the same head scanned again, 4x4 from places in the first scan to places in the second)."""
    middle, turn = points_ras(head, brain).mean(axis=0), rotation(*turn_deg)
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = turn, middle + shift_mm - turn @ middle
    pixel = head.spacing_mm[0]
    shape = tuple(int(n) for n in np.array([180.0, 240.0, 210.0]) / [slice_mm, pixel, pixel])
    matrix = np.diag([-pixel, -pixel, slice_mm, 1.0])
    matrix[1, 2] = -np.tan(np.radians(tilt_deg)) * slice_mm
    matrix[:3, 3] = middle + shift_mm - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    values = 0.0
    for part in (-1 / 3, 0.0, 1 / 3):  # a slice is a mean over its thickness
        thin = matrix.copy()
        thin[:3, 3] += part * matrix[:3, 2]
        grid = Volume(np.broadcast_to(np.int16(0), shape), thin)
        values = values + resample(head, grid, np.linalg.inv(move), outside=-1000.0) / 3
    values += np.random.default_rng(5).normal(0, 3, shape) * (values > -900)
    return Volume(np.rint(values).astype(np.int16), matrix, "HU", meta={"modality": "CT"}), move


def time_point(volume: Volume, brain: np.ndarray, ball: Ball | None, **facts) -> TimePoint:
    """A scan with a ball of blood in it, outlined exactly, as the hemorrhage task would have found it."""
    labels = np.zeros(volume.array.shape, np.uint8)
    if ball is not None:
        offset = points_ras(volume) - ball.centre_ras
        labels = ((offset**2).sum(axis=1) <= ball.radius_mm**2).reshape(volume.array.shape).astype(np.uint8)
    array = np.where(labels > 0, np.int16(72), volume.array)
    scan = Volume(array, volume.ijk_to_ras, "HU", meta=volume.meta)
    ml = volume_ml(labels, scan)
    total = Measurement("Total volume", ml, "mL", ((1 - DOWN) * ml, (1 + UP) * ml), "Hemorrhage")
    result = Result("hemorrhage", scan, scan.like(labels), measurements=[total], provenance={"model": {"name": "ball"}})
    result.maps["brain"] = ScalarMap(scan.like(brain.astype(np.uint8)), "Intracranial space", (0.0, 1.0))
    return TimePoint(scan, result, **facts)
