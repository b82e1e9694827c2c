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
        for widget in ElementTree.parse(path).iter("widget"):
            words += [widget.get("class"), widget.get("name")]
            for child in (*widget.findall("property"), *widget.findall("attribute")):
                if child.get("name") in SEEN:
                    words += [child.get("name"), *((part.text or "").strip() for part in child)]
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()[:16]


def fingerprints() -> dict[str, str]:
    """Module -> fingerprint of its panel."""
    return {module: fingerprint(module) for module in module_names()}
