"""How disc networks are taught: windows into spines, heat maps, losses, scores, and a whole run on a small scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.preprocessing import PUBLISHED, SagittalPreprocessing
from Training import train
from Training.discs import DiscSampler, collated, held_out_samples
from Training.discs_scores import judged, peaks_mm
from Training.discs_views import (
    RealSpine,
    Sample,
    degenerated,
    draw_view,
    painted_sample,
    plain_sample,
    real_sample,
    slab_weights,
)
from Training.losses_discs import disc_mse, disc_mse_quarter
from Training.recipe import Recipe
from Training.sampling import Batch
from Training.simulation.spine_bank import PaintedSpine, paint_spine

PREPROCESSING = SagittalPreprocessing()


@pytest.fixture(scope="module")
def painted() -> PaintedSpine:
    return paint_spine(np.random.default_rng(1), offsets_mm=(-8.0, 0.0, 8.0), pixel_mm=1.25)


def dotted(spacing=(2.0, 1.0, 1.0), numbers=(22, 23, 24, 25)) -> RealSpine:
    """A scan with a bright ball at every disc."""
    shape = (15, 240, 160)
    points = np.array([(14.0, 40.0 + 45 * n, 80.0 + 6 * n) for n in range(len(numbers))]) * 1.0
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing)), indexing="ij"), axis=-1)
    planes = sum(np.exp(-((grid - point) ** 2).sum(axis=-1) / 18) for point in points)
    return RealSpine((1000 * planes).astype(np.float32), None, np.array(spacing), points, list(numbers), "dots")


def test_windows_map_points_there_and_back_and_stay_within_the_picture():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        extent = np.array([300.0, 200.0])
        view = draw_view(rng.uniform((20, 20), (280, 180)), extent, PREPROCESSING, rng)
        points = rng.uniform(0, 300, (5, 2))
        assert view.to_source(view.from_source(points)) == pytest.approx(points)
        corners = np.array([view.low, view.high, (view.low[0], view.high[1]), (view.high[0], view.low[1])])
        beyond = np.maximum(-view.to_source(corners), view.to_source(corners) - extent).max()
        angle = np.arcsin(abs(view.matrix[0, 1]) / np.linalg.norm(view.matrix[:, 1]))
        assert beyond <= np.sin(angle) * 330 + 1e-6  # only what a turned rectangle cannot avoid


def test_the_image_and_the_heat_map_show_a_disc_at_the_same_pixel():
    spine, seen = dotted(), 0
    for seed in range(12):
        sample = real_sample(spine, PREPROCESSING, np.random.default_rng([5, seed]))
        assert sample.image.shape == (3, 256, 256) and sample.image.dtype == np.float32
        for x, row, column in sample.discs_mm:
            if abs(x - sample.position_mm) > 2 or min(row, column) < 12 or max(row, column) > 305:
                continue
            at = np.rint(np.array([row, column]) / 1.25).astype(int)
            box = sample.image[1, at[0] - 6 : at[0] + 7, at[1] - 6 : at[1] + 7]
            weights = np.abs(box - np.median(sample.image[1]))
            if weights.max() < 0.2:
                continue
            middle = (np.indices(box.shape) * weights**2).sum(axis=(1, 2)) / (weights**2).sum()
            assert np.abs(middle - 6).max() < 2.2
            seen += 1
    assert seen > 5


def test_a_disc_turns_dark_as_a_whole_and_nothing_else_changes():
    centres = np.array([(10.0, 15.0), (30.0, 18.0), (50.0, 15.0)])
    disc = np.zeros((64, 32), np.float32)
    for row, column in centres.astype(int):
        disc[row - 3 : row + 4, column - 8 : column + 9] = 1
    image, dark = np.full((2, 64, 32), 0.7, np.float32), []
    for seed in range(60):
        out = degenerated(image, disc, centres, np.random.default_rng(seed))
        assert (out[:, disc == 0] == image[:, disc == 0]).all()
        parts = [out[:, row - 3 : row + 4, column - 8 : column + 9] for row, column in centres.astype(int)]
        assert all(part.std() < 1e-6 and 0.03 <= part.mean() <= 0.7001 for part in parts)
        dark.append([part.mean() < 0.6 for part in parts])
    assert 0.15 < np.mean(dark) < 0.35 and np.any(np.any(dark, axis=1) & ~np.all(dark, axis=1))


def test_a_painted_window_knows_its_discs(painted):
    for seed in range(6):
        sample = painted_sample(painted, PREPROCESSING, np.random.default_rng(seed))
        assert np.isfinite(sample.image).all() and sample.image.min() >= 0 and sample.image.max() <= 1.25
        assert len(sample.discs_mm) == len(sample.numbers) and set(sample.numbers) <= set(range(2, 26))
        order = np.argsort(sample.numbers)
        assert (np.diff(sample.discs_mm[order, 1]) > 0).all()  # further down, larger numbers


def test_the_same_step_gives_the_same_batch_whole_or_in_parts(painted):
    sampler = DiscSampler([painted], [], [dotted()], PREPROCESSING, {"synthetic": 1.0, "store": 1.0})
    whole, part = sampler.batch(3, 7, 4), sampler.batch(3, 7, 4, slice(2, 4))
    assert torch.equal(whole.images[2:], part.images) and torch.equal(whole.truth[2:], part.truth)
    assert whole.images.shape == (4, 3, 256, 256) and whole.truth.shape == (4, 25, 256, 256)
    assert not torch.equal(sampler.batch(3, 8, 4).images, whole.images)


def test_absent_and_unknown_discs():
    discs = np.array([(0.0, 100.0, 100.0), (0.0, 140.0, 100.0)])
    image = np.zeros((3, 256, 256), np.float32)
    known = collated([Sample(image, discs, [4, 5], 0.0)], PREPROCESSING)
    assert known.truth[0, 2, 80, 80] == 1 and known.truth[0, 3, 112, 80] == 1 and known.truth[0, 24, 80, 80] == 1
    assert known.extra["visible"].all() and not known.truth[0, 4:24].any()
    published = collated([Sample(image, discs, [4, 5], 0.0)], PREPROCESSING, absent=False)
    assert published.extra["visible"][0].nonzero().ravel().tolist() == [2, 3, 24]
    unknown = collated([Sample(image, discs, [None, None], 0.0)], PREPROCESSING)
    assert unknown.extra["visible"][0].nonzero().ravel().tolist() == [24] and unknown.truth[0, 24, 80, 80] == 1
    aside = collated([Sample(image, discs, [4, 5], 6.0)], PREPROCESSING)
    assert float(aside.truth[0, 2, 80, 80]) == pytest.approx(np.exp(-0.5))


def test_slabs_average_slices():
    weights = slab_weights(9, 1.0, np.array([4.0, 0.0]), 4.0)
    assert weights.sum(axis=1) == pytest.approx([1, 1]) and weights[0].argmax() == 4
    assert weights[0] == pytest.approx(weights[0][::-1])
    assert slab_weights(5, 5.0, np.array([7.0]), 2.0)[0] == pytest.approx([0, 0.6, 0.4, 0, 0])


def test_the_published_samples_are_whole_and_half_of_them_upside_down():
    spine = dotted(numbers=(3, 4, 5, 6))
    made = [plain_sample(spine, PUBLISHED, np.random.default_rng(seed), True) for seed in range(12)]
    upright = [bool(np.diff(sample.discs_mm[:, 1])[0] > 0) for sample in made]
    assert 2 < sum(upright) < 10 and all(sample.numbers == [3, 4, 5, 6] for sample in made)
    for sample in made:
        for _, row, column in sample.discs_mm:
            at = np.rint(np.array([row, column]) / PUBLISHED.pixel_mm).astype(int)
            box = sample.image[1, at[0] - 3 : at[0] + 4, at[1] - 3 : at[1] + 4]
            assert np.abs(np.array(np.unravel_index(box.argmax(), box.shape)) - 3).max() <= 1
    batch = collated(made[:1], PUBLISHED, absent=False)
    assert batch.truth.shape == (1, 11, 256, 256) and batch.images.amax() == 1


def test_sources_without_spines_are_told(painted):
    with pytest.raises(InputError, match="no real spines"):
        DiscSampler([painted], [], [], PREPROCESSING, {"synthetic": 1.0, "store": 1.0})
    with pytest.raises(InputError, match="no painted spines"):
        DiscSampler([], [], [dotted()], PREPROCESSING, {"synthetic": 1.0})


# -- losses and scores ------------------------------------------------------------------------------------------


def test_disc_mse_by_hand():
    truth = torch.zeros(1, 2, 1, 2)
    truth[0, 0, 0, 0] = 1.0
    found = torch.full((1, 2, 1, 2), 0.5)
    visible = torch.tensor([[1.0, 1.0]])
    batch = Batch(torch.zeros(1, 1, 1, 2), truth, extra={"visible": visible})
    # pixel 0 weighs 5 in both channels, pixel 1 weighs 1; every square is 0.25; wanted: 5 x 1
    assert float(disc_mse(found, batch, 4.0)) == pytest.approx((2 * 5 * 0.25 + 2 * 0.25) / (5 + 1))
    assert float(disc_mse([found, truth], batch, 4.0)) == pytest.approx((2 * 5 * 0.25 + 2 * 0.25) / (5 + 1))
    batch.extra["visible"][0, 1] = 0
    assert float(disc_mse(found, batch, 4.0)) == pytest.approx((5 * 0.25 + 0.25) / (5 + 1))


def test_quarter_maps_are_compared_with_the_middle_of_their_pixels():
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    truth = (0.3 * rows + 0.1 * columns)[None, None]
    scores = truth[..., ::4, ::4] + 1.5 * 0.4  # where bilinear enlargement puts a score: 1.5 pixels further
    batch = Batch(torch.zeros(1, 1, 64, 64), truth, extra={"visible": torch.ones(1, 1)})
    assert float(disc_mse_quarter([scores], batch, 0.0)) == pytest.approx(0.0, abs=1e-6)
    enlarged = torch.nn.functional.interpolate(scores, scale_factor=4, mode="bilinear")
    assert torch.allclose(enlarged[..., 2:-2, 2:-2], truth[..., 2:-2, 2:-2], atol=1e-4)


def test_scores_of_perfect_shifted_and_empty_maps():
    sample = real_sample(dotted(), PREPROCESSING, np.random.default_rng(2))
    sample = Sample(sample.image, np.array([(0.0, 100, 100), (0.0, 150, 110)]), [24, 25], 0.0)
    maps = collated([sample], PREPROCESSING).truth[0].numpy()
    assert judged(maps, sample, PREPROCESSING)[:4] == (2, 2, 2, 0)
    shifted = maps.copy()
    shifted[:24] = np.roll(maps[:24], -1, axis=0)  # every disc under its upper neighbour's number
    assert judged(shifted, sample, PREPROCESSING)[:4] == (2, 2, 0, 0)
    false = maps.copy()
    false[24, 20, 20] = 0.9
    assert judged(false, sample, PREPROCESSING)[3] == 1
    assert judged(np.zeros_like(maps), sample, PREPROCESSING)[1] == 0
    assert peaks_mm(maps[24], 1.25).tolist() == [[100.0, 100.0], [150.0, 110.0]]


def test_held_out_windows_are_the_same_every_time(painted):
    one, two = (held_out_samples([painted], [dotted()], PREPROCESSING) for _ in range(2))
    assert [source for source, _ in one].count("real") == 12 and len(one) == 15
    assert all(np.array_equal(a.image, b.image) for (_, a), (_, b) in zip(one, two))


@pytest.mark.parametrize("name, classes", [("discs_starter", 25), ("discs_hourglass", 11),
                                           ("discs_hourglass_no_attention", 11)])  # fmt: skip
def test_recipes_read_and_fit_their_networks(name, classes):
    recipe = Recipe.read(name)
    assert recipe.preprocessing.classes == classes == recipe["architecture"]["arguments"]["classes"]
    assert recipe.preprocessing.input_shape[1] == recipe["architecture"]["arguments"]["in_channels"]
    assert Recipe.read("discs_hourglass", ("preset=sane",))["fitting"]["absent"] is True


@pytest.mark.slow
def test_a_run_paints_learns_and_writes_a_model(tmp_path):
    from NeuraxisLib.models import load_model

    small = ["simulation.spines=2", "fitting.steps=2", "fitting.batch=2", "architecture.arguments.width=8",
             "fitting.shares={synthetic=1.0}", "fitting.validate_every=2"]  # fmt: skip
    words = ["discs_starter", str(tmp_path / "m.safetensors"), "--run", str(tmp_path / "run"), "--device", "cpu"]
    words += ["--threads", "1", "--workers", "1", *(part for text in small for part in ("--set", text))]
    assert train.main(words) == 0
    header = load_model(tmp_path / "m.safetensors", "discs").header
    assert header["preprocessing"] == PREPROCESSING.to_dict() and header["labels"]["25"] == "L5/S1"
    assert header["notice"].startswith("Trained on simulation")
