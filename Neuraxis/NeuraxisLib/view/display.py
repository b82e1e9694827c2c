"""The case on the page: image, overlays, numbers. The scene holds them; the page shows what the scene holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from NeuraxisLib import scene, scene_page, scene_points, scene_tables, scene_views
from NeuraxisLib.report import number_text
from NeuraxisLib.result_folder import REPORT_FILE
from NeuraxisLib.view.reading import OpenedCase, facts_of
from NeuraxisLib.view.views import Views
from NeuraxisLib.view.windows import Window, first_window, is_ct, windows_of

_MAP, _TABLE = "map ", "table "
_FIRST_FILL, _FIRST_OPACITY = 0.35, 0.6
#: Variables of the page that belong to a case, without one.
_NO_CASE: dict[str, Any] = {
    "case_name": "", "case_facts": "", "has_image": False, "notes": [], "windows": [], "window": "",
    "window_range": [0, 1], "window_limits": [0, 1], "window_step": 1,
}  # fmt: skip
#: Variables of the page that belong to a result, without one.
_NO_RESULT: dict[str, Any] = {
    "headline": None, "rows": [], "tables": [], "warnings": [], "key_slices": [], "points": [], "segments": [],
    "maps": [], "map": "", "legend": None, "has_report": False,
}  # fmt: skip


class CaseDisplay:
    """Shows one case at a time.

    Args:
        server: of the page.
        views: in which it is shown.
    """

    def __init__(self, server: Any, views: Views):
        self._state, self._views = server.state, views
        self.case: OpenedCase | None = None
        self.node: Any = None
        self._folder: Path | None = None
        self._nodes: dict[str, Any] = {}  # of the result that is shown
        self._map_facts: dict[str, Any] = {}
        self._windows: tuple[Window, ...] = ()
        self._darkest = 0.0  # black of the darkest window
        self._state.update({**_NO_CASE, **_NO_RESULT, "fill": _FIRST_FILL, "map_opacity": _FIRST_OPACITY})
        for names, call in (
            (("window_range",), self._on_window_range), (("fill",), self._on_fill),
            (("map", "map_opacity"), self._on_map),
        ):  # fmt: skip
            self._state.change(*names)(call)

    @property
    def report(self) -> Path | None:
        """The report of the result that is shown."""
        file = self._folder / REPORT_FILE if self._folder is not None else None
        return file if file is not None and file.is_file() and not file.is_symlink() else None

    @property
    def folder(self) -> Path | None:
        """The folder of the result that is shown."""
        return self._folder if self._folder is not None and self._folder.is_dir() else None

    def show(self, case: OpenedCase) -> None:
        """Show a case in place of the one before."""
        self.clear()
        self.case = case
        self.node = scene_page.show_volume(case.volume, case.name)
        size, spacing = case.volume.array.shape[::-1], case.volume.spacing_mm
        facts = f"{' × '.join(map(str, size))} voxels of {' × '.join(f'{part:.3g}' for part in spacing)} mm"
        with self._state:
            self._state.update({"case_name": case.name, "case_facts": facts, "has_image": case.has_image})
            self._state.notes = case.notes
            self._offer_windows(case)
        self._views.show(self.node)
        if case.result is not None:
            scene.show_result(case.result, self.node)
            self.show_result(case.task, case.folder)

    def clear(self) -> None:
        """An empty page."""
        if self.node is not None:
            scene_page.remove_case(self.node)
        self.case = self.node = self._folder = None
        self._nodes = {}
        with self._state:
            self._state.update({**_NO_CASE, **_NO_RESULT})

    def show_result(self, task: str, folder: Path) -> None:
        """Show what the scene holds as the result of a task on the image; ``folder`` is its result folder."""
        facts, nodes = facts_of(folder), scene.result_nodes(self.node, task)
        self._folder, self._nodes, self._map_facts = folder, nodes, facts["maps"]
        maps = {part.removeprefix(_MAP): node for part, node in nodes.items() if part.startswith(_MAP)}
        scene_page.colour_usually(task, maps)
        with self._state:
            self._state.update({**_NO_RESULT, **_numbers(nodes), "warnings": facts["warnings"]})
            self._state.has_report = self.report is not None
            titles = [{"value": name, "title": self._map_facts[name]["title"]} for name in maps]
            self._state.maps = [{"value": "", "title": "No map"}, *titles]
            if "labels" in nodes:
                self._show_segmentation(nodes["labels"])
        if "points" in nodes:
            scene_points.show_beside(nodes["points"])
        scene_views.lay_over(None, 0.0)
        self._views.fit_3d()
        self._views.refresh()

    def _show_segmentation(self, segmentation: Any) -> None:
        scene.show_3d(segmentation, True)
        scene_page.set_fill(segmentation, self._state.fill)
        self._list_segments()
        slices = scene.key_slices(segmentation)
        self._state.key_slices = [{"k": k, "title": str(k + 1)} for k in slices]
        place = scene_page.middle_of_segments(segmentation, self.node)
        if place is not None:
            scene_page.center_on(place)

    # -- what the reader changes --------------------------------------------------------------------------------

    def choose_window(self, name: str) -> None:
        """Take one of the named windows."""
        window = next((window for window in self._windows if window.name == name), None)
        if window is None:
            return
        width, middle = window.high - window.low, (window.low + window.high) / 2
        low, high = max(middle - width, self._darkest), middle + width
        self._state.update({"window": name, "window_limits": [low, high], "window_step": width / 80})
        self._state.window_range = [window.low, window.high]

    def toggle_segment(self, segment_id: str) -> None:
        """Draw a segment, or leave it out."""
        segmentation = self._nodes["labels"]
        segment = next(one for one in scene_page.segments_of(segmentation) if one.id == segment_id)
        scene_page.set_segment_visible(segmentation, segment_id, not segment.visible)
        self._list_segments()
        self._views.refresh()

    def go_to_slice(self, k: int) -> None:
        """Show slice k of the image in the axial view."""
        scene.show_slice(self.node, int(k))
        self._views.refresh()

    def go_to(self, ras_mm: list[float]) -> None:
        """Show a place in all slice views."""
        scene_points.jump_to(ras_mm)
        self._views.refresh()

    def _on_window_range(self, window_range: list[float], **_: Any) -> None:
        if self.node is None or window_range[0] >= window_range[1]:
            return
        low, high = window_range
        scene_page.set_window(self.node, low, high)
        same = (window.name for window in self._windows if (window.low, window.high) == (low, high))
        self._state.window = next(same, "")
        self._views.refresh()

    def _on_fill(self, fill: float, **_: Any) -> None:
        segmentation = self._shown("labels")
        if segmentation is not None:
            scene_page.set_fill(segmentation, fill)
            self._views.refresh()

    def _on_map(self, map: str, map_opacity: float, **_: Any) -> None:
        node = self._shown(_MAP + map) if map else None
        if self.node is None:
            return
        scene_views.lay_over(node, map_opacity)
        self._state.legend = self._legend(map, node) if node is not None else None
        self._views.refresh()

    def _shown(self, part: str) -> Any:
        return self._nodes.get(part)

    def _legend(self, name: str, node: Any) -> dict[str, str]:
        legend, facts = scene_page.legend_of(node), self._map_facts[name]
        low, high = (number_text(float(value)) for value in (legend.low, legend.high))
        return {"gradient": legend.gradient, "low": low, "high": high, "unit": facts["unit"], "title": facts["title"]}

    def _list_segments(self) -> None:
        self._state.segments = [vars(segment) for segment in scene_page.segments_of(self._nodes["labels"])]

    def _offer_windows(self, case: OpenedCase) -> None:
        self._windows = windows_of(case.volume)
        self._darkest = min(window.low for window in self._windows)
        if is_ct(case.volume):
            scene_page.hide_below(self.node, self._darkest)  # black in every window anyhow, and air covers 3D
        first = first_window(self._windows, case.task)
        self._state.windows = [window.name for window in self._windows]
        self.choose_window(first.name)
        scene_page.set_window(self.node, first.low, first.high)


def _numbers(nodes: dict[str, Any]) -> dict[str, Any]:
    """Tables and points of a result as the page shows them."""
    tables = {part.removeprefix(_TABLE): node for part, node in nodes.items() if part.startswith(_TABLE)}
    measured = tables.pop("measurements", None)
    rows = scene_tables.table_rows(measured) if measured is not None else []
    heads = ("name", "value", "unit", "interval", "note")
    named = [dict(zip(heads, row)) for row in rows]
    points = scene_points.placed_points(nodes["points"]) if "points" in nodes else []
    return {
        "headline": named[0] if named else None,
        "rows": named,
        "tables": [_as_table(name, node) for name, node in tables.items()],
        "points": [{"name": point.name, "at": list(point.position_ras_mm)} for point in points],
    }


def _as_table(name: str, node: Any) -> dict[str, Any]:
    """A table node as heads and rows of words."""
    table = node.GetTable()
    heads = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    rows = [list(row) for row in scene_tables.table_rows(node)]
    return {"title": name.replace("_", " ").capitalize(), "heads": heads, "rows": rows}
