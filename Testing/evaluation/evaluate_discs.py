"""How well the disc task does on the evaluation scans: the tables, from what the command line wrote.

    python Testing/evaluation/evaluate_discs.py RESULTS --run [--model MODEL]     run every scan, then print
    python Testing/evaluation/evaluate_discs.py RESULTS                           print from earlier results
    python Testing/evaluation/evaluate_discs.py RESULTS --pictures FOLDER         one overlay per scan besides
    python Testing/evaluation/evaluate_discs.py RESULTS --run --naming skeleton   by an earlier way of naming

RESULTS gets one folder per scan, as ``neuraxis discs INPUT OUTPUT`` writes it; nothing else is looked at. Options that
are not known here go to that command.

1. Lumbar scans: eight patients, the lowest disc L5/S1. The list of centres says which discs count; where they lie say
   the outlines, because the list has one x for a whole scan, up to 7 mm beside the discs. Points and discs are paired
   one to one within 5 mm. A chain is fully right if every true disc is found under its name and nothing else.
   The scans hold 12 to 22 mm from side to side and a disc is some 50 mm wide: where its outline is cut off on both
   sides, the outline's x is the middle of the scan and not of the disc. So the same is printed beside it with scans of
   which all outlines are cut off compared in the sagittal plane.
2. The PAM50 whole-spine template: its labels lie at the back edge of the discs, one voxel of 2 mm each, from C1/C2 to
   L1/L2, where the template ends; so points are compared along the long axis, and must lie within 25 mm in space.
   C1/C2 is a joint and is not counted, found or not.
3. The published measures on the lumbar scans, by both rules, in mm: they do not look at names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    sys.path.insert(0, str(folder))

from NeuraxisLib.files import read_volume  # noqa: E402
from NeuraxisLib.result import Result  # noqa: E402
from NeuraxisLib.result_folder import read_result  # noqa: E402
from SpineDiscLabelLib.anatomy import number_of  # noqa: E402
from SpineDiscLabelLib.discs import DISC_NAMES, LAST_DISC  # noqa: E402
from Training.evaluation.disc_pictures import draw_discs  # noqa: E402
from Training.evaluation.discs import WITHIN_MM, DiscCase, DiscSummary, compare_discs, per_level  # noqa: E402
from Training.evaluation.discs_published import RULES, in_plane, published_scores  # noqa: E402
from Training.layouts.base import LayoutOptions  # noqa: E402
from Training.layouts.grids import read_image, read_mask  # noqa: E402
from Training.layouts.spine_labels import DISC  # noqa: E402
from Training.layouts.spine_masks import class_discs, listed_discs  # noqa: E402

FOUND_GOAL, FALSE_GOAL, CHAIN_GOAL = 0.90, 0.05, 0.80
TEMPLATE, TEMPLATE_REACH_MM = "PAM50_small_t2", 25.0
FIRST_COUNTED = 3
SPACE, SAGITTAL_PLANE, ALONG = (0, 1, 2), (1, 2), (2,)  # RAS axes that are compared
#: So near (mm, in the sagittal plane) to a disc's centre its outline is looked for in the outermost slices.
OUTLINE_MM = 8.0
Points = list[tuple[int, tuple[float, ...]]]


def run_scan(data: Path, results: Path, scan: str, arguments: list[str]) -> None:
    """Run the public command line on one scan; its errors are shown and leave that scan out."""
    command = [sys.executable, "-m", "NeuraxisLib.cli", "discs", str(data / f"{scan}.nii.gz"), str(results / scan)]
    paths = [str(ROOT / name) for name in ("Neuraxis", "SpineDiscLabel")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    said = "done" if done.returncode == 0 else (done.stderr.strip() or "failed").splitlines()[-1]
    print(f"{scan}: {said}", file=sys.stderr)


# -- truth and results ------------------------------------------------------------------------------------------


def lumbar_truth(data: Path) -> dict[str, dict[int, tuple[float, ...]]]:
    """Scan -> disc number -> RAS mm of the centre of its outline, for the discs that are listed."""
    result = {}
    for case, facts in json.loads((data / "disc_centres.json").read_text()).items():
        listed = [[LAST_DISC + 1 - disc["from_bottom"], *disc["ras_mm"]] for disc in facts["discs"]]
        image = read_image(data / f"{case}_t2space.nii.gz", LayoutOptions())
        outlines, _ = read_mask(data / f"{case}_label.nii.gz", image, LayoutOptions())
        discs = listed_discs(class_discs(outlines, image)[1], listed)
        result[f"{case}_t2space"] = dict(zip(discs.numbers, map(tuple, discs.ras_mm.tolist())))
    return result


def cut_off(data: Path, scan: str, places: Iterable[tuple[float, ...]]) -> list[bool]:
    """For every disc (RAS mm) whether its outline goes on to the first and to the last slice from side to side."""
    image = read_image(data / f"{scan}.nii.gz", LayoutOptions())
    outlines, _ = read_mask(data / f"{scan.replace('t2space', 'label')}.nii.gz", image, LayoutOptions())
    across = 2 - int(np.abs(image.ijk_to_ras[0, :3]).argmax())  # the array's axis from side to side
    discs = np.argwhere(class_discs(outlines, image)[0] == DISC)
    sides = []
    for index in (0, outlines.shape[across] - 1):
        kji = discs[discs[:, across] == index]
        sides.append((np.column_stack([kji[:, ::-1], np.ones(len(kji))]) @ image.ijk_to_ras.T)[:, 1:3])
    return [
        all(len(side) and np.linalg.norm(side - place[1:], axis=1).min() <= OUTLINE_MM for side in sides)
        for place in places
    ]


def template_truth(data: Path) -> dict[int, tuple[float, ...]]:
    """Disc number -> RAS mm of the label at the back edge of the disc, from C1/C2."""
    labels = read_volume(data / "PAM50_small_label_discPosterior.nii.gz")
    result = {}
    for number in np.unique(labels.array[labels.array > 0]):
        kji = np.argwhere(labels.array == number).mean(axis=0)
        result[int(number)] = tuple((labels.ijk_to_ras @ [*kji[::-1], 1.0])[:3])
    return result


def points_of(result: Result) -> Points:
    """(disc number, RAS mm) of a result's points; names that are no disc's count as 0."""
    return [(number_of(point.name) or 0, point.position_ras_mm) for point in result.points]


def read(results: Path, scan: str) -> Result | None:
    """The result of a scan, or None with a word about it."""
    if not (results / scan / "result.json").is_file():
        print(f"(no result of {scan})", file=sys.stderr)
        return None
    return read_result(results / scan)


def compare_template(truth: dict[int, tuple[float, ...]], found: Points) -> DiscCase:
    """The template compared along its long axis; points far from its spine are false wherever they lie along it."""
    places = np.array(list(truth.values()))

    def near(place: tuple[float, ...]) -> bool:
        return float(np.linalg.norm(places - place, axis=1).min()) <= TEMPLATE_REACH_MM

    counted = [(number, place if near(place) else (0.0, 0.0, 1e6)) for number, place in found]
    case = compare_discs(truth, counted, axes=ALONG)
    return DiscCase(
        tuple(pair for pair in case.pairs if pair.truth >= FIRST_COUNTED),
        tuple(number for number in case.missed if number >= FIRST_COUNTED),
        tuple(number for number in case.false if number >= FIRST_COUNTED or number == 0),
        {number: value for number, value in case.same_name_mm.items() if number >= FIRST_COUNTED},
    )


# -- tables -------------------------------------------------------------------------------------------------------


def case_line(name: str, case: DiscCase, result: Result) -> str:
    """One row: what was found, missed, false, and how the chain was counted."""
    distances = [pair.distance_mm for pair in case.pairs]
    mean = f"{np.mean(distances):5.1f}" if distances else "    -"
    sure = next((m.value for m in result.measurements if "numbering" in m.name.lower()), None)
    return (
        f"{name:16} {case.truths:6d} {len(case.pairs):6d} {len(case.false):6d} {case.named_right:6d} "
        f"{case.off_by_one:11d} {mean:>8} {'yes' if case.whole_chain_right else 'no':>6} "
        f"{'-' if sure is None else f'{sure:.2f}':>12}   {_wrong(case)}"
    )


HEADS = (
    f"{'scan':16} {'discs':>6} {'found':>6} {'false':>6} {'named':>6} {'off by one':>11} {'mean mm':>8} {'chain':>6} "
    f"{'P(numbering)':>12}   what is wrong"
)


def _wrong(case: DiscCase) -> str:
    parts = []
    if case.missed:
        parts.append("missed " + ", ".join(_name(number) for number in case.missed))
    if case.false:
        parts.append("false " + ", ".join(_name(number) for number in case.false))
    shifts = {pair.found - pair.truth for pair in case.pairs} - {0}
    if shifts:
        parts.append("names off by " + ", ".join(f"{shift:+d}" for shift in sorted(shifts)))
    return "; ".join(parts)


def _name(number: int) -> str:
    return DISC_NAMES.get(number, f"disc {number}")


def lumbar_table(cases: dict[str, DiscCase], results: dict[str, Result], asked: int) -> list[str]:
    """Lines of the first table, with its goals. A scan without a result counts as a chain that is not right."""
    lines = [HEADS, *(case_line(name, case, results[name]) for name, case in cases.items())]
    if not cases:
        return lines
    summary = DiscSummary.of(list(cases.values()))
    chains = sum(case.whole_chain_right for case in cases.values()) / asked
    named = sum(case.chain_named_right for case in cases.values()) / asked
    lines += [
        f"accuracy (found under its own name) {summary.accuracy:.1%}, off by one {summary.off_by_one:.1%}, "
        f"distance {summary.distance_mm[0]:.2f} mm (SD {summary.distance_mm[1]:.2f}); "
        f"all found discs named right in {named:.0%} of chains",
        _goal(f"{summary.found:.1%} of discs within {WITHIN_MM:g} mm", f"at least {FOUND_GOAL:.0%}",
              summary.found >= FOUND_GOAL),
        _goal(f"{summary.false:.1%} of points false", f"at most {FALSE_GOAL:.0%}", summary.false <= FALSE_GOAL),
        _goal(f"{chains:.0%} of chains fully right", f"at least {CHAIN_GOAL:.0%}", chains >= CHAIN_GOAL),
        "", f"{'level':8} {'discs':>6} {'found':>6} {'named':>6} {'mean mm':>8} {'false':>6}",
    ]  # fmt: skip
    for level in per_level(list(cases.values())):
        mean = "-" if level.mean_mm is None else f"{level.mean_mm:.2f}"
        counts = f"{level.truths:6d} {level.found:6d} {level.named_right:6d} {mean:>8} {level.false:6d}"
        lines.append(f"{_name(level.disc):8} {counts}")
    return lines


def template_table(data: Path, results: Path) -> list[str]:
    """Lines of the second table."""
    result = read(results, TEMPLATE)
    if result is None:
        return [_goal("no result", "no error", False)]
    case = compare_template(template_truth(data), points_of(result))
    wrong = len(case.missed) + len(case.false) + len(case.pairs) - case.named_right
    span = f"{_name(min(case.same_name_mm))} to {_name(max(case.same_name_mm))}"
    return [HEADS, case_line("PAM50", case, result), _goal(f"{wrong} errors from {span}", "none", wrong == 0)]


def published_table(truth: dict[str, dict], results: dict[str, Result]) -> list[str]:
    """Lines of the third table."""
    pairs = [
        (in_plane(list(truth[name].values())), in_plane([point.position_ras_mm for point in result.points]))
        for name, result in results.items()
        if result.points
    ]
    left_out = len(truth) - len(pairs)
    lines = [f"{len(pairs)} scans" + (f"; {left_out} more gave no point and are left out" if left_out else "")]
    lines.append(f"{'rule':10} {'DTT mm':>8} {'median':>8} {'SD':>6} {'FNR %':>7} {'FPR %':>7}")
    for rule in RULES if pairs else ():
        s = published_scores(pairs, rule)
        lines.append(
            f"{rule:10} {s.mean_distance:8.2f} {s.distance[0]:8.2f} {s.distance[1]:6.2f} {s.missed_percent:7.2f} "
            f"{s.false_percent:7.2f}"
        )
    return lines


def _goal(found: str, wanted: str, reached: bool) -> str:
    return f"-> {found} (goal: {wanted}): {'reached' if reached else 'NOT reached'}"


def write_pictures(data: Path, results: dict[str, Result], truth: dict[str, dict], folder: Path) -> None:
    """One overlay per scan."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        named = {_name(number): place for number, place in truth[name].items()}
        (folder / f"{name}.png").write_bytes(draw_discs(read_volume(data / f"{name}.nii.gz"), result.points, named))


def main() -> None:
    """Run the scans if asked to, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of result folders")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared/data")))
    parser.add_argument("--run", action="store_true", help="run the command line on every scan first")
    parser.add_argument("--model", default="", help="model for --run")
    parser.add_argument("--pictures", type=Path, help="folder for one overlay per scan")
    options, passed_on = parser.parse_known_args()
    data = options.data / "spine_mr"
    truth = lumbar_truth(data)
    if options.run:
        options.results.mkdir(parents=True, exist_ok=True)
        for scan in (*truth, TEMPLATE):
            run_scan(data, options.results, scan, [*(["--model", options.model] if options.model else []), *passed_on])
    results = {scan: result for scan in truth if (result := read(options.results, scan)) is not None}
    cut = {scan: cut_off(data, scan, places.values()) for scan, places in truth.items()}
    axes = {scan: SAGITTAL_PLANE if all(discs) else SPACE for scan, discs in cut.items()}
    found = {scan: points_of(result) for scan, result in results.items()}
    cases = {scan: compare_discs(truth[scan], points) for scan, points in found.items()}
    flat_cases = {scan: compare_discs(truth[scan], points, axes=axes[scan]) for scan, points in found.items()}
    flat = sum(kind == SAGITTAL_PLANE for kind in axes.values())
    said = (
        f"{sum(map(sum, cut.values()))} of {sum(map(len, cut.values()))} outlines are cut off on both sides; "
        f"{flat} of {len(axes)} scans are compared in the sagittal plane."
    )
    for title, lines in (
        ("Lumbar scans", lumbar_table(cases, results, len(truth))),
        ("Lumbar scans without the side where nobody knows it", [said, *lumbar_table(flat_cases, results, len(truth))]),
        ("PAM50 template", template_table(data, options.results)),
        ("Published measures, lumbar scans", published_table(truth, results)),
    ):
        print(f"\n{title}\n" + "\n".join(lines))
    if options.pictures:
        template = read(options.results, TEMPLATE)
        every = {**results, **({TEMPLATE: template} if template else {})}
        write_pictures(data, every, {**truth, TEMPLATE: template_truth(data)}, options.pictures)


if __name__ == "__main__":
    main()
