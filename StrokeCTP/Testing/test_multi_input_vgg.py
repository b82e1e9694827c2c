"""The Stavanger network: sizes as published, what keeps it small, what is frozen when, VGG-16's weights from files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from NeuraxisLib.errors import InputError, ModelError
from StrokeCTPLib.map_preprocessing import MEAN_BGR
from StrokeCTPLib.networks.configurations import CONFIGURATIONS, MAPS, MIP
from StrokeCTPLib.networks.fine_tuning import enter, limit_norms, new_convolutions, penalty, stages
from StrokeCTPLib.networks.multi_input_vgg import CompactMultiInputVGG, MultiInputVGG, glorot_init
from StrokeCTPLib.networks.vgg_weights import read_vgg16, start_from, vgg16_layers
from Testing.keras_in_numpy import write_keras
from Training.losses_stroke import focal_tversky, weighted_focal_tversky

FIVE = (*MAPS, MIP)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def tiny(**arguments) -> MultiInputVGG:
    torch.manual_seed(0)
    return MultiInputVGG(**{"base": 8, "size": 64, **arguments}).eval()


# -- the network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maps", "scalars", "wanted"),
    [
        (MAPS, (), 85_269_139),
        (MAPS, ("nihss",), 85_296_219),
        (FIVE, (), 113_368_483),
        (FIVE, ("nihss",), 113_395_563),
    ],
)
def test_published_sizes(maps, scalars, wanted):
    with torch.device("meta"):
        network = MultiInputVGG(maps, scalars)
        assert count(network) == wanted
        assert count(network.branches["cbf"].vgg) == 14_714_688
        assert network(torch.empty(1, network.in_channels, 512, 512)).shape == (1, 3, 512, 512)


def test_compact_size():
    assert count(CompactMultiInputVGG(head=2)) == 1_339_793
    assert count(CompactMultiInputVGG()) == 1_347_227


def test_maps_may_meet_at_the_input():
    network = tiny(maps=("cbf", "mtt", "tmax"), map_channels=1, fusion="input", scalars=("nihss",))
    assert network.in_channels == 4 and list(network.branches) == ["all"]
    assert network.branches["all"].vgg.convolutions["block1_conv1"].in_channels == 3
    assert network(torch.rand(2, 4, 64, 64)).shape == (2, 3, 64, 64)
    assert count(network) < count(tiny(maps=("cbf", "mtt", "tmax"), map_channels=1, scalars=("nihss",)))


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
@pytest.mark.parametrize("norm", ["none", "tails", "everywhere"])
def test_outputs(classes, norm):
    network = tiny(out_channels=classes, norm=norm)
    assert network(torch.rand(2, 12, 64, 96)).shape == (2, classes, 64, 96)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert norms == {"none": 0, "tails": 4 + 2, "everywhere": 4 * 15 + 8 + 2}[norm]


def test_every_map_and_number_matters():
    network = tiny(maps=FIVE, scalars=("nihss", "age"), map_channels=1)
    x = torch.rand(1, 7, 64, 64)
    before = network(x)
    for channel in range(7):
        other = x.clone()
        other[:, channel] = 1 - other[:, channel] if channel < 5 else other[:, channel] + 30
        assert (network(other) - before).abs().max() > 1e-6 * before.abs().max(), channel


def test_a_number_is_read_at_the_centre():
    network = tiny(scalars=("nihss",))
    x = torch.rand(1, 13, 64, 64)
    x[:, 12] = 20
    turned = x.clone()
    turned[:, 12, :20] = 0  # padding that an augmentation brought in
    assert torch.equal(network(x), network(turned))


@pytest.mark.parametrize(
    "arguments",
    [{"maps": ("cbf", "cbf")}, {"maps": ()}, {"maps": ("flow",)}, {"scalars": ("age", "nihss")}, {"base": 6},
     {"out_channels": 5}, {"size": 100}, {"norm": "layer"}, {"fusion": "late"}],
)  # fmt: skip
def test_impossible_networks(arguments):
    with pytest.raises(ValueError, match="must be|1 to 4|no norm"):
        MultiInputVGG(**arguments)


@pytest.mark.parametrize("shape", [(1, 11, 64, 64), (1, 12, 60, 64), (1, 12, 0, 64)])
def test_impossible_images(shape):
    with pytest.raises(ValueError, match="reads 12 channels|multiples of 32"):
        tiny()(torch.zeros(shape))


def test_with_numbers_the_size_is_fixed():
    with pytest.raises(ValueError, match="must be 64 x 64"):
        tiny(scalars=("nihss",))(torch.zeros(1, 13, 96, 96))


def test_start_is_glorot_and_reproducible():
    network = tiny()
    weight = network.ups[1].convolutions[0].weight
    bound = (6 / (9 * (weight.shape[0] + weight.shape[1]))) ** 0.5
    assert 0.98 * bound < weight.abs().max() <= bound
    assert not network.head[0].bias.any()
    states = []
    for _ in range(2):
        glorot_init(network, torch.Generator().manual_seed(5))
        states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# -- penalty, max-norm, freezing ------------------------------------------------------------------------------


def test_new_convolutions_are_those_outside_vgg():
    with torch.device("meta"):
        network = MultiInputVGG(scalars=("nihss",))
    assert sum(module.weight.numel() + module.bias.numel() for module in new_convolutions(network)) == (
        85_296_219 - 4 * 14_714_688 - (200 + 25_856)  # the dense layers have no penalty either
    )


def test_penalty():
    network = tiny()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.zero_()
    for up in network.ups:
        up.up.weight.data.zero_()
    assert penalty(network).item() == 0
    network.head[0].weight.data.view(-1)[:2] = torch.tensor([3.0, -2.0])
    network.branches["cbf"].vgg.convolutions["block1_conv1"].weight.data.fill_(9)  # not new
    assert penalty(network).item() == pytest.approx(1e-6 * 5 + 1e-5 * 13)
    penalty(network).backward()
    assert network.head[0].weight.grad.view(-1)[0].item() == pytest.approx(1e-6 + 2e-5 * 3)


def test_max_norm_runs_over_rows_as_keras_has_it():
    network = tiny()
    kernel, bias = network.head[0].weight.data, network.head[0].bias.data
    kernel.zero_()
    kernel[0, 0, :, 1] = torch.tensor([3.0, 0.0, 4.0])  # norm 5 over the rows of one column
    kernel[0, 0, 0, 2] = 1.9
    bias.zero_()
    bias[:2] = torch.tensor([6.0, 8.0])[: len(bias)]
    up = network.ups[0].up.weight.data
    up.zero_()
    up[1, 2, :, 0] = torch.tensor([3.0, 4.0])
    up[1, 2, 0, 1] = 1.0
    vgg = network.branches["ttp"].vgg.convolutions["block2_conv1"].weight.data
    vgg.fill_(5.0)
    limit_norms(network)
    assert kernel[0, 0, :, 1].tolist() == pytest.approx([1.2, 0, 1.6], rel=1e-5)
    assert kernel[0, 0, 0, 2].item() == pytest.approx(1.9, rel=1e-5)
    assert bias.norm().item() == pytest.approx(2, rel=1e-5)
    assert up[1, 2, :, 0].tolist() == pytest.approx([1.2, 1.6], rel=1e-5)
    assert up[1, 2, 0, 1].item() == pytest.approx(1.0, rel=1e-5)
    assert bool((vgg == 5).all())


def test_regimes():
    assert [stage.name for stage in stages("F", MAPS)] == ["frozen"]
    assert [stage.name for stage in stages("U", MAPS)] == ["all"]
    assert [stage.name for stage in stages("G", MAPS)] == ["frozen", "blocks", "all"]
    assert [stage.name for stage in stages("G", MAPS, "full")] == ["frozen", "all"]
    assert len(stages("U", FIVE)[0].layers) == 5 * 13
    blocks = stages("G", MAPS)[1].layers
    assert len(blocks) == 4 * 6 and all(layer[:6] in ("block4", "block5") for _, layer in blocks)


@pytest.mark.parametrize(("maps", "late"), [(MAPS, {"ttp", "tmax"}), (FIVE, {"ttp", "tmax", "mip"})])
def test_half_as_the_released_code_counts_it(maps, late):
    half = stages("G", maps, "legacy_half")[1].layers
    assert {name for name, layer in half if layer == "block3_conv3"} == late
    assert {layer for _, layer in half} == {"block3_conv3", *(f"block{b}_conv{n}" for b in (4, 5) for n in (1, 2, 3))}
    assert len(half) == 6 * len(maps) + len(late)


def test_unknown_regimes():
    with pytest.raises(InputError, match="no regime 'X'"):
        stages("X", MAPS)
    with pytest.raises(InputError, match="no unfreezing 'slow'"):
        stages("G", MAPS, "slow")


@pytest.mark.parametrize("norm", ["none", "everywhere"])
def test_frozen_layers_stay(norm):
    network = tiny(norm=norm, dropout=0.0).train()
    parameters = enter(stages("G", MAPS)[1], network)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    optimiser = torch.optim.SGD(parameters, lr=1.0)
    network(torch.randn(2, 12, 64, 64)).square().sum().backward()
    optimiser.step()
    moved = {name for name, tensor in network.named_parameters() if not torch.equal(tensor, before[name])}
    frozen = {name for name in before if any(f".block{block}" in name for block in (1, 2, 3))}
    assert not moved & frozen
    assert any(".block4" in name for name in moved) and any(name.startswith("head") for name in moved)
    assert len(enter(stages("U", MAPS)[0], network)) == len(before)


def test_it_learns_with_its_loss_penalty_and_max_norm():
    torch.manual_seed(0)
    maps = ("cbf", "tmax")
    network = CompactMultiInputVGG(maps, base=4, size=32, dropout=0.0).train()
    truth = torch.zeros(4, 32, 32, dtype=torch.long)
    for image, (row, column) in enumerate([(4, 4), (16, 6), (8, 16), (14, 14)]):
        truth[image, row : row + 12, column : column + 12] = 1
        truth[image, row + 3 : row + 8, column + 3 : column + 8] = 2
    images = torch.stack([1 - 0.4 * truth, 0.2 + 0.3 * truth], 1) + 0.05 * torch.randn(4, 2, 32, 32)
    optimiser = torch.optim.Adam(enter(stages("U", maps)[0], network), lr=0.03)
    losses = []
    for _ in range(31):
        logits = network(images)
        losses.append(focal_tversky(logits, truth).mean().item())
        optimiser.zero_grad()
        (weighted_focal_tversky(logits, truth) + penalty(network)).backward()
        optimiser.step()
        limit_norms(network)
    assert losses[-1] < 0.8 * losses[0]


def test_configurations():
    assert len(CONFIGURATIONS) == 12
    assert {c.experiment for c in CONFIGURATIONS.values()} >= {"99.3", "93.3", "100.3", "100.887", "89.3"}
    assert CONFIGURATIONS["Stavanger_G_PmN"].unfreezing == "full"  # alone among the four
    assert CONFIGURATIONS["Stavanger_F_PmMN"].file == "Model_F(PMs,M,N).json"
    assert CONFIGURATIONS["Stavanger_F_Pm"].title == "Baseline"


# -- VGG-16 from files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torchvision_vgg() -> nn.Sequential:
    """``vgg16().features`` with random weights."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for name, (_, inputs, outputs) in vgg16_layers().items():
        if layers and name.endswith("conv1"):
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    return nn.Sequential(*layers, nn.MaxPool2d(2)).eval()


@pytest.fixture(scope="module")
def narrow() -> MultiInputVGG:
    """Branches as wide as VGG-16; one map, for speed."""
    return MultiInputVGG(maps=("cbf",)).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_weights_see_what_keras_networks_see(tmp_path, torchvision_vgg, narrow, suffix):
    state = {f"features.{name}": tensor for name, tensor in torchvision_vgg.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(2, 3)
    path = tmp_path / f"vgg16{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    start_from(narrow, read_vgg16(path))
    rgb = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor(MEAN_BGR).flip(0) / 255, torch.tensor([0.229, 0.224, 0.225])
    bgr = 255 * rgb.flip(1) - torch.tensor(MEAN_BGR)[:, None, None]
    with torch.no_grad():
        wanted = torchvision_vgg((rgb - mean[:, None, None]) / std[:, None, None])
        found, skips = narrow.branches["cbf"].vgg(bgr)
    assert found.shape == (1, 512, 2, 2) and [s.shape[1] for s in skips] == [64, 128, 256, 512, 512]
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_torchvision_features_weights_saw_images_of_0_to_255(tmp_path, torchvision_vgg):
    state = {f"features.{name}": tensor for name, tensor in torchvision_vgg.state_dict().items()}
    state["classifier.0.weight"] = torch.full((2, 3), float("nan"))  # so they are told apart
    torch.save(state, tmp_path / "features.pth")
    weights = read_vgg16(tmp_path / "features.pth")
    assert torch.equal(weights["block1_conv1.weight"], state["features.0.weight"].flip(1))
    assert torch.equal(weights["block5_conv3.weight"], state["features.28.weight"])


def test_keras_weights_and_branches_of_one_channel(tmp_path, torchvision_vgg):
    layers = {}
    for name, (module, *_) in vgg16_layers().items():
        convolution = torchvision_vgg[int(module.split(".")[1])]
        kernel = convolution.weight.detach().permute(2, 3, 1, 0).numpy()
        layers[name] = {"kernel": kernel, "bias": convolution.bias.detach().numpy()}
    layers["predictions"] = {"kernel": np.zeros((4, 2), np.float32), "bias": np.zeros(2, np.float32)}
    weights = read_vgg16(write_keras(tmp_path / "vgg16.h5", layers, shuffle=1))
    network = MultiInputVGG(maps=("ttp",), map_channels=1).eval()
    start_from(network, weights)
    grey = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        wanted = torchvision_vgg(grey.expand(-1, 3, -1, -1))
        found, _ = network.branches["ttp"].vgg(grey)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_other_files_are_refused(tmp_path, torchvision_vgg, narrow):
    state = {f"features.{name}": tensor for name, tensor in torchvision_vgg.state_dict().items()}
    del state["features.17.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ModelError, match="bias of block4_conv1 is missing"):
        read_vgg16(tmp_path / "short.pth")
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(ModelError, match="no safetensors file"):
        read_vgg16(tmp_path / "page.safetensors")
    with pytest.raises(ModelError, match="cannot be opened"):
        read_vgg16(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="do not fit branches of width 8"):
        start_from(tiny(), {})
