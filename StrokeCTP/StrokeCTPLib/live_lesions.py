"""Lesions on maps that are there already, fast enough to follow a slider; numpy alone while it is dragged.

While a threshold moves, the smoothed delay map and the flow are compared with it, nothing more. When it rests,
:func:`~StrokeCTPLib.lesions.find_lesions` draws what the computation itself would draw, small islands removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume
from StrokeCTPLib.lesions import VESSEL_CBV, LesionRules, Lesions, find_lesions, left_side

#: Values of the label map.
PENUMBRA, CORE = 1, 2


@dataclass(frozen=True)
class ShownMaps:
    """The maps of a result as lesions are drawn from them; arrays (k, j, i), 0 outside the tissue.

    Attributes:
        svd: at least cbf, cbv and tmax. model: cbf, cbv and delay, or empty. calibrated: cbf and tmax, or empty.
        tissue: bool, where maps have values. inside: bool, within the skull.
    """

    svd: dict[str, np.ndarray]
    tissue: np.ndarray
    inside: np.ndarray
    model: dict[str, np.ndarray] = field(default_factory=dict)
    calibrated: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class QuickLesions:
    """What a moving threshold shows: ``labels`` uint8 (k, j, i) with PENUMBRA and CORE, and their volumes in mL.

    ``hypoperfused_ml`` includes the core.
    """

    labels: np.ndarray
    hypoperfused_ml: float
    core_ml: float


class LiveLesions:
    """Lesions by changing thresholds on unchanging maps.

    Args:
        maps: what to draw on.
        grid: the volume whose geometry the maps have.

    Raises:
        InputError: the maps do not have one shape, or CBF or Tmax is missing.
    """

    def __init__(self, maps: ShownMaps, grid: Volume):
        shapes = {array.shape for family in (maps.svd, maps.model, maps.calibrated) for array in family.values()}
        if shapes != {maps.tissue.shape} or maps.tissue.shape != grid.array.shape[-3:]:
            raise InputError("The perfusion maps lie on different grids; give maps of one calculation.")
        missing = [name.upper() for name in ("cbf", "tmax") if name not in maps.svd]
        if missing:
            raise InputError(f"The map set is incomplete: {' and '.join(missing)} missing; thresholds need both.")
        if "cbv" not in maps.svd:  # nothing is known of vessels, then
            maps = ShownMaps({**maps.svd, "cbv": np.zeros_like(maps.svd["cbf"])}, maps.tissue, maps.inside)
        self.maps, self.grid = maps, grid
        allowed = maps.tissue & (maps.svd["cbv"] < VESSEL_CBV)
        self._at = np.flatnonzero(allowed)
        self._left = left_side(maps.inside, grid).ravel()[self._at]
        per_slice = allowed.shape[1] * allowed.shape[2]
        self._ml = grid.voxel_volumes_ml[self._at // per_slice].astype(np.float32)
        self._prepared: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}

    @property
    def families(self) -> list[str]:
        """Families of maps whose lesions can be drawn."""
        return [name for name in ("calibrated", "svd", "model") if getattr(self.maps, name)]

    def quick(self, rules: LesionRules) -> QuickLesions:
        """Lesions without clean-up; the first call for a family also smooths its delay map."""
        delay, cbf = self._values(rules)
        late = delay > rules.late_s
        on_left, on_right = float(self._ml @ (late & self._left)), float(self._ml @ (late & ~self._left))
        normal = delay < (rules.normal_s / 2 if rules.family == "model" else rules.normal_s)
        if on_left or on_right:
            normal &= ~self._left if on_left > on_right else self._left
        reference = float(np.median(cbf[normal])) if normal.any() else 0.0
        core = late & (cbf < rules.rcbf * reference)
        labels = np.zeros(self.maps.tissue.shape, np.uint8)
        labels.ravel()[self._at] = late.astype(np.uint8) + core
        return QuickLesions(labels, on_left + on_right, float(self._ml @ core))

    def final(self, rules: LesionRules) -> Lesions:
        """Lesions as the computation draws them."""
        return find_lesions(self.maps, self.grid, rules)

    def _values(self, rules: LesionRules) -> tuple[np.ndarray, np.ndarray]:
        """Smoothed delay and flow of the voxels that may be lesion."""
        key = (rules.family, rules.median_px)
        if key not in self._prepared:
            from scipy import ndimage

            family = getattr(self.maps, rules.family)
            delay = family["delay" if rules.family == "model" else "tmax"]
            smooth = ndimage.median_filter(delay, (1, rules.median_px, rules.median_px))
            self._prepared[key] = smooth.ravel()[self._at], family["cbf"].ravel()[self._at]
        return self._prepared[key]


def labels_of(lesions: Lesions) -> np.ndarray:
    """uint8 (k, j, i) label map of finished lesions."""
    return lesions.hypoperfused.astype(np.uint8) * PENUMBRA + lesions.core.astype(np.uint8) * (CORE - PENUMBRA)
