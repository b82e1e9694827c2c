"""Disc labels as other programs take them: a point list, CSV, a NIfTI of single voxels, a BIDS derivative.

The NIfTI follows the Spinal Cord Toolbox: one voxel per disc with the disc's number (2 = C1/C2, 3 = C2/C3 ... 25 =
L5/S1) on the grid of the image, everything else 0. Two things to know:

- The toolbox's own labels lie at the back edge of the disc, beside the canal; ours lie at its centre, unless asked to
  be moved back. The sidecar says which.
- The toolbox calls an orientation "RPI" by where its axes start (right, posterior, inferior), which nibabel and ITK
  name by where they lead, "LAS". Nothing is reoriented here: voxels go into the stored grid by its matrix, so that
  label and image agree in any program and any naming.

A sixth lumbar vertebra has no number in the toolbox: L5/L6 becomes 25 and L6/S1 26, which it reads as L5/S1 and S1/S2.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from NeuraxisLib import __version__
from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import GeometryError, InputError, OutputError, check_choice
from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Landmark
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.result_text import markups
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.anatomy import number_of
from SpineDiscLabelLib.discs import LAST_DISC
from SpineDiscLabelLib.naming import NamedDisc

CSV_HEADS = ("disc", "name", "R_mm", "A_mm", "S_mm", "confidence")
BIDS_VERSION = "1.9.0"
#: What can be written into one file -> its endings.
FILE_FORMATS = {"points": (".mrk.json",), "csv": (".csv",), "sct": (".nii.gz", ".nii")}
BIDS = "bids"
_ENTITY = re.compile(r"[A-Za-z0-9]+")


def named_discs(points: Sequence[Landmark]) -> list[NamedDisc]:
    """Points as discs, in their order. Raises OutputError if there is none, InputError if a name is no disc's."""
    if not points:
        raise OutputError("There is no disc to export; add one first.")
    discs = []
    for index, point in enumerate(points):
        number = number_of(point.name)
        if number is None:
            raise InputError(f"'{point.name}' is the name of no disc; choose a result of the disc task.")
        place, sure = np.array(point.position_ras_mm, float), point.confidence
        discs.append(NamedDisc(number, point.name, place, 0.0 if sure is None else sure, index))
    return discs


def write_discs(points: Sequence[Landmark], grid: Volume, path: str | Path, backward_mm: float = 0.0) -> None:
    """Write named points as the file's name says: ``.mrk.json``, ``.csv``, ``.nii.gz`` or ``.nii``.

    Args:
        points: from above.
        grid: the image that was labelled.
        backward_mm: for NIfTI, as in :func:`label_volume`.

    Raises:
        OutputError: another ending, no point, or the file cannot be written.
        InputError, GeometryError: NIfTI cannot hold them (outside the image, in one voxel, tilted slices).
    """
    discs, form = named_discs(points), _form_of(Path(path).name)
    if form == "points":
        _write_text(Path(path), json.dumps(markups(list(points)), indent=1, ensure_ascii=False) + "\n")
    elif form == "csv":
        write_disc_csv(discs, path)
    else:
        write_disc_nifti(discs, grid, path, backward_mm)


def _form_of(name: str) -> str:
    for form, endings in FILE_FORMATS.items():
        if name.endswith(endings):
            return form
    known = ", ".join(endings[0] for endings in FILE_FORMATS.values())
    raise OutputError(f"'{name}' does not say what to write; end it in one of {known}.")


def export_result(
    folder: str | Path, output: str | Path, form: str = "", backward_mm: float = 0.0, subject: str = "", **bids
) -> Path:
    """Write the discs of a result folder.

    Args:
        folder: as the task wrote it.
        output: the file; for ``bids`` the root of the data set.
        form: one of FILE_FORMATS or ``bids``; empty: what the file's name says.
        backward_mm: as in :func:`label_volume`.
        subject, bids: as in :func:`write_bids_derivative`.

    Returns:
        the file that was written.

    Raises:
        InputError: no result of discs, or no such form.
        OutputError, GeometryError: as :func:`write_discs`.
    """
    if form:
        check_choice("format", form, (*FILE_FORMATS, BIDS))
    result = read_result(folder)
    if form == BIDS:
        discs = named_discs(result.points)
        return write_bids_derivative(discs, result.source, output, subject, backward_mm=backward_mm, **bids)
    if form and form != _form_of(Path(output).name):
        raise OutputError(f"'{Path(output).name}' is no name for {form}; end it in {FILE_FORMATS[form][0]}.")
    write_discs(result.points, result.source, output, backward_mm)
    return Path(output)


def write_disc_csv(discs: Sequence[NamedDisc], path: str | Path) -> None:
    """One row per disc, from above: number, name, RAS mm, confidence. Raises OutputError if it cannot be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADS)
    for disc in discs:
        place = (f"{value:.3f}" for value in disc.position_ras_mm)
        writer.writerow([disc.disc, disc.name, *place, f"{disc.confidence:.4f}"])
    _write_text(Path(path), text.getvalue())


def label_volume(discs: Sequence[NamedDisc], grid: Volume, backward_mm: float = 0.0) -> Volume:
    """(k, j, i) uint8 with one voxel per disc, on the image's grid.

    Args:
        discs: any order.
        grid: the image that was labelled.
        backward_mm: move every point so far toward the back first, as for labels at the discs' back edges.

    Raises:
        InputError: two discs fall into one voxel.
        GeometryError: a disc lies outside the image.
    """
    array = np.zeros(grid.array.shape[-3:], np.uint8)
    for disc in discs:
        at = _voxel(np.asarray(disc.position_ras_mm, float) - (0.0, backward_mm, 0.0), grid)
        if any(not 0 <= index < size for index, size in zip(at, array.shape)):
            raise GeometryError(f"The point {disc.name} lies outside the image; move or delete it.")
        if array[at]:
            raise InputError(f"{disc.name} lies in the same voxel as another disc; move or delete one of them.")
        array[at] = disc.disc
    return grid.like(array)


def _voxel(position_ras_mm: np.ndarray, grid: Volume) -> tuple[int, int, int]:
    """(k, j, i) of the nearest voxel; for slices at unequal gaps the nearest slice first."""
    if grid.is_uniform:
        i, j, k = np.rint((np.linalg.inv(grid.ijk_to_ras) @ [*position_ras_mm, 1.0])[:3]).astype(int)
        return int(k), int(j), int(i)
    k = int(np.argmin(np.abs(grid.slice_positions_mm - position_ras_mm @ grid.normal_ras)))
    inplane = np.stack([grid.column_step_ras, grid.row_step_ras], axis=1)
    (i, j), *_ = np.linalg.lstsq(inplane, position_ras_mm - grid.origins_ras[k], rcond=None)
    return k, round(float(j)), round(float(i))


def write_disc_nifti(discs: Sequence[NamedDisc], grid: Volume, path: str | Path, backward_mm: float = 0.0) -> None:
    """Write :func:`label_volume` as ``.nii`` or ``.nii.gz``.

    Raises:
        OutputError: the name is no NIfTI name, or the file cannot be written.
        GeometryError: a disc outside the image; a tilted or unevenly spaced grid, which NIfTI cannot hold.
    """
    if not str(path).endswith((".nii", ".nii.gz")):
        raise OutputError(f"'{Path(path).name}' is no NIfTI name; end it in .nii.gz.")
    write_volume(label_volume(discs, grid, backward_mm), path)


def write_bids_derivative(
    discs: Sequence[NamedDisc],
    grid: Volume,
    dataset: str | Path,
    subject: str,
    suffix: str = "T2w",
    session: str = "",
    backward_mm: float = 0.0,
    reviewed: bool = False,
) -> Path:
    """Write the labels into a BIDS data set: ``derivatives/labels/sub-*/[ses-*/]anat/*_label-discs_dlabel.nii.gz``.

    A JSON sidecar beside it says what made it; ``dataset_description.json`` is written where there is none.

    Args:
        dataset: root of the data set, which exists.
        subject, session: BIDS labels, with or without ``sub-`` and ``ses-``; letters and digits. The caller's choice:
            nothing is taken from the scan's headers.
        suffix: ``T1w`` or ``T2w``.
        backward_mm: as in :func:`label_volume`.
        reviewed: whether a person has checked the labels.

    Returns:
        the path of the NIfTI file.
    """
    root = Path(dataset)
    if not root.is_dir():
        raise OutputError(f"The data set '{root.name}' does not exist; choose its folder.")
    entities = [_entity("sub", subject), *([_entity("ses", session)] if session else [])]
    if not _ENTITY.fullmatch(suffix):
        raise InputError(f"'{suffix}' is no BIDS suffix; use T1w or T2w.")
    labels = root / "derivatives" / "labels"
    folder = labels.joinpath(*entities, "anat")
    volume = label_volume(discs, grid, backward_mm)  # before anything is written
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"'{labels.name}' cannot be written in the data set; choose a folder of your own.") from error
    path = folder / f"{'_'.join(entities)}_{suffix}_label-discs_dlabel.nii.gz"
    write_volume(volume, path)
    _write_text(path.with_name(path.name.replace(".nii.gz", ".json")), _json(_sidecar(discs, backward_mm, reviewed)))
    if not (labels / "dataset_description.json").exists():
        _write_text(labels / "dataset_description.json", _json(_description()))
    return path


def _entity(key: str, value: str) -> str:
    label = value.removeprefix(f"{key}-")
    if not _ENTITY.fullmatch(label):
        raise InputError(f"'{value}' is no BIDS label; use letters and digits only.")
    return f"{key}-{label}"


def _sidecar(discs: Sequence[NamedDisc], backward_mm: float, reviewed: bool) -> dict:
    place = f"{backward_mm:g} mm behind the disc's centre" if backward_mm else "the disc's centre"
    sidecar = {
        "SpatialReference": "orig",
        "LabelConvention": "Spinal Cord Toolbox: 2 = C1/C2, 3 = C2/C3 ... 25 = L5/S1; one voxel each",
        "LabelPosition": place,
        "Labels": {str(disc.disc): disc.name for disc in discs},
        "Confidence": {disc.name: round(float(disc.confidence), 4) for disc in discs},
        "GeneratedBy": [{"Name": "Neuraxis SpineDiscLabel", "Version": __version__}],
        "Reviewed": reviewed,
    }
    if any(disc.disc > LAST_DISC or disc.name in ("L5/L6", "L4/S1") for disc in discs):
        sidecar["Warning"] = "Unusual number of lumbar vertebrae: the values count discs from above; see Labels."
    return sidecar


def _description() -> dict:
    return {
        "Name": "Disc labels",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "Neuraxis SpineDiscLabel", "Version": __version__}],
    }


def _json(document: dict) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
