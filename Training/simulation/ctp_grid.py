"""A head on the grid of a scan: labels, arteries and places in the atlas, on the fine slices of the thick ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from Training.simulation.anatomy import _rotation
from Training.simulation.ctp_anatomy import Head, StrokeSources, TerritoryAtlas
from Training.simulation.ctp_lesion import TissuePoints
from Training.simulation.ctp_scan import Protocol
from Training.simulation.ctp_tissue import is_tissue
from Training.simulation.ctp_vessels import REACH_MM, radii_mm
from Training.simulation.fields import smooth_field

#: Thickness in mm of fine slices, at most.
FINE_MM = 2.0


@dataclass(frozen=True)
class FineHead:
    """A posed and deformed head on fine slices (n, j, i), ``fine`` of them to a slice.

    Attributes:
        labels: int16. inside: bool, within the skull. artery: float32 0..1, share of a voxel that an artery fills.
        segment: uint8, which one. points: its tissue. mirrored: whether left and right of the label map are swapped.
    """

    labels: np.ndarray
    inside: np.ndarray
    artery: np.ndarray
    segment: np.ndarray
    points: TissuePoints
    fine: int
    mirrored: bool


def pose(sources: StrokeSources, head: Head, protocol: Protocol, rng: np.random.Generator) -> FineHead:
    """Place a head in the scanner: turned, scaled, deformed, perhaps mirrored; the slab covers the basal arteries up,
    as stroke acquisitions do."""
    fine = max(2, int(np.ceil(protocol.thickness_mm / FINE_MM)))
    spacing_mm = (protocol.thickness_mm / fine, protocol.pixel_mm, protocol.pixel_mm)
    shape = (protocol.slices * fine, protocol.size_px, protocol.size_px)
    mirrored = bool(rng.random() < 0.5)
    where = _coordinates(sources, head, shape, spacing_mm, mirrored, rng)
    labels = ndimage.map_coordinates(head.labels, where, order=0, mode="constant", cval=0, prefilter=False)
    inside = ndimage.map_coordinates(head.inside, where, order=0, mode="constant", cval=0, prefilter=False)
    artery, segment = _arteries(head, where, rng)
    mask = is_tissue(labels, inside) & (artery < 0.5)
    atlas_kji = (head.to_atlas[:, :3] @ where[:, mask] + head.to_atlas[:, 3:]).astype(np.float32)
    return FineHead(labels, inside, artery, segment, TissuePoints(mask, spacing_mm, atlas_kji), fine, mirrored)


def _coordinates(
    sources: StrokeSources,
    head: Head,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    mirrored: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """(3, n, j, i) float32: voxels (k, j, i) of the label map that the fine voxels show."""
    height_mm = shape[0] * spacing_mm[0]
    turn = _rotation(np.deg2rad(rng.normal(0, 1, 3) * (6, 3, 5)))
    linear = turn @ np.diag(rng.normal(1, 0.03, 3)) @ np.diag(spacing_mm)
    linear[2] *= -1 if mirrored else 1
    bottom_mm = rng.uniform(-24, -12) if height_mm <= 105 else rng.uniform(-48, -30) + max(0.0, 160 - height_mm) / 2
    middle = _in_head(head, sources.atlas, bottom_mm + height_mm / 2)
    axes = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in shape]
    where = np.empty((3, *shape), np.float32)
    for axis in range(3):
        part = linear[axis].astype(np.float32)
        where[axis] = axes[0][:, None, None] * part[0] + axes[1][:, None] * part[1] + axes[2] * part[2] + middle[axis]
        where[axis] += smooth_field(shape, spacing_mm, 50.0, rng) * rng.uniform(0.3, 2.0)
    return where


def _in_head(head: Head, atlas: TerritoryAtlas, height_mm: float) -> np.ndarray:
    """The voxel of the head in its middle, at a height (RAS mm) of the atlas."""
    inverse = np.linalg.inv(np.vstack([head.to_atlas, [0, 0, 0, 1]]))
    at = atlas.voxel_of(np.array([[0.0, -17.0, height_mm]]))[0]
    return inverse[:3, :3] @ at + inverse[:3, 3]


def _arteries(head: Head, where: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Share of every fine voxel that an artery of the tree fills, and which segment it is."""
    segment = ndimage.map_coordinates(head.tree.segment, where, order=0, mode="constant", cval=0, prefilter=False)
    near = segment > 0
    distance = np.full(segment.shape, float(REACH_MM), np.float32)
    tree = head.tree.distance_mm.astype(np.float32)
    distance[near] = ndimage.map_coordinates(tree, where[:, near], order=1, mode="nearest", prefilter=False)
    radius = radii_mm()[segment] * rng.uniform(0.8, 1.25)
    return np.where(near, np.clip(radius + 0.5 - distance, 0, 1), 0).astype(np.float32), segment
