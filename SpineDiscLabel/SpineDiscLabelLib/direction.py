"""Whether an image lies in the patient as its header says: a network that knows spines sees more the right way up.

Networks of the display frame are trained on spines that stand upright and face left. The strongest slab and the middle
one are shown to the network once more upside down, back to front, and both; where it then names clearly more discs in
their order from above, the header is wrong. Right and left cannot be told apart in this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.errors import GeometryError
from SpineDiscLabelLib.locate import peaks

if TYPE_CHECKING:
    from SpineDiscLabelLib.disc_inference import DiscPredictor
    from SpineDiscLabelLib.evidence import Evidence

#: How the images may be turned: rows reversed, columns reversed, and what that makes of a person.
TURNS = ((True, False, "upside down"), (False, True, "back to front"), (True, True, "upside down and back to front"))
#: The header is called wrong if a turned image shows this many times the evidence of named discs, and so much more.
#: With the starter, 17 real lumbar scans and 12 simulated series the right way up reach 0.67 times at most; the real
#: ones turned upside down or back to front 1.6 times at least.
CLEARLY, AT_LEAST = 1.4, 0.8


def require_right_way(evidence: Evidence, predictor: DiscPredictor, threshold: float) -> None:
    """Raise GeometryError if the network names clearly more discs in the image turned another way.

    Args:
        evidence: what was seen as the header says.
        predictor: of the same network.
        threshold: strength from which something is a disc.
    """
    images, shown = evidence.images, evidence.images.preprocessing
    if shown.frame != "display" or not evidence.strength.any():
        return
    tile, slabs = _best_view(evidence)
    plain = images.stack(images.positions_mm[slabs], tile)
    turned = [np.flip(plain, [2] * down + [3] * back) for down, back, _ in TURNS]
    views = np.ascontiguousarray(np.concatenate([plain, *turned]))
    sums = np.zeros(len(views))
    for numbers, scores in predictor.batches(lambda numbers: views[numbers], len(views), stage="Checking the header"):
        sums[numbers] = [_named_evidence(one, shown.levels, threshold, 4 * shown.pixel_mm) for one in scores]
    sums = sums.reshape(-1, len(slabs)).max(axis=1)
    best = int(np.argmax(sums[1:]))
    if sums[1 + best] > max(CLEARLY * sums[0], sums[0] + AT_LEAST):
        raise GeometryError(
            f"The spine lies {TURNS[best][2]} in the image, so its header names wrong directions; correct the "
            "orientation in the header, or export the series again."
        )


def _best_view(evidence: Evidence) -> tuple[tuple[int, int], list[int]]:
    """The tile with the most evidence, and the slab with it and the middle one: turned, any slab may be strongest."""
    slab = int(np.argmax(evidence.strength.sum(axis=(1, 2))))
    rows, columns = evidence.strength[slab].sum(axis=1), evidence.strength[slab].sum(axis=0)
    side = evidence.images.preprocessing.tile // 4

    def inside(tile: tuple[int, int]) -> float:
        top, left = ((start - corner) // 4 for start, corner in zip(tile, evidence.corner))
        return float(rows[top : top + side].sum() * columns[left : left + side].sum())

    return max(evidence.images.tiles(), key=inside), sorted({slab, len(evidence.strength) // 2})


def _named_evidence(scores: np.ndarray, levels: int, threshold: float, pixel_mm: float) -> float:
    """The most evidence of (classes, rows, columns) that discs named in their order from above can have."""
    scores = np.clip(scores, 0, 1)
    strength = scores[levels] if len(scores) > levels else scores.max(axis=0)
    found = sorted(peaks(strength[None], threshold, (1.0, pixel_mm, pixel_mm)), key=lambda place: place[1])
    best = np.zeros(levels + 1)  # of chains from above that end before each level
    for _, row, column in found:
        best[1:] = np.maximum(best[1:], scores[:levels, row, column] + np.maximum.accumulate(best)[:-1])
    return float(best.max())
