"""pyproject.toml asks for what the product imports, and for nothing else."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from project_tree import ROOT, files_in, library, module_names, relative, syntax_tree
from test_imports import LIBRARIES, SLICER_NAMES, imports, top
from test_index_rules import tomllib

#: Import names of packages that pip knows by another name.
IMPORTED_AS = {
    "pillow": "PIL", "trame-client": "trame_client", "trame-server": "trame_server", "trame-slicer": "trame_slicer",
    "scikit-image": "skimage", "simpleitk": "SimpleITK", "tensorboard": "torch.utils.tensorboard",
}  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = {
    "libraries": [path for module in module_names() for path in files_in(library(module), "*.py")],
    "training": files_in(ROOT / "Training", "*.py"),
}


def import_names(lines: list[str]) -> set[str]:
    """The names under which required packages are imported."""
    packages = (Requirement(line).name.lower() for line in lines)
    return {IMPORTED_AS.get(package, package) for package in packages}


PAGE = library("Neuraxis") / "view"
ROOMS["page"] = [path for path in ROOMS["libraries"] if PAGE in path.parents] + [library("Neuraxis") / "scene_page.py"]
ROOMS["libraries"] = [path for path in ROOMS["libraries"] if path not in ROOMS["page"]]
RUN = import_names(PROJECT["dependencies"])
VIEW = import_names(PROJECT["optional-dependencies"]["view"])
TRAIN = import_names(PROJECT["optional-dependencies"]["train"])


def optional_imports(path: Path) -> Iterator[str]:
    """Packages that a file imports inside a try that goes on without them."""
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type):
            inside = (child for child in node.body if isinstance(child, ast.Import))
            yield from (top(alias.name) for child in inside for alias in child.names)


def third_party(path: Path) -> set[str]:
    """Packages from elsewhere that a file cannot do without."""
    own = LIBRARIES | SLICER_NAMES | set(module_names()) | {"Training", "__future__"}
    return set(map(top, imports(path))) - own - set(sys.stdlib_module_names) - set(optional_imports(path))


@pytest.mark.parametrize(("room", "allowed"), [("libraries", RUN), ("page", RUN | VIEW), ("training", RUN | TRAIN)])
def test_what_is_imported_is_asked_for(room, allowed):
    unknown = {relative(path): third_party(path) - set(map(top, allowed)) for path in ROOMS[room]}
    assert {name: packages for name, packages in unknown.items() if packages} == {}


@pytest.mark.parametrize(("room", "asked"), [("libraries", RUN), ("page", VIEW), ("training", TRAIN)])
def test_what_is_asked_for_is_imported(room, asked):
    imported = {name for path in ROOMS[room] for name in imports(path)}
    assert sorted(asked - imported - set(map(top, imported))) == []
