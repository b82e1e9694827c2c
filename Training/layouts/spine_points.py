"""Layouts ``spine-generic`` and ``sct-discs``: images with single-voxel disc labels in the numbers of the SCT.

``spine-generic``: BIDS, ``sub-*/anat/sub-*_T2w.nii.gz`` with ``*_label-discs_dlabel.nii.gz`` (before 2023
``*_labels-disc-manual.nii.gz``) in ``derivatives/labels/sub-*/anat``. ``--image-suffix T1w`` takes one contrast only.
``sct-discs``: ``NAME.nii.gz`` beside ``NAME_label-disc.nii.gz``, ``NAME_labels-disc-manual.nii.gz`` or the like.

Labels of both lie at the back edge of the discs; they are moved to the centres, by half of a usual depth, unless
``--disc-points centre`` says that they lie there. What the numbers may hide is told (:mod:`spine_labels`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import READABLE
from NeuraxisLib.volume import Volume
from Training.layouts.base import Found, LayoutOptions, Source, existing_folder, natural, nothing_found, stem
from Training.layouts.grids import facts_of, read_image, read_mask
from Training.layouts.spine_labels import checked, moved_to_centres
from Training.store import StoredCase

_LABEL = re.compile(r"^(?P<image>.+?)_(?:label|labels)[-_]discs?(?:[-_](?:dlabel|manual|posterior))?$")
#: Voxels of one label farther apart than this many voxels are two places.
_TOGETHER = 2.0


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per image that has labels; images without any are no faults, since these sets label only a part."""
    found = Found()
    labels = _labels(existing_folder(root), found)
    if not labels:
        raise nothing_found(root, "images with *_label-discs_dlabel.nii.gz or *_labels-disc-manual.nii.gz")
    images = [path for path in _volumes(root) if "derivatives" not in path.relative_to(root).parts]
    for path in images:
        name = stem(path)
        if name not in labels or (options.image_suffix and not name.endswith(f"_{options.image_suffix}")):
            continue
        person = name.split("_")[0] if name.startswith("sub-") else name
        found.sources.append(Source(name, person, files={"image": path, "truth": labels.pop(name)}))
    if not options.image_suffix:
        for name, path in labels.items():
            found.fault(
                "pairing", f"The labels '{path.name}' belong to no image; add '{name}' or take them away.", name
            )
    return found


def _volumes(root: Path) -> list[Path]:
    files = [path for path in root.rglob("*") if path.name.lower().endswith(READABLE) and path.is_file()]
    return sorted(files, key=lambda path: natural(path.name))


def _labels(root: Path, found: Found) -> dict[str, Path]:
    """Image name -> its labels; of an old and a new file of one image the new one counts."""
    labels: dict[str, Path] = {}
    for path in _volumes(root):
        match = _LABEL.match(stem(path))
        if not match:
            continue
        name = match["image"]
        if name in labels:
            kept = max(labels[name], path, key=lambda file: "dlabel" in file.name)
            found.warn("double", f"'{name}' has two files of disc labels; '{kept.name}' was taken.", name)
            path = kept
        labels[name] = path
    return labels


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one image and its labels."""
    image = read_image(source.files["image"], options)
    mask, warnings = read_mask(source.files["truth"], image, options)
    values, points = voxels_of(mask, image)
    discs, place = checked(values, points), "centre"
    if options.disc_points == "posterior":
        discs, place = moved_to_centres(discs), "moved from the back edge"
    facts = {**facts_of(image), "discs": discs.provenance(), "disc_point": place}
    flags = ("disc centres estimated",) if place != "centre" else ()
    told = warnings + discs.warnings
    return source.stored(image, None, flags=flags, provenance=facts, warnings=told)


def voxels_of(mask: np.ndarray, image: Volume) -> tuple[list[int], np.ndarray]:
    """(values, (n, 3) RAS mm) of single-voxel labels; touching voxels of one value count as one.

    Raises:
        InputError: no voxel is labelled, or a value lies at two places.
    """
    values = [int(value) for value in np.unique(mask) if value > 0]
    if not values:
        raise InputError("The labels are empty; check the file.")
    points = []
    for value in values:
        at = np.argwhere(mask == value)
        if np.ptp(at, axis=0).max() > _TOGETHER:
            raise InputError(f"The label {value} is given at two places; every disc has one voxel.")
        k, j, i = at.mean(axis=0)
        points.append((image.ijk_to_ras @ np.array([i, j, k, 1.0]))[:3])
    return values, np.array(points)
