"""Fit a network from a recipe: recipe file in, model file out.

    python Training/train.py RECIPE OUTPUT.safetensors --run FOLDER [--store CASES.h5]
    torchrun --nproc-per-node 2 -- Training/train.py RECIPE OUTPUT.safetensors --run FOLDER ...
    Slicer --no-main-window --python-script Training/train.py -- RECIPE OUTPUT.safetensors --run FOLDER ...

Cases come from a store that ``prepare`` made, or heads are simulated first; either way they are put on the network's
grid once and kept in the run folder. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib.errors import InputError, NeuraxisError  # noqa: E402
from NeuraxisLib.faults import trace_of  # noqa: E402
from NeuraxisLib.process import keep_freed_memory, usable_cores  # noqa: E402
from NeuraxisLib.task import Progress  # noqa: E402
from Training.command import finish, run_command  # noqa: E402
from Training.families import found  # noqa: E402
from Training.progress import ProgressLine  # noqa: E402
from Training.recipe import Recipe  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor, nn

    from Training.data import Data
    from Training.fitting import Fitting

EPILOG = """\
The prepared cases, the checkpoint, the best and last weights and the logs stay in the run folder. Start the same
command again after a stop and it goes on where it was; give a larger fitting.steps and it goes on further.

examples:
  python Training/train.py Training/recipes/hemorrhage_drunet_starter.toml starter.safetensors --run runs/starter
  python Training/train.py RECIPE MODEL --run runs/own --store cases.h5 --set preset=sane --set fitting.batch=4
  python Training/train.py RECIPE MODEL --run runs/sem --store cases.h5 --start-from backbone.=backbone.safetensors
  torchrun --nproc-per-node 4 -- Training/train.py RECIPE MODEL --run runs/own --store cases.h5
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Fit a network from a recipe: read or simulate cases, train on them, write a model file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", type=Path, help="TOML recipe, or the name of one that comes along (hemorrhage_drunet_starter)")
    add("output", type=Path, help="model file to write (.safetensors)")
    add("--run", type=Path, required=True, metavar="FOLDER", help="folder of the run: bank, checkpoint, logs")
    add("--train-split", action="append", metavar="NAME", help="split of the store to train on; repeatable (train)")
    add("--val-split", default="val", metavar="NAME", help="split of the store to judge by (%(default)s)")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a recipe value; repeatable")
    add_shared(add)
    options = parser.parse_args(arguments)
    options.train_split = options.train_split or ["train"]
    return options


def add_shared(add: Callable[..., Any]) -> None:
    """Add the options that a sweep passes on to each of its runs as they are."""
    data = Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared" / "data"))
    add("--store", type=Path, metavar="FILE",
        help="cases that prepare put into a store; they replace the simulated heads, unless the recipe gives both a "
             "share")  # fmt: skip
    add("--real", type=Path, default=data / "head_ct_training", metavar="FOLDER",
        help="real head CTs with *labels.json (default: head_ct_training in $NEURAXIS_DATA)")  # fmt: skip
    add("--label-maps", type=Path, default=data / "label_maps", metavar="FOLDER",
        help="whole-head label maps training_seg_*.nii.gz (default: label_maps in $NEURAXIS_DATA)")  # fmt: skip
    add("--lesion-shapes", type=Path, default=data / "lesion_shapes" / "infarct", metavar="FOLDER",
        help="real lesion masks, for shapes of bleeds (default: lesion_shapes/infarct in $NEURAXIS_DATA)")  # fmt: skip
    add("--start-from", action="append", default=[], metavar="[PART=]MODEL",
        help="model file whose weights to start from: of the whole network, or of the part whose parameters' names "
             "begin with PART (backbone.=FILE); vgg16=FILE takes VGG-16's of torchvision or Keras for the stroke "
             "networks; repeatable")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: auto, the fastest there is)")
    add("--threads", type=int, metavar="N", help="CPU threads of the fitting process (default: PyTorch's choice)")
    add("--workers", type=int, default=max(1, usable_cores() - 1), metavar="N",
        help="processes that simulate or prepare cases (default: all cores but one, here %(default)s)")  # fmt: skip
    add("--readers", type=int, default=1, metavar="N",
        help="threads that make batches ahead; the result does not depend on it (default: %(default)s)")  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run; returns the exit status.

    0 done, 1 a fault told in one sentence, 2 a command line that cannot be read, 130 stopped by Ctrl-C or SIGTERM.
    """
    return run_command(parse, _work, arguments, log_fault=_log_fault)


def _work(options: argparse.Namespace) -> None:
    recipe = Recipe.read(options.recipe, tuple(options.set))
    if options.store and not recipe["fitting"]["shares"].get("store"):
        recipe = Recipe.read(options.recipe, (*options.set, "fitting.shares={store=1.0}"))
    _prepare(options)
    train(options, recipe)


def _log_fault(options: argparse.Namespace, error: Exception) -> None:
    """Keep the trace of what should not have happened in the run folder."""
    if not isinstance(error, NeuraxisError) and options.run.is_dir():
        (options.run / "fault.log").write_text(trace_of(error) + "\n", encoding="utf-8")


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


def train(options: argparse.Namespace, recipe: Recipe) -> None:
    """Prepare the data, fit, and write the model file; in one of torchrun's processes, take part in it."""
    import torch

    from Training.checkpointing import load_parts
    from Training.data import data_of
    from Training.distributed import is_first, processes
    from Training.fitting import Fitting, build
    from Training.logbook import LogBook

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    network = build(recipe)  # what cannot be built or started from is told before cases are prepared
    started = start_weights(options.start_from, recipe, network)
    load_parts(network, started)
    del network
    with processes(_device(options.device)) as device:
        data = data_of(options, recipe)
        fitting = Fitting(recipe, options.run, data.sampler, data.validation, str(device), started, options.readers)
        silent = not is_first()
        with LogBook(options.run, fitting.step, silent) as log, ProgressLine(silent=silent) as line:
            weights = fitting.fit(Progress(line), log, _watch(data, fitting))
        if is_first():
            fitting.network.load_state_dict(weights)
            write(options.output, recipe, weights, fitting, data.threshold(fitting.network, fitting.device), data)


def _watch(data: Data, fitting: Fitting) -> Callable[[nn.Module], dict[str, Any]] | None:
    """A look at the network after every validation, for TensorBoard."""
    picture = data.picture
    if picture is None:
        return None
    return lambda network: {"image, truth, probability": picture(network, fitting.device)}


def start_weights(given: list[str], recipe: Recipe, network: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Weights by the beginning of the names that they are for, from ``MODEL``, ``PART=MODEL`` or ``vgg16=FILE`` each.

    What is read of files that are no model files is the family's matter (:attr:`Training.families.Family.start_from`).
    """
    from NeuraxisLib.models import load_model

    parts, others = {}, recipe.family.start_from
    for text in given:
        part, _, path = text.rpartition("=")
        if part in others:
            parts.update(found(others[part])(Path(path), network))
        else:
            parts[part] = load_model(Path(path), recipe["task"]).weights()
    return parts


def _in_half(tensor: Tensor) -> Tensor:
    """Half precision where that holds every value; variances that a BatchNorm has met may lie beyond its 65,504."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if half.isfinite().all() else tensor


def write(
    output: Path, recipe: Recipe, weights: dict[str, Tensor], fitting: Fitting, threshold: float, data: Data
) -> None:
    """Write the model file in half precision, with the header that says what it is and how it came to be."""
    from NeuraxisLib.models import write_model

    half = {name: _in_half(tensor) for name, tensor in weights.items()}
    training = {
        "recipe": recipe.data,
        "steps": fitting.step,
        "seconds": round(fitting.seconds),
        "device": str(fitting.device),
        "date": date.today().isoformat(),
        "simulated": data.simulated,
        "validation_score": round(fitting.best, 4),
    }
    header = {
        "name": recipe["name"],
        "title": recipe["title"],
        "task": recipe["task"],
        "architecture": recipe["architecture"],
        "preprocessing": recipe.preprocessing.to_dict(),
        "labels": dict(data.labels),
        "threshold": threshold,
        "min_component_ml": data.min_component_ml,
        "uncertainty": {"kind": recipe["uncertainty"]},
        "training": training,
        "licence": "Apache-2.0",
        "notice": _notice(data),
        "scores": {},
        **data.header,
    }
    write_model(output, half, header)
    print(f"Wrote {output}")


def _notice(data: Data) -> str:
    """What a reader of any result of this model has to know."""
    if not data.simulated:
        return "Trained on the cases of its maker, research use only."
    real = " Real scans taught it which slices bleed, not where." if data.slice_labels else ""
    return f"Trained on simulation, research use only.{real}"


def _device(name: str) -> str:
    from NeuraxisLib.inference import choose_device
    from NeuraxisLib.task import OPENVINO

    if name == OPENVINO:
        raise InputError("OpenVINO runs networks but cannot train them; choose the device auto, cpu, cuda or mps.")
    return choose_device(name)


if __name__ == "__main__":
    finish(main(sys.argv[1:]))
