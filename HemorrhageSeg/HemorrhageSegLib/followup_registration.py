"""Rigid registration of two head CTs of one patient, and whether they show the same head.

The skull is the same on both scans, whatever the blood did: what is compared is density within the intracranial
space and 12 mm around it (the jaw, the neck and the head rest move on their own). Three steps: a search over
rotations and shifts from the middle of the intracranial space, at 8 mm, with gradient descent on the correlation from
the best of these; descent from the best few, at 4 mm; the same from the best, at 2 mm, until that gains nothing. There
it looks at a fifth of the voxels, at places shaken by a generator of fixed seed (which also keeps the grid from
imprinting itself): the same scans always give the same matrix.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from HemorrhageSegLib.followup_grid import box_ras, reduced, resample, upright_grid, values_at
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

STAGE = "Aligning the two heads"
#: Density range that is compared; what is denser is bone all the same, what is lighter is outside.
RANGE_HU = (-100.0, 500.0)
#: What is no denser is not compared: within 12 mm of the brain it is sinuses, or what was cut away and filled with air
#: when a series was resampled.
AIR_HU = -99.0
#: How far around the intracranial space densities are compared: the vault of the skull and some scalp.
AROUND_MM = 12.0
#: Sizes of the cubes of the three steps.
SEARCH_MM, MIDDLE_MM, FINE_MM = 8.0, 4.0, 2.0
#: Angles about R, A and S and shifts along S that the search begins from.
PITCH_DEG, ROLL_DEG, YAW_DEG = (-30, -15, 0, 15, 30), (-15, 0, 15), (-30, -15, 0, 15, 30)
SHIFT_MM = (-24.0, -8.0, 8.0, 24.0)
#: How many of these are followed at 8 mm, and then at 4 mm.
TRIED, FOLLOWED = 16, 3
#: Share of the voxels that the descent looks at, and the seed that shakes their places.
SAMPLED, SEED = 0.2, 1
#: How often descent may begin anew at the last step, and how much correlation it has to gain by that.
MOST_DESCENTS, LEAST_GAIN = 6, 0.0003
#: Less of the earlier head than this in view of the later scan cannot be aligned.
LEAST_COVERED = 0.5
#: Below this correlation two aligned scans are not of one head (one head: 0.96 and more; of two people: 0.3 to 0.6).
LEAST_CORRELATION = 0.75


@dataclass(frozen=True)
class Head:
    """A head CT as the registration sees it, on an upright grid.

    Attributes:
        hu: float32 (k, j, i) clipped density; the lower end of RANGE_HU where nothing was scanned.
        scanned: bool (k, j, i), where the scan shows more than air.
        compared: bool (k, j, i), where densities are compared.
        brain: bool (k, j, i), the intracranial space.
        grid: the upright grid.
    """

    hu: np.ndarray
    scanned: np.ndarray
    compared: np.ndarray
    brain: np.ndarray
    grid: Volume

    @property
    def centre_ras(self) -> np.ndarray:
        """Middle of the intracranial space, RAS mm."""
        kji = np.argwhere(self.brain).mean(axis=0)
        return self.grid.ijk_to_ras[:3, :3] @ kji[::-1] + self.grid.ijk_to_ras[:3, 3]


@dataclass(frozen=True)
class Registration:
    """Where the later head lies.

    Attributes:
        matrix: 4x4, RAS mm of the earlier scan -> RAS mm of the later one.
        correlation: of density around and within the earlier brain, -1 to 1, at 2 mm.
        overlap: Dice coefficient of the two intracranial spaces where both scans reach.
        covered: share of the compared part of the earlier head that the later scan shows.
        centre_ras: RAS mm of the middle of the earlier brain.
    """

    matrix: np.ndarray
    correlation: float
    overlap: float
    covered: float
    centre_ras: np.ndarray

    @property
    def rotation_deg(self) -> float:
        """Angle by which the head was turned between the scans, in the coordinates of the scanners."""
        return float(np.degrees(np.arccos(np.clip((np.trace(self.matrix[:3, :3]) - 1) / 2, -1, 1))))

    @property
    def shift_mm(self) -> float:
        """How far the middle of the brain moved, in the coordinates of the scanners."""
        moved = self.matrix[:3, :3] @ self.centre_ras + self.matrix[:3, 3]
        return float(np.linalg.norm(moved - self.centre_ras))


def register(
    baseline: Volume,
    baseline_brain: np.ndarray,
    later: Volume,
    later_brain: np.ndarray,
    progress: Progress | None = None,
) -> Registration:
    """Align two head CTs of one patient rigidly.

    Args:
        baseline, later: CTs in HU, (k, j, i), any orientation, tilt or slice gaps.
        baseline_brain, later_brain: bool (k, j, i), intracranial spaces on their grids.
        progress: told about every step; may cancel between them.

    Raises:
        InputError: the two scans do not show one head, or too little of it in common.
    """
    progress = progress or Progress()
    progress(0.0, STAGE)
    pair = [reduced(volume, FINE_MM, *RANGE_HU) for volume in (baseline, later)]
    brains = [reduced(volume.like(mask.view(np.uint8)), FINE_MM, 0, 1) for volume, mask in
              ((baseline, baseline_brain), (later, later_brain))]  # fmt: skip
    boxes = [box_ras(brain.array > 0.5, brain) for brain in brains]

    def heads(step_mm: float) -> list[Head]:
        return [_head(*one, step_mm) for one in zip(pair, brains, boxes)]

    fixed, moving = heads(SEARCH_MM)
    matrices = _best(fixed, moving, _starts(fixed, moving), TRIED)
    matrices = _best(fixed, moving, [_refined(fixed, moving, one, SEARCH_MM, 1.0) for one in matrices], FOLLOWED)
    progress(0.3, STAGE)
    fixed, moving = heads(MIDDLE_MM)
    matrices = _best(fixed, moving, [_refined(fixed, moving, one, MIDDLE_MM, SAMPLED) for one in matrices], 1)
    progress(0.6, STAGE)
    fixed, moving = heads(FINE_MM)
    matrix = _settled(fixed, moving, matrices[0])
    progress(0.9, STAGE)
    correlation, covered = _correlation(fixed, moving, matrix)
    found = Registration(matrix, correlation, _overlap(fixed, moving, matrix), covered, fixed.centre_ras)
    _require_match(found)
    progress(1.0, STAGE)
    return found


def _require_match(found: Registration) -> None:
    if found.covered < LEAST_COVERED:
        raise InputError(
            f"The later scan shows only {found.covered:.0%} of the earlier scan's head; choose two scans of the whole "
            "head of one patient."
        )
    if found.correlation < LEAST_CORRELATION:
        raise InputError(
            f"The two heads do not match (correlation {found.correlation:.2f}; one head gives at least "
            f"{LEAST_CORRELATION:g}); choose two scans of the same patient."
        )


# -- the heads ------------------------------------------------------------------------------------------------


def _head(volume: Volume, brain: Volume, box: tuple[np.ndarray, np.ndarray], step_mm: float) -> Head:
    from scipy import ndimage

    margin = AROUND_MM + 2 * step_mm
    grid = upright_grid(box[0] - margin, box[1] + margin, step_mm)
    hu, inside = (resample(_blurred(one, step_mm), grid) for one in (volume, brain))
    scanned, inside = hu > AIR_HU, np.nan_to_num(inside) > 0.5
    near = ndimage.distance_transform_edt(~inside, step_mm) <= AROUND_MM
    return Head(np.where(scanned, hu, np.float32(RANGE_HU[0])), scanned, near & scanned, inside, grid)


def _blurred(volume: Volume, step_mm: float) -> Volume:
    """Free of detail finer than the grid that it will be sampled on."""
    if step_mm <= FINE_MM:
        return volume
    return reduced(volume, step_mm, -np.inf, np.inf)


# -- the search -----------------------------------------------------------------------------------------------


def _starts(fixed: Head, moving: Head) -> list[np.ndarray]:
    """4x4 matrices of rotations and shifts that bring the middles of the brains together."""
    centre, target, starts = fixed.centre_ras, moving.centre_ras, []
    for pitch, roll, yaw in itertools.product(PITCH_DEG, ROLL_DEG, YAW_DEG):
        turn = _rotation(pitch, roll, yaw)
        for shift in SHIFT_MM:
            matrix = np.eye(4)
            matrix[:3, :3], matrix[:3, 3] = turn, target - turn @ centre + [0, 0, shift]
            starts.append(matrix)
    return starts


def _best(fixed: Head, moving: Head, matrices: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The matrices with the highest correlation; those that show too little of the head come last."""
    scores = []
    for matrix in matrices:
        correlation, covered = _correlation(fixed, moving, matrix)
        scores.append(correlation if covered >= LEAST_COVERED else covered - 2)
    return [matrices[index] for index in np.argsort(np.negative(scores), kind="stable")[:count]]


def _rotation(pitch_deg: float, roll_deg: float, yaw_deg: float) -> np.ndarray:
    """3x3 rotation about R, then A, then S."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians([pitch_deg, roll_deg, yaw_deg])):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[one, one, other, other], [one, other, one, other]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        )  # fmt: skip
        turn = step @ turn
    return turn


def _correlation(fixed: Head, moving: Head, matrix: np.ndarray) -> tuple[float, float]:
    """(Pearson correlation of density, share of the fixed head's compared voxels that the moving scan shows)."""
    values, there = fixed.hu[fixed.compared], _moved(moving.hu, fixed, moving, matrix)
    shown = np.isfinite(there)
    if np.count_nonzero(shown) < 2 or np.ptp(there[shown]) == 0:
        return -1.0, 0.0
    return float(np.corrcoef(values[shown], there[shown])[0, 1]), float(shown.mean())


def _moved(array: np.ndarray, fixed: Head, moving: Head, matrix: np.ndarray) -> np.ndarray:
    """Values of the moving head at the compared voxels of the fixed one; NaN where it is not compared."""
    ijk = np.argwhere(fixed.compared)[:, ::-1]
    to_index = np.linalg.inv(moving.grid.ijk_to_ras) @ matrix @ fixed.grid.ijk_to_ras
    at = ijk @ to_index[:3, :3].T + to_index[:3, 3]
    nearest = values_at(moving.scanned.astype(np.float32), at, 0.0) > 0.5
    return np.where(nearest, values_at(array, at, np.nan), np.float32(np.nan))


def _overlap(fixed: Head, moving: Head, matrix: np.ndarray) -> float:
    """Dice coefficient of the intracranial spaces where both scans reach."""
    there, here = _moved(moving.brain.astype(np.float32), fixed, moving, matrix), fixed.brain[fixed.compared]
    shown = np.isfinite(there)
    moved = there[shown] > 0.5
    total = np.count_nonzero(moved) + np.count_nonzero(here[shown])
    return 2 * float(np.count_nonzero(moved & here[shown])) / total if total else 0.0


def _settled(fixed: Head, moving: Head, matrix: np.ndarray) -> np.ndarray:
    """The matrix of highest correlation at 2 mm; descent begins anew as long as that gains.

    Where few slices or thick ones leave a narrow valley, steps across it shrink before its floor is reached.
    """
    best = -np.inf
    for _ in range(MOST_DESCENTS):
        found = _refined(fixed, moving, matrix, FINE_MM, SAMPLED)
        before, best = best, max(best, _correlation(fixed, moving, found)[0])
        if best > before:
            matrix = found
        if best < before + LEAST_GAIN:
            break
    return matrix


# -- descent --------------------------------------------------------------------------------------------------


def _refined(fixed: Head, moving: Head, start: np.ndarray, first_step_mm: float, share: float) -> np.ndarray:
    """The 4x4 matrix of highest correlation near ``start``, by gradient descent on a share of the voxels."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter(fixed.centre_ras.tolist())
    transform.SetMatrix(start[:3, :3].ravel().tolist(), 1e-6)
    centre = fixed.centre_ras
    transform.SetTranslation((start[:3, :3] @ centre + start[:3, 3] - centre).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(_image(fixed.compared.astype(np.uint8), fixed.grid))
    method.SetMetricMovingMask(_image(moving.scanned.astype(np.uint8), moving.grid))
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(share, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=first_step_mm, minStep=0.01, numberOfIterations=150, relaxationFactor=0.8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.SetNumberOfThreads(1)  # sums in one order give one result on every machine
    method.Execute(_image(fixed.hu, fixed.grid), _image(moving.hu, moving.grid))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = centre + transform.GetTranslation() - matrix[:3, :3] @ centre
    return matrix


def _image(array: np.ndarray, grid: Volume) -> sitk.Image:
    """An array on an upright grid as ITK has it; its "physical space" is RAS here, on both sides alike."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.ijk_to_ras[:3, 3].tolist())
    return image
