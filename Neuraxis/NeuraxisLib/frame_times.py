"""Times of frames as Slicer writes them: labels of multi-volumes in ms, index values of sequences with their unit."""

from __future__ import annotations

import re

import numpy as np

#: Attribute of multi-volumes, and of sequences that were loaded from DICOM: the time of every frame in ms.
FRAME_LABELS = "MultiVolume.FrameLabels"
#: Units of time that Slicer's sequences state for their index.
SECONDS_PER_UNIT = {"s": 1.0, "ms": 1e-3}


def label_times(labels: str | None, frames: int) -> np.ndarray | None:
    """Times in s from the text of a FRAME_LABELS attribute (ms); None unless there is one per frame."""
    values = numbers(labels or "", frames)
    return None if values is None else values / 1000.0


def index_times(values: str, unit: str, frames: int) -> np.ndarray | None:
    """Times in s from the index values of a sequence; None where they only count the frames (no unit of time)."""
    seconds, found = SECONDS_PER_UNIT.get(unit.strip()), numbers(values, frames)
    return None if seconds is None or found is None else seconds * found


def numbers(text: str, count: int) -> np.ndarray | None:
    """The numbers of a text, separated by commas or blanks; None unless there are ``count`` of them."""
    try:
        values = np.array([float(word) for word in re.split(r"[,\s]+", text.strip())])
    except ValueError:
        return None
    return values if len(values) == count else None
