"""The scanner of the simulation: cupping, streaks, motion, thick or thin slices, tilt, field of view, noise, couch."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from NeuraxisLib.volume import Volume
from Training.simulation.bleeds import Anatomy
from Training.simulation.fields import coordinates_mm, smooth_field

#: Slice thickness in mm and how often it is drawn: mostly the thick slices of emergency head CT, some thin.
THICKNESS_MM = ((0.5, 0.01), (1.0, 0.03), (2.5, 0.13), (3.0, 0.1), (4.0, 0.15), (5.0, 0.43), (6.0, 0.08), (7.0, 0.07))


def scan(
    image: np.ndarray, occupied: np.ndarray, kinds: np.ndarray, anatomy: Anatomy, rng: np.random.Generator
) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Scan a 1 mm head (HU, (k, j, i) axial) as a CT scanner would.

    Args:
        image: HU at 1 mm. occupied: share of blood 0..1. kinds: truth value per voxel. anatomy: of this head.

    Returns:
        the CT volume (int16 HU; the matrix is sheared when tilted), the truth and the brain mask on its grid. A
        voxel is truth when blood fills more than half of it.
    """
    image = image + _cupping(anatomy, rng)
    _streaks(image, anatomy, rng)
    thickness = float(rng.choice([t for t, _ in THICKNESS_MM], p=[p for _, p in THICKNESS_MM]))
    tilt = np.deg2rad(rng.uniform(-25, 25)) if rng.random() < 0.35 else 0.0
    pixel = float(rng.uniform(0.9, 1.0))
    sampler = _Sampler(image.shape, anatomy, thickness, pixel, tilt, rng)
    ct = sampler(image, cval=-1000.0)
    blood = sampler(occupied, cval=0.0)
    brain = sampler(anatomy.inside.astype(np.float32), cval=0.0) > 0.5
    truth = np.where(blood > 0.5, sampler.nearest(ndimage.grey_dilation(kinds, size=3)), 0).astype(np.uint8)
    if rng.random() < 0.08:
        ct = _motion(ct, rng)
    ct += _noise(ct.shape, pixel, thickness, rng) * (ct > -950)
    _couch(ct, pixel, rng)
    low, high = (-1024, 3071) if rng.random() < 0.8 else (-1000, rng.uniform(300, 2300))
    # Tilted slices rise toward the back of the head, while the couch moves straight up: the matrix is sheared.
    matrix = np.diag([-pixel, -pixel, thickness, 1.0])
    matrix[2, 1] = pixel * np.tan(tilt)
    return Volume(np.rint(np.clip(ct, low, high)).astype(np.int16), matrix, "HU", meta={"modality": "CT"}), truth, brain


class _Sampler:
    """Averages a 1 mm array into slices of one thickness, perhaps tilted about the left-right axis."""

    def __init__(self, shape, anatomy: Anatomy, thickness: float, pixel: float, tilt: float, rng: np.random.Generator):
        used = np.flatnonzero(anatomy.inside.any(axis=(1, 2)))
        low, high = used[0] + rng.uniform(-12, 6), used[-1] + rng.uniform(-10, 8)
        self.count = max(3, int((high - low) / thickness))
        self.centres = low + thickness * (np.arange(self.count) + 0.5)
        self.fine = max(1, round(thickness / 1.25))
        self.thickness, self.tan = thickness, np.tan(tilt)
        side = int(max(shape[1:]) * rng.uniform(1.0, 1.15) / pixel)
        self.rows, self.columns = ((np.arange(side) - (side - 1) / 2) * pixel + (n - 1) / 2 for n in shape[1:])

    def _slice(self, array: np.ndarray, z: float, order: int, cval: float) -> np.ndarray:
        """One thin slice through ``array`` at height ``z`` (at the middle row, if tilted)."""
        out = np.full((len(self.rows), len(self.columns)), cval, array.dtype)
        rows, columns = self._within(self.rows, array.shape[1]), self._within(self.columns, array.shape[2])
        at_z = z + (self.rows[rows, None] - self.rows.mean()) * self.tan
        coordinates = np.broadcast_arrays(at_z, self.rows[rows, None], self.columns[None, columns])
        out[rows, columns] = ndimage.map_coordinates(
            array, coordinates, order=order, mode="constant", cval=cval, prefilter=False
        )
        return out

    @staticmethod
    def _within(positions: np.ndarray, count: int) -> slice:
        """The run of positions that fall on an axis of ``count`` voxels."""
        used = np.flatnonzero((positions >= 0) & (positions <= count - 1))
        return slice(used[0], used[-1] + 1)

    def __call__(self, array: np.ndarray, cval: float) -> np.ndarray:
        """Slices (n, rows, columns) float32, each the mean over its thickness."""
        if not array.any():  # a head without blood
            return np.full((self.count, len(self.rows), len(self.columns)), cval, np.float32)
        heights = self.thickness * ((np.arange(self.fine) + 0.5) / self.fine - 0.5)
        slices = (np.mean([self._slice(array, z + dz, 1, cval) for dz in heights], axis=0) for z in self.centres)
        return np.stack(list(slices)).astype(np.float32)

    def nearest(self, array: np.ndarray) -> np.ndarray:
        """Slices of whole numbers, the value at each slice's centre."""
        return np.stack([self._slice(array, z, 0, 0) for z in self.centres])


def _cupping(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Beam hardening left by the correction: a bright (or dark) rim under the skull."""
    strength = rng.normal(1.0, 2.5)
    return (strength * np.exp(-anatomy.depth_mm / rng.uniform(3, 14)) * anatomy.inside).astype(np.float32)


def _streaks(image: np.ndarray, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Dark and bright bands across the lower slices (between the petrous bones), in place."""
    used = np.flatnonzero(anatomy.inside.any(axis=(1, 2)))
    top = used[0] + rng.uniform(0.2, 0.55) * (used[-1] - used[0])
    z, _, _ = coordinates_mm(image.shape, anatomy.spacing_mm)
    bands = smooth_field(image.shape[:2], (1.0, 1.0), rng.uniform(5, 14), rng)[..., None]
    fade = np.clip((top - z) / 25, 0, 1)
    image += (bands * fade * rng.uniform(0, 6)) * (image > -200)


def _motion(ct: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few slices doubled by a small shift."""
    out = ct.copy()
    for k in rng.choice(len(ct), size=max(1, len(ct) // 6), replace=False):
        out[k] = 0.6 * ct[k] + 0.4 * ndimage.shift(ct[k], rng.normal(0, 2, 2), order=1, mode="nearest")
    return out


def _noise(shape: tuple[int, ...], pixel: float, thickness: float, rng: np.random.Generator) -> np.ndarray:
    """White noise through a random reconstruction kernel plus a little slow noise; stronger in thin slices."""
    sigma_hu = rng.uniform(1.5, 5.0) * np.clip(np.sqrt(5.0 / thickness), 0.8, 2.5)
    sigma = rng.uniform(0.3, 0.9) / pixel
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0, sigma, sigma))
    noise *= sigma_hu / max(float(noise.std()), 1e-6)
    return noise


def _couch(ct: np.ndarray, pixel: float, rng: np.random.Generator) -> None:
    """A curved head holder behind the head, in place."""
    if rng.random() < 0.4:
        return
    rows, columns = np.indices(ct.shape[1:]) * pixel
    middle, radius = columns.mean(), rng.uniform(105, 140)
    distance = np.hypot(rows - (rows.max() - rng.uniform(5, 25) - radius), columns - middle) - radius
    shell = (np.abs(distance) < 1.5) & (rows > rows.mean())
    ct[:, shell] = np.maximum(ct[:, shell], rng.uniform(-100, 500))
