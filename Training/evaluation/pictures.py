"""Pictures of cases: overlays of truth (red) and prediction (blue), and an animation through the slices."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.slice_view import BRAIN_WINDOW_HU, Plane
from Training.evaluation.cases import Case
from Training.evaluation.methods import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

TRUTH_RGB, PREDICTION_RGB = (230, 40, 40), (60, 110, 255)
#: A file names no unit; an image with values below this is a CT and is shown in the brain window.
AIR_HU = -700
#: Share of the colour over the image, as in SLEX-Net's pictures.
ALPHA = 0.5
#: Seconds that each slice of an animation stays.
FRAME_S = 0.5
#: Height of a panel in pixels, and panels in a row.
PANEL_PIXELS, PANELS_PER_ROW = 240, 5
#: Most slices in an animation, and slices shown beyond the lesion at either end.
MOST_FRAMES, BEYOND = 40, 1


@dataclass(frozen=True)
class CasePictures:
    """Pictures of one case, as files would hold them.

    Attributes:
        overlay_png: one panel per method on the slice with most lesion.
        slice_number: that slice, counted from 1.
        animation_gif: image | truth | every prediction, slice by slice.
    """

    overlay_png: bytes
    slice_number: int
    animation_gif: bytes


def draw_case(case: Case, predictions: dict[str, Prediction | None]) -> CasePictures:
    """Draw a case; a method that failed gets a panel with the truth alone that says so."""
    view = _View(case)
    masks = {name: None if p is None else p.mask for name, p in predictions.items()}
    k = _shown_slice(case, masks)
    overlay = _sheet([view.panel(k, _title(name, mask), case.truth, mask, True) for name, mask in masks.items()])
    frames = []
    for k_frame in _frames(case, masks):
        panels = [view.panel(k_frame, f"slice {k_frame + 1}"), view.panel(k_frame, "Truth", case.truth)]
        panels += [view.panel(k_frame, _title(name, mask), None, mask) for name, mask in masks.items()]
        frames.append(_sheet(panels))
    return CasePictures(_png(overlay), k + 1, _gif(frames))


class _View:
    """How the slices of a case are shown: turned for reading, cut to the head, in true proportions."""

    def __init__(self, case: Case):
        self._case, self._plane = case, Plane.of(case.grid)
        self._image = None if case.image is None else case.image.array
        if self._image is not None and self._image.ndim == 4:  # a time series is shown by its mean
            self._image = self._image.mean(axis=0)
        self._ct = self._image is not None and (case.image.unit == "HU" or self._image.min() < AIR_HU)
        self._window = BRAIN_WINDOW_HU if self._ct else _window(self._image)
        self._rows, self._columns = self._field()
        height = (self._rows.stop - self._rows.start) * self._plane.pixel_mm[1]
        width = (self._columns.stop - self._columns.start) * self._plane.pixel_mm[0]
        self.size = (max(1, round(PANEL_PIXELS * width / height)), PANEL_PIXELS)

    def _field(self) -> tuple[slice, slice]:
        """Rows and columns of the view that hold tissue or truth on some slice, with a margin."""
        case = self._case
        seen = case.truth.any(axis=0)
        if self._image is not None:
            low = self._window[0] - 250 if self._ct else self._window[0]
            seen = seen | ((self._image > low).mean(axis=0) > 0.1)
        elif case.region is not None:
            seen = seen | case.region.any(axis=0)
        anatomy = self._image is not None or case.region is not None
        shown = self._plane.show(seen if anatomy and seen.any() else np.ones_like(seen))
        parts = []
        for axis in (1, 0):
            found = np.flatnonzero(shown.any(axis=axis))
            margin = shown.shape[1 - axis] // 50
            parts.append(slice(max(found[0] - margin, 0), min(found[-1] + 1 + margin, shown.shape[1 - axis])))
        return parts[0], parts[1]

    def _cut(self, array: np.ndarray) -> np.ndarray:
        return self._plane.show(array)[self._rows, self._columns]

    def panel(
        self, k: int, title: str, truth: np.ndarray | None = None, mask: np.ndarray | None = None, edges: bool = False
    ) -> Image:
        """Slice k with masks laid over it: truth red, prediction blue, both violet; ``edges`` adds their outlines."""
        from PIL import Image, ImageDraw, ImageFont

        grey = np.zeros(self._cut(self._case.truth[k]).shape, np.float32)
        if self._image is not None:
            low, high = self._window
            grey = np.clip((self._cut(self._image[k]).astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
        picture = Image.fromarray(np.rint(grey * 255).astype(np.uint8)).resize(self.size, Image.Resampling.BILINEAR)
        pixels = np.repeat(np.asarray(picture, np.float32)[:, :, None], 3, axis=2)
        shown = [(self._enlarged(array[k]), rgb) for array, rgb in ((truth, TRUTH_RGB), (mask, PREDICTION_RGB))
                 if array is not None]  # fmt: skip
        for marked, rgb in shown:
            pixels[marked] = (1 - ALPHA) * pixels[marked] + ALPHA * np.array(rgb)
        for marked, rgb in shown if edges else ():
            pixels[_outline(marked)] = rgb
        picture = Image.fromarray(np.rint(pixels).astype(np.uint8))
        text = {"fill": "white", "stroke_fill": "black", "stroke_width": 2, "font": ImageFont.load_default(13)}
        ImageDraw.Draw(picture).text((5, 3), title, **text)
        return picture

    def _enlarged(self, mask: np.ndarray) -> np.ndarray:
        """A mask slice at the size of the panel, every voxel a sharp rectangle."""
        from PIL import Image

        picture = Image.fromarray(self._cut(mask != 0).astype(np.uint8) * 255)
        return np.asarray(picture.resize(self.size, Image.Resampling.NEAREST)) > 0


def _window(array: np.ndarray | None) -> tuple[float, float]:
    """(black, white) of an image that is no CT: its 1st and 99th percentile."""
    if array is None:
        return 0.0, 1.0
    low, high = np.percentile(array[:, ::4, ::4], (1, 99))
    return float(low), float(high)


def _outline(mask: np.ndarray) -> np.ndarray:
    """The marked pixels with an unmarked neighbour above, below, left or right."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _shown_slice(case: Case, masks: dict[str, np.ndarray | None]) -> int:
    """The slice with the largest lesion; where the truth is empty, the one with most false alarm, else the middle."""
    areas = case.truth.sum(axis=(1, 2))
    if not areas.any():
        areas = sum((m.sum(axis=(1, 2)) for m in masks.values() if m is not None), np.zeros(len(areas), int))
    return int(areas.argmax()) if areas.any() else len(areas) // 2


def _frames(case: Case, masks: dict[str, np.ndarray | None]) -> list[int]:
    """Slices of the animation: those that truth or a prediction marks, and one beyond at either end, evenly thinned."""
    marked = case.truth.any(axis=(1, 2))
    for mask in masks.values():
        if mask is not None:
            marked = marked | mask.any(axis=(1, 2))
    k = np.flatnonzero(marked)
    if not len(k):
        k = np.array([len(marked) // 2])
    every = np.arange(max(k[0] - BEYOND, 0), min(k[-1] + BEYOND, len(marked) - 1) + 1)
    if len(every) > MOST_FRAMES:
        every = every[np.unique(np.rint(np.linspace(0, len(every) - 1, MOST_FRAMES)).astype(int))]
    return every.tolist()


def _title(name: str, mask: np.ndarray | None) -> str:
    return name if mask is not None else f"{name}: failed"


def _sheet(panels: list[Image]) -> Image:
    """Panels side by side with a narrow gap, at most :data:`PANELS_PER_ROW` in a row."""
    from PIL import Image

    gap, (width, height) = 3, panels[0].size
    rows = -(-len(panels) // PANELS_PER_ROW)
    columns = -(-len(panels) // rows)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "black")
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number % columns * (width + gap), number // columns * (height + gap)))
    return sheet


def _png(picture: Image) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, "PNG", optimize=True)
        return file.getvalue()


def _gif(frames: list[Image]) -> bytes:
    """An endless animation; one palette for all frames, so that greys do not flicker."""
    from PIL import Image

    palette = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for number, frame in enumerate(frames):
        palette.paste(frame, (0, number * frame.height))
    palette = palette.quantize(128, dither=Image.Dither.NONE)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with io.BytesIO() as file:
        indexed[0].save(
            file, "GIF", save_all=True, append_images=indexed[1:], duration=int(1000 * FRAME_S), loop=0, disposal=1
        )
        return file.getvalue()
