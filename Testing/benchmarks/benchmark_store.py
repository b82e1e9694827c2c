"""How fast a training patch is read from the store, beside reading the whole compressed NIfTI that it lies in.

    python Testing/benchmarks/benchmark_store.py [--scans 6] [--reads 150]

Scans are the bundled head CT on a grid of 512 x 512 x 40 with noise of its own each, so that they pack as real ones do.
Patches of 128 x 128 x 32 and stacks of three whole slices lie at random places of random scans, so that no cache of
chunks helps from one to the next; files are in the disk cache of the system, as in the second epoch. Contenders take
turns within one process. CPU seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Neuraxis"), str(ROOT / "HemorrhageSeg")]

from NeuraxisLib.files import read_volume, write_volume  # noqa: E402
from NeuraxisLib.volume import Volume  # noqa: E402
from Training.store import Store, StoredCase  # noqa: E402
from Training.store_writer import COMPRESSIONS, StoreWriter  # noqa: E402

SCAN = ROOT / "HemorrhageSeg" / "HemorrhageSegLib" / "Resources" / "SampleData" / "head_ct_hemorrhage.nrrd"
SHAPE, PATCH, STACK = (40, 512, 512), (32, 128, 128), (3, 512, 512)


def scans(count: int) -> list[Volume]:
    """The bundled scan on the large grid, each time with other noise inside the head."""
    volume = read_volume(SCAN)
    array = ndimage.zoom(volume.array.astype(np.float32), np.array(SHAPE) / volume.array.shape, order=1)
    made = []
    for seed in range(count):
        noise = np.random.default_rng(seed).normal(0, 4, SHAPE) * (array > -500)
        made.append(Volume(np.rint(array + noise).astype(np.int16), np.diag([-0.45, -0.45, 5.0, 1.0]), "HU"))
    return made


def write_all(folder: Path, volumes: list[Volume]) -> dict[str, float]:
    """All contenders' files; returns the size of each as a share of the voxels' bytes."""
    raw, sizes = sum(volume.array.nbytes for volume in volumes), {}
    for number, volume in enumerate(volumes):
        write_volume(replace(volume, unit=""), folder / f"{number}.nii.gz")
        np.save(folder / f"{number}.npy", volume.array)
    sizes["nii.gz"] = sum(path.stat().st_size for path in folder.glob("*.nii.gz")) / raw
    for compression in COMPRESSIONS:
        path = folder / f"{compression}.h5"
        with StoreWriter(path, compression=compression) as writer:
            for number, volume in enumerate(volumes):
                writer.add(StoredCase(str(number), str(number), "", "", volume))
        sizes[f"store, {compression}"] = path.stat().st_size / raw
    return sizes | {"npy, memory-mapped": 1.0}


def contenders(folder: Path) -> dict[str, Callable[[int, tuple[slice, ...]], np.ndarray]]:
    """Name -> function that reads a box of a scan."""

    def from_nifti(number: int, box: tuple[slice, ...]) -> np.ndarray:
        return read_volume(folder / f"{number}.nii.gz").array[box]

    def from_npy(number: int, box: tuple[slice, ...]) -> np.ndarray:
        return np.array(np.load(folder / f"{number}.npy", mmap_mode="r")[box])

    found: dict[str, Callable[[int, tuple[slice, ...]], np.ndarray]] = {"nii.gz": from_nifti}
    for compression in COMPRESSIONS:
        store = Store(folder / f"{compression}.h5")
        found[f"store, {compression}"] = lambda number, box, store=store: store.part(str(number), box)[0]
    return found | {"npy, memory-mapped": from_npy}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=6, help="scans to read from (default: %(default)s)")
    parser.add_argument("--reads", type=int, default=150, help="boxes of each kind (default: %(default)s)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        volumes = scans(options.scans)
        sizes, readers = write_all(Path(name), volumes), contenders(Path(name))
        for words, size in (("patch 128 x 128 x 32", PATCH), ("3 slices 512 x 512", STACK)):
            seconds = defaultdict(list)
            for turn in range(options.reads):
                number = int(rng.integers(options.scans))
                start = [int(rng.integers(whole - part + 1)) for whole, part in zip(SHAPE, size)]
                box = tuple(slice(at, at + part) for at, part in zip(start, size))
                for reader, read in readers.items():
                    if reader == "nii.gz" and turn % 10:
                        continue  # slow, and always the same work
                    before = time.process_time()
                    array = read(number, box)
                    seconds[reader].append(time.process_time() - before)
                    assert np.array_equal(array, volumes[number].array[box])
            report(words, seconds, sizes)


def report(words: str, seconds: dict[str, list[float]], sizes: dict[str, float]) -> None:
    """One table: milliseconds per read, how many times as fast as the peer, size on the disk."""
    peer = float(np.mean(seconds["nii.gz"]))
    print(f"\n{words:22}{'ms':>9}{'ratio':>9}{'size of raw':>13}")
    for name, own in seconds.items():
        mean = float(np.mean(own))
        print(f"{name:22}{1000 * mean:9.2f}{peer / mean:9.1f}{sizes[name]:13.2f}")


if __name__ == "__main__":
    main()
