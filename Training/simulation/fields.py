"""Smooth random fields and coordinates: the raw material of shapes, textures and deformations."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

Array = np.ndarray


def smooth_field(shape: tuple[int, ...], spacing_mm: tuple[float, ...], scale_mm: float, rng: np.random.Generator) -> Array:
    """A float32 random field of mean 0 and standard deviation near 1 that varies over about ``scale_mm``."""
    counts = [max(2, int(np.ceil(n * s / scale_mm)) + 1) for n, s in zip(shape, spacing_mm)]
    field = rng.standard_normal(counts).astype(np.float32)
    for axis, (count, n) in enumerate(zip(counts, shape)):
        field = np.moveaxis(_spline_matrix(n, count) @ np.moveaxis(field, axis, -2), -2, axis) if field.ndim > 1 else (
            _spline_matrix(n, count) @ field
        )
    return field / max(float(field.std()), 1e-6)


def _spline_matrix(n: int, count: int) -> Array:
    """(n, count) cubic interpolation weights from ``count`` knots to ``n`` samples."""
    at = np.linspace(0, count - 1, n)
    return ndimage.map_coordinates(
        np.eye(count, dtype=np.float32),
        np.stack(np.meshgrid(at, np.arange(count), indexing="ij")),
        order=min(3, count - 1),
        mode="nearest",
    ).astype(np.float32)


def coordinates_mm(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> list[Array]:
    """Open (broadcasting) coordinate arrays in mm, one per axis, in the order of the axes."""
    return [
        (np.arange(n, dtype=np.float32) * s).reshape([-1 if axis == other else 1 for other in range(len(shape))])
        for axis, (n, s) in enumerate(zip(shape, spacing_mm))
    ]


def random_rotation(rng: np.random.Generator) -> Array:
    """A uniformly random 3x3 rotation."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    return (q * np.sign(np.diag(r))).astype(np.float32)


def blur_mm(array: Array, sigma_mm: float, spacing_mm: tuple[float, ...]) -> Array:
    """Gaussian blur with a sigma in mm along every axis."""
    return ndimage.gaussian_filter(array, [sigma_mm / s for s in spacing_mm], truncate=3.0)
