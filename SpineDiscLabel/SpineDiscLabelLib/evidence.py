"""Where a disc network sees discs: its heat maps over a whole volume, from tiles and slabs.

Only the worker loads this file. Every second slab is looked at first, and those between only where their neighbours
show something, so that a wide volume costs little more than its spine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.task import Progress
from SpineDiscLabelLib.disc_inference import DiscPredictor, enlarge
from SpineDiscLabelLib.networks.hourglass import STRIDE
from SpineDiscLabelLib.sagittal import SagittalImages

#: Up to this many slabs are all looked at at once.
FEW_SLABS = 6
#: A slab is looked at if one beside it shows at least this in the same tile.
LOOK_BESIDE = 0.1
#: Scores are cut off here: above the 1 that networks are taught, so that a peak keeps its shape.
HIGHEST = 1.5


@dataclass(frozen=True, eq=False)
class Evidence:
    """The network's heat maps over a volume, on its scores' grid.

    Attributes:
        images: what it looked at.
        scores: (n, classes, rows, columns) float32 from 0 to HIGHEST, 1 at a disc; n as ``images.positions_mm``,
            pixels STRIDE times as large; 0 where nothing was looked for.
        corner: (row, column) of the image pixel in whose corner the scores begin.
    """

    images: SagittalImages
    scores: np.ndarray
    corner: tuple[int, int]

    @property
    def levels(self) -> np.ndarray:
        """(n, levels, rows, columns): the maps of single discs."""
        return self.scores[:, : self.images.preprocessing.levels]

    @property
    def strength(self) -> np.ndarray:
        """(n, rows, columns) how much of a disc is there, whichever."""
        return self.scores[:, -1] if self.images.preprocessing.any_disc else self.scores.max(axis=1)

    def strength_pixels(self) -> np.ndarray:
        """:attr:`strength` at the size of the images, (n, rows, columns); 0 outside the field of view."""
        fine = enlarge(self.strength)
        rows, columns = self.images.size
        top, left = (-start for start in self.corner)
        fine = np.ascontiguousarray(fine[:, top : top + rows, left : left + columns])
        return fine * self.images.inside.any(axis=0)


def look(images: SagittalImages, predictor: DiscPredictor, progress: Progress | None = None) -> Evidence:
    """Let the network look at a volume.

    Raises:
        CancelledError: the user cancelled.
    """
    progress = progress or Progress()
    canvas = _Canvas(images)
    count, tiles = len(images.positions_mm), range(len(canvas.tiles))
    step = 1 if count <= FEW_SLABS else 2
    first = [(slab, tile) for slab in range(0, count, step) for tile in tiles]
    _run(canvas, predictor, first, progress.part(0, 1 / step))
    if step == 2:
        between = [(slab, tile) for slab in range(1, count, 2) for tile in tiles if canvas.is_worth(slab, tile)]
        _run(canvas, predictor, between, progress.part(0.5, 1))
    return Evidence(images, canvas.finished(), canvas.tiles[0])


def _run(canvas: _Canvas, predictor: DiscPredictor, jobs: list[tuple[int, int]], progress: Progress) -> None:
    images = canvas.images

    def inputs(numbers: np.ndarray) -> np.ndarray:
        wanted = [jobs[number] for number in numbers]
        return np.concatenate([images.stack([images.positions_mm[slab]], canvas.tiles[tile]) for slab, tile in wanted])

    for numbers, values in predictor.batches(inputs, len(jobs), progress, stage="Looking for discs"):
        for number, scores in zip(numbers, images.preprocessing.from_network(values)):
            canvas.add(*jobs[number], scores)


class _Canvas:
    """Scores of the whole images, put together from overlapping tiles."""

    def __init__(self, images: SagittalImages):
        shown = images.preprocessing
        self.images, self.tiles = images, images.tiles()
        self._side = shown.tile // STRIDE
        size = [(last - first + shown.tile) // STRIDE for first, last in zip(self.tiles[0], self.tiles[-1])]
        count = len(images.positions_mm)
        self._sums = np.zeros((count, shown.classes, *size), np.float32)
        self._weights = np.zeros((count, *size), np.float32)
        self._seen: dict[tuple[int, int], float] = {}
        ramp = np.minimum(np.arange(self._side) + 0.5, shown.overlap / STRIDE + 0.5)
        ramp = np.minimum(ramp, ramp[::-1])
        self._blend = np.outer(ramp, ramp).astype(np.float32)

    def add(self, slab: int, tile: int, scores: np.ndarray) -> None:
        """Put in the scores (classes, rows, columns) of one tile of one slab."""
        scores = np.clip(scores, 0, HIGHEST)
        top, left = ((start - first) // STRIDE for start, first in zip(self.tiles[tile], self.tiles[0]))
        here = (slice(top, top + self._side), slice(left, left + self._side))
        self._sums[(slab, slice(None), *here)] += scores * self._blend
        self._weights[(slab, *here)] += self._blend
        self._seen[slab, tile] = float(scores.max())

    def is_worth(self, slab: int, tile: int) -> bool:
        """Whether a slab beside this one shows something in the same tile."""
        return max(self._seen.get((slab + side, tile), 0.0) for side in (-1, 1)) >= LOOK_BESIDE

    def finished(self) -> np.ndarray:
        """The blended scores (n, classes, rows, columns)."""
        self._sums /= np.maximum(self._weights, 1e-6)[:, None]
        return self._sums
