"""Checkpoints of the originals give the originals' outputs, and run through the product at once.

The originals are computed by formulations of their own: those of Keras in numpy (``keras_in_numpy``), SLEX-Net's on
tensors by name (``original_slexnet``), MONAI's by MONAI.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import original_slexnet as slex
import pytest
import torch
from pipeline_phantom import head
from typer.testing import CliRunner

from HemorrhageSegLib.networks import NETWORKS
from HemorrhageSegLib.networks.originals import HEMSEG, ORIGINALS, input_shape
from NeuraxisLib import cli_models
from NeuraxisLib.checkpoint_import import Card, find_original, import_checkpoint
from NeuraxisLib.errors import InputError, ModelError, OutputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.inference import build_network
from NeuraxisLib.models import load_model
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.run import run_case
from NeuraxisLib.worker_process import child_environment
from Testing.keras_in_numpy import KerasInNumpy, bcdu_net, dr_unet, mcgu_net, write_keras

#: The agreement that an import has to reach.
RELATIVE = 1e-4


def agree(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether outputs agree to 1e-4 of the range that the original's have; a constant original proves nothing."""
    spread = float(np.ptp(wanted))
    assert np.isfinite(spread)
    return spread > 0.05 and float(np.abs(found - wanted).max()) <= RELATIVE * spread


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    """Logits of an imported model file, built and loaded as inference does it."""
    with torch.inference_mode():
        return build_network(load_model(path, "hemorrhage"), NETWORKS)(torch.from_numpy(x).float()).numpy()


# -- Keras ----------------------------------------------------------------------------------------------------

#: Network -> (its original, the same width here, input channels).
KERAS_ORIGINALS: dict[str, tuple[Callable, dict, int]] = {
    "DRUNet": (lambda keras, x: dr_unet(keras, x, dims=8, stem=4), {"base": 8}, 1),
    "BCDUNet": (lambda keras, x: bcdu_net(keras, x, base=6, depth=3), {"base": 6}, 1),
    "BCDUNet D1": (lambda keras, x: bcdu_net(keras, x, base=6, depth=1), {"base": 6, "depth": 1}, 1),
    "MCGUNet": (lambda keras, x: mcgu_net(keras, x, base=16), {"base": 16}, 3),
}


@cache
def keras_original(name: str, made_before: int = 0) -> tuple[dict, np.ndarray, np.ndarray]:
    """Layers of an original, an image (32, 32, channels) and the original's logits of it."""
    build, _, channels = KERAS_ORIGINALS[name]
    keras = KerasInNumpy(3, made_before)
    x = np.random.default_rng(1).normal(size=(32, 32, channels))
    logits = build(keras, x)
    return keras.layers, x, logits


def keras_file(name: str, path: Path, made_before: int = 0, **how) -> tuple[np.ndarray, np.ndarray]:
    """Write the weights of an original; an image (32, 32, channels) and the original's logits of it."""
    layers, x, logits = keras_original(name, made_before)
    write_keras(path, layers, **how)
    return x, logits


@pytest.mark.parametrize("name", KERAS_ORIGINALS)
@pytest.mark.parametrize(
    "how",
    [{}, {"shuffle": 5}, {"whole_model": True, "made_before": 5, "shuffle": 6}],
    ids=["as made", "by depth", "whole model, later in its session"],
)
def test_keras_originals(tmp_path, name, how):
    x, wanted = keras_file(name, tmp_path / "a.h5", **how)
    import_checkpoint(tmp_path / "a.h5", tmp_path / "b.safetensors", name.split()[0], KERAS_ORIGINALS[name][1])
    found = outputs(tmp_path / "b.safetensors", np.moveaxis(x, -1, 0)[None])
    assert agree(np.moveaxis(found[0], 0, -1), wanted)


def test_an_epsilon_of_pytorch_would_not_do():
    """The agreement asked for is close enough to tell Keras' BatchNorm constant from PyTorch's."""
    keras = KerasInNumpy(3)
    x = np.random.default_rng(1).normal(size=(32, 32, 1))
    right = dr_unet(keras, x, 8, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("Testing.keras_in_numpy.EPSILON", 1e-5)
        wrong = dr_unet(KerasInNumpy(3), x, 8, 4)
    assert not agree(wrong, right)


# -- SLEX-Net -------------------------------------------------------------------------------------------------


def save(path: Path, state: dict, wrapped: bool = False) -> Path:
    torch.save({"epoch": 1, "state_dict": slex.under("module", state)} if wrapped else state, path)
    return path


@pytest.mark.parametrize("attribute", ["SMM", "SEM"])
@pytest.mark.parametrize("sem", ["unet", "se"])
def test_slexnet(tmp_path, attribute, sem):
    backbone, expansion = slex.unet_state(1, 8, 1), slex.unet_state(3, 8, 2, sem == "se")
    state = {**slex.under("backbone", backbone), **slex.under(attribute, expansion)}
    source = save(tmp_path / "best_checkpoint.pth", state, wrapped=attribute == "SEM")
    import_checkpoint(source, tmp_path / "b.safetensors", "SLEXNet", {"base": 8, "sem": sem})
    x = np.random.default_rng(2).normal(size=(2, 3, 48, 32)).astype(np.float32)
    wanted = slex.slexnet(torch.from_numpy(x), backbone, expansion).numpy()
    assert agree(outputs(tmp_path / "b.safetensors", x), wanted)


def test_slexnet_on_several_slices(tmp_path):
    backbone, expansion = slex.unet_state(1, 4, 1), slex.unet_state(3, 4, 2)
    source = save(tmp_path / "a.pth", {**slex.under("backbone", backbone), **slex.under("SEM", expansion)})
    weights = [0.05, 0.15, 0.5, 0.2, 0.1]
    import_checkpoint(source, tmp_path / "b.safetensors", "SLEXNetMultiSlice", {"base": 4, "weights": weights})
    x = np.random.default_rng(2).normal(size=(1, 5, 32, 32)).astype(np.float32)
    wanted = slex.slexnet_multi_slice(torch.from_numpy(x), backbone, expansion, weights).numpy()
    assert agree(outputs(tmp_path / "b.safetensors", x), wanted)


def test_the_backbone_alone_is_the_2d_unet(tmp_path):
    state = slex.unet_state(1, 8, 3)
    import_checkpoint(save(tmp_path / "backbone.pth", state), tmp_path / "b.safetensors", "UNet2D", {"base": 8})
    x = np.random.default_rng(2).normal(size=(1, 1, 32, 32)).astype(np.float32)
    assert agree(outputs(tmp_path / "b.safetensors", x), slex.unet(torch.from_numpy(x), state).numpy())


# -- MONAI ----------------------------------------------------------------------------------------------------


def monai_networks() -> dict[str, tuple[Callable, dict, tuple[int, int, int]]]:
    """Network -> (MONAI's own with the arguments of the HemSeg scripts but narrower, the same here, image size)."""
    from monai.networks import nets

    small = (32, 32, 32)
    widths = (4, 8, 16, 32, 64)
    return {
        "UNet3D": (lambda: nets.UNet(3, 1, 1, widths, (2, 2, 2, 2), num_res_units=2), {"base": 4}, small),
        "AttentionUNet": (
            lambda: nets.AttentionUnet(3, 1, 1, widths, (2, 2, 2, 2), kernel_size=3), {"base": 4}, small
        ),
        "SegResNet": (
            lambda: nets.SegResNet(spatial_dims=3, in_channels=1, out_channels=1, dropout_prob=0.2), {}, small
        ),
        "UNETR": (
            lambda: nets.UNETR(1, 1, small, feature_size=4, hidden_size=24, mlp_dim=48, num_heads=4),
            {"base": 4, "img_size": list(small), "hidden_size": 24, "mlp_dim": 48, "num_heads": 4},
            small,
        ),
        "SwinUNETR": (
            lambda: nets.SwinUNETR(in_channels=1, out_channels=1, feature_size=12),
            {"base": 12, "legacy_patch_merging": False},
            (64, 32, 32),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["UNet3D", "AttentionUNet", "SegResNet", "UNETR", "SwinUNETR"])
def test_monai_state_dicts(tmp_path, name):
    pytest.importorskip("monai")
    pytest.importorskip("einops")
    build, arguments, size = monai_networks()[name]
    torch.manual_seed(4)
    original = build().eval()
    state = {key: value for key, value in original.state_dict().items() if "cross_attn" not in key}  # none in 1.3.0
    save(tmp_path / "a_best_metric_model_segmentation3d_array.pth", state)
    card = Card(preprocessing={**HEMSEG, "patch": list(size)})
    import_checkpoint(next(tmp_path.glob("*.pth")), tmp_path / "b.safetensors", name, arguments, card)
    x = np.random.default_rng(2).normal(size=(1, 1, *size)).astype(np.float32)
    with torch.inference_mode():
        wanted = original(torch.from_numpy(x)).numpy()
    assert agree(outputs(tmp_path / "b.safetensors", x), wanted)


def test_swin_unetr_of_the_scripts_merges_patches_as_their_monai_did():
    assert find_original("SwinUNETR")[1].arguments == {"legacy_patch_merging": True}


# -- the model file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_published_network_takes_what_its_preprocessing_makes(name):
    """On shapes alone, at published size."""
    module, attribute = ORIGINALS[name].network.split(":")
    if "monai" in module:
        pytest.importorskip("monai")
        pytest.importorskip("einops")
    shape = input_shape(ORIGINALS[name].preprocessing)
    with torch.device("meta"):
        network = getattr(__import__(module, fromlist=[attribute]), attribute)(**ORIGINALS[name].arguments)
        assert network.eval()(torch.empty(shape)).shape[2:] == shape[2:]
    assert set(ORIGINALS) == set(NETWORKS)


def test_the_header_says_where_the_model_came_from(tmp_path):
    keras_file("DRUNet", tmp_path / "patient_mueller.h5")
    card = Card("mine", "My DR-UNet", "MIT", 0.3)
    import_checkpoint(tmp_path / "patient_mueller.h5", tmp_path / "b.safetensors", "DRUNet", {"base": 8}, card)
    header = load_model(tmp_path / "b.safetensors").header
    assert (header["name"], header["title"], header["licence"], header["threshold"]) == (
        "mine",
        "My DR-UNet",
        "MIT",
        0.3,
    )
    assert header["architecture"] == {"name": "DRUNet", "arguments": {"base": 8}}
    digest = hashlib.sha256((tmp_path / "patient_mueller.h5").read_bytes()).hexdigest()
    assert header["training"]["source_sha256"] == digest
    assert header["notice"].startswith("Imported from a Keras HDF5 file of others; neither trained nor tested here.")
    assert "mueller" not in json.dumps(header)


def test_without_words_the_licence_is_unknown_and_the_preprocessing_the_published_one(tmp_path):
    save(tmp_path / "a.pth", slex.unet_state(1, 4, 3))
    header = import_checkpoint(tmp_path / "a.pth", tmp_path / "net.safetensors", "UNet2D", {"base": 4})
    assert (header["name"], header["licence"], header["threshold"]) == ("net", "unknown", 0.5)
    assert header["preprocessing"]["normalisation"] == "zscore" and header["preprocessing"]["size"] == 224
    assert "PyTorch checkpoint" in header["notice"] and "did not publish their CT window" in header["notice"]


@pytest.mark.parametrize(
    ("arguments", "card", "error", "pattern"),
    [
        ({"base": 16}, Card(), ModelError, r"'conv2d/kernel' .* \(4, 1, 1, 1\) but DRUNet needs \(8, 1, 1, 1\)"),
        ({"base": 6}, Card(), InputError, r"DRUNet cannot be made with these arguments \(.*multiple of 4.*--set"),
        ({"depth": 8}, Card(), InputError, r"DRUNet cannot be made with these arguments \(.*depth"),
        ({"base": 8, "in_channels": 2}, Card(), InputError, "does not take images of 1 channels and size 256 x 256"),
        ({"base": 8}, Card(preprocessing={"size": 5}), InputError, "preprocessing cannot be read.*--preprocessing"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, arguments, card, error, pattern):
    keras_file("DRUNet", tmp_path / "a.h5")
    with pytest.raises(error, match=pattern):
        import_checkpoint(tmp_path / "a.h5", tmp_path / "b.safetensors", "DRUNet", arguments, card)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_checkpoints_of_other_networks_are_refused(tmp_path):
    save(tmp_path / "a.pth", slex.unet_state(1, 4, 3))
    for name in ORIGINALS:
        if name in ("UNet2D", "UNETR", "SwinUNETR", "VNet", "SegResNet", "AttentionUNet", "UNet3D"):
            continue
        with pytest.raises(ModelError, match=r"'a.pth' (has nothing for the tensor|holds the tensor)|has the shape"):
            import_checkpoint(tmp_path / "a.pth", tmp_path / "b.safetensors", name, {"base": 4})
    with pytest.raises(ModelError, match="no network 'UNet2d'.*UNet2D"):
        import_checkpoint(tmp_path / "a.pth", tmp_path / "b.safetensors", "UNet2d")
    with pytest.raises(InputError, match="'bidirectional' cannot be imported: the released code has one ConvLSTM"):
        import_checkpoint(tmp_path / "a.pth", tmp_path / "b.safetensors", "BCDUNet", {"bidirectional": True})


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = slex.unet_state(1, 4, 3)
    state["outc.conv.bias"][0] = torch.nan
    with pytest.raises(ModelError, match=r"'outc.conv.bias' are not finite"):
        import_checkpoint(save(tmp_path / "a.pth", state), tmp_path / "b.safetensors", "UNet2D", {"base": 4})


def test_an_output_that_exists_is_left_alone(tmp_path):
    save(tmp_path / "a.pth", slex.unet_state(1, 4, 3))
    (tmp_path / "b.safetensors").write_bytes(b"years of training")
    for name, fault in (("b.safetensors", "exists already"), ("b.pth", "does not end in .safetensors")):
        with pytest.raises(OutputError, match=fault):
            import_checkpoint(tmp_path / "a.pth", tmp_path / name, "UNet2D", {"base": 4})
    assert (tmp_path / "b.safetensors").read_bytes() == b"years of training"


# -- at once through the product ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "head.nrrd"
    write_volume(head((2.4, 2.4, 10.0)), path)
    return path


def two_dimensional(name: str, path: Path) -> dict:
    """Write a narrow original's checkpoint; the arguments it needs."""
    if name in KERAS_ORIGINALS:
        keras_file(name, path)
        return KERAS_ORIGINALS[name][1]
    backbone = slex.unet_state(1, 2, 1)
    whole = {**slex.under("backbone", backbone), **slex.under("SMM", slex.unet_state(3, 2, 2))}
    save(path, backbone if name == "UNet2D" else whole)
    return {"base": 2}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("SLEXNetMultiSlice", "BCDUNet")]


@pytest.mark.parametrize("name", ["UNet2D", "SLEXNet", "MCGUNet", *SLOW])
def test_an_imported_model_runs_at_once(tmp_path, scan, name):
    arguments = two_dimensional(name, tmp_path / "a.bin")
    import_checkpoint(tmp_path / "a.bin", tmp_path / "mine.safetensors", name, arguments)
    result = run_case("hemorrhage", {"ct": scan}, tmp_path / "mine.safetensors", {}, "cpu", tmp_path / "out")
    probability = result.maps["probability"].volume.array
    assert np.ptp(probability) > 0.05 and np.isfinite(probability).all()
    assert any("Imported from" in warning for warning in result.warnings)
    assert read_result(tmp_path / "out").provenance["model"]["name"] == "mine"


def test_the_command_line_imports_and_runs(tmp_path, scan):
    def neuraxis(*arguments) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "NeuraxisLib.cli", *map(str, arguments)]
        environment = child_environment([], None, 1, hide_gpu=False)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)

    keras_file("DRUNet", tmp_path / "a.h5")
    arguments = ("models", "import", tmp_path / "a.h5", tmp_path / "b.safetensors", "--architecture", "DRUNet")
    done = neuraxis(*arguments, "--set", "base=8", "--name", "mine", "--licence", "MIT", "--threshold", "0.4")
    assert done.returncode == 0, done.stderr
    assert "Licence: MIT" in done.stdout and "Imported from a Keras HDF5 file" in done.stdout
    done = neuraxis("hemorrhage", scan, tmp_path / "out", "--model", tmp_path / "b.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["provenance"]["model"]["name"] == "mine"


@pytest.mark.parametrize(
    ("more", "code", "pattern"),
    [
        ([], 6, "'conv2d/kernel'"),
        (["--set", "base"], 3, "'base' is not of the form argument=value"),
        (["--set", "base=eight"], 3, "cannot be made with these arguments"),
        (["--preprocessing", "absent.json"], 3, "'absent.json' cannot be read as a JSON object"),
        (["--threshold", "2"], 2, "--threshold"),
    ],
)
def test_the_command_line_refuses_in_one_sentence(tmp_path, monkeypatch, more, code, pattern):
    monkeypatch.setattr(cli_models, "prepare_process", lambda *_, **__: None)  # this process is not the command's own
    keras_file("DRUNet", tmp_path / "a.h5")
    arguments = ["import", str(tmp_path / "a.h5"), str(tmp_path / "b.safetensors"), "--architecture", "DRUNet", *more]
    done = CliRunner().invoke(cli_models.models_group(), arguments)
    assert done.exit_code == code and pattern in done.stderr and not done.stdout
    assert not (tmp_path / "b.safetensors").exists()
