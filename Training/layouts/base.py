"""What the adapters of all layouts share: what they yield, pairing by name, and the words for what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import READABLE
from NeuraxisLib.volume import Volume
from Training.store import StoredCase

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the data must know.

    Attributes:
        kind: short and stable, for scripts: ``"pairing"``, ``"geometry"``, ``"leak"`` ...
        text: one sentence; names cases, never patients or folders.
        cases: the cases it is about.
        fault: True if the data cannot be used as they are, False for a warning.
    """

    kind: str
    text: str
    cases: tuple[str, ...] = ()
    fault: bool = True

    def to_dict(self) -> dict:
        """For the JSON report."""
        return {"kind": self.kind, "fault": self.fault, "text": self.text, "cases": list(self.cases)}


@dataclass(frozen=True)
class Source:
    """A case that was found, not read yet. ``files`` maps roles (image, truth ...) to paths, or to tuples of them.

    ``facts`` is what the adapter's ``read`` needs beside files, in types that JSON knows.
    """

    id: str
    patient: str
    group: str = ""
    split: str = ""
    files: Mapping[str, Path | tuple[Path, ...]] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def stored(
        self,
        image: Volume,
        truth: np.ndarray | None,
        flags: tuple[str, ...] = (),
        provenance: dict | None = None,
        warnings: list[str] | None = None,
        **more: object,
    ) -> StoredCase:
        """The case with its arrays; warnings of reading it go into the provenance; ``more`` are further fields."""
        facts = dict(provenance or {})
        if warnings:
            facts["warnings"] = [*facts.get("warnings", []), *warnings]
        names = (self.id, self.patient, self.group, self.split)
        return StoredCase(*names, image, truth, flags=(*self.flags, *flags), provenance=facts, **more)

    def paths(self) -> list[Path]:
        """All files of the case."""
        found = self.files.values()
        return [path for value in found for path in ((value,) if isinstance(value, Path) else value)]


@dataclass
class Found:
    """The cases of a layout, and what pairing them brought to light."""

    sources: list[Source] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def fault(self, kind: str, text: str, *cases: str) -> None:
        """Add a fault."""
        self.findings.append(Finding(kind, text, cases))

    def warn(self, kind: str, text: str, *cases: str) -> None:
        """Add a warning."""
        self.findings.append(Finding(kind, text, cases, fault=False))


@dataclass(frozen=True)
class LayoutOptions:
    """What a user says of a data set; every adapter takes what it needs.

    Attributes:
        spacing_mm: (column, row, slice) of pictures, which do not say; None leaves it unknown.
        unit: ``"HU"``, ``"grey"``, or ``"auto"``: HU where the values look like a CT, else empty.
        truth: folder of the masks where they lie apart from the images (hemseg-dicom).
        annotations: HemSeg's jsonl list of scans and patients.
        lists: CSV lists of the cases of each split; the split is the first word of the file's name.
        patients: CSV with columns ``id,patient`` for layouts that do not say who was scanned.
        binary: every marked voxel counts as label 1, whatever its value.
        ignored: value of the masks that means "nobody knows".
        image_suffix, mask_filter: which of several images and masks of a BIDS subject to take.
        colours: ``"keep"`` stores maps in colours as pictures, ``"numbers"`` reads them by their colour bar.
        ranges: (map, value at the upper end of its colour bar) pairs.
        disc_points: where single-voxel disc labels lie: ``"posterior"``, at the back edge, or ``"centre"``.
    """

    spacing_mm: tuple[float, float, float] | None = None
    unit: str = "auto"
    truth: Path | None = None
    annotations: Path | None = None
    lists: tuple[Path, ...] = ()
    patients: Path | None = None
    binary: bool = False
    ignored: int | None = None
    image_suffix: str = ""
    mask_filter: str = ""
    colours: str = "keep"
    ranges: tuple[tuple[str, float], ...] = ()
    disc_points: str = "posterior"


def natural(text: str) -> list:
    """Sorting key that puts ``slice_10`` behind ``slice_9``."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", text) if part]


def stem(path: Path) -> str:
    """The file's name without its ending; ``.nii.gz`` is one ending."""
    name = path.name
    for ending in (".nii.gz", ".seg.nrrd", path.suffix):
        if ending and name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def folder_named(root: Path, names: Iterable[str]) -> Path | None:
    """The subfolder with one of these names, in any case; None if there is none."""
    if not root.is_dir():
        return None
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def files_by_id(
    folder: Path, endings: tuple[str, ...], found: Found, id_of: Callable[[Path], str] = stem
) -> dict[str, Path]:
    """id -> file for every file of a folder with one of these endings, in natural order; double ids are faults."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
        if path.name.startswith(".") or not path.name.lower().endswith(endings) or not path.is_file():
            continue
        name = id_of(path)
        if name in files:
            found.fault("double", f"'{files[name].name}' and '{path.name}' have one name; keep one of them.", name)
        files.setdefault(name, path)
    return files


def volumes_by_id(folder: Path, found: Found) -> dict[str, Path]:
    """id -> volume file of a folder."""
    return files_by_id(folder, READABLE, found)


def pair(images: Mapping[str, Path], masks: Mapping[str, Path], found: Found, what: str = "mask") -> list[str]:
    """Names that have both an image and a mask; every other name is a fault of its own."""
    for name in images:
        if name not in masks:
            found.fault("pairing", f"'{name}' has an image but no {what}; add it or take the image away.", name)
    for name in masks:
        if name not in images:
            found.fault("pairing", f"'{name}' has a {what} but no image; add it or take the {what} away.", name)
    return [name for name in images if name in masks]


def existing_folder(root: Path) -> Path:
    """The folder; InputError if it is not there."""
    if not root.is_dir():
        raise InputError(f"The folder '{root.name}' was not found; check the name.")
    return root


def nothing_found(root: Path, wanted: str) -> InputError:
    """The error of a folder that does not have its layout's form."""
    return InputError(f"'{root.name}' does not have the layout that was named: {wanted}; choose another with --layout.")
