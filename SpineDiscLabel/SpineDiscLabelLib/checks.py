"""What a volume must be before discs are looked for in it: one sagittal MR of a spine, in three dimensions."""

from __future__ import annotations

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.sagittal import sagittal_order

#: Rows and columns of a sagittal image are finer than this; a whole-spine template at 2 mm passes, axial slices do not.
COARSEST_PIXEL_MM = 2.5
#: A stack turned farther than this from the sagittal plane is oblique.
MOST_OBLIQUE_DEG = 35.0
#: No MR has such values on both sides; every CT has them.
AIR_HU, BONE_HU = -500, 300
#: A label map has fewer values than this, an MR has more even in a part of its pixels.
FEWEST_VALUES = 32
#: No spine is shorter than two discs.
SMALLEST_FIELD_MM = 30.0


def require_spine_mr(volume: Volume) -> None:
    """Raise InputError, in one sentence, unless the volume can be a sagittal spine MR.

    Args:
        volume: as read; its unit and ``meta["modality"]`` are believed where a reader has set them.

    Raises:
        InputError: several time points, two-dimensional, CT or another modality, empty, not numbers, a label map.
        GeometryError: not acquired sagittally, or oblique.
    """
    array = volume.array
    if array.ndim == 4:
        raise InputError(f"The image holds {array.shape[0]} time points; choose or export one of them.")
    if array.ndim != 3 or min(array.shape) < 2:
        raise InputError("The image is two-dimensional; choose a sagittal series with all its slices.")
    _require_mr(volume)
    bad = int(array.size - np.count_nonzero(np.isfinite(array))) if array.dtype.kind == "f" else 0
    if bad:
        noun = "voxel that is" if bad == 1 else "voxels that are"
        raise InputError(f"The image has {bad} {noun} not a number (NaN or infinite); export the MR again.")
    if array.min() == array.max():
        raise InputError(f"All voxels of the image have the same value ({array.flat[0]:g}); choose another series.")
    values = len(np.unique(array[:, ::3, ::3]))
    if values < FEWEST_VALUES and not np.any(array % 1):
        raise InputError(f"The image holds {values} whole numbers only, as a label map does; choose the MR itself.")
    _require_sagittal(volume)


def _require_mr(volume: Volume) -> None:
    modality = str(volume.meta.get("modality", "") or "MR").upper()
    if modality == "CT" or volume.unit == "HU" or (volume.array.min() < AIR_HU and volume.array.max() > BONE_HU):
        raise InputError("The image is a CT, and discs are found in MR; choose a sagittal T1 or T2 series.")
    if modality not in ("MR", "OT"):
        raise InputError(f"The image is not an MR but has modality {modality}; choose a sagittal T1 or T2 series.")


def _require_sagittal(volume: Volume) -> None:
    """GeometryError unless rows and columns of fine pixels lie in the sagittal plane, as nearly as a person lies."""
    order = sagittal_order(volume)
    steps = [volume.ijk_to_ras[:3, 2 - axis] for axis in order.axes]  # to the right, inferior, posterior
    spacing = [volume.spacing_mm[2 - axis] for axis in order.axes]
    plane = "axially" if spacing[1] >= spacing[2] else "coronally"
    if max(spacing[1:]) > COARSEST_PIXEL_MM:
        raise GeometryError(
            f"The image was acquired {plane}, with slices {max(spacing[1:]):.1f} mm apart; choose a sagittal series."
        )
    across = np.cross(steps[1], steps[2])
    turned = np.degrees(np.arccos(min(1.0, abs(across[0]) / float(np.linalg.norm(across)))))
    if turned > MOST_OBLIQUE_DEG:
        raise GeometryError(
            f"The slices are turned {turned:.0f} degrees out of the sagittal plane; choose a sagittal series."
        )
    extent_mm = min(spacing[axis] * volume.array.shape[order.axes[axis]] for axis in (1, 2))
    if extent_mm < SMALLEST_FIELD_MM:
        raise GeometryError(
            f"The image shows only {extent_mm:.0f} mm in the sagittal plane, too little of a spine; choose a larger."
        )
