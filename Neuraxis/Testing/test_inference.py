"""Slice inference: the same numbers on every route, faults in a sentence, and only what helps is switched on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib import inference
from NeuraxisLib.errors import CancelledError, InputError, ModelError
from NeuraxisLib.inference import (
    SlicePredictor,
    build_network,
    choose_device,
    fold_batch_norm,
    predictor_for,
    with_batch_statistics,
)
from NeuraxisLib.models import load_model, write_model
from NeuraxisLib.task import Progress

NETWORKS = {"Tiny": f"{__name__}:Tiny"}
HEADER = {
    "name": "tiny",
    "title": "Tiny",
    "task": "hemorrhage",
    "architecture": {"name": "Tiny", "arguments": {"width": 4}},
    "preprocessing": {},
    "labels": {},
    "threshold": 0.5,
    "min_component_ml": 0.0,
    "uncertainty": {},
    "training": {},
    "licence": "",
    "notice": "",
    "scores": {},
}


class Tiny(nn.Module):
    """Two convolutions with BatchNorm behind, before and between other layers."""

    def __init__(self, width: int = 4):
        super().__init__()
        if width > 100:
            raise ValueError("too wide")
        self.block = nn.Sequential(nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width), nn.ELU())
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ELU())
        self.head = nn.Conv2d(width, 1, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.block(x)))


@pytest.fixture
def network() -> Tiny:
    torch.manual_seed(5)
    network = Tiny()
    for name, value in network.named_buffers():
        if "running" in name:
            value.copy_(torch.rand(value.shape) + 0.5)
    return network.eval()


@pytest.fixture
def model_path(tmp_path: Path, network: Tiny) -> Path:
    path = tmp_path / "tiny.safetensors"
    write_model(path, network.state_dict(), HEADER)
    return path


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(6).normal(size=(7, 2, 32, 24)).astype(np.float32)


def plain(network: nn.Module, pictures: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.sigmoid(network(torch.from_numpy(pictures))).numpy()


# -- prediction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batches_do_not_change_the_prediction(network: Tiny, pictures: np.ndarray, batch: int) -> None:
    predictor = SlicePredictor(network, "cpu", "float32")
    predictor.batch = batch
    found = predictor.predict(pictures.__getitem__, len(pictures))
    assert found.shape == (7, 1, 32, 24)
    np.testing.assert_allclose(found, plain(network, pictures), atol=1e-6)


def test_bfloat16_is_near_float32(network: Tiny, pictures: np.ndarray) -> None:
    found = SlicePredictor(network, "cpu", "bfloat16").predict(pictures.__getitem__, len(pictures))
    difference = np.abs(found - plain(network, pictures)).max()
    assert 0 < difference < 0.02


def test_flip_averaging_makes_the_prediction_symmetric(network: Tiny, pictures: np.ndarray) -> None:
    predictor = SlicePredictor(network, "cpu", "float32")
    found = predictor.predict(pictures.__getitem__, 7, flip=True)
    mirrored = predictor.predict(lambda numbers: pictures[numbers][..., ::-1].copy(), 7, flip=True)
    np.testing.assert_allclose(found, mirrored[..., ::-1], atol=1e-6)
    expected = (plain(network, pictures) + plain(network, pictures[..., ::-1].copy())[..., ::-1]) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_slices_give_no_probabilities(network: Tiny) -> None:
    assert SlicePredictor(network, "cpu").predict(lambda numbers: None, 0).shape[0] == 0


def test_progress_is_told_and_cancels_between_slices(network: Tiny, pictures: np.ndarray) -> None:
    seen: list[float] = []
    progress = Progress(lambda fraction, stage: seen.append(fraction), lambda: len(seen) >= 3)
    predictor = SlicePredictor(network, "cpu", "float32")
    with pytest.raises(CancelledError):
        predictor.predict(pictures.__getitem__, 7, progress)
    np.testing.assert_allclose(seen, [0, 1 / 7, 2 / 7])


def test_folding_leaves_the_output_and_drops_the_norms(network: Tiny, pictures: np.ndarray) -> None:
    folded = fold_batch_norm(network)
    np.testing.assert_allclose(plain(folded, pictures), plain(network, pictures), atol=1e-6)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 1  # the one behind no convolution
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 2


def test_batch_statistics_are_those_of_training_mode(network: Tiny, pictures: np.ndarray) -> None:
    predictor = SlicePredictor(with_batch_statistics(network), "cpu", "float32", whole_batch=True)
    found = predictor.predict(pictures.__getitem__, 7)
    network.train()
    expected = plain(network, pictures)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - plain(network.eval(), pictures)).max() > 0.01
    fewer = predictor.predict(pictures[:3].__getitem__, 3)
    assert np.abs(fewer - found[:3]).max() > 1e-4  # a slice's result depends on the others


# -- precision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bf16_s", "difference", "expected"),
    [(0.5, 0.001, "bfloat16"), (0.95, 0.001, "float32"), (3.0, 0.0, "float32"), (0.5, 0.1, "float32")],
)
def test_bfloat16_is_taken_only_if_faster_and_in_agreement(
    network: Tiny, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch, bf16_s, difference, expected
) -> None:
    def timed(self, image, precision, give_up_s=np.inf):
        half = torch.full((1, 1, 2, 2), 0.5)
        return (half, 1.0) if precision == "float32" else (half + difference, bf16_s)

    monkeypatch.setattr(SlicePredictor, "_timed", timed)
    predictor = SlicePredictor(network, "cpu", "auto")
    predictor.predict(pictures.__getitem__, 7)
    assert predictor.precision == expected


def test_waiting_for_other_programs_does_not_count_when_precisions_are_compared(network, pictures, monkeypatch) -> None:
    predictor = SlicePredictor(network, "cpu", "auto")
    own_time = iter([0.0, 9.0, 10.0, 12.0, 20.0, 25.0])
    monkeypatch.setattr(inference.time, "perf_counter", lambda: pytest.fail("the clock on the wall was asked"))
    monkeypatch.setattr(inference.time, "process_time", lambda: next(own_time))
    assert predictor._timed(pictures[:1], "float32")[1] == 2.0


def test_a_precision_that_the_device_lacks_is_not_taken(network, pictures, monkeypatch) -> None:
    original = SlicePredictor._forward

    def forward(self, images, precision):
        if precision == "bfloat16":
            raise RuntimeError("not implemented for 'BFloat16'")
        return original(self, images, precision)

    monkeypatch.setattr(SlicePredictor, "_forward", forward)
    predictor = SlicePredictor(network, "cpu", "auto")
    np.testing.assert_allclose(predictor.predict(pictures.__getitem__, 7), plain(network, pictures), atol=1e-6)
    assert predictor.precision == "float32"


# -- memory ---------------------------------------------------------------------------------------------------


def test_batches_are_halved_until_they_fit(network: Tiny, pictures: np.ndarray, monkeypatch) -> None:
    tried: list[int] = []
    original = SlicePredictor._forward

    def forward(self, images, precision):
        tried.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        with monkeypatch.context() as patch:
            patch.setattr(self, "device", "cpu")
            return original(self, images, precision)

    predictor = SlicePredictor(network, "cpu", "float32")
    predictor.device, predictor.batch = "cuda", 16
    monkeypatch.setattr(SlicePredictor, "_forward", forward)
    found = predictor.predict(pictures.__getitem__, 7)
    assert tried == [7, 7, 4, 2, 2, 2, 1]  # batches of 16, 8 and 4 do not fit
    np.testing.assert_allclose(found, plain(network, pictures), atol=1e-6)
    assert not predictor.warnings


def test_the_processor_takes_over_when_not_even_one_slice_fits(network, pictures, monkeypatch) -> None:
    original = SlicePredictor._forward

    def forward(self, images, precision):
        if self.device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, images, precision)

    monkeypatch.setattr(SlicePredictor, "_forward", forward)
    predictor = SlicePredictor(network, "cpu", "float32")
    predictor.device, predictor.batch = "cuda", 16
    np.testing.assert_allclose(predictor.predict(pictures.__getitem__, 7), plain(network, pictures), atol=1e-6)
    assert predictor.device == "cpu"
    assert "ran out of memory" in predictor.warnings[0]


def test_other_faults_are_not_swallowed(network: Tiny, pictures: np.ndarray) -> None:
    with pytest.raises(RuntimeError, match="channels"):
        SlicePredictor(network, "cpu", "float32").predict(lambda numbers: pictures[numbers][:, :1], 7)


# -- devices --------------------------------------------------------------------------------------------------


def test_auto_takes_a_device_that_is_there() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")


def test_an_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="'cuda' is not available.*choose 'auto' or 'cpu'"):
        choose_device("cuda")
    with pytest.raises(InputError, match="no device 'tpu'"):
        choose_device("tpu")


@pytest.mark.gpu
def test_the_graphics_card_agrees_with_the_processor(network: Tiny, pictures: np.ndarray) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    found = SlicePredictor(network, "cuda", "float32").predict(pictures.__getitem__, 7)
    np.testing.assert_allclose(found, plain(network, pictures), atol=1e-5)


# -- from a model file ----------------------------------------------------------------------------------------


def test_a_network_is_built_from_its_file(model_path: Path, network: Tiny, pictures: np.ndarray) -> None:
    built = build_network(load_model(model_path), NETWORKS)
    np.testing.assert_array_equal(plain(built, pictures), plain(network, pictures))
    assert not built.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in built.parameters())


def test_building_a_network_draws_no_numbers_and_loads_no_compiler() -> None:
    script = (
        "import sys, torch\n"
        "from HemorrhageSegLib.networks import NETWORKS\n"
        "from NeuraxisLib.inference import build_network\n"
        "from NeuraxisLib.models import find_model, load_model\n"
        "from NeuraxisLib.task import get_task\n"
        "path = find_model(get_task('hemorrhage'), 'hemorrhage-slexnet-starter')\n"
        "network = build_network(load_model(path, 'hemorrhage'), NETWORKS)\n"
        "assert all(value.device.type == 'cpu' for value in network.state_dict().values())\n"
        "print('sympy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_counters_of_training_need_not_be_stored(tmp_path: Path, network: Tiny, pictures: np.ndarray) -> None:
    path = tmp_path / "lean.safetensors"
    write_model(path, {k: v for k, v in network.state_dict().items() if "num_batches" not in k}, HEADER)
    np.testing.assert_array_equal(plain(build_network(load_model(path), NETWORKS), pictures), plain(network, pictures))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Giant"}, "needs the network 'Giant', which this version does not have; update"),
        ({"arguments": {"depth": 3}}, "impossible network"),
        ({"arguments": {"width": 1000}}, r"impossible network \(too wide\)"),
        ({"arguments": {"width": 5}}, r"'block.0.weight' of the model 'tiny' has shape \(4, 2, 3, 3\).*\(5, 2, 3, 3\)"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, network, change, message) -> None:
    path = tmp_path / "x.safetensors"
    write_model(path, network.state_dict(), {**HEADER, "architecture": {**HEADER["architecture"], **change}})
    with pytest.raises(ModelError, match=message):
        build_network(load_model(path), NETWORKS)


def test_missing_and_surplus_tensors_are_named(tmp_path: Path, network: Tiny) -> None:
    state = network.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name != "head.weight"}
    write_model(tmp_path / "less.safetensors", kept, HEADER)
    write_model(tmp_path / "more.safetensors", {**state, "tail.weight": torch.ones(1)}, HEADER)
    with pytest.raises(ModelError, match=r"lacks the tensor 'head\.weight'"):
        build_network(load_model(tmp_path / "less.safetensors"), NETWORKS)
    with pytest.raises(ModelError, match=r"holds a tensor 'tail\.weight'"):
        build_network(load_model(tmp_path / "more.safetensors"), NETWORKS)


def test_predictors_are_kept_until_the_file_changes(model_path: Path, tmp_path: Path, network: Tiny) -> None:
    inference._predictors.clear()
    first = predictor_for(load_model(model_path), NETWORKS, "cpu", "float32")
    assert predictor_for(load_model(model_path), NETWORKS, "cpu", "float32") is first
    assert predictor_for(load_model(model_path), NETWORKS, "cpu", "bfloat16") is not first
    network.head.weight.data += 1
    write_model(model_path, network.state_dict(), HEADER)
    assert predictor_for(load_model(model_path), NETWORKS, "cpu", "float32") is not first
    assert len(inference._predictors) == inference.KEPT_PREDICTORS


def test_a_predictor_that_left_its_card_is_not_kept(model_path: Path) -> None:
    first = predictor_for(load_model(model_path), NETWORKS, "cpu", "float32")
    first.warnings.append("The graphics card ran out of memory.")
    assert predictor_for(load_model(model_path), NETWORKS, "cpu", "float32") is not first
