"""``neuraxis batch`` as a user meets it: real worker processes, kills at any moment, Ctrl-C, exit statuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from NeuraxisLib.result_folder import read_result
from NeuraxisLib.worker_process import child_environment

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from bare_models import write_bare_model  # noqa: E402
from batch_support import VOXEL_ML, write_scan  # noqa: E402

ENVIRONMENT = child_environment([SUPPORT], None, 1, hide_gpu=True)


@pytest.fixture
def archive(tmp_path) -> Path:
    """A model, and five scans of 10, 20 ... voxels."""
    write_bare_model(tmp_path / "bright.safetensors")
    for number in range(1, 6):
        write_scan(tmp_path / "scans" / f"case{number}.nrrd", 10 * number)
    return tmp_path


def command(archive: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "NeuraxisLib.cli", "batch", str(archive / "scans"), str(archive / "out"),
        "--task", "threshold", "--model", str(archive / "bright.safetensors"), "--device", "cpu", *more,
    ]  # fmt: skip


def neuraxis(archive: Path, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(archive, *more), env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


def wait_for(condition, seconds: float = 60.0) -> None:
    since = time.monotonic()
    while not condition():
        assert time.monotonic() < since + seconds, "waited in vain"
        time.sleep(0.01)


def results(archive: Path) -> list[Path]:
    """result.json of every finished case (what is being written lies in hidden folders)."""
    return [path for path in (archive / "out").glob("*/result.json") if not path.parent.name.startswith(".")]


def rows(archive: Path) -> dict[str, dict[str, str]]:
    with open(archive / "out" / "cases.csv", encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_two_workers_a_bad_case_and_a_rerun(archive):
    (archive / "scans" / "bad.nrrd").write_bytes(b"nothing")
    done = neuraxis(archive, "--workers", "2", "--json")
    assert done.returncode == 10, done.stderr
    record = json.loads(done.stdout)
    assert (record["done"], record["failed"], record["earlier"]) == (5, 1, 0)
    assert record["failures"][0]["case"] == "bad" and record["cases_per_hour"] > 0
    assert "cases per hour" in done.stderr and str(archive) not in (archive / "out" / "cases.csv").read_text()
    again = neuraxis(archive, "--json")
    assert again.returncode == 10 and json.loads(again.stdout)["earlier"] == 6
    (archive / "scans" / "bad.nrrd").unlink()
    only = neuraxis(archive)
    assert only.returncode == 0 and only.stdout.startswith("5 of 5 cases are done")


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_and_doubles_nothing(archive):
    """Killed three times: while the first case runs, while results are written, and between two cases."""
    out = archive / "out"
    moments = [
        lambda: (out / "batch.jsonl").exists(),
        lambda: any(out.glob(".*.partial")) or results(archive),
        lambda: len(results(archive)) >= 2,
    ]
    for moment in moments:
        running = subprocess.Popen(command(archive, "--option", "steps=40"), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        wait_for(lambda moment=moment, running=running: moment() or running.poll() is not None)
        running.kill()
        running.wait()
    time.sleep(0.5)  # its workers end with it
    made = {path: path.stat().st_ino for path in results(archive)}
    done = neuraxis(archive, "--option", "steps=40", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 5
    for number in range(1, 6):
        value = read_result(out / f"case{number}").measurements[0].value
        assert value == pytest.approx(10 * number * VOXEL_ML)
    assert {path: path.stat().st_ino for path in made} == made, "a finished case was done again"
    assert not list(out.glob(".*"))


def test_a_worker_that_is_killed_is_replaced_and_its_case_tried_once_more(archive):
    (archive / "cases.csv").write_text(
        "case,ct,fault\n" + "".join(f"c{n},scans/case{n}.nrrd,{'killed' if n == 2 else ''}\n" for n in range(1, 6))
    )
    arguments = command(archive)
    arguments[4] = str(archive / "cases.csv")
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 10, done.stderr
    found = rows(archive)
    assert [found[f"c{n}"]["status"] for n in range(1, 6)] == ["done", "failed", "done", "done", "done"]
    assert "killed by the system" in found["c2"]["error"] and "tried 2 times" in found["c2"]["error"]
    assert found["c2"]["attempts"] == "2" and not (archive / "out" / "c2").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_keeps_finished_cases(archive, number, status):
    (archive / "cases.csv").write_text(
        "case,ct,slow_stage\nquick,scans/case1.nrrd,\nslow,scans/case2.nrrd,Computing\nlater,scans/case3.nrrd,\n"
    )
    arguments = command(archive, "--workers", "1")
    arguments[4] = str(archive / "cases.csv")
    running = subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (archive / "out" / "quick" / "result.json").exists())
    time.sleep(0.3)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == status, err
    assert "finished cases are kept" in err and "1 of 3 cases are done" in out
    assert [row["status"] for row in rows(archive).values()] == ["done", "not done", "not done"]
    assert not list((archive / "out").glob(".*"))


def test_a_case_may_not_take_for_ever(archive):
    done = neuraxis(archive, "--option", "slow_stage=Computing", "--time-limit", "0.005", "--workers", "2", "--json")
    record = json.loads(done.stdout)
    assert done.returncode == 10 and record["failed"] == 5
    assert "longer than 0.005 min" in record["failures"][0]["error"]


def test_listing_runs_nothing_and_faults_have_their_status(archive):
    listed = neuraxis(archive, "--list", "--json")
    assert [case["case"] for case in json.loads(listed.stdout)] == [f"case{n}" for n in range(1, 6)]
    assert not (archive / "out").exists()
    wrong = neuraxis(archive, "--option", "nothing=1")
    assert wrong.returncode == 3 and "no option 'nothing'" in wrong.stderr
    absent = command(archive)
    absent[absent.index("--model") + 1] = str(archive / "absent.safetensors")
    done = subprocess.run(absent, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 6
