"""Hypoperfused tissue and core from perfusion maps: thresholds, clean-up, volumes.

Thresholds belong to a family of maps. "svd" takes the plain rules of the field (Tmax above 6 s; CBF below 30 % of the
other side's, within Tmax above 6 s); "calibrated" takes the thresholds that mean the same at this patient's noise;
"model" takes a delay above 3 s and the same share of flow. The rules are values that a user may edit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume

if TYPE_CHECKING:  # the maps come with torch, which drawing lesions does not need
    from StrokeCTPLib.perfusion_maps import PerfusionMaps

#: Tissue with more blood than this, in mL/100 g, is vessel.
VESSEL_CBV = 9.0
#: Grades of delay whose volumes are reported, Tmax in s.
TMAX_GRADES_S = (4.0, 6.0, 8.0, 10.0)
FAMILIES = ("svd", "calibrated", "model")


@dataclass(frozen=True)
class LesionRules:
    """Thresholds and clean-up.

    Attributes:
        family: of the maps: "svd", "calibrated" or "model". late_s: Tmax, for the model delay, above which tissue is
            hypoperfused. rcbf: share of the reference flow below which hypoperfused tissue is core.
        normal_s: reference tissue lies on the other side and below this Tmax (model: half of it, in delay).
        smallest_ml, smallest_core_ml: smaller components are dropped. median_px: in-plane median on the delay map.
        grade_shift_s: what the grades of Tmax are moved by, where the family's Tmax differs from the plain one.
    """

    family: str = "calibrated"
    late_s: float = 6.0
    rcbf: float = 0.30
    normal_s: float = 4.0
    smallest_ml: float = 3.0
    smallest_core_ml: float = 1.0
    median_px: int = 3
    grade_shift_s: float = 0.0


@dataclass(frozen=True)
class Lesions:
    """Masks bool (k, j, i) and what they were drawn with.

    Attributes:
        hypoperfused: delayed tissue, core included. core: part of it. left_affected: whether the patient's left
            hemisphere holds more of it (None without any). reference_cbf: median flow of the other side.
        graded_ml: volume above each of TMAX_GRADES_S (after the same clean-up; the Tmax of the family).
        hypoperfused_ml, core_ml: volumes. rules: as applied, with the calibrated thresholds filled in.
    """

    hypoperfused: np.ndarray
    core: np.ndarray
    left_affected: bool | None
    reference_cbf: float
    graded_ml: dict[float, float]
    hypoperfused_ml: float
    core_ml: float
    rules: LesionRules


def rules_for(maps: PerfusionMaps, family: str = "calibrated") -> LesionRules:
    """The default rules of a family, thresholds filled in from the calibration where it has them."""
    if family not in FAMILIES:
        raise InputError(f"No family of maps is called {family!r}; choose {', '.join(FAMILIES)}.")
    rules = LesionRules(family)
    if family == "calibrated":
        late_s = maps.calibration.tmax_s
        shift_s = late_s - maps.calibration.plain_tmax_s
        return replace(rules, rcbf=maps.calibration.rcbf, late_s=late_s, grade_shift_s=shift_s)
    return replace(rules, late_s=maps.calibration.line_delay_s) if family == "model" else rules


def find_lesions(
    maps: PerfusionMaps, grid: Volume, rules: LesionRules | None = None, exclude: np.ndarray | None = None
) -> Lesions:
    """Draw hypoperfused tissue and core.

    Args:
        grid: the volume whose geometry the maps have (axial; its array is not looked at).
        exclude: bool (k, j, i), tissue a user has ruled out (artefacts, posterior fossa).
    """
    from scipy import ndimage

    rules = rules or rules_for(maps)
    chosen = getattr(maps, rules.family)
    delay = ndimage.median_filter(chosen["delay" if rules.family == "model" else "tmax"], (1, *[rules.median_px] * 2))
    allowed = maps.tissue & (maps.svd["cbv"] < VESSEL_CBV)
    if exclude is not None:
        allowed = allowed & ~exclude
    voxel_ml, within = grid.voxel_volumes_ml, maps.tissue if exclude is None else maps.tissue & ~exclude
    hypoperfused = clean(allowed & (delay > rules.late_s), voxel_ml, rules.smallest_ml, within)
    left = left_side(maps.inside, grid)
    on_left, on_right = (float((hypoperfused & side).sum(axis=(1, 2)) @ voxel_ml) for side in (left, ~left))
    left_affected = None if on_left == on_right == 0 else on_left > on_right
    other = np.ones_like(left) if left_affected is None else (~left if left_affected else left)
    normal_s = rules.normal_s / 2 if rules.family == "model" else rules.normal_s
    normal = allowed & other & (delay < normal_s)
    reference = float(np.median(chosen["cbf"][normal])) if normal.any() else 0.0
    core = clean(
        hypoperfused & (chosen["cbf"] < rules.rcbf * reference), voxel_ml, rules.smallest_core_ml, hypoperfused
    )
    tmax = maps.calibrated["tmax"] if rules.family == "calibrated" else maps.svd["tmax"]
    return Lesions(
        hypoperfused,
        core,
        left_affected,
        reference,
        graded_volumes_ml(tmax, allowed, voxel_ml, rules),
        volume_ml(hypoperfused, voxel_ml),
        volume_ml(core, voxel_ml),
        rules,
    )


def graded_volumes_ml(
    tmax: np.ndarray, allowed: np.ndarray, voxel_ml: np.ndarray, rules: LesionRules
) -> dict[float, float]:
    """Volume in mL above every grade of TMAX_GRADES_S, moved by the rules' shift."""
    from scipy import ndimage

    smooth = ndimage.median_filter(tmax, (1, rules.median_px, rules.median_px))
    shift_s = rules.grade_shift_s
    masks = {s: clean(allowed & (smooth > s + shift_s), voxel_ml, rules.smallest_ml, allowed) for s in TMAX_GRADES_S}
    return {s: volume_ml(mask, voxel_ml) for s, mask in masks.items()}


def clean(mask: np.ndarray, voxel_ml: np.ndarray, smallest_ml: float, within: np.ndarray) -> np.ndarray:
    """A mask without components below ``smallest_ml`` (26 neighbours), holes of every slice filled ``within``."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if not count:
        return np.zeros(mask.shape, bool)
    per_slice = np.stack([np.bincount(part.ravel(), minlength=count + 1) for part in labels])
    keep = voxel_ml @ per_slice >= smallest_ml
    keep[0] = False
    return fill_holes(keep[labels]) & within


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """A mask (k, j, i) with the holes of every slice filled: what is not joined to the slice's border by its edges."""
    from scipy import ndimage

    across = ndimage.generate_binary_structure(2, 1)[None] & np.array([False, True, False])[:, None, None]
    regions, count = ndimage.label(~mask, across)
    open_ones = np.zeros(count + 1, bool)
    for border in (regions[:, [0, -1]], regions[:, :, [0, -1]]):
        open_ones[border] = True
    open_ones[0] = False  # the mask itself
    return ~open_ones[regions]


def volume_ml(mask: np.ndarray, voxel_ml: np.ndarray) -> float:
    """Volume of a mask by the slices' own voxel volumes (slice increment, not thickness)."""
    return float(mask.sum(axis=(1, 2)) @ voxel_ml)


def left_side(inside: np.ndarray, grid: Volume) -> np.ndarray:
    """bool (k, j, i): the patient's left of the mid-sagittal plane.

    The plane is fitted to the middles between the left and right border of the space within the skull in every row, so
    that a turned or tilted head is divided along its own midline.
    """
    k, j = np.nonzero(inside.sum(2) > 0.5 * inside.sum(2).max())
    first = inside[k, j].argmax(1)
    last = inside.shape[2] - 1 - inside[k, j, ::-1].argmax(1)
    design = np.stack([np.ones(len(k)), j - j.mean(), k - k.mean()], 1)
    fitted, *_ = np.linalg.lstsq(design, (first + last) / 2, rcond=None)
    rows, slices = np.arange(inside.shape[1]) - j.mean(), np.arange(inside.shape[0]) - k.mean()
    middle = fitted[0] + fitted[1] * rows[None, :] + fitted[2] * slices[:, None]
    beyond = np.arange(inside.shape[2]) > middle[..., None]
    return beyond if grid.column_step_ras[0] < 0 else ~beyond
