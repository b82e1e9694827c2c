"""DR-UNet: its published size, and its units against a formulation in numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from network_formulas import as_numpy, below, convolve, normalise, randomise, run, upsample
from torch import nn

from HemorrhageSegLib.networks.drunet import DRUNet, Level, Unit, Up
from HemorrhageSegLib.networks.drunet_inference import DRUNetPredictor, FusedDRUNet, elu_
from NeuraxisLib.inference import foreground

# -- an independent formulation: channels first, one image, float64 --------------------------------------------


def elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def layer(x: np.ndarray, state: dict, name: str, activate: bool = True) -> np.ndarray:
    own = below(state, name + ".")
    x = convolve(x, own["0.weight"], own["0.bias"])
    x = normalise(x, below(own, "1."))
    return elu(x) if activate else x


def unit(x: np.ndarray, state: dict, name: str = "") -> np.ndarray:
    main = layer(layer(x, state, f"{name}main.0"), state, f"{name}main.1")
    return elu(layer(main, state, f"{name}main.2", activate=False) + layer(x, state, f"{name}side"))


# -- size -----------------------------------------------------------------------------------------------------


def test_parameter_count_is_the_published_one() -> None:
    network = DRUNet()
    assert sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) == 10_953_249
    statistics = [value for name, value in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    assert sum(value.numel() for value in statistics) == 25_056


def test_the_first_unit_by_hand() -> None:
    """RDRCU-1 of the first level, 16 -> 8: weights, biases, and two numbers per BatchNorm channel."""
    main = (16 * 8 + 8) + (8 * 8 * 9 + 8) + (8 * 8 * 9 + 8)
    side = 16 * 8 + 8
    norms = 4 * 2 * 8
    assert sum(parameter.numel() for parameter in DRUNet().encoder[0][0].parameters()) == main + side + norms


def test_widths_of_every_level() -> None:
    network = DRUNet(3, 16, 2)
    assert [level[1].side[0].out_channels for level in network.encoder] == [16, 32, 64, 128, 256]
    assert network.bottleneck[1].side[0].out_channels == 512
    assert [up.up.out_channels for up in network.decoder] == [256, 128, 64, 32, 16]
    assert (network.stem[0].in_channels, network.stem[0].out_channels) == (3, 8)
    assert (network.head.in_channels, network.head.out_channels) == (16, 2)


# -- function -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "quarter", "outputs"), [(16, 8, 8), (8, 8, 32)])
def test_a_unit_is_what_the_specification_says(inputs: int, quarter: int, outputs: int) -> None:
    module = randomise(Unit(inputs, quarter, outputs))
    x = np.random.default_rng(1).normal(size=(inputs, 9, 11))
    np.testing.assert_allclose(run(module, x), unit(x, as_numpy(module)), atol=2e-5)


def test_an_up_step_is_what_the_specification_says() -> None:
    """Transposed convolution, then [up, skip] in this order, BatchNorm, ELU, two units."""
    module = randomise(Up(8))
    rng = np.random.default_rng(2)
    x, skip = rng.normal(size=(16, 3, 4)), rng.normal(size=(8, 6, 8))
    state = as_numpy(module)
    up = upsample(x, state["up.weight"], state["up.bias"])
    merged = elu(normalise(np.concatenate([up, skip]), below(state, "norm.0.")))
    expected = unit(unit(merged, state, "level.0."), state, "level.1.")
    np.testing.assert_allclose(run(module, x, skip), expected, atol=2e-5)


def test_a_level_narrows_to_a_quarter_and_widens_again() -> None:
    module = randomise(Level(16, 32))
    x = np.random.default_rng(3).normal(size=(16, 5, 6))
    inner = run(module[0], x)
    assert inner.shape == (8, 5, 6)
    np.testing.assert_allclose(run(module, x), run(module[1], inner), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (256, 32)])
def test_sizes_divisible_by_32_come_back_as_they_were(height: int, width: int) -> None:
    x = np.zeros((1, height, width))
    assert run(randomise(DRUNet(1, 4)), x).shape == (1, height, width)


def test_other_sizes_fail() -> None:
    with pytest.raises(RuntimeError):
        run(randomise(DRUNet(1, 4)), np.zeros((1, 48, 32)))


def test_skips_join_the_level_of_their_own_size() -> None:
    """A pixel depends on far ones through the bottleneck, but most on its neighbours, through the first skip."""
    network = randomise(DRUNet(1, 4))
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    network(x)[0, 0, 32, 32].backward()
    reach = (x.grad[0, 0] != 0).nonzero()
    assert reach.min() < 10
    assert reach.max() > 54
    assert x.grad[0, 0, 30:35, 30:35].abs().mean() > 3 * x.grad[0, 0, :8, :8].abs().mean()


def test_an_output_is_a_logit_not_a_probability() -> None:
    network = randomise(DRUNet(1, 4))
    nn.init.constant_(network.head.weight, 0.0)
    nn.init.constant_(network.head.bias, -3.0)
    np.testing.assert_allclose(run(network, np.ones((1, 32, 32))), -3.0)


def test_batch_norm_has_the_constants_of_the_released_code() -> None:
    norms = [module for module in DRUNet(1, 4).modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("base", [0, 3, 6])
def test_base_must_be_a_multiple_of_four(base: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        DRUNet(1, base)


# -- predicting on the processor ------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "base", "outputs"), [(1, 4, 1), (4, 16, 1), (3, 8, 2)])
def test_fewer_steps_give_the_same(inputs: int, base: int, outputs: int) -> None:
    network = randomise(DRUNet(inputs, base, outputs))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pictures = np.random.default_rng(4).normal(size=(5, inputs, 64, 96)).astype(np.float32)
    predictor = DRUNetPredictor(network, "cpu", "float32")
    predictor.batch = 3
    found = predictor.predict(pictures.__getitem__, 5)
    with torch.inference_mode():
        expected = foreground(network(torch.from_numpy(pictures))).numpy()
    assert isinstance(predictor._ready["float32"], FusedDRUNet)
    np.testing.assert_allclose(found, expected, rtol=0, atol=min(1e-4, 0.01 * expected.std()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_bfloat16_takes_the_network_as_it_is() -> None:
    network = randomise(DRUNet(1, 4))
    pictures = np.random.default_rng(5).normal(size=(2, 1, 32, 32)).astype(np.float32)
    rough = DRUNetPredictor(network, "cpu", "bfloat16").predict(pictures.__getitem__, 2)
    exact = DRUNetPredictor(network, "cpu", "float32").predict(pictures.__getitem__, 2)
    assert 0 < np.abs(rough - exact).max() < 0.1


def test_elu_from_powers_of_two() -> None:
    values = torch.cat([torch.linspace(-200, 200, 10_001), torch.logspace(-30, 2, 99), -torch.logspace(-30, 2, 99)])
    values = torch.cat([values, torch.tensor([0.0, -0.0, torch.inf, -torch.inf])])
    expected = nn.functional.elu(values.double())
    torch.testing.assert_close(elu_(values.clone()).double(), expected, atol=1.2e-7, rtol=0)
    assert elu_(torch.tensor([torch.nan])).isnan()
