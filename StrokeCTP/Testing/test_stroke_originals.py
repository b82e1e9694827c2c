"""Keras weights of the Stavanger networks give the original's outputs; the original is computed in numpy."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from NeuraxisLib.checkpoint_fit import fitted, place_keras
from NeuraxisLib.checkpoint_import import Card, import_checkpoint
from NeuraxisLib.checkpoint_keras import read_keras
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.models import load_model
from NeuraxisLib.volume import Volume
from StrokeCTPLib.map_preprocessing import MapPreprocessing
from StrokeCTPLib.networks import NETWORKS
from StrokeCTPLib.networks.configurations import CONFIGURATIONS, MAPS, MIP
from StrokeCTPLib.networks.multi_input_vgg import MultiInputVGG
from StrokeCTPLib.networks.originals import ORIGINALS, input_shape, keras_module
from StrokeCTPLib.prediction import predict
from Testing.keras_in_numpy import KerasInNumpy, pool, relu, write_keras

SIDE, BASE = 64, 4


def stavanger(keras: KerasInNumpy, images: dict[str, np.ndarray], numbers: list[float], numbered: bool) -> np.ndarray:
    """The released code's network of width BASE without dropout (specification 1.2): logits (SIDE, SIDE, 3).

    ``numbered``: VGG-16's layers carry TensorFlow's numbers instead of the maps' names.
    """

    def conv(x: np.ndarray, filters: int, size: int = 3) -> np.ndarray:
        return relu(keras.conv(x, filters, size))

    tails, skips = [], []
    for index, (branch, x) in enumerate(images.items()):
        ending = (f"_{index}" if index else "") if numbered else f"_{branch}"
        of_branch = []
        for block, (depth, width) in enumerate(zip((2, 2, 3, 3, 3), (1, 2, 4, 8, 8)), start=1):
            for number in range(1, depth + 1):
                x = relu(keras.conv(x, BASE * width, 3, f"block{block}_conv{number}{ending}"))
            of_branch.append(x)
            x = pool(x)
        tails.append(conv(conv(x, 2 * BASE), 2 * BASE))
        skips.append(of_branch)
    if numbers:
        rows, columns = tails[0].shape[:2]
        hidden = relu(keras.dense(np.array(numbers), 100))
        tails.append(relu(keras.dense(hidden, rows * columns)).reshape(rows, columns, 1))

    def up(x: np.ndarray, filters: int, level: int) -> np.ndarray:
        return np.concatenate([relu(keras.conv_transpose(x, filters)), *(branch[level] for branch in skips)], axis=-1)

    x = up(np.concatenate(tails, axis=-1), 4 * BASE, 4)
    for level, filters in ((3, 2 * BASE), (2, BASE), (1, BASE // 2), (0, BASE // 4)):
        filters *= len(images)
        x = up(conv(conv(x, filters), filters), filters, level)
    return keras.conv(conv(conv(x, BASE // 4), BASE // 4), 3, 1)


def ours(path: Path, name: str) -> MultiInputVGG:
    """The network of a configuration with the weights of a Keras file, placed as the import places them."""
    original = ORIGINALS[name]
    network = MultiInputVGG(**original.arguments, base=BASE, size=SIDE).eval()
    network.load_state_dict(fitted(place_keras(read_keras(path), network, original.keras_module), network, "a", name))
    return network


@pytest.mark.parametrize(
    ("name", "how", "numbered"),
    [
        ("Stavanger_F_Pm", {}, False),
        ("Stavanger_U_PmM", {"shuffle": 1, "whole_model": True}, False),
        ("Stavanger_G_PmN", {"shuffle": 2}, True),
        ("Stavanger_G_PmMN", {"shuffle": 3}, False),
    ],
)
def test_outputs_are_the_originals(tmp_path, name, how, numbered):
    configuration, random = CONFIGURATIONS[name], np.random.default_rng(4)
    images = {branch: random.uniform(-2, 2, (SIDE, SIDE, 3)) for branch in configuration.maps}
    numbers = [17.0] * len(configuration.scalars)
    keras = KerasInNumpy(5, made_before=7)
    wanted = stavanger(keras, images, numbers, numbered)
    network = ours(write_keras(tmp_path / "a.h5", keras.layers, **how), name)
    planes = [np.moveaxis(image, -1, 0) for image in images.values()]
    planes += [np.full((1, SIDE, SIDE), number) for number in numbers]
    with torch.inference_mode():
        found = network(torch.from_numpy(np.concatenate(planes)[None]).float()).numpy()[0]
    spread = np.ptp(wanted)
    assert spread > 0.05
    assert np.abs(np.moveaxis(found, 0, -1) - wanted).max() <= 1e-4 * spread


def test_weights_saved_on_several_graphics_cards(tmp_path):
    """Keras then saves the network as one layer of another, and tells the branches apart by TensorFlow's numbers."""
    keras = KerasInNumpy(5)
    images = {name: np.random.default_rng(4).uniform(-2, 2, (SIDE, SIDE, 3)) for name in MAPS}
    wanted = stavanger(keras, images, [], numbered=True)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"input_1", b"model_1", b"lambda"]
        for name in ("input_1", "model_1", "lambda"):
            file.create_group(name).attrs["weight_names"] = []
        arrays = {f"{layer}/{key}:0": value for layer, kept in keras.layers.items() for key, value in kept.items()}
        file["model_1"].attrs["weight_names"] = [name.encode() for name in arrays]
        for name, value in arrays.items():
            file["model_1"].create_dataset(name, data=value)
    x = np.concatenate([np.moveaxis(image, -1, 0) for image in images.values()])[None]
    with torch.inference_mode():
        found = ours(tmp_path / "a.h5", "Stavanger_U_Pm")(torch.from_numpy(x).float()).numpy()[0]
    assert np.abs(np.moveaxis(found, 0, -1) - wanted).max() <= 1e-4 * np.ptp(wanted)


def test_all_twelve_have_their_network_and_input():
    assert set(ORIGINALS) == set(CONFIGURATIONS) <= set(NETWORKS)
    for name, original in ORIGINALS.items():
        with torch.device("meta"):
            network = MultiInputVGG(**original.arguments, base=BASE)
        assert input_shape(original.preprocessing) == (1, network.in_channels, 512, 512)
        modules = {module for module, _ in network.named_modules()}
        layers = [
            f"block{block}_conv{number}_{branch}"
            for branch in CONFIGURATIONS[name].maps
            for block, depth in enumerate((2, 2, 3, 3, 3), start=1)
            for number in range(1, depth + 1)
        ]
        assert len({keras_module(layer) for layer in layers} & modules) == 13 * len(CONFIGURATIONS[name].maps)


def test_another_configuration_is_refused(tmp_path):
    keras = KerasInNumpy(5)
    stavanger(keras, {name: np.zeros((SIDE, SIDE, 3)) for name in MAPS}, [], False)
    write_keras(tmp_path / "a.h5", keras.layers)
    with pytest.raises(ModelError, match="needs .* as 'branches.mip.vgg.convolutions.block1_conv1.weight'"):
        ours(tmp_path / "a.h5", "Stavanger_F_PmM")
    stavanger(keras := KerasInNumpy(5), {name: np.zeros((SIDE, SIDE, 3)) for name in (*MAPS, MIP)}, [], False)
    write_keras(tmp_path / "b.h5", keras.layers)
    with pytest.raises(ModelError, match="has the shape"):
        ours(tmp_path / "b.h5", "Stavanger_F_Pm")


def test_layers_of_other_names_have_no_place():
    assert keras_module("block1_conv1") == "branches.cbf.vgg.convolutions.block1_conv1"
    assert keras_module("block5_conv3_mip") == "branches.mip.vgg.convolutions.block5_conv3"
    assert [keras_module(name) for name in ("conv2d_3", "block6_conv1_cbf", "block1_conv1_mtt")] == [None] * 3


def test_imported_weights_become_a_model_that_predicts(tmp_path):
    """By the way of ``neuraxis models import``: the task's table, the file's hash, a header that says all."""
    keras, random = KerasInNumpy(5), np.random.default_rng(4)
    images = {branch: random.uniform(0, 255, (SIDE, SIDE, 3)) for branch in MAPS}
    stavanger(keras, images, [], numbered=False)
    source = write_keras(tmp_path / "a.h5", keras.layers)
    shown = MapPreprocessing(MAPS, (), SIDE, "colours", 3.0).to_dict()
    output = tmp_path / "imported.safetensors"
    header = import_checkpoint(
        source, output, "Stavanger_F_Pm", {"base": BASE, "size": SIDE}, Card(preprocessing=shown)
    )
    assert header["task"] == "stroke" and header["labels"] == {"1": "Penumbra", "2": "Core"}
    values = np.full((2, SIDE, SIDE), np.nan, np.float32)
    values[:, 8:56, 8:56] = 5
    maps = {name: Volume(values, np.diag([-3.0, -3.0, 5.0, 1.0])) for name in MAPS}
    found, facts = predict(maps, load_model(output, "stroke"))
    assert found.shape == (3, 2, SIDE, SIDE) and np.allclose(found.sum(axis=0), 1, atol=1e-5)
    assert facts["classes"] == ["background", "penumbra", "core"]
    with pytest.raises(InputError, match="does not take images of 12 channels"):
        import_checkpoint(
            source, tmp_path / "b.safetensors", "Stavanger_F_PmM", {"base": BASE}, Card(preprocessing=shown)
        )
