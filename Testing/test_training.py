"""Training runs: exact resume, kills, faults, and the model file at the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_head import real_head
from test_training_inputs import bank  # noqa: F401 - a fixture
from tiny_training import RECIPES, STARTER, TINY, one_thread, tiny_recipe, write_sources  # noqa: F401

from HemorrhageSegLib.networks import NETWORKS
from NeuraxisLib.errors import InputError
from NeuraxisLib.inference import SlicePredictor, build_network
from NeuraxisLib.models import load_model
from NeuraxisLib.preprocessing import slice_grid
from NeuraxisLib.task import Progress
from Training import fitting as fitting_file
from Training import train
from Training.checkpointing import stop_between_steps
from Training.data import split
from Training.fitting import Fitting
from Training.recipe import Recipe
from Training.sampling import Batch, HeadSampler
from Training.simulation.bank import BankedHead

SCRIPT = Path(train.__file__)


class Stopped(Exception):
    """Stands for whatever ends a run from outside."""


def start(
    bank_folder: Path, run: Path, *overrides: str, validation: bool = True, weights: dict | None = None
) -> Fitting:
    """A run of the tiny recipe, begun or resumed."""
    recipe = tiny_recipe(*overrides)
    run.mkdir(exist_ok=True)
    names, held_out = split(bank_folder, recipe)
    settings = recipe["fitting"]
    source = HeadSampler(bank_folder, names, recipe.preprocessing, settings["shares"], settings["bleeding_share"])
    heads = [BankedHead.load(bank_folder / f"{name}.npz") for name in held_out if validation]
    return Fitting(recipe, run, source, heads, start_from={"": weights} if weights else None)


def fit(fitting: Fitting, stop_at: int | None = None) -> tuple[dict, list[dict]]:
    """(best weights, log); raises Stopped when ``stop_at`` is reached."""
    log: list[dict] = []

    def report(fraction: float, stage: str) -> None:
        if fitting.step == stop_at:
            raise Stopped

    return fitting.fit(Progress(report), log.append), log


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", sorted({2, int(np.random.default_rng().integers(3, 9))}))
def test_a_stopped_run_ends_bit_for_bit_like_one_that_was_not(bank, tmp_path, stop_at):  # noqa: F811
    straight = start(bank, tmp_path / "straight")
    best, _ = fit(straight)
    with pytest.raises(Stopped):
        fit(start(bank, tmp_path / "stopped", "fitting.keep_minutes=0"), stop_at)
    resumed = start(bank, tmp_path / "stopped")
    assert resumed.step == stop_at - 1  # the step that was under way is done again
    best_again, _ = fit(resumed)
    assert same(best, best_again)
    assert same(straight.network.state_dict(), resumed.network.state_dict())
    assert same(straight.average, resumed.average)
    assert straight.best == resumed.best
    moments = [f.optimiser.state_dict()["state"] for f in (straight, resumed)]
    assert all(torch.equal(moments[0][n]["exp_avg_sq"], moments[1][n]["exp_avg_sq"]) for n in moments[0])


@pytest.mark.slow
def test_training_learns(bank, tmp_path):  # noqa: F811
    fitting = start(
        bank, tmp_path / "run", "fitting.steps=60", "fitting.learning_rate=5e-3", "fitting.validate_every=30"
    )
    _, log = fit(fitting)
    losses = [record["loss"] for record in log if "loss" in record]
    assert [record["step"] for record in log if "loss" in record] == [10, 20, 30, 40, 50, 60]
    assert losses[-1] < 0.7 * losses[0]
    assert [record["step"] for record in log if "dice" in record] == [30, 60]


def test_the_best_weights_are_kept_not_the_last(bank, tmp_path, monkeypatch):  # noqa: F811
    scores = iter([0.2, 0.7, 0.1])
    monkeypatch.setattr(fitting_file, "evaluate", lambda *args: {"dice": 0.0, "auc": np.nan, "score": next(scores)})
    kept = {}
    fitting = start(bank, tmp_path / "run")
    validate = fitting._validate

    def spy(log, watch):
        validate(log, watch)
        kept[fitting.step] = {name: value.clone() for name, value in fitting.average.items()}

    fitting._validate = spy
    best, _ = fit(fitting)
    assert sorted(kept) == [4, 8, 9] and fitting.best == 0.7
    assert same(best, kept[8]) and not same(best, kept[9])


def test_without_validation_heads_the_last_weights_are_written(bank, tmp_path):  # noqa: F811
    fitting = start(bank, tmp_path / "run", validation=False)
    best, _ = fit(fitting)
    assert same(best, fitting.average)


def test_average_follows_the_weights(bank, tmp_path):  # noqa: F811
    fitting = start(bank, tmp_path / "none", "fitting.ema=0", "fitting.steps=3")
    fit(fitting)
    assert same(fitting.average, fitting.network.state_dict())
    slow = start(bank, tmp_path / "slow", "fitting.steps=1", "fitting.ema=1")
    first = {name: value.clone() for name, value in slow.average.items()}
    fit(slow)
    name = "head.weight"
    keep = 1 / 11  # a young average forgets: step / (step + 10)
    expected = keep * first[name] + (1 - keep) * slow.network.state_dict()[name]
    assert torch.allclose(slow.average[name], expected, atol=1e-7)


def test_learning_rate_warms_up_and_falls_or_stays(bank, tmp_path):  # noqa: F811
    fitting = start(bank, tmp_path / "a", "fitting.steps=103")
    rates = [fitting._rate(step) for step in range(104)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1]) and rates[3] == 1
    assert rates[53] == pytest.approx(0.51) and rates[103] == pytest.approx(0.02)
    constant = start(bank, tmp_path / "b", "fitting.schedule=constant", "fitting.warmup=0")
    assert {constant._rate(step) for step in range(9)} == {1.0}


def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_names_its_cases(bank, tmp_path, monkeypatch):  # noqa: F811
    fitting = start(bank, tmp_path / "run")
    fitting._advance(fitting._batch(0))
    before = {name: value.clone() for name, value in fitting.network.state_dict().items()}
    average = {name: value.clone() for name, value in fitting.average.items()}
    moments = json.dumps(fitting.optimiser.state_dict()["state"], default=lambda t: t.tolist())
    batch, log = fitting._batch(1), []
    monkeypatch.setattr(fitting_file, "loss_of", lambda logits, *rest: (logits * 0).sum().sqrt())  # 0, its slope is nan
    assert np.isnan(fitting._advance(batch, log.append))
    assert fitting.step == 2
    assert log == [{"step": 2, "skipped": list(batch.cases)}]
    assert len(batch.cases) == 2 and all(re.fullmatch(r"(planted|synthetic)_\d{5} slice \d+", c) for c in batch.cases)
    assert same(before, fitting.network.state_dict()) and same(average, fitting.average)
    assert json.dumps(fitting.optimiser.state_dict()["state"], default=lambda t: t.tolist()) == moments
    monkeypatch.undo()
    assert np.isfinite(fitting._advance(fitting._batch(2)))
    assert not same(before, fitting.network.state_dict())


def test_data_that_are_not_finite_stop_the_run_with_their_case(bank, tmp_path):  # noqa: F811
    fitting = start(bank, tmp_path / "run")
    batch = fitting._batch(0)
    batch.images[1, 0, 5, 5] = torch.nan
    with pytest.raises(InputError, match=re.escape(batch.cases[1])) as error:
        fitting._advance(batch)
    assert batch.cases[0] not in str(error.value)
    empty = Batch(*(part[:0] for part in (batch.images, batch.truth, batch.brain, batch.slice_label)), batch.cases)
    with pytest.raises(InputError, match=f"empty.*{re.escape(batch.cases[0])}"):
        fitting._advance(empty)


def test_a_run_that_diverged_is_given_up_with_the_cases_of_its_last_step(bank, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(fitting_file, "MOST_SKIPPED", 3)
    monkeypatch.setattr(fitting_file, "loss_of", lambda logits, *rest: logits.sum() * torch.nan)
    fitting = start(bank, tmp_path / "run")
    with pytest.raises(InputError, match="lower the learning rate") as error:
        fit(fitting)
    assert fitting._batch(2).cases[0] in str(error.value)


def test_legacy_loss_runs_and_ignores_slice_labels(bank, tmp_path):  # noqa: F811
    _, log = fit(start(bank, tmp_path / "run", "fitting.loss=legacy_mean_dice", "fitting.steps=10"))
    assert 0 < log[-2]["loss"] < 3


def test_published_recipe_runs(bank, tmp_path):  # noqa: F811
    """A few steps of it, at a small width and size and on the phantom's bank."""
    small = [text for text in TINY if not text.startswith(("fitting.warmup", "fitting.batch", "fitting.precision"))]
    recipe = Recipe.read(RECIPES / "hemorrhage_drunet.toml", (*small, "fitting.steps=2"))
    names, _ = split(bank, recipe)
    source = HeadSampler(bank, names, recipe.preprocessing, recipe["fitting"]["shares"], 0.6)
    fitting = Fitting(recipe, tmp_path, source, [])
    before = fitting.network.state_dict()["head.weight"].clone()
    weights = fitting.fit(Progress(), lambda record: None)
    moved = (weights["head.weight"] - before).abs()
    assert 0 < moved.max() <= 2 * 2e-4 * 1.01  # Adam moves a weight by at most its rate and step


@pytest.mark.parametrize(
    "override,named",
    [("fitting.batch=3", "fitting.batch"), ("architecture.arguments.base=8", "architecture.arguments")],
)
def test_a_run_of_another_recipe_is_not_continued(bank, tmp_path, override, named):  # noqa: F811
    fit(start(bank, tmp_path / "run", "fitting.steps=2"))
    with pytest.raises(InputError, match=named):
        start(bank, tmp_path / "run", override)
    longer = start(bank, tmp_path / "run", "fitting.steps=4")
    assert longer.step == 2


def test_damaged_checkpoint_is_named(bank, tmp_path):  # noqa: F811
    fit(start(bank, tmp_path / "run", "fitting.steps=2"))
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        start(bank, tmp_path / "run")


def test_fine_tuning_starts_from_the_weights_given(bank, tmp_path):  # noqa: F811
    best, _ = fit(start(bank, tmp_path / "first", "fitting.steps=3"))
    tuned = start(bank, tmp_path / "second", weights=best)
    assert same(tuned.network.state_dict(), best) and tuned.step == 0
    with pytest.raises(InputError, match="do not fit"):
        start(bank, tmp_path / "third", "architecture.arguments.base=8", weights=best)


def test_networks_that_cannot_be_built_are_named(bank, tmp_path):  # noqa: F811
    for override, named in (("architecture.name=UNet", "UNet"), ("architecture.arguments.base=7", "DRUNet")):
        with pytest.raises(InputError, match=named):
            start(bank, tmp_path / "run", override)


# -- the program -----------------------------------------------------------------------------------------------------


def arguments(run: Path, output: Path, *overrides: str) -> list[str]:
    settings = [part for text in (*TINY, *overrides) for part in ("--set", text)]
    return [str(STARTER), str(output), "--run", str(run), "--device", "cpu", "--threads", "1", *settings]


@pytest.fixture()
def run(bank, tmp_path) -> Path:  # noqa: F811
    """A run folder with a complete bank."""
    shutil.copytree(bank, tmp_path / "run" / "bank")
    return tmp_path / "run"


def test_model_file_is_complete_and_runs(run, tmp_path, capsys):
    output = tmp_path / "models" / "tiny.safetensors"
    assert train.main(arguments(run, output)) == 0
    said = capsys.readouterr()
    assert "tiny.safetensors" in said.out and "step 9 of 9" in said.err
    model = load_model(output, "hemorrhage")
    assert model.header["training"]["steps"] == 9 and model.header["training"]["simulated"] is True
    assert model.header["training"]["recipe"] == tiny_recipe().data
    assert "simulation, research use only" in model.header["notice"]
    best = torch.load(run / "best.pt", weights_only=True)
    assert all(torch.equal(value, best[name].half().float()) for name, value in model.weights().items())
    volume, brain = real_head()
    grid = slice_grid(volume, brain, tiny_recipe().preprocessing)
    slabs = grid.forward(volume.array)
    predictor = SlicePredictor(build_network(model, NETWORKS), "cpu", "float32")
    probability = predictor.predict(lambda numbers: tiny_recipe().preprocessing.images(slabs, numbers), len(slabs))
    assert probability.shape == (len(slabs), 1, 64, 64)
    assert np.isfinite(probability).all() and 0 < probability.mean() < 1


def test_model_file_goes_through_the_task(run, tmp_path):
    from NeuraxisLib.task import get_task

    output = tmp_path / "tiny.safetensors"
    assert train.main(arguments(run, output)) == 0
    task = get_task("hemorrhage")
    result = task.run({next(iter(task.inputs)): real_head()[0]}, load_model(output), task.options_type(), Progress())
    assert result.labels.array.shape == real_head()[0].array.shape


def as_slicer_starts_it(monkeypatch, given: list[str]) -> int:
    """Run the script as ``Slicer --python-script Training/train.py -- ...`` does; the status it quits with."""
    statuses: list[int] = []
    fake = types.ModuleType("slicer")
    fake.app, fake.util = object(), types.SimpleNamespace(exit=statuses.append)
    monkeypatch.setitem(sys.modules, "slicer", fake)
    monkeypatch.setattr(sys, "argv", ["Training/train.py", "--", *given])
    exec(SCRIPT.read_text(encoding="utf-8"), {"__name__": "__main__", "__file__": str(SCRIPT)})
    assert len(statuses) == 1
    return statuses[0]


def test_starts_inside_slicer_and_makes_its_own_bank(tmp_path, monkeypatch):
    real, maps = write_sources(tmp_path)
    output = tmp_path / "tiny.safetensors"
    few = ("simulation.planted=2", "simulation.synthetic=1", "fitting.steps=2")
    shares = "fitting.shares={planted=0.4, synthetic=0.3, real=0.3}"
    given = arguments(tmp_path / "run", output, *few, shares)
    given += ["--real", str(real), "--label-maps", str(maps), "--workers", "1"]
    assert as_slicer_starts_it(monkeypatch, given) == 0
    assert load_model(output).header["training"]["steps"] == 2
    made = sorted(path.stem for path in (tmp_path / "run" / "bank").iterdir())
    assert made == ["planted_00000", "planted_00001", "real_bleeding", "real_clean", "synthetic_00000"]


@pytest.mark.slow
def test_simulates_in_several_processes_inside_slicer(tmp_path, monkeypatch):
    """The other processes import their work by name, whatever program started them."""
    real, maps = write_sources(tmp_path)
    few = ("simulation.planted=0", "simulation.synthetic=2", "fitting.steps=1", "fitting.shares={synthetic=1}")
    given = arguments(tmp_path / "run", tmp_path / "tiny.safetensors", *few)
    given += ["--real", str(real), "--label-maps", str(maps), "--workers", "2"]
    assert as_slicer_starts_it(monkeypatch, given) == 0


def test_faults_reach_slicer_as_a_status(tmp_path, monkeypatch, capsys):
    assert as_slicer_starts_it(monkeypatch, ["none.toml", "out.safetensors", "--run", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.strip() == "The recipe 'none.toml' cannot be read; check its path."
    assert as_slicer_starts_it(monkeypatch, ["--help"]) == 0
    assert "examples:" in capsys.readouterr().out
    assert as_slicer_starts_it(monkeypatch, ["--no-such-option"]) == 2


def test_outside_slicer_the_status_is_the_program_s(monkeypatch):
    monkeypatch.delitem(sys.modules, "slicer", raising=False)
    with pytest.raises(SystemExit) as stop:
        train.finish(130)
    assert stop.value.code == 130


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda given, tmp: given.__setitem__(1, str(tmp / "model.pt")), "must end in .safetensors"),
        (lambda given, tmp: given.extend(["--device", "abacus"]), "abacus"),
        (lambda given, tmp: given.extend(["--start-from", str(tmp / "none.safetensors")]), "none.safetensors"),
        (lambda given, tmp: given.extend(["--set", "simulation.planted=9", "--real", str(tmp / "none")]), "'none'"),
        (lambda given, tmp: given.extend(["--set", "fitting.shares={real=1.0}", "--real", str(tmp)]), "--real"),
    ],
)
def test_faults_of_the_command_are_one_sentence_and_write_nothing(run, tmp_path, capsys, change, words):
    output = tmp_path / "tiny.safetensors"
    given = arguments(run, output)
    change(given, tmp_path)
    assert train.main(given) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said and said.endswith(".")
    assert not output.exists() and not (run / "fault.log").exists()


def test_an_unexpected_fault_is_one_sentence_and_its_trace_is_kept(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "train", lambda *args: {}["nothing"])
    assert train.main(arguments(run, tmp_path / "tiny.safetensors")) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("An unexpected fault") and "\n" not in said
    assert "KeyError" in (run / "fault.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_the_run_and_says_how_to_go_on(run, tmp_path, monkeypatch, capsys, number):
    straight = start(run / "bank", tmp_path / "straight")
    best, _ = fit(straight)
    advance = Fitting._advance

    def interrupted(self, batch, log):
        if self.step == 4:
            os.kill(os.getpid(), number)  # in the middle of the fifth step
        return advance(self, batch, log)

    monkeypatch.setattr(Fitting, "_advance", interrupted)
    output = tmp_path / "tiny.safetensors"
    assert as_slicer_starts_it(monkeypatch, arguments(run, output)) == 130
    assert "start the same command again" in capsys.readouterr().err
    assert not output.exists()
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 5
    monkeypatch.setattr(Fitting, "_advance", advance)
    assert train.main(arguments(run, output)) == 0
    assert same(torch.load(run / "best.pt", weights_only=True), best)


def test_the_second_ctrl_c_acts_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_between_steps() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_run_is_finished_by_the_same_command(run, tmp_path):
    steps = ("fitting.steps=24", "fitting.validate_every=16", "fitting.keep_minutes=0")
    straight = start(run / "bank", tmp_path / "straight", *steps)
    best, _ = fit(straight)
    output = tmp_path / "tiny.safetensors"
    command = [sys.executable, str(SCRIPT), *arguments(run, output, *steps)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    process = subprocess.Popen(command, **quiet)
    wait_for(lambda: '"step": 10' in (run / "log.jsonl").read_text() if (run / "log.jsonl").exists() else False)
    process.kill()
    process.wait()
    reached = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    assert 8 <= reached < 24 and not output.exists()
    with open(run / "log.jsonl", "a") as log:
        log.write('{"step": 4000, "loss": 0.1}\n{"step": 41')  # as a kill between checkpoint and log leaves it
    assert subprocess.run(command, **quiet, check=False).returncode == 0
    assert same(torch.load(run / "best.pt", weights_only=True), best)
    steps_logged = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps_logged == sorted(steps_logged) and steps_logged[-1] == 24
    assert load_model(output).header["training"]["steps"] == 24


def wait_for(condition, seconds: float = 120) -> None:
    """Wait until ``condition()`` holds; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_weights_beyond_half_precision_keep_their_size():
    """A BatchNorm may have met variances above 65,504; in half precision they would be infinite."""
    kept = train._in_half(torch.tensor([1.0, 1e5]))
    assert kept.dtype == torch.float32 and kept.tolist() == [1.0, 1e5]
    assert train._in_half(torch.tensor([1.0, 2.5])).dtype == torch.float16
    assert train._in_half(torch.tensor([70_000])).dtype == torch.int64
