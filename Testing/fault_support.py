"""A scan, a model and the command line for the fault catalogue, and what every refusal has to look like."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import dicom_series
import numpy as np
import pytest
from project_tree import ROOT
from typer.testing import CliRunner

from NeuraxisLib.cli import make_app
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_process import child_environment
from Testing.faults.fault_plugin import hear

SUPPORT = ROOT / "Neuraxis" / "Testing" / "worker_support"
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses limits and mounts of Linux")


def head() -> Volume:
    """A head phantom with a bleed, 64 x 64 x 19 voxels of 3.4 x 3.4 x 10 mm."""
    i, j, k = (np.arange(size) for size in (64, 64, 19))
    offset = np.array([-107.1, -107.1, -90.0])
    points = np.stack(np.meshgrid(k * 10.0, j * 3.4, i * 3.4, indexing="ij")[::-1], axis=-1) + offset
    matrix = np.diag([-3.4, -3.4, 10.0, 1.0])
    matrix[:3, 3] = offset * (-1, -1, 1)
    return Volume(dicom_series.phantom_hu(points), matrix, "HU")


def changed(array: np.ndarray) -> Volume:
    """Other voxels on the phantom's grid."""
    return Volume(array, head().ijk_to_ras)


def neuraxis(*arguments) -> subprocess.CompletedProcess:
    """Run the command line within this process: torch is loaded once for all rows."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(make_app(), list(map(str, arguments)))
    finally:
        signal.signal(signal.SIGTERM, handler)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception  # what would have been a traceback
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def neuraxis_process(*arguments, preexec_fn=None, **environment) -> subprocess.CompletedProcess:
    """Run the command line as a process of its own, as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "NeuraxisLib.cli", *map(str, arguments)],
        env={**child_environment([SUPPORT], None, 1, hide_gpu=False), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=preexec_fn,
    )
    hear(done.stderr)
    return done


def entries(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder with its content, hidden or not."""
    files = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in files}


def assert_refused(done: subprocess.CompletedProcess, code: int, words: str) -> None:
    """One sentence of ours on stderr after the progress lines, the exit code, nothing on stdout."""
    said = [line for line in done.stderr.splitlines() if " % " not in line]
    assert len(said) == 1, done.stderr
    assert words.lower() in said[0].lower() and said[0].endswith("."), said[0]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
