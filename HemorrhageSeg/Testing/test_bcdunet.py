"""BCDU-Net and MCGU-Net: the ConvLSTM step by step as Keras computes it, and how the parts are wired."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from network_formulas import as_numpy, below, convolve, normalise, randomise, run, upsample
from torch import nn

from HemorrhageSegLib.networks.bcdunet import BCDUNet, Bottleneck, ConvLSTM, MCGUNet, SqueezeExcite, Up, he_normal


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(0.2 * x + 0.5, 0, 1)


def conv_lstm(steps: list[np.ndarray], state: dict) -> np.ndarray:
    """Keras' ConvLSTM2D one step after the other, from zero states; gates in the order i, f, c, o."""
    filters = state["recurrent.weight"].shape[1]
    hidden = cell = np.zeros((filters, *steps[0].shape[1:]))
    for step in steps:
        gates = convolve(step, state["input.weight"], state["input.bias"]) + convolve(hidden, state["recurrent.weight"])
        i, f, c, o = np.split(gates, 4)
        cell = hard_sigmoid(f) * cell + hard_sigmoid(i) * np.tanh(c)
        hidden = hard_sigmoid(o) * np.tanh(cell)
    return hidden


@pytest.mark.parametrize("count", [1, 2, 3])
def test_convlstm_step_by_step(count: int) -> None:
    module = randomise(ConvLSTM(3, 2))
    rng = np.random.default_rng(count)
    steps = [rng.normal(size=(3, 5, 6)) for _ in range(count)]
    with torch.inference_mode():
        found = module([torch.from_numpy(step)[None].float() for step in steps])[0].numpy()
    np.testing.assert_allclose(found, conv_lstm(steps, as_numpy(module)), atol=1e-6)


def test_convlstm_by_hand() -> None:
    """One pixel, one filter: every gate's sum is known, two of them beyond the corners of the hard sigmoid."""
    module = ConvLSTM(1, 1)
    with torch.no_grad():
        module.input.weight.zero_()
        module.input.weight[:, 0, 1, 1] = torch.tensor([1.0, 2.0, 0.5, 4.0])
        module.input.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
        module.recurrent.weight.zero_()
        module.recurrent.weight[:, 0, 1, 1] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        found = float(module([torch.full((1, 1, 1, 1), value) for value in (1.0, -2.0)]))
    cell = 0.7 * np.tanh(0.5)  # i: 0.2 * 1 + 0.5
    hidden = 1.0 * np.tanh(cell)  # o: 0.2 * 4 + 0.5 is cut at 1
    enter = 0.2 * (-2 + hidden) + 0.5
    cell = 0.0 * cell + enter * np.tanh(-1.0)  # f: 0.2 * (-4 + 1) + 0.5 is cut at 0
    assert found == pytest.approx(0.0 * np.tanh(cell), abs=1e-7)  # o: 0.2 * -8 + 0.5 is cut at 0
    with torch.no_grad():
        module.input.bias[3] = 9.0
        found = float(module([torch.full((1, 1, 1, 1), value) for value in (1.0, -2.0)]))
    assert found == pytest.approx(0.7 * np.tanh(cell), abs=1e-6)  # o: 0.2 * (-8 + 9) + 0.5


def test_convlstm_starts_as_keras_starts_it() -> None:
    torch.manual_seed(0)
    module = ConvLSTM(64, 32)
    np.testing.assert_array_equal(module.input.bias.detach().reshape(4, 32)[:, 0], [0, 1, 0, 0])
    assert module.recurrent.bias is None
    rows = module.recurrent.weight.detach().flatten(1)
    np.testing.assert_allclose(rows @ rows.T, np.eye(128), atol=1e-5)
    weight = module.input.weight.detach()
    std = np.sqrt(2 / (64 * 9))
    assert float(weight.std()) == pytest.approx(std, rel=0.02)
    assert 0.98 < float(weight.abs().max()) / (2 * std / 0.87962566) <= 1  # cut at two standard deviations


def test_fan_in_of_a_transposed_convolution_is_keras_own() -> None:
    torch.manual_seed(0)
    weight = he_normal(nn.ConvTranspose2d(16, 64, 2, stride=2)).weight.detach()
    assert float(weight.std()) == pytest.approx(np.sqrt(2 / (64 * 4)), rel=0.03)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("attention", [False, True])
def test_a_step_up_reads_the_upsampled_map_first_then_the_skip(bidirectional: bool, attention: bool) -> None:
    module = randomise(Up(4, 32, 2, bidirectional, attention), seed=1)
    state = as_numpy(module)
    rng = np.random.default_rng(2)
    x, skip = rng.normal(size=(4, 3, 4)), rng.normal(size=(32, 6, 8))

    def attend(y: np.ndarray, name: str) -> np.ndarray:
        if not attention:
            return y
        own = below(state, name)
        squeezed = np.maximum(own["squeeze.weight"] @ y.mean(axis=(1, 2)) + own["squeeze.bias"], 0)
        scale = own["excite.weight"] @ squeezed + own["excite.bias"]
        return y / (1 + np.exp(-scale))[:, None, None]

    up = attend(upsample(x, state["up.weight"], state["up.bias"]), "attend_up.")
    up = np.maximum(normalise(up, below(state, "norm.")), 0)
    merged = conv_lstm([up, skip], below(state, "backward_lstm."))
    if bidirectional:
        merged = merged + conv_lstm([skip, up], below(state, "forward_lstm."))
    for layer in (0, 2):
        merged = convolve(merged, state[f"convolutions.{layer}.weight"], state[f"convolutions.{layer}.bias"])
        merged = np.maximum(merged, 0)
    np.testing.assert_allclose(run(module, x, skip), attend(merged, "attend."), atol=2e-4)


def test_squeeze_narrows_to_a_sixteenth_with_biases() -> None:
    assert sum(parameter.numel() for parameter in SqueezeExcite(256).parameters()) == 2 * 256 * 16 + 16 + 256


def test_the_third_block_reads_the_second_and_the_first() -> None:
    module = randomise(Bottleneck(2, 4, 3), seed=3)
    x = torch.randn(1, 2, 6, 6)
    with torch.inference_mode():
        first = module.first(x)
        second = module.second(first)
        np.testing.assert_allclose(module(x), module.third(torch.cat([second, first], dim=1)), rtol=1e-5)
    assert [len(block) for block in (module.first, module.second[0], module.third[0])] == [4, 4, 4]


def test_dropout_in_training_spares_what_is_pooled() -> None:
    torch.manual_seed(0)
    network = BCDUNet(1, 8).train()
    seen: dict[str, torch.Tensor] = {}
    network.encoder[2].register_forward_hook(lambda _, args, y: seen.update(encoded=y.detach().clone()))
    network.bottleneck.register_forward_hook(lambda _, args, y: seen.update(pooled=args[0].detach(), deep=y.detach()))
    network.decoder[0].register_forward_pre_hook(lambda _, args: seen.update(skip=args[1].detach()))
    network(torch.randn(1, 1, 64, 64))
    assert torch.equal(seen["pooled"], nn.functional.max_pool2d(seen["encoded"], 2))
    kept = seen["skip"] != 0
    positive = seen["encoded"] > 0
    assert float(kept[positive].float().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.allclose(seen["skip"][kept], 2 * seen["encoded"][kept])


def test_mcgu_net_drops_nothing_in_its_encoder() -> None:
    torch.manual_seed(0)
    network = MCGUNet(1, 8).train()
    skips = []
    network.decoder[0].register_forward_pre_hook(lambda _, args: skips.append(args[1].detach()))
    first = []
    network.bottleneck.first.register_forward_hook(lambda _, args, y: first.append(y.detach().clone()))
    x = torch.randn(1, 1, 32, 32)
    network(x), network(x)
    assert torch.equal(*skips) and torch.equal(*first)
    assert isinstance(network.bottleneck.first_dropout, nn.Identity)
    assert network.bottleneck.second[1].p == network.bottleneck.third[1].p == 0.5


def test_widths_of_every_level() -> None:
    with torch.device("meta"):
        network = BCDUNet(3, 64, 1)
    assert [block[-2].out_channels for block in network.encoder] == [64, 128, 256]
    assert network.bottleneck.first[0].out_channels == 512
    assert [up.backward_lstm.recurrent.in_channels for up in network.decoder] == [128, 64, 32]
    assert [up.convolutions[-2].out_channels for up in network.decoder] == [256, 128, 64]
    wide = MCGUNet(3, 8)
    assert [len(block) // 2 for block in wide.encoder] == [2, 2, 3] and len(wide.bottleneck.first) // 2 == 3
    assert [up.backward_lstm.recurrent.in_channels for up in wide.decoder] == [32, 16, 8]
    assert {(m.eps, m.momentum) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.01)}


def test_the_head_narrows_to_two_maps_before_the_logit() -> None:
    network = randomise(BCDUNet(1, 4), seed=4)
    assert (network.narrow[0].out_channels, network.narrow[0].kernel_size) == (2, (3, 3))
    nn.init.zeros_(network.head.weight)
    nn.init.constant_(network.head.bias, -3.0)
    np.testing.assert_allclose(run(network, np.ones((1, 16, 24))), np.full((1, 16, 24), -3.0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BCDUNet(depth=2), "depth of 1 or 3"),
        (lambda: BCDUNet(base=5), "even number"),
        (lambda: MCGUNet(base=0), "even number"),
    ],
)
def test_impossible_arguments_say_why(build, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build()
