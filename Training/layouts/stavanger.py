"""Layout ``stavanger``: the Stavanger group's folders of colour-coded CT perfusion maps (stroke and disc spec. 1.7).

    Parametric_Maps/CTP_SS_NNN/DATE/{CBF,CBV,TTP,TMAX,MIP}/NN.png   GT_TIFF/CTP_SS_NNN/NN.tiff   nihss_score.csv

SS is the kind of stroke: 00 and 01 large vessel occlusion, 02 without it, 03 no stroke; 20 to 23 are mirrored copies
of these, which stay with their patients. ``--colours keep`` stores the pictures as they are, without the colour bar,
for the published networks; ``--colours numbers`` turns them into numbers by their own bar. The split is the published
one: 33 patients to test, 30 of the others drawn as their code draws them to validate; ``--split`` makes another.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError, NeuraxisError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.colour_scales import STAVANGER_RANGES
from StrokeCTPLib.map_pictures import STAVANGER_SPACING_MM, find_pictures, read_pictures, upright_matrix
from StrokeCTPLib.networks.configurations import MAPS, MIP
from StrokeCTPLib.threshold_rules import CORE, PENUMBRA
from Training.layouts.base import (
    Found,
    LayoutOptions,
    Source,
    existing_folder,
    files_by_id,
    folder_named,
    nothing_found,
)
from Training.layouts.maps_base import numbers_of_patient, stored_numbers
from Training.layouts.table import read_table
from Training.store import StoredCase
from Training.stroke_cache import COLOURS

_PATIENT = re.compile(r"(?:CTP_|PA)?(\d\d)_(\d\d\d)")
#: Kind of stroke -> group; the second digit of mirrored copies is that of their patient.
GROUPS = {"0": "LVO", "1": "LVO", "2": "Non-LVO", "3": "WIS"}
#: Patients that the group tested on.
TEST = (
    "01_001", "01_007", "01_013", "01_019", "01_025", "01_031", "01_037", "01_044", "01_049", "01_053", "01_061",
    "01_067", "01_074", "01_057", "01_059", "01_066", "01_068", "01_071", "01_073", "02_001", "02_007", "02_013",
    "02_019", "02_025", "02_031", "02_036", "02_043", "02_050", "02_055", "02_062", "03_003", "03_010", "03_014",
)  # fmt: skip
#: How many of the others validate, of how many they had.
VALIDATION, OTHERS = 30, 119
#: First column of the colour bar in pictures of 512 columns.
BAR_COLUMN = 435
#: Codes of the ground truth, and how far a pixel may be from one; the mean of two neighbours goes to the lower.
CODES, REACH = (0, 85, 170, 255), 43


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per patient folder of the maps."""
    maps = folder_named(existing_folder(root), ("parametric_maps",))
    truths = folder_named(root, ("gt_tiff", "gt"))
    patients = {path.name: path for path in sorted((maps or root).iterdir()) if _PATIENT.fullmatch(path.name)}
    if not patients:
        raise nothing_found(root, "Parametric_Maps/CTP_SS_NNN/DATE/{CBF,CBV,TTP,TMAX,MIP}/NN.png")
    table = next((path for path in sorted(root.glob("*.csv")) if "nihss" in path.name.lower()), None)
    numbers = _numbers(table) if table else {}
    splits = published_splits({_patient(name) for name in patients})
    found = Found()
    for folder, path in patients.items():
        name = "_".join(_PATIENT.fullmatch(folder).groups())
        files = _files(name, path, truths / folder if truths else None, found)
        if files is not None:
            facts = {"scalars": numbers.get(_patient(folder), {})}
            own = _patient(folder)
            found.sources.append(Source(name, own, GROUPS.get(name[1], ""), splits[own], files, facts))
    return found


def published_splits(patients: Iterable[str]) -> dict[str, str]:
    """Patient -> test, val or train: their fixed test list, then 30 of the others as their code draws them.

    The others are sorted, shuffled after ``random.seed(2)`` and sampled. Of another number of others the share is kept.
    """
    patients = set(patients)
    others, drawn = sorted(patients - set(TEST)), random.Random(2)
    count = round(len(others) * VALIDATION / OTHERS)
    drawn.shuffle(others)
    judged = set(drawn.sample(others, count))
    return {name: "test" if name in TEST else "val" if name in judged else "train" for name in patients}


def _patient(folder: str) -> str:
    """``CTP_21_007`` -> ``01_007``: mirrored copies are scans of the same patient."""
    kind, number = _PATIENT.fullmatch(folder).groups()
    return f"0{kind[1]}_{number}"


def _files(name: str, folder: Path, truth: Path | None, found: Found) -> dict[str, Path | tuple[Path, ...]] | None:
    try:
        maps = find_pictures(folder)
    except NeuraxisError as error:
        found.fault("pairing", f"'{name}': {error}", name)
        return None
    missing = [kind for kind in MAPS if kind not in maps]
    if missing:
        found.fault("pairing", f"'{name}' has no folder {missing[0].upper()}; add it or take the patient away.", name)
        return None
    wanted = [kind for kind in (*MAPS, MIP) if kind in maps]
    slices = {kind: files_by_id(maps[kind], (".png",), found) for kind in wanted}
    masks = {} if truth is None or not truth.is_dir() else files_by_id(truth, (".tiff", ".tif", ".png"), found)
    numbers = {kind: {int(n) for n in files if n.isdigit()} for kind, files in slices.items()}
    if masks:
        numbers["ground truth"] = {int(n) for n in masks if n.isdigit()}
    unlike = next((kind for kind, own in numbers.items() if own != numbers["cbf"]), None)
    if unlike:
        what = unlike.upper() if unlike in MAPS or unlike == MIP else unlike
        text = f"'{name}' has other slices in CBF than in its {what}; add the missing ones or take the patient away."
        found.fault("pairing", text, name)
        return None
    files: dict[str, Path | tuple[Path, ...]] = {kind: tuple(own.values()) for kind, own in slices.items()}
    return files | ({"truth": tuple(masks.values())} if masks else {})


def _numbers(table: Path) -> dict[str, dict[str, float]]:
    """Patient -> numbers of the table; "-" means that nobody knows."""
    known = {}
    for row in read_table(table):
        match = next((m for text in row.values() if (m := _PATIENT.fullmatch(text))), None)
        if match:
            known[_patient(match[0])] = numbers_of_patient(row)
    return known


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one patient."""
    kinds = [kind for kind in (*MAPS, MIP) if kind in source.files]
    spacing = options.spacing_mm or STAVANGER_SPACING_MM
    truth, brain = None, None
    if "truth" in source.files:
        truth, brain = _truth(source)
    scalars = dict(source.facts.get("scalars", {}))
    if options.colours == "numbers":
        folders = {kind: source.files[kind][0].parent for kind in kinds}
        ranges = {kind: high for kind, (_, high) in STAVANGER_RANGES.items()} | dict(options.ranges)
        found = read_pictures(folders, Progress(), ranges, spacing)
        return stored_numbers(source, {one.kind: one.volume for one in found}, truth, scalars, brain)
    stacks = np.stack([_colours(source.files[kind]) for kind in kinds])  # (maps, k, h, w, 3)
    image = Volume(np.moveaxis(stacks, -1, 1).reshape(-1, *stacks.shape[1:4]), upright_matrix(spacing), COLOURS)
    if truth is not None and truth.shape != image.array.shape[1:]:
        raise InputError(f"The ground truth of '{source.id}' and its maps differ in size; export them again.")
    channels = tuple(f"{kind}_{colour}" for kind in kinds for colour in ("red", "green", "blue"))
    return source.stored(image, truth, region=brain, channels=channels, scalars=scalars)


def _truth(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """(labels uint8, brain bool) of the ground truth; a pixel within 43 of a code is that code."""
    grey = np.stack([_grey(path) for path in source.files["truth"]])
    distance = np.abs(grey[..., None].astype(np.int16) - np.array(CODES))
    code = np.where(distance.min(axis=-1) <= REACH, distance.argmin(axis=-1), 0)
    return np.array([0, 0, PENUMBRA, CORE], np.uint8)[code], code > 0


def _grey(path: Path) -> np.ndarray:
    """(rows, columns) of 0 to 255, of 8 bits or of 16, whose upper half counts."""
    array = _opened(path)
    if array.ndim == 3:
        array = array[..., 0]
    return (array >> 8).astype(np.uint8) if array.dtype == np.uint16 else array.astype(np.uint8)


def _colours(paths: tuple[Path, ...]) -> np.ndarray:
    """(k, h, w, 3) uint8 red, green and blue, without the colour bar."""
    stack = np.stack([a if (a := _opened(path)).ndim == 3 else np.repeat(a[..., None], 3, -1) for path in paths])
    if stack.dtype != np.uint8 or stack.shape[-1] < 3:
        raise InputError(f"'{paths[0].name}' has not 8 bits for each colour; export the maps again.")
    stack = stack[..., :3].copy()
    if stack.shape[2] == 512:
        stack[:, :, BAR_COLUMN:] = 0
    return stack


def _opened(path: Path) -> np.ndarray:
    import SimpleITK as sitk

    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        raise InputError(f"'{path.name}' is no picture or is damaged; copy or export it again.") from None
