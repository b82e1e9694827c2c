"""How exact the times of perfusion frames are in every DICOM layout, and how fast a folder is read.

    python Testing/benchmarks/benchmark_frames.py [--part times speed] [--frames 45] [--slices 16] [--matrix 256]

Times: the true time of every slice is known, and the brain of the phantom shows it in its HU. Speed: the peer is what
one would first write with pydicom: read every file whole, sort by time and place, scale, stack; it checks nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("", "Neuraxis", "HemorrhageSeg", "StrokeCTP", "StrokeCTP/Testing")]

import ctp_dicom as build  # noqa: E402
from ctp_dicom import UNIFORM_S, acquisition, flat  # noqa: E402

from StrokeCTPLib.frames import Frames, read_frames  # noqa: E402

GOAL_S = 0.010


def _missing(folder: Path) -> Path:
    frames = acquisition(build.shuttle_times())
    del frames[7][2], frames[12][1]
    return build.write(flat(frames), folder)


def _midnight(folder: Path) -> Path:
    images = flat(acquisition(start=datetime(2024, 2, 29, 23, 59, 50, 500000)))
    for one in images:
        one.AcquisitionDate = "20240229"
    return build.write(images, folder)


LAYOUTS: dict[str, tuple[Callable[[Path], Path], np.ndarray]] = {
    "one series of T x Z images": (build.one_series, UNIFORM_S),
    "one series per time point": (build.series_per_time_point, UNIFORM_S),
    "position-major": (build.position_major, UNIFORM_S),
    "one series per table position": (lambda f: build.position_major(f, series_per_position=True), UNIFORM_S),
    "shuttle, a time per slice": (build.shuttle, build.shuttle_times()),
    "enhanced multi-frame": (lambda f: build.enhanced(f, build.shuttle_times()), build.shuttle_times()),
    "enhanced, a file per time point": (build.enhanced_per_time_point, UNIFORM_S),
    "variable sampling with a pause": (
        lambda f: build.one_series(f, build.variable_sampling()), build.variable_sampling(),
    ),
    "two missing slices in a shuttle": (_missing, build.shuttle_times()),
    "another reconstruction mixed in": (lambda f: build.with_foreign_images(f, thickness_mm=1.5), UNIFORM_S),
    "midnight, date not changed": (_midnight, UNIFORM_S),
}  # fmt: skip


def measure_times(folder: Path) -> bool:
    """Print the largest error of every layout; whether all keep the goal."""
    print(f"Times of every slice (goal {1000 * GOAL_S:.0f} ms), and of what its pixels show (they round to 50 ms)")
    good = True
    for number, (name, (make, truth)) in enumerate(LAYOUTS.items()):
        frames = read_frames(make(folder / str(number)))
        error = float(np.abs(frames.times_s - truth).max())
        shown = float(np.abs(build.clock_of(frames.volume.array) - truth).max())
        met = error <= GOAL_S and shown <= 0.11
        good &= met
        print(f"  {name:36s} {1000 * error:8.3f} ms {1000 * shown:8.0f} ms   {'met' if met else 'MISSED'}", flush=True)
    return good


def peer_read(folder: Path) -> np.ndarray:
    """Every file whole with pydicom, sorted by time and height."""
    images = [pydicom.dcmread(path) for path in folder.iterdir()]
    images.sort(key=lambda one: (one.AcquisitionDate, one.AcquisitionTime, float(one.ImagePositionPatient[2])))
    slices = len({float(one.ImagePositionPatient[2]) for one in images})
    planes = [one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in images]
    return np.stack(planes).reshape(-1, slices, *planes[0].shape).astype(np.int16)


def write_series(folder: Path, frames: int, slices: int, matrix: int) -> None:
    """One acquisition as one series of single images."""
    before, build.MATRIX = build.MATRIX, matrix
    times = np.repeat(np.arange(float(frames))[:, None] * 1.5, slices, axis=1)
    build.one_series(folder, times, heights_mm=np.arange(slices) * 5.0, pixel_mm=220.0 / matrix)
    build.MATRIX = before


def measure_speed(folder: Path, frames: int, slices: int, matrix: int) -> bool:
    """Print times of reading one acquisition with ours and with the peer, alternating; whether both read the same."""
    write_series(folder, frames, slices, matrix)
    clocks: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(3):
        start = time.perf_counter()
        ours: Frames = read_frames(folder)
        clocks["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        peer = peer_read(folder)
        clocks["peer"].append(time.perf_counter() - start)
    own, other = (float(np.median(clocks[name])) for name in ("ours", "peer"))
    same = bool((peer == ours.volume.array).all())
    each = 1000 * own / (frames * slices)
    print(f"Reading {frames} x {slices} images of {matrix} x {matrix}: {own:.2f} s, {each:.1f} ms each")
    print(f"  plain pydicom {other:.2f} s, {other / own:.2f} times ours; values equal: {'yes' if same else 'NO'}")
    return same


def main() -> int:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=("times", "speed"), default=["times", "speed"])
    for name, size in (("--frames", 45), ("--slices", 16), ("--matrix", 256)):
        parser.add_argument(name, type=int, default=size)
    asked = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        if "times" in asked.part:
            good &= measure_times(Path(folder))
        if "speed" in asked.part:
            good &= measure_speed(Path(folder) / "speed", asked.frames, asked.slices, asked.matrix)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
