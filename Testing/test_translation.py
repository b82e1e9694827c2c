"""What panels say goes through a translator as a plain string; the rule is in NeuraxisLib/translation.py."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from project_tree import ROOT, files_in, library, module_names, relative, syntax_tree

from NeuraxisLib.translation import translator

UI_FILES = [path for module in module_names() for path in files_in(ROOT / module / "Resources", "*.ui")]
#: Files whose words a panel shows: module files, parts of panels in the libraries.
SPOKEN = [ROOT / module / f"{module}.py" for module in module_names()]
LIBRARY_FILES = [path for module in module_names() for path in files_in(library(module), "*.py")]
SPOKEN += [path for path in LIBRARY_FILES if re.match(r"scene|panel|\w+_panel", path.stem)]
#: How a file gets its translator.
TRANSLATOR = re.compile(r"^_ = translator\(__name__\)$|import tr as _$", re.MULTILINE)
#: A sentence: a capital, a blank, an end. Names of measurements, maps and columns are terms and have none.
SENTENCE = re.compile(r"[A-Z].* .*[.:?!\u2026]", re.DOTALL)
#: Words that are put on a widget, whether they are a sentence or not.
SHOWN = re.compile(r"(\.|^)(addItem|say|showStatusMessage|setToolTip|setText|_say)$")
SHOWN_PROPERTY = re.compile(r"\.(text|toolTip|title|placeholderText)$")
WORDS = re.compile(r"[A-Za-z]{2,}")
#: Functions that give sentences of errors, which stay English.
ERRORS = re.compile(r"_?why_|_?check_")


def spoken_constants(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of sentences in a file that no translator sees."""
    pending: list[tuple[ast.AST, bool]] = [(syntax_tree(path), False)]
    while pending:
        node, heard = pending.pop()
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            heard = heard or called in ("_", "translate") or called.startswith("logging.") or "Error" in called
            shown = node.args[:1] if SHOWN.search(called) else []
        else:
            shown = [node.value] if isinstance(node, ast.Assign) and puts_words_on_a_widget(node) else []
        for value in shown:
            if isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and has_words(value.value)):
                yield value.lineno, ast.unparse(value)
        if is_test_or_error(node) or is_file_constant(node):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if not heard and SENTENCE.fullmatch(text):
            yield node.lineno, text
        pending += [(child, heard) for child in ast.iter_child_nodes(node)]


def puts_words_on_a_widget(node: ast.Assign) -> bool:
    """Whether an assignment is to a property that users read."""
    return any(SHOWN_PROPERTY.search(ast.unparse(target)) for target in node.targets)


def has_words(value: object) -> bool:
    """Whether a constant is a text with words."""
    return isinstance(value, str) and bool(WORDS.search(value))


def is_test_or_error(node: ast.AST) -> bool:
    """Whether a node is a module's test class, or what raises an error or finds its sentence."""
    if isinstance(node, ast.ClassDef):
        return node.name.endswith("Test")
    return isinstance(node, ast.Raise) or (isinstance(node, ast.FunctionDef) and bool(ERRORS.match(node.name)))


def is_file_constant(node: ast.AST) -> bool:
    """Whether a node is a constant of a file, such as the names of columns."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id.strip("_").isupper() for target in targets)


@pytest.mark.parametrize("path", SPOKEN, ids=relative)
def test_sentences_of_panels_are_translated(path):
    if not uses_translator(path):
        assert not shows_widgets(path) or list(spoken_constants(path)) == []
        return
    assert list(spoken_constants(path)) == []


def uses_translator(path: Path) -> bool:
    """Whether a file has a ``_``."""
    return bool(TRANSLATOR.search(path.read_text(encoding="utf-8")))


def shows_widgets(path: Path) -> bool:
    """Whether a file works on the widgets of a panel."""
    return bool(re.search(r"\bui\.\w+", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SPOKEN, ids=relative)
def test_translators_see_plain_strings(path):
    """An f-string, a sum or a variable would never be found by the tool that collects the texts."""
    calls = [n for n in ast.walk(syntax_tree(path)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "_"]
    texts = {call.lineno: getattr(call.args[0], "value", None) for call in calls}
    assert [line for line, text in texts.items() if not isinstance(text, str)] == []


@pytest.mark.parametrize("path", SPOKEN, ids=relative)
def test_underscore_is_nothing_but_the_translator(path):
    """``kind, _ = ...`` in a function would hide it."""
    if uses_translator(path):
        names = [n for n in ast.walk(syntax_tree(path)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        lines = [name.lineno for name in names if name.id == "_"]
        top = [node.lineno for node in syntax_tree(path).body if isinstance(node, ast.Assign)]
        loops = loop_lines(path)
        assert [line for line in lines if line not in top and line not in loops] == []


def loop_lines(path: Path) -> set[int]:
    """Lines of comprehensions, whose names are their own."""
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    found = [node for node in ast.walk(syntax_tree(path)) if isinstance(node, kinds)]
    return {line for node in found for line in range(node.lineno, node.end_lineno + 1)}


@pytest.mark.parametrize("path", UI_FILES, ids=relative)
def test_texts_of_ui_files_are_open_to_translators(path):
    """Only names of classes and of parameters are marked as not to be translated."""
    for parent in ElementTree.parse(path).iter():
        for child in parent:
            if child.tag in ("string", "stringlist") and child.get("notr") == "true":
                words = [child.text or "", *(part.text or "" for part in child.iter("string"))]
                assert all(re.fullmatch(r"\s*[\w.*]*\s*", text) for text in words), words


def test_translator_asks_slicer_when_words_are_shown(monkeypatch):
    say = translator("StrokeCTPLib.panel_maps")
    monkeypatch.delitem(sys.modules, "slicer.i18n", raising=False)
    assert say("No map") == "No map"
    asked = SimpleNamespace(translate=lambda context, text: f"{context}|{text}")
    monkeypatch.setitem(sys.modules, "slicer.i18n", asked)
    assert say("No map") == "panel_maps|No map"
