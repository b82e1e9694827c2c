"""The device ``openvino``: the answers of PyTorch, without asking the network, and PyTorch itself where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from project_tree import ROOT, library, module_names
from torch import nn

from NeuraxisLib import inference, openvino_inference
from NeuraxisLib.errors import DependencyError, InputError
from NeuraxisLib.inference import Predictor, SlicePredictor, choose_device
from NeuraxisLib.run import run_case
from NeuraxisLib.sampled_inference import Sampler
from NeuraxisLib.task import DEVICES, OPENVINO
from NeuraxisLib.window_inference import WindowPredictor, windows_over
from Training.train import _device

SUPPORT = ROOT / "Neuraxis" / "Testing" / "worker_support"


class Small(nn.Module):
    """Convolution, BatchNorm, dropout, a level below and back, as the shipped networks have."""

    def __init__(self, dimensions: int = 2):
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if dimensions == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.first = nn.Sequential(convolution(2, 6, 3, padding=1), norm(6), nn.ELU(), nn.Dropout(0.5))
        self.below = convolution(6, 6, 3, stride=2, padding=1)
        self.last = convolution(12, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the same size."""
        fine = self.first(x)
        coarse = nn.functional.interpolate(self.below(fine), size=fine.shape[2:], mode="nearest")
        return self.last(torch.cat([fine, coarse], dim=1))


class Unknown(nn.Module):
    """Uses what OpenVINO does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Exponentials of the images as matrices."""
        return torch.linalg.matrix_exp(0.01 * x[:, :, :32, :32])


class Frozen(nn.Module):
    """Leaves PyTorch on its way, so that its trace holds the values of the first image for all others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Twice the image."""
        return torch.from_numpy(2 * x.numpy())


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """Where conversions are kept: a folder of the test's own."""
    monkeypatch.setattr(openvino_inference, "user_model_folder", lambda: tmp_path / "data" / "Models")
    return tmp_path / "data" / "Converted"


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval().requires_grad_(False)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 2, 32, 48)).astype(np.float32)


def both(kind: type[Predictor], network: nn.Module, *arguments, **named) -> list[np.ndarray]:
    """What PyTorch and OpenVINO predict, in float32."""
    return [kind(network, device, "float32").predict(*arguments, **named) for device in ("cpu", OPENVINO)]


def sampled(method: str, device: str, network: nn.Module, pictures: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """What each pass predicts, and on which device."""
    sampler = Sampler(method, SlicePredictor, device, "auto", 3, 7)
    passes = sampler.predictors(network, "small", pictures.__getitem__, len(pictures))
    return [(each.predict(pictures.__getitem__, len(pictures)), each.device) for each in passes]


# -- the same answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
def test_slices_agree_with_pytorch(network, pictures, flip):
    expected, found = both(SlicePredictor, network, pictures.__getitem__, 5, flip=flip)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.05


def test_images_of_other_sizes_and_whole_batches_are_taken(network, pictures):
    predictor = SlicePredictor(network, OPENVINO, "float32")
    for part in (pictures, pictures[:, :, :, :33], pictures[:, :, :17]):  # odd sizes round otherwise in the level below
        predictor.batch = 3
        found = predictor.predict(part.__getitem__, 5)
        expected = SlicePredictor(network, "cpu", "float32").predict(part.__getitem__, 5)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert predictor.device == OPENVINO and not predictor.warnings


def test_windows_of_a_volume_agree():
    torch.manual_seed(0)
    network = Small(3).eval().requires_grad_(False)
    image = np.random.default_rng(0).normal(size=(2, 24, 24, 20)).astype(np.float32)
    windows = windows_over(np.ones(image.shape[1:], bool), (16, 16, 16), 0.5)
    expected, found = both(WindowPredictor, network, image, windows)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bfloat16_is_rougher_but_near(network, pictures):
    exact = SlicePredictor(network, "cpu", "float32").predict(pictures.__getitem__, 5)
    rough = SlicePredictor(network, OPENVINO, "bfloat16").predict(pictures.__getitem__, 5)
    assert 1e-5 < np.abs(rough - exact).max() < 0.02


def test_auto_settles_on_a_precision(network, pictures):
    predictor = SlicePredictor(network, OPENVINO, "auto")
    predictor.predict(pictures.__getitem__, 5)
    assert predictor.precision in ("float32", "bfloat16") and predictor.device == OPENVINO


def test_augmented_views_agree(network, pictures):
    expected, found = sampled("tta", "cpu", network, pictures), sampled("tta", OPENVINO, network, pictures)
    np.testing.assert_allclose([each for each, _ in found], [each for each, _ in expected], atol=1e-5)
    assert {device for _, device in found} == {OPENVINO}


# -- conversions that are kept ------------------------------------------------------------------------------------


@pytest.fixture
def converted(monkeypatch) -> list:
    """Grows with every conversion."""
    count, original = [], openvino_inference.load_openvino().convert_model

    def convert(*arguments, **named):
        count.append(1)
        return original(*arguments, **named)

    monkeypatch.setattr(openvino_inference.load_openvino(), "convert_model", convert)
    return count


def predicted(network: nn.Module, pictures: np.ndarray) -> np.ndarray:
    """By a predictor of its own, which has to be OpenVINO's."""
    predictor = SlicePredictor(network, OPENVINO, "float32")
    found = predictor.predict(pictures.__getitem__, len(pictures))
    assert predictor.device == OPENVINO
    return found


def test_a_network_is_converted_once(network, pictures, kept, converted):
    first = predicted(network, pictures)
    np.testing.assert_array_equal(predicted(network, pictures), first)
    assert len(converted) == len(list(kept.iterdir())) == 1
    network.last.bias += 1  # another network, and another size
    expected = SlicePredictor(network, "cpu", "float32").predict(pictures.__getitem__, 5)
    np.testing.assert_allclose(predicted(network, pictures), expected, atol=1e-5)
    predicted(network, pictures[:, :, :16])
    assert len(converted) == len(list(kept.iterdir())) == 3


@pytest.mark.parametrize("harm", ["cut", "bit", "empty"])
def test_a_kept_file_that_was_harmed_is_not_trusted(network, pictures, kept, converted, harm):
    first = predicted(network, pictures)
    (file,) = kept.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes({"cut": content[:-9], "bit": content, "empty": b""}[harm])
    for _ in range(2):  # the second finds what the first has written anew
        np.testing.assert_array_equal(predicted(network, pictures), first)
    assert len(converted) == 2


def test_a_whole_file_of_another_network_is_not_trusted(network, pictures, kept, converted):
    first = predicted(network, pictures)
    (file,), bias = kept.iterdir(), network.last.bias.clone()
    network.last.bias += 1
    predicted(network, pictures)
    (other,) = set(kept.iterdir()) - {file}
    file.write_bytes(other.read_bytes())
    network.last.bias.copy_(bias)
    np.testing.assert_array_equal(predicted(network, pictures), first)
    assert len(converted) == 3


def test_only_the_last_used_are_kept(network, pictures, kept, monkeypatch):
    monkeypatch.setattr(openvino_inference, "KEPT", 2)
    for rows in (32, 30, 28):
        predicted(network, pictures[:, :, :rows])
    assert len(list(kept.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_no_fault(network, pictures, kept):
    kept.parent.mkdir()
    kept.write_text("a file is in the way")
    predicted(network, pictures)


# -- where PyTorch has to compute ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Unknown, Frozen])
def test_a_network_that_cannot_be_converted_is_computed_by_pytorch(kind, pictures, caplog):
    predictor = SlicePredictor(kind().eval(), OPENVINO, "auto")
    found = predictor.predict(pictures.__getitem__, 5)
    np.testing.assert_array_equal(found, SlicePredictor(kind(), "cpu", "float32").predict(pictures.__getitem__, 5))
    assert (predictor.device, predictor.precision) == ("cpu", "float32")
    assert len(predictor.warnings) == 1 and "OpenVINO cannot compute this network" in predictor.warnings[0]
    assert predictor.warnings[0] in caplog.text


def test_a_package_that_does_not_load_is_told(network, pictures, monkeypatch, caplog):
    def broken():
        raise ImportError("libopenvino.so is missing")

    monkeypatch.setattr(openvino_inference, "load_openvino", broken)
    predictor = SlicePredictor(network, OPENVINO, "float32")
    predictor.predict(pictures.__getitem__, 5)
    assert predictor.device == "cpu" and predictor.warnings and "libopenvino.so is missing" in caplog.text


@pytest.mark.parametrize("method", ["mc_dropout", "mc_batchnorm"])
def test_random_passes_are_those_of_pytorch(network, pictures, method):
    expected, found = sampled(method, "cpu", network, pictures), sampled(method, OPENVINO, network, pictures)
    np.testing.assert_array_equal([each for each, _ in found], [each for each, _ in expected])
    assert {device for _, device in found} == {"cpu"}
    assert np.ptp([each for each, _ in found], axis=0).max() > 1e-3


def test_the_device_is_named_everywhere_and_never_chosen_unasked():
    assert OPENVINO in DEVICES and set(inference.BATCH) == set(DEVICES) - {"auto"}
    assert choose_device("auto") != OPENVINO and choose_device(OPENVINO) == OPENVINO
    with pytest.raises(InputError, match="cannot train"):
        _device(OPENVINO)


def test_a_missing_package_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setattr(inference, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="pip install openvino"):
        choose_device(OPENVINO)


# -- the promise ---------------------------------------------------------------------------------------------------

_CONVERT = """
import os
import torch
{load}
openvino.convert_model(torch.nn.Conv2d(1, 1, 3).eval(), example_input=torch.zeros(1, 1, 8, 8))
import time
time.sleep({wait})
"""


@pytest.mark.parametrize(("load", "wait", "reports"), [
    ("from NeuraxisLib.openvino_inference import load_openvino; openvino = load_openvino()", 3, False),
    ("import openvino", 3, True),
], ids=["ours", "left to itself"])  # fmt: skip
def test_nothing_is_reported_to_its_makers(tmp_path, load, wait, reports):
    """All sockets are noted and refused; the second case shows that the first would be seen."""
    notes, rooms = tmp_path / "sockets.txt", [SUPPORT, ROOT, *(ROOT / room for room in module_names())]
    home = {"HOME": str(tmp_path), "TEST_SOCKETS": str(notes), "PYTHONPATH": os.pathsep.join(map(str, rooms))}
    silent = {"CI", "TF_BUILD", "GITHUB_ACTIONS", "JENKINS_URL", "TRAVIS"}  # there it does not report
    environment = {key: value for key, value in os.environ.items() if key not in silent} | home
    code = _CONVERT.format(load=load, wait=wait)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert notes.exists() is reports, notes.read_text()


# -- the shipped networks -------------------------------------------------------------------------------------------

_CASES = {
    "hemorrhage-drunet-starter": ("hemorrhage", "ct", "HemorrhageSeg", "head_ct_hemorrhage.nrrd"),
    "hemorrhage-slexnet-starter": ("hemorrhage", "ct", "HemorrhageSeg", "head_ct_hemorrhage.nrrd"),
    "stroke-starter": ("stroke", "perfusion", "StrokeCTP", "simulated_ct_perfusion.seq.nrrd"),
    "discs-hourglass-starter": ("discs", "mr", "SpineDiscLabel", "lumbar_spine_mr.nrrd"),
}


@pytest.mark.slow
@pytest.mark.parametrize("starter", _CASES)
def test_a_starter_finds_the_same(starter: str, tmp_path: Path):
    task, name, module, scan = _CASES[starter]
    inputs = {name: library(module) / "Resources" / "SampleData" / scan}
    expected, found = (
        run_case(task, inputs, starter, {"precision": "float32"}, device, tmp_path / device)
        for device in ("cpu", OPENVINO)
    )
    facts = found.provenance if "device" in found.provenance else found.provenance["network"]
    assert (facts["device"], facts["precision"]) == (OPENVINO, "float32")
    assert found.warnings == expected.warnings
    places = [[point.position_ras_mm for point in each.points] for each in (expected, found)]
    if expected.labels is None:
        assert len(places[0]) >= 5 and len(places[0]) == len(places[1])
        np.testing.assert_allclose(places[1], places[0], atol=0.01)
        return
    ours, theirs = expected.labels.array, found.labels.array
    assert ours.any()
    for value in np.unique(ours[ours > 0]):
        a, b = ours == value, theirs == value
        assert 2 * (a & b).sum() >= 0.999 * (a.sum() + b.sum())
