"""SLEX-Net and its 2-D U-Net: names and values of the released code, the sum of the paths, dropout, sliding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from network_formulas import as_numpy, below, convolve, normalise, randomise, run
from torch import nn

from HemorrhageSegLib.networks.slexnet import SEBlock, SLEXNet, SLEXNetMultiSlice
from HemorrhageSegLib.networks.unet2d import DoubleConv, Down, MonteCarloDropout, UNet2D, Up, set_drop_rate
from NeuraxisLib.inference import fold_batch_norm


def double_conv(x: np.ndarray, state: dict, name: str = "double_conv.") -> np.ndarray:
    for conv, norm in ((0, 1), (3, 4)):
        x = convolve(x, state[f"{name}{conv}.weight"], state[f"{name}{conv}.bias"])
        x = np.maximum(normalise(x, below(state, f"{name}{norm}."), eps=1e-5), 0)
    return x


def pool(x: np.ndarray) -> np.ndarray:
    channels, height, width = x.shape
    return x.reshape(channels, height // 2, 2, width // 2, 2).max(axis=(2, 4))


def bilinear(x: np.ndarray) -> np.ndarray:
    """Twice the size; the corner pixels stay where they are."""
    for axis in (1, 2):
        places = np.linspace(0, x.shape[axis] - 1, 2 * x.shape[axis])
        x = np.apply_along_axis(lambda line, at=places: np.interp(at, np.arange(len(line)), line), axis, x)
    return x


# -- the U-Net --------------------------------------------------------------------------------------------------


def test_two_convolutions_are_what_the_specification_says() -> None:
    module = randomise(DoubleConv(2, 3))
    x = np.random.default_rng(0).normal(size=(2, 7, 6))
    np.testing.assert_allclose(run(module, x), double_conv(x, as_numpy(module)), atol=1e-5)


def test_a_step_down_pools_then_convolves() -> None:
    module = randomise(Down(2, 3, 0.0))
    x = np.random.default_rng(1).normal(size=(2, 8, 6))
    expected = double_conv(pool(x), as_numpy(module), "maxpool_conv.1.double_conv.")
    np.testing.assert_allclose(run(module, x), expected, atol=1e-5)


@pytest.mark.parametrize(("size", "padding"), [((6, 8), (0, 0)), ((7, 9), (0, 0)), ((8, 11), (1, 1))])
def test_a_step_up_puts_the_skip_first_and_pads_left_and_top_with_the_smaller_half(size, padding) -> None:
    module = randomise(Up(5, 3, 0.0))
    rng = np.random.default_rng(2)
    x, skip = rng.normal(size=(2, 3, 4)), rng.normal(size=(3, *size))
    up = np.zeros((2, *size))
    up[:, padding[0] : padding[0] + 6, padding[1] : padding[1] + 8] = bilinear(x)
    expected = double_conv(np.concatenate([skip, up]), as_numpy(module), "conv.double_conv.")
    np.testing.assert_allclose(run(module, x, skip), expected, atol=1e-5)


def test_the_whole_unet_is_the_sum_of_its_parts() -> None:
    """Four poolings, widths 1-2-4-8-8, decoder 4-2-1-1, a 1x1 convolution: written out once, in numpy."""
    network = randomise(UNet2D(1, 2))
    state = as_numpy(network)
    x = np.random.default_rng(3).normal(size=(1, 32, 32))
    levels = [double_conv(x, state, "inc.double_conv.")]
    for number in range(1, 5):
        levels.append(double_conv(pool(levels[-1]), state, f"down{number}.maxpool_conv.1.double_conv."))
    assert [len(level) for level in levels] == [2, 4, 8, 16, 16]
    y = levels.pop()
    for number, width in zip(range(1, 5), (8, 4, 2, 2)):
        y = double_conv(np.concatenate([levels.pop(), bilinear(y)]), state, f"up{number}.conv.double_conv.")
        assert len(y) == width
    expected = convolve(y, state["outc.conv.weight"], state["outc.conv.bias"])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(network, x) / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (50, 37), (64, 48)])
def test_any_size_comes_back_as_it_was(size: tuple[int, int]) -> None:
    assert run(randomise(UNet2D(1, 2)), np.zeros((1, *size))).shape == (2, *size)


def test_weights_start_as_kaiming_says() -> None:
    torch.manual_seed(0)
    network = SLEXNet(base=16, sem="se")
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight.detach()
            if weight.numel() > 20_000:
                assert float(weight.std()) == pytest.approx(math.sqrt(2 / weight[0].numel()), rel=0.03)
                assert float(weight.mean()) == pytest.approx(0, abs=0.03 * float(weight.std()))
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()


# -- dropout ----------------------------------------------------------------------------------------------------


def test_dropout_stays_active_when_predicting() -> None:
    x = torch.randn(1, 1, 32, 32)
    for rate, differ in ((0.3, True), (0.0, False)):
        network = UNet2D(1, 4, drop_rate=rate).eval()
        with torch.inference_mode():
            assert torch.equal(network(x), network(x)) is not differ


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = MonteCarloDropout(0.3).eval()(torch.ones(100_000))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.allclose(dropped[dropped > 0], torch.tensor(1 / 0.7))


def test_dropout_sits_before_every_pooling_and_after_every_concatenation() -> None:
    torch.manual_seed(0)
    seen = {}

    def note(name: str):
        return lambda module, args: seen.update({name: float((args[0] == 0).float().mean())})

    down, up = Down(2, 3, 0.4), Up(5, 3, 0.4)
    down.maxpool_conv[0].register_forward_pre_hook(note("down"))
    up.conv.register_forward_pre_hook(note("up"))
    down(torch.ones(1, 2, 64, 64))
    up(torch.ones(1, 2, 32, 32), torch.ones(1, 3, 64, 64))
    assert seen == {"down": pytest.approx(0.4, abs=0.03), "up": pytest.approx(0.4, abs=0.03)}


def test_the_drop_rate_of_a_built_network_can_be_set() -> None:
    network = SLEXNet(base=2).eval()
    x = torch.randn(1, 3, 16, 16)
    assert set_drop_rate(network, 0.5) == 16
    assert not torch.equal(network(x), network(x))
    assert set_drop_rate(network, 0.0) == 16
    assert torch.equal(network(x), network(x))
    assert set_drop_rate(SLEXNet(base=2, sem="se"), 0.1) == 12  # the squeeze-and-excitation encoder has none
    with pytest.raises(ValueError, match="below 1"):
        set_drop_rate(network, 1.0)


# -- the sum of the paths -----------------------------------------------------------------------------------------


def maps(*values: float) -> torch.Tensor:
    """One pixel's logits, one per class."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("gap", "expansion", "backbone"), [(0.0, 0.2, 0.6), (1.0, 0.0736, 0.8528), (2.0, 0.00366, 0.9927)]
)
def test_shares_of_the_paths(gap: float, expansion: float, backbone: float) -> None:
    """Agreeing SEM paths get 0.2 each; with a gap of 1 0.074 each, of 2 0.004 each."""
    network = SLEXNet(base=1)
    middle = float(network.fuse(maps(-gap / 2), maps(gap / 2), maps(1.0)))
    assert middle == pytest.approx(backbone, abs=5e-5)
    both = float(network.fuse(maps(1 - gap / 2), maps(1 + gap / 2), maps(0.0)))
    assert both == pytest.approx(2 * expansion, abs=1e-4)
    assert middle == pytest.approx(1 - 0.4 * math.exp(-(gap**2)), rel=1e-12)


def test_a_sum_by_hand() -> None:
    """Each class has its own weight: exp(-(3 - 2)^2) for the first, exp(-(0.5 - 0)^2) for the second."""
    first, second = 0.2 * 0.36787944, 0.2 * 0.77880078
    fused = SLEXNet(base=1).fuse(maps(2.0, 0.0), maps(3.0, 0.5), maps(-1.0, 4.0))
    np.testing.assert_allclose(
        fused.ravel(),
        [(1 - 2 * first) * -1 + first * 5, (1 - 2 * second) * 4 + second * 0.5],
        rtol=1e-7,
    )


def test_consistency_is_the_largest_weight_of_a_path() -> None:
    agreeing = maps(1.0), maps(1.0), maps(0.0)
    assert float(SLEXNet(base=1, consistency=0.5).fuse(*agreeing)) == pytest.approx(1.0)
    assert float(SLEXNet(base=1, consistency=0.0).fuse(*agreeing)) == 0.0
    with pytest.raises(ValueError, match="between 0 and 0.5"):
        SLEXNet(base=1, consistency=0.6)


def test_half_precision_paths_are_summed_in_single_precision() -> None:
    paths = [(torch.randn(1, 2, 4, 4) * 8).bfloat16() for _ in range(3)]
    network = SLEXNet(base=1)
    fused = network.fuse(*paths)
    assert fused.dtype == torch.float32
    assert torch.equal(fused, network.fuse(*(path.float() for path in paths)))


# -- SLEX-Net -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sem", ["unet", "se"])
def test_each_path_reads_its_own_neighbour(sem: str) -> None:
    """Backward = SEM of (following slice, slice, the following slice's raw logit), forward with the preceding one."""
    network = randomise(SLEXNet(base=2, sem=sem), seed=4)
    before, target, after = images = [torch.randn(2, 1, 16, 16) for _ in range(3)]
    with torch.inference_mode():
        paths = network.paths(torch.cat(images, dim=1))
        backward = network.SMM(torch.cat([after, target, network.backbone(after)[:, 1:]], dim=1))
        forward = network.SMM(torch.cat([before, target, network.backbone(before)[:, 1:]], dim=1))
        centre = network.backbone(target)
        assert torch.equal(paths.fused, network(torch.cat(images, dim=1)))
    for found, expected in zip(paths, (backward, forward, centre, network.fuse(backward, forward, centre))):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not torch.allclose(paths.backward, paths.forward)


def test_names_are_those_of_the_released_checkpoints() -> None:
    state = SLEXNet(base=1).state_dict()
    unet = set(UNet2D(base=1).state_dict())
    assert set(state) == {f"{part}.{name}" for part in ("backbone", "SMM") for name in unet}
    layers = [0, 1, 3, 4]
    doubles = ["inc.double_conv", *(f"down{n}.maxpool_conv.1.double_conv" for n in range(1, 5))]
    doubles += [f"up{n}.conv.double_conv" for n in range(1, 5)]
    weights = {f"{double}.{layer}.weight" for double in doubles for layer in layers} | {"outc.conv.weight"}
    assert {name for name in unet if name.endswith(".weight")} == weights
    attention = {name for name in SLEXNet(base=1, sem="se").state_dict() if name.startswith("SMM.down3.")}
    assert {name for name in attention if name.endswith("weight")} == {
        f"SMM.down3.{name}.weight" for name in ("conv1", "bn1", "conv2", "bn2", "se.fc.0", "se.fc.2")
    }
    assert {name.split(".")[0] for name in SLEXNetMultiSlice(base=1).state_dict()} == {"backbone", "SEM"}


def test_a_squeeze_and_excitation_block_is_what_the_specification_says() -> None:
    module = randomise(SEBlock(3, 32))
    state = as_numpy(module)
    x = np.random.default_rng(5).normal(size=(3, 6, 8))
    y = np.maximum(normalise(convolve(x, state["conv1.weight"]), below(state, "bn1."), eps=1e-5), 0)
    y = normalise(convolve(y, state["conv2.weight"]), below(state, "bn2."), eps=1e-5)
    squeezed = np.maximum(state["se.fc.0.weight"] @ y.mean(axis=(1, 2)), 0)
    assert len(squeezed) == 2  # a sixteenth
    y *= (1 / (1 + np.exp(-state["se.fc.2.weight"] @ squeezed)))[:, None, None]
    np.testing.assert_allclose(run(module, x), np.maximum(pool(y), 0), atol=2e-4)


def test_a_slice_may_bring_several_channels() -> None:
    network = randomise(SLEXNet(in_channels=6, base=2, out_channels=1))
    assert network.backbone.inc.double_conv[0].in_channels == 2
    assert network.SMM.inc.double_conv[0].in_channels == 5
    x = torch.randn(1, 6, 16, 16)
    with torch.inference_mode():
        assert torch.equal(network.paths(x).centre, network.backbone(x[:, 2:4]))
        assert network(x).shape == (1, 1, 16, 16)


def test_sliding_needs_each_backbone_slice_once() -> None:
    network = randomise(SLEXNet(base=2), seed=6)
    scan = torch.randn(6, 1, 16, 16)
    calls = []
    network.backbone.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        logits = [network.backbone(image[None]) for image in scan]
        for k in range(1, 5):
            own = slice(k - 1, k + 2)
            sliding = network.paths_of_slices([image[None] for image in scan[own]], logits[own])
            assert len(calls) == 6
            whole = network.paths(scan[own].reshape(1, 3, 16, 16))
            for one, other in zip(sliding, whole):
                np.testing.assert_allclose(one, other, rtol=1e-5)
            del calls[6:]


def test_gradients_reach_both_networks_through_every_path() -> None:
    network = SLEXNet(base=2)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.backbone.outc.conv.weight.grad.abs().sum() > 0
    assert network.SMM.outc.conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("sem", ["unet", "se"])
def test_every_batch_norm_folds_into_its_convolution(sem: str) -> None:
    network = randomise(SLEXNet(base=2, sem=sem), seed=7)
    folded = fold_batch_norm(network)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        np.testing.assert_allclose(folded(x), network(x), rtol=1e-3, atol=1e-3 * float(network(x).abs().max()))


def test_multi_slice_sum_by_hand() -> None:
    weights = [0.05, 0.1, 0.5, 0.2, 0.15]
    network = randomise(SLEXNetMultiSlice(base=2, weights=weights), seed=8)
    x = torch.randn(1, 5, 16, 16)
    images = x.split(1, dim=1)
    with torch.inference_mode():
        expected = weights[2] * network.backbone(images[2])
        for k in (0, 1, 3, 4):
            hint = network.backbone(images[k])[:, 1:]
            expected = expected + weights[k] * network.SEM(torch.cat([images[k], images[2], hint], dim=1))
        np.testing.assert_allclose(network(x), expected, rtol=1e-4)


def test_three_slices_with_the_default_weights_are_slexnet_in_full_agreement() -> None:
    single, several = SLEXNet(base=2).eval(), SLEXNetMultiSlice(3, 3, base=2).eval()
    several.load_state_dict({k.replace("SMM.", "SEM."): v for k, v in single.state_dict().items()})
    assert several.weights == pytest.approx((0.2, 0.6, 0.2))
    image = torch.randn(1, 1, 16, 16)
    x = image.repeat(1, 3, 1, 1)  # both neighbours alike, so the SEM paths agree
    with torch.inference_mode():
        np.testing.assert_allclose(several(x), single(x), atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SLEXNet(in_channels=4), "multiple of 3"),
        (lambda: SLEXNet(sem="resnet"), "choose one of: unet, se"),
        (lambda: SLEXNet(base=0), "at least 1"),
        (lambda: SLEXNet(base=1, drop_rate=1.0), "below 1"),
        (lambda: SLEXNetMultiSlice(4, 4, base=1), "odd number"),
        (lambda: SLEXNetMultiSlice(5, 5, base=1, weights=[1.0]), "5 slices but 1 weights"),
        (lambda: SLEXNetMultiSlice(7, 5, base=1), "multiple of 5"),
    ],
)
def test_impossible_arguments_say_why(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
