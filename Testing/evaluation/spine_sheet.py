"""A sheet of simulated spine MR beside real scans, for people to look at.

    python Testing/evaluation/spine_sheet.py sheet.png [--real FOLDER] [--seed 1]

Rows: simulated series of every region with their discs; real training scans (``NAME_t2space.nii.gz`` with
``NAME_label.nii.gz``); windows as the network sees them in training, painted and real.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from SpineDiscLabelLib.discs import DISC_NAMES  # noqa: E402
from SpineDiscLabelLib.preprocessing import SagittalPreprocessing  # noqa: E402
from Training.discs_cases import real_spine  # noqa: E402
from Training.discs_views import Sample, painted_sample, real_sample  # noqa: E402
from Training.layouts import spine_masks  # noqa: E402
from Training.layouts.base import LayoutOptions  # noqa: E402
from Training.simulation.spine_bank import paint_spine  # noqa: E402
from Training.simulation.spine_mr import REGIONS, SimulatedSpine, simulate_spine  # noqa: E402

COLUMNS = 8


def main(arguments: list[str]) -> int:
    """Draw the sheet."""
    data = Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--real", type=Path, default=data / "spine_mr_training")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    figure, axes = plt.subplots(4, COLUMNS, figsize=(3 * COLUMNS, 14), facecolor="black")
    for axis in axes.flat:
        axis.axis("off")
    regions = [*REGIONS, *REGIONS]
    for number, (axis, region) in enumerate(zip(axes[0], regions)):
        show_series(axis, simulate_spine(np.random.default_rng([options.seed, number]), region, number == 3))
    spines = real_spines(options.real)
    for axis, spine in zip(axes[1], spines):
        axis.imshow(spine.planes[len(spine.planes) // 2], cmap="gray", vmax=np.percentile(spine.planes, 99.5))
        mark(axis, spine.points[:, 1:] / spine.spacing[1:], spine.numbers)
    show_windows(axes[2:], spines, options.seed)
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    figure.savefig(options.output, dpi=70, facecolor="black")
    return 0


def real_spines(folder: Path) -> list:
    """The first real scans of a folder; none where there is no such folder."""
    if not folder.is_dir():
        return []
    sources = spine_masks.find(folder, LayoutOptions()).sources[:COLUMNS]
    return [real_spine(spine_masks.read(source, LayoutOptions())) for source in sources]


def show_series(axis: plt.Axes, made: SimulatedSpine) -> None:
    """The middle slice of a simulated series."""
    array = made.volume.array
    axis.imshow(array[len(array) // 2], cmap="gray", vmax=np.percentile(array, 99.5))
    ijk = (np.column_stack([made.ras_mm, np.ones(len(made.ras_mm))]) @ np.linalg.inv(made.volume.ijk_to_ras).T)[:, :3]
    mark(axis, ijk[:, 1::-1], made.numbers)
    axis.set_title(made.kind, color="w", fontsize=8)


def show_windows(axes: np.ndarray, spines: list, seed: int) -> None:
    """Painted windows in the first row, real ones in the second."""
    preprocessing = SagittalPreprocessing()
    painted = [paint_spine(np.random.default_rng([seed, 7, number]), number == 1) for number in range(2)]
    for number, axis in enumerate(axes[0]):
        sample = painted_sample(painted[number % 2], preprocessing, np.random.default_rng([seed, 8, number]))
        show_window(axis, sample, preprocessing)
    for number, axis in enumerate(axes[1]):
        if spines:
            spine = spines[number % len(spines)]
            sample = real_sample(spine, preprocessing, np.random.default_rng([seed, 9, number]))
            show_window(axis, sample, preprocessing)


def show_window(axis: plt.Axes, sample: Sample, preprocessing: SagittalPreprocessing) -> None:
    """What the network sees, its middle channel."""
    axis.imshow(sample.image[len(sample.image) // 2], cmap="gray", vmin=0, vmax=1)
    mark(axis, sample.discs_mm[:, 1:] / preprocessing.pixel_mm, sample.numbers)


def mark(axis: plt.Axes, points: np.ndarray, numbers: list) -> None:
    """Discs (row, column) with their names."""
    for (row, column), number in zip(points, numbers):
        axis.plot(column, row, "r.", markersize=3)
        axis.text(column + 4, row, DISC_NAMES.get(number, "?"), color="yellow", fontsize=5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
