"""SLEX-Net sliding over a head: the plain network's numbers with a third of its backbone passes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from HemorrhageSegLib.networks.slex_inference import SlexPredictor
from HemorrhageSegLib.networks.slexnet import SLEXNet
from NeuraxisLib.preprocessing import Channel, SlicePreprocessing

STACK = tuple(Channel(offset, 0.0, 80.0) for offset in (-1, 0, 1))
SLICES = 10


@pytest.fixture(scope="module")
def slabs() -> np.ndarray:
    return np.random.default_rng(8).normal(40, 20, (SLICES, 32, 32)).astype(np.float32)


def network(**arguments) -> SLEXNet:
    torch.manual_seed(4)
    made = SLEXNet(**{"base": 4, **arguments})
    for name, value in made.named_buffers():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape) * 0.1)
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape) + 0.5)
    return made.eval()


def looks(channels: tuple[Channel, ...] = STACK, normalisation: str = "window") -> SlicePreprocessing:
    return SlicePreprocessing(32, 0.0, 5.0, channels, normalisation)


def plain(made: SLEXNet, images: np.ndarray) -> np.ndarray:
    """(n, 2, H, W): probability of the answer and the mean of the three paths, by the network as it is."""
    with torch.inference_mode():
        paths = made.paths(torch.from_numpy(images))
        chance = [path.softmax(1)[:, 1:] if path.shape[1] == 2 else path.sigmoid() for path in paths]
    return torch.cat([chance[3], (chance[0] + chance[1] + chance[2]) / 3], dim=1).numpy()


def counted(predictor: SlexPredictor) -> Counter:
    """Slices that go through the backbone and through the SEM from now on."""
    count: Counter = Counter()
    ready = predictor._ready["float32"]
    for name, module in (("backbone", ready.backbone), ("SEM", ready.SMM)):
        module.register_forward_hook(lambda module, inputs, output, name=name: count.update({name: len(output)}))
    return count


@pytest.mark.parametrize("arguments", [{}, {"sem": "se"}, {"out_channels": 1}, {"drop_rate": 0.3}])
@pytest.mark.parametrize("batch", [1, 4])
def test_sliding_gives_what_the_plain_network_gives(slabs, arguments, batch) -> None:
    made = network(**arguments)
    predictor = SlexPredictor(made, "cpu", "float32")
    predictor.batch = batch
    found = predictor.predict(lambda numbers: looks().images(slabs, numbers), SLICES)
    quiet = network(**{**arguments, "drop_rate": 0.0})
    quiet.load_state_dict(made.state_dict())
    assert found.shape == (SLICES, 2, 32, 32)
    np.testing.assert_allclose(found, plain(quiet, looks().images(slabs)), atol=1e-5)
    assert np.ptp(found[:, 0]) > 0.01


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_each_backbone_slice_is_computed_once(slabs, batch) -> None:
    predictor = SlexPredictor(network(), "cpu", "float32")
    predictor.batch = batch
    count = counted(predictor)
    predictor.predict(lambda numbers: looks().images(slabs, numbers), SLICES)
    assert count == {"backbone": SLICES, "SEM": 2 * SLICES}  # the released scheme: 3 and 2 per slice


def test_mirrored_slices_are_computed_once_as_well(slabs) -> None:
    predictor = SlexPredictor(network(), "cpu", "float32")
    count = counted(predictor)
    found = predictor.predict(lambda numbers: looks().images(slabs, numbers), SLICES, flip=True)
    assert count == {"backbone": 2 * SLICES, "SEM": 4 * SLICES}
    images = looks().images(slabs)
    both = plain(network(), images), plain(network(), images[..., ::-1].copy())[..., ::-1]
    np.testing.assert_allclose(found, sum(both) / 2, atol=1e-5)


def test_stacks_normalised_apart_share_nothing_and_stay_right(slabs) -> None:
    predictor = SlexPredictor(network(), "cpu", "float32")
    count = counted(predictor)
    made = looks(normalisation="zscore")
    found = predictor.predict(lambda numbers: made.images(slabs, numbers), SLICES)
    np.testing.assert_allclose(found, plain(network(), made.images(slabs)), atol=1e-5)
    assert count["backbone"] > 2 * SLICES


def test_slices_of_several_windows_and_with_gaps(slabs) -> None:
    channels = tuple(Channel(offset, 0.0, high) for offset in (-1, 0, 1) for high in (80.0, 200.0))
    made, chosen = network(in_channels=6), np.array([0, 1, 2, 6, 7, 9])
    predictor = SlexPredictor(made, "cpu", "float32")
    count = counted(predictor)
    found = predictor.predict(lambda numbers: looks(channels).images(slabs, chosen[numbers]), len(chosen))
    np.testing.assert_allclose(found, plain(made, looks(channels).images(slabs, chosen)), atol=1e-5)
    assert count["backbone"] == 9  # slices 0 to 3 and 5 to 9


def test_another_head_is_not_mistaken_for_the_last_one(slabs) -> None:
    predictor = SlexPredictor(network(), "cpu", "float32")
    for head in (slabs, slabs + 3, slabs[::-1]):
        found = predictor.predict(lambda numbers, head=head: looks().images(head, numbers), SLICES)
        np.testing.assert_allclose(found, plain(network(), looks().images(head)), atol=1e-5)


def test_little_is_kept(slabs) -> None:
    predictor = SlexPredictor(network(), "cpu", "float32")
    predictor.predict(lambda numbers: looks().images(slabs, numbers), SLICES, flip=True)
    assert len(predictor._logits) <= 6


def test_half_precision_is_near(slabs) -> None:
    found = SlexPredictor(network(), "cpu", "bfloat16").predict(lambda n: looks().images(slabs, n), SLICES)
    np.testing.assert_allclose(found, plain(network(), looks().images(slabs)), atol=0.02)
