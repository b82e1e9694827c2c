"""Folders of other computers in which results are put: s3://, gs://, sftp://, ftp:// and whatever else fsspec reaches.

A result is made in a private folder of this computer and copied as a whole. Other stores than disks cannot rename a
folder, so what is whole is told by two files: ``unfinished.json`` is written first and removed last, and result.json
comes after all other files. A folder in which ``unfinished.json`` lies, or no result.json, is no result, wherever the
copying was cut off. Credentials are those that the file system's package finds by itself (its environment variables
and settings), on every computer that computes.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from NeuraxisLib.atomic import output_error
from NeuraxisLib.errors import DependencyError, InputError, NeuraxisError, OutputError
from NeuraxisLib.private_folder import private_folder, remove_private
from NeuraxisLib.task import Progress

UNFINISHED = "unfinished.json"
_NOTE = "A result of Neuraxis is being copied to this folder; if that was cut off, run the case again."
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_LOCAL = ("file", "local")
_UPLOAD = (0.95, 1.0)

_T = TypeVar("_T")


def is_remote(place: str | Path) -> bool:
    """Whether a place is an address such as ``s3://bucket/study``, not a path (``file://`` is one) of this computer."""
    found = _ADDRESS.match(str(place)) if isinstance(place, str) else None
    return found is not None and found[1].lower() not in _LOCAL


def local_path(place: str | Path) -> Path:
    """A path of this computer, also where it is given as ``file:///folder``."""
    if isinstance(place, str) and _ADDRESS.match(place) and not is_remote(place):
        from urllib.request import url2pathname  # brings ssl and http, which a panel need not wait for

        return Path(url2pathname(unquote(urlsplit(place).path)))
    return Path(place)


def without_password(address: str) -> str:
    """An address as it may be shown: ``sftp://me:secret@host/a`` without the password."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1@", address)


def address_of(folder: Path | RemoteFolder) -> str:
    """The path or address by which another process finds a folder."""
    return folder.address if isinstance(folder, RemoteFolder) else str(folder)


class RemoteFolder:
    """A folder, or a file in it, at an address; ``/`` goes deeper, as with a Path.

    A connection that was lost is made anew once. ``str()`` hides the password that an address may hold.

    Args:
        address: such as ``s3://bucket/study``.

    Raises:
        DependencyError: the package that reaches such places is not installed.
        OutputError: the server cannot be reached or refuses.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self._link = _Link(self.address)
        self._path = self._link.root

    def __truediv__(self, name: str) -> RemoteFolder:
        below = object.__new__(RemoteFolder)
        below.address, below._link, below._path = f"{self.address}/{name}", self._link, f"{self._path}/{name}"
        return below

    def __str__(self) -> str:
        return without_password(self.address)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    @property
    def renames(self) -> bool:
        """Whether the store can give a file another name; those that cannot (s3 and its kind) put each file whole."""
        import fsspec

        return type(self._link.fs).mv is not fsspec.AbstractFileSystem.mv

    def read_bytes(self) -> bytes:
        """The content of this file; OSError if there is none, or it cannot be read."""
        try:
            return self._do(lambda fs: fs.cat_file(self._path))
        except OutputError as error:
            raise OSError(errno.EIO, str(error)) from error

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content of this file as text; OSError if there is none, or it cannot be read."""
        return self.read_bytes().decode(encoding)

    def files_below(self) -> list[str]:
        """Names, relative to this folder, of all files in it and in its folders."""

        def look(fs: Any) -> list[str]:
            return [path[len(fs._strip_protocol(self._path)) :].lstrip("/") for path in fs.find(self._path)]

        return sorted(self._do(look, absent=list))

    def files(self) -> set[str]:
        """Names of the files that lie directly in this folder."""

        def look(fs: Any) -> set[str]:
            found = fs.ls(self._path, detail=True)
            return {entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "file"}

        return self._do(look, absent=set)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file into this folder."""

        def pipe(fs: Any) -> None:
            self._make(fs)
            fs.pipe_file(f"{self._path}/{name}", content)

        self._do(pipe)

    def put(self, files: Collection[Path]) -> None:
        """Copy files of this computer into this folder, under their names."""

        def copy(fs: Any) -> None:
            self._make(fs)
            fs.put([str(file) for file in files], [f"{self._path}/{file.name}" for file in files])

        if files:
            self._do(copy)

    def put_whole(self, file: Path) -> None:
        """Copy a file so that one of that name is the earlier or the new one, never a part."""
        if not self.renames:
            self.put([file])
            return
        other = f"{file.name}.part"

        def copy(fs: Any) -> None:
            self._make(fs)
            fs.put_file(str(file), f"{self._path}/{other}")
            fs.mv(f"{self._path}/{other}", f"{self._path}/{file.name}")

        self._do(copy)

    def remove(self, names: Collection[str]) -> None:
        """Remove files that lie in this folder."""
        for name in names:
            self._do(lambda fs, name=name: fs.rm_file(f"{self._path}/{name}"), absent=lambda: None)

    def check_usable(self) -> None:
        """Write, list, read and remove a small file, so that what is refused is told before hours of computing.

        Raises:
            OutputError: any of that is refused.
        """
        name = f"neuraxis-check-{os.getpid()}.tmp"
        self.write(name, b"check")
        if name not in self.files() or self._do(lambda fs: fs.cat_file(f"{self._path}/{name}")) != b"check":
            raise OutputError(f"What is written to '{self}' cannot be read there; choose another place.")
        self.remove([name])

    def _make(self, fs: Any) -> None:
        """Make this folder, where a store has folders; one that has none might make a bucket instead."""
        if self.renames:
            fs.makedirs(self._path, exist_ok=True)

    def _do(self, action: Callable[[Any], _T], absent: Callable[[], _T] | None = None) -> _T:
        """Do something with the file system; ``absent`` gives the answer where something is not there."""
        try:
            self._link.fs.invalidate_cache()  # others write there too
            try:
                return action(self._link.fs)
            except Exception as error:
                if not _is_lost(error):
                    raise
                self._link.reopen()
                return action(self._link.fs)
        except FileNotFoundError as error:
            if absent is not None:
                return absent()
            raise _refused(error, str(self)) from error
        except NeuraxisError:
            raise
        except Exception as error:
            raise _refused(error, str(self)) from error


class _Link:
    """The file system of an address, opened anew when the connection was lost."""

    def __init__(self, address: str):
        self._address = address
        self.fs, self.root = self._opened()

    def reopen(self) -> None:
        """Connect again."""
        self.fs, self.root = self._opened(skip_instance_cache=True)

    def _opened(self, **settings: Any) -> tuple[Any, str]:
        protocol = self._address.partition("://")[0]
        try:
            import fsspec
        except ImportError as error:
            raise DependencyError(
                f"Results at {protocol}:// need the package 'fsspec'; install 'neuraxis[cloud]'."
            ) from error
        try:
            return fsspec.core.url_to_fs(self._address, **settings)
        except ImportError as error:
            package = _missing(error) or "its package of fsspec"
            raise DependencyError(
                f"Results at {protocol}:// need the package '{package}'; install it with 'pip install {package}' "
                "wherever cases are computed."
            ) from error
        except ValueError as error:
            raise OutputError(
                f"Nothing is known of places at {protocol}://, or the address is incomplete; write it as "
                "s3://bucket/folder, gs://bucket/folder or sftp://name@host/folder."
            ) from error
        except Exception as error:
            raise _refused(error, without_password(self._address)) from error


# -- a result ---------------------------------------------------------------------------------------------------


@contextmanager
def uploaded(address: str, progress: Progress) -> Iterator[tuple[Path, Progress]]:
    """Give a private folder's path for a result and the progress of making it; at the end it is copied to the address.

    If the block ends with an error, nothing is copied; if the copying does, nothing stays there.

    Raises:
        OutputError: the folder at the address holds something else than a result, or the store refuses.
    """
    target = RemoteFolder(address)
    _parts_to_replace(target)
    private = private_folder("upload")
    try:
        folder = private / target.name
        yield folder, progress.part(0.0, _UPLOAD[0])
        upload(folder, target, progress.part(*_UPLOAD))
    finally:
        remove_private(private)


def upload(folder: Path, target: RemoteFolder, progress: Progress | None = None) -> None:
    """Copy a whole result folder to an address, in the place of an earlier result.

    Raises:
        OutputError: something else lies there, or the store refuses.
    """
    from NeuraxisLib.result_folder import RESULT_FILE

    (progress or Progress())(0.0, "Copying the result")  # the last moment at which a cancel changes nothing
    last = folder / RESULT_FILE
    others = sorted(path for path in folder.iterdir() if path != last)
    new = {path.name for path in (*others, last)}
    earlier = _parts_to_replace(target)
    note = {"note": _NOTE, "files": sorted(earlier | new)}
    try:
        target.write(UNFINISHED, json.dumps(note).encode())
        target.remove(sorted(earlier & {RESULT_FILE} | earlier - new))
        target.put(others)
        target.put([last])
        target.remove([UNFINISHED])
    except BaseException:
        with suppress(NeuraxisError):
            target.remove([name for name in sorted(target.files() & (earlier | new)) if name != RESULT_FILE])
            target.remove(sorted(target.files() & {RESULT_FILE, UNFINISHED}))
        raise


@contextmanager
def local_copy(folder: Path | RemoteFolder) -> Iterator[Path]:
    """A result folder on this computer: itself, or a private copy that goes at the end. OSError if it is not there."""
    if isinstance(folder, Path):
        yield folder
        return
    private = private_folder("copy")
    try:
        copy = private / folder.name
        copy.mkdir()
        for name in folder.files():
            folder._do(lambda fs, name=name: fs.get_file(f"{folder._path}/{name}", str(copy / name)))
        yield copy
    finally:
        remove_private(private)


def _parts_to_replace(target: RemoteFolder) -> set[str]:
    """Names of the files of an earlier result, whole or cut off; OutputError if others lie there."""
    from NeuraxisLib.result_folder import RESULT_FILE, written_names

    there = target.files()
    if UNFINISHED in there:
        try:
            return {str(name) for name in json.loads((target / UNFINISHED).read_text())["files"]} & there
        except (OSError, ValueError, KeyError, TypeError):  # cut off itself: what was there is still whole
            there = there - {UNFINISHED}
    names = written_names(target) if RESULT_FILE in there else set()
    if there - names:
        raise OutputError(
            f"The folder '{target.name}' holds '{sorted(there - names)[0]}', which is no part of an earlier result; "
            "move it away or name another folder."
        )
    return there


# -- faults in words --------------------------------------------------------------------------------------------


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}


def _is_lost(error: BaseException) -> bool:
    """Whether the connection broke or the server was busy, so that another try may help."""
    return bool(_kinds(error) & {"EOFError", "ConnectionError", "TimeoutError", "error_temp", "SSHException"})


def _missing(error: ImportError) -> str:
    names = [(one.name or "").partition(".")[0] for one in _chain(error) if isinstance(one, ImportError)]
    return next((name for name in reversed(names) if name), "")


_ABSENT = ({"FileNotFoundError", "NoSuchBucket"}, "there is no such bucket or folder; make it first")
_REASONS = (
    (
        {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "CredentialRetrievalError"},
        "no credentials were found; set them up as its package says",
    ),
    (
        {"PermissionError", "error_perm", "AuthenticationException", "ClientAuthenticationError"},
        "access is refused; check the credentials and that they may list, write and remove there",
    ),
    _ABSENT,
    (
        {
            "ConnectionError", "TimeoutError", "EOFError", "error_temp", "gaierror", "EndpointConnectionError",
            "ConnectTimeoutError", "ClientConnectorError", "SSHException", "HTTPClientError",
        },
        "the server does not answer; check the address and the network",
    ),
    ({"NotImplementedError"}, "nothing can be written to places of this kind; choose another"),
)  # fmt: skip


def _refused(error: Exception, place: str) -> OutputError:
    """The sentence for what a store refuses."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return output_error(error, place)
    kinds = _kinds(error)
    for names, reason in _REASONS:
        if kinds & names:
            return OutputError(f"'{place}' cannot be used for results: {reason}.")
    words = " ".join(str(error).split())[:150].rstrip(".") or type(error).__name__
    return OutputError(f"'{place}' cannot be used for results ({words}); choose another place.")


def refuse_memory(place: str) -> None:
    """InputError for an address that other processes would not see."""
    if place.startswith("memory://"):
        raise InputError("What is at memory:// is seen by one process only; give an address that workers reach too.")
