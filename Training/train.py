"""Fit a network from a recipe: recipe file in, model file out.

    python Training/train.py RECIPE OUTPUT.safetensors --run FOLDER [--real FOLDER --label-maps FOLDER]
    Slicer --no-main-window --python-script Training/train.py -- RECIPE OUTPUT.safetensors --run FOLDER ...

Simulated heads are made first (kept in RUN/bank and used again); a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "Neuraxis", ROOT / "HemorrhageSeg"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib import RESEARCH_USE_NOTICE  # noqa: E402
from NeuraxisLib.errors import InputError, NeuraxisError  # noqa: E402
from NeuraxisLib.task import Progress  # noqa: E402
from Training.recipe import Recipe  # noqa: E402


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; a leading ``--``, as Slicer hands it over, is dropped."""
    data = Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(prog="train.py", description="Fit a network from a recipe.")
    parser.add_argument("recipe", type=Path, help="TOML recipe, such as Training/recipes/hemorrhage_drunet_starter.toml")
    parser.add_argument("output", type=Path, help="model file to write (.safetensors)")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run: bank, checkpoint, logs")
    parser.add_argument("--real", type=Path, default=data / "head_ct_training", help="real head CTs with *labels.json")
    parser.add_argument("--label-maps", type=Path, default=data / "label_maps", help="whole-head label maps")
    parser.add_argument("--start-from", type=Path, help="model file whose weights to start from")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a recipe value")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, help="CPU threads of the fitting process")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that simulate")
    return parser.parse_args(arguments[1:] if arguments[:1] == ["--"] else arguments)


def main(arguments: list[str]) -> int:
    """Run; returns the exit status (0 done, 1 a fault told in one sentence, 130 interrupted)."""
    options = parse(arguments)
    try:
        recipe = Recipe.read(options.recipe, tuple(options.set))
        options.run.mkdir(parents=True, exist_ok=True)
        make_bank(options, recipe)
        train(options, recipe)
    except NeuraxisError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; start the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def make_bank(options: argparse.Namespace, recipe: Recipe) -> None:
    """Simulate the heads that the run's bank lacks, in several processes."""
    bank = options.run / "bank"
    bank.mkdir(exist_ok=True)
    jobs = [("real", 0)] + [(source, n) for source in ("planted", "synthetic") for n in range(recipe["simulation"][source])]
    jobs = [(s, n) for s, n in jobs if s == "real" or not (bank / f"{s}_{n:05d}.npz").exists()]
    context = multiprocessing.get_context("spawn")
    arguments = [(bank, options.real, options.label_maps, recipe.data, job) for job in jobs]
    with context.Pool(options.workers) as pool:
        for done, _ in enumerate(pool.imap_unordered(_simulate, arguments), start=1):
            _show(done / len(jobs), f"simulated {done} of {len(jobs)} heads")
    print()


_sources: dict = {}


def _simulate(job: tuple) -> None:
    """Make one head of the bank in a worker process."""
    from dataclasses import replace

    from Training.simulation.bank import HeadSources, fill, fill_real

    bank, real, label_maps, data, (source, number) = job
    sources = _sources.setdefault((real, label_maps), HeadSources(real, label_maps))
    preprocessing = replace(Recipe(data).preprocessing, size=data["simulation"]["bank_size"])
    if source == "real":
        fill_real(bank, sources, preprocessing)
    else:
        fill(bank, sources, preprocessing, source, range(number, number + 1))


def train(options: argparse.Namespace, recipe: Recipe) -> None:
    """Fit on the bank and write the model file."""
    import torch

    from NeuraxisLib.models import load_model
    from Training.fitting import Fitting
    from Training.sampling import HeadSampler
    from Training.simulation.bank import BankedHead

    if options.threads:
        torch.set_num_threads(options.threads)
    bank = options.run / "bank"
    names, held_out = split(bank, recipe)
    sampler = HeadSampler(bank, names, recipe.preprocessing, recipe["fitting"]["shares"], recipe["fitting"]["bleeding_share"])
    validation = [BankedHead.load(bank / f"{name}.npz") for name in held_out]
    start = load_model(options.start_from, recipe["task"]).weights() if options.start_from else None
    fitting = Fitting(recipe, options.run, sampler, validation, _device(options.device), start)
    with (options.run / "log.jsonl").open("a", encoding="utf-8") as stream:
        weights = fitting.fit(Progress(_show), _logger(stream, options.run))
    print()
    write(options.output, recipe, weights, fitting)


def split(bank: Path, recipe: Recipe) -> tuple[dict[str, list[str]], list[str]]:
    """(names to train on by source, names held out): the last eighth of each simulated source is held out."""
    names: dict[str, list[str]] = {}
    held_out: list[str] = []
    for source in ("planted", "synthetic", "real"):
        found = sorted(path.stem for path in bank.glob(f"{source}_*.npz"))
        if source != "real":
            found = [name for name in found if int(name.rpartition("_")[2]) < recipe["simulation"][source]]
            keep = len(found) - len(found) // 8
            found, out = found[:keep], found[keep:]
            held_out += out
        names[source] = found
    if not any(names.values()):
        raise InputError("The bank is empty; give folders of real head CTs and label maps.")
    return names, held_out


def write(output: Path, recipe: Recipe, weights: dict, fitting) -> None:
    """Write the model file in half precision, with the header that says what it is and how it came to be."""
    from NeuraxisLib.models import write_model

    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    write_model(output, half, {
        "name": recipe["name"],
        "title": recipe["title"],
        "task": recipe["task"],
        "architecture": recipe["architecture"],
        "preprocessing": recipe.preprocessing.to_dict(),
        "labels": {"1": "Hemorrhage"},
        "threshold": 0.5,
        "min_component_ml": 0.1,
        "uncertainty": {"kind": "entropy"},
        "training": {"recipe": recipe.data, "steps": fitting.step, "seconds": round(fitting.seconds),
                     "device": str(fitting.device), "date": date.today().isoformat(), "simulated": True,
                     "validation_score": round(fitting.best, 4)},
        "licence": "Apache-2.0",
        "notice": f"Trained on simulation, research use only. {RESEARCH_USE_NOTICE}",
        "scores": {},
    })
    print(f"Wrote {output}")


def _device(name: str) -> str:
    from NeuraxisLib.inference import choose_device

    return str(choose_device(name))


def _show(fraction: float, stage: str) -> None:
    print(f"\r{100 * fraction:5.1f} %  {stage}   ", end="", flush=True)


def _logger(stream, run: Path):
    """Write each record to log.jsonl, and to TensorBoard where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(run / "tensorboard"))
    except ImportError:
        board = None

    def log(record: dict) -> None:
        stream.write(json.dumps(record) + "\n")
        stream.flush()
        for name, value in record.items():
            if board is not None and name != "step":
                board.add_scalar(name, value, record["step"])

    return log


def finish(status: int) -> None:
    """End the program; inside Slicer, ask Slicer to quit with the status."""
    slicer = sys.modules.get("slicer")
    if slicer is not None and hasattr(slicer, "app"):
        slicer.util.exit(status)
    else:
        sys.exit(status)


if __name__ == "__main__":
    finish(main(sys.argv[1:]))
