"""The targets of the perfusion benchmark that bear on a patient: errors of the model, lesions of the stroke head."""

from __future__ import annotations

import sys

import pytest
from project_tree import ROOT

from StrokeCTPLib.perfusion_maps import compute_maps
from Training.simulation.ctp_phantom import tile_phantom
from Training.simulation.ctp_stroke_phantom import stroke_phantom

sys.path.append(str(ROOT / "Testing" / "benchmarks"))

import benchmark_perfusion as benchmark

pytestmark = pytest.mark.slow


def test_the_model_is_as_exact_as_asked_on_the_tile_phantom():
    errors = benchmark.model_errors(tile_phantom(), 4, pooled=True)
    assert {key: errors[key] for key, goal in benchmark.MODEL_GOALS[4].items() if errors[key] > goal} == {}


def test_the_lesions_of_the_stroke_head_have_their_volumes_and_places():
    head = stroke_phantom(noise_hu=5.0)
    scores = benchmark.lesion_scores(head, compute_maps(head.frames), "calibrated")
    for lesion, (within, overlap) in benchmark.LESION_GOALS.items():
        _, error, dice = scores[lesion]
        assert abs(error) <= within and dice >= overlap, (lesion, error, dice)
