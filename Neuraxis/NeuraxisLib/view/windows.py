"""Grey windows under the names that radiologists call them by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.slice_view import BRAIN_WINDOW_HU
from NeuraxisLib.volume import Volume

#: Air lies below it, and no MR image has such values.
_CT_ONLY_HU = -200


@dataclass(frozen=True)
class Window:
    """What is black and what is white, in the unit of the image."""

    name: str
    low: float
    high: float


#: Usual windows of head CT (width/level in HU): brain 80/40, stroke 40/40, subdural 200/75, bone 2800/600.
CT_WINDOWS = (
    Window("Brain", *BRAIN_WINDOW_HU), Window("Stroke", 20, 60), Window("Subdural", -25, 175),
    Window("Bone", -800, 2000),
)  # fmt: skip
#: The window that a task's image is first shown in; the first one for the others.
_FIRST = {"stroke": "Stroke"}


def is_ct(volume: Volume) -> bool:
    """Whether the values are Hounsfield units: said so, or as low as only those of CT are."""
    return volume.unit == "HU" or float(np.min(volume.array)) <= _CT_ONLY_HU


def windows_of(volume: Volume) -> tuple[Window, ...]:
    """The windows that an image is offered in: those of head CT, or ones that follow its own values."""
    if is_ct(volume):
        return CT_WINDOWS
    sample = np.asarray(volume.array)[..., ::2, ::2]
    low, middle, high, top = (float(value) for value in np.percentile(sample, (1, 50, 99, 99.9)))
    span = max(high - low, 1e-6)
    return (
        Window("Automatic", low, low + span),
        Window("Bright", low, max(middle + span / 4, low + span / 2)),
        Window("Full", float(sample.min()), max(top, low + span)),
    )


def first_window(windows: tuple[Window, ...], task: str) -> Window:
    """The window to begin with for a task."""
    return next((window for window in windows if window.name == _FIRST.get(task)), windows[0])
