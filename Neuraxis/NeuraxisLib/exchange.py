"""Exchange files: how volumes travel between Slicer and the worker, whole and without a third package.

An exchange file is an uncompressed NRRD that any viewer opens. What NRRD has no field for (unit, positions of
unequal slices, facts about the source) stands in one key of its header, so that the worker sees the very Volume
the sender had. Only numpy is needed, and reading maps the file instead of copying it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume

#: What the names of exchange files end in; other files go through :func:`NeuraxisLib.files.read_volume`.
SUFFIX = ".exchange.nrrd"
_TYPES = {
    "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32",
    "u8": "uint64", "i8": "int64", "f4": "float", "f8": "double",
}  # fmt: skip
_KEY = "neuraxis"


def write_exchange(volume: Volume, path: str | Path) -> Path:
    """Write a (k, j, i) or (t, k, j, i) volume to ``path``, which must end in :data:`SUFFIX`.

    Raises:
        InputError: the voxels are of a type that images do not have (complex numbers, objects).
    """
    array = np.ascontiguousarray(volume.array)
    array = array.view(np.uint8) if array.dtype == bool else array
    code = array.dtype.str[1:]
    if code not in _TYPES:
        raise InputError(f"The image holds values of type {array.dtype}, which no scan has; convert it first.")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    path = Path(path)
    with path.open("wb") as file:
        file.write(_header(volume, array, _TYPES[code]).encode())
        array.tofile(file)
    return path


def read_exchange(path: str | Path) -> Volume:
    """The volume that :func:`write_exchange` wrote; voxels are mapped from the file (changes stay in memory).

    Raises:
        InputError: another file, or one that is damaged.
    """
    path = Path(path)
    try:
        return _read(path)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"The exchange file '{path.name}' is damaged; send the volume again.") from error


def _read(path: Path) -> Volume:
    fields, extra, offset = _read_header(path)
    codes = {name: code for code, name in _TYPES.items()}
    shape = tuple(int(size) for size in fields["sizes"].split())[::-1]
    array = np.memmap(path, dtype="<" + codes[fields["type"]], mode="c", offset=offset, shape=shape)
    return Volume(
        array=array,
        ijk_to_ras=np.array(extra["ijk_to_ras"]),
        unit=extra["unit"],
        slice_origins_ras=None if extra["slice_origins_ras"] is None else np.array(extra["slice_origins_ras"]),
        frame_times_s=None if extra["frame_times_s"] is None else np.array(extra["frame_times_s"]),
        meta=extra["meta"],
    )


def _header(volume: Volume, array: np.ndarray, type_name: str) -> str:
    frames = ["none"] * (array.ndim - 3)
    directions = [f"({','.join(repr(float(x)) for x in volume.ijk_to_ras[:3, axis])})" for axis in range(3)]
    origin = ",".join(repr(float(x)) for x in volume.ijk_to_ras[:3, 3])
    extra = {
        "ijk_to_ras": volume.ijk_to_ras.tolist(),
        "unit": volume.unit,
        "slice_origins_ras": _as_list(volume.slice_origins_ras),
        "frame_times_s": _as_list(volume.frame_times_s),
        "meta": volume.meta,
    }
    lines = [
        "NRRD0005",
        f"type: {type_name}",
        f"dimension: {array.ndim}",
        "space: right-anterior-superior",
        f"sizes: {' '.join(str(size) for size in array.shape[::-1])}",
        f"space directions: {' '.join(directions + frames)}",
        f"kinds: {' '.join(['domain'] * 3 + ['list'] * len(frames))}",
        "endian: little",
        "encoding: raw",
        f"space origin: ({origin})",
        f"{_KEY}:={json.dumps(extra, default=str)}",
    ]
    return "\n".join(lines) + "\n\n"


def _as_list(array: np.ndarray | None) -> list | None:
    return None if array is None else np.asarray(array).tolist()


def _read_header(path: Path) -> tuple[dict[str, str], dict, int]:
    """NRRD fields, the Neuraxis key, and the byte at which the voxels start."""
    fields, extra, offset = {}, {}, 0
    with path.open("rb") as file:
        for raw in file:
            offset += len(raw)
            line = raw.decode().rstrip("\n")
            if not line:
                break
            if line.startswith(f"{_KEY}:="):
                extra = json.loads(line.partition(":=")[2])
            elif ": " in line:
                name, _, value = line.partition(": ")
                fields[name] = value
    if not extra or "sizes" not in fields or fields.get("encoding") != "raw":
        raise InputError(f"'{path.name}' is not an exchange file of Neuraxis; send the volume again.")
    return fields, extra, offset
