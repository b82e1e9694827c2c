"""The rules of style: ruff, documented and typed public functions, short functions, short files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from project_tree import ROOT, files_in, module_names, product_sources, project_files, relative, syntax_tree

SOURCES = product_sources()
MODULE_FILES = {ROOT / module / f"{module}.py" for module in module_names()}
LONGEST_FILE = 450
LONGEST_FUNCTION = 60
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(path: Path) -> Iterator[tuple[str, Definition]]:
    """(qualified name, node) of every function, method and class of a file, nested functions left out."""
    pending = [("", node) for node in syntax_tree(path).body]
    while pending:
        prefix, node = pending.pop(0)
        if isinstance(node, Definition):
            yield prefix + node.name, node
        if isinstance(node, (ast.ClassDef, ast.If, ast.Try)):
            inside = f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix
            pending.extend((inside, child) for child in node.body)


def is_public(name: str) -> bool:
    """Whether no part of a qualified name starts with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def missing_types(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function lacks a return type or the type of an argument other than self and cls."""
    given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    return node.returns is None or any(a.annotation is None for a in given if a.arg not in ("self", "cls"))


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
    return node.end_lineno - body[0].lineno + 1


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_public_names_are_documented(path):
    bare = [name for name, node in definitions(path) if is_public(name) and not ast.get_docstring(node)]
    assert ast.get_docstring(syntax_tree(path)) or path.name == "__init__.py"
    assert bare == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path not in MODULE_FILES], ids=relative)
def test_public_functions_of_libraries_are_typed(path):
    functions = [(name, node) for name, node in definitions(path) if not isinstance(node, ast.ClassDef)]
    assert [name for name, node in functions if is_public(name) and missing_types(node)] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_are_short(path):
    functions = [(name, node) for name, node in definitions(path) if not isinstance(node, ast.ClassDef)]
    assert {name: lines for name, node in functions if (lines := code_lines(node)) > LONGEST_FUNCTION} == {}


def test_files_are_short():
    sources = [path for path in project_files() if path.suffix == ".py"]
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_ruff_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."],
        **{"cwd": ROOT, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_test_files_have_different_names():
    """pytest imports test files by their bare names."""
    rooms = [ROOT / "Testing", *(ROOT / module / "Testing" for module in module_names())]
    names = [path.name for room in rooms if room.is_dir() for path in files_in(room, "test_*.py")]
    assert sorted(set(names)) == sorted(names)
