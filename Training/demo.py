"""The whole line of the training package on a small scale: simulate, prepare, train three families, compare.

    python Training/demo.py FOLDER

Every step is one of the package's commands, printed before it runs, so that each can be run by hand. What it trains
in minutes shows that the line works, not what these networks can do. Start it again after a stop and it goes on.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if str(ROOT) not in sys.path:
    sys.path[:0] = [str(ROOT), str(ROOT / "Neuraxis"), str(ROOT / "HemorrhageSeg")]

from NeuraxisLib.errors import NeuraxisError  # noqa: E402
from Training.command import finish, run_command  # noqa: E402

#: Heads to simulate. The three label maps are three patients: one to train on, one to validate on, one to test on.
HEADS = 15
#: What all slice networks of the demonstration share: small pictures, few steps, the store's cases alone, and a loss
#: that finds blood early (the starters' own weight of the cross-entropy sharpens outlines at the end of a long run).
SLICES = ("preprocessing.size=96", "fitting.shares={store=1.0}", "fitting.precision=fp32", "fitting.batch=8",
          "fitting.warmup=20", "fitting.ema=0.98", "fitting.learning_rate=4e-3", "fitting.validate_every=200",
          "fitting.pixel_weight=4", "fitting.bleeding_share=0.8",
          "simulation.planted=0", "simulation.synthetic=0")  # fmt: skip
#: Model's name -> (recipe, what the demonstration changes in it).
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "DR-UNet": (
        "hemorrhage_drunet_starter",
        (*SLICES, "fitting.steps=400", "architecture.arguments.base=8"),
    ),
    "SLEX-Net": (
        "hemorrhage_slexnet_starter",
        (*SLICES, "fitting.steps=300", "architecture.arguments.base=8"),
    ),
    "SegResNet": (
        "hemorrhage_hemseg_segresnet",
        ("preset=sane", "preprocessing.spacing_mm=[1.5, 1.5, 5.0]", "preprocessing.patch=[64, 64, 16]",
         "fitting.precision=fp32", "fitting.batch=1", "fitting.warmup=10",
         "fitting.learning_rate=2e-3", "fitting.ema=0.9", "fitting.steps=200", "fitting.validate_every=200"),
    ),
}  # fmt: skip
#: Methods that need no training, by the names of their model files.
CLASSICAL = {"Fuzzy c-means": "hemorrhage-fuzzy-c-means", "Active contour": "hemorrhage-active-contour"}


class StepError(NeuraxisError):
    """A step of the demonstration failed; it has said why."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="demo.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument("--label-maps", type=Path, default=HERE / "SampleAnatomy", metavar="FOLDER",
                        help="label maps to simulate heads from (default: the three that come along)")  # fmt: skip
    parser.add_argument("--heads", type=int, default=HEADS, help="heads to simulate (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run; returns the exit status as the other commands."""
    return run_command(parse, _work, arguments)


def _work(options: argparse.Namespace) -> None:
    folder, started = options.folder, time.monotonic()
    heads, store = folder / "heads", folder / "cases.h5"
    step("simulate", heads, "--synthetic", options.heads, "--label-maps", options.label_maps,
         "--split", "train=0.5,val=0.2,test=0.3")  # fmt: skip
    if not store.exists():
        step("prepare", heads / "cases.csv", store)
    models = {}
    for name, (recipe, overrides) in FAMILIES.items():
        models[name] = folder / f"{name.lower()}.safetensors"
        changes = [word for override in overrides for word in ("--set", override)]
        step("train", HERE / "recipes" / f"{recipe}.toml", models[name], "--run", folder / "runs" / name,
             "--store", store, *changes)  # fmt: skip
    methods = [word for name, model in (models | CLASSICAL).items() for word in ("--model", f"{name}={model}")]
    step("evaluate", *methods, "--store", store, "--split", "test", "--output", folder / "comparison")
    minutes = (time.monotonic() - started) / 60
    print(f"\nDone in {minutes:.1f} minutes. The comparison is in {folder / 'comparison' / 'report.html'}")


def step(command: str, *words: object) -> None:
    """Run one command of the package and show it; StepError if it fails."""
    line = ["python", f"Training/{command}.py", *map(str, words)]
    print(f"\n$ {shlex.join(line)}", flush=True)
    status = subprocess.run([sys.executable, HERE / f"{command}.py", *map(str, words)], check=False).returncode
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise StepError(f"The step '{command}' failed (exit status {status}); its own message says why.")


if __name__ == "__main__":
    finish(main(sys.argv[1:]))
