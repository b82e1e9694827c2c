"""What training reads: recipes, the bank of heads, batches, and the losses on them."""

from __future__ import annotations

import errno
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_head import real_head
from tiny_training import RECIPES, STARTER, fill_tiny_bank, real_banked, tiny_recipe, write_sources

from NeuraxisLib.errors import InputError, NeuraxisError, OutputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from Training.losses import bleeding_loss, legacy_mean_dice_loss, loss_of, slice_score
from Training.progress import ProgressLine, in_words
from Training.recipe import Recipe
from Training.sampling import Batch, HeadSampler
from Training.simulation import bank as bank_file
from Training.simulation.bank import BLEEDING, CLEAN, UNKNOWN, BankedHead, HeadSources
from Training.simulation.jobs import fill_bank, jobs_of


@pytest.fixture(scope="session")
def bank(tmp_path_factory) -> Path:
    return fill_tiny_bank(tmp_path_factory.mktemp("bank") / "bank")


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert isinstance(error.value, NeuraxisError)
    assert text.endswith(".") and "\n" not in text and "Traceback" not in text
    assert ". " not in text.replace("e.g. ", "")
    return text


# -- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_complete_and_build_their_network(path):
    from Training.fitting import build

    recipe = Recipe.read(path)
    if recipe.family.name == "patches":
        pytest.importorskip("monai")
        pytest.importorskip("einops")
        assert all(side % 16 == 0 for side in recipe.preprocessing.patch)
    elif recipe.family.name == "slices":
        assert recipe.preprocessing.size % 32 == 0
    with torch.device("meta"):  # the sizes alone
        count = sum(p.numel() for p in build(recipe).parameters())
    published = re.search(r"([\d,]{6,}) parameters", path.read_text().split("[preprocessing]")[0])
    assert count > 100_000 and (published is None or count == int(published[1].replace(",", "")))


def test_published_recipe_is_the_published_network():
    from Training.fitting import build

    recipe = Recipe.read(RECIPES / "hemorrhage_drunet.toml")
    assert sum(p.numel() for p in build(recipe).parameters() if p.requires_grad) == 10_953_249
    options = recipe["fitting"]
    assert (recipe.preprocessing.size, len(recipe.preprocessing.channels)) == (256, 1)
    assert (options["batch"], options["learning_rate"], options["steps"]) == (16, 2e-4, 49 * (5000 // 16))
    assert (options["loss"], options["schedule"], options["clip"]) == ("legacy_mean_dice", "constant", 0)
    lines = (RECIPES / "hemorrhage_drunet.toml").read_text().splitlines()
    bare = [line for line in lines if re.match(r"\w+ = .*\d", line) and "#" not in line]
    assert bare == []  # every number says where it comes from


def test_recipe_defaults_are_filled_in_and_overrides_are_read_as_toml():
    recipe = tiny_recipe("fitting.learning_rate=3e-4", "title=A new title", "architecture.arguments.base=8")
    assert recipe["fitting"]["learning_rate"] == 3e-4
    assert recipe["title"] == "A new title"
    assert recipe["architecture"]["arguments"] == {"in_channels": 1, "base": 8, "out_channels": 1}
    assert recipe["fitting"]["loss"] == "bleeding" and recipe["fitting"]["schedule"] == "cosine"
    assert recipe["fitting"]["precision"] == "fp32"


@pytest.mark.parametrize(
    "override,named",
    [
        ("fitting.stepz=3", "fitting.stepz"),
        ("fitting.steps", "fitting.steps"),
        ("steps=3", "steps=3"),
        ("fitting.steps=many", "fitting.steps"),
        ("fitting.steps=0", "fitting.steps"),
        ("fitting.steps=true", "fitting.steps"),
        ("fitting.steps.more=1", "fitting.steps.more"),
        ("fitting.precision=fp8", "fp32, bf16"),
        ("fitting.loss=focal", "legacy_mean_dice"),
        ("fitting.ema=1.5", "fitting.ema"),
        ("fitting.shares={planted=0.0}", "fitting.shares"),
        ("fitting.shares={moon=1.0}", "moon"),
        ("task=weather", "hemorrhage"),
        ("preprocessing.size=100", "preprocessing"),
        ("preprocessing.channels=[]", "preprocessing"),
        ("architecture.arguments.in_channels=3", "channels"),
        ("simulation.bank_size=100", "simulation.bank_size"),
    ],
)
def test_bad_override_is_named_in_one_sentence(override, named):
    with pytest.raises(InputError) as error:
        tiny_recipe(override)
    assert named in one_sentence(error)


@pytest.mark.parametrize(
    "change,named",
    [
        (lambda text: text + "\nextra = 1\n", "fitting.extra"),
        (lambda text: "colour = 1\n" + text, "colour"),
        (lambda text: text.replace("steps =", "# steps ="), "fitting.steps"),
        (lambda text: text.replace("steps = ", 'steps = "a" # '), "fitting.steps"),
        (lambda text: text.replace("[simulation]", "[simulations]"), "simulations"),
        (lambda text: "fitting = 3\n" + text.split("[fitting]")[0], "fitting"),
        (lambda text: "simulation = [", "not valid TOML"),
    ],
)
def test_bad_recipe_is_named_in_one_sentence(change, named, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(change(STARTER.read_text()))
    with pytest.raises(InputError) as error:
        Recipe.read(path)
    text = str(error.value)
    assert named in text and text.endswith(".") and "\n" not in text


def test_recipe_that_is_missing_or_no_text_is_named(tmp_path):
    with pytest.raises(InputError) as error:
        Recipe.read(tmp_path / "none.toml")
    assert "none.toml" in str(error.value) and str(tmp_path) not in str(error.value)
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"picture\.toml"):
        Recipe.read(tmp_path / "picture.toml")


# -- the bank --------------------------------------------------------------------------------------------------------


def test_banked_head_comes_back_as_it_was(bank, tmp_path):
    head = BankedHead.load(bank / "planted_00001.npz")
    assert head.truth.any() and head.brain.any() and head.source == "planted"
    assert set(head.slice_label) == {UNKNOWN}
    head.save(tmp_path / "again.npz")
    again = BankedHead.load(tmp_path / "again.npz")
    for name in ("slabs_hu", "truth", "brain", "slice_label"):
        one, other = getattr(head, name), getattr(again, name)
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert again.source == head.source


def test_banked_head_is_written_whole_or_not_at_all(bank, tmp_path, monkeypatch):
    head = BankedHead.load(bank / "planted_00000.npz")

    def full_disk(stream, **arrays):
        stream.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OutputError, match="disk is full"):
        head.save(tmp_path / "head.npz")
    assert list(tmp_path.iterdir()) == []


def test_damaged_bank_file_is_named(bank, tmp_path):
    content = (bank / "planted_00000.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.npz"):
        BankedHead.load(tmp_path / "cut.npz")


def test_bank_keeps_the_volume_of_blood(bank):
    from phantom_head import SLICE_MM

    from NeuraxisLib.preprocessing import slice_grid
    from Training.simulation import anatomy as anatomies
    from Training.simulation.head_ct import plant

    volume, brain = real_head()
    head = plant(volume, anatomies.of_real_head(volume, brain), np.random.default_rng(1), bleeds=2)
    banked = BankedHead.load(bank / "planted_00001.npz")
    pixel_mm = slice_grid(head.volume, head.brain, tiny_recipe().preprocessing).pixel_mm
    ml = (banked.truth > 0).sum() * pixel_mm**2 * SLICE_MM / 1000
    assert ml == pytest.approx(sum(head.volumes_ml.values()), rel=0.08)


def test_slab_of_thin_slices_bleeds_if_one_of_them_does():
    volume, brain = real_head()
    thin = Volume(np.repeat(volume.array, 2, axis=0), volume.ijk_to_ras @ np.diag([1, 1, 0.5, 1]), "HU")
    label = np.full(thin.slice_count, CLEAN)
    label[20], label[41] = BLEEDING, UNKNOWN
    head = bank_file.SimulatedHead(thin, np.zeros(thin.array.shape, np.uint8), np.repeat(brain, 2, axis=0), {})
    banked = bank_file.to_bank(head, tiny_recipe().preprocessing, "real", label)
    assert len(banked.slice_label) == len(banked.slabs_hu) == volume.slice_count
    assert np.flatnonzero(banked.slice_label == BLEEDING).tolist() == [10]
    assert np.flatnonzero(banked.slice_label == UNKNOWN).tolist() == [20]


def test_labels_follow_the_slices_of_a_file_that_counts_downward(tmp_path, monkeypatch):
    real, maps = write_sources(tmp_path)
    volume, brain = real_head()
    downward = volume.ijk_to_ras.copy()
    downward[:3, 3] += downward[:3, 2] * (volume.slice_count - 1)
    downward[:3, 2] *= -1
    write_volume(Volume(volume.array[::-1].copy(), downward, "HU"), real / "bleeding.nii.gz")
    monkeypatch.setattr(bank_file, "extract_brain", lambda volume: bank_file_mask(brain))
    _, label = HeadSources(real, maps).real_with_labels("bleeding")
    last = volume.slice_count - 1
    assert np.flatnonzero(label == BLEEDING).tolist() == [last - 5, last - 4, last - 3]
    assert np.flatnonzero(label == UNKNOWN).tolist() == [last - 9]


def bank_file_mask(brain: np.ndarray):
    from HemorrhageSegLib.brain import BrainMask

    return BrainMask(brain, 1.0)


def test_folders_without_what_is_needed_are_named(tmp_path):
    rng, empty = np.random.default_rng(0), tmp_path / "empty"
    empty.mkdir()
    sources = HeadSources(empty, empty)
    for ask in (lambda: sources.planted(rng), lambda: sources.synthetic(rng)):
        with pytest.raises(InputError, match="'empty'"):
            ask()
    with pytest.raises(InputError, match="'empty'"):
        bank_file.fill_real(tmp_path, sources, tiny_recipe().preprocessing)
    (empty / "labels.json").write_text(json.dumps({"scan": ["no", "object"]}))
    with pytest.raises(InputError, match=r"labels\.json"):
        HeadSources(empty, empty)


def test_only_missing_heads_are_made(bank, tmp_path):
    recipe = tiny_recipe("simulation.planted=10")
    jobs = jobs_of(bank, tmp_path, tmp_path, recipe)
    assert [(source, number) for *_, source, number in jobs] == [("planted", 8), ("planted", 9)]
    assert jobs_of(bank, tmp_path, tmp_path, tiny_recipe()) == []
    with_real = jobs_of(bank, tmp_path, tmp_path, tiny_recipe("fitting.shares.real=0.1"))
    assert [source for *_, source, _ in with_real] == ["real"]


@pytest.mark.slow
def test_several_processes_make_the_same_heads_as_one(tmp_path):
    real, maps = write_sources(tmp_path)
    recipe = tiny_recipe("simulation.planted=0", "simulation.synthetic=2")
    seen: list[float] = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        fill_bank(folder, real, maps, recipe, workers, Progress(lambda fraction, stage: seen.append(fraction)))
    assert seen == [0.5, 1.0, 0.5, 1.0]
    for name in ("synthetic_00000.npz", "synthetic_00001.npz"):
        one, two = BankedHead.load(tmp_path / "1" / name), BankedHead.load(tmp_path / "2" / name)
        assert np.array_equal(one.slabs_hu, two.slabs_hu) and np.array_equal(one.truth, two.truth)
    with pytest.raises(InputError, match="own_maps"):
        (maps / "training_seg_01.nii.gz").unlink()
        more = tiny_recipe("simulation.planted=0", "simulation.synthetic=4")
        fill_bank(tmp_path / "1", real, maps, more, 2, Progress())


# -- batches ---------------------------------------------------------------------------------------------------------


def sampler(bank: Path, bleeding_share: float = 0.6, **shares: float) -> HeadSampler:
    names = {"planted": ["planted_00000", "planted_00003"], "synthetic": ["synthetic_00001"], "real": ["real_phantom"]}
    return HeadSampler(bank, names, tiny_recipe().preprocessing, shares or {"planted": 1.0}, bleeding_share)


def test_a_batch_depends_on_its_seed_and_step_alone(bank):
    one, other = sampler(bank, planted=1, synthetic=1), sampler(bank, planted=1, synthetic=1)
    other.batch(5, 1, 2)  # what was drawn before changes nothing
    first, again = one.batch(5, 3, 3), other.batch(5, 3, 3)
    for name in ("images", "truth", "brain", "slice_label"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(one.batch(5, 3, 2).images, first.images[:2])
    assert not torch.equal(one.batch(5, 4, 3).images, first.images)
    assert not torch.equal(one.batch(6, 3, 3).images, first.images)


def test_batches_have_the_shape_and_range_that_the_network_takes(bank):
    batch = sampler(bank, planted=1, real=1).batch(0, 0, 6)
    assert batch.images.shape == batch.truth.shape == batch.brain.shape == (6, 1, 64, 64)
    assert batch.images.dtype == torch.float32 and batch.images.abs().max() <= 1
    assert set(batch.truth.unique().tolist()) <= {0.0, 1.0} and batch.brain.mean() > 0.2
    assert set(batch.slice_label.tolist()) <= {UNKNOWN, CLEAN, BLEEDING}
    assert not batch.truth[batch.slice_label != UNKNOWN].any()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_share_of_slices_with_blood(bank, share):
    batch = sampler(bank, bleeding_share=share).batch(1, 0, 12)
    assert (batch.truth.flatten(1).any(dim=1).float().mean() > 0.8) == bool(share)
    assert batch.truth.any() == bool(share)


def test_blood_is_bright_where_the_truth_says(bank):
    batch = sampler(bank, bleeding_share=1.0).batch(2, 0, 12)
    blood, rest = batch.truth > 0.5, (batch.truth < 0.5) & (batch.brain > 0.5)
    assert batch.images[blood].mean() > batch.images[rest].mean() + 0.25


def test_a_source_without_heads_is_named(bank):
    with pytest.raises(InputError, match="no synthetic heads"):
        HeadSampler(bank, {"planted": ["planted_00000"]}, tiny_recipe().preprocessing, {"synthetic": 1.0}, 0.5)


# -- losses, computed by hand ----------------------------------------------------------------------------------------


def batch_of(truth: list, brain: list | None = None, label: int = UNKNOWN) -> Batch:
    y = torch.tensor(truth, dtype=torch.float32)[None, None]
    inside = torch.ones_like(y) if brain is None else torch.tensor(brain, dtype=torch.float32)[None, None]
    return Batch(torch.zeros_like(y), y, inside, torch.tensor([label]))


QUARTER = [[1, 0], [0, 0]]


def test_legacy_loss_by_hand():
    zero = legacy_mean_dice_loss(torch.zeros(1, 1, 2, 2), batch_of(QUARTER))
    assert float(zero) == pytest.approx(math.log(2) + 1 - (2 * 0.125 + 1) / (0.25 + 0.5 + 1))
    z = torch.tensor([[1.0, -1.0], [-1.0, -1.0]])[None, None] * math.log(3)  # p = 0.75 in blood, 0.25 elsewhere
    expected = -math.log(0.75) + 1 - (2 * 0.1875 + 1) / (0.25 + 0.375 + 1)
    assert float(legacy_mean_dice_loss(z, batch_of(QUARTER))) == pytest.approx(expected)


def test_legacy_dice_is_all_but_blind_to_small_bleeds():
    """The fault that the option reproduces: a perfect answer gains 0.0099 where blood fills 1 % of the image."""
    truth = torch.zeros(10, 10)
    truth[0, 0] = 1
    batch = batch_of(truth.tolist())
    losses = []
    for z in (torch.where(truth > 0, 40.0, -40.0), torch.full_like(truth, -40.0)):
        logits = z[None, None]
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.truth)
        losses.append(float(legacy_mean_dice_loss(logits, batch) - bce))
    assert losses[1] - losses[0] == pytest.approx(1 - 1 / 1.01, abs=1e-6)


def test_legacy_loss_leaves_out_slices_without_a_mask():
    z = torch.zeros(1, 1, 2, 2, requires_grad=True)
    loss = legacy_mean_dice_loss(z, batch_of(QUARTER, label=BLEEDING))
    assert loss.item() == 0
    loss.backward()


def test_bleeding_loss_by_hand():
    z = torch.zeros(1, 1, 2, 2)
    everywhere = 4 * math.log(2) + 1 - (2 * 0.5 + 1) / (2 + 1 + 1)
    assert float(bleeding_loss(z, batch_of(QUARTER), 0.1, 0.3)) == pytest.approx(everywhere)
    half = 4 * math.log(2) * (1 + 1 + 0.1 + 0.1) / 4 + 1 - (2 * 0.5 + 1) / (1 + 1 + 1)
    assert float(bleeding_loss(z, batch_of(QUARTER, brain=[[1, 1], [0, 0]]), 0.1, 0.3)) == pytest.approx(half)


def test_blood_where_nobody_looks_is_not_asked_for():
    """Truth outside ``brain`` (in voxels as dense as bone) must not pull the Dice down."""
    z = torch.zeros(1, 1, 2, 2)
    hidden = batch_of([[1, 0], [1, 0]], brain=[[1, 1], [0, 0]])
    seen = batch_of(QUARTER, brain=[[1, 1], [0, 0]])
    assert bleeding_loss(z, hidden, 0.1, 0.3) == bleeding_loss(z, seen, 0.1, 0.3)


def test_slice_term_by_hand():
    """Bleeding slices without a mask are judged by their brightest 40 pixels only."""
    z = torch.full((1, 1, 8, 8), 3.0)
    score = 3.0 * (36 + 4 * 6 / 9) / 40  # 36 pixels keep 3; the blur mixes a third of nothing into the next 4
    batch = batch_of(np.zeros((8, 8)).tolist(), label=BLEEDING)
    assert float(slice_score(z, batch.brain)[0]) == pytest.approx(score)
    assert float(bleeding_loss(z, batch, 0.1, 0.3)) == pytest.approx(0.3 * math.log1p(math.exp(-score)))
    clean = batch_of(np.zeros((8, 8)).tolist(), label=CLEAN)
    assert float(bleeding_loss(z, clean, 0.1, 0.3)) > 4 * math.log1p(math.exp(3.0))


def test_slice_score_sees_nothing_outside_the_brain():
    z, brain = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    brain[..., :8] = 1
    z[..., 9:] = 50.0
    assert float(slice_score(z, brain)[0]) == 0.0


def test_the_pixel_weight_is_that_of_the_cross_entropy():
    z, batch = torch.randn(1, 1, 8, 8, generator=torch.manual_seed(0)), batch_of(np.eye(8).tolist())
    none, one, three = (float(bleeding_loss(z, batch, 1.0, 0.0, weight)) for weight in (0.0, 1.0, 3.0))
    entropy = float(torch.nn.functional.binary_cross_entropy_with_logits(z, batch.truth))
    assert one - none == pytest.approx(entropy, rel=1e-4) and three - none == pytest.approx(3 * entropy, rel=1e-4)


def test_the_recipe_chooses_the_loss():
    z, batch = torch.randn(1, 1, 8, 8, generator=torch.manual_seed(0)), batch_of(np.eye(8).tolist())
    options = tiny_recipe()["fitting"]
    weights = [options[name] for name in ("outside_weight", "slice_weight", "pixel_weight")]
    assert loss_of(z, batch, options) == bleeding_loss(z, batch, *weights)
    legacy = tiny_recipe("fitting.loss=legacy_mean_dice")["fitting"]
    assert loss_of(z, batch, legacy) == legacy_mean_dice_loss(z, batch)


# -- progress --------------------------------------------------------------------------------------------------------


class Screen:
    """A stream that keeps what was written and says whether it is a terminal."""

    def __init__(self, terminal: bool):
        self.text, self.terminal = "", terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self.terminal


def test_progress_tells_fraction_stage_and_time_left(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("Training.progress.time.monotonic", lambda: clock[0])
    log, terminal = Screen(False), Screen(True)
    with ProgressLine(log, every_s=30) as line, ProgressLine(terminal) as shown:
        for fraction in (0.5, 0.525, 0.55, 0.6, 1.0):  # a resumed run starts at a half
            line(fraction, "step")
            shown(fraction, "step")
            clock[0] += 20
    assert log.text.splitlines() == [" 50.0 %  step", " 55.0 %  step  (6 min left)", "100.0 %  step"]
    assert terminal.text.count("\r") == 5 and terminal.text.count("\n") == 1 and terminal.text.endswith("\n")


def test_durations_in_words():
    words = [in_words(seconds) for seconds in (0, 40, 89, 100, 3600, 5399, 7500)]
    assert words == ["0 s", "40 s", "89 s", "2 min", "60 min", "1 h 30 min", "2 h 05 min"]


def test_real_phantom_has_two_bleeding_slices(bank):
    assert real_banked(*reversed(real_head())).slice_label.tolist().count(BLEEDING) == 2
