"""Where the results of a batch lie: in a folder of this computer, or at an address of another one.

Ledger and tables are written in a local folder, ``desk``. In a folder of this computer that is the folder itself. Of a
remote one it is a private copy: what the ledger has grown by is put there after every poll, as a piece
``batch.<time>.jsonl``, and the whole file with the tables, after which the pieces go.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from pathlib import Path

from NeuraxisLib import batch_record
from NeuraxisLib.batch_ledger import LEDGER_FILE
from NeuraxisLib.errors import OutputError
from NeuraxisLib.private_folder import private_folder, remove_private
from NeuraxisLib.remote import UNFINISHED, RemoteFolder, is_remote, local_path
from NeuraxisLib.result_folder import RESULT_FILE

#: Less free space than this after a failed write means a full disk.
_FULL_BYTES = 16 << 20
_PIECE = ("batch.", ".jsonl")


def place_of(output: str | Path) -> LocalPlace | RemotePlace:
    """The place that a path or an address means; OutputError or DependencyError if it cannot be used."""
    return RemotePlace(str(output)) if is_remote(output) else LocalPlace(local_path(output))


class LocalPlace:
    """A folder of this computer.

    Attributes:
        folder: of the results. desk: where ledger and tables are written.
    """

    def __init__(self, folder: Path):
        self.folder = self.desk = folder.absolute()

    def is_finished(self, folder: Path) -> bool:
        """Whether a result folder holds a whole result."""
        return (folder / RESULT_FILE).is_file()

    def is_unusable(self) -> bool:
        """Whether nothing can be written any more, so that all other cases would fail too."""
        return batch_record.free_bytes(self.folder) < _FULL_BYTES

    def note(self, folder: Path) -> None:
        """A result was finished there."""

    def commit(self) -> None:
        """See to it that the ledger is where the results are."""

    def publish(self, names: Iterable[str]) -> None:
        """See to it that tables, by their names, and the whole ledger are where the results are."""

    def sweep(self) -> None:
        """Remove what lost workers left half written, at the end of a batch."""
        batch_record.sweep(self.folder)

    def close(self) -> None:
        """Let go of it."""


class RemotePlace:
    """A folder at an address, with the same methods as :class:`LocalPlace`.

    Raises:
        DependencyError: a package is missing.
        OutputError: it cannot be reached, or refuses to write, list, read or remove.
    """

    def __init__(self, address: str):
        self.folder = RemoteFolder(address)
        self.folder.check_usable()
        self.desk = private_folder("batch")
        self._remove_desk = weakref.finalize(self, remove_private, self.desk)
        names = self.folder.files_below()
        whole = {name.partition("/")[0] for name in names if name.endswith(f"/{RESULT_FILE}")}
        self._finished = whole - {name.partition("/")[0] for name in names if name.endswith(f"/{UNFINISHED}")}
        self._pieces = [name for name in names if name.startswith(_PIECE[0]) and name.endswith(_PIECE[1])]
        self._pieces = sorted(name for name in self._pieces if name != LEDGER_FILE and "/" not in name)
        self._sent = self._fetch([name for name in (LEDGER_FILE,) if name in names] + self._pieces)

    def is_finished(self, folder: RemoteFolder) -> bool:
        """Whether a whole result was there at the beginning, or has been put there since."""
        return folder.name in self._finished

    def is_unusable(self) -> bool:
        """Whether the store refuses by now."""
        try:
            self.folder.check_usable()
        except OutputError:
            return True
        return batch_record.free_bytes(self.desk) < _FULL_BYTES

    def note(self, folder: RemoteFolder) -> None:
        """A result was finished there."""
        self._finished.add(folder.name)

    def commit(self) -> None:
        """Put what the ledger has grown by there, if it has."""
        ledger = self.desk / LEDGER_FILE
        if ledger.stat().st_size <= self._sent:
            return
        with open(ledger, "rb") as file:
            file.seek(self._sent)
            more = file.read()
        piece = f"{_PIECE[0]}{time.time_ns():020d}{_PIECE[1]}"
        self.folder.write(piece, more)
        self._pieces.append(piece)
        self._sent += len(more)

    def publish(self, names: Iterable[str]) -> None:
        """Put the tables and the whole ledger there; the pieces of the ledger go."""
        self.commit()
        for name in (LEDGER_FILE, *names):
            if (self.desk / name).is_file():
                self.folder.put_whole(self.desk / name)
        self.folder.remove(self._pieces)
        self._pieces = []

    def sweep(self) -> None:
        """Nothing to do: a copy that was cut off is known as such, and is copied over."""

    def close(self) -> None:
        """Remove the private copy of ledger and tables."""
        self._remove_desk()

    def _fetch(self, names: list[str]) -> int:
        """Write the ledger that is there to the desk; its length in bytes."""
        with open(self.desk / LEDGER_FILE, "wb") as file:
            for name in names:
                try:
                    lines = (self.folder / name).read_bytes()
                except OSError as error:
                    raise OutputError(f"The ledger '{name}' cannot be read; check the place of the results.") from error
                file.write(lines if lines.endswith(b"\n") or not lines else lines + b"\n")
            return file.tell()
