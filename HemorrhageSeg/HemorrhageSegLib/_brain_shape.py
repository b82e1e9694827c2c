"""Where the intracranial space lies on the coarse grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from HemorrhageSegLib._brain_grid import CoarseGrid
from HemorrhageSegLib._brain_morphology import (
    FLAT,
    FLAT_3D,
    box_in_plane,
    bridge_gaps,
    deeper_than,
    dilated,
    disc,
    drop_small,
    enclosure,
    eroded,
    grow,
    largest,
)

#: Threshold of bone for dense and for thin skulls. Clotted blood reaches 100 HU.
BONE_HU = (130.0, 200.0)
#: Fat and air lie below; ventricles and oedema stay above.
FAT_HU = -35.0
#: Brain keeps this distance from fat and air: bone, dura and cerebrospinal fluid lie between.
FAT_MARGIN_MM = 2.5
#: Share of directions in the slice in which a voxel must see the skull or a bridge over its gap.
ENCLOSED = 0.75
#: Half the width of the passages (skull base, fractures) that the erosion closes.
EROSION_MM = 5.0
#: A cross-section below this is a tail: spinal canal, orbit, tip of a lobe; it is followed this much further.
TAIL_MM2, TAIL_MM = 500.0, 8.0
#: A part of a slice smaller than this must border on bone for at least this share of its outline.
WALL_TEST_MM2, LEAST_WALL = 1500.0, 0.62


@dataclass(frozen=True)
class Shape:
    """What was found, as (k, j, i) bool arrays on the coarse grid.

    Attributes:
        mask: the intracranial space.
        reach: the mask grown a block into bone, for the border to be cut at full resolution.
        pockets: what was filled in: calcium, clips, air within the skull.
        skull: bone of the head.
        bridges: walls across the gaps of the skull.
        bone_hu: threshold of bone used.
    """

    mask: np.ndarray
    reach: np.ndarray
    pockets: np.ndarray
    skull: np.ndarray
    bridges: np.ndarray
    bone_hu: float


def bone_threshold_hu(hu: np.ndarray) -> float:
    """Threshold of bone in HU, from the median of all that is dense: lower for an infant's thin skull."""
    dense = hu[hu > 150]
    return float(np.clip(0.37 * np.median(dense), *BONE_HU)) if dense.size else BONE_HU[1]


def find_skull(hu: np.ndarray, spacing_mm: tuple[float, float, float], bone_hu: float) -> np.ndarray:
    """Bone with soft tissue around it; leaves out table, head holder and tubes, which lie in air."""
    size = (1, *(2 * round(10 / s) + 1 for s in spacing_mm[1:]))
    tissue = ndimage.uniform_filter((hu > -200).astype(np.float32), size)
    labels, count = ndimage.label(hu > bone_hu, np.ones((3, 3, 3)))
    bone = labels != 0
    sizes = np.bincount(labels[bone], minlength=count + 1)
    share = np.bincount(labels[bone], tissue[bone], minlength=count + 1) / np.maximum(sizes, 1)
    keep = (share > 0.6) & (sizes > 20)
    keep[0] = False
    return keep[labels]


def cut_edge(grid: CoarseGrid) -> np.ndarray:
    """Edge of the scanned field where it cuts through tissue; the skull is taken to go on beyond it."""
    inside = eroded(grid.scanned, FLAT)
    return grid.scanned & ~inside & (grid.hu > FAT_HU)


def sweep(mask: np.ndarray, reach_mm: float, spacing_mm: tuple[float, float, float], tail_mm: float) -> np.ndarray:
    """Follow the brain from its widest slice up and down.

    Going away from its widest slice a brain only shrinks, apart from the pole of a temporal lobe: what a slice may
    hold lies within ``reach_mm`` of what the slice before held. A part that has become narrow (orbit, masticator
    space, spinal canal) is followed for ``tail_mm`` more and then given up, even if it widens again.
    """
    whole, box = np.zeros_like(mask), (slice(None), *box_in_plane(mask))
    kept, mask = whole[box], mask[box]
    if not mask.size:
        return whole
    start, part = _widest(mask)
    kept[start] = part
    element = disc(reach_mm, spacing_mm)[0]
    tail_pixels = TAIL_MM2 / (spacing_mm[1] * spacing_mm[2])
    for step, stop in ((-1, -1), (1, len(mask))):
        narrow_mm = np.zeros(mask.shape[1:], np.float32)
        for k in range(start + step, stop, step):
            before = kept[k - step]
            if not before.any():
                break
            labels, count = ndimage.label(dilated(before, element) & mask[k], FLAT)
            sizes = np.bincount(labels.ravel(), minlength=count + 1)
            narrow = np.full(count + 1, np.inf, np.float32)  # stays infinite where nothing of the slice before touches
            np.minimum.at(narrow, labels[before], narrow_mm[before])
            touching = np.isfinite(narrow)
            narrow = np.where((narrow > 0) | (sizes < tail_pixels), narrow + spacing_mm[0], 0)
            touching &= narrow <= max(tail_mm, spacing_mm[0])
            touching[0] = False
            kept[k] = touching[labels]
            narrow_mm = np.where(kept[k], narrow[labels], 0)
    return whole


def _widest(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """The slice with the largest connected part, and that part."""
    best, start, part = 0, 0, mask[0]
    for k, plane in enumerate(mask):
        labels, _ = ndimage.label(plane, FLAT)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        if sizes.max() > best:
            best, start, part = sizes.max(), k, labels == sizes.argmax()
    return start, part


def drop_unwalled(mask: np.ndarray, wall: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Drop the small parts of every slice that do not border on bone for most of their outline.

    Those are eyes and muscles, which lie in fat. Measured on parts seen in six head CTs: eyes, orbital muscles and
    pharynx 0.07 to 0.60; lobes, brain stem and cerebellum 0.65 to 0.97.
    """
    if not mask.any():
        return mask
    element = disc(5.0, spacing_mm)
    whole, box = np.zeros_like(mask), (slice(None), *box_in_plane(mask, max(element.shape) // 2))
    mask, wall = mask[box], wall[box]
    labels, count = ndimage.label(mask, FLAT_3D)
    ring = dilated(labels, element)
    ring[mask] = 0
    around = np.bincount(ring.ravel(), minlength=count + 1)
    walled = np.bincount(ring.ravel(), wall.ravel(), minlength=count + 1)
    area_mm2 = np.bincount(labels.ravel(), minlength=count + 1) * spacing_mm[1] * spacing_mm[2]
    keep = (walled >= LEAST_WALL * around) | (area_mm2 >= WALL_TEST_MM2)
    keep[0] = False
    whole[box] = keep[labels]
    return whole


def _holes(mask: np.ndarray) -> np.ndarray:
    """What every slice of a mask (k, j, i) encloses: what is connected to no edge of the image."""
    labels, count = ndimage.label(~mask, FLAT_3D)
    enclosed = np.ones(count + 1, bool)
    enclosed[0] = False
    enclosed[labels[:, [0, -1]]] = enclosed[labels[:, :, [0, -1]]] = False
    return enclosed[labels]


def find_pockets(mask: np.ndarray, wall: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """What is missing inside the skull: holes (calcium, clips), and air or streaks between brain and bone.

    A part of a slice that is enclosed all around and borders on the mask for more than a third of its outline.
    """
    # The wall is left out so that a pocket cannot run through bone, but calcium within the mask looks like wall:
    # the mask's own holes come first, up to the size of a calcified plexus; larger ones are the petrous ridges.
    gaps = ~mask & ~wall & (seen >= 0.95)
    whole, box = np.zeros_like(mask), (slice(None), *box_in_plane(mask | gaps, margin=1))
    mask, gaps, pockets = mask[box], gaps[box], whole[box]
    for region, most_pixels, least_contact in ((_holes(mask), 120, 0.0), (gaps, 10**9, 0.35)):
        labels, count = ndimage.label(region, FLAT_3D)
        ring = dilated(labels, FLAT)
        ring[region] = 0
        around = np.bincount(ring.ravel(), minlength=count + 1)
        brain = np.bincount(ring.ravel(), mask.ravel(), minlength=count + 1)
        keep = (brain > least_contact * around) & (np.bincount(labels.ravel(), minlength=count + 1) <= most_pixels)
        keep[0] = False
        pockets |= keep[labels]
    return whole


def find_intracranial(grid: CoarseGrid) -> Shape:
    """Find the intracranial space on the coarse grid; the mask is empty if nothing is enclosed by bone."""
    hu, spacing = grid.hu, grid.spacing_mm
    bone_hu = bone_threshold_hu(hu)
    skull = find_skull(hu, spacing, bone_hu)
    bridges = bridge_gaps(skull) & ~skull
    wall = skull | bridges
    seen = enclosure(dilated(wall, disc(1.6, spacing)) | cut_edge(grid))
    fat = drop_small(hu < FAT_HU, 6)
    near_fat = dilated(fat, disc(FAT_MARGIN_MM, spacing))
    within = (hu < bone_hu) & ~wall & ~near_fat & (seen >= ENCLOSED)
    reach_mm = 3.0 + spacing[0]
    core = sweep(deeper_than(within, EROSION_MM, spacing), reach_mm, spacing, np.inf)
    mask = grow(core, within, EROSION_MM + 3, spacing)
    opening = disc(3.2, spacing)
    mask = dilated(eroded(mask, opening), opening)
    mask = drop_unwalled(mask, wall, spacing)
    mask = largest(sweep(mask, reach_mm, spacing, TAIL_MM))
    pockets = find_pockets(mask, wall, seen)
    mask = mask | pockets
    rim = dilated(mask, disc(2.2, spacing)) & (hu > FAT_HU) & ~bridges
    return Shape(mask, mask | rim, pockets, skull, bridges, bone_hu)
