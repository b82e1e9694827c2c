"""Finding blood by its density alone: fuzzy c-means and a region-based active contour, without weights.

The two methods that DR-UNet's publication compares with. Their parameters were not published; those here follow the
literature's usual ones (fuzziness 2; four clusters: CSF, white matter, grey matter, blood), and each further one has
its reason below. They see the density of the smoothed brain and nothing else, so dense vessels, falx and tentorium
are called blood as readily as a bleed, and blood as dense as brain is not.

Both return a map of 0..1 that is 0.5 at the border of what is called blood. It is a membership, or a distance from
the contour, and not a calibrated probability.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from HemorrhageSegLib.active_contour import edge_map, evolve
from HemorrhageSegLib.density import DENSEST_BLOOD_HU, disc, searched_space
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

#: Densities are clustered within these limits: below, there is fat or air, above, bone or calcium.
LEAST_HU, MOST_HU, BIN_HU = 0.0, DENSEST_BLOOD_HU, 0.5
#: Top of the brain window (level 40, width 80) in which pictures are shown: above it, blood and bone look alike.
WINDOW_TOP_HU = 80.0
#: Where the centres start: CSF, white matter, grey matter and clotted blood of a usual head CT.
START_HU = (8.0, 28.0, 37.0, 65.0)
#: The centres rest when none moves by more than this in one step.
TOLERANCE_HU, MOST_STEPS = 1e-4, 1000


@dataclass(frozen=True)
class FuzzyCMeansParameters:
    """Parameters of :func:`fuzzy_c_means`.

    Attributes:
        fuzziness: the exponent m.
        blur_mm: in-plane Gaussian, within the brain, before clustering; of a voxel's own noise, clustering would
            make blood.
        least_contrast_hu: the blood cluster's centre stays this far above the next. Clusters of fuzzy c-means share
            the voxels out evenly, so a bleed of a few mL has none of its own unless it is held; 0 does not hold it.
        bone_margin_mm: voxels nearer to the border of the brain are not counted when clusters are found, for bone
            blurs into them. They are still assigned.
        opening_mm: radius of the in-plane opening, above half the thickness of the falx and the dura.
        legacy_no_skull_strip: search the whole picture in the brain window, for comparison with DR-UNet's
            publication, whose input were such pictures: bone and blood then are one cluster.
    """

    fuzziness: float = 2.0
    blur_mm: float = 0.5
    least_contrast_hu: float = 20.0
    bone_margin_mm: float = 4.0
    opening_mm: float = 2.0
    legacy_no_skull_strip: bool = False

    @property
    def densest_hu(self) -> float:
        """Density above which nothing is told apart."""
        return WINDOW_TOP_HU if self.legacy_no_skull_strip else MOST_HU

    def __post_init__(self) -> None:
        _require(1 < self.fuzziness <= 10, "fuzziness", "above 1 and at most 10")
        _require(0 <= self.least_contrast_hu < 60, "least_contrast_hu", "from 0 to 60")
        for name in ("blur_mm", "bone_margin_mm", "opening_mm"):
            _require(0 <= getattr(self, name) <= 20, name, "from 0 to 20")


@dataclass(frozen=True)
class ActiveContourParameters(FuzzyCMeansParameters):
    """Parameters of :func:`active_contour`, and of the fuzzy c-means whose cluster the contours start from.

    Attributes:
        reach_mm: how far a contour may move, and from where the density around the blood is taken: the brain next to
            the bleed, not the mean of all brain with its ventricles, which would draw contours into grey matter.
        smoothing: smoothing steps of the contour after each step of the densities.
        edge_mm: scale of the logistic by which the map falls from 1 to 0 across the contour, about the blur of a CT.
    """

    reach_mm: float = 10.0
    smoothing: int = 1
    edge_mm: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 < self.reach_mm <= 50, "reach_mm", "above 0 and at most 50")
        _require(self.smoothing in range(11), "smoothing", "a whole number from 0 to 10")
        _require(0 < self.edge_mm <= 10, "edge_mm", "above 0 and at most 10")


def fuzzy_c_means(axial: Volume, brain: np.ndarray, arguments: dict, progress: Progress) -> np.ndarray:
    """Membership in the brightest of four clusters of density (Bezdek 1981), opened.

    Args:
        axial: CT in HU with axial slices.
        brain: bool (k, j, i), the intracranial space.
        arguments: parameters by name, see :class:`FuzzyCMeansParameters`; those that are absent take their default.
        progress: told about the steps; cancels between them.

    Returns:
        float32 (k, j, i), 0..1; 0 outside the brain and where it is too dense for blood (without legacy options).

    Raises:
        ModelError: an argument that is not one, or an impossible value.
        InputError: no brain.
    """
    return _blood_membership(axial, brain, _parameters(FuzzyCMeansParameters, arguments), progress)


def active_contour(axial: Volume, brain: np.ndarray, arguments: dict, progress: Progress) -> np.ndarray:
    """Region-based active contour (Chan and Vese 2001) that starts from the cluster of :func:`fuzzy_c_means`.

    Each slice has contours of its own: slices are several times as thick as pixels, so that a curvature across them
    would be that of the steps between slices. Contours that no longer touch where they started are dropped.

    Args:
        axial, brain, progress: as for :func:`fuzzy_c_means`.
        arguments: parameters by name, see :class:`ActiveContourParameters`.

    Returns:
        float32 (k, j, i): logistic of the distance from the contour, 0.5 at it.

    Raises:
        ModelError, InputError: as :func:`fuzzy_c_means`.
    """
    parameters = _parameters(ActiveContourParameters, arguments)
    start = _blood_membership(axial, brain, parameters, progress.part(0.0, 0.5)) >= 0.5
    space = _space(axial, brain, parameters)
    found = np.zeros(start.shape, np.float32)
    pixel_mm = (axial.spacing_mm[1], axial.spacing_mm[0])
    slices = np.flatnonzero(start.any(axis=(1, 2)))
    for done, k in enumerate(slices):
        progress(0.5 + 0.5 * done / len(slices), "Moving contours")
        box = _box(start[k], parameters.reach_mm, pixel_mm)
        image = np.clip(axial.array[k][box], LEAST_HU, parameters.densest_hu).astype(np.float32)
        inside = evolve(image, start[k][box], space[k][box], pixel_mm, parameters.reach_mm, parameters.smoothing)
        found[k][box] = edge_map(inside, pixel_mm, parameters.edge_mm) * space[k][box]
    return found


def cluster_centres(
    values: np.ndarray, counts: np.ndarray, fuzziness: float, least_contrast: float = 0.0
) -> np.ndarray:
    """Centres (4,) of the clusters of a histogram, ascending: fuzzy c-means with every value weighted by its count.

    The same fixed point as of all voxels one by one, at the cost of a few hundred bins.

    Args:
        values: (n,) densities in HU.
        counts: (n,) how many voxels have each.
        fuzziness: the exponent m.
        least_contrast: the last centre stays this many HU above the one before it; 0: wherever the voxels draw it.
    """
    centres = np.array(START_HU)
    for _ in range(MOST_STEPS):
        weights = counts[:, None] * memberships(values, centres, fuzziness) ** fuzziness
        moved = np.sort(weights.T @ values / np.maximum(weights.sum(axis=0), 1e-12))
        moved[-1] = max(moved[-1], moved[-2] + least_contrast)
        still = np.abs(moved - centres).max() < TOLERANCE_HU
        centres = moved
        if still:
            break
    return centres


def memberships(values: np.ndarray, centres: np.ndarray, fuzziness: float) -> np.ndarray:
    """(n, c) membership of every value in every cluster, rows summing to 1: |x - v|^(-2/(m-1)), normalised."""
    squared = np.maximum((values[:, None] - centres) ** 2, 1e-12)
    closeness = (squared.min(axis=1, keepdims=True) / squared) ** (1 / (fuzziness - 1))
    return closeness / closeness.sum(axis=1, keepdims=True)


def _blood_membership(
    axial: Volume, brain: np.ndarray, parameters: FuzzyCMeansParameters, progress: Progress
) -> np.ndarray:
    """What :func:`fuzzy_c_means` returns, for parameters that have been checked."""
    if not brain.any():
        raise InputError("No brain is in view; choose a head CT that shows the brain.")
    progress(0.0, "Clustering densities")
    space = _space(axial, brain, parameters)
    density = _smoothed(axial, space, parameters)
    progress(0.3, "Clustering densities")
    counted = space if parameters.legacy_no_skull_strip else _inner(axial, brain, parameters.bone_margin_mm) & space
    values = np.arange(LEAST_HU, parameters.densest_hu + BIN_HU / 2, BIN_HU)
    bins = np.rint((density[counted if counted.any() else space] - LEAST_HU) / BIN_HU).astype(np.intp)
    counts = np.bincount(bins, minlength=len(values)).astype(np.float64)
    centres = cluster_centres(values, counts, parameters.fuzziness, parameters.least_contrast_hu)
    progress(0.6, "Clustering densities")
    found = np.interp(density, values, blood_membership(values, centres, parameters.fuzziness)).astype(np.float32)
    found *= space
    found = _opened(found, axial, parameters.opening_mm)
    progress(1.0, "Clustering densities")
    return found


def blood_membership(values: np.ndarray, centres: np.ndarray, fuzziness: float) -> np.ndarray:
    """(n,) membership in the brightest cluster, 1 above its centre and 0 below the next.

    The formula's own memberships even out again beyond the outermost centres (far from all, a value belongs to all
    alike), so that the densest clot would be half grey matter, and fat a quarter blood.
    """
    blood = memberships(values, centres, fuzziness)[:, -1]
    return np.where(values >= centres[-1], 1.0, np.where(values <= centres[-2], 0.0, blood))


def _space(axial: Volume, brain: np.ndarray, parameters: FuzzyCMeansParameters) -> np.ndarray:
    """Bool (k, j, i): where blood is looked for."""
    return np.ones_like(brain) if parameters.legacy_no_skull_strip else searched_space(axial, brain)


def _smoothed(axial: Volume, space: np.ndarray, parameters: FuzzyCMeansParameters) -> np.ndarray:
    """float32 (k, j, i): density within its limits, blurred in-plane among the voxels of the space alone."""
    from scipy import ndimage

    densest_hu, blur_mm = parameters.densest_hu, parameters.blur_mm
    density = np.clip(axial.array, LEAST_HU, densest_hu).astype(np.float32)
    if blur_mm == 0:
        return density
    sigma = [0.0, blur_mm / axial.spacing_mm[1], blur_mm / axial.spacing_mm[0]]
    weight = ndimage.gaussian_filter(space.astype(np.float32), sigma, truncate=3.0)
    blurred = ndimage.gaussian_filter(density * space, sigma, truncate=3.0)
    return np.clip(blurred / np.maximum(weight, 1e-6), LEAST_HU, densest_hu)


def _inner(axial: Volume, brain: np.ndarray, margin_mm: float) -> np.ndarray:
    """The voxels of a mask that are farther than ``margin_mm`` from its border within the slice."""
    from scipy import ndimage

    steps = axial.spacing_mm[1], axial.spacing_mm[0]
    inner = np.zeros_like(brain)
    for k in np.flatnonzero(brain.any(axis=(1, 2))):
        inner[k] = ndimage.distance_transform_edt(brain[k], sampling=steps) > margin_mm
    return inner


def _opened(values: np.ndarray, axial: Volume, radius_mm: float) -> np.ndarray:
    """Grey-scale opening by a disc: every cut of the map is opened."""
    from scipy import ndimage

    if radius_mm == 0 or not values.any():
        return values
    return ndimage.grey_opening(values, footprint=disc(axial, radius_mm))


def _box(mask: np.ndarray, margin_mm: float, pixel_mm: tuple[float, float]) -> tuple[slice, slice]:
    """Box of a 2-D mask, widened by a margin as far as the image goes."""
    sides = []
    for axis, step in enumerate(pixel_mm):
        found = np.flatnonzero(mask.any(axis=1 - axis))
        margin = int(np.ceil(margin_mm / step)) + 1
        sides.append(slice(max(0, found[0] - margin), found[-1] + 1 + margin))
    return sides[0], sides[1]


def _require(holds: bool, name: str, allowed: str) -> None:
    if not holds:
        raise ModelError(f"The method's parameter '{name}' must be {allowed}; correct the model file.")


def _parameters(kind: type, arguments: dict):
    """The parameters of a method from the arguments of a model file; ModelError names one that does not fit."""
    known = [entry.name for entry in fields(kind)]
    for name, value in arguments.items():
        if name not in known:
            raise ModelError(
                f"The method has no parameter '{name}'; it has: {', '.join(known)}; correct the model file."
            )
        wanted, words = (bool, "true or false") if name.startswith("legacy") else ((int, float), "a number")
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ModelError(f"The method's parameter '{name}' must be {words}; correct the model file.")
    return kind(**arguments)
