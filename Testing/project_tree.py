"""Where things are in the source tree, for the tests that check the tree itself."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Caches and hidden files, in a path that starts with a slash.
HIDDEN = re.compile(r"/(__pycache__/|\.)")
#: Folders at the root that the project did not write.
FOREIGN = {".git", ".venv", "build", "dist", "demo-output", "runs", "__pycache__"}


@cache
def module_names() -> tuple[str, ...]:
    """Slicer modules, as the root CMakeLists.txt adds them."""
    return tuple(re.findall(r"^add_subdirectory\((\w+)\)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE))


def library(module: str) -> Path:
    """Folder of a module's library: <Module>/<Module>Lib."""
    return ROOT / module / f"{module}Lib"


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """Files below a folder, sorted, without caches and hidden files."""
    found = (path for path in folder.rglob(pattern) if path.is_file())
    return sorted(path for path in found if not HIDDEN.search(f"/{path.relative_to(folder).as_posix()}"))


@cache
def project_files() -> tuple[Path, ...]:
    """Every file of the project: what git tracks, or all files where the tree is not a repository."""
    git = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False)
    if git.returncode == 0 and git.stdout:
        return tuple(path for name in git.stdout.split("\0") if name and (path := ROOT / name).is_file())
    every = (path for path in ROOT.rglob("*") if path.is_file())
    return tuple(p for p in every if not FOREIGN.intersection(p.relative_to(ROOT).parts))


def cmake_list(module: str, variable: str) -> list[str]:
    """Entries of ``set(<variable> ...)`` in a module's CMakeLists.txt, with ${MODULE_NAME} filled in."""
    text = (ROOT / module / "CMakeLists.txt").read_text()
    text = re.sub(r"#.*", "", text).replace("${MODULE_NAME}", module)
    found = re.search(rf"set\({variable}\b([^)]*)\)", text)
    if not found:
        raise AssertionError(f"{module}/CMakeLists.txt has no set({variable} ...)")
    return [entry.strip('"') for entry in found.group(1).split()]


def installed_files(module: str) -> dict[str, Path]:
    """What Slicer installs of a module: path inside the one folder of all scripted modules -> source file."""
    names = cmake_list(module, "MODULE_PYTHON_SCRIPTS") + cmake_list(module, "MODULE_PYTHON_RESOURCES")
    return {name: ROOT / module / name for name in names}


def product_sources() -> list[Path]:
    """Python files of the product: module files, libraries and Training; no tests."""
    modules = [ROOT / module / f"{module}.py" for module in module_names()]
    libraries = [path for module in module_names() for path in files_in(library(module), "*.py")]
    return [path for path in modules if path.is_file()] + libraries + files_in(ROOT / "Training", "*.py")


@cache
def syntax_tree(path: Path) -> ast.Module:
    """The parsed source of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def relative(path: Path) -> str:
    """A path below the root, with forward slashes, for messages and test names."""
    return path.relative_to(ROOT).as_posix()
