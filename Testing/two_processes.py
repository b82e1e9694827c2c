"""What each of several training processes does in test_distributed.py; torchrun starts it with a folder to write to.

The functions work in one process as well: the test compares both.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from HemorrhageSegLib.networks.slexnet import SLEXNet
from NeuraxisLib.errors import NeuraxisError
from Training import distributed, losses
from Training.augmentation import augmentation_of
from Training.guards import check_batch
from Training.optimisers import optimiser_of
from Training.sampling import Batch
from Training.simulation.bank import BLEEDING, CLEAN, UNKNOWN
from Training.sync_batchnorm import synchronise

#: Samples of the whole batch: two processes get 3 and 4 of them.
COUNT = 7
SIZE = 32


def whole_batch() -> Batch:
    """Seven samples; the first process's share has no slice label, and blood is where images are bright."""
    random = torch.Generator().manual_seed(7)
    images = torch.randn(COUNT, 3, SIZE, SIZE, generator=random)
    share = torch.linspace(-2.0, 1.0, COUNT)[:, None, None, None]
    truth = (images[:, 1:2] < share).float()
    brain = torch.zeros_like(truth)
    brain[..., 2:-2, 3:-1] = 1
    label = torch.tensor([UNKNOWN, UNKNOWN, UNKNOWN, BLEEDING, CLEAN, BLEEDING, UNKNOWN])
    return Batch(images, truth, brain, label, tuple(f"case-{n}" for n in range(COUNT)))


def own_batch() -> Batch:
    """The share of this process."""
    whole, own = whole_batch(), list(distributed.shard(COUNT))
    tensors = (whole.images[own], whole.truth[own], whole.brain[own], whole.slice_label[own])
    return Batch(*tensors, tuple(whole.cases[n] for n in own))


def small_network() -> nn.Module:
    """Two convolutions with BatchNorm and a head; its BatchNorm weights are not the trivial ones."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, stride=1), nn.BatchNorm2d(6, momentum=None), nn.ReLU(),
        nn.Conv2d(6, 1, 1),
    )  # fmt: skip
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


def network_of(loss: str) -> nn.Module:
    """A small network whose output fits the loss.

    SLEX-Net's is in double precision: at 2 x 2 pixels its BatchNorms amplify fp32's rounding to 4e-4 of the gradient.
    """
    if not losses.LOSSES[loss].of_paths:
        return small_network()
    torch.manual_seed(3)
    return SLEXNet(base=4).double()


def fitted(loss: str, synchronised: bool = True, globally: bool = True) -> dict[str, Tensor]:
    """Loss, gradients and buffers after one backward pass.

    Args:
        loss: name of the loss.
        synchronised: whether BatchNorm sees all processes.
        globally: whether the loss sums over all processes, or (the naive way) each process has one of its own.
    """
    network, batch = network_of(loss), own_batch()
    distributed.make_equal(network)
    network = synchronise(network) if synchronised else network
    if losses.LOSSES[loss].of_paths:
        batch = replace(batch, **{name: getattr(batch, name).double() for name in ("images", "truth", "brain")})
    output = network.paths(batch.images) if losses.LOSSES[loss].of_paths else network(batch.images)
    before, losses.total = losses.total, losses.total if globally else lambda sums: sums
    value = losses.loss_of(output, batch, {"loss": loss})
    losses.total = before
    value.backward()
    distributed.average_gradients(network)
    found = {f"gradient {name}": p.grad for name, p in network.named_parameters()}
    return {"loss": value.detach(), **found, **{f"buffer {name}": b for name, b in network.named_buffers()}}


def trained(steps: int = 6) -> dict[str, Tensor]:
    """Weights after some steps on augmented batches.

    Not by Adam, which blows the rounding error of a gradient that should be 0 (a bias before BatchNorm) up to a step.
    """
    network = synchronise(small_network())
    options = {"optimiser": "sgd", "learning_rate": 1e-2, "momentum": 0.9, "weight_decay": 1e-2}
    optimiser, augment = optimiser_of(network.parameters(), options), augmentation_of("standard")
    for step in range(steps):
        batch = augment(own_batch(), 5, step, distributed.shard(COUNT))
        loss = losses.dice_bce_loss(network(batch.images), batch, 1.0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(network)
        optimiser.step()
    return network.state_dict()


def exchanged() -> dict:
    """What the small functions give."""
    unused = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1)])
    for module in unused[: 1 + distributed.rank()]:  # the second one has a gradient in the last process only
        module(torch.ones(1, 2)).sum().backward()
    distributed.average_gradients(unused)
    different = nn.BatchNorm1d(2)
    different.running_mean.fill_(distributed.rank())
    nn.init.constant_(different.weight, 5 + distributed.rank())
    distributed.make_equal(different)
    return {
        "rank": distributed.rank(), "world": distributed.world_size(), "first": distributed.is_first(),
        "anywhere": distributed.anywhere(distributed.rank() == 1), "nowhere": distributed.anywhere(False),
        "gathered": distributed.gathered({"rank": distributed.rank()}), "shard": list(distributed.shard(COUNT)),
        "unused": [None if m.weight.grad is None else m.weight.grad.tolist() for m in unused],
        "equal": [different.running_mean.tolist(), different.weight.tolist()],
    }  # fmt: skip


def messages() -> list[str]:
    """What faults in one process say in each."""
    batch = own_batch()
    spoilt = Batch(batch.images.clone(), batch.truth, batch.brain, batch.slice_label, batch.cases)
    if distributed.rank() == 1:
        spoilt.images[1, 0, 3, 3] = float("nan")
    nothing = Batch(*(t[:0] for t in (batch.images, batch.truth, batch.brain, batch.slice_label)), batch.cases)
    actions = (
        lambda: check_batch(batch),
        lambda: check_batch(spoilt),
        lambda: check_batch(nothing if distributed.rank() == 0 else batch),
        lambda: distributed.shard(1),
    )
    said = []
    for action in actions:
        try:
            action()
            said.append("")
        except NeuraxisError as error:
            said.append(str(error))
    return said


def made_once(folder: Path) -> str:
    """A file that the first process makes and all of them read."""
    path = folder / "made.txt"
    with distributed.first_process_first():
        if not path.exists():
            time.sleep(0.3 if distributed.is_first() else 0)
            path.write_text(f"by {distributed.rank()}")
    return path.read_text()


def main(folder: Path) -> None:
    """Everything, saved as one file per process."""
    torch.set_num_threads(1)
    with distributed.processes("cpu", timeout_s=120):
        found = {
            "losses": {name: fitted(name) for name in losses.LOSSES},
            "naive": fitted("dice_bce", synchronised=False, globally=False),
            "naive dice": fitted("dice_bce", globally=False),
            "naive norm": fitted("dice_bce", synchronised=False),
            "trained": trained(),
            "exchanged": exchanged(),
            "messages": messages(),
            "made": made_once(folder),
        }
        torch.save(found, folder / f"{distributed.rank()}.pt")


def lose_one(hangs: bool) -> None:
    """The second process dies, or hangs, between two exchanges; the first must notice and say so."""
    with distributed.processes("cpu", timeout_s=2 if hangs else 60):
        distributed.anywhere(True)
        if distributed.rank() == 1:
            time.sleep(60 if hangs else 0)
            os._exit(3)
        distributed.total(torch.ones(2))


if __name__ == "__main__":
    if sys.argv[1] in ("--dies", "--hangs"):
        try:
            lose_one(hangs=sys.argv[1] == "--hangs")
        except NeuraxisError as error:
            sys.exit(str(error))
    else:
        main(Path(sys.argv[1]))
