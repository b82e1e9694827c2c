"""The pictures of the documentation: there, small, looked at by a page, and of the panels as they are now."""

from __future__ import annotations

import json
import re
import struct

import pytest
from panel_fingerprint import FINGERPRINTS, fingerprint
from project_tree import ROOT, module_names

FOLDER = ROOT / "Resources" / "Screenshots"
PAGES = [ROOT / "README.md", *sorted((ROOT / "Docs").glob("*.md"))]
#: Bytes of all pictures together: everyone who clones the project downloads them.
MOST_BYTES = 1_500_000


def shown() -> set[str]:
    """Names of the pictures that pages show."""
    return {name for page in PAGES for name in re.findall(r"Screenshots/(\w+\.png)", page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("module", module_names())
def test_pictures_show_the_panel_as_it_is_now(module):
    """A panel whose words or parts have changed: remake its pictures with ``make screenshots``."""
    assert json.loads(FINGERPRINTS.read_text())[module] == fingerprint(module)


def test_every_picture_is_shown_and_every_shown_picture_is_there():
    assert {path.name for path in FOLDER.glob("*.png")} == shown()


@pytest.mark.parametrize("module", module_names())
def test_every_module_has_a_picture_on_its_own_page(module):
    page = (ROOT / "Docs" / f"{module}.md").read_text(encoding="utf-8")
    assert re.search(rf"!\[[^\]]{{15,}}\]\(\.\./Resources/Screenshots/{module}\w*\.png\)", page)


def test_pictures_have_the_size_of_a_small_screen_and_are_small_files():
    for path in FOLDER.glob("*.png"):
        head = path.read_bytes()[:24]
        assert struct.unpack(">II", head[16:24]) == (1280, 720), path.name
    assert sum(path.stat().st_size for path in FOLDER.glob("*.png")) < MOST_BYTES
