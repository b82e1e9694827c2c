"""What CMake installs is what is on disk: a file missing from a list is a file that users do not get."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from project_tree import ROOT, cmake_list, files_in, installed_files, library, module_names, relative

MODULES = module_names()


def test_every_module_folder_is_added():
    folders = {path.parent.name for path in ROOT.glob("*/CMakeLists.txt")}
    assert folders == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_scripts_are_the_python_files_on_disk(module):
    folder = ROOT / module
    on_disk = [f"{module}.py"] + [path.relative_to(folder).as_posix() for path in files_in(library(module), "*.py")]
    assert sorted(cmake_list(module, "MODULE_PYTHON_SCRIPTS")) == sorted(on_disk)


@pytest.mark.parametrize("module", MODULES)
def test_resources_are_the_other_files_on_disk(module):
    folder = ROOT / module
    other = [path for path in files_in(library(module)) if path.suffix != ".py"] + files_in(folder / "Resources")
    on_disk = [path.relative_to(folder).as_posix() for path in other]
    assert sorted(cmake_list(module, "MODULE_PYTHON_RESOURCES")) == sorted(on_disk)


def test_no_two_modules_install_the_same_path():
    """All modules of an extension land in one folder, so a second Resources/x would overwrite the first."""
    places = Counter(place for module in MODULES for place in installed_files(module))
    assert [place for place, count in places.items() if count > 1] == []


@pytest.mark.parametrize("module", MODULES)
def test_library_folders_are_packages(module):
    """Slicer takes a loose .py in a folder without __init__.py for a module."""
    folders = {path.parent for path in files_in(library(module), "*.py")}
    assert [relative(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("module", MODULES)
def test_module_has_icon_generic_tests_and_its_own_test(module):
    text = (ROOT / module / "CMakeLists.txt").read_text()
    assert f"set(MODULE_NAME {module})" in text
    assert f"Resources/Icons/{module}.png" in cmake_list(module, "MODULE_PYTHON_RESOURCES")
    assert re.search(r"slicerMacroBuildScriptedModule\([^)]*WITH_GENERIC_TESTS", text)
    assert re.search(r"if\(BUILD_TESTING\)[^#]*slicer_add_python_unittest\(SCRIPT \$\{MODULE_NAME\}\.py\)", text)
