"""Curves in a panel: artery and vein from the result, and live the curve and values of the voxel under the mouse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from NeuraxisLib import scene_frames, scene_points
from NeuraxisLib.scene_sequences import sequence_times
from NeuraxisLib.translation import translator
from StrokeCTPLib.live_curves import contrast_curve, enlargement
from StrokeCTPLib.map_units import MAP_UNITS
from StrokeCTPLib.panel_choice import starts_from_frames
from StrokeCTPLib.panel_maps import kind_of_map, maps_of, title_of

_ = translator(__name__)
#: Rows and columns around the voxel over which its curve is averaged: one voxel alone shows little but noise.
AROUND = 1


class CurvePanel:
    """Fills ``curveLabel`` and the chart of the result with what lies under the mouse."""

    def __init__(self, ui: Any):
        self._ui = ui
        self._shown: tuple | None = None

    def follow_mouse(self, source: Any, parameters: Any, nodes: Mapping[str, Any]) -> None:
        """Show the voxel under the mouse, if there is one in the image.

        Args:
            source: the volume that the result belongs to, or None.
            parameters: of the panel; ``frames`` is the node with the frames.
            nodes: part -> node of the result.
        """
        frames = parameters.frames if starts_from_frames(parameters) else None
        ras_mm = scene_points.cursor_ras_mm()
        voxel = None if source is None or ras_mm is None else scene_frames.voxel_at(source, ras_mm)
        if voxel is None or (source.GetID(), voxel) == self._shown:
            return
        self._shown = (source.GetID(), voxel)
        k, j, i = voxel
        values = [_value_text(name, node, voxel) for name, node in maps_of(nodes).items() if name in MAP_UNITS]
        told = ", ".join(filter(None, values)) or _("no tissue")
        self._ui.curveLabel.text = _("Voxel {place}: {values}").format(place=f"{i}, {j}, {k}", values=told)
        chart = next((node for node in nodes.values() if node.IsA("vtkMRMLPlotChartNode")), None)
        if chart is not None and frames is not None:
            self._draw(chart, frames, voxel)

    def forget(self) -> None:
        """Begin anew, after a result was replaced."""
        self._shown = None
        self._ui.curveLabel.text = ""

    def _draw(self, chart: Any, frames: Any, voxel: tuple[int, int, int]) -> None:
        values, artery = scene_frames.voxel_curve(frames, voxel, AROUND), scene_points.series_values(chart, 0)
        times = sequence_times(frames) if frames.IsA("vtkMRMLSequenceNode") else None
        if artery is None:
            return
        if times is None:  # times were given with the run: those of the artery's curve, if it has as many
            times = artery[0] if len(artery[0]) == len(values) else np.linspace(*artery[0][[0, -1]], len(values))
        curve = contrast_curve(values, times - times[0], artery)
        factor = enlargement(curve, artery[1])
        name = _("Voxel") if factor == 1 else _("Voxel, x {factor}").format(factor=factor)
        scene_points.draw_live(chart, name, times - times[0], factor * curve)


def _value_text(name: str, node: Any, voxel: tuple[int, int, int]) -> str:
    value = scene_frames.value_at(node, voxel)
    if not np.isfinite(value) or value == 0:
        return ""
    return f"{title_of(name)} {value:.1f} {MAP_UNITS[kind_of_map(name)]}"
