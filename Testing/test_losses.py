"""Losses by name: computed by hand, compared with MONAI's, and what they leave out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from HemorrhageSegLib.networks.slexnet import SLEXNet, SlexPaths
from NeuraxisLib.errors import InputError
from Training import losses
from Training.guards import check_batch
from Training.losses import LOSSES, loss_of
from Training.sampling import Batch
from Training.simulation.bank import BLEEDING, CLEAN, UNKNOWN

#: One pixel of four is blood.
QUARTER = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[None, None]
#: Logits of p = 0.75 in blood and 0.25 elsewhere.
SURE = (2 * QUARTER - 1) * math.log(3)


def batch_of(truth: torch.Tensor, label: int | list[int] = UNKNOWN) -> Batch:
    labels = torch.tensor([label] * len(truth) if isinstance(label, int) else label)
    return Batch(torch.zeros_like(truth), truth, torch.ones_like(truth), labels)


def random_batch(axes: int, count: int = 3) -> tuple[torch.Tensor, Batch]:
    """(logits, batch): the second sample has no blood."""
    random = torch.Generator().manual_seed(axes)
    shape = (count, 1, *[8] * axes)
    truth = (torch.rand(shape, generator=random) < 0.3).float()
    truth[1] = 0
    return torch.randn(shape, generator=random) * 2, batch_of(truth)


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_weighted_cross_entropy_by_hand():
    """Three background pixels at 0.1 and one of blood at 1, over all four: the weights do not divide."""
    value = loss_of(SURE, batch_of(QUARTER), {"loss": "weighted_ce", "class_weights": [0.1, 1.0]})
    assert float(value) == pytest.approx(-(0.3 + 1) / 4 * math.log(0.75))
    plain = loss_of(SURE, batch_of(QUARTER), {"loss": "bce"})
    assert float(plain) == pytest.approx(-math.log(0.75))


def test_slex_loss_is_the_sum_over_three_paths_without_the_centre():
    random = torch.Generator().manual_seed(2)
    paths = SlexPaths(*(torch.randn(2, 2, 4, 4, generator=random) for _ in range(4)))
    truth = (torch.rand(2, 1, 4, 4, generator=random) < 0.4).float()
    weight = torch.tensor([0.1, 1.0])
    terms = [
        cross_entropy(z, truth[:, 0].long(), weight=weight, reduction="sum") / truth.numel()
        for z in (paths.fused, paths.backward, paths.forward)
    ]
    value = loss_of(paths, batch_of(truth), {"loss": "slex"})
    assert float(value) == pytest.approx(float(sum(terms)), rel=1e-6)
    expanded = loss_of(paths, batch_of(truth), {"loss": "slex_expanded"})
    assert float(expanded) == pytest.approx(float(terms[1] + terms[2]), rel=1e-6)
    other = paths._replace(centre=paths.centre + 5)
    assert loss_of(other, batch_of(truth), {"loss": "slex"}) == value


def test_slex_bleeding_adds_the_bleeding_loss_of_three_paths():
    z, batch = random_batch(2)
    labelled = replace(batch, slice_label=torch.tensor([UNKNOWN, CLEAN, BLEEDING]))
    paths = SlexPaths(z - 1, z + 1, z * 9, z)
    each = [float(loss_of(path, labelled, {"loss": "bleeding"})) for path in (z - 1, z + 1, z)]
    assert float(loss_of(paths, labelled, {"loss": "slex_bleeding"})) == pytest.approx(sum(each), rel=1e-6)


def test_every_part_of_slex_net_learns_from_its_loss():
    torch.manual_seed(0)
    network = SLEXNet(base=4)
    truth = torch.zeros(1, 1, 32, 32)
    truth[..., 8:20, 8:20] = 1
    loss_of(network.paths(torch.rand(1, 3, 32, 32)), batch_of(truth), {"loss": "slex"}).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_dice_per_sample_by_hand():
    nothing = torch.zeros_like(QUARTER)
    batch = batch_of(torch.cat([QUARTER, nothing]))
    value = loss_of(torch.cat([SURE, nothing]), batch, {"loss": "dice", "smooth": 1e-5})
    first = (2 * 0.75 + 1e-5) / (1 + 0.75 + 3 * 0.25 + 1e-5)
    assert float(value) == pytest.approx((1 - first + 1 - 1e-5 / (2 + 1e-5)) / 2, rel=1e-6)
    entropy = (4 * -math.log(0.75) + 4 * math.log(2)) / 8
    both = loss_of(torch.cat([SURE, nothing]), batch, {"loss": "dice_ce"})
    assert float(both) == pytest.approx(float(value) + entropy, rel=1e-6)


def test_dice_of_the_batch_by_hand():
    """A sample without blood adds its false alarms to the sums and is no failure by itself."""
    nothing = torch.zeros_like(QUARTER)
    found = torch.cat([SURE, torch.full_like(QUARTER, -40.0)])
    value = loss_of(found, batch_of(torch.cat([QUARTER, nothing])), {"loss": "dice_bce", "smooth": 1.0})
    entropy = 4 * -math.log(0.75) / 8
    assert float(value) == pytest.approx(entropy + 1 - (2 * 0.75 + 1) / (1 + 1.5 + 1), rel=1e-6)


def test_the_proper_dice_sees_the_small_bleed_that_the_released_one_does_not():
    truth = torch.zeros(1, 1, 10, 10)
    truth[..., 0, 0] = 1
    gain = {}
    for name in ("dice_bce", "legacy_mean_dice"):
        right, empty = (
            loss_of(z, batch_of(truth), {"loss": name}) - binary_cross_entropy_with_logits(z, truth)
            for z in (torch.where(truth > 0, 40.0, -40.0), torch.full_like(truth, -40.0))
        )
        gain[name] = float(empty - right)
    assert gain["legacy_mean_dice"] == pytest.approx(1 - 1 / 1.01, abs=1e-6)
    assert gain["dice_bce"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("axes", [2, 3])
def test_dice_is_monai_s(axes):
    monai = pytest.importorskip("monai.losses")
    z, batch = random_batch(axes)
    assert float(loss_of(z, batch, {"loss": "dice"})) == pytest.approx(
        float(monai.DiceLoss(sigmoid=True)(z, batch.truth)), rel=1e-6
    )
    assert float(loss_of(z, batch, {"loss": "dice_ce"})) == pytest.approx(
        float(monai.DiceCELoss(sigmoid=True)(z, batch.truth)), rel=1e-6
    )


# -- what all share --------------------------------------------------------------------------------------------------

TWO_D = [name for name in LOSSES if not LOSSES[name].of_paths]
VOXELWISE = [name for name in TWO_D if name != "bleeding"]


@pytest.mark.parametrize("name", TWO_D)
def test_two_channels_are_the_log_odds_of_one(name):
    z, batch = random_batch(2)
    two = torch.cat([-0.3 * z, 0.7 * z], dim=1)
    assert float(loss_of(two, batch, {"loss": name})) == pytest.approx(
        float(loss_of(z, batch, {"loss": name})), rel=1e-5
    )


@pytest.mark.parametrize("name", VOXELWISE)
def test_losses_take_volumes_and_are_blind_to_the_shape(name):
    z, batch = random_batch(3)
    flat = batch_of(batch.truth.flatten(3))
    assert float(loss_of(z.flatten(3), flat, {"loss": name})) == pytest.approx(
        float(loss_of(z, batch, {"loss": name})), rel=1e-6
    )


@pytest.mark.parametrize("name", VOXELWISE)
def test_samples_whose_blood_is_only_known_to_be_somewhere_are_left_out(name):
    z, batch = random_batch(2)
    labelled = replace(batch, slice_label=torch.tensor([UNKNOWN, CLEAN, BLEEDING]))
    rest = batch_of(batch.truth[:2])
    assert float(loss_of(z, labelled, {"loss": name})) == pytest.approx(float(loss_of(z[:2], rest, {"loss": name})))


@pytest.mark.parametrize("name", TWO_D)
def test_a_batch_without_any_known_pixel_costs_nothing_and_pulls_nowhere(name):
    z, batch = random_batch(2)
    z.requires_grad_()
    unknown = replace(batch, slice_label=torch.full((3,), BLEEDING))
    loss = loss_of(z, unknown, {"loss": name, "slice_weight": 0.0})
    loss.backward()
    assert loss.item() == 0 and not z.grad.any()


@pytest.mark.parametrize("name", TWO_D)
def test_a_batch_of_background_has_a_finite_loss_and_gradient(name):
    z = torch.full((2, 1, 8, 8), -60.0, requires_grad=True)  # as sure as a network gets
    loss = loss_of(z, batch_of(torch.zeros(2, 1, 8, 8)), {"loss": name})
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


@pytest.mark.parametrize("name", TWO_D)
def test_the_right_answer_costs_less_than_the_empty_one(name):
    _, batch = random_batch(2)
    right, empty = (8 * (2 * batch.truth - 1), torch.full_like(batch.truth, -8.0))
    assert loss_of(right, batch, {"loss": name}) < loss_of(empty, batch, {"loss": name}) - 0.1


def test_losses_of_one_output_take_the_fused_path():
    z, batch = random_batch(2)
    paths = SlexPaths(z + 1, z + 2, z + 3, z)
    assert loss_of(paths, batch, {"loss": "dice"}) == loss_of(z, batch, {"loss": "dice"})


def test_a_recipe_s_options_reach_the_loss_and_others_are_not_looked_at():
    z, batch = random_batch(2)
    options = {"loss": "weighted_ce", "class_weights": [1.0, 1.0], "learning_rate": 3, "smooth": "soft"}
    assert float(loss_of(z, batch, options)) == pytest.approx(float(binary_cross_entropy_with_logits(z, batch.truth)))
    assert loss_of(z, batch, {"loss": "weighted_ce"}) < loss_of(z, batch, options)  # 0.1 where nothing is said


def test_faults_are_named():
    z, batch = random_batch(2)
    with pytest.raises(InputError, match="no loss 'tversky'; choose one of: bleeding, bce, weighted_ce, slex,"):
        loss_of(z, batch, {"loss": "tversky"})
    with pytest.raises(InputError, match="'slex' is of SLEX-Net's three outputs"):
        loss_of(z, batch, {"loss": "slex"})
    with pytest.raises(InputError, match="predicts 3 classes"):
        loss_of(z.repeat(1, 3, 1, 1), batch, {"loss": "dice"})
    assert set(LOSSES) == {
        line.split()[0] for line in losses.__doc__.split("=\n")[2].splitlines() if line[:1].isalpha()
    }


# -- guards ----------------------------------------------------------------------------------------------------------


def test_guards_name_the_cases():
    _, batch = random_batch(2)
    named = replace(batch, images=batch.images.clone(), cases=("one", "two", "three"))
    check_batch(named)
    named.images[2, 0, 1, 1] = float("inf")
    with pytest.raises(InputError, match=r"no finite numbers \(cases: three\)"):
        check_batch(named)
    with pytest.raises(InputError, match=r"no finite numbers \(cases: sample 2\)"):
        check_batch(replace(named, cases=()))
    spoilt = batch.truth.clone()
    spoilt[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"\(cases: one\)"):
        check_batch(replace(batch, truth=spoilt, cases=named.cases))
    with pytest.raises(InputError, match=r"The batch is empty \(cases: no names given\)"):
        check_batch(Batch(*(t[:0] for t in (batch.images, batch.truth, batch.brain, batch.slice_label))))
    many = replace(batch, images=named.images[2:].repeat(10, 1, 1, 1), truth=spoilt.repeat(4, 1, 1, 1)[:10])
    with pytest.raises(InputError, match=r"n0, n1, .* n7 and 2 more\)"):
        check_batch(replace(many, cases=tuple(f"n{n}" for n in range(10))))
