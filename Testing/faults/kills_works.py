"""The works that are killed: a batch of small cases and a training of a small network, as the product does them."""

from __future__ import annotations

import csv
import json
import shutil
import time
from pathlib import Path

Faults = list[tuple[str, str]]


class BatchWork:
    """A batch of 24 scans; ledger, results and tables are written by the process that is killed.

    Args:
        folder: for the scans and the model.
    """

    cases = 24

    def __init__(self, folder: Path):
        from bare_models import write_bare_model
        from batch_support import write_scan

        from NeuraxisLib import batch, report, result_folder, task  # noqa: F401 - once, for all children

        task.TASKS["threshold"] = "threshold_task:TASK"
        task.get_task("threshold")
        self._model = write_bare_model(folder / "bright.safetensors")
        self._scans = [write_scan(folder / "scans" / f"case{n:02d}.nrrd", n + 1) for n in range(self.cases)]
        self.begin(folder / "straight")
        self.span_s = _seconds(self, folder) / 4

    def begin(self, folder: Path) -> None:
        """Prepare an empty folder."""
        self._output = folder / "out"
        self._seen: dict[str, int] = {}  # case -> inode of its result, once it was there

    def go_on(self) -> None:
        """Do the batch."""
        from batch_support import InlineWorkers

        from NeuraxisLib.batch import Batch
        from NeuraxisLib.batch_cases import cases_of_files
        from NeuraxisLib.task import get_task

        cases = cases_of_files(self._scans, get_task("threshold"))
        batch = Batch("threshold", cases, self._output, InlineWorkers(), model=str(self._model), device="cpu")
        batch.wait()
        batch.close()

    def look(self) -> Faults:
        """Every result that can be seen is whole, and those seen before are still the same."""
        faults: Faults = []
        there = {path.name: path for path in self._output.glob("case*") if path.is_dir()}
        faults += [("lost", f"{name} was there") for name in self._seen if name not in there]
        for name, path in there.items():
            faults += self._look_at(name, path)
        for name in self._ledger(faults):
            if name not in there:
                faults.append(("lost", f"{name} is in the ledger, but has no result"))
        table = self._output / "cases.csv"
        if table.exists() and len(self._rows()) != self.cases:
            faults.append(("unreadable", f"{len(self._rows())} rows in the table"))
        return faults

    def look_at_the_end(self) -> Faults:
        """All done, each once, and nothing temporary."""
        faults: Faults = []
        names = self._ledger(faults)
        for scan in self._scans:
            times = names.count(scan.stem)
            if times != 1:
                faults.append(("lost" if times < 1 else "doubled", f"{scan.stem} is {times} times in the ledger"))
        done = [row["case"] for row in self._rows() if row["status"] == "done"]
        if sorted(done) != [scan.stem for scan in self._scans]:
            faults.append(("lost", f"{len(done)} cases are done in the table"))
        left = [path.name for path in self._output.iterdir() if path.name.startswith(".")]
        return faults + [("left", name) for name in left]

    def _look_at(self, name: str, path: Path) -> Faults:
        from NeuraxisLib.errors import NeuraxisError
        from NeuraxisLib.result_folder import read_result

        try:
            marked = int(read_result(path).labels.array.sum())
        except (NeuraxisError, OSError) as error:
            return [("unreadable", f"{name}: {error}")]
        faults = []
        if marked != int(name[4:]) + 1:
            faults.append(("unreadable", f"{name} holds {marked} voxels"))
        inode = (path / "result.json").stat().st_ino
        if self._seen.setdefault(name, inode) != inode:
            faults.append(("doubled", f"{name} was computed again"))
        return faults

    def _ledger(self, faults: Faults) -> list[str]:
        """The cases of the ledger's whole lines."""
        path, names = self._output / "batch.jsonl", []
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        for line in filter(None, lines[:-1]):  # the last one may be cut off
            try:
                names.append(json.loads(line)["case"])
            except ValueError:
                continue  # was cut off by an earlier kill
        return names

    def _rows(self) -> list[dict[str, str]]:
        with open(self._output / "cases.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def _seconds(work: BatchWork | TrainingWork, folder: Path) -> float:
    """How long the work takes when nobody kills."""
    from Testing.faults.kills import finish

    begun = time.monotonic()
    finish(work, folder / "fault.txt")
    return time.monotonic() - begun


class TrainingWork:
    """A training of a small U-Net for 60 steps, with a checkpoint after every step.

    Args:
        folder: for the bank of heads, and for the run that nobody kills, with which the others are compared.
    """

    settings = (
        "architecture.name=UNet2D", "architecture.arguments={in_channels=1, base=2, out_channels=1, drop_rate=0.0}",
        "preprocessing.size=32", "simulation.bank_size=32",
        "fitting.steps=60", "fitting.validate_every=12", "fitting.keep_minutes=0",
    )  # fmt: skip

    def __init__(self, folder: Path):
        import torch
        import torch._dynamo  # once, for all children, as is what follows
        from tiny_training import fill_tiny_bank, tiny_recipe

        from NeuraxisLib import inference, models  # noqa: F401
        from Training import fitting, train  # noqa: F401

        torch.set_num_threads(1)
        self._recipe = tiny_recipe(*self.settings)
        self._bank = fill_tiny_bank(folder / "bank")
        self._straight: Path | None = None
        self.begin(folder / "straight")
        self.span_s = _seconds(self, folder) / 4
        self._straight = self._run

    def begin(self, folder: Path) -> None:
        """A run folder with the bank in it."""
        self._run, self._model = folder / "run", folder / "model.safetensors"
        shutil.copytree(self._bank, self._run / "bank")
        self._step, self._seen = -1, set()

    def go_on(self) -> None:
        """Train, as the command does."""
        from tiny_training import STARTER, TINY

        from Training.train import main

        settings = [part for text in (*TINY, *self.settings) for part in ("--set", text)]
        place = [str(STARTER), str(self._model), "--run", str(self._run), "--device", "cpu"]
        if main([*place, "--threads", "1", *settings]):
            raise RuntimeError("training ended with a fault")

    def look(self) -> Faults:
        """What is there can be read, and is never older than it was."""
        import torch

        from NeuraxisLib.errors import NeuraxisError
        from NeuraxisLib.models import load_model
        from Training.checkpointing import read, read_checkpoint

        faults: Faults = []
        cpu = torch.device("cpu")
        found = {path.name for path in (*self._run.glob("*.pt"), self._model) if path.exists()}
        there = {name for name in found if not name.startswith(".")}  # what a save was cut off in may be half a file
        faults += [("lost", f"{name} was there") for name in self._seen - there]
        self._seen |= there
        for name in sorted(there):
            try:
                if name == "checkpoint.pt":
                    step = read_checkpoint(self._run, self._recipe, cpu)["step"]
                    if step < self._step:
                        faults.append(("lost", f"step {step} after {self._step}"))
                    self._step = step
                elif name.endswith(".pt"):
                    read(self._run / name, cpu)
                else:
                    load_model(self._model)
            except NeuraxisError as error:
                faults.append(("unreadable", f"{name}: {error}"))
        return faults

    def look_at_the_end(self) -> Faults:
        """The same weights, bit for bit, and the same records as of the run that nobody killed."""
        import torch

        if self._straight is None:
            return []
        faults: Faults = []
        for name in ("best.pt", "last.pt", "checkpoint.pt"):
            one, other = (torch.load(run / name, weights_only=True) for run in (self._run, self._straight))
            one, other = one.get("network", one), other.get("network", other)
            if not all(torch.equal(one[key], other[key]) for key in other):
                faults.append(("lost", f"{name} is another than without kills"))
        mine, theirs = self._records(self._run), self._records(self._straight)
        faults += [("lost", f"no record {record}") for record in theirs if record not in mine]
        faults += [("left", path.name) for path in (*self._run.glob(".*"), *self._model.parent.glob(".*"))]
        faults += [("doubled", f"record {record}") for record in set(mine) if mine.count(record) > theirs.count(record)]
        return faults

    @staticmethod
    def _records(run: Path) -> list[tuple]:
        """(step, names of numbers) of every line of the log."""
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return [(record.pop("step"), *sorted(record)) for record in map(json.loads, lines)]
