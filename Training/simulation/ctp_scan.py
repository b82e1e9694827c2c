"""The acquisition: when every slice of every frame is taken, how the head moves, and the noise of the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

#: Sampling patterns and how often they are drawn: constant steps in s, or two steps with the time of the change.
STEPS_S = ((1.0, 0.15), (1.5, 0.4), (2.0, 0.2), (2.8, 0.1))
SLOWING = 0.15
#: Pixels for which the noise is stated.
PIXEL_MM = 0.85


@dataclass(frozen=True)
class Protocol:
    """How a series is taken.

    Attributes:
        size_px: rows and columns. slices, thickness_mm, pixel_mm: of the grid; slices touch.
        times_s: (t, k) of every slice. start_s: contrast reaches the head. noise_hu: SD of a pixel.
        moves: how much the head moves: "still", "mild" or "strong".
    """

    size_px: int
    slices: int
    thickness_mm: float
    pixel_mm: float
    times_s: np.ndarray
    start_s: float
    noise_hu: float
    moves: str
    slow_heart: bool


def draw_times(slices: int, rng: np.random.Generator, duration_s: float, step_s: float | None) -> np.ndarray:
    """(t, k) times: constant steps, in some cases slower after 35 s, in some with the table moving to and fro."""
    drawn = float(rng.choice([s for s, _ in STEPS_S], p=np.array([p for _, p in STEPS_S]) / sum(p for _, p in STEPS_S)))
    slowing, shuttle = rng.random() < SLOWING, rng.random() < 0.25
    if step_s is None and slowing:
        frames = np.concatenate([np.arange(0, 35, 1.5), np.arange(36, duration_s + 0.1, 3.0)])
    else:
        step_s = drawn if step_s is None else step_s
        frames = np.arange(0, duration_s + 0.1, step_s)
    times = np.repeat(frames[:, None], slices, 1)
    if shuttle and slices > 1:
        step = float(np.diff(frames).min())
        there = step * np.arange(slices) / slices
        times[::2] += there
        times[1::2] += there[::-1]
    return times


def draw_motion(moves: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """(t, 6) mm of translation and degrees of rotation about (column, row, slice): drifts, and jerks that stay.

    Nodding (about the left-right axis) is the strongest; the first three frames are still.
    """
    if moves == "still":
        return np.zeros((count, 6))
    size = {"mild": 1.0, "strong": 3.0}[moves]
    weights = size * np.array([0.4, 0.5, 0.8, 1.0, 0.4, 0.7])
    drift = np.linspace(0, 1, count)[:, None] * rng.standard_normal(6) * 0.5
    jerks = np.zeros((count, 6))
    for _ in range(rng.integers(1, 4)):
        start = rng.integers(3, count)
        jerks[start : start + rng.integers(2, count)] += rng.standard_normal(6) * 0.7
    found = (drift + jerks) * weights
    found[:3] = 0
    limit = np.array([3, 3, 5, 5, 3, 5.0]) * size / 3
    return np.clip(found, -limit, limit)


def motion_matrices(motion: np.ndarray) -> np.ndarray:
    """(t, 4, 4) in mm about the grid's middle, axes (column, row, slice): point of the still head -> of the frame."""
    matrices = np.repeat(np.eye(4)[None], len(motion), 0)
    for matrix, (x, y, z, about_x, about_y, about_z) in zip(matrices, motion):
        (ca, cb, cc), (sa, sb, sc) = (f(np.deg2rad([about_x, about_y, about_z])) for f in (np.cos, np.sin))
        turn_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
        turn_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
        turn_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
        matrix[:3, :3], matrix[:3, 3] = turn_z @ turn_y @ turn_x, (x, y, z)
    return matrices


def move(frames: np.ndarray, matrices: np.ndarray, spacing_kji_mm: tuple[float, float, float]) -> None:
    """Move the frames (t, k, j, i) by matrices of :func:`motion_matrices`, in place; borders repeat."""
    spacing_mm = np.array(spacing_kji_mm)
    middle = (np.array(frames.shape[1:]) - 1) / 2
    for frame, matrix in zip(frames, matrices):
        if np.allclose(matrix, np.eye(4)):
            continue
        back = np.linalg.inv(matrix)
        linear = back[:3, :3][::-1, ::-1] * spacing_mm / spacing_mm[:, None]
        shift = back[:3, 3][::-1] / spacing_mm
        frame[:] = ndimage.affine_transform(
            frame, linear, middle + shift - linear @ middle, order=1, mode="nearest", prefilter=False
        )


def add_noise(frames: np.ndarray, noise_hu: float, pixel_mm: float, rng: np.random.Generator) -> None:
    """Add the noise of filtered back projection through a soft kernel in place, a little more in the middle.

    Its power rises with the frequency, from a floor that denoising reconstructions leave, and falls with the kernel:
    neighbouring pixels are alike, but averages over many pixels are quieter than of blurred white noise.

    Args:
        noise_hu: SD of pixels of PIXEL_MM; larger ones hold what is left of the same noise.
    """
    if not noise_hu:
        return
    cut, floor = rng.uniform(0.22, 0.42), rng.uniform(0.03, 0.12)

    def power(across: np.ndarray, along: np.ndarray) -> np.ndarray:
        frequency = np.hypot(across[:, None], along[None])  # per mm
        return (frequency / cut + floor) * np.exp(-((frequency / cut) ** 2))

    known = fft.fftfreq(256, PIXEL_MM)
    density = noise_hu**2 / (power(known, known).mean() / PIXEL_MM**2)  # HU^2 mm^2 per unit of power
    rows, columns = frames.shape[-2:]
    # Real and imaginary part of a bin share its variance; it counts twice, as the mirrored bin is not stored.
    size = np.sqrt(power(fft.fftfreq(rows, pixel_mm), fft.rfftfreq(columns, pixel_mm)) * density * rows * columns / 2)
    size = (size / pixel_mm).astype(np.float32)
    axis = np.linspace(-1, 1, columns)
    weight = (1.15 - 0.3 * (np.linspace(-1, 1, rows)[:, None] ** 2 + axis**2)).clip(0.6).astype(np.float32)
    for frame in frames:
        parts = rng.standard_normal((2, len(frame), *size.shape), dtype=np.float32)
        frame += fft.irfft2((parts[0] + 1j * parts[1]) * size, s=(rows, columns)) * weight
