"""Training from a store: its cases on the network's grid as slices or as patches, and runs on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_head import real_head
from tiny_training import RECIPES, TINY, one_thread, tiny_recipe  # noqa: F401

from NeuraxisLib.errors import InputError
from NeuraxisLib.models import load_model
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from Training import train
from Training.patches import CachedVolume, PatchSampler, cache_case, cache_volumes, on_grid, patch_scores
from Training.recipe import Recipe
from Training.sampling import PICTURE, HeadSampler
from Training.simulation import anatomy as anatomies
from Training.simulation.bank import BLEEDING, CLEAN, BankedHead, to_bank
from Training.simulation.head_ct import SimulatedHead, plant
from Training.store import IGNORED, Store, StoredCase
from Training.store_writer import StoreWriter
from Training.stored_heads import banked_case, fill_from_store, shrunk

#: Makes a recipe of patches small.
TINY_PATCHES = (
    "preprocessing.spacing_mm=[2.0, 2.0, 5.0]",
    "preprocessing.patch=[32, 32, 16]",
    "sampling.crops=2",
    "fitting.steps=6",
    "fitting.batch=2",
    "fitting.schedule_every=4",
    "fitting.validate_every=3",
    "fitting.keep_minutes=1000",
)


def bleeding_head(seed: int) -> SimulatedHead:
    """The phantom with two bleeds, in whole HU as files hold it."""
    volume, brain = real_head()
    head = plant(volume, anatomies.of_real_head(volume, brain), np.random.default_rng(seed), bleeds=2)
    return replace(head, volume=head.volume.like(np.rint(head.volume.array).astype(np.int16), "HU"))


def case_of(head: SimulatedHead, name: str, split: str = "train", **changes) -> StoredCase:
    case = StoredCase(name, name, "clinic", split, head.volume, (head.truth > 0).astype(np.uint8), head.brain)
    return replace(case, **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Four heads to train on, of which one has slice labels alone, and one to judge by."""
    path = tmp_path_factory.mktemp("store") / "cases.h5"
    label = np.full(real_head()[0].slice_count, CLEAN, np.int8)
    label[11:13] = BLEEDING
    with StoreWriter(path) as writer:
        for number in range(3):
            writer.add(case_of(bleeding_head(number), f"case {number}"))
        writer.add(case_of(bleeding_head(3), "labelled", truth=None, slice_label=label))
        writer.add(case_of(bleeding_head(4), "judge", "val"))
    return path


# -- slices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flipped", [False, True])
def test_a_case_is_banked_exactly_as_the_simulated_head_would_be(flipped):
    head, preprocessing = bleeding_head(1), tiny_recipe().preprocessing
    expected = to_bank(replace(head, truth=(head.truth > 0).astype(np.uint8)), preprocessing, "store")
    case = case_of(head, "a")
    if flipped:  # stored from the top down and from right to left
        turn = (slice(None, None, -1), slice(None), slice(None, None, -1))
        matrix = head.volume.ijk_to_ras @ np.diag([-1.0, 1, -1, 1])
        corner = np.array([head.volume.array.shape[2] - 1, 0, head.volume.array.shape[0] - 1, 1.0])
        matrix[:, 3] = head.volume.ijk_to_ras @ corner
        image = Volume(np.ascontiguousarray(head.volume.array[turn]), matrix, "HU")
        case = replace(case, image=image, truth=case.truth[turn].copy(), region=case.region[turn].copy())
    banked = banked_case(case, preprocessing)
    for name in ("slabs_hu", "truth", "brain", "slice_label"):
        assert np.array_equal(getattr(banked, name), getattr(expected, name)), name
    assert banked.source == "store" and banked.truth.any()


def test_without_a_region_the_brain_is_extracted():
    banked = banked_case(case_of(bleeding_head(1), "a", region=None), tiny_recipe().preprocessing)
    expected = banked_case(case_of(bleeding_head(1), "a"), tiny_recipe().preprocessing)
    both = (banked.brain & expected.brain).sum() * 2 / (banked.brain.sum() + expected.brain.sum())
    assert both > 0.9 and not np.array_equal(banked.brain, expected.brain)


def test_what_nobody_knows_is_neither_blood_nor_searched():
    head = bleeding_head(1)
    truth = (head.truth > 0).astype(np.uint8)
    truth[truth == 1] = IGNORED
    banked = banked_case(case_of(head, "a", truth=truth), tiny_recipe().preprocessing)
    plain = banked_case(case_of(head, "a"), tiny_recipe().preprocessing)
    assert not banked.truth.any()
    assert (
        not (banked.brain & (plain.truth > 0)).any()
        or (banked.brain & (plain.truth > 0)).sum() < 0.2 * (plain.truth > 0).sum()
    )


def test_slice_labels_follow_the_slices_and_make_a_real_head(store):
    banked = banked_case(Store(store).case("labelled"), tiny_recipe().preprocessing)
    assert banked.source == "real" and not banked.truth.any()
    assert np.flatnonzero(banked.slice_label == BLEEDING).tolist() == [11, 12]
    with pytest.raises(InputError, match=r"'a' has neither"):
        banked_case(case_of(bleeding_head(1), "a", truth=None), tiny_recipe().preprocessing)


def test_pictures_are_seen_whole_slice_by_slice_and_as_grey_as_they_are(tmp_path):
    grey = np.zeros((7, 100, 80), np.uint8)
    grey[:, 10:90, 10:70] = 120
    grey[3, 40:60, 30:50] = 200
    truth = (grey == 200).astype(np.uint8)
    picture = Volume(grey, np.diag([-1.0, -1.0, 1.0, 1.0]), "grey")  # 1 mm apart for want of better
    banked = banked_case(StoredCase("p", "p", "", "train", picture, truth), tiny_recipe().preprocessing)
    assert banked.source == PICTURE and banked.slabs_hu.shape == (7, 64, 64) and banked.truth[3].any()
    assert banked.slabs_hu[:, :, 0].max() == 0  # made square: 10 black pixels on each side
    assert (banked.truth > 0).sum() * (100 / 64) ** 2 == pytest.approx(400, rel=0.13)
    banked.save(tmp_path / "store_p.npz")
    sampler = HeadSampler(tmp_path, {"store": ["store_p"]}, tiny_recipe().preprocessing, {"store": 1}, 1.0, "none")
    batch = sampler.batch(0, 0, 4)
    assert batch.images[0, 0, 32, 32] == pytest.approx(200 / 127.5 - 1, abs=0.01)
    assert batch.brain[0, 0, 32, 32] == 1  # 200 is no density: it is searched though as dense as bone
    assert batch.truth[0, 0, 32, 32] == 1 and batch.images.amin() == -1


@pytest.mark.parametrize("radius,kept", [(5, 31), (8, 45), (12, 60), (20, 77), (40, 88)])
def test_legacy_label_shrink_loses_what_the_released_loader_lost(radius, kept):
    """Share of a disc's pixels left on the way from 400 to 224 pixels (hemorrhage specification 1.7)."""
    rows, columns = np.indices((400, 400)) - 200
    disc = (np.hypot(rows, columns) <= radius).astype(np.uint8)[None]
    left = shrunk(disc, 400 / 224, True)
    at = ((np.arange(224) + 0.5) * 400 / 224).astype(int)
    assert 100 * left[0][np.ix_(at, at)].sum() / disc[0][np.ix_(at, at)].sum() == pytest.approx(kept, abs=4)
    assert shrunk(disc, 400 / 224, False) is disc


def test_a_changed_store_is_banked_anew_and_cases_without_a_brain_are_named(tmp_path, capsys):
    path, recipe = tmp_path / "s.h5", tiny_recipe()
    for seed in (1, 2):
        empty = case_of(bleeding_head(1), "nothing", region=np.zeros(real_head()[1].shape, bool))
        with StoreWriter(path) as writer:
            writer.add(case_of(bleeding_head(seed), "a"))
            writer.add(empty)
        made = [fill_from_store(tmp_path, Store(path), ["a", "nothing"], recipe, 1, Progress()) for _ in range(2)]
        assert made[0] == made[1] and list(made[0]) == ["a"]
    assert len(list(tmp_path.glob("store_*.npz"))) == 2
    assert "'nothing' is left out: No brain is in view" in capsys.readouterr().err


# -- patches ---------------------------------------------------------------------------------------------------------


def patch_recipe(*overrides: str, name: str = "hemorrhage_hemseg_segresnet.toml") -> Recipe:
    return Recipe.read(RECIPES / name, (*TINY_PATCHES, *overrides))


@pytest.fixture(scope="module")
def volumes(store, tmp_path_factory) -> list[CachedVolume]:
    folder = tmp_path_factory.mktemp("volumes")
    names = [f"case {number}" for number in range(3)]
    return cache_volumes(folder, Store(store), names, patch_recipe().preprocessing, 1, Progress())


def test_cached_volume_is_the_case_on_the_network_s_grid(store, volumes):
    case, recipe = Store(store).case("case 0"), patch_recipe()
    image, truth = on_grid(case, recipe.preprocessing)
    cached, blood = volumes[0].whole()
    assert np.abs(cached - image).max() < 0.02 / 13.4 * 13.5 and np.array_equal(blood, truth == 1)
    assert int(truth.sum()) * 2 * 2 * 5 == pytest.approx(int(case.truth.sum()) * 5, rel=0.05)  # mm3
    assert image.min() == pytest.approx((11.99969 - 48.13441) / 13.45755, abs=1e-3)
    x, _, z = (np.argwhere(truth).mean(axis=0) * (2, 2, 5)).tolist()  # right and up count upward
    k, _, i = np.argwhere(case.image.axial()[1].apply_array(case.truth)).mean(axis=0)
    assert z == pytest.approx(k * 5, abs=2.5)
    assert x == pytest.approx(case.image.array.shape[2] - 1 - i, abs=1)


def test_crops_lie_around_blood_or_not_as_asked(volumes):
    preprocessing = patch_recipe("preprocessing.patch=[4, 4, 4]").preprocessing  # small, so few meet the border

    def centres(positive: float, legacy: bool) -> tuple[float, float]:
        crops = [volumes[0].crop(np.random.default_rng(n), preprocessing, positive, legacy) for n in range(60)]
        assert all(image.shape == truth.shape == (4, 4, 4) for image, truth in crops)
        middle = (2, 2, 2)
        return tuple(np.mean([[truth[middle], image[middle] > 0] for image, truth in crops], axis=0))

    blood, _ = centres(1.0, False)
    half, _ = centres(0.5, False)
    seldom, some_bright = centres(0.0, False)
    never, bright = centres(0.0, True)
    assert blood > 0.9 and 0.3 < half < 0.7 and seldom < 0.2 and never == 0
    assert bright > 0.9 and some_bright < 0.5


def test_small_volumes_lie_in_the_middle_of_padding(volumes):
    large = patch_recipe("preprocessing.patch=[80, 80, 32]").preprocessing
    image, truth = volumes[0].crop(np.random.default_rng(0), large, 1.0, False)
    inner, blood = volumes[0].whole()
    assert image.shape == truth.shape == (80, 80, 32)
    start = [(size - length) // 2 for size, length in zip(large.patch, inner.shape)]
    box = tuple(slice(s, s + n) for s, n in zip(start, inner.shape))
    assert np.array_equal(image[box], inner) and np.array_equal(truth[box], blood)
    assert not image[..., 0].any()  # the mean, 48 HU, as MONAI pads


def test_batches_are_those_of_seed_and_step_and_take_every_volume_in_turn(volumes):
    sampler = PatchSampler(volumes, patch_recipe())
    batch, again = sampler.batch(5, 7, 3), sampler.batch(5, 7, 3)
    assert batch.images.shape == batch.truth.shape == (6, 1, 32, 32, 16)
    assert torch.equal(batch.images, again.images) and batch.cases == again.cases
    part = sampler.batch(5, 7, 3, slice(1, 2))
    assert torch.equal(part.images, batch.images[2:4]) and part.cases == batch.cases[2:4]
    for turn in range(3):
        drawn = [name for step in (3 * turn, 3 * turn + 1, 3 * turn + 2) for name in sampler.batch(5, step, 1).cases]
        assert sorted(set(drawn)) == ["case 0", "case 1", "case 2"] and len(drawn) == 6


def test_scores_of_answers_that_are_known(volumes):
    recipe, device = patch_recipe(), torch.device("cpu")
    images = {volume.name: volume.whole()[1] for volume in volumes}

    class Nothing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0 - 9

    class Bright(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0.5

    assert patch_scores(Nothing(), volumes, recipe, device)["score"] == 0
    expected = [
        2 * (images[v.name] & (v.whole()[0] > -0.5)).sum() / (images[v.name].sum() + (v.whole()[0] > -0.5).sum())
        for v in volumes
    ]
    assert patch_scores(Bright(), volumes, recipe, device)["score"] == pytest.approx(np.mean(expected), abs=1e-4)


def test_cases_that_patches_cannot_use_are_named(tmp_path):
    path = tmp_path / "s.h5"
    with StoreWriter(path) as writer:
        writer.add(case_of(bleeding_head(1), "unmarked", truth=None, slice_label=np.zeros(24, np.int8)))
    with pytest.raises(InputError, match=r"'unmarked' has no truth"):
        cache_case(tmp_path / "x.h5", Store(path), "unmarked", patch_recipe().preprocessing)
    assert not (tmp_path / "x.h5").exists()


# -- runs ------------------------------------------------------------------------------------------------------------


def command(recipe: Path, run: Path, store: Path | None, *overrides: str) -> list[str]:
    settings = [part for text in overrides for part in ("--set", text)]
    given = [str(recipe), str(run / "made.safetensors"), "--run", str(run), "--device", "cpu", "--threads", "1"]
    return [*given, "--workers", "1", *(["--store", str(store)] if store else []), *settings]


def test_slices_of_a_store_make_a_model_file(store, tmp_path, capsys):
    given = command(RECIPES / "hemorrhage_drunet_starter.toml", tmp_path, store, *TINY, "fitting.steps=3")
    assert train.main(given) == 0, capsys.readouterr().err
    model = load_model(tmp_path / "made.safetensors", "hemorrhage")
    assert model.header["training"]["simulated"] is False and "simulation" not in model.header["notice"]
    assert model.header["training"]["recipe"]["fitting"]["shares"] == {"store": 1.0}
    banked = [BankedHead.load(path) for path in (tmp_path / "bank").glob("store_*.npz")]
    assert sorted(head.source for head in banked) == ["real", "store", "store", "store", "store"]
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 3 and 0 <= records[-1]["dice"] <= 1


def test_a_run_without_its_store_or_split_says_so(store, tmp_path, capsys):
    recipe = RECIPES / "hemorrhage_slexnet.toml"
    assert train.main(command(recipe, tmp_path, None)) == 1
    assert "--store" in capsys.readouterr().err
    assert train.main([*command(recipe, tmp_path, store), "--val-split", "holdout"]) == 1
    assert "'holdout'" in capsys.readouterr().err


def test_patches_resume_bit_for_bit_and_make_a_model_file(store, tmp_path, capsys):
    """SegResNet drops channels while it trains, and AdamW and the step schedule have a state."""
    pytest.importorskip("monai")
    small = (*TINY_PATCHES, "preprocessing.spacing_mm=[4.0, 4.0, 5.0]", "preprocessing.patch=[16, 16, 16]")
    recipe, ends = RECIPES / "hemorrhage_hemseg_segresnet.toml", []
    for run, stops in (("straight", ()), ("stopped", (4,))):
        for steps in (*stops, 6):
            given = command(recipe, tmp_path / run, store, *small, f"fitting.steps={steps}")
            assert train.main(given) == 0, capsys.readouterr().err
        ends.append(torch.load(tmp_path / run / "checkpoint.pt", weights_only=True))
    for part in ("network", "average"):
        assert all(torch.equal(value, ends[1][part][name]) for name, value in ends[0][part].items())
    assert ends[0]["step"] == ends[1]["step"] == 6
    header = load_model(tmp_path / "straight" / "made.safetensors", "hemorrhage").header
    assert header["preprocessing"]["kind"] == "volume" and header["threshold"] == 0.5
    first = torch.load(tmp_path / "straight" / "last.pt", weights_only=True)
    assert all(torch.equal(value, first[name]) for name, value in ends[0]["average"].items())
