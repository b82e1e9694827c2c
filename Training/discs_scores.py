"""How good a disc network is on windows into spines that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from SpineDiscLabelLib.preprocessing import SagittalPreprocessing
from Training.discs_views import Sample
from Training.distributed import gathered, rank, world_size
from Training.recipe import Recipe

#: A disc is found if a peak lies this near.
NEAR_MM = 5.0
#: Discs farther from the slab than this are not asked for, nor are peaks there wrong.
_ASKED_MM = 6.0
#: Least height of a peak that counts as a disc found.
_PEAK = 0.3


@torch.inference_mode()
def disc_scores(
    network: nn.Module, cases: Sequence[tuple[str, Sample]], recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """Scores over held-out windows.

    ``located``: share of discs with a peak of the any-disc channel (else of the highest channel) within 5 mm;
    ``false``: peaks at no disc, per disc; ``named``: share of discs at whose place their own channel is the highest;
    ``error_mm``: mean distance of the peaks that were found. The same for ``real`` windows alone. ``score`` is
    located - false / 2 + named / 2, the mean of all and of the real ones.
    """
    network.eval()
    preprocessing = recipe.preprocessing
    own = []
    for source, sample in list(cases)[rank() :: world_size()]:
        image = torch.from_numpy(np.ascontiguousarray(preprocessing.to_network(sample.image)))[None].to(device)
        output = network(image)
        maps = (output if isinstance(output, Tensor) else output[-1])[0].float().cpu().numpy()
        own.append((source, *judged(preprocessing.from_network(maps), sample, preprocessing)))
    rows = [row for share in gathered(own) for row in share]
    found = {**_summed(rows, ""), **_summed([row for row in rows if row[0] == "real"], "real_")}
    parts = [found["score"], found["real_score"]]
    return {**found, "score": float(np.nanmean(parts)) if rows else 0.0}


def _summed(rows: list[tuple], prefix: str) -> dict[str, float]:
    discs, located, named, false, error = (float(sum(row[1 + n] for row in rows)) for n in range(5))
    if not discs:
        return {f"{prefix}score": float("nan")}
    shares = {"located": located / discs, "named": named / discs, "false": false / discs,
              "error_mm": error / max(located, 1)}  # fmt: skip
    score = shares["located"] - shares["false"] / 2 + shares["named"] / 2
    return {f"{prefix}{name}": round(value, 4) for name, value in {**shares, "score": score}.items()}


def judged(maps: np.ndarray, sample: Sample, preprocessing: SagittalPreprocessing) -> tuple[float, ...]:
    """(discs asked for, located, named, false peaks, summed mm of those located) of one window."""
    evidence = maps[-1] if preprocessing.any_disc else maps.max(axis=0)
    peaks = peaks_mm(evidence, preprocessing.pixel_mm)
    in_slab = [abs(x - sample.position_mm) <= _ASKED_MM for x, _, _ in sample.discs_mm]
    points = sample.discs_mm[:, 1:]
    asked = points[in_slab]
    numbers = [number for number, there in zip(sample.numbers, in_slab) if there]
    located, named, error = 0, 0, 0.0
    for point, number in zip(asked, numbers):
        distance = np.linalg.norm(peaks - point, axis=1) if len(peaks) else np.array([np.inf])
        if distance.min() <= NEAR_MM:
            located += 1
            error += float(distance.min())
        row, column = np.clip(np.rint(point / preprocessing.pixel_mm).astype(int), 0, maps.shape[-1] - 1)
        channel = None if number is None else number - preprocessing.first_disc
        named += int(maps[: preprocessing.levels, row, column].argmax() == channel)
    far = [peak for peak in peaks if not len(points) or np.linalg.norm(points - peak, axis=1).min() > 2 * NEAR_MM]
    return float(len(asked)), float(located), float(named), float(len(far)), error


def peaks_mm(evidence: np.ndarray, pixel_mm: float) -> np.ndarray:
    """(n, 2) (row, column) mm of the peaks of a map that rise above :data:`_PEAK`."""
    from scipy import ndimage

    highest = (evidence == ndimage.maximum_filter(evidence, 7)) & (evidence > _PEAK)
    return np.argwhere(highest) * pixel_mm


@torch.inference_mode()
def picture_of(
    cases: Sequence[tuple[str, Sample]], recipe: Recipe, network: nn.Module, device: torch.device
) -> np.ndarray:
    """Image | wanted | found of some windows, (h, w, 3) uint8; for people to look at."""
    from Training.discs import collated
    from Training.validation import triptych

    preprocessing, rows = recipe.preprocessing, []
    for _, sample in cases:
        batch = collated([sample], preprocessing)
        output = network.eval()(batch.images.to(device))
        maps = (output if isinstance(output, Tensor) else output[-1])[0].float().cpu().numpy()
        middle = batch.images[0, batch.images.shape[1] // 2].numpy()
        pictures = [preprocessing.from_network(part) for part in (middle, batch.truth[0].amax(0).numpy(), maps.max(0))]
        rows.append(triptych(np.clip(pictures[0], 0, 1), pictures[1], np.clip(pictures[2], 0, 1)))
    return np.concatenate(rows)
