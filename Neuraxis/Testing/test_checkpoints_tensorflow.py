"""TensorFlow checkpoints are read without TensorFlow.

``tensorflow_checkpoint/tiny`` was written by TensorFlow 2.15 with ``tf.train.Checkpoint(train_steps, seg_model,
model_optimizer)``, as DR-UNet's code does. Its network is Conv2D(2, 3) with BatchNormalization plus Conv2D(2, 1), then
Conv2DTranspose(1, 2); its n-th array holds 100 n, 100 n + 1 ...; the optimiser (Adam) has made a step.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib import checkpoint_import
from NeuraxisLib.checkpoint_import import TENSORFLOW, Original, import_checkpoint, kind_of_file
from NeuraxisLib.checkpoint_keras import CONVOLUTION, NORM, TRANSPOSED
from NeuraxisLib.checkpoint_tensorflow import data_files, read_tensorflow
from NeuraxisLib.errors import ModelError
from NeuraxisLib.models import load_model
from NeuraxisLib.task import get_task

WRITTEN = Path(__file__).resolve().parent / "tensorflow_checkpoint"
DATA = "tiny.data-00000-of-00001"


@pytest.fixture
def index(tmp_path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(WRITTEN, tmp_path / "here")
    return tmp_path / "here" / "tiny.index"


def test_layers_have_the_names_and_arrays_that_tensorflow_wrote(index):
    assert kind_of_file(index) == TENSORFLOW
    layers = {layer.name: layer for layer in read_tensorflow(index)}
    assert {name: layer.kind for name, layer in layers.items()} == {
        "conv2d": CONVOLUTION, "batch_normalization": NORM, "conv2d_1": CONVOLUTION, "conv2d_transpose": TRANSPOSED
    }  # fmt: skip
    order = [
        ("conv2d", "kernel", (3, 3, 1, 2)), ("conv2d", "bias", (2,)),
        ("batch_normalization", "gamma", (2,)), ("batch_normalization", "beta", (2,)),
        ("batch_normalization", "moving_mean", (2,)), ("batch_normalization", "moving_variance", (2,)),
        ("conv2d_1", "kernel", (1, 1, 1, 2)), ("conv2d_1", "bias", (2,)),
        ("conv2d_transpose", "kernel", (2, 2, 1, 2)), ("conv2d_transpose", "bias", (1,)),
    ]  # fmt: skip
    assert sum(len(layer.weights) for layer in layers.values()) == len(order)
    for number, (name, weight, shape) in enumerate(order):
        wanted = 100 * number + np.arange(np.prod(shape)).reshape(shape)
        assert np.array_equal(layers[name].weights[weight], wanted)


def test_the_data_are_asked_for(index):
    with pytest.raises(ModelError, match="is the data of a TensorFlow checkpoint; choose its '.index'"):
        kind_of_file(index.with_name(DATA))
    index.with_name(DATA).rename(index.with_name("tiny.data-00000-of-00002"))
    for _ in range(2):
        with pytest.raises(ModelError, match=r"'tiny.index' lacks its data; put 'tiny.data-00000-of-00001' beside it"):
            read_tensorflow(index)
        for path in index.parent.glob("*.data*"):
            path.unlink()


def test_names_with_brackets_are_names(index):
    """Folder globbing must not take them for patterns."""
    for path in list(index.parent.iterdir()):
        path.rename(path.with_name(path.name.replace("tiny", "best[1]*?")))
    assert [path.name for path in data_files(index.with_name("best[1]*?.index"))] == ["best[1]*?.data-00000-of-00001"]


@pytest.mark.parametrize(("name", "share"), [("tiny.index", 0.5), (DATA, 0.5), (DATA, 0.0)])
def test_files_cut_short_are_refused(index, name, share):
    path = index.with_name(name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"'tiny.index' is damaged or was cut short"):
        read_tensorflow(index)


def test_a_damaged_index_is_read_or_refused_but_never_a_crash(index):
    content, rng = index.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(len(content), size=3)] = rng.integers(256, size=3)
        index.write_bytes(damaged.tobytes())
        try:
            read_tensorflow(index)
        except ModelError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("at", [1188, 1479, 1885])
def test_the_check_sum_of_the_index_counts(index, at):
    """One byte of an array's place or shape, which would give other weights in silence."""
    content = bytearray(index.read_bytes())
    content[at] ^= 1
    index.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        read_tensorflow(index)


class Tiny(nn.Module):
    """The network of the file."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2, eps=1e-3)
        self.side = nn.Conv2d(1, 2, 1)
        self.up = nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.norm(self.first(x)) + self.side(x))


def test_a_checkpoint_becomes_a_model_file(index, tmp_path, monkeypatch):
    original = Original(f"{__name__}:Tiny", "a test", {"any": 1}, lambda shown: (1, 1, 8, 8))
    monkeypatch.setattr(checkpoint_import, "find_original", lambda name: (get_task("hemorrhage"), original))
    import_checkpoint(index, tmp_path / "a.safetensors", "Tiny")
    model = load_model(tmp_path / "a.safetensors")
    assert model.header["training"]["imported_from"] == "TensorFlow checkpoint"
    both = index.read_bytes() + index.with_name(DATA).read_bytes()
    assert model.header["training"]["source_sha256"] == hashlib.sha256(both).hexdigest()
    network = Tiny().eval()
    network.load_state_dict(model.weights(), strict=False)
    with torch.inference_mode():
        found = network(torch.ones(1, 1, 3, 3))[0, 0, 2:4, 2:4].numpy()  # of the pixel in the middle
    first = np.array([72.0 + 100, 81 + 101])  # sums of the even and of the odd numbers up to 17, and the biases
    norm = (first - [400, 401]) / np.sqrt(np.array([500, 501]) + 1e-3) * [200, 201] + [300, 301]
    both_paths = np.add(norm, [600 + 700, 601 + 701])
    kernel = 800 + np.arange(8.0).reshape(2, 2, 1, 2)
    np.testing.assert_allclose(found, kernel[:, :, 0] @ both_paths + 900, rtol=1e-5)
