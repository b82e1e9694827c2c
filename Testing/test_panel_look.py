"""One visual language of the three clinical panels: order, words with units, folded details, no own colours."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from panel_states import CLINICAL, open_panel
from project_tree import ROOT, files_in, library, module_names, product_sources, relative

from NeuraxisLib.columns import column_meanings
from NeuraxisLib.headline import headline
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.task import TASKS, get_task
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

UI_FILES = [path for module in module_names() for path in files_in(ROOT / module / "Resources", "*.ui")]
#: What a person can do something with; the rest are frames and words.
INTERACTIVE = re.compile(
    r"Q(Push|Tool|Radio)Button|QCheckBox|Q\w*ComboBox|Q\w*SpinBox|QLineEdit|QListWidget|QTableWidget|Q\w*TextEdit|"
    r"ctk(SliderWidget|PathLineEdit|RangeWidget)|qMRML(?!Widget$)\w+"
)
NUMBERS = ("QSpinBox", "QDoubleSpinBox", "ctkSliderWidget", "ctkRangeWidget")
#: What a number can be of.
UNITS = re.compile(
    r"\b(mm|mL|HU|s|ms|%|years?|hours?|minutes?|points?|degrees|GB|GiB|MB|threads?|0 to 1|slices?|cases)\b|%|°", re.I
)
#: Widgets whose number, rule or method comes from a paper: author and year stand in the tool tip.
SOURCED = [
    ("StrokeCTP", "lateSlider"), ("StrokeCTP", "rcbfSlider"), ("StrokeCTP", "criteriaLabel"),
    ("StrokeCTP", "criteriaTableView"), ("StrokeCTP", "deconvolutionComboBox"), ("HemorrhageSeg", "overlayCheckBox"),
    ("HemorrhageSeg", "changeLabel"), ("HemorrhageSeg", "expansionLabel"),
]  # fmt: skip
#: Where the libraries write the heads of their tables.
HEADS = re.compile(r"COLUMNS = \((.*?)\n\)|heads = \((\(.*?\))\)\n|Table\(\"[^\"]+\", \((\(.*?\))\), rows", re.DOTALL)
#: Parts of a clinical panel, from above; each panel has them in this order.
ORDER = (
    "noticeLabel", "inputsCollapsibleButton", "deviceComboBox", "modelCollapsibleButton", "installFrame", "applyButton",
    "batchButton", "progressBar", "cancelButton", "statusLabel", "resultsCollapsibleButton", "warningsLabel",
    "headlineLabel", "saveReportButton", "openFolderButton", "measuresCollapsibleButton", "resultTableView",
)  # fmt: skip
#: Narrowest dock of Slicer's module panel on a screen of 1280 pixels that leaves the views room, in pixels.
PANEL_WIDTH = 440
#: Height that is left for a panel on a screen of 720 pixels, under title, menu, tool bars and the module's header.
PANEL_HEIGHT = 560
#: Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as it is seen.
DEFICIENCIES = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
#: Difference of two colours in CIE Lab from which they are told apart at a glance, not side by side only.
TOLD_APART = 20.0


def widgets(path: Path) -> list[ElementTree.Element]:
    """All widgets of a .ui file, from above."""
    return list(ElementTree.parse(path).iter("widget"))


def property_of(widget: ElementTree.Element, name: str) -> str:
    """A text property of a widget; empty if it has none."""
    return next((p.findtext("string", "") for p in widget.findall("property") if p.get("name") == name), "")


# -- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", UI_FILES, ids=relative)
def test_everything_that_can_be_used_has_a_tool_tip_in_sentences(path):
    used = [widget for widget in widgets(path) if INTERACTIVE.fullmatch(widget.get("class"))]
    tips = {widget.get("name"): property_of(widget, "toolTip") for widget in used}
    assert {name for name, tip in tips.items() if not re.match(r"^[A-Z0-9].{8,}[.)]$", tip, re.DOTALL)} == set()


@pytest.mark.parametrize("path", UI_FILES, ids=relative)
def test_numbers_say_of_what(path):
    numbers = [widget for widget in widgets(path) if widget.get("class") in NUMBERS]
    without = {w.get("name") for w in numbers if not UNITS.search(property_of(w, "toolTip"))}
    assert without == set()


@pytest.mark.parametrize("module, name", SOURCED)
def test_numbers_that_others_have_set_name_who_did(module, name):
    tips = [property_of(w, "toolTip") for path in UI_FILES if path.stem.startswith(module)
            for w in widgets(path) if w.get("name") == name]  # fmt: skip
    assert len(tips) == 1 and re.search(r"\b[A-Z][a-z]+ (?:19|20)\d\d\b", tips[0]), tips


@pytest.mark.parametrize("task", TASKS)
def test_every_column_of_a_task_s_tables_is_explained(task):
    """The heads that the findings write, looked for in their sources, have a meaning in columns.csv."""
    meanings = column_meanings(get_task(task).resources)
    heads = set()
    for path in get_task(task).resources.parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for table in HEADS.findall(text):
            heads |= set(re.findall(r'\("([^"]+)", "[^"]*"\)', "".join(table)))
    assert len(heads) >= 3
    assert {head for head in heads if not meanings.get(head, "").endswith(".")} == set()


def test_columns_reach_the_cells_of_the_panel(application, tmp_path, monkeypatch):  # noqa: F811
    opened = open_panel(application, "HemorrhageSeg", tmp_path, monkeypatch)
    opened.run()
    table = opened.ui.resultTableView.model()
    assert "Unit of value and interval" in table.item(0, 2).toolTip()
    application.close_widget(opened.widget)
    application.clear()
    opened = open_panel(application, "SpineDiscLabel", tmp_path / "spine", monkeypatch)
    opened.run()
    tips = [opened.ui.discTableView.model().item(0, column).toolTip() for column in range(9)]
    assert any("Unit: mm" in tip and "centre of the next below" in tip for tip in tips)
    application.close_widget(opened.widget)


# -- order and size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", CLINICAL)
def test_panels_have_the_same_parts_in_the_same_order(module):
    names = [widget.get("name") for widget in widgets(ROOT / module / "Resources" / "UI" / f"{module}.ui")]
    assert [name for name in names if name in ORDER] == list(ORDER)


@pytest.mark.parametrize("module", CLINICAL)
def test_details_are_folded_and_key_numbers_are_not(module):
    found = {w.get("name"): w for w in widgets(ROOT / module / "Resources" / "UI" / f"{module}.ui")}
    for name in ("modelCollapsibleButton", "measuresCollapsibleButton"):
        folded = [p.findtext("bool") for p in found[name].findall("property") if p.get("name") == "collapsed"]
        assert folded == ["true"], name
    for name in ("inputsCollapsibleButton", "resultsCollapsibleButton"):
        assert not [p for p in found[name].findall("property") if p.get("name") == "collapsed"], name


@pytest.mark.parametrize("module", CLINICAL)
def test_key_numbers_are_seen_without_scrolling_on_a_small_screen(application, module, tmp_path, monkeypatch):  # noqa: F811
    from PySide6 import QtCore

    opened = open_panel(application, module, tmp_path, monkeypatch)
    opened.run()
    panel = opened.widget.parent
    assert panel.minimumSizeHint().width() <= PANEL_WIDTH
    panel.resize(PANEL_WIDTH, panel.layout().totalHeightForWidth(PANEL_WIDTH))
    panel.show()
    application.app.processEvents()
    label = opened.ui.headlineLabel
    bottom = label.mapTo(panel, QtCore.QPoint(0, label.height)).y()
    assert label.text and not label.isHidden() and bottom <= PANEL_HEIGHT
    application.close_widget(opened.widget)


@pytest.mark.parametrize("module", CLINICAL)
def test_unfolded_panels_are_no_wider_than_the_dock(application, module, tmp_path, monkeypatch):  # noqa: F811
    from Testing.slicer_stand_in.ctk_widgets import ctkCollapsibleButton

    opened = open_panel(application, module, tmp_path, monkeypatch)
    opened.run()
    for section in opened.widget.parent.findChildren(ctkCollapsibleButton):
        section.collapsed = False
    application.app.processEvents()
    assert opened.widget.parent.minimumSizeHint().width() <= PANEL_WIDTH
    review = opened.widget._panel.review
    assert review.ui.editedLabel.isHidden(), "what was hidden on its own stays so when its section is unfolded"
    application.close_widget(opened.widget)


def test_headline_is_the_numbers_with_intervals_or_the_first():
    rows = [
        ("Core volume", "40.1", "mL", "9.95 to 62.0", ""), ("Threshold", "6.0", "s", "", ""),
        ("Mismatch <volume>", "214.7", "mL", "164.7 to 260.2", ""),
    ]  # fmt: skip
    words = headline(rows)
    assert "40.1&nbsp;mL" in words and "9.95 to 62.0&nbsp;mL" in words and "Mismatch &lt;volume&gt;" in words
    assert "Threshold" not in words and words.count("x-large") == 2
    assert "Threshold" in headline(rows[1:2]) and headline([]) == ""


# -- colours -----------------------------------------------------------------------------------------------------------


def test_panels_bring_no_colours_of_their_own():
    """Slicer has a light and a dark theme: who fixes one colour of text or ground cannot be read in the other."""
    fixed = re.compile(r"styleSheet|setPalette|QPalette|<property name=\"palette\"|\bcolor ?[:=] ?['\"#]|bgcolor")
    parts = ("scene", "panel", "result_panel", "run_panel", "headline")
    sources = [path for path in product_sources() if path.name.startswith(parts)]
    sources += [ROOT / module / f"{module}.py" for module in module_names()] + UI_FILES
    assert {relative(p): hits for p in sources if (hits := fixed.findall(p.read_text(encoding="utf-8")))} == {}


def test_nothing_pops_up_where_a_line_will_do():
    """Only two questions may interrupt: before packages go into Slicer's Python, and before a person's work is lost."""
    pop_up = re.compile(r"(?:info|error|warning|tryWithError|confirm\w+)Display|QMessageBox|createProgressDialog")
    sources = [ROOT / module / f"{module}.py" for module in module_names()]
    sources += [path for module in module_names() for path in files_in(library(module), "*.py")]
    found = {relative(path): hits for path in sources if (hits := pop_up.findall(path.read_text(encoding="utf-8")))}
    asking = ("Neuraxis/Neuraxis.py", "Neuraxis/NeuraxisLib/scene_panel.py")
    assert found == {name: ["confirmOkCancelDisplay"] for name in asking}


@pytest.fixture
def dark(application):  # noqa: F811
    """The application in a dark palette, as Slicer's dark style has it."""
    from PySide6 import QtGui

    before, palette = QtGui.QPalette(application.qt_application.palette()), QtGui.QPalette()
    role = QtGui.QPalette
    for name, grey in ((role.Window, 50), (role.Base, 35), (role.AlternateBase, 58), (role.Button, 62)):
        palette.setColor(name, QtGui.QColor(grey, grey, grey))
    for name in (role.WindowText, role.Text, role.ButtonText, role.ToolTipText):
        palette.setColor(name, QtGui.QColor(230, 230, 230))
    application.qt_application.setPalette(palette)
    yield application
    application.qt_application.setPalette(before)


def assert_light_on_dark(panel) -> None:
    """Every label with words is light on dark, and none names a colour of its own that is not light."""
    from PySide6 import QtGui, QtWidgets

    labels = [label for label in panel.findChildren(QtWidgets.QLabel) if label.text]
    assert len(labels) > 5
    for label in labels:
        palette = label.palette
        text, ground = (palette.color(role).lightness() for role in (label.foregroundRole(), label.backgroundRole()))
        assert text - ground > 120, label.objectName
        named = re.findall(r"color:\s*(#\w+)'>[^\u25a0]", label.text)  # a square shows the colour of a segment
        assert all(QtGui.QColor(color).lightness() > 120 for color in named), label.text


def test_the_settings_are_readable_in_the_dark_theme(dark):
    widget = dark.new_widget("Neuraxis")
    assert_light_on_dark(widget.parent)
    widget.parent.resize(PANEL_WIDTH, widget.parent.layout().totalHeightForWidth(PANEL_WIDTH))
    widget.parent.show()
    dark.app.processEvents()
    picture = widget.parent.grab().toImage()
    grey = [picture.pixelColor(x, y).lightness() for x in range(0, picture.width(), 4) for y in range(picture.height())]
    assert max(grey) > 200 and np.percentile(grey, 90) < 100, "light words on dark ground, no field stays white"
    dark.close_widget(widget)


@pytest.mark.parametrize("module", CLINICAL)
def test_panels_are_readable_in_the_dark_theme(dark, module, tmp_path, monkeypatch):
    opened = open_panel(dark, module, tmp_path, monkeypatch)
    opened.run()
    assert_light_on_dark(opened.widget.parent)
    panel = opened.widget.parent
    panel.resize(PANEL_WIDTH, panel.layout().totalHeightForWidth(PANEL_WIDTH))
    panel.show()
    dark.app.processEvents()
    label = opened.ui.headlineLabel
    picture = label.grab().toImage()
    grey = [picture.pixelColor(x, y).lightness() for x in range(0, picture.width(), 2) for y in range(picture.height())]
    assert max(grey) > 200 and np.median(grey) < 80, "light figures on dark ground"
    dark.close_widget(opened.widget)


@pytest.mark.parametrize("module, words", [("HemorrhageSeg", "entropy"), ("SpineDiscLabel", "discs")])
def test_overlay_has_a_legend_with_its_unit(application, module, words, tmp_path, monkeypatch):  # noqa: F811
    import slicer

    opened = open_panel(application, module, tmp_path, monkeypatch)
    opened.run()
    opened.ui.overlayCheckBox.click()
    legends = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    assert len(legends) == 1 and words in legends[0].GetTitleText() and legends[0].GetVisibility()
    opened.ui.overlayOpacitySlider.value = 0.9
    assert slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode") == legends, "it is not made anew"
    opened.ui.overlayCheckBox.click()
    assert slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode") == []
    application.close_widget(opened.widget)


@pytest.mark.parametrize("high, numbers", [(50, 6), (6, 5), (12, 5), (20, 5), (1, 6), (100, 5)])
def test_numbers_beside_a_colour_bar_are_short(stand_in, high, numbers):  # noqa: F811
    from NeuraxisLib.scene_views import label_count

    assert label_count(0.0, high) == numbers
    assert 2 <= max(len(f"{value:.3g}") for value in np.linspace(0, high, numbers)) <= 3


def lab(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) linear RGB, 0 to 1, as CIE Lab (D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(rgb, 0, 1) @ to_xyz.T
    part = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(part > 0.008856, np.cbrt(part), 7.787 * part + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def linear(rgb) -> np.ndarray:
    """sRGB 0..255 as linear 0..1."""
    share = np.asarray(rgb, float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_core_and_penumbra_are_told_apart_by_every_eye(deficiency):
    table = LabelTable.read(get_task("stroke").resources / "labels.csv")
    seen = [lab(linear(entry.color) @ np.array(DEFICIENCIES[deficiency]).T) for entry in table]
    assert np.linalg.norm(seen[0] - seen[1]) > TOLD_APART


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_safe_colours_of_maps_keep_their_order_for_every_eye(deficiency):
    from StrokeCTPLib.colour_scales import safe_colour_table

    lightness = lab(linear(safe_colour_table()) @ np.array(DEFICIENCIES[deficiency]).T)[:, 0]
    assert (np.diff(lightness[::16]) > 0).all() and np.ptp(lightness) > 60


def test_library_folder_is_where_the_columns_are():
    """Guards the check of columns against looking nowhere."""
    assert (library("HemorrhageSeg") / "Resources" / "columns.csv").is_file()
