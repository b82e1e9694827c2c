"""Pixels of a DICOM series into one array, in HU for CT.

Uncompressed files are read straight into the preallocated array (about three times as fast as SimpleITK's series
reader); everything else goes through pydicom's decoders, then ITK's.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from NeuraxisLib.dicom_headers import SliceHeader
from NeuraxisLib.errors import DependencyError, InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume_checks import check_shape

#: Nothing is thinner than air: CT values below this are padding outside the field of view.
AIR_HU = -1024
#: Largest matrix side of a clinical CT or MR slice; more is a damaged header.
MAX_SIDE = 4096
#: A rescale intercept beyond this is a damaged header.
MAX_INTERCEPT = 1e9
_RAW_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
#: JPEG baseline, extended, lossless (.57, .70), JPEG-LS and JPEG 2000, each with and without loss.
_ITK_SYNTAXES = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)}
#: More of the image than this above _BONE_HU is no patient but a wrong sign bit.
_PLAUSIBLE_BRIGHT_FRACTION = 0.1
_BONE_HU = 3500
#: Every scan of a head has some air around or within it.
_PLAUSIBLE_AIR_FRACTION = 0.001
_AIR_BELOW_HU = -200


def read_pixels(
    headers: list[SliceHeader], progress: Progress, name: str, mixed_scaling: bool = False
) -> tuple[np.ndarray, list[str]]:
    """The values of the slices in the order given, shape (k, j, i), and sentences to tell the user.

    CT comes in HU, as int16 unless its scaling has fractions; other modalities as stored, scaled if the file says.
    A few slices scaled unlike the rest are refused as damaged, unless ``mixed_scaling`` (for callers that can compare
    them with other images of the same place).

    Raises:
        InputError: a file is cut short or cannot be decoded; colour or screenshot pixels; values that are not HU.
        DependencyError: the compression needs a decoder that is not installed.
    """
    notes: list[str] = []
    _check_pixel_kind(headers, name)
    first = headers[0]
    check_shape((len(headers), first.rows, first.columns), name)
    scaling = _scaling(headers)
    whole = all(slope == 1 and intercept == int(intercept) for slope, intercept in scaling)
    array = np.empty((len(headers), first.rows, first.columns), dtype=_stored_dtype(first))
    for k, header in enumerate(headers):
        progress(k / len(headers), "Reading DICOM slices")
        read_stored(header, array[k])
    _decode_file.cache_clear()
    if first.modality == "CT":
        _check_scaling(headers, name, mixed_scaling)
        array = _to_hu(array, headers, scaling, whole, name, notes)
    elif not whole:
        array = _scaled(array, scaling)
    elif any(intercept for _, intercept in scaling):
        array = array.astype(np.int32) + np.array([int(b) for _, b in scaling], dtype=np.int32)[:, None, None]
    return array, notes


def _check_pixel_kind(headers: list[SliceHeader], name: str) -> None:
    for header in headers:
        if header.plain_frames:
            raise InputError(f"{name} is a multi-frame file that does not say where its frames lie; choose another.")
        if header.samples != 1:
            raise InputError(f"{name} holds colour pictures (screenshots), not measured values; choose another series.")
        if header.bits_allocated == 8 and header.modality not in ("MR", "PT"):
            raise InputError(f"{name} holds 8-bit screenshots, not measured values; choose the original series.")
        if header.bits_allocated not in (8, 16):
            raise InputError(f"{name} has {header.bits_allocated}-bit pixels, which are not supported; convert it.")
        if not (0 < header.rows <= MAX_SIDE and 0 < header.columns <= MAX_SIDE):
            raise InputError(f"'{header.name}' claims {header.columns} x {header.rows} pixels; its header is damaged.")
        if not 0 < header.bits_stored <= header.bits_allocated:
            raise InputError(f"'{header.name}' claims {header.bits_stored} bits per pixel; its header is damaged.")
        if not abs(header.intercept or 0.0) <= MAX_INTERCEPT:
            raise InputError(f"'{header.name}' claims an intercept of {header.intercept:g}; its header is damaged.")


def _stored_dtype(header: SliceHeader) -> np.dtype:
    return np.dtype(f"<{'i' if header.signed else 'u'}{header.bits_allocated // 8}")


# -- stored values ---------------------------------------------------------------------------------------------


def read_stored(header: SliceHeader, into: np.ndarray) -> None:
    """Read the stored values of one image into a (rows, columns) array of the series' stored type.

    Raises:
        InputError: the pixel data are cut short or damaged; the message names the file.
        DependencyError: no decoder for this compression is installed.
    """
    if into.dtype != _stored_dtype(header):
        raise InputError(f"'{header.name}' has another pixel type than the rest of its series; export it again.")
    if header.transfer_syntax in _RAW_SYNTAXES or not header.transfer_syntax:
        _read_raw(header, into)
    else:
        into[...] = _decode(header)
    _drop_unused_bits(header, into)


def _read_raw(header: SliceHeader, into: np.ndarray) -> None:
    with open(header.path, "rb") as file:
        file.seek(header.pixel_offset)
        element = file.read(12)
        explicit = element[4:6] in (b"OW", b"OB")
        length = struct.unpack_from("<I", element, 8 if explicit else 4)[0] if len(element) == 12 else 0
        if length == 0xFFFFFFFF:
            raise InputError(f"'{header.name}' does not say how its pixels are compressed; export it again.")
        start = header.pixel_offset + (12 if explicit else 8)
        if length < into.nbytes * header.frames or header.file_size < start + into.nbytes * header.frames:
            raise _cut_short(header)
        if length >= (into.nbytes + into.nbytes // header.rows) * header.frames:  # whole rows more, not padding
            raise InputError(f"'{header.name}' holds more pixels than its header says; send the series again.")
        file.seek(start + header.frame * into.nbytes)
        if file.readinto(memoryview(into).cast("B")) != into.nbytes:
            raise _cut_short(header)


def _cut_short(header: SliceHeader) -> InputError:
    return InputError(f"'{header.path.name}' is cut short: its pixels are not all there; send the series again.")


def _drop_unused_bits(header: SliceHeader, plane: np.ndarray) -> None:
    """Bits above BitsStored are not part of the value (old files keep overlays there); PS3.5 8.1.1."""
    unused = header.bits_allocated - header.bits_stored
    if unused and (plane.max() >> header.bits_stored or (header.signed and plane.min() < 0)):
        plane <<= unused
        plane >>= unused  # arithmetic for signed types, so the sign comes back


def _decode(header: SliceHeader) -> np.ndarray:
    """Stored values of a compressed, deflated or big-endian image."""
    try:
        frames = _decode_file(header.path)
        pixels = frames[header.frame] if header.frames > 1 else frames
    except Exception as error:  # damaged streams fail in many ways, inside several decoders
        pixels = _decode_with_itk(header) if _is_for_itk(header) else None
        if pixels is None:
            raise _decoding_error(header) from error
    if pixels.shape != (header.rows, header.columns):
        raise InputError(f"'{header.name}' is damaged: its pixels are not the size its header says.")
    return pixels


@lru_cache(maxsize=1)  # the frames of a multi-frame file come one by one, but are decoded at once
def _decode_file(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, force=True).pixel_array


def _is_for_itk(header: SliceHeader) -> bool:
    """Whether only ITK may know: pixels of the JPEG family that pydicom cannot decode here.

    Where pydicom can, its failure means damage. On damaged run lengths, on fragments that do not follow each other and
    on streams whose markers are wrong ITK may never return, or crash, and for an element that claims more bytes than
    the file has it takes as much memory, so it gets none of them.
    """
    syntax = UID(header.transfer_syntax, IGNORE)
    if syntax not in _ITK_SYNTAXES or _has_decoder(syntax):
        return False
    fragments = _fragments(header.path)
    return bool(fragments) and _markers_are_right(b"".join(fragments[1:]), header)


def _fragments(path: Path) -> list[bytes]:
    """Compressed pixels: the table of offsets and the fragments; empty unless they follow each other (PS3.5 A.4).

    Empty as well if an element ends beyond the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
            data = b"" if any(map(_is_cut_off, dataset.values())) else dataset.PixelData or b""
        except Exception:  # a damaged header may fail in any way inside the parser
            return []
    found, at = [], 0
    while at + 8 <= len(data):
        tag, length = struct.unpack_from("<4sI", data, at)
        if tag != b"\xfe\xff\x00\xe0":
            return []
        found.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return found if at == len(data) else []


def _is_cut_off(element: RawDataElement | DataElement) -> bool:
    raw = isinstance(element, RawDataElement) and element.length != 0xFFFFFFFF
    return raw and len(element.value or b"") < element.length


def _markers_are_right(stream: bytes, header: SliceHeader) -> bool:
    """Whether a JPEG stream goes from marker to marker to its end and is of the size that the header says (T.81 B).

    Other streams (JPEG 2000, and the scans of JPEG-LS, which hide markers in another way) are left to their decoders.
    """
    if stream[:2] != b"\xff\xd8":
        return stream[:4] == b"\xff\x4f\xff\x51"
    at, frames = 2, 0
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker, (length,) = stream[at + 1], struct.unpack_from(">H", stream, at + 2)
        if marker == 0xF7:
            return True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame
            if struct.unpack_from(">HH", stream, at + 5) != (header.rows, header.columns) or stream[at + 4] > 16:
                return False
            frames += 1
        at += 2 + length
        if marker == 0xDA:
            after = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL).search(stream, at)
            if frames != 1 or after is None:
                return False
            at = after.start()
            if stream[at + 1] == 0xD9:
                return True
    return False


def _decode_with_itk(header: SliceHeader) -> np.ndarray | None:
    """ITK brings decoders for the JPEG family; it scales the values, which is undone. None if it cannot."""
    import SimpleITK

    if header.frames > 1 or (header.slope or 1.0) == 0:
        return None
    try:
        image = SimpleITK.ReadImage(str(header.path), imageIO="GDCMImageIO")
    except RuntimeError:
        return None
    values = SimpleITK.GetArrayFromImage(image)[0].astype(np.float64)
    return np.rint((values - (header.intercept or 0.0)) / (header.slope or 1.0)).astype(np.int32)


def _decoding_error(header: SliceHeader) -> InputError | DependencyError:
    syntax = UID(header.transfer_syntax, IGNORE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = re.fullmatch(r"1\.2\.840\.10008\.1\.2(\.\d+)*", syntax)  # newer than pydicom's list, perhaps
        damaged = not known or syntax == DeflatedExplicitVRLittleEndian or _has_decoder(syntax)
    if damaged:
        return InputError(f"'{header.path.name}' is damaged: its pixels cannot be decoded; send the series again.")
    return DependencyError(
        f"'{header.path.name}' is compressed as '{syntax.name}', for which no decoder is installed; install the Python "
        "packages pylibjpeg, pylibjpeg-libjpeg and pylibjpeg-openjpeg, or export the series uncompressed."
    )


def _has_decoder(syntax: UID) -> bool:
    try:
        from pydicom.pixels import get_decoder  # pydicom 3

        return get_decoder(syntax).is_available
    except ImportError:
        handlers = pydicom.config.pixel_data_handlers  # pydicom 2
        return any(handler.supports_transfer_syntax(syntax) and handler.is_available() for handler in handlers)
    except NotImplementedError:
        return False


def same_pixels(one: SliceHeader, other: SliceHeader) -> bool:
    """Whether two images hold the same values, scaling included: copies of one image."""
    if (one.rows, one.columns, one.slope, one.intercept) != (other.rows, other.columns, other.slope, other.intercept):
        return False
    if _stored_dtype(one) != _stored_dtype(other) or one.samples != 1 or one.bits_allocated not in (8, 16):
        return False
    pair = np.empty((2, one.rows, one.columns), dtype=_stored_dtype(one))
    read_stored(one, pair[0])
    read_stored(other, pair[1])
    return bool((pair[0] == pair[1]).all())


# -- scaling ---------------------------------------------------------------------------------------------------


def _scaling(headers: list[SliceHeader]) -> list[tuple[float, float]]:
    """(slope, intercept) of every slice; (1, 0) where the file gives none."""
    return [(1.0 if h.slope is None else h.slope, 0.0 if h.intercept is None else h.intercept) for h in headers]


def _check_scaling(headers: list[SliceHeader], name: str, mixed: bool) -> None:
    """A few slices scaled unlike all others are damaged headers; scanners scale all alike or each its own way."""
    if any(header.slope == 0 for header in headers):
        raise InputError(f"{name} has a rescale slope of zero; export the series again.")
    if mixed:
        return
    scaling = Counter((header.slope, header.intercept, header.bits_stored) for header in headers)
    usual, count = scaling.most_common(1)[0]
    odd = [header for header in headers if (header.slope, header.intercept, header.bits_stored) != usual]
    if odd and len(odd) <= max(1, count // 10):
        raise InputError(f"'{odd[0].name}' is scaled unlike the rest of its series; send or export the series again.")


def _scaled(array: np.ndarray, scaling: list[tuple[float, float]]) -> np.ndarray:
    slopes, intercepts = np.array(scaling, dtype=np.float32).T
    scaled = array * slopes[:, None, None]
    scaled += intercepts[:, None, None]
    return scaled


def _to_hu(array, headers, scaling, whole: bool, name: str, notes: list[str]) -> np.ndarray:
    if any(header.intercept is None for header in headers) and not _is_plainly_hu(array):
        raise InputError(f"{name} does not say how its values become HU (no rescale intercept); export it again.")
    padded = 0
    hu = array.view(np.int16) if whole and array.dtype.itemsize == 2 else np.empty(array.shape, np.float32)
    air = np.full(array.shape[2], AIR_HU, hu.dtype)  # a row, with which numpy is four times as fast as with a number
    for plane, values, header, (slope, intercept) in zip(array, hu, headers, scaling):
        padding = _padding_mask(plane, header, slope, intercept)
        if not _plane_to_hu(plane, slope, intercept, values) >= AIR_HU:
            padded += int(np.count_nonzero(values < AIR_HU))
            np.maximum(values, air, out=values)
        if padding is not None:
            padded += int(np.count_nonzero(padding))
            values[padding] = AIR_HU
    if padded:
        notes.append(f"{100 * padded / hu.size:.1f} % of the voxels lie outside the field of view and were set to air.")
    _check_hu(hu, name)
    return hu


def _check_hu(hu: np.ndarray, name: str) -> None:
    """Refuse values that no head in air gives: a wrong sign bit, a lost rescale, a stored display window."""
    sample = np.ascontiguousarray(hu[:, ::4, ::4])
    bright, air = (np.count_nonzero(part) / sample.size for part in (sample > _BONE_HU, sample < _AIR_BELOW_HU))
    if bright > _PLAUSIBLE_BRIGHT_FRACTION:
        fault = f"{100 * bright:.0f} % of the voxels are above {_BONE_HU} (wrong sign bit or rescale)"
    elif air < _PLAUSIBLE_AIR_FRACTION:
        fault = "there is no air in view (wrong rescale, or values cut to a display window)"
    else:
        return
    raise InputError(f"{name} has implausible HU: {fault}; export the original series again.")


def _plane_to_hu(plane: np.ndarray, slope: float, intercept: float, hu: np.ndarray) -> float:
    """Scale stored values into ``hu``, float32 or the plane's own memory as int16; returns the lowest.

    Metal beyond the range of int16 is clipped to it, not wrapped.
    """
    if hu.dtype == np.float32:
        hu[...] = plane
        hu *= np.float32(slope)
        hu += np.float32(intercept)
        return float(hu.min())
    shift, low, high = int(intercept), int(plane.min()), int(plane.max())
    if abs(shift) <= 32767 and low + shift >= -32768 and max(high, high + shift) <= 32767:
        if shift:
            hu += np.int16(shift)
    else:
        hu[...] = np.clip(plane.astype(np.int32) + shift, -32768, 32767)
    return low + shift


def _padding_mask(plane: np.ndarray, header: SliceHeader, slope: float, intercept: float) -> np.ndarray | None:
    """Pixels of the declared padding value, unless it is a tissue value (some files declare 0, which is water)."""
    if header.padding is None:
        return None
    padding = header.padding
    if plane.dtype.kind == "u" and padding < 0:
        padding += 1 << header.bits_allocated
    hu = padding * slope + intercept
    return plane == padding if AIR_HU < hu < -900 or hu > _BONE_HU else None


def _is_plainly_hu(array: np.ndarray) -> bool:
    """Whether values without a rescale can only be HU: signed, with air near -1000 and water and tissue near 0."""
    if array.dtype.kind != "i":
        return False
    sample = array[:, ::4, ::4]
    air = np.mean((sample > -1100) & (sample < -900))
    tissue = np.mean((sample > -150) & (sample < 150))
    return bool(air > 0.02 and tissue > 0.02 and np.mean(sample > _BONE_HU) < 0.01)
