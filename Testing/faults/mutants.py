"""Damaged copies of small good files, each named by its number: the same number gives the same bytes anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

#: Numbers that parsers trip over.
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)
#: Words that parsers of text trip over.
WORDS = (b"nan", b"inf", b"-1", b"1e999", b"0x10", b"\x00", b"\xff\xfe", b"[[[[[[", b"{}", b'"', b"\n\n", b",,,,",
         b"9" * 400, b"null", b"../../x", b"=cmd()", b"<b>", b"%s%n")  # fmt: skip

#: Stands in a text of JSON for lists nested deeper than a parser goes, which no library would write.
DEEP, NESTED = b'"deep"', b"[" * 20_000 + b"]" * 20_000


def mutant(data: bytes, number: int, header_bytes: int) -> bytes:
    """Copy ``number`` of a file, damaged in one to four ways; most hit the first ``header_bytes``."""
    rng = np.random.default_rng([20_261, number])
    copy = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        span = min(len(copy), header_bytes) if rng.random() < 0.8 else len(copy)
        if len(copy) > 8:
            change(copy, rng, max(span, 8))
    return bytes(copy)


def _flip(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    copy[int(rng.integers(span))] ^= 1 << int(rng.integers(8))


def _replace(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    copy[int(rng.integers(span))] = int(rng.integers(256))


def _edge(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    width, order = int(rng.choice([1, 2, 4, 8])), "little" if rng.random() < 0.8 else "big"
    at = int(rng.integers(max(1, span - width)))
    value = EDGES[int(rng.integers(len(EDGES)))] & ((1 << 8 * width) - 1)
    copy[at : at + width] = value.to_bytes(width, order)


def _number(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    """A real number where one may stand."""
    value = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-30, 1e30])
    kind = "<f4" if rng.random() < 0.6 else "<f8"
    raw = np.array(value, kind).tobytes()
    at = int(rng.integers(max(1, span - len(raw)))) & ~3
    copy[at : at + len(raw)] = raw


def _word(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    word, at = WORDS[int(rng.integers(len(WORDS)))], int(rng.integers(span))
    copy[at : at + (len(word) if rng.random() < 0.5 else 0)] = word


def _cut(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    del copy[int(rng.integers(span)) :]


def _remove(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    at = int(rng.integers(span))
    del copy[at : at + int(rng.integers(1, 64))]


def _repeat(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    at, length = int(rng.integers(span)), int(rng.integers(1, 64))
    copy[at:at] = copy[at : at + length]


def _move(copy: bytearray, rng: np.random.Generator, span: int) -> None:
    one, other, length = int(rng.integers(span)), int(rng.integers(span)), int(rng.integers(1, 32))
    copy[one : one + length] = copy[other : other + length]


CHANGES: tuple[Callable[[bytearray, np.random.Generator, int], None], ...] = (
    _flip, _replace, _edge, _number, _word, _cut, _remove, _repeat, _move,
)  # fmt: skip


def mutant_json(data: bytes, number: int) -> bytes:
    """A JSON text with one to three of its values replaced, removed or nested; every third one damaged as bytes too."""
    rng = np.random.default_rng([20_262, number])
    document = json.loads(data)
    for _ in range(int(rng.integers(1, 4))):
        _change_value(document, rng)
    text = json.dumps(document).encode().replace(DEEP, NESTED)
    return mutant(text, number, len(text)) if number % 3 == 0 else text


def mutant_lines(data: bytes, number: int) -> bytes:
    """Lines of JSON with values replaced, removed or nested, as :func:`mutant_json`; some lines twice or in turn."""
    rng = np.random.default_rng([20_263, number])
    lines = [json.loads(line) for line in data.splitlines()]
    for _ in range(int(rng.integers(1, 4))):
        _change_value(lines, rng)
    if lines and rng.random() < 0.2:
        lines.insert(int(rng.integers(len(lines))), lines[int(rng.integers(len(lines)))])
    text = b"".join(json.dumps(line).encode().replace(DEEP, NESTED) + b"\n" for line in lines)
    return mutant(text, number, len(text)) if number % 3 == 0 else text


def _change_value(document: object, rng: np.random.Generator) -> None:
    """Walk down to a random place and put something there that does not belong there."""
    at = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(at[key], dict | list) and len(at[key]) and rng.random() < 0.8:
            at = at[key]
            continue
        break
    if rng.random() < 0.2:
        del at[key]
        return
    odd = [None, True, -1, 0, 3.5, 1e308, 10**30, "", "x" * 300, "../x", "\u0000", [], {}, [[]], {"a": {}}, [1, "2"],
           "deep"]  # fmt: skip
    at[key] = odd[int(rng.integers(len(odd)))]
