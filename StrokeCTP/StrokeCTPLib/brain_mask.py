"""Where the brain is in a CT perfusion series: the space within the skull, and the tissue that maps are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError

BONE_HU, CSF_HU, TISSUE_HU = 250.0, 16.0, 80.0
#: Half the width of gaps of the skull that are bridged, the second where the first shows no brain; and the rim along
#: bone that is left out.
GAPS_MM, RIM_MM = (7.0, 14.0), 1.2
#: A slice with less of its neighbour's area is open; nothing softer is brain or fluid.
OPEN, SOFT_HU = 0.5, -15.0
#: Smaller than this in mL is no brain.
LEAST_ML = 20.0


@dataclass(frozen=True)
class BrainRegions:
    """bool (k, j, i): ``inside`` the skull, vessels and CSF included; ``tissue`` without CSF, bone and dense spots."""

    inside: np.ndarray
    tissue: np.ndarray


def find_brain(baseline_hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> BrainRegions:
    """Find the brain in the mean of the frames before contrast.

    In every axial slice bone is closed over gaps of 14 mm and filled; what it encloses, less a rim along bone, is
    inside. A slice that is open, as at the orbits, is closed over 28 mm, or has its brain where a neighbour's lies.
    CSF and calcification are told by the density over 5 x 5 pixels, as single pixels are noise.

    Args:
        baseline_hu: (k, j, i) HU. spacing_mm: (column, row, slice).

    Raises:
        InputError: no space is enclosed by bone.
    """
    from scipy import ndimage

    smooth = ndimage.uniform_filter(baseline_hu.astype(np.float32), (1, 3, 3))
    for gap_mm in GAPS_MM:  # few slices may all be open
        inside = _continued(
            np.stack([_enclosed(hu > BONE_HU, spacing_mm, gap_mm) for hu in smooth]), smooth, spacing_mm
        )
        labels, count = ndimage.label(inside)
        if count > 1:
            inside = labels == np.bincount(labels.ravel())[1:].argmax() + 1
        enough = inside.sum() * np.prod(spacing_mm) / 1000 >= LEAST_ML
        if enough:
            break
    if not enough:
        raise InputError("No brain within a skull was found in the perfusion series; load an axial head acquisition.")
    weights = ndimage.uniform_filter(inside.astype(np.float32), (1, 5, 5))
    mean = ndimage.uniform_filter(np.where(inside, baseline_hu, 0).astype(np.float32), (1, 5, 5))
    mean /= np.maximum(weights, 1e-6)
    return BrainRegions(inside, inside & (mean > CSF_HU) & (mean < TISSUE_HU))


def _continued(inside: np.ndarray, smooth_hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """``inside`` with slices that are open filled from their neighbours, going out from the largest slice.

    A slice that holds less than OPEN of its neighbour's area takes what bone encloses but for wider gaps, if this is
    about as much, else what lies under its neighbour's; less bone with its rim, air and fat. It takes nothing where
    bone is there instead, or the skull has ended.
    """
    from scipy import ndimage

    areas = inside.sum(axis=(1, 2))
    largest = int(areas.argmax())
    found = inside.copy()
    for step, last in ((-1, -1), (1, len(inside))):
        for k in range(largest + step, last, step):
            before = found[k - step]
            bone, bone_before = smooth_hu[k] > BONE_HU, smooth_hu[k - step] > BONE_HU
            if not before.any() or bone.sum() < 0.5 * bone_before.sum():  # above the skull
                continue
            if found[k].sum() >= OPEN * before.sum() or (bone & before).sum() > (1 - OPEN) * before.sum():
                continue
            wide = _enclosed(bone, spacing_mm, GAPS_MM[-1])
            alike = OPEN < wide.sum() / before.sum() < 1 / OPEN
            to_bone = ndimage.distance_transform_edt(~bone, sampling=spacing_mm[1::-1])
            soft = (smooth_hu[k] > SOFT_HU) & (to_bone > RIM_MM)
            found[k] |= ndimage.binary_opening((wide if alike else before) & soft, iterations=2)
    return found


def _enclosed(bone: np.ndarray, spacing_mm: tuple[float, float, float], gap_mm: float) -> np.ndarray:
    """What bone encloses in one slice (j, i), less a rim along bone.

    Bone grown by ``gap_mm`` has no holes; what it encloses grows back by as much, short of the bone.
    """
    from scipy import ndimage

    pixel_mm = spacing_mm[1::-1]
    if not bone.any():
        return np.zeros(bone.shape, bool)
    margin = int(gap_mm / min(pixel_mm)) + 2
    to_bone = ndimage.distance_transform_edt(~np.pad(bone, margin), sampling=pixel_mm)
    grown = to_bone <= gap_mm
    core = ndimage.binary_fill_holes(grown) & ~grown
    if not core.any():
        return np.zeros(bone.shape, bool)
    back = ndimage.distance_transform_edt(~core, sampling=pixel_mm) < gap_mm
    return (back & (to_bone > RIM_MM))[margin:-margin, margin:-margin]
