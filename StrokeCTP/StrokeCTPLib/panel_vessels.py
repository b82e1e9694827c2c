"""Artery and vein chosen by hand: by a click after pressing a button, or by dragging the points of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from NeuraxisLib import scene_frames, scene_points
from NeuraxisLib.translation import translator

_ = translator(__name__)
ARTERY, VEIN = "Artery", "Vein"
#: What the points of a result are called.
POINT_NAMES = {ARTERY: "Artery (AIF)", VEIN: "Vein (VOF)"}


class VesselPanel:
    """Turns points in the views into voxels of the frames.

    Args:
        chosen: called with ("Artery" or "Vein", (k, j, i)) when the user has chosen one.
        say: shows a sentence in the status line.
    """

    def __init__(self, chosen: Callable[[str, tuple[int, int, int]], None], say: Callable[[str], None]):
        self._chosen, self._say = chosen, say
        self._placing: tuple[Any, int] | None = None
        self._followed: tuple[Any, int] | None = None

    def place(self, vessel: str, source: Any) -> None:
        """Let the next click in a view choose the artery or the vein; ``source`` is the volume whose voxel counts."""
        self.stop()
        node = scene_points.start_placing(vessel)

        def placed(caller: Any, event: str) -> None:
            position = scene_points.point_ras_mm(node)
            self.stop()
            self._choose(vessel, source, position)

        self._placing = node, node.AddObserver(node.PointPositionDefinedEvent, placed)

    def stop(self) -> None:
        """No click is waited for any more."""
        if self._placing is not None:
            (node, tag), self._placing = self._placing, None
            node.RemoveObserver(tag)
            scene_points.stop_placing(node)

    def follow(self, points: Any, source: Any) -> None:
        """Hear when a point of a result has been dragged; None for no result."""
        if self._followed is not None:
            if self._followed[0] is points:
                return
            node, tag = self._followed
            node.RemoveObserver(tag)
            self._followed = None
        if points is not None:
            tag = points.AddObserver(
                points.PointEndInteractionEvent, lambda caller, event: self._dragged(points, source)
            )
            self._followed = points, tag
            self._places = self._voxels(points, source)

    def _voxels(self, points: Any, source: Any) -> dict[str, tuple[int, int, int] | None]:
        positions = {vessel: scene_points.point_ras_mm(points, name) for vessel, name in POINT_NAMES.items()}
        return {
            vessel: None if ras is None else scene_frames.voxel_at(source, ras) for vessel, ras in positions.items()
        }

    def _dragged(self, points: Any, source: Any) -> None:
        places = self._voxels(points, source)
        moved = [vessel for vessel, voxel in places.items() if voxel is not None and voxel != self._places[vessel]]
        self._places = places
        for vessel in moved:
            self._chosen(vessel, places[vessel])

    def _choose(self, vessel: str, source: Any, ras_mm: tuple[float, float, float] | None) -> None:
        voxel = None if ras_mm is None else scene_frames.voxel_at(source, ras_mm)
        if voxel is None:
            self._say(_("That point lies outside the frames; click on a vessel in a slice view."))
        else:
            self._chosen(vessel, voxel)
