"""The panels in a language of which nobody knows a word: what stays English there cannot be translated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from panel_states import CLINICAL, open_panel
from project_tree import ROOT, files_in, module_names

from Testing.slicer_stand_in import translation
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

#: Stands before every text that went through a translator.
MARK = "\u00a1"
#: Texts of .ui files, which Qt translates.
OF_UI_FILES = {
    (text.text or "").strip()
    for module in module_names()
    for path in files_in(ROOT / module / "Resources", "*.ui")
    for text in ElementTree.parse(path).iter("string")
}
#: Widgets that show nothing but names and sentences that are the same in every language (NeuraxisLib/translation.py):
#: nodes, models, tasks, measurements, maps, segments, warnings.
TERMS = {
    "modelComboBox", "mapComboBox", "taskComboBox", "headlineLabel", "warningsLabel", "criteriaLabel", "legendLabel",
    "resultTableView", "criteriaTableView", "discTableView", "segmentsTableView", "inputSelector", "secondSelector",
    "earlierSelector", "framesSelector", "excludeSelector", "nameComboBox", "suffixComboBox", "numberingLabel",
    *(f"{kind}Selector" for kind in ("cbf", "cbv", "mtt", "tmax", "ttp", "delay", "mip")),
}  # fmt: skip
#: Columns of tables with such names: widget -> columns.
TERM_COLUMNS = {"modelsTable": (0, 3, 4)}
PROPERTIES = ("text", "toolTip", "placeholderText", "title", "specialValueText", "suffix", "prefix")


@pytest.fixture
def unknown(monkeypatch):
    """Every text that is translated begins with the mark."""
    monkeypatch.setattr(translation, "language", lambda text: MARK + text)


def shown(panel) -> Iterator[tuple[str, str]]:
    """(name of a widget, text that it shows)."""
    from PySide6 import QtWidgets

    for widget in panel.findChildren(QtWidgets.QWidget):
        name, owner = widget.objectName, widget
        while owner is not panel and owner.objectName not in TERMS:
            owner = owner.parentWidget()
        if owner is not panel or name.startswith("qt_"):
            continue
        yield from ((name, getattr(widget, p)) for p in PROPERTIES if isinstance(getattr(widget, p, None), str))
        yield from ((name, text) for text in items_of(widget, name))


def items_of(widget, name: str) -> Iterator[str]:
    """Entries of a list, a table or a combo box."""
    from PySide6 import QtWidgets

    if isinstance(widget, QtWidgets.QComboBox):
        yield from (widget.itemText(index) for index in range(widget.count))
    if isinstance(widget, QtWidgets.QListWidget):
        yield from (widget.item(row).text() for row in range(widget.count))
    if isinstance(widget, QtWidgets.QTableWidget):
        columns = [column for column in range(widget.columnCount) if column not in TERM_COLUMNS.get(name, ())]
        yield from (widget.horizontalHeaderItem(column).text() for column in columns)
        cells = [widget.item(row, column) for row in range(widget.rowCount) for column in columns]
        yield from (cell.text() for cell in cells if cell is not None)


def english(panel) -> set[tuple[str, str]]:
    """(widget, text) of what no translator has seen."""
    found = set()
    for name, text in shown(panel):
        words = re.sub(r" \[[\w+]+\]$", "", text).strip()  # the key in a tool tip
        if re.search(r"[A-Za-z]{3,}", words) and MARK not in words and words not in OF_UI_FILES:
            found.add((name, words))
    return found


@pytest.mark.parametrize("module", CLINICAL)
def test_clinical_panels_speak_the_user_s_language(unknown, application, module, tmp_path, monkeypatch):  # noqa: F811
    opened = open_panel(application, module, tmp_path, monkeypatch)
    assert english(opened.widget.parent) == set()
    opened.run()
    opened.widget._panel.review.ui.acceptButton.click()
    assert english(opened.widget.parent) == set()
    assert MARK in opened.ui.deviceComboBox.itemText(1) and MARK in opened.ui.noticeLabel.text
    assert MARK in opened.widget._panel.review.ui.casesList.item(0).text()
    application.close_widget(opened.widget)


def test_the_settings_speak_the_user_s_language(unknown, application):  # noqa: F811
    widget = application.new_widget("Neuraxis")
    assert english(widget.parent) == set()
    tables = {table.objectName for table in tables_of(widget.parent) if table.columnCount and table.rowCount}
    assert "modelsTable" in tables
    application.close_widget(widget)


def test_every_status_of_a_case_and_every_state_of_a_model_has_its_word(unknown, stand_in):  # noqa: F811
    from NeuraxisLib import batch_entry, model_store, scene_batch, scene_models

    for status in (batch_entry.WAITING, batch_entry.RUNNING, batch_entry.DONE, batch_entry.FAILED):
        assert scene_batch.status_word(status) == MARK + status
    row = model_store.StoredModel("a", model_store.AVAILABLE, 5_000_000, check=model_store.NEWER, part_bytes=2_000_000)
    words = [f"{MARK}available", f"{MARK}newer than this version", f"{MARK}2.0 MB of it here"]
    assert scene_models.state_of(row) == ", ".join(words)


def tables_of(panel) -> list:
    """The tables of a panel."""
    from PySide6 import QtWidgets

    return panel.findChildren(QtWidgets.QTableWidget)
