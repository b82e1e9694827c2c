"""Train an nnU-Net by nnunetv2's own commands on a store, and make a model file of it.

python Training/nnunet.py export CASES.h5 WORK --train-split train --val-split val
python Training/nnunet.py plan WORK --configuration 3d_fullres
python Training/nnunet.py train WORK --configuration 3d_fullres --fold 0
python Training/nnunet.py import WORK MODEL.safetensors --configuration 3d_fullres --fold 0
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib import RESEARCH_USE_NOTICE  # noqa: E402
from NeuraxisLib.errors import InputError  # noqa: E402
from NeuraxisLib.nnunet_inference import nnunet_module  # noqa: E402
from NeuraxisLib.process import usable_cores  # noqa: E402
from NeuraxisLib.task import Progress  # noqa: E402
from Training.command import finish, run_command  # noqa: E402
from Training.nnunet_data import Workplace, export_store  # noqa: E402
from Training.nnunet_import import import_trained  # noqa: E402
from Training.store import Store  # noqa: E402

#: nnU-Net's commands, by the module and function that its installed scripts call.
PLAN = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints", "plan_and_preprocess_entry"
TRAIN = "nnunetv2.run.run_training", "run_training_entry"
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="nnunet.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write a store as nnU-Net's raw data set")
    export.add_argument("store", type=Path, help="cases that prepare put into a store (.h5)")
    plan = commands.add_parser("plan", help="let nnU-Net plan and preprocess")
    train = commands.add_parser("train", help="let nnU-Net train one fold; start again to go on")
    take = commands.add_parser("import", help="make a model file of what was trained")
    for each in (export, plan, train, take):
        each.add_argument("work", type=Path, help="folder in which nnU-Net works")
        each.add_argument("--dataset", type=int, default=501, metavar="N", help="nnU-Net's data set id (%(default)s)")
    for each in (plan, train, take):
        each.add_argument("--configuration", choices=CONFIGURATIONS, default="3d_fullres", help="(%(default)s)")
    for each in (train, take):
        each.add_argument("--trainer", default="nnUNetTrainer", help="nnU-Net's trainer class (%(default)s)")
    export.add_argument("--train-split", action="append", metavar="NAME", help="repeatable; fold0, fold1 ... make a "
                        "cross-validation (train)")  # fmt: skip
    export.add_argument("--val-split", action="append", default=None, metavar="NAME", help="repeatable (val)")
    export.add_argument("--label", default="Hemorrhage", help="name of the structure (%(default)s)")
    plan.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="processes (%(default)s)")
    train.add_argument("--fold", default="0", help="fold of the exported splits, or all (%(default)s)")
    train.add_argument("--device", choices=("cuda", "cpu", "mps"), default="cuda", help="(%(default)s)")
    take.add_argument("output", type=Path, help="model file to write (.safetensors)")
    take.add_argument("--fold", action="append", metavar="N", help="fold to take; repeatable: they are averaged (0)")
    take.add_argument("--checkpoint", default="checkpoint_final.pth", help="which of each fold (%(default)s)")
    take.add_argument("--task", default="hemorrhage", help="task that it serves (%(default)s)")
    take.add_argument("--name", help="short unique name (that of the file)")
    take.add_argument("--title", help="name for people (nnU-Net and its configuration)")
    take.add_argument("--licence", default="not stated", help="of the weights (%(default)s)")
    take.add_argument("--notice", default="Trained by the user.", help="what must be known of it (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run; returns the exit status, as of :func:`Training.command.run_command`."""
    return run_command(parse, _work, arguments)


def _work(options: argparse.Namespace) -> None:
    if not 1 <= options.dataset <= 999:
        raise InputError(f"The data set's id must be from 1 to 999, not {options.dataset}; correct it.")
    place = Workplace(options.work.resolve(), options.dataset)
    {"export": _export, "plan": _plan, "train": _train, "import": _import}[options.command](options, place)


def _export(options: argparse.Namespace, place: Workplace) -> None:
    train = options.train_split or ["train"]
    crossed = all(name.startswith("fold") for name in train)
    val = options.val_split or ([] if crossed else ["val"])
    told = Progress(lambda _, stage: print(stage, flush=True))
    with Store(options.store) as store:
        count = export_store(store, place, options.label, train, val, told)
    print(f"{count} cases are ready for nnU-Net.")


def _plan(options: argparse.Namespace, place: Workplace) -> None:
    number, workers = str(place.number), str(options.workers)
    run_nnunet(PLAN, place, ["-d", number, "-c", options.configuration, "-np", workers, "-npfp", workers,
                             "--verify_dataset_integrity"])  # fmt: skip


def _train(options: argparse.Namespace, place: Workplace) -> None:
    folder = place.trained(options.configuration, options.trainer) / f"fold_{options.fold}"
    begun = any(folder.glob("checkpoint_*.pth"))
    arguments = [str(place.number), options.configuration, options.fold, "-tr", options.trainer]
    run_nnunet(TRAIN, place, [*arguments, "-device", options.device, *(["--c"] if begun else [])])


def _import(options: argparse.Namespace, place: Workplace) -> None:
    if options.output.suffix != ".safetensors":
        raise InputError(f"The model file '{options.output.name}' must end in .safetensors; give it that ending.")
    import_trained(
        place.trained(options.configuration, options.trainer),
        options.output,
        options.task,
        options.fold or ["0"],
        options.checkpoint,
        name=options.name or options.output.stem,
        title=options.title or f"nnU-Net ({options.configuration})",
        licence=options.licence,
        notice=f"{options.notice} {RESEARCH_USE_NOTICE}",
    )
    print(f"The model file is '{options.output.name}'.")


def run_nnunet(entry: tuple[str, str], place: Workplace, arguments: list[str]) -> None:
    """Run one of nnU-Net's commands in a process of its own, with its folders in our work folder.

    Raises:
        DependencyError: nnunetv2 is not installed.
        InputError: nothing was exported there, or the command failed (what it said is above).
    """
    nnunet_module("paths")
    if not (place.raw / "dataset.json").is_file():
        raise InputError(
            f"The folder '{place.folder.name}' holds no exported data set {place.number}; export it first."
        )
    module, function = entry
    code = f"from {module} import {function}\nif __name__ == '__main__': {function}()"
    folders = {f"nnUNet_{name}": str(place.folder / name) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env={**os.environ, **folders}, check=False)
    if done.returncode:
        raise InputError(
            f"nnU-Net's {function.removesuffix('_entry')} failed; mend what it says above and start again."
        )


if __name__ == "__main__":
    finish(main(sys.argv[1:]))
