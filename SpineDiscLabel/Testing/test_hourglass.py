"""The stacked hourglass is the published one: its size, its shapes, its sums, its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from original_hourglass import Original

from NeuraxisLib.checkpoint_fit import fitted, place_torch
from NeuraxisLib.checkpoint_torch import read_torch
from NeuraxisLib.errors import ModelError
from NeuraxisLib.inference import fold_batch_norm
from SpineDiscLabelLib.networks.hourglass import Hourglass, Residual, StackedHourglass
from SpineDiscLabelLib.networks.originals import ORIGINALS, TORCH_NAMES, input_shape

PUBLISHED_PARAMETERS = {
    (1, False): 3_585_675,
    (1, True): 3_620_931,
    (2, False): 6_727_062,
    (2, True): 6_795_086,
    (3, False): 9_868_449,
    (3, True): 9_969_241,
    (4, False): 13_009_836,
    (4, True): 13_143_396,
    (8, False): 25_575_384,
    (8, True): 25_840_016,
}


def made(**arguments) -> StackedHourglass:
    with torch.device("meta"):
        return StackedHourglass(**arguments).eval()


@pytest.mark.parametrize(("stacks", "attention"), PUBLISHED_PARAMETERS)
def test_has_the_published_number_of_parameters(stacks: int, attention: bool):
    network = made(stacks=stacks, attention=attention)
    assert sum(tensor.numel() for tensor in network.parameters()) == PUBLISHED_PARAMETERS[stacks, attention]


def test_default_is_the_published_network():
    assert sum(tensor.numel() for tensor in made().parameters()) == 6_795_086
    assert len(made().state_dict()) == 703
    assert len(made(attention=False).state_dict()) == 684


def test_every_stage_has_the_published_shape():
    network, shapes = StackedHourglass().eval(), {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.setdefault(name, out))
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, 256, 256))
    assert [tuple(map_.shape) for map_ in maps] == [(1, 11, 256, 256)] * 2
    walk = {name: tuple(out.shape[1:]) for name, out in shapes.items() if isinstance(out, torch.Tensor)}
    assert walk["stem"] == (64, 128, 128)
    assert walk["first"] == (128, 128, 128)
    assert walk["second"] == walk["third"] == (256, 64, 64)
    for stack in (0, 1):
        for depth, side in enumerate((64, 32, 16, 8)):
            node = f"stacks.{stack}.hourglass{'.inner' * depth}"
            assert walk[f"{node}.skip"] == (256, side, side)
            assert walk[f"{node}.down"] == walk[f"{node}.up"] == (256, side // 2, side // 2)
        assert walk[f"stacks.{stack}.hourglass.inner.inner.inner.inner"] == (256, 4, 4)
        assert walk[f"stacks.{stack}.score"] == (11, 64, 64)
    assert walk["attention.0"] == (128, 64, 64)
    assert walk["attention"] == (1, 64, 64)


def test_an_hourglass_has_thirteen_residual_nodes():
    with torch.device("meta"):
        one, two = Hourglass(256, 1), Hourglass(256, 2)
    assert sum(isinstance(module, Residual) for module in one.modules()) == 13
    assert sum(isinstance(module, Residual) for module in two.modules()) == 26


def test_compact_network_takes_other_channels_and_sizes():
    network = StackedHourglass(width=32, classes=25, in_channels=5).eval()
    with torch.no_grad():
        assert network.scores(torch.zeros(2, 5, 128, 320))[-1].shape == (2, 25, 32, 80)
    with pytest.raises(ValueError, match="divisible by 64"):
        network(torch.zeros(1, 5, 100, 128))
    with pytest.raises(ValueError, match="multiple of 4"):
        StackedHourglass(width=30)


def test_attention_is_one_map_that_weighs_the_last_features_alone():
    """By hand: every attention weight 0 gives sigmoid(0) = 1/2, so the last score is that of half the features."""
    torch.manual_seed(0)
    network = StackedHourglass(width=8, classes=2, stacks=2).eval()
    x = torch.rand(1, 3, 64, 64)
    features = {}
    for number, stack in enumerate(network.stacks):
        stack.mix.register_forward_hook(lambda _, __, out, number=number: features.__setitem__(number, out))
    with torch.no_grad():
        network.attention[-2].weight.zero_()
        first, last = network.scores(x)
        assert torch.allclose(last, network.stacks[1].score(features[1] / 2), atol=1e-6)
        assert torch.allclose(first, network.stacks[0].score(features[0]), atol=1e-6)
        # one map, sigmoid(2 x) where the input of the last convolution is x in its first channel and 0 elsewhere
        network.attention[-2].weight[0, 0] = 2.0
        before = network.attention[:-2](torch.cat([features[0], features[1]], dim=1))[:, :1]
        wanted = network.stacks[1].score(features[1] / (1 + torch.exp(-2 * before)))
        assert torch.allclose(network.scores(x)[-1], wanted, atol=1e-6)


@pytest.mark.parametrize(("stacks", "blocks", "attention"), [(2, 1, True), (2, 1, False), (3, 2, True), (1, 1, True)])
def test_checkpoint_of_the_original_gives_its_heat_maps(tmp_path: Path, stacks: int, blocks: int, attention: bool):
    original, x = Original(width=16), torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    wanted = original(x, stacks, blocks, attention=attention)
    torch.save(original.checkpoint(), tmp_path / "model_t2_att_stacks")
    network = StackedHourglass(stacks, blocks, width=16, attention=attention).eval()
    placed = place_torch(read_torch(tmp_path / "model_t2_att_stacks"), TORCH_NAMES)
    network.load_state_dict(fitted(placed, network, "model", "StackedHourglass"))
    with torch.no_grad():
        found = network(x)
    assert len(found) == stacks
    for one, other in zip(found, wanted):
        assert other.std() > 0.01
        assert torch.allclose(one, other, atol=1e-4)


def test_published_checkpoint_has_every_tensor_of_ours():
    original = Original(width=256)
    with torch.no_grad():
        original(torch.zeros(1, 3, 64, 64))
    assert len(original.tensors) == 703
    placed = place_torch(original.tensors, TORCH_NAMES)
    assert {name: found.tensor.shape for name, found in placed.items()} == {
        name: tensor.shape for name, tensor in made().state_dict().items()
    }


def test_wrong_checkpoint_is_refused_by_its_first_tensor():
    original = Original(width=16)
    original(torch.zeros(1, 3, 64, 64), classes=11)
    placed = place_torch(original.tensors, TORCH_NAMES)
    with pytest.raises(ModelError, match=r"score.0.weight.*\(11, 16, 1, 1\).*needs \(25, 16, 1, 1\)"):
        fitted(placed, made(width=16, classes=25), "model", "StackedHourglass")
    with pytest.raises(ModelError, match="attention.0.weight.*no place"):
        fitted(placed, made(width=16, attention=False), "model", "StackedHourglass")


def test_folded_batch_norms_change_nothing():
    torch.manual_seed(0)
    network = StackedHourglass(width=16, classes=4)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, 64, 64))  # running statistics that are not 0 and 1
        network.eval()
        x = torch.rand(1, 3, 64, 64)
        assert torch.allclose(fold_batch_norm(network)(x)[-1], network(x)[-1], atol=1e-4)


def test_every_weight_learns():
    torch.manual_seed(0)
    network = StackedHourglass(width=16, classes=3)
    sum(map_.square().mean() for map_ in network(torch.rand(2, 3, 128, 128))).backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


def test_original_says_what_it_was_shown():
    original = ORIGINALS["StackedHourglass"]
    assert input_shape(original.preprocessing) == (1, 3, 256, 256)
    assert original.preprocessing["first_disc"] == 3
    assert original.preprocessing["levels"] == 11
