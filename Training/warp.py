"""Rotation, scale, shift and bending of whole batches, in one interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

#: (lowest, highest).
Range = tuple[float, float]
#: Control points of the bending beside the grid on either side, as a cubic B-spline needs them.
OUTSIDE = 3


@dataclass(frozen=True)
class Warp:
    """Move the content of images (linear interpolation) and masks (nearest neighbour) alike.

    What comes from beyond an image is the lowest value of its channel (air in CT, whatever the normalisation), beyond
    a mask 0. Bending is a cubic B-spline whose control points are drawn normally and held so close that the image is
    never folded.

    Attributes:
        rotate_deg: range of the rotation in the plane of the first two axes, clockwise as images are shown.
        rotate_choices_deg: angles of which one is taken instead.
        tilt_deg: range of the rotations in the two planes with the third axis.
        scale: range of the factor by which everything grows, drawn evenly in the logarithm.
        shift: range of the shift along each axis as a share of the image.
        bend: standard deviation of the control points' shift, in the units of ``spacing``.
        bend_cells: cells between control points along each axis.
        spacing: size of a voxel along each axis; all 1 where not given.
    """

    rotate_deg: Range = (0.0, 0.0)
    rotate_choices_deg: tuple[float, ...] = ()
    tilt_deg: Range = (0.0, 0.0)
    scale: Range = (1.0, 1.0)
    shift: Range = (0.0, 0.0)
    bend: float = 0.0
    bend_cells: int = 4
    spacing: tuple[float, ...] | None = None
    probability: float = 1.0

    def __call__(
        self, images: Tensor, masks: Tensor, generators: Sequence[np.random.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Moved images (n, c, ...) and masks (n, m, ...), one generator per sample."""
        size = images.shape[2:]
        drawn = [self._draw(generator, size) for generator in generators]
        matrices = torch.from_numpy(np.stack([matrix for matrix, _ in drawn])).to(images)
        grid = functional.affine_grid(matrices, [len(images), 1, *size], align_corners=False)
        if self.bend > 0:
            points = torch.from_numpy(np.stack([points for _, points in drawn])).to(images)
            grid = grid + _bent(points, size).movedim(1, -1).flip(-1)
        low = images.amin(tuple(range(2, images.dim())), keepdim=True)
        moved = functional.grid_sample(images - low, grid, mode="bilinear", align_corners=False) + low
        values = masks.to(images)
        return moved, functional.grid_sample(values, grid, mode="nearest", align_corners=False).to(masks)

    def _draw(self, generator: np.random.Generator, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """((d, d + 1) of affine_grid, (d, points, ...) control points); both in halves of the image."""
        d = len(size)
        spacing = np.array(self.spacing or (1.0,) * d)
        half = np.array(size) / 2
        turn = self._rotation(generator, d)
        back = turn.T / uniform(generator, self.scale, True)  # from where a point of the result comes
        back = np.diag(1 / (half * spacing)) @ back @ np.diag(half * spacing)
        shift = np.array([2 * uniform(generator, self.shift) for _ in range(d)])
        matrix = np.concatenate([back, (-back @ shift)[:, None]], axis=1)
        matrix[:, :d] = matrix[:, :d][:, ::-1]  # affine_grid counts its axes from the last one
        cells = self.bend_cells
        points = generator.standard_normal((d, *[cells + OUTSIDE] * d)) * self.bend
        limit = (
            0.4 / d * (np.array(size) * spacing / cells).min()
        )  # derivatives sum up to 0.8: no fold up to scale 1.25
        points = points.clip(-limit, limit) / (half * spacing).reshape(-1, *[1] * d)
        return matrix[::-1].copy(), points

    def _rotation(self, generator: np.random.Generator, d: int) -> np.ndarray:
        """(d, d) rotation of content, in the order of the axes."""
        if self.rotate_choices_deg:
            angle = self.rotate_choices_deg[generator.integers(len(self.rotate_choices_deg))]
        else:
            angle = uniform(generator, self.rotate_deg)
        turn = _turn(d, 1, 0, angle)
        if d == 3:
            for axis in (0, 1):
                turn = _turn(d, axis, 2, uniform(generator, self.tilt_deg)) @ turn
        return turn


def uniform(generator: np.random.Generator, bounds: Range, logarithmic: bool = False) -> float:
    """A number between the bounds, evenly or evenly in its logarithm."""
    low, high = bounds
    if logarithmic:
        return math.exp(generator.uniform(math.log(low), math.log(high)))
    return float(generator.uniform(low, high))


def _turn(d: int, one: int, other: int, angle_deg: float) -> np.ndarray:
    """(d, d) rotation that takes axis ``one`` towards axis ``other``."""
    matrix, angle = np.eye(d), math.radians(angle_deg)
    matrix[one, one] = matrix[other, other] = math.cos(angle)
    matrix[other, one], matrix[one, other] = math.sin(angle), -math.sin(angle)
    return matrix


def _bent(points: Tensor, size: Sequence[int]) -> Tensor:
    """(n, d, *size) values of the cubic B-spline with control points (n, d, ...)."""
    for axis, length in enumerate(size, start=2):
        basis = _basis(length, points.shape[axis] - OUTSIDE).to(points)
        points = torch.tensordot(points, basis, dims=([axis], [1])).movedim(-1, axis)
    return points


def _basis(length: int, cells: int) -> Tensor:
    """(length, cells + 3) what each control point of a uniform cubic B-spline adds at each pixel centre."""
    where = (torch.arange(length, dtype=torch.float64) + 0.5) * cells / length
    first = where.floor()
    t = where - first
    weights = torch.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], dim=1
    ) / 6  # fmt: skip
    basis = torch.zeros(length, cells + OUTSIDE, dtype=torch.float64)
    return basis.scatter_(1, first.long()[:, None] + torch.arange(4), weights)
