"""Layout ``spine-masks``: images with masks of vertebrae, canal and discs, as in SPIDER; their discs' centres.

Either ``images/NAME.mha`` and ``masks/NAME.mha`` in SPIDER's numbers (vertebrae 1 to 25 from below, 100 and more where
they are cut; canal 100; discs 201 and up, 201 being L5/S1), or ``NAME_<sequence>.nii.gz`` beside ``NAME_label.nii.gz``
with 1 vertebra, 2 canal, 3 disc, whose lowest disc counts as L5/S1 unless ``disc_centres.json`` says which ones count.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import READABLE
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.discs import FIRST_DISC, LAST_DISC
from Training.layouts.base import (
    Found,
    LayoutOptions,
    Source,
    existing_folder,
    folder_named,
    nothing_found,
    pair,
    stem,
    volumes_by_id,
)
from Training.layouts.grids import facts_of, read_image, read_mask
from Training.layouts.spine_labels import CANAL, DISC, VERTEBRA, DiscPoints, checked, from_below
from Training.store import StoredCase

_SUFFIX = "_label"
_CENTRES = "disc_centres.json"
#: SPIDER: value of the canal, of the first cut vertebra's offset, of the lowest disc less one.
_SPIDER_CANAL, _SPIDER_DISC = 100, 200
#: Pieces of a disc mask smaller than this, or than this share of the usual one, are specks.
_SPECK_MM3, _SPECK_SHARE = 150.0, 0.12
#: How far a listed centre may lie from the disc of the mask that it means.
_NEAR_MM = 12.0


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per image that has a mask."""
    found = Found()
    images, masks = folder_named(existing_folder(root), ("images",)), folder_named(root, ("masks",))
    if images and masks:
        files = volumes_by_id(images, found), volumes_by_id(masks, found)
        for name in pair(*files, found):
            person = name.split("_")[0]
            found.sources.append(Source(name, person, files={"image": files[0][name], "truth": files[1][name]}))
        return found
    labels = {stem(path)[: -len(_SUFFIX)]: path for path in _volumes(root) if stem(path).endswith(_SUFFIX)}
    if not labels:
        raise nothing_found(root, "images/ and masks/, or NAME_t2.nii.gz beside NAME_label.nii.gz")
    listed = _listed(root)
    for path in _volumes(root):
        name = stem(path)
        person = name.rpartition("_")[0] or name
        if name.endswith(_SUFFIX):
            continue
        if person not in labels:
            found.fault("pairing", f"'{name}' has an image but no mask; add it or take the image away.", name)
            continue
        facts = {"discs": listed[person]} if person in listed else {}
        found.sources.append(Source(name, person, files={"image": path, "truth": labels[person]}, facts=facts))
    return found


def _volumes(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.name.lower().endswith(READABLE))


def _listed(root: Path) -> dict[str, list]:
    """name -> [[number, R, A, S], ...] of ``disc_centres.json``; empty where there is none."""
    path = root / _CENTRES
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: [[LAST_DISC + 1 - int(disc["from_bottom"]), *map(float, disc["ras_mm"])] for disc in entry["discs"]]
            for name, entry in data.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{path.name}' cannot be read ({error}); correct or remove it.") from None


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one image, its mask and its disc centres."""
    image = read_image(source.files["image"], options)
    mask, warnings = read_mask(source.files["truth"], image, options)
    truth, points = spider_discs(mask, image) if (mask > _SPIDER_DISC).any() else class_discs(mask, image)
    if source.facts.get("discs"):
        points = listed_discs(points, source.facts["discs"])
    facts = {**facts_of(image), "discs": points.provenance(), "disc_point": "centre"}
    return source.stored(image, truth, provenance=facts, warnings=warnings + points.warnings)


def spider_discs(mask: np.ndarray, image: Volume) -> tuple[np.ndarray, DiscPoints]:
    """(store's tissues, discs) of a mask in SPIDER's numbers, whose discs carry their level."""
    truth = np.zeros(mask.shape, np.uint8)
    truth[(mask > 0) & (mask < _SPIDER_DISC)] = VERTEBRA
    truth[mask == _SPIDER_CANAL] = CANAL
    truth[mask > _SPIDER_DISC] = DISC
    values = [int(value) for value in np.unique(mask[mask > _SPIDER_DISC])]
    centres = [_centre(mask == value, image) for value in values]
    numbers = [LAST_DISC + 1 - (value - _SPIDER_DISC) for value in values]
    return truth, checked(numbers, np.array(centres))


def class_discs(mask: np.ndarray, image: Volume) -> tuple[np.ndarray, DiscPoints]:
    """(store's tissues, discs) of a mask of classes; the lowest disc counts as L5/S1."""
    if not set(np.unique(mask).tolist()) <= {0, 1, 2, 3}:
        raise InputError("The mask is neither in SPIDER's numbers nor 1 vertebra, 2 canal, 3 disc; convert it.")
    parts, count = ndimage.label(mask == 3)
    volumes = np.bincount(parts.ravel())[1:] * float(np.prod(image.spacing_mm))
    least = max(_SPECK_MM3, _SPECK_SHARE * float(np.median(volumes))) if count else 0.0
    large = [n for n, volume in enumerate(volumes, start=1) if volume >= least]
    if not large:
        raise InputError("The mask marks no disc; check its values.")
    truth = np.select([mask == 1, mask == 2, mask == 3], [VERTEBRA, CANAL, DISC], 0).astype(np.uint8)
    return truth, from_below(np.array([_centre(parts == n, image) for n in large]))


def _centre(mask: np.ndarray, image: Volume) -> np.ndarray:
    """Centre of mass in RAS mm."""
    k, j, i = ndimage.center_of_mass(mask)
    return (image.ijk_to_ras @ np.array([i, j, k, 1.0]))[:3]


def listed_discs(points: DiscPoints, listed: list) -> DiscPoints:
    """The discs of the mask numbered as a list says; the mask's further ones (a first sacral disc, cut ones) are told.

    Raises InputError if a listed centre lies at no disc of the mask.
    """
    numbers, ras, used = [], [], []
    for number, *point in sorted(listed):
        distance = np.linalg.norm(points.ras_mm - np.array(point), axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] > _NEAR_MM or number < FIRST_DISC:
            raise InputError(f"The listed disc {number} lies at no disc of the mask; check which scan the list means.")
        numbers.append(int(number))
        ras.append(points.ras_mm[nearest])
        used.append(nearest)
    warnings = []
    extra = len(points.numbers) - len(set(used))
    if extra:
        warnings.append(f"{extra} discs of the mask are not in the list; they are taught as no discs.")
    return DiscPoints(numbers, np.array(ras), warnings)
