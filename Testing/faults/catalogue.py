"""The fault catalogue: what can go wrong, what shall be said, what shall be true afterwards, and which tests do it.

``catalogue.csv`` is the one table. Columns: ``id``; ``section``; ``fault`` (what is done); ``outcome`` (``refused`` by
a named error, ``warned`` beside a result, or ``right``: a correct result); ``sentence`` (regular expression of what the
user reads; empty for ``right``); ``state`` (what is true afterwards); ``guards`` (what a failing test would mean:
``wrong-silent`` or ``lost``); ``tests`` (``file.py::test``, with parts of the parameters' id in brackets, each
on a line of the cell); ``untried`` (why a row has no test).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("catalogue.csv")
OUTCOMES = ("refused", "warned", "right")
GUARDS = ("wrong-silent", "lost")


@dataclass(frozen=True)
class NamedTest:
    """A test that a row names: its file, its function, and words that the id of its parameters has to hold."""

    file: str
    function: str
    words: str = ""

    def matches(self, file: str, function: str, parameters: str) -> bool:
        """Whether a collected test is this one, or one of its parameter sets."""
        return (file, function) == (self.file, self.function) and self.words in parameters

    def __str__(self) -> str:
        return f"{self.file}::{self.function}" + (f"[{self.words}]" if self.words else "")


@dataclass(frozen=True)
class Fault:
    """One row of the catalogue; the columns are described at the top of this file."""

    id: str
    section: str
    fault: str
    outcome: str
    sentence: str
    state: str
    guards: str
    tests: tuple[NamedTest, ...]
    untried: str


@cache
def catalogue() -> tuple[Fault, ...]:
    """All rows, in the order of their ids."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        return tuple(Fault(**{**row, "tests": _named_tests(row["tests"])}) for row in csv.DictReader(file))


def _named_tests(cell: str) -> tuple[NamedTest, ...]:
    tests = []
    for line in cell.splitlines():
        name, _, words = line.strip().partition("[")
        tests.append(NamedTest(*name.split("::"), words.removesuffix("]")))
    return tuple(tests)
