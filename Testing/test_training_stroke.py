"""Stroke networks in training: recipes of all configurations, stages, tiles, codings, the start from VGG-16, a run."""

from __future__ import annotations

import re
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import RECIPES

from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.networks.configurations import CONFIGURATIONS
from StrokeCTPLib.networks.vgg_weights import vgg16_layers
from Training import train
from Training.data import data_of
from Training.fitting import Fitting, build
from Training.losses import loss_of
from Training.losses_stroke import LOSSES
from Training.recipe import Recipe
from Training.sampling import Batch
from Training.store import IGNORED, Store, StoredCase
from Training.store_writer import StoreWriter
from Training.stroke_augmentation import moved_and_changed, quarter_turns
from Training.stroke_cache import Slices, case_on_grid
from Training.stroke_data import tiles_of
from Training.stroke_scores import class_scores

STARTER = RECIPES / "stroke_starter.toml"
PUBLISHED = {
    f"stroke_{regime}_{inputs}": f"Stavanger_{regime.upper()}_Pm{more}"
    for regime in "fug"
    for inputs, more in (("pms", ""), ("pms_m", "M"), ("pms_n", "N"), ("pms_mn", "MN"))
}
#: Makes a published recipe small: narrow branches, 64 pixels of 2 mm.
TINY = (
    "architecture.arguments.base=4", "architecture.arguments.size=64", "preprocessing.size=64",
    "preprocessing.pixel_mm=2.0", "fitting.validate_every=2", "fitting.keep_minutes=1000",
)  # fmt: skip
TINY_STARTER = (
    "architecture.arguments.base=4", "architecture.arguments.size=64", "preprocessing.size=64",
    "preprocessing.pixel_mm=2.0", "fitting.batch=4", "fitting.precision=fp32", "fitting.warmup=2",
    "fitting.validate_every=10", "fitting.keep_minutes=1000",
)  # fmt: skip
CHANNELS = ("cbf", "cbv", "ttp", "tmax", "mip", "mtt")


def stroke_case(name: str, seed: int, split: str, **changes) -> StoredCase:
    """A round brain with late tissue on one side and dead tissue in it, 64 x 64 x 3 voxels of 2 mm."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    brain = np.broadcast_to((rows - 32) ** 2 + (columns - 32) ** 2 < 26**2, (3, 64, 64))
    at = rng.integers(20, 44, 2)
    distance = np.hypot(rows - at[0], columns - at[1])
    truth = np.where(distance < 5, 2, np.where(distance < 11, 1, 0)) * brain
    truth[0] = 0
    healthy = {"cbf": 50.0, "cbv": 4.0, "ttp": 6.0, "tmax": 1.0, "mip": 60.0, "mtt": 4.0}
    late = {"cbf": 30.0, "cbv": 4.5, "ttp": 14.0, "tmax": 8.0, "mip": 60.0, "mtt": 9.0}
    dead = {"cbf": 8.0, "cbv": 1.0, "ttp": 14.0, "tmax": 9.0, "mip": 50.0, "mtt": 9.0}
    array = np.stack([np.choose(truth, [healthy[n], late[n], dead[n]]) for n in CHANNELS]).astype(np.float32)
    array *= np.exp(rng.normal(0, 0.05, array.shape)).astype(np.float32) * brain
    image = Volume(array, np.diag([-2.0, -2.0, 5.0, 1.0]), "maps")
    own = {"group": "LVO", "flags": ("simulated",), "scalars": {"nihss": 9.0 + seed}, **changes}
    return StoredCase(name, name, own.pop("group"), split, image, truth.astype(np.uint8), brain.copy(),
                      channels=CHANNELS, **own)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("store") / "maps.h5"
    with StoreWriter(path) as writer:
        for number in range(5):
            writer.add(stroke_case(f"t{number}", number, "train", group="Non-LVO" if number == 4 else "LVO"))
        writer.add(stroke_case("missing", 7, "train", scalars={}))
        for number in range(2):
            writer.add(stroke_case(f"v{number}", 20 + number, "val"))
    return Store(path)


def data(store: Store, recipe: Recipe, run) -> object:
    run.mkdir(exist_ok=True)
    return data_of(Namespace(store=store.path, run=run, train_split=["train"], val_split="val", workers=1), recipe)


def start(store: Store, recipe: Recipe, run) -> Fitting:
    found = data(store, recipe, run)
    return Fitting(recipe, run, found.sampler, found.validation)


def fit(fitting: Fitting) -> list[dict]:
    log: list[dict] = []
    fitting.fit(Progress(), log.append)
    return log


# -- recipes ---------------------------------------------------------------------------------------------------------


def test_every_published_configuration_has_its_recipe():
    assert set(PUBLISHED.values()) == set(CONFIGURATIONS)
    assert {path.stem for path in RECIPES.glob("stroke_[fug]_*.toml")} == set(PUBLISHED)


@pytest.mark.parametrize("stem, name", PUBLISHED.items())
def test_published_recipes_say_what_was_published(stem, name):
    recipe, configuration = Recipe.read(RECIPES / f"{stem}.toml"), CONFIGURATIONS[name]
    fitting, shown = recipe["fitting"], recipe.preprocessing
    assert recipe["architecture"]["name"] == name and configuration.experiment in (RECIPES / f"{stem}.toml").read_text()
    assert (shown.maps, shown.scalars, shown.size, shown.shown) == (
        configuration.maps,
        configuration.scalars,
        512,
        "colours",
    )
    assert fitting["regime"] == configuration.regime
    assert configuration.regime != "G" or fitting["unfreezing"] == configuration.unfreezing
    numbers = (
        "learning_rate",
        "clip_value",
        "batch",
        "early_stop",
        "alpha",
        "gamma",
        "penalty_l1",
        "penalty_l2",
        "max_norm",
    )
    assert [fitting[key] for key in numbers] == [1e-5, 0.5, 2, 25, 0.7, 1.33, 1e-6, 1e-5, 2.0]
    assert fitting["class_weights"] == [0.1, 50, 440] and fitting["optimiser"] == "adam"
    sane = Recipe.read(RECIPES / f"{stem}.toml", ("preset=sane",))
    assert sane.preprocessing.subtract_mean and sane["fitting"]["unfreezing"] in ("blocks", "full")


@pytest.mark.parametrize(
    "stem, override, words",
    [("stroke_f_pms", "preprocessing.maps=['cbf']", "takes ['cbf', 'cbv', 'ttp', 'tmax'] for 'maps'"),
     ("stroke_f_pms_n", "preprocessing.tile=256", "differ in size"),
     ("stroke_f_pms", "preprocessing.tile=96", "'preprocessing' cannot be"),
     ("stroke_f_pms", "fitting.class_weights=[1, 2]", "give three numbers"),
     ("stroke_f_pms", "architecture.arguments.out_channels=4", "give four numbers"),
     ("stroke_f_pms", "preprocessing.shown=numbers", "takes 3 for 'map_channels' but its preprocessing makes 1"),
     ("stroke_f_pms", "fitting.regime=H", "choose one of: F, U, G"),
     ("stroke_f_pms", "fitting.bleeding_share=0.5", "names no recipe key")],
)  # fmt: skip
def test_recipes_that_cannot_be_are_named(stem, override, words):
    with pytest.raises(InputError) as error:
        Recipe.read(RECIPES / f"{stem}.toml", (override,))
    assert words in str(error.value)


@pytest.mark.parametrize("stem", PUBLISHED)
def test_every_published_recipe_takes_a_step(stem, store, tmp_path):
    fitting = start(store, Recipe.read(RECIPES / f"{stem}.toml", (*TINY, "fitting.learning_rate=1e-3")), tmp_path)
    before = {name: p.detach().clone() for name, p in fitting.network.named_parameters()}
    assert np.isfinite(fitting._advance(fitting._batch(0)))
    moved = {name for name, p in fitting.network.named_parameters() if not torch.equal(p, before[name])}
    of_vgg = {name for name in moved if ".vgg." in name}
    assert bool(of_vgg) == stem.startswith("stroke_u") and moved - of_vgg
    for name in ("head.0.weight", "ups.0.up.weight"):  # max-norm over the rows of the kernel
        assert float(torch.linalg.vector_norm(fitting.network.get_parameter(name), dim=2).max()) <= 2 + 1e-5


# -- stages ----------------------------------------------------------------------------------------------------------


def trained(network) -> set[str]:
    return {
        layer
        for branch in network.branches.values()
        for layer, module in branch.vgg.convolutions.items()
        if module.weight.requires_grad
    }


@pytest.mark.parametrize(
    "unfreezing, stages, second",
    [("legacy_half", ("frozen", "half", "all"), {"block3_conv3"}), ("blocks", ("frozen", "blocks", "all"), set()),
     ("full", ("frozen", "all"), None)],
)  # fmt: skip
def test_regime_g_unfreezes_in_stages_from_the_best_weights(unfreezing, stages, second, store, tmp_path):
    overrides = (*TINY, f"fitting.unfreezing={unfreezing}", "fitting.steps=2", "fitting.learning_rate=1e-3")
    recipe = Recipe.read(RECIPES / "stroke_g_pms.toml", overrides)
    fitting, seen = start(store, recipe, tmp_path / "run"), []
    enter = fitting.regime.enter
    fitting.regime.enter = lambda stage, network: (enter(stage, network), seen.append(trained(network)))[0]
    log = fit(fitting)
    assert fitting.regime.stages == stages and fitting.step == 2 * len(stages)
    assert [record["stage"] for record in log if "stage" in record] == list(stages[1:])
    deep = {f"block{block}_conv{number}" for block in (4, 5) for number in (1, 2, 3)}
    wanted = [] if second is None else [deep | second]
    assert seen == [*wanted, {layer for layer in vgg16_layers()}]
    again = start(store, recipe, tmp_path / "run")  # a finished run stays finished, in its last stage
    assert again.stage == len(stages) - 1 and fit(again) == []


def test_a_run_in_stages_goes_on_bit_for_bit(store, tmp_path):
    recipe = Recipe.read(RECIPES / "stroke_g_pms_n.toml", (*TINY, "fitting.steps=3", "fitting.early_stop=1"))
    straight, stopped = start(store, recipe, tmp_path / "a"), start(store, recipe, tmp_path / "b")
    fit(straight)

    def stop(record: dict) -> None:
        if "stage" in record:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(Progress(), stop)
    resumed = start(store, recipe, tmp_path / "b")
    fit(resumed)
    assert resumed.step == straight.step and resumed.stage == straight.stage == 1
    weights = resumed.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in straight.network.state_dict().items())


@pytest.mark.parametrize("fusion", ["slow", "input"])
def test_all_of_the_starter_trains_and_its_frozen_norms_stay(fusion, store, tmp_path):
    overrides = (*TINY_STARTER, f"architecture.arguments.fusion={fusion}")
    fitting = start(store, Recipe.read(STARTER, overrides), tmp_path / "u")
    assert all(parameter.requires_grad for parameter in fitting.network.parameters())
    frozen = start(store, Recipe.read(STARTER, (*overrides, "fitting.regime=F")), tmp_path / "f")
    before = {name: value.clone() for name, value in frozen.network.state_dict().items()}
    frozen._advance(frozen._batch(0))
    moved = {name for name, value in frozen.network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not any(".vgg." in name for name in moved)  # running averages of the frozen part, too


# -- VGG-16 ----------------------------------------------------------------------------------------------------------


def test_vgg16_of_a_file_starts_every_branch(tmp_path):
    generator = torch.Generator().manual_seed(3)
    state = {}
    for module, inputs, outputs in vgg16_layers().values():
        state[f"{module}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / 50
        state[f"{module}.bias"] = torch.randn(outputs, generator=generator) / 50
    torch.save(state, tmp_path / "vgg16.pth")
    recipe = Recipe.read(
        RECIPES / "stroke_f_pms.toml", ("architecture.arguments.maps=['cbf']", "preprocessing.maps=['cbf']")
    )
    network = build(recipe)
    parts = train.start_weights([f"vgg16={tmp_path / 'vgg16.pth'}"], recipe, network)
    (prefix,) = parts
    assert prefix == "branches.cbf.vgg.convolutions."
    assert torch.equal(parts[prefix]["block5_conv3.weight"], state["features.28.weight"])
    narrow = Recipe.read(RECIPES / "stroke_f_pms.toml", TINY)
    with pytest.raises(InputError, match="do not fit branches of width 4"):
        train.start_weights([f"vgg16={tmp_path / 'vgg16.pth'}"], narrow, build(narrow))


# -- samples ---------------------------------------------------------------------------------------------------------


def test_samples_are_the_same_for_a_step_and_know_the_group(store, tmp_path):
    recipe = Recipe.read(RECIPES / "stroke_f_pms_n.toml", TINY)
    sampler = data(store, recipe, tmp_path).sampler
    assert len(sampler.tiles) == 6 * 3  # legacy: the case without NIHSS counts as 0
    one, two = sampler.batch(1, 4, 6), sampler.batch(1, 4, 6, slice(2, 5))
    assert torch.equal(one.images[2:5], two.images) and torch.equal(one.truth[2:5], two.truth)
    names = [name for step in range(3) for name in sampler.batch(1, step, 6).cases]
    assert len(set(names)) == 18  # each once before any comes again
    whole = [sampler.batch(1, step, 6) for step in range(3)]
    small = {name.split()[0] for b in whole for name, s in zip(b.cases, b.extra["small_vessel"].tolist()) if s}
    assert small == {"t4"}
    nihss = {name.split()[0]: float(image[-1, 0, 0]) for b in whole for name, image in zip(b.cases, b.images)}
    assert nihss["t3"] == 12 and nihss["missing"] == 0
    sane = Recipe.read(RECIPES / "stroke_f_pms_n.toml", (*TINY, "preset=sane"))
    assert len(data(store, sane, tmp_path).sampler.tiles) == 5 * 3


@pytest.mark.parametrize("classes, weights", [(2, "[0.1, 1]"), (3, "[0.1, 50, 440]"), (4, "[0, 0.1, 50, 440]")])
def test_truth_is_coded_by_the_number_of_classes(classes, weights, store, tmp_path):
    overrides = (*TINY, f"architecture.arguments.out_channels={classes}", f"fitting.class_weights={weights}")
    fitting = start(store, Recipe.read(RECIPES / "stroke_u_pms.toml", overrides), tmp_path)
    batch = fitting._batch(0)
    assert set(batch.truth.unique().tolist()) == set(range(classes))
    assert np.isfinite(fitting._advance(batch))
    assert {2: 1, 3: 2, 4: 2}[classes] == len([k for k in class_scores_of(fitting) if k.startswith("dice_")])


def class_scores_of(fitting: Fitting) -> dict:
    return class_scores(fitting.network, fitting.validation, fitting.recipe, fitting.device)


def test_tiles_step_by_a_quarter_and_background_by_a_whole_side():
    truth, brain = np.zeros((1, 128, 128), np.uint8), np.ones((1, 128, 128), bool)
    truth[0, :64, :64] = 1
    tiles = tiles_of(truth, brain, 0, 64, 3)
    background = [(t.row, t.column) for t, is_background in tiles if is_background]
    assert sorted(background) == [(0, 64), (64, 0), (64, 64)]
    rest = {(t.row, t.column) for t, is_background in tiles if not is_background}
    assert rest == {(0, 0), (16, 0), (0, 16), (16, 16)}  # more than half of them is penumbra
    assert all(t.lesion for t, _ in tiles if (t.row, t.column) in rest)
    assert [(t.row, t.column) for t, _ in tiles_of(truth, brain, 0, 128, 3)] == [(0, 0)]


def test_augmentations_move_maps_and_truth_alike():
    rng = np.random.default_rng(0)
    truth = np.zeros((1, 64, 64), np.uint8)
    truth[0, 20:30, 34:50], truth[0, 50:54, 10:20] = 2, IGNORED
    brain = np.zeros((1, 64, 64), bool)
    brain[0, 8:56, 8:56] = True
    maps = np.where(brain, np.where(truth == 2, 5.0, 60.0), np.nan)[None].astype(np.float16)
    for number in range(12):
        for augment in (quarter_turns, moved_and_changed):
            cut = augment(Slices(maps, truth, brain), np.random.default_rng(number))
            assert cut.truth.shape == truth.shape and set(np.unique(cut.truth)) <= {0, 2, IGNORED}
            inside = np.isfinite(cut.maps[0])
            dead, alive = cut.maps[0][(cut.truth == 2) & inside], cut.maps[0][(cut.truth == 0) & inside]
            assert 120 < (cut.truth == 2).sum() < 220 and np.median(dead) < 8 < 45 < np.median(alive)
    assert rng.random() < 1


def test_a_missing_mtt_is_made_of_flow_and_volume():
    case = stroke_case("a", 1, "train")
    shown = Recipe.read(STARTER, TINY_STARTER).preprocessing
    less = replace(case, image=replace(case.image, array=case.image.array[:5]), channels=CHANNELS[:5])
    made = case_on_grid(less, shown).maps.astype(float)
    assert shown.maps[2] == "mtt"
    inside = np.isfinite(made[2])
    np.testing.assert_allclose(made[2][inside], 60 * made[1][inside] / made[0][inside], rtol=5e-3)


def test_colours_of_a_store_reach_the_network_as_they_are(tmp_path):
    names = [f"{m}_{c}" for m in ("cbf", "cbv", "ttp", "tmax") for c in ("red", "green", "blue")]
    array = np.zeros((12, 2, 64, 64), np.uint8)
    array[:, :, 10:50, 10:50] = np.arange(10, 130, 10)[:, None, None, None]
    truth = np.zeros((2, 64, 64), np.uint8)
    truth[:, 20:30, 20:30] = 1
    image = Volume(array, np.diag([-2.0, -2.0, 5.0, 1.0]), "rgb")
    with StoreWriter(tmp_path / "rgb.h5") as writer:
        for split in ("train", "val"):
            writer.add(StoredCase(split, split, "LVO", split, image, truth, channels=tuple(names)))
    with Store(tmp_path / "rgb.h5") as store:
        found = data(store, Recipe.read(RECIPES / "stroke_f_pms.toml", TINY), tmp_path / "run")
        pixel = found.sampler.batch(0, 0, 1).images[0, :, 32, 32].tolist()
        assert pixel == [30, 20, 10, 60, 50, 40, 90, 80, 70, 120, 110, 100]  # blue, green, red of map after map
        assert found.sampler.batch(0, 0, 1).images[0, :, 2, 2].tolist() == [0] * 12
        with pytest.raises(InputError, match="no channel 'mip_blue'"):
            data(store, Recipe.read(RECIPES / "stroke_f_pms_m.toml", TINY), tmp_path / "other")
        with pytest.raises(InputError, match="changes numbers, but the store holds pictures"):
            overrides = (*TINY, "sampling.augmentation=maps")
            data(store, Recipe.read(RECIPES / "stroke_f_pms.toml", overrides), tmp_path / "run")


# -- losses, scores and a run ----------------------------------------------------------------------------------------


def test_dice_ce_by_hand():
    truth = torch.tensor([[[[0.0, 1.0], [2.0, 1.0]]]])
    brain = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    logits = torch.zeros(1, 3, 2, 2)
    batch = Batch(torch.zeros(1, 1, 2, 2), truth, brain)
    value = loss_of(logits, batch, {"loss": "dice_ce", "class_weights": [1.0, 2.0, 3.0]}, LOSSES)
    entropy = np.log(3) * (1 + 2 + 3) / 3  # three pixels of the brain
    dice = (2 * (1 / 3) + 1) / (1 + 1 + 1)  # of either lesion: p sums to 1, one pixel true
    assert float(value) == pytest.approx(entropy + 1 - dice, rel=1e-5)


def test_scores_are_pooled_over_cases(store, tmp_path):
    recipe = Recipe.read(STARTER, TINY_STARTER)
    found = data(store, recipe, tmp_path)

    class Late(torch.nn.Module):
        """Penumbra where Tmax is above 4 s of 16, never core."""

        def forward(self, x):
            late = (x[:, 3] > 0.25).float()
            return 20 * torch.stack([1 - late, late, torch.zeros_like(late)], dim=1)

    scores = class_scores(Late(), found.validation, recipe, torch.device("cpu"))
    both = penumbra = lesion = 0
    for case in found.validation:
        truth, brain = case.labels()
        both, penumbra = both + ((truth == 1) & brain).sum(), penumbra + ((truth == 1) & brain).sum()
        lesion += ((truth > 0) & brain).sum()
    assert scores["dice_penumbra"] == pytest.approx(2 * both / (penumbra + lesion), abs=0.01)
    assert scores["dice_core"] == 0 and scores["score"] == pytest.approx(scores["dice"], abs=1e-4)
    by_loss = Recipe.read(STARTER, (*TINY_STARTER, "fitting.monitor=loss"))
    assert class_scores(Late(), found.validation, by_loss, torch.device("cpu"))["score"] == pytest.approx(
        -scores["loss"], abs=1e-4
    )


def test_the_starter_learns_and_its_model_file_predicts(store, tmp_path):
    from NeuraxisLib.models import load_model
    from StrokeCTPLib.networks.classes import decoded
    from StrokeCTPLib.prediction import predict

    output = tmp_path / "starter.safetensors"
    words = [str(STARTER), str(output), "--run", str(tmp_path / "run"), "--store", str(store.path), "--device", "cpu"]
    settings = (
        *TINY_STARTER,
        "fitting.steps=80",
        "fitting.ema=0.9",
        "fitting.learning_rate=1e-2",
        "fitting.validate_every=40",
    )
    assert train.main([*words, "--workers", "1", *(w for s in settings for w in ("--set", s))]) == 0
    model = load_model(output, "stroke")
    assert model.header["labels"] == {"1": "Penumbra", "2": "Core"} and model.header["training"]["simulated"]
    assert model.header["classes"] == ["background", "penumbra", "core"]
    case = store.case("v0")
    maps = {
        name: Volume(np.where(case.region, array, np.nan), case.image.ijk_to_ras)
        for name, array in zip(case.channels, case.image.array)
    }
    found, facts = predict(maps, model, Namespace(device="cpu", precision="float32"))
    labels = decoded(found, tuple(facts["classes"]))
    for value in (1, 2):
        one, two = labels == value, case.truth == value
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.7


def test_counts_beside_the_architecture_are_those_of_the_network():
    for path in sorted(RECIPES.glob("stroke_[fug]_*.toml")):
        with torch.device("meta"):
            count = sum(p.numel() for p in build(Recipe.read(path)).parameters())
        assert f"{count:,}" == re.search(r"([\d,]{6,}) parameters", path.read_text())[1]


def test_a_process_that_judges_its_own_cases_waits_for_no_other(monkeypatch):
    from Training import distributed

    monkeypatch.setattr(distributed, "world_size", lambda: 2)  # adding up would now need the other process
    sums = torch.tensor([1.0, 2.0])
    with distributed.alone():
        assert distributed.total(sums) is sums
    with pytest.raises((RuntimeError, ValueError)):
        distributed.total(sums)
