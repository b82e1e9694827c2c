"""Faults of disk, packages and processes, and Cancel at every stage: one clear sentence, nothing half-written."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_support import (
    SUPPORT,
    assert_refused,
    entries,
    head,
    linux_only,
    neuraxis,
    neuraxis_process,
)

from NeuraxisLib.errors import CancelledError, DependencyError, WorkerError
from NeuraxisLib.files import read_volume
from NeuraxisLib.run import run_case
from NeuraxisLib.task import Progress
from NeuraxisLib.worker_client import WorkerClient
from NeuraxisLib.worker_job import Job

sys.path.append(str(SUPPORT))
from worker_fixtures import poll_until

# -- the disk -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small disk of its own at ``folder``; skips where none may be mounted."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no disk can be mounted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@linux_only
@pytest.mark.parametrize("depth", ["out", "new/folder/out"])
def test_output_folder_that_cannot_be_written_to(depth, model, scan, tmp_path):
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:  # nothing is forbidden to root, but a read-only disk is read-only
            folder = stack.enter_context(mounted(tmp_path / "disk", "ro,size=1m"))
        else:
            folder = tmp_path / "disk"
            folder.mkdir(mode=0o555)
        done = neuraxis("hemorrhage", scan, folder / depth, "--model", model)
        assert_refused(done, 7, "could not be written")
        assert "Finding the brain" not in done.stderr  # refused before anything is computed
        assert entries(folder) == {}


@linux_only
@pytest.mark.parametrize("kilobytes", [4, 40, 120])
def test_disk_full(kilobytes, model, scan, tmp_path):
    with mounted(tmp_path / "disk", f"size={kilobytes}k") as folder:
        done = neuraxis("hemorrhage", scan, folder / "new" / "out", "--model", model)
        assert_refused(done, 7, "disk is full")
        assert entries(folder) == {}


@linux_only
@pytest.mark.parametrize("bytes_allowed", [500, 5_000, 50_000])
def test_earlier_result_survives_a_write_that_fails(bytes_allowed, model, scan, tmp_path):
    import resource

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, bytes_allowed))

    assert neuraxis("hemorrhage", scan, tmp_path / "out", "--model", model).returncode == 0
    before = entries(tmp_path)
    arguments = ("hemorrhage", scan, tmp_path / "out", "--model", model)
    done = neuraxis_process(*arguments, preexec_fn=limit_file_size)
    assert_refused(done, 7, "could not be written")
    assert entries(tmp_path) == before


# -- the process ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("stage", ["Finding the brain", "Finding blood", "Writing the result"])
def test_worker_killed_half_way(stage, client, model, scan, tmp_path):
    killed = []

    def kill_at_stage(fraction: float, at: str) -> None:
        if at == stage and not killed:
            killed.append(os.kill(client._process.pid, signal.SIGKILL))

    job = Job("hemorrhage", {"ct": scan}, str(model), output=tmp_path / "out")
    handle = client.run(job, on_progress=kill_at_stage)
    if stage == "Writing the result":  # it may be over before the signal arrives; then the result is whole
        poll_until(client, lambda: handle.is_finished)
        assert killed and (handle.state == "failed" or (tmp_path / "out" / "result.json").is_file())
    else:
        with pytest.raises(WorkerError, match=r"killed by the system, most likely because memory ran out.*\.$"):
            client.wait(handle, timeout=120)
    if handle.state == "failed":
        assert entries(tmp_path) == {}
    client.wait(client.run(Job("hemorrhage", {"ct": scan}, str(model), output=tmp_path / "next")), timeout=120)


def test_torch_absent_in_the_worker(model, tmp_path):
    client = WorkerClient(paths=[SUPPORT], environment={**os.environ, "TEST_ABSENT": "torch"}, threads=1)
    job = client.job("hemorrhage", {"ct": head()}, str(model), output=tmp_path / "out")
    with pytest.raises(DependencyError, match=r"'torch' is not installed; .*PyTorch extension"):
        client.wait(client.run(job), timeout=120)
    client.stop()
    assert entries(tmp_path) == {}


STAGES = [
    "Reading the image",
    "Finding the brain",
    "Preparing the image",
    "Loading the network",
    "Finding blood",
    "Measuring",
    "Writing the result",
]


def test_the_stages_are_all_known(model, scan, tmp_path):
    seen: list[str] = []
    progress = Progress(lambda fraction, stage: seen.append(stage))
    run_case("hemorrhage", {"ct": scan}, model, {}, "cpu", tmp_path / "out", progress)
    assert list(dict.fromkeys(seen)) == STAGES


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("stage", STAGES)
def test_cancel_at_every_stage_leaves_everything_as_it_was(stage, which, model, scan, tmp_path):
    """At the first and at the last moment of each stage at which the computation asks whether to go on."""
    calls: list[str] = []
    progress = Progress(lambda fraction, at: calls.append(at))
    run_case("hemorrhage", {"ct": scan}, model, {}, "cpu", tmp_path / "out", progress)
    before = entries(tmp_path)
    at = [number for number, name in enumerate(calls) if name == stage][0 if which == "first" else -1]
    reported: list[str] = []
    progress = Progress(lambda fraction, name: reported.append(name), cancelled=lambda: len(reported) == at)
    with pytest.raises(CancelledError):
        run_case("hemorrhage", {"ct": scan}, model, {}, "cpu", tmp_path / "out", progress)
    assert len(reported) == at and entries(tmp_path) == before


@pytest.mark.parametrize("stage", ["Starting", *STAGES[:-1]])
def test_cancel_in_the_worker_within_a_second(stage, client, model, tmp_path):
    job = client.job("hemorrhage", {"ct": head()}, str(model))
    handle = client.run(job)
    order = ["Starting", *STAGES]
    poll_until(client, lambda: order.index(handle.stage) >= order.index(stage) or handle.is_finished)
    if handle.is_finished:
        pytest.skip("the run was over before it could be cancelled")
    client.cancel(handle)
    assert poll_until(client, lambda: handle.is_finished) < 1.0
    assert handle.state == "cancelled" and handle.result_folder is None
    client.release(handle)
    assert entries(client._exchange) == {".owner": b""}, "the mark of a private folder alone"


def test_a_scan_without_fault_goes_through(model, scan, tmp_path):
    """What the rows above are measured against: nothing about scan and model is at fault."""
    done = neuraxis_process("hemorrhage", scan, tmp_path / "out", "--model", model)
    assert done.returncode == 0, done.stderr
    assert read_volume(tmp_path / "out" / "labels.seg.nrrd").array.shape == head().array.shape
