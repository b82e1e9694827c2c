"""What shipped code may not do, read from its source: unpickle, evaluate, call a shell, listen to all, phone out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from project_tree import ROOT, module_names, product_sources, project_files, relative, syntax_tree

SOURCES = product_sources()
#: Modules that run or unpack what they read.
FORBIDDEN_MODULES = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "telnetlib", "ftplib", "smtplib",
    "xmlrpc", "tarfile",
}  # fmt: skip
#: Calls that do so, by their full name.
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "tempfile.mktemp", "np.save", "numpy.save"}
#: Modules that reach other machines or listen.
NETWORK_MODULES = {
    "urllib", "http", "socket", "requests", "httpx", "aiohttp", "socketserver", "dicomweb_client", "ssl", "distributed",
}  # fmt: skip


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, node) of every call in a file."""
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imported(path: Path) -> set[str]:
    """Top names of everything a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def keyword(node: ast.Call, name: str) -> str | None:
    """The source of a keyword argument of a call."""
    return next((ast.unparse(word.value) for word in node.keywords if word.arg == name), None)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_that_is_read_can_run(path):
    assert imported(path) & FORBIDDEN_MODULES == set()
    for name, node in calls(path):
        where = f"line {node.lineno}: {name}"
        assert name not in FORBIDDEN_CALLS, where
        if name == "torch.load":
            assert keyword(node, "weights_only") == "True", where
        if name in ("np.load", "numpy.load"):
            assert keyword(node, "allow_pickle") in (None, "False"), where
        assert not name.startswith("yaml.") or name in ("yaml.safe_load", "yaml.safe_dump"), where
        assert keyword(node, "shell") in (None, "False"), where
        assert name.split(".")[-1] not in ("extractall", "unpack_archive"), where


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_programs_are_started_by_lists_of_words(path):
    """A command given as one text would be taken apart by a shell or by guesswork."""
    for name, node in calls(path):
        if name.startswith("subprocess.") and node.args:
            assert not isinstance(node.args[0], ast.JoinedStr | ast.Constant), f"line {node.lineno}"


def test_only_known_files_know_of_a_network():
    """Each of them is explained in SECURITY.md; a new one has to be thought about there first."""
    told = re.findall(r"`((?:\w+/)+\w+\.py)`", (ROOT / "SECURITY.md").read_text())
    found = {relative(path) for path in SOURCES if imported(path) & NETWORK_MODULES and _reaches_out(path)}
    assert {path for path in found if not path.endswith(tuple(told))} == set()
    assert [name for name in told if not any(relative(path).endswith(name) for path in SOURCES)] == []


def _reaches_out(path: Path) -> bool:
    """Whether a file does more with network modules than take names apart (urllib.parse)."""
    text = path.read_text()
    parts = re.findall(r"(?:from|import) (urllib\.\w+|http\.\w+|\w+)", text)
    parts = [part for part in parts if part.split(".")[0] in NETWORK_MODULES]
    return any(part != "urllib.parse" for part in parts)


def test_whatever_listens_is_on_this_machine_alone():
    """No server of ours binds to every address; a token is asked for where one listens."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"bind\(\(\s*[\"']{2}", text), relative(path)
        compared = {id(one) for node in ast.walk(syntax_tree(path)) if isinstance(node, ast.Compare)
                    for one in ast.walk(node)}  # fmt: skip
        everywhere = [node for node in ast.walk(syntax_tree(path)) if getattr(node, "value", None) == "0.0.0.0"]
        assert all(id(node) in compared for node in everywhere), relative(path)
        if re.search(r"\b(HTTPServer|ThreadingHTTPServer|socketserver|create_server)\b", text):
            assert "127.0.0.1" in text or "localhost" in text, relative(path)
            assert "token" in text and "compare_digest" in text, relative(path)


def test_pages_that_are_written_need_no_network():
    """Templates and scripts that ship load nothing from elsewhere."""
    for path in project_files():
        shipped = any(f"{module}Lib" in path.parts for module in module_names()) or "Training" in path.parts
        if shipped and path.suffix in (".html", ".jinja", ".js", ".css"):
            text = path.read_text(encoding="utf-8")
            loads = r"(src|href)\s*=\s*[\"']?(https?:)?//|@import|url\(\s*[\"']?https?:"
            assert not re.search(loads, text), relative(path)


def test_templates_escape_what_they_are_given():
    """Every environment of jinja2 escapes by itself."""
    for path in SOURCES:
        for name, node in calls(path):
            if name.split(".")[-1] == "Environment" and "jinja2" in path.read_text():
                assert keyword(node, "autoescape") not in (None, "False"), f"{relative(path)}:{node.lineno}"


def test_the_lock_pins_every_package_by_hash_and_names_no_registry():
    """The environment that ships: exact versions, with a hash of every file that may be installed."""
    text = (ROOT / "requirements.lock.txt").read_text()
    pins = re.findall(r"^([\w.\-]+)==([\w.+!]+)", text, re.MULTILINE)
    blocks = re.split(r"^(?=[\w.\-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(pins) == len(blocks) >= 11 and all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text.replace("https://github.com/neuraxis-project", "") and "--index-url" not in text


def test_the_lock_holds_what_the_package_asks_for():
    """Every requirement of pyproject.toml is pinned, at a version that its floor allows."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from test_index_rules import tomllib

    pinned = dict(re.findall(r"^([\w.\-]+)==([\w.+!]+)", (ROOT / "requirements.lock.txt").read_text(), re.MULTILINE))
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        assert name in pinned and requirement.specifier.contains(pinned[name]), line


def test_the_lock_agrees_with_the_versions_that_are_tested():
    """constraints.txt steers development and tests; what ships must be the same."""
    pinned = dict(re.findall(r"^([\w.\-]+)==([\w.+!]+)", (ROOT / "requirements.lock.txt").read_text(), re.MULTILINE))
    pinned = {name.lower(): version.partition("+")[0] for name, version in pinned.items()}  # of torch, the CPU build
    tested = re.findall(r"^([\w.\-]+)==([\w.+]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert {(n.lower(), v) for n, v in tested if n.lower() in pinned} <= set(pinned.items())
