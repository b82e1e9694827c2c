"""Rigid motion between the frames of a perfusion acquisition: measured at a coarse grid, corrected at the full one.

All frames are registered at once to the mean of the first ones by inverse-compositional Gauss-Newton (Baker and
Matthews 2004): the Jacobian comes from the fixed image alone, so that an iteration is one resampling and one matrix
product. Air, skin and skull lead; contrast is small beside them. What motion brings in from beyond the grid does not
count. Frames that lie within half a millimetre are left as they are, as resampling blurs.

A frame is moved as a whole. Where its slices have their own times (a table that shuttles between slabs) the head may
have moved between them; registration slab by slab, which that would need, is not built, and a warning says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.smoothing import blur

#: Clamp in HU; grids in mm from coarse to fine, and Gauss-Newton steps on each.
CLAMP_HU, GRIDS_MM, STEPS = (-200.0, 400.0), (8.0, 4.0), 15
#: Gaussian in pixels of these grids and in slices: gradients must reach as far as the head has moved.
BLUR_PX, BLUR_SLICES = 1.5, 0.4
#: Slices at either end that do not count.
EDGE = 1
#: Displacements up to this (mm, anywhere in the head) are left; beyond the others they are flagged or past repair.
LEFT_MM, FLAGGED_MM, BEYOND_MM = 0.5, 3.0, 25.0
#: Densities in HU that count as bone where movement is looked for, and the least that is movement.
BONE_HU, MOVED_MM = (300.0, 1500.0), 0.2
#: Distance from the middle at which displacements are judged, and correlation a corrected frame must reach.
HEAD_RADIUS_MM, LEAST_CORRELATION = 80.0, 0.8


@dataclass(frozen=True)
class Motion:
    """How the head lay in every frame.

    Attributes:
        matrices: (t, 4, 4) in mm about the grid's middle, axes (column, row, slice): point of the fixed image -> point
            of the frame. displacement_mm: (t,) largest within the head. rotation_deg: (t,).
        correlation: (t,) of the corrected frame with the fixed image.
        corrected: (t,) frames that were resampled. beyond_repair: (t,) frames that do not fit even so.
    """

    matrices: np.ndarray
    displacement_mm: np.ndarray
    rotation_deg: np.ndarray
    correlation: np.ndarray
    corrected: np.ndarray
    beyond_repair: np.ndarray


def correct_motion(
    frames: Volume,
    reference: int = 3,
    device: str = "cpu",
    in_place: bool = False,
    progress: Progress | None = None,
) -> tuple[Volume, Motion]:
    """Frames (t, k, j, i) in HU brought to the position of the first ``reference`` frames' mean, and the motion.

    ``in_place`` writes into the given array, for acquisitions of which there is no room for a second one.
    """
    spacing = np.array(frames.spacing_mm)
    progress = progress or Progress()
    motion = estimate_motion(frames.array, spacing, reference, device, progress.part(0.0, 0.8))
    if not motion.corrected.any():
        return frames, motion
    array = frames.array if in_place else frames.array.copy()
    for frame in np.flatnonzero(motion.corrected):
        progress(0.8 + 0.2 * frame / len(array), "Correcting motion")
        image = torch.as_tensor(frames.array[frame], device=device).float()[None]
        matrix = torch.from_numpy(motion.matrices[frame]).float().to(device)[None]
        moved, _ = _resampled(image, matrix, _points(image.shape[1:], spacing, device), spacing)
        moved = moved.reshape(image.shape[1:]).cpu().numpy()
        array[frame] = np.rint(moved) if array.dtype.kind in "iu" else moved
    return replace(frames, array=array), motion


def has_moved(array: np.ndarray, spacing_mm: np.ndarray, reference: int = 3) -> bool:
    """Whether the skull in frames (t, k, j, i) leaves where it was in the first ones; far quicker than registration.

    Every slice's bone has a centre, a radius, a direction and an amount. A shift moves the centres, a tilt moves them
    apart, a turn changes the direction, and a shift along the slices the radius and the amount, as a skull narrows
    upward. Movement is a change of any of these by more than MOVED_MM (2 % of the amount), as root mean square over
    the slices.
    """
    places = np.array([_bone_places(frame, np.asarray(spacing_mm)) for frame in array])
    if not np.isfinite(places).any(axis=(0, 1)).all():
        return True  # no bone to judge by
    change = places - places[:reference].mean(0)
    return bool(np.sqrt(np.nanmean(change**2, axis=1)).max() > MOVED_MM)


def _bone_places(frame: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """(k, 5) of every slice's bone, in mm: centre (row, column), radius, direction times radius, log of the amount.

    Not a number where a slice holds no bone.
    """
    weight = np.clip(frame, *BONE_HU).astype(np.float32) - BONE_HU[0]
    rows, columns = np.arange(weight.shape[1]) * spacing_mm[1], np.arange(weight.shape[2]) * spacing_mm[0]
    by_row, by_column = weight.sum(2, dtype=np.float64), weight.sum(1, dtype=np.float64)
    total = by_row.sum(1)
    total[total == 0] = np.nan
    row, column = by_row @ rows / total, by_column @ columns / total
    rows_square, columns_square = by_row @ rows**2 / total - row**2, by_column @ columns**2 / total - column**2
    crossed = np.einsum("kji,j,i->k", weight, rows, columns, optimize=True) / total - row * column
    radius = np.sqrt(rows_square + columns_square)
    # a turn by a small angle changes the crossed moment by the angle times the difference of the two squares
    direction = crossed / np.maximum(np.abs(rows_square - columns_square), 0.1 * radius**2) * radius
    return np.stack([row, column, radius, direction, 10 * np.log(total)], 1)


def estimate_motion(
    array: np.ndarray,
    spacing_mm: np.ndarray,
    reference: int = 3,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Motion:
    """Measure the motion of frames (t, k, j, i); ``spacing_mm`` is (column, row, slice)."""
    progress = progress or Progress()
    matrices = torch.eye(4, device=device).repeat(len(array), 1, 1)
    for number, grid_mm in enumerate(GRIDS_MM):
        part = progress.part(number / len(GRIDS_MM), (number + 1) / len(GRIDS_MM))
        images, spacing = _coarse(array, spacing_mm, grid_mm, device)
        matrices, correlation = _registered(images, images[:reference].mean(0), spacing, matrices, part)
    found = matrices.cpu().numpy().astype(float)
    reach = HEAD_RADIUS_MM * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 0.5], [0, 0, -0.5]])
    moved = reach @ found[:, :3, :3].transpose(0, 2, 1) + found[:, None, :3, 3] - reach
    displacement = np.linalg.norm(moved, axis=2).max(1)
    cosine = (np.trace(found[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    beyond = (correlation < LEAST_CORRELATION) | (displacement > BEYOND_MM)
    angle = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    return Motion(found, displacement, angle, correlation, (displacement > LEFT_MM) & ~beyond, beyond)


def _coarse(array: np.ndarray, spacing_mm: np.ndarray, grid_mm: float, device: str) -> tuple[torch.Tensor, np.ndarray]:
    """Clamped frames averaged in-plane to about ``grid_mm``, and their spacing; the grid's middle stays."""
    factor = np.maximum(1, np.rint(grid_mm / np.asarray(spacing_mm[:2]))).astype(int)
    columns, rows = factor
    height, width = array.shape[2] // rows * rows, array.shape[3] // columns * columns
    top, left = (array.shape[2] - height) // 2, (array.shape[3] - width) // 2
    images = []
    for frame in array:
        image = torch.as_tensor(frame[:, top : top + height, left : left + width], device=device).float()
        image = image.clamp(*CLAMP_HU).unflatten(2, (-1, columns)).unflatten(1, (-1, rows))
        images.append(image.mean((2, 4)))
    sigmas = (BLUR_SLICES, BLUR_PX, BLUR_PX)
    stacked = torch.stack(images)
    blurred = blur(stacked, sigmas) / blur(torch.ones_like(stacked[0]), sigmas)
    return blurred, np.array([spacing_mm[0] * columns, spacing_mm[1] * rows, spacing_mm[2]])


def _registered(
    images: torch.Tensor, fixed: torch.Tensor, spacing_mm: np.ndarray, matrices: torch.Tensor, progress: Progress
) -> tuple[torch.Tensor, np.ndarray]:
    """Gauss-Newton from given matrices; the outermost slices, which motion takes out of view, do not count."""
    points = _points(fixed.shape, spacing_mm, fixed.device)
    counted = torch.zeros_like(fixed)
    counted[EDGE:-EDGE] = 1.0
    counted = counted if fixed.shape[0] > 2 * EDGE + 2 else torch.ones_like(fixed)
    jacobian = _jacobian(fixed, points, spacing_mm) * counted.flatten()[:, None]
    normal = jacobian.T @ jacobian
    solve = torch.linalg.solve(normal + 1e-6 * normal.diagonal().mean() * torch.eye(6).to(normal), jacobian.T)
    for step in range(STEPS):
        progress(step / STEPS, "Measuring motion")
        moved, inside = _resampled(images, matrices, points, spacing_mm)
        matrices = matrices @ torch.linalg.inv(_rigid((moved - fixed.flatten()).mul_(inside) @ solve.T))
    moved, inside = _resampled(images, matrices, points, spacing_mm)
    weight = inside * counted.flatten()
    pair = torch.stack([moved, fixed.flatten().expand_as(moved)])
    pair = (pair - ((pair * weight).sum(2) / weight.sum(1).clamp(min=1))[..., None]) * weight
    correlation = (pair[0] * pair[1]).sum(1) / (pair[0].norm(dim=1) * pair[1].norm(dim=1)).clamp(min=1e-9)
    return matrices, correlation.cpu().numpy()


def _points(shape_kji: tuple[int, ...], spacing_mm: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """(n, 3) mm of every voxel about the grid's middle, axes (column, row, slice)."""
    axes = [(torch.arange(n, device=device) - (n - 1) / 2) * float(s) for n, s in zip(shape_kji, spacing_mm[::-1])]
    k, j, i = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([i, j, k], -1).reshape(-1, 3)


def _jacobian(fixed: torch.Tensor, points: torch.Tensor, spacing_mm: np.ndarray) -> torch.Tensor:
    """(n, 6) change of the image with a small translation (3, mm) and rotation (3, rad) of its points."""
    k, j, i = torch.gradient(fixed, spacing=[float(s) for s in spacing_mm[::-1]])
    gradient = torch.stack([i, j, k], -1).reshape(-1, 3)
    return torch.cat([gradient, torch.cross(points, gradient, dim=1)], 1)


def _rigid(steps: torch.Tensor) -> torch.Tensor:
    """(t, 4, 4) of small translations and rotations (t, 6), exactly rigid."""
    twist = steps.new_zeros((len(steps), 4, 4))
    x, y, z = steps[:, 3:].unbind(1)
    twist[:, 0, 1], twist[:, 0, 2], twist[:, 1, 2] = -z, y, -x
    twist[:, :3, :3] -= twist[:, :3, :3].transpose(1, 2).clone()
    twist[:, :3, 3] = steps[:, :3]
    return torch.linalg.matrix_exp(twist)


def _resampled(
    images: torch.Tensor, matrices: torch.Tensor, points: torch.Tensor, spacing_mm: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """(t, n) values of images (t, k, j, i) at the moved points, and whether these lie within the grid."""
    size = torch.tensor(images.shape[:0:-1], device=images.device)
    half_mm = (size - 1).clamp(min=1) / 2 * torch.as_tensor(spacing_mm.copy(), device=images.device).float()
    values, inside = [], []
    for image, matrix in zip(images, matrices):
        at = (points @ matrix[:3, :3].T + matrix[:3, 3]) / half_mm
        grid = at.reshape(1, *image.shape, 3) if len(at) == image.numel() else at.reshape(1, 1, 1, -1, 3)
        value = torch.nn.functional.grid_sample(
            image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        values.append(value.flatten())
        inside.append((at.abs() <= 1).all(1))
    return torch.stack(values), torch.stack(inside)
