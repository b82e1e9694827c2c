"""Disc centres as data sets give them, and the traps in their numbers (disc specification 2.3).

Numbers are those of the Spinal Cord Toolbox: 2 is C1/C2, 3 is C2/C3 ... 25 is L5/S1. A channel of a network is bound to
such a number, so a set that lacks its first discs, or has them in only some scans, shifts nothing. What else goes wrong
with numbers is told here.

A store holds a spine so: voxels of its truth are :data:`VERTEBRA`, :data:`CANAL` and :data:`DISC` where masks were
drawn (0 elsewhere), and its provenance lists the disc centres as ``discs``: ``[[number or null, R, A, S], ...]`` in mm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.discs import DISC_NAMES, FIRST_DISC, LAST_DISC
from Training.simulation.spine_anatomy import SIZES_MM

#: Values of a store's truth.
VERTEBRA, CANAL, DISC = 101, 102, 103
#: Value of the top of C1, which the spine-generic set has since 2023 and which is no disc.
TOP_OF_C1 = 1
#: Marks of the brainstem (49 pontomedullary groove, 50 junction) and anything else above the discs.
FIRST_MARK = 30
#: A gap between neighbours this many times the one expected looks like a number that was skipped.
_SKIPPED = 1.75
#: A gap that is this share of the expected one looks like a number too many.
_EXTRA = 0.45


@dataclass
class DiscPoints:
    """Discs of one scan: ``numbers[i]`` (None: not known) at ``ras_mm[i]``; ``warnings`` are sentences."""

    numbers: list[int | None]
    ras_mm: np.ndarray
    warnings: list[str] = field(default_factory=list)

    def provenance(self) -> list[list[float | None]]:
        """As a store keeps them: ``[[number or null, R, A, S], ...]``, from above."""
        return [[n, *(round(float(v), 3) for v in point)] for n, point in zip(self.numbers, self.ras_mm)]


def checked(values: Sequence[int], ras_mm: np.ndarray) -> DiscPoints:
    """Discs from single-voxel labels.

    Values that are no discs are left out and told: 1 (the top of C1), marks from 30 on, what lies below L5/S1.

    Raises:
        InputError: no disc is left, a number is given twice, or numbers do not run downwards.
    """
    values, ras_mm = np.asarray(values, int), np.asarray(ras_mm, float).reshape(-1, 3)
    warnings = _left_out(values)
    kept = (values >= FIRST_DISC) & (values <= LAST_DISC)
    values, ras_mm = values[kept], ras_mm[kept]
    if not len(values):
        raise InputError("The labels hold no disc from C1/C2 (2) to L5/S1 (25); check their values.")
    double = [value for value, count in Counter(values.tolist()).items() if count > 1]
    if double:
        raise InputError(f"The label {double[0]} is given at two places; every disc has one voxel.")
    order = np.argsort(values)
    values, ras_mm = values[order], ras_mm[order]
    if (np.diff(ras_mm[:, 2]) >= 0).any():
        at = int(np.argmax(np.diff(ras_mm[:, 2]) >= 0))
        raise InputError(
            f"{DISC_NAMES[values[at + 1]]} is not below {DISC_NAMES[values[at]]}; correct the numbers or the header."
        )
    return DiscPoints([int(value) for value in values], ras_mm, warnings + _gaps(values, ras_mm))


def _left_out(values: np.ndarray) -> list[str]:
    told = []
    if (values == TOP_OF_C1).any():
        told.append("The label 1 is the top of C1, no disc, and was left out; renumber a set that counts discs from 1.")
    if ((values > LAST_DISC) & (values < FIRST_MARK)).any():
        told.append("Labels below L5/S1 (26 to 29) were left out.")
    if (values >= FIRST_MARK).any():
        told.append("Labels from 30 on mark the brainstem, no discs; they were left out.")
    return told


def _gaps(values: np.ndarray, ras_mm: np.ndarray) -> list[str]:
    """Numbers that are missing within the chain, and gaps that do not fit the numbers."""
    told = []
    absent = sorted(set(range(values[0], values[-1] + 1)) - set(values.tolist()))
    if absent:
        names = ", ".join(DISC_NAMES[number] for number in absent)
        told.append(f"Discs within the chain are not labelled ({names}); they will be taught as absent.")
    if len(values) < 3:
        return told
    lengths = np.linalg.norm(np.diff(ras_mm, axis=0), axis=1)
    expected = np.array([sum(spacing_mm(n) for n in range(a, b)) for a, b in pairwise(values)])
    ratio = lengths / expected
    ratio /= np.median(ratio)
    for (low, high), share in zip(pairwise(values), ratio):
        if share > _SKIPPED or share < _EXTRA:
            word = (
                "far apart; a number may have been skipped" if share > 1 else "close together; a number may be too many"
            )
            told.append(f"{DISC_NAMES[low]} and {DISC_NAMES[high]} lie {word}.")
    return told


def spacing_mm(number: int) -> float:
    """From the centre of a disc to that of the next one below, in an average adult."""
    below = vertebra_below(number)
    height, _, _, disc = SIZES_MM[below]
    above = SIZES_MM[DISC_NAMES[number].split("/")[0]][3] if number > FIRST_DISC else 0.0
    return height + (disc + above) / 2


def vertebra_below(number: int) -> str:
    """The vertebra below a disc: 3 -> C3."""
    return DISC_NAMES[number].split("/")[1]


def from_below(ras_mm: np.ndarray, lowest: int = LAST_DISC) -> DiscPoints:
    """Discs in any order numbered upwards from the lowest one."""
    order = np.argsort(-np.asarray(ras_mm)[:, 2])
    points = np.asarray(ras_mm, float)[order]
    numbers = list(range(lowest - len(points) + 1, lowest + 1))
    warnings = []
    if numbers[0] < FIRST_DISC:
        raise InputError(f"{len(points)} discs cannot be numbered upwards from {DISC_NAMES[lowest]}; check the mask.")
    return DiscPoints(numbers, points, warnings + _gaps(np.array(numbers), points))


def moved_to_centres(points: DiscPoints) -> DiscPoints:
    """Centres of discs whose labels lie at their back edge, as in spine-generic and in the Spinal Cord Toolbox.

    Each point moves forward in the sagittal plane, at right angles to the chain, by half the depth that such a disc
    has in an average adult, scaled by the spacing of this chain. A single disc moves straight forward.
    """
    ras = points.ras_mm.copy()
    known = [n for n in points.numbers if n is not None]
    if len(known) != len(points.numbers):
        raise InputError("Discs without numbers cannot be moved to their centres; number them first.")
    tangent = np.gradient(ras, axis=0)[:, 1:] if len(ras) > 1 else np.array([[0.0, -1.0]])
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    expected = sum(spacing_mm(n) for n in range(known[0], known[-1]))
    scale = np.linalg.norm(ras[-1] - ras[0]) / expected if len(ras) > 1 else 1.0
    half = np.array([SIZES_MM[vertebra_below(n)][1] / 2 for n in known]) * np.clip(scale, 0.6, 1.3)
    forward = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)  # (A, S); the chain runs downwards
    ras[:, 1:] += forward * half[:, None]
    return DiscPoints(points.numbers, ras, points.warnings)
