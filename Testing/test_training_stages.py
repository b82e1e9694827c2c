"""What a recipe of fitting can ask for: accumulation, parts that start and stay, early stop, plateaus, processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_training import fit, one_thread, same, start  # noqa: F401 - a fixture
from test_training_inputs import bank, one_sentence  # noqa: F401 - a fixture
from tiny_training import RECIPES, TINY, tiny_recipe

from HemorrhageSegLib.networks.slexnet import SLEXNet
from HemorrhageSegLib.networks.unet2d import UNet2D
from NeuraxisLib.errors import InputError
from NeuraxisLib.models import load_model, write_model
from NeuraxisLib.task import Progress
from Training import fitting as fitting_file
from Training import train
from Training.batching import parts_of
from Training.fitting import Fitting, build
from Training.logbook import LogBook
from Training.losses import LOSSES, loss_of
from Training.optimisers import OPTIMISERS, SCHEDULES
from Training.recipe import Recipe
from Training.recipe_keys import CHOICES, HEAD_CHOICES
from Training.sampling import HeadSampler

PAPERS = sorted(path for path in RECIPES.glob("*.toml") if not path.stem.endswith("_starter"))
#: Makes the recipes of SLEX-Net small.
TINY_SLEX = (
    "architecture.arguments={in_channels=3, base=4, out_channels=2}",
    "preprocessing.size=64", "simulation.planted=8", "simulation.synthetic=2", "simulation.bank_size=64",
    "fitting.steps=4", "fitting.batch=4", "fitting.validate_every=4", "fitting.learning_rate=1e-3",
    "fitting.shares={planted=1.0}",
)  # fmt: skip


# -- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_every_number_of_a_published_recipe_says_where_it_comes_from(path):
    lines = path.read_text(encoding="utf-8").split("[sane]")[0].splitlines()
    numbers = [line for line in lines if "=" in line and any(c.isdigit() for c in line.split("=", 1)[1].split("#")[0])]
    bare = [line for line in numbers if "#" not in line and not line.startswith((" ", "name", "title", "arguments"))]
    assert bare == [] and len(numbers) > 15
    before = {line: lines[n - 1] for n, line in enumerate(lines) if line.startswith("arguments")}
    assert all("#" in line or above.startswith("#") for line, above in before.items())


@pytest.mark.parametrize(
    "stem,learning_rate,steps,batch,optimiser,loss",
    [
        ("slexnet", 1e-5, 171000, 2, "adam", "slex"),
        ("slexnet_sem", 1e-5, 171000, 2, "adam", "slex_expanded"),
        ("bcdunet_d3", 1e-4, 22700, 8, "adam", "bce"),
        ("hemseg_unet3d", 0.01, 200 * 34, 4, "adamw", "dice"),
        ("hemseg_swin_unetr", 0.01, 200 * 67, 2, "adamw", "dice"),
    ],
)
def test_recipes_hold_the_published_numbers(stem, learning_rate, steps, batch, optimiser, loss):
    fitting = Recipe.read(RECIPES / f"hemorrhage_{stem}.toml")["fitting"]
    found = tuple(fitting[key] for key in ("learning_rate", "steps", "batch", "optimiser", "loss"))
    assert found == (learning_rate, steps, batch, optimiser, loss)


def test_the_sane_preset_lies_over_the_published_values_and_under_the_user_s():
    path = RECIPES / "hemorrhage_hemseg_vnet.toml"
    paper, sane = Recipe.read(path), Recipe.read(path, ("preset=sane",))
    assert (paper["fitting"]["learning_rate"], paper["sampling"]["legacy_negatives"]) == (0.01, True)
    assert (sane["fitting"]["learning_rate"], sane["sampling"]["legacy_negatives"]) == (3e-4, False)
    assert sane["fitting"]["steps"] == paper["fitting"]["steps"] and sane["preset"] == "sane"
    own = Recipe.read(path, ("preset=sane", "fitting.learning_rate=1e-3"))
    assert own["fitting"]["learning_rate"] == 1e-3 and own["fitting"]["loss"] == "dice_ce"
    with pytest.raises(InputError) as error:
        tiny_recipe("preset=sane")
    assert "no preset 'sane'" in one_sentence(error)


@pytest.mark.parametrize(
    "override,named",
    [
        ("fitting.betas=[0.9]", "fitting.betas"),
        ("fitting.class_weights=[1, -1]", "fitting.class_weights"),
        ("fitting.frozen=[3]", "fitting.frozen"),
        ("fitting.optimiser=lion", "adamw"),
        ("fitting.accumulate=0", "fitting.accumulate"),
        ("sampling.augmentation=heavy", "standard"),
        ("preprocessing.kind=volume", "spacing_mm"),
        ("preprocessing.patch=[1,2,3]", "preprocessing.patch"),
        ("preset=best", "paper, sane"),
    ],
)
def test_bad_values_of_the_newer_keys_are_named(override, named):
    with pytest.raises(InputError) as error:
        tiny_recipe(override)
    assert named in one_sentence(error)


def test_recipes_may_name_all_there_is_and_nothing_else():
    assert set(HEAD_CHOICES["fitting.loss"]) == set(LOSSES)
    assert set(CHOICES["fitting.optimiser"]) == set(OPTIMISERS)
    assert set(CHOICES["fitting.schedule"]) == set(SCHEDULES)


# -- one step --------------------------------------------------------------------------------------------------------


def slex_fitting(bank_folder: Path, run: Path, *overrides: str, name: str = "slexnet", weights=None) -> Fitting:
    recipe = Recipe.read(RECIPES / f"hemorrhage_{name}.toml", (*TINY_SLEX, *overrides))
    names = {"planted": [f"planted_{n:05d}" for n in range(7)]}
    run.mkdir(exist_ok=True)
    sampler = HeadSampler(bank_folder, names, recipe.preprocessing, {"planted": 1}, 1.0, "none")
    return Fitting(recipe, run, sampler, [], start_from=weights)


def gradient(fitting: Fitting) -> tuple[float, dict[str, torch.Tensor]]:
    fitting.network.train()
    loss = fitting._gradient(fitting._on_device(fitting._batch(0)))
    return float(loss), {name: p.grad.clone() for name, p in fitting.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["dice_bce", "slex"])
def test_accumulated_gradient_is_that_of_the_whole_batch(bank, tmp_path, loss):  # noqa: F811
    """A Dice over the batch is no mean of those of its parts: their gradients must not just be averaged."""
    whole = slex_fitting(bank, tmp_path / "a", f"fitting.loss={loss}")
    parts = slex_fitting(bank, tmp_path / "b", f"fitting.loss={loss}", "fitting.accumulate=3")
    for fitting in (whole, parts):  # BatchNorm sees a part at a time; leave it out of the comparison
        fitting.network.train = lambda mode=True, network=fitting.network: type(network).train(network, False)
    (loss_whole, of_whole), (loss_parts, of_parts) = gradient(whole), gradient(parts)
    assert loss_parts == pytest.approx(loss_whole, rel=1e-6) and of_whole.keys() == of_parts.keys()
    for name, value in of_whole.items():
        assert torch.allclose(value, of_parts[name], rtol=1e-4, atol=1e-6 * float(value.abs().max() + 1e-3)), name
    naive = torch.zeros_like(of_whole["backbone.outc.conv.weight"])
    batch = whole._on_device(whole._batch(0))
    for part in parts_of(4, 3):
        piece = type(batch)(batch.images[part], batch.truth[part], batch.brain[part], batch.slice_label[part])
        whole.network.zero_grad()
        loss_of(whole._forward(piece.images, 0), piece, whole.options).backward()
        naive += whole.network.backbone.outc.conv.weight.grad / 3
    if loss == "dice_bce":
        reference = of_whole["backbone.outc.conv.weight"]
        assert float((naive - reference).norm() / reference.norm()) > 0.02


def test_frozen_parts_stay_with_their_running_statistics_and_the_rest_moves(bank, tmp_path):  # noqa: F811
    backbone = UNet2D(1, 4, 2).state_dict()
    fitting = slex_fitting(bank, tmp_path / "run", name="slexnet_sem", weights={"backbone.": backbone})
    before = {name: value.clone() for name, value in fitting.network.state_dict().items()}
    assert all(torch.equal(before[f"backbone.{name}"], value) for name, value in backbone.items())
    fitting.fit(Progress(), lambda record: None)
    after = fitting.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("backbone."))
    moved = [name for name in before if name.startswith("SMM.") and not torch.equal(after[name], before[name])]
    assert "SMM.inc.double_conv.0.weight" in moved and "SMM.inc.double_conv.1.running_mean" in moved


def test_parts_that_do_not_fit_are_named(bank, tmp_path):  # noqa: F811
    weights = UNet2D(1, 8, 2).state_dict()
    for parts, named in (({"backbone.": weights}, "backbone.down1"), ({"spine.": weights}, "'spine.'")):
        with pytest.raises(InputError, match=named):
            slex_fitting(bank, tmp_path / "run", weights=parts)
    with pytest.raises(InputError, match="'spine.'"):
        slex_fitting(bank, tmp_path / "run", 'fitting.frozen=["spine."]')
    with pytest.raises(InputError, match="leaves nothing to train"):
        slex_fitting(bank, tmp_path / "run", 'fitting.frozen=["backbone.", "SMM."]')


def test_stages_of_slexnet_go_on_from_model_files(bank, tmp_path):  # noqa: F811
    """The first stage's model file becomes the backbone of the second."""
    header = load_header(tmp_path)
    network = UNet2D(1, 4, 2)
    write_model(tmp_path / "stage1.safetensors", network.state_dict(), header)
    recipe = Recipe.read(RECIPES / "hemorrhage_slexnet_sem.toml", TINY_SLEX)
    built = build(recipe)
    parts = train.start_weights([f"backbone.={tmp_path / 'stage1.safetensors'}"], recipe, built)
    fitting_file.load_parts(built, parts)
    assert isinstance(built, SLEXNet)
    assert all(torch.equal(built.backbone.state_dict()[name], value) for name, value in network.state_dict().items())


def test_the_sem_may_start_as_its_backbone():
    """It then sees the target as the backbone does and nothing of the neighbours: all paths say the same."""
    torch.manual_seed(3)
    weights = UNet2D(2, 4, 1).state_dict()
    network = SLEXNet(in_channels=6, base=4, out_channels=1).eval()
    fitting_file.load_parts(network, {"backbone.": weights, "SMM.": weights})
    images = torch.randn(2, 6, 32, 32)
    paths = network.paths(images)
    assert torch.equal(paths.backward, paths.centre) and torch.equal(paths.forward, paths.centre)
    images[:, :2] += 1
    assert torch.equal(network.paths(images).forward, paths.forward)
    with pytest.raises(InputError, match=r"SMM\.inc"):
        fitting_file.load_parts(network, {"SMM.": UNet2D(3, 4, 1).state_dict()})


def load_header(folder: Path) -> dict:
    """The header of any model that training wrote."""
    shipped = next((Path(fitting_file.__file__).parents[1] / "HemorrhageSeg").rglob("*drunet*.safetensors"))
    return {**load_model(shipped).header, "name": "stage"}


def test_half_precision_of_a_gpu_is_refused_on_a_cpu(bank, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="fp16 needs a CUDA device"):
        slex_fitting(bank, tmp_path / "run", "fitting.precision=fp16")


# -- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_that_gets_no_better_stops_early_and_keeps_the_best(bank, tmp_path, monkeypatch):  # noqa: F811
    scores = iter([0.2, 0.7, 0.6, 0.7, 0.1, 0.9])
    monkeypatch.setattr(fitting_file, "evaluate", lambda *args: {"dice": 0.0, "score": next(scores)})
    fitting = start(bank, tmp_path / "run", "fitting.steps=9", "fitting.validate_every=1", "fitting.early_stop=2")
    _, log = fit(fitting)
    assert fitting.step == 4 and [record["score"] for record in log if "score" in record] == [0.2, 0.7, 0.6, 0.7]
    again = start(bank, tmp_path / "run", "fitting.steps=9", "fitting.validate_every=1", "fitting.early_stop=2")
    assert again.stale == 2 and fit(again)[1] == []  # given up for good; more patience goes on
    more = start(bank, tmp_path / "run", "fitting.steps=9", "fitting.validate_every=1", "fitting.early_stop=3")
    fit(more)
    assert more.step == 5


def test_a_plateau_is_remembered_over_a_stop(bank, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(fitting_file, "evaluate", lambda *args: {"dice": 0.5, "score": 0.5})
    settings = ("fitting.schedule=plateau", "fitting.schedule_patience=2", "fitting.validate_every=1")
    straight = start(bank, tmp_path / "a", *settings, "fitting.warmup=0", "fitting.steps=6")
    fit(straight)
    first = start(bank, tmp_path / "b", *settings, "fitting.warmup=0", "fitting.steps=3")
    fit(first)
    resumed = start(bank, tmp_path / "b", *settings, "fitting.warmup=0", "fitting.steps=6")
    assert resumed._rate(3) == pytest.approx(0.1)
    fit(resumed)
    assert same(straight.network.state_dict(), resumed.network.state_dict())
    assert resumed._rate(6) == pytest.approx(0.01) == straight._rate(6)


def test_readers_change_the_speed_alone(bank, tmp_path):  # noqa: F811
    ends = []
    for readers in (1, 3):
        fitting = start(bank, tmp_path / str(readers), "fitting.steps=4")
        fitting.readers = readers
        fit(fitting)
        ends.append(fitting.network.state_dict())
    assert same(*ends)


def test_tensorboard_gets_curves_and_pictures(bank, tmp_path):  # noqa: F811
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from Training.validation import picture_of

    fitting = start(bank, tmp_path, "fitting.steps=10", "fitting.validate_every=10")
    heads = fitting.validation

    def watch(network):
        return {"image, truth, probability": picture_of(network, heads, fitting.recipe, fitting.device)}

    with LogBook(tmp_path, 0) as log:
        fitting.fit(Progress(), log, watch)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "dice", "seconds", "waited_s"} <= set(events.Tags()["scalars"])
    (picture,) = events.Images("image, truth, probability")
    assert picture.step == 10 and (picture.width, picture.height) == (3 * 64, 64 * len(heads))
    assert "image, truth, probability" not in (tmp_path / "log.jsonl").read_text()


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(bank, tmp_path):  # noqa: F811
    """The same batches shared by two: weights after a few steps differ by rounding alone; files are written once."""
    settings = (*TINY, "fitting.steps=4", "fitting.batch=4", "fitting.ema=0", "fitting.validate_every=2")
    ends = []
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--", train.__file__]
    for run, starter in (("one", []), ("two", two)):
        folder = tmp_path / run
        shutil.copytree(bank, folder / "bank")
        given = [part for text in settings for part in ("--set", text)]
        command = [*starter, str(RECIPES / "hemorrhage_drunet_starter.toml"), str(folder / "made.safetensors")]
        command += ["--run", str(folder), "--device", "cpu", "--threads", "1", *given]
        if starter:
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            assert done.returncode == 0, done.stderr[-2000:]
        else:
            assert train.main(command) == 0
        ends.append(torch.load(folder / "checkpoint.pt", weights_only=True))
        records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [record["step"] for record in records if "dice" in record] == [2, 4]
        assert load_model(folder / "made.safetensors").header["training"]["steps"] == 4
    one, two = (end["network"] for end in ends)
    for name, value in one.items():
        if value.dim() > 1:  # Adam blows up rounding where a BatchNorm leaves no gradient, as of biases before it
            assert float((value - two[name]).norm() / value.norm()) < 0.02, name
    assert ends[1]["best"] == pytest.approx(ends[0]["best"], abs=0.05)
