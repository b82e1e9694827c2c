"""What a run keeps on the disk: the checkpoint that it goes on from, the best and the last weights, and when to stop.

Every file is written whole, flushed and renamed, so a kill at any moment leaves the old one or the new one. Nothing
that is read is unpickled but tensors and plain values.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.checkpoint_torch import has_damaged_member
from NeuraxisLib.errors import InputError, OutputError
from Training.recipe import Recipe

CHECKPOINT, BEST, LAST = "checkpoint.pt", "best.pt", "last.pt"
#: What may differ between a run and the recipe that resumes it: how long it goes on, and what it is called.
MAY_CHANGE = ("fitting.steps", "fitting.validate_every", "fitting.keep_minutes", "fitting.early_stop")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all; OutputError if the disk refuses."""
    with atomic_write(path) as temporary:
        try:
            torch.save(dict(state), temporary)
        except RuntimeError as error:  # how torch says that a disk takes no more
            raise OutputError(f"'{path.name}' could not be written: the disk is full or failed; free space.") from error


def read(path: Path, device: torch.device) -> dict:
    """A file of :func:`save`, its tensors on ``device``; InputError if it is missing or damaged."""
    try:
        if has_damaged_member(path):  # torch looks at no check sum
            raise _damaged(path)
        return torch.load(path, weights_only=True, map_location=device)
    except Exception:  # whatever a damaged archive makes torch raise
        raise _damaged(path) from None


def _damaged(path: Path) -> InputError:
    return InputError(f"'{path.name}' of the run is missing or damaged; choose another run folder.")


def read_checkpoint(run: Path, recipe: Recipe, device: torch.device) -> dict | None:
    """The state that a run goes on from; None in a folder without one.

    Raises InputError if it is damaged, or of a recipe that would train differently.
    """
    path = run / CHECKPOINT
    if not path.exists():
        return None
    state = read(path, device)
    try:
        earlier = Recipe(json.loads(state["recipe"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(path) from None
    changed = difference(earlier, recipe)
    if changed:
        raise InputError(
            f"The run folder '{run.name}' holds a run with another '{changed}'; "
            "give the same recipe or choose another folder."
        )
    return state


def difference(one: Recipe, other: Recipe) -> str | None:
    """The first key in which two recipes would train differently, or None."""
    for section in ("task", "architecture", "preprocessing", "sampling", "fitting"):
        first, second = one.data.get(section), other.data.get(section)
        if not isinstance(first, dict) or not isinstance(second, dict):
            if first != second:
                return section
            continue
        for key in sorted({*first, *second}):
            if first.get(key) != second.get(key) and f"{section}.{key}" not in MAY_CHANGE:
                return f"{section}.{key}"
    return None


def load_parts(network: nn.Module, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put weights into a network, or into parts of it.

    Args:
        network: changed in place.
        parts: beginning of parameter names -> weights without that beginning; ``""`` is the whole network.

    Raises:
        InputError: there is no such part, or the weights do not fit it (the first tensor that does not is named).
    """
    own = network.state_dict()
    for prefix, weights in parts.items():
        wanted = {name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)}
        if not wanted:
            raise InputError(f"The recipe's network has no part '{prefix}' to load weights into; correct the name.")
        if hasattr(network, "fitted"):  # a part that may start from another kind of network's weights
            weights = network.fitted(prefix, weights)
        _check_fit(prefix, wanted, weights)
        network.load_state_dict({prefix + name: tensor for name, tensor in weights.items()}, strict=False)


def _check_fit(prefix: str, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Every tensor there, none too many, all of the right shape; the counter of BatchNorm may be missing."""
    for name in sorted({*wanted, *weights}):
        missing = name not in weights and not name.endswith("num_batches_tracked")
        unlike = name in wanted and name in weights and wanted[name].shape != weights[name].shape
        if missing or name not in wanted or unlike:
            raise InputError(
                f"The weights to start from do not fit the recipe's network (at '{prefix}{name}'); "
                "choose a model of the same architecture."
            )


def freeze(network: nn.Module, prefixes: list[str]) -> list[nn.Module]:
    """Keep the parameters whose names begin with one of ``prefixes`` as they are.

    Returns the frozen modules: they belong in evaluation mode, or their BatchNorms would still move. Raises InputError
    for a beginning that no parameter has, or if nothing is left to train.
    """
    for prefix in prefixes:
        found = [p.requires_grad_(False) for name, p in network.named_parameters() if name.startswith(prefix)]
        if not found:
            raise InputError(f"The recipe's 'fitting.frozen' names '{prefix}', which the network lacks; correct it.")
    if not any(p.requires_grad for p in network.parameters()):
        raise InputError("The recipe's 'fitting.frozen' leaves nothing to train; name fewer parts.")
    return [m for name, m in network.named_modules() if name and f"{name}.".startswith(tuple(prefixes))]


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C and SIGTERM and give a function that says whether one came; the second one acts at once.

    A step must not be cut in two: weights, optimiser and average would no longer belong together. Outside the main
    thread Python cannot change signals, and nothing is held back.
    """
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
