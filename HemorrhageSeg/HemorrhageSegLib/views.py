"""How a network sees a head, and the way back: as slices of the brain's box, or as windows of a volume."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from NeuraxisLib.preprocessing import SliceGrid, SlicePreprocessing, slice_grid
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_preprocessing import VolumeGrid, VolumePreprocessing, volume_grid

if TYPE_CHECKING:
    from NeuraxisLib.inference import Predictor

STAGE = "Finding blood"


class View(Protocol):
    """A head as a network sees it.

    Attributes:
        count: number of images (slices or windows) that meet the brain.
        facts: the grid, for provenance.
    """

    count: int
    facts: dict

    def images(self, numbers: np.ndarray) -> np.ndarray:
        """Network input (n, channels, ...) float32 of the images with these numbers."""

    def predict(self, predictor: Predictor, flip: bool, progress: Progress, stage: str = STAGE) -> np.ndarray:
        """What a network predicts: (outputs, ...) float32 on the network's grid."""

    def backward(self, values: np.ndarray) -> np.ndarray:
        """Values of one output on the network's grid -> (k, j, i) float32 on the axial grid."""


@dataclass
class SliceView:
    """The slices of the brain's box that meet the brain."""

    preprocessing: SlicePreprocessing
    grid: SliceGrid
    slabs: np.ndarray
    brain: np.ndarray | None
    centres: np.ndarray
    facts: dict = field(default_factory=dict)

    @classmethod
    def of(cls, axial: Volume, brain: np.ndarray, preprocessing: SlicePreprocessing) -> SliceView:
        """Resample the brain's box of an axial CT."""
        grid = slice_grid(axial, brain, preprocessing)
        shown = grid.forward(brain, outside=0.0) > 0.5 if preprocessing.brain_only else None
        centres = np.flatnonzero(grid.slabs @ brain.any(axis=(1, 2)).astype(np.float32) > 0)
        facts = {"pixel_mm": round(grid.pixel_mm, 4), "slices": len(grid.slabs)}
        return cls(preprocessing, grid, grid.forward(axial.array), shown, centres, facts)

    @property
    def count(self) -> int:
        """Number of slabs that meet the brain."""
        return len(self.centres)

    def images(self, numbers: np.ndarray) -> np.ndarray:
        """(n, channels, size, size)."""
        return self.preprocessing.images(self.slabs, self.centres[numbers], self.brain)

    def predict(self, predictor: Predictor, flip: bool, progress: Progress, stage: str = STAGE) -> np.ndarray:
        """(outputs, slabs, size, size); 0 on slabs without brain."""
        found = predictor.predict(self.images, self.count, progress, flip, stage)
        out = np.zeros((found.shape[1], *self.slabs.shape), np.float32)
        out[:, self.centres] = found.swapaxes(0, 1)
        return out

    def backward(self, values: np.ndarray) -> np.ndarray:
        """(slabs, size, size) -> (k, j, i)."""
        return self.grid.backward(values)


@dataclass
class VolumeView:
    """The windows of a volume that meet the brain."""

    grid: VolumeGrid
    image: np.ndarray
    inside: tuple[slice, slice, slice]
    windows: list[tuple[slice, slice, slice]]
    facts: dict = field(default_factory=dict)

    @classmethod
    def of(cls, axial: Volume, brain: np.ndarray, preprocessing: VolumePreprocessing) -> VolumeView:
        """Resample an axial CT and lay windows over its brain."""
        from NeuraxisLib.window_inference import windows_over

        grid = volume_grid(axial, preprocessing)
        image, inside = preprocessing.padded(preprocessing.normalised(grid.forward(axial.array)))
        mask = np.zeros(image.shape, bool)
        mask[inside] = grid.forward_labels(brain)
        windows = windows_over(mask, preprocessing.patch, preprocessing.overlap)
        facts = {"spacing_mm": list(preprocessing.spacing_mm), "shape": list(grid.shape), "windows": len(windows)}
        return cls(grid, image, inside, windows, facts)

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.windows)

    def images(self, numbers: np.ndarray) -> np.ndarray:
        """(n, 1, x, y, z)."""
        return np.stack([self.image[None][(slice(None), *self.windows[number])] for number in numbers])

    def predict(self, predictor: Predictor, flip: bool, progress: Progress, stage: str = STAGE) -> np.ndarray:
        """(outputs, x, y, z) on the grid; 0 where no window lies."""
        found = predictor.predict(self.image[None], self.windows, progress, flip, stage)
        return found[(slice(None), *self.inside)]

    def backward(self, values: np.ndarray) -> np.ndarray:
        """(x, y, z) -> (k, j, i)."""
        return self.grid.backward(values)
