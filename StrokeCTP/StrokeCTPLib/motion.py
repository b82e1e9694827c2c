"""Rigid motion between the frames of a perfusion acquisition: measured at a coarse grid, corrected at the full one.

All frames are registered at once to the mean of the first ones by inverse-compositional Gauss-Newton (Baker and
Matthews 2004): the Jacobian comes from the fixed image alone, so that an iteration is one resampling and one matrix
product. Air, skin and skull lead; contrast is small beside them. What motion brings in from beyond the grid does not
count. Frames that lie within
half a millimetre are left as they are, as resampling blurs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

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


def correct_motion(frames: Volume, reference: int = 3, device: str = "cpu") -> tuple[Volume, Motion]:
    """Frames (t, k, j, i) in HU brought to the position of the first ``reference`` frames' mean, and the motion."""
    spacing = np.array(frames.spacing_mm)
    motion = estimate_motion(frames.array, spacing, reference, device)
    if not motion.corrected.any():
        return frames, motion
    array = frames.array.copy()
    for frame in np.flatnonzero(motion.corrected):
        image = torch.as_tensor(frames.array[frame], device=device).float()[None]
        matrix = torch.from_numpy(motion.matrices[frame]).float().to(device)[None]
        moved, _ = _resampled(image, matrix, _points(image.shape[1:], spacing, device), spacing)
        moved = moved.reshape(image.shape[1:]).cpu().numpy()
        array[frame] = np.rint(moved) if array.dtype.kind in "iu" else moved
    return replace(frames, array=array), motion


def estimate_motion(array: np.ndarray, spacing_mm: np.ndarray, reference: int = 3, device: str = "cpu") -> Motion:
    """Measure the motion of frames (t, k, j, i); ``spacing_mm`` is (column, row, slice)."""
    matrices = torch.eye(4, device=device).repeat(len(array), 1, 1)
    for grid_mm in GRIDS_MM:
        images, spacing = _coarse(array, spacing_mm, grid_mm, device)
        matrices, correlation = _registered(images, images[:reference].mean(0), spacing, matrices)
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
    images: torch.Tensor, fixed: torch.Tensor, spacing_mm: np.ndarray, matrices: torch.Tensor
) -> tuple[torch.Tensor, np.ndarray]:
    """Gauss-Newton from given matrices; the outermost slices, which motion takes out of view, do not count."""
    points = _points(fixed.shape, spacing_mm, fixed.device)
    counted = torch.zeros_like(fixed)
    counted[EDGE:-EDGE] = 1.0
    counted = counted if fixed.shape[0] > 2 * EDGE + 2 else torch.ones_like(fixed)
    jacobian = _jacobian(fixed, points, spacing_mm) * counted.flatten()[:, None]
    normal = jacobian.T @ jacobian
    solve = torch.linalg.solve(normal + 1e-6 * normal.diagonal().mean() * torch.eye(6).to(normal), jacobian.T)
    for _ in range(STEPS):
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
