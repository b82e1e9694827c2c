"""Whether an image lies in the patient as its header says: a network that knows spines sees more the right way up.

Networks of the display frame are trained on spines that stand upright and face left. The strongest slab is shown to
the network once more upside down, back to front, and both, and so is the middle one if that leaves a doubt; where it
then names clearly more discs in their order from above, the header is wrong. Right and left cannot be told apart so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.errors import GeometryError
from SpineDiscLabelLib.locate import peaks
from SpineDiscLabelLib.networks.hourglass import STRIDE

if TYPE_CHECKING:
    from SpineDiscLabelLib.disc_inference import DiscPredictor
    from SpineDiscLabelLib.evidence import Evidence

#: How the images may be turned: rows reversed, columns reversed, and what that makes of a person.
TURNS = ((True, False, "upside down"), (False, True, "back to front"), (True, True, "upside down and back to front"))
#: The header is called wrong if a turned image shows this many times the evidence of named discs, and so much more.
#: With the starter, 17 real lumbar scans and 12 simulated series the right way up reach 0.67 times at most; the real
#: ones turned upside down or back to front 1.6 times at least, 0.97 times if only the strongest slab is looked at.
CLEARLY, AT_LEAST = 1.4, 0.8
#: Up to this many times the strongest slab leaves no doubt.
DOUBTFUL = 0.8


def require_right_way(evidence: Evidence, predictor: DiscPredictor, threshold: float) -> None:
    """Raise GeometryError if the network names clearly more discs in the image turned another way.

    Args:
        evidence: what was seen as the header says.
        predictor: of the same network.
        threshold: strength from which something is a disc.
    """
    if evidence.images.preprocessing.frame != "display" or not evidence.strength.any():
        return
    tile, strongest = _best_view(evidence)
    plain, turned = 0.0, np.zeros(len(TURNS))
    for slab in dict.fromkeys((strongest, len(evidence.strength) // 2)):
        plain = max(plain, _named_as_told(evidence, tile, slab, threshold))
        turned = np.maximum(turned, _named_turned(evidence, predictor, tile, slab, threshold))
        if turned.max() <= DOUBTFUL * plain:
            return
    if turned.max() > max(CLEARLY * plain, plain + AT_LEAST):
        raise GeometryError(
            f"The spine lies {TURNS[int(turned.argmax())][2]} in the image, so its header names wrong directions; "
            "correct the orientation in the header, or export the series again."
        )


def _named_as_told(evidence: Evidence, tile: tuple[int, int], slab: int, threshold: float) -> float:
    """Evidence of named discs in one tile of a slab as the header says; from what the network has seen already."""
    shown = evidence.images.preprocessing
    scores = evidence.scores[(slab, slice(None), *_part(evidence, tile))]
    return _named_evidence(scores, shown.levels, threshold, shown.pixel_mm * STRIDE)


def _part(evidence: Evidence, tile: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the scores that belong to a tile."""
    side = evidence.images.preprocessing.tile // STRIDE
    top, left = ((start - corner) // STRIDE for start, corner in zip(tile, evidence.corner))
    return slice(top, top + side), slice(left, left + side)


def _named_turned(
    evidence: Evidence, predictor: DiscPredictor, tile: tuple[int, int], slab: int, threshold: float
) -> np.ndarray:
    """The same for every one of :data:`TURNS`."""
    images, shown = evidence.images, evidence.images.preprocessing
    plain = images.stack([images.positions_mm[slab]], tile)
    views = np.concatenate([np.flip(plain, [2] * down + [3] * back) for down, back, _ in TURNS])
    sums = np.zeros(len(views))
    for numbers, scores in predictor.batches(lambda numbers: views[numbers], len(views), stage="Checking the header"):
        sums[numbers] = [_named_evidence(one, shown.levels, threshold, shown.pixel_mm * STRIDE) for one in scores]
    return sums


def _best_view(evidence: Evidence) -> tuple[tuple[int, int], int]:
    """The tile and slab with the most evidence."""
    slab = int(np.argmax(evidence.strength.sum(axis=(1, 2))))
    rows, columns = evidence.strength[slab].sum(axis=1), evidence.strength[slab].sum(axis=0)

    def inside(tile: tuple[int, int]) -> float:
        down, across = _part(evidence, tile)
        return float(rows[down].sum() * columns[across].sum())

    return max(evidence.images.tiles(), key=inside), slab


def _named_evidence(scores: np.ndarray, levels: int, threshold: float, pixel_mm: float) -> float:
    """The most evidence of (classes, rows, columns) that discs named in their order from above can have."""
    scores = np.clip(scores, 0, 1)
    strength = scores[levels] if len(scores) > levels else scores.max(axis=0)
    found = sorted(peaks(strength[None], threshold, (1.0, pixel_mm, pixel_mm)), key=lambda place: place[1])
    best = np.zeros(levels + 1)  # of chains from above that end before each level
    for _, row, column in found:
        best[1:] = np.maximum(best[1:], scores[:levels, row, column] + np.maximum.accumulate(best)[:-1])
    return float(best.max())
