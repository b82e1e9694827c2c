"""What a DICOM picture of a perfusion map says of its colour bar: in our own private elements, or in words with a unit.

A range is believed only where two numbers and the unit of the map stand together, such as "0 - 100 mL/100g/min".
"""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from NeuraxisLib.errors import InputError
from StrokeCTPLib.map_units import unit_factor

#: Private elements of our own pictures: creator, then lowest and highest value, and columns without the bar.
CREATOR, GROUP = "NEURAXIS", 0x0071
_RANGE, _COLUMNS = 0x01, 0x02
_TEXTS = ("SeriesDescription", "ImageComments", "DerivationDescription")
_WORDS = re.compile(
    r"(-?\d+(?:[.,]\d+)?)\s*(?:-|\.\.\.?|to)\s*(\d+(?:[.,]\d+)?)\s*[\[(]?\s*"
    r"(ml\s*/[\w./\s]*?(?:min|g|ml)\b(?:\s*/\s*\w+)*|ms\b|s\b|sec\b)",
    re.IGNORECASE,
)


def state_range(dataset: Dataset, low: float, high: float, columns: int) -> None:
    """Write the range of a picture's colour bar, and how many columns are the map, into its header."""
    block = dataset.private_block(GROUP, CREATOR, create=True)
    block.add_new(_RANGE, "FD", [low, high])
    block.add_new(_COLUMNS, "US", columns)


def stated_range(dataset: Dataset, kind: str) -> tuple[float, float] | None:
    """Lowest and highest value of a picture's colour bar in the unit of the field; None if it does not say."""
    own = _own(dataset, _RANGE)
    if own is not None:
        return float(own[0]), float(own[1])
    for word in _TEXTS:
        match = _WORDS.search(str(dataset.get(word) or ""))
        try:
            factor = unit_factor(kind, match[3], "") if match else None
        except InputError:  # the unit of something else
            continue
        if factor is not None:
            low, high = (float(number.replace(",", ".")) * factor for number in match.groups()[:2])
            return low, high
    return None


def stated_columns(dataset: Dataset) -> int | None:
    """How many columns of a picture of ours are the map; None if it is not ours."""
    own = _own(dataset, _COLUMNS)
    return None if own is None else int(own)


def _own(dataset: Dataset, element: int):
    try:
        return dataset.private_block(GROUP, CREATOR)[element].value
    except KeyError:
        return None
