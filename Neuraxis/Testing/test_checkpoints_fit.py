"""Where the layers of an original go in a network, and what is said of the first tensor that does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib.checkpoint_fit import fitted, modules_by_kind, place_keras, place_torch
from NeuraxisLib.checkpoint_keras import CONVOLUTION, DENSE, NORM, RECURRENT, TRANSPOSED, KerasLayer
from NeuraxisLib.errors import ModelError


class Lstm(nn.Module):
    """The form of a convolutional LSTM."""

    def __init__(self):
        super().__init__()
        self.input = nn.Conv2d(1, 4, 3)
        self.recurrent = nn.Conv2d(1, 4, 3, bias=False)


class Mixed(nn.Module):
    """A module of every kind."""

    def __init__(self):
        super().__init__()
        self.named = nn.Conv2d(1, 1, 1)
        self.first = nn.Conv2d(1, 2, 3)
        self.up = nn.ConvTranspose2d(2, 3, 2)
        self.norm = nn.BatchNorm2d(3)
        self.lstm = Lstm()
        self.second = nn.Conv2d(1, 2, 3)
        self.dense = nn.Linear(5, 2)


def layer(name: str, **shapes: tuple[int, ...]) -> KerasLayer:
    """Arrays filled with 0, 1, 2 ..."""
    return KerasLayer(
        name, {key: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for key, shape in shapes.items()}
    )


def layers() -> list[KerasLayer]:
    """Layers for :class:`Mixed`, in an order of the file that is not that of making."""
    return [
        layer("dense_4", kernel=(5, 2), bias=(2,)),
        layer("conv2d_10", kernel=(3, 3, 1, 2), bias=(2,)),
        layer("conv_lst_m2d", kernel=(3, 3, 1, 4), recurrent_kernel=(3, 3, 1, 4), bias=(4,)),
        layer("batch_normalization_2", gamma=(3,), beta=(3,), moving_mean=(3,), moving_variance=(3,)),
        layer("by_its_author", kernel=(1, 1, 1, 1), bias=(1,)),
        layer("conv2d_9", kernel=(3, 3, 1, 2), bias=(2,)),
        layer("conv2d_transpose", kernel=(2, 2, 3, 2), bias=(3,)),
    ]


def place(found: list[KerasLayer]) -> dict:
    return place_keras(found, Mixed(), {"by_its_author": "named"}.get)


def weights(found: list[KerasLayer]) -> dict[str, torch.Tensor]:
    return fitted(place(found), Mixed(), "a.h5", "Mixed")


def test_modules_are_told_apart():
    kinds = [("named", CONVOLUTION), ("first", CONVOLUTION), ("up", TRANSPOSED), ("norm", NORM), ("lstm", RECURRENT)]
    assert list(modules_by_kind(Mixed())) == [*kinds, ("second", CONVOLUTION), ("dense", DENSE)]


def test_keras_numbers_tell_the_order_whatever_the_order_of_the_file():
    placed = place(layers())
    assert placed["first.weight"].name == "conv2d_9/kernel" and placed["second.weight"].name == "conv2d_10/kernel"
    assert placed["named.bias"].name == "by_its_author/bias"
    network = Mixed()
    state = weights(layers())
    assert set(network.state_dict()) - set(state) == {"norm.num_batches_tracked"}
    network.load_state_dict(state, strict=False)


def test_every_index_lands_where_pytorch_has_it():
    state, keras = weights(layers()), {one.name: one.weights for one in layers()}
    for row, column, out in np.ndindex(3, 3, 2):
        assert state["first.weight"][out, 0, row, column] == keras["conv2d_9"]["kernel"][row, column, 0, out]
    for row, column, out, enter in np.ndindex(2, 2, 3, 2):
        kernel = keras["conv2d_transpose"]["kernel"]
        assert state["up.weight"][enter, out, row, column] == kernel[row, column, out, enter]
    assert torch.equal(state["dense.weight"], torch.from_numpy(keras["dense_4"]["kernel"].T))
    assert state["lstm.recurrent.weight"].shape == (4, 1, 3, 3) and state["lstm.input.bias"].tolist() == [0, 1, 2, 3]
    assert state["norm.running_var"].tolist() == [0, 1, 2]


def test_a_norm_without_gamma_and_beta_scales_by_one():
    found = [one for one in layers() if "normal" not in one.name]
    state = weights([*found, layer("batch_normalization", moving_mean=(3,), moving_variance=(3,))])
    assert state["norm.weight"].tolist() == [1, 1, 1] and state["norm.bias"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (
            lambda found: [*found[:5], layer("conv2d_9", kernel=(5, 5, 1, 2), bias=(2,)), found[6]],
            r"tensor 'conv2d_9/kernel' of the checkpoint 'a.h5' has the shape \(2, 1, 5, 5\) but Mixed needs "
            r"\(2, 1, 3, 3\) as 'first.weight'",
        ),
        (lambda found: found[1:], r"nothing for the tensor 'dense.weight' \(2, 5\) of Mixed"),
        (
            lambda found: [*found, layer("conv2d_11", kernel=(3, 3, 1, 2), bias=(2,))],
            r"holds the tensor 'conv2d_11/kernel' \(2, 1, 3, 3\) for which Mixed has no place",
        ),
        (
            lambda found: [*found, layer("by_someone_else", kernel=(1, 1, 1, 1))],
            "holds the tensor 'by_someone_else/kernel'",
        ),
        (
            lambda found: [*found[:4], *found[5:]],
            r"'conv2d_9/kernel'.*\(2, 1, 3, 3\) but Mixed needs \(1, 1, 1, 1\) as 'named.weight'",
        ),
    ],
    ids=["shape", "missing", "too many", "unknown name", "named one missing"],
)
def test_the_first_tensor_that_does_not_fit_is_named(change, pattern):
    with pytest.raises(ModelError, match=pattern):
        weights(change(layers()))


def test_names_of_a_state_dict_are_translated():
    state = {"SEM.weight": torch.ones(2, 2), "SEM.bias": torch.ones(2), "mySEM.x": torch.ones(1)}
    placed = place_torch(state, ((r"^SEM\.", "SMM."),))
    assert list(placed) == ["SMM.weight", "SMM.bias", "mySEM.x"]
    network = nn.ModuleDict({"SMM": nn.Linear(2, 2)})
    with pytest.raises(ModelError, match=r"holds the tensor 'mySEM.x' \(1\)"):
        fitted(placed, network, "a.pth", "Two")
    del placed["mySEM.x"]
    assert fitted(placed, network, "a.pth", "Two")["SMM.weight"].shape == (2, 2)


def test_a_view_that_claims_to_be_huge_is_not_copied():
    """A tensor repeated by strides of 0 takes no memory until it is copied."""
    huge = torch.zeros(1).expand(1 << 20, 1 << 20)
    with pytest.raises(ModelError, match=r"has the shape \(1048576, 1048576\)"):
        fitted(place_torch({"weight": huge, "bias": torch.ones(2)}), nn.Linear(2, 2), "a.pth", "Linear")


def test_half_and_double_precision_become_single():
    state = {"weight": torch.ones(2, 2, dtype=torch.float64), "bias": torch.ones(2, dtype=torch.bfloat16)}
    found = fitted(place_torch(state), nn.Linear(2, 2), "a.pth", "Linear")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
