"""Files that are either written whole or not at all, and disk errors in words."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from NeuraxisLib.errors import OutputError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file is larger than this disk or account allows; choose another folder",
    errno.EACCES: "the folder may not be written to; choose a folder of your own",
    errno.EPERM: "the folder may not be written to; choose a folder of your own",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; create it or choose another",
    errno.ENOTDIR: "its folder is a file; choose another folder",
    errno.EISDIR: "a folder of that name is in the way; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}

#: Names of the temporary files of :func:`atomic_write`.
_TEMPORARY = re.compile(r"\.[0-9a-f]{12}(\.\w+){0,2}")


def output_error(error: OSError, name: str) -> OutputError:
    """The OutputError that says in one sentence why the file called ``name`` could not be written."""
    reason = _REASONS.get(error.errno or 0, f"{(error.strerror or 'the disk failed').lower()}; choose another folder")
    return OutputError(f"'{name}' could not be written: {reason}.")


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes ``path`` only when the block ends without an error.

    The temporary file lies in the same folder and ends in the same suffixes, so that writers that choose a format
    by the name work. On success it is flushed to the disk and renamed over ``path``; on any error it is removed
    and the old file, if there was one, is as before.

    Raises:
        OutputError: the disk is full, the folder is missing or may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}{''.join(path.suffixes[-2:])}")
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder")
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise output_error(error, path.name) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of :func:`atomic_write` in a folder to which nobody else is writing."""
    for path in list(folder.glob(".*")):
        if _TEMPORARY.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Flush the renaming itself; where folders cannot be opened (Windows) the system does so in time."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary folder to fill; it becomes ``folder`` only when the block ends without an error.

    Raises:
        OutputError: ``folder`` is there and not empty, the disk is full, or it may not be written to.
    """
    folder = Path(os.path.abspath(folder))
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise OutputError(f"'{folder.name}' is there and not an empty folder; name a new one.")
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise output_error(error, folder.name) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def locked(file: BinaryIO) -> bool:
    """Whether this process now holds the lock of an open file; the system lets go of it however the process ends."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk that knows no locks
        return True
    return True
