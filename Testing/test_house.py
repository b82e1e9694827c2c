"""The page for newcomers names every file of the shared core, and what it says of adding a task is what there is."""

from __future__ import annotations

import re

import pytest
from project_tree import ROOT, files_in, library, module_names

PAGE = (ROOT / "Docs" / "house.md").read_text(encoding="utf-8")
CORE = library("Neuraxis")


def test_every_file_of_the_core_is_named_once():
    rooms = PAGE.split("\n## What lies where")[1].split("\nPrefixes")[0]
    named = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| [^|]+ \| (.+) \|$", rooms, re.MULTILINE)))
    on_disk = [path.stem for path in files_in(CORE, "*.py") if path.parent == CORE and path.stem != "__init__"]
    assert len(named) == len(set(named)) and (CORE / "view").is_dir()
    assert set(on_disk) - set(named) == set(), "name new files in Docs/house.md"
    assert set(named) - set(on_disk) == {"view"}


@pytest.mark.parametrize("module", [name for name in module_names() if name != "Neuraxis"])
def test_a_task_has_the_parts_that_the_page_lists(module):
    listed = re.findall(r"`XLib/([\w.]+)`", PAGE)
    assert {"task.py", "pipeline.py", "Resources"} <= set(listed)
    assert [part for part in listed if not (library(module) / part).exists()] == []
    for part in re.findall(r"\(`([\w./`, ]+)`\)", PAGE.split("`XLib/Resources`")[1])[0].split("`, `"):
        assert (library(module) / "Resources" / part).exists(), part
    assert (ROOT / module / "Resources" / "UI" / f"{module}.ui").is_file()
