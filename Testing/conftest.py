"""Fixtures shared by the tests that drive the hemorrhage job through its public doors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_support import SUPPORT, head
from untrained_models import write_untrained_model

from NeuraxisLib.files import write_volume
from NeuraxisLib.worker_client import WorkerClient

sys.path.append(str(SUPPORT))
from bare_models import write_bare_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    pytest.importorskip("torch")
    return write_untrained_model(tmp_path_factory.mktemp("model") / "untrained.safetensors", size=32)


@pytest.fixture
def bare(tmp_path_factory) -> Path:
    """A model of the test task that marks bright voxels, which needs no torch."""
    return write_bare_model(tmp_path_factory.mktemp("bare") / "bright.safetensors")


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "head.nrrd"
    write_volume(head(), path)
    return path


@pytest.fixture
def client() -> Iterator[WorkerClient]:
    made = WorkerClient(paths=[SUPPORT], threads=1)
    yield made
    made.stop()
