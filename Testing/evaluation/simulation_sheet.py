"""A contact sheet of simulated heads with the outlines of their truth, beside real ones, for the eye to judge.

    python Testing/evaluation/simulation_sheet.py sheet.png --planted 0 1 2 --synthetic 0 1 2 --real ctich_050

One row per head: slices spread over the brain, those with most blood among them, in the brain window.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "Neuraxis", ROOT / "HemorrhageSeg"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib.errors import NeuraxisError  # noqa: E402
from Training.simulation.bank import HeadSources  # noqa: E402
from Training.simulation.bleeds import KINDS  # noqa: E402
from Training.simulation.head_ct import SimulatedHead  # noqa: E402

COLOURS = {
    "intraparenchymal": "#ff4040",
    "intraventricular": "#40a0ff",
    "subdural": "#ffd040",
    "epidural": "#40e060",
    "subarachnoid": "#ff60ff",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    data = Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description="Contact sheet of simulated heads with the outlines of their truth.")
    add = parser.add_argument
    add("output", type=Path, help="PNG to write")
    add("--planted", type=int, nargs="*", default=[0, 1, 2], metavar="SEED", help="planted heads (default: 0 1 2)")
    add("--synthetic", type=int, nargs="*", default=[0, 1, 2], metavar="SEED", help="synthetic heads (default: 0 1 2)")
    add("--real", nargs="*", default=[], metavar="NAME", help="real scans to show beside them, such as ctich_050")
    add("--slices", type=int, default=7, metavar="N", help="slices per head (default: 7)")
    add("--window", type=float, nargs=2, default=(0.0, 80.0), metavar=("LOW", "HIGH"), help="HU shown as black, white")
    add("--no-outlines", action="store_true", help="leave the truth out, to guess first")
    add("--real-folder", type=Path, default=data / "head_ct_training", metavar="FOLDER")
    add("--label-maps", type=Path, default=data / "label_maps", metavar="FOLDER")
    add("--lesion-shapes", type=Path, metavar="FOLDER", help="masks of real lesions whose shapes some bleeds take")
    return parser.parse_args(arguments)


def heads_of(options: argparse.Namespace) -> list[tuple[str, SimulatedHead]]:
    """(title, head) for every row; the seeds are those that the bank's files are numbered by."""
    shapes = [options.lesion_shapes] if options.lesion_shapes else []
    sources = HeadSources(options.real_folder, options.label_maps, *shapes)
    rows = [(f"real {name}", sources.real_with_labels(name)[0]) for name in options.real]
    for number, source in enumerate(("planted", "synthetic"), start=1):
        for seed in getattr(options, source):
            head = getattr(sources, source)(np.random.default_rng([seed, number]))
            words = ", ".join(f"{kind} {ml:.1f} mL" for kind, ml in head.volumes_ml.items()) or "no bleed"
            rows.append((f"{source} {seed}: {words}, {head.volume.spacing_mm[2]:.1f} mm slices", head))
    return rows


def choose_slices(head: SimulatedHead, count: int) -> list[int]:
    """Slices to show, from below: half of them those with most blood, the rest spread over the brain."""
    used = np.flatnonzero(head.brain.any(axis=(1, 2)))
    area = (head.truth > 0).sum(axis=(1, 2))
    gap = max(1, len(used) // (3 * count))
    chosen: list[int] = []
    for k in np.argsort(-area, kind="stable"):
        if area[k] and len(chosen) < (count + 1) // 2 and all(abs(k - other) >= gap for other in chosen):
            chosen.append(int(k))
    spread = [int(used[int(share * (len(used) - 1))]) for share in np.linspace(0.08, 0.95, 4 * count)]
    while len(chosen) < min(count, len(used)):
        best = max(spread, key=lambda k: min((abs(k - other) for other in chosen), default=0))
        chosen.append(best)
    return sorted(chosen)


def draw_sheet(rows: list[tuple[str, SimulatedHead]], options: argparse.Namespace) -> None:
    """Write the PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (2.1 * options.slices, 2.45 * len(rows))
    figure, axes = plt.subplots(len(rows), options.slices, figsize=size, squeeze=False, facecolor="black")
    for (title, head), row in zip(rows, axes):
        row[0].set_title(title, color="white", fontsize=8, loc="left")
        for ax in row:
            ax.axis("off")
        aspect = head.volume.spacing_mm[1] / head.volume.spacing_mm[0]
        for ax, k in zip(row, choose_slices(head, options.slices)):
            low, high = options.window
            ax.imshow(head.volume.array[k], cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
            for kind, value in KINDS.items():
                if not options.no_outlines and (head.truth[k] == value).any():
                    ax.contour(head.truth[k] == value, levels=[0.5], colors=COLOURS[kind], linewidths=0.7)
            ax.text(4, 4, str(k), color="white", fontsize=6, va="top")
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.97, wspace=0.02, hspace=0.1)
    figure.savefig(options.output, dpi=100, facecolor="black")
    plt.close(figure)


def main(arguments: list[str]) -> int:
    """Make the sheet; returns the exit status."""
    options = parse(arguments)
    try:
        rows = heads_of(options)
    except NeuraxisError as error:
        print(error, file=sys.stderr)
        return 1
    draw_sheet(rows, options)
    print(f"Wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
