"""Volume networks in sliding windows over the brain. Only the worker loads this file.

Windows lie as MONAI's ``sliding_window_inference`` lays them, and overlapping logits are averaged with equal weights
as it does by default ("constant" blending), but over the brain's box alone; windows without any brain are left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from NeuraxisLib.inference import Predictor, foreground
from NeuraxisLib.task import OPENVINO, Progress

Window = tuple[slice, slice, slice]


class WindowPredictor(Predictor):
    """A network made ready to predict volumes window by window; its axes are (x, y, z) with x toward the right."""

    batch_sizes = {"cpu": 1, "cuda": 4, "mps": 1, OPENVINO: 1}
    flip_axis = 2
    _memory_format = torch.contiguous_format

    def _values(self, network: nn.Module, x: Tensor) -> Tensor:
        """Logits; they become probabilities when all windows have been averaged."""
        return self.run(network, x).float()

    def _probability(self, values: Tensor) -> Tensor:
        return foreground(values)

    def predict(
        self,
        image: np.ndarray,
        windows: Sequence[Window],
        progress: Progress | None = None,
        flip: bool = False,
        stage: str = "Predicting windows",
    ) -> np.ndarray:
        """Probabilities (outputs, x, y, z) float32 of a volume; 0 where no window lies.

        Args:
            image: (channels, x, y, z) float32, as the network wants it.
            windows: from :func:`windows_over`.
            progress: told after every batch of windows; cancels between them.
            flip: average with the prediction of the mirrored windows.
            stage: what the progress says.
        """
        total: np.ndarray | None = None
        times = np.zeros(image.shape[1:], np.float32)

        def images(numbers: np.ndarray) -> np.ndarray:
            return np.stack([image[(slice(None), *windows[number])] for number in numbers])

        for numbers, values in self.batches(images, len(windows), progress, flip, stage):
            if total is None:
                total = np.zeros((values.shape[1], *image.shape[1:]), np.float32)
            for number, value in zip(numbers, values):
                total[(slice(None), *windows[number])] += value
                times[windows[number]] += 1
        if total is None:
            return np.zeros((1, *image.shape[1:]), np.float32)
        mean = torch.from_numpy(total / np.maximum(times, 1))
        return self._probability(mean[None])[0].numpy() * (times > 0)


def windows_over(mask: np.ndarray, patch: Sequence[int], overlap: float) -> list[Window]:
    """Windows of ``patch`` voxels that cover the box of a mask (x, y, z) and hold some of it.

    Args:
        mask: bool (x, y, z), at least as large as a patch on every axis (pad it before).
        patch: voxels of a window along x, y, z.
        overlap: share of a window that the next one covers too, 0 to below 1.
    """
    places = np.nonzero(mask)
    if not places[0].size:
        return []
    starts = []
    for axis, size, length in zip(places, patch, mask.shape):
        low, high = int(axis.min()), int(axis.max()) + 1
        low -= max(0, size - (high - low)) // 2
        low = max(0, min(low, length - size))
        step = max(1, int(size * (1 - overlap)))
        span = max(high - low, size)
        count = math.ceil((span - size) / step) + 1
        starts.append([low + min(number * step, span - size) for number in range(count)])
    found = (tuple(slice(at, at + size) for at, size in zip(corner, patch)) for corner in itertools.product(*starts))
    return [window for window in found if mask[window].any()]
