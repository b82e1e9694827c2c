"""Every network of the table: its published size, its output, a compact one through a model file, MONAI or not."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from HemorrhageSegLib.networks import NETWORKS
from NeuraxisLib.errors import DependencyError, ModelError
from NeuraxisLib.inference import build_network
from NeuraxisLib.models import load_model, read_header, write_model
from Testing.untrained_models import write_untrained_model

OF_MONAI = ("UNet3D", "VNet", "SegResNet", "AttentionUNet", "UNETR", "SwinUNETR")
#: Network, arguments beside the defaults, parameters (hemorrhage specification 1.1, 2.2 and 3.5).
PUBLISHED = [
    ("DRUNet", {}, 10_953_249),
    ("UNet2D", {}, 13_394_242),
    ("UNet2D", {"in_channels": 3}, 13_395_394),
    ("SLEXNet", {}, 26_789_636),
    ("SLEXNet", {"sem": "se"}, 26_862_596),
    ("SLEXNetMultiSlice", {}, 26_789_636),
    ("UNet3D", {}, 19_215_118),
    ("VNet", {}, 45_593_892),
    ("SegResNet", {}, 1_176_177),
    ("AttentionUNet", {}, 23_625_953),
    ("UNETR", {}, 92_814_545),
    ("SwinUNETR", {}, 62_186_659),
]
#: The same as Keras counts, BatchNorm statistics included (2.2; stroke and disc specification 3.1-3.2).
PUBLISHED_BY_KERAS = [
    ("DRUNet", {}, 10_978_305),
    ("BCDUNet", {}, 20_659_717),
    ("BCDUNet", {"in_channels": 3}, 20_660_869),
    ("BCDUNet", {"depth": 1}, 8_861_189),
    ("BCDUNet", {"depth": 1, "in_channels": 3}, 8_862_341),
    ("MCGUNet", {}, 27_891_901),
]
#: Compact ones: arguments and an image size they take.
COMPACT = {
    "DRUNet": ({"in_channels": 2, "base": 4}, (32, 64)),
    "UNet2D": ({"in_channels": 2, "base": 2}, (33, 48)),
    "SLEXNet": ({"in_channels": 6, "base": 2, "sem": "se", "out_channels": 1}, (33, 48)),
    "SLEXNetMultiSlice": ({"in_channels": 3, "slices": 3, "base": 2}, (33, 48)),
    "BCDUNet": ({"base": 4, "bidirectional": True}, (24, 32)),
    "MCGUNet": ({"in_channels": 1, "base": 4, "out_channels": 2}, (24, 32)),
    "UNet3D": ({"base": 2}, (32, 32, 16)),
    "VNet": ({"in_channels": 2, "base": 2, "out_channels": 2}, (32, 32, 16)),
    "SegResNet": ({"base": 8}, (16, 16, 8)),
    "AttentionUNet": ({"base": 2}, (32, 32, 16)),
    "UNETR": ({"base": 2, "img_size": [32, 32, 16], "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}, (32, 32, 16)),
    "SwinUNETR": ({"base": 12, "depths": [1, 1, 1, 1]}, (64, 32, 32)),
}


def build(name: str, **arguments) -> nn.Module:
    """The network of the table; skips where it needs a package that is not installed."""
    if name in OF_MONAI:
        pytest.importorskip("monai", reason="the HemSeg networks need MONAI")
    if name in ("UNETR", "SwinUNETR"):
        pytest.importorskip("einops", reason="MONAI's transformers need einops")
    module, attribute = NETWORKS[name].split(":")
    return getattr(import_module(module), attribute)(**arguments)


def shapes_only(name: str, **arguments) -> nn.Module:
    """The network on the device that holds no numbers, as models are checked before they are loaded."""
    with torch.device("meta"):
        return build(name, **arguments)


# -- size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "arguments", "count"), PUBLISHED)
def test_trainable_parameters_are_those_published(name: str, arguments: dict, count: int) -> None:
    network = shapes_only(name, **arguments)
    assert sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) == count


@pytest.mark.parametrize(("name", "arguments", "count"), PUBLISHED_BY_KERAS)
def test_keras_counts_as_many(name: str, arguments: dict, count: int) -> None:
    network = shapes_only(name, **arguments)
    statistics = [value for key, value in network.named_buffers() if key.endswith(("running_mean", "running_var"))]
    assert sum(value.numel() for value in [*network.parameters(), *statistics]) == count


def test_every_network_has_its_size_tested() -> None:
    assert {name for name, *_ in [*PUBLISHED, *PUBLISHED_BY_KERAS]} == set(NETWORKS) == set(COMPACT)


# -- compact ones -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPACT)
def test_a_compact_one_travels_in_a_model_file(name: str, tmp_path) -> None:
    """Built on shapes only and filled from the file, it gives what the stored network gave, at the image's size."""
    arguments, size = COMPACT[name]
    torch.manual_seed(0)
    network = build(name, **arguments)
    x = torch.randn(2, arguments.get("in_channels", 1), *size)
    with torch.inference_mode():
        network.train()(x)  # the statistics of the BatchNorms move
        expected = network.eval()(x)
    outputs = arguments.get("out_channels", 2 if name in ("UNet2D", "SLEXNetMultiSlice") else 1)
    assert expected.shape == (2, outputs, *size)
    header = read_header(write_untrained_model(tmp_path / "any.safetensors"))
    path = tmp_path / "model.safetensors"
    write_model(path, network.state_dict(), {**header, "architecture": {"name": name, "arguments": arguments}})
    built = build_network(load_model(path), NETWORKS)
    assert not [key for key, value in [*built.named_parameters(), *built.named_buffers()] if value.is_meta]
    with torch.inference_mode():
        np.testing.assert_array_equal(built(x), expected)


@pytest.mark.parametrize("name", COMPACT)
def test_a_compact_one_learns(name: str) -> None:
    """Every parameter that takes part has a gradient."""
    arguments, size = COMPACT[name]
    network = build(name, **arguments)
    network(torch.randn(2, arguments.get("in_channels", 1), *size)).square().mean().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []
    assert any(value.grad.abs().sum() > 0 for value in network.parameters())


@pytest.mark.parametrize("name", ["DRUNet", "UNet2D", "SLEXNet"])
def test_starters_are_made_of_what_every_machine_computes_alike(name: str) -> None:
    """BatchNorm, whose result does not depend on the window, and no 3-D transposed convolution."""
    kinds = {type(module) for module in shapes_only(name).modules()}
    assert not kinds & {nn.ConvTranspose3d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm}
    assert nn.BatchNorm2d in kinds


def test_a_header_cannot_ask_for_a_network_that_cannot_be(tmp_path) -> None:
    header = read_header(write_untrained_model(tmp_path / "any.safetensors"))
    path = tmp_path / "model.safetensors"
    architecture = {"name": "SLEXNet", "arguments": {"in_channels": 4}}
    write_model(path, {"a": torch.zeros(1)}, {**header, "architecture": architecture})
    with pytest.raises(ModelError, match="multiple of 3, not 4"):
        build_network(load_model(path), NETWORKS)


# -- MONAI ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_MONAI)
def test_without_monai_the_error_says_so(name: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    module, attribute = NETWORKS[name].split(":")
    with pytest.raises(DependencyError, match=rf"'{name}' needs the Python package 'monai'.*--no-deps monai"):
        getattr(import_module(module), attribute)()


@pytest.mark.parametrize("name", ["UNETR", "SwinUNETR"])
def test_without_einops_the_error_says_so(name: str, monkeypatch) -> None:
    pytest.importorskip("monai", reason="the HemSeg networks need MONAI")
    monkeypatch.setitem(sys.modules, "einops", None)
    module, attribute = NETWORKS[name].split(":")
    with pytest.raises(DependencyError, match="'einops'"):
        getattr(import_module(module), attribute)()


@pytest.mark.parametrize("name", OF_MONAI)
def test_published_arguments(name: str) -> None:
    """What a parameter count cannot see: dropout, norms, activations (specification 3.5)."""
    modules = list(shapes_only(name).modules())
    kinds = {type(module).__name__ for module in modules}
    drops = {module.p for module in modules if isinstance(module, (nn.Dropout, nn.Dropout2d, nn.Dropout3d))} - {0.0}
    expected = {
        "UNet3D": ({"InstanceNorm3d", "PReLU"}, set()),
        "VNet": ({"BatchNorm3d", "ELU", "Dropout3d"}, {0.5}),
        "SegResNet": ({"GroupNorm", "ReLU", "Dropout3d"}, {0.2}),
        "AttentionUNet": ({"BatchNorm3d", "ReLU", "PReLU"}, set()),
        "UNETR": ({"InstanceNorm3d", "LayerNorm", "LeakyReLU"}, set()),
        "SwinUNETR": ({"InstanceNorm3d", "LayerNorm", "LeakyReLU"}, set()),
    }[name]
    assert expected[0] <= kinds
    assert drops == expected[1]
    if name == "SegResNet":
        assert "ConvTranspose3d" not in kinds


def test_a_compact_vnet_has_the_published_one_s_parts_at_half_the_width() -> None:
    published, half = shapes_only("VNet").state_dict(), shapes_only("VNet", base=8).state_dict()
    assert list(half) == list(published)
    for name, value in half.items():
        # Channels of image and output stay 1; kernels stay 5, 2 or 1; only channels are 8 or more.
        assert [2 * n if n >= 8 else n for n in value.shape] == list(published[name].shape), name


def test_transformer_weights_have_the_names_of_monai_1_3() -> None:
    """Later versions add norms for a cross-attention that is not there."""
    arguments, _ = COMPACT["UNETR"]
    names = [name.split(".") for name in shapes_only("UNETR", **arguments).state_dict()]
    assert {name[3] for name in names if name[:2] == ["vit", "blocks"]} == {"mlp", "norm1", "attn", "norm2"}


# -- Swin UNETR's patch merging ---------------------------------------------------------------------------------


def test_patch_merging_takes_every_corner_once_and_the_legacy_one_two_twice() -> None:
    from HemorrhageSegLib.networks.monai_networks import CORNERS, LEGACY_CORNERS, PatchMerging

    cell = torch.arange(8.0).reshape(1, 2, 2, 2, 1)  # value = 4 x + 2 y + z
    for corners, expected in ((CORNERS, [0, 4, 2, 1, 6, 5, 3, 7]), (LEGACY_CORNERS, [0, 4, 2, 1, 5, 2, 1, 7])):
        merging = PatchMerging(1, corners=corners)
        merging.norm = merging.reduction = nn.Identity()
        assert merging(cell).ravel().tolist() == expected
    merging = PatchMerging(1)
    merging.norm = merging.reduction = nn.Identity()
    odd = merging(torch.ones(1, 3, 2, 1, 1))
    assert odd.shape == (1, 2, 1, 1, 8)
    assert odd.sum() == 6  # zeros beyond the end


def test_legacy_patch_merging_changes_the_result_but_no_weight() -> None:
    arguments, size = COMPACT["SwinUNETR"]
    new, old = build("SwinUNETR", **arguments).eval(), build("SwinUNETR", **arguments, legacy_patch_merging=True).eval()
    old.load_state_dict(new.state_dict())
    x = torch.randn(1, 1, *size)
    with torch.inference_mode():
        assert not torch.allclose(new(x), old(x), atol=1e-3)
