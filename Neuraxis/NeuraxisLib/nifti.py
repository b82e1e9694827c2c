"""NIfTI-1 and NIfTI-2 files, read and written with the position matrix exactly as the header has it.

Our own, because ITK replaces a sheared matrix by the nearest rotation without an error (13 mm at 15 degrees of
gantry tilt). Header layout: https://nifti.nimh.nih.gov/nifti-1 and nifti-2.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_checks import check_shape

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_CODES = {np.dtype(name): code for code, name in _DTYPES.items()}
_COLOUR = (128, 2304)
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_SECONDS_PER_UNIT = {0: 1.0, 8: 1.0, 16: 1e-3, 24: 1e-6}
#: No scan is shifted by more values, and no header followed by more bytes of extensions.
_LARGEST_OFFSET = 1 << 30
#: Largest difference of sform and qform, anywhere in the image, that passes as rounding.
_FORM_TOLERANCE_MM = 0.5


class _Header(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]  # as stored: i, j, k, t, ...
    pixdim: np.ndarray
    offset: int
    slope: float
    intercept: float
    qform_code: int
    sform_code: int
    quaternion: np.ndarray  # b, c, d, then offsets x, y, z
    sform: np.ndarray  # 3x4
    units: int
    toffset: float


def read_nifti(path: Path) -> Volume:
    """Read ``.nii`` or ``.nii.gz`` as (k, j, i) or (t, k, j, i) with its stored whole-number type where it has one.

    The sform is used if there is one, else the qform; where both are set and differ, ``meta["warnings"]`` says so.

    Raises:
        InputError: not NIfTI, damaged, cut short, colour or vector pixels.
        GeometryError: no usable position matrix.
    """
    name = path.name
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as file:
                header = _read_header(file, name)
                array = _read_array(file, header, name)
                _check_ending(file, header, name)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"'{name}' is damaged or cut short; copy or export it again.") from error
    matrix, warnings = _matrix(header, name)
    frames = None
    if array.ndim == 4:
        step = float(header.pixdim[4]) * _SECONDS_PER_UNIT.get(header.units & 0x38, 1.0)
        frames = header.toffset + np.arange(len(array)) * step
    meta = {"format": "NIfTI", "warnings": warnings}
    return Volume(array=array, ijk_to_ras=matrix, frame_times_s=frames, meta=meta)


def _read_header(file: BinaryIO, name: str) -> _Header:
    start = file.read(4)
    for order in "<>":
        size = struct.unpack(order + "i", start)[0] if len(start) == 4 else 0
        if size in (348, 540):
            data = start + file.read(size - 4)
            break
    else:
        raise InputError(f"'{name}' is not a NIfTI image; choose an image file or a DICOM folder.")
    if len(data) < size:
        raise EOFError
    layout = _layout_1 if size == 348 else _layout_2
    header = layout(data, order, name)
    with suppress(OSError):  # gzip streams seek forward by reading
        file.seek(max(header.offset, size))
    return header


def _layout_1(data: bytes, order: str, name: str) -> _Header:
    if data[344:347] not in (b"n+1",):
        raise InputError(f"'{name}' is not a single-file NIfTI image; convert it to .nii.gz.")
    dim = struct.unpack_from(order + "8h", data, 40)
    code = struct.unpack_from(order + "h", data, 70)[0]
    pixdim = np.array(struct.unpack_from(order + "8f", data, 76), dtype=float)
    offset, slope, intercept = struct.unpack_from(order + "3f", data, 108)
    qform, sform = struct.unpack_from(order + "2h", data, 252)
    forms = np.array(struct.unpack_from(order + "18f", data, 256), dtype=float)
    toffset = struct.unpack_from(order + "f", data, 136)[0]
    return _Header(
        _dtype(code, order, name), _shape(dim, name), pixdim, _offset(offset, name), slope, intercept, qform, sform,
        forms[:6], forms[6:].reshape(3, 4), data[123], toffset,
    )  # fmt: skip


def _layout_2(data: bytes, order: str, name: str) -> _Header:
    code = struct.unpack_from(order + "h", data, 12)[0]
    dim = struct.unpack_from(order + "8q", data, 16)
    pixdim = np.array(struct.unpack_from(order + "8d", data, 104))
    offset = struct.unpack_from(order + "q", data, 168)[0]
    slope, intercept = struct.unpack_from(order + "2d", data, 176)
    toffset = struct.unpack_from(order + "d", data, 216)[0]
    qform, sform = struct.unpack_from(order + "2i", data, 344)
    forms = np.array(struct.unpack_from(order + "18d", data, 352))
    units = struct.unpack_from(order + "i", data, 500)[0]
    return _Header(
        _dtype(code, order, name), _shape(dim, name), pixdim, _offset(offset, name), slope, intercept, qform, sform,
        forms[:6], forms[6:].reshape(3, 4), units, toffset,
    )  # fmt: skip


def _dtype(code: int, order: str, name: str) -> np.dtype:
    if code in _COLOUR:
        raise InputError(f"'{name}' holds colours, not measured values; choose the original grey-value image.")
    if code not in _DTYPES:
        raise InputError(f"'{name}' holds pixels of a kind that is not supported (NIfTI type {code}); convert it.")
    return np.dtype(order + _DTYPES[code])


def _offset(value: float, name: str) -> int:
    """Where the voxels start: a real header has kilobytes of extensions before them, no more."""
    if not abs(value) < _LARGEST_OFFSET:
        raise InputError(f"'{name}' has a damaged header (voxels that start at byte {value:g}); export it again.")
    return int(value)


def _shape(dim: tuple[int, ...], name: str) -> tuple[int, ...]:
    if not 1 <= dim[0] <= 7:
        raise InputError(f"'{name}' has a damaged header (dimension {dim[0]}); export it again.")
    shape = list(dim[1 : dim[0] + 1])
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) < 3 or shape[2] == 1:
        raise InputError(f"'{name}' is a two-dimensional image; choose a whole series with all its slices.")
    if len(shape) > 4:
        raise InputError(f"'{name}' holds several values per voxel; choose an image with one grey value per voxel.")
    check_shape(tuple(shape[::-1]), name)
    return tuple(shape)


def _read_array(file: BinaryIO, header: _Header, name: str) -> np.ndarray:
    """The scaled values; whole numbers stay whole where the scaling is a whole-number shift."""
    array = np.empty(header.shape[::-1], dtype=header.dtype)
    view, done = memoryview(array).cast("B"), 0
    while done < len(view):
        count = file.readinto(view[done : done + (1 << 24)])
        if not count:
            raise EOFError
        done += count
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    slope, intercept = header.slope, header.intercept
    if not np.isfinite([slope, intercept]).all() or slope == 0 or (slope, intercept) == (1, 0):
        return array
    whole = slope == 1 and intercept == int(intercept) and abs(intercept) < _LARGEST_OFFSET
    if whole and array.dtype.kind in "iu" and array.dtype.itemsize <= 2:
        low, high = int(array.min()) + int(intercept), int(array.max()) + int(intercept)
        small = low >= -32768 and high <= 32767
        return (array.astype(np.int32) + int(intercept)).astype(np.int16 if small else np.int32)
    return array.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _check_ending(file: BinaryIO, header: _Header, name: str) -> None:
    """Read on to the end: a whole slice more means a damaged header; a packed file has its check sum there."""
    slice_bytes = header.shape[0] * header.shape[1] * header.dtype.itemsize
    surplus = 0
    while surplus < slice_bytes and (chunk := file.read(min(slice_bytes, 1 << 22))):
        surplus += len(chunk)
    if surplus >= slice_bytes:
        raise InputError(f"'{name}' holds more than its header says; its header is damaged, so export it again.")


def _matrix(header: _Header, name: str) -> tuple[np.ndarray, list[str]]:
    """IJK-to-RAS (NIfTI's own frame is RAS) in mm, and what to tell the user about it."""
    qform = _qform(header) if header.qform_code > 0 else None
    sform = np.vstack([header.sform, [0, 0, 0, 1]]) if header.sform_code > 0 else None
    warnings = []
    if sform is None and qform is None:
        raise GeometryError(f"'{name}' does not say how it lies in the patient; convert it again from its DICOM files.")
    if sform is not None and qform is not None:
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
        corners[:, :3] *= header.shape[:3]
        difference = float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())
        if not difference <= _FORM_TOLERANCE_MM:
            warnings.append(f"The file gives two positions that differ by {difference:.1f} mm; the sform was used.")
    matrix = sform if sform is not None else qform
    matrix = matrix.copy()
    matrix[:3] *= _MM_PER_UNIT.get(header.units & 7, 1.0)
    steps = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or (steps <= 0).any() or abs(np.linalg.det(matrix[:3, :3] / steps)) < 1e-3:
        raise GeometryError(f"'{name}' has a position matrix that is singular or not finite; convert it again.")
    return matrix, warnings


def _qform(header: _Header) -> np.ndarray:
    """The matrix of the quaternion (NIfTI-1 method 2)."""
    b, c, d = header.quaternion[:3]
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
    ])  # fmt: skip
    matrix = np.eye(4)
    handed = -1.0 if header.pixdim[0] < 0 else 1.0
    matrix[:3, :3] = rotation * (header.pixdim[1:4] * (1, 1, handed))
    matrix[:3, 3] = header.quaternion[3:]
    return matrix


def write_nifti(volume: Volume, file: BinaryIO, name: str) -> None:
    """Write a volume as NIfTI-1 into an open file.

    Raises:
        GeometryError: the volume is sheared: most programs straighten a sheared NIfTI without saying so.
    """
    if volume.is_sheared:
        raise GeometryError(f"'{name}' cannot be NIfTI: the slices are tilted, which NIfTI cannot hold; use .nrrd.")
    volume.require_perpendicular_rows()
    array = np.ascontiguousarray(volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    file.write(_header_bytes(volume, array))
    file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def _header_bytes(volume: Volume, array: np.ndarray) -> bytes:
    shape = array.shape[::-1]
    steps = np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)
    times = volume.frame_times_s
    frame_step = float(np.mean(np.diff(times))) if times is not None and len(times) > 1 else 0.0
    pixdim = [1.0, *steps, frame_step, 0.0, 0.0, 0.0]
    rotation = volume.ijk_to_ras[:3, :3] / steps
    if np.linalg.det(rotation) < 0:
        pixdim[0] = -1.0
        rotation = rotation * (1, 1, -1)
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", header, 70, _CODES[array.dtype.newbyteorder("=")], array.dtype.itemsize * 8)
    struct.pack_into("<8f", header, 76, *pixdim)
    struct.pack_into("<3f", header, 108, 352.0, 1.0, 0.0)
    header[123] = 2 | 8  # mm and seconds
    struct.pack_into("<f", header, 136, float(times[0]) if times is not None else 0.0)
    struct.pack_into("<2h", header, 252, 1, 1)  # both forms: scanner coordinates
    struct.pack_into("<6f", header, 256, *_quaternion(rotation), *volume.ijk_to_ras[:3, 3])
    struct.pack_into("<12f", header, 280, *volume.ijk_to_ras[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """(b, c, d) of a rotation matrix, with a >= 0: the eigenvector of Bar-Itzhack's symmetric matrix (2000)."""
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = rotation.T.T
    k = np.array([
        [xx - yy - zz, 0, 0, 0],
        [yx + xy, yy - xx - zz, 0, 0],
        [zx + xz, zy + yz, zz - xx - yy, 0],
        [yz - zy, zx - xz, xy - yx, xx + yy + zz],
    ])  # fmt: skip
    _, vectors = np.linalg.eigh(k, UPLO="L")
    b, c, d, a = vectors[:, -1]
    sign = -1.0 if a < 0 else 1.0
    return np.array([b, c, d]) * sign
