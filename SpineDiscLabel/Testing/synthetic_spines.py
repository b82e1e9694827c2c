"""Synthetic chains of candidates with known names, for tests and figures of naming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SpineDiscLabelLib.anatomy import FORMS, SpineForm
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_COUNT


@dataclass(frozen=True)
class SyntheticSpine:
    """Candidates and the name of each; None for false ones."""

    candidates: list[Candidate]
    names: list[str | None]


def spine_points(rng: np.random.Generator, form: SpineForm = FORMS[0], size: float | None = None) -> np.ndarray:
    """(n, 3) disc centres of a whole spine: own size, regional proportions, lie, curvature, side bend."""
    count = len(form.names)
    size = float(np.exp(rng.normal(0, 0.1))) if size is None else size
    region = np.interp(np.arange(count), np.linspace(0, count, 5), rng.normal(0, 0.03, 5))
    length = form.step_mm * size * np.exp(region + rng.normal(0, 0.03, count))
    tilt = form.tilt_deg * rng.uniform(0.4, 1.3) + rng.normal(0, 4)
    tilt = tilt + np.interp(np.arange(count), np.linspace(0, count, 7), rng.normal(0, 6, 7)) + rng.normal(0, 2, count)
    side = np.interp(np.arange(count), np.linspace(0, count, 6), rng.normal(0, 5, 6))
    t, s = np.radians(tilt), np.radians(side)
    steps = -length[:, None] * np.stack([np.cos(t) * np.sin(s), np.sin(t), np.cos(t) * np.cos(s)], axis=1)
    return np.cumsum(steps, axis=0)


def synthetic_spine(
    rng: np.random.Generator,
    levels: tuple[int, int] = (0, DISC_COUNT),
    form: SpineForm = FORMS[0],
    size: float | None = None,
    noise_mm: float = 1.5,
    missing: float = 0.03,
    false: int = 3,
    evidence: float = 0.6,
    shift_sd: float = 0.7,
) -> SyntheticSpine:
    """Candidates as a network might give them.

    Args:
        levels: first and last level in view (half open).
        noise_mm: SD of each coordinate.
        missing: share of discs that it does not see.
        false: false candidates around the spine.
        evidence: strength of the channel of the disc; 0 for none.
        shift_sd: how far, in levels, the evidence is off, common to neighbours.
    """
    points, names = spine_points(rng, form, size)[slice(*levels)], form.names[slice(*levels)]
    drift = np.interp(np.arange(len(names)), np.linspace(0, len(names), 4), rng.normal(0, shift_sd, 4))
    candidates, truth = [], []
    for level, (point, name) in enumerate(zip(points, names)):
        if rng.random() < missing:
            continue
        at = _looks_like(form, levels[0] + level) + drift[level]
        channels = evidence * np.exp(-0.5 * ((np.arange(DISC_COUNT) - at) / 0.8) ** 2)
        channels = np.clip(channels + evidence * rng.exponential(0.05, DISC_COUNT), 0, 1)
        candidates.append(Candidate(point + rng.normal(0, noise_mm, 3), float(rng.beta(6, 2)), channels))
        truth.append(name)
    for _ in range(false):
        near = points[rng.integers(len(points))] + rng.normal(0, (6, 25, 25), 3)
        channels = np.clip(evidence * rng.exponential(0.08, DISC_COUNT), 0, 1)
        candidates.append(Candidate(near, float(rng.beta(2, 4)), channels))
        truth.append(None)
    order = rng.permutation(len(candidates))
    return SyntheticSpine([candidates[i] for i in order], [truth[i] for i in order])


def _looks_like(form: SpineForm, level: int) -> int:
    """Channel that a disc lights up: a lumbar disc is known by its distance from the sacrum, others from the skull."""
    from_sacrum = len(form.names) - 1 - level
    return DISC_COUNT - 1 - from_sacrum if from_sacrum < len(form.names) - 19 else level
