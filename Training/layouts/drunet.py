"""Layout ``drunet``: DR-UNet's slices, ``images/N.png`` and ``masks/N.png``, also below ``train``, ``val``, ``test``.

Each picture is one slice and one case. Names must be whole numbers, as in the released code; files called PNG that are
JPEG are read as what they are. Which slices show one patient the pictures do not say: give a table with ``--patients``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from NeuraxisLib.errors import GeometryError
from Training.layouts.base import (
    SPLITS,
    Found,
    LayoutOptions,
    Source,
    existing_folder,
    files_by_id,
    folder_named,
    nothing_found,
    pair,
    stem,
)  # fmt: skip
from Training.layouts.pictures import ENDINGS, marked, picture_volume, read_picture
from Training.layouts.table import read_table
from Training.store import StoredCase

_IMAGES = ("images", "image", "imgs", "img", "test_images")
_MASKS = ("masks", "mask", "labels", "label")
PATIENT_UNKNOWN = "patient unknown"


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per picture."""
    found = Found()
    parts = {split: folder_named(existing_folder(root), (split,)) for split in SPLITS}
    parts = {split: folder for split, folder in parts.items() if folder} or {"": root}
    patients = _patients(options.patients, found)
    for split, folder in parts.items():
        images, masks = folder_named(folder, _IMAGES), folder_named(folder, _MASKS)
        if images is None:
            raise nothing_found(root, "images/1.png, 2.png ... and masks/1.png, 2.png ...")
        _add(found, split, files_by_id(images, ENDINGS, found), masks, patients)
    if not patients and found.sources:
        found.warn("patient", "The pictures do not say whose they are, so one patient may lie in two splits; "
                   "give a table of picture and patient with --patients.")  # fmt: skip
    return found


def _patients(path: Path | None, found: Found) -> dict[str, str]:
    if path is None:
        return {}
    return {row["id"]: row["patient"] for row in read_table(path, ("id", "patient"))}


def _add(found: Found, split: str, images: dict[str, Path], masks: Path | None, patients: dict[str, str]) -> None:
    for word, path in images.items():
        if not word.isdigit():
            found.fault("pairing", f"'{path.name}' is not named by a whole number, as this layout's are.", word)
    images = {word: path for word, path in images.items() if word.isdigit()}
    drawn = files_by_id(masks, ENDINGS, found) if masks else {}
    for word in pair(images, drawn, found) if masks else images:
        name = f"{split}/{word}" if split else word
        files = {"image": images[word]} | ({"truth": drawn[word]} if masks else {})
        known = patients.get(word)
        if patients and not known:
            found.fault("patient", f"'{name}' is not in the table of patients; add it.", name)
            continue
        flags = () if known else (PATIENT_UNKNOWN,)
        found.sources.append(Source(name, known or name, "", split, files, flags=flags))


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one slice as a volume of one slice, in the size in which it was saved."""
    image = read_picture(source.files["image"])
    volume, flags = picture_volume(image[None], options)
    truth, warnings = None, []
    if "truth" in source.files:
        drawn = read_picture(source.files["truth"])
        if drawn.shape != image.shape:
            raise GeometryError("The mask does not have the size of its picture; export both in one size.")
        truth, warnings = marked(np.asarray(drawn)[None], source.id)
    facts = {"format": "picture", "number": int(stem(source.files["image"]))}
    return source.stored(volume, truth, flags, facts, warnings)
