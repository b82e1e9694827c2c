"""Perfusion maps in the views of a panel: vendors' colours, legends, all maps side by side, one over the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from NeuraxisLib import scene_frames, scene_views
from NeuraxisLib.translation import translator
from StrokeCTPLib.colour_scales import SCALE_OF, colour_table, safe_colour_table
from StrokeCTPLib.map_units import MAP_UNITS

_ = translator(__name__)
#: View of a map layout -> the kinds of map that it may show, the first that there is.
MAP_VIEWS = {
    "StrokeCBF": ("cbf",),
    "StrokeCBV": ("cbv",),
    "StrokeMTT": ("mtt", "ttp"),
    "StrokeTmax": ("tmax",),
}
LESION_VIEW, CURVE_VIEW = "StrokeLesions", "StrokeCurves"
LAYOUT = scene_views.MapLayout(
    number=20417,
    views=(
        ("StrokeCBF", "Cerebral blood flow"),
        ("StrokeCBV", "Cerebral blood volume"),
        ("StrokeMTT", "Mean transit time"),
        ("StrokeTmax", "Tmax"),
        (LESION_VIEW, "Core and penumbra"),
    ),
    plot=(CURVE_VIEW, "Artery, vein and voxel"),
)
#: Family of maps -> what stands behind the kind in their names.
FAMILY_ENDINGS = {"calibrated": "_calibrated", "svd": "", "model": "_model"}
_PART = "map "
#: How the names of our colour nodes begin.
COLORS = "Perfusion"
#: Scales of flow are halved while this share of the tissue, in %, lies below this part of the scale.
TISSUE_SHARE, LOW_PART = 95.0, 0.4


def kind_of_map(name: str) -> str:
    """``"tmax"`` for ``"tmax_calibrated"``: the kind of map that a name in a result stands for."""
    return name.partition("_")[0]


def maps_of(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> node of the perfusion maps among the nodes of a result, in their order there."""
    named = {part.removeprefix(_PART): node for part, node in nodes.items() if part.startswith(_PART)}
    return {name: node for name, node in named.items() if kind_of_map(name) in SCALE_OF}


def choose(maps: Mapping[str, Any], kinds: tuple[str, ...], family: str) -> str | None:
    """The name of the first of these kinds of map that there is, in the family that reads as numbers.

    Calibrated maps are made for their thresholds; their values mean nothing else, so that the plain ones are shown.
    """
    for kind in kinds:
        for ending in (FAMILY_ENDINGS["model"] if family == "model" else "", ""):
            if kind + ending in maps:
                return kind + ending
    return None


class MapViews:
    """Keeps ``mapComboBox``, ``layoutButton`` and the views in step with the maps of a result."""

    def __init__(self, ui: Any):
        self._ui, self._before = ui, scene_views.FOUR_UP
        self._with_legend: set[str] = set()  # ids of the maps that have a legend in all views there are

    def refresh(self, source: Any, nodes: Mapping[str, Any], parameters: Any) -> None:
        """Colour the maps, list them, and show them where they belong.

        Args:
            source: the volume that the result belongs to, or None.
            nodes: part -> node of the result, as :func:`NeuraxisLib.scene.result_nodes` gives them.
            parameters: ``shownMap`` names the map over the image, ``overlayOpacity`` says how strong it is, ``family``
                which maps stand side by side, ``safeColours`` whether colours are such that every eye can order them.
        """
        ui, maps, shown_map = self._ui, maps_of(nodes), parameters.shownMap
        for name, node in maps.items():
            self._colour(kind_of_map(name), node, parameters.safeColours)
        self._list(maps, shown_map)
        ui.mapComboBox.enabled = ui.overlayOpacitySlider.enabled = ui.layoutButton.enabled = bool(maps)
        if shown_map in maps:
            self._add_legend(shown_map, maps[shown_map])
        scene_views.lay_over(maps.get(shown_map), parameters.overlayOpacity, except_in=tuple(MAP_VIEWS))
        shown = scene_views.is_layout_shown(LAYOUT)
        ui.layoutButton.checked = shown
        if shown:
            self._fill(source, nodes, maps, parameters.family)

    def show_side_by_side(self, source: Any, nodes: Mapping[str, Any], shown: bool) -> None:
        """Switch to the map layout, or back to the one before it."""
        if not shown:
            scene_views.leave_layout(LAYOUT, self._before)
        elif source is not None and not scene_views.is_layout_shown(LAYOUT):
            self._before = scene_views.show_layout(LAYOUT)
            scene_views.put_in_view(LESION_VIEW, source)
            maps = maps_of(nodes)
            scene_views.align(LAYOUT, source, scene_frames.array_of(next(iter(maps.values()))) != 0 if maps else None)
            self._with_legend.clear()

    def _fill(self, source: Any, nodes: Mapping[str, Any], maps: Mapping[str, Any], family: str) -> None:
        for view, kinds in MAP_VIEWS.items():
            name = choose(maps, kinds, family)
            scene_views.put_in_view(view, maps.get(name or ""))
            if name:
                self._add_legend(name, maps[name])
        scene_views.show_background(LESION_VIEW, source)
        charts = [node for part, node in nodes.items() if node.IsA("vtkMRMLPlotChartNode")]
        scene_views.show_chart(CURVE_VIEW, charts[0] if charts else None)
        for part in ("labels", "points"):
            if part in nodes:
                scene_views.only_outside(nodes[part].GetDisplayNode(), tuple(MAP_VIEWS))

    def _colour(self, kind: str, node: Any, safe: bool) -> None:
        """Give a map the colours of its kind, or those for every eye; what the user did to its range stays."""
        usual = SCALE_OF[kind]
        name, rgb = ("safe", safe_colour_table()) if safe else (usual, colour_table(usual))
        colors = scene_views.color_table(f"NeuraxisPerfusion{name}", f"{COLORS} {name}", rgb)
        display = node.GetDisplayNode()
        colors_before = display.GetColorNode()
        if display.GetColorNodeID() != colors.GetID():
            low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
            ours = colors_before is not None and colors_before.GetName().startswith(COLORS)
            if usual == "flow" and not ours:
                high = readable_top(scene_frames.array_of(node), high)
            scene_views.color_volume(node, colors, low, high)
            self._with_legend.discard(node.GetID())

    def _add_legend(self, name: str, node: Any) -> None:
        if node.GetID() not in self._with_legend:
            scene_views.legend(node, legend_title(kind_of_map(name)))
            self._with_legend.add(node.GetID())

    def _list(self, maps: Mapping[str, Any], shown_map: str) -> None:
        box = self._ui.mapComboBox
        names = ["", *maps]
        blocked = box.blockSignals(True)
        if [box.itemData(index) for index in range(box.count)] != names:
            box.clear()
            box.addItem(_("No map"), "")
            for name in maps:
                box.addItem(title_of(name), name)
        box.setCurrentIndex(max(0, box.findData(shown_map)))
        box.blockSignals(blocked)


def readable_top(values: np.ndarray, top: float) -> float:
    """The upper end of a colour scale, halved as long as nearly all tissue would lie in its lower part."""
    tissue = values[values > 0]
    most = float(np.percentile(tissue, TISSUE_SHARE)) if len(tissue) else top
    while most < LOW_PART * top:
        top /= 2
    return top


def legend_title(kind: str) -> str:
    """Name and unit over a colour bar, in short lines, as long ones would be written small."""
    unit = MAP_UNITS[kind].replace("mL/100 g", "mL/\n100 g").replace("g/min", "g\n/min")
    return f"{short_name(kind)}\n{unit}"


def short_name(kind: str) -> str:
    """``"CBF"``, ``"Tmax"``, ``"Delay"``."""
    return kind.upper() if len(kind) == 3 else kind.capitalize()


def title_of(name: str) -> str:
    """What a list calls a map: its kind and family."""
    kind, family = name.partition("_")[::2]
    return f"{short_name(kind)} ({family})" if family else short_name(kind)
