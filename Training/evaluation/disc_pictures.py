"""Pictures of disc labelling: points over the image, how heat maps converge, where the attention lies.

The image of a case is a sagittal picture that follows the spine sideways, so that a scoliotic spine stays in view.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.result import Landmark
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.disc_height import sample

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

#: Pixel of a picture in mm, colours, and how far a disc's mark reaches in mm.
PIXEL_MM, MARK_MM = 0.6, 2.5
FOUND_RGB, UNSURE_RGB, TRUTH_RGB = (90, 220, 120), (255, 190, 60), (230, 70, 70)
#: From this confidence on a point is drawn as sure.
SURE = 0.8
#: Milliseconds that every frame of an animation stays, and the last one.
FRAME_MS, LAST_FRAME_MS = 400, 2000


def draw_discs(volume: Volume, found: Sequence[Landmark], truth: Mapping[str, Sequence[float]] | None = None) -> bytes:
    """PNG of a case: found points with their names (orange where unsure), true centres as red crosses.

    Args:
        volume: the MR.
        found: points from above.
        truth: name -> RAS mm.
    """
    from PIL import ImageDraw

    truth = truth or {}
    centres = [point.position_ras_mm for point in found] or list(truth.values())
    grid = _SagittalPicture(volume, np.array(centres, float).reshape(-1, 3))
    picture = _grey(grid.values).convert("RGB")
    draw, reach = ImageDraw.Draw(picture), MARK_MM / PIXEL_MM
    for place in truth.values():
        x, y = grid.pixel(place)
        draw.line((x - reach, y, x + reach, y), fill=TRUTH_RGB)
        draw.line((x, y - reach, x, y + reach), fill=TRUTH_RGB)
    for point in found:
        x, y = grid.pixel(point.position_ras_mm)
        sure = point.confidence is None or point.confidence >= SURE
        colour = FOUND_RGB if sure else UNSURE_RGB
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=2)
        share = "" if point.confidence is None else f" {point.confidence:.0%}"
        draw.text((x + 5 * reach, y - 6), f"{point.name}{share}", fill=colour, stroke_fill="black", stroke_width=2)
    return _png(picture)


class _SagittalPicture:
    """Rows downward, columns to the back, both in steps of PIXEL_MM; the plane follows the points sideways."""

    def __init__(self, volume: Volume, centres: np.ndarray):
        volume = volume.regular()
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.array.shape[::-1]) - 1)
        ras = corners @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
        (_, back, low), (_, front, high) = ras.min(axis=0), ras.max(axis=0)
        self._front, self._top = front, high
        a, s = np.arange(front, back, -PIXEL_MM), np.arange(high, low, -PIXEL_MM)
        middle = np.full(len(s), ras[:, 0].mean())
        if len(centres):
            order = np.argsort(centres[:, 2])
            middle = np.interp(s, centres[order, 2], centres[order, 0])
        grid = np.stack(np.broadcast_arrays(middle[:, None], a[None, :], s[:, None]), axis=-1)
        self.values = np.nan_to_num(sample(volume, grid.reshape(-1, 3)).reshape(len(s), len(a)))

    def pixel(self, place: Sequence[float]) -> tuple[float, float]:
        """(x, y) of a RAS place."""
        return (self._front - place[1]) / PIXEL_MM, (self._top - place[2]) / PIXEL_MM


def convergence_gif(image: np.ndarray, frames: Sequence[tuple[str, np.ndarray]]) -> bytes:
    """Animation of heat maps over one image as training goes on.

    Args:
        image: (rows, columns) as the network sees it.
        frames: (title such as ``"epoch 12"``, heat maps (classes, rows, columns), 0..1); maps may be smaller than the
            image. Every class has its own colour.
    """
    from PIL import ImageDraw

    pictures = []
    for title, maps in frames:
        picture = _overlaid(image, np.asarray(maps, np.float32))
        ImageDraw.Draw(picture).text((4, 2), title, fill="white", stroke_fill="black", stroke_width=2)
        pictures.append(picture.quantize(128, dither=0))
    times = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    with io.BytesIO() as file:
        pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0, disposal=1)
        return file.getvalue()


def attention_of(network: nn.Module, images: Tensor) -> np.ndarray:
    """(n, rows, columns) the attention map, 0..1, that a stacked hourglass lays over its last features.

    Raises:
        ValueError: the network has no attention.
    """
    import torch

    if getattr(network, "attention", None) is None:
        raise ValueError("the network was built without attention")
    caught: list[Tensor] = []
    hook = network.attention.register_forward_hook(lambda module, inputs, output: caught.append(output.detach()))
    try:
        with torch.inference_mode():
            network.scores(images)
    finally:
        hook.remove()
    return caught[-1][:, 0].float().cpu().numpy()


def attention_picture(image: np.ndarray, attention: np.ndarray) -> bytes:
    """PNG: the image, and beside it the same with the attention laid over (dark to bright, its own range)."""
    from PIL import Image

    plain = _grey(image).convert("RGB")
    span = np.ptp(attention) or 1.0
    share = _fitted((attention - attention.min()) / span, image.shape)[..., None]
    warm = np.stack([np.ones_like(share), share, 0.2 * share], axis=2)[..., 0]
    mixed = np.asarray(plain, np.float32) / 255 * (1 - 0.6 * share) + 0.6 * share * warm
    sheet = Image.new("RGB", (2 * plain.width + 4, plain.height))
    sheet.paste(plain, (0, 0))
    sheet.paste(Image.fromarray((255 * np.clip(mixed, 0, 1)).astype(np.uint8)), (plain.width + 4, 0))
    return _png(sheet)


def _overlaid(image: np.ndarray, maps: np.ndarray) -> Image:
    """The image with every heat map in a colour of its own."""
    from PIL import Image

    base = np.asarray(_grey(image).convert("RGB"), np.float32) / 255
    for number, single in enumerate(np.clip(maps, 0, 1)):
        hue = Image.new("HSV", (1, 1), (round(255 * number / max(1, len(maps))), 220, 255)).convert("RGB")
        colour = np.array(hue.getpixel((0, 0)), np.float32) / 255
        share = 0.8 * _fitted(single, image.shape)[..., None]
        base = base * (1 - share) + colour * share
    return Image.fromarray((255 * np.clip(base, 0, 1)).astype(np.uint8))


def _fitted(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map enlarged to the size of an image."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(array, np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _grey(image: np.ndarray) -> Image:
    """8-bit picture between the 1st and 99.5th percentile."""
    from PIL import Image

    low, high = np.percentile(image, (1, 99.5))
    scaled = np.clip((np.asarray(image, np.float32) - low) / max(high - low, 1e-6), 0, 1)
    return Image.fromarray((255 * scaled).astype(np.uint8))


def _png(picture: Image) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, "PNG", optimize=True)
        return file.getvalue()
