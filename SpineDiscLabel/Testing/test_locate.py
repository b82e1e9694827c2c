"""Discs are found where they are, between voxels and slices, in curved and long spines.

The network is an oracle: it is shown the heat maps that it should draw, so that what is tested is everything around it.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from NeuraxisLib.errors import CancelledError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.evidence import DiscPredictor, Evidence, look
from SpineDiscLabelLib.locate import candidates_of, mid_sagittal_band, peaks
from SpineDiscLabelLib.preprocessing import PUBLISHED, SagittalPreprocessing
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
    numbers: list[int]

    def stack(self, positions_mm, tile):
        return heat_maps(self.preprocessing, self.from_ras(self.discs_ras_mm), self.numbers, positions_mm, tile)


def spine(numbers: range, lean_mm: float = 0.0, top_mm: float = 0.0) -> np.ndarray:
    """Disc centres (n, 3) RAS mm, 16 to 36 mm apart, curved forward and backward, and to the side by ``lean_mm``."""
    gaps = np.array([16 + 20 * (number - 2) / 23 for number in numbers])
    down = np.concatenate([[0], np.cumsum(gaps[:-1])])
    share = down / max(down[-1], 1)
    return np.stack([lean_mm * np.sin(np.pi * share), 18 * np.sin(2 * np.pi * share), top_mm - down], axis=1)


def seen(
    volume: Volume, discs: np.ndarray, numbers: range, preprocessing: SagittalPreprocessing | None = None
) -> Evidence:
    """The evidence of an oracle that knows the discs."""
    plain = sagittal_images(volume, preprocessing or SagittalPreprocessing())
    images = HeatMapsOf(**{field.name: getattr(plain, field.name) for field in fields(plain)})
    object.__setattr__(images, "discs_ras_mm", discs)
    object.__setattr__(images, "numbers", list(numbers))
    ShowsItsInput.looked_at = 0
    return look(images, DiscPredictor(ShowsItsInput(), "cpu", "float32"))


def field_of_view(slices: int, gap_mm: float, rows: int, columns: int, pixel_mm: float, top_mm: float) -> Volume:
    """An empty sagittal series about the mid plane, whose first row lies at ``top_mm``."""
    matrix = np.eye(4)
    matrix[:3, 0] = (0, -pixel_mm, 0)
    matrix[:3, 1] = (0, 0, -pixel_mm)
    matrix[:3, 2] = (gap_mm, 0, 0)
    matrix[:3, 3] = (-gap_mm * (slices - 1) / 2, pixel_mm * columns / 2, top_mm)
    return Volume(np.zeros((slices, rows, columns), np.int16), matrix)


def assert_found(evidence: Evidence, discs: np.ndarray, numbers: range, across_mm: float = 1.0) -> None:
    candidates = candidates_of(evidence, 0.3)
    assert len(candidates) == len(discs)
    found = np.array([candidate.position_ras_mm for candidate in candidates])
    assert np.abs(found[:, 1:] - discs[:, 1:]).max() < 0.6
    assert np.abs(found[:, 0] - discs[:, 0]).max() < across_mm
    assert [int(np.argmax(candidate.evidence)) + 2 for candidate in candidates] == list(numbers)
    assert all(candidate.strength > 0.5 for candidate in candidates)


def test_lumbar_spine_is_found_between_voxels():
    numbers = range(19, 26)
    discs = spine(numbers, top_mm=-30.3)
    assert_found(seen(field_of_view(15, 4.4, 512, 512, 0.6, 0.0), discs, numbers), discs, numbers)


def test_x_follows_a_scoliotic_spine():
    numbers = range(9, 26)
    discs = spine(numbers, lean_mm=33.0, top_mm=-25.0)
    evidence = seen(field_of_view(25, 4.0, 520, 300, 1.0, 0.0), discs, numbers)
    assert_found(evidence, discs, numbers)
    strength = evidence.strength_pixels()
    rows, x_mm = mid_sagittal_band(strength, evidence.images.positions_mm, 1.25)
    wanted = evidence.images.from_ras(discs)
    followed = np.interp(wanted[:, 1] / 1.25, rows, x_mm)
    assert np.abs(followed - wanted[:, 0]).max() < 12
    assert np.ptp(followed) > 15


def test_whole_spine_in_thin_slices_is_found_through_tiles():
    numbers = range(2, 26)
    discs = spine(numbers, lean_mm=8.0, top_mm=-30.0)
    evidence = seen(field_of_view(60, 1.0, 760, 180, 1.0, 0.0), discs, numbers)
    assert len(evidence.images.tiles()) == 3
    assert_found(evidence, discs, numbers)


def test_published_frame_comes_back_upright():
    numbers = range(3, 14)
    discs = spine(numbers, top_mm=-40.0)
    evidence = seen(field_of_view(9, 4.0, 320, 320, 1.0, 0.0), discs, numbers, replace(PUBLISHED, sigma_mm=4.0))
    assert_found(evidence, discs, numbers, across_mm=2.0)


def test_slabs_beside_the_spine_are_not_looked_at_twice():
    numbers = range(19, 26)
    discs = spine(numbers, top_mm=-30.0)
    evidence = seen(field_of_view(41, 4.0, 300, 240, 1.0, 0.0), discs, numbers)
    assert len(evidence.images.positions_mm) == 41
    assert ShowsItsInput.looked_at < 30
    assert_found(evidence, discs, numbers)


def test_evidence_far_from_the_band_is_dropped():
    numbers = range(19, 26)
    discs = spine(numbers, top_mm=-30.0)
    joint = np.array([[40.0, -30.0, -110.0]])
    evidence = seen(field_of_view(31, 4.0, 300, 240, 1.0, 0.0), np.concatenate([discs, joint]), [*numbers, None])
    assert_found(evidence, discs, numbers)


def test_nothing_is_found_where_nothing_is():
    evidence = seen(field_of_view(9, 4.0, 300, 240, 1.0, 0.0), np.zeros((0, 3)), range(0))
    assert candidates_of(evidence, 0.1) == []


def test_equal_neighbours_are_one_peak():
    strength = np.zeros((3, 40, 40), np.float32)
    strength[1, 20:22, 20:22] = 0.7
    strength[1, 5, 5] = 0.9
    strength[2, 30, 30] = 0.2
    assert peaks(strength, 0.3, (4.0, 1.25, 1.25)) == [(1, 5, 5), (1, 20, 20)]


def test_cancel_is_obeyed():
    plain = sagittal_images(field_of_view(9, 4.0, 300, 240, 1.0, 0.0), SagittalPreprocessing())
    with pytest.raises(CancelledError):
        look(plain, DiscPredictor(ShowsItsInput(), "cpu", "float32"), Progress(cancelled=lambda: True))


def test_scores_are_blended_without_seams():
    """A network that answers 0.5 everywhere gives 0.5 everywhere, whatever the tiles."""

    class Half(nn.Module):
        def scores(self, x: Tensor) -> list[Tensor]:
            return [torch.full((len(x), 25, x.shape[2] // 4, x.shape[3] // 4), 0.5)]

    images = sagittal_images(field_of_view(5, 4.0, 900, 500, 1.0, 0.0), SagittalPreprocessing())
    assert len(images.tiles()) == 8
    evidence = look(images, DiscPredictor(Half(), "cpu", "float32"))
    assert np.allclose(evidence.scores, 0.5, atol=1e-5)
    assert evidence.strength_pixels().shape == (5, *images.size)
