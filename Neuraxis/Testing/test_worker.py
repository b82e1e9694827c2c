"""The worker process and its client, with a small real task: results, faults, cancel at every stage, orphans."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib import exchange, task, worker_client
from NeuraxisLib.errors import (
    CancelledError,
    DependencyError,
    InputError,
    ModelError,
    NeuraxisError,
    OutputError,
    WorkerError,
)
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_client import WorkerClient
from NeuraxisLib.worker_job import Job
from NeuraxisLib.worker_process import child_environment, import_roots

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from bare_models import write_bare_model  # noqa: E402
from worker_fixtures import poll_until, sheared_volume, threshold_task  # noqa: E402, F401

posix_only = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


@pytest.fixture
def model(tmp_path) -> str:
    return str(write_bare_model(tmp_path / "bright.safetensors"))


@pytest.fixture
def volume() -> Volume:
    return sheared_volume()


@pytest.fixture
def client():
    made = WorkerClient(paths=[SUPPORT], threads=1)
    yield made
    made.stop()


class Recorder:
    """Collects what the callbacks of a run are told."""

    def __init__(self):
        self.progress, self.ends = [], []

    def callbacks(self) -> dict:
        return {
            "on_progress": lambda fraction, stage: self.progress.append((fraction, stage)),
            "on_done": lambda folder: self.ends.append(("done", folder)),
            "on_failed": lambda error: self.ends.append(("failed", error)),
            "on_cancelled": lambda: self.ends.append(("cancelled", None)),
        }


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# -- results --------------------------------------------------------------------------------------------------


def test_a_run_gives_the_result(client, volume, model):
    heard = Recorder()
    handle = client.run(client.job("threshold", {"ct": volume}, model), **heard.callbacks())
    assert heard.ends == [] and handle.state in ("waiting", "running")
    folder = client.wait(handle, timeout=30)
    assert heard.ends == [("done", folder)] and handle.state == "done" and handle.fraction == 1.0
    result = handle.read_result(volume)
    assert np.array_equal(result.labels.array, volume.array > 60)
    assert np.allclose(result.labels.ijk_to_ras, volume.ijk_to_ras)
    assert result.measurements[0].value == pytest.approx(20 * 0.72 * 0.72 * 5 / 1000)
    fractions = [fraction for fraction, _ in heard.progress]
    stages = list(dict.fromkeys(stage for _, stage in heard.progress))
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert stages == ["Reading the image", "Preparing", "Computing", "Measuring", "Writing the result"]


def test_the_worker_stays_warm_and_threads_are_set(client, volume, model):
    job = client.job("threshold", {"ct": volume}, model)
    processes = set()
    for _ in range(3):
        handle = client.run(job)
        client.wait(handle, timeout=30)
        processes.add(handle.read_result().provenance["process"])
    assert len(processes) == 1 and processes != {os.getpid()}
    assert handle.read_result().provenance["threads"] == "1"


def test_files_are_read_and_the_result_goes_where_the_user_says(client, volume, model, tmp_path):
    path = exchange.write_exchange(volume, tmp_path / "scan.exchange.nrrd").rename(tmp_path / "scan.nrrd")
    handle = client.run(Job("threshold", {"ct": path}, model, {"threshold_hu": 200}, output=tmp_path / "a" / "out"))
    assert client.wait(handle, timeout=30) == tmp_path / "a" / "out"
    assert handle.read_result().measurements[0].value == 0
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["out"]


def test_exchange_folder_is_private_and_goes_with_the_client(client, volume, model):
    job = client.job("threshold", {"ct": volume}, model)
    folder = client._exchange
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    handle = client.run(job)
    client.wait(handle, timeout=30)
    client.release(handle)
    assert [path.name for path in folder.iterdir()] == [".owner"]
    client.job("threshold", {"ct": volume}, model)
    client.stop()
    assert not folder.exists()


def test_runs_wait_for_each_other_and_a_waiting_one_can_be_cancelled(client, volume, model):
    job = client.job("threshold", {"ct": volume}, model)
    heard = [Recorder() for _ in range(3)]
    handles = [client.run(job, **one.callbacks()) for one in heard]
    client.cancel(handles[1])
    assert client.is_busy
    client.wait(handles[2], timeout=30)
    assert [[end for end, _ in one.ends] for one in heard] == [["done"], ["cancelled"], ["done"]]
    assert not client.is_busy


def test_cpu_hides_the_graphics_card_from_the_worker_only(client, volume, model, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = []
    for device in ("cpu", "auto", "cpu"):
        handle = client.run(client.job("threshold", {"ct": volume}, model, device=device))
        client.wait(handle, timeout=30)
        provenance = handle.read_result().provenance
        seen.append((provenance["device"], provenance["visible_gpus"]))
    assert seen == [("cpu", "-1"), ("auto", None), ("cpu", "-1")]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_stray_output_does_not_reach_the_protocol(client, volume, model):
    handle = client.run(client.job("threshold", {"ct": volume}, model, {"fault": "noise"}))
    client.wait(handle, timeout=30)
    poll_until(client, lambda: "writes to sys.stdout" in client.log_text, 20)
    assert "writes to file descriptor 1" in client.log_text and "a stray print" in client.log_text


# -- faults ---------------------------------------------------------------------------------------------------

FAULTS = {
    "memory": (WorkerError, r"Memory ran out \(it used \d"),
    "no package": (DependencyError, "'a_package_that_is_not_there' is not installed"),
    "bug": (NeuraxisError, "unexpected fault.*ZeroDivisionError"),
    "exit": (WorkerError, "crashed .exit code 3."),
}
POSIX_FAULTS = {
    "killed": (WorkerError, r"killed by the system, most likely because memory ran out \(it used .* were free shortly"),
    "crash": (WorkerError, "crashed .signal SIGSEGV."),
}


@pytest.mark.parametrize("fault", [*FAULTS, *(pytest.param(name, marks=posix_only) for name in POSIX_FAULTS)])
def test_a_fault_is_one_sentence_and_the_next_run_works(client, volume, model, tmp_path, fault):
    kind, pattern = (FAULTS | POSIX_FAULTS)[fault]
    heard, output = Recorder(), tmp_path / "out"
    job = client.job("threshold", {"ct": volume}, model, {"fault": fault}, output=output)
    handle = client.run(job, **heard.callbacks())
    with pytest.raises(kind, match=pattern) as caught:
        client.wait(handle, timeout=30)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence
    assert [end for end, _ in heard.ends] == ["failed"] and handle.error is caught.value
    assert not output.exists() and not list(tmp_path.glob(".*"))
    client.wait(client.run(client.job("threshold", {"ct": volume}, model)), timeout=30)


def test_torch_running_out_of_memory_is_named(client, volume, model):
    pytest.importorskip("torch")
    handle = client.run(client.job("threshold", {"ct": volume}, model, {"fault": "torch memory"}))
    with pytest.raises(WorkerError, match="Memory ran out"):
        client.wait(handle, timeout=60)


@pytest.mark.parametrize(
    ("changes", "kind", "pattern"),
    [
        ({"task": "nothing"}, InputError, "no task 'nothing'"),
        ({"options": {"colour": 1}}, InputError, "no option 'colour'"),
        ({"options": {"steps": "many"}}, InputError, "'steps' takes a value of type int"),
        ({"options": {"steps": 1.5}}, InputError, "'steps' takes a whole number"),
        ({"options": {"keep_empty": "yes"}}, InputError, "'keep_empty' is true or false"),
        ({"device": "abacus"}, InputError, "no device 'abacus'"),
        ({"inputs": {}}, InputError, "takes ct, but got nothing"),
        ({"model": "/nowhere/a.safetensors"}, ModelError, "no model file"),
    ],
)
def test_a_wrong_request_is_refused(client, volume, model, changes, kind, pattern):
    job = client.job("threshold", {"ct": volume}, model)
    with pytest.raises(kind, match=pattern):
        client.wait(client.run(Job(**{**job.__dict__, **changes})), timeout=30)


@pytest.mark.parametrize(
    ("array", "pattern"),
    [
        (np.full((3, 4, 5), np.nan, np.float32), "60 voxels that are not a number"),
        (np.zeros((1, 4, 5), np.int16), "two-dimensional"),
        (np.zeros((2, 3, 4, 5), np.int16), "time frames"),
    ],
)
def test_images_from_memory_pass_the_same_checks_as_files(client, model, array, pattern):
    with pytest.raises(InputError, match=pattern):
        client.wait(client.run(client.job("threshold", {"ct": Volume(array, np.eye(4))}, model)), timeout=30)


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
@posix_only
def test_an_interpreter_that_does_not_work_is_named(volume, model, python):
    client, heard = WorkerClient(python=python), Recorder()
    handle = client.run(client.job("threshold", {"ct": volume}, model), **heard.callbacks())
    assert heard.ends == []  # told by poll, not in the middle of run
    with pytest.raises(WorkerError, match=r"cannot be started|could not start"):
        client.wait(handle, timeout=30)
    client.stop()


def test_changed_model_file_is_read_anew(client, volume, model):
    job = client.job("threshold", {"ct": volume}, model)
    client.wait(client.run(job), timeout=30)
    write_bare_model(Path(model), name="another")
    handle = client.run(job)
    client.wait(handle, timeout=30)
    assert handle.read_result().provenance["model"] == "another"


# -- cancel ---------------------------------------------------------------------------------------------------


def cancelled_in_s(client: WorkerClient, job: Job, ready, heard: Recorder) -> float:
    """Start a job, cancel it once ``ready(handle)``; the seconds until on_cancelled."""
    handle = client.run(job, **heard.callbacks())
    poll_until(client, lambda: ready(handle), 20)
    client.cancel(handle)
    seconds = poll_until(client, lambda: handle.is_finished, 20)
    assert [end for end, _ in heard.ends] == ["cancelled"] and isinstance(handle.error, CancelledError)
    return seconds


@pytest.mark.parametrize("manner", ["slow_stage", "deaf_stage"])
@pytest.mark.parametrize("stage", ["Preparing", "Computing", "Measuring"])
def test_cancel_within_a_second_while_computing(client, volume, model, tmp_path, stage, manner):
    output = tmp_path / "out"
    job = client.job("threshold", {"ct": volume}, model, {manner: stage}, output=output)
    heard = Recorder()
    seconds = cancelled_in_s(client, job, lambda handle: handle.stage == stage, heard)
    assert seconds < (0.5 if manner == "slow_stage" else 1.0)
    assert not output.exists() and not list(tmp_path.glob(".*"))
    client.wait(client.run(client.job("threshold", {"ct": volume}, model)), timeout=30)


@pytest.mark.parametrize(
    ("call", "stage"), [("numpy.memmap", "Reading the image"), ("os.fsync", "Writing the result")]
)
def test_cancel_within_a_second_while_the_disk_does_not_answer(volume, model, tmp_path, call, stage):
    client = WorkerClient(paths=[SUPPORT], environment={**os.environ, "TEST_SLOW_CALL": call}, threads=1)
    output, heard = tmp_path / "out", Recorder()
    job = client.job("threshold", {"ct": volume}, model, output=output)

    def is_stuck(handle) -> bool:
        return handle.stage == stage and (call != "os.fsync" or bool(list(tmp_path.glob(".out.*.partial/*"))))

    assert cancelled_in_s(client, job, is_stuck, heard) < 1.0
    assert not output.exists() and not list(tmp_path.glob(".*"))
    client.stop()


def test_cancel_while_the_worker_starts(client, volume, model, tmp_path):
    job = client.job("threshold", {"ct": volume}, model, output=tmp_path / "out")
    heard = Recorder()
    assert cancelled_in_s(client, job, lambda handle: True, heard) < 1.0
    assert not (tmp_path / "out").exists()


def test_cancelling_a_finished_run_changes_nothing(client, volume, model):
    heard = Recorder()
    handle = client.run(client.job("threshold", {"ct": volume}, model), **heard.callbacks())
    client.wait(handle, timeout=30)
    client.cancel(handle)
    client.poll()
    assert [end for end, _ in heard.ends] == ["done"] and handle.state == "done"


def test_stop_ends_a_run_without_callbacks_and_the_client_can_be_used_again(client, volume, model):
    heard = Recorder()
    handle = client.run(
        client.job("threshold", {"ct": volume}, model, {"deaf_stage": "Computing"}), **heard.callbacks()
    )
    poll_until(client, lambda: handle.stage == "Computing", 20)
    process = client._process.pid
    client.stop()
    assert not is_alive(process) and handle.state == "cancelled" and heard.ends == []
    client.wait(client.run(client.job("threshold", {"ct": volume}, model)), timeout=30)


def test_wait_gives_up_but_the_run_goes_on(client, volume, model):
    handle = client.run(client.job("threshold", {"ct": volume}, model, {"slow_stage": "Computing"}))
    with pytest.raises(TimeoutError):
        client.wait(handle, timeout=0.3)
    assert not handle.is_finished
    assert handle.seconds_left is None or handle.seconds_left > 0


# -- orphans and layout ---------------------------------------------------------------------------------------

_ORPHAN_SCRIPT = """
import sys, time
import numpy as np
from NeuraxisLib.task import TASKS
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_client import WorkerClient
client = WorkerClient(paths=[sys.argv[1]], threads=1)
volume = Volume(np.zeros((3, 4, 5), np.int16), np.eye(4))
handle = client.run(client.job("threshold", {"ct": volume}, sys.argv[2], {sys.argv[3]: "Computing"}))
while handle.stage != "Computing":
    client.poll()
    time.sleep(0.01)
print(client._process.pid, client._exchange, flush=True)
if sys.argv[4] == "end":
    sys.exit()
time.sleep(60)
"""


@pytest.mark.parametrize("manner", ["slow_stage", "deaf_stage"])
@pytest.mark.parametrize("end", ["end", "SIGKILL", "SIGTERM"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_the_worker_and_its_folder_go_with_the_parent(model, manner, end):
    environment = child_environment([SUPPORT], None, 1, hide_gpu=False)
    command = [sys.executable, "-c", _ORPHAN_SCRIPT, str(SUPPORT), model, manner, end]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        pid, folder = parent.stdout.readline().split()
        if end != "end":
            assert is_alive(int(pid)) and Path(folder).is_dir()
            parent.send_signal(getattr(signal, end))
        parent.wait(10)
    deadline = time.monotonic() + 3
    while (is_alive(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(int(pid)) and not Path(folder).exists()


def test_the_client_loads_no_heavy_package():
    code = (
        "import sys, NeuraxisLib.worker_client; "
        "print([name for name in ('torch', 'SimpleITK', 'scipy', 'skimage', 'pydicom', 'matplotlib', 'typer', 'qt') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=child_environment([], None, 1, False), capture_output=True)
    assert done.stdout.decode().strip() == "[]", done.stderr.decode()


def test_import_roots_cover_every_task_in_both_layouts(tmp_path, monkeypatch):
    roots = import_roots()
    for entry in task.TASKS.values():
        module = entry.split(":")[0].split(".")[0]
        assert module == "threshold_task" or any((root / module).is_dir() for root in roots)
    # Installed: all libraries side by side in one folder, which alone is enough.
    for package in ("NeuraxisLib", "HemorrhageSegLib"):
        (tmp_path / "installed" / package).mkdir(parents=True)
    monkeypatch.setattr("NeuraxisLib.worker_process.__file__", str(tmp_path / "installed" / "NeuraxisLib" / "x.py"))
    assert import_roots() == [tmp_path / "installed"]


def test_the_interpreter_is_pythonslicer_inside_slicer(monkeypatch):
    assert worker_client.default_python() == sys.executable
    monkeypatch.setitem(sys.modules, "slicer", object())
    monkeypatch.setattr(worker_client.shutil, "which", lambda name: f"/slicer/bin/{name}")
    assert worker_client.default_python() == "/slicer/bin/PythonSlicer"
    monkeypatch.setattr(worker_client.shutil, "which", lambda name: None)
    assert worker_client.default_python() == sys.executable


def test_the_environment_of_another_interpreter_is_the_one_given():
    environment = child_environment(["/mine"], {"PATH": "/bin", "PYTHONPATH": "/old"}, 3, hide_gpu=False)
    paths = environment["PYTHONPATH"].split(os.pathsep)
    assert paths[0] == "/mine" and paths[-1] == "/old" and len(paths) == len(set(paths)) >= 3
    assert environment["PATH"] == "/bin" and "HOME" not in environment
    assert environment["OMP_NUM_THREADS"] == "3" and environment["PYTHONIOENCODING"] == "utf-8"
    assert environment["OMP_WAIT_POLICY"] == "passive"


def test_an_image_that_does_not_fit_on_the_disk_is_one_sentence(client, volume, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(worker_client, "write_exchange", full)
    with pytest.raises(OutputError, match=r"the disk is full; free some space.*\.$"):
        client.job("threshold", {"image": volume})
    assert [path.name for path in client._exchange_folder().iterdir()] == [".owner"]
