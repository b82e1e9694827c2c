"""Files of simulated spines: the series, their discs as single voxels, and a list of the exact centres.

They lie as the layout ``sct-discs`` wants them (``prepare FOLDER CASES.h5 --layout sct-discs --disc-points centre``).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.files import write_volume
from Training.simulation.spine_mr import REGIONS, SimulatedSpine, simulate_spine

#: Exact centres of all discs: name -> [[number, R, A, S], ...] in mm.
LIST = "discs.json"


def image_path(number: int, folder: Path, suffix: str) -> Path:
    """The image of a spine; it is written last and stands for the whole."""
    return folder / "spines" / f"spine_{number:05d}.{suffix}"


def is_there(number: int, folder: Path, suffix: str) -> bool:
    """Whether a spine has been made."""
    return image_path(number, folder, suffix).exists()


def write_spine(number: int, folder: Path, suffix: str, region: str, seed: int) -> None:
    """Simulate one spine and write its files. The same number and seed give the same spine."""
    made = simulated(number, region, seed)
    labels = np.zeros(made.volume.array.shape, np.uint8)
    inverse = np.linalg.inv(made.volume.ijk_to_ras)
    for value, point in zip(made.numbers, made.ras_mm):
        i, j, k = np.clip(np.rint((inverse @ [*point, 1.0])[:3]), 0, np.array(labels.shape[::-1]) - 1).astype(int)
        labels[k, j, i] = value
    path = image_path(number, folder, suffix)
    own = path.with_name(path.name.replace(f".{suffix}", ".json"))
    with atomic_write(own) as temporary:
        discs = [[value, *np.round(point, 3).tolist()] for value, point in zip(made.numbers, made.ras_mm)]
        temporary.write_text(json.dumps({"kind": made.kind, "discs": discs}), encoding="utf-8")
    name = path.name.replace(f".{suffix}", f"_label-disc.{suffix}")
    write_volume(made.volume.like(labels), path.with_name(name), compress=True)
    write_volume(made.volume, path, compress=True)


def simulated(number: int, region: str, seed: int) -> SimulatedSpine:
    """The spine of that number; regions come in turn unless one is named.

    Spines with a lumbar vertebra too many carry one number twice, which no list of labels can hold; then the next one
    of the same number is drawn.
    """
    for attempt in range(100):
        rng = np.random.default_rng([seed, number, attempt])
        made = simulate_spine(rng, region or list(REGIONS)[number % len(REGIONS)])
        if made.numbers and len(set(made.numbers)) == len(made.numbers):
            return made
    raise AssertionError("no spine without a number twice")


def write_list(folder: Path, suffix: str, region: str, seed: int, count: int) -> int:
    """Gather the exact centres of the spines that are there; returns how many."""
    paths = [image_path(number, folder, suffix) for number in range(count)]
    found = {path.name.split(".")[0]: path for path in paths if path.exists()}
    centres = {
        name: json.loads(path.with_name(f"{name}.json").read_text(encoding="utf-8")) for name, path in found.items()
    }
    with atomic_write(folder / LIST) as temporary:
        temporary.write_text(json.dumps({"region": region or "all", "seed": seed, "spines": centres}), encoding="utf-8")
    return len(found)
