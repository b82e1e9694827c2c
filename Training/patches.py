"""Three-dimensional patches of the store's volumes: each volume once on the network's grid, then cut out at random.

The grid, the clipping and the normalisation are those of the model file (:class:`VolumePreprocessing`), so training
and inference see the same. Every case lies in one chunked HDF5 file of the run folder, from which a patch is read
without reading the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume_preprocessing import VolumePreprocessing, volume_grid
from Training.distributed import gathered, rank, world_size
from Training.pool import results
from Training.recipe import Recipe
from Training.sampling import Batch
from Training.simulation.bank import UNKNOWN
from Training.store import IGNORED, Store, StoredCase

#: Largest side of a chunk of the cache along x, y, z.
CHUNK = (64, 64, 8)
#: Voxels kept of those around which a crop without blood may be cut.
MOST_CENTRES = 100_000


@dataclass(frozen=True)
class CachedVolume:
    """A case on the network's grid, in a file of its own. Axes are (x, y, z), as the network's.

    Attributes:
        path: the file.
        name: of the case, for messages.
    """

    path: Path
    name: str

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """(image float32, truth bool), (x, y, z) each."""
        with self._opened() as file:
            return file["image"][()].astype(np.float32), file["truth"][()] == 1

    def crop(
        self, rng: np.random.Generator, preprocessing: VolumePreprocessing, positive: float, legacy_negatives: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """A patch (image float32, truth bool), around blood with probability ``positive``, else around anything else.

        The patch stays inside the volume, as MONAI's RandCropByPosNegLabel keeps it; where the volume is smaller than
        the patch, it lies in the middle of padding.

        Args:
            rng: source of the choice.
            preprocessing: says the patch and the padding.
            positive: share of patches around a voxel of blood, where there is one.
            legacy_negatives: patches without blood at their centre only where the normalised image is above 0 (48 HU:
                blood and bone, hardly any brain), as the HemSeg scripts had it (hemorrhage specification 3.4).
        """
        with self._opened() as file:
            shape, bright = file["image"].shape, file["bright"]
            around_blood = rng.random() < positive and len(file["blood"]) > 0
            if around_blood or (legacy_negatives and len(bright)):
                centres = file["blood"] if around_blood else bright
                centre = centres[int(rng.integers(len(centres)))]
            else:
                centre = [int(rng.integers(length)) for length in shape]
            box = tuple(
                slice(start, min(start + size, length))
                for start, size, length in zip(_corner(centre, preprocessing.patch, shape), preprocessing.patch, shape)
            )
            image, truth = file["image"][box].astype(np.float32), file["truth"][box] == 1
        padded, inside = preprocessing.padded(image)
        whole = np.zeros(padded.shape, bool)
        whole[inside] = truth
        return padded, whole

    def _opened(self) -> h5py.File:
        try:
            return h5py.File(self.path, "r", locking=False)
        except OSError:
            raise InputError(
                f"'{self.path.name}' of the run is missing or damaged; delete it and start again."
            ) from None


def _corner(centre: Sequence[int], patch: Sequence[int], shape: Sequence[int]) -> list[int]:
    """First voxel of a patch around ``centre``, moved to lie inside the volume."""
    return [max(0, min(int(at) - size // 2, length - size)) for at, size, length in zip(centre, patch, shape)]


def cache_volumes(
    folder: Path,
    store: Store,
    names: Sequence[str],
    preprocessing: VolumePreprocessing,
    workers: int,
    progress: Progress,
) -> list[CachedVolume]:
    """Put cases of a store on the network's grid, those that the folder lacks.

    Args:
        folder: of the cache; must exist.
        store, names: the cases; each needs a truth.
        preprocessing: of the network.
        workers: processes; 1 computes here.
        progress: told after every case.

    Raises:
        InputError: a case is not in HU or has no truth.
    """
    found = [CachedVolume(folder / f"{_digest(store, name, preprocessing)}.h5", name) for name in names]
    jobs = [(volume.path, store, volume.name, preprocessing) for volume in found if not volume.path.exists()]
    for done, _ in enumerate(results(cache_case, jobs, workers), start=1):
        progress(done / len(jobs), f"prepared {done} of {len(jobs)} volumes of the store")
    return found


def cache_case(path: Path, store: Store, name: str, preprocessing: VolumePreprocessing) -> None:
    """Write one case on the network's grid, whole or not at all."""
    image, truth = on_grid(store.case(name), preprocessing)
    bright = np.argwhere((image > 0) & (truth == 0))
    bright = bright[np.linspace(0, len(bright) - 1, min(len(bright), MOST_CENTRES)).astype(int)]
    chunks = tuple(min(side, length) for side, length in zip(CHUNK, image.shape))
    with atomic_write(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        file.create_dataset("image", data=image.astype(np.float16), chunks=chunks)  # exact to 0.02 HU
        file.create_dataset("truth", data=truth, chunks=chunks)
        file.create_dataset("blood", data=np.argwhere(truth == 1).astype(np.int16))
        file.create_dataset("bright", data=bright.astype(np.int16))


def on_grid(case: StoredCase, preprocessing: VolumePreprocessing) -> tuple[np.ndarray, np.ndarray]:
    """(normalised image float32, truth uint8 0/1), (x, y, z) each; voxels whose truth nobody knows count as 0.

    Raises InputError if the case is not in HU or has no truth.
    """
    if case.truth is None or case.image.unit != "HU":
        what = "no truth" if case.truth is None else "no HU"
        raise InputError(f"The store's case '{case.id}' has {what}, which patches of volumes need; leave it out.")
    volume, order = case.image.axial()
    grid = volume_grid(volume, preprocessing)
    truth = order.apply_array(case.truth)
    blood = ((truth > 0) & (truth != IGNORED)).astype(np.uint8)
    return preprocessing.normalised(grid.forward(volume.array)), grid.forward_labels(blood)


def _digest(store: Store, name: str, preprocessing: VolumePreprocessing) -> str:
    info, grid = store.info(name), preprocessing.to_dict()
    parts = [
        name,
        info.image_sha256,
        info.truth_sha256,
        {k: v for k, v in grid.items() if k not in ("patch", "overlap")},
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


class PatchSampler:
    """Draws batches of patches; the same (seed, step) gives the same batch.

    Every volume comes once before any comes again, in an order drawn anew each time.

    Args:
        volumes: to draw from.
        recipe: says the patch, how many crops each volume gives and around what.
    """

    def __init__(self, volumes: Sequence[CachedVolume], recipe: Recipe):
        if not volumes:
            raise InputError("The store has no volumes to train on; give one with cases in its training split.")
        self.volumes, self.preprocessing = list(volumes), recipe.preprocessing
        sampling = recipe["sampling"]
        self.crops, self.legacy_negatives = sampling["crops"], sampling["legacy_negatives"]
        self.positive = sampling["positive"] / max(sampling["positive"] + sampling["negative"], 1e-9)

    def batch(self, seed: int, step: int, size: int, wanted: slice = slice(None)) -> Batch:
        """The patches of ``size`` volumes of one step, or of those of them that are ``wanted``."""
        images, truths, cases = [], [], []
        for index in range(size)[wanted]:
            turn, place = divmod(step * size + index, len(self.volumes))
            volume = self.volumes[np.random.default_rng([seed, turn]).permutation(len(self.volumes))[place]]
            for crop in range(self.crops):
                rng = np.random.default_rng([seed, step, index, crop])
                image, truth = volume.crop(rng, self.preprocessing, self.positive, self.legacy_negatives)
                images.append(image)
                truths.append(truth)
                cases.append(volume.name)
        truth = torch.from_numpy(np.stack(truths)[:, None]).float()
        label = torch.full((len(images),), UNKNOWN)
        return Batch(torch.from_numpy(np.stack(images)[:, None]), truth, torch.ones_like(truth), label, tuple(cases))


def patch_scores(
    network: nn.Module, volumes: Sequence[CachedVolume], recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """Mean Dice over whole volumes in sliding windows; both empty counts 1, one empty 0. With none, 0."""
    own = [volume_dice(network, volume, recipe, device) for volume in volumes[rank() :: world_size()]]
    scores = [score for share in gathered(own) for score in share]
    mean = float(np.mean(scores)) if scores else 0.0
    return {"dice": round(mean, 4), "score": mean}


def volume_dice(network: nn.Module, volume: CachedVolume, recipe: Recipe, device: torch.device) -> float:
    """Dice of one volume at a probability of 0.5."""
    image, truth = volume.whole()
    found = predict_volume(network, image, recipe.preprocessing, device) > 0.5
    both = truth.sum() + found.sum()
    return float(2 * (truth & found).sum() / both) if both else 1.0


def predict_volume(
    network: nn.Module, image: np.ndarray, preprocessing: VolumePreprocessing, device: torch.device
) -> np.ndarray:
    """Probability (x, y, z) of a normalised image (x, y, z), in windows over all of it."""
    from NeuraxisLib.window_inference import WindowPredictor, windows_over

    padded, inside = preprocessing.padded(image)
    windows = windows_over(np.ones(padded.shape, bool), preprocessing.patch, preprocessing.overlap)
    predictor = WindowPredictor(network.eval(), device.type, "float32")
    return predictor.predict(padded[None], windows)[0][inside]


def picture_of_volume(
    network: nn.Module, volumes: Sequence[CachedVolume], recipe: Recipe, device: torch.device
) -> np.ndarray:
    """Image | truth | probability of the bloodiest slice of the first volumes, (h, w, 3) uint8."""
    from Training.validation import triptych

    rows = []
    for volume in volumes[:2]:
        image, truth = volume.whole()
        z = int(truth.sum(axis=(0, 1)).argmax())
        probability = predict_volume(network, image, recipe.preprocessing, device)[..., z]
        grey = np.clip((image[..., z] + 3) / 6, 0, 1)
        panels = [np.flip(part.T, (0, 1)) for part in (grey, truth[..., z], probability)]  # nose up, right side left
        rows.append(triptych(*panels))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
