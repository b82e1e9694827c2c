"""The models of a computer: listed, installed, verified and removed, by the library and by the command line."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from NeuraxisLib import model_index, model_store
from NeuraxisLib.cli import make_app
from NeuraxisLib.errors import InputError, ModelError, NewerModelError, OutputError
from NeuraxisLib.model_index import index_entry, index_of_folder, parse_index, shipped_index, write_index
from NeuraxisLib.model_store import ModelStore
from NeuraxisLib.models import load_model, user_model_folder
from NeuraxisLib.task import TASKS, get_task

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "worker_support")]
from bare_models import write_bare_model, write_whole_model  # noqa: E402


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder of the user; returns where its models will lie."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return user_model_folder()


@pytest.fixture
def stick(tmp_path) -> Path:
    """A folder with two good models, one altered, one of a newer format, one pickle and a text file."""
    folder = tmp_path / "stick"
    folder.mkdir()
    write_whole_model(folder / "a.safetensors", title="Model A")
    write_whole_model(folder / "b.safetensors", "discs")
    altered = write_whole_model(folder / "c.safetensors")
    altered.write_bytes(altered.read_bytes()[:-1] + b"?")
    write_whole_model(folder / "d.safetensors", format_version=99)
    (folder / "e.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    (folder / "readme.txt").write_text("hello")
    return folder


def row_of(store: ModelStore, name: str):
    return next(row for row in store.models() if row.name == name)


def flip(path: Path, offset: int = -1) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


# -- the shipped index --------------------------------------------------------------------------------------------


def test_the_shipped_index_names_every_bundled_model_as_it_is():
    """If this fails after a new starter: neuraxis models index Neuraxis/NeuraxisLib/Resources/models.json"""
    written = json.loads(model_index.INDEX_FILE.read_text(encoding="utf-8"))["models"]
    assert written == model_index.index_of_bundled()
    files = {path.name for name in TASKS for path in (get_task(name).resources / "Models").iterdir()}
    assert {entry.file for entry in shipped_index()} == files and all(entry.is_bundled for entry in shipped_index())


def test_bundled_models_are_listed_and_verified():
    store = ModelStore()
    rows = store.models()
    assert {row.state for row in rows} == {"bundled"} and len(rows) == len(shipped_index())
    assert not any(row.can_be_installed or row.can_be_removed for row in rows) and store.disk_use_bytes() == 0
    checked = store.verify(rows)
    assert {row.state for row in checked} == {"bundled, verified"}
    assert {row.state for row in store.models()} == {"bundled, verified"}  # remembered
    with pytest.raises(InputError, match="part of the extension"):
        store.remove(rows[0])


def test_a_bundled_model_that_is_another_is_altered(monkeypatch):
    """Its own hash may be right: the index of the extension decides."""
    monkeypatch.setattr(model_store, "_shipped", lambda: [])
    store = ModelStore()
    (row,) = store.verify(store.models()[:1])
    assert row.state == "bundled, altered" and "install the extension again" in row.note


# -- install from file and folder ---------------------------------------------------------------------------------


def test_a_folder_is_installed_and_each_refused_file_is_named(stick, home):
    store, seen = ModelStore(), []
    done = store.install_folder(stick)
    assert done.models == ("a", "b") and len(done.refused) == 3
    assert "'c.safetensors' is damaged or was altered" in done.refused[0]
    assert "'d.safetensors' needs a newer version" in done.refused[1] and "zip archive" in done.refused[2]
    assert sorted(path.name for path in home.iterdir()) == ["a.safetensors", "b.safetensors"]
    seen = {row.name: row for row in store.models()}
    assert seen["a"].state == "installed, verified" and seen["a"].card["title"] == "Model A"
    assert store.disk_use_bytes() == sum(path.stat().st_size for path in home.iterdir())


def test_a_folder_without_models_and_one_that_is_not_there(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="There is no .safetensors file in"):
            ModelStore().install_folder(folder)


def test_files_of_other_tasks_and_other_models_under_the_same_name_are_refused(tmp_path, home):
    store = ModelStore()
    strange = write_whole_model(tmp_path / "strange.safetensors", "astrology")
    with pytest.raises(ModelError, match="task 'astrology', which this version does not have"):
        store.install_file(strange)
    store.install_file(write_whole_model(tmp_path / "model.safetensors", name="first"))
    with pytest.raises(ModelError, match=r"The model 'first' is installed under the file name 'model.safetensors'"):
        store.install_file(write_whole_model(tmp_path / "model.safetensors", name="second"))
    assert load_model(home / "model.safetensors").name == "first"
    store.install_file(write_whole_model(tmp_path / "model.safetensors", name="first", weights=b"new"))  # a new version
    assert load_model(home / "model.safetensors").check().endswith(b"new")


def test_what_lies_there_already_is_listed_with_what_is_wrong(stick, home):
    home.mkdir(parents=True)
    for name in "acde":
        (home / f"{name}.safetensors").write_bytes((stick / f"{name}.safetensors").read_bytes())
    store = ModelStore()
    states = {row.name: row.state for row in store.models() if row.place == "installed"}
    assert states == {
        "a": "installed", "c": "installed", "d": "installed, newer than this version", "e": "installed, unreadable",
    }  # fmt: skip
    states = {row.name: row.state for row in store.verify(store.models()) if row.place == "installed"}
    assert states["a"] == "installed, verified" and states["c"] == "installed, altered"
    assert "newer version of Neuraxis" in row_of(store, "d").note and "zip archive" in row_of(store, "e").note
    flip(home / "a.safetensors")
    assert row_of(store, "a").state == "installed"  # another file: what was known of it does not hold
    assert [row.state for row in store.verify([row_of(store, "a")])] == ["installed, altered"]


# -- indexes ------------------------------------------------------------------------------------------------------


def test_an_index_beside_its_models_needs_no_network(stick, home, tmp_path):
    entries, refused = index_of_folder(stick)
    assert [entry["name"] for entry in entries] == ["a", "b"] and len(refused) == 3
    write_index(stick / "index.json", entries)
    store = ModelStore(str(stick / "index.json"))
    assert row_of_place(store, "available") == []  # nothing is read before somebody asks
    assert store.read_index() == 2
    assert [row.name for row in row_of_place(store, "available")] == ["a", "b"]
    assert store.install_named("b").models == ("b",)
    assert row_of(store, "b").state == "installed, verified" and len(row_of_place(store, "available")) == 1
    flip(stick / "a.safetensors", 200)
    with pytest.raises(ModelError):
        store.install_named("a")
    assert not (home / "a.safetensors").exists()


def row_of_place(store: ModelStore, place: str) -> list:
    return [row for row in store.models() if row.place == place]


def test_a_model_that_was_swapped_for_a_whole_one_is_refused(stick, home):
    write_index(stick / "index.json", [index_entry(load_model(stick / "a.safetensors"))])
    write_whole_model(stick / "a.safetensors", weights=b"something else")
    store = ModelStore(str(stick / "index.json"))
    store.read_index()
    with pytest.raises(ModelError, match="another SHA-256"):
        store.install_named("a")
    assert list(home.iterdir()) == []


def test_an_altered_installed_model_can_be_installed_again(stick, home):
    write_index(stick / "index.json", [index_entry(load_model(stick / "a.safetensors"))])
    store = ModelStore(str(stick / "index.json"))
    store.read_index()
    store.install_named("a")
    flip(home / "a.safetensors")
    (row,) = store.verify([row_of(store, "a")])
    assert row.state == "installed, altered" and row.can_be_installed
    store.install_named("a")
    assert row_of(store, "a").state == "installed, verified"


def test_models_of_a_newer_format_are_shown_and_not_installed(stick):
    entry = {
        **index_entry(load_model(stick / "a.safetensors")),
        "name": "future",
        "model_format": 2,
        "sha256": "0" * 64,
    }
    write_index(stick / "index.json", [{**entry, "content_sha256": "1" * 64}])
    store = ModelStore(str(stick / "index.json"))
    store.read_index()
    row = row_of(store, "future")
    assert row.state == "available, newer than this version" and not row.can_be_installed
    with pytest.raises(NewerModelError, match="update the extension"):
        store.install_named("future")


def test_names_that_no_index_has(stick):
    with pytest.raises(ModelError, match="came with the extension"):
        ModelStore().install_named("hemorrhage-drunet-starter")
    with pytest.raises(ModelError, match="No index names a model 'x'"):
        ModelStore().install_named("x")


GOOD = {
    "name": "a", "file": "a.safetensors", "sha256": "0" * 64, "content_sha256": "1" * 64, "size_bytes": 5,
    "model_format": 1, "title": "A", "task": "discs", "licence": "MIT",
}  # fmt: skip


def parsed(place: str = "https://models.example.org/v1/index.json", **changes):
    entry = {**GOOD, **changes}
    return parse_index(json.dumps({"format_version": 1, "models": [entry]}).encode(), place)[0]


def test_addresses_count_from_the_index(tmp_path):
    assert parsed().url == "https://models.example.org/v1/a.safetensors"
    assert parsed(url="../b/a.safetensors").url == "https://models.example.org/b/a.safetensors"
    assert parsed(url="https://other.example.org/a").url == "https://other.example.org/a"
    assert parsed(url="bundled").url == "https://models.example.org/v1/a.safetensors"  # only ours may say so
    assert parsed(str(tmp_path / "index.json")).url == str(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"file": "../a.safetensors"}, "file"), ({"file": "a.exe"}, "file"), ({"file": "a/b.safetensors"}, "file"),
        ({"file": "a\\b.safetensors"}, "file"), ({"name": ""}, "name"), ({"name": 3}, "name"),
        ({"sha256": "0" * 63}, "sha256"), ({"sha256": "G" * 64}, "sha256"), ({"size_bytes": 0}, "size_bytes"),
        ({"size_bytes": 10**12}, "size_bytes"), ({"size_bytes": "5"}, "size_bytes"), ({"title": None}, "title"),
        ({"url": "file:///etc/passwd"}, "url"), ({"url": "ftp://example.org/a"}, "url"),
    ],
)  # fmt: skip
def test_entries_that_cannot_be_used_are_named(changes, fault):
    with pytest.raises(ModelError, match=rf"Model 1 of the index 'index.json' .*'{fault}'"):
        parsed(**changes)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"<html>", b'{"format_version": 1, "models": [3]}', b"\xff"])
def test_what_is_no_index_is_a_sentence(content, tmp_path):
    (tmp_path / "index.json").write_bytes(content)
    store = ModelStore(str(tmp_path / "index.json"))
    with pytest.raises(ModelError, match="'index.json' is not a list of models"):
        store.read_index()
    with pytest.raises(InputError, match="cannot be opened"):
        model_store.read_entries(str(tmp_path / "none.json"))
    with pytest.raises(ModelError, match="newer version"):
        parse_index(b'{"format_version": 2, "models": []}', "index.json")


# -- removing -----------------------------------------------------------------------------------------------------


def test_a_removed_model_can_be_brought_back_until_it_is_forgotten(stick, home):
    store = ModelStore()
    store.install_folder(stick)
    store.remove(row_of(store, "a"))
    assert not any(row.name == "a" for row in store.models()) and store.can_bring_back
    assert store.bring_back() == "a.safetensors" and row_of(store, "a").check == "verified"
    assert not store.can_bring_back and store.bring_back() == ""
    before = store.disk_use_bytes()
    store.remove(row_of(store, "a"))
    assert store.disk_use_bytes() == before  # it still lies there
    store.remove(row_of(store, "b"))
    store.forget_removed()
    assert list(home.iterdir()) == [] and store.disk_use_bytes() == 0


# -- folders that do not take files, strange and long paths -------------------------------------------------------


def test_a_read_only_folder_is_a_sentence(stick, home, monkeypatch):
    store = ModelStore()
    store.install_file(stick / "a.safetensors")

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match="the disk is read-only"):
        store.install_file(stick / "b.safetensors")
    with pytest.raises(OutputError, match="the disk is read-only"):
        store.remove(row_of(store, "a"))
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="the disk is read-only"):
        store.install_folder(stick)
    assert row_of(store, "a").state == "installed, verified"


def test_a_home_folder_that_is_a_file(stick, tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        ModelStore().install_file(stick / "a.safetensors")
    assert ModelStore().disk_use_bytes() == 0 and ModelStore().models()


def test_non_ascii_and_very_long_paths(stick, tmp_path, monkeypatch):
    deep = tmp_path.joinpath("Ångström 患者 [1]", *["a folder with a long name " * 4] * 4)
    monkeypatch.setenv("XDG_DATA_HOME", str(deep))
    assert len(str(user_model_folder())) > 400
    source = tmp_path / "Модель ü [x]"
    source.mkdir()
    (source / "modèle.safetensors").write_bytes((stick / "a.safetensors").read_bytes())
    entries, _ = index_of_folder(source)
    write_index(source / "índice.json", entries)
    store = ModelStore(str(source / "índice.json"))
    store.read_index()
    assert store.install_named("a").models == ("a",)
    assert store.install_folder(source).models == ("a",)
    assert row_of(store, "a").path == user_model_folder() / "modèle.safetensors"
    store.remove(row_of(store, "a"))
    assert store.bring_back() == "modèle.safetensors"
    too_long = tmp_path / ("x" * 243 + ".safetensors")
    too_long.write_bytes((stick / "b.safetensors").read_bytes())
    store.install_file(too_long)
    assert row_of(store, "b").path.name == too_long.name


# -- command line -------------------------------------------------------------------------------------------------


def neuraxis(*arguments) -> SimpleNamespace:
    """``neuraxis models ...`` in this process: stdout, stderr and the exit code."""
    done = CliRunner().invoke(make_app(), ["models", *map(str, arguments)])
    return SimpleNamespace(stdout=done.stdout, stderr=done.stderr, returncode=done.exit_code)


def test_install_list_verify_and_remove_headless(stick, home):
    done = neuraxis("install", stick, "--json")
    record = json.loads(done.stdout)
    assert done.returncode == 6 and record["installed"] == ["a", "b"] and len(record["refused"]) == 3
    assert "'c.safetensors' is damaged" in done.stderr
    listed = json.loads(neuraxis("list", "--json").stdout)
    assert {row["name"]: row["place"] for row in listed["models"]}["a"] == "installed"
    assert listed["disk_use_bytes"] == sum(path.stat().st_size for path in home.iterdir())
    assert neuraxis("verify").returncode == 0
    flip(home / "a.safetensors")
    done = neuraxis("verify")
    assert done.returncode == 6 and "'a.safetensors' is damaged or was altered" in done.stderr
    assert "installed, altered" in done.stdout and done.stdout.count("bundled, verified") == len(shipped_index())
    done = neuraxis("remove", "a")
    assert done.returncode == 0 and done.stdout.startswith("Removed a; ")
    assert [path.name for path in home.iterdir()] == ["b.safetensors"]
    done = neuraxis("remove", "hemorrhage-drunet-starter")
    assert done.returncode == 3 and "part of the extension" in done.stderr
    assert neuraxis("remove", "none").returncode == 6


def test_index_and_install_by_name_headless(stick, tmp_path, home):
    done = neuraxis("index", stick / "index.json", stick)
    assert done.returncode == 6 and done.stdout.startswith("2 models are in") and "zip archive" in done.stderr
    done = neuraxis("list", "--index", stick / "index.json")
    assert done.returncode == 0 and done.stdout.count("available") == 2
    done = neuraxis("install", "b", "--index", stick / "index.json")
    assert done.returncode == 0 and done.stdout == "Installed b.\n" and (home / "b.safetensors").is_file()
    done = neuraxis("install", stick / "e.safetensors")
    assert done.returncode == 6 and "zip archive" in done.stderr and done.stdout == ""
    assert neuraxis("install", "b", "--index", tmp_path / "none.json").returncode == 3


def test_files_without_a_right_hash_are_not_installed(tmp_path, home):
    with pytest.raises(ModelError, match="damaged or was altered"):
        ModelStore().install_file(write_bare_model(tmp_path / "bare.safetensors", "discs"))
    assert not home.exists()
