"""A training run small enough for tests: a bank of phantom heads and a recipe of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_head import label_map, real_head

from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from Training.recipe import Recipe
from Training.simulation import anatomy as anatomies
from Training.simulation.bank import BLEEDING, CLEAN, BankedHead, to_bank
from Training.simulation.head_ct import SimulatedHead, plant, synthesise

RECIPES = Path(__file__).resolve().parents[1] / "Training" / "recipes"
STARTER = RECIPES / "hemorrhage_drunet_starter.toml"
#: Makes the starter's recipe small.
TINY = (
    "architecture.arguments={in_channels=1, base=4, out_channels=1}",
    "preprocessing.size=64",
    "preprocessing.channels=[{offset=0, low_hu=0.0, high_hu=90.0}]",
    "simulation.planted=8",
    "simulation.synthetic=2",
    "simulation.bank_size=64",
    "fitting.steps=9",
    "fitting.batch=2",
    "fitting.warmup=3",
    "fitting.precision=fp32",
    "fitting.validate_every=4",
    "fitting.keep_minutes=1000",
    "fitting.shares={planted=0.6, synthetic=0.4}",
)


@pytest.fixture(autouse=True)
def one_thread():
    """For the tests of files that import it, and the processes they start: equal bit for bit takes equal threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_recipe(*overrides: str) -> Recipe:
    """The starter's recipe with base width 4, 64 pixels and 9 steps."""
    return Recipe.read(STARTER, (*TINY, *overrides))


def fill_tiny_bank(folder: Path) -> Path:
    """Eight planted, two synthetic and one "real" phantom head with slice labels; returns the folder."""
    folder.mkdir(parents=True)
    preprocessing = tiny_recipe().preprocessing
    volume, brain = real_head()
    anatomy = anatomies.of_real_head(volume, brain)
    for n in range(8):
        to_bank(plant(volume, anatomy, np.random.default_rng(n), bleeds=2), preprocessing, "planted").save(
            folder / f"planted_{n:05d}.npz"
        )
    for n in range(2):
        to_bank(synthesise(label_map(), np.random.default_rng(n), bleeds=2), preprocessing, "synthetic").save(
            folder / f"synthetic_{n:05d}.npz"
        )
    real_banked(brain, volume).save(folder / "real_phantom.npz")
    return folder


def real_banked(brain: np.ndarray, volume: Volume) -> BankedHead:
    """The phantom as a real scan whose two middle slices are labelled as bleeding."""
    label = np.full(volume.slice_count, CLEAN)
    label[11:13] = BLEEDING
    head = SimulatedHead(volume, np.zeros(volume.array.shape, np.uint8), brain, {})
    return to_bank(head, tiny_recipe().preprocessing, "real", label)


def write_sources(folder: Path) -> tuple[Path, Path]:
    """(folder of real head CTs, folder of label maps) with the phantom in each, as files."""
    real, maps = folder / "own_scans", folder / "own_maps"
    real.mkdir(parents=True)
    maps.mkdir()
    write_volume(real_head()[0], real / "clean.nii.gz")
    write_volume(real_head()[0], real / "bleeding.nii.gz")
    (real / "own_labels.json").write_text(
        json.dumps(
            {
                "clean": {"positive_slices": {}},
                "bleeding": {"positive_slices": {"epidural": [3, 4], "subdural": [4, 5]}, "interpolated_slices": [9]},
            }
        )
    )
    write_volume(Volume(label_map().copy(), np.diag([-1.0, -1.0, 1.0, 1.0])), maps / "training_seg_01.nii.gz")
    return real, maps
