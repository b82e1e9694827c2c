"""Corrections to a chain of discs: every one renumbers it at once, and every one can be undone. No Slicer, numpy only.

Names follow from where the points lie, from what the network saw at them, and from the names that a person has given.
A name that a person gives always holds: earlier ones that contradict it are taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.anatomy import number_of
from SpineDiscLabelLib.discs import DISC_COUNT
from SpineDiscLabelLib.naming import Chain, renumber
from SpineDiscLabelLib.panel_state import ChainState, DiscPoint, OtherNumbering, Seen

#: What the network saw at a disc belongs to a point that a person moved no farther than this.
SAME_DISC_MM = 8.0
#: Two positions nearer than this are the same: storing and transforming cost digits.
SAME_PLACE_MM = 1e-3
#: Most corrections that can be undone.
MOST_STEPS = 50


class ChainEditor:
    """A chain of discs with its corrections.

    Args:
        state: as the computation found it.
        seen: key of a point -> what the network saw there.
    """

    def __init__(self, state: ChainState, seen: Mapping[int, Seen] | None = None):
        self._states, self._at, self._seen = [state], 0, dict(seen or {})
        self._next_key = 1 + max((point.key for point in state.points), default=0)
        self._trimmed = False

    @property
    def state(self) -> ChainState:
        """The chain as it is now."""
        return self._states[self._at]

    @property
    def can_undo(self) -> bool:
        """Whether there is a correction to take back."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is a correction that was taken back."""
        return self._at + 1 < len(self._states)

    @property
    def is_corrected(self) -> bool:
        """Whether the chain is not what the computation found."""
        return self._at > 0 or self._trimmed

    @property
    def steps(self) -> int:
        """How many corrections can be undone."""
        return self._at

    def undo(self) -> None:
        """Take the last correction back, if there is one."""
        self._at = max(0, self._at - 1)

    def redo(self) -> None:
        """Make the correction again that was taken back last, if there is one."""
        self._at = min(len(self._states) - 1, self._at + 1)

    # -- corrections ----------------------------------------------------------------------------------------------

    def add(self, position_ras_mm: Sequence[float]) -> int:
        """Add a disc; returns its key. Raises InputError if there are too many or no room for it."""
        key = self._new_key()
        self._correct((*self.state.points, DiscPoint(key, position_ras_mm, placed=True)))
        return key

    def delete(self, key: int) -> None:
        """Delete a disc. Raises InputError if names given by hand leave no other way to count the rest."""
        self._correct(tuple(point for point in self.state.points if point.key != key))

    def move(self, key: int, position_ras_mm: Sequence[float]) -> None:
        """Move a disc. Raises InputError if it would pass another one although both were named by hand."""
        self._correct(_changed(self.state.points, key, position_ras_mm=position_ras_mm, placed=True))

    def say(self, key: int, name: str) -> None:
        """A person says which disc this is: the chain obeys. Raises InputError if there is no such disc."""
        self._push(self._saying(self.state.points, {key: name}))

    def choose(self, other: OtherNumbering) -> None:
        """Count all the discs in another way. Raises InputError if the points do not allow it."""
        order = [point.key for _, point in self.state.from_above()]
        plain = tuple(replace(point, said="") for point in self.state.points)
        named = self._named(_changed(plain, order[-1], said=other.lowest))
        if _ends(named) != (other.highest, other.lowest):
            held = _changed(plain, order[0], said=other.highest)
            named = self._named(_changed(held, order[-1], said=other.lowest))
        self._push(named)

    def take(self, points: Sequence[tuple[int | None, Sequence[float], str]]) -> bool:
        """Take over a list of points that a person has changed by whatever tool, as one correction.

        Args:
            points: (key, None for a new one; RAS mm; name) in their order. A name that differs from the point's own
                has been given by the person.

        Returns:
            Whether anything was different.

        Raises:
            InputError: as the single corrections; the chain stays as it was.
        """
        found = self.looked_through(points)
        if found is None:
            return False
        self._push(found)
        return True

    def looked_through(self, points: Sequence[tuple[int | None, Sequence[float], str]]) -> ChainState | None:
        """What :meth:`take` would make of these points; None if nothing is different. Nothing is changed."""
        before = {point.key: point for point in self.state.points}
        taken, said = [], {}
        for key, position, name in points:
            known = before.get(key)
            if known is None:
                known = DiscPoint(self._new_key(), position, placed=True)
                if number_of(name) is not None:
                    said[known.key] = name
            elif name != known.name:
                said[key] = name
            taken.append(known if _is_near(known.position_ras_mm, position) else _moved(known, position))
        if not said and tuple(taken) == self.state.points:
            return None
        return self._saying(tuple(taken), said) if said else self._named(tuple(taken))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _new_key(self) -> int:
        self._next_key += 1
        return self._next_key - 1

    def _correct(self, points: tuple[DiscPoint, ...]) -> None:
        self._push(self._named(points))

    def _push(self, state: ChainState) -> None:
        self._states = [*self._states[: self._at + 1], state]
        if len(self._states) > MOST_STEPS + 1:
            self._states, self._trimmed = self._states[-MOST_STEPS - 1 :], True
        self._at = len(self._states) - 1

    def _saying(self, points: tuple[DiscPoint, ...], said: Mapping[int, str]) -> ChainState:
        """Points named with what a person says; earlier names give way where both cannot be."""
        for key, name in said.items():
            if number_of(name) is None:
                raise InputError(f"There is no disc '{name}'; name one such as L4/L5.")
            points = _changed(points, key, said=name)
        try:
            return self._named(points)
        except InputError:
            return self._named(tuple(p if p.key in said else replace(p, said="") for p in points))

    def _named(self, points: tuple[DiscPoint, ...]) -> ChainState:
        """The points with their names, and the other ways to count them."""
        positions = np.array([point.position_ras_mm for point in points], float).reshape(-1, 3)
        said = {index: point.said for index, point in enumerate(points) if point.said}
        level = self._level(points)
        free = renumber(positions, **level)
        chain = renumber(positions, said, **level) if said else free
        if len(chain.discs) != len(points):
            raise InputError("These points do not follow each other as discs do; put them one below the other.")
        found = {disc.candidate: disc for disc in chain.discs}
        named = tuple(
            replace(point, name=found[index].name, confidence=float(found[index].confidence))
            for index, point in enumerate(points)
        )
        state = ChainState(named, chain.probability, chain.relative, (), tuple(chain.notes))
        return replace(state, others=_others(free, state))

    def _level(self, points: tuple[DiscPoint, ...]) -> dict:
        """What holds the level where nobody has named a disc."""
        seen = [self._seen.get(point.key) for point in points]
        if any(seen):
            nothing = np.zeros(DISC_COUNT)
            rows = [
                one.at(point.position_ras_mm, SAME_DISC_MM) if one is not None else nothing
                for one, point in zip(seen, points)
            ]
            return {"evidence": np.array(rows)}
        return {"current": [number_of(point.name) for point in points]}

    # -- keeping --------------------------------------------------------------------------------------------------

    def to_json(self) -> dict:
        """All states and what the network saw, as JSON has it."""
        seen = {str(key): [one.position_ras_mm, one.evidence] for key, one in self._seen.items()}
        states = [state.to_json() for state in self._states]
        return {"states": states, "at": self._at, "seen": seen, "next": self._next_key, "trimmed": self._trimmed}

    @classmethod
    def from_json(cls, document: Mapping) -> ChainEditor:
        """The editor of :meth:`to_json`. Raises KeyError, TypeError, ValueError or IndexError if it is none."""
        editor = cls(ChainState())
        editor._states = [ChainState.from_json(state) for state in document["states"]]
        editor._at, editor._next_key = range(len(editor._states))[document["at"]], int(document["next"])
        editor._trimmed = bool(document["trimmed"])
        editor._seen = {int(key): Seen(tuple(at), tuple(seen)) for key, (at, seen) in document["seen"].items()}
        return editor


def _changed(points: tuple[DiscPoint, ...], key: int, **changes) -> tuple[DiscPoint, ...]:
    return tuple(replace(point, **changes) if point.key == key else point for point in points)


def _moved(point: DiscPoint, position: Sequence[float]) -> DiscPoint:
    return replace(point, position_ras_mm=tuple(position), placed=True)


def _is_near(one: Sequence[float], other: Sequence[float]) -> bool:
    return float(np.linalg.norm(np.subtract(one, other))) < SAME_PLACE_MM


def _ends(state: ChainState) -> tuple[str, str]:
    """Names of the highest and the lowest disc."""
    order = state.from_above()
    return order[0][1].name, order[-1][1].name


def _others(free: Chain, state: ChainState) -> tuple[OtherNumbering, ...]:
    """The ways to count that nobody's word has been heeded in, without the one that is shown."""
    if not free.discs:
        return ()
    names = [point.name for _, point in state.from_above()]
    best = tuple(disc.name for disc in free.discs)
    ways = [(best, free.probability, "as found"), *((a.names, a.probability, a.title) for a in free.alternatives)]
    return tuple(
        OtherNumbering(title, seen[0], seen[-1], float(probability))
        for seen, probability, title in ways
        if list(seen) != names
    )
