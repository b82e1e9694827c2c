"""The check of a batch before its step: what is wrong with it, and in which cases."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from NeuraxisLib.errors import InputError
from Training.distributed import anywhere, gathered
from Training.sampling import Batch

#: Case names that one sentence lists.
NAMES = 8


def check_batch(batch: Batch) -> None:
    """Refuse a batch that nothing can be learnt from, before the network sees it.

    Every process must call it on its share of the batch; all of them raise if one has to.

    Raises:
        InputError: the batch is empty, or an image or a truth holds a value that is no finite number; the sentence
            names the cases at fault.
    """
    empty = batch.images.numel() == 0
    faulty = [] if empty else _not_finite(batch)
    if not anywhere(empty or bool(faulty)):
        return
    if any(gathered(empty)):
        raise InputError(f"The batch is empty (cases: {_list(batch.cases)}); look at the data and the sampling.")
    cases = [name for names in gathered(faulty) for name in names]
    raise InputError(f"The batch holds values that are no finite numbers (cases: {_list(cases)}); repair or leave out.")


def _not_finite(batch: Batch) -> list[str]:
    """Names (or numbers, where there are none) of the samples with a value that is not finite."""
    finite = torch.isfinite(batch.images).flatten(1).all(dim=1) & torch.isfinite(batch.truth).flatten(1).all(dim=1)
    names = batch.cases or tuple(f"sample {index}" for index in range(len(batch.images)))
    return [name for name, good in zip(names, finite.tolist()) if not good]


def _list(cases: Sequence[str]) -> str:
    """The first names, each once, and how many more there are."""
    names = list(dict.fromkeys(cases))
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return (", ".join(names[:NAMES]) or "no names given") + more
