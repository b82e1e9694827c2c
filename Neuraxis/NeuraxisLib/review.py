"""Verdicts of a reader on results: accepted, corrected or rejected, kept as ``review.json`` in the result folder.

    {"schema": "neuraxis-review", "schema_version": 1, "verdict": "corrected", "comment": "...", "reader": "AB",
     "sha256": "...", "time": "2026-11-28T21:04:05Z", "software": "0.5.0"}

``sha256`` is that of what was judged (:func:`fingerprint`): a verdict does not speak of an outline that was changed
after it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib import __version__
from NeuraxisLib.atomic import atomic_write, output_error
from NeuraxisLib.errors import InputError, NeuraxisError
from NeuraxisLib.result_folder import RESULT_FILE, read_result

if TYPE_CHECKING:
    from NeuraxisLib.result import Landmark, Result

REVIEW_FILE = "review.json"
SCHEMA, SCHEMA_VERSION = "neuraxis-review", 1
ACCEPTED, CORRECTED, REJECTED = VERDICTS = ("accepted", "corrected", "rejected")
#: Verdicts after which a case may be learnt from.
USABLE = (ACCEPTED, CORRECTED)
LONGEST_COMMENT = 2000
_INITIALS = re.compile(r"[^\W\d_][\w.-]{0,7}|")
#: Result folders are looked for this many levels down.
_DEPTH = 3


@dataclass(frozen=True)
class Review:
    """What a reader thinks of a result.

    Attributes:
        verdict: one of :data:`VERDICTS`.
        comment: free text. reader: initials, or empty.
        sha256: of what was judged.
        time: UTC, ISO 8601. software: version of Neuraxis that the verdict was given in.

    Raises:
        InputError: another verdict, no initials, a comment that is too long.
    """

    verdict: str
    comment: str = ""
    reader: str = ""
    sha256: str = ""
    time: str = ""
    software: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise InputError(f"There is no verdict '{self.verdict}'; choose one of: {', '.join(VERDICTS)}.")
        check_initials(self.reader)
        if len(self.comment) > LONGEST_COMMENT:
            raise InputError(f"The comment is longer than {LONGEST_COMMENT} characters; shorten it.")

    @property
    def is_usable(self) -> bool:
        """Whether the case may be learnt from."""
        return self.verdict in USABLE

    def to_json(self) -> dict:
        """As ``review.json`` holds it."""
        return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, document: object) -> Review:
        """The review of :meth:`to_json`. Raises InputError if it is none, or of a newer version."""
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise InputError("The review is damaged; give the verdict again.")
        version = document.get("schema_version", 0)
        if not isinstance(version, int):
            raise InputError("The review is damaged; give the verdict again.")
        if version > SCHEMA_VERSION:
            raise InputError("The review was made by a newer Neuraxis; update this one.")
        words = {name: document.get(name, "") for name in cls.__dataclass_fields__}
        if not all(isinstance(word, str) for word in words.values()):
            raise InputError("The review is damaged; give the verdict again.")
        return cls(**words)


def check_initials(reader: str) -> None:
    """Raise InputError unless this can be a reader's initials, or nothing."""
    if not _INITIALS.fullmatch(reader):
        raise InputError(f"'{reader}' are no initials; give at most eight letters, or none.")


def new_review(verdict: str, sha256: str, comment: str = "", reader: str = "") -> Review:
    """A verdict given now; InputError as :class:`Review`."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Review(verdict, comment.strip(), reader.strip(), sha256, now, __version__)


# -- what was judged ------------------------------------------------------------------------------------------


def fingerprint(labels: np.ndarray | None, points: Iterable[Landmark] = ()) -> str:
    """SHA-256 of what a reader judges: the label map, voxel by voxel, or the named points where there is none.

    Args:
        labels: (k, j, i), or None.
        points: their order does not matter; a micrometre does not either.
    """
    if labels is not None:
        found = hashlib.sha256(repr(labels.shape).encode())
        found.update(np.ascontiguousarray(labels, np.uint8).data)
        return found.hexdigest()
    told = sorted([p.name, *(round(float(x), 3) + 0.0 for x in p.position_ras_mm)] for p in points)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def fingerprint_of(result: Result) -> str:
    """The :func:`fingerprint` of a result."""
    return fingerprint(None if result.labels is None else result.labels.array, result.points)


# -- in the result folder -------------------------------------------------------------------------------------


def write_review(folder: str | Path, review: Review) -> Path:
    """Write ``review.json`` into a result folder; an earlier one is replaced. Returns the file.

    Raises:
        InputError: no result folder.
        OutputError: it cannot be written.
    """
    folder = Path(folder)
    if not (folder / RESULT_FILE).is_file():
        raise InputError(f"'{folder.name}' is not a result folder (no {RESULT_FILE}); choose another.")
    path = folder / REVIEW_FILE
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(review.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_review(folder: str | Path) -> Review | None:
    """The review in a result folder; None if there is none. Raises InputError if it is damaged."""
    path = Path(folder) / REVIEW_FILE
    try:
        return Review.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The review in '{Path(folder).name}' cannot be read; give the verdict again.") from error


def remove_review(folder: str | Path) -> None:
    """Take the verdict on a result back; OutputError if it cannot be."""
    path = Path(folder) / REVIEW_FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, path.name) from error


# -- many results ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReviewedCase:
    """A result folder and the verdict on it.

    Attributes:
        folder: the result folder.
        task: name of its task; empty if the result is damaged.
        review: None if nobody has judged it.
        is_current: whether the verdict speaks of the result as it is now.
        error: what is wrong with the result or its review, in a sentence; empty if nothing is.
    """

    folder: Path
    task: str = ""
    review: Review | None = None
    is_current: bool = False
    error: str = ""


def result_folders(folder: str | Path) -> list[Path]:
    """The folder itself if it is a result, else the results below it, by name. Raises InputError if there is none."""
    folder = Path(folder)
    found, pending = [], [(folder, 0)]
    while pending:
        here, depth = pending.pop(0)
        if (here / RESULT_FILE).is_file():
            found.append(here)
        elif depth < _DEPTH and here.is_dir():
            inside = sorted(path for path in here.iterdir() if path.is_dir() and not path.name.startswith("."))
            pending += [(path, depth + 1) for path in inside]
    if not found:
        raise InputError(f"There is no result in '{folder.name}'; choose a result folder, or a folder that holds some.")
    return sorted(found)


def reviewed_case(folder: Path) -> ReviewedCase:
    """What is known of a result folder; faults are told, not raised."""
    task = ""
    try:
        result = read_result(folder)
        task, review = result.task, read_review(folder)
    except NeuraxisError as error:
        return ReviewedCase(folder, task, error=str(error))
    return ReviewedCase(folder, task, review, review is not None and review.sha256 == fingerprint_of(result))
