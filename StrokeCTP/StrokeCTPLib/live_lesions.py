"""Lesions on maps that are there already, fast enough to follow a slider; numpy alone while it is dragged.

While a threshold moves, the smoothed delay map and the flow are compared with it, nothing more. When it rests,
:func:`~StrokeCTPLib.findings.measure_stroke` finds on the same maps what the computation itself would find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume
from StrokeCTPLib.lesions import VESSEL_CBV, LesionRules, left_side

#: Values of the label map.
PENUMBRA, CORE = 1, 2
#: Pixels kept around the head.
_MARGIN = 2


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
        maps: what to draw on, in the stored order of the axes.
        grid: the volume whose geometry the maps have.

    Attributes:
        maps, grid: the same, axial and cut to where tissue is, as lesions are drawn.
        excluded: bool, on that grid, tissue that :meth:`leave_out` ruled out; None for none.

    Raises:
        InputError: the maps do not have one shape, or CBF or Tmax is missing.
    """

    def __init__(self, maps: ShownMaps, grid: Volume):
        _check(maps, grid)
        axial, self._order = grid.axial()
        maps = _each(maps, self._order.apply_array)
        self._shape = maps.tissue.shape
        self._window = (slice(None), *(_span(maps.inside.any(axis=(0, 3 - axis))) for axis in (1, 2)))
        self.maps = _each(maps, lambda array: np.ascontiguousarray(array[self._window]))
        self.grid = replace(axial, array=np.broadcast_to(np.uint8(0), self.maps.tissue.shape), frame_times_s=None)
        self.leave_out(None)

    def leave_out(self, excluded: np.ndarray | None) -> None:
        """Rule tissue out; ``excluded`` bool (k, j, i) on the whole image in its stored order, None for none."""
        self.excluded = None if excluded is None else self._order.apply_array(excluded)[self._window]
        allowed = self.maps.tissue & (self.maps.svd["cbv"] < VESSEL_CBV)
        if self.excluded is not None:
            allowed &= ~self.excluded
        self._at = np.flatnonzero(allowed)
        self._left = left_side(self.maps.inside, self.grid).ravel()[self._at]
        per_slice = allowed.shape[1] * allowed.shape[2]
        self._ml = self.grid.voxel_volumes_ml[self._at // per_slice].astype(np.float32)
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
        return QuickLesions(self.stored(labels), on_left + on_right, float(self._ml @ core))

    def stored(self, labels: np.ndarray) -> np.ndarray:
        """A label map on the cut axial grid, back on the whole image in its stored order."""
        whole = np.zeros(self._shape, labels.dtype)
        whole[self._window] = labels
        return self._order.undo_array(whole)

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


def _span(there: np.ndarray) -> slice:
    """The stretch of a row (n,) bool that holds all True, with room around it for what looks at neighbours."""
    at = np.flatnonzero(there)
    return slice(max(int(at[0]) - _MARGIN, 0), int(at[-1]) + 1 + _MARGIN) if len(at) else slice(None)


def _check(maps: ShownMaps, grid: Volume) -> None:
    shapes = {array.shape for family in (maps.svd, maps.model, maps.calibrated) for array in family.values()}
    missing = [name.upper() for name in ("cbf", "tmax") if name not in maps.svd]
    if missing:
        raise InputError(f"The map set is incomplete: {' and '.join(missing)} missing; thresholds need both.")
    if shapes != {maps.tissue.shape} or maps.tissue.shape != grid.array.shape[-3:]:
        raise InputError("The perfusion maps lie on different grids; give maps of one calculation.")


def _each(maps: ShownMaps, change: Callable[[np.ndarray], np.ndarray]) -> ShownMaps:
    """The maps after a change of every array; without CBV, nothing is vessel."""
    families = [{name: change(array) for name, array in family.items()}
                for family in (maps.svd, maps.model, maps.calibrated)]  # fmt: skip
    families[0].setdefault("cbv", np.zeros_like(families[0]["cbf"]))
    return ShownMaps(families[0], change(maps.tissue), change(maps.inside), families[1], families[2])


@dataclass(frozen=True)
class Thresholds:
    """Rules as a reader thinks of them: thresholds of the standard engine (plain bSVD), and the maps to draw on.

    Attributes:
        family: "calibrated", "svd" or "model". late_s: Tmax in s. rcbf: share of the reference flow.
        smallest_ml, smallest_core_ml: smaller regions are dropped.
    """

    family: str = "calibrated"
    late_s: float = 6.0
    rcbf: float = 0.30
    smallest_ml: float = LesionRules.smallest_ml
    smallest_core_ml: float = LesionRules.smallest_core_ml

    def rules(self, calibration: Mapping[str, float] | None) -> LesionRules:
        """The rules that they become on the maps of a patient.

        Args:
            calibration: as in the result's provenance; None where maps of another program are thresholded as they are.
        """
        base = LesionRules(
            family=self.family,
            late_s=self.late_s,
            rcbf=self.rcbf,
            smallest_ml=self.smallest_ml,
            smallest_core_ml=self.smallest_core_ml,
            grade_shift_s=0.0,
        )
        if calibration is None or self.family == "svd":
            return base
        shift_s = self.late_s - calibration["plain_tmax_s"]
        if self.family == "model":
            return replace(base, late_s=calibration["line_delay_s"] + shift_s)
        return replace(
            base,
            late_s=calibration["tmax_s"] + shift_s,
            rcbf=calibration["rcbf"] * self.rcbf / calibration["plain_rcbf"],
            grade_shift_s=calibration["tmax_s"] - calibration["plain_tmax_s"],
        )
