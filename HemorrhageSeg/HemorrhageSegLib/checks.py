"""What a volume must show before hemorrhage is looked for in it: a CT, in Hounsfield units, of a head."""

from __future__ import annotations

import numpy as np

from HemorrhageSegLib.brain import BrainMask, extract_brain
from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume

#: Below this confidence of :func:`extract_brain` a volume shows no brain; head CTs score 0.6 and more.
LEAST_CONFIDENCE = 0.3
#: A CT of a patient holds air below and bone above these values, each in at least this share of its voxels.
AIR_HU, BONE_HU, LEAST_SHARE = -700, 150, 0.001


def require_ct(volume: Volume) -> None:
    """Raise InputError, in one sentence, unless the volume can be a three-dimensional CT in Hounsfield units.

    Args:
        volume: any volume; ``meta["modality"]`` is believed where a reader has set it.
    """
    array = volume.array
    modality = str(volume.meta.get("modality", "") or "CT").upper()
    if modality != "CT":
        raise InputError(f"The image is not a CT but has modality {modality}; choose a non-contrast head CT.")
    if array.ndim != 3:
        raise InputError("The image is a time series, not one head CT; choose a volume with a single time point.")
    if min(array.shape) < 2:
        raise InputError("The image is empty or two-dimensional; choose a head CT series with all its slices.")
    bad = int(array.size - np.count_nonzero(np.isfinite(array))) if array.dtype.kind == "f" else 0
    if bad:
        noun = "voxel that is" if bad == 1 else "voxels that are"
        raise InputError(f"The image has {bad} {noun} not a number (NaN or infinite); export the CT again.")
    sample = array[:: max(1, array.shape[0] // 40), ::2, ::2]
    if array.min() == array.max():
        raise InputError(f"All voxels of the image have the same value ({array.flat[0]:g}); choose another series.")
    air, bone = np.mean(sample < AIR_HU), np.mean(sample > BONE_HU)
    if air < LEAST_SHARE or bone < LEAST_SHARE:
        missing = "no air (about -1000 HU)" if air < LEAST_SHARE else "no bone (above 150 HU)"
        raise InputError(
            f"The image is not a head CT in Hounsfield units: it has {missing}; "
            "choose the original CT, not an MR, a windowed picture or a cropped part."
        )


def require_head_ct(volume: Volume) -> BrainMask:
    """The intracranial space of a head CT, or InputError if the volume is no CT or shows no brain.

    Args:
        volume: as read, on its stored grid.

    Returns:
        What :func:`HemorrhageSegLib.brain.extract_brain` found, so that it need not be found twice.
    """
    require_ct(volume)
    brain = extract_brain(volume)
    if brain.confidence < LEAST_CONFIDENCE:
        raise InputError("There is no brain in view in the image; choose a CT series that covers the head.")
    return brain
