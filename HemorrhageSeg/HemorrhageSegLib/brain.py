"""The intracranial space in a head CT, found from its bone and soft tissue, without a network.

The skull is a shell with holes. Gaps of an operation or a fontanelle are bridged along the skull's curve; a voxel of
soft tissue is a candidate when most straight lines from it, within its slice, then meet bone. Eroding the candidates
cuts the holes of the skull base; what is left is followed from the widest slice up and down, as a brain shrinks away
from there, and grows back by as much as it was eroded. All this happens on a coarse grid, which a tilted gantry does
not shear; only the border along bone is drawn at the stored resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from HemorrhageSegLib._brain_grid import to_coarse, to_stored
from NeuraxisLib.volume import Volume


@dataclass(frozen=True)
class BrainMask:
    """The intracranial space of a head CT.

    Attributes:
        mask: (k, j, i) bool on the volume's own grid: all within the inner table of the skull, blood and ventricles
            included; no bone, orbit, sinus or neck.
        confidence: 0 to 1; below 0.3 the volume probably shows no brain, above 0.6 it does.
        notes: what a reader should know, in sentences (the scan ends within the brain, the skull is open).
    """

    mask: np.ndarray
    confidence: float
    notes: list[str] = field(default_factory=list)


def extract_brain(volume: Volume) -> BrainMask:
    """Find the intracranial space in a head CT.

    Args:
        volume: a CT in HU, array (k, j, i), in any stored orientation; sheared grids and unequal slice gaps are fine.

    Returns:
        The mask on the volume's grid. Never raises for a volume without a brain: the mask is then empty or the
        confidence low; :func:`HemorrhageSegLib.checks.require_head_ct` turns that into an error.
    """
    from HemorrhageSegLib._brain_confidence import measure, notes_on
    from HemorrhageSegLib._brain_shape import find_intracranial

    grid = to_coarse(volume)
    shape = find_intracranial(grid)
    if not shape.mask.any():
        return BrainMask(np.zeros(volume.array.shape, bool), 0.0, ["No space enclosed by a skull was found."])
    found = measure(grid, shape)
    mask = to_stored(grid, volume, shape.reach, shape.pockets, shape.bone_hu)
    return BrainMask(mask, found.confidence, notes_on(grid, shape, found))
