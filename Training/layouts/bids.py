"""Layout ``bids``: images ``sub-*/[ses-*/]<kind>/*_ct.nii.gz``, masks ``derivatives/*/sub-*/.../*_mask.nii.gz``.

A mask belongs to the image whose entities (``sub``, ``ses``, ``acq``, ``run`` ...) it does not contradict.
``--image-suffix`` says which images (``ct`` if there are any), ``--mask-filter`` which of several masks (a text in its
name, such as ``label-lesion``).
``participants.tsv`` may give ``group`` and ``split``.
"""

from __future__ import annotations

from pathlib import Path

from NeuraxisLib.files import READABLE
from Training.layouts.base import Found, LayoutOptions, Source, existing_folder, natural, nothing_found, stem
from Training.layouts.grids import facts_of, read_image, read_mask
from Training.layouts.table import read_table
from Training.store import StoredCase

_MASK_SUFFIXES = ("mask", "dseg")
#: Entities that only describe a mask and so never keep it from an image.
_OF_MASKS = ("label", "desc", "space", "seg", "atlas")


def entities(path: Path) -> tuple[dict[str, str], str]:
    """``sub-1_ses-2_ct.nii.gz`` -> ({"sub": "1", "ses": "2"}, "ct")."""
    *pairs, suffix = stem(path).split("_")
    return dict(pair.split("-", 1) for pair in pairs if "-" in pair), suffix


def find(root: Path, options: LayoutOptions) -> Found:
    """One case per image."""
    found = Found()
    images = _volumes(existing_folder(root).glob("sub-*/**/*"))
    masks = [path for path in _volumes(root.glob("derivatives/*/sub-*/**/*")) if entities(path)[1] in _MASK_SUFFIXES]
    masks = [path for path in masks if options.mask_filter in path.name]
    images = _chosen(images, options.image_suffix, found)
    if not images and not found.findings:
        raise nothing_found(root, "sub-*/.../*_ct.nii.gz and derivatives/*/sub-*/.../*_mask.nii.gz")
    people, used = _participants(root), set()
    for path in images:
        known = entities(path)[0]
        name = "_".join(f"{key}-{value}" for key, value in known.items())
        fitting = [mask for mask in masks if _belongs(mask, known)]
        used.update(fitting)
        if len(fitting) > 1:
            names = ", ".join(f"'{mask.name}'" for mask in fitting[:4])
            found.fault("pairing", f"'{name}' has {len(fitting)} masks ({names}); choose with --mask-filter.", name)
            continue
        if not fitting and masks:
            found.fault("pairing", f"'{name}' has an image but no mask; add it or take the image away.", name)
            continue
        person = people.get(f"sub-{known['sub']}", {})
        files = {"image": path} | ({"truth": fitting[0]} if fitting else {})
        found.sources.append(
            Source(name, f"sub-{known['sub']}", person.get("group", ""), person.get("split", ""), files)
        )
    for mask in masks:
        if mask not in used:
            found.fault("pairing", f"The mask '{mask.name}' belongs to no image; add it or take the mask away.")
    return found


def _volumes(paths: object) -> list[Path]:
    chosen = [path for path in paths if path.name.lower().endswith(READABLE) and path.name.startswith("sub-")]
    return sorted(chosen, key=lambda path: natural(path.name))


def _chosen(images: list[Path], suffix: str, found: Found) -> list[Path]:
    """The images with the suffix that was named, or ct; several suffixes without ct are a fault that lists them."""
    suffixes = sorted({entities(path)[1] for path in images} - set(_MASK_SUFFIXES))
    if not suffix and "ct" not in suffixes and len(suffixes) > 1:
        found.fault(
            "pairing", f"There are images of several kinds ({', '.join(suffixes)}); name one with --image-suffix."
        )
        return []
    wanted = suffix or ("ct" if "ct" in suffixes else "".join(suffixes))
    return [path for path in images if entities(path)[1] == wanted]


def _belongs(mask: Path, image: dict[str, str]) -> bool:
    own = {key: value for key, value in entities(mask)[0].items() if key not in _OF_MASKS}
    return own.get("sub") == image.get("sub") and all(image.get(key) == value for key, value in own.items())


def _participants(root: Path) -> dict[str, dict[str, str]]:
    path = root / "participants.tsv"
    return {row["participant_id"]: row for row in read_table(path, ("participant_id",))} if path.is_file() else {}


def read(source: Source, options: LayoutOptions) -> StoredCase:
    """Read one image and its mask."""
    image = read_image(source.files["image"], options)
    truth, warnings = None, []
    if "truth" in source.files:
        truth, warnings = read_mask(source.files["truth"], image, options)
    return source.stored(image, truth, provenance=facts_of(image), warnings=warnings)
