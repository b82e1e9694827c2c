"""The scanner of the simulated spine: coils, saturation, ghosts, wrap, blur, ringing, noise, stitching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from Training.simulation.fields import smooth_field
from Training.simulation.spine_tissues import Contrast

Array = np.ndarray


@dataclass(frozen=True)
class Look:
    """What makes one series look as it does; the same for all its slices."""

    shading: float = 1.0
    noise: float = 0.02
    blur_mm: float = 0.5
    artefacts: float = 1.0


def draw_look(rng: np.random.Generator) -> Look:
    """A random series: some are clean, some poor."""
    return Look(
        shading=float(rng.choice([0.0, rng.uniform(0.2, 1.0), rng.uniform(0.8, 1.6)], p=[0.15, 0.5, 0.35])),
        noise=float(np.exp(rng.uniform(np.log(0.004), np.log(0.06)))),
        blur_mm=float(rng.choice([0.0, rng.uniform(0.2, 0.9), rng.uniform(0.8, 2.0)], p=[0.25, 0.55, 0.2])),
        artefacts=1.0,
    )


#: A smooth template: many people averaged, no noise, no artefacts.
TEMPLATE = Look(shading=0.15, noise=0.004, blur_mm=1.3, artefacts=0.0)


def grey_of_codes(contrast: Contrast, health: Array, nucleus: int, rng: np.random.Generator) -> Array:
    """Grey, without texture, of every code (256 x tissue + instance) of a painted spine, float32.

    Args:
        health: by instance, 0..1 for discs (1 elsewhere).
        nucleus: value of the tissue whose grey follows the health of its disc.
    """
    gain = np.exp(rng.normal(0, contrast.spread, 256)).astype(np.float32)
    gain[0] = 1.0
    table = contrast.mean[:, None] * gain
    table[nucleus] *= 1 - 0.85 * (1 - health) * contrast.disc_range
    return table.ravel()


def textured(image: Array, amount: Array, pixel_mm: float, rng: np.random.Generator) -> Array:
    """The image with tissue texture of two scales; ``amount`` is its standard deviation per pixel."""
    shape = image.shape[-2:]
    coarse = smooth_field(shape, (pixel_mm,) * 2, rng.uniform(3.0, 9.0), rng)
    for number in range(len(image)):
        fine = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), rng.uniform(0.6, 1.4))
        fine /= max(float(fine.std()), 1e-6)
        image[number] += amount[number] * (0.7 * fine + 0.7 * coarse)
    return image


def scanned(stack: Array, depth_mm: Array, pixel_mm: float, look: Look, rng: np.random.Generator) -> Array:
    """What the scanner makes of grey slices (n, rows, columns).

    Args:
        stack: about 0..1; not changed.
        depth_mm: (rows, columns) or (1, columns) distance in front of the back's surface coil.
        pixel_mm: side of a pixel.
    """
    out = np.maximum(stack, 0).astype(np.float32)
    if look.artefacts and rng.random() < 0.06:
        out = _wrapped(out, rng)
    if look.shading:
        out = out * _coils(out.shape[-2:], depth_mm, pixel_mm, look.shading, rng)
    if look.artefacts and rng.random() < 0.22:
        out = out * _saturated(out.shape[-2:], depth_mm, rng)
    if look.blur_mm:
        sigma = look.blur_mm / pixel_mm
        out = ndimage.gaussian_filter(out, (0, sigma, sigma * rng.uniform(0.7, 1.3)), truncate=2.5)
    if look.artefacts:
        out = _with_artefacts(out, rng)
    return _noisy(out, look.noise, rng)


def _coils(
    shape: tuple[int, int], depth_mm: Array, pixel_mm: float, strength: float, rng: np.random.Generator
) -> Array:
    """Sensitivity: strong near the back, fading to the front and to the ends of the coil."""
    decay = rng.uniform(75, 220) / strength
    across = np.exp(-np.clip(depth_mm - 20, 0, None) / decay)
    rows = (np.arange(shape[0], dtype=np.float32)[:, None] - shape[0] * rng.uniform(0.2, 0.8)) * pixel_mm
    length = rng.uniform(150, 400) / strength
    ends = np.exp(-0.5 * (rows / length) ** 4) * (1 - rng.uniform(0, 0.1)) + 0.05
    slow = np.exp(0.15 * strength * smooth_field(shape, (pixel_mm,) * 2, rng.uniform(60, 160), rng))
    if rng.random() < 0.15:
        ends = ends * (1 + 0.15 * np.sin(rows / rng.uniform(12, 40)))
    return (across * ends * slow).astype(np.float32)


def _saturated(shape: tuple[int, int], depth_mm: Array, rng: np.random.Generator) -> Array:
    """A saturation band in front of the spine, straight and a little oblique."""
    rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    edge = rng.uniform(95, 150) + rng.uniform(-25, 25) * rows
    return 1 - rng.uniform(0.5, 0.97) / (1 + np.exp(-(depth_mm - edge) / rng.uniform(2, 8)))


def _wrapped(stack: Array, rng: np.random.Generator) -> Array:
    """Fold-over: what sticks out on one side comes in on the other."""
    axis = int(rng.integers(1, 3))
    width = int(stack.shape[axis] * rng.uniform(0.05, 0.2))
    out = stack.copy()
    source = [slice(None)] * 3
    target = [slice(None)] * 3
    source[axis], target[axis] = slice(0, width), slice(stack.shape[axis] - width, None)
    if rng.random() < 0.5:
        source, target = target, source
    out[tuple(target)] += stack[tuple(source)] * rng.uniform(0.3, 1.0)
    return out


def _with_artefacts(stack: Array, rng: np.random.Generator) -> Array:
    """Ghosts, ringing and the seam of a stitched scan, each in some series."""
    out = stack
    if rng.random() < 0.15:
        axis, step = int(rng.integers(1, 3)), rng.integers(2, 6)
        shift = stack.shape[axis] // int(step)
        ghost = np.roll(stack, shift, axis) + np.roll(stack, -shift, axis)
        out = out + ghost * rng.uniform(0.01, 0.09)
    if rng.random() < 0.12:
        out = _ringing(out, rng)
    if rng.random() < 0.08:
        row = int(stack.shape[1] * rng.uniform(0.15, 0.85))
        out = out.copy()
        out[:, row:] = np.roll(out[:, row:], int(rng.integers(-2, 3)), 2) * rng.uniform(0.6, 1.6)
    if rng.random() < 0.06:
        for column in rng.integers(0, stack.shape[2], int(rng.integers(1, 4))):
            out = out.copy()
            out[:, :, column] += rng.uniform(0.05, 0.3) * rng.random(stack.shape[1], dtype=np.float32)
    return out


def _ringing(stack: Array, rng: np.random.Generator) -> Array:
    """Truncation: the outer part of k-space along one axis is missing."""
    axis = int(rng.integers(1, 3))
    spectrum = np.fft.rfft(stack, axis=axis)
    kept = int(spectrum.shape[axis] * rng.uniform(0.45, 0.75))
    cut = [slice(None)] * 3
    cut[axis] = slice(kept, None)
    spectrum[tuple(cut)] = 0
    return np.abs(np.fft.irfft(spectrum, stack.shape[axis], axis)).astype(np.float32)


def _noisy(stack: Array, amount: float, rng: np.random.Generator) -> Array:
    """Rician noise; ``amount`` is its standard deviation relative to the bright tissue."""
    scale = amount * max(float(np.percentile(stack[:, ::4, ::4], 99)), 1e-3)
    noise = rng.standard_normal((2, *stack.shape), dtype=np.float32) * scale
    if rng.random() < 0.5:
        noise = ndimage.gaussian_filter(noise, (0, 0, 0.6, 0.6)) * 1.8
    return np.hypot(stack + noise[0], noise[1])
