"""The colour scales in which perfusion maps are usually shown, and maps written in them with a colour bar.

"flow" for CBF and CBV and "time" for everything in seconds are measured on published figures of the Stavanger data
(stroke and disc specification 1.7). "jet" is the common rainbow that other vendors take for all maps; its colour
changes at the same pace everywhere, so that losses in storing cost the least.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from NeuraxisLib.errors import InputError, check_choice
from StrokeCTPLib.map_units import MAP_UNITS

#: Scale -> (share of the range, red, green, blue) of the colours between which it is linear.
SCALES: dict[str, tuple[tuple[float, int, int, int], ...]] = {
    "flow": (
        (0.0, 50, 0, 50), (0.04, 78, 0, 78), (0.125, 78, 33, 110), (0.25, 63, 63, 205), (0.375, 77, 105, 198),
        (0.5, 102, 180, 98), (0.625, 129, 254, 0), (0.75, 185, 254, 0), (0.9, 252, 253, 0), (0.94, 241, 158, 12),
        (0.98, 227, 56, 25), (1.0, 224, 30, 30),
    ),
    "time": (
        (0.0, 190, 0, 192), (0.02, 184, 3, 195), (0.06, 162, 14, 205), (0.125, 129, 31, 221), (0.25, 62, 69, 248),
        (0.375, 30, 164, 119), (0.5, 3, 254, 0), (0.625, 128, 254, 0), (0.75, 253, 253, 0), (0.875, 254, 118, 0),
        (0.92, 254, 76, 0), (0.98, 254, 8, 0), (1.0, 255, 0, 0),
    ),
    "jet": (
        (0.0, 0, 0, 128), (0.125, 0, 0, 255), (0.375, 0, 255, 255), (0.625, 255, 255, 0), (0.875, 255, 0, 0),
        (1.0, 128, 0, 0),
    ),
}  # fmt: skip
#: Viridis (CC0): its lightness rises steadily, so that every eye, and a grey print, keeps the order. For views alone.
SAFE_STOPS = ((0.0, 68, 1, 84), (0.25, 59, 82, 139), (0.5, 33, 145, 140), (0.75, 94, 201, 98), (1.0, 253, 231, 37))
#: Map -> the scale it is usually shown in.
SCALE_OF = {"cbf": "flow", "cbv": "flow", "mtt": "time", "ttp": "time", "tmax": "time", "delay": "time"}
#: Lowest and highest value that the Stavanger maps show: mL/100 g/min, mL/100 g, s, s. Other sites have others.
STAVANGER_RANGES = {"cbf": (0.0, 100.0), "cbv": (0.0, 6.0), "ttp": (0.0, 20.0), "tmax": (0.0, 12.0)}
#: Window (HU) in which maximum-intensity images are shown; theirs was not published.
MIP_RANGE_HU = (0.0, 150.0)
#: Ranges that a user may name instead of typing them.
RANGE_PRESETS = {"stavanger": STAVANGER_RANGES}
#: What our own maps are written in, unless a site wants the colours of its vendor.
OWN_SCALE = "jet"
ENTRIES = 256
#: Width of a written colour bar, of the black strips on both sides of it, and of the room for numbers.
BAR_WIDTH, GAP, NUMBER_WIDTH = 20, 8, 48
#: Characters of 5 rows of 3 pixels, each row an octal digit; and how many pixels of the image a side of these takes.
_GLYPHS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71222",
    "8": "75757", "9": "75717", ".": "00002", "-": "00700",
}  # fmt: skip
_GLYPH_SCALE = 2


def colour_table(scale: str, entries: int = ENTRIES) -> np.ndarray:
    """(entries, 3) uint8 RGB of a scale, lowest value first; InputError if there is no such scale."""
    check_choice("colour scale", scale, SCALES)
    return _between(SCALES[scale], entries)


def safe_colour_table(entries: int = ENTRIES) -> np.ndarray:
    """(entries, 3) uint8 RGB that every eye can order, lowest value first."""
    return _between(SAFE_STOPS, entries)


def _between(all_stops: tuple[tuple[float, int, int, int], ...], entries: int) -> np.ndarray:
    stops = np.array(all_stops, float)
    shares = np.linspace(0, 1, entries)
    return np.stack([np.rint(np.interp(shares, stops[:, 0], stops[:, c])) for c in (1, 2, 3)], -1).astype(np.uint8)


def check_range(value_range: tuple[float, float] | None, name: str = "The map") -> tuple[float, float]:
    """Lowest and highest value of a colour scale; InputError if they were not given or are in the wrong order."""
    if value_range is None:
        raise InputError(
            f"{name} does not say which values its colours stand for; give the lowest and the highest value that are "
            "written beside its colour bar."
        )
    low, high = (float(value) for value in value_range)
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"The range {low:g} to {high:g} of {name} is not one; give the lowest value first.")
    return low, high


def full_scale(kind: str, ranges: Mapping[str, float], name: str) -> tuple[float, float]:
    """Lowest and highest value of a map's colour bar as the user gave them; InputError says which one to give."""
    top = ranges.get(kind)
    if top is None:
        raise InputError(
            f"{name} shows {kind.upper()} in colours and does not say which values they stand for; give the value "
            f"that is written at the upper end of its colour bar (in {MAP_UNITS[kind]}) as the range of {kind}, or "
            "choose the series of numbers."
        )
    return check_range((0.0, top), name)


def parse_ranges(text: str) -> dict[str, float]:
    """Upper ends of colour bars from words such as ``"cbf=100,tmax=12"`` or the name of one of RANGE_PRESETS.

    Raises:
        InputError: no such preset or map, or no positive number.
    """
    if text.strip().lower() in RANGE_PRESETS:
        return {kind: high for kind, (_, high) in RANGE_PRESETS[text.strip().lower()].items()}
    ranges = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, number = (word.strip() for word in part.lower().partition("="))
        try:
            ranges[kind] = float(number)
        except ValueError:
            ranges[kind] = -1.0
        if kind not in MAP_UNITS or not 0 < ranges[kind] < np.inf:
            raise InputError(
                f"'{part}' is no range of a map; write such as cbf=100,tmax=12, or one of: {', '.join(RANGE_PRESETS)}."
            )
    return ranges


def coloured(values: np.ndarray, scale: str, value_range: tuple[float, float]) -> np.ndarray:
    """A map in colours: (..., 3) uint8 RGB. Values beyond the range get its end's colour, NaN becomes black.

    Args:
        values: (...) in the unit of ``value_range``.
        scale: one of :data:`SCALES`.
        value_range: lowest and highest value of the scale.
    """
    low, high = check_range(value_range)
    known = ~np.isnan(values)
    share = np.clip((np.where(known, values, low) - low) / (high - low), 0, 1)
    rgb = colour_table(scale)[np.rint(share * (ENTRIES - 1)).astype(int)]
    rgb[~known] = 0
    return rgb


def with_bar(rgb: np.ndarray, scale: str, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Slices (k, h, w, 3) with the scale's colour bar at the right margin, highest value on top.

    The bar is 256 rows high, or as high as the image if that is less; :mod:`StrokeCTPLib.colour_maps` reads it back.

    Args:
        rgb: as :func:`coloured` makes them.
        scale: by which they were made.
        value_range: is written beside the bar's ends and middle, in white; None writes no numbers.
    """
    slices, rows = rgb.shape[:2]
    height = min(rows, ENTRIES)
    strip = np.zeros((slices, rows, BAR_WIDTH + 2 * GAP, 3), np.uint8)
    top = (rows - height) // 2
    strip[:, top : top + height, GAP : GAP + BAR_WIDTH] = colour_table(scale, height)[::-1, None]
    parts = [rgb, strip]
    if value_range is not None:
        low, high = check_range(value_range)
        numbers = np.zeros((rows, NUMBER_WIDTH), np.uint8)
        for share in (0.0, 0.5, 1.0):
            _write(numbers, f"{low + share * (high - low):.4g}", top + (1 - share) * (height - 1))
        parts.append(np.broadcast_to(numbers[None, :, :, None], (slices, rows, NUMBER_WIDTH, 3)))
    return np.concatenate(parts, axis=2)


def colour_map(values: np.ndarray, value_range: tuple[float, float], scale: str = OWN_SCALE) -> np.ndarray:
    """A perfusion map as uint8 RGB slices (k, h, w + bar, 3) with bar and numbers, for people and for reading back.

    Args:
        values: (k, h, w); NaN becomes black.
        value_range: lowest and highest value of the scale, to be stored with the images too.
        scale: one of :data:`SCALES`; :data:`SCALE_OF` names the usual one of a map.
    """
    return with_bar(coloured(values, scale, value_range), scale, value_range)


def _write(image: np.ndarray, text: str, middle: float) -> None:
    """Write a number in white at the left of ``image`` (rows, columns), around the row ``middle``."""
    columns: list[np.ndarray] = []
    for character in text[: image.shape[1] // (4 * _GLYPH_SCALE)]:
        octal = _GLYPHS.get(character, "00000")
        pixels = np.array([[int(row) >> 2 & 1, int(row) >> 1 & 1, int(row) & 1, 0] for row in octal], np.uint8)
        columns.append(np.kron(255 * pixels, np.ones((_GLYPH_SCALE, _GLYPH_SCALE), np.uint8)))
    drawn = np.concatenate(columns, axis=1)
    first = int(np.clip(round(middle - len(drawn) / 2), 0, max(len(image) - len(drawn), 0)))
    drawn = drawn[: len(image) - first]
    image[first : first + len(drawn), : drawn.shape[1]] = drawn
