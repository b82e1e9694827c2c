"""Vendors' colour-coded perfusion maps back into numbers, by the colour bar that they themselves show.

Colours are read by the nearest entry of that very bar (CT perfusion specification, section 5): brightness is no measure
of the value, and a bar of another vendor is no measure either. The range of the bar is never guessed. What is black,
grey (anatomy, text) or of a colour that the bar does not have gets no value instead of a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import READABLE
from NeuraxisLib.volume import Volume
from StrokeCTPLib.colour_noise import LEAST_NOISE, noise_of, without_noise
from StrokeCTPLib.colour_scales import check_range

#: Largest minus smallest of red, green and blue, from which a pixel is coloured and not grey.
LEAST_CHROMA = 12
#: Below this every channel is black.
BLACK = 12
#: RGB distance to the bar from which a colour is not one of the bar's.
LARGEST_DISTANCE = 24.0
#: A bar is at least this wide and this high in pixels, and this share of the image's height.
BAR_WIDTH, BAR_HEIGHT, BAR_SHARE = 4, 64, 0.2
#: Largest difference of a channel between neighbours in a row of the bar, and between its rows.
SAME, STEP = 28, 40
#: Share of the rows of a bar beside which, on either side, another colour lies: tissue goes on, a bar ends.
APART = 0.9
#: Entries farther apart than this share of the bar must differ by at least this RGB distance.
FAR, DISTINCT = 0.1, 6.0
#: Coloured islands smaller than this (in an image of 512 x 512) are letters and marks.
SMALLEST_ISLAND = 60
#: Largest mean difference between a slice's bar and that of the series.
BAR_NOISE = 8.0
_SLICES_LOOKED_AT = 9
_CHUNK = 1 << 12

VALUE, BLANK, GREY, FOREIGN = 0, 1, 2, 3


@dataclass(frozen=True)
class ColourBar:
    """A colour bar found in an image.

    Attributes:
        table: (m, 3) float32 RGB, lowest value first: the bar from its lower end to its upper.
        rows, columns: (first, last + 1) of the bar in the image.
    """

    table: np.ndarray
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class InvertedMap:
    """Numbers read from colours.

    Attributes:
        values: (k, h, w) float32 in the unit of the range; NaN where there is no value.
        confidence: (k, h, w) float32, 1 where the colour is an entry of the bar and 0 where two distant entries are
            equally near; 0 where there is no value.
        status: (k, h, w) uint8: VALUE; BLANK is black (below the threshold, or no data: not zero); GREY is anatomy or
            text; FOREIGN is a colour that the bar does not have, the bar itself, or a mark.
        bar: by which they were read.
    """

    values: np.ndarray
    confidence: np.ndarray
    status: np.ndarray
    bar: ColourBar


def find_bar(rgb: np.ndarray, name: str = "The map") -> ColourBar:
    """The vertical colour bar of a series of images, highest value on top.

    It is looked for as the longest run of rows that are coloured, of one colour across, change little from row to row,
    and end abruptly on both sides; and whose colours never come twice.

    Args:
        rgb: (k, h, w, 3) uint8, or one image (h, w, 3), upright as on the screen.
        name: of the map, for the error.

    Raises:
        InputError: there is none, or the slices show different ones.
    """
    stack = _stack(rgb, name)
    shown = stack[np.unique(np.linspace(0, len(stack) - 1, _SLICES_LOOKED_AT).astype(int))]
    image = np.median(shown, axis=0).astype(np.float32)
    for columns, rows in _candidates(image):
        rows = _with_pale_ends(image, columns, rows)
        strip = image[slice(*rows), slice(*columns)]
        table = strip.mean(axis=1)[::-1].copy()
        if _stands_apart(image, columns, rows) and _names_values(table):
            means = stack[:, slice(*rows), slice(*columns)].mean(axis=2, dtype=np.float32)
            if np.abs(means - table[::-1]).mean(axis=(1, 2)).max() > BAR_NOISE:
                raise InputError(f"The slices of {name} show different colour bars; give the slices of one map only.")
            return ColourBar(means.mean(axis=0)[::-1].copy(), rows, columns)
    raise InputError(
        f"{name} shows no colour bar that has one colour for each value; choose the series of numbers instead, or "
        "export the colour map with its bar."
    )


def palette_bar(palette: np.ndarray, name: str = "The map") -> ColourBar:
    """The bar of a map that is stored with a palette (entries, 3) uint8: its longest run of entries in colour.

    Raises:
        InputError: the palette has no such run, or colours that come twice.
    """
    coloured = np.concatenate([[False], _chroma(palette.astype(int)) >= LEAST_CHROMA, [False]])
    starts, ends = (np.flatnonzero(np.diff(coloured.astype(int)) == step) for step in (1, -1))
    longest = int(np.argmax(ends - starts)) if len(starts) else 0
    table = palette[starts[longest] : ends[longest]].astype(np.float32) if len(starts) else np.empty((0, 3))
    if len(table) < BAR_HEIGHT or not _names_values(table):
        raise InputError(f"The palette of {name} has not one colour for each value; choose the series of numbers.")
    return ColourBar(table, (0, 0), (0, 0))


def invert(
    rgb: np.ndarray, value_range: tuple[float, float] | None, bar: ColourBar | None = None, name: str = "The map"
) -> InvertedMap:
    """Numbers from the colours of a map.

    Args:
        rgb: (k, h, w, 3) uint8, upright as on the screen; never interpolated before.
        value_range: values at the bar's lower and upper end; None is refused, never guessed.
        bar: None finds it in the images.
        name: of the map, for the error.

    Raises:
        InputError: no range, no bar, or hardly any pixel in the bar's colours.
    """
    stack = _stack(rgb, name)
    low, high = check_range(value_range, name)
    bar = bar or find_bar(stack, name)
    status = _status(stack, bar)
    colours, place = _colours(stack, status == VALUE, bar)
    position, distance, margin = _on_bar(colours, bar.table)
    shares, sure = np.full(stack.shape[:3], np.nan, np.float32), np.zeros(stack.shape[:3], np.float32)
    shares[status == VALUE], sure[status == VALUE] = position[place], margin[place]
    far = status == VALUE
    far[far] = distance[place] > LARGEST_DISTANCE
    status[far] = FOREIGN
    status[_islands(status == VALUE)] = FOREIGN
    taken = status == VALUE
    if far.sum() > taken.sum() or not taken.any():
        raise InputError(f"The colours of {name} are not those of its colour bar; give the images of one map only.")
    values = np.where(taken, low + (high - low) * shares, np.nan).astype(np.float32)
    return InvertedMap(values, np.where(taken, sure, 0).astype(np.float32), status, bar)


def read_colour_map(
    path: str | Path, value_range: tuple[float, float] | None, unit: str = "", name: str = "The map"
) -> tuple[Volume, InvertedMap]:
    """A colour map in a NIfTI, NRRD or MetaImage file as numbers on the image's own grid.

    Args:
        path: of the file.
        value_range: see :func:`invert`.
        unit: of the range.
        name: of the map, for the error.

    Returns:
        The volume, NaN where there is no value, and the same numbers upright with confidence and status.

    Raises:
        InputError: not readable or not in colour, and as :func:`invert`.
    """
    path = Path(path)
    if not path.is_file() or not path.name.lower().endswith(READABLE):
        raise InputError(f"'{path.name}' is no image file; give the colour map as NIfTI, NRRD or MetaImage.")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        raise InputError(f"'{path.name}' is damaged or no image; copy or export it again.") from None
    if image.GetDimension() != 3 or image.GetPixelID() != sitk.sitkVectorUInt8:
        raise InputError(f"'{path.name}' is no colour map of several slices; choose one with red, green and blue.")
    direction = np.array(image.GetDirection()).reshape(3, 3)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = direction * np.array(image.GetSpacing()), image.GetOrigin()
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    # On the screen rows run to the back or to the feet; a file whose rows run the other way holds the bar upside down.
    down = max(matrix[1:3, 1], key=abs) > 0
    rgb = sitk.GetArrayFromImage(image)
    found = invert(rgb[:, ::-1] if down else rgb, value_range, name=name)
    values = found.values[:, ::-1] if down else found.values
    return Volume(np.ascontiguousarray(values), matrix, unit=unit), found


def _stack(rgb: np.ndarray, name: str) -> np.ndarray:
    rgb = np.asarray(rgb)
    if rgb.ndim not in (3, 4) or rgb.shape[-1] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise InputError(f"{name} is no RGB image with 8 bits for each colour; choose the colour map itself.")
    return rgb if rgb.ndim == 4 else rgb[None]


def _chroma(rgb: np.ndarray) -> np.ndarray:
    return rgb.max(axis=-1) - rgb.min(axis=-1)


def _candidates(image: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(columns, rows) of what may be a bar, longest first."""
    height, width = image.shape[:2]
    if width < BAR_WIDTH:
        return []
    across = np.abs(np.diff(image, axis=1)).max(axis=-1) <= SAME
    uniform = np.lib.stride_tricks.sliding_window_view(across, BAR_WIDTH - 1, axis=1).all(axis=-1)
    coloured = np.lib.stride_tricks.sliding_window_view(_chroma(image) >= LEAST_CHROMA, BAR_WIDTH, axis=1).all(axis=-1)
    smooth = np.lib.stride_tricks.sliding_window_view(image, BAR_WIDTH, axis=1).mean(axis=-1)
    smooth = np.abs(np.diff(smooth, axis=0)).max(axis=-1) <= STEP
    good = _bridged(uniform & coloured)
    run = best = good[0].astype(int)
    last = np.zeros_like(run)
    for row in range(1, height):
        run = np.where(good[row], np.where(smooth[row - 1], run, 0) + 1, 0)
        last = np.where(run > best, row, last)
        best = np.maximum(run, best)
    found: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for x in np.flatnonzero(best >= max(BAR_HEIGHT, BAR_SHARE * height)):
        rows = (int(last[x] - best[x] + 1), int(last[x] + 1))
        (start, end), before = found[-1] if found else ((-1, -1), (0, 0))
        if found and x + BAR_WIDTH - 1 == end and max(abs(np.subtract(rows, before))) <= 3:
            found[-1] = (start, end + 1), (max(rows[0], before[0]), min(rows[1], before[1]))
        else:
            found.append(((int(x), int(x) + BAR_WIDTH), rows))
    return sorted(found, key=lambda bar: bar[1][0] - bar[1][1])


def _bridged(good: np.ndarray) -> np.ndarray:
    """Rows (h, w) that are good, and single rows or pairs between such that noise has spoilt."""
    padded = np.pad(good, ((2, 2), (0, 0)))
    above, below = padded[1:-3] | padded[:-4], padded[3:-1] | padded[4:]
    return good | (above & below)


def _with_pale_ends(image: np.ndarray, columns: tuple[int, int], rows: tuple[int, int]) -> tuple[int, int]:
    """The rows of a bar, and those beyond that go on smoothly in white or grey."""
    strip = image[:, slice(*columns)]
    mean = strip.mean(axis=1)
    uniform = np.abs(strip - mean[:, None]).max(axis=(1, 2)) <= SAME
    ends = []
    for row, step in ((rows[0], -1), (rows[1] - 1, 1)):
        while 0 <= row + step < len(image) and uniform[row + step] and mean[row + step].min() > 4 * BLACK:
            if np.abs(mean[row + step] - mean[row]).max() > STEP:
                break
            row += step
        ends.append(row)
    return ends[0], ends[1] + 1


def _stands_apart(image: np.ndarray, columns: tuple[int, int], rows: tuple[int, int]) -> bool:
    """Whether another colour lies on both sides of a bar; the column next to it may be a blend of both."""
    strip = image[slice(*rows)]
    mean = strip[:, slice(*columns)].mean(axis=1)
    beside = [x for x in (columns[0] - 2, columns[1] + 1) if 0 <= x < image.shape[1]]
    return all((np.abs(strip[:, x] - mean).max(axis=-1) > SAME).mean() >= APART for x in beside)


def _names_values(table: np.ndarray) -> bool:
    """Whether entries that are far apart on the bar differ in colour, so that each colour is one value."""
    entries = len(table)
    distance = np.linalg.norm(table[:, None] - table[None], axis=-1)
    apart = np.abs(np.subtract.outer(np.arange(entries), np.arange(entries))) >= FAR * entries
    return float(distance[apart].min()) >= DISTINCT


def _status(stack: np.ndarray, bar: ColourBar) -> np.ndarray:
    """BLANK, GREY and the bar's strip to its margin as FOREIGN; VALUE for all that remains to be looked up."""
    status = np.where(_chroma(stack) < LEAST_CHROMA, GREY, VALUE).astype(np.uint8)
    if float(_chroma(bar.table).min()) < LEAST_CHROMA:  # a bar that ends in white: such pixels may be values
        pale = bar.table[_chroma(bar.table) < LEAST_CHROMA]
        near = np.abs(stack[..., None, :].astype(np.float32) - pale).max(axis=-1).min(axis=-1) <= LEAST_CHROMA
        status[near] = VALUE
    status[stack.max(axis=-1) <= BLACK] = BLANK
    left, right = bar.columns
    if right == left:  # a palette's, which is not in the picture
        return status
    strip = slice(0, right + 1) if left + right < stack.shape[2] else slice(max(left - 1, 0), None)
    status[:, :, strip] = FOREIGN
    return status


def _colours(stack: np.ndarray, taken: np.ndarray, bar: ColourBar) -> tuple[np.ndarray, np.ndarray]:
    """Different colours (n, 3) of the pixels taken, and which of them each pixel has; freed of the bar's noise."""
    noise = noise_of(stack[:, slice(*bar.rows), slice(*bar.columns)])
    if noise >= LEAST_NOISE:
        colours = without_noise(stack, taken, noise)[taken]
        return colours, np.arange(len(colours))
    packed, place = np.unique(_packed(stack[taken]), return_inverse=True)
    return _unpacked(packed), place


def _on_bar(colours: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each colour (n, 3): its place on the bar from 0 to 1, RGB distance to it, and confidence.

    The bar is a chain of straight pieces between its entries, so that a bar of few pixels does not round values.
    """
    parts = [_nearest(colours[i : i + _CHUNK].astype(np.float32), table) for i in range(0, len(colours), _CHUNK)]
    if not parts:
        return np.empty(0), np.empty(0), np.empty(0)
    position, distance, other = (np.concatenate(part) for part in zip(*parts))
    margin = np.clip(1 - distance / np.maximum(other, 1e-6), 0, 1)
    return position / (len(table) - 1), distance, margin


def _nearest(colours: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(place in entries, distance, distance to the nearest entry far from that place) of each colour."""
    squared = (colours**2).sum(1)[:, None] - 2 * colours @ table.T + (table**2).sum(1)
    best = squared.argmin(axis=1)
    entries = np.arange(len(table))
    far = np.abs(entries - best[:, None]) >= FAR * len(table)
    other = np.sqrt(np.maximum(np.where(far, squared, np.inf).min(axis=1), 0))
    place, distance = best.astype(np.float32), np.sqrt(np.maximum(squared.min(axis=1), 0))
    for step in (-1, 1):
        end = np.clip(best + step, 0, len(table) - 1)
        along = table[end] - table[best]
        share = ((colours - table[best]) * along).sum(1) / np.maximum((along**2).sum(1), 1e-6)
        share = np.clip(share, 0, 1)
        found = np.linalg.norm(colours - table[best] - share[:, None] * along, axis=1)
        closer = found < distance - 1e-3
        place, distance = np.where(closer, best + step * share, place), np.where(closer, found, distance)
    return place, distance, other


def _islands(taken: np.ndarray) -> np.ndarray:
    """Pixels of coloured islands too small for anything but a letter or a mark, slice by slice."""
    from scipy import ndimage

    smallest = SMALLEST_ISLAND * taken.shape[1] * taken.shape[2] / 512**2
    small = np.zeros_like(taken)
    for k, mask in enumerate(taken):
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())
        sizes[0] = taken[k].size
        small[k] = sizes[labels] < smallest
    return small & taken


def _packed(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)


def _unpacked(colours: np.ndarray) -> np.ndarray:
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1)
