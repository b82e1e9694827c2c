"""How well the hemorrhage task does on the evaluation scans: the tables, from what the command line wrote.

    python Testing/evaluation/evaluate_hemorrhage.py RESULTS --run [--model MODEL]     run every scan, then print
    python Testing/evaluation/evaluate_hemorrhage.py RESULTS                           print from earlier results

RESULTS gets one folder per scan, as ``neuraxis hemorrhage INPUT OUTPUT`` writes it; nothing else is looked at.

1. Planted scans: Dice and volume error against the exact truth.
2. Bleed-free scans: mL reported.
3. Real scans with slices labelled by kind of bleed: a slice is called positive if any voxel of it was reported; its
   score is the highest probability after smoothing in-plane with a Gaussian of sigma 2 mm. Each kind is held against
   the slices of all scans that have no bleed of any kind. Slice numbers in ctich_labels.json count from 0 (seen in
   the scans: the brainstem bleed of ctich_072, listed as 12 and 13, lies on the thirteenth and fourteenth slice).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "Neuraxis", ROOT / "HemorrhageSeg"):
    sys.path.insert(0, str(folder))

from NeuraxisLib.files import read_volume  # noqa: E402
from NeuraxisLib.measure import volume_ml  # noqa: E402
from NeuraxisLib.result import Result  # noqa: E402
from NeuraxisLib.result_folder import read_result  # noqa: E402
from Training.evaluation.calibration import area_under_curve  # noqa: E402
from Training.evaluation.overlap import Overlap  # noqa: E402

SMOOTHING_MM = 2.0
BLEED_FREE = (
    "head_ct/ctich_054.nii.gz",
    "head_ct/ctich_056.nii.gz",
    "head_ct/ctich_059.nii.gz",
    "dicom/ge_head_tilted",
)
DICE_GOAL, VOLUME_GOAL, FALSE_ML_GOAL, AUC_GOAL = 0.90, 0.10, 0.5, 0.85


@dataclass(frozen=True)
class LabelledSlice:
    """One slice of a real scan: the kinds of bleed it shows, its score, and whether blood was reported on it."""

    kinds: frozenset[str]
    score: float
    reported: bool


def result_folder_of(results: Path, scan: str) -> Path:
    """Where the result of a scan (path below the data folder) lies: its path without suffixes, joined by ``-``."""
    return results / scan.removesuffix(".gz").removesuffix(".nii").replace("/", "-")


def run_scan(data: Path, results: Path, scan: str, arguments: list[str]) -> None:
    """Run the public command line on one scan; its errors are shown and leave that scan out."""
    command = [sys.executable, "-m", "NeuraxisLib.cli", "hemorrhage", str(data / scan)]
    paths = [str(ROOT / name) for name in ("Neuraxis", "HemorrhageSeg")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*command, str(result_folder_of(results, scan)), *arguments], env=environment, capture_output=True, text=True
    )
    print(f"{scan}: {'done' if done.returncode == 0 else done.stderr.strip().splitlines()[-1]}", file=sys.stderr)


# -- measures -------------------------------------------------------------------------------------------------


def slice_scores(result: Result) -> np.ndarray:
    """(K,) highest probability of every slice after smoothing in-plane."""
    volume = result.maps["probability"].volume
    column_mm, row_mm, _ = volume.spacing_mm
    smooth = gaussian_filter(volume.array.astype(np.float32), (0, SMOOTHING_MM / row_mm, SMOOTHING_MM / column_mm))
    return smooth.max(axis=(1, 2))


def labelled_slices(result: Result, positive_slices: dict[str, list[int]]) -> list[LabelledSlice]:
    """Every slice of a scan with its labels."""
    scores, reported = slice_scores(result), result.labels.array.any(axis=(1, 2))
    kinds = [frozenset(kind for kind, listed in positive_slices.items() if k in listed) for k in range(len(scores))]
    return [LabelledSlice(*row) for row in zip(kinds, scores.tolist(), reported.tolist())]


def rates(slices: list[LabelledSlice], kind: str | None) -> tuple[int, int, float, float, float]:
    """(positives, negatives, sensitivity, specificity, AUC) of one kind, or of all kinds together for None."""
    positive = [s for s in slices if (kind in s.kinds if kind else s.kinds)]
    negative = [s for s in slices if not s.kinds]
    sensitivity = float(np.mean([s.reported for s in positive])) if positive else float("nan")
    specificity = float(np.mean([not s.reported for s in negative])) if negative else float("nan")
    auc = area_under_curve(np.array([s.score for s in positive]), np.array([s.score for s in negative]))
    return len(positive), len(negative), sensitivity, specificity, auc


# -- tables ---------------------------------------------------------------------------------------------------


def planted_table(data: Path, results: Path, scans: list[str]) -> list[str]:
    """Lines of the first table."""
    lines, dices, errors = [f"{'scan':8} {'Dice':>6} {'truth mL':>9} {'found mL':>9} {'error':>7}  interval"], [], []
    for scan in scans:
        result = _result(results, scan)
        if result is None:
            continue
        truth = read_volume(data / scan.replace(".nii.gz", "_truth.nii.gz"))
        true_ml, total = volume_ml(truth.array, truth), result.measurements[0]
        dices.append(Overlap.of(result.labels.array, truth.array).measures()["dice"])
        errors.append((total.value - true_ml) / true_ml)
        inside = "holds truth" if total.interval[0] <= true_ml <= total.interval[1] else "misses truth"
        lines.append(
            f"{Path(scan).name.split('.')[0]:8} {dices[-1]:6.3f} {true_ml:9.2f} {total.value:9.2f} {errors[-1]:+7.1%}  "
            f"{total.interval[0]:.1f} to {total.interval[1]:.1f} {inside}"
        )
    if dices:
        mean_dice, mean_error = float(np.mean(dices)), float(np.mean(np.abs(errors)))
        lines.append(f"{'mean':8} {mean_dice:6.3f} {'':9} {'':9} {mean_error:7.1%}  (absolute)")
        lines.append(_goal(f"Dice {mean_dice:.3f}", f"at least {DICE_GOAL:.2f}", mean_dice >= DICE_GOAL))
        lines.append(_goal(f"volume error {mean_error:.1%}", f"at most {VOLUME_GOAL:.0%}", mean_error <= VOLUME_GOAL))
    return lines


def bleed_free_table(results: Path) -> list[str]:
    """Lines of the second table."""
    lines, volumes = [f"{'scan':24} {'reported mL':>12}"], []
    for scan in BLEED_FREE:
        result = _result(results, scan)
        if result is not None:
            volumes.append(result.measurements[0].value)
            lines.append(f"{Path(scan).name:24} {volumes[-1]:12.2f}")
    if volumes:
        worst = max(volumes)
        lines.append(_goal(f"largest {worst:.2f} mL", f"at most {FALSE_ML_GOAL} mL", worst <= FALSE_ML_GOAL))
    return lines


def slice_table(data: Path, results: Path, sets: list[str]) -> list[str]:
    """Lines of the third table."""
    slices: list[LabelledSlice] = []
    for name in sets:
        for case, facts in json.loads((data / name / "ctich_labels.json").read_text()).items():
            result = _result(results, f"{name}/{case}.nii.gz")
            if result is not None:
                slices += labelled_slices(result, facts["positive_slices"])
    lines = [f"{'kind':18} {'slices':>7} {'sensitivity':>12} {'specificity':>12} {'AUC':>6}"]
    kinds = sorted({kind for entry in slices for kind in entry.kinds})
    for kind in (*kinds, None):
        positives, _, sensitivity, specificity, auc = rates(slices, kind)
        lines.append(f"{kind or 'any bleed':18} {positives:7d} {sensitivity:12.3f} {specificity:12.3f} {auc:6.3f}")
    lines.append(f"{'no bleed':18} {sum(not entry.kinds for entry in slices):7d}")
    auc = rates(slices, None)[-1]
    return [*lines, _goal(f"AUC over all kinds {auc:.3f}", f"at least {AUC_GOAL}", auc >= AUC_GOAL)]


def _goal(found: str, wanted: str, reached: bool) -> str:
    return f"-> {found} (goal: {wanted}): {'reached' if reached else 'NOT reached'}"


def _result(results: Path, scan: str) -> Result | None:
    folder = result_folder_of(results, scan)
    if not (folder / "result.json").is_file():
        print(f"(no result of {scan})", file=sys.stderr)
        return None
    return read_result(folder)


def main() -> None:
    """Run the scans if asked to, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of result folders")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared/data")))
    parser.add_argument("--run", action="store_true", help="run the command line on every scan first")
    parser.add_argument("--model", default="", help="model for --run")
    parser.add_argument("--sets", nargs="+", default=["head_ct"], help="folders with ctich_labels.json for table 3")
    options, passed_on = parser.parse_known_args()
    planted = sorted(f"planted/{path.name}" for path in (options.data / "planted").glob("*.nii.gz"))
    planted = [scan for scan in planted if "_truth" not in scan]
    if options.run:
        real = [f"{name}/{p.name}" for name in options.sets for p in sorted((options.data / name).glob("ctich_*.gz"))]
        options.results.mkdir(parents=True, exist_ok=True)
        for scan in dict.fromkeys([*planted, *BLEED_FREE, *real]):
            run_scan(options.data, options.results, scan, ["--model", options.model, *passed_on])
    for title, lines in (
        ("Planted scans", planted_table(options.data, options.results, planted)),
        ("Bleed-free scans", bleed_free_table(options.results)),
        ("Slices of real scans", slice_table(options.data, options.results, options.sets)),
    ):
        print(f"\n{title}\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
