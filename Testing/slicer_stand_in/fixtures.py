"""pytest fixtures: one stand-in per test run, an empty scene per test, a new panel per test."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def stand_in():
    """The running stand-in with the modules loaded; skips where it cannot run, except under CI."""
    from Testing import slicer_stand_in

    reason = slicer_stand_in.why_missing()
    if reason and os.environ.get("CI", "").lower() != "true":
        pytest.skip(reason)
    application = slicer_stand_in.start()
    application.load_module(ROOT / "Neuraxis" / "Neuraxis.py")
    application.load_module(ROOT / "HemorrhageSeg" / "HemorrhageSeg.py")
    application.load_module(ROOT / "StrokeCTP" / "StrokeCTP.py")
    application.load_module(ROOT / "SpineDiscLabel" / "SpineDiscLabel.py")
    return application


@pytest.fixture
def application(stand_in):
    """The stand-in with an empty scene and nothing recorded."""
    stand_in.clear()
    yield stand_in
    stand_in.clear()


#: A head-like block: 24 slices, tilted by 3 mm per slice, not centred.
TILTED = np.array([[-2.0, 0, 0, 60], [0, -2.0, 1.5, 70], [0, 0, 5.0, -40], [0, 0, 0, 1]])


def head_array() -> np.ndarray:
    """(24, 64, 64) int16 HU: brain of 35 in air."""
    array = np.full((24, 64, 64), -1000, np.int16)
    array[2:22, 8:56, 8:56] = 35
    return array


def add_head(name: str = "Head", ijk_to_ras: np.ndarray = TILTED):
    """A volume node with :func:`head_array`, shown in the slice views with a brain window."""
    import slicer

    node = slicer.util.addVolumeFromArray(head_array(), ijkToRAS=ijk_to_ras, name=name)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(80, 40)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def reddish(pixels: np.ndarray) -> int:
    """Number of pixels that are clearly coloured toward red; grey scans have none."""
    values = pixels.astype(int)
    return int(np.count_nonzero(values[..., 0] > values[..., 2] + 25))
