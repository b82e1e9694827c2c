"""Density rules: dense is no blood, the blurred edge of bone is none by itself, blood against bone stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pipeline_phantom import CENTRE_RAS, RADIUS_MM, head

from HemorrhageSegLib.density import drop_bone_edges, searched_space
from NeuraxisLib.volume import Volume


def test_what_is_too_dense_for_blood_is_not_searched() -> None:
    """A bleed of 75 HU stays; a calcification of 200 HU leaves, but for its blurred border."""
    volume = head()
    k, j, i = np.indices(volume.array.shape)
    places = np.einsum("rc,c...->r...", volume.ijk_to_ras[:3], np.stack([i, j, k, np.ones_like(i)]).astype(np.float32))
    blood = np.linalg.norm(places - CENTRE_RAS[:, None, None, None], axis=0) < RADIUS_MM - 4
    calcium = np.linalg.norm(places - np.array([-35.0, -10.0, 10.0])[:, None, None, None], axis=0)
    array = np.where(calcium < 8, np.int16(200), volume.array)
    space = searched_space(replace(volume, array=array), np.ones(array.shape, bool))
    assert space[blood].all()
    assert not space[calcium < 6].any()
    assert space[(calcium > 11) & (calcium < 20)].all()


def test_dense_blood_against_bone_is_searched_and_calcium_is_not() -> None:
    """Clotted blood of 95 HU stays up to the inner table; a calcification of 130 HU leaves."""
    rng = np.random.default_rng(5)
    hu = rng.normal(35, 4, (3, 80, 80))
    hu[:, 10:24] += 60  # an epidural layer 7 mm thick
    hu[:, :10, 8:] = 900  # bone inside the box of the brain
    calcium = np.hypot(*(np.indices((80, 80)) - 55)) < 8
    hu[:, calcium] += 95
    volume = Volume(np.rint(hu).astype(np.int16), np.diag([-0.5, -0.5, 5.0, 1.0]), "HU")
    brain = hu < 500
    space = searched_space(volume, brain)
    assert space[:, 10:24].mean() > 0.97
    assert space[:, 24:40].all()
    assert not space[:, np.hypot(*(np.indices((80, 80)) - 55)) < 6].any()
    assert not space[~brain].any()


@pytest.fixture
def table() -> tuple[Volume, np.ndarray]:
    """A CT with an inner table along its first rows that blurs into the brain, and the brain's mask."""
    rows = np.arange(80)
    hu = np.where(rows < 12, 900.0, 35.0)
    hu[12:14] = (250, 90)  # partial volume
    array = np.broadcast_to(np.rint(hu).astype(np.int16)[None, :, None], (3, 80, 80)).copy()
    brain = np.zeros(array.shape, bool)
    brain[:, 13:] = True
    return Volume(array, np.diag([-0.5, -0.5, 5.0, 1.0]), "HU"), brain


def called(volume: Volume, brain: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """What stays of blood that a network calls with a probability of 0.9."""
    space = searched_space(volume, brain)
    probability = np.where(blood & space, 0.9, 0.02).astype(np.float32)
    drop_bone_edges(probability, volume, space, 0.5)
    return probability >= 0.5


def test_the_blurred_edge_of_bone_alone_is_no_blood(table):
    volume, brain = table
    edge = np.zeros(brain.shape, bool)
    edge[1, 13:14] = True
    assert called(volume, brain, edge).sum() == 0


def test_a_clot_keeps_its_layer_against_the_inner_table(table):
    volume, brain = table
    clot = np.zeros(brain.shape, bool)
    clot[1, 13:30, 20:60] = True
    volume.array[clot] = 70
    kept = called(volume, brain, clot)
    assert kept[clot].mean() > 0.99
    assert not kept[~clot].any()


def test_blood_far_from_bone_and_empty_maps_are_left_alone(table):
    volume, brain = table
    blood = np.zeros(brain.shape, bool)
    blood[:, 50:55, 50:51] = True  # a line: thin blood needs no voucher where no bone is near
    assert (called(volume, brain, blood) == blood).all()
    assert not called(volume, brain, np.zeros_like(brain)).any()
