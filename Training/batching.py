"""Batches made ahead by threads, and outputs of networks cut into parts and put together again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

from torch import Tensor

from Training.losses import Output
from Training.sampling import Batch


@contextmanager
def made_ahead(make: Callable[[int], Batch], first: int, stop: int, readers: int) -> Iterator[Iterator[Batch]]:
    """The batches of the steps ``first`` to ``stop`` in order, made by threads while the caller computes."""

    def batches() -> Iterator[Batch]:
        pending: deque[Future[Batch]] = deque()
        for step in range(first, stop):
            while len(pending) <= readers and step + len(pending) < stop:
                pending.append(pool.submit(make, step + len(pending)))
            yield pending.popleft().result()

    pool = ThreadPoolExecutor(readers)
    try:
        yield batches()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def parts_of(count: int, parts: int) -> list[slice]:
    """``count`` samples in at most ``parts`` runs of nearly equal length."""
    parts = min(parts, count)
    edges = [number * count // parts for number in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def leaves_of(output: Output) -> list[Tensor]:
    """The tensors of an output: of one tensor, a list or a named tuple of them."""
    return [output] if isinstance(output, Tensor) else list(output)


def like(output: Output, leaves: list[Tensor]) -> Output:
    """Other tensors in the form of an output."""
    if isinstance(output, Tensor):
        return leaves[0]
    return leaves if isinstance(output, list) else type(output)(*leaves)
