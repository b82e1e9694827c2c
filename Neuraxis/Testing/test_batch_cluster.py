"""A batch on a real Dask scheduler with worker processes that are killed, and on Slurm jobs of a stand-in for Slurm."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib import task
from NeuraxisLib.batch import Batch
from NeuraxisLib.batch_cases import find_cases
from NeuraxisLib.errors import InputError, WorkerStartError
from NeuraxisLib.files import write_volume
from NeuraxisLib.task import get_task
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_process import child_environment
from Testing.dicom_series import SPARSE_MM, change, save, series

distributed = pytest.importorskip("distributed")
SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from bare_models import write_bare_model  # noqa: E402
from batch_support import VOXEL_ML, InlineWorkers, write_scan  # noqa: E402
from remote_servers import FtpServer  # noqa: E402

ENVIRONMENT = {**child_environment([SUPPORT], None, 1, hide_gpu=True), "DASK_DISTRIBUTED__DASHBOARD__LINK": ""}
#: What differs between two runs of the same case by design: times, and the process that computed.
TIMES = re.compile(r'"process": \d+|<td>Process</td><td>\d+</td>|\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?([+-]\d\d:\d\d)?')


class Cluster:
    """A scheduler and its workers as processes of their own."""

    def __init__(self, folder: Path):
        self._file, self.workers = folder / "scheduler.json", []
        self._scheduler = self._start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        since = time.monotonic()
        while not self._file.exists():
            assert time.monotonic() < since + 60
            time.sleep(0.05)
        self.address = json.loads(self._file.read_text())["address"]

    def add_worker(self, *more: str) -> subprocess.Popen:
        self.workers.append(self._start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", *more))
        return self.workers[-1]

    def close(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()

    def _start(self, what: str, *more: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(self._file), *more]
        return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, cwd=self._file.parent)


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """Twelve scans, one of them broken; the fourth kills the first worker that takes it."""
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    write_bare_model(tmp_path / "bright.safetensors")
    lines = ["case,ct,fault"]
    for number in range(1, 13):
        write_scan(tmp_path / "scans" / f"{number:02d}.nrrd", 5 * number)
        fault = f"killed once:{tmp_path / 'marker'}" if number == 4 else ""
        lines.append(f"c{number:02d},scans/{number:02d}.nrrd,{fault}")
    (tmp_path / "scans" / "07.nrrd").write_bytes(b"broken")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def command(archive: Path, *more: str, out: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable, "-m", "NeuraxisLib.cli", "batch", str(archive / "cases.csv"), out or str(archive / "out"),
            "--task", "threshold", "--model", str(archive / "bright.safetensors"), "--device", "cpu", "--json", *more,
        ],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=180,
    )  # fmt: skip


def without_times(path: Path) -> bytes:
    """The content of a file; of pages and result.json without the times and the process."""
    if path.suffix in (".json", ".html"):
        return TIMES.sub("", path.read_text(encoding="utf-8")).encode()
    return path.read_bytes()


def results(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): without_times(path) for path in folder.glob("c*/*")}


@pytest.mark.slow
def test_results_equal_those_of_one_process_although_a_worker_is_killed(cluster, archive, monkeypatch):
    for _ in range(3):
        cluster.add_worker()
    done = command(archive, "--scheduler", cluster.address)
    assert done.returncode == 10, done.stderr
    assert (archive / "marker").exists() and [worker.poll() for worker in cluster.workers].count(-9) == 1
    record = json.loads(done.stdout)
    assert (record["done"], record["failed"]) == (11, 1) and record["failures"][0]["case"] == "c07"
    there, here = results(archive / "out"), alone(archive, monkeypatch)
    assert len(there) >= 11 * 4 and there.keys() == here.keys()
    assert [name for name in there if there[name] != here[name]] == []
    again = command(archive, "--scheduler", cluster.address)
    assert json.loads(again.stdout)["earlier"] == 12, "a rerun does nothing"


def alone(archive: Path, monkeypatch) -> dict[str, bytes]:
    """The results that one process makes of the same cases."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # as the workers have it, which the small task writes down
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cases = find_cases(archive / "cases.csv", get_task("threshold"), archive / "alone")
    model = str(archive / "bright.safetensors")
    Batch("threshold", cases, archive / "alone", InlineWorkers(), model=model, device="cpu").wait()
    return results(archive / "alone")


@pytest.mark.slow
def test_workers_share_nothing_but_an_address_for_the_results(cluster, archive, monkeypatch):
    """Results come to an FTP server, a worker dies, and they equal those of one process in a folder."""
    for _ in range(3):
        cluster.add_worker()
    with FtpServer(archive / "server") as server:
        done = command(archive, "--scheduler", cluster.address, out=server.at("study"))
        assert done.returncode == 10, done.stderr
        assert [worker.poll() for worker in cluster.workers].count(-9) == 1
        again = command(archive, "--scheduler", cluster.address, out=server.at("study"))
    assert json.loads(done.stdout)["done"] == 11 and json.loads(again.stdout)["earlier"] == 12
    there, here = results(archive / "server" / "study"), alone(archive, monkeypatch)
    assert len(there) >= 11 * 4 and there == here
    assert server.password not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_case_may_not_take_for_ever_on_a_cluster_either(cluster, archive, monkeypatch):
    """One that does not even ask whether to go on is stopped with the sentence of one computer; the others are done."""
    (archive / "cases.csv").write_text(
        "case,ct,deaf_stage,fault\nc1,scans/01.nrrd,,\nc2,scans/02.nrrd,Computing,\nc3,scans/03.nrrd,,\n"
        f"c4,scans/04.nrrd,,killed once:{archive / 'marker'}\nc5,scans/05.nrrd,,\n"
    )
    cluster.add_worker()
    done = command(archive, "--scheduler", cluster.address, "--time-limit", "0.35")
    record = json.loads(done.stdout)
    assert done.returncode == 10 and (record["done"], record["failed"]) == (4, 1), done.stderr
    assert record["failures"][0]["case"] == "c2"
    assert record["failures"][0]["error"] == "The case took longer than 0.35 min and was stopped; raise the limit."
    with open(archive / "out" / "cases.csv", newline="") as file:
        assert [row["attempts"] for row in csv.DictReader(file)] == ["1", "1", "1", "2", "1"]
    (archive / "cases.csv").write_text((archive / "cases.csv").read_text().replace("c2,scans/02.nrrd,Computing,\n", ""))
    there, here = results(archive / "out"), alone(archive, monkeypatch)
    assert len(there) >= 4 * 4 and there == here and cluster.workers[0].poll() is None


@pytest.mark.slow
def test_a_case_that_needs_a_graphics_card_goes_to_workers_that_offer_one(cluster, archive):
    from NeuraxisLib.batch_dask import DaskWorkers

    cluster.add_worker("--name", "plain")
    cluster.add_worker("--name", "card", "--resources", "GPU=1")
    with distributed.Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        pools = {device: DaskWorkers(cluster.address, device) for device in ("auto", "cpu")}
        assert pools["auto"].slots == 1 and pools["cpu"].slots == 2
        cases = find_cases(archive / "scans", get_task("threshold"), archive / "out")[:4]
        Batch("threshold", cases, archive / "out", pools["auto"], model=str(archive / "bright.safetensors")).wait()
        names = {address: worker["id"] for address, worker in client.scheduler_info()["workers"].items()}
        card = [process for address, process in client.run(os.getpid).items() if names[address] == "card"]
        made = {json.loads(p.read_text())["provenance"]["process"] for p in (archive / "out").glob("*/result.json")}
        assert made == set(card)
        pools["cpu"].close()


def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch):
    from NeuraxisLib import batch_dask

    monkeypatch.setattr(batch_dask, "_CONNECT_S", 0.5)
    with pytest.raises(WorkerStartError, match="tcp://127.0.0.1:9'"):
        batch_dask.DaskWorkers("tcp://127.0.0.1:9")


# -- an archive of many kinds ---------------------------------------------------------------------------------

#: NEURAXIS_STUDIES=200 for a larger archive.
STUDIES = int(os.environ.get("NEURAXIS_STUDIES", "60"))


def write_archive(folder: Path) -> set[str]:
    """Studies of three kinds, a tenth of them broken in ten ways; returns the names of the broken ones."""
    rng = np.random.default_rng(0)
    broken = {f"{number:03d}" for number in rng.choice(STUDIES, STUDIES // 10, replace=False)}
    ways = itertools.cycle(BROKEN)
    for number in range(STUDIES):
        name = f"{number:03d}"
        if name in broken:
            next(ways)(folder, name)
        elif number % 10 == 9:
            save(series(SPARSE_MM, matrix=16, pixel_mm=14.0), folder / name)
        else:
            write_scan(folder / f"{name}{('.nrrd', '.nii.gz')[number % 2]}", 1 + number % 60)
    return broken


def _dicom(folder: Path, name: str) -> list[Path]:
    save(series(SPARSE_MM, matrix=16, pixel_mm=14.0), folder / name)
    return sorted((folder / name).glob("*.dcm"))


def _cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def _nan(folder: Path, name: str) -> None:
    array = np.zeros((3, 8, 9), np.float32)
    array[1, 2, 3] = np.nan
    write_volume(Volume(array, np.diag([-1.0, -1.0, 5.0, 1.0]), "HU"), folder / f"{name}.nrrd")


def _frames(folder: Path, name: str) -> None:
    frames = Volume(np.zeros((2, 3, 8, 9), np.int16), np.eye(4), "HU", frame_times_s=np.arange(2.0))
    write_volume(frames, folder / f"{name}.nii.gz")


BROKEN = (
    lambda folder, name: (folder / f"{name}.nrrd").write_bytes(b"no image at all"),
    lambda folder, name: (folder / f"{name}.nii.gz").write_bytes(b""),
    lambda folder, name: _cut(write_scan(folder / f"{name}.nii.gz"), 0.5),
    lambda folder, name: _cut(write_scan(folder / f"{name}.nrrd"), 0.8),
    _nan,
    _frames,
    lambda folder, name: _dicom(folder, name)[7].unlink(),
    lambda folder, name: _cut(_dicom(folder, name)[3], 0.7),
    lambda folder, name: _dicom(folder, name)[5].write_bytes(b""),
    lambda folder, name: change(folder / name, 4, PixelSpacing=[9.0, 9.0]) if _dicom(folder, name) else None,
)


@pytest.mark.slow
def test_an_archive_with_a_tenth_broken_and_a_worker_killed_midway(cluster, tmp_path, monkeypatch):
    """Every good study has its result, every bad one its sentence, and a rerun does nothing."""
    from NeuraxisLib.batch_dask import AHEAD, DaskWorkers

    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    model = str(write_bare_model(tmp_path / "bright.safetensors"))
    (tmp_path / "archive").mkdir()
    broken = write_archive(tmp_path / "archive")
    for _ in range(2):
        cluster.add_worker()
    with distributed.Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    cases = find_cases(tmp_path / "archive", get_task("threshold"), tmp_path / "out")
    assert len(cases) == STUDIES
    batch = Batch("threshold", cases, tmp_path / "out", DaskWorkers(cluster.address, "cpu"), model=model, device="cpu")
    killed, most = False, 0
    while not batch.is_finished:
        batch.poll(0.05)
        most = max(most, batch.count("running"))
        if not killed and batch.count("done") >= STUDIES // 3:
            cluster.workers[0].kill()
            killed = True
    assert killed and batch.state == "done" and most <= AHEAD * 2, "the scheduler is given few cases ahead"
    assert {entry.case.name for entry in batch.entries if entry.status == "failed"} == broken
    for entry in batch.entries:
        assert (entry.folder / "result.json").exists() == (entry.status == "done")
        assert entry.status == "done" or (entry.error.endswith(".") and str(tmp_path) not in entry.error)
    with open(tmp_path / "out" / "cases.csv", newline="") as file:
        found = {row["case"]: row["Total volume [mL]"] for row in csv.DictReader(file)}
    assert all(
        float(found[f"{number:03d}"]) == pytest.approx((1 + number % 60) * VOXEL_ML)
        for number in range(STUDIES)
        if number % 10 != 9 and f"{number:03d}" not in broken
    )
    assert not list((tmp_path / "out").glob(".*"))
    again = InlineWorkers()
    assert len(Batch("threshold", cases, tmp_path / "out", again, model=model, device="cpu").wait()) == STUDIES
    assert again.computed == []


# -- Slurm ----------------------------------------------------------------------------------------------------

SBATCH = """#!/bin/sh
# starts the job here and now, as a node of Slurm would later
job=$$
for script; do :; done
cp "$script" "$SLURM_STAND_IN/$job.sh"
sh "$SLURM_STAND_IN/$job.sh" >"$SLURM_STAND_IN/../job$job.log" 2>&1 &
echo $! >"$SLURM_STAND_IN/../job$job.pid"
echo "Submitted batch job $job"
"""
SCANCEL = """#!/bin/sh
echo "$@" >>"$SLURM_STAND_IN/../cancelled"
for job; do kill $(cat "$SLURM_STAND_IN/../job$job.pid") 2>/dev/null; done
exit 0
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Slurm's commands are shell scripts here")
def test_slurm_jobs_are_asked_for_and_compute(archive, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    tools, jobs = archive / "tools", archive / "slurm" / "jobs"
    tools.mkdir()
    jobs.mkdir(parents=True)
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(ENVIRONMENT, "SLURM_STAND_IN", str(jobs))
    (archive / "slurm.toml").write_text(
        'queue = "night"\nmemory = "2GB"\nwalltime = "00:10:00"\njobs = 2\ninterface = "lo"\n'
        f'log_directory = "{archive / "slurm"}"\n'
    )
    (archive / "marker").touch()
    done = command(archive, "--slurm", str(archive / "slurm.toml"), "--time-limit", "30")
    assert done.returncode == 10, done.stderr
    assert json.loads(done.stdout)["done"] == 11
    scripts = [path.read_text() for path in jobs.glob("*.sh")]
    assert len(scripts) == 2 and all("#SBATCH -p night" in text and "#SBATCH -t 00:10:00" in text for text in scripts)
    assert len((archive / "slurm" / "cancelled").read_text().split()) == 2, "the jobs end with the batch"


def test_a_time_limit_reaches_the_workers_of_schedulers_and_of_slurm(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from NeuraxisLib import batch_dask, batch_slurm, cli_batch

    asked = []
    monkeypatch.setattr(batch_dask, "DaskWorkers", lambda *given: asked.append(given))
    jobs = SimpleNamespace(close=lambda: asked.append("closed"))
    monkeypatch.setattr(batch_slurm, "slurm_cluster", lambda file: jobs)
    for scheduler, slurm, minutes in (("tcp://a:1", None, 0.5), ("tcp://a:1", None, 0), ("", tmp_path / "a.toml", 2)):
        with cli_batch._workers(scheduler, slurm, "cpu", 1, 1, minutes):
            pass
    assert asked[:2] == [("tcp://a:1", "cpu", 30.0), ("tcp://a:1", "cpu", None)]
    assert asked[2][1:] == ("cpu", 120) and asked[3] == "closed"


def test_graphics_cards_are_asked_of_slurm_and_offered_to_cases(tmp_path):
    jobqueue = pytest.importorskip("dask_jobqueue")
    from NeuraxisLib.batch_slurm import slurm_cluster

    made = {}

    class Recorded:
        def __init__(self, **settings):
            made.update(settings)

        def scale(self, jobs):
            made["jobs"] = jobs

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(jobqueue, "SLURMCluster", Recorded)
    (tmp_path / "a.yaml").write_text("memory: 8GB\ngpus: 2\njobs: 3\njob_extra_directives: ['--exclusive']\n")
    slurm_cluster(tmp_path / "a.yaml")
    monkeypatch.undo()
    assert made["job_extra_directives"] == ["--exclusive", "--gres=gpu:2"] and made["jobs"] == 3
    assert made["worker_extra_args"] == ["--no-dashboard", "--resources", "GPU=2"]
    assert made["security"] is True and made["scheduler_options"]["dashboard_address"].startswith("127.0.0.1:")


def test_without_a_certificate_nobody_talks_to_the_scheduler_of_slurm_jobs(tmp_path, monkeypatch):
    """Whoever could connect would run what he likes on every worker: plain TCP and strange certificates are refused."""
    pytest.importorskip("dask_jobqueue")
    import distributed

    from NeuraxisLib.batch_slurm import slurm_cluster

    (tmp_path / "a.toml").write_text('memory = "1GB"\njobs = 0\ninterface = "lo"\n')
    cluster = slurm_cluster(tmp_path / "a.toml")
    try:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        secrets = list(tmp_path.glob(".dask-jobqueue*"))
        assert secrets and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secrets)
        stranger = distributed.Security.temporary()
        for place, security in ((address.replace("tls", "tcp"), None), (address, stranger)):
            with pytest.raises((OSError, TimeoutError)):
                distributed.Client(place, security=security, timeout=3, set_as_default=False)
        with distributed.Client(cluster, timeout=30, set_as_default=False) as ours:
            assert ours.run_on_scheduler(lambda: 1) == 1
    finally:
        cluster.close()


def test_safe_talk_can_be_declined(tmp_path):
    jobqueue = pytest.importorskip("dask_jobqueue")
    from NeuraxisLib.batch_slurm import slurm_cluster

    (tmp_path / "a.toml").write_text('memory = "1GB"\njobs = 0\ninterface = "lo"\nprotocol = "tcp://"\n')
    cluster = slurm_cluster(tmp_path / "a.toml")
    try:
        assert isinstance(cluster, jobqueue.SLURMCluster) and cluster.scheduler_address.startswith("tcp://")
    finally:
        cluster.close()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("a.toml", "cores = ", "be read"), ("a.yaml", "- 1\n", "no table"), ("a.toml", "corse = 3\n", "do not fit")],
)
def test_settings_that_do_not_fit_are_named(tmp_path, name, text, words):
    pytest.importorskip("dask_jobqueue")
    from NeuraxisLib.batch_slurm import slurm_cluster

    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        slurm_cluster(tmp_path / name)
