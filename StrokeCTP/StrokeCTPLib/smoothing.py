"""Noise reduction within the brain: Gaussian, pooled features, and an edge-preserving filter on time profiles.

Averages are normalised by the mask, so that skull and vessels do not leak into the brain. A Gaussian along an axis is
a product with a small banded matrix, which is faster than a convolution on every processor.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

Box = tuple[slice, slice, slice]


def bounding_box(mask: torch.Tensor) -> Box:
    """Index of the smallest box (k, j, i) around a mask; empty for an empty mask."""
    box = []
    for axis in range(3):
        used = mask.any(dim=tuple(a for a in range(3) if a != axis)).nonzero().flatten()
        box.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0))
    return tuple(box)


def gaussian_matrix(size: int, sigma_px: float, like: torch.Tensor) -> torch.Tensor:
    """(size, size) matrix that smooths an axis; identity for sigma 0. Rows sum to 1 away from the ends."""
    at = np.arange(size)
    if sigma_px <= 0:
        return torch.eye(size, dtype=like.dtype, device=like.device)
    distance = np.subtract.outer(at, at)
    weights = np.exp(-0.5 * (distance / sigma_px) ** 2) * (abs(distance) <= np.ceil(3 * sigma_px))
    total = np.exp(-0.5 * (np.arange(-size, size + 1) / sigma_px) ** 2).sum()
    return torch.as_tensor(weights / total, dtype=like.dtype, device=like.device)


def gaussian(images: torch.Tensor, mask: torch.Tensor, sigma_px: float | tuple[float, float, float]) -> torch.Tensor:
    """Masked Gaussian of images (..., k, j, i): each voxel of the mask becomes the mean of its neighbours within it.

    Args:
        sigma_px: in-plane, or per axis (k, j, i). Voxels outside the mask become 0.
    """
    sigmas = (0.0, sigma_px, sigma_px) if isinstance(sigma_px, (int, float)) else sigma_px
    box = bounding_box(mask)
    inside = mask[box].to(images.dtype)
    result = torch.zeros_like(images)
    if not inside.numel():
        return result
    smooth = blur(images[(..., *box)] * inside, sigmas)
    result[(..., *box)] = smooth.div_(blur(inside, sigmas).clamp_(min=1e-6)).mul_(inside)
    return result


def blur(images: torch.Tensor, sigmas: tuple[float, float, float]) -> torch.Tensor:
    """Plain Gaussian of images (..., k, j, i) along k, j and i, SD in voxels; zero beyond the borders."""
    k, j, i = images.shape[-3:]
    if sigmas[2] > 0:
        images = images @ gaussian_matrix(i, sigmas[2], images)
    if sigmas[1] > 0:
        images = gaussian_matrix(j, sigmas[1], images) @ images
    if sigmas[0] > 0 and k > 1:
        flat = images.reshape(*images.shape[:-2], j * i)
        images = (gaussian_matrix(k, sigmas[0], images) @ flat).reshape(images.shape)
    return images


def voxel_pool(
    mask: torch.Tensor, sigma_px: float | tuple[float, float, float], group: int = 16
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that averages features (n, f) of the mask's n voxels over neighbours, ``group`` features at a time."""
    box = bounding_box(mask)
    inside = mask[box]

    def pool(features: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(features)
        for start in range(0, features.shape[1], group):
            part = features[:, start : start + group]
            images = part.new_zeros((part.shape[1], *inside.shape))
            images[:, inside] = part.T
            result[:, start : start + group] = gaussian(images, inside, sigma_px)[:, inside].T
        return result

    return pool


def temporal(frames: torch.Tensor) -> torch.Tensor:
    """Weights 1/4, 1/2, 1/4 along time (first axis); the end frames keep 3/4 of themselves."""
    padded = torch.cat([frames[:1], frames, frames[-1:]])
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]


def edge_preserving(
    frames: torch.Tensor,
    mask: torch.Tensor,
    sigma_px: float = 3.5,
    guide_sigma_px: float = 2.0,
    strength: float = 2.0,
    rank: int = 8,
) -> torch.Tensor:
    """Average frames (t, k, j, i) over in-plane neighbours whose time profile is alike (after TIPS, Mendrik 2011).

    Weights are a spatial Gaussian times exp(-SSD / (2 s^2)). Profiles are compared after a Gaussian of
    ``guide_sigma_px``, as raw ones differ mostly by noise, in their ``rank`` leading components; s^2 is ``strength``
    times the noise of such a profile. Only these components are averaged so; the rest, which is noise, is smoothed by
    a Gaussian of equal noise reduction. That is several times faster and leaves the noise as white as it was.
    """
    box = bounding_box(mask)
    inside = mask[box]
    images = frames[(slice(None), *box)] * inside
    guide = gaussian(images, inside, guide_sigma_px)
    basis, noise = _leading_components(guide[:, inside], rank)
    leading = (basis.T @ images.flatten(1)).reshape(-1, *inside.shape)
    profiles = (basis.T @ guide.flatten(1)).reshape(leading.shape)
    smooth, gain = _bilateral(leading, profiles, inside, sigma_px, 2 * strength * rank * noise)
    rest = gaussian(images - _combined(basis, leading), inside, 1 / (2 * np.sqrt(np.pi * gain)))
    result = torch.zeros_like(frames)
    result[(slice(None), *box)] = rest.add_(_combined(basis, smooth))
    return result


def _combined(basis: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
    """Frames (t, k, j, i) of components (r, k, j, i)."""
    return (basis @ components.flatten(1)).reshape(-1, *components.shape[1:])


def _leading_components(curves: torch.Tensor, rank: int) -> tuple[torch.Tensor, float]:
    """(t, r) leading directions of curves (t, n), and the noise variance in each other direction."""
    values, vectors = torch.linalg.eigh((curves @ curves.T / curves.shape[1]).double())
    rank = min(rank, len(values) - 1)
    return vectors[:, -rank:].to(curves), max(float(values[:-rank].mean()), 1e-12)


def _bilateral(
    images: torch.Tensor, profiles: torch.Tensor, inside: torch.Tensor, sigma_px: float, scale: float
) -> tuple[torch.Tensor, float]:
    """Weighted averages of images (r, k, j, i), and the mean share of the noise variance that is left."""
    reach = int(np.ceil(2 * sigma_px))
    total, weight, square = torch.zeros_like(images), torch.zeros_like(images[0]), torch.zeros_like(images[0])
    for dj in range(-reach, reach + 1):
        for di in range(-reach, reach + 1):
            if dj**2 + di**2 > reach**2:
                continue
            here, there = _shifted(images.shape, dj, di)
            distance = (profiles[(..., *here)] - profiles[(..., *there)]).square_().sum(0)
            w = torch.exp(distance.div_(-scale).sub_((dj**2 + di**2) / (2 * sigma_px**2))).mul_(inside[(..., *there)])
            weight[(..., *here)] += w
            square[(..., *here)] += w.square()
            total[(..., *here)].addcmul_(images[(..., *there)], w)
    gain = (square / weight.square().clamp(min=1e-12))[inside].mean()
    return total.div_(weight.clamp(min=1e-6)).mul_(inside), float(gain)


def _shifted(shape: tuple[int, ...], dj: int, di: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Index pairs (j, i) of voxels and of their neighbours at an offset, both within the image."""
    here, there = [], []
    for size, step in zip(shape[-2:], (dj, di)):
        here.append(slice(max(0, -step), size - max(0, step)))
        there.append(slice(max(0, step), size - max(0, -step)))
    return tuple(here), tuple(there)
