"""Pictures of single slices for reports: grey image, outlines of the label map, a translucent map.

Pixels become PNG, everything else SVG with millimetres as its unit, so outlines, letters and scale bar stay sharp in
print. Needs numpy only. Slices are shown as they are read: patient's right on the left, anterior or superior up.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result import ScalarMap
from NeuraxisLib.volume import Volume

#: Brain window of head CT: level 40, width 80 HU.
BRAIN_WINDOW_HU = (0.0, 80.0)
#: Share of the value range below which a map stays transparent.
_TRANSPARENT = 0.08
_RAMP_AT = (0.0, 0.35, 0.7, 1.0)
_RAMP_RGB = ((70, 30, 150), (190, 50, 130), (250, 140, 50), (255, 245, 140))


@dataclass(frozen=True)
class Plane:
    """How the stored slices of a volume are turned for viewing.

    Attributes:
        transpose: whether rows and columns change places (before flipping).
        flip_down, flip_right: whether the rows, then the columns, are reversed.
        letters: patient side at the (left, right, top, bottom) edge, of R L A P S I.
        pixel_mm: (width, height) of a viewed pixel.
    """

    transpose: bool
    flip_down: bool
    flip_right: bool
    letters: tuple[str, str, str, str]
    pixel_mm: tuple[float, float]

    @classmethod
    def of(cls, volume: Volume) -> Plane:
        """Right and down run toward L, P or I: axial and coronal slices show R on the left, sagittal ones A."""
        steps = np.stack([volume.column_step_ras, volume.row_step_ras])
        directions = steps / np.linalg.norm(steps, axis=1, keepdims=True)
        column_axis = int(np.abs(directions[0]).argmax())
        rest = np.abs(directions[1])
        rest[column_axis] = -1
        row_axis = int(rest.argmax())
        transpose = column_axis > row_axis
        right, down = (1, 0) if transpose else (0, 1)
        right_axis, down_axis = sorted((column_axis, row_axis))
        width, height = volume.spacing_mm[right], volume.spacing_mm[down]
        return cls(
            transpose=transpose,
            flip_down=bool(directions[down, down_axis] > 0),
            flip_right=bool(directions[right, right_axis] > 0),
            letters=("RAS"[right_axis], "LPI"[right_axis], "RAS"[down_axis], "LPI"[down_axis]),
            pixel_mm=(float(width), float(height)),
        )

    def show(self, image: np.ndarray) -> np.ndarray:
        """A stored (j, i) slice as (row down, column right) of the view."""
        image = image.T if self.transpose else image
        return image[:: -1 if self.flip_down else 1, :: -1 if self.flip_right else 1]


@dataclass(frozen=True)
class SliceView:
    """One slice, ready for the template; positions in mm from the upper left corner.

    Attributes:
        index: slice k of the source.
        width_mm, height_mm: size of the picture.
        pixel_mm: (width, height) of a pixel, the scale of ``outlines``.
        letters: patient side at the left, right, top and bottom edge.
        image: the grey picture as a PNG data address.
        overlay: the map as a PNG data address, or None.
        outlines: (label name, CSS colour, SVG path in pixels) of each label on this slice.
        scale_bar_mm: length of the scale bar.
    """

    index: int
    width_mm: float
    height_mm: float
    pixel_mm: tuple[float, float]
    letters: tuple[str, str, str, str]
    image: str
    overlay: str | None
    outlines: list[tuple[str, str, str]]
    scale_bar_mm: int


def slice_views(
    source: Volume, indices: list[int], labels: Volume | None, table: LabelTable, overlay: ScalarMap | None
) -> list[SliceView]:
    """Views of the slices ``indices`` of a (k, j, i) image, all cut to the same field around the patient."""
    plane, (low, high) = Plane.of(source), grey_window(source)
    rows, columns = _field(source, plane, low)
    views = []
    for k in indices:

        def cut(array: np.ndarray, k: int = k) -> np.ndarray:
            return plane.show(array[k])[rows, columns]

        grey = np.clip((cut(source.array).astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
        height, width = grey.shape
        outlines = []
        for label in table if labels is not None else ():
            mask = cut(labels.array) == label.value
            if mask.any():
                outlines.append((label.name, css_color(label.color), outline_path(mask)))
        views.append(
            SliceView(
                index=k,
                width_mm=width * plane.pixel_mm[0],
                height_mm=height * plane.pixel_mm[1],
                pixel_mm=plane.pixel_mm,
                letters=plane.letters,
                image=png_address(np.rint(grey * 255).astype(np.uint8)),
                overlay=None if overlay is None else png_address(colour_map(cut(overlay.volume.array), overlay)),
                outlines=outlines,
                scale_bar_mm=50 if width * plane.pixel_mm[0] > 120 else 20,
            )
        )
    return views


def grey_window(source: Volume) -> tuple[float, float]:
    """(black, white) value: the brain window for HU, else the 1st and 99th percentile of the image."""
    if source.unit == "HU":
        return BRAIN_WINDOW_HU
    low, high = np.percentile(source.array[:, ::4, ::4], (1, 99))
    return float(low), float(high)


def _field(source: Volume, plane: Plane, low: float) -> tuple[slice, slice]:
    """Rows and columns of the view that hold tissue on some slice, with a margin; all if nothing stands out."""
    floor = low - 250 if source.unit == "HU" else low
    tissue = plane.show((source.array > floor).mean(axis=0) > 0.1)
    parts = []
    for axis in (1, 0):
        found = np.flatnonzero(tissue.mean(axis=axis) > 0.02)
        size = tissue.shape[1 - axis]
        margin = size // 50
        edges = (max(found[0] - margin, 0), min(found[-1] + 1 + margin, size)) if len(found) else (0, size)
        parts.append(slice(*edges))
    return parts[0], parts[1]


def outline_path(mask: np.ndarray) -> str:
    """SVG path along the pixel edges of a 2-D mask, in pixels: exactly what was marked, nothing smoothed."""
    padded = np.pad(mask, 1)
    parts = []
    for edges, template in (
        (padded[1:] != padded[:-1], "M{first} {line}H{last}"),
        ((padded[:, 1:] != padded[:, :-1]).T, "M{line} {first}V{last}"),
    ):
        turns = np.diff(edges.astype(np.int8), axis=1)  # the padding is never an edge's first or last pixel
        starts, stops = np.argwhere(turns == 1), np.argwhere(turns == -1)
        parts += [template.format(line=a[0], first=a[1], last=b[1]) for a, b in zip(starts, stops)]
    return "".join(parts)


def colour_map(values: np.ndarray, scalar_map: ScalarMap) -> np.ndarray:
    """(rows, columns, 4) RGBA of a map slice: transparent where low, then violet over orange to yellow.

    A map in HU is another image of the patient (a later scan, say): it is drawn grey and hides what lies under it.
    """
    low, high = scalar_map.value_range
    share = np.clip((np.nan_to_num(values.astype(np.float32)) - low) / (high - low), 0, 1)
    if scalar_map.volume.unit == "HU":
        return np.rint(np.stack([255 * share] * 3 + [np.full_like(share, 255)], axis=-1)).astype(np.uint8)
    channels = [np.interp(share, _RAMP_AT, column) for column in zip(*_RAMP_RGB)]
    channels.append(np.where(share < _TRANSPARENT, 0, 90 + 165 * share))
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def css_ramp(scalar_map: ScalarMap | None = None) -> str:
    """The colours of :func:`colour_map` as a CSS gradient, low to high."""
    if scalar_map is not None and scalar_map.volume.unit == "HU":
        return "linear-gradient(to right, #000, #fff)"
    stops = ", ".join(f"{css_color(rgb)} {at:.0%}" for at, rgb in zip(_RAMP_AT, _RAMP_RGB))
    return f"linear-gradient(to right, {stops})"


def css_color(rgb: tuple[int, int, int]) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def png_address(pixels: np.ndarray) -> str:
    """An 8-bit grey (rows, columns) or RGBA (rows, columns, 4) picture as a ``data:`` address.

    PNG (ISO/IEC 15948) with the "Up" filter on every row; a few lines here spare Slicer's Python a picture library.
    """
    height, width = pixels.shape[:2]
    color_type = 0 if pixels.ndim == 2 else 6
    flat = pixels.reshape(height, -1)
    filtered = np.empty((height, flat.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = flat[0]
    filtered[1:, 1:] = flat[1:] - flat[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 4)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
