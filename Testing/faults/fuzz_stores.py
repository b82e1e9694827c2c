"""What is fuzzed of weights and training sets: checkpoints of others and of our own, and the store of cases."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from Testing.faults.fuzz_subjects import Subject
from Testing.project_tree import ROOT


def _same_arrays(good: dict, found: dict) -> str:
    """For formats with a check sum over every array."""
    same = good.keys() == found.keys() and all(np.array_equal(good[name], found[name]) for name in good)
    return "" if same else "other weights"


def _write_torch(folder: Path) -> Path:
    import torch

    state = {"a.weight": torch.arange(24.0).reshape(2, 12), "a.bias": torch.ones(3, dtype=torch.float64)}
    torch.save({"state_dict": state, "epoch": 3}, folder / "net.pth")
    return folder / "net.pth"


def _read_torch(path: Path) -> Any:
    from NeuraxisLib.checkpoint_torch import read_torch

    return {name: np.array(tensor) for name, tensor in read_torch(path).items() if tensor.numel() < 1000}


def _write_keras(folder: Path) -> Path:
    from Testing.keras_in_numpy import write_keras

    layers = {"conv2d": {"kernel": np.ones((3, 3, 1, 4), np.float32), "bias": np.zeros(4, np.float32)}}
    return write_keras(folder / "net.h5", layers)


def _read_keras(path: Path) -> Any:
    from NeuraxisLib.checkpoint_keras import read_keras

    return read_keras(path, limit_s=5.0)  # HDF5 never comes back from some mutants: less than the fuzzing allows


def _write_tensorflow(folder: Path) -> Path:
    for file in (ROOT / "Neuraxis" / "Testing" / "tensorflow_checkpoint").glob("tiny.*"):
        shutil.copy(file, folder)
    return folder / "tiny.index"


def _read_tensorflow(path: Path) -> Any:
    from NeuraxisLib.checkpoint_tensorflow import read_tensorflow

    layers = read_tensorflow(path)
    return {f"{layer.name}/{name}": value for layer in layers for name, value in layer.weights.items()}


def _write_run(folder: Path) -> Path:
    import json

    import torch

    from Training.checkpointing import CHECKPOINT, save
    from Training.recipe import Recipe

    recipe = json.dumps(Recipe.read("hemorrhage_drunet_starter").data)
    save(folder / CHECKPOINT, {"recipe": recipe, "step": 7, "network": {"a": torch.arange(12.0)}})
    return folder / CHECKPOINT


def _read_run(path: Path) -> Any:
    import torch

    from Training.checkpointing import read_checkpoint
    from Training.recipe import Recipe

    return read_checkpoint(path.parent, Recipe.read("hemorrhage_drunet_starter"), torch.device("cpu"))


def _wrong_run(good: dict, found: dict) -> str:
    """A run that goes on from other weights than it had is silently another run."""
    if found["step"] != good["step"] or found["network"].keys() != good["network"].keys():
        return "another step"
    return "" if bool((found["network"]["a"] == good["network"]["a"]).all()) else "other weights"


def _write_store(folder: Path) -> Path:
    from NeuraxisLib.volume import Volume
    from Training.store import StoredCase
    from Training.store_writer import StoreWriter

    array = np.random.default_rng(5).integers(-900, 900, (4, 20, 30)).astype(np.int16)
    image = Volume(array, np.diag([-0.5, -0.5, 5.0, 1.0]), "HU")
    case = StoredCase("a", "p", "IPH", "train", image, (array > 500).astype(np.uint8), array > 0)
    with StoreWriter(folder / "store.h5") as writer:
        writer.add(case)
    return folder / "store.h5"


def _read_store(path: Path) -> Any:
    from Training.store import Store

    with Store(path) as store:
        cases = [store.case(name) for name in store.of_split("train")]
        return [(case.id, case.image.array, case.truth, case.region, case.image.ijk_to_ras) for case in cases]


def _wrong_store(good: list, found: list) -> str:
    """Arrays lie under check sums."""
    if len(found) != len(good):
        return f"{len(found)} cases"
    same = all(np.array_equal(one, other) for one, other in zip(good[0][1:4], found[0][1:4]))
    return "" if same else "other voxels"


STORES: dict[str, Subject] = {
    "torch-checkpoint": Subject(_write_torch, _read_torch, _same_arrays, header_bytes=1200),
    "keras-checkpoint": Subject(_write_keras, _read_keras, header_bytes=6000),
    "tensorflow-index": Subject(_write_tensorflow, _read_tensorflow, _same_arrays, header_bytes=3000),
    "run-checkpoint": Subject(_write_run, _read_run, _wrong_run, header_bytes=6000),
    "store": Subject(_write_store, _read_store, _wrong_store, header_bytes=6000),
}
