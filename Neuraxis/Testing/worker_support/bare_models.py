"""Model files made with the standard library alone, for tests in which no network runs."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def write_bare_model(path: Path, task: str = "threshold", **changes) -> Path:
    """A well-formed model file without weights for ``task``; ``changes`` replace entries of its header."""
    header = _header(path, task, changes)
    text = json.dumps({"__metadata__": {"neuraxis": json.dumps(header)}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def write_whole_model(path: Path, task: str = "hemorrhage", weights: bytes = b"weights", **changes) -> Path:
    """A model file with bytes for weights and the right hash in its header, so that checking it succeeds."""
    from NeuraxisLib.models import _content_sha256

    table = {"w": {"dtype": "U8", "shape": [len(weights)], "data_offsets": [0, len(weights)]}}
    header = _header(path, task, changes)
    header["content_sha256"] = _content_sha256(header, table, memoryview(weights))
    text = json.dumps({"__metadata__": {"neuraxis": json.dumps(header)}, **table}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights)
    return path


def _header(path: Path, task: str, changes: dict) -> dict:
    return {
        "format_version": 1,
        "name": path.stem,
        "title": "Bright voxels",
        "task": task,
        "architecture": {"name": "threshold", "arguments": {"width": 1}},
        "preprocessing": {"steps": []},
        "labels": {"1": "Bright"},
        "threshold": 0.5,
        "min_component_ml": 0.0,
        "uncertainty": {},
        "training": {"data": "none"},
        "licence": "Apache-2.0",
        "notice": "For tests only.",
        "scores": {"dice": 0.5},
        **changes,
    }
