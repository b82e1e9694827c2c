"""Fit a network from a recipe: recipe file in, model file out.

    python Training/train.py RECIPE OUTPUT.safetensors --run FOLDER [--real FOLDER --label-maps FOLDER]
    Slicer --no-main-window --python-script Training/train.py -- RECIPE OUTPUT.safetensors --run FOLDER ...

Simulated heads are made first (kept in RUN/bank and used again); a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "Neuraxis", ROOT / "HemorrhageSeg"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib import RESEARCH_USE_NOTICE  # noqa: E402
from NeuraxisLib.errors import InputError, NeuraxisError  # noqa: E402
from NeuraxisLib.process import as_user_error, usable_cores  # noqa: E402
from NeuraxisLib.task import Progress  # noqa: E402
from Training.progress import ProgressLine  # noqa: E402
from Training.recipe import SOURCES, Recipe  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from Training.fitting import Fitting

EPILOG = """\
The bank of simulated heads, the checkpoint and the logs stay in the run folder. Start the same command again after a
stop and it goes on where it was; give a larger fitting.steps and it goes on further.

examples:
  python Training/train.py Training/recipes/hemorrhage_drunet_starter.toml starter.safetensors --run runs/starter
  python Training/train.py RECIPE MODEL --run runs/own --real my_scans --set fitting.batch=4 --set fitting.seed=3
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; a leading ``--``, as Slicer hands it over, is dropped."""
    data = Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Fit a network from a recipe: simulate heads, train on them, write a model file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", type=Path, help="TOML recipe, such as Training/recipes/hemorrhage_drunet_starter.toml")
    add("output", type=Path, help="model file to write (.safetensors)")
    add("--run", type=Path, required=True, metavar="FOLDER", help="folder of the run: bank, checkpoint, logs")
    add("--real", type=Path, default=data / "head_ct_training", metavar="FOLDER",
        help="real head CTs with *labels.json (default: head_ct_training in $NEURAXIS_DATA)")  # fmt: skip
    add("--label-maps", type=Path, default=data / "label_maps", metavar="FOLDER",
        help="whole-head label maps training_seg_*.nii.gz (default: label_maps in $NEURAXIS_DATA)")  # fmt: skip
    add("--lesion-shapes", type=Path, default=data / "lesion_shapes" / "infarct", metavar="FOLDER",
        help="real lesion masks, for shapes of bleeds (default: lesion_shapes/infarct in $NEURAXIS_DATA)")  # fmt: skip
    add("--start-from", type=Path, metavar="MODEL", help="model file whose weights to start from (fine-tuning)")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a recipe value; repeatable")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: auto, the fastest there is)")
    add("--threads", type=int, metavar="N", help="CPU threads of the fitting process (default: PyTorch's choice)")
    add("--workers", type=int, default=max(1, usable_cores() - 1), metavar="N",
        help="processes that simulate heads (default: all cores but one, here %(default)s)")  # fmt: skip
    return parser.parse_args(arguments[1:] if arguments[:1] == ["--"] else arguments)


def main(arguments: list[str]) -> int:
    """Run; returns the exit status.

    0 done, 1 a fault told in one sentence, 2 a command line that cannot be read, 130 stopped by Ctrl-C or SIGTERM.
    """
    try:
        options = parse(arguments)
    except SystemExit as stop:  # argparse has said why; inside Slicer nobody else would turn it into a status
        return int(stop.code or 0)
    try:
        recipe = Recipe.read(options.recipe, tuple(options.set))
        _prepare(options)
        make_bank(options, recipe)
        train(options, recipe)
    except KeyboardInterrupt:
        print("Interrupted; start the same command again to go on.", file=sys.stderr)
        return 130
    except Exception as error:
        if not isinstance(error, NeuraxisError) and options.run.is_dir():
            (options.run / "fault.log").write_text(traceback.format_exc(), encoding="utf-8")
        print(as_user_error(error), file=sys.stderr)
        return 1
    return 0


def _prepare(options: argparse.Namespace) -> None:
    """Make the run folder, and find out now, not after hours, that the model could not be written."""
    if options.output.suffix != ".safetensors":
        raise InputError(f"The model file '{options.output.name}' must end in .safetensors; give it that ending.")
    for place in (options.run, options.output.parent):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or "unknown fault").lower()
            raise InputError(f"The folder '{place.name}' cannot be made ({reason}); choose another.") from None


def make_bank(options: argparse.Namespace, recipe: Recipe) -> None:
    """Simulate the heads that the run's bank lacks, in several processes."""
    from Training.simulation.jobs import fill_bank

    bank = options.run / "bank"
    bank.mkdir(exist_ok=True)
    with ProgressLine() as line:
        places = (bank, options.real, options.label_maps)
        fill_bank(*places, recipe, options.workers, Progress(line), options.lesion_shapes)


def train(options: argparse.Namespace, recipe: Recipe) -> None:
    """Fit on the bank and write the model file."""
    import torch

    from NeuraxisLib.models import load_model
    from Training.fitting import Fitting
    from Training.sampling import HeadSampler
    from Training.simulation.bank import BankedHead
    from Training.threshold import best_threshold

    if options.threads:
        torch.set_num_threads(options.threads)
    bank, settings = options.run / "bank", recipe["fitting"]
    names, held_out = split(bank, recipe)
    sampler = HeadSampler(bank, names, recipe.preprocessing, settings["shares"], settings["bleeding_share"])
    validation = [BankedHead.load(bank / f"{name}.npz") for name in held_out]
    start = load_model(options.start_from, recipe["task"]).weights() if options.start_from else None
    fitting = Fitting(recipe, options.run, sampler, validation, _device(options.device), start)
    _trim_log(options.run / "log.jsonl", fitting.step)
    with (options.run / "log.jsonl").open("a", encoding="utf-8") as stream, ProgressLine() as line:
        weights = fitting.fit(Progress(line), _logger(stream, options.run, fitting.step))
    fitting.network.load_state_dict(weights)
    judged = [*validation, *sampler.heads.get("real", [])]
    threshold = best_threshold(fitting.network, judged, recipe, fitting.device)
    write(options.output, recipe, weights, fitting, threshold)


def split(bank: Path, recipe: Recipe) -> tuple[dict[str, list[str]], list[str]]:
    """(names to train on by source, names held out): the last eighth of each simulated source is held out.

    Raises InputError if the bank is empty.
    """
    names: dict[str, list[str]] = {}
    held_out: list[str] = []
    for source in SOURCES:
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


def write(
    output: Path, recipe: Recipe, weights: dict[str, Tensor], fitting: Fitting, threshold: float = 0.5
) -> None:
    """Write the model file in half precision, with the header that says what it is and how it came to be."""
    from NeuraxisLib.models import write_model

    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    training = {
        "recipe": recipe.data,
        "steps": fitting.step,
        "seconds": round(fitting.seconds),
        "device": str(fitting.device),
        "date": date.today().isoformat(),
        "simulated": True,
        "validation_score": round(fitting.best, 4),
    }
    header = {
        "name": recipe["name"],
        "title": recipe["title"],
        "task": recipe["task"],
        "architecture": recipe["architecture"],
        "preprocessing": recipe.preprocessing.to_dict(),
        "labels": {"1": "Hemorrhage"},
        "threshold": threshold,
        "min_component_ml": 0.1,
        "uncertainty": {"kind": "entropy"},
        "training": training,
        "licence": "Apache-2.0",
        "notice": _notice(recipe),
        "scores": {},
    }
    write_model(output, half, header)
    print(f"Wrote {output}")


def _notice(recipe: Recipe) -> str:
    """What a reader of any result of this model has to know."""
    real = "Real scans taught it which slices bleed, not where. " if recipe["fitting"]["shares"].get("real") else ""
    return f"Trained on simulation, research use only. {real}{RESEARCH_USE_NOTICE}"


def _device(name: str) -> str:
    from NeuraxisLib.inference import choose_device

    return choose_device(name)


def _trim_log(path: Path, step: int) -> None:
    """Drop the records after ``step``: what a killed run did after its last checkpoint is done again."""
    from NeuraxisLib.atomic import atomic_write

    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # cut short by the kill
            continue
        if record["step"] <= step:
            kept.append(line + "\n")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _logger(stream: TextIO, run: Path, step: int) -> Callable[[dict], None]:
    """Write each record to log.jsonl, and to TensorBoard where it is installed; NaN becomes null."""
    try:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
    except ImportError:
        board = None

    def log(record: dict) -> None:
        clean = {name: None if value != value else value for name, value in record.items()}
        stream.write(json.dumps(clean) + "\n")
        stream.flush()
        for name, value in clean.items():
            if board is not None and name != "step" and value is not None:
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
