"""Layout ``slexnet-png``: SLEX-Net's picture folders, ``brain/PATIENT/0.png ...`` and ``label/PATIENT/0.png ...``.

``image`` or ``images`` may stand for ``brain`` and ``mask`` for ``label``; a folder that holds patients only has images
without masks. Slices are put in the order of their numbers, all of them: the released converter leaves out the last
four of every patient. Published split: first 180, next 20, last 50 (``--split train=180,val=20,test=50``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from Training.layouts.base import (
    Found,
    LayoutOptions,
    Source,
    existing_folder,
    files_by_id,
    folder_named,
    natural,
    nothing_found,
    pair,
    stem,
)  # fmt: skip
from Training.layouts.pictures import ENDINGS, marked, picture_volume, read_picture
from Training.store import StoredCase

_IMAGES, _MASKS = ("brain", "image", "images"), ("label", "labels", "mask", "masks")


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per patient folder."""
    found = Found()
    images = folder_named(existing_folder(root), _IMAGES)
    masks = folder_named(root, _MASKS)
    patients = _folders(images or root)
    if not patients:
        raise nothing_found(root, "brain/PATIENT/0.png, 1.png ... and label/PATIENT/0.png ...")
    names = list(patients)
    if masks is not None:
        names = pair(patients, _folders(masks), found, "mask folder")
    for name in names:
        source = _source(name, patients[name], masks / name if masks else None, found)
        if source is not None:
            found.sources.append(source)
    return found


def _folders(folder: Path) -> dict[str, Path]:
    found = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: natural(path.name))
    return {path.name: path for path in found if not path.name.startswith(".")}


def _source(name: str, images: Path, masks: Path | None, found: Found) -> Source | None:
    before = len(found.findings)
    slices = _numbered(name, files_by_id(images, ENDINGS, found), found)
    files = {"image": tuple(slices.values())}
    if masks is not None:
        drawn = _numbered(name, files_by_id(masks, ENDINGS, found), found)
        for what, one, other in (("mask", slices, drawn), ("image", drawn, slices)):
            lacking = sorted(set(one) - set(other))
            if lacking:
                numbers = ", ".join(str(number) for number in lacking[:8]) + (" ..." if len(lacking) > 8 else "")
                found.fault("pairing", f"'{name}' has no {what} of slice {numbers}; add what is missing.", name)
        files["truth"] = tuple(drawn.values())
    return Source(name, name, files=files) if len(found.findings) == before else None


def _numbered(name: str, files: dict[str, Path], found: Found) -> dict[int, Path]:
    """Slice number -> file, in order; names that are no numbers, and holes, are faults."""
    odd = [path.name for word, path in files.items() if not word.isdigit()]
    if odd or not files:
        what = f"'{odd[0]}' is not named by a number" if odd else "there are no pictures"
        text = f"The slices of '{name}' cannot be put in order: {what}; name them 0.png, 1.png ..."
        found.fault("pairing", text, name)
        return {}
    numbers = {int(word): path for word, path in files.items()}
    numbers = dict(sorted(numbers.items()))
    missing = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers))
    if missing:
        found.fault("geometry", f"'{name}' has no slice {missing[0]} between others; add it or part the patient.", name)
    return numbers


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one patient's slices as one volume."""
    image = stack(source.files["image"])
    volume, flags = picture_volume(image, options)
    truth, warnings = None, []
    if "truth" in source.files:
        drawn = stack(source.files["truth"])
        if drawn.shape != image.shape:
            raise GeometryError("The masks do not have the size of their pictures; export both in one size.")
        truth, warnings = marked(drawn, source.id)
    facts = {"format": "pictures", "first_slice": int(stem(source.files["image"][0]))}
    return source.stored(volume, truth, flags, facts, warnings)


def stack(paths: tuple[Path, ...]) -> np.ndarray:
    """Pictures of one size as (k, j, i) in the order given; InputError if sizes differ."""
    slices = [read_picture(path) for path in paths]
    if len({one.shape for one in slices}) > 1:
        odd = next(path for path, one in zip(paths, slices) if one.shape != slices[0].shape)
        raise InputError(f"Its slices differ in size ('{odd.name}' from '{paths[0].name}'); export them in one size.")
    return np.stack(slices)
