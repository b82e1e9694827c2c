"""What is told of a named chain: its measurements, its table, other ways to number it, what the network saw there.

The computation and the panel that lets a person correct it tell the same in the same words. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from NeuraxisLib.result import Measurement, Table
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.discs import DISC_COUNT
from SpineDiscLabelLib.naming import Alternative, NamedDisc
from SpineDiscLabelLib.spine_measures import measure_spine

UNSETTLED = "The level is not settled; only the order is."


def chain_findings(
    discs: Sequence[NamedDisc], probability: float | None, image: Volume | None
) -> tuple[list[Measurement], Table]:
    """(measurements, the headline first; one row per disc) of a chain.

    Args:
        discs: from above.
        probability: of this numbering; None if it is not known.
        image: the MR, for disc heights; evenly spaced (:meth:`~NeuraxisLib.volume.Volume.regular`).
    """
    ends = dict.fromkeys(disc.name for disc in (*discs[:1], *discs[-1:]))
    measures = measure_spine(discs, image)
    head = [
        Measurement("Discs found", float(len(discs)), "", note=" to ".join(ends)),
        Measurement("Probability of this numbering", None if probability is None else float(probability), ""),
    ]
    return head + measures.measurements, measures.table


def other_rows(alternatives: Sequence[Alternative]) -> list[tuple[str, str, str, float]]:
    """(title, highest, lowest, probability) of other ways to number a chain."""
    return [(other.title, other.names[0], other.names[-1], float(other.probability)) for other in alternatives]


def others_table(others: Sequence[tuple[str, str, str, float]]) -> Table:
    """Other ways to number a chain, as :func:`other_rows`, the likeliest first."""
    rows = tuple((*other[:3], round(other[3], 4)) for other in others)
    heads = (("Other numbering", ""), ("Highest", ""), ("Lowest", ""), ("Probability", ""))
    return Table("Other ways to number these discs", heads, rows)


def evidence_text(evidence: np.ndarray) -> str:
    """What the network saw at a disc, short enough for provenance: percent for C1/C2 ... L5/S1, with blanks between."""
    return " ".join(str(round(100 * float(value))) for value in np.clip(evidence, 0, 1))


def evidence_from_text(text: str) -> np.ndarray:
    """(24,) 0..1 from :func:`evidence_text`; zeros if it is no such text."""
    try:
        values = np.array([float(part) for part in text.split()]) / 100
    except ValueError:
        values = np.zeros(0)
    return values if values.shape == (DISC_COUNT,) else np.zeros(DISC_COUNT)
