"""A chain of discs in the scene: its point list, its tables, and the corrections that are kept with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from NeuraxisLib import scene, scene_points
from NeuraxisLib.errors import InputError
from NeuraxisLib.scene_runs import RUN_ATTRIBUTE
from NeuraxisLib.scene_tables import fill_table, measurement_table
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.findings import chain_findings, evidence_from_text, others_table
from SpineDiscLabelLib.naming import NamedDisc
from SpineDiscLabelLib.panel_chain import ChainEditor
from SpineDiscLabelLib.panel_state import ChainState, DiscPoint, OtherNumbering, Seen

#: Attribute of the point list with the chain and all corrections that can be undone, as JSON.
CHAIN_ATTRIBUTE = "Neuraxis.Chain"


class SceneChain:
    """The discs of a volume in the scene, which a person can correct.

    Corrections go either way: through :meth:`correct`, or into the point list itself by any tool of Slicer, from where
    :meth:`take_in` takes them.

    Args:
        source: the volume.
        nodes: part -> node of its result.
    """

    def __init__(self, source: Any, nodes: Mapping[str, Any]):
        self._source, self._nodes, self._points = source, nodes, nodes["points"]
        self._run = run_mark(nodes)
        self._image: tuple[Any, Volume] | None = None
        self._provenance = json.loads(self._points.GetAttribute(scene.PROVENANCE_ATTRIBUTE) or "{}")
        kept = self._kept()
        if kept is None:
            placed = scene_points.placed_points(self._points)
            self._editor = found_chain(placed, self._provenance.get("chain", {}))
            self._ids = {point.key: there.id for point, there in zip(self._editor.state.points, placed)}
        else:
            self._editor, self._ids = kept
        scene_points.show_beside(self._points)
        self._reported = None if self._editor.is_corrected else self._editor.state

    def shows(self, nodes: Mapping[str, Any]) -> bool:
        """Whether these nodes hold the result whose discs these are."""
        return nodes.get("points") is self._points and run_mark(nodes) == self._run

    @property
    def state(self) -> ChainState:
        """The chain as it is now."""
        return self._editor.state

    @property
    def editor(self) -> ChainEditor:
        """The corrections; change them through :meth:`correct` only."""
        return self._editor

    @property
    def discs(self) -> list[NamedDisc]:
        """The discs from above."""
        return self._editor.state.discs()

    @property
    def image(self) -> Volume:
        """The volume that was labelled."""
        return self._volume()[0]

    @property
    def warnings(self) -> list[str]:
        """What a reader has to know: of the chain as it is now, then of the computation."""
        told = (self._points.GetAttribute(scene.WARNINGS_ATTRIBUTE) or "").split("\n")
        outdated = self._provenance.get("chain", {}).get("notes", [])
        return list(dict.fromkeys([*self.state.notes, *(w for w in told if w and w not in outdated)]))

    @property
    def is_reported(self) -> bool:
        """Whether the files of the result say what the chain says now."""
        return self._reported == self.state

    def reported(self) -> None:
        """The files of the result have been brought up to date."""
        self._reported = self.state

    # -- corrections ----------------------------------------------------------------------------------------------

    def correct(self, change: Callable[[ChainEditor], Any]) -> Any:
        """Make a correction and show it, such as ``chain.correct(lambda editor: editor.undo())``.

        Returns:
            What the change returns.

        Raises:
            InputError: it cannot be; nothing is changed.
        """
        self.take_in()
        answer = change(self._editor)
        self.show()
        return answer

    def take_in(self) -> bool:
        """Take over what was done to the point list; returns whether anything was.

        Raises:
            InputError: it cannot be; the point list is as before.
        """
        placed = scene_points.placed_points(self._points)
        try:
            changed = self._editor.take(self._told(placed))
        except InputError:
            self.show()
            raise
        if changed:
            self._ids |= {point.key: there.id for point, there in zip(self.state.points, placed)}
            self.show()
        return changed

    def preview(self) -> None:
        """Show what a drag would come to, while it goes on; nothing is kept."""
        placed = scene_points.placed_points(self._points)
        try:
            state = self._editor.looked_through(self._told(placed))
        except InputError:
            return  # perhaps it goes on to where it can be
        if state is not None and len(state.points) == len(placed):
            scene_points.hold_points(self._points, state.landmarks(), [there.id for there in placed])
            self._fill_tables(state)

    def show(self) -> None:
        """Make point list and tables say what the chain says, and keep the corrections with them."""
        state = self.state
        ids = [self._ids.get(point.key, "") for point in state.points]
        ids = scene_points.hold_points(self._points, state.landmarks(), ids)
        scene_points.show_beside(self._points)
        self._ids |= {point.key: point_id for point, point_id in zip(state.points, ids)}
        self._fill_tables(state)
        kept = {"run": self._run, "ids": {str(key): at for key, at in self._ids.items()}, **self._editor.to_json()}
        self._points.SetAttribute(CHAIN_ATTRIBUTE, json.dumps(kept, separators=(",", ":")))

    def findings(self) -> tuple[list, Any]:
        """(measurements, table of the discs) of the chain as it is now."""
        return chain_findings(self.discs, self.state.probability, self._volume()[1])

    # -- inside ---------------------------------------------------------------------------------------------------

    def _told(self, placed: list[scene_points.PlacedPoint]) -> list[tuple[int | None, tuple, str]]:
        keys = {self._ids[point.key]: point.key for point in self.state.points if point.key in self._ids}
        return [(keys.get(there.id), there.position_ras_mm, there.name) for there in placed]

    def _fill_tables(self, state: ChainState) -> None:
        measurements, table = chain_findings(state.discs(), state.probability, self._volume()[1])
        fill_table(self._nodes["table measurements"], measurement_table(measurements))
        if "table discs" in self._nodes:
            fill_table(self._nodes["table discs"], table)
        if "table alternatives" in self._nodes:
            fill_table(self._nodes["table alternatives"], others_table(state.other_rows()))

    def _volume(self) -> tuple[Volume, Volume]:
        """The volume as it is stored, and evenly spaced; read anew only if it has changed."""
        at = scene.ijk_to_world(self._source).tobytes(), self._source.GetImageData().GetMTime()
        if self._image is None or self._image[0] != at:
            stored = scene.volume_from_node(self._source, unit="")
            self._image = at, (stored, stored.regular())
        return self._image[1]

    def _kept(self) -> tuple[ChainEditor, dict[int, str]] | None:
        """The corrections that a scene brought along; None if there are none of this result."""
        try:
            document = json.loads(self._points.GetAttribute(CHAIN_ATTRIBUTE) or "{}")
            if document.get("run") != self._run:
                return None
            return ChainEditor.from_json(document), {int(key): str(at) for key, at in document["ids"].items()}
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return None


def run_mark(nodes: Mapping[str, Any]) -> str:
    """What tells the run that made a result from every other."""
    table = nodes.get("table measurements")
    return (table.GetAttribute(RUN_ATTRIBUTE) or "") if table is not None else ""


def found_chain(placed: list[scene_points.PlacedPoint], told: Mapping[str, Any]) -> ChainEditor:
    """The chain as the computation found it.

    Args:
        placed: its points.
        told: ``chain`` of its provenance.
    """
    points, seen, sure = [], {}, told.get("confidence", {})
    for key, there in enumerate(placed, start=1):
        points.append(DiscPoint(key, there.position_ras_mm, there.name, float(sure.get(there.name, 0.0))))
        if there.name in told.get("evidence_percent", {}):
            evidence = evidence_from_text(told["evidence_percent"][there.name])
            seen[key] = Seen(there.position_ras_mm, tuple(evidence.tolist()))
    state = ChainState(
        tuple(points),
        float(told.get("probability", 1.0) or 0.0),
        bool(told.get("relative", False)),
        tuple(OtherNumbering(title, *rest) for title, rest in told.get("others", {}).items()),
        tuple(told.get("notes", ())),
    )
    return ChainEditor(state, seen)
