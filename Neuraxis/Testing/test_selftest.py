"""The self-test: small cases through the worker, what it says of those that do not work, and the command."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from NeuraxisLib import machine, selftest, task
from NeuraxisLib.background import Background
from NeuraxisLib.cli import make_app
from NeuraxisLib.exchange import read_exchange, write_exchange
from NeuraxisLib.result import Landmark, Measurement, Result
from NeuraxisLib.selftest import TaskOutcome, self_test, summary
from NeuraxisLib.task import TASKS, Example, get_task
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_client import WorkerClient

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path[:0] = [str(Path(__file__).parent), str(SUPPORT)]
import threshold_task  # noqa: E402
from bare_models import write_bare_model  # noqa: E402
from fake_torch import write_torch  # noqa: E402

EDGES = np.diag([-1.0, -1.0, 5.0, 1.0])


@pytest.fixture
def bright(tmp_path, monkeypatch):
    """Makes a task with a small case whose result has to have that volume; options go to the run."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    models = tmp_path / "home" / "Neuraxis" / "Models"
    models.mkdir(parents=True)
    write_bare_model(models / "bright.safetensors", default=True)
    monkeypatch.setitem(TASKS, "threshold", "threshold_task:TASK")

    def make(expected_ml: float = 0.16, **options):
        def example(folder: Path) -> Example:
            volume = Volume(np.full((2, 4, 4), 100, np.int16), EDGES, "HU")
            path = write_exchange(volume, folder / "case.exchange.nrrd")
            return Example({"ct": path}, lambda result: fault(result, expected_ml), options)

        monkeypatch.setattr(threshold_task, "example", example, raising=False)
        return dataclasses.replace(threshold_task.TASK, example="threshold_task:example")

    return make


def fault(result: Result, expected_ml: float) -> str:
    return "" if result.measurements[0].value == pytest.approx(expected_ml) else "The volume is wrong."


def client(**environment) -> WorkerClient:
    return WorkerClient(paths=[SUPPORT], environment={**os.environ, **environment}, threads=1)


def test_a_task_that_works_one_that_is_wrong_one_that_fails_and_one_without_a_case(bright):
    seen, mine = [], client()
    progress = task.Progress(lambda fraction, stage: seen.append((fraction, stage)))
    plain = threshold_task.TASK
    (good,) = self_test(mine, [bright(), plain], progress=progress)
    assert good.passed and good.device == "auto" and good.seconds > 0 and not good.code
    assert seen[0] == (0.0, "Mark bright voxels: starting")
    assert mine._process is None and mine._exchange is None  # stopped, nothing left
    (wrong,) = self_test(client(), [bright(99.0)])
    assert (wrong.sentence, wrong.code, wrong.passed) == ("The volume is wrong.", "result", False)
    (failed,) = self_test(client(), [bright(fault="no package")])
    assert failed.code == "dependency" and "is not installed" in failed.sentence
    assert summary([good]) == "Self-test: Mark bright voxels: all work here."
    assert summary([good, wrong]) == "Self-test: 1 of 2 do not work here: Mark bright voxels."


def test_cancel_ends_the_worker(bright):
    mine, ends = client(), []
    work = Background(
        lambda progress: self_test(mine, [bright(slow_stage="Computing")], progress=progress),
        on_cancelled=lambda: ends.append("cancelled"),
    )
    wait = threading.Event()
    while "Computing" not in work.stage:
        wait.wait(0.02)
        assert work.state == "running"
    process = mine._process
    work.cancel()
    work._thread.join(20)
    work.poll()
    assert ends == ["cancelled"] and process._popen.poll() is not None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise OSError('libcudart.so.12 is missing')", "libcudart.so.12 is missing"),
        ("import a_part_that_is_not_there", "'a_part_that_is_not_there' is not installed"),
    ],
)
def test_torch_that_cannot_be_loaded_is_a_sentence(bright, tmp_path, body, words):
    fake = write_torch(tmp_path / "fake", body)
    worker = WorkerClient(paths=[fake, SUPPORT], threads=1)
    (outcome,) = self_test(worker, [bright(fault="torch memory")])
    assert not outcome.passed and words in outcome.sentence and outcome.sentence.endswith(".")


@pytest.mark.skipif(os.name != "posix", reason="paths longer than Windows takes")
def test_non_ascii_and_very_long_temporary_paths(bright, tmp_path, monkeypatch):
    deep = tmp_path.joinpath("Überprüfung 患者 [x]", *["a folder with a long name " * 4] * 4)
    deep.mkdir(parents=True)
    monkeypatch.setattr(selftest.tempfile, "tempdir", str(deep))
    assert len(str(deep)) > 400
    (outcome,) = self_test(client(), [bright()])
    assert outcome.passed, outcome.sentence
    assert list(deep.iterdir()) == []


# -- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch):
    """``neuraxis selftest`` with outcomes that the test gives."""
    facts = {
        "python": "3.12.1", "system": "Linux", "machine": "x86_64", "translated": False, "cores": 4, "threads": 3,
        "memory_bytes": 16_000_000_000, "torch": {"state": "missing"}, "nvidia": [], "missing": [],
    }  # fmt: skip
    monkeypatch.setattr(machine, "ask", lambda python: facts)

    def run(outcomes: list[TaskOutcome], *arguments: str):
        asked = []

        def fake(client, tasks, device, progress):
            asked.append(([one.name for one in tasks], device, client._threads, client._memory_limit_gb))
            return outcomes

        monkeypatch.setattr(selftest, "self_test", fake)
        done = CliRunner().invoke(make_app(), ["selftest", *arguments])
        return SimpleNamespace(code=done.exit_code, out=done.stdout, asked=asked)

    return run


GOOD = TaskOutcome("discs", "Label discs", 2.04, "cpu")


def test_command_says_what_there_is_and_how_it_went(command):
    done = command([GOOD])
    assert done.code == 0 and done.asked == [(list(TASKS), "auto", None, None)]
    lines = done.out.splitlines()
    assert lines[0] == "Python 3.12.1 on Linux (x86_64), 4 processor cores, 16 GB of memory."
    assert lines[-2:] == ["Label discs: passed in 2.0 s on cpu.", "Self-test: Label discs: all work here."]
    done = command([GOOD], "--task", "discs", "--device", "cpu", "--threads", "2", "--memory-limit", "4")
    assert done.asked == [(["discs"], "cpu", 2, 4.0)]


@pytest.mark.parametrize(("code", "exit_code"), [("dependency", 8), ("worker", 9), ("result", 1), ("error", 1)])
def test_command_fails_with_the_code_of_the_first_that_does_not_work(command, code, exit_code):
    bad = TaskOutcome("stroke", "Analyse perfusion", 1.0, "", "It does not work.", code)
    done = command([GOOD, bad], "--json")
    assert done.code == exit_code
    record = json.loads(done.out)
    assert [outcome["sentence"] for outcome in record["outcomes"]] == ["", "It does not work."]
    assert record["facts"]["cores"] == 4


# -- the small cases ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_has_a_small_case_and_notices_an_empty_result(name, tmp_path):
    example = get_task(name).make_example(tmp_path)
    assert set(example.inputs) <= set(get_task(name).inputs) and all(path.is_file() for path in example.inputs.values())
    source = Volume(np.zeros((36, 4, 4), np.uint8), EDGES)
    empty = Result(name, source, labels=source, measurements=[Measurement("Hypoperfused volume", 0.0, "mL")])
    sentence = example.fault(empty)
    assert sentence.endswith(".") and sentence[0].isupper() | sentence[0].isdigit()


def test_small_cases_take_a_right_result(tmp_path):
    source = Volume(np.zeros((36, 50, 50), np.uint8), np.diag([-1.0, -1.0, 5.0, 1.0]))
    blood = source.array.copy()
    blood[14:22, 10:30, 10:30] = 1  # 8 x 400 x 5 mm3 = 16 mL
    assert get_task("hemorrhage").make_example(tmp_path).fault(Result("hemorrhage", source, source.like(blood))) == ""
    discs = [Landmark(f"disc {number}", (0.0, 0.0, 35.0 * number)) for number in range(8)]
    assert get_task("discs").make_example(tmp_path).fault(Result("discs", source, points=discs)) == ""


def test_the_simulated_stroke_has_the_volume_it_says(tmp_path):
    from StrokeCTPLib.example import SPACING_MM, TIMES_S, bolus_hu, simulated_head, tissue_hu

    example = get_task("stroke").make_example(tmp_path)
    frames = read_exchange(example.inputs["perfusion"])
    head, stage = simulated_head()
    assert np.array_equal(frames.array, head.array) and np.allclose(frames.frame_times_s, TIMES_S)
    voxel_ml = SPACING_MM[0] * SPACING_MM[1] * SPACING_MM[2] / 1000
    late_ml, core_ml = float((stage > 0).sum() * voxel_ml), float((stage == 2).sum() * voxel_ml)
    for late, core, fault in (
        (1.0, 1.0, ""),
        (1.2, 0.8, ""),
        (1.4, 1.0, "Hypoperfused volume"),
        (1.0, 0.7, "Core volume"),
    ):
        volumes = [
            Measurement("Hypoperfused volume", late * late_ml, "mL"), Measurement("Core volume", core * core_ml, "mL"),
        ]  # fmt: skip
        assert example.fault(Result("stroke", head, measurements=volumes)).partition(":")[0] == fault
    # indicator dilution: the area under the tissue's curve is CBV (with density) times that of the artery's
    fine = np.arange(0, 200, 0.1)
    area = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    tissue = area(tissue_hu(50.0, 4.0, 0.0), TIMES_S)
    assert tissue == pytest.approx(1.04 * 4.0 / 100 * area(bolus_hu(0.0, fine), fine), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_passes_here(name, tmp_path, monkeypatch):
    """The real thing: default models, real worker."""
    pytest.importorskip("torch")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (outcome,) = self_test(WorkerClient(threads=1), [get_task(name)], "cpu")
    assert outcome.passed, outcome.sentence
