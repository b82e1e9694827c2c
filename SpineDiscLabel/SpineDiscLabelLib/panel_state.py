"""The discs of one spine at one moment, as a person corrects them and as the scene keeps them. No Slicer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from NeuraxisLib.result import Landmark
from SpineDiscLabelLib.anatomy import number_of
from SpineDiscLabelLib.findings import UNSETTLED
from SpineDiscLabelLib.naming import NamedDisc


@dataclass(frozen=True)
class DiscPoint:
    """A disc in the list of points.

    Attributes:
        key: tells it from the others as long as it exists, through undo and redo.
        position_ras_mm: in the world.
        name: such as ``"L4/L5"``.
        confidence: probability that it is this disc.
        said: the name that a person gave it; empty where it was found from the others.
        placed: whether a person put it where it is.
    """

    key: int
    position_ras_mm: tuple[float, float, float]
    name: str = ""
    confidence: float = 0.0
    said: str = ""
    placed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "position_ras_mm", tuple(float(value) for value in self.position_ras_mm))

    def landmark(self, relative: bool) -> Landmark:
        """The point as results and their files have it; the note says what a person did."""
        by_hand = [*(["placed by hand"] if self.placed else []), *(["named by hand"] if self.said else [])]
        notes = [*([UNSETTLED] if relative else []), *by_hand]
        return Landmark(self.name, self.position_ras_mm, self.confidence, "; ".join(notes))


@dataclass(frozen=True)
class OtherNumbering:
    """Another way to count all the discs: what differs, the names at both ends, how probable it is."""

    title: str
    highest: str
    lowest: str
    probability: float


@dataclass(frozen=True)
class ChainState:
    """The discs and how they are counted.

    Attributes:
        points: in the order of the point list.
        probability: of this numbering.
        relative: whether nothing settles the level.
        others: other ways to count, the likeliest first.
        notes: sentences for the reader.
    """

    points: tuple[DiscPoint, ...] = ()
    probability: float = 1.0
    relative: bool = False
    others: tuple[OtherNumbering, ...] = ()
    notes: tuple[str, ...] = ()

    def discs(self) -> list[NamedDisc]:
        """The discs from above, as measures and exports take them."""
        return [
            NamedDisc(number_of(p.name) or 0, p.name, np.array(p.position_ras_mm), p.confidence, index)
            for index, p in self.from_above()
        ]

    def from_above(self) -> list[tuple[int, DiscPoint]]:
        """(index in ``points``, point) from above."""
        return sorted(enumerate(self.points), key=lambda item: -item[1].position_ras_mm[2])

    def landmarks(self) -> list[Landmark]:
        """The points in their own order, as results and their files have them."""
        return [point.landmark(self.relative) for point in self.points]

    def landmarks_from_above(self) -> list[Landmark]:
        """The points from above, as results and their files have them."""
        return [point.landmark(self.relative) for _, point in self.from_above()]

    def other_rows(self) -> list[tuple[str, str, str, float]]:
        """The other ways to count as rows of a table."""
        return [(other.title, other.highest, other.lowest, other.probability) for other in self.others]

    def to_json(self) -> dict:
        """Numbers, words, lists and mappings only."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping) -> ChainState:
        """The state of :meth:`to_json`."""
        points = tuple(DiscPoint(**entry) for entry in document["points"])
        others = tuple(OtherNumbering(**entry) for entry in document["others"])
        return cls(points, document["probability"], document["relative"], others, tuple(document["notes"]))


@dataclass(frozen=True)
class Seen:
    """What the network saw at a disc: where, and (24,) 0..1 for C1/C2 ... L5/S1."""

    position_ras_mm: tuple[float, float, float]
    evidence: tuple[float, ...]

    def at(self, position_ras_mm: Sequence[float], reach_mm: float) -> np.ndarray:
        """The evidence for a point; nothing if the point lies farther than ``reach_mm`` from what was seen."""
        distance = float(np.linalg.norm(np.subtract(position_ras_mm, self.position_ras_mm)))
        evidence = np.array(self.evidence, float)
        return evidence if distance <= reach_mm else np.zeros_like(evidence)
