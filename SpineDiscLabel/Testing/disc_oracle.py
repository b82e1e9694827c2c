"""A network that knows the answer: it is shown the heat maps that it should draw, so that all around it is tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from torch import Tensor, nn

from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.disc_inference import DiscPredictor
from SpineDiscLabelLib.preprocessing import SagittalPreprocessing
from SpineDiscLabelLib.sagittal import SagittalImages, sagittal_images
from SpineDiscLabelLib.targets import heat_maps


class ShowsItsInput(nn.Module):
    """What it is shown, at a quarter of the size, as the scores of a disc network; counts what it looked at."""

    looked_at = 0

    def scores(self, x: Tensor) -> list[Tensor]:
        ShowsItsInput.looked_at += len(x)
        return [nn.functional.avg_pool2d(x, 4)]


class HeatMapsOf(SagittalImages):
    """Sagittal images that show a network the heat maps of known discs."""

    discs_ras_mm: np.ndarray
    numbers: Sequence[int | None]

    def stack(self, positions_mm, tile):
        return heat_maps(self.preprocessing, self.from_ras(self.discs_ras_mm), self.numbers, positions_mm, tile)


def images_of(
    volume: Volume,
    discs_ras_mm: np.ndarray,
    numbers: Sequence[int | None],
    preprocessing: SagittalPreprocessing | None = None,
) -> HeatMapsOf:
    """The images of a volume as the oracle sees them."""
    plain = sagittal_images(volume, preprocessing or SagittalPreprocessing())
    images = HeatMapsOf(**{field.name: getattr(plain, field.name) for field in fields(plain)})
    object.__setattr__(images, "discs_ras_mm", discs_ras_mm)
    object.__setattr__(images, "numbers", list(numbers))
    return images


def oracle() -> DiscPredictor:
    """The predictor of the oracle, with its count at 0."""
    ShowsItsInput.looked_at = 0
    return DiscPredictor(ShowsItsInput(), "cpu", "float32")


def spine(numbers: range, lean_mm: float = 0.0, top_mm: float = 0.0) -> np.ndarray:
    """Disc centres (n, 3) RAS mm, 16 to 36 mm apart, bent forward like a loin and to the side by ``lean_mm``."""
    gaps = np.array([16 + 20 * (number - 2) / 23 for number in numbers])
    down = np.concatenate([[0], np.cumsum(gaps[:-1])])
    share = down / max(down[-1], 1)
    return np.stack([lean_mm * np.sin(np.pi * share), 18 * np.sin(np.pi * share), top_mm - down], axis=1)


def field_of_view(slices: int, gap_mm: float, rows: int, columns: int, pixel_mm: float, top_mm: float = 0.0) -> Volume:
    """A sagittal MR about the mid plane, whose first row lies at ``top_mm``; its grey values show nothing."""
    matrix = np.eye(4)
    matrix[:3, 0] = (0, -pixel_mm, 0)
    matrix[:3, 1] = (0, 0, -pixel_mm)
    matrix[:3, 2] = (gap_mm, 0, 0)
    matrix[:3, 3] = (-gap_mm * (slices - 1) / 2, pixel_mm * columns / 2, top_mm)
    grey = (np.arange(slices * rows * columns) % 251).astype(np.int16).reshape(slices, rows, columns)
    return Volume(grey, matrix)
