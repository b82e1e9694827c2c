"""Draw the thumbnails of the Sample Data module from the bundled scans: ``python Resources/draw_thumbnails.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / room) for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel")]

#: Width and height in pixels, as those of Slicer's own samples.
SIZE = (260, 280)
#: Sample -> (module, task, file, slice k from 0, lowest and highest grey value).
SAMPLES = {
    "HeadCTHemorrhage": ("HemorrhageSeg", "hemorrhage", "head_ct_hemorrhage.nrrd", 18, (0, 80)),
    "SimulatedCTPerfusion": ("StrokeCTP", "stroke", "simulated_ct_perfusion.seq.nrrd", 3, (0, 150)),
    "LumbarSpineMR": ("SpineDiscLabel", "discs", "lumbar_spine_mr.nrrd", 8, None),
}


def draw(task: str, file_name: str, k: int, greys: tuple[float, float] | None) -> Image.Image:
    """One slice of a scan as a reader sees it; of frames, the brightest of each voxel, which shows the vessels."""
    from NeuraxisLib.slice_view import Plane
    from NeuraxisLib.task import get_task

    volume = _read(get_task(task).resources / "SampleData" / file_name)
    array = volume.array.max(axis=0) if volume.array.ndim == 4 else volume.array
    plane = Plane.of(volume)
    image = plane.show(array[k].astype(np.float32))
    low, high = greys or np.percentile(image, (1, 99.5))
    grey = Image.fromarray(np.rint(255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8))
    width_mm, height_mm = (size * pixel for size, pixel in zip(grey.size, plane.pixel_mm))
    scale = min(SIZE[0] / width_mm, SIZE[1] / height_mm)
    grey = grey.resize((round(width_mm * scale), round(height_mm * scale)), Image.Resampling.LANCZOS)
    picture = Image.new("L", SIZE)
    picture.paste(grey, ((SIZE[0] - grey.width) // 2, (SIZE[1] - grey.height) // 2))
    return picture


def _read(path: Path):
    """A scan, or the frames of an acquisition."""
    if path.name.endswith(".seq.nrrd"):
        from StrokeCTPLib.frames import read_frames

        return read_frames(path).volume
    from NeuraxisLib.files import read_volume

    return read_volume(path)


def main() -> None:
    """Draw all of them."""
    for sample, (module, task, file_name, k, greys) in SAMPLES.items():
        target = ROOT / module / "Resources" / "Icons" / f"{sample}.png"
        draw(task, file_name, k, greys).save(target, "PNG", optimize=True)


if __name__ == "__main__":
    main()
