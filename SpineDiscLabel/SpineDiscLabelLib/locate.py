"""From the network's heat maps to candidates: peaks between voxels, each where its evidence is strongest in x too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.models import ModelFile
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_COUNT, FIRST_DISC
from SpineDiscLabelLib.preprocessing import SagittalPreprocessing
from SpineDiscLabelLib.sagittal import sagittal_images

if TYPE_CHECKING:
    from SpineDiscLabelLib.evidence import Evidence

#: Of two peaks nearer than this in x, rows and columns the weaker one is the same disc.
SAME_DISC_MM = (20.0, 7.0, 10.0)
#: A peak's place is the centre of what exceeds half its height within this distance in x, rows and columns.
CENTRE_MM = (14.0, 6.0, 6.0)
#: Along the spine, x of the mid-sagittal band is averaged with this standard deviation.
BAND_SMOOTHING_MM = 40.0
#: Peaks farther than this from the mid-sagittal band are facet joints, ribs or kidneys.
BAND_MM = 25.0


def locate(
    volume: Volume,
    model: ModelFile,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> list[Candidate]:
    """Candidates for discs in a sagittal spine MR of any orientation, from above downward.

    Args:
        volume: (k, j, i), any unit; see :func:`SpineDiscLabelLib.checks.require_spine_mr` for what is refused before.
        model: a model file of the task; its ``threshold`` is the strength below which nothing is reported.
        device, precision: see :class:`NeuraxisLib.inference.Predictor`.
        progress: told how far it is; cancels.

    Raises:
        GeometryError, ModelError, CancelledError.
    """
    from SpineDiscLabelLib.disc_inference import disc_predictor
    from SpineDiscLabelLib.evidence import look

    preprocessing = SagittalPreprocessing.from_dict(model.header["preprocessing"])
    images = sagittal_images(volume, preprocessing)
    evidence = look(images, disc_predictor(model, device, precision), progress)
    return candidates_of(evidence, float(model.header["threshold"]))


def candidates_of(evidence: Evidence, threshold: float) -> list[Candidate]:
    """The candidates in the network's heat maps, of at least the strength ``threshold``, from above downward."""
    images = evidence.images
    strength = evidence.strength_pixels()
    pixel_mm, step_mm = images.preprocessing.pixel_mm, _step_mm(images.positions_mm)
    found = []
    for slab, row, column in peaks(strength, threshold, (step_mm, pixel_mm, pixel_mm)):
        at = _centre(strength, (slab, row, column), (step_mm, pixel_mm, pixel_mm))
        point_mm = (np.interp(at[0], np.arange(len(images.positions_mm)), images.positions_mm), *(at[1:] * pixel_mm))
        levels = _levels_at(evidence, slab, at[1:])
        found.append((np.array(point_mm), float(strength[slab, row, column]), np.minimum(levels, 1.0)))
    band = mid_sagittal_band(strength, images.positions_mm, pixel_mm)
    kept: list[tuple] = []
    for one in found:  # strongest first; what has moved to the centre of a stronger one is the same disc
        beside = abs(one[0][0] - np.interp(one[0][1] / pixel_mm, *band))
        if beside <= BAND_MM and not any((np.abs(one[0] - other[0]) <= SAME_DISC_MM).all() for other in kept):
            kept.append(one)
    kept.sort(key=lambda one: one[0][1])
    return [Candidate(images.to_ras(point), min(strong, 1.0), levels) for point, strong, levels in kept]


def peaks(strength: np.ndarray, threshold: float, steps_mm: tuple[float, float, float]) -> list[tuple[int, int, int]]:
    """(slab, row, column) of every local maximum (n, rows, columns) from ``threshold`` on, strongest first.

    Args:
        strength: how much of a disc is where.
        threshold: the least that counts.
        steps_mm: size of a voxel in x, rows and columns.
    """
    from scipy.ndimage import label, maximum_filter

    reach = [int(np.ceil(same / step)) for same, step in zip(SAME_DISC_MM, steps_mm)]
    highest = maximum_filter(strength, size=[2 * n + 1 for n in reach], mode="constant")
    summits, count = label((strength == highest) & (strength >= threshold), np.ones((3, 3, 3)))
    if not count:
        return []
    places = np.argwhere(summits)
    _, first = np.unique(summits[tuple(places.T)], return_index=True)  # one voxel of each flat summit
    places = places[first]
    places = places[np.argsort(-strength[tuple(places.T)], kind="stable")]
    kept = np.empty((0, 3), int)
    for place in places:  # of equal heights near each other the first stands for all
        if not (np.abs(kept - place) <= reach).all(axis=1).any():
            kept = np.concatenate([kept, place[None]])
    return [tuple(int(n) for n in place) for place in kept]


def _centre(strength: np.ndarray, peak: tuple[int, int, int], steps_mm: tuple[float, float, float]) -> np.ndarray:
    """(3,) index, between voxels, of the centre of what exceeds half the peak's height around it."""
    reach = [int(np.ceil(far / step)) for far, step in zip(CENTRE_MM, steps_mm)]
    spans = [slice(max(0, at - n), at + n + 1) for at, n in zip(peak, reach)]
    weights = np.maximum(strength[tuple(spans)] - strength[peak] / 2, 0)
    offsets = np.ogrid[tuple(slice(0, length) for length in weights.shape)]
    centre = [(weights * offset).sum() / weights.sum() for offset in offsets]
    return np.array(centre) + [span.start for span in spans]


def _levels_at(evidence: Evidence, slab: int, at: np.ndarray) -> np.ndarray:
    """(24,) evidence for every disc at the pixel ``at`` (row, column) of a slab."""
    from scipy.ndimage import map_coordinates

    from SpineDiscLabelLib.networks.hourglass import STRIDE

    shown = evidence.images.preprocessing
    row, column = ((place - corner + 0.5) / STRIDE - 0.5 for place, corner in zip(at, evidence.corner))
    out = np.zeros(DISC_COUNT)
    first = shown.first_disc - FIRST_DISC
    out[first : first + shown.levels] = [
        map_coordinates(level, [[row], [column]], order=1, mode="nearest")[0] for level in evidence.levels[slab]
    ]
    return out


def mid_sagittal_band(strength: np.ndarray, positions_mm: np.ndarray, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the middle of the spine lies: (row numbers, x in mm of each), following a curved spine.

    x of a row is the mean of all evidence, weighted by its strength and by nearness along the spine.

    Args:
        strength: (n, rows, columns), 0 where there is no disc.
        positions_mm: (n,) x of the slabs.
        pixel_mm: size of a row.
    """
    from scipy.ndimage import gaussian_filter1d

    weights = np.square(strength).sum(axis=2)  # (n, rows); squared, so that faint smears count little
    sums = np.stack([weights.sum(axis=0), (weights * positions_mm[:, None]).sum(axis=0)])
    smooth = gaussian_filter1d(sums, BAND_SMOOTHING_MM / pixel_mm, axis=1, mode="constant")
    rows = np.flatnonzero(smooth[0] > 1e-6 * max(smooth[0].max(), 1e-9))
    if rows.size == 0:
        return np.array([0.0]), np.array([float(np.mean(positions_mm))])
    return rows.astype(float), smooth[1, rows] / smooth[0, rows]


def _step_mm(positions_mm: np.ndarray) -> float:
    return float(positions_mm[1] - positions_mm[0]) if len(positions_mm) > 1 else 1.0
