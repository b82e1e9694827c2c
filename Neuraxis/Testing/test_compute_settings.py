"""What is found on a computer and said of it: every state that an installation of PyTorch can be in."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib import machine, process, task
from NeuraxisLib.errors import CancelledError, WorkerError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_client import WorkerClient
from NeuraxisLib.worker_job import Job

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path[:0] = [str(Path(__file__).parent), str(SUPPORT)]
from bare_models import write_bare_model  # noqa: E402
from fake_torch import torch_build, write_torch  # noqa: E402

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep to no limit")


def asked(folder: Path, absent: str = "", nvidia: str = "") -> list[str]:
    """The sentences of an interpreter that imports from ``folder`` first, and sees that graphics card."""
    tools = folder / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    if nvidia:
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\necho '{nvidia}'\n")
        (tools / "nvidia-smi").chmod(0o755)
    roots = os.pathsep.join([str(folder), str(SUPPORT)])
    environment = {**os.environ, "PYTHONPATH": roots, "TEST_ABSENT": absent}
    environment["PATH"] = os.pathsep.join([str(tools), environment["PATH"]])
    return machine.sentences(machine.ask(sys.executable, environment))


def test_no_torch(tmp_path):
    lines = asked(tmp_path, absent="torch")
    assert lines[0].startswith(f"Python {sys.version.split()[0]} on ") and "processor core" in lines[0]
    assert lines[1].startswith("Automatic threads: ")
    assert lines[2].startswith("PyTorch is not installed; install it with the PyTorch extension in Slicer")


def test_a_folder_that_a_removal_left_behind(tmp_path):
    facts = {"state": "partial"}
    assert machine._torch_sentences(facts, [])[0].startswith("PyTorch is half installed")


def test_the_state_of_such_a_folder(tmp_path, monkeypatch):
    (tmp_path / "torch").mkdir()
    leftover = machine.importlib.machinery.PathFinder.find_spec("torch", [str(tmp_path)])
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: leftover)
    assert machine.torch_facts() == {"state": "partial"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise OSError('[WinError 126] Error loading c10.dll')", "OSError: [WinError 126] Error loading c10.dll"),
        ("import a_part_that_is_not_there", "ModuleNotFoundError: No module named 'a_part_that_is_not_there'"),
        ("", "AttributeError: module 'torch' has no attribute"),
    ],
)
def test_broken_torch(tmp_path, body, words):
    (sentence,) = [line for line in asked(write_torch(tmp_path, body)) if "PyTorch" in line]
    assert sentence.startswith(f"PyTorch is installed but cannot be loaded ({words}") and "install it again" in sentence


def test_torch_without_its_package_record(tmp_path, monkeypatch):
    write_torch(tmp_path, torch_build(), recorded="")
    find = machine.importlib.metadata.version

    def version(name):
        if name == "torch":
            raise machine.importlib.metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(machine.importlib.metadata, "version", version)
    facts = {"state": "ready", "version": "2.4.0", "cuda_build": "", "cuda": [], "mps_build": False, "mps": False}
    lines = machine._torch_sentences({**facts, "unrecorded": True}, [])
    assert "no package record" in lines[1] and "install it again" in lines[1]


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for the driver's tool is a shell script")
@pytest.mark.parametrize(
    ("build", "gpu", "words"),
    [
        (torch_build(), "", "the processor computes, because it is a CPU build and no NVIDIA GPU was found."),
        (
            torch_build(),
            "RTX 4090",
            "this is a CPU build on a computer with an NVIDIA GPU (RTX 4090); reinstall PyTorch",
        ),
        (torch_build("2.4.0", "12.4"), "", "the processor computes, because no NVIDIA GPU was found."),
        (
            torch_build("2.4.0", "12.4"),
            "RTX 4090",
            "it is built for CUDA 12.4 but cannot use the NVIDIA GPU (RTX 4090)",
        ),
        (
            torch_build("2.4.0", "12.4", True),
            "RTX 4090",
            "automatic takes the NVIDIA GPU (Test GPU, 24 GB, CUDA 12.4).",
        ),
        (torch_build("2.4.0", mps=True), "", "automatic takes the Apple GPU."),
    ],
    ids=["cpu", "cpu build on a GPU computer", "cuda build, no GPU", "driver too old", "cuda", "apple"],
)
def test_builds_and_what_follows(tmp_path, build, gpu, words):
    (sentence,) = [line for line in asked(write_torch(tmp_path, build), nvidia=gpu) if "PyTorch" in line]
    assert sentence.startswith("PyTorch 2.4.0") and words in sentence


def test_missing_packages_and_translation_are_said():
    facts = {
        "python": "3.12.1", "system": "Darwin", "machine": "x86_64", "translated": True, "cores": 8, "threads": 7,
        "memory_bytes": 16_000_000_000, "torch": {"state": "missing"}, "nvidia": [], "missing": ["safetensors"],
    }  # fmt: skip
    lines = machine.sentences(facts)
    assert lines[0] == "Python 3.12.1 on macOS (x86_64), 8 processor cores, 16 GB of memory."
    assert lines[1] == "Automatic threads: 7, so that one core stays free for you."
    assert "Intel build on Apple silicon" in lines[3] and "Missing packages: safetensors" in lines[4]


@pytest.mark.skipif(os.name != "posix", reason="interpreters that are shell scripts")
def test_interpreters_that_are_none(tmp_path):
    with pytest.raises(WorkerError, match="'/no/such/python' does not start .*choose another or leave the line empty"):
        machine.ask("/no/such/python")
    silent, rude = tmp_path / "silent", tmp_path / "rude"
    silent.write_text("#!/bin/sh\nexit 0\n")
    rude.write_text("#!/bin/sh\necho 'licence expired' >&2\nexit 3\n")
    for path, words in ((silent, "without a word"), (rude, "licence expired")):
        path.chmod(0o755)
        with pytest.raises(WorkerError, match=rf"does not answer \({words}\)"):
            machine.ask(str(path))


@pytest.mark.skipif(os.name != "posix", reason="an interpreter that is a shell script")
def test_waiting_can_be_cancelled(tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    calls = []
    progress = Progress(None, lambda: calls.append(1) or len(calls) > 2)
    since = time.monotonic()
    with pytest.raises(CancelledError):
        machine.ask(str(slow), progress=progress)
    assert time.monotonic() - since < 30


# -- settings reach the worker ------------------------------------------------------------------------------------


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A job for the test task, and where its result goes."""
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    model = write_bare_model(tmp_path / "bright.safetensors")
    volume = Volume(np.full((2, 4, 4), 100, np.int16), np.diag([-1.0, -1.0, 5.0, 1.0]), "HU")

    def make(client: WorkerClient, **options) -> Job:
        return client.job("threshold", {"ct": volume}, str(model), options)

    return make


def provenance(client: WorkerClient, job: Job) -> dict:
    handle = client.run(job)
    client.wait(handle, 60)
    return handle.read_result().provenance


def test_other_settings_hold_from_the_next_run_on(case):
    client = WorkerClient(paths=[SUPPORT], threads=1)
    try:
        first = provenance(client, case(client))
        assert provenance(client, case(client))["process"] == first["process"]  # the worker stays warm
        client.configure(threads=3, device="cpu")
        second = provenance(client, case(client))
        assert second["process"] != first["process"]
        assert (second["threads"], second["device"], second["visible_gpus"]) == ("3", "cpu", "-1")
        assert first["device"] == "auto"
    finally:
        client.stop()


@linux_only
def test_a_run_that_needs_more_than_the_limit_ends_with_a_sentence(case):
    client = WorkerClient(paths=[SUPPORT], threads=1, memory_limit_gb=1.5)
    try:
        assert provenance(client, case(client))["model"] == "bright"
        handle = client.run(case(client, fault="two gigabytes"))
        with pytest.raises(WorkerError, match="The memory limit of 1.5 GB was reached; raise it in the settings"):
            client.wait(handle, 60)
        assert provenance(client, case(client))["model"] == "bright"  # the worker lives on
        client.configure(threads=1)
        client.wait(client.run(case(client, fault="two gigabytes")), 60)
    finally:
        client.stop()


def test_systems_that_cannot_limit_memory_say_so(monkeypatch):
    monkeypatch.setattr(process.sys, "platform", "win32")
    assert process.limit_memory(4) is False and process._limit_gb is None
