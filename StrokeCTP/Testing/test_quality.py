"""Remarks on an acquisition: each is provoked by the head that deserves it, and by no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from StrokeCTPLib.arterial_input import find_arterial_input, with_vessels
from StrokeCTPLib.motion import Motion
from StrokeCTPLib.perfusion_maps import PerfusionOptions, Prepared, prepare
from StrokeCTPLib.quality import find_flags, motion_flags
from Training.simulation.ctp_phantom import GammaVariate
from Training.simulation.ctp_stroke_phantom import stroke_phantom

HEAD = {"shape_kji": (8, 96, 96), "spacing_mm": (2.2, 2.2, 10.0), "noise_hu": 1.0}


def prepared(**changes) -> Prepared:
    return prepare(stroke_phantom(**{**HEAD, **changes}).frames, options=PerfusionOptions(edge_preserving=False))


def codes(head: Prepared, vein: bool = True) -> set[str]:
    found = find_arterial_input(head.scan, head.regions.inside, head.times_s, head.arrival)
    if not vein:
        found = with_vessels(found.artery, None, (), head.times_s)
    return {flag.code for flag in find_flags(head.source_times_s, head.arrival, found, head.noise_hu)}


@pytest.mark.parametrize(
    "changes, code",
    [
        ({}, None),
        ({"times_s": np.arange(17) * 4.5, "artery": GammaVariate(16.0, 3.0, 2.4, 220.0)}, "sparse"),
        ({"partial_volume": 0.13}, "partial-volume"),
        ({"partial_volume": 0.95}, "no-vein"),
        ({"noise_hu": 25.0}, "noise"),
        ({"times_s": np.arange(36) * 1.5}, "short"),
    ],
    ids=["good", "sparse", "thin artery", "no vessel larger than the artery", "noise", "short"],
)
def test_every_remark_is_made_of_the_head_that_deserves_it(changes, code):
    assert codes(prepared(**changes)) == ({code} if code else set())


def test_a_thin_artery_that_no_vein_corrects_is_a_weak_bolus():
    assert codes(prepared(partial_volume=0.2), vein=False) == {"no-vein", "weak-bolus"}


@pytest.mark.parametrize("start_s, frames", [(2.0, 2), (3.0, 3), (8.0, 6)])
def test_a_baseline_holds_no_contrast_and_is_flagged_below_three_frames(start_s, frames):
    """The artery fills from ``start_s`` on, at frames of 1.5 s; it has half its true height of 220 HU."""
    head = prepared(artery=GammaVariate(start_s, 3.0, 1.5, 220.0))
    assert head.arrival.baseline_frames == tuple(range(frames))
    assert codes(head) == ({"baseline"} if frames < 3 else set())
    found = find_arterial_input(head.scan, head.regions.inside, head.times_s, head.arrival)
    assert found.curve_hu.max() == pytest.approx(220, rel=0.05)


def test_motion_of_frames_whose_slices_have_their_own_times_is_told():
    eyes, still = np.tile(np.eye(4), (5, 1, 1)), np.zeros(5)
    motion = Motion(eyes, still, still, still + 1, still > 0, still > 0)
    assert motion_flags(motion, own_times=True) == []
    moved = replace(motion, displacement_mm=still + 2, corrected=still == 0)
    assert [flag.code for flag in motion_flags(moved, own_times=True)] == ["motion-slices"]
    assert motion_flags(moved) == []
