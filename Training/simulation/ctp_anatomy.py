"""Anatomy for simulated CT perfusion: label maps of whole heads, joined to an atlas of arterial territories.

Every label map is brought to the atlas by an affine map that is fitted to the intracranial space and the ventricles;
territories and real infarcts (both on the atlas's grid) are read through it, and the large arteries are drawn from
their course in the atlas, moved into the nearest fissure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.volume import Volume
from Training.simulation import anatomy as anatomies
from Training.simulation.ctp_vessels import ArterialTree, draw_tree

#: Territories of the atlas by their number for the patient's left; the right one is one higher.
TERRITORIES = {
    "aca": (1,),
    "deep": (3, 5),  # lenticulostriate
    "mca_superior": (7, 9, 15),  # frontal, parietal, insular
    "mca_inferior": (11, 13),  # temporal, occipital
    "pca": (17, 19, 21),
    "choroidal": (23,),
    "posterior_fossa": (25, 27, 29),
}
VENTRICLES = (31, 32)
#: Grid in mm on which a head is fitted to the atlas, and on which distances to territories are kept.
COARSE_MM = 3.0


@dataclass(frozen=True)
class Head:
    """One label map, axial, cropped around the brain.

    Attributes:
        name: of its file. labels: int16 (k, j, i) at 1 mm, up, posterior, left. inside: bool, within the skull.
        to_atlas: (3, 4) from (k, j, i) to (k, j, i) of the atlas. tree: its large arteries.
    """

    name: str
    labels: np.ndarray
    inside: np.ndarray
    to_atlas: np.ndarray
    tree: ArterialTree


class TerritoryAtlas:
    """Arterial territories on their 1 mm grid (k, j, i): up, posterior, left; distances to their borders.

    Args:
        path: the atlas's label image (Liu et al. 2023, 32 territories).
    """

    def __init__(self, path: Path):
        volume, _ = read_volume(path).axial()
        self.labels = volume.array.astype(np.uint8)
        self.ijk_to_ras = volume.ijk_to_ras
        self._depth: dict[tuple, np.ndarray] = {}

    @cached_property
    def coarse(self) -> np.ndarray:
        """Features that heads are fitted by."""
        return _features(self.labels > 0, np.isin(self.labels, VENTRICLES))

    def voxel_of(self, ras_mm: np.ndarray) -> np.ndarray:
        """(n, 3) indices (k, j, i), not rounded, of points (n, 3) in RAS mm."""
        inverse = np.linalg.inv(self.ijk_to_ras)
        return (ras_mm @ inverse[:3, :3].T + inverse[:3, 3])[:, ::-1]

    def values(self, names: tuple[str, ...], left: bool) -> tuple[int, ...]:
        """Label values of territories on one side."""
        return tuple(value + (not left) for name in names for value in TERRITORIES[name])

    def depth(self, names: tuple[str, ...], left: bool) -> np.ndarray:
        """(k, j, i) float32 at 2 mm: mm from a territory's points to the nearest tissue of other ones, negative
        beyond its border. The surface of the brain does not count: no collaterals come from there."""
        key = (names, left)
        if key not in self._depth:
            labels = self.labels[::2, ::2, ::2]
            own = np.isin(labels, self.values(names, left))
            other = (labels > 0) & ~own & ~np.isin(labels, VENTRICLES)
            to_other, to_own = (ndimage.distance_transform_edt(~mask, sampling=2.0) for mask in (other, own))
            self._depth[key] = np.where(to_own < to_other, to_other, -to_own).astype(np.float32)
        return self._depth[key]


class StrokeSources:
    """What simulated strokes are made from.

    Args:
        label_map_folder: whole-head label maps ``training_seg_*.nii.gz`` at 1 mm.
        atlas: image of arterial territories.
        infarct_folder: masks of real infarcts on the atlas's grid; None draws all cores by rule.
    """

    def __init__(self, label_map_folder: Path, atlas: Path, infarct_folder: Path | None = None):
        self.maps = sorted(Path(label_map_folder).glob("training_seg_*.nii.gz"))
        if not self.maps:
            raise InputError(
                f"The folder '{Path(label_map_folder).name}' holds no training_seg_*.nii.gz; name another with "
                "--label-maps."
            )
        self.atlas = TerritoryAtlas(atlas)
        self.infarcts = sorted(Path(infarct_folder).glob("*.nii.gz")) if infarct_folder else []
        self._heads: dict[int, Head] = {}

    def head(self, number: int) -> Head:
        """A label map with everything that does not change from case to case; kept."""
        if number not in self._heads:
            volume, _ = read_volume(self.maps[number]).axial()
            labels = np.rint(volume.array).astype(np.int16)
            self._heads[number] = make_head(self.maps[number].name.split(".")[0], labels, self.atlas)
        return self._heads[number]

    def infarct(self, rng: np.random.Generator) -> np.ndarray:
        """A real infarct, float32 0..1 on the atlas's grid."""
        volume: Volume = read_volume(self.infarcts[rng.integers(len(self.infarcts))]).axial()[0]
        if volume.array.shape != self.atlas.labels.shape:
            raise InputError("The infarct masks lie on another grid than the atlas; name others with --lesion-shapes.")
        return ndimage.gaussian_filter((volume.array > 0).astype(np.float32), 1.0)


def make_head(name: str, labels: np.ndarray, atlas: TerritoryAtlas) -> Head:
    """Prepare a 1 mm label map (k, j, i), axial: crop, fit it to the atlas, draw its arteries."""
    labels = anatomies.crop_to_head(labels)
    anatomy = anatomies.of_label_map(labels)
    to_atlas = fit_to_atlas(anatomy.inside, anatomy.ventricles, atlas)
    from_atlas = np.linalg.inv(np.vstack([to_atlas, [0, 0, 0, 1]]))

    def place(ras_mm: np.ndarray) -> np.ndarray:
        return atlas.voxel_of(ras_mm) @ from_atlas[:3, :3].T + from_atlas[:3, 3]

    fissures = np.isin(labels, anatomies.CSF) | ((labels == 0) & anatomy.inside)
    return Head(name, labels, anatomy.inside, to_atlas, draw_tree(place, fissures, anatomy.inside))


def _features(brain: np.ndarray, ventricles: np.ndarray) -> np.ndarray:
    """Blurred brain plus ventricles at COARSE_MM."""
    image = brain.astype(np.float32) + 2.0 * ventricles
    return ndimage.zoom(ndimage.gaussian_filter(image, 2.5), 1 / COARSE_MM, order=1, grid_mode=True, mode="nearest")


def fit_to_atlas(inside: np.ndarray, ventricles: np.ndarray, atlas: TerritoryAtlas) -> np.ndarray:
    """(3, 4) affine map from voxels (k, j, i) of a head to voxels of the atlas; both at 1 mm, up, posterior, left."""
    import SimpleITK as sitk

    fixed, moving = (sitk.GetImageFromArray(image) for image in (atlas.coarse, _features(inside, ventricles)))
    for image in (fixed, moving):
        image.SetSpacing([COARSE_MM] * 3)
        image.SetOrigin([(COARSE_MM - 1) / 2] * 3)
    start = sitk.AffineTransform(3)
    centre, scale, offset = _box_alignment(atlas.labels > 0, inside)
    start.SetCenter(centre.tolist())
    start.SetMatrix(np.diag(scale).ravel().tolist())
    start.SetTranslation(offset.tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.02, 120)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=True)
    method.SetNumberOfThreads(1) if hasattr(method, "SetNumberOfThreads") else None
    method.Execute(fixed, moving)
    matrix = np.array(start.GetMatrix()).reshape(3, 3)
    shift = np.array(start.GetTranslation()) + centre - matrix @ centre
    inverse = np.linalg.inv(np.vstack([np.column_stack([matrix, shift]), [0, 0, 0, 1]]))
    flip = np.eye(4)[[2, 1, 0, 3]]  # (x, y, z) to (k, j, i)
    return (flip @ inverse @ flip)[:3]


def _box_alignment(atlas: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, scale and translation (x, y, z) that bring the atlas's brain to a head's: left, right, front, back and
    top agree; heights share the scale of the lengths, as heads end at different levels below."""
    boxes = []
    for mask in (atlas, head):
        used = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in (2, 1, 0)]
        boxes.append(np.array([[u[0], u[-1]] for u in used], float))
    scale = np.ptp(boxes[1], axis=1) / np.ptp(boxes[0], axis=1)
    scale[2] = scale[:2].mean()
    middles = [np.array([box[0].mean(), box[1].mean(), box[2, 1]]) for box in boxes]
    return middles[0], scale, middles[1] - middles[0]
