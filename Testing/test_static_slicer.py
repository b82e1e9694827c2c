"""What can be told from the text of module files and .ui files, without running Slicer or the stand-in."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from project_tree import ROOT, library, module_names, relative, syntax_tree

from Testing.slicer_stand_in.surface import SURFACE

MODULES = [ROOT / name / f"{name}.py" for name in module_names()]
#: Files that work on the widgets of a .ui file.
#: Parts of a panel's life that the modules of the three tasks share.
SHARED = [library("Neuraxis") / name for name in ("run_panel.py", "scene_panel.py")]
PANELS = {path: [path] for path in MODULES}
for name in ("HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"):
    PANELS[ROOT / name / f"{name}.py"] += [*SHARED, *sorted(library(name).glob("panel_*.py"))]
PANELS[ROOT / "HemorrhageSeg" / "HemorrhageSeg.py"].append(library("Neuraxis") / "result_panel.py")


def ui_file(module: Path) -> Path:
    """The .ui file of a module."""
    return module.parent / "Resources" / "UI" / f"{module.stem}.ui"


def widgets(module: Path) -> dict[str, str]:
    """Widget name -> class in a module's .ui file."""
    return {node.get("name"): node.get("class") for node in ElementTree.parse(ui_file(module)).iter("widget")}


def uses(module: Path) -> list[tuple[str, str, ast.AST]]:
    """(widget, attribute, node) for every ``ui.<widget>.<attribute>`` in the code of a panel."""
    found = []
    for path in PANELS[module]:
        for node in ast.walk(syntax_tree(path)):
            match = re.fullmatch(r"(?:self\.)?_?ui\.(\w+)(?:\.(\w+))?", ast.unparse(node)) if is_name(node) else None
            if match:
                found.append((match[1], match[2] or "", node))
    return found


def is_name(node: ast.AST) -> bool:
    """Whether a node is a dotted name."""
    return isinstance(node, ast.Attribute)


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_every_widget_in_the_code_is_in_the_ui_file(module):
    names = {name for name, _, _ in uses(module)}
    assert names and names <= set(widgets(module))


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_no_dead_buttons(module):
    buttons = {name for name, kind in widgets(module).items() if kind in ("QPushButton", "QToolButton")}
    connected = set()
    for path in PANELS[module]:
        connected |= set(re.findall(r"ui\.(\w+)(?:\.connect\(|, (?:functools\.partial\()?self\.on)", path.read_text()))
    assert buttons <= connected


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_attributes_of_slicer_s_widgets_are_exposed_to_python(module):
    kinds = widgets(module)
    for name, attribute, _ in uses(module):
        surface = SURFACE.get(kinds[name])
        if surface is None or not attribute or attribute in ("connect", "disconnect"):
            continue
        known = {*surface.properties, *surface.methods}
        if attribute not in known:
            from PySide6 import QtWidgets

            assert hasattr(getattr(QtWidgets, surface.base), attribute) or base_property(surface.base, attribute), (
                f"{kinds[name]}.{attribute} is not exposed"
            )


def base_property(base: str, name: str) -> bool:
    """Whether the Qt class has a property of that name."""
    from PySide6 import QtWidgets

    return getattr(QtWidgets, base).staticMetaObject.indexOfProperty(name) >= 0


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_signals_exist(module):
    """Signals of Slicer's widgets are looked up in the table, those of Qt in Qt."""
    from PySide6 import QtCore, QtWidgets

    kinds, checked = widgets(module), 0
    for node in ast.walk(syntax_tree(module)):
        match = re.match(r"self\.ui\.(\w+)\.connect\('([^']+)'", ast.unparse(node))
        if not match or not isinstance(node, ast.Call):
            continue
        surface = SURFACE.get(kinds[match[1]])
        base = getattr(QtWidgets, surface.base if surface else kinds[match[1]])
        own = surface.signals if surface else ()
        signal = bytes(QtCore.QMetaObject.normalizedSignature(match[2]).data()).decode()
        of_qt = re.findall(r"\w+\([^)]*\)", str(getattr(base, signal.partition("(")[0], "")))
        assert signal in own or signal in of_qt, f"{match[1]}: {signal}"
        checked += 1
    assert checked


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_widgets_that_need_the_scene_get_it(module):
    """A selector whose connection to mrmlSceneChanged is forgotten stays disabled for ever."""
    tree = ElementTree.parse(ui_file(module))
    connected = {
        c.findtext("receiver") for c in tree.iter("connection") if c.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
    }
    needing = {name for name, kind in widgets(module).items() if kind.startswith("qMRML") and kind != "qMRMLWidget"}
    assert needing == connected


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_parameter_names_in_the_ui_file_are_fields(module):
    names = {
        node.findtext("string")
        for node in ElementTree.parse(ui_file(module)).iter("property")
        if node.get("name") == "SlicerParameterName"
    }
    fields = {
        item.target.id
        for node in ast.walk(syntax_tree(module))
        if isinstance(node, ast.ClassDef) and node.name.endswith("ParameterNode")
        for item in node.body
        if isinstance(item, ast.AnnAssign)
    }
    assert names <= fields


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_translated_texts_are_plain_strings(module):
    """Translators see the literal only; an f-string would never be translated."""
    for node in ast.walk(syntax_tree(module)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_":
            assert isinstance(node.args[0], ast.Constant), f"line {node.lineno}"
