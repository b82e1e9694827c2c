"""What a disc network is shown in training: random windows into painted and real spines, with the discs in view.

Points are (row, column) mm of the network's tile, from the centre of its first pixel, unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from SpineDiscLabelLib.preprocessing import SagittalPreprocessing
from Training.simulation.spine_bank import PaintedSpine
from Training.simulation.spine_scanner import TEMPLATE, draw_look, grey_of_codes, scanned, textured
from Training.simulation.spine_tissues import Tissue, draw_contrast

#: How near to the edge of the field of view a disc's centre still counts as in view.
IN_VIEW_MM = 2.0
#: From this disc down (L4/L5) real discs are looked at twice as often: slanted and dark ones are found here.
LOWEST_LUMBAR = 24


@dataclass(frozen=True)
class View:
    """A window into a spine: how it is turned and scaled, and which part of the tile is the field of view.

    Attributes:
        matrix: (2, 2) from mm of the tile to mm of the source.
        source: (row, column) mm of the source that lies ``at`` (row, column) mm of the tile.
        low, high: (row, column) mm of the corners of the field of view.
        pixel_mm, tile: of the network.
    """

    matrix: np.ndarray
    source: np.ndarray
    at: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pixel_mm: float
    tile: int

    def to_source(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the tile in the source."""
        return self.source + (points - self.at) @ self.matrix.T

    def from_source(self, points: np.ndarray) -> np.ndarray:
        """The way back."""
        return self.at + (points - self.source) @ np.linalg.inv(self.matrix).T

    def inside(self) -> np.ndarray:
        """(tile, tile) bool: the field of view."""
        at = np.arange(self.tile) * self.pixel_mm
        rows, columns = ((at >= low) & (at <= high) for low, high in zip(self.low, self.high))
        return rows[:, None] & columns[None]

    def sees(self, points: np.ndarray) -> np.ndarray:
        """Which points (n, 2) of the tile are in view."""
        return ((points >= self.low + IN_VIEW_MM) & (points <= self.high - IN_VIEW_MM)).all(axis=-1)

    def pixels(self, spacing: np.ndarray, factor: int = 1) -> list[np.ndarray]:
        """Rows and columns of the source, float32 (factor * tile, factor * tile), at every pixel or its parts.

        Args:
            spacing: (row, column) mm of the source.
        """
        part = (np.arange(factor * self.tile) - (factor - 1) / 2) / factor * self.pixel_mm
        down, across = part[:, None] - self.at[0], part[None] - self.at[1]
        return [
            ((here + line[0] * down) / step).astype(np.float32) + (line[1] * across / step).astype(np.float32)
            for here, line, step in zip(self.source, self.matrix, spacing)
        ]


def draw_view(
    source: np.ndarray, extent_mm: np.ndarray, preprocessing: SagittalPreprocessing, rng: np.random.Generator,
    narrow: float = 0.2,
) -> View:  # fmt: skip
    """A random window around the point ``source`` (row, column) mm of a picture of ``extent_mm``.

    Args:
        narrow: chance of a field of view that holds little more than the column.
    """
    side = preprocessing.tile * preprocessing.pixel_mm
    height = side if rng.random() < 0.3 else rng.uniform(110, side)
    width = rng.choice([side, rng.uniform(55, 120), rng.uniform(130, 0.95 * side)], p=[0.15, narrow, 0.85 - narrow])
    scales = np.exp(rng.normal(0, 0.07) + rng.normal(0, 0.03, 2))
    extent = np.minimum([height, width], extent_mm / scales)
    low = (side - extent) / 2
    at = low + extent * np.array([rng.uniform(0.06, 0.94), np.clip(rng.normal(0.55, 0.13), 0.2, 0.85)])
    angle = np.deg2rad(rng.normal(0, 5) if rng.random() < 0.85 else rng.uniform(-20, 20))
    source = np.clip(
        source, (at - low) * scales, np.maximum(extent_mm - (low + extent - at) * scales, (at - low) * scales)
    )
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return View(turn * scales, source, at, low, low + extent, preprocessing.pixel_mm, preprocessing.tile)


def draw_position(x_mm: float, rng: np.random.Generator) -> float:
    """Where from side to side a sample looks, around a disc at ``x_mm``: mostly its middle, sometimes far beside."""
    if rng.random() < 0.72:
        return float(x_mm + rng.normal(0, 3.0))
    return float(x_mm + rng.uniform(4, 26) * rng.choice([-1, 1]))


@dataclass(frozen=True)
class Sample:
    """One sample: image (channels, tile, tile) float32, discs in view (n, 3) as (x, row, column) mm, their numbers."""

    image: np.ndarray
    discs_mm: np.ndarray
    numbers: list[int | None]
    position_mm: float


def painted_sample(spine: PaintedSpine, preprocessing: SagittalPreprocessing, rng: np.random.Generator) -> Sample:
    """A random window into a painted spine, with a random contrast and scanner."""
    chosen = int(rng.choice(len(spine.points), p=_by_region(spine.numbers)))
    extent_mm = np.array(spine.shape) * spine.pixel_mm
    template = spine.straight and rng.random() < 0.7
    view = draw_view(spine.points[chosen, 1:], extent_mm, preprocessing, rng, 0.6 if template else 0.2)
    first, last = spine.slices_mm[[0, -1]]
    position = float(np.clip(draw_position(spine.points[chosen, 0], rng), first, last))
    look = TEMPLATE if template else draw_look(rng)
    contrast = draw_contrast(rng, "t2" if template and rng.random() < 0.6 else None)
    chosen_slices, mix = _slices(spine.slices_mm, position + np.asarray(preprocessing.offsets_mm), rng)
    codes = _sampled_codes(spine, view, chosen_slices)
    parts = grey_of_codes(contrast, spine.health, Tissue.NUCLEUS, rng)[codes]
    image = (parts[:, ::2, ::2] + parts[:, 1::2, ::2] + parts[:, ::2, 1::2] + parts[:, 1::2, 1::2]) / 4
    image = textured(image, contrast.texture[codes[:, ::2, ::2] >> 8], preprocessing.pixel_mm, rng)
    image = np.tensordot(mix, image, axes=1).astype(np.float32)
    image = scanned(image, _depth(view), preprocessing.pixel_mm, look, rng)
    return _finished(image, view, spine.points, [int(n) for n in spine.numbers], position, preprocessing, rng)


def _by_region(numbers: np.ndarray) -> np.ndarray:
    """Chances of the discs to be looked at: each region alike, beside skull and sacrum twice as often."""
    numbers = np.asarray(numbers)
    region = np.where(numbers <= 8, 0, np.where(numbers <= 19, 1, 2))
    wanted = np.array([0.3, 0.3, 0.4])
    share = wanted[region] / np.bincount(region, minlength=3)[region]
    share[(numbers <= 3) | (numbers >= 25)] *= 2.0
    return share / share.sum()


def _slices(slices_mm: np.ndarray, wanted_mm: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(painted slices that are used, their weights (channels, used)): thin slices, or blurred from side to side."""
    gap = abs(slices_mm[1] - slices_mm[0]) if len(slices_mm) > 1 else 1.0
    at = np.clip((wanted_mm - slices_mm[0]) / gap, 0, len(slices_mm) - 1)
    reach = 1.0 if rng.random() < 0.5 else rng.uniform(1.0, 1.7)
    weights = np.clip(1 - np.abs(np.arange(len(slices_mm)) - at[:, None]) / reach, 0, None)
    if rng.random() < 0.5:
        weights = np.eye(len(slices_mm))[np.rint(at).astype(int)]
    used = np.flatnonzero(weights.any(axis=0))
    weights = weights[:, used]
    return used, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _sampled_codes(spine: PaintedSpine, view: View, slices: np.ndarray) -> np.ndarray:
    """Codes (n, 2 tile, 2 tile) of the nearest painted pixels; air beyond."""
    shape = spine.shape
    rows, columns = ((at + 0.5).astype(np.int32) for at in view.pixels((spine.pixel_mm,) * 2, 2))
    beyond = (rows < 0) | (rows >= shape[0]) | (columns < 0) | (columns >= shape[1])
    flat = np.clip(rows, 0, shape[0] - 1) * shape[1] + np.clip(columns, 0, shape[1] - 1)
    taken = np.stack([spine.codes[number].ravel().take(flat) for number in slices])
    taken[:, beyond] = 0
    return taken


def _depth(view: View) -> np.ndarray:
    """(1, columns) mm in front of a coil that lies behind the column."""
    columns = np.arange(view.tile, dtype=np.float32)[None] * view.pixel_mm
    return view.at[1] + 75 - columns


def _finished(
    image: np.ndarray, view: View, points: np.ndarray, numbers: list[int | None], position: float,
    preprocessing: SagittalPreprocessing, rng: np.random.Generator | None,
) -> Sample:  # fmt: skip
    """Normalised as in the pipeline, with the discs that are in view; with ``rng`` left and right may change places."""
    inside = view.inside()
    image = preprocessing.normalise(image[None], inside[None])[0]
    seen = view.from_source(points[:, 1:])
    kept = view.sees(seen)
    discs = np.column_stack([points[kept, 0], seen[kept]])
    if rng is not None and rng.random() < 0.5:
        image = image[::-1]
    return Sample(image, discs, [number for number, keep in zip(numbers, kept) if keep], position)


@dataclass(frozen=True, eq=False)
class RealSpine:
    """A real scan: ``planes`` (K, rows, columns) float32 with slices to the right, rows inferior, columns posterior.

    Attributes:
        labels: uint8 like ``planes``: 1 vertebra, 2 canal, 3 disc; None where nobody drew them.
        spacing: (x, row, column) mm. points: (n, 3) (x, row, column) mm of the discs from the first voxel.
        numbers: of the discs; None where the level is not known. name: for messages.
    """

    planes: np.ndarray
    labels: np.ndarray | None
    spacing: np.ndarray
    points: np.ndarray
    numbers: list[int | None]
    name: str


def real_sample(spine: RealSpine, preprocessing: SagittalPreprocessing, rng: np.random.Generator) -> Sample:
    """A random window into a real scan, its contrast changed as far as its labels allow."""
    lowest = np.array([number is not None and number >= LOWEST_LUMBAR for number in spine.numbers])
    chosen = int(rng.choice(len(spine.points), p=(1.0 + lowest) / (1.0 + lowest).sum()))
    extent_mm = np.array(spine.planes.shape[1:]) * spine.spacing[1:]
    view = draw_view(spine.points[chosen, 1:], extent_mm, preprocessing, rng)
    last = (len(spine.planes) - 1) * spine.spacing[0]
    position = float(np.clip(draw_position(spine.points[chosen, 0], rng), 0, last))
    weights = slab_weights(len(spine.planes), spine.spacing[0], position + np.asarray(preprocessing.offsets_mm),
                           max(preprocessing.slab_mm, spine.spacing[0]) * rng.uniform(0.3, 1.1))  # fmt: skip
    used = np.flatnonzero(weights.any(axis=0))
    stack = np.tensordot(weights[:, used], spine.planes[used], axes=1)
    if spine.labels is not None:
        middle = int(np.clip(round(position / spine.spacing[0]), 0, len(spine.planes) - 1))
        stack = np.concatenate([stack, [spine.labels[middle] == value for value in (1, 2, 3)]])
    stack = _resampled(stack.astype(np.float32), view, spine.spacing[1:])
    image, classes = stack[: len(weights)], stack[len(weights) :]
    image /= max(float(np.percentile(image, 99.5)), 1e-6)
    if len(classes):
        image = degenerated(image, classes[2], view.from_source(spine.points[:, 1:]) / view.pixel_mm, rng)
    image = recoloured(image, classes, rng)
    if rng.random() < 0.6:
        image = scanned(image, _depth(view), preprocessing.pixel_mm, draw_look(rng), rng)
    return _finished(image, view, spine.points, list(spine.numbers), position, preprocessing, rng)


def plain_sample(
    spine: RealSpine, preprocessing: SagittalPreprocessing, rng: np.random.Generator, flips: bool
) -> Sample:
    """A real scan as the paper's code shows it (disc specification 2.2, 2.4): whole, in the plane of its lowest number.

    Args:
        flips: turn half of the samples upside down, while the numbers stay with the discs, as the released code does.
    """
    known = [n for n, number in enumerate(spine.numbers) if number is not None] or [0]
    lowest = min(known, key=lambda n: spine.numbers[n] or 0)
    position = float(spine.points[lowest, 0])
    reach = preprocessing.slab_mm / 2
    weights = slab_weights(
        len(spine.planes), spine.spacing[0], position + np.asarray(preprocessing.offsets_mm), 2 * reach
    )
    extent = np.array(spine.planes.shape[1:]) * spine.spacing[1:]
    side = preprocessing.tile * preprocessing.pixel_mm
    low, high = np.maximum((side - extent) / 2, 0), np.minimum((side + extent) / 2, side)
    middle = np.full(2, (side - preprocessing.pixel_mm) / 2)
    view = View(
        np.eye(2), (extent - spine.spacing[1:]) / 2, middle, low, high, preprocessing.pixel_mm, preprocessing.tile
    )
    image = _resampled(np.tensordot(weights, spine.planes, axes=1).astype(np.float32), view, spine.spacing[1:])
    sample = _finished(image, view, spine.points, list(spine.numbers), position, preprocessing, None)
    if not (flips and rng.random() < 0.5):
        return sample
    discs = sample.discs_mm.copy()
    discs[:, 1] = 2 * middle[0] - discs[:, 1]
    return Sample(sample.image[:, ::-1], discs, sample.numbers, position)


def slab_weights(count: int, gap_mm: float, wanted_mm: np.ndarray, half_width_mm: float) -> np.ndarray:
    """(n, count) float32 weights of slices in slabs of a triangular profile; each row sums to one."""
    at = np.clip(wanted_mm, 0, (count - 1) * gap_mm)
    weights = np.clip(1 - np.abs(np.arange(count) * gap_mm - at[:, None]) / max(half_width_mm, gap_mm), 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _resampled(stack: np.ndarray, view: View, spacing: np.ndarray) -> np.ndarray:
    """(n, rows, columns) -> (n, tile, tile), linear; 0 beyond."""
    at = [(2 * index + 1) / size - 1 for index, size in zip(view.pixels(spacing), stack.shape[1:])]
    grid = torch.from_numpy(np.stack(at[::-1], axis=-1))[None]
    return functional.grid_sample(torch.from_numpy(stack)[None], grid, align_corners=False)[0].numpy()


def degenerated(
    image: np.ndarray, disc: np.ndarray, centres: np.ndarray, rng: np.random.Generator
) -> np.ndarray:  # fmt: skip
    """Some discs of a T2 image (n, rows, columns) of about 0..1 dark, as dried-out ones are; in half of the images.

    Args:
        disc: (rows, columns) share of disc. centres: (m, 2) (row, column) of the discs; each is dark or not as a whole.
    """
    if rng.random() < 0.5:
        return image
    dark = rng.uniform(0.4, 1.0, len(centres)) * (rng.random(len(centres)) < 0.5)
    at = np.argwhere(disc > 0)
    nearest = np.argmin(((at[:, None] - centres) ** 2).sum(axis=-1), axis=1)
    share = np.zeros_like(disc)
    share[tuple(at.T)] = disc[tuple(at.T)] * dark[nearest]
    return image + share * (np.float32(rng.uniform(0.03, 0.2)) - image)


def recoloured(image: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another contrast of a T2 image (n, rows, columns) of about 0..1: gamma, a random curve, other tissues.

    Args:
        classes: (3, rows, columns) share of vertebra, canal and disc; empty where they are not known.
    """
    image = np.clip(image, 0, 1.4)
    choice = rng.random()
    if choice < 0.4:
        return image ** np.exp(rng.normal(0, 0.3))
    if choice < 0.7:  # like T1: fluid dark, fat light, the rest between
        knots = [0.0, rng.uniform(0.15, 0.4), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.9), rng.uniform(0.5, 1.1)]
    else:
        knots = [0.0, *rng.uniform(0.05, 1.0, 4)]
    out = np.interp(image, [0, 0.12, 0.35, 0.7, 1.1], knots).astype(np.float32)
    for number, share in enumerate(classes):
        if number == 1 and choice < 0.7:
            dark = rng.uniform(0.05, 0.3) + rng.uniform(0.1, 0.4) * np.clip(0.9 - image, 0, 1)
            out += share * (dark - out)
        else:
            out *= 1 + share * (np.exp(rng.normal(0, 0.35)) - 1)
    return out
