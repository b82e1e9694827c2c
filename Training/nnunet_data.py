"""A store as nnU-Net's raw data set: axial stacks as NRRD, numbered, with the store's splits as nnU-Net's folds."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.nnunet_inference import stack_of
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from Training.store import IGNORED, CaseInfo, Store, StoredCase

#: Name of the images' channel: nnU-Net normalises "CT" by the intensities of all lesions, any other by the image's own.
CHANNELS = {"HU": "CT", "grey": "picture"}
ENDING = ".nrrd"
_FOLD = re.compile(r"fold(\d+)")


@dataclass(frozen=True)
class Workplace:
    """The folder in which nnU-Net works, with its three folders and our data set in them.

    Attributes:
        folder: holds ``raw``, ``preprocessed`` and ``results``.
        number: nnU-Net's id of the data set, 1 to 999.
    """

    folder: Path
    number: int = 501

    @property
    def dataset(self) -> str:
        """Name of the data set as nnU-Net writes it."""
        return f"Dataset{self.number:03d}_Neuraxis"

    @property
    def raw(self) -> Path:
        """The data set as it is exported."""
        return self.folder / "raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        """What nnU-Net makes of it, and the folds."""
        return self.folder / "preprocessed" / self.dataset

    def trained(self, configuration: str, trainer: str) -> Path:
        """The folder that training writes."""
        return self.folder / "results" / self.dataset / f"{trainer}__nnUNetPlans__{configuration}"


def export_store(
    store: Store, place: Workplace, label: str, train: list[str], val: list[str], progress: Progress
) -> int:
    """Write the outlined cases of a store as nnU-Net's raw data set; returns how many.

    Files are called ``case_0001`` and so on; ``cases.csv`` beside them says which case of the store each is, and never
    leaves this folder. ``dataset.json`` is written last: without it nnU-Net finds no data set.

    Args:
        store: the cases. Every value of their truth is the one label; :data:`~Training.store.IGNORED` stays ignored.
        place: where.
        label: name of the structure.
        train, val: splits to train on and to validate by; splits named ``fold0``, ``fold1`` ... in ``train`` and none
            in ``val`` make a cross-validation.
        progress: told after every case.

    Raises:
        InputError: no outlined cases in a split, CT and pictures mixed, or the folder holds a data set already.
        OutputError: a file cannot be written.
    """
    folds = _folds(store, train, val)
    chosen = [info for info in store if any(info.id in names for fold in folds for names in fold.values())]
    channel = _channel(chosen)
    if (place.raw / "dataset.json").exists():
        raise InputError(f"The folder '{place.folder.name}' holds a data set already; choose another or delete it.")
    for folder in (place.raw / "imagesTr", place.raw / "labelsTr", place.preprocessed):
        folder.mkdir(parents=True, exist_ok=True)
    numbered, ignoring = {}, False
    for number, info in enumerate(chosen, 1):
        progress((number - 1) / len(chosen), f"Exporting case {number} of {len(chosen)}")
        numbered[info.id] = f"case_{number:04d}"
        ignoring |= _write_case(store.case(info.id), place.raw, numbered[info.id])
    _write_folds(place.preprocessed / "splits_final.json", folds, numbered)
    with atomic_write(place.raw / "cases.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("name", "case"), *((name, case) for case, name in numbered.items())])
    description = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, label: 1, **({"ignore": 2} if ignoring else {})},
        "numTraining": len(chosen),
        "file_ending": ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    _write_json(place.raw / "dataset.json", description)
    progress(1.0, "Exported")
    return len(chosen)


def _folds(store: Store, train: list[str], val: list[str]) -> list[dict[str, list[str]]]:
    """nnU-Net's folds, as cases of the store: one of train and val, or one for each split named as a fold."""
    if val or not all(_FOLD.fullmatch(split) for split in train):
        pairs = [(train, val)]
    else:
        ordered = sorted(train, key=lambda split: int(_FOLD.fullmatch(split)[1]))
        pairs = [([other for other in ordered if other != split], [split]) for split in ordered]
    folds = []
    for splits in pairs:
        fold = {}
        for use, names in zip(("train", "val"), splits):
            if not names:
                raise InputError(f"No split to {use} by is named; name one of the store's, or fold0, fold1 and so on.")
            fold[use] = [case for case in store.of_split(*names) if store.info(case).has_truth]
            if not fold[use]:
                raise InputError(f"No case of the split '{names[0]}' has an outline; choose another split.")
        folds.append(fold)
    return folds


def _channel(infos: list[CaseInfo]) -> str:
    units = sorted({info.unit for info in infos})
    if len(units) > 1:
        raise InputError(f"The store mixes images in {' and '.join(units)}; export one kind at a time.")
    return CHANNELS.get(units[0], "image")


def _write_case(case: StoredCase, folder: Path, name: str) -> bool:
    """Write image and label of a case; returns whether some of it is to be ignored.

    The stacks are written upright at the origin: nnU-Net asks for their spacing alone.
    """
    axial, order = case.image.axial()
    image, spacing = stack_of(axial)
    marked = np.where(case.truth == IGNORED, 2, case.truth > 0).astype(np.uint8)
    label, _ = stack_of(axial.like(order.apply_array(marked)))
    matrix = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    write_volume(Volume(image, matrix), folder / "imagesTr" / f"{name}_0000{ENDING}", compress=True)
    write_volume(Volume(label, matrix), folder / "labelsTr" / f"{name}{ENDING}", compress=True)
    return bool((label == 2).any())


def _write_folds(path: Path, folds: list[dict[str, list[str]]], numbered: dict[str, str]) -> None:
    _write_json(path, [{use: [numbered[case] for case in cases] for use, cases in fold.items()} for fold in folds])


def _write_json(path: Path, content: object) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
