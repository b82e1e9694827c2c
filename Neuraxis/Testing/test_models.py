"""Model files: whole, checked, and refused in a sentence when anything about them is wrong."""

from __future__ import annotations

import ast
import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from NeuraxisLib import models
from NeuraxisLib.errors import ModelError
from NeuraxisLib.models import find_model, installed_models, load_model, read_header, write_model
from NeuraxisLib.task import Task

HEADER = {
    "name": "first",
    "title": "First",
    "task": "hemorrhage",
    "architecture": {"name": "DRUNet", "arguments": {"base": 8}},
    "preprocessing": {},
    "labels": {"1": "Hemorrhage"},
    "threshold": 0.5,
    "min_component_ml": 0.1,
    "uncertainty": {},
    "training": {"simulated": True},
    "licence": "Apache-2.0",
    "notice": "For tests.",
    "scores": {},
}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "a.weight": torch.randn(4, 3, generator=generator).half(),
        "b": torch.arange(5),
        "empty": torch.zeros(0, 2),
        "scalar": torch.tensor(2.5),
    }


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "first.safetensors"
    write_model(path, tensors(), HEADER)
    return path


def edit_header(path: Path, change) -> None:
    """Rewrite the safetensors header with ``change(table)`` applied, leaving the data as they are."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    table = json.loads(content[8 : 8 + length])
    change(table)
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_what_is_written_is_read(model_path: Path) -> None:
    model = load_model(model_path, "hemorrhage")
    assert {key: model.header[key] for key in HEADER} == HEADER
    weights = model.weights()
    for name, tensor in tensors().items():
        assert torch.equal(weights[name], tensor.float() if tensor.is_floating_point() else tensor)
    assert weights["a.weight"].dtype == torch.float32
    assert weights["b"].dtype == torch.int64


def test_the_file_is_plain_safetensors(model_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(model_path, "pt") as file:
        assert json.loads(file.metadata()["neuraxis"])["name"] == "first"
        assert torch.equal(file.get_tensor("a.weight"), tensors()["a.weight"])


def test_sha256_is_that_of_the_file(model_path: Path) -> None:
    import hashlib

    assert load_model(model_path).sha256 == hashlib.sha256(model_path.read_bytes()).hexdigest()


def test_writing_twice_gives_the_same_bytes(model_path: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "again.safetensors", tensors(), HEADER)
    assert (tmp_path / "again.safetensors").read_bytes() == model_path.read_bytes()


def test_one_changed_bit_of_the_weights_is_refused(model_path: Path) -> None:
    content = bytearray(model_path.read_bytes())
    content[-3] ^= 1
    model_path.write_bytes(content)
    with pytest.raises(ModelError, match=r"'first.safetensors' is damaged or was altered"):
        load_model(model_path).weights()


def test_a_changed_threshold_is_refused(model_path: Path) -> None:
    def change(table: dict) -> None:
        header = json.loads(table["__metadata__"]["neuraxis"])
        header["threshold"] = 0.4
        table["__metadata__"]["neuraxis"] = json.dumps(header)

    edit_header(model_path, change)
    with pytest.raises(ModelError, match="altered"):
        load_model(model_path).weights()


def test_the_layout_of_the_header_does_not_matter(model_path: Path) -> None:
    def change(table: dict) -> None:
        header = json.loads(table["__metadata__"]["neuraxis"])
        table["__metadata__"]["neuraxis"] = json.dumps(dict(reversed(header.items())), indent=3)

    edit_header(model_path, change)
    assert set(load_model(model_path).weights()) == set(tensors())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(model_path: Path, share: float) -> None:
    content = model_path.read_bytes()
    model_path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match="not a model file or was cut short"):
        read_header(model_path)


def test_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return Path.touch, (canary,)

    plain, zipped = tmp_path / "plain.safetensors", tmp_path / "zipped.safetensors"
    plain.write_bytes(pickle.dumps(Payload()))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
    for path in (plain, zipped):
        with pytest.raises(ModelError, match=r"pickle .*choose a \.safetensors|pickle, not a model"):
            load_model(path)
    assert not canary.exists()


def test_a_web_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.safetensors"
    path.write_text("<!doctype html><title>Sign in</title>")
    with pytest.raises(ModelError, match="web page"):
        read_header(path)


@pytest.mark.parametrize("length", [8 << 30, (1 << 64) - 1, 1_000_001])
def test_a_header_that_claims_to_be_huge_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b" " * 2_000_000)
    with pytest.raises(ModelError, match="not a model file"):
        read_header(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["b"].update(data_offsets=[0, 8 << 30]),
        lambda table: table["b"].update(data_offsets=[-8, 32]),
        lambda table: table["b"].update(shape=[1 << 40, 1 << 40]),
        lambda table: table["b"].update(dtype="F1024"),
        lambda table: table["b"].update(shape="many"),
        lambda table: table.update(b=7),
        lambda table: table.pop("b"),
    ],
)
def test_a_header_that_lies_about_its_data_is_refused(model_path: Path, change) -> None:
    edit_header(model_path, change)
    with pytest.raises(ModelError, match="not a model file"):
        read_header(model_path)


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.safetensors"
    text = b"[" * 500_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelError, match="not a model file"):
        read_header(path)


@pytest.mark.parametrize("length", [0x280, 0x480, 0x4B50, ord("<")])
def test_a_length_that_looks_like_a_pickle_is_only_a_length(tmp_path: Path, length: int) -> None:
    """The first bytes of a sound file are the length of its header, and that may be any number."""
    path = tmp_path / "padded.safetensors"
    text = b'{"__metadata__": {}}'.ljust(length)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelError, match="no Neuraxis header"):
        read_header(path)


def test_weights_without_our_header_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors(), tmp_path / "foreign.safetensors")
    with pytest.raises(ModelError, match="no Neuraxis header"):
        read_header(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("key", sorted(set(HEADER)))
def test_an_incomplete_header_is_never_written(tmp_path: Path, key: str) -> None:
    header = {name: value for name, value in HEADER.items() if name != key}
    with pytest.raises(ModelError, match=f"does not say its '{key}'"):
        write_model(tmp_path / "x.safetensors", tensors(), header)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'a\.weight' are not finite"):
        write_model(tmp_path / "x.safetensors", {"a.weight": torch.tensor([1.0, float("nan")])}, HEADER)
    assert not list(tmp_path.iterdir())


def test_a_newer_format_asks_for_an_update(model_path: Path) -> None:
    def change(table: dict) -> None:
        header = {"format_version": models.FORMAT_VERSION + 1}
        table["__metadata__"]["neuraxis"] = json.dumps(header)

    edit_header(model_path, change)
    with pytest.raises(ModelError, match="newer version of Neuraxis; update"):
        read_header(model_path)


def test_a_model_of_another_task_is_refused(model_path: Path) -> None:
    with pytest.raises(ModelError, match="made for the task 'hemorrhage', not 'stroke'"):
        load_model(model_path, "stroke")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelError, match=f"'{path.name}' cannot be opened"):
            read_header(path)


def test_headers_are_read_without_torch() -> None:
    tree = ast.parse(Path(models.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - set(sys.stdlib_module_names) == {"NeuraxisLib"}


# -- installed models -----------------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    shipped, users = tmp_path / "resources" / "Models", tmp_path / "user"
    shipped.mkdir(parents=True)
    users.mkdir()
    monkeypatch.setattr(models, "user_model_folder", lambda: users)
    for folder, file, changes in (
        (shipped, "b", {"name": "b", "default": True}),
        (shipped, "c", {"name": "c"}),
        (shipped, "s", {"name": "s", "task": "stroke", "default": True}),
        (users, "a", {"name": "a"}),
    ):
        write_model(folder / f"{file}.safetensors", tensors(), {**HEADER, **changes})
    (shipped / "broken.safetensors").write_bytes(b"not a model")
    return Task("hemorrhage", "", {"ct": ""}, object, tmp_path / "resources", None)


def test_installed_models_are_those_of_the_task_the_default_first(task: Task) -> None:
    assert [model.name for model in installed_models(task)] == ["b", "a", "c"]


def test_a_file_of_the_user_replaces_a_shipped_one(task: Task, tmp_path: Path) -> None:
    mine = tmp_path / "user" / "mine.safetensors"
    write_model(mine, tensors(), {**HEADER, "name": "c"})
    assert find_model(task, "c") == mine
    assert [model.name for model in installed_models(task)] == ["b", "a", "c"]


@pytest.mark.parametrize("nothing", ["", None])
def test_no_name_finds_the_default(task: Task, nothing) -> None:
    assert find_model(task, nothing).name == "b.safetensors"


def test_a_method_to_compare_with_is_listed_last_and_never_the_default(task: Task) -> None:
    shipped = task.resources / "Models"
    write_model(shipped / "0.safetensors", {}, {**HEADER, "name": "0", "comparator": True, "default": True})
    assert [model.name for model in installed_models(task)] == ["b", "a", "c", "0"]
    assert find_model(task).name == "b.safetensors"
    for path in (*shipped.glob("[abc].*"), *models.user_model_folder().glob("*")):
        path.unlink()
    assert find_model(task, "0") == shipped / "0.safetensors"
    with pytest.raises(ModelError, match="No model for the task 'hemorrhage' is installed"):
        find_model(task)


def test_an_altered_file_without_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    write_model(path, {}, HEADER)
    load_model(path).check()
    edit_header(path, lambda table: table["__metadata__"].update(
        neuraxis=table["__metadata__"]["neuraxis"].replace('"threshold": 0.5', '"threshold": 0.1')))  # fmt: skip
    with pytest.raises(ModelError, match="damaged or was altered"):
        load_model(path).check()


def test_models_are_found_by_name_and_by_path(task: Task, model_path: Path) -> None:
    assert find_model(task, "a") == models.user_model_folder() / "a.safetensors"
    assert find_model(task, model_path) == model_path


def test_an_unknown_name_lists_the_known_ones(task: Task) -> None:
    with pytest.raises(ModelError, match=r"no model 'z'; choose one of: b, a, c;"):
        find_model(task, "z")
    with pytest.raises(ModelError, match=r"no model file 'z\.safetensors'; check the path"):
        find_model(task, "z.safetensors")


def test_no_models_at_all_says_where_to_put_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "user_model_folder", lambda: tmp_path / "none")
    with pytest.raises(ModelError, match=r"No model for the task 'hemorrhage' is installed.*none"):
        find_model(Task("hemorrhage", "", {}, object, tmp_path, None))


def test_the_user_folder_is_the_platforms_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert models.user_model_folder() == tmp_path / "Neuraxis" / "Models"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert models.user_model_folder().parts[-4:] == ("Library", "Application Support", "Neuraxis", "Models")
