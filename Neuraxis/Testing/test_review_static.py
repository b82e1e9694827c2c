"""What can be told of the review section from its text: widgets exist, no button is dead, tool tips say enough."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

ROOM = Path(__file__).resolve().parents[1]
CODE = (ROOM / "NeuraxisLib" / "scene_review.py").read_text(encoding="utf-8")
TREE = ElementTree.parse(ROOM / "Resources" / "UI" / "Review.ui")
WIDGETS = {node.get("name"): node.get("class") for node in TREE.iter("widget")}


def used() -> set[str]:
    """Widgets of the section that the code names."""
    return set(re.findall(r"(?<![\w.])(?:self\.)?ui\.(\w+)", CODE))


def test_widgets_in_the_code_are_in_the_ui_file():
    assert len(used()) > 10 and used() <= set(WIDGETS)


def test_every_button_does_something():
    buttons = {name for name, kind in WIDGETS.items() if kind == "QPushButton"}
    handled = set(re.findall(r"\(ui\.(\w+), self\.on\w+\)", CODE)) | set(re.findall(r": ui\.(\w+)", CODE))
    assert len(buttons) == 8 and buttons <= handled


def test_what_can_be_used_says_what_it_does():
    """Buttons, fields and list have tool tips, with units and consequences."""
    tips = {
        node.get("name"): node.findtext("property[@name='toolTip']/string") or ""
        for node in TREE.iter("widget")
        if node.get("class") in ("QPushButton", "QLineEdit", "QListWidget")
    }
    assert [name for name, tip in tips.items() if len(tip) < 20] == []


def test_section_is_folded_at_first():
    top = TREE.find("widget")
    assert top.get("class") == "ctkCollapsibleButton" and top.findtext("property[@name='collapsed']/bool") == "true"
