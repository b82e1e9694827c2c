"""Layout ``hemseg``: the tree of HemSeg-200 and HemSeg-500, ``{train,val,test}/{image,label}/SCAN.nii.gz``.

Image and mask are paired by name, never by their place in a sorted list, so that a missing file cannot shift the rest.
Who was scanned comes from the jsonl list of the release, the kind of bleed (0 IPH, 1 IVH) and the newer split from its
CSV lists ``train_set.csv`` ..., both looked for beside the tree or named.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from NeuraxisLib.errors import InputError
from Training.layouts.base import (
    SPLITS,
    Found,
    LayoutOptions,
    Source,
    existing_folder,
    folder_named,
    nothing_found,
    pair,
    volumes_by_id,
)
from Training.layouts.grids import facts_of, read_image, read_mask
from Training.layouts.table import read_table
from Training.store import StoredCase

GROUPS = {"0": "IPH", "1": "IVH"}
_IMAGES, _MASKS = ("image", "images"), ("label", "labels", "mask", "masks")


@dataclass(frozen=True)
class Annotation:
    """A line of the jsonl list: scan, patient and its images' SOP ids without ``ID_``, in no spatial order."""

    scan: str
    patient: str
    sops: tuple[str, ...]


def read_annotations(path: Path) -> dict[str, Annotation]:
    """scan -> its line, from the list of either release.

    HemSeg-200: ``patient``, ``scan_`` and a list; HemSeg-500: ``patient_name``, ``scan_name`` and a dict by number.

    Raises:
        InputError: a line is neither.
    """
    found = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"The list '{path.name}' cannot be read; check its name.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            scan = data["scan_name"] if "scan_name" in data else data["scan_"]
            patient = data["patient_name"] if "patient_name" in data else data["patient"]
            slices = data["slice_list"]
            slices = list(slices.values()) if isinstance(slices, dict) else list(slices)
            found[str(scan)] = Annotation(str(scan), str(patient), tuple(str(s).removeprefix("ID_") for s in slices))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            text = f"Line {number} of '{path.name}' is no scan of HemSeg; it needs a patient, a scan and a slice_list."
            raise InputError(text) from None
    return found


def annotations_of(root: Path, options: LayoutOptions, found: Found) -> dict[str, Annotation]:
    """The annotations that were named, or the one jsonl list beside the data; empty, with a warning, without one."""
    if options.annotations is not None:
        return read_annotations(options.annotations)
    lists = sorted(root.glob("*.jsonl"))
    if len(lists) == 1:
        return read_annotations(lists[0])
    what = "Several jsonl lists lie" if lists else "No jsonl list lies"
    found.warn("patient", f"{what} beside the data, so each scan counts as a patient of its own; name one with "
               "--annotations.")  # fmt: skip
    return {}


def read_lists(root: Path, options: LayoutOptions, found: Found) -> dict[str, tuple[str, str]]:
    """scan -> (split, group) from the CSV lists; a scan that two lists name is a fault."""
    paths = options.lists or tuple(sorted(root.glob("*_set.csv")))
    listed: dict[str, tuple[str, str]] = {}
    for path in paths:
        split = split_of_list(path)
        for row in read_table(path, ("filename",)):
            scan = re.sub(r"\.nii(\.gz)?$", "", row["filename"])
            if scan in listed and listed[scan][0] != split:
                found.fault("leak", f"'{scan}' is in the lists of {listed[scan][0]} and of {split}; keep one.", scan)
            listed[scan] = split, GROUPS.get(row.get("label", ""), row.get("label", ""))
    return listed


def split_of_list(path: Path) -> str:
    """``train_set.csv`` -> ``train``; ``dev`` and ``valid`` are ``val``."""
    word = re.split(r"[^a-z0-9]+", path.stem.lower())[0]
    return {"dev": "val", "valid": "val", "validation": "val", "testing": "test", "training": "train"}.get(word, word)


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per scan."""
    found = Found()
    parts = {split: folder_named(existing_folder(root), (split,)) for split in SPLITS}
    parts = {split: folder for split, folder in parts.items() if folder} or {"": root}
    seen: dict[str, Source] = {}
    for split, folder in parts.items():
        images, masks = folder_named(folder, _IMAGES), folder_named(folder, _MASKS)
        if images is None or masks is None:
            raise nothing_found(root, "train, val and test, each with image/*.nii.gz and label/*.nii.gz")
        files = volumes_by_id(images, found), volumes_by_id(masks, found)
        for scan in pair(*files, found):
            if scan in seen:
                text = f"'{scan}' lies in the folders of {seen[scan].split} and of {split}; keep one of them."
                found.fault("double", text, scan)
                continue
            seen[scan] = Source(scan, scan, "", split, {"image": files[0][scan], "truth": files[1][scan]})
    found.sources = annotate(root, list(seen.values()), options, found)
    return found


def annotate(root: Path, sources: list[Source], options: LayoutOptions, found: Found) -> list[Source]:
    """The cases with patient, group and split from the lists of the release; what contradicts them is reported."""
    annotations, listed = annotations_of(root, options, found), read_lists(root, options, found)
    known = {source.id for source in sources}
    moved, result = [], []
    for source in sources:
        line = annotations.get(source.id)
        if line is not None:
            source = replace(source, patient=line.patient)
        elif annotations:
            found.warn(
                "patient", f"'{source.id}' is not in the jsonl list; it counts as a patient of its own.", source.id
            )
        if source.id in listed:
            split, group = listed[source.id]
            if source.split and split != source.split:
                moved.append(source.id)
            source = replace(source, split=split, group=group)
        elif listed:
            found.warn("split", f"'{source.id}' is in no list; it stays in '{source.split}'.", source.id)
        result.append(source)
    if moved:
        found.warn("split", f"{len(moved)} scans lie in another folder than their list says, as where the two releases "
                   "were mixed; the lists were followed.", *moved)  # fmt: skip
    absent = [scan for scan in listed if scan not in known]
    if absent:
        found.warn("pairing", f"{len(absent)} listed scans are not there; add them or go on without.", *absent)
    return result


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one scan and its mask."""
    image = read_image(source.files["image"], options)
    truth, warnings = read_mask(source.files["truth"], image, options)
    return source.stored(image, truth, provenance=facts_of(image), warnings=warnings)
