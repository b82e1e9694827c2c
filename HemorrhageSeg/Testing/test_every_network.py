"""Every network of the family runs from its model file through the whole pipeline; compact, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline_phantom import head, header

from HemorrhageSegLib.networks import NETWORKS
from HemorrhageSegLib.task import TASK, HemorrhageOptions
from NeuraxisLib.errors import ModelError
from NeuraxisLib.inference import build_network
from NeuraxisLib.models import load_model, write_model
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

#: name -> (compact arguments, channels that the slices give).
SLICES = {
    "DRUNet": ({"in_channels": 1, "base": 4}, 1),
    "UNet2D": ({"base": 4}, 1),
    "SLEXNet": ({"base": 4}, 3),
    "SLEXNetMultiSlice": ({"base": 4}, 5),
    "BCDUNet": ({"base": 4}, 1),
    "MCGUNet": ({"base": 4}, 3),
}
VOLUMES = {
    "UNet3D": {"base": 4},
    "VNet": {"base": 4},
    "SegResNet": {"base": 8},
    "AttentionUNet": {"base": 4},
    "UNETR": {"base": 4, "img_size": [32, 32, 16], "hidden_size": 24, "mlp_dim": 32, "num_heads": 2},
    "SwinUNETR": {"base": 12, "num_heads": [1, 2, 2, 2]},
}
BRAIN_WINDOW = {"offset": 0, "low_hu": 0.0, "high_hu": 80.0}
WINDOWS = {
    "kind": "volume",
    "spacing_mm": [5.0, 5.0, 6.0],
    "clip_hu": [12.0, 79.0],
    "mean_hu": 48.0,
    "std_hu": 13.5,
    "patch": [32, 32, 16],
    "overlap": 0.25,
}


@pytest.fixture(scope="module")
def scan() -> Volume:
    return head(spacing=(2.2, 2.2, 6.0))


def preprocessing(name: str) -> dict:
    if name in VOLUMES:
        return {**WINDOWS, "patch": [64, 32, 32]} if name == "SwinUNETR" else WINDOWS
    count = SLICES[name][1]
    channels = [{"offset": place - count // 2, "low_hu": 0.0, "high_hu": 80.0} for place in range(count)]
    return {"size": 64, "margin": 0.05, "slab_mm": 5.0, "channels": channels}


def test_no_network_is_forgotten() -> None:
    assert set(SLICES) | set(VOLUMES) == set(NETWORKS)


@pytest.mark.parametrize("name", [*SLICES, *VOLUMES])
def test_a_network_runs_from_its_file(name: str, scan: Volume, tmp_path: Path) -> None:
    from importlib import import_module

    if name in VOLUMES:
        pytest.importorskip("monai")
    arguments = VOLUMES[name] if name in VOLUMES else SLICES[name][0]
    module, attribute = NETWORKS[name].split(":")
    torch.manual_seed(0)
    network = getattr(import_module(module), attribute)(**arguments).eval()
    changes = {"architecture": {"name": name, "arguments": arguments}, "preprocessing": preprocessing(name)}
    path = tmp_path / "model.safetensors"
    write_model(path, network.state_dict(), header(**changes))
    model = load_model(path)

    built, shape = build_network(model, NETWORKS), (1, 1, 64, 32, 32)
    if name in SLICES:
        shape = (1, SLICES[name][1], 64, 64)
    elif name == "UNETR":
        shape = (1, 1, 32, 32, 16)
    image = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(built(image), network(image))

    options = HemorrhageOptions(device="cpu", precision="float32", min_component_ml=0.0)
    result = TASK.run({"ct": scan}, model, options, Progress())
    found = result.maps["probability"].volume.array
    assert np.isfinite(found).all() and np.ptp(found) > 0
    assert result.labels.array.shape == scan.array.shape
    assert result.provenance["grid"].get("windows", 1) >= 1


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("UNet2D", {"channels": [BRAIN_WINDOW, BRAIN_WINDOW]}, "channels 1.*makes 2"),
        ("SLEXNet", {"channels": [BRAIN_WINDOW]}, "channels 3.*makes 1"),
        ("UNETR", {"patch": [64, 32, 16]}, r"windows of \[32, 32, 16\].*makes \[64, 32, 16\]"),
    ],
)
def test_a_network_that_takes_other_images_is_refused(name, change, named, scan, tmp_path) -> None:
    from importlib import import_module

    if name in VOLUMES:
        pytest.importorskip("monai")
    arguments = VOLUMES[name] if name in VOLUMES else SLICES[name][0]
    module, attribute = NETWORKS[name].split(":")
    network = getattr(import_module(module), attribute)(**arguments)
    changes = {"architecture": {"name": name, "arguments": arguments}}
    path = tmp_path / "model.safetensors"
    write_model(path, network.state_dict(), header(**changes, preprocessing={**preprocessing(name), **change}))
    with pytest.raises(ModelError, match=named):
        TASK.run({"ct": scan}, load_model(path), HemorrhageOptions(device="cpu"), Progress())
