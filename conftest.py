"""Test set-up shared by every room: import roots, the development data, and quiet defaults."""

from __future__ import annotations

import compileall
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
ROOMS = ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel")
for folder in (ROOT, *(ROOT / room for room in ROOMS)):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

#: Counts what becomes of the fault catalogue (Testing/faults/catalogue.csv) and says so at the end.
pytest_plugins = ["Testing.faults.fault_plugin"]


def pytest_sessionstart() -> None:
    """Hundreds of processes will load the libraries: where Python is told to keep no bytecode, it is made once here."""
    if sys.dont_write_bytecode:
        for library in (*(ROOT / room / f"{room}Lib" for room in ROOMS), ROOT / "Training"):
            compileall.compile_dir(library, quiet=2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays to the end: looking through it for garbage, again and again, would take seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans used in development; NEURAXIS_DATA names it, ``../shared/data`` is the default."""
    folder = Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the development data are not here; set NEURAXIS_DATA to their folder")
    return folder
