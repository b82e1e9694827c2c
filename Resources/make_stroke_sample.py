"""Make the bundled CT perfusion: simulated in real head anatomy, small enough to be passed on.

    python Resources/make_stroke_sample.py [file]     (default: the sample of StrokeCTP)

The right middle cerebral artery of a simulated patient is occluded. Air is set to one value, as nobody looks at it and
its noise would make most of the file. The same seed gives the same file.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / room) for room in ("Neuraxis", "StrokeCTP"))]

from NeuraxisLib.files import write_volume  # noqa: E402
from Training.simulation.ctp_anatomy import StrokeSources  # noqa: E402
from Training.simulation.ctp_head import SimulatedStroke, StrokeOptions, simulate_stroke  # noqa: E402

SAMPLE = ROOT / "StrokeCTP" / "StrokeCTPLib" / "Resources" / "SampleData" / "simulated_ct_perfusion.seq.nrrd"
SEED = 11
OPTIONS = StrokeOptions(
    size_px=144, slices=8, thickness_mm=8.0, step_s=2.0, duration_s=64.0, noise_hu=4.0, kind="m1", grade="moderate",
    moves="still", head=1,
)  # fmt: skip
#: Below this, in HU, nothing but air and its noise.
AIR_HU = -500


def make() -> SimulatedStroke:
    """The simulated series with its truth, air without noise."""
    anatomy = ROOT / "Training" / "SampleAnatomy"
    sources = StrokeSources(anatomy, anatomy / "ArterialAtlas136.nii.gz")
    made = simulate_stroke(sources, np.random.default_rng(SEED), OPTIONS)
    array = np.where(made.frames.array < AIR_HU, np.int16(-1000), made.frames.array)
    times_s = np.asarray(made.frames.frame_times_s, float)
    times_s = times_s.mean(axis=1) if times_s.ndim == 2 else times_s  # the format has one time for a frame
    return replace(made, frames=replace(made.frames, array=array, frame_times_s=times_s))


def main() -> None:
    """Write the sample and say what is in it."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE
    target.parent.mkdir(parents=True, exist_ok=True)
    made = make()
    write_volume(made.frames, target, compress=True)
    core, rest = made.volume_ml(made.labels == 2), made.volume_ml(made.labels == 1)
    print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB, core {core:.1f} mL, hypoperfused {core + rest:.1f} mL")


if __name__ == "__main__":
    main()
