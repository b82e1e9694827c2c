"""What looks like blood and is not: calcifications, falx and tentorium, dense vessels, post-operative material."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from Training.simulation import anatomy as anatomies
from Training.simulation.bleeds import Anatomy
from Training.simulation.fields import bounding_box, coordinates_mm, smooth_field


def add_to_synthetic(image: np.ndarray, labels: np.ndarray, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Add mimics to a painted label map (HU, 1 mm), in place; each kind appears with its own chance."""
    _dural_sheets(image, labels, anatomy, rng)
    sinus = (labels == anatomies.VEIN) | _sagittal_sinus(anatomy, rng)
    image[sinus & anatomy.inside] = rng.uniform(42, 68)
    if rng.random() < 0.6:
        image[labels == anatomies.ARTERY] = rng.uniform(40, 62)
    if rng.random() < 0.55:
        _sprinkle(image, np.isin(labels, anatomies.CHOROID), rng.uniform(60, 320), rng, reach_mm=1.0)
    if rng.random() < 0.5:
        _pineal(image, labels, rng)
    if rng.random() < 0.2:
        _sprinkle(image, np.isin(labels, anatomies.PALLIDUM), rng.uniform(50, 130), rng, reach_mm=0.0)
    if rng.random() < 0.25:
        _surgery(image, labels, anatomy, rng)


def add_to_real(image: np.ndarray, anatomy: Anatomy, fine: int, rng: np.random.Generator) -> None:
    """Add up to three small calcifications to a real CT (HU, source slices), in place."""
    inside = anatomy.inside[fine // 2 :: fine][: len(image)]
    depth_mm = anatomy.depth_mm[fine // 2 :: fine][: len(image)]
    spacing_mm = (anatomy.spacing_mm[0] * fine, *anatomy.spacing_mm[1:])
    for _ in range(rng.integers(0, 4)):
        spot = np.argwhere(inside & (depth_mm > 15))
        if len(spot):
            _calcify(image, spot[rng.integers(len(spot))], rng.uniform(1.0, 3.0), rng.uniform(90, 400), spacing_mm)


def _calcify(image: np.ndarray, centre: np.ndarray, radius_mm: float, hu: float, spacing_mm: tuple[float, ...]) -> None:
    box = tuple(
        slice(max(0, int(c - 3 * radius_mm / s) - 1), int(c + 3 * radius_mm / s) + 2)
        for c, s in zip(centre, spacing_mm)
    )
    part = image[box]
    along = zip(coordinates_mm(part.shape, spacing_mm), box, centre, spacing_mm)
    distance_mm = np.sqrt(sum((a + (b.start - c) * s) ** 2 for a, b, c, s in along))
    # its rim fades over a millimetre; what it adds comes on top of brain of 35 HU
    part += np.clip(1.0 - (distance_mm - radius_mm) / 1.0, 0, 1) * (hu - 35) * (distance_mm < radius_mm + 1)


def _sprinkle(image: np.ndarray, where: np.ndarray, hu: float, rng: np.random.Generator, reach_mm: float) -> None:
    """Calcify random patches of a structure."""
    if not where.any():
        return
    box = ndimage.find_objects(where.astype(np.uint8))[0]
    patch = smooth_field(where[box].shape, (1, 1, 1), 4.0, rng) > rng.uniform(-0.5, 1.2)
    chosen = where[box] & patch
    if reach_mm:
        chosen = ndimage.binary_dilation(chosen)
    image[box][chosen] = hu * rng.uniform(0.7, 1.3)


def _pineal(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> None:
    """A calcified pineal gland just behind the third ventricle."""
    third = np.argwhere(labels == 14)
    if len(third) < 50:
        return
    centre = np.array([third[:, 0].mean() + 2, third[:, 1].max() + rng.uniform(2, 7), third[:, 2].mean()])
    _calcify(image, centre, rng.uniform(1.0, 3.5), rng.uniform(70, 350), (1.0, 1.0, 1.0))


def _sagittal_sinus(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """A triangle under the inner table in the mid-plane."""
    columns = coordinates_mm(anatomy.inside.shape, anatomy.spacing_mm)[2]
    side = np.abs(columns - anatomy.midline_mm[:, None, None])
    height = rng.uniform(4, 8)
    rows = coordinates_mm(anatomy.inside.shape, anatomy.spacing_mm)[1]
    posterior = rows > rows.mean()
    return anatomy.inside & (side < 0.6 * (height - anatomy.depth_mm)) & (posterior | (rng.random() < 0.5))


def _dural_sheets(image: np.ndarray, labels: np.ndarray, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Falx in the mid-plane and tentorium between cerebrum and cerebellum, 1 to 3 mm thick, 40 to 62 HU."""
    columns = coordinates_mm(anatomy.inside.shape, anatomy.spacing_mm)[2]
    wave = smooth_field(anatomy.inside.shape[:2], (1, 1), 30.0, rng)[..., None] * rng.uniform(0, 2)
    side = np.abs(columns - anatomy.midline_mm[:, None, None] - wave)
    falx = anatomy.inside & (side < rng.uniform(0.5, 1.6)) & (labels == 24) & (anatomy.depth_mm < rng.uniform(15, 45))
    hu = rng.uniform(40, 62)
    image[falx] = hu
    cerebellum = np.isin(labels, anatomies.CEREBELLUM)
    box = bounding_box(cerebellum, margin=6)
    cerebrum = ndimage.binary_dilation(np.isin(labels[box], anatomies.CEREBRUM), iterations=3)
    between = cerebrum & ndimage.binary_dilation(cerebellum[box], iterations=3)
    image[box][between & np.isin(labels[box], (24, 0)) & anatomy.inside[box]] = hu


def _surgery(image: np.ndarray, labels: np.ndarray, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """A catheter from the skull toward the ventricles, or a bone flap with a gap filled by soft tissue."""
    skull = np.isin(labels, anatomies.SKULL)
    surface = np.argwhere(anatomy.inside & (anatomy.depth_mm < 1.5))
    if len(surface) == 0:
        return
    point = surface[rng.integers(len(surface))]
    if rng.random() < 0.5 and anatomy.ventricles.any():
        inner = np.argwhere(anatomy.ventricles)
        target = inner[rng.integers(len(inner))]
        for share in np.linspace(-0.1, 1, 160):
            z, y, x = np.rint(point + share * (target - point)).astype(int)
            image[max(z - 1, 0) : z + 1, max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1] = rng.uniform(120, 450)
        return
    grid = coordinates_mm(image.shape, (1.0, 1.0, 1.0))
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, point)))
    radius = rng.uniform(8, 35)
    gap = skull & (np.abs(distance - radius) < rng.uniform(1, 3) if rng.random() < 0.6 else distance < radius)
    image[gap] = rng.uniform(10, 45)
