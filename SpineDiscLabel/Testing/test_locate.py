"""Discs are found where they are, between voxels and slices, in curved and long spines, by an oracle of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from disc_oracle import ShowsItsInput, field_of_view, images_of, oracle, spine
from torch import Tensor, nn

from NeuraxisLib.errors import CancelledError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.disc_inference import DiscPredictor
from SpineDiscLabelLib.evidence import Evidence, look
from SpineDiscLabelLib.locate import candidates_of, mid_sagittal_band, peaks
from SpineDiscLabelLib.preprocessing import PUBLISHED, SagittalPreprocessing
from SpineDiscLabelLib.sagittal import sagittal_images


def seen(
    volume: Volume, discs: np.ndarray, numbers: Sequence[int | None], preprocessing: SagittalPreprocessing | None = None
) -> Evidence:
    """The evidence of an oracle that knows the discs."""
    return look(images_of(volume, discs, numbers, preprocessing), oracle())


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


def test_two_summits_of_one_disc_are_one_candidate():
    """A broad disc with a dent in it: both summits move to the same centre."""
    evidence = seen(field_of_view(9, 4.0, 200, 160, 1.0), np.array([[0.0, -4.0, -80.0], [0.0, 4.0, -83.0]]), [20, 20])
    (one,) = candidates_of(evidence, 0.3)
    assert np.abs(one.position_ras_mm - [0, 0, -81.5]).max() < 4.5


def test_cancel_is_obeyed():
    plain = sagittal_images(field_of_view(9, 4.0, 300, 240, 1.0, 0.0), SagittalPreprocessing())
    with pytest.raises(CancelledError):
        look(plain, oracle(), Progress(cancelled=lambda: True))


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
