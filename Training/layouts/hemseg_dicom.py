"""Layout ``hemseg-dicom``: HemSeg's scans out of the RSNA images, ``ID_<sop>.dcm``, as its jsonl list selects them.

``root`` is the folder of DICOM files (or several below it); the list is named by ``--annotations``, the masks
(``{train,val,test}/label/SCAN.nii.gz``, or one folder of them) by ``--truth``. The order of the list is that of its
running number as text (0, 1, 10, 11, ...), so slices are sorted by their position. A list of several series is
resolved by the mask: the series with as many slices, and if several have, the one that lies where the mask does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from NeuraxisLib.dicom import list_series, read_series
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.volume import Volume
from Training.layouts.base import (
    SPLITS,
    Found,
    LayoutOptions,
    Source,
    existing_folder,
    folder_named,
    nothing_found,
    volumes_by_id,
)
from Training.layouts.grids import facts_of, labels_of, onto_grid
from Training.layouts.hemseg import annotate, read_annotations
from Training.store import StoredCase


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per line of the list that has a mask, or per line if no masks were named."""
    found = Found()
    if options.annotations is None:
        raise InputError("The layout hemseg-dicom needs the release's jsonl list; name it with --annotations.")
    annotations = read_annotations(options.annotations)
    masks = _masks(options.truth, found) if options.truth else {}
    index = _Index(existing_folder(root))
    sources = []
    for scan in masks:
        if scan not in annotations:
            found.fault("pairing", f"The mask '{scan}' is not in the jsonl list; name the list of its release.", scan)
    unmasked = [scan for scan in annotations if masks and scan not in masks]
    if unmasked:
        found.warn("pairing", f"{len(unmasked)} listed scans have no mask and were left out.", *unmasked)
    for scan, line in annotations.items():
        if scan in unmasked:
            continue
        files = [index.find(sop) for sop in line.sops]
        missing = files.count(None)
        if missing:
            text = f"{missing} of the {len(files)} images of '{scan}' are not there; download them again."
            found.fault("pairing", text, scan)
            continue
        split, mask = masks.get(scan, ("", None))
        roles = {"image": tuple(files)} | ({"truth": mask} if mask else {})
        sources.append(Source(scan, line.patient, "", split, roles))
    if not annotations:
        raise nothing_found(root, "ID_<sop>.dcm files that the jsonl list names")
    found.sources = annotate(options.annotations.parent, sources, options, found)
    return found


def _masks(folder: Path, found: Found) -> dict[str, tuple[str, Path]]:
    """scan -> (split, mask)."""
    parts = {split: folder_named(existing_folder(folder), (split,)) for split in SPLITS}
    parts = {split: part for split, part in parts.items() if part} or {"": folder}
    masks: dict[str, tuple[str, Path]] = {}
    for split, part in parts.items():
        for scan, path in volumes_by_id(folder_named(part, ("label", "labels", "mask")) or part, found).items():
            if scan in masks:
                found.fault("double", f"The mask '{scan}' lies in {masks[scan][0]} and in {split}; keep one.", scan)
            masks.setdefault(scan, (split, path))
    return masks


class _Index:
    """Finds ``ID_<sop>.dcm`` by name: in the folder itself, else below it, which is searched once."""

    def __init__(self, root: Path):
        self.root = root
        self._below: dict[str, Path] | None = None

    def find(self, sop: str) -> Path | None:
        direct = self.root / f"ID_{sop}.dcm"
        if direct.is_file():
            return direct
        if self._below is None:
            self._below = {path.stem.removeprefix("ID_"): path for path in sorted(self.root.rglob("*.dcm"))}
        return self._below.get(sop)


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one scan by our own DICOM reader, and its mask onto it."""
    with together(source.files["image"]) as folder:
        if "truth" not in source.files:
            image = read_series(folder)
            return source.stored(image, None, provenance=facts_of(image))
        mask = read_volume(source.files["truth"])
        image = _series_of_mask(folder, mask)
    array, warnings = onto_grid(mask, image, same_slices=True)
    return source.stored(image, labels_of(array, options), provenance=facts_of(image), warnings=warnings)


def _series_of_mask(folder: Path, mask: Volume) -> Volume:
    """The series that the mask was drawn on; InputError if none has as many slices."""
    series = [info for info in list_series(folder) if info.excluded in ("", "localizer")]
    slices = mask.array.shape[0]
    fitting = [info.key for info in series if info.slices == slices]
    if not fitting:
        counts = ", ".join(str(info.slices) for info in series) or "none"
        raise InputError(f"The mask has {slices} slices, but the listed series have {counts}; check the lists.")
    volumes = [read_series(folder, key) for key in fitting]
    return min(volumes, key=lambda volume: _distance_mm(mask, volume))


def _distance_mm(mask: Volume, image: Volume) -> float:
    """How far the middles of two grids lie apart; more than anything where they cannot be compared."""
    try:
        middles = [
            one.origins_ras.mean(axis=0)
            + one.column_step_ras * (one.array.shape[2] - 1) / 2
            + one.row_step_ras * (one.array.shape[1] - 1) / 2
            for one in (mask.axial()[0], image.axial()[0])
        ]
    except GeometryError:
        return float("inf")
    return float(np.linalg.norm(middles[0] - middles[1]))


@contextmanager
def together(paths: tuple[Path, ...]) -> Iterator[Path]:
    """A temporary folder in which just these files lie: linked where the system lets us, else copied."""
    with tempfile.TemporaryDirectory(prefix="neuraxis-") as name:
        folder = Path(name)
        for path in paths:
            try:
                os.symlink(path.resolve(), folder / path.name)
            except (OSError, NotImplementedError):
                shutil.copyfile(path, folder / path.name)
        yield folder
