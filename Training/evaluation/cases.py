"""The cases to judge by: truth and image from a store, or from files in a folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import READABLE, is_image_file, read_volume
from NeuraxisLib.volume import Volume

#: What a truth beside its image is called: ``<case>_truth.nii.gz``.
TRUTH_ENDING = "_truth"


@dataclass(frozen=True)
class Case:
    """One case with its truth.

    Attributes:
        id: name of the case.
        group: what tables are made by; may be empty.
        grid: geometry of all arrays (its array is not looked at).
        truth: bool (k, j, i), what is there.
        image: the scan, or None where it is not at hand (pictures then show masks only).
        known: bool (k, j, i), where the truth is known; None if everywhere.
        region: bool (k, j, i), the searched region for calibration; None for all voxels.
        channels: name -> channel of an image of several, (k, j, i); empty for a plain image.
        unit: of the image, as a store has it.
        scalars: numbers of the patient.
    """

    id: str
    group: str
    grid: Volume
    truth: np.ndarray
    image: Volume | None = None
    known: np.ndarray | None = None
    region: np.ndarray | None = None
    channels: Mapping[str, np.ndarray] = field(default_factory=dict)
    unit: str = ""
    scalars: Mapping[str, float] = field(default_factory=dict)


class Cases(Protocol):
    """Where cases come from.

    Attributes:
        name: of the store or folder, without its path.
        ids: the cases that have a truth.
        unjudged: case -> why it cannot be judged.
        values: of the truth that are judged; all but 0 if empty.
    """

    name: str
    ids: list[str]
    unjudged: dict[str, str]
    values: tuple[int, ...]

    def case(self, name: str) -> Case:
        """Read a case; NeuraxisError if it cannot be read."""


def open_cases(
    truth: Path,
    splits: tuple[str, ...] = (),
    images: Path | None = None,
    groups: Path | None = None,
    values: tuple[int, ...] = (),
) -> Cases:
    """Cases of a store (a file) or of a folder of truth files.

    Args:
        truth: a store, or a folder of ``<case>.nii.gz`` or ``<case>_truth.nii.gz`` (or NRRD, MetaImage).
        splits: only these splits of a store; all if empty.
        images: folder of ``<case>.*`` images for a folder of truths; None looks beside the truths.
        groups: CSV with the columns ``id`` and ``group``; a store has its own.
        values: which values of the truth are the structure to judge; all but 0 if empty.

    Raises:
        InputError: nothing there, or no case with a truth.
    """
    if not truth.exists():
        raise InputError(f"The truth '{truth.name}' was not found; check the name and the folder.")
    found: Cases = FolderCases(truth, images, groups, values) if truth.is_dir() else StoreCases(truth, splits, values)
    if truth.is_dir() and splits:
        raise InputError("Splits are those of a store; a folder of truth files has none, so leave --split out.")
    if not found.ids:
        raise InputError(f"'{truth.name}' holds no case with a truth to judge by; choose another.")
    return found


class StoreCases:
    """Cases of a store. ``IGNORED`` voxels of the truth are judged nowhere."""

    def __init__(self, path: Path, splits: tuple[str, ...] = (), values: tuple[int, ...] = ()):
        from Training.store import Store

        self._store, self.name, self.values = Store(path), path.name, values
        wanted = self._store.of_split(*splits) if splits else self._store.ids
        self.ids = [name for name in wanted if self._store.info(name).has_truth]
        self.unjudged = {name: "no outline was drawn" for name in wanted if not self._store.info(name).has_truth}

    def case(self, name: str) -> Case:
        """Read a case of the store."""
        from Training.store import IGNORED

        stored = self._store.case(name)
        known = stored.truth != IGNORED
        truth = structure(stored.truth, self.values) & known
        channels = dict(zip(stored.channels, stored.image.array))
        image = stored.image.like(stored.image.array[0]) if channels else stored.image
        return Case(
            name, stored.group, image, truth, image, None if known.all() else known, stored.region, channels,
            stored.image.unit, stored.scalars,
        )  # fmt: skip


class FolderCases:
    """Truth files of a folder; every non-zero voxel is lesion, or those of the values given."""

    def __init__(
        self, folder: Path, images: Path | None = None, groups: Path | None = None, values: tuple[int, ...] = ()
    ):
        self.name, self.unjudged, self.values = folder.name, {}, values
        files = image_files(folder)
        marked = {stem.removesuffix(TRUTH_ENDING): path for stem, path in files.items() if stem.endswith(TRUTH_ENDING)}
        self._truths = marked or files
        self._images = image_files(images) if images else files if marked else {}
        self._groups = read_groups(groups) if groups else {}
        self.ids = list(self._truths)

    def case(self, name: str) -> Case:
        """Read the truth of a case, and its image if there is one."""
        truth = read_volume(self._truths[name])
        image = read_volume(self._images[name]) if name in self._images else None
        if image is not None:
            check_same_grid(image, truth, "image", name)
        mask = as_mask(truth, "truth", name) & structure(truth.array, self.values)
        return Case(name, self._groups.get(name, ""), truth, mask, image)


def structure(labels: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Where a label map has one of the values, or any but 0."""
    return np.isin(labels, values) if values else labels != 0


def as_mask(volume: Volume, what: str, name: str) -> np.ndarray:
    """(k, j, i) bool: where a label map is not 0.

    Raises:
        InputError: fractions or negative values, so it is no label map but an image or a probability map.
    """
    values = volume.array
    if values.dtype.kind == "f" and (not np.isfinite(values).all() or (values != np.rint(values)).any()):
        fault = "fractions"
    elif values.size and values.min() < 0:
        fault = "negative values"
    else:
        return values != 0
    raise InputError(f"The {what} of '{name}' holds {fault}, so it is no mask; give a label map of whole numbers.")


def image_files(folder: Path) -> dict[str, Path]:
    """Name without suffixes -> file, of the image files in a folder; InputError if it is none or a name is twice."""
    if not folder.is_dir():
        raise InputError(f"The folder '{folder.name}' was not found; check the name.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not is_image_file(path) or path.name.startswith("."):
            continue
        stem = stem_of(path)
        if stem in found:
            raise InputError(f"'{folder.name}' holds two images of the case '{stem}'; remove one of them.")
        found[stem] = path
    return found


def stem_of(path: str | os.PathLike) -> str:
    """File name without the suffixes of an image: ``x.nii.gz`` and ``x.seg.nrrd`` are ``x``."""
    name = Path(path).name
    ending = max((e for e in (".seg.nrrd", *READABLE) if name.lower().endswith(e)), key=len, default="")
    return name[: len(name) - len(ending)]


def check_same_grid(volume: Volume, grid: Volume, what: str, name: str) -> None:
    """Raise InputError unless both lie on one grid: same size, every corner within a tenth of a voxel."""
    same = volume.array.shape[-3:] == grid.array.shape[-3:]
    if same:
        step = min(grid.spacing_mm)
        corners = np.array([[i, j] for i in (0, grid.array.shape[-1] - 1) for j in (0, grid.array.shape[-2] - 1)])

        def places(v: Volume) -> np.ndarray:
            return v.origins_ras[:, None] + corners @ np.stack([v.column_step_ras, v.row_step_ras])

        same = bool(np.abs(places(volume) - places(grid)).max() <= 0.1 * step)
    if not same:
        raise InputError(f"The {what} of '{name}' lies on another grid than its truth; bring both to one grid.")


def read_groups(path: Path) -> dict[str, str]:
    """Case -> group from a CSV with the columns ``id`` and ``group``."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"The list of groups '{path.name}' cannot be read; give a CSV file.") from None
    if not rows or not {"id", "group"} <= set(rows[0]):
        raise InputError(f"The list of groups '{path.name}' lacks the columns 'id' and 'group'; add them.")
    return {row["id"]: row["group"] or "" for row in rows}
