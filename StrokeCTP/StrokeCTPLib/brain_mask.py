"""Where the brain is in a CT perfusion series: the space within the skull, and the tissue that maps are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError

BONE_HU, CSF_HU, TISSUE_HU = 250.0, 16.0, 80.0
#: Half the width of gaps of the skull that are bridged, and the rim along bone that is left out.
GAP_MM, RIM_MM = 7.0, 1.2
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
    inside. CSF and calcification are told by the density over 5 x 5 pixels, as single pixels are noise.

    Args:
        baseline_hu: (k, j, i) HU. spacing_mm: (column, row, slice).

    Raises:
        InputError: no space is enclosed by bone.
    """
    from scipy import ndimage

    smooth = ndimage.uniform_filter(baseline_hu.astype(np.float32), (1, 3, 3))
    inside = np.stack([_enclosed(hu > BONE_HU, spacing_mm) for hu in smooth])
    labels, count = ndimage.label(inside)
    if count > 1:
        inside = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    if inside.sum() * np.prod(spacing_mm) / 1000 < LEAST_ML:
        raise InputError("No brain within a skull was found in the perfusion series; load an axial head acquisition.")
    weights = ndimage.uniform_filter(inside.astype(np.float32), (1, 5, 5))
    mean = ndimage.uniform_filter(np.where(inside, baseline_hu, 0).astype(np.float32), (1, 5, 5))
    mean /= np.maximum(weights, 1e-6)
    return BrainRegions(inside, inside & (mean > CSF_HU) & (mean < TISSUE_HU))


def _enclosed(bone: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """What bone encloses in one slice (j, i), less a rim along bone.

    Bone grown by GAP_MM has no holes; what it encloses grows back by as much, short of the bone.
    """
    from scipy import ndimage

    pixel_mm = spacing_mm[1::-1]
    if not bone.any():
        return np.zeros(bone.shape, bool)
    margin = int(GAP_MM / min(pixel_mm)) + 2
    to_bone = ndimage.distance_transform_edt(~np.pad(bone, margin), sampling=pixel_mm)
    grown = to_bone <= GAP_MM
    core = ndimage.binary_fill_holes(grown) & ~grown
    if not core.any():
        return np.zeros(bone.shape, bool)
    back = ndimage.distance_transform_edt(~core, sampling=pixel_mm) < GAP_MM
    return (back & (to_bone > RIM_MM))[margin:-margin, margin:-margin]
