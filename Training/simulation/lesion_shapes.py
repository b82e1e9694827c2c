"""Shapes of real lesions, from masks, for bleeds that no formula draws: branching, with holes and narrow bridges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import read_volume
from Training.simulation.fields import random_rotation

#: Shapes outside this range are left out: specks have no shape, hemispheres are no bleeds.
LEAST_ML, MOST_ML = 0.3, 70.0


class LesionShapes:
    """A library of lesion masks.

    Args:
        folder: NIfTI masks at about 1 mm; anything above zero is lesion.
    """

    def __init__(self, folder: Path):
        self._paths = sorted(Path(folder).glob("*.nii.gz"))
        self._masks: dict[Path, np.ndarray | None] = {}

    def draw(
        self, offsets_mm: list[np.ndarray], scale: float, mask: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Occupancy 0..1 of a mask at broadcasting (z, y, x) offsets in mm from its centre, turned at random."""
        turn = random_rotation(rng) / scale
        where = [row[0] * offsets_mm[0] + row[1] * offsets_mm[1] + row[2] * offsets_mm[2] for row in turn]
        at = [axis + (n - 1) / 2 for axis, n in zip(where, mask.shape)]
        return ndimage.map_coordinates(mask, at, order=1, mode="constant", cval=0.0, prefilter=False)

    def pick(self, rng: np.random.Generator) -> np.ndarray:
        """A random mask (float32, about 1 mm voxels, cropped, softened); InputError if there is none."""
        for _ in range(10 * len(self._paths)):
            mask = self._read(self._paths[rng.integers(len(self._paths))])
            if mask is not None:
                return mask
        raise InputError("The folder of lesion shapes holds no mask of 0.3 to 70 mL; name another (--lesion-shapes).")

    def _read(self, path: Path) -> np.ndarray | None:
        if path not in self._masks:
            volume = read_volume(path)
            lesion = volume.array > 0
            ml = float((lesion * volume.voxel_volumes_ml[:, None, None]).sum())
            if LEAST_ML <= ml <= MOST_ML:
                box = ndimage.find_objects(lesion.astype(np.uint8))[0]
                self._masks[path] = ndimage.gaussian_filter(np.pad(lesion[box].astype(np.float32), 2), 0.5)
            else:
                self._masks[path] = None
        return self._masks[path]
