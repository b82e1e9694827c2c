"""The models of this computer and those that can be had: list, install, verify, remove. Panel and command line alike.

Models lie in the extension (bundled) and in the folder of the user (installed); indexes name those that are available.
"""

from __future__ import annotations

import glob
import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from NeuraxisLib.atomic import atomic_write, output_error
from NeuraxisLib.errors import InputError, ModelError, NeuraxisError, NewerModelError
from NeuraxisLib.model_download import download, part_of, read_address
from NeuraxisLib.model_index import MAX_INDEX_BYTES, IndexEntry, is_address, parse_index, shipped_index
from NeuraxisLib.models import SUFFIX, ModelFile, load_model, user_model_folder
from NeuraxisLib.task import TASKS, Progress, get_task

#: Where a model is.
BUNDLED, INSTALLED, AVAILABLE = "bundled", "installed", "available"
#: What is known of it beyond that.
VERIFIED, ALTERED, NEWER, UNREADABLE = "verified", "altered", "newer than this version", "unreadable"
#: What a removed model is called until it is gone for good.
_REMOVED = ".removed"


@dataclass(frozen=True)
class StoredModel:
    """One row of the model table.

    Attributes:
        name: short name; of a file that cannot be read, its file name.
        place: :data:`BUNDLED`, :data:`INSTALLED` or :data:`AVAILABLE`.
        size_bytes: of the whole file.
        card: title, task, licence, notice, training and scores; empty for a file that cannot be read.
        check: "", or one of :data:`VERIFIED`, :data:`ALTERED`, :data:`NEWER` and :data:`UNREADABLE`.
        path: the file; None unless it is on this computer.
        entry: what an index says of it, if one does.
        part_bytes: of an unfinished download.
        note: a sentence on what is wrong with it; empty if nothing is.
    """

    name: str
    place: str
    size_bytes: int
    card: Mapping[str, Any] = field(default_factory=dict)
    check: str = ""
    path: Path | None = None
    entry: IndexEntry | None = None
    part_bytes: int = 0
    note: str = ""

    @property
    def state(self) -> str:
        """Such as ``"bundled, verified"``."""
        started = f"{self.part_bytes / 1e6:.1f} MB of it here" if self.part_bytes else ""
        return ", ".join(words for words in (self.place, self.check, started) if words)

    @property
    def can_be_installed(self) -> bool:
        """Whether an index offers it and it is not here yet, or not whole."""
        if self.place == AVAILABLE:
            return self.check != NEWER
        return self.check == ALTERED and self.entry is not None and not self.entry.is_bundled

    @property
    def can_be_removed(self) -> bool:
        """Whether there is something of it in the folder of the user."""
        return self.place == INSTALLED or self.part_bytes > 0


@dataclass(frozen=True)
class Installed:
    """What an installation did: names of models that were installed, and a sentence for each file refused."""

    models: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class ModelStore:
    """Lists models and changes the folder of the user; what was verified is remembered as long as the file stays.

    Args:
        index: file or address of a further index; empty for none. It is read by :meth:`read_index` only, so that
            nothing is sent out before somebody asks.
    """

    def __init__(self, index: str = ""):
        self.index = index
        self._entries: list[IndexEntry] = []
        self._checks: dict[tuple, tuple[str, str]] = {}  # (path, time, size) -> (check, sentence)

    @property
    def folder(self) -> Path:
        """The folder of the user's models; it need not exist."""
        return user_model_folder()

    # -- looking --------------------------------------------------------------------------------------------------

    def read_index(self) -> int:
        """Read the further index, if there is one; how many models it names. Raises NeuraxisError."""
        self._entries = read_entries(self.index) if self.index else []
        return len(self._entries)

    def models(self) -> list[StoredModel]:
        """All rows: bundled, installed, available; by task and name. Hashes are not computed for this."""
        known = {entry.content_sha256: entry for entry in [*self._entries, *_shipped()]}
        rows = []
        for task in TASKS:
            rows += [self._row(path, BUNDLED, known) for path in _files(get_task(task).resources / "Models")]
        rows += [self._row(path, INSTALLED, known) for path in _files(self.folder)]
        here = {row.entry.content_sha256 for row in rows if row.entry is not None}
        rows += [self._available(entry) for entry in self._entries if entry.content_sha256 not in here]
        order = {name: number for number, name in enumerate(TASKS)}
        return sorted(rows, key=lambda row: (order.get(row.card.get("task", ""), len(order)), row.name, row.place))

    def disk_use_bytes(self) -> int:
        """Size of what lies in the folder of the user: models, unfinished downloads, what can still be brought back."""
        try:
            return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        except OSError:
            return 0

    def _row(self, path: Path, place: str, known: Mapping[str, IndexEntry]) -> StoredModel:
        check, note = self._checks.get(_key(path), ("", ""))
        try:
            size = path.stat().st_size
            model = load_model(path)
        except NewerModelError as error:
            return StoredModel(path.stem, place, size, check=NEWER, path=path, note=str(error))
        except (ModelError, OSError) as error:
            return StoredModel(path.stem, place, _size(path), check=UNREADABLE, path=path, note=str(error))
        entry = known.get(model.content_sha256)
        return StoredModel(model.name, place, size, model.header, check, path, entry, note=note)

    def _available(self, entry: IndexEntry) -> StoredModel:
        part = part_of(self.folder, entry.sha256)
        check = NEWER if entry.is_newer else ""
        note = f"'{entry.name}' needs a newer version of Neuraxis; update the extension." if entry.is_newer else ""
        return StoredModel(entry.name, AVAILABLE, entry.size_bytes, entry.card, check, None, entry, _size(part), note)

    # -- verifying ------------------------------------------------------------------------------------------------

    def verify(self, rows: Iterable[StoredModel], progress: Progress | None = None) -> list[StoredModel]:
        """The rows that are on this computer, each read whole and its hashes compared.

        The hash in its own header must be right and, where an index knows the model, the SHA-256 of the whole file
        too; a bundled model must be the one that the shipped index names.
        """
        rows = [row for row in rows if row.path is not None]
        progress = progress or Progress()
        checked = []
        for number, row in enumerate(rows):
            progress(number / len(rows), f"Verifying {row.name}")
            checked.append(self._verified(row))
        progress(1.0, "Verifying")
        return checked

    def _verified(self, row: StoredModel) -> StoredModel:
        if row.check in (NEWER, UNREADABLE):
            return row
        key = _key(row.path)
        try:
            model = load_model(row.path)
            model.check()
            note = _difference(row, model)
        except ModelError as error:
            note = str(error)
        self._checks[key] = (ALTERED, note) if note else (VERIFIED, "")
        return replace(row, check=self._checks[key][0], note=note)

    # -- installing -----------------------------------------------------------------------------------------------

    def install_file(self, path: str | Path) -> Installed:
        """Check a model file and copy it into the folder of the user; ModelError or OutputError says why not."""
        return Installed((self._take(Path(path)).name,))

    def install_folder(self, folder: str | Path, progress: Progress | None = None) -> Installed:
        """Install every model of a folder, as on a stick; what is no good is named with its sentence.

        Raises:
            InputError: there is no model file in the folder.
            OutputError: the folder of the user cannot be written to.
        """
        files, progress = _files(Path(folder)), progress or Progress()
        if not files:
            raise InputError(f"There is no {SUFFIX} file in '{Path(folder).name}'; choose the folder of the models.")
        names, refused = [], []
        for number, path in enumerate(files):
            progress(number / len(files), f"Installing {path.name}")
            try:
                names.append(self._take(path).name)
            except ModelError as error:
                refused.append(str(error))
        return Installed(tuple(names), tuple(refused))

    def install_named(self, name: str, progress: Progress | None = None) -> Installed:
        """Fetch a model that an index names, go on with it if it was begun, and check it.

        Raises:
            ModelError: no index names it, it is newer than this version, or what came is not what the index names.
            InputError: the network or the file beside the index cannot be read.
            OutputError: the folder of the user cannot be written to.
        """
        entry = self._entry_named(name)
        make_folder(self.folder)
        target = self.folder / entry.file
        _refuse_other(target, entry.name)
        if is_address(entry.url):
            download(entry.url, target, entry.sha256, entry.size_bytes, progress)
            try:
                load_model(target).check()
            except ModelError:
                target.unlink()
                raise
        else:
            _copy_checked(Path(entry.url), target, entry.sha256)
        self._checks[_key(target)] = (VERIFIED, "")
        return Installed((entry.name,))

    def _entry_named(self, name: str) -> IndexEntry:
        found = [entry for entry in self._entries if entry.name == name]
        if not found:
            if any(entry.name == name for entry in _shipped()):
                raise ModelError(f"'{name}' came with the extension and is installed already.")
            names = ", ".join(entry.name for entry in self._entries)
            remedy = f"it names: {names}" if names else "name an index that has it, or a file or folder"
            raise ModelError(f"No index names a model '{name}'; {remedy}.")
        if found[0].is_newer:
            raise NewerModelError(f"'{name}' needs a newer version of Neuraxis; update the extension.")
        return found[0]

    def _take(self, path: Path) -> ModelFile:
        model = load_model(path)
        if model.task not in TASKS:
            raise ModelError(f"'{path.name}' is for the task '{model.task}', which this version does not have.")
        content = model.check()
        make_folder(self.folder)
        target = self.folder / path.name
        _refuse_other(target, model.name)
        with atomic_write(target) as temporary:
            temporary.write_bytes(content)
        self._checks[_key(target)] = (VERIFIED, "")
        return model

    # -- removing -------------------------------------------------------------------------------------------------

    def remove(self, row: StoredModel) -> None:
        """Take a model out of the folder of the user; until :meth:`forget_removed`, :meth:`bring_back` undoes it.

        An unfinished download is deleted. Raises InputError for a bundled model, OutputError if the disk refuses.
        """
        if not row.can_be_removed:
            raise InputError(f"'{row.name}' is part of the extension and stays; only installed models can be removed.")
        self.forget_removed()
        try:
            if row.place == AVAILABLE:
                part_of(self.folder, row.entry.sha256).unlink(missing_ok=True)
            else:
                row.path.rename(row.path.with_name(row.path.name + _REMOVED))
        except OSError as error:
            raise output_error(error, row.name) from error

    @property
    def can_bring_back(self) -> bool:
        """Whether a model that was removed can still be brought back."""
        return bool(self._removed())

    def bring_back(self) -> str:
        """Undo the last removal; the name of the file, or "" if there is nothing to bring back."""
        for path in self._removed():
            target = path.with_name(path.name.removesuffix(_REMOVED))
            try:
                path.rename(target)
            except OSError as error:
                raise output_error(error, target.name) from error
            return target.name
        return ""

    def forget_removed(self) -> None:
        """Delete what was removed for good."""
        for path in self._removed():
            try:
                path.unlink()
            except OSError as error:
                raise output_error(error, path.name) from error

    def _removed(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}{_REMOVED}")) if self.folder.is_dir() else []


def read_entries(place: str) -> list[IndexEntry]:
    """The entries of the index at an address or path; NeuraxisError says why it cannot be had."""
    if is_address(place):
        return parse_index(read_address(place, MAX_INDEX_BYTES), place)
    path = Path(place)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_INDEX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "unknown fault").lower()
        raise InputError(f"The model index '{path.name}' cannot be opened ({reason}); choose another.") from None
    return parse_index(content, str(path))


def make_folder(folder: Path) -> None:
    """Make the folder of the user's models; OutputError says why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, folder.name) from error


def _shipped() -> list[IndexEntry]:
    try:
        return shipped_index()
    except (NeuraxisError, OSError):
        return []


def _files(folder: Path) -> list[Path]:
    return sorted(Path(path) for path in glob.glob(f"{glob.escape(str(folder))}/*{SUFFIX}"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _key(path: Path) -> tuple:
    try:
        facts = path.stat()
    except OSError:
        return (str(path),)
    return (str(path), facts.st_mtime_ns, facts.st_size)


def _difference(row: StoredModel, model: ModelFile) -> str:
    """Why a model whose own hash is right is not the one that it should be; empty if it is."""
    if row.entry is not None and row.entry.sha256 != model.sha256:
        return f"The model file '{row.path.name}' is not the one that the index names; install it again."
    if row.place == BUNDLED and not any(entry.sha256 == model.sha256 for entry in _shipped()):
        return f"The model file '{row.path.name}' is not the one of the extension; install the extension again."
    return ""


def _refuse_other(target: Path, name: str) -> None:
    """ModelError if another model lies under that file name: it must not vanish without a word."""
    try:
        there = load_model(target).name if target.exists() else name
    except ModelError:
        return
    if there != name:
        raise ModelError(f"The model '{there}' is installed under the file name '{target.name}'; rename the new file.")


def _copy_checked(source: Path, target: Path, sha256: str) -> None:
    """Copy a model that lies beside its index; ModelError if it is another file than the index says."""
    model = load_model(source)
    model.check()
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
        if hashlib.sha256(temporary.read_bytes()).hexdigest() != sha256:
            raise ModelError(f"'{source.name}' is not the file that the index names (another SHA-256); get it again.")
