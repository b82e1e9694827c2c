"""Slices and tiles of perfusion maps for training, drawn from the cases of a store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from StrokeCTPLib.networks.classes import LABEL_OF, classes_of, coded
from Training.data import Data
from Training.distributed import is_first
from Training.progress import ProgressLine
from Training.recipe import Recipe
from Training.sampling import Batch
from Training.store import IGNORED, Store
from Training.stroke_augmentation import AUGMENTATIONS
from Training.stroke_cache import COLOURS, SIMULATED, CachedMaps, cache_maps

#: Tiles begin at every quarter of their side (stroke and disc specification 1.6).
STRIDES = 4


@dataclass(frozen=True)
class Tile:
    """Where a training sample lies: case, slice, first row and column, and whether it shows a lesion."""

    case: int
    k: int
    row: int
    column: int
    lesion: bool


def perfusion_maps(options: argparse.Namespace, recipe: Recipe, store: Store | None) -> Data:
    """The data of a run on perfusion maps (see :attr:`Training.families.Family.data`)."""
    from Training.stroke_scores import picture_of

    if store is None:
        raise InputError("A recipe of perfusion maps takes its cases from a store; give one with --store.")
    folder, shown = options.run / "maps", recipe.preprocessing
    folder.mkdir(exist_ok=True)
    train, judged = (_usable(store, names, recipe) for names in (options.train_split, [options.val_split]))
    with ProgressLine(silent=not is_first()) as line:
        made = cache_maps(folder, store, [*train, *judged], shown, options.workers, Progress(line))
    cases, held_out = made[: len(train)], made[len(train) :]
    classes = classes_of(_outputs(recipe))
    names = {str(LABEL_OF[name]): name.capitalize() for name in classes if LABEL_OF[name]}
    return Data(
        TileSampler(cases, recipe),
        held_out,
        lambda network, device: 0.5,
        (lambda network, device: picture_of(network, held_out, recipe, device)) if held_out else None,
        all(SIMULATED in store.info(name).flags for name in train),
        labels=names,
        min_component_ml=0.0,
        header={"classes": list(classes)},
    )


def _outputs(recipe: Recipe) -> int:
    return recipe["architecture"]["arguments"].get("out_channels", 3)


def _usable(store: Store, splits: list[str], recipe: Recipe) -> list[str]:
    """The cases of some splits with a truth and the numbers that the network reads; others are named on stderr.

    The released code takes a missing NIHSS for 0, no deficit (specification 1.11); ``legacy_missing_nihss`` does so.
    """
    names, needed = store.of_split(*splits), recipe.preprocessing.scalars
    if recipe["sampling"]["legacy_missing_nihss"]:
        needed = ()
    kept = [n for n in names if store.info(n).has_truth and all(word in store.info(n).scalars for word in needed)]
    left_out = sorted(set(names) - set(kept))
    if left_out and is_first():
        print(f"Left out, for want of a truth or of {', '.join(needed) or 'nothing else'}: {', '.join(left_out)}",
              file=sys.stderr)  # fmt: skip
    if recipe["sampling"]["augmentation"] == "maps" and any(store.info(n).unit == COLOURS for n in kept):
        raise InputError("The augmentation 'maps' changes numbers, but the store holds pictures; choose 'stavanger'.")
    return kept


class TileSampler:
    """Draws batches of slices or tiles; the same (seed, step) gives the same batch.

    Without ``lesion_share`` every tile comes once before any comes again, as in the released code. Of tiles smaller
    than the slice, those with mostly background do not overlap, and few are kept (specification 1.7).

    Args:
        cases: to draw from.
        recipe: says tiles, augmentation and shares.
    """

    def __init__(self, cases: Sequence[CachedMaps], recipe: Recipe):
        self.cases, self.preprocessing, sampling = list(cases), recipe.preprocessing, recipe["sampling"]
        self.classes = max(2, _outputs(recipe))
        self.augment = AUGMENTATIONS[sampling["augmentation"]]
        self.lesion_share = sampling["lesion_share"]
        kept = sampling["background_tiles"] if self.preprocessing.tile else 1.0
        rng = np.random.default_rng([recipe["fitting"]["seed"], 0])
        self.tiles = [
            tile
            for number, case in enumerate(self.cases)
            for tile, background in tiles_of(*case.labels(), number, self.preprocessing.side, self.classes)
            if not background or kept == 1 or rng.random() < kept
        ]
        self.by_lesion = {lesion: [tile for tile in self.tiles if tile.lesion == lesion] for lesion in (True, False)}
        if not self.tiles:
            raise InputError("The store has no perfusion maps to train on; give cases with a truth in its split.")

    def batch(self, seed: int, step: int, size: int, wanted: slice = slice(None)) -> Batch:
        """The batch of ``size`` samples of one step, or those of them that are ``wanted``."""
        images, truths, brains, small, names = [], [], [], [], []
        for index in range(size)[wanted]:
            rng = np.random.default_rng([seed, step, index])
            tile = self._tile(seed, step * size + index, rng)
            case, side = self.cases[tile.case], self.preprocessing.side
            rows, columns = slice(tile.row, tile.row + side), slice(tile.column, tile.column + side)
            cut = self.augment(case.read(slice(tile.k, tile.k + 1), rows, columns), rng)
            images.append(case.images(cut.maps, self.preprocessing)[0])
            truths.append(coded(cut.truth, cut.brain, self.classes))
            brains.append(cut.brain & (cut.truth != IGNORED))
            small.append(case.small_vessel)
            names.append(f"{case.name} slice {tile.k}")
        truth, brain = (torch.from_numpy(np.stack(part)).float() for part in (truths, brains))
        extra = {"small_vessel": torch.tensor(small)}
        return Batch(torch.from_numpy(np.stack(images)), truth, brain, cases=tuple(names), extra=extra)

    def _tile(self, seed: int, number: int, rng: np.random.Generator) -> Tile:
        if self.lesion_share:
            chosen = self.by_lesion[bool(rng.random() < self.lesion_share)] or self.tiles
            return chosen[int(rng.integers(len(chosen)))]
        turn, place = divmod(number, len(self.tiles))
        return self.tiles[np.random.default_rng([seed, turn]).permutation(len(self.tiles))[place]]


def tiles_of(truth: np.ndarray, brain: np.ndarray, number: int, side: int, classes: int) -> list[tuple[Tile, bool]]:
    """The tiles of a case's slices that show brain, and whether most of a tile is background.

    Args:
        truth, brain: (k, size, size) of all its slices, as :meth:`CachedMaps.labels` gives them.
        number: of the case.
        side: of a tile; tiles begin at every quarter of it, those of background at every side.
        classes: coding of the truth.
    """
    size, found = truth.shape[1], []
    starts = range(0, size - side + 1, side // STRIDES if side < size else size)
    for k in np.flatnonzero(brain.any(axis=(1, 2))):
        of_slice = coded(truth[k], brain[k], classes)
        for row in starts:
            for column in starts:
                cut = of_slice[row : row + side, column : column + side]
                background = bool((cut == 0).mean() >= 0.5)
                if background and side < size and (row % side or column % side):
                    continue
                lesion = bool((cut >= max(classes - 2, 1)).any())
                found.append((Tile(number, int(k), row, column, lesion), background))
    return found
