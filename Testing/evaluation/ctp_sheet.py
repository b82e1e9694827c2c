"""A sheet of one simulated stroke, for the eye to judge: frames, maps of our chain in vendors' colours beside truth.

    python Testing/evaluation/ctp_sheet.py sheet.png --kind m1 --grade moderate --seed 3 [--model FILE]

Columns are slices from below. Rows: before contrast, at the arterial and the venous peak with the vessels that were
found; CBF, CBV, Tmax and MTT of the chain, each above its truth (delay under Tmax); lesions drawn and true. At the
right the curves of artery and vein, found and true.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from evaluate_stroke import FAMILIES, ROOT, NETWORK  # noqa: I001
from NeuraxisLib.models import load_model
from NeuraxisLib.task import Progress
from StrokeCTPLib.colour_scales import SCALE_OF, coloured
from StrokeCTPLib.frames import make_frames
from StrokeCTPLib.lesions import find_lesions, rules_for
from StrokeCTPLib.map_units import MAP_UNITS
from StrokeCTPLib.networks.classes import decoded
from StrokeCTPLib.perfusion_maps import PerfusionMaps
from StrokeCTPLib.prediction import predict
from StrokeCTPLib.study import maps_for, study_of
from StrokeCTPLib.task import StrokeOptions as TaskOptions
from Training.simulation.ctp_head import SimulatedStroke, StrokeOptions, simulate_stroke
from Training.simulation.ctp_lesion import GRADES, KINDS
from Training.strokes import sources_of

SAMPLES = ROOT / "Training" / "SampleAnatomy"
#: Ranges of the colours; Tmax shares one with delay.
RANGES = {"cbf": (0.0, 80.0), "cbv": (0.0, 6.0), "tmax": (0.0, 12.0), "delay": (0.0, 12.0), "mtt": (0.0, 16.0)}
#: Map of the chain -> true map below it.
PAIRS = {"cbf": "cbf", "cbv": "cbv", "tmax": "delay", "mtt": "mtt"}
LESION_RGB = {1: (60, 160, 60), 2: (200, 40, 120)}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("output", type=Path, help="PNG to write")
    add("--kind", choices=KINDS, default="m1")
    add("--grade", choices=GRADES, default="moderate")
    add("--seed", type=int, default=3)
    add("--noise", type=float, default=5.0, metavar="HU")
    add("--head", type=int, default=0, metavar="N", help="number of the label map (default: %(default)s)")
    add("--slices", type=int, default=8, metavar="N", help="of 10 mm (default: %(default)s)")
    add("--size", type=int, default=256, metavar="PX")
    add("--family", choices=FAMILIES, default="calibrated", help="rule that draws the lesions")
    add("--model", type=Path, help="draw the lesions by this network instead")
    add("--label-maps", type=Path, default=SAMPLES, metavar="FOLDER")
    add("--lesion-shapes", type=Path, metavar="FOLDER")
    return parser.parse_args(arguments)


def grey(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """(h, w, 3) uint8 of an image in a window."""
    value = np.clip((image - low) / (high - low), 0, 1) * 255
    return np.repeat(value.astype(np.uint8)[..., None], 3, -1)


def rows_of(case: SimulatedStroke, maps: PerfusionMaps, labels: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """Title -> (k, h, w, 3) uint8 pictures."""
    frames, baseline = case.frames.array, case.frames.array[:3].mean(0)
    rows = {"before contrast": grey(baseline, 0, 80)}
    for title, curve, vessel, rgb in (
        ("arterial peak", case.artery_hu, maps.arterial.artery, (255, 40, 40)),
        ("venous peak", case.vein_hu, maps.arterial.vein, (60, 120, 255)),
    ):
        at = int(curve.argmax())
        picture = grey(frames[max(at - 1, 0) : at + 2].mean(0), 0, 160)
        if vessel is not None:
            picture[tuple(vessel.voxels.T)] = rgb
        rows[title] = picture
    for own, true in PAIRS.items():
        shown = np.where(maps.tissue, maps.svd[own], np.nan)
        rows[f"{own.upper()} {MAP_UNITS[own]}"] = coloured(shown, SCALE_OF[own], RANGES[own])
        truth = np.where(case.brain, case.maps[true], np.nan)
        rows[f"true {true.upper()}"] = coloured(truth, SCALE_OF[true], RANGES[true])
    for title, mask in ((f"lesions ({name})", labels), ("true lesions", case.labels)):
        picture = grey(baseline, 0, 80)
        for value, rgb in LESION_RGB.items():
            picture[mask == value] = (0.35 * picture[mask == value] + 0.65 * np.array(rgb)).astype(np.uint8)
        rows[title] = picture
    return rows


def draw(output: Path, case: SimulatedStroke, maps: PerfusionMaps, rows: dict[str, np.ndarray], title: str) -> None:
    """Write the sheet."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    inside = np.nonzero(maps.inside.any(0))
    crop = tuple(slice(max(0, a.min() - 8), a.max() + 9) for a in inside)
    pictures = [np.concatenate([p[(slice(None), *crop)][k] for k in range(len(p))], axis=1) for p in rows.values()]
    height, width = pictures[0].shape[:2]
    row_in = 13.0 * height / width
    figure, axes = pyplot.subplots(
        len(rows), 2, figsize=(17.0, row_in * len(rows) + 0.4), width_ratios=(13.2, 3.3), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.01, hspace=0, wspace=0.01)
    for (left, right), (name, picture) in zip(axes, zip(rows, pictures)):
        left.imshow(picture, interpolation="bilinear", aspect="equal")
        left.set_ylabel(name, fontsize=8)
        left.set_xticks([])
        left.set_yticks([])
        right.axis("off")
    for axis, name, found, true in (
        (axes[1][1], "artery", maps.arterial.curve_hu, case.artery_hu),
        (axes[2][1], "vein", None if maps.arterial.vein is None else maps.arterial.vein.curve_hu, case.vein_hu),
    ):
        axis.axis("on")
        axis.plot(case.frames.frame_times_s, true, "k-", label="true", linewidth=1)
        if found is not None:
            axis.plot(maps.times_s, found, "r.", label="found", markersize=3)
        axis.set_title(f"{name}, HU", fontsize=7)
        axis.tick_params(labelsize=6)
        axis.legend(fontsize=6)
    figure.suptitle(title, fontsize=9)
    figure.savefig(output, dpi=85, facecolor="white")


def main(arguments: list[str]) -> None:
    """Simulate, compute and draw."""
    options = parse(arguments)
    sources = sources_of(options.label_maps, SAMPLES / "ArterialAtlas136.nii.gz", options.lesion_shapes)
    asked = StrokeOptions(
        options.size, options.slices, 10.0, 1.5, 66.0, options.noise, options.kind, options.grade, "still", options.head
    )
    case = simulate_stroke(sources, np.random.default_rng(options.seed), asked)
    frames = make_frames(case.frames, case.times_s, "a simulated acquisition", "the simulation", {}, [])
    task = TaskOptions(device="cpu")
    study = study_of(frames, task, "cpu", Progress())
    maps = maps_for(study, task, Progress())
    name = options.family
    if options.model is None:
        lesions = find_lesions(maps, study.grid, rules_for(maps, options.family))
        labels = lesions.hypoperfused.astype(np.uint8) + lesions.core
    else:
        name = NETWORK
        shown = {
            key: study.grid.like(np.where(maps.tissue, values, np.float32(np.nan)), MAP_UNITS[key])
            for key, values in maps.svd.items()
        }
        found, facts = predict(shown, load_model(options.model, "stroke"), None, Progress())
        labels = decoded(found, tuple(facts["classes"])) * maps.tissue
    ml = [case.volume_ml(labels > 0), case.volume_ml(labels == 2)]
    truth = f"true {case.facts['hypoperfused_ml']:.0f} / {case.facts['core_ml']:.0f} mL"
    said = f"{options.kind}, collaterals {options.grade}, noise {options.noise:g} HU: hypoperfused / core {truth}"
    draw(options.output, case, maps, rows_of(case, maps, labels, name), f"{said}, found {ml[0]:.0f} / {ml[1]:.0f} mL")
    print(f"{options.output}: {case.facts}; found {ml[0]:.1f} / {ml[1]:.1f} mL; {[flag.code for flag in maps.flags]}")


if __name__ == "__main__":
    main(sys.argv[1:])
