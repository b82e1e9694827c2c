"""An estimate of disc heights from grey values: no outline, a profile along the spine through each disc.

On T1 and on T2 marrow is brighter than the endplate beside it, and a disc ends where, going outward, the profile rises
steepest toward the marrow. That rise lies beyond the endplate, so an allowance is taken off: the mean difference to
the outlines of 17 patients of the SPIDER set (T2 SPACE, 0.9 mm); the SD of what remains there was 1.3 mm. Numpy only.
"""

from __future__ import annotations

import numpy as np

from NeuraxisLib.volume import Volume

#: Profiles are sampled this far from the centre and in these steps; the edge is looked for between these distances.
REACH_MM, STEP_MM = 12.0, 0.25
NEAREST_EDGE_MM, FURTHEST_EDGE_MM = 1.5, 10.0
#: Profiles on a small patch of the disc are averaged: offsets to the front and back, and to the sides, in mm.
PATCH_AP_MM, PATCH_RL_MM = np.arange(-5.0, 5.1, 1.0), np.array([-3.0, 0.0, 3.0])
#: SD of the smoothing along the profile, and the least share of the marrow's brightness that an edge has to rise by.
SMOOTHING_MM, LEAST_RISE = 0.7, 0.15
#: What both endplates take of the distance between the rises, in mm. With it heights differ from those of outlines by
#: 1.3 mm (SD), on T2 of 17 patients; ``columns.csv`` tells the reader so.
ENDPLATES_MM = 3.4


def disc_height_mm(points: np.ndarray, directions: np.ndarray, image: Volume) -> list[float | None]:
    """Height of each disc along the spine, or None where no edge stands out or the image ends.

    Args:
        points: (n, 3) RAS mm of the centres.
        directions: (n, 3) unit vectors along the spine.
        image: (k, j, i) MR.
    """
    volume = image.regular()
    return [_height(profile_at(volume, *pair)) for pair in zip(points, directions)]


def profile_at(volume: Volume, point: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
    """Mean grey value along the spine from below to above a disc's centre, in steps of STEP_MM; None at the border."""
    along = np.arange(-REACH_MM, REACH_MM + STEP_MM / 2, STEP_MM)
    right = np.array([1.0, 0.0, 0.0])
    forward = np.cross(direction, right)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, direction)
    patch = PATCH_AP_MM[:, None, None] * forward + PATCH_RL_MM[None, :, None] * right
    positions = point + along[:, None, None, None] * direction + patch[None]
    values = sample(volume, positions.reshape(-1, 3)).reshape(len(along), -1)
    inside = np.isfinite(values).all(axis=0)
    return values[:, inside].mean(axis=1) if inside.sum() >= len(PATCH_AP_MM) else None


def sample(volume: Volume, positions_ras_mm: np.ndarray) -> np.ndarray:
    """(n,) trilinear values of a (k, j, i) volume at RAS positions; NaN more than half a voxel outside."""
    inverse = np.linalg.inv(volume.ijk_to_ras)
    kji = (inverse[:3, :3] @ positions_ras_mm.T + inverse[:3, 3:])[::-1]
    last = np.array(volume.array.shape)[:, None] - 1
    outside = ((kji < -0.5) | (kji > last + 0.5)).any(axis=0)
    kji = np.clip(kji, 0, last)
    low = np.minimum(kji.astype(int), np.maximum(last - 1, 0))
    at, share = (low, np.minimum(low + 1, last)), kji - low
    weights, value = (1 - share, share), np.zeros(kji.shape[1])
    for k, j, i in np.ndindex(2, 2, 2):
        corner = volume.array[at[k][0], at[j][1], at[i][2]]
        value += weights[k][0] * weights[j][1] * weights[i][2] * corner
    value[outside] = np.nan
    return value


def _height(profile: np.ndarray | None) -> float | None:
    """Distance between the steepest rises to either side, without the endplates."""
    if profile is None:
        return None
    reach = int(round(3 * SMOOTHING_MM / STEP_MM))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * STEP_MM / SMOOTHING_MM) ** 2)
    smooth = np.convolve(np.pad(profile, reach, mode="edge"), kernel / kernel.sum(), mode="valid")
    middle = len(smooth) // 2
    edges = [_edge_mm(smooth[middle:]), _edge_mm(smooth[middle::-1])]
    return None if None in edges else max(0.0, float(sum(edges)) - ENDPLATES_MM)


def _edge_mm(outward: np.ndarray) -> float | None:
    """Distance of the steepest rise from the centre, with a parabola through the slopes beside it; None if too weak."""
    slope = np.diff(outward)  # slope[i] lies at (i + 0.5) steps
    first, last = (int(limit / STEP_MM) for limit in (NEAREST_EDGE_MM, FURTHEST_EDGE_MM))
    peak = first + int(np.argmax(slope[first:last]))
    if not first < peak < last - 1 or slope[peak] <= 0:
        return None
    around = int(round(3.0 / STEP_MM))
    rise = outward[peak : peak + around].max() - outward[max(0, peak - around) : peak + 1].min()
    if rise < LEAST_RISE * abs(outward[peak : peak + around].max()):
        return None
    before, at, after = slope[peak - 1 : peak + 2]
    bow = before - 2 * at + after
    shift = 0.5 * (before - after) / bow if bow < 0 else 0.0
    return (peak + 0.5 + float(np.clip(shift, -0.5, 0.5))) * STEP_MM
