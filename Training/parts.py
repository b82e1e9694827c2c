"""Cases made ready one by one, each in a small store of its own beside the final one.

So several processes can work, and a run that was stopped goes on: a part is used again as long as the files of its case
and what decides how they are read are unchanged. Every part is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from HemorrhageSegLib.brain import extract_brain
from HemorrhageSegLib.checks import LEAST_CONFIDENCE
from NeuraxisLib import __version__
from NeuraxisLib.errors import InputError, NeuraxisError, OutputError
from Training.data_checks import check_case
from Training.layouts import get_layout
from Training.layouts.base import Finding, LayoutOptions, Source
from Training.store import CaseInfo, Store, StoredCase
from Training.store_writer import COMPRESSIONS, StoreWriter


@dataclass(frozen=True)
class Reading:
    """How cases are read.

    Attributes:
        layout: see :data:`Training.layouts.LAYOUTS`.
        options: what the user said of the data.
        brain: whether the brain is found in head CTs that come without a region: True, False, or None where the unit
            is HU.
        compression: of the store.
    """

    layout: str
    options: LayoutOptions = field(default_factory=LayoutOptions)
    brain: bool | None = None
    compression: str = COMPRESSIONS[0]


@dataclass(frozen=True)
class Part:
    """What became of a case: its index entry and the file that holds it, or no entry and the fault that says why."""

    name: str
    path: Path
    info: CaseInfo | None
    findings: tuple[Finding, ...]


def part_path(source: Source, reading: Reading, folder: Path) -> Path:
    """Where the part of a case lies; another name as soon as a file or what decides the reading changes."""
    options = asdict(reading.options)
    decides = {
        word: options[word] for word in ("spacing_mm", "unit", "binary", "ignored", "colours", "ranges", "disc_points")
    }
    told = [reading.layout, reading.brain, reading.compression, decides, __version__]
    own = [source.id, dict(source.facts), list(source.flags), sorted(source.files), *map(_state, source.paths())]
    text = json.dumps([told, own], default=str, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.h5"


def _state(path: Path) -> list:
    """A file's place, size and time; of a folder, those of all its files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [(str(file), *((s := file.stat()).st_size, s.st_mtime_ns)) for file in files if file.is_file()]
    return [str(path.absolute()), states]


def make_part(source: Source, reading: Reading, folder: Path) -> Part:
    """Read and check one case and write its part, or take the part that is there.

    Faults of the case are told in the result. Raises OutputError if the part cannot be written.
    """
    path = part_path(source, reading, folder)
    if path.exists():
        with suppress(InputError, LookupError), Store(path) as store:  # a part that does not read is made again
            entries = store.provenance["findings"]
            told = tuple(Finding(**{**entry, "cases": tuple(entry["cases"])}) for entry in entries)
            return Part(source.id, path, store.info(source.id), told)
    try:
        case = with_brain(get_layout(reading.layout).read(source, reading.options), reading.brain)
        findings = check_case(case)
        if not any(finding.fault for finding in findings):
            told = {"findings": [finding.to_dict() for finding in findings]}
            with StoreWriter(path, told, reading.compression) as writer:
                return Part(source.id, path, writer.add(case), tuple(findings))
    except OutputError:
        raise
    except NeuraxisError as error:
        findings = [Finding(error.code, f"'{source.id}': {error}", (source.id,))]
    return Part(source.id, path, None, tuple(findings))


def with_brain(case: StoredCase, wanted: bool | None) -> StoredCase:
    """The case with the brain as its region, if that is wanted and it has none; what was found is in the provenance."""
    image = case.image
    possible = image.array.ndim == 3 and min(image.array.shape) > 1 and image.unit == "HU"
    if case.region is not None or wanted is False or not possible:
        if wanted and case.region is None and not possible:
            raise InputError("The brain can be found in a CT volume in HU only; leave --brain out or say --unit HU.")
        return case
    brain = extract_brain(image)
    facts = {**case.provenance, "brain": {"confidence": round(float(brain.confidence), 3), "notes": brain.notes}}
    if brain.confidence < LEAST_CONFIDENCE:
        facts["warnings"] = [*facts.get("warnings", []), "No brain was found with certainty; look at the scan."]
    return replace(case, region=np.asarray(brain.mask, bool), provenance=facts)


def merge(parts: Sequence[Part], sources: Sequence[Source], output: Path, provenance: dict, compression: str) -> None:
    """Put the parts into one store, in the order of their sources, with the sources' patients, groups and splits."""
    by_name = {part.name: part for part in parts if part.info is not None}
    with StoreWriter(output, provenance, compression) as writer:
        for source in sources:
            if source.id in by_name:
                changes = {"patient": source.patient, "group": source.group, "split": source.split}
                writer.add_from(by_name[source.id].path, {source.id: changes})


def remove_parts(folder: Path) -> None:
    """Remove the folder of the parts and what was written there; anything else in it stays."""
    for path in folder.glob("*.h5"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        os.rmdir(folder)
