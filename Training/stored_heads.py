"""Cases of a store on the network's grid: the same banked heads that simulation makes, so all else stays the same."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from HemorrhageSegLib.brain import extract_brain
from NeuraxisLib.errors import InputError, NeuraxisError
from NeuraxisLib.preprocessing import SlicePreprocessing, slice_grid
from NeuraxisLib.task import Progress
from Training.pool import results
from Training.recipe import Recipe
from Training.sampling import PICTURE
from Training.simulation.bank import BankedHead, to_bank
from Training.simulation.head_ct import SimulatedHead
from Training.store import IGNORED, Store, StoredCase


def fill_from_store(
    bank: Path, store: Store, names: list[str], recipe: Recipe, workers: int, progress: Progress
) -> dict[str, str]:
    """Put cases of a store into the bank, those that it lacks; returns case -> file stem.

    Cases in which no brain is found are left out and named on stderr.

    Args:
        bank: folder of the bank; must exist.
        store, names: the cases.
        recipe: says the grid.
        workers: processes; 1 computes here.
        progress: told after every case.
    """
    preprocessing = replace(recipe.preprocessing, size=recipe["simulation"]["bank_size"])
    shrink = recipe["sampling"]["legacy_label_shrink"]
    stems = {name: f"store_{_digest(store, name, preprocessing, shrink)}" for name in names}
    missing = [name for name in names if not (bank / f"{stems[name]}.npz").exists()]
    jobs = [(bank / f"{stems[name]}.npz", store, name, preprocessing, shrink) for name in missing]
    for done, (number, fault) in enumerate(results(bank_case, jobs, workers), start=1):
        progress(done / len(jobs), f"prepared {done} of {len(jobs)} cases of the store")
        if fault:
            print(f"Case '{missing[number]}' is left out: {fault}", file=sys.stderr)
            del stems[missing[number]]
    return stems


def bank_case(path: Path, store: Store, name: str, preprocessing: SlicePreprocessing, shrink: bool) -> str:
    """Put one case into the bank; returns why that cannot be done, or nothing."""
    try:
        banked_case(store.case(name), preprocessing, shrink).save(path)
    except NeuraxisError as error:
        if not isinstance(error, InputError):
            raise
        return str(error)
    return ""


def banked_case(case: StoredCase, preprocessing: SlicePreprocessing, shrink: bool = False) -> BankedHead:
    """A case on the network's grid, exactly as the pipeline would put it there.

    Heads in HU are seen through the box of the brain (the store's region, or extracted now). Pictures, which have no
    HU and often no spacing, are seen whole, slice by slice. Voxels whose truth nobody knows are not searched.

    Args:
        case: of the store; with neither truth nor slice labels it cannot teach anything.
        preprocessing: makes the grid.
        shrink: see :func:`shrunk`.

    Raises:
        InputError: no truth and no slice labels, or no brain in view.
    """
    if case.truth is None and case.slice_label is None:
        raise InputError(f"'{case.id}' has neither a truth nor slice labels; train on cases that have.")
    volume, order = case.image.axial()
    picture = case.image.unit != "HU"
    truth = np.zeros(volume.array.shape, np.uint8) if case.truth is None else order.apply_array(case.truth)
    if case.region is not None:
        region = order.apply_array(case.region)
    else:
        region = np.ones(volume.array.shape, bool) if picture else extract_brain(volume).mask
    region = region & (truth != IGNORED)
    truth = np.where(truth == IGNORED, 0, truth).astype(np.uint8)
    label = case.slice_label if case.truth is None else None
    if label is not None and order.flips[0]:
        label = label[::-1]
    source = "real" if label is not None else PICTURE if picture else "store"
    if not picture:
        truth = shrunk(truth, slice_grid(volume, region, preprocessing).pixel_mm / volume.spacing_mm[0], shrink)
        return to_bank(SimulatedHead(volume, truth, region, {}), preprocessing, source, label)
    truth = shrunk(truth, max(truth.shape[1:]) / preprocessing.size, shrink)
    return _banked_picture(SimulatedHead(volume, truth, region, {}), preprocessing, source, label)


def _banked_picture(
    head: SimulatedHead, preprocessing: SlicePreprocessing, source: str, label: np.ndarray | None
) -> BankedHead:
    """A stack of pictures: the whole of each, none averaged with its neighbours."""
    whole = replace(preprocessing, margin=0.0, slab_mm=1e-3)
    everywhere = np.ones(head.brain.shape, bool)
    banked = to_bank(replace(head, brain=everywhere), whole, source, label)
    grid = slice_grid(head.volume, everywhere, whole)
    slabs = np.rint(grid.forward(head.volume.array.astype(np.float32), outside=0.0)).astype(np.int16)
    return replace(banked, slabs_hu=slabs, brain=grid.forward(head.brain, outside=0.0) > 0.5)


def shrunk(truth: np.ndarray, factor: float, wanted: bool) -> np.ndarray:
    """The truth as SLEX-Net's loader made it: each slice smoothed before it was resized, then cut off below 1.

    Only pixels whose whole surroundings are blood stayed blood, so small bleeds shrank to a half or a third
    (hemorrhage specification 1.7, 2). Off but for comparisons with the published code.

    Args:
        truth: uint8 (k, j, i).
        factor: source pixels per network pixel.
        wanted: False returns ``truth`` as it is.
    """
    sigma = max(0.0, (factor - 1) / 2)  # scikit-image's resize with anti_aliasing
    reach = int(4 * sigma + 0.5)
    if not wanted or reach == 0:
        return truth
    kept = ndimage.binary_erosion(truth > 0, np.ones((1, 2 * reach + 1, 2 * reach + 1)), border_value=1)
    return np.where(kept, truth, 0).astype(np.uint8)


def _digest(store: Store, name: str, preprocessing: SlicePreprocessing, shrink: bool) -> str:
    """Names what a banked case is made of, so that a store that was changed is not mistaken for the old one."""
    info = store.info(name)
    grid = {key: value for key, value in asdict(preprocessing).items() if key in ("size", "margin", "slab_mm")}
    parts = [name, info.image_sha256, info.truth_sha256, info.unit, info.has_region, grid, shrink]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
