"""What is no sagittal spine MR is refused in one sentence that names the fault and what to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from disc_oracle import field_of_view, images_of, oracle, spine
from torch import Tensor, nn

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.checks import require_spine_mr
from SpineDiscLabelLib.direction import _named_evidence, require_right_way
from SpineDiscLabelLib.disc_inference import DiscPredictor
from SpineDiscLabelLib.evidence import look
from SpineDiscLabelLib.preprocessing import PUBLISHED

GOOD = field_of_view(9, 4.0, 100, 80, 1.0)


def turned(axes: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Volume:
    """Stored axes i, j, k along these RAS axes."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for stored, (ras, mm) in enumerate(zip(axes, spacing_mm)):
        matrix[ras, stored] = mm
    return Volume((np.arange(40 * 64 * 64) % 251).reshape(40, 64, 64).astype(np.int16), matrix)


def oblique(degrees: float) -> Volume:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = GOOD.ijk_to_ras.copy()
    matrix[:3, :3] = turn @ matrix[:3, :3]
    return replace(GOOD, ijk_to_ras=matrix)


def one_sentence(error: Exception) -> str:
    text = str(error)
    assert text.endswith(".") and "; " in text and text.count(". ") == 0
    return text


@pytest.mark.parametrize(
    "volume",
    [
        GOOD,
        oblique(20),
        turned((0, 1, 2), (1.0, 1.0, 1.0)),  # stored axially, but fine in every direction
        turned((0, 1, 2), (1.0, 1.0, 2.0)),
        replace(GOOD, meta={"modality": "MR"}),
        replace(GOOD, array=GOOD.array.astype(np.float32) - 20),  # ringing below zero
    ],
)
def test_sagittal_mr_passes(volume: Volume):
    require_spine_mr(volume)


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (turned((0, 1, 2), (0.6, 0.6, 4.0)), "acquired axially, with slices 4.0 mm apart"),
        (turned((0, 2, 1), (0.6, 0.6, 3.0)), "acquired coronally, with slices 3.0 mm apart"),
        (oblique(40), "turned 40 degrees"),
        (replace(GOOD, array=GOOD.array[:, :20, :20]), "only 20 mm"),
    ],
)
def test_other_planes_are_refused(volume: Volume, words: str):
    with pytest.raises(GeometryError, match=words) as refused:
        require_spine_mr(volume)
    one_sentence(refused.value)


def hounsfield() -> np.ndarray:
    array = GOOD.array.astype(np.int16) * 4
    array[:, :20] = -1000
    return array


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (replace(GOOD, unit="HU"), "is a CT"),
        (replace(GOOD, meta={"modality": "CT"}), "is a CT"),
        (replace(GOOD, array=hounsfield()), "is a CT"),
        (replace(GOOD, meta={"modality": "PT"}), "modality PT"),
        (replace(GOOD, array=GOOD.array[:1]), "two-dimensional"),
        (replace(GOOD, array=np.stack([GOOD.array, GOOD.array]), frame_times_s=np.arange(2.0)), "2 time points"),
        (replace(GOOD, array=np.where(GOOD.array == 7, np.nan, GOOD.array)), "not a number"),
        (replace(GOOD, array=np.full_like(GOOD.array, 3)), "same value"),
        (replace(GOOD, array=(GOOD.array > GOOD.array.mean()).astype(np.float32)), "2 whole numbers only"),
    ],
)
def test_other_images_are_refused(volume: Volume, words: str):
    with pytest.raises(InputError, match=words) as refused:
        require_spine_mr(volume)
    one_sentence(refused.value)


class KnowsUpright(nn.Module):
    """Sees in its input the heat maps of discs, but only if the first of them lies above and before the last."""

    def scores(self, x: Tensor) -> list[Tensor]:
        small, out = nn.functional.avg_pool2d(x, 4), []
        for one in small:
            first, last = (int(channel.argmax()) for channel in (one[0], one[23]))
            side = one.shape[-1]
            upright = first // side < last // side and first % side < last % side
            out.append(one if upright else 0.2 * one)
        return [torch.stack(out)]


@pytest.mark.parametrize(
    ("flip", "words"),
    [((1, 1), ""), ((-1, 1), "lies upside down"), ((1, -1), "lies back to front"), ((-1, -1), "upside down and back")],
)
def test_wrong_way_header_is_told_from_what_the_network_sees(flip: tuple[int, int], words: str):
    numbers = range(2, 26)
    ends = np.array([[0.0, 100.0, -40.0], [0.0, -60.0, -280.0]])  # anterior and superior, posterior and inferior
    discs = np.linspace(*ends, len(numbers))
    middle = discs.mean(axis=0)
    discs[:, 2] = middle[2] + flip[0] * (discs[:, 2] - middle[2])
    discs[:, 1] = middle[1] + flip[1] * (discs[:, 1] - middle[1])
    images = images_of(field_of_view(9, 4.0, 320, 320, 1.0), discs, numbers)
    predictor = DiscPredictor(KnowsUpright(), "cpu", "float32")
    evidence = look(images, predictor)
    if not words:
        require_right_way(evidence, predictor, 0.1)
        return
    with pytest.raises(GeometryError, match=words) as refused:
        require_right_way(evidence, predictor, 0.1)
    assert "header" in one_sentence(refused.value)


def test_only_discs_in_their_order_count_as_named():
    """By hand: levels 3, 4, 2 from above with evidence 0.5, 0.6, 0.9; 3 and 4 in order make 1.1, 2 alone 0.9."""
    scores = np.zeros((25, 64, 64), np.float32)
    for row, level, evidence in ((10, 3, 0.5), (20, 4, 0.6), (30, 2, 0.9)):
        scores[[level, 24], row, 30] = evidence, 1.0
    assert _named_evidence(scores, 24, 0.3, 5.0) == pytest.approx(1.1)
    assert _named_evidence(scores[:, ::-1], 24, 0.3, 5.0) == pytest.approx(1.5)


def test_header_is_believed_where_nothing_speaks_against_it():
    numbers = range(19, 26)
    images = images_of(field_of_view(9, 4.0, 300, 240, 1.0), spine(numbers, top_mm=-30), numbers)
    require_right_way(look(images, oracle()), oracle(), 0.2)
    dark = images_of(field_of_view(9, 4.0, 300, 240, 1.0), np.zeros((0, 3)), [])
    require_right_way(look(dark, oracle()), oracle(), 0.2)


def test_networks_trained_on_flipped_spines_are_not_asked():
    numbers = range(3, 14)
    images = images_of(field_of_view(9, 4.0, 320, 320, 1.0), spine(numbers, top_mm=-40), numbers, PUBLISHED)
    predictor = oracle()
    evidence = look(images, predictor)
    before = type(predictor.network).looked_at
    require_right_way(evidence, predictor, 0.1)
    assert type(predictor.network).looked_at == before
