"""Sweeps: folds and values as jobs of their own, here and on a real Dask scheduler, killed and resumed bit for bit."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from test_training_store import bleeding_head, case_of
from tiny_training import STARTER, TINY, one_thread  # noqa: F401 - a fixture

from NeuraxisLib.errors import InputError
from NeuraxisLib.models import load_model
from NeuraxisLib.worker_process import child_environment
from Testing.project_tree import ROOT
from Training import sweep, train
from Training.store_writer import StoreWriter
from Training.sweep_jobs import jobs_of, values_of

#: Long enough to be killed on the way, and saved after every step.
LONG = tuple(
    text for text in TINY if not text.startswith(("fitting.steps", "fitting.validate_every", "fitting.keep_minutes"))
)
LONG += ("fitting.steps=24", "fitting.validate_every=8", "fitting.keep_minutes=0")
#: What a training writes when it begins, and not when it goes on.
FIRST = "step 1 of 24"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Four heads in two folds."""
    path = tmp_path_factory.mktemp("store") / "cases.h5"
    with StoreWriter(path) as writer:
        for number in range(4):
            writer.add(case_of(bleeding_head(number), f"case {number}", f"fold{number % 2}"))
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Three heads to train on and one to judge by."""
    path = tmp_path_factory.mktemp("plain") / "cases.h5"
    with StoreWriter(path) as writer:
        for number in range(4):
            writer.add(case_of(bleeding_head(number), f"case {number}", "train" if number < 3 else "val"))
    return path


def settings(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--set", text)]


def command(output: Path, store: Path, *more: str) -> list[str]:
    given = ["--store", str(store), "--device", "cpu", "--threads", "1", "--workers", "1"]
    return [str(STARTER), str(output), *given, *more]


def rows(output: Path) -> list[dict[str, str]]:
    with open(output / "sweep.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def alone(folder: Path, store: Path, fold: int, *texts: str) -> Path:
    """The model file of one run of ``train`` in this process."""
    model = folder / "alone.safetensors"
    splits = ["--train-split", f"fold{1 - fold}", "--val-split", f"fold{fold}"]
    given = ["--run", str(folder / "run"), "--store", str(store), "--device", "cpu", "--threads", "1", "--workers", "1"]
    assert train.main([str(STARTER), str(model), *given, *splits, *settings(*texts)]) == 0
    return model


def assert_equal(one: Path, other: Path) -> None:
    """The same weights bit for bit, the same threshold, the same score."""
    first, second = load_model(one, "hemorrhage"), load_model(other, "hemorrhage")
    weights, others = first.weights(), second.weights()
    assert weights.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in weights.items())
    assert first.header["threshold"] == second.header["threshold"]
    assert first.header["training"]["validation_score"] == second.header["training"]["validation_score"]
    assert first.header["training"]["recipe"] == second.header["training"]["recipe"]


# -- what the jobs are ------------------------------------------------------------------------------------------------


def test_values_are_parted_at_commas_outside_of_brackets_and_quotes():
    texts = ["a.b=1,2", "c.d={x=1, y=2},{x=3}", "e=[1, 2]", 'f="a,b",c', "g.h=1,1"]
    assert values_of(texts) == {
        "a.b": ["1", "2"], "c.d": ["{x=1, y=2}", "{x=3}"], "e": ["[1, 2]"], "f": ['"a,b"', "c"], "g.h": ["1"],
    }  # fmt: skip
    for wrong in ("a.b", "=1", "a.b=1,,2", "a.b="):
        with pytest.raises(InputError, match="correct --set"):
            values_of([wrong])
    with pytest.raises(InputError, match="given twice"):
        values_of(["a=1", "a=2"])


def jobs(output: Path, store: Path, *more: str):
    options = sweep.parse(command(output, store, *more))
    return jobs_of(options, options.shared)


def test_every_combination_on_every_fold_is_a_job(tmp_path, store):
    found = jobs(tmp_path, store, "--folds", "2", *settings("fitting.batch=2,4", "fitting.learning_rate=0.001"))
    stem = STARTER.stem
    assert [job.name for job in found] == [f"{stem}-batch={b}-fold{n}" for b in (2, 4) for n in (0, 1)]
    assert [job.setting for job in found] == [f"{stem} batch={b}" for b in (2, 2, 4, 4)]
    options = train.parse(found[1].command(tmp_path))
    assert (options.train_split, options.val_split, options.store) == (["fold0"], "fold1", store)
    assert options.set == ["fitting.batch=2", "fitting.learning_rate=0.001"] and options.threads == 1
    assert len({job.mark for job in found}) == 4


def test_what_cannot_be_swept_is_told_before_anything_is_trained(tmp_path, store, capsys):
    other = ROOT / "Training" / "recipes" / "hemorrhage_hemseg_segresnet.toml"
    for given, words in (
        (["--folds", "3"], "no split 'fold2'"),
        (["--folds", "1"], "ask for 2 or more"),
        (settings("fitting.nothing=1,2"), "no recipe key"),
        (settings("fitting.batch=2,many"), "wrong type"),
        (["--scheduler", "tcp://h:1", "--slurm", "x"], "not both"),
    ):
        assert sweep.main(command(tmp_path / "out", store, *given)) == 1
        assert words in capsys.readouterr().err
    assert sweep.main([str(STARTER), str(tmp_path / "out"), "--folds", "2"]) == 1
    assert "--store" in capsys.readouterr().err
    assert sweep.main([str(STARTER), "s3://bucket/x"]) == 1 and "needs a folder" in capsys.readouterr().err
    assert sweep.main([str(other), *command(tmp_path / "out", store)]) == 1
    assert "cannot be compared" in capsys.readouterr().err
    assert sweep.main([str(STARTER), *command(tmp_path / "out", store)]) == 1
    assert "Two recipes are called" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".safetensors", ".pt")]
    assert sweep.main(command(tmp_path / "out", store, "--folds", "2", "--list")) == 0
    assert capsys.readouterr().out.split() == [f"{STARTER.stem}-fold0", f"{STARTER.stem}-fold1"]


def test_the_best_setting_is_that_of_the_best_mean_of_all_its_folds():
    """Hand-computed: a has 0.6 and 0.8, b 0.9 and a failure, c 0.5 and 0.7."""

    class Job:
        def __init__(self, setting):
            self.setting = setting

    scores = {"a": (0.6, 0.8), "b": (0.9, None), "c": (0.5, 0.7)}
    given = [(Job(name), score) for name, pair in scores.items() for score in pair]
    table = [{"status": "failed" if s is None else "done", "score": s} for _, s in given]
    said = sweep._mark_best([job for job, _ in given], table)
    assert said == "Best: a (score 0.7000, mean of 2 folds, 0.6000 to 0.8000)."
    assert [row.get("best") for row in table] == ["yes", "yes", None, None, None, None]
    assert [row.get("mean_score") for row in table] == pytest.approx([0.7, 0.7, None, None, 0.6, 0.6])


# -- training ---------------------------------------------------------------------------------------------------------


def trainers(process: int) -> list[int]:
    """The trainings that a process has started from whichever of its threads (Linux)."""
    found = [
        int(child) for file in Path(f"/proc/{process}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [child for child in found if b"sweep_process" in Path(f"/proc/{child}/cmdline").read_bytes()]


def when(condition, act) -> threading.Thread:
    """Do something in a thread as soon as a condition holds."""

    def wait() -> None:
        until = time.monotonic() + 600
        while not (found := condition()) and time.monotonic() < until:
            time.sleep(0.01)
        act(found)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")
def test_a_killed_training_goes_on_bit_for_bit_and_a_job_that_cannot_be_stops_no_other(tmp_path, plain, capsys):
    out, stem = tmp_path / "out", STARTER.stem
    run = out / f"{stem}-precision=fp32"
    killer = when(
        lambda: (run / "checkpoint.pt").exists() and trainers(os.getpid()),
        lambda found: os.kill(found[0], signal.SIGKILL),
    )
    others = [text for text in LONG if not text.startswith("fitting.precision")]
    given = [*command(out, plain), *settings("fitting.precision=fp32,fp16", *others)]
    assert sweep.main(given) == 3, capsys.readouterr().err
    killer.join()
    said, table = capsys.readouterr(), rows(out)
    assert "1 of 2 jobs are done, 1 failed." in said.out and f"Best: {stem} precision=fp32 (score " in said.out
    assert [row["status"] for row in table] == ["done", "failed"] and "needs a CUDA device" in table[1]["error"]
    assert [row["fitting.precision"] for row in table] == ["fp32", "fp16"] and [r["best"] for r in table] == ["yes", ""]
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    judged = max((record for record in records if "score" in record), key=lambda record: record["score"])
    assert float(table[0]["score"]) == judged["score"] and int(table[0]["best_step"]) == judged["step"]
    assert (run / "output.log").read_text().count(FIRST) == 1, "it went on from its checkpoint"
    reference = tmp_path / "alone.safetensors"
    once = ["--run", str(tmp_path / "run"), *command(reference, plain)[2:]]
    assert train.main([str(STARTER), str(reference), *once, *settings(*LONG)]) == 0
    assert_equal(out / table[0]["model"], reference)


@pytest.mark.slow
def test_folds_on_a_cluster_whose_worker_is_killed_equal_single_runs(tmp_path, store, capsys):
    """The training of the lost worker saves and leaves; another worker goes on with it, from where it was."""
    pytest.importorskip("distributed")
    from Testing.lost_worker import Cluster

    out = tmp_path / "out"
    given = [*command(out, store, "--folds", "2"), *settings(*LONG)]
    environment = {**child_environment([ROOT], None, 1, hide_gpu=True), "DASK_DISTRIBUTED__DASHBOARD__LINK": ""}
    cluster = Cluster(tmp_path, 2, environment)
    try:
        killer = when(lambda: list(out.glob("*/checkpoint.pt")), lambda found: cluster.kill_one())
        assert sweep.main([*given, "--scheduler", cluster.address]) == 0, capsys.readouterr().err
        killer.join()
        assert len(cluster.client.scheduler_info()["workers"]) == 1
        table = rows(out)
        assert [(row["status"], row["fold"], row["best"]) for row in table] == [
            ("done", "0", "yes"),
            ("done", "1", "yes"),
        ]
        assert "mean of 2 folds" in capsys.readouterr().out
        assert [path.read_text().count(FIRST) for path in out.glob("*/output.log")] == [1, 1], "none began anew"
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".safetensors", ".pt")}
        assert sweep.main([*given, "--scheduler", "tcp://127.0.0.1:9"]) == 0, (
            "nothing is left, so no scheduler is asked"
        )
        assert {path: path.stat().st_mtime_ns for path in before} == before and rows(out) == table
    finally:
        cluster.close()
    for fold in (0, 1):
        (tmp_path / str(fold)).mkdir()
        assert_equal(out / table[fold]["model"], alone(tmp_path / str(fold), store, fold, *LONG))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="Ctrl-C is ignored, as behind nohup")
def test_ctrl_c_saves_what_is_under_way_and_the_same_command_goes_on(tmp_path, store):
    out = tmp_path / "out"
    given = [*command(out, store, "--folds", "2"), *settings(*LONG)]
    environment = child_environment([ROOT], None, 1, hide_gpu=True)
    program = [sys.executable, str(ROOT / "Training" / "sweep.py"), *given]
    running = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    saved = out / f"{STARTER.stem}-fold0" / "checkpoint.pt"
    when(saved.exists, lambda found: running.send_signal(signal.SIGINT)).join()
    said = running.communicate(timeout=600)
    assert running.returncode == 130 and "is saved" in said[1] and "to go on" in said[1], said
    step = torch.load(saved, weights_only=True)["step"]
    assert 0 < step < 24 and [row["status"] for row in rows(out)] == ["not done"] * 2
    assert not (out / f"{STARTER.stem}-fold1" / "checkpoint.pt").exists()
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows(out)] == ["done"] * 2
    (tmp_path / "single").mkdir()
    assert_equal(out / rows(out)[0]["model"], alone(tmp_path / "single", store, 0, *LONG))


def test_two_sweeps_do_not_share_a_folder(tmp_path, store, capsys):
    with sweep._held(tmp_path / "out"):
        assert sweep.main(command(tmp_path / "out", store)) == 1
    assert "Another sweep" in capsys.readouterr().err
