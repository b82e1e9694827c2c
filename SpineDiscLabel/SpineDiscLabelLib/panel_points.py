"""Points under the mouse: hears when a person drags, deletes, adds or renames one, and lets a click add one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from NeuraxisLib import scene_points


class PointPanel:
    """Follows one point list at a time.

    Args:
        changed: called after every change of the list, also in the middle of a drag; it has to be quick, as several
            changes may come at once.
        placed: called with RAS mm when a click has added a disc.
    """

    def __init__(self, changed: Callable[[], None], placed: Callable[[tuple[float, float, float]], None]):
        self._changed, self._placed = changed, placed
        self._followed: tuple[Any, list[int]] | None = None
        self._placing: tuple[Any, int] | None = None
        self._dragging = False

    @property
    def is_dragging(self) -> bool:
        """Whether a point is being dragged right now."""
        return self._dragging

    @property
    def is_placing(self) -> bool:
        """Whether the next click adds a disc."""
        return self._placing is not None

    def follow(self, points: Any) -> None:
        """Hear of changes to a point list; None for no list."""
        if self._followed is not None:
            if self._followed[0] is points:
                return
            node, tags = self._followed
            for tag in tags:
                node.RemoveObserver(tag)
            self._followed, self._dragging = None, False
        if points is not None:
            heard = {
                points.PointStartInteractionEvent: self._starts,
                points.PointEndInteractionEvent: self._ends,
                points.PointModifiedEvent: self._changes,
                points.PointPositionDefinedEvent: self._changes,
                points.PointRemovedEvent: self._ends,  # also of a drag whose point is gone
            }
            self._followed = points, [points.AddObserver(event, call) for event, call in heard.items()]

    def place(self) -> None:
        """Let the next click in a view add a disc."""
        self.stop_placing()
        node = scene_points.start_placing("Disc")

        def placed(caller: Any, event: str) -> None:
            position = scene_points.point_ras_mm(node)
            self.stop_placing()
            if position is not None:
                self._placed(position)

        self._placing = node, node.AddObserver(node.PointPositionDefinedEvent, placed)

    def stop_placing(self) -> None:
        """No click is waited for any more."""
        if self._placing is not None:
            (node, tag), self._placing = self._placing, None
            node.RemoveObserver(tag)
            scene_points.stop_placing(node)

    def _starts(self, caller: Any, event: str) -> None:
        self._dragging = True

    def _ends(self, caller: Any, event: str) -> None:
        self._dragging = False
        self._changed()

    def _changes(self, caller: Any, event: str) -> None:
        self._changed()
