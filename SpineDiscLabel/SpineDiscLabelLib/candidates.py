"""A place in the patient where the network saw a disc, before anything has been named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SpineDiscLabelLib.discs import DISC_COUNT


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place that may be a disc.

    Attributes:
        position_ras_mm: (3,) RAS mm of its centre.
        strength: 0..1, how surely it is a disc, whichever.
        evidence: (24,) 0..1, how surely it is each disc, from C1/C2 (number 2) to L5/S1 (number 25) in the numbers of
            :mod:`SpineDiscLabelLib.discs`. Not a distribution: a network that is sure of a disc but not of its level
            leaves several low values, and discs that its channels do not know stay at 0.
    """

    position_ras_mm: np.ndarray
    strength: float
    evidence: np.ndarray

    def __post_init__(self) -> None:
        position, evidence = np.asarray(self.position_ras_mm, float), np.asarray(self.evidence, float)
        if position.shape != (3,) or evidence.shape != (DISC_COUNT,):
            raise ValueError(
                f"a candidate has 3 coordinates and {DISC_COUNT} evidences, not {position.shape} and {evidence.shape}"
            )
        object.__setattr__(self, "position_ras_mm", position)
        object.__setattr__(self, "evidence", evidence)
