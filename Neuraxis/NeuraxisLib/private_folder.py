"""Folders for what is temporary and a patient's: for this account alone, and removed even after a kill.

Who makes one holds a lock on a file in it for as long as he lives. The next to make one removes those whose lock
nobody holds: what a kill or a power cut left. The lock is the system's (flock), so that neither a number of a process
that was given again nor a process in another container is taken for the owner; Windows removes none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX, _LOCK = "neuraxis-", ".owner"
#: Folder -> descriptor of its lock.
_held: dict[Path, int] = {}


def private_folder(kind: str) -> Path:
    """A new folder (mode 0700) below the system's temporary folder; ``kind`` is a word in its name."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
    with suppress(OSError, ImportError):  # a disk or a system (Windows) that knows no such locks: then it is not swept
        _hold(folder)
    return folder


def remove_private(folder: str | Path) -> None:
    """Remove a folder of :func:`private_folder` and let go of its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    descriptor = _held.pop(Path(folder), None)
    if descriptor is not None:
        os.close(descriptor)


def sweep() -> None:
    """Remove the private folders of this account whose owner is gone."""
    if os.name != "posix":
        return
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):
            if not lock.parent.is_symlink() and lock.lstat().st_uid == os.geteuid() and _is_free(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)


def _hold(folder: Path) -> None:
    """Lock the file before it gets the name by which others look for it."""
    import fcntl

    made = folder / f"{_LOCK}.new"
    descriptor = os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made.rename(folder / _LOCK)
    _held[folder] = descriptor


def _is_free(lock: Path) -> bool:
    """Whether nobody holds the lock; BlockingIOError, an OSError, if somebody does."""
    import fcntl

    descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
    return True
