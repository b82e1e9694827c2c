"""Perfusion maps of a store on the network's grid, one HDF5 file a case, from which slices and tiles are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from StrokeCTPLib.map_grid import map_grid, on_grid, share_on_grid
from StrokeCTPLib.map_preprocessing import MapPreprocessing, transit_time
from StrokeCTPLib.networks.configurations import MIP
from StrokeCTPLib.threshold_rules import CORE, PENUMBRA
from Training.pool import results
from Training.store import IGNORED, Store, StoredCase

#: Group of patients whose stroke has no large vessel occlusion (stroke and disc specification 1.7).
SMALL_VESSEL = "Non-LVO"
#: Flag of a store's cases that were simulated.
SIMULATED = "simulated"
#: Units of multi-channel images.
NUMBERS, COLOURS = "maps", "rgb"


@dataclass(frozen=True)
class Slices:
    """Slices or tiles of a case.

    Attributes:
        maps: (channels, n, h, w): numbers as float16, NaN where there is none, or blue, green and red as uint8.
        truth: (n, h, w) uint8 labels, IGNORED where nobody knows.
        brain: (n, h, w) bool.
    """

    maps: np.ndarray
    truth: np.ndarray
    brain: np.ndarray


@dataclass(frozen=True)
class CachedMaps:
    """A case on the network's grid.

    Attributes:
        path: the file.
        name: of the case, for messages.
        scalars: numbers of the patient.
        small_vessel: whether the stroke has no large vessel occlusion.
    """

    path: Path
    name: str
    scalars: Mapping[str, float] = field(default_factory=dict)
    small_vessel: bool = False

    def read(self, k: slice = slice(None), rows: slice = slice(None), columns: slice = slice(None)) -> Slices:
        """A box of the case; InputError if the file is damaged."""
        box = (k, rows, columns)
        with self._opened() as file:
            return Slices(file["maps"][(slice(None), *box)], file["truth"][box], file["brain"][box] > 0)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """(truth uint8, brain bool), (k, size, size) each, without reading the maps."""
        with self._opened() as file:
            return file["truth"][()], file["brain"][()] > 0

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                yield file
        except (OSError, KeyError):
            raise InputError(
                f"'{self.path.name}' of the run is missing or damaged; delete it and start again."
            ) from None

    def images(self, maps: np.ndarray, preprocessing: MapPreprocessing) -> np.ndarray:
        """What the network is given (n, channels, h, w) of the ``maps`` of :meth:`read`."""
        scalars = {name: self.scalars.get(name, 0.0) for name in preprocessing.scalars}
        if maps.dtype == np.uint8:
            return preprocessing.pictures(maps.transpose(1, 0, 2, 3), scalars)
        named = {name: maps[index].astype(np.float32) for index, name in enumerate(preprocessing.maps)}
        return preprocessing.images(named, scalars)


def cache_maps(
    folder: Path,
    store: Store,
    names: Sequence[str],
    preprocessing: MapPreprocessing,
    workers: int,
    progress: Progress,
) -> list[CachedMaps]:
    """Put cases of a store on the network's grid, those that the folder lacks.

    Args:
        folder: of the cache; must exist.
        store, names: the cases; each needs a truth and the maps that the network reads.
        preprocessing: of the network.
        workers: processes; 1 computes here.
        progress: told after every case.

    Raises:
        InputError: a case has no truth, or lacks a map.
    """
    found = []
    for name in names:
        info = store.info(name)
        path = folder / f"{_digest(store, name, preprocessing)}.h5"
        found.append(CachedMaps(path, name, info.scalars, info.group == SMALL_VESSEL))
    jobs = [(case.path, store, case.name, preprocessing) for case in found if not case.path.exists()]
    for done, _ in enumerate(results(cache_case, jobs, workers), start=1):
        progress(done / len(jobs), f"prepared {done} of {len(jobs)} cases of the store")
    return found


def cache_case(path: Path, store: Store, name: str, preprocessing: MapPreprocessing) -> None:
    """Write one case on the network's grid, whole or not at all."""
    made = case_on_grid(store.case(name), preprocessing)
    side = preprocessing.side
    with atomic_write(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        file.create_dataset("maps", data=made.maps, chunks=(len(made.maps), 1, side, side), compression="lzf")
        for word, array in (("truth", made.truth), ("brain", made.brain.astype(np.uint8))):
            file.create_dataset(word, data=array, chunks=(1, side, side), compression="lzf")


def case_on_grid(case: StoredCase, preprocessing: MapPreprocessing) -> Slices:
    """A case as the network's grid has it, slices axial.

    Raises InputError if it has no truth or lacks a map.
    """
    wanted = [f"{name}_{colour}" for name in preprocessing.maps for colour in ("blue", "green", "red")]
    colours = case.image.unit == COLOURS
    wanted = wanted if colours else list(preprocessing.maps)
    case = case if colours else _with_transit_time(case)
    missing = [name for name in wanted if name not in case.channels]
    if case.truth is None or missing:
        what = "no truth" if case.truth is None else f"no channel '{missing[0]}'"
        raise InputError(f"The store's case '{case.id}' has {what}, which the recipe's network needs; leave it out.")
    volume, order = case.image.axial()
    arrays = [volume.array[case.channels.index(name)] for name in wanted]
    region = None if case.region is None else order.apply_array(case.region)
    if colours:
        brain = np.any(arrays, axis=0) if region is None else region
    else:
        finite = [np.isfinite(a) for a, name in zip(arrays, wanted) if name != MIP] or [np.isfinite(arrays[0])]
        brain = np.any(finite, axis=0) if region is None else region & np.any(finite, axis=0)
        arrays = [np.where(brain, array, np.nan) for array in arrays]
    grid = map_grid(volume, brain, preprocessing)
    if colours:
        maps = np.stack([np.rint(grid.forward(array, outside=0.0)).astype(np.uint8) for array in arrays])
    else:
        maps = np.stack([on_grid(grid, array) for array in arrays]).astype(np.float16)
    truth = order.apply_array(case.truth)
    shares = np.stack([share_on_grid(grid, truth == value) for value in (PENUMBRA, CORE, IGNORED)])
    shares = np.concatenate([np.clip(1 - shares.sum(axis=0), 0, 1)[None], shares])
    labels = np.array([0, PENUMBRA, CORE, IGNORED], np.uint8)[shares.argmax(axis=0)]
    return Slices(maps, labels, share_on_grid(grid, brain) > 0.5)


def _with_transit_time(case: StoredCase) -> StoredCase:
    """The case with an MTT of its CBV and CBF where it has none, as prediction makes it."""
    if "mtt" in case.channels or not {"cbf", "cbv"} <= set(case.channels):
        return case
    cbf, cbv = (case.image.array[case.channels.index(name)] for name in ("cbf", "cbv"))
    array = np.concatenate([case.image.array, transit_time(cbf, cbv)[None]])
    return replace(case, image=replace(case.image, array=array), channels=(*case.channels, "mtt"))


def _digest(store: Store, name: str, preprocessing: MapPreprocessing) -> str:
    """Names what a cached case is made of, so that a store that was changed is not mistaken for the old one."""
    info = store.info(name)
    grid = {key: preprocessing.to_dict()[key] for key in ("maps", "size", "pixel_mm", "tile")}
    parts = [name, info.image_sha256, info.truth_sha256, info.unit, info.has_region, info.channels, grid]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
