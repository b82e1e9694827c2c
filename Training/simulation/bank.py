"""The bank: simulated and real heads, already on the network's grid, in one file each.

A head takes seconds to simulate and milliseconds to read, so heads are made once by as many processes as there are
cores and read at random while fitting. Every file is complete or absent.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from HemorrhageSegLib.brain import extract_brain
from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import InputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.preprocessing import SlicePreprocessing, slice_grid
from NeuraxisLib.volume import Volume
from Training.simulation import anatomy as anatomies
from Training.simulation.bleeds import Anatomy
from Training.simulation.head_ct import SimulatedHead, plant, synthesise
from Training.simulation.lesion_shapes import LesionShapes

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
            np.savez_compressed(
                stream,
                slabs_hu=self.slabs_hu,
                truth=self.truth,
                brain=np.packbits(self.brain, axis=-1),
                slice_label=self.slice_label,
                source=np.array(self.source),
            )

    @classmethod
    def load(cls, path: Path) -> BankedHead:
        """Read a head; nothing in the file is executed. InputError if it is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as data:
                brain = np.unpackbits(data["brain"], axis=-1).astype(bool)
                return cls(data["slabs_hu"], data["truth"], brain, data["slice_label"], str(data["source"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            raise InputError(f"'{path.name}' of the bank is missing or damaged; delete it and start again.") from None


def to_bank(
    head: SimulatedHead, preprocessing: SlicePreprocessing, source: str, slice_label: np.ndarray | None = None
) -> BankedHead:
    """Put a head on the network's grid, exactly as the pipeline would.

    Args:
        head: what to store.
        preprocessing: its size, which must be a multiple of 8, and slab thickness make the grid.
        source: see :class:`BankedHead`.
        slice_label: (K,) for a real scan, None where the truth is exact.
    """
    grid = slice_grid(head.volume, head.brain, preprocessing)
    slabs = grid.forward(head.volume.array)
    truth = np.zeros(slabs.shape, np.uint8)
    for value in np.unique(head.truth[head.truth > 0]):
        truth[grid.forward(head.truth == value, outside=0.0) > 0.5] = value
    brain = grid.forward(head.brain, outside=0.0) > 0.5
    label = np.full(len(slabs), UNKNOWN) if slice_label is None else _slab_labels(slice_label, grid.slabs)
    return BankedHead(np.rint(slabs).astype(np.int16), truth, brain, label.astype(np.int8), source)


def _slab_labels(slice_label: np.ndarray, slabs: np.ndarray) -> np.ndarray:
    """Labels (n,) of slabs averaged from slices (K,): bleeding if one of its slices bleeds, clean if all are."""
    used = slabs > 0
    clean = ~(used & (slice_label != CLEAN)).any(axis=1)
    bleeding = (used & (slice_label == BLEEDING)).any(axis=1)
    return np.where(bleeding, BLEEDING, np.where(clean, CLEAN, UNKNOWN))


class HeadSources:
    """The real anatomy that simulation starts from.

    Args:
        real_folder: head CTs with a ``*labels.json`` that lists each scan's bleeding slices by kind.
        label_map_folder: whole-head label maps ``training_seg_*.nii.gz``.
        shape_folder: masks of real lesions whose shapes some bleeds take; None draws all shapes by formula.
    """

    def __init__(self, real_folder: Path, label_map_folder: Path, shape_folder: Path | None = None):
        self.real_folder, self.label_map_folder = Path(real_folder), Path(label_map_folder)
        labels = _slice_labels(self.real_folder)
        self.positive = {
            name: sorted({k for slices in entry["positive_slices"].values() for k in slices})
            for name, entry in labels.items()
        }
        self.skipped = {name: entry.get("interpolated_slices", []) for name, entry in labels.items()}
        self.clean = sorted(name for name, slices in self.positive.items() if not slices)
        self.maps = sorted(self.label_map_folder.glob("training_seg_*.nii.gz"))
        self._real: dict[str, tuple[Volume, np.ndarray]] = {}
        self._anatomy: dict[str, Anatomy] = {}
        self._downward: set[str] = set()
        self._shapes = LesionShapes(shape_folder) if shape_folder else None

    def real(self, name: str) -> tuple[Volume, np.ndarray]:
        """An axial real CT and its brain mask."""
        if name not in self._real:
            volume, order = read_volume(self.real_folder / f"{name}.nii.gz").axial()
            self._real[name] = volume, extract_brain(volume).mask
            if order.flips[0]:  # the labels count in the file's order, from its first slice
                self._downward.add(name)
        return self._real[name]

    def planted(self, rng: np.random.Generator) -> SimulatedHead:
        """A bleed-free real CT with planted bleeds; InputError if the folder has none."""
        if not self.clean:
            fault = "lists no head CT without bleeding" if self.real_folder.is_dir() else "was not found"
            raise InputError(
                f"The folder '{self.real_folder.name}' of head CTs to plant bleeds in {fault}; name another with "
                "--real or ask for no planted heads."
            )
        name = str(rng.choice(self.clean))
        volume, brain = self.real(name)
        if name not in self._anatomy:
            self._anatomy[name] = anatomies.of_real_head(volume, brain)
        return plant(volume, self._anatomy[name], rng, shapes=self._shapes)

    def synthetic(self, rng: np.random.Generator) -> SimulatedHead:
        """A head made from a label map; InputError if the folder has none."""
        if not self.maps:
            fault = "holds no training_seg_*.nii.gz" if self.label_map_folder.is_dir() else "was not found"
            raise InputError(
                f"The folder '{self.label_map_folder.name}' of label maps {fault}; name another with --label-maps or "
                "ask for no synthetic heads."
            )
        volume, _ = read_volume(self.maps[rng.integers(len(self.maps))]).axial()
        labels = volume.array if volume.array.dtype.kind in "iu" else np.rint(volume.array)
        return synthesise(labels.astype(np.int16), rng, shapes=self._shapes)

    def real_with_labels(self, name: str) -> tuple[SimulatedHead, np.ndarray]:
        """A real CT as it is, with its slice labels (K,); no truth. Slice indices count from the file's first."""
        volume, brain = self.real(name)
        label = np.full(volume.slice_count, CLEAN)
        if max([*self.positive[name], *self.skipped[name], -1]) >= len(label):
            raise InputError(f"The labels of '{name}' name a slice beyond its {len(label)} slices; correct them.")
        label[self.positive[name]] = BLEEDING
        label[self.skipped[name]] = UNKNOWN
        label = label[::-1] if name in self._downward else label
        return SimulatedHead(volume, np.zeros(volume.array.shape, np.uint8), brain, {}), label


def _slice_labels(folder: Path) -> dict[str, dict]:
    """Scan name -> its labels, from the folder's ``*labels.json``; empty without one, InputError if it is no such."""
    path = next(folder.glob("*labels.json"), None)
    if path is None:
        return {}
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
        good = all(isinstance(entry["positive_slices"], dict) for entry in labels.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise InputError(
            f"'{path.name}' does not list 'positive_slices' by kind for every scan; see Training/README.md."
        )
    return labels


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
    """Put every real scan with its slice labels into the bank; returns how many were made.

    Raises InputError if the folder lists no scans.
    """
    if not sources.positive:
        raise InputError(
            f"'{sources.real_folder.name}' holds no head CTs with *labels.json; name another folder with --real or set "
            "fitting.shares.real to 0."
        )
    made = 0
    for name in sources.positive:
        path = Path(folder) / f"real_{name}.npz"
        if not path.exists():
            head, label = sources.real_with_labels(name)
            to_bank(head, preprocessing, "real", label).save(path)
            made += 1
    return made
