"""What the page of known limits promises: each complaint has a test that exists, or an honest limit."""

from __future__ import annotations

import ast
import re

import pytest
from project_tree import ROOT, files_in, module_names

PAGE = (ROOT / "Docs" / "known_limits.md").read_text(encoding="utf-8")
#: | 14 | complaint | answer | `file.py::test` or limit |
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
TEST = re.compile(r"`([\w.]+\.py)::(\w+)`")
ROWS = {int(number): (complaint, answer, proof) for number, complaint, answer, proof in ROW.findall(PAGE)}
TESTS = [p for room in (".", *module_names()) for p in files_in(ROOT / room / "Testing", "test_*.py")]
#: Complaints that the survey of Slicer's issue threads and forum counted.
COMPLAINTS = 36


def test_every_complaint_has_its_row():
    assert list(ROWS) == list(range(1, COMPLAINTS + 1))


@pytest.mark.parametrize("number", ROWS)
def test_a_row_names_a_test_or_says_what_is_not_done(number):
    _, answer, proof = ROWS[number]
    assert len(answer) > 25
    assert TEST.search(proof) or proof.startswith(("Limit: ", "Not ours: ")), proof


def named_tests() -> set[tuple[str, str]]:
    """(file, function) of every test that the page names."""
    return set(TEST.findall(PAGE))


@pytest.mark.parametrize("file, function", sorted(named_tests()))
def test_the_tests_that_are_named_exist(file, function):
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in TESTS if path.name == file]
    assert function in {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
