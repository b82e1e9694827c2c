"""The tutorials can be done as they are written: what a step names is there, and can be clicked when its turn comes."""

from __future__ import annotations

import re
import sys
import textwrap

import pytest
from panel_states import CLINICAL, Opened, open_panel
from project_tree import ROOT
from test_buttons import answers, place_artery

from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

#: Steps for the case that something is missing, that go to another module, or that need a second scan; each has its own
#: test beside the module.
ELSEWHERE = {"Install", "Cancel", "Sample Data", "Edit segments", "Compare"}
#: Starts a batch, which the tests of batches wait for.
BATCH = "Folder of cases..."


def steps(module: str) -> list[str]:
    """The words in bold of a module's tutorial, in their order."""
    text = (ROOT / "Docs" / f"{module}.md").read_text(encoding="utf-8").split("\n## ")[0]
    return [re.sub(r"\s+", " ", words) for words in re.findall(r"\*\*([^*]+)\*\*", text)]


def before(opened: Opened, step: str) -> None:
    """What the tutorial says in plain words before a step: a click on a row, in a view."""
    if step == "Delete":
        table = opened.ui.discTableView
        table.clicked.emit(table.model().index(1, 0))
    if step == "Find vessels":
        place_artery(opened)


@pytest.mark.parametrize("page", ["README.md", "HemorrhageSeg/HemorrhageSeg.py"])
def test_the_console_example_runs_as_it_is_written(application, page, tmp_path, monkeypatch, capsys):  # noqa: F811
    opened = open_panel(application, "HemorrhageSeg", tmp_path, monkeypatch)
    opened.widget.source().SetName("HeadCTHemorrhage" if page == "README.md" else "HeadCT")
    text = (ROOT / page).read_text(encoding="utf-8")
    example = re.search(r'^( *)logic = slicer\.util\.getModuleLogic\("HemorrhageSeg"\)\n.+\n.+\n', text, re.MULTILINE)
    exec(textwrap.dedent(example[0]), {"slicer": sys.modules["slicer"]})
    assert capsys.readouterr().out == "6.00 mL\n"
    application.close_widget(opened.widget)


def widget_with(opened: Opened, words: str):
    """The widget of the panel that shows these words; a button before a label."""
    from PySide6 import QtWidgets

    found = [w for w in opened.widget.parent.findChildren(QtWidgets.QWidget) if getattr(w, "text", None) == words]
    return sorted(found, key=lambda widget: not isinstance(widget, QtWidgets.QAbstractButton))[0]


@pytest.mark.parametrize("module", CLINICAL)
def test_a_tutorial_can_be_done_in_its_order(application, module, tmp_path, monkeypatch):  # noqa: F811
    from PySide6 import QtWidgets

    opened = open_panel(application, module, tmp_path / "worker", monkeypatch)
    recorded = application.recorded
    monkeypatch.setattr(recorded, "ask", answers(tmp_path, recorded.dialogs))
    done = []
    for step in steps(module):
        if step in ELSEWHERE or step == "Load folder...":
            continue
        before(opened, step)
        widget = widget_with(opened, step)
        if isinstance(widget, QtWidgets.QAbstractButton):
            assert widget.enabled, f"{step} cannot be clicked after {done}"
            if step != BATCH:
                widget.click()
            if opened.widget._panel.run.is_running:
                opened.finish()
        done.append(step)
    assert len(done) > 8 and opened.ui.headlineLabel.text
    assert len(recorded.dialogs) >= 1, "the report was saved"
    application.close_widget(opened.widget)
