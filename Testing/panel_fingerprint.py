"""What the pictures of a panel show, in one number: kinds, order and words of its widgets as the .ui files have them.

Tool tips and sizes leave it alone. ``screenshots.py`` writes it beside the pictures, ``test_screenshots.py`` compares:
who changes a panel has to make its pictures anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.etree import ElementTree

from project_tree import ROOT, files_in, module_names

FINGERPRINTS = ROOT / "Resources" / "Screenshots" / "panels.json"
#: Properties and attributes of a widget that are words in a picture, or decide whether it can be seen.
SEEN = ("text", "title", "suffix", "specialValueText", "placeholderText", "noneDisplay", "collapsed", "visible")


def ui_files(module: str) -> list[Path]:
    """The .ui files of a module's panel: its own, and those that all panels share."""
    own = files_in(ROOT / module / "Resources", "*.ui")
    shared = files_in(ROOT / "Neuraxis" / "Resources", "*.ui")
    return sorted({*own, *(path for path in shared if not path.stem.startswith("Neuraxis"))})


def fingerprint(module: str) -> str:
    """Short hash of what can be seen of a module's panel."""
    words = []
    for path in ui_files(module):
        words += seen(ElementTree.parse(path).getroot(), path.is_relative_to(ROOT / module))
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()[:16]


def seen(element: ElementTree.Element, own: bool) -> list[str | None]:
    """Kinds, names and words of the widgets below an element; of shared parts, what is folded is seen in no picture."""
    words: list[str | None] = []
    folded = False
    if element.tag == "widget":
        words += [element.get("class"), element.get("name")]
        for child in (*element.findall("property"), *element.findall("attribute")):
            if child.get("name") in SEEN:
                values = [(part.text or "").strip() for part in child]
                folded |= child.get("name") == "collapsed" and values == ["true"]
                words += [child.get("name"), *values]
    if not folded or own:
        for child in element:
            words += seen(child, own)
    return words


def fingerprints() -> dict[str, str]:
    """Module -> fingerprint of its panel."""
    return {module: fingerprint(module) for module in module_names()}
