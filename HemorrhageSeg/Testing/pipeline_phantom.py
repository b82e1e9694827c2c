"""A head whose bleeds are known exactly, and a network that is a threshold, for tests of the pipeline around it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from NeuraxisLib.volume import Volume

BLOOD_HU, BRAIN_HU = 75.0, 35.0
RADIUS_MM = 18.0
SPHERE_ML = 4 / 3 * np.pi * RADIUS_MM**3 / 1000
CENTRE_RAS = np.array([25.0, 10.0, 8.0])


class Bright(nn.Module):
    """Logit of blood for a window of -100 to 300 HU: 0 at 55 HU, 16 at 75, 20 at most.

    None within three pixels of 130 HU, where partial volume with bone would look like blood.
    """

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near_bone = nn.functional.max_pool2d(x, 7, stride=1, padding=3) > 0.15
        return (x.clamp(max=-0.1) + 0.225) * 160 + self.anchor - 1000 * near_bone


def header(**changes) -> dict:
    channels = [{"offset": 0, "low_hu": -100.0, "high_hu": 300.0}]
    return {
        "name": "bright",
        "title": "Above 55 HU",
        "task": "hemorrhage",
        "architecture": {"name": "Bright", "arguments": {}},
        "preprocessing": {"size": 192, "margin": 0.05, "slab_mm": 5.0, "channels": channels},
        "labels": {"1": "Hemorrhage"},
        "threshold": 0.5,
        "min_component_ml": 0.1,
        "uncertainty": {},
        "training": {},
        "licence": "Apache-2.0",
        "notice": "A threshold, not a trained network.",
        "scores": {},
        **changes,
    }


def head(
    spacing=(1.2, 1.2, 4.0), tilt_deg: float = 0.0, bleeds=((CENTRE_RAS, RADIUS_MM),), rise_mm: float = 0.0
) -> Volume:
    """An ellipsoid head: scalp, skull 7 mm thick, brain with ventricles, spherical bleeds; voxels averaged over z."""
    column, row, slice_mm = spacing
    shape = (int(170 / slice_mm), int(220 / row), int(190 / column))
    matrix = np.diag([-column, -row, slice_mm, 1.0])
    matrix[1, 2] = -np.tan(np.radians(tilt_deg)) * slice_mm
    middle = (np.array(shape[::-1]) - 1) / 2
    matrix[:3, 3] = -matrix[:3, :3] @ middle + [0, 0, 10 + rise_mm]
    k, j, i = np.indices(shape).astype(np.float32)
    rng = np.random.default_rng(3)
    values = np.zeros(shape, np.float32)
    steps = (np.arange(3) - 1) / 3
    for step in steps:
        r, a, s = (
            matrix[axis, 0] * i + matrix[axis, 1] * j + matrix[axis, 2] * (k + step) + matrix[axis, 3]
            for axis in range(3)
        )
        values += tissue(r, a, s, bleeds) / len(steps)
    values += rng.normal(0, 3, shape)
    return Volume(np.rint(values).astype(np.int16), matrix, "HU", meta={"modality": "CT"})


def unequal_gaps() -> Volume:
    """The head with every second slice of the upper half missing: gaps of 2.5 mm below and 5 mm above."""
    fine = head(spacing=(1.2, 1.2, 2.5))
    half = fine.slice_count // 2
    kept = np.concatenate([np.arange(half), np.arange(half, fine.slice_count, 2)])
    origins = fine.origins_ras[kept]
    matrix = fine.ijk_to_ras.copy()
    matrix[:3, 2] = (origins[-1] - origins[0]) / (len(kept) - 1)
    return Volume(fine.array[kept], matrix, "HU", slice_origins_ras=origins, meta=fine.meta)


def tissue(r: np.ndarray, a: np.ndarray, s: np.ndarray, bleeds) -> np.ndarray:
    depth = np.sqrt((r / 70) ** 2 + (a / 88) ** 2 + (s / 70) ** 2)
    hu = np.full(r.shape, -1000.0, np.float32)
    hu[depth < 1.19] = 20  # scalp
    hu[depth < 1.10] = 900
    hu[depth < 1.0] = BRAIN_HU
    hu[(abs(abs(r) - 9) < 5) & (abs(a) < 30) & (abs(s) < 8)] = 8  # ventricles
    for (x, y, z), radius in bleeds:
        hu[(r - x) ** 2 + (a - y) ** 2 + (s - z) ** 2 < radius**2] = BLOOD_HU
    return hu
