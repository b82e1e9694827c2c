"""What a page may open: scans and results in one folder and below it, and nothing outside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import is_image_file
from NeuraxisLib.result_folder import RESULT_FILE

#: What an entry can be; "folder" is one to look into.
KINDS = ("folder", "result", "dicom", "image")
#: So many entries of a folder are listed at most.
MOST_ENTRIES = 500
#: So many files are looked at to tell whether a folder holds DICOM.
_LOOKED_AT = 3


@dataclass(frozen=True)
class Entry:
    """Something in the folder.

    Attributes:
        name: of the file or folder.
        path: below the root, with forward slashes.
        kind: one of :data:`KINDS`.
    """

    name: str
    path: str
    kind: str


class CaseFolder:
    """A folder with cases, for people who must not see the rest of the disk.

    Args:
        root: an existing folder.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root).resolve()

    def resolve(self, path: str) -> Path:
        """The file or folder with that path below the root, links followed.

        Raises:
            InputError: it lies outside the root or is not there.
        """
        place = (self.root / path).resolve()
        if place != self.root and self.root not in place.parents:
            raise InputError("That place lies outside the folder that the page was started on; choose one inside.")
        if not place.exists():
            raise InputError(f"'{place.name}' was not found; it may have been moved, so list the folder again.")
        return place

    def path_of(self, place: Path) -> str:
        """The path below the root of a file or folder in it; empty for the root itself."""
        path = place.resolve().relative_to(self.root).as_posix()
        return "" if path == "." else path

    def entries(self, path: str = "") -> list[Entry]:
        """What a folder holds that can be opened or looked into, folders first; hidden names are left out.

        Raises:
            InputError: as :meth:`resolve`; not a folder; may not be read.
        """
        folder = self.resolve(path)
        try:
            places = sorted(folder.iterdir(), key=lambda place: place.name.lower())
        except OSError as error:
            raise InputError(f"'{folder.name}' cannot be listed; ask for permission or choose another.") from error
        found = []
        for place in places:
            kind = self._kind(place)
            if kind:
                found.append(Entry(place.name, f"{path}/{place.name}".lstrip("/"), kind))
        return sorted(found, key=lambda entry: KINDS.index(entry.kind))[:MOST_ENTRIES]

    def _kind(self, place: Path) -> str:
        """The kind of a file or folder; empty for what cannot be opened, or leads outside."""
        try:
            real = place.resolve()
            if place.name.startswith(".") or self.root not in real.parents:
                return ""
            if real.is_dir():
                return kind_of_folder(real)
            return "image" if is_image_file(real) else ""
        except OSError:
            return ""


def kind_of_folder(folder: Path) -> str:
    """``"result"``, ``"dicom"`` (by the mark of its first files) or ``"folder"``."""
    if (folder / RESULT_FILE).is_file():
        return "result"
    looked_at = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_file() or is_image_file(entry.name):
                continue
            if _is_dicom(Path(entry.path)):
                return "dicom"
            looked_at += 1
            if looked_at == _LOOKED_AT:
                break
    return "folder"


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"
