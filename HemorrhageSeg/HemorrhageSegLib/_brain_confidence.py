"""How far a brain mask can be trusted: measured properties against what heads show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from HemorrhageSegLib._brain_grid import CoarseGrid
from HemorrhageSegLib._brain_morphology import FLAT, dilated, disc, eroded
from HemorrhageSegLib._brain_shape import FAT_HU, Shape

#: Share of the widest cross-section that the first or last slice must hold for the brain to be called cut off.
CUT_SHARE = 0.2
#: Share of the border along bridged gaps from which the skull is called open.
OPEN_SHARE = 0.04


@dataclass(frozen=True)
class Plausibility:
    """Measured properties of a brain mask.

    Attributes:
        volume_ml: of the mask.
        widest_cm2: largest cross-section.
        bone_share: share of the in-slice border that lies along bone.
        bridge_share: share of the border along bridged gaps of the skull.
        outside_share: share of the border at the edge of the scanned field.
        median_hu: of all tissue in the mask.
        spread_hu: robust standard deviation of the tissue's HU.
        roundness: area of the widest cross-section over that of the ellipse with its second moments; 1 is an ellipse.
    """

    volume_ml: float
    widest_cm2: float
    bone_share: float
    bridge_share: float
    outside_share: float
    median_hu: float
    spread_hu: float
    roundness: float

    #: Per property: 0 at the outer and 1 between the inner numbers, linear between. Set from 37 head CTs (newborn to
    #: old age, cut off, operated) and from what is no head; the widest range of normal anatomy scores 1.
    RANGES = {
        "volume_ml": (40, 150, 2200, 2800),
        "widest_cm2": (25, 60, 260, 330),
        "bone_share": (0.3, 0.65, 1, 2),
        "bridge_share": (-1, 0, 0.25, 0.5),
        "outside_share": (-1, 0, 0.2, 0.6),
        "median_hu": (0, 12, 65, 90),
        "spread_hu": (-1, 0, 25, 60),
        "roundness": (0.6, 0.85, 1.2, 2),
    }

    @property
    def confidence(self) -> float:
        """Product of the scores of all properties, 0..1."""
        scores = [np.interp(getattr(self, name), ends, (0, 1, 1, 0)) for name, ends in self.RANGES.items()]
        return float(np.prod(scores))


def measure(grid: CoarseGrid, shape: Shape) -> Plausibility:
    """Measure a mask that is not empty."""
    mask, spacing = shape.mask, grid.spacing_mm
    areas = mask.sum(axis=(1, 2)) * spacing[1] * spacing[2] / 100
    border = mask & ~eroded(mask, FLAT, outside=True)
    edge = mask & ~eroded(grid.scanned, FLAT)
    count = max(np.count_nonzero(border | edge), 1)
    near = disc(4.0, spacing)
    near_bone = dilated(shape.skull, near)
    bone = np.count_nonzero(border & near_bone) / count
    bridged = dilated(shape.bridges, near) & ~near_bone
    tissue = grid.hu[mask & (grid.hu > FAT_HU)]
    median = float(np.median(tissue)) if tissue.size else -1000.0
    spread = 1.4826 * float(np.median(np.abs(tissue - median))) if tissue.size else 1000.0
    widest = mask[int(areas.argmax())]
    at = np.argwhere(widest) * np.array(spacing[1:])
    ellipse_mm2 = 4 * np.pi * np.sqrt(max(np.linalg.det(np.cov(at.T)), 1e-9)) if len(at) > 2 else np.inf
    return Plausibility(
        volume_ml=float(areas.sum() * spacing[0] / 10),
        widest_cm2=float(areas.max()),
        bone_share=bone,
        bridge_share=np.count_nonzero(border & bridged) / count,
        outside_share=np.count_nonzero(edge) / count,
        median_hu=median,
        spread_hu=spread,
        roundness=float(areas.max() * 100 / ellipse_mm2),
    )


def notes_on(grid: CoarseGrid, shape: Shape, found: Plausibility) -> list[str]:
    """Sentences on what a reader should know about the scan's coverage and the skull."""
    notes = []
    areas = shape.mask.sum(axis=(1, 2))
    if areas[-1] > CUT_SHARE * areas.max():
        notes.append("The scan ends within the brain at the top; what lies above was not seen.")
    if areas[0] > CUT_SHARE * areas.max():
        notes.append("The scan starts within the brain at the base; what lies below was not seen.")
    if found.outside_share > 0.03:
        notes.append("Part of the brain lies outside the scanned field.")
    if found.bridge_share > OPEN_SHARE:
        notes.append("The skull has a gap (operation, fracture or fontanelle); the border there is interpolated.")
    if np.isfinite(grid.saturated_hu):
        notes.append(f"Bone was clipped at {grid.saturated_hu:.0f} HU before the scan was stored.")
    return notes
