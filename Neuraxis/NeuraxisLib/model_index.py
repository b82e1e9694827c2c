"""Indexes of models: JSON files that say which models there are, where they lie and what their SHA-256 is.

One index comes with the extension and lists the models that come with it. Users and hospitals may add one of their
own, as a file (a network share, a stick) or at an address::

    {"format_version": 1, "models": [{"name": "...", "file": "x.safetensors", "sha256": "...", "size_bytes": 1234,
      "content_sha256": "...", "model_format": 1, "url": "...", "title": "...", "task": "...", "licence": "...",
      "notice": "...", "training": {...}, "scores": {...}}]}

``url`` is an address, absolute or relative to the index; an empty one is the file of that name beside the index, and
``"bundled"`` a model that came with the extension. ``neuraxis models index`` writes such a file from a folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import ModelError
from NeuraxisLib.models import FORMAT_VERSION, MAX_FILE_BYTES, SUFFIX, ModelFile, load_model
from NeuraxisLib.task import TASKS, get_task

INDEX_FILE = Path(__file__).resolve().parent / "Resources" / "models.json"
INDEX_VERSION = 1
MAX_INDEX_BYTES = 4_000_000
#: What stands in ``url`` for a model that came with the extension.
BUNDLED = "bundled"
_NAME = re.compile(r"[\w][\w.-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CARD = ("title", "task", "licence", "notice")
#: What of the training an index repeats; the recipe is for those who open the model file.
_TRAINING = ("data", "history", "simulated", "steps", "date")


@dataclass(frozen=True)
class IndexEntry:
    """One model of an index.

    Attributes:
        name: short name, as in the model file.
        file: file name, without folders.
        sha256: of the whole file.
        size_bytes: of the file.
        content_sha256: as the model file's header gives it; tells whether an installed file is this one.
        model_format: format version of the model file.
        url: absolute address, path of a file on this machine, or :data:`BUNDLED`.
        title, task, licence, notice, training, scores: the card, as in the model file.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    content_sha256: str
    model_format: int
    url: str
    title: str
    task: str
    licence: str
    notice: str
    training: dict
    scores: dict

    @property
    def is_bundled(self) -> bool:
        """Whether the model came with the extension."""
        return self.url == BUNDLED

    @property
    def is_newer(self) -> bool:
        """Whether this version of Neuraxis cannot read it yet."""
        return self.model_format > FORMAT_VERSION

    @property
    def card(self) -> dict[str, Any]:
        """What a model card shows, under the names of a model file's header."""
        return {name: getattr(self, name) for name in (*_CARD, "training", "scores")}


def shipped_index() -> list[IndexEntry]:
    """The index that comes with the extension."""
    return parse_index(INDEX_FILE.read_bytes(), str(INDEX_FILE))


def parse_index(content: bytes, place: str) -> list[IndexEntry]:
    """The entries of an index.

    Args:
        content: of the file.
        place: its address or path; relative addresses count from there.

    Raises:
        ModelError: no index, a newer one, or an entry that is incomplete or points where it may not.
    """
    name = place.rstrip("/").replace("\\", "/").rpartition("/")[2]
    try:
        table = json.loads(content)
        version, models = table["format_version"], table["models"]
        entries = [dict(model) for model in models]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(
            f"The model index '{name}' is not a list of models as Neuraxis writes it; choose another."
        ) from None
    if isinstance(version, int) and version > INDEX_VERSION:
        raise ModelError(f"The model index '{name}' needs a newer version of Neuraxis; update the extension.")
    return [_entry(model, number, place, name) for number, model in enumerate(entries, 1)]


def _entry(model: Mapping[str, Any], number: int, place: str, index_name: str) -> IndexEntry:
    kinds = IndexEntry.__annotations__
    python = {"str": str, "int": int, "dict": dict}
    values = {"notice": "", "training": {}, "scores": {}, "url": "", **model}
    bad = [key for key, kind in kinds.items() if not isinstance(values.get(key), python[kind])]
    if not bad:
        bad = [
            key
            for key, good in (
                ("name", _NAME.fullmatch(values["name"])),
                ("file", _is_plain_file(values["file"])),
                ("sha256", _SHA256.fullmatch(values["sha256"])),
                ("content_sha256", _SHA256.fullmatch(values["content_sha256"])),
                ("size_bytes", 0 < values["size_bytes"] <= MAX_FILE_BYTES),
            )
            if not good
        ]
    if bad:
        raise ModelError(
            f"Model {number} of the index '{index_name}' has no usable '{bad[0]}'; ask whoever provides the index."
        )
    values["url"] = _place_of(values["url"], values["file"], place, number, index_name)
    return IndexEntry(**{key: values[key] for key in kinds})


def _is_plain_file(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name.lower().endswith(SUFFIX)


def _place_of(url: str, file: str, place: str, number: int, index_name: str) -> str:
    """Absolute address or path of a model; an index from the network names no file of this machine."""
    if url == BUNDLED:
        if Path(place) == INDEX_FILE:
            return url
        url = ""  # of another index: its models lie beside it
    if is_address(place):
        url = urljoin(place, url or quote(file))
    elif not url:
        return str(Path(place).absolute().parent / file)
    if not is_address(url):
        raise ModelError(
            f"Model {number} of the index '{index_name}' has an 'url' that is no https address; leave it out for a "
            "file beside the index."
        )
    return url


def is_address(place: str) -> bool:
    """Whether a place is an address on the network rather than a path."""
    return place.lower().startswith(("https://", "http://"))


def index_entry(model: ModelFile, url: str = "") -> dict[str, Any]:
    """What an index says of a model file; ModelError if it was altered."""
    content = model.check()
    header = model.header
    training = {key: header["training"][key] for key in _TRAINING if key in header["training"]}
    return {
        "name": model.name,
        "file": model.path.name,
        "sha256": model.sha256,
        "size_bytes": len(content),
        "content_sha256": header["content_sha256"],
        "model_format": header["format_version"],
        "url": url,
        **{key: header[key] for key in _CARD},
        "training": training,
        "scores": header["scores"],
    }


def write_index(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write an index, whole or not at all; OutputError if it cannot be written."""
    text = json.dumps({"format_version": INDEX_VERSION, "models": entries}, indent=1, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


def index_of_folder(folder: Path, base_url: str = "") -> tuple[list[dict[str, Any]], list[str]]:
    """(entries, sentences on what was refused) for the model files of a folder.

    ``base_url``: address of the folder on the network; empty where the models will lie beside the index.
    """
    entries, refused = [], []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            entries.append(
                index_entry(load_model(path), f"{base_url.rstrip('/')}/{quote(path.name)}" if base_url else "")
            )
        except ModelError as error:
            refused.append(str(error))
    return entries, refused


def index_of_bundled() -> list[dict[str, Any]]:
    """Entries for the models that come with the extension, task by task; ModelError if one was altered."""
    folders = [get_task(name).resources / "Models" for name in TASKS]
    files = [path for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return [index_entry(load_model(path), BUNDLED) for path in files]
