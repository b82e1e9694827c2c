"""Which room may import what, and what stays out of Slicer until a computation starts."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from project_tree import ROOT, files_in, library, module_names, product_sources, relative, syntax_tree

SLICER_NAMES = {"slicer", "qt", "ctk", "vtk", "vtkmodules", "SampleData", "PyTorchUtils", "DICOMLib"}
#: What a file that Slicer loads may import at file scope, beside the standard library and the project itself.
LIGHT = SLICER_NAMES | {"numpy", "SimpleITK"}
#: Third-party packages that must not be in memory after Slicer has loaded the modules.
HEAVY = {"torch", "monai", "scipy", "skimage", "matplotlib", "typer", "rich", "jinja2", "h5py", "pydicom"}
MODULES = module_names()
LIBRARIES = {f"{module}Lib" for module in MODULES}
SCENE = library("Neuraxis") / "scene.py"
SCENE_FILES = sorted(path for module in MODULES for path in library(module).glob("scene*.py"))
MODULE_FILES = [path for module in MODULES if (path := ROOT / module / f"{module}.py").is_file()]
SOURCES = product_sources()


@cache
def imports(path: Path, file_scope: bool = False) -> frozenset[str]:
    """Dotted names that a file imports: everywhere, or only those that run when the file is imported."""
    return frozenset(_imports(path, file_scope))


def _imports(path: Path, file_scope: bool) -> Iterator[str]:
    pending: list[ast.AST] = [syntax_tree(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from imported_from(path, node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
        elif not (file_scope and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            pending.extend(ast.iter_child_nodes(node))


def imported_from(path: Path, node: ast.ImportFrom) -> Iterator[str]:
    """Dotted names of a ``from x import a, b``: x, and x.a and x.b, as these may be files."""
    base = node.module or ""
    if node.level:
        package = path.parent.parts[: len(path.parent.parts) - node.level + 1]
        start = next(i for i, part in enumerate(package) if part in LIBRARIES | {"Training"})
        base = ".".join([*package[start:], *([base] if base else [])])
    yield base
    yield from (f"{base}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    """The package that a dotted name belongs to."""
    return name.split(".")[0]


def source_of(name: str) -> Path | None:
    """The project's file behind a dotted name of a library, or None."""
    if top(name) not in LIBRARIES:
        return None
    place = ROOT / top(name).removesuffix("Lib") / Path(*name.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


def loaded_by_slicer() -> list[Path]:
    """The module files and every project file that comes with what they import, at file scope or in a function."""
    reached, pending = set(), list(MODULE_FILES)
    while pending:
        path = pending.pop()
        if path in reached:
            continue
        reached.add(path)
        names = imports(path, file_scope=path not in MODULE_FILES)
        packages = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}
        pending.extend(filter(None, map(source_of, packages)))
    return sorted(reached)


LOADED = loaded_by_slicer()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_slicer_s_own_names_stay_in_module_files_and_scene_files(path):
    if path not in MODULE_FILES and path not in SCENE_FILES:
        assert SLICER_NAMES.isdisjoint(map(top, imports(path)))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    allowed = {
        "Training": LIBRARIES | {"Training"},
        "Neuraxis": {"NeuraxisLib"},
    }.get(room, {f"{room}Lib", "NeuraxisLib"})
    rooms = LIBRARIES | set(MODULES) | {"Training", "Testing"}
    assert rooms & set(map(top, imports(path))) <= allowed


@pytest.mark.parametrize("path", LOADED, ids=relative)
def test_file_scope_of_what_slicer_loads_is_light(path):
    foreign = {top(name) for name in imports(path, file_scope=True)} - LIBRARIES - set(sys.stdlib_module_names)
    assert foreign - {"__future__"} <= LIGHT


#: Rooms whose own computing is done in torch; what Slicer loads of them is light all the same (see above).
TORCH_ROOMS = {"Training", "StrokeCTP"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_torch_at_file_scope_only_in_networks_inference_and_engines(path):
    room = relative(path).split("/")
    at_home = room[0] in TORCH_ROOMS or "networks" in room or path.stem.endswith("inference")
    if not at_home or path in LOADED:
        assert "torch" not in map(top, imports(path, file_scope=True))


def test_slicer_loads_no_network_code():
    assert [relative(path) for path in LOADED if "networks" in path.parts or path.stem.endswith("inference")] == []


def test_slicer_with_the_panel_open_holds_nothing_heavy():
    """The same judged by running: load the modules, open a panel, import the rest, look at what is in memory."""
    pytest.importorskip("PySide6", reason="the stand-in for Slicer needs PySide6-Essentials and slicer-core")
    from Testing.slicer_stand_in import why_missing

    if why_missing():
        pytest.skip(why_missing())
    names = [dotted(path) for path in LOADED if path not in MODULE_FILES]
    paths = [str(path) for path in MODULE_FILES]
    code = f"""
import json
from pathlib import Path
from Testing.slicer_stand_in import start
application = start()
before = set(sys.modules)
for path in {paths}:
    application.load_module(Path(path))
for module in {[path.stem for path in MODULE_FILES if path.stem != "Neuraxis"]}:
    application.new_widget(module)
for name in {names}:
    __import__(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    loaded = json.loads(run_python(code).splitlines()[-1])
    assert set(names) <= set(loaded)
    assert HEAVY & set(map(top, loaded)) == set()
    assert [name for name in loaded if ".networks" in name or name.endswith(".inference")] == []


@pytest.mark.parametrize("task", ["hemorrhage", "stroke", "discs"])
def test_naming_a_task_loads_no_torch(task):
    """The panel asks for a task's title, options and models while it is being built."""
    code = f"import sys\nfrom NeuraxisLib.task import get_task\nget_task({task!r})\nprint('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_unpickled(path):
    assert {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}.isdisjoint(map(top, imports(path)))
    for node in ast.walk(syntax_tree(path)):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr == "load" and ast.unparse(called) == "torch.load":
            assert "weights_only=True" in ast.unparse(node), f"line {node.lineno}"


def dotted(path: Path) -> str:
    """The name under which a library's file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_python(code: str) -> str:
    """Standard output of code run in a fresh interpreter that sees the libraries of this tree."""
    roots = [str(ROOT), *(str(ROOT / module) for module in MODULES)]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {roots}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_walk_sees_what_it_should():
    """Guards the checks above against passing because they look at nothing."""
    assert SCENE in SOURCES and SCENE in LOADED
    assert len(MODULE_FILES) == len(MODULES)
    assert "torch" in map(top, imports(library("HemorrhageSeg") / "networks" / "drunet.py", file_scope=True))
    assert len(files_in(ROOT / "Training", "*.py")) > 1
