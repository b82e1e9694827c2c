"""Anatomy for the simulation: from a real head CT with its brain mask, or from a whole-head label map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from NeuraxisLib.volume import Volume
from Training.simulation.bleeds import Anatomy
from Training.simulation.fields import blur_mm, bounding_box, depth_voxels, smooth_field

# Label values of the whole-head maps (brain: FreeSurfer's; 500 and above: outside the brain).
VENTRICLES = (4, 5, 14, 15, 43, 44)
CHOROID = (31, 63)
CSF = (24,)
ARTERY, EYE, SOFT_TISSUE, NERVE, MUCOSA, SKIN, VEIN, BONE, MARROW = 502, 506, 507, 508, 509, 511, 514, 515, 516
SKULL = (BONE, MARROW)
WHITE = (2, 41, 7, 46, 16, 28, 60, 77, 85)
CEREBRUM = (2, 3, 41, 42)
CEREBELLUM = (7, 8, 46, 47)
PALLIDUM = (13, 52)

#: Mean HU and its spread between patients, by group of labels; grey matter and white matter move together.
TISSUE_HU = {
    "grey": (37.0, 2.5),
    "white": (28.5, 2.5),
    "csf": (7.0, 4.0),
    "soft": (45.0, 12.0),
    "skin": (-30.0, 45.0),
    "bone": (1150.0, 250.0),
    "marrow": (420.0, 200.0),
    "vessel": (44.0, 6.0),
    "eye": (12.0, 6.0),
    "mucosa": (10.0, 40.0),
}


def of_real_head(volume: Volume, brain: np.ndarray, fine_mm: float = 2.0) -> Anatomy:
    """Anatomy of a real axial CT (HU) from its brain mask, on slices cut into whole fine slices of about 2 mm."""
    spacing = volume.spacing_mm[::-1]
    fine = max(1, round(spacing[0] / fine_mm))
    fine_spacing = (spacing[0] / fine, spacing[1], spacing[2])
    at = (np.arange(volume.slice_count * fine) + 0.5) / fine - 0.5
    lower = np.clip(np.floor(at).astype(int), 0, max(volume.slice_count - 2, 0))
    weight = np.clip(at - lower, 0, 1).astype(np.float32)[:, None, None]
    upper = np.minimum(lower + 1, volume.slice_count - 1)
    inside = (brain[lower] * (1 - weight) + brain[upper] * weight) > 0.5
    depth = ndimage.distance_transform_edt(np.pad(inside, ((1, 1), (0, 0), (0, 0)), mode="edge"), sampling=fine_spacing)
    depth = depth[1:-1].astype(np.float32)
    smooth = blur_mm(np.clip(volume.array, -100, 100).astype(np.float32), 0.9, (1e6, *spacing[1:]))
    dark = np.repeat((smooth < 17) & (smooth > -10) & brain, fine, axis=0) & inside
    ventricles = _ventricles(dark, depth, fine_spacing)
    return Anatomy(
        fine_spacing, inside, depth, ventricles, dark & ~ventricles & (depth > 2), _midline(inside, fine_spacing)
    )


def _ventricles(dark: np.ndarray, depth: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Deep dark parts of some size: the ventricles, seen from the outside."""
    core = ndimage.binary_opening(dark & (depth > 18), iterations=1)
    labels, count = ndimage.label(core)
    if count == 0:
        return core
    sizes = np.bincount(labels.ravel()) * np.prod(spacing_mm) / 1000
    sizes[0] = 0
    return ndimage.binary_dilation(np.isin(labels, np.flatnonzero(sizes > 0.4)), iterations=1) & dark


def of_label_map(labels: np.ndarray) -> Anatomy:
    """Anatomy of a 1 mm whole-head label map, (k, j, i) axial."""
    box = bounding_box(((labels > 0) & (labels < 500)) | (labels == VEIN), margin=5)
    inside, depth = np.zeros(labels.shape, bool), np.zeros(labels.shape, np.float32)
    inside[box] = _intracranial(labels[box])
    depth[box] = depth_voxels(inside[box])
    ventricles = np.isin(labels, VENTRICLES + CHOROID) & inside
    csf = np.isin(labels, CSF) & inside
    return Anatomy((1.0, 1.0, 1.0), inside, depth, ventricles, csf, _midline(inside, (1.0, 1.0, 1.0)))


def _intracranial(labels: np.ndarray) -> np.ndarray:
    """Everything inside the skull: the brain's labels closed and filled, in one part, with the sinuses next to it."""
    brain = ndimage.binary_closing((labels > 0) & (labels < 500), iterations=2)
    sinuses = (labels == VEIN) & ndimage.binary_dilation(brain, iterations=4)  # the same label goes on down the neck
    inside = ndimage.binary_fill_holes(brain | sinuses) & ~np.isin(labels, SKULL)
    return largest_part(inside)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1


def _midline(inside: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Column position in mm of the middle of the intracranial space, smoothed along the slices (K,)."""
    columns = np.arange(inside.shape[2]) * spacing_mm[2]
    area = inside.sum(axis=(1, 2))
    centre = (inside.sum(axis=1) * columns).sum(axis=1) / np.maximum(area, 1)
    good = area > 0.2 * area.max()
    return np.interp(np.arange(len(area)), np.flatnonzero(good), ndimage.gaussian_filter1d(centre[good], 4))


def crop_to_head(labels: np.ndarray, below_mm: int = 14, around_mm: int = 22) -> np.ndarray:
    """The part of a 1 mm label map around the brain: little neck, all of the scalp."""
    brain = (labels > 0) & (labels < 500)
    profiles = [np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    margins = ((below_mm, around_mm), (around_mm + 8, around_mm), (around_mm, around_mm))
    return labels[tuple(slice(max(0, p[0] - lo), p[-1] + hi + 1) for p, (lo, hi) in zip(profiles, margins))]


def deform(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random affine (rotation, scale, shear, mirror) and smooth non-linear deformation of a label map (nearest)."""
    if rng.random() < 0.5:
        labels = labels[:, :, ::-1]
    angles = np.deg2rad(rng.normal(0, 1, 3) * (8, 6, 9))  # about left-right (nod), front-back, up-down
    linear = _rotation(angles) @ np.diag(rng.normal(1, 0.06, 3)) @ (np.eye(3) + rng.normal(0, 0.02, (3, 3)))
    centre = (np.array(labels.shape) - 1) / 2
    grid = np.stack(
        np.meshgrid(*[np.arange(n, dtype=np.float32) - c for n, c in zip(labels.shape, centre)], indexing="ij")
    )
    at = np.tensordot(linear.astype(np.float32), grid, axes=1)
    for axis in range(3):
        at[axis] += smooth_field(labels.shape, (1, 1, 1), 60.0, rng) * rng.uniform(0.5, 3.0)
        at[axis] += smooth_field(labels.shape, (1, 1, 1), 22.0, rng) * rng.uniform(0.1, 0.7)
        at[axis] += centre[axis]
    return ndimage.map_coordinates(labels, at, order=0, mode="constant", cval=0, prefilter=False)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation of (k, j, i) coordinates about the i, j and k axes in turn."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_i = np.array([[ca, -sa, 0], [sa, ca, 0], [0, 0, 1]])
    about_j = np.array([[cb, 0, -sb], [0, 1, 0], [sb, 0, cb]])
    about_k = np.array([[1, 0, 0], [0, cc, -sc], [0, sc, cc]])
    return about_i @ about_j @ about_k


def hu_table(count: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
    """HU (count,) per label value of one head, and per group of TISSUE_HU; label 0 is air."""
    hu = {name: rng.normal(mean, spread) for name, (mean, spread) in TISSUE_HU.items()}
    hu["white"] = min(hu["white"], hu["grey"] - rng.uniform(3.5, 9.0))
    table = np.full(count, hu["grey"], np.float32)
    table[0] = -1000
    groups = {
        "white": WHITE,
        "csf": VENTRICLES + CSF + CHOROID,
        "soft": (SOFT_TISSUE, NERVE),
        "skin": (SKIN,),
        "bone": (BONE,),
        "marrow": (MARROW,),
        "vessel": (ARTERY, VEIN),
        "eye": (EYE,),
        "mucosa": (MUCOSA,),
    }
    for name, values in groups.items():
        for value in values:
            if value < len(table):
                table[value] = hu[name]
    table[list(CHOROID)] = hu["csf"] + rng.uniform(5, 30)
    return table, hu


def paint(labels: np.ndarray, anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """HU for every voxel of a label map: tissue means drawn per head, slow variation, fine texture; air outside."""
    table, hu = hu_table(int(labels.max()) + 1, rng)
    image = table[labels]
    image[anatomy.inside & (labels == 0)] = hu["csf"]
    _sulci(image, labels, anatomy, hu, rng)
    soft = anatomy.inside | np.isin(labels, (SOFT_TISSUE, SKIN, MUCOSA))
    slow = smooth_field(labels.shape, (1, 1, 1), 30.0, rng) * rng.uniform(0.3, 1.5)
    image += np.where(soft, slow, 0)
    fat = (labels == SOFT_TISSUE) & (smooth_field(labels.shape, (1, 1, 1), 9.0, rng) > rng.uniform(0.3, 2.5))
    image[fat] = rng.normal(-90, 12)
    return blur_mm(image, rng.uniform(0.35, 0.8), (1, 1, 1))


def _sulci(image: np.ndarray, labels: np.ndarray, anatomy: Anatomy, hu: dict, rng: np.random.Generator) -> None:
    """Young brains fill the skull: replace a random share of the outer CSF by cortex, so sulci are tight or wide."""
    outer = (labels == 24) & anatomy.inside & (anatomy.depth_mm < rng.uniform(4, 25))
    closed = rng.uniform(0, 1) ** 0.7
    image[outer] = closed * hu["grey"] + (1 - closed) * hu["csf"]
