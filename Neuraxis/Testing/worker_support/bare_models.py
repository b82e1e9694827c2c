"""Model files made with the standard library alone, for tests in which no network runs."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def write_bare_model(path: Path, task: str = "threshold", **changes) -> Path:
    """A well-formed model file without weights for ``task``; ``changes`` replace entries of its header."""
    header = {
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
    text = json.dumps({"__metadata__": {"neuraxis": json.dumps(header)}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path
