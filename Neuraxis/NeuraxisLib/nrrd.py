"""NRRD writing: any position matrix, sheared ones too, exactly; uncompressed for exchange, gzip for keeping.

Our own few lines rather than ITK's writer, so that a full disk is an error and not a short file.
Format: https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume

_TYPES = {
    "i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32",
    "i8": "int64", "u8": "uint64", "f4": "float", "f8": "double",
}  # fmt: skip


def write_nrrd(volume: Volume, file: BinaryIO, compress: bool = False, keys: Mapping[str, str] | None = None) -> None:
    """Write a volume on equal slice gaps as NRRD in LPS coordinates into an open binary file.

    The voxel unit travels as the key ``unit``; ``keys`` are further key/value pairs of the header (UTF-8). Frames
    become the fastest axis with their times in s, as Slicer writes and reads sequences.

    Raises:
        InputError: a pixel type or dimension that NRRD files of ours do not have.
    """
    array = volume.array
    if array.ndim == 4:
        array = np.moveaxis(array, 0, -1)
    elif array.ndim != 3:
        raise InputError("Only images of three dimensions and their frames are written as NRRD.")
    if array.dtype == bool:
        array = array.view(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.str[1:] not in _TYPES:
        raise InputError(f"Images of type {array.dtype} cannot be written as NRRD.")
    file.write(_header(volume, array, compress, keys or {}).encode())
    data = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    if compress:
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=4, mtime=0, filename="") as packed:
            packed.write(data.data)
    else:
        file.write(data.data)


def _header(volume: Volume, array: np.ndarray, compress: bool, keys: Mapping[str, str]) -> str:
    lps = np.diag([-1.0, -1.0, 1.0]) @ volume.ijk_to_ras[:3] + 0.0  # + 0.0 makes -0.0 plain
    frames = ["time"] if array.ndim == 4 else []
    vectors = ["(" + ",".join(repr(float(x)) for x in column) + ")" for column in lps.T]
    lines = [
        "NRRD0004",
        f"type: {_TYPES[array.dtype.str[1:]]}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(size) for size in array.shape[::-1]),
        "space directions: " + " ".join(["none"] * len(frames) + vectors[:3]),
        "kinds: " + " ".join(["list"] * len(frames) + ["domain"] * 3),
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: {vectors[3]}",
    ]
    if frames:
        lines += ['labels: "time" "" "" ""', 'units: "s" "" "" ""']
        times = np.arange(array.shape[3]) if volume.frame_times_s is None else volume.frame_times_s
        lines += ["axis 0 index type:=numeric", "axis 0 index values:=" + " ".join(f"{t:.4f}" for t in times)]
    if volume.unit:
        lines.append(f"unit:={volume.unit}")
    # line ends inside a value are escaped, as the format asks
    lines += [f"{key}:={value}".replace("\\", "\\\\").replace("\n", "\\n") for key, value in keys.items()]
    return "\n".join(lines) + "\n\n"
