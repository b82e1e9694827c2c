"""Perfusion maps turned, moved and changed in their values, before they are shown to a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from StrokeCTPLib.threshold_rules import CORE, PENUMBRA
from Training.store import IGNORED
from Training.stroke_cache import Slices

#: Standard deviation, in the logarithm, of the calibration of a whole map and of its noise.
CALIBRATION, NOISE = 0.06, 0.05


def unchanged(case: Slices, rng: np.random.Generator) -> Slices:
    """The maps as they are."""
    return case


def quarter_turns(case: Slices, rng: np.random.Generator) -> Slices:
    """One of the six of the released code: as it is, turned by one to three quarters, or mirrored up or left."""
    choice = int(rng.integers(6))
    if choice == 0:
        return case
    parts = (case.maps, case.truth, case.brain)
    if choice < 4:
        return Slices(*(np.ascontiguousarray(np.rot90(part, choice, (-2, -1))) for part in parts))
    return Slices(*(np.ascontiguousarray(np.flip(part, -2 if choice == 4 else -1)) for part in parts))


def moved_and_changed(case: Slices, rng: np.random.Generator) -> Slices:
    """Mirrored left and right, turned, scaled and shifted a little; each map scaled and made noisy. Numbers alone."""
    case = _moved(case, rng)
    maps = case.maps.astype(np.float32)
    for values in maps:
        noise = rng.normal(0, NOISE, values.shape).astype(np.float32)
        values *= np.exp(np.float32(rng.normal(0, CALIBRATION)) + noise)
    return replace(case, maps=maps)


def _moved(case: Slices, rng: np.random.Generator) -> Slices:
    angle, scale = np.deg2rad(rng.normal(0, 8)), np.exp(rng.normal(0, 0.06))
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    theta = np.concatenate([matrix, rng.normal(0, 0.03, (2, 1))], axis=1).astype(np.float32)
    known = np.isfinite(case.maps)
    labels = [case.truth == value for value in (PENUMBRA, CORE, IGNORED)]
    stack = np.concatenate([np.where(known, case.maps, 0), known, np.stack([*labels, case.brain])]).astype(np.float32)
    source = torch.from_numpy(stack).transpose(0, 1)  # (slices, planes, h, w)
    grid = functional.affine_grid(torch.from_numpy(theta)[None].expand(len(source), -1, -1), source.shape, False)
    out = functional.grid_sample(source, grid, mode="bilinear", align_corners=False).transpose(0, 1).numpy()
    count = len(case.maps)
    values, weight, (*shares, brain) = out[:count], out[count : 2 * count], out[2 * count :]
    with np.errstate(invalid="ignore", divide="ignore"):
        maps = np.where(weight > 0.5, values / weight, np.nan)
    shares = np.stack([np.clip(1 - sum(shares), 0, 1), *shares])
    truth = np.array([0, PENUMBRA, CORE, IGNORED], np.uint8)[shares.argmax(axis=0)]
    return Slices(maps, truth, brain > 0.5)


#: Name in a recipe -> function of slices and a generator.
AUGMENTATIONS: dict[str, Callable[[Slices, np.random.Generator], Slices]] = {
    "none": unchanged,
    "stavanger": quarter_turns,
    "maps": moved_and_changed,
}
