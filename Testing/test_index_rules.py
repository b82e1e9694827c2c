"""The rules of the Slicer extensions index that can be checked without a network."""

from __future__ import annotations

import ast
import json
import re
import struct
import subprocess
import sys
from urllib.parse import urlparse

import pytest
from packaging.requirements import Requirement
from project_tree import ROOT, files_in, library, module_names, product_sources, project_files, relative, syntax_tree

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest on Python 3.10

LICENCE_NAMES = ("LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt")
ENTRY = ROOT / "Resources" / "Catalogue" / "Neuraxis.json"
ENTRY_REQUIRED = {"$schema", "category", "scm_url"}
ENTRY_OPTIONAL = {"build_dependencies", "build_subdirectory", "dicom_support_rule", "enabled", "scm_revision", "tier"}
TEXT_SUFFIXES = {".py", ".md", ".txt", ".toml", ".json", ".csv", ".ui", ".html", ".j2", ".cmake", ".cfg"}
#: Names that Qt 6 or Python 3.12 no longer has.
GONE = (
    r"QTextCodec|QDesktopWidget|QRegExp\b|QTime\(\)|\.desktop\(\)|\bMidButton\b|QSignalMapper|\.exec_\(",
    r"\.setMargin\(|currentIndexChanged\(QString\)|activated\(QString\)|buttonClicked\(int\)|setTabStopWidth\(",
    r"^\s*import imp\b|^\s*from imp import",
)
#: Names that numpy 1.26 (floor of the package), 2.0 (Slicer 5.10) or 2.4 (Slicer 5.12) does not have.
NOT_IN_EVERY_NUMPY = (
    r"float_|unicode_|string_|NaN|Inf|infty|product|cumproduct|alltrue|sometrue|in1d|row_stack|trapz|trapezoid|asfarray|"
    r"find_common_type|cast|source|who|safe_eval|matvec|vecmat|vecdot|matrix_transpose|unstack|unique_values|permute_dims|"
    r"concat|pow|acos|asin|atan|astype|isdtype|bitwise_count|cumulative_sum|cumulative_prod"
)
#: Paths that hostile archives of the tests try to write to.
HOSTILE = {"/tmp/escaped"}
#: Words with which a statement of a file may do more than define: none of them runs a job.
DEFINING = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If,
    ast.Assert,
)  # fmt: skip


@pytest.fixture(scope="module")
def cmake() -> dict[str, str]:
    """What the root CMakeLists.txt sets, and its project name."""
    text = (ROOT / "CMakeLists.txt").read_text()
    values = dict(re.findall(r'^set\((EXTENSION_\w+) "([^"\n]*)"\)', text, re.MULTILINE))
    return {"project": re.search(r"^project\((\w+)\)", text, re.MULTILINE).group(1), **values}


@pytest.fixture(scope="module")
def entry() -> dict:
    """The entry proposed to the extensions index."""
    return json.loads(ENTRY.read_text())


def png_size(path) -> tuple[int, int]:
    """Width and height from a PNG's header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n", f"{path.name} is not a PNG"
    return struct.unpack(">II", head[16:24])


def in_tree(url: str):
    """The file of this repository that a raw.githubusercontent.com address on branch main shows."""
    address = urlparse(url)
    assert address.scheme == "https" and address.netloc == "raw.githubusercontent.com", url
    _, repository, branch, place = address.path.lstrip("/").split("/", 3)
    assert (repository, branch) == ("SlicerNeuraxis", "main"), url
    return ROOT / place


def test_project_name(cmake, entry):
    assert cmake["project"] == ENTRY.stem
    assert not cmake["project"].startswith("Slicer")
    assert urlparse(entry["scm_url"]).path.endswith(f"/Slicer{cmake['project']}.git")
    assert cmake["EXTENSION_HOMEPAGE"] == entry["scm_url"].removesuffix(".git")


def test_entry_has_only_the_schema_s_keys(entry):
    assert entry.keys() >= ENTRY_REQUIRED
    assert entry.keys() <= ENTRY_REQUIRED | ENTRY_OPTIONAL
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["category"] == "Segmentation"
    assert 1 <= entry["tier"] <= 5


def test_entry_and_cmake_name_the_same_dependencies(cmake, entry):
    assert cmake["EXTENSION_DEPENDS"].split() == entry["build_dependencies"] == ["PyTorch"]


def test_values_of_the_entry_are_of_the_schema_s_kinds(entry):
    kinds = {
        "$schema": str, "category": str, "scm_url": str, "scm_revision": str, "build_subdirectory": str,
        "dicom_support_rule": str, "enabled": bool, "tier": int, "build_dependencies": list,
    }  # fmt: skip
    assert {key: type(value) for key, value in entry.items()} == {key: kinds[key] for key in entry}
    assert all(isinstance(name, str) and name for name in entry["build_dependencies"])
    assert re.fullmatch(r"https://\S+\.git", entry["scm_url"])
    assert re.fullmatch(r"main|[0-9a-f]{40}", entry.get("scm_revision", "main"))


def test_description_is_one_or_two_sentences(cmake):
    description = cmake["EXTENSION_DESCRIPTION"]
    assert 1 <= len(re.findall(r"[.!?](?:\s|$)", description)) <= 2
    assert "research only" in description


def test_licence_is_found_and_named():
    names = [name for name in LICENCE_NAMES if (ROOT / name).is_file()]
    assert names == ["LICENSE.txt"]
    licence = (ROOT / "LICENSE.txt").read_text()
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence
    assert "Apache-2.0" in (ROOT / "README.md").read_text()


def test_icon_and_screenshots_are_pictures_of_this_repository(cmake):
    assert png_size(in_tree(cmake["EXTENSION_ICONURL"])) == (128, 128)
    screenshots = cmake["EXTENSION_SCREENSHOTURLS"].split()
    assert screenshots
    for url in screenshots:
        width, height = png_size(in_tree(url))
        assert width >= 600 and height >= 400, url


@pytest.mark.parametrize("module", module_names())
def test_module_icons(module):
    assert png_size(ROOT / module / "Resources" / "Icons" / f"{module}.png") == (128, 128)


def history_bytes() -> int:
    """What git sends to who clones the project: one pack of all that the checked-out commit reaches.

    The folder .git itself says less: fetches leave the same objects in it twice until git tidies up.
    """
    command = ["git", "-C", ROOT, "pack-objects", "--revs", "--stdout", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as git:
        git.stdin.write(b"HEAD\n")
        git.stdin.close()
        size = sum(len(piece) for piece in iter(lambda: git.stdout.read(1 << 20), b""))
    assert git.returncode == 0
    return size


def test_repository_is_small_enough_to_be_cloned():
    tree = sum(path.stat().st_size for path in project_files())
    history = history_bytes() if (ROOT / ".git").exists() else 0
    assert tree + history < 100e6
    assert {relative(p): p.stat().st_size for p in project_files() if p.stat().st_size > 6e6} == {}


def test_text_files_have_unix_line_ends():
    texts = [path for path in project_files() if path.suffix in TEXT_SUFFIXES]
    assert [relative(path) for path in texts if b"\r" in path.read_bytes()] == []


def test_no_names_that_qt_6_or_python_3_12_dropped():
    sources = product_sources() + [path for path in project_files() if path.suffix == ".ui"]
    pattern = re.compile("|".join(GONE), re.MULTILINE)
    assert {relative(p): found for p in sources if (found := pattern.findall(p.read_text(encoding="utf-8")))} == {}


def test_no_numpy_names_that_come_or_go_between_slicer_s_versions():
    pattern = re.compile(rf"\bnp\.(?:{NOT_IN_EVERY_NUMPY})\b(?!\s*=)")
    found = {relative(path): hits for path in product_sources() if (hits := pattern.findall(path.read_text()))}
    assert found == {}


def test_sources_are_read_by_the_oldest_python_that_is_promised():
    """Slicer 5.10 and later have Python 3.12; the package promises 3.10, whose grammar therefore has to do."""
    for path in product_sources():
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_nothing_is_done_when_a_file_of_the_modules_is_imported():
    """The index's review asks for it: files that Slicer loads define, and call nothing that works or writes."""
    loaded = [ROOT / module / f"{module}.py" for module in module_names()]
    loaded += [path for module in module_names() for path in files_in(library(module), "*.py")]
    odd = {}
    for path in loaded:
        docstring_free = [n for n in syntax_tree(path).body if not (isinstance(n, ast.Expr) and is_text(n.value))]
        statements = [node.lineno for node in docstring_free if not isinstance(node, DEFINING)]
        if statements:
            odd[relative(path)] = statements
    assert odd == {}


def is_text(node: ast.AST) -> bool:
    """Whether an expression is a text."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_torch_is_never_installed_with_pip_by_a_module():
    """That is the PyTorch extension's work, which picks the build for the graphics card."""
    calls = re.compile(r"pip_install\(([^)]*)\)|pip_ensure\(([^)]*)\)")
    sources = [ROOT / module / f"{module}.py" for module in module_names()]
    sources += [path for module in module_names() for path in files_in(library(module), "*.py")]
    asked = [words for path in sources for found in calls.findall(path.read_text()) for words in found]
    assert asked and not [words for words in asked if "torch" in words]


def test_downloads_can_be_removed():
    words = (ROOT / "Neuraxis" / "Resources" / "UI" / "NeuraxisModels.ui").read_text()
    assert '<widget class="QPushButton" name="removeButton">' in words


def test_no_absolute_paths_of_a_machine():
    """Home folders, temporary folders and the folder of this very checkout belong to one machine."""
    roots = ["home", "Users", "root", "tmp", "work", "mnt", "scratch"]
    pattern = re.compile(rf"(?<![\w.~}})>/-])/(?:{'|'.join(roots)})/\w+|" + re.escape(f"{ROOT.parent}/"))
    texts = [p for p in project_files() if (p.suffix in TEXT_SUFFIXES or not p.suffix) and p.name != "LICENSE.txt"]
    found = {relative(p): set(pattern.findall(p.read_text(encoding="utf-8"))) - HOSTILE for p in texts}
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_requirements_for_slicer_are_floors_without_torch():
    """Slicer's environment is shared: exact pins break other extensions, and torch is the PyTorch extension's."""
    for path in (path for path in project_files() if path.name == "requirements.txt"):
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
        requirements = [Requirement(line) for line in lines if line]
        assert all_floors(requirements), relative(path)
        assert not {"torch", "torchvision", "monai"} & {requirement.name for requirement in requirements}


def test_requirements_of_the_package_are_floors():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    assert all_floors([Requirement(line) for line in lines])


def all_floors(requirements: list[Requirement]) -> bool:
    """Whether every requirement says at most which version is the oldest."""
    return all(part.operator == ">=" for requirement in requirements for part in requirement.specifier)
