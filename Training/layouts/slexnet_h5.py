"""Layout ``slexnet-h5``: SLEX-Net's stacks, ``data_train|data_val|data_test/SUBJECT_SLICE.h5``.

Every file holds ``subject``, ``slice`` (slice numbers), and ``data`` and ``label``, uint8 (rows, columns, slices), of a
few consecutive slices; neighbouring files repeat each other's. They are put together again into one volume per run of
consecutive slices, after a check that repeated slices are equal. Subjects are numbered from 0 in each run of the
converter, so that subject 3 of the training and of the test folder are different people.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np

from NeuraxisLib.errors import InputError
from Training.layouts.base import Found, LayoutOptions, Source, existing_folder, natural, nothing_found
from Training.layouts.pictures import marked, picture_volume
from Training.store import StoredCase

_FOLDERS = {"data_train": "train", "data_val": "val", "data_test": "test"}


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per subject and run of consecutive slices; only the slice numbers are read."""
    found = Found()
    folders = {path: _FOLDERS.get(path.name.lower(), "") for path in sorted(existing_folder(root).iterdir())}
    folders = {path: split for path, split in folders.items() if split} or {root: ""}
    for folder, split in folders.items():
        by_subject: dict[int, list[tuple[Path, list[int]]]] = defaultdict(list)
        for path in sorted(folder.glob("*.h5"), key=lambda path: natural(path.name)):
            try:
                subject, numbers = _head(path)
            except InputError as error:
                found.fault("damaged", str(error), path.stem)
                continue
            by_subject[subject].append((path, numbers))
        for subject, stacks in by_subject.items():
            found.sources += _sources(subject, split, stacks)
    if not found.sources and not found.findings:
        raise nothing_found(root, "data_train, data_val and data_test with SUBJECT_SLICE.h5")
    return found


def _head(path: Path) -> tuple[int, list[int]]:
    try:
        with h5py.File(path, "r") as file:
            numbers = [int(number) for number in np.atleast_1d(file["slice"][()])]
            subject = int(np.ravel(file["subject"][()])[0])
            shapes = file["data"].shape, file["label"].shape
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError):
        raise InputError(f"'{path.name}' is not a stack of SLEX-Net or is damaged; make it again.") from None
    if shapes[0] != shapes[1] or len(shapes[0]) != 3 or shapes[0][2] != len(numbers):
        raise InputError(f"'{path.name}' has data, labels and slice numbers of different sizes; make it again.")
    return subject, numbers


def _sources(subject: int, split: str, stacks: list[tuple[Path, list[int]]]) -> list[Source]:
    """A case for each run of consecutive slices of a subject."""
    numbers = sorted({number for _, own in stacks for number in own})
    cuts = [at for at in range(1, len(numbers)) if numbers[at] != numbers[at - 1] + 1]
    runs = [numbers[a:b] for a, b in zip([0, *cuts], [*cuts, len(numbers)])]
    patient = f"{split}/{subject}" if split else str(subject)
    sources = []
    for run in runs:
        files = tuple(path for path, own in stacks if set(own) & set(run))
        name = patient if len(runs) == 1 else f"{patient}/{run[0]}-{run[-1]}"
        sources.append(Source(name, patient, "", split, {"image": files}, {"first": run[0], "last": run[-1]}))
    return sources


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Put the stacks of a run of slices together; InputError if they contradict each other."""
    images: dict[int, np.ndarray] = {}
    masks: dict[int, np.ndarray] = {}
    first, last = int(source.facts["first"]), int(source.facts["last"])
    for path in source.files["image"]:
        _, numbers = _head(path)
        with h5py.File(path, "r") as file:
            data, label = file["data"][()], file["label"][()]
        for at, number in enumerate(numbers):
            for known, new in ((images, data[..., at]), (masks, label[..., at])):
                if number in known and not np.array_equal(known[number], new):
                    raise InputError(f"Slice {number} differs between its stacks ('{path.name}'); make them again.")
                known[number] = new
    order = range(first, last + 1)
    if len({image.shape for image in images.values()}) > 1:
        raise InputError("Its stacks differ in size; make them again in one size.")
    truth, warnings = marked(np.stack([masks[number] for number in order]), source.id)
    volume, flags = picture_volume(np.stack([images[number] for number in order]), options)
    return source.stored(volume, truth, flags, {"format": "SLEX-Net stacks", "first_slice": first}, warnings)
