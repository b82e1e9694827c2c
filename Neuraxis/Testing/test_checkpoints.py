"""Checkpoints of others: what is read from PyTorch and Keras files, and that no code in them is ever run."""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib.checkpoint_import import KERAS, PYTORCH, kind_of_file
from NeuraxisLib.checkpoint_keras import CONVOLUTION, DENSE, NORM, RECURRENT, TRANSPOSED, read_keras
from NeuraxisLib.checkpoint_torch import read_torch
from NeuraxisLib.errors import DependencyError, ModelError
from Testing.keras_in_numpy import write_keras


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3))


STATE = network().state_dict()


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor] = STATE) -> bool:
    return list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


# -- PyTorch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "optimizer": {"state": {}}, "state_dict": state},
        lambda state: {"model_weights": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model": {f"_orig_mod.module.{name}": value for name, value in state.items()}},
        lambda state: {"network_weights": state, "init_args": {}},
        lambda state: {"model": {"state_dict": state}},
    ],
    ids=["alone", "state_dict", "model_weights", "model", "network_weights", "nested"],
)
def test_a_state_dict_is_found_wherever_training_scripts_put_it(tmp_path, legacy, wrap):
    torch.save(wrap(STATE), tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert kind_of_file(tmp_path / "a.pth") == PYTORCH
    assert same(read_torch(tmp_path / "a.pth"))


def test_a_prefix_that_only_some_names_have_belongs_to_the_names(tmp_path):
    state = {"module.weight": torch.ones(2), "head.weight": torch.zeros(2)}
    torch.save(state, tmp_path / "a.pth")
    assert same(read_torch(tmp_path / "a.pth"), state)


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return (os.mkdir, (self.mark,))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "beside tensors"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, form):
    path, mark = tmp_path / "a.pth", tmp_path / "run"
    hostile = {"state_dict": STATE, "extra": Hostile(mark)} if form == "beside tensors" else Hostile(mark)
    if form == "pickle":
        path.write_bytes(pickle.dumps(hostile, protocol=2))
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(ModelError, match=r"'a.pth' (holds more than tensors: it asks for '\w+.mkdir'|is no pickle)"):
        read_torch(path)
    assert not mark.exists()
    if form == "pickle":  # the trap is real: an unrestricted reader walks into it
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert mark.exists()


def test_a_network_pickled_whole_is_refused_by_the_name_of_its_class(tmp_path):
    torch.save(network(), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"asks for 'torch.nn.modules.container.Sequential'.*state_dict"):
        read_torch(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))
    with pytest.raises(ModelError, match="TorchScript program"):
        read_torch(tmp_path / "a.pt")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, legacy, share):
    torch.save({"w": torch.ones(3000)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ModelError, match="'a.pth' (is damaged or was cut short|is no pickle of tensors or was damaged)"
    ):
        read_torch(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_damaged_file_is_read_or_refused_but_never_a_crash(tmp_path, legacy):
    torch.save(STATE, tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)
    content, rng, refused = (tmp_path / "whole.pth").read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(len(content), size=3)] = rng.integers(256, size=3)
        (tmp_path / "a.pth").write_bytes(damaged.tobytes())
        try:
            read_torch(tmp_path / "a.pth")
        except ModelError:
            refused += 1
    assert refused > 100


def test_an_archive_of_several_disks_is_no_crash(tmp_path):
    """Python's zipfile speaks of those with an error of its own."""
    torch.save(STATE, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    locator = content.rindex(b"PK\x06\x07")
    content[locator + 16 : locator + 20] = (2).to_bytes(4, "little")
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(tmp_path / "a.pth")
    with contextlib.suppress(ModelError):
        assert same(read_torch(tmp_path / "a.pth"))


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(2)], torch.ones(2), {"state_dict": {"epoch": 3}}, {}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="holds no state dict, neither alone nor under state_dict"):
        read_torch(tmp_path / "a.pth")


@pytest.mark.parametrize("tensor", [torch.ones(2, 2).to_sparse(), torch.ones(2, dtype=torch.complex64)])
def test_tensors_that_no_network_here_holds_are_refused_by_name(tmp_path, tensor):
    torch.save({"fine": torch.ones(2), "odd.weight": tensor}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="tensor 'odd.weight'"):
        read_torch(tmp_path / "a.pth")


def test_an_archive_that_unpacks_to_more_than_a_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("NeuraxisLib.checkpoint_torch.MAX_FILE_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 20_000)
    with pytest.raises(ModelError, match="unpacks to more than"):
        read_torch(tmp_path / "a.pth")


def test_a_pytorch_whose_restricted_reader_can_be_tricked_is_not_used(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(DependencyError, match="PyTorch 2.5.1.*2.6 or newer"):
        read_torch(tmp_path / "a.pth")


# -- Keras ----------------------------------------------------------------------------------------------------


def arrays(**named: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(named))
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in named.items()}


NORM_WEIGHTS = arrays(gamma=(3,), beta=(3,), moving_mean=(3,), moving_variance=(3,))


@pytest.mark.parametrize("whole_model", [False, True], ids=["save_weights", "save"])
def test_layers_come_with_their_arrays_and_kinds(tmp_path, whole_model):
    layers = {
        "conv2d": arrays(kernel=(3, 3, 1, 2), bias=(2,)),
        "conv2d_transpose_1": arrays(kernel=(2, 2, 2, 4)),
        "batch_normalization_v1_12": NORM_WEIGHTS,
        "dense": arrays(kernel=(5, 2), bias=(2,)),
        "conv_lst_m2d_2": arrays(kernel=(3, 3, 2, 8), recurrent_kernel=(3, 3, 2, 8), bias=(8,)),
        "block1_conv1": arrays(kernel=(3, 3, 3, 2), bias=(2,)),
        "embedding": arrays(embeddings=(4, 4)),
    }
    path = write_keras(tmp_path / "a.h5", layers, whole_model)
    assert kind_of_file(path) == KERAS
    found = read_keras(path)
    assert [layer.name for layer in found] == list(layers)
    kinds = [CONVOLUTION, TRANSPOSED, NORM, DENSE, RECURRENT, CONVOLUTION, ""]
    assert [layer.kind for layer in found] == kinds
    assert [layer.number for layer in found] == [0, 1, 12, 0, 2, None, None]
    for layer in found:
        assert all(np.array_equal(layer.weights[name], value) for name, value in layers[layer.name].items())


def test_newer_names_are_read_too(tmp_path):
    """Keras 3 leaves out ":0", calls the layer conv_lstm2d and its weights those of a cell."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = ["conv_lstm2d_3"]
        group = root.create_group("conv_lstm2d_3")
        weights = arrays(kernel=(3, 3, 2, 8), recurrent_kernel=(3, 3, 2, 8), bias=(8,))
        group.attrs["weight_names"] = [f"conv_lstm2d_3/conv_lstm_cell/{name}" for name in weights]
        for name, value in weights.items():
            group.create_dataset(f"conv_lstm2d_3/conv_lstm_cell/{name}", data=value)
    (layer,) = read_keras(tmp_path / "a.h5")
    assert (layer.kind, layer.number, sorted(layer.weights)) == (RECURRENT, 3, ["bias", "kernel", "recurrent_kernel"])


def test_a_network_used_as_a_layer_gives_its_own_layers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"vgg16"]
        group = file.create_group("vgg16")
        names = [f"block1_conv{n}/{key}:0" for n in (1, 2) for key in ("kernel", "bias")]
        group.attrs["weight_names"] = [name.encode() for name in names]
        for number, name in enumerate(names):
            shape = (3, 3, 1, 1) if "kernel" in name else (1,)
            group.create_dataset(name, data=np.full(shape, number, np.float32))
    first, second = read_keras(tmp_path / "a.h5")
    assert (first.name, second.name) == ("block1_conv1", "block1_conv2")
    assert second.weights["kernel"].mean() == 2 and second.weights["bias"] == 3


def test_a_list_of_names_that_keras_cut_is_put_together(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        names = [f"conv2d_{number}" for number in range(7)]
        for chunk, part in enumerate((names[:4], names[4:])):
            file.attrs[f"layer_names{chunk}"] = [name.encode() for name in part]
        for number, name in enumerate(names):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/bias:0".encode()]
            group.create_dataset(f"{name}/bias:0", data=[np.float32(number)])
    assert [float(layer.weights["bias"][0]) for layer in read_keras(tmp_path / "a.h5")] == list(range(7))


@pytest.mark.parametrize("way", ["external link", "soft link", "external data", "virtual data"])
def test_a_file_that_leads_outside_itself_is_refused(tmp_path, way):
    secret = np.arange(4, dtype=np.float32)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = secret
    (tmp_path / "secret.bin").write_bytes(secret.tobytes())
    path = write_keras(tmp_path / "a.h5", {"conv2d": {"kernel": np.ones((1, 1, 1, 4), np.float32)}})
    with h5py.File(path, "r+") as file:
        group = file["conv2d"]
        group.attrs["weight_names"] = [b"conv2d/kernel:0", b"x/bias:0"]
        group = group.create_group("x")
        if way == "external link":
            group["bias:0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "secret")
        elif way == "soft link":
            group["bias:0"] = h5py.SoftLink("/conv2d/conv2d/kernel:0")
        elif way == "external data":
            group.create_dataset("bias:0", (4,), "f4", external=[(str(tmp_path / "secret.bin"), 0, 16)])
        else:
            layout = h5py.VirtualLayout((4,), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "secret", (4,))
            group.create_virtual_dataset("bias:0", layout)
    with pytest.raises(ModelError, match="'a.h5' leads outside itself at 'x/bias:0'"):
        read_keras(path)


def test_an_array_that_claims_to_be_huge_is_not_read(tmp_path):
    with h5py.File(write_keras(tmp_path / "a.h5", {"conv2d": {"bias": np.ones(1, np.float32)}}), "r+") as file:
        del file["conv2d/conv2d/bias:0"]
        file["conv2d"].create_dataset("conv2d/bias:0", (1 << 40,), "f4", chunks=(1 << 20,))
    with pytest.raises(ModelError, match="'conv2d/bias:0'.* is no array of weights or far too large"):
        read_keras(tmp_path / "a.h5")


def test_arrays_of_texts_are_refused(tmp_path):
    with h5py.File(write_keras(tmp_path / "a.h5", {"conv2d": {"bias": np.ones(1, np.float32)}}), "r+") as file:
        del file["conv2d/conv2d/bias:0"]
        file["conv2d"].create_dataset("conv2d/bias:0", data=["exec()"])
    with pytest.raises(ModelError, match="is no array of weights"):
        read_keras(tmp_path / "a.h5")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_keras_file_cut_short_is_refused(tmp_path, share):
    path = write_keras(tmp_path / "whole.h5", {"conv2d": arrays(kernel=(9, 9, 9, 9), bias=(9,))})
    content = path.read_bytes()
    (tmp_path / "a.h5").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match="'a.h5' is damaged or was cut short"):
        read_keras(tmp_path / "a.h5")


def test_other_hdf5_files_are_refused_in_words(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["image"] = np.ones(3)
    with pytest.raises(ModelError, match="holds no Keras weights"):
        read_keras(tmp_path / "data.h5")
    with h5py.File(tmp_path / "new.weights.h5", "w") as file:
        file.create_group("layers/conv2d/vars")
    with pytest.raises(ModelError, match=r"newer layout of '.weights.h5'.*model.save"):
        read_keras(tmp_path / "new.weights.h5")


# -- other files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("notes.txt", b"hello", "is no PyTorch checkpoint, Keras weights"),
        ("empty.pth", b"", "is no PyTorch checkpoint, Keras weights"),
    ],
)
def test_files_of_other_kinds_are_refused(tmp_path, name, content, pattern):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=pattern):
        kind_of_file(tmp_path / name)


def test_a_file_that_is_not_there_is_an_error_in_words(tmp_path):
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(ModelError, match=f"'{path.name}' cannot be opened"):
            kind_of_file(path)
