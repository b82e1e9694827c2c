"""Contact sheets of the brain extraction for a folder of CTs: every slice with the mask's outline, to be looked at.

    python Testing/evaluation/brain_sheets.py FOLDER_OR_FILES... --output SHEETS

Writes one PNG per CT and prints one line each: seconds, volume in mL, confidence, notes. Inputs are what the command
line reads: NIfTI, NRRD, MetaImage, DICOM folders. A folder without DICOM stands for the image files in it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Neuraxis"), str(ROOT / "HemorrhageSeg")]

from HemorrhageSegLib.brain import extract_brain  # noqa: E402
from NeuraxisLib.errors import NeuraxisError  # noqa: E402
from NeuraxisLib.files import read_volume  # noqa: E402
from NeuraxisLib.measure import volume_ml  # noqa: E402
from NeuraxisLib.volume import Volume  # noqa: E402

IMAGES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
#: Width of a slice in the sheet, slices in a row, most slices shown.
TILE, COLUMNS, MOST = 220, 7, 42


def contact_sheet(volume: Volume, mask: np.ndarray) -> np.ndarray:
    """RGB picture (rows, columns, 3) of a CT's axial slices, window 40/200 HU, with the mask (k, j, i) outlined."""
    from scipy import ndimage
    from skimage.transform import resize

    axial, order = volume.axial()
    outline = order.apply_array(mask)
    tissue = (axial.array > -200).any(axis=0)
    rows, columns = (np.flatnonzero(tissue.mean(axis=axis) > 0.05) for axis in (1, 0))
    rows, columns = (slice(at[0], at[-1] + 1) if len(at) else slice(None) for at in (rows, columns))
    count = len(axial.array)
    shown = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))
    column_mm, row_mm, _ = axial.spacing_mm
    width_mm, height_mm = tissue[rows, columns].shape[1] * column_mm, tissue[rows, columns].shape[0] * row_mm
    shape = (max(1, round(TILE * height_mm / width_mm)), TILE)
    tiles = np.zeros((-(-len(shown) // COLUMNS) * COLUMNS, *shape, 3), np.uint8)
    for tile, k in zip(tiles, shown):
        grey = np.clip((axial.array[k, rows, columns].astype(float) + 60) / 200, 0, 1)
        tile[:] = (255 * resize(grey, shape, order=1))[..., None]
        inside = resize(outline[k, rows, columns].astype(float), shape, order=0) > 0.5
        tile[inside & ~ndimage.binary_erosion(inside)] = (255, 40, 40)
    grid = tiles.reshape(-1, COLUMNS, *shape, 3).swapaxes(1, 2)
    return grid.reshape(-1, COLUMNS * TILE, 3)


def cases(inputs: list[Path]) -> list[Path]:
    """The CTs that the arguments stand for; label maps (``*_truth``) are left out."""
    found = []
    for path in inputs:
        inside = sorted(p for p in path.iterdir() if p.name.endswith(IMAGES)) if path.is_dir() else []
        found += [p for p in inside if "_truth" not in p.name] or [path]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write the sheets; returns 1 if an input could not be read."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, nargs="+", help="CT files, DICOM folders, or folders of CT files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the PNGs, made if absent")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    failed = False
    for path in cases(options.inputs):
        name = path.name.split(".")[0]
        try:
            volume = read_volume(path)
        except NeuraxisError as error:
            print(f"{name:24s} {error}")
            failed = True
            continue
        start = time.perf_counter()
        brain = extract_brain(volume)
        seconds = time.perf_counter() - start
        brain_ml = volume_ml(brain.mask, volume)
        print(f"{name:24s} {seconds:5.2f} s {brain_ml:7.0f} mL  {brain.confidence:.2f}  {' '.join(brain.notes)}")
        Image.fromarray(contact_sheet(volume, brain.mask)).save(options.output / f"{name}.png")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
