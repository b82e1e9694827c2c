"""What a run reads, by the family of its recipe: where batches come from and what the network is judged on.

Here are the two families of head CT; other tasks have modules of their own (see :mod:`Training.families`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from Training.distributed import first_process_first, is_first
from Training.families import found
from Training.progress import ProgressLine
from Training.recipe import Recipe
from Training.recipe_keys import SOURCES

if TYPE_CHECKING:
    import torch
    from torch import nn

    from Training.fitting import Sampler
    from Training.store import Store

#: Groups of a store's cases that ``simulate`` writes.
SIMULATED = ("planted", "synthetic")


@dataclass(frozen=True)
class Data:
    """What a run reads.

    Attributes:
        sampler: source of batches.
        validation: cases never trained on.
        threshold: ``threshold(network, device)``, what the model file says a voxel must reach to be marked.
        picture: ``picture(network, device)``, (h, w, 3) uint8 for people to look at; None without validation cases.
        simulated: whether nothing but simulated outlines taught it.
        slice_labels: whether slices of real scans taught it whether they bleed.
        labels: value -> name, as the model file says it.
        min_component_ml: smallest volume that is reported, as the model file says it.
        header: further entries of the model file.
    """

    sampler: Sampler
    validation: Sequence[Any]
    threshold: Callable[[nn.Module, torch.device], float]
    picture: Callable[[nn.Module, torch.device], Any] | None
    simulated: bool
    slice_labels: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: {"1": "Hemorrhage"})
    min_component_ml: float = 0.1
    header: Mapping[str, Any] = field(default_factory=dict)


def data_of(options: argparse.Namespace, recipe: Recipe) -> Data:
    """The data of a run, prepared in its folder; what is there already is used again.

    Args:
        options: of :func:`Training.train.parse`.
        recipe: says the family.

    Raises:
        InputError: what the recipe asks for is not there.
    """
    from Training.store import Store

    store = Store(options.store) if options.store else None
    if recipe["fitting"]["shares"].get("store") and store is None:
        raise InputError("The recipe takes its cases from a store; give one with --store (see 'prepare').")
    with first_process_first():
        return found(recipe.family.data)(options, recipe, store)


def slices_of_heads(options: argparse.Namespace, recipe: Recipe, store: Store | None) -> Data:
    """Axial slices: simulated heads, real heads with slice labels, and cases of a store."""
    from Training.sampling import HeadSampler
    from Training.simulation.bank import BankedHead
    from Training.threshold import best_threshold
    from Training.validation import picture_of

    bank, settings = options.run / "bank", recipe["fitting"]
    bank.mkdir(exist_ok=True)
    make_bank(options, recipe)
    names, held_out = split(bank, recipe, store is None)
    labels: list[str] = []
    if store is not None:
        names["store"], labels, judged = stored_heads(options, recipe, store)
        held_out = [*held_out, *judged]
    sampler = HeadSampler(
        bank, names, recipe.preprocessing, settings["shares"], settings["bleeding_share"],
        recipe["sampling"]["augmentation"],
    )  # fmt: skip
    sampler.names = {**names, "store": labels}
    heads = [BankedHead.load(bank / f"{name}.npz") for name in held_out]
    exact = [head for head in heads if head.source != "real"]
    return Data(
        sampler,
        heads,
        lambda network, device: best_threshold(network, [*heads, *sampler.heads.get("real", [])], recipe, device),
        (lambda network, device: picture_of(network, exact, recipe, device)) if exact else None,
        _simulated(recipe, store),
        bool(settings["shares"].get("real")),
    )


def patches_of_volumes(options: argparse.Namespace, recipe: Recipe, store: Store | None) -> Data:
    """Three-dimensional patches of a store's volumes."""
    from Training.patches import PatchSampler, cache_volumes, picture_of_volume

    if store is None:
        raise InputError("A recipe of patches takes its cases from a store; give one with --store (see 'prepare').")
    folder = options.run / "volumes"
    folder.mkdir(exist_ok=True)
    train, judged = (_outlined(store, names) for names in (options.train_split, [options.val_split]))
    with ProgressLine(silent=not is_first()) as line:
        made = cache_volumes(folder, store, [*train, *judged], recipe.preprocessing, options.workers, Progress(line))
    volumes = made[len(train) :]
    return Data(
        PatchSampler(made[: len(train)], recipe),
        volumes,
        lambda network, device: 0.5,
        lambda network, device: picture_of_volume(network, volumes, recipe, device),
        _simulated(recipe, store),
    )


def make_bank(options: argparse.Namespace, recipe: Recipe) -> None:
    """Simulate the heads that the run's bank lacks, in several processes; nothing where no share asks for them."""
    from Training.simulation.jobs import fill_bank

    shares = recipe["fitting"]["shares"]
    if not any(shares.get(source) for source in SOURCES if source != "store"):
        return
    bank = options.run / "bank"
    with ProgressLine(silent=not is_first()) as line:
        places = (bank, options.real, options.label_maps)
        fill_bank(*places, recipe, options.workers, Progress(line), options.lesion_shapes)


def split(bank: Path, recipe: Recipe, needed: bool = True) -> tuple[dict[str, list[str]], list[str]]:
    """(names to train on by source, names held out): the last eighth of each simulated source is held out.

    Raises InputError if heads of the bank are ``needed`` and it is empty.
    """
    names: dict[str, list[str]] = {}
    held_out: list[str] = []
    for source in ("planted", "synthetic", "real"):
        found = sorted(path.stem for path in bank.glob(f"{source}_*.npz"))
        if source != "real":
            found = [name for name in found if int(name.rpartition("_")[2]) < recipe["simulation"][source]]
            keep = len(found) - len(found) // 8
            found, out = found[:keep], found[keep:]
            held_out += out
        names[source] = found
    if needed and not any(names.values()):
        raise InputError("The bank is empty; give folders of real head CTs and label maps.")
    return names, held_out


def stored_heads(options: argparse.Namespace, recipe: Recipe, store: Store) -> tuple[list[str], list[str], list[str]]:
    """(file stems to train on, the cases that they are, file stems to judge by) of a store's heads."""
    from Training.stored_heads import fill_from_store

    train, judged = store.of_split(*options.train_split), store.of_split(options.val_split)
    with ProgressLine(silent=not is_first()) as line:
        stems = fill_from_store(options.run / "bank", store, [*train, *judged], recipe, options.workers, Progress(line))
    kept = [name for name in train if name in stems]
    return [stems[name] for name in kept], kept, [stems[name] for name in judged if name in stems]


def _outlined(store: Store, splits: list[str]) -> list[str]:
    """The cases of some splits in HU with a truth; the others are named on stderr."""
    names = store.of_split(*splits)
    kept = [name for name in names if store.info(name).has_truth and store.info(name).unit == "HU"]
    left_out = sorted(set(names) - set(kept))
    if left_out and is_first():
        print(f"Left out, for want of a truth or of HU: {', '.join(left_out)}", file=sys.stderr)
    return kept


def _simulated(recipe: Recipe, store: Store | None) -> bool:
    """Whether every outline that taught the network was simulated."""
    if store is None or not recipe["fitting"]["shares"].get("store"):
        return True
    return all(info.group in SIMULATED for info in store)
