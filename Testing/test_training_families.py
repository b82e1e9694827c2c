"""Another task in the training package: a network of heat maps, a sampler, a description, and nothing else changed."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib.errors import InputError
from Training import families, train
from Training.data import Data
from Training.distributed import gathered
from Training.families import Family
from Training.fitting import Fitting
from Training.losses_heatmaps import joints_mse
from Training.recipe import Recipe
from Training.sampling import Batch

RECIPE = """
task = "discs"
name = "dots"
title = "Dots"
[architecture]
name = "Dots"
arguments = { joints = 2 }
[preprocessing]
kind = "dots"
side = 16
[fitting]
seed = 3
steps = 12
batch = 4
learning_rate = 0.01
weight_decay = 0.0
warmup = 0
ema = 0.9
precision = "fp32"
validate_every = 4
keep_minutes = 1000
loss = "joints_mse"
schedule = "constant"
"""


class Dots(nn.Module):
    """Two stacks of heat maps."""

    def __init__(self, joints: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, joints, 3, padding=1), nn.Conv2d(1 + joints, joints, 3, padding=1)

    def forward(self, x):
        first = self.first(x)
        return [first, self.second(torch.cat([x, first], dim=1))]


class Side:
    """The preprocessing that goes into the model file."""

    def __init__(self, section: dict):
        self.side = section["side"]

    def to_dict(self) -> dict:
        return {"kind": "dots", "side": self.side}


class DotSampler:
    """A bright dot, to be found by joint 0; joint 1 is never visible."""

    def batch(self, seed: int, step: int, size: int, wanted: slice = slice(None)) -> Batch:
        images, truth = np.zeros((size, 1, 16, 16), np.float32), np.zeros((size, 2, 16, 16), np.float32)
        for n in range(size):
            row, column = np.random.default_rng([seed, step, n]).integers(2, 14, 2)
            images[n, 0, row, column] = truth[n, 0, row, column] = truth[n, 1, 0, 0] = 1
        visible = torch.tensor([[1.0, 0.0]]).repeat(size, 1)[wanted]
        names = tuple(f"dot {n}" for n in range(size))[wanted]
        tensors = (torch.from_numpy(a)[wanted] for a in (images, truth))
        return Batch(*tensors, cases=names, extra={"visible": visible})


def data(options, recipe, store) -> Data:
    return Data(DotSampler(), [1, 2], lambda network, device: 0.5, None, True, labels={"3": "C2/C3"},
                min_component_ml=0.0, header={"first_label": 3})  # fmt: skip


@torch.inference_mode()
def scores(network, cases, recipe, device) -> dict[str, float]:
    batch = DotSampler().batch(99, 0, 8)
    error = float(joints_mse(network.eval()(batch.images.to(device)), batch))
    assert len(gathered(cases)) == 1
    return {"error": error, "score": -error}


FAMILY = Family(
    name="dots", task="discs", data=f"{__name__}:data", scores=f"{__name__}:scores", preprocessing=f"{__name__}:Side",
    losses="Training.losses_heatmaps:LOSSES", keys={"preprocessing": {"side": int}},
    choices={"fitting.loss": ("joints_mse",)}, ranges={"preprocessing.side": (8, 64)},
)  # fmt: skip


@pytest.fixture(autouse=True)
def dots(monkeypatch):
    library = ModuleType("dots_networks")
    library.NETWORKS = {"Dots": f"{__name__}:Dots"}
    monkeypatch.setitem(sys.modules, "dots_networks", library)
    monkeypatch.setitem(families.NETWORKS, "discs", "dots_networks:NETWORKS")
    monkeypatch.setitem(families.FAMILIES, "dots", f"{__name__}:FAMILY")


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "dots.toml"
    path.write_text(RECIPE)
    return path


def start(recipe_file, run, *overrides: str) -> Fitting:
    run.mkdir(exist_ok=True)
    return Fitting(Recipe.read(recipe_file, overrides), run, DotSampler(), [1, 2])


def test_heat_maps_are_trained_and_the_model_file_says_what_they_are(recipe_file, tmp_path):
    from NeuraxisLib.models import load_model

    output = tmp_path / "dots.safetensors"
    words = [str(recipe_file), str(output), "--run", str(tmp_path / "run"), "--set", "fitting.shares={real=1.0}"]
    assert train.main([*words, "--device", "cpu", "--set", "fitting.steps=60"]) == 0
    header = load_model(output, "discs").header
    assert header["preprocessing"] == {"kind": "dots", "side": 16} and header["first_label"] == 3
    assert header["labels"] == {"3": "C2/C3"} and header["min_component_ml"] == 0
    untrained = scores(Dots(2), [1], None, "cpu")["error"]
    assert -header["training"]["validation_score"] < 0.7 * untrained


def test_a_run_of_heat_maps_goes_on_bit_for_bit(recipe_file, tmp_path):
    def weights(fitting):
        return fitting.fit(lambda fraction, stage: None, lambda record: None)

    straight = weights(start(recipe_file, tmp_path / "a"))
    weights(start(recipe_file, tmp_path / "b", "fitting.steps=4"))
    resumed = start(recipe_file, tmp_path / "b")
    assert resumed.step == 4
    again = weights(resumed)
    assert all(torch.equal(value, again[name]) for name, value in straight.items())


def test_lists_of_heat_maps_accumulate_to_the_gradient_of_the_whole_batch(recipe_file, tmp_path):
    gradients = []
    for name, parts in (("whole", 1), ("parts", 3)):
        fitting = start(recipe_file, tmp_path / name, f"fitting.accumulate={parts}")
        fitting._gradient(fitting._on_device(fitting._batch(0)))
        gradients.append([p.grad.clone() for p in fitting.network.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients))
    assert all(gradient[1].abs().max() == 0 for gradient in (gradients[0][2], gradients[0][3]))  # joint 1 is invisible


def test_joints_mse_by_hand():
    truth = torch.zeros(1, 2, 1, 2)
    truth[0, 0, 0, 0] = 1
    batch = Batch(torch.zeros(1, 1, 1, 2), truth, extra={"visible": torch.tensor([[1.0, 0.0]])})
    found = torch.full((1, 2, 1, 2), 0.5)
    one = 0.5 * ((0.25 + 0.25) / 2 + 0) / 2  # mean over pixels, joint 2 invisible, mean over joints
    assert float(joints_mse(found, batch)) == pytest.approx(one)
    assert float(joints_mse([found, found], batch)) == pytest.approx(2 * one)
    with pytest.raises(InputError, match="answers with 3 x 1 x 2 heat maps where the samples have 2 x 1 x 2"):
        joints_mse(torch.zeros(1, 3, 1, 2), batch)


@pytest.mark.parametrize(
    "override, words",
    [("preprocessing.side=a", "'preprocessing.side' has the wrong type"), ("preprocessing.side=4", "from 8 to 64"),
     ("preprocessing.size=32", "perhaps preprocessing.side is meant"), ("fitting.loss=dice", "one of: joints_mse"),
     ("fitting.pixel_weight=1", "names no recipe key"), ("task=hemorrhage", "one of the task 'discs'"),
     ("preprocessing.kind=lines", "'preprocessing.kind' is 'lines'; choose one of: slices, volume"),
     ("task=spine", "'task' is 'spine'; choose one of: hemorrhage")],
)  # fmt: skip
def test_recipes_of_another_family_are_checked_by_its_keys(recipe_file, override, words):
    with pytest.raises(InputError) as error:
        Recipe.read(recipe_file, (override,))
    assert words in str(error.value)


def test_a_key_of_another_family_in_the_file_is_named(recipe_file):
    recipe_file.write_text(RECIPE + "bleeding_share = 0.5\n")
    with pytest.raises(InputError, match=r"unknown key 'fitting.bleeding_share'"):
        Recipe.read(recipe_file)


def test_a_library_that_is_not_installed_is_named(recipe_file, monkeypatch):
    from Training.fitting import build

    monkeypatch.setitem(families.NETWORKS, "discs", "AbsentLib.networks:NETWORKS")
    with pytest.raises(InputError, match="needs its library AbsentLib, which is not installed"):
        build(Recipe.read(recipe_file))
