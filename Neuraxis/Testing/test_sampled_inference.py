"""Several predictions of one network: each random in the way its name says, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib.errors import ModelError
from NeuraxisLib.inference import SlicePredictor
from NeuraxisLib.sampled_inference import Augmentation, Sampler, with_statistics_of
from NeuraxisLib.window_inference import WindowPredictor


class Tiny(nn.Module):
    """A network with both dropout and BatchNorm, or with neither."""

    def __init__(self, drop: float = 0.4, norm: bool = True, dimensions: int = 2):
        super().__init__()
        torch.manual_seed(2)
        conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
        norms = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d
        drops = nn.Dropout2d if dimensions == 2 else nn.Dropout3d
        self.block = nn.Sequential(conv(1, 8, 3, padding=1), norms(8) if norm else nn.Identity(), nn.ReLU())
        self.drop = drops(drop)
        self.head = conv(8, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * self.head(self.drop(self.block(x)))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    scale = np.array([0.3, 1, 2, 0.5, 3, 1, 0.2, 4, 1])[:, None, None, None]
    return (np.random.default_rng(6).normal(size=(9, 1, 24, 32)) * scale).astype(np.float32)


def passes(method: str, network: nn.Module, pictures: np.ndarray, count: int = 6, seed: int = 0) -> np.ndarray:
    """(passes, n, 1, H, W) probabilities."""
    sampler = Sampler(method, SlicePredictor, "cpu", "auto", count, seed)
    predictors = sampler.predictors(network.eval(), "tiny", pictures.__getitem__, len(pictures))
    return np.stack([predictor.predict(pictures.__getitem__, len(pictures)) for predictor in predictors])


def plain(network: nn.Module, pictures: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.sigmoid(network.eval()(torch.from_numpy(pictures))).numpy()


@pytest.mark.parametrize("method", ["mc_dropout", "mc_batchnorm", "tta"])
def test_passes_differ_and_follow_the_seed(pictures: np.ndarray, method: str) -> None:
    network = Tiny()
    first, again, other = (passes(method, network, pictures, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert len(np.unique(first.reshape(6, -1), axis=0)) >= 4  # two batches of images may be the same by chance
    assert ((first > 0) & (first < 1)).all()


def test_pytorch_s_own_random_numbers_go_on_as_before(pictures: np.ndarray) -> None:
    network = Tiny()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    passes("mc_dropout", network, pictures, count=2)
    torch.testing.assert_close(torch.rand(3), expected)


def test_dropout_drops_whole_features_at_its_rate(pictures: np.ndarray) -> None:
    """The mean over many passes tends to the plain prediction where the network is nearly linear."""
    network = Tiny(drop=0.3, norm=False)
    with torch.no_grad():
        network.head.weight *= 0.02
    found = passes("mc_dropout", network, pictures[:1], count=200).mean(axis=0)
    expected = plain(network, pictures[:1])
    np.testing.assert_allclose(found, expected, atol=0.15 * np.abs(expected - 0.5).max())


def test_a_plain_prediction_never_drops(pictures: np.ndarray) -> None:
    from torch.nn import functional

    class Always(nn.Dropout):
        """Drops in every mode, as SLEX-Net's released code does."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(x, self.p, training=True) if self.p else x

    network = Tiny()
    expected = plain(network, pictures)
    network.drop = Always(0.4)
    found = SlicePredictor(network.eval(), "cpu", "float32").predict(pictures.__getitem__, 9)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(passes("mc_dropout", network, pictures)[0] - expected).max() > 1e-3
    assert network.drop.p == 0.4


def test_statistics_are_those_of_the_batch(pictures: np.ndarray) -> None:
    network = Tiny(drop=0.0).eval()
    batch = pictures[[1, 4, 7]]
    found = with_statistics_of(network, batch)
    features = network.block[0](torch.from_numpy(batch)).detach()
    torch.testing.assert_close(found.block[1].running_mean, features.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.block[1].running_var, features.var(dim=(0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert not found.training and not any(module.training for module in found.modules())
    torch.testing.assert_close(network.block[1].running_mean, torch.zeros(8))  # the network itself stays
    with torch.no_grad():
        in_training = torch.sigmoid(network.train()(torch.from_numpy(batch))).numpy()
    np.testing.assert_allclose(plain(found, batch), in_training, atol=1e-3)


def test_each_pass_takes_the_statistics_of_other_images(pictures: np.ndarray, monkeypatch) -> None:
    asked: list[list[int]] = []

    def images(numbers: np.ndarray) -> np.ndarray:
        asked.append(list(numbers))
        return pictures[numbers]

    sampler = Sampler("mc_batchnorm", SlicePredictor, "cpu", "auto", 5, 0)
    assert len(list(sampler.predictors(Tiny().eval(), "tiny", images, 9))) == 5
    assert {len(numbers) for numbers in asked} == {3}  # a third of them
    assert len({tuple(numbers) for numbers in asked}) > 2


@pytest.mark.parametrize(
    ("method", "network", "named"),
    [
        ("mc_dropout", Tiny(drop=0.0), "needs a network with dropout, and the model 'tiny' has none"),
        ("mc_batchnorm", Tiny(norm=False), "needs a network with BatchNorm, and the model 'tiny' has none"),
    ],
)
def test_a_method_that_does_not_apply_is_refused(pictures, method, network, named) -> None:
    with pytest.raises(ModelError, match=named):
        passes(method, network, pictures)


# -- augmentation ---------------------------------------------------------------------------------------------


def blob(shape: tuple[int, ...], places: tuple[float, float], width: float = 3.0) -> torch.Tensor:
    """A smooth spot in the plane of axes 2 and 3, the same along the rest."""
    rows, columns = torch.arange(shape[2])[:, None], torch.arange(shape[3])[None]
    spot = torch.exp(-((rows - places[0]) ** 2 + (columns - places[1]) ** 2) / (2 * width**2))
    return spot.reshape(1, 1, shape[2], shape[3], *[1] * (len(shape) - 4)).expand(shape).contiguous()


@pytest.mark.parametrize(("shape", "side"), [((2, 1, 60, 80), 3), ((1, 2, 80, 60, 5), 2)])
@pytest.mark.parametrize("mirror", [False, True])
def test_the_view_and_the_way_back(shape, side, mirror) -> None:
    augmentation = Augmentation(mirror, 12.0, 1.08, 0.0, side)
    image = blob(shape, (shape[2] / 2 - 3, shape[3] / 2 + 2), width=5.0)
    seen: list[torch.Tensor] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    back = augmentation(network, image)
    assert back.shape == image.shape
    assert (seen[0] - image).abs().max() > 0.05
    torch.testing.assert_close(back, image, atol=0.03, rtol=0)


def test_a_turn_is_a_turn_on_oblong_images() -> None:
    """A spot 20 pixels from the centre stays 20 pixels from it, 90 degrees on, enlarged by 1.5 to 30."""
    image = blob((1, 1, 81, 121), (40, 80), width=2.0)
    for scale, expected in ((1.0, 20.0), (1.5, 30.0)):
        seen = Augmentation(False, 90.0, scale, 0.0, 3)._view(image)[0, 0]
        row, column = np.unravel_index(int(seen.argmax()), seen.shape)
        assert abs(row - 40) == pytest.approx(expected, abs=1)
        assert column == pytest.approx(60, abs=1)


def test_mirroring_exchanges_the_patient_s_sides() -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    torch.testing.assert_close(Augmentation(True, 0.0, 1.0, 0.0, 3)._view(image), image.flip(3))
    torch.testing.assert_close(Augmentation(True, 0.0, 1.0, 0.0, 2)._view(image), image.flip(2))


def test_the_first_pass_of_augmentation_is_the_image_itself(pictures: np.ndarray) -> None:
    network = Tiny(drop=0.0)
    np.testing.assert_allclose(passes("tta", network, pictures, count=2)[0], plain(network, pictures), atol=1e-5)


@pytest.mark.parametrize("method", ["mc_dropout", "mc_batchnorm", "tta"])
def test_volume_networks_are_sampled_too(method: str) -> None:
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 8)).astype(np.float32)
    windows = [(slice(0, 16), slice(0, 16), slice(start, start + 4)) for start in (0, 4)]
    images = lambda numbers: np.stack([image[(slice(None), *windows[n])] for n in numbers])  # noqa: E731
    sampler = Sampler(method, WindowPredictor, "cpu", "auto", 3, 0)
    found = [p.predict(image, windows) for p in sampler.predictors(Tiny(dimensions=3).eval(), "tiny", images, 2)]
    assert found[0].shape == (1, 16, 16, 8)
    if method != "mc_batchnorm":  # two windows are all there is, so every batch is the same
        assert np.abs(found[1] - found[2]).max() > 1e-3
