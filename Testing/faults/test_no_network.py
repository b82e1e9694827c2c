"""No command reaches for the network unasked: each is run, its child processes too, with all sockets refused that lead
beyond this computer. (A library that is imported may ask the loopback address whether it can bind to it.)
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import dicom_series
import numpy as np
import pytest
from fault_support import SUPPORT, changed, head, neuraxis
from project_tree import ROOT, module_names
from view_support import view_python

from NeuraxisLib.cli import make_app
from NeuraxisLib.files import write_volume

sys.path.append(str(SUPPORT))
import socket_watch

#: Commands of the command line and the tests below that run them.
TRIED = {
    "hemorrhage", "info", "batch", "followup", "maps", "dicom", "labels", "models", "review", "discs", "stroke",
    "selftest", "simulate", "prepare", "train", "evaluate", "view",
}  # fmt: skip
#: Command -> why it is not run here.
NOT_TRIED = {"sweep": "it only starts trainings, and Dask if asked to"}


@pytest.fixture
def refused(tmp_path, monkeypatch) -> Path:
    """File of the attempts; sockets that lead away are refused to this process and to all that it starts."""
    notes = tmp_path / "sockets.txt"
    monkeypatch.setenv("TEST_SOCKETS", str(notes))
    monkeypatch.setenv("TEST_LOOPBACK", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))
    socket_watch.watch(notes, loopback=True)
    yield notes
    socket_watch.stop()


def succeeds(*arguments: object) -> None:
    """Run a command; it must end well."""
    done = neuraxis(*arguments)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"


def test_every_command_is_tried():
    app = make_app()
    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert names == TRIED | set(NOT_TRIED)


@pytest.mark.parametrize(
    ("ask", "passes"),
    [
        (lambda one: one.connect(("192.0.2.1", 9)), False),
        (lambda one: one.bind(("0.0.0.0", 0)), False),
        (lambda one: one.bind(("", 0)), False),
        (lambda one: socket.getaddrinfo("models.example", 443), False),
        (lambda one: one.bind(("127.0.0.1", 0)), True),
    ],
    ids=["connect", "all addresses", "all addresses, empty", "name", "loopback"],
)
def test_what_is_refused(refused, ask, passes):
    """Guards the tests below against passing because nothing is refused."""
    with socket.socket() as one, contextlib.nullcontext() if passes else pytest.raises(OSError, match="no network"):
        ask(one)
    assert refused.exists() != passes


def test_clinical_commands_and_what_is_made_of_results(refused, model, scan, tmp_path):
    images = dicom_series.series(dicom_series.SPARSE_MM, matrix=64, pixel_mm=3.4)
    study = dicom_series.save(images, tmp_path / "study")
    succeeds("info", study)
    succeeds("hemorrhage", study, tmp_path / "result", "--model", model)
    succeeds("dicom", tmp_path / "result", study, tmp_path / "dicom_out")
    succeeds("maps", tmp_path / "result", tmp_path / "maps")
    succeeds("review", "list", tmp_path / "result")
    succeeds("followup", scan, scan, tmp_path / "change", "--model", model)
    succeeds("models", "list")
    succeeds("models", "verify")
    assert not refused.exists(), refused.read_text()


def test_a_batch_with_its_workers(refused, model, scan, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nrrd").write_bytes(scan.read_bytes())
    succeeds("batch", tmp_path / "scans", tmp_path / "out", "--task", "hemorrhage", "--model", model, "--workers", 1)
    assert not refused.exists(), refused.read_text()


@pytest.mark.slow
def test_the_other_tasks_and_the_self_test(refused, tmp_path):
    from Testing.archive_studies import as_file, perfusion, spine

    rng = np.random.default_rng(0)
    as_file(".nrrd")(perfusion(rng).volume, tmp_path / "ctp")
    as_file(".nrrd")(spine(rng).volume, tmp_path / "spine")
    succeeds("stroke", tmp_path / "ctp.nrrd", tmp_path / "stroke")
    succeeds("discs", tmp_path / "spine.nrrd", tmp_path / "discs")
    succeeds("labels", tmp_path / "discs", tmp_path / "labels.csv")
    succeeds("selftest")
    assert not refused.exists(), refused.read_text()


@pytest.mark.slow
def test_training(refused, tmp_path):
    """From label maps to a judged network: simulate, prepare, train, evaluate, each the smallest that there is."""
    from tiny_training import TINY

    succeeds("simulate", tmp_path / "strokes", "--stroke", 2, "--size", 64, "--workers", 1)
    (tmp_path / "cases").mkdir()
    rows = ["id,image,truth,patient"]
    for shift, name in enumerate(("a", "b")):
        volume = changed(np.roll(head().array, 3 * shift, axis=2))
        write_volume(volume, tmp_path / "cases" / f"{name}.nrrd")
        truth = volume.like((volume.array > 60).astype(np.uint8))
        write_volume(truth, tmp_path / "cases" / f"{name}_truth.nrrd")
        rows.append(f"{name},cases/{name}.nrrd,cases/{name}_truth.nrrd,{name}")
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    store = tmp_path / "cases.h5"
    succeeds("prepare", tmp_path / "cases.csv", store, "--split", "train=0.5,val=0.5", "--workers", 1)
    small = [word for value in (*TINY, "fitting.shares={store=1.0}") for word in ("--set", value)]
    fitted = tmp_path / "fitted.safetensors"
    succeeds("train", "hemorrhage_drunet_starter", fitted, "--run", tmp_path / "run", "--store", store, *small,
             "--device", "cpu", "--threads", 1)  # fmt: skip
    judged = tmp_path / "judged"
    succeeds("evaluate", "--model", f"ours={fitted}", "--store", store, "--output", judged, "--no-pictures")
    assert not refused.exists(), refused.read_text()


@pytest.mark.slow
def test_the_page_listens_to_this_computer_alone(scan, tmp_path):
    """``neuraxis view`` reaches nowhere and binds to the loopback address only; without the token nothing is served."""
    code = [view_python(), "-c", "import trame_slicer.core"]
    if subprocess.run(code, capture_output=True, check=False).returncode:
        pytest.skip("the view extra is not installed")
    notes = tmp_path / "sockets.txt"
    rooms = [str(SUPPORT), str(ROOT), *(str(ROOT / room) for room in module_names())]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(rooms), "TEST_SOCKETS": str(notes), "TEST_LOOPBACK": "1",
    }  # fmt: skip
    command = [view_python(), "-m", "NeuraxisLib.cli", "view", str(scan), "--threads", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as page:
        try:
            found = next(filter(None, (re.search(r"(http://127.0.0.1:\d+)/(\S+)/", line) for line in page.stdout)))
            time.sleep(1)
            assert b"<html" in urllib.request.urlopen(f"{found[0]}index.html", timeout=60).read().lower()
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"{found[1]}/index.html", timeout=60)
        finally:
            page.kill()
    assert not notes.exists(), notes.read_text()
