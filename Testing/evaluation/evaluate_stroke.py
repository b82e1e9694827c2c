"""How well strokes are drawn on simulated CT perfusion that nothing was trained or tuned on: rules beside a network.

    python Testing/evaluation/evaluate_stroke.py RESULTS [--model FILE]        simulate, compute, compare
    python Testing/evaluation/evaluate_stroke.py RESULTS --print               the tables of what is there

Each case is simulated anew from its seed at every noise; the heads are those of ``--heads``, by default the label maps
that ``simulate --stroke 80 --seed 20261128`` puts into the split "test". The chain makes its maps, from which the three
families of thresholds and the network draw core and hypoperfused tissue. RESULTS/cases.csv has a line per case, noise,
method and structure; a case that is there is not computed again. Noise is that of pixels of 0.85 mm.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "Neuraxis", ROOT / "HemorrhageSeg", ROOT / "StrokeCTP"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib.errors import NeuraxisError  # noqa: E402
from NeuraxisLib.models import load_model  # noqa: E402
from NeuraxisLib.task import Progress  # noqa: E402
from StrokeCTPLib.frames import make_frames  # noqa: E402
from StrokeCTPLib.lesions import FAMILIES, find_lesions, rules_for  # noqa: E402
from StrokeCTPLib.map_units import MAP_UNITS  # noqa: E402
from StrokeCTPLib.networks.classes import decoded  # noqa: E402
from StrokeCTPLib.prediction import predict  # noqa: E402
from StrokeCTPLib.study import Study, maps_for, study_of  # noqa: E402
from StrokeCTPLib.task import StrokeOptions as TaskOptions  # noqa: E402
from Training.simulation.ctp_head import SimulatedStroke, StrokeOptions, simulate_stroke  # noqa: E402
from Training.strokes import sources_of  # noqa: E402

SEED = 777
COLUMNS = (
    "case", "head", "kind", "grade", "noise", "method", "structure", "truth_ml", "found_ml", "dice", "artery_r",
    "error",
)  # fmt: skip
STRUCTURES = ("hypoperfused", "core")
#: Truths below this in mL have no Dice; what is found there counts as false volume.
LEAST_ML = 1.0
NETWORK = "network"
HEADINGS = (
    "noise HU", "method", "cases", "Dice mean", "Dice median", "volume error mL, mean absolute", "bias mL",
    "relative, median", "mL where there is none",
)  # fmt: skip


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    data = Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("results", type=Path, help="folder of cases.csv")
    add("--model", type=Path, help="model file of a stroke network; without it, the rules alone")
    add("--print", dest="only_print", action="store_true", help="print the tables, compute nothing")
    add("--cases", type=int, default=20, metavar="N", help="per noise (default: %(default)s)")
    add("--noise", type=float, nargs="+", default=[3.0, 5.0, 8.0], metavar="HU", help="default: 3 5 8")
    add("--heads", nargs="+", default=["training_seg_09", "training_seg_14"], metavar="NAME", help="label maps")
    add("--size", type=int, default=128, metavar="PX", help="rows and columns (default: %(default)s)")
    add("--label-maps", type=Path, default=data / "label_maps", metavar="FOLDER")
    add("--atlas", type=Path, default=ROOT / "Training" / "SampleAnatomy" / "ArterialAtlas136.nii.gz", metavar="FILE")
    add("--lesion-shapes", type=Path, default=data / "lesion_shapes" / "infarct", metavar="FOLDER")
    return parser.parse_args(arguments)


def simulated(options: argparse.Namespace, number: int, noise_hu: float) -> SimulatedStroke:
    """One held-out case; all but the noise is the same at every noise."""
    sources = sources_of(options.label_maps, options.atlas, options.lesion_shapes)
    names = [path.name.split(".")[0] for path in sources.maps]
    head = names.index(options.heads[number % len(options.heads)])
    asked = StrokeOptions(options.size, noise_hu=noise_hu, moves="still", head=head)
    return simulate_stroke(sources, np.random.default_rng([SEED, number]), asked)


def drawn(case: SimulatedStroke, model: Path | None) -> tuple[dict[str, np.ndarray], float]:
    """Method -> labels (1 hypoperfused outside the core, 2 core); and the correlation of artery found and true."""
    task = TaskOptions(device="cpu")
    frames = make_frames(case.frames, case.times_s, "a simulated acquisition", "the simulation", {}, [])
    study: Study = study_of(frames, task, "cpu", Progress())
    maps = maps_for(study, task, Progress())
    labels = {}
    for family in FAMILIES:
        lesions = find_lesions(maps, study.grid, rules_for(maps, family))
        labels[family] = lesions.hypoperfused.astype(np.uint8) + lesions.core
    if model is not None:
        shown = {
            name: study.grid.like(np.where(maps.tissue, values, np.float32(np.nan)), MAP_UNITS[name])
            for name, values in maps.svd.items()
        }
        found, facts = predict(shown, load_model(model, "stroke"), None, Progress())
        labels[NETWORK] = decoded(found, tuple(facts["classes"])) * maps.tissue
    true = np.interp(maps.times_s, case.frames.frame_times_s, case.artery_hu)
    return labels, float(np.corrcoef(maps.arterial.curve_hu, true)[0, 1])


def compare(case: SimulatedStroke, labels: np.ndarray, structure: str) -> dict[str, float | str]:
    """Volumes in mL and Dice (empty where there is no truth) of one structure."""
    least = 2 if structure == "core" else 1
    true, found = case.labels >= least, labels >= least
    truth_ml = case.volume_ml(true)
    dice = 2 * (true & found).sum() / (true.sum() + found.sum()) if truth_ml >= LEAST_ML else None
    return {
        "truth_ml": round(truth_ml, 2),
        "found_ml": round(case.volume_ml(found), 2),
        "dice": "" if dice is None else round(float(dice), 4),
    }


def run(options: argparse.Namespace) -> None:
    """Compute the cases that are not there yet."""
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "cases.csv"
    done = {(row["case"], row["noise"], row["method"]) for row in rows_of(path)}
    wanted = [*FAMILIES, *([NETWORK] if options.model else [])]
    for number in range(options.cases):
        for noise in options.noise:
            if all((str(number), str(noise), method) in done for method in wanted):
                continue
            case = simulated(options, number, noise)
            facts = {name: case.facts[name] for name in ("head", "kind", "grade")}
            try:
                labels, correlation = drawn(case, options.model)
                error = ""
            except NeuraxisError as fault:  # counts as nothing found
                labels, correlation, error = {method: np.zeros_like(case.labels) for method in wanted}, 0.0, str(fault)
            made = [
                {"case": number, **facts, "noise": noise, "method": method, "structure": structure,
                 **compare(case, labels[method], structure), "artery_r": round(correlation, 4), "error": error}
                for method in wanted if (str(number), str(noise), method) not in done
                for structure in STRUCTURES
            ]  # fmt: skip
            _append(path, made)
            print(f"case {number} at {noise:g} HU: {facts['kind']}, artery r {correlation:.3f} {error}", flush=True)


def _append(path: Path, rows: list[dict]) -> None:
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def rows_of(path: Path) -> list[dict]:
    """The lines that are there."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def tables(rows: list[dict]) -> list[str]:
    """Lines of one table per structure: per noise and method mean and median Dice, volume errors, false volume."""
    lines = []
    for structure in STRUCTURES:
        lines += ["", f"{structure}:", f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
        groups = defaultdict(list)
        for row in rows:
            if row["structure"] == structure:
                groups[float(row["noise"]), row["method"]].append(row)
        lines += [_line(noise, method, group) for (noise, method), group in sorted(groups.items())]
    return lines


def _line(noise: float, method: str, group: list[dict]) -> str:
    there = [row for row in group if row["dice"]]
    none = [float(row["found_ml"]) for row in group if not row["dice"]]
    dice = np.array([float(row["dice"]) for row in there])
    true = np.array([float(row["truth_ml"]) for row in there])
    error = np.array([float(row["found_ml"]) for row in there]) - true
    relative = np.abs(error) / true
    false = f"{np.mean(none):.1f} ({len(none)})" if none else "-"
    cells = (
        f"{noise:g}", method, str(len(there)), f"{dice.mean():.3f}", f"{np.median(dice):.3f}",
        f"{np.abs(error).mean():.1f}", f"{error.mean():+.1f}", f"{100 * np.median(relative):.0f} %", false,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> None:
    """Run and print."""
    options = parse(arguments)
    if not options.only_print:
        run(options)
    rows = rows_of(options.results / "cases.csv")
    print("\n".join(tables(rows)))
    found = {(row["case"], row["noise"]): float(row["artery_r"]) for row in rows}
    values = np.array(list(found.values()))
    print(f"\nArtery found: r with the true curve above 0.98 in {(values > 0.98).sum()} of {len(values)} series.")


if __name__ == "__main__":
    main(sys.argv[1:])
