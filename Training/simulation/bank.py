"""The bank: simulated and real heads, already on the network's grid, in one file each.

A head takes seconds to simulate and milliseconds to read, so heads are made once by as many processes as there are
cores and read at random while fitting. Every file is complete or absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from HemorrhageSegLib.brain import extract_brain
from NeuraxisLib.files import atomic_write, read_volume
from NeuraxisLib.preprocessing import SlicePreprocessing, slice_grid
from NeuraxisLib.volume import Volume
from Training.simulation import anatomy as anatomies
from Training.simulation.head_ct import SimulatedHead, plant, synthesise

#: Slice labels of a real scan: bleeding seen, none, or not known.
UNKNOWN, CLEAN, BLEEDING = -1, 0, 1


@dataclass(frozen=True)
class BankedHead:
    """One head of the bank.

    Attributes:
        slabs_hu: int16 (n, size, size) on the network's grid.
        truth: uint8 (n, size, size) value per kind; zeros for a real scan.
        brain: bool (n, size, size).
        slice_label: int8 (n,), for real scans :data:`BLEEDING` / :data:`CLEAN`; UNKNOWN where ``truth`` is exact.
        source: ``"planted"``, ``"synthetic"`` or ``"real"``.
    """

    slabs_hu: np.ndarray
    truth: np.ndarray
    brain: np.ndarray
    slice_label: np.ndarray
    source: str

    def save(self, path: Path) -> None:
        """Write the head whole or not at all."""
        with atomic_write(path) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, slabs_hu=self.slabs_hu, truth=self.truth, brain=np.packbits(self.brain, axis=-1),
                                slice_label=self.slice_label, source=np.array(self.source))

    @classmethod
    def load(cls, path: Path) -> BankedHead:
        """Read a head; nothing in the file is executed."""
        with np.load(path, allow_pickle=False) as data:
            brain = np.unpackbits(data["brain"], axis=-1).astype(bool)
            return cls(data["slabs_hu"], data["truth"], brain, data["slice_label"], str(data["source"]))


def to_bank(head: SimulatedHead, preprocessing: SlicePreprocessing, source: str, slice_label: np.ndarray | None) -> BankedHead:
    """Put a head on the network's grid, exactly as the pipeline would."""
    grid = slice_grid(head.volume, head.brain, preprocessing)
    slabs = grid.forward(head.volume.array)
    truth = np.zeros(slabs.shape, np.uint8)
    for value in np.unique(head.truth[head.truth > 0]):
        truth[grid.forward(head.truth == value, outside=0.0) > 0.5] = value
    brain = grid.forward(head.brain, outside=0.0) > 0.5
    label = np.full(len(slabs), UNKNOWN, np.int8) if slice_label is None else slice_label.astype(np.int8)
    return BankedHead(np.rint(slabs).astype(np.int16), truth, brain, label, source)


class HeadSources:
    """The real anatomy that simulation starts from.

    Args:
        real_folder: head CTs with a ``*labels.json`` that lists each scan's bleeding slices by kind.
        label_map_folder: whole-head label maps ``training_seg_*.nii.gz``.
    """

    def __init__(self, real_folder: Path, label_map_folder: Path):
        labels = json.loads(next(Path(real_folder).glob("*labels.json")).read_text())
        self.positive = {name: sorted({k for ks in entry["positive_slices"].values() for k in ks}) for name, entry in labels.items()}
        self.skipped = {name: entry.get("interpolated_slices", []) for name, entry in labels.items()}
        self.real_folder = Path(real_folder)
        self.clean = sorted(name for name, slices in self.positive.items() if not slices)
        self.maps = sorted(Path(label_map_folder).glob("training_seg_*.nii.gz"))
        self._real: dict = {}
        self._anatomy: dict = {}

    def real(self, name: str) -> tuple[Volume, np.ndarray]:
        """An axial real CT and its brain mask."""
        if name not in self._real:
            volume, _ = read_volume(self.real_folder / f"{name}.nii.gz").axial()
            self._real[name] = volume, extract_brain(volume).mask
        return self._real[name]

    def planted(self, rng: np.random.Generator) -> SimulatedHead:
        """A bleed-free real CT with planted bleeds."""
        name = str(rng.choice(self.clean))
        volume, brain = self.real(name)
        if name not in self._anatomy:
            self._anatomy[name] = anatomies.of_real_head(volume, brain)
        return plant(volume, self._anatomy[name], rng)

    def synthetic(self, rng: np.random.Generator) -> SimulatedHead:
        """A head made from a label map."""
        volume, _ = read_volume(self.maps[rng.integers(len(self.maps))]).axial()
        labels = volume.array if volume.array.dtype.kind in "iu" else np.rint(volume.array)
        return synthesise(labels.astype(np.int16), rng)

    def real_with_labels(self, name: str) -> tuple[SimulatedHead, np.ndarray]:
        """A real CT as it is, with its slice labels (K,); no truth. Slice indices count from the file's first."""
        volume, brain = self.real(name)
        label = np.full(volume.slice_count, CLEAN)
        label[self.positive[name]] = BLEEDING
        label[self.skipped[name]] = UNKNOWN
        return SimulatedHead(volume, np.zeros(volume.array.shape, np.uint8), brain, {}), label


def fill(folder: Path, sources: HeadSources, preprocessing: SlicePreprocessing, source: str, seeds: range) -> int:
    """Make the heads of ``seeds`` that are not in ``folder`` yet; returns how many were made."""
    made = 0
    for seed in seeds:
        path = Path(folder) / f"{source}_{seed:05d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([seed, {"planted": 1, "synthetic": 2}[source]])
        head = getattr(sources, source)(rng)
        if head.brain.any():
            to_bank(head, preprocessing, source, None).save(path)
            made += 1
    return made


def fill_real(folder: Path, sources: HeadSources, preprocessing: SlicePreprocessing) -> int:
    """Put every real scan with its slice labels into the bank; returns how many were made."""
    made = 0
    for name in sources.positive:
        path = Path(folder) / f"real_{name}.npz"
        if not path.exists():
            head, label = sources.real_with_labels(name)
            to_bank(head, preprocessing, "real", label).save(path)
            made += 1
    return made
