"""The way of the shipped networks through another device, on tensors that have shape, type and device but no memory.

PyTorch refuses to mix devices, so a tensor that a network makes on the processor, or a type that it does not keep, is
found here without a graphics card; numbers are not.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn

from HemorrhageSegLib.networks.slexnet import SLEXNet
from NeuraxisLib.inference import SlicePredictor, build_network, fold_batch_norm
from NeuraxisLib.models import find_model, load_model
from NeuraxisLib.task import get_task
from SpineDiscLabelLib.disc_inference import DiscPredictor
from StrokeCTPLib.networks.class_predictor import ClassPredictor

#: Starter -> its task, its library, how it is run, shape of the input, rows and columns of what comes out.
STARTERS = {
    "hemorrhage-drunet-starter": ("hemorrhage", "HemorrhageSegLib", SlicePredictor, (2, 4, 192, 192), (192, 192)),
    "hemorrhage-slexnet-starter": ("hemorrhage", "HemorrhageSegLib", SlicePredictor, (2, 6, 192, 192), (192, 192)),
    "stroke-starter": ("stroke", "StrokeCTPLib", ClassPredictor, (2, 4, 128, 128), (128, 128)),
    "discs-hourglass-starter": ("discs", "SpineDiscLabelLib", DiscPredictor, (2, 3, 256, 256), (64, 64)),
}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("starter", STARTERS)
def test_a_shipped_network_stays_on_its_device(starter: str, precision: torch.dtype) -> None:
    task, library, kind, shape, size = STARTERS[starter]
    model = load_model(find_model(get_task(task), starter), task)
    networks = importlib.import_module(f"{library}.networks").NETWORKS
    network = fold_batch_norm(build_network(model, networks)).to("meta", precision)
    predictor = kind(nn.Identity(), "cpu", "float32")
    x = torch.empty(shape, dtype=precision, device="meta").contiguous(memory_format=torch.channels_last)
    values = predictor._values(network, x)
    assert values.device.type == "meta" and values.dtype == torch.float32
    assert tuple(values.shape[-2:]) == size
    if isinstance(network, SLEXNet):
        paths = network.paths(x)
        assert {path.device.type for path in paths} == {"meta"} and paths.fused.dtype == torch.float32


def test_a_tensor_made_on_the_processor_would_be_found() -> None:
    class Careless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(x.shape)

    with pytest.raises(RuntimeError, match="device"):
        Careless()(torch.empty(1, 2, 4, 4, device="meta"))
