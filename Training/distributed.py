"""Training in several processes: torchrun starts them, every one takes its samples, and the gradient is that of one.

Every process holds the whole network. A batch is drawn by sample index, so each process can make its own share of it
(:func:`shard`); a loss adds up its sums over all samples of all processes (:func:`total`) before it divides, so every
process holds the same value, that of the whole batch; gradients are averaged (:func:`average_gradients`). With
:func:`Training.sync_batchnorm.synchronise` for the BatchNorms, the gradient equals that of one process with the whole
batch but for rounding. Losses that divide first do not: a batch Dice per process had a gradient 20 % off
(performance and reliability specification, 0.10).

    torchrun --nproc-per-node 2 -- Training/train.py RECIPE MODEL --run FOLDER

The two dashes matter: without them torchrun takes ``--run`` for the beginning of an option of its own.

Without torchrun all functions are there and do nothing, so that callers need not ask.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from NeuraxisLib.errors import InputError, WorkerError

#: Numbers that travel together when gradients are averaged: 32 MiB of fp32.
BUCKET = 2**23
#: Seconds in which processes whose exchange timed out tell each other that they are alive.
GRACE_S = 3.0
#: What torchrun sets for every process that it starts.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: See :func:`alone`.
_alone = False


@contextmanager
def processes(device: str = "cpu", timeout_s: float = 900) -> Iterator[torch.device]:
    """Join the processes that torchrun started, and leave them at the end; alone, only name the device.

    Args:
        device: ``"cpu"`` (gloo) or ``"cuda"`` (nccl; each process takes the GPU of its local rank).
        timeout_s: how long a process waits for another in one exchange before it gives up. Longer than the longest
            thing that one process does while the others wait.

    Yields:
        the device of this process.

    Raises:
        InputError: there are more processes than GPUs on this machine.
        WorkerError: the processes do not find, or lost, each other.
    """
    if not all(os.environ.get(name) for name in VARIABLES):
        yield torch.device(device)
        return
    own, store = _own_device(device), None
    try:
        store, number, count = next(distributed.rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
        distributed.init_process_group(
            "nccl" if own.type == "cuda" else "gloo",
            store=store, rank=number, world_size=count, timeout=timedelta(seconds=timeout_s),
        )  # fmt: skip
        yield own
    except RuntimeError as error:  # gloo raises nothing more special
        if not (isinstance(error, distributed.DistError) or _is_of_connection(str(error))):
            raise
        raise WorkerError(_lost(str(error), store)) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def is_started() -> bool:
    """Whether this process is one of several that exchange their sums."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Number of this process, from 0; 0 where there is only one."""
    return distributed.get_rank() if is_started() else 0


def world_size() -> int:
    """How many processes train together; 1 where torchrun did not start them."""
    return distributed.get_world_size() if is_started() else 1


def is_first() -> bool:
    """Whether this is the process that writes files, logs and shows progress."""
    return rank() == 0


def shard(count: int) -> range:
    """The samples of a global batch of ``count`` that this process makes, a run of indices.

    The shares of all processes in order of rank are the whole batch; they differ by one sample at most.

    Raises:
        InputError: a process would go without a sample.
    """
    if count < world_size():
        raise InputError(
            f"A batch of {count} is too small for {world_size()} processes; raise fitting.batch or start fewer."
        )
    return range(rank() * count // world_size(), (rank() + 1) * count // world_size())


def total(sums: Tensor) -> Tensor:
    """The sum of ``sums`` over all processes, with its gradient; every process gets the same tensor.

    Every process must call it equally often and in the same order, whatever its samples hold. The gradient is that of
    the average, over the processes, of what they compute from the total, as :func:`average_gradients` takes for
    granted.

    Args:
        sums: same shape and type everywhere.
    """
    return _Total.apply(sums) if world_size() > 1 and not _alone else sums


@contextmanager
def alone() -> Iterator[None]:
    """Within it :func:`total` adds up nothing: for a process that judges its own share of the cases."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def average_gradients(network: nn.Module) -> None:
    """Replace every gradient by its average over the processes, the same bits on each.

    A parameter that had no gradient in one process counts as zero there; one without gradient anywhere keeps None.
    """
    if world_size() == 1:
        return
    parameters = [p for p in network.parameters() if p.requires_grad]
    for bucket in _buckets(parameters):
        present = torch.tensor([p.grad is not None for p in bucket]).to(bucket[0])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([present, *(g.flatten() for g in gradients)])
        distributed.all_reduce(flat)
        present, *averages = flat.split([len(bucket), *(p.numel() for p in bucket)])
        for parameter, gradient, average, somewhere in zip(bucket, gradients, averages, present.tolist()):
            if somewhere:
                parameter.grad = gradient.copy_(average.view_as(gradient) / world_size())


def make_equal(network: nn.Module) -> None:
    """Give every process the weights and buffers of the first one."""
    if world_size() > 1:
        for tensor in [*network.parameters(), *network.buffers()]:
            distributed.broadcast(tensor.detach(), src=0)


def anywhere(flag: bool) -> bool:
    """Whether ``flag`` holds in any process: a signal that one of them got must stop all after the same step."""
    if world_size() == 1:
        return bool(flag)
    asked = torch.tensor(float(flag), device=_exchange_device())
    distributed.all_reduce(asked, distributed.ReduceOp.MAX)
    return bool(asked.item())


def gathered(value: Any) -> list[Any]:
    """The ``value`` of every process, in order of rank, in every process: scores of sharded validation, case names."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process through alone, then the others: to make a file once that all of them read.

    If the first one fails, the others go through as well and find the file missing; torchrun ends them all.
    """
    if not is_first():
        distributed.barrier()
    try:
        yield
    finally:
        if is_first() and world_size() > 1:
            distributed.barrier()


class _Total(torch.autograd.Function):
    """all-reduce(sum) whose gradient is all-reduced as well: every process computes on with the total."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        out = sums.clone()
        distributed.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in their order, in runs of one type and at most :data:`BUCKET` numbers (or one parameter)."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        full = bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET
        if full or (bucket and bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _own_device(device: str) -> torch.device:
    if torch.device(device).type != "cuda":
        return torch.device(device)
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= gpus:
        raise InputError(
            f"Process {local} of this machine finds no GPU of its own among {gpus}; start one process per GPU."
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _exchange_device() -> torch.device:
    """Where a tensor must lie to be exchanged."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _is_of_connection(message: str) -> bool:
    return any(word in message for word in ("gloo", "NCCL", "Connection", "Timed out", "TCPStore", "socket"))


def _lost(message: str, store: distributed.Store | None) -> str:
    """One sentence about a lost connection; after a time-out it names the processes that still do not answer."""
    reason = "the connection broke"
    if "timed out" in message.lower() or "timeout" in message.lower():
        silent = _silent(store) if store is not None else []
        reason = f"no answer from {', '.join(map(str, silent))}" if silent else "no answer in time"
    return (
        f"Process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} lost the others ({reason}); "
        "look at the first error that another one printed, then start again."
    )


def _silent(store: distributed.Store) -> list[int]:
    """The processes that do not notice, within :data:`GRACE_S`, that time is out: they hang or are gone."""
    keys = [f"timed_out/{number}" for number in range(int(os.environ["WORLD_SIZE"]))]
    try:
        store.set(keys[int(os.environ["RANK"])], "yes")
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end and not store.check(keys):
            time.sleep(0.1)
        return [number for number, key in enumerate(keys) if not store.check([key])]
    except RuntimeError:  # the store went with the process that kept it
        return []
