"""The elements of a DICOM header as pydicom gives them, in a fraction of its time.

A reader of thousands of headers asks for few of their elements, and most of these say the same in every file. Plain
headers (little endian, nothing odd) are walked here from element to element, and each different value is converted
once, by pydicom. What is not plain is not judged here: ``read_elements`` leaves the file to pydicom.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from struct import Struct, error
from typing import Any

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR
from pydicom.values import convert_value

#: How much of a file is looked at: nearly all headers are shorter than the first, those with large private elements
#: than the second.
_FIRST_BYTES = (1 << 14, 1 << 18)
_META_GROUP, _META_LENGTH = 0x0002, 0x00020000
_META_UIDS = (0x00020002, 0x00020010)
_CHARACTER_SET, _PIXEL_REPRESENTATION, _FRAME_GROUPS = 0x00080005, 0x00280103, 0x52009230
#: What ends a header: integer, float or double pixels.
_PIXELS = frozenset((0x7FE00010, 0x7FE00008, 0x7FE00009))
_DELIMITER_GROUP, _ITEM, _SEQUENCE_END = 0xFFFE, 0xFFFEE000, 0xFFFEE0DD
_ITEM_BYTES, _ITEM_END_BYTES = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0"
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_SHORT_VRS = frozenset(vr.encode() for vr in VR if len(vr) == 2) - _LONG_VRS
#: Those that mean the same whatever else the header says, but for its character set.
_DIRECT_VRS = frozenset(vr.value for vr in VR if len(vr) == 2) - {"SQ", "UN"}
_EXPLICIT, _IMPLICIT, _LENGTH = (Struct(form).unpack_from for form in ("<HH2sH", "<HHI", "<I"))


#: An element as it is in the file: tag, value representation (None where the syntax gives none), value.
Raw = tuple[int, bytes | None, bytes]
#: Turns an element into a value, given the two that its meaning may hang on: character set, pixel representation.
Convert = Callable[[Raw, Raw | None, Raw | None], Any]
#: Value representation, start and end of the value.
_Place = tuple[bytes | None, int, int]


class _NotPlain(Exception):
    """Something in the header for which pydicom has a rule of its own."""


class Elements:
    """The elements of a plain header; ``get`` and ``in`` by keyword, as of a pydicom ``Dataset``.

    Sequences of undefined length are not among them.
    """

    def __init__(self, data: bytes, places: dict[int, _Place], pixels_at: int, convert: Convert) -> None:
        self.pixels_at = pixels_at  # where the pixel element starts in the file
        self._data, self._places, self._convert = data, places, convert
        self._context = [self._raw(tag) if tag in places else None for tag in (_CHARACTER_SET, _PIXEL_REPRESENTATION)]

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self._places

    def get(self, keyword: str, default: Any = None) -> Any:
        """The value, or the default where there is no such element; errors are those of pydicom."""
        tag = _tag(keyword)
        if tag not in self._places:
            return default
        try:
            return self._convert(self._raw(tag), *self._context)
        except AttributeError:  # as Dataset.get
            return default

    def _raw(self, tag: int) -> Raw:
        vr, start, end = self._places[tag]
        return tag, vr, self._data[start:end]


def converter() -> Convert:
    """A conversion that remembers; for the files of one scan and no longer, as values may name the patient."""
    return lru_cache(maxsize=4096)(_convert)


def _convert(raw: Raw, character_set: Raw | None, pixel_representation: Raw | None) -> Any:
    element = _element_of(raw)
    encodings = default_encoding if character_set is None else _encodings(character_set)
    vr = element.VR or dictionary_VR(element.tag)
    if vr in _DIRECT_VRS:
        return convert_value(vr, element, encodings)
    context = [] if pixel_representation is None else [_element_of(pixel_representation)]
    dataset = Dataset({one.tag: one for one in (*context, element)})
    dataset.set_original_encoding(element.is_implicit_VR, True, encodings)
    return dataset[element.tag].value


def _element_of(raw: Raw) -> RawDataElement:
    tag, vr, value = raw
    return RawDataElement(BaseTag(tag), vr and vr.decode(), len(value), value, 0, vr is None, True)


@lru_cache(maxsize=64)
def _encodings(character_set: Raw) -> list[str]:
    return convert_encodings(convert_value("CS", _element_of(character_set)))


@lru_cache(maxsize=1024)
def _tag(keyword: str) -> int:
    return int(tag_for_keyword(keyword) or 0)


def read_elements(path: Path, convert: Convert) -> Elements | None:
    """The elements of a file's header up to its pixels; None if the header is not plain or describes frames."""
    with open(path, "rb", buffering=0) as file:
        data = b""
        for size in _FIRST_BYTES:
            data += file.read(size - len(data)) or b""
            try:
                return _walk(data, convert)
            except error:  # the header goes on beyond these bytes
                if len(data) < size:
                    return None
            except (_NotPlain, RecursionError):
                return None
    return None


# -- walking ---------------------------------------------------------------------------------------------------


def _walk(data: bytes, convert: Convert) -> Elements:
    """The elements of the file that begins with these bytes.

    Raises:
        struct.error: the bytes end before the header does.
        _NotPlain: another syntax than it says, commands, frames, or anything that PS3.5 and PS3.10 do not foresee.
    """
    if data[128:132] != b"DICM":
        raise _NotPlain
    meta, at = _walk_meta(data, 132)
    syntax = Elements(data, meta, 0, convert).get("TransferSyntaxUID")
    if not isinstance(syntax, str) or not syntax.startswith(ImplicitVRLittleEndian):  # private, or none
        raise _NotPlain
    implicit = syntax == ImplicitVRLittleEndian
    odd = syntax in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    if odd or data[at : at + 2] == b"\0\0" or (implicit and data[at + 4 : at + 6].isalpha()):
        raise _NotPlain
    places = {}
    while True:
        tag, vr, start, length = _element(data, at, implicit)
        if tag in _PIXELS:
            break
        if tag == _FRAME_GROUPS or tag >> 16 == _META_GROUP or (tag == _CHARACTER_SET and vr not in (b"CS", None)):
            raise _NotPlain
        if length == _UNDEFINED:
            at = _after_sequence(data, start, tag, vr)
        else:
            at = start + length
            places[tag] = vr, start, at
    return Elements(data, {**meta, **places}, at, convert)


def _walk_meta(data: bytes, at: int) -> tuple[dict[int, _Place], int]:
    """The UIDs that are needed of group 2, and where the group ends."""
    places, first = {}, at
    while data[at : at + 2] == b"\2\0":
        tag, vr, start, length = _element(data, at, implicit=False)
        if (tag == _META_LENGTH) != (at == first) or (at == first and (vr, length) != (b"UL", 4)):
            raise _NotPlain
        if length == _UNDEFINED or (tag in _META_UIDS and vr != b"UI"):
            raise _NotPlain
        at = start + length
        if tag in _META_UIDS:
            places[tag] = vr, start, at
    return places, at


def _element(data: bytes, at: int, implicit: bool) -> tuple[int, bytes | None, int, int]:
    """(tag, value representation, where its value starts, length of its value) of the element at an offset."""
    if implicit:
        (group, element, length), vr, start = _IMPLICIT(data, at), None, at + 8
    else:
        group, element, vr, length = _EXPLICIT(data, at)
        start = at + 8
        if vr in _LONG_VRS:
            (length,), start = _LENGTH(data, start), at + 12
        elif vr not in _SHORT_VRS:
            raise _NotPlain
    if group == _DELIMITER_GROUP:
        raise _NotPlain
    return group << 16 | element, vr, start, length


def _after_sequence(data: bytes, at: int, tag: int, vr: bytes | None) -> int:
    """Past the end of a sequence of undefined length, whose items start at an offset (PS3.5 7.5)."""
    if not _is_sequence(data, at, tag, vr):
        raise _NotPlain
    while True:
        group, element, length = _IMPLICIT(data, at)
        at += 8
        if group << 16 | element == _SEQUENCE_END:
            return at
        if group << 16 | element != _ITEM:
            raise _NotPlain
        at = _after_item(data, at, None if length == _UNDEFINED else at + length, implicit=vr is None)


def _is_sequence(data: bytes, at: int, tag: int, vr: bytes | None) -> bool:
    if vr is not None:
        return vr == b"SQ"
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:  # private
        return data[at : at + 4] == _ITEM_BYTES


def _after_item(data: bytes, at: int, end: int | None, implicit: bool) -> int:
    """Past the end of an item, which is at ``end`` or, if None, where a delimiter says so."""
    while at != end:
        if end is None and data[at : at + 8] == _ITEM_END_BYTES:
            return at + 8
        tag, vr, start, length = _element(data, at, implicit)
        if tag == _CHARACTER_SET:
            raise _NotPlain
        at = _after_sequence(data, start, tag, vr) if length == _UNDEFINED else start + length
        if end is not None and at > end:
            raise _NotPlain
    return at
