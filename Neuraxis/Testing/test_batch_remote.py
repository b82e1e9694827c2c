"""Results of a batch on other computers: a real FTP server, an S3 server, and the memory of one process.

FTP shows a file while it is being written and can rename; S3 shows whole files only and cannot rename.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from NeuraxisLib import remote, task
from NeuraxisLib.batch import Batch
from NeuraxisLib.batch_cases import find_cases
from NeuraxisLib.errors import DependencyError, InputError, OutputError
from NeuraxisLib.remote import UNFINISHED, RemoteFolder, is_remote, local_copy, local_path, upload
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.run import run_case
from NeuraxisLib.task import get_task
from NeuraxisLib.worker_process import child_environment

fsspec = pytest.importorskip("fsspec")
SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from bare_models import write_bare_model  # noqa: E402
from batch_support import VOXEL_ML, InlineWorkers, write_scan  # noqa: E402
from remote_servers import FtpServer, S3Server  # noqa: E402

TIMES = re.compile(r'"process": \d+|<td>Process</td><td>\d+</td>|\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?([+-]\d\d:\d\d)?')


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """A model, and four scans of 10, 20 ... voxels, of which the third is broken."""
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    write_bare_model(tmp_path / "bright.safetensors")
    for number in range(1, 5):
        write_scan(tmp_path / "scans" / f"case{number}.nrrd", 10 * number)
    (tmp_path / "scans" / "case3.nrrd").write_bytes(b"broken")
    return tmp_path


@pytest.fixture(scope="module")
def ftp(tmp_path_factory):
    with FtpServer(tmp_path_factory.mktemp("ftp")) as server:
        yield server


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server:
        yield server


@pytest.fixture(params=["memory", "ftp", "s3"])
def address(request) -> str:
    """A place of its own on each kind of server."""
    name = uuid.uuid4().hex[:8]
    return f"memory://{name}/out" if request.param == "memory" else request.getfixturevalue(request.param).at(name)


def batch(archive: Path, output, workers=None, **settings) -> Batch:
    cases = find_cases(archive / "scans", get_task("threshold"), output)
    settings = {"model": str(archive / "bright.safetensors"), "device": "cpu", **settings}
    return Batch("threshold", cases, output, workers or InlineWorkers(), **settings)


def content(files: dict[str, bytes]) -> dict[str, bytes]:
    """Files of the results without times and process ids; the ledger and tables hold times in plenty."""
    results = {name: text for name, text in files.items() if name.startswith("case") and "/" in name}
    texts = (".json", ".html")
    return {n: TIMES.sub("", t.decode()).encode() if n.endswith(texts) else t for n, t in results.items()}


def there(address: str) -> dict[str, bytes]:
    folder = RemoteFolder(address)
    return {name: (folder / name).read_bytes() for name in folder.files_below()}


def here(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- addresses ------------------------------------------------------------------------------------------------------


def test_what_is_an_address_and_what_a_path():
    assert is_remote("s3://bucket/a") and is_remote("sftp://me@host/a")
    assert not any(map(is_remote, ("a/b", "C:\\a", "/a//b", "file:///a", Path("a"))))
    assert local_path("file:///a/b%20c") == Path("/a/b c") and local_path("a/b") == Path("a/b")


def test_a_password_is_never_shown(ftp):
    folder = RemoteFolder(ftp.at("x")) / "case1"
    assert ftp.password in folder.address and ftp.password not in str(folder) and str(folder).endswith("/x/case1")


@pytest.mark.parametrize(
    ("address", "words"),
    [("s3://b/x", "'s3fs'.*pip install s3fs"), ("gs://b/x", "'gcsfs'"), ("sftp://h/x", "'paramiko'")],
)
def test_a_missing_package_is_named(address, words, monkeypatch):
    known = importlib.import_module("fsspec.registry")._registry
    for protocol in ("s3", "gs", "sftp"):
        monkeypatch.delitem(known, protocol, raising=False)
    for package in ("s3fs", "gcsfs", "paramiko"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    with pytest.raises(DependencyError, match=words):
        RemoteFolder(address)


def test_a_kind_of_place_that_there_is_not_and_one_process_s_memory(archive):
    with pytest.raises(OutputError, match="Nothing is known of places at nosuch://"):
        RemoteFolder("nosuch://host/x")
    with pytest.raises(InputError, match="one process only"):
        remote.refuse_memory("memory://x")


def test_a_server_that_is_not_there_and_one_that_refuses(ftp, s3):
    with pytest.raises(OutputError, match="does not answer") as fault:
        RemoteFolder("ftp://me:hidden@127.0.0.1:9/x")
    assert "hidden" not in str(fault.value)
    with pytest.raises(OutputError, match="access is refused"):
        RemoteFolder(ftp.at("x").replace(ftp.password, "wrong"))
    with pytest.raises(OutputError, match="access is refused"):
        RemoteFolder(ftp.at("x", reader=True)).check_usable()
    with pytest.raises(OutputError, match="no such bucket"):
        RemoteFolder("s3://nobody-made-this/x").check_usable()


# -- a batch --------------------------------------------------------------------------------------------------------


def test_results_are_those_of_a_local_batch_and_a_rerun_does_nothing(archive, address):
    local, far = batch(archive, archive / "out"), batch(archive, address)
    local.wait()
    outcomes = far.wait()
    assert [outcome.folder and outcome.folder.name for outcome in outcomes] == ["case1", "case2", None, "case4"]
    found = there(address)
    assert content(found) == content(here(archive / "out")) and len(content(found)) >= 3 * 4
    assert {name for name in found if "/" not in name} == {"cases.csv", "cases.parquet", "report.html", "batch.jsonl"}
    assert found["cases.csv"] == (far.tables / "cases.csv").read_bytes() and b"case3,failed" in found["cases.csv"]
    far.close()
    assert not far.tables.exists(), "the private copy goes"
    again = InlineWorkers()
    rerun = batch(archive, address, again)
    rerun.wait()
    assert again.computed == [] and all(entry.earlier for entry in rerun.entries)
    assert content(there(address)) == content(found)
    with local_copy(rerun.entries[3].folder) as folder:
        assert read_result(folder).measurements[0].value == pytest.approx(40 * VOXEL_ML)
    assert not folder.exists()


def test_what_was_finished_before_a_kill_is_known_with_and_without_its_line(archive, address):
    first = batch(archive, address)
    while first.count("done") < 2:
        first.poll()
    # killed here: nothing is closed, and the last piece of the ledger never came
    folder = RemoteFolder(address)
    pieces = [name for name in folder.files() if name.startswith("batch.")]
    folder.remove([max(pieces)])
    again = InlineWorkers()
    outcomes = batch(archive, address, again).wait()
    assert again.computed == ["case3", "case4"] and [o.folder is None for o in outcomes] == [False, False, True, False]
    assert [name for name in folder.files() if name.startswith("batch.")] == ["batch.jsonl"]


@pytest.mark.parametrize("step", range(4))
def test_an_upload_that_was_cut_off_is_no_result_and_is_mended(archive, address, step):
    """Killed after the mark, after some files, after all but result.json, and with the mark still there."""
    batch(archive, archive / "out").wait()
    source, target = archive / "out" / "case1", RemoteFolder(f"{address}/case1")
    names = sorted(path.name for path in source.iterdir() if path.name != "result.json")
    target.write(UNFINISHED, json.dumps({"files": [*names, "result.json", "old_map.nrrd"]}).encode())
    sent = [[], [*names[:2], "old_map.nrrd"], names, [*names, "result.json"]][step]
    shutil.copy(source / names[0], archive / "old_map.nrrd")
    target.put([archive / name if name == "old_map.nrrd" else source / name for name in sent])
    again = InlineWorkers()
    batch(archive, address, again).wait()
    assert "case1" in again.computed
    assert content(there(address)) == content(here(archive / "out"))


def test_other_options_replace_what_lies_there_and_a_kill_between_is_no_mistake(archive, address):
    batch(archive, address).wait()
    other = batch(archive, address, options={"threshold_hu": 200})
    while not other.count("done"):
        other.poll()
    folder = RemoteFolder(address)
    folder.remove([max(name for name in folder.files() if re.fullmatch(r"batch\.\d+\.jsonl", name))])  # killed
    again = InlineWorkers()
    outcomes = batch(archive, address, again).wait()
    assert again.computed == ["case1"], "its result is that of other options, whatever the ledger said before"
    with local_copy(outcomes[0].folder) as copy:
        assert read_result(copy).measurements[0].value == pytest.approx(10 * VOXEL_ML)


def test_what_somebody_else_put_there_is_kept(archive, address):
    folder = RemoteFolder(f"{address}/case2")
    folder.write("notes.txt", b"mine")
    done = batch(archive, address)
    outcomes = done.wait()
    assert "holds 'notes.txt'" in outcomes[1].error and done.state == "done"
    assert folder.files() == {"notes.txt"}


def test_a_store_that_refuses_midway_stops_the_batch(archive, ftp):
    address = ftp.at(uuid.uuid4().hex[:8])
    running = batch(archive, address)
    while running.count("done") < 1:
        running.poll()
    with ftp.refusing():
        while not running.is_finished:
            running.poll()
    assert running.state == "stopped" and "access is refused" in str(running.failure)
    again = InlineWorkers()
    batch(archive, address, again).wait()
    assert "case1" not in again.computed and len(again.computed) == 3


def test_one_case_at_an_address(archive, address, monkeypatch):
    """What a single run does, and that nothing stays on this computer, even of a process that was killed."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(archive / "tmp"))
    (archive / "tmp" / "neuraxis-upload-x").mkdir(parents=True)
    (archive / "tmp" / "neuraxis-upload-x" / ".owner").touch()
    inputs = {"ct": archive / "scans" / "case1.nrrd"}
    run_case("threshold", inputs, str(archive / "bright.safetensors"), {}, "cpu", f"{address}/one")
    names = RemoteFolder(f"{address}/one").files()
    assert "result.json" in names and UNFINISHED not in names
    assert not list((archive / "tmp").glob("neuraxis-*"))


def test_a_copy_that_fails_leaves_nothing(archive, address, monkeypatch):
    batch(archive, archive / "out").wait()
    target = RemoteFolder(f"{address}/case1")
    put = RemoteFolder.put
    monkeypatch.setattr(
        RemoteFolder, "put", lambda self, files: put(self, files) if len(files) > 1 else put(self, [Path("absent")])
    )
    with pytest.raises(OutputError):
        upload(archive / "out" / "case1", target)
    assert target.files() == set()


def test_a_connection_that_was_lost_is_made_anew(ftp):
    folder = RemoteFolder(ftp.at(uuid.uuid4().hex[:8]))
    folder.write("a", b"1")
    folder._link.fs.ftp.sock.close()
    folder.write("b", b"2")
    assert folder.files() == {"a", "b"}


# -- the command, killed ----------------------------------------------------------------------------------------------


def command(archive: Path, output: str, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "NeuraxisLib.cli", "batch", str(archive / "scans"), output, "--task", "threshold",
        "--model", str(archive / "bright.safetensors"), "--device", "cpu", "--json", *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
@pytest.mark.parametrize("kind", ["ftp", "s3"])
def test_kill_9_in_mid_upload_then_again_equals_the_local_run(archive, kind, request, monkeypatch):
    """Everything is killed twice while a result is being copied; then the same command ends like a local one."""
    server = request.getfixturevalue(kind)
    address, environment = server.at(uuid.uuid4().hex[:8]), child_environment([SUPPORT], server.environment, 1, True)
    seen = []
    for _ in range(2):
        with server.slow_uploads() as under_way:
            running = subprocess.Popen(
                command(archive, address, "--workers", "1"), env=environment, stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            since = time.monotonic()
            while not under_way() and running.poll() is None and time.monotonic() < since + 60:
                time.sleep(0.005)
            assert under_way() and running.poll() is None
            for process in [*_children(running.pid), running.pid]:
                os.kill(process, signal.SIGKILL)
            running.wait()
        seen.append(there(address))
    assert any(name.endswith(f"/{UNFINISHED}") for files in seen for name in files), "killed in the middle of a copy"
    done = subprocess.run(command(archive, address), env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 10, done.stderr
    assert json.loads(done.stdout)["done"] == 3, done.stdout
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # as the command's workers have it, and write down
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    batch(archive, archive / "out").wait()
    assert content(there(address)) == content(here(archive / "out"))
    again = subprocess.run(command(archive, address), env=environment, capture_output=True, text=True, timeout=120)
    assert json.loads(again.stdout)["earlier"] == 4


def _children(process: int) -> list[int]:
    """Processes that a process has started (Linux)."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found]


def test_the_command_of_one_case_takes_an_address(archive, ftp):
    address = ftp.at(uuid.uuid4().hex[:8])
    environment = child_environment([SUPPORT], None, 1, hide_gpu=True)
    given = [str(archive / "scans" / "case1.nrrd"), address, "--model", str(archive / "bright.safetensors")]
    done = subprocess.run(
        [sys.executable, "-m", "NeuraxisLib.cli", "threshold", *given, "--device", "cpu"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "result.json" in RemoteFolder(address).files()
    assert f"Report: {remote.without_password(address)}" in done.stdout and ftp.password not in done.stdout


def test_memory_is_refused_by_the_command(archive):
    environment = child_environment([SUPPORT], None, 1, hide_gpu=True)
    done = subprocess.run(command(archive, "memory://x"), env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "one process only" in done.stderr
