"""TensorFlow 2 checkpoints of Keras networks (``NAME.index`` beside ``NAME.data-00000-of-00001``), without TensorFlow.

DR-UNet's released training code writes this form. The index is a LevelDB table of protocol buffers that says where in
the data files each array lies; one of its entries, the object graph, tells what Keras called each array.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from NeuraxisLib.checkpoint_keras import WEIGHTS, KerasLayer
from NeuraxisLib.errors import ModelError
from NeuraxisLib.models import MAX_FILE_BYTES

#: Last eight bytes of an index.
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
SUFFIX = ".index"
MAX_INDEX_BYTES = 64 << 20
_FOOTER_BYTES = 48
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_FLOATS = {1: "<f4", 2: "<f8", 19: "<f2"}
_STRING = 7
#: The key of an array that belongs to a layer, not to the optimiser.
_OF_A_LAYER = re.compile(r"(^|/)layer(_with_weights)?-\d+/(?!.*\.OPTIMIZER_SLOT)")


@dataclass(frozen=True)
class _Entry:
    """Where an array lies: kind of number, shape, which data file, and which bytes of it."""

    kind: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def read_tensorflow(path: Path) -> list[KerasLayer]:
    """The layers with weights of a checkpoint, under the names that Keras gave them when it was written.

    Args:
        path: the index; the data files lie beside it.

    Raises:
        ModelError: damaged, a data file is missing, or it holds no layers of a Keras network.
    """
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError("an index is small")
        table = dict(_table(path.read_bytes()))
        entries = {name: _entry(value) for name, value in table.items() if name}
        files = data_files(path)
        layers: dict[str, dict[str, np.ndarray]] = {}
        for name, key in _names_and_keys(files, entries[_GRAPH]):
            layer, _, weight = name.rpartition("/")
            if weight in WEIGHTS and _OF_A_LAYER.search(key):
                layers.setdefault(layer.split("/")[-1], {})[weight] = _array(files, entries[key])
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error, OSError):
        raise ModelError(
            f"The TensorFlow checkpoint '{path.name}' is damaged or was cut short, or is not of a Keras network; "
            "obtain both its files again."
        ) from None
    if not layers:
        raise ModelError(
            f"The TensorFlow checkpoint '{path.name}' holds no layers of a Keras network; save the network with "
            "model.save_weights('NAME.h5')."
        )
    return [KerasLayer(name, weights) for name, weights in layers.items()]


def data_files(path: Path) -> list[Path]:
    """The data files of an index, which lie beside it; ModelError if there are none."""
    found = sorted(path.parent.glob(f"{_escaped(path.stem)}.data-*-of-*"))
    counts = {file.name.rpartition("-")[2] for file in found}
    if len(counts) != 1 or int(counts.pop()) != len(found):
        raise ModelError(
            f"The TensorFlow checkpoint '{path.name}' lacks its data; put '{path.stem}.data-00000-of-00001' beside it."
        )
    return found


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _names_and_keys(files: list[Path], entry: _Entry) -> Iterator[tuple[str, str]]:
    """(Keras' name, key in the table) of every array in the object graph."""
    if entry.kind != _STRING:
        raise ValueError("the object graph is a text")
    content = _bytes(files, entry)
    length, start = _varint(content, 0)
    graph = content[start + 4 :]  # a checksum of the length stands between
    if len(graph) != length:
        raise ValueError("the object graph is cut short")
    for _, node in _fields(graph, 1):
        for _, attribute in _fields(node, 2):
            texts = {number: value.decode() for number, value in _fields(attribute) if isinstance(value, bytes)}
            if 2 in texts and 3 in texts:
                yield texts[2], texts[3]


def _array(files: list[Path], entry: _Entry) -> np.ndarray:
    if entry.kind not in _FLOATS:
        raise ValueError("weights are floating point numbers")
    return np.frombuffer(_bytes(files, entry), _FLOATS[entry.kind]).reshape(entry.shape).astype(np.float32)


def _bytes(files: list[Path], entry: _Entry) -> bytes:
    file = files[entry.shard]
    if entry.offset + entry.size > min(file.stat().st_size, MAX_FILE_BYTES):
        raise ValueError("the data are shorter than the index says")
    with open(file, "rb") as opened:
        opened.seek(entry.offset)
        return opened.read(entry.size)


# -- the table ------------------------------------------------------------------------------------------------


def _table(content: bytes) -> Iterator[tuple[str, bytes]]:
    """(key, value) of a LevelDB table: its footer points at a block that points at the blocks of entries."""
    if content[-8:] != MAGIC:
        raise ValueError("no LevelDB table")
    at = len(content) - _FOOTER_BYTES
    for _ in range(2):  # where the block of further properties lies, which is not needed
        _, at = _varint(content, at)
    for _, handle in _block(content, *_handle(content, at)):
        for key, value in _block(content, *_handle(handle, 0)):
            yield key.decode(), value


def _handle(content: bytes, at: int) -> tuple[int, int]:
    offset, at = _varint(content, at)
    size, _ = _varint(content, at)
    return offset, size


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a block; a key leaves out what it shares with the one before.

    Behind a block stand a byte for its compression, and a CRC-32C over both, turned and shifted as LevelDB does.
    """
    block = content[offset : offset + size]
    if len(block) != size or content[offset + size] != 0:
        raise ValueError("cut short, or compressed, which TensorFlow does not do")
    (masked,) = struct.unpack("<I", content[offset + size + 1 : offset + size + 5])
    turned = (masked - 0xA282EAD8) & 0xFFFFFFFF
    if ((turned >> 17) | (turned << 15)) & 0xFFFFFFFF != _crc32c(content[offset : offset + size + 1]):
        raise ValueError("damaged")
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = size - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


@cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _crc32c(content: bytes) -> int:
    """CRC-32 with Castagnoli's polynomial (RFC 3720, B.4), for indices, which are small."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _entry(value: bytes) -> _Entry:
    """A BundleEntryProto."""
    numbers = {number: found for number, found in _fields(value) if isinstance(found, int)}
    shape = tuple(
        next((size for _, size in _fields(dimension, 1)), 0)
        for _, message in _fields(value, 2)
        for _, dimension in _fields(message, 2)
    )
    return _Entry(numbers.get(1, 0), shape, numbers.get(3, 0), numbers.get(4, 0), numbers.get(5, 0))


def _fields(message: bytes, wanted: int | None = None) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol buffer: whole numbers, or the bytes of texts and inner messages."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = message[at : at + length], at + length
        else:
            raise ValueError("no protocol buffer")
        if at > len(message):
            raise ValueError("a field is cut short")
        if wanted in (None, number):
            yield number, value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
