"""What density says about blood: what is as dense as bone is none, and the blurred edge of bone only looks like it."""

from __future__ import annotations

import numpy as np

from HemorrhageSegLib._brain_morphology import FLAT, dilated, eroded
from NeuraxisLib.measure import bounding_box
from NeuraxisLib.volume import Volume

#: Clotted blood stays below about 100 HU; what is denser is bone or calcium.
DENSEST_BLOOD_HU = 100.0
#: Blur before a voxel's density is judged, so that noise alone does not exclude it.
DENSITY_BLUR_MM = 0.8
#: How far along the slice blood away from bone vouches for blood in the blurred edge of bone.
BONE_EDGE_MM = 1.5


def searched_space(axial: Volume, brain: np.ndarray) -> np.ndarray:
    """Bool (k, j, i): the intracranial space without what is too dense to be blood (bone spurs, calcifications).

    Density is blurred among the voxels of the space alone: blood against the inner table must not be taken for bone.

    Args:
        axial: CT in HU with axial slices.
        brain: bool (k, j, i), intracranial space.
    """
    box = bounding_box(brain)
    excess = (np.clip(axial.array[box], -100, 300) - np.float32(DENSEST_BLOOD_HU)) * brain[box]
    space = np.zeros_like(brain)
    space[box] = brain[box] & (_blurred(excess, axial) < 0)
    return space


def drop_bone_edges(
    probability: np.ndarray, axial: Volume, space: np.ndarray, threshold: float, *others: np.ndarray
) -> None:
    """Set the probability to 0, in place, where only the blurred edge of bone was called blood.

    Voxels into which bone blurs stay only within :data:`BONE_EDGE_MM` of blood that is clear of bone and more than a
    line or a dot wide in its slice; so a clot keeps its layer against the inner table, and the table alone is none.

    Args:
        probability: (k, j, i), 0 outside ``space``; changed in place.
        axial: CT in HU with axial slices.
        space: bool (k, j, i) from :func:`searched_space`.
        threshold: probability from which a voxel is called blood.
        others: further maps (k, j, i), set to 0 in the same places.
    """
    if not (probability >= threshold).any():
        return
    box = _box(space, margin=int(np.ceil(3 * DENSITY_BLUR_MM / min(axial.spacing_mm[:2]))))
    density = np.clip(axial.array[box], -100, 300).astype(np.float32)
    at_bone = _blurred(density, axial) >= DENSEST_BLOOD_HU
    clear = (probability[box] >= threshold) & ~at_bone
    opened = dilated(eroded(clear, FLAT), FLAT)  # within the slice: thick slices say little of each other
    vouched = dilated(opened, disc(axial, BONE_EDGE_MM))
    for values in (probability, *others):
        values[box][at_bone & ~vouched] = 0


def _box(mask: np.ndarray, margin: int) -> tuple[slice, slice, slice]:
    """The box of a mask, widened in-plane by ``margin`` voxels as far as the image goes."""
    slices, *in_plane = bounding_box(mask)
    return slices, *(slice(max(0, side.start - margin), side.stop + margin) for side in in_plane)


def _blurred(values: np.ndarray, axial: Volume) -> np.ndarray:
    """In-plane Gaussian of :data:`DENSITY_BLUR_MM`."""
    from scipy import ndimage

    sigma = [0.0, DENSITY_BLUR_MM / axial.spacing_mm[1], DENSITY_BLUR_MM / axial.spacing_mm[0]]
    return ndimage.gaussian_filter(values, sigma, truncate=3.0)


def disc(axial: Volume, radius_mm: float) -> np.ndarray:
    """Structuring element (1, rows, columns) of that radius."""
    steps = axial.spacing_mm[1], axial.spacing_mm[0]
    reach = [int(np.ceil(radius_mm / step)) for step in steps]
    rows, columns = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    return (np.hypot(rows * steps[0], columns * steps[1]) <= radius_mm + 1e-6)[None]
