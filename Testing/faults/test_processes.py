"""Faults of processes: memory that ends, crashes, garbage on the pipes, two at once, clocks and locales that change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fault_support import SUPPORT, entries, head, linux_only, neuraxis_process
from project_tree import ROOT

from NeuraxisLib.errors import CancelledError, InputError, WorkerError
from NeuraxisLib.files import read_volume
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.worker_client import WorkerClient
from NeuraxisLib.worker_job import Job
from NeuraxisLib.worker_process import child_environment

sys.path.append(str(SUPPORT))
from worker_fixtures import poll_until, threshold_task  # noqa: F401

# -- memory and crashes ---------------------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize("megabytes", [700, 1500])
def test_memory_that_ends(megabytes, model, scan, tmp_path):
    """An address space that holds Python but not torch, or torch but not the computation."""
    import resource

    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    before = entries(tmp_path)
    done = neuraxis_process("hemorrhage", scan, tmp_path / "out", "--model", model, preexec_fn=limit_memory)
    said = [line for line in done.stderr.splitlines() if " % " not in line]
    if done.returncode == 0:  # it fitted after all: then the result is whole
        assert read_result(tmp_path / "out").labels is not None
        return
    assert "Traceback" not in done.stderr and entries(tmp_path) == before
    assert said and any(words in said[-1] for words in ("emory ran out", "cannot be loaded")), done.stderr


@linux_only
def test_an_image_larger_than_memory(bare, tmp_path):
    """A scan of 1 GB where 600 MB may be used: refused by name, before anything is computed."""
    import resource

    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))

    header = b"NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 1024 1024 512\n"
    header += b"space directions: (0.25,0,0) (0,0.25,0) (0,0,0.5)\nendian: little\nencoding: raw\n\n"
    with open(tmp_path / "large.nrrd", "wb") as file:
        file.write(header)
        file.truncate(len(header) + (1024 * 1024 * 512 * 2))  # a sparse file: no disk is used
    arguments = ("threshold", tmp_path / "large.nrrd", tmp_path / "out", "--model", bare)
    done = neuraxis_process(*arguments, preexec_fn=limit_memory)
    assert done.returncode in (3, 9) and "emory" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["crash", "exit"])
def test_a_decoder_that_crashes_takes_nobody_along(fault, client, bare, tmp_path):
    """Any library may die on damaged bytes: the worker goes with it, the host gets a sentence and goes on."""
    job = client.job("threshold", {"ct": head()}, str(bare), {"fault": fault}, output=tmp_path / "out")
    with pytest.raises(WorkerError, match=r"The computing process crashed .*\.$"):
        client.wait(client.run(job), timeout=120)
    assert entries(tmp_path) == {}
    again = client.job("threshold", {"ct": head()}, str(bare), output=tmp_path / "out")
    assert (client.wait(client.run(again), timeout=120) / "result.json").is_file()


def test_a_decoder_that_hangs_can_be_cancelled(client, bare, tmp_path):
    job = client.job("threshold", {"ct": head()}, str(bare), {"deaf_stage": "Preparing"}, output=tmp_path / "out")
    handle = client.run(job)
    poll_until(client, lambda: handle.stage == "Preparing")
    client.cancel(handle)
    start = time.monotonic()
    poll_until(client, lambda: handle.is_finished)
    assert time.monotonic() - start < 2 and handle.state == "cancelled" and entries(tmp_path) == {}


# -- killed again and again ---------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_killed_at_any_moment_a_result_is_whole_or_the_earlier_one(bare, scan, tmp_path):
    """Workers killed after random times while they replace an earlier result: there is always a whole one."""
    environment = child_environment([SUPPORT], None, 1, hide_gpu=False)
    command = [sys.executable, "-m", "NeuraxisLib.cli", "threshold", scan, tmp_path / "out", "--model", bare]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    duration = np.mean([_timed(command, environment) for _ in range(2)])
    rng, survived = np.random.default_rng(7), 0
    for _ in range(6):
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            time.sleep(duration * rng.uniform(0.6, 1.02))
            run.kill()
        survived += run.returncode == -signal.SIGKILL
        folder = tmp_path / "out"
        if not folder.exists():  # killed between the two renames: the next run brings the earlier result back
            assert len(list(tmp_path.glob(".out.old.*.partial"))) == 1
        else:
            assert read_result(folder).labels.array.any() and (folder / "report.html").is_file()
    assert survived
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert set(os.listdir(tmp_path)) == {"out"}


def _timed(command: list, environment: dict) -> float:
    start = time.monotonic()
    subprocess.run(command, env=environment, capture_output=True, check=True)
    return time.monotonic() - start


# -- two at once ------------------------------------------------------------------------------------------------


def test_two_at_once_into_one_folder(bare, scan, tmp_path):
    """Either both end well, one after the other, or one is told; a whole result of one of them is there."""
    runs = []
    for threshold in (20, 200):
        arguments = ("threshold", scan, tmp_path / "out", "--model", bare, "--threshold-hu", threshold)
        runs.append(threading.Thread(target=lambda a=arguments: done.append(neuraxis_process(*a))))
    done: list[subprocess.CompletedProcess] = []
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert {one.returncode for one in done} <= {0, 7} and any(one.returncode == 0 for one in done)
    assert all("Traceback" not in one.stderr for one in done)
    assert os.listdir(tmp_path) == ["out"]
    result = read_result(tmp_path / "out")
    marked = [int((head().array > threshold).sum()) for threshold in (20, 200)]
    assert int(result.labels.array.sum()) in marked
    reported = result.measurements[0].value
    assert reported == pytest.approx(float(result.labels.array.sum() * result.source.voxel_volumes_ml[0]))


def test_two_clients_at_once_do_not_meet(bare, tmp_path):
    """Two Slicers: each has its own worker and its own private folder."""
    clients = [WorkerClient(paths=[SUPPORT], threads=1) for _ in range(2)]
    try:
        options = [{"threshold_hu": threshold} for threshold in (20, 200)]
        jobs = [one.job("threshold", {"ct": head()}, str(bare), chosen) for one, chosen in zip(clients, options)]
        handles = [one.run(job) for one, job in zip(clients, jobs)]
        folders = [one.wait(handle, timeout=120) for one, handle in zip(clients, handles)]
        marked = [int(read_result(folder).labels.array.sum()) for folder in folders]
        assert marked == [int((head().array > t).sum()) for t in (20, 200)]
        assert clients[0]._exchange != clients[1]._exchange
    finally:
        for one in clients:
            one.stop()


def test_cancelled_twice(client, bare, tmp_path):
    ended: list[str] = []
    job = client.job("threshold", {"ct": head()}, str(bare), {"slow_stage": "Computing"}, output=tmp_path / "out")
    handle = client.run(job, on_cancelled=lambda: ended.append("cancelled"))
    poll_until(client, lambda: handle.stage == "Computing")
    client.cancel(handle)
    client.cancel(handle)
    poll_until(client, lambda: handle.is_finished)
    client.cancel(handle)
    client.poll()
    assert ended == ["cancelled"] and handle.state == "cancelled" and entries(tmp_path) == {}
    with pytest.raises(CancelledError):
        client.wait(handle)
    client.wait(client.run(client.job("threshold", {"ct": head()}, str(bare))), timeout=120)


# -- clocks and locales -------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_nothing(bare, scan, tmp_path):
    """The wall clock goes back an hour at every look, and the time zone is another."""
    arguments = ("threshold", scan, tmp_path / "plain", "--model", bare)
    assert neuraxis_process(*arguments).returncode == 0
    jumping = ("threshold", scan, tmp_path / "jump", "--model", bare)
    done = neuraxis_process(*jumping, TEST_CLOCK="jump", TZ="Pacific/Apia")
    assert done.returncode == 0, done.stderr
    plain, jump = (read_result(tmp_path / name) for name in ("plain", "jump"))
    np.testing.assert_array_equal(plain.labels.array, jump.labels.array)
    assert plain.measurements == jump.measurements


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns"])
def test_a_run_over_the_change_to_summer_time(zone, bare, scan, tmp_path):
    done = neuraxis_process("threshold", scan, tmp_path / "out", "--model", bare, TZ=zone, TEST_CLOCK="1774745999")
    assert done.returncode == 0 and (tmp_path / "out" / "report.html").is_file(), done.stderr


@linux_only
def test_decimal_commas_change_nothing(tmp_path):
    """Under a locale that writes 0,72 every format is read and written as ever."""
    compiled = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.utf8")], capture_output=True, check=False
    )
    if compiled.returncode > 1 or not (tmp_path / "de_DE.utf8").is_dir():
        pytest.skip("no locale with a decimal comma can be made here (needs localedef)")
    code = f"""
import locale, sys
from pathlib import Path
locale.setlocale(locale.LC_ALL, "de_DE.utf8")
assert locale.localeconv()["decimal_point"] == ","
sys.path[:0] = [{str(ROOT / "Testing")!r}]
from fault_support import head
from NeuraxisLib.files import read_volume, write_volume
import numpy as np
for suffix in ("nrrd", "nii.gz", "mha"):
    path = Path({str(tmp_path)!r}) / ("head." + suffix)
    write_volume(head(), path)
    read = read_volume(path)
    assert np.array_equal(read.array, head().array), suffix
    assert np.allclose(read.ijk_to_ras, head().ijk_to_ras, atol=1e-4), suffix
"""
    environment = {**child_environment([SUPPORT], None, 1, hide_gpu=False), "LOCPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_volume(tmp_path / "head.nrrd").spacing_mm == pytest.approx(head().spacing_mm)


# -- garbage on the pipes -------------------------------------------------------------------------------------------

NOISE = [
    b"\xff\xfe\x00\n", b"[]\n", b"17\n", b'{"event": []}\n', b'{"event": "ready"}\n', b'{"event": "memory"}\n',
    b'{"event": "progress", "id": 1}\n', b'{"event": "progress", "id": 1, "fraction": "x", "stage": 3}\n',
    b'{"event": "failed", "id": 1}\n', b'{"event": "done", "id": 1}\n', b'{"event": "log", "message": {"a": 1}}\n',
    b'{"event": "log", "message": null}\n', b"[" * 100_000 + b"\n", b'{"event": "done", "id": 2, "folder": "/"}\n',
]  # fmt: skip


def test_a_worker_that_speaks_nonsense_is_survived(bare, tmp_path):
    """Whatever comes over the pipe, the run ends in words, and no exception reaches the timer that polls."""
    script = tmp_path / "babble.py"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.stdout.buffer.write({b''.join(NOISE)!r})\n")
    script.chmod(0o700)
    client = WorkerClient(python=script, threads=1)
    try:
        handle = client.run(Job("threshold", {"ct": tmp_path / "none.nrrd"}, str(bare)))
        poll_until(client, lambda: handle.is_finished, 30)
        assert handle.state == "failed" and str(handle.error).endswith(".") and "\n" not in str(handle.error)
    finally:
        client.stop()


REQUESTS = [
    b"\xff\xfe\n", b"[]\n", b"null\n", b"[" * 100_000 + b"\n", b'{"request": []}\n',
    b'{"request": "cancel", "id": []}\n',
    b'{"request": "run"}\n', b'{"request": "run", "id": {}, "task": 7, "inputs": null, "output": 3}\n',
    b'{"request": "run", "id": 5, "task": "threshold", "inputs": {"ct": 12}, "output": [], "options": 8}\n',
    b'{"request": "run", "id": 6, "task": "threshold", "inputs": {"ct": "a\\u0000b"}, "output": "a\\u0000b"}\n',
]  # fmt: skip


def test_a_worker_that_hears_nonsense_goes_on(tmp_path):
    """After any line that is no request, the next true one is answered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "NeuraxisLib.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path,
        env=child_environment([SUPPORT], None, 1, hide_gpu=False),
    )  # fmt: skip
    out, _ = process.communicate(b"".join(REQUESTS) + b'{"request": "ping"}\n{"request": "quit"}\n', timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events]
    assert "ready" in kinds and "pong" in kinds and process.returncode == 0
    ends = [event for event in events if event["event"] == "failed"]
    assert len(ends) == 2 and all(event["message"].endswith(".") for event in ends)
    assert os.listdir(tmp_path) == []


def test_an_exchange_file_that_is_damaged(client, bare, tmp_path):
    job = client.job("threshold", {"ct": head()}, str(bare), output=tmp_path / "out")
    whole = Path(job.inputs["ct"]).read_bytes()
    for damaged in (whole[:-500], whole[:300], whole.replace(b"type: int16", b"type: int17"), b"", b"NRRD0005\n\n"):
        Path(job.inputs["ct"]).write_bytes(damaged)
        with pytest.raises(InputError, match=r"not an exchange file of Neuraxis|is damaged"):
            client.wait(client.run(job), timeout=60)
    assert entries(tmp_path) == {}
