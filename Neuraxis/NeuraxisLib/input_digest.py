"""What tells whether an input is still the same: a cheap stamp (sizes and times) and a digest of its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

#: Headers whose voxels lie in another file beside them.
_DETACHED = (".mhd", ".nhdr")
_CHUNK_BYTES = 4 << 20

#: An input: one file, one folder, or several files that belong together (a DICOM series among others).
Input = str | Path | Iterable[str]


def input_files(value: Input) -> Iterator[tuple[str, Path]]:
    """(name within the input, path) of every file of an input, in a fixed order; nothing if it is not there."""
    if not isinstance(value, (str, Path)):
        for path in sorted(map(Path, value), key=lambda path: (path.name, str(path))):
            yield path.name, path
        return
    path = Path(value)
    if path.is_file():
        yield path.suffix, path  # a file may be renamed without being another one
        if path.suffix.lower() in _DETACHED:
            yield from ((beside.suffix, beside) for beside in sorted(path.parent.glob(f"{path.stem}.*raw*")))
        return
    for parent, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                file = Path(parent, name)
                yield file.relative_to(path).as_posix(), file


def input_stamp(inputs: Mapping[str, Input]) -> str:
    """A stamp of the inputs' sizes and times of change, without reading them: equal means unchanged."""
    facts = []
    for name, value in sorted(inputs.items()):
        for inner, path in input_files(value):
            try:
                found = path.stat()
            except OSError:  # not there, or an address, which names its images
                facts.append((name, inner, str(path)))
                continue
            facts.append((name, inner, found.st_size, found.st_mtime_ns))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def input_digest(inputs: Mapping[str, Input]) -> str:
    """SHA-256 over the content of all inputs, wherever they lie and whenever they were copied there.

    Raises:
        OSError: a file cannot be read.
    """
    whole = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        for inner, path in input_files(value):
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
            whole.update(json.dumps((name, inner, digest.hexdigest())).encode())
    return whole.hexdigest()


def read_ahead(inputs: Mapping[str, Input]) -> None:
    """Ask the system to read the files of the next case into memory meanwhile (Linux; returns at once)."""
    if not hasattr(os, "posix_fadvise"):
        return
    for value in inputs.values():
        for _, path in input_files(value):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            except OSError:
                return
            finally:
                os.close(descriptor)
