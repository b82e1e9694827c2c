"""Uncertainty of a binary segmentation: entropy map, intervals on volumes, the slices to look at first.

How the interval is made. A probability map says for every voxel alone how likely it is lesion, but not how voxels
err together. Errors of a segmentation are almost never independent: an edge is drawn too far out along its whole
length, or a region is taken for blood as a whole. Treating voxels as independent would make the interval far
narrower than the errors seen in practice. The opposite end is taken here: all voxels err together, as if one common
cut-off U, uniform on 0..1, decided the case and a voxel were lesion where p >= U. Every voxel then still is lesion
with its own probability, and the volume V(U) = volume of {p >= U} has a known distribution: its central 80 % lie
between the volume at p >= 0.9 and the volume at p >= 0.1. Of all ways in which voxels with these probabilities can
err together, this one spreads the volume most (the comonotone sum is the largest in convex order; Dhaene et al.,
Insurance: Mathematics and Economics 31:3, 2002), so the interval errs wide.

What it does not cover: it is only as good as the calibration of the probabilities, and it knows nothing of a bleed
that the network did not see at all, nor of errors in the scan's geometry.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from NeuraxisLib.errors import GeometryError
from NeuraxisLib.measure import Lesion, bounding_box
from NeuraxisLib.volume import Volume

#: Share of cases that the interval on a volume is meant to cover.
COVERAGE = 0.8
#: Entropy in bits (probability 0.05 or 0.95) below which a voxel counts as certain when slices are ranked;
#: otherwise the faint background of a whole head outweighs one doubtful lesion.
CERTAIN_BITS = 0.286


def binary_entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of every voxel in bits, float32 of the same shape: 0 where certain, 1 at p = 0.5 (Shannon 1948).

    Values outside 0..1 (interpolation overshoot) are clipped; NaN counts as wholly uncertain.
    """
    entropy = np.zeros(probability.shape, dtype=np.float32)
    open_voxels = ~((probability <= 0) | (probability >= 1))  # most voxels are certain: the logarithms are skipped
    p = np.nan_to_num(probability[open_voxels].astype(np.float64), nan=0.5)
    entropy[open_voxels] = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return entropy


def cutoffs(threshold: float, coverage: float = COVERAGE) -> tuple[float, float]:
    """(strict, loose) probability cut-offs whose volumes bound the interval; the reported threshold lies between."""
    tail = round((1 - coverage) / 2, 12)
    return max(1 - tail, threshold), min(tail, threshold)


def volume_interval(
    probability: np.ndarray,
    volume: Volume,
    threshold: float,
    mask: np.ndarray,
    min_volume_ml: float = 0.0,
    coverage: float = COVERAGE,
) -> tuple[float, float]:
    """(low, high) in mL for the total volume of a reported mask, by the rule at the top of this file.

    Low: the reported voxels with p at or above the strict cut-off. High: the reported voxels and every connected
    region at or above the loose cut-off that holds a reported voxel or is at least ``min_volume_ml`` large, so
    suspicious regions that stayed below the threshold count too, and an empty mask gives (0, x).
    Always contains the volume of ``mask``; widens with ``coverage``.

    Args:
        probability: (k, j, i), 0..1.
        volume: the grid.
        threshold: probability at or above which voxels were reported.
        mask: (k, j, i), the reported voxels (after the small-component rule).
        min_volume_ml: the small-component rule of the report.
        coverage: share of cases meant to lie inside.

    Raises:
        GeometryError: mask or map do not have the grid's shape.
    """
    from scipy import ndimage

    _check_shapes(volume, probability, mask)
    strict, loose = cutoffs(threshold, coverage)
    possible = probability >= loose
    possible |= mask != 0
    box = bounding_box(possible)
    marked, p = mask[box] != 0, probability[box]
    voxel_ml = volume.voxel_volumes_ml[box[0]]
    regions, count = ndimage.label(possible[box], structure=np.ones((3, 3, 3)))
    region_ml = np.zeros(count + 1)
    for plane, ml in zip(regions, voxel_ml):
        region_ml += np.bincount(plane.ravel(), minlength=count + 1) * ml
    counted = region_ml >= min_volume_ml
    counted[np.unique(regions[marked])] = True
    low = float((marked & (p >= strict)).sum(axis=(1, 2)) @ voxel_ml)
    return low, float(region_ml[1:][counted[1:]].sum())


def component_intervals(
    probability: np.ndarray,
    volume: Volume,
    threshold: float,
    lesions: Sequence[Lesion],
    coverage: float = COVERAGE,
) -> list[tuple[float, float]]:
    """(low, high) in mL for each reported component, in the order given.

    As :func:`volume_interval`, but only what is connected to the component at the loose cut-off counts; where such
    a region joins several components, each of its voxels belongs to the nearest one (in mm).

    Args:
        probability: (k, j, i), 0..1.
        volume: the grid.
        threshold: probability at or above which voxels were reported.
        lesions: the components of the report, from :func:`NeuraxisLib.measure.components`.
        coverage: share of cases meant to lie inside.

    Raises:
        GeometryError: the map does not have the grid's shape.
    """
    from scipy import ndimage

    _check_shapes(volume, probability)
    if not lesions:
        return []
    strict, loose = cutoffs(threshold, coverage)
    possible = probability >= loose
    for lesion in lesions:
        lesion.paint(possible, True)
    box = bounding_box(possible)
    possible, p = possible[box], probability[box]
    owner = np.zeros(possible.shape, dtype=np.int32)
    for number, lesion in enumerate(lesions, start=1):
        inner = tuple(slice(own.start - all_.start, own.stop - all_.start) for own, all_ in zip(lesion.box, box))
        owner[inner][lesion.mask] = number
    voxel_ml = volume.voxel_volumes_ml[box[0]]
    low = _volumes_by_owner(np.where(p >= strict, owner, 0), voxel_ml, len(lesions))
    regions, count = ndimage.label(possible, structure=np.ones((3, 3, 3)))
    held = np.bincount(regions[owner != 0], minlength=count + 1)
    for number, part in enumerate(ndimage.find_objects(regions), start=1):
        if held[number]:
            _share_region(owner[part], regions[part] == number, volume.spacing_mm[::-1])
    high = _volumes_by_owner(owner, voxel_ml, len(lesions))
    return [(float(a), float(b)) for a, b in zip(low, high)]


def _share_region(owner: np.ndarray, region: np.ndarray, spacing_kji_mm: tuple[float, ...]) -> None:
    """Give each voxel of one connected region to the nearest component inside it, in place; none inside: nothing."""
    from scipy import ndimage

    inside = np.where(region, owner, 0)
    numbers = np.unique(inside[inside != 0])
    if len(numbers) == 1:
        owner[region] = numbers[0]
    elif len(numbers) > 1:
        nearest = ndimage.distance_transform_edt(
            inside == 0, spacing_kji_mm, return_distances=False, return_indices=True
        )
        owner[region] = inside[tuple(nearest)][region]


def _volumes_by_owner(owner: np.ndarray, voxel_ml: np.ndarray, count: int) -> np.ndarray:
    """(count,) volume of the voxels that carry each number 1..count."""
    totals = np.zeros(count + 1)
    for plane, ml in zip(owner, voxel_ml):
        totals += np.bincount(plane.ravel(), minlength=count + 1) * ml
    return totals[1:]


def interval_note(threshold: float, coverage: float = COVERAGE) -> str:
    """How the interval was made, in the words of a report."""
    strict, loose = cutoffs(threshold, coverage)
    return (
        f"The {coverage:.0%} interval runs from the volume at a probability of at least {strict:g} to the volume at "
        f"{loose:g} (reported: {threshold:g}). It assumes that all voxels err together, which makes it wide, and that "
        "the network's probabilities are calibrated. It cannot cover a bleed that the network did not see."
    )


def slice_uncertainties(entropy: np.ndarray, volume: Volume) -> np.ndarray:
    """(K,) uncertainty of every slice: entropy of its uncertain voxels summed, times voxel volume (bits * mL).

    Voxels below ``CERTAIN_BITS`` do not count.
    """
    _check_shapes(volume, entropy)
    sums = [plane[plane >= CERTAIN_BITS].sum(dtype=np.float64) for plane in entropy]
    return np.array(sums) * volume.voxel_volumes_ml


def most_uncertain_slices(entropy: np.ndarray, volume: Volume, count: int = 5) -> list[int]:
    """Indices k of the slices to look at first, most uncertain first; fewer if fewer hold any uncertainty."""
    scores = slice_uncertainties(entropy, volume)
    order = np.argsort(-scores, kind="stable")[:count]
    return [int(k) for k in order if scores[k] > 0]


def _check_shapes(volume: Volume, *arrays: np.ndarray) -> None:
    for array in arrays:
        if array.shape != volume.array.shape[-3:]:
            raise GeometryError(f"A map of shape {array.shape} does not fit an image of {volume.array.shape[-3:]}.")
