"""What is on the page: widgets bound to the variables that the display, the runs and the opening keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets.vuetify3 import (
    VAlert,
    VAppBar,
    VBtn,
    VCard,
    VCardActions,
    VCardText,
    VCardTitle,
    VChip,
    VDialog,
    VExpansionPanel,
    VExpansionPanels,
    VIcon,
    VList,
    VListItem,
    VMain,
    VNavigationDrawer,
    VProgressLinear,
    VRangeSlider,
    VSelect,
    VSlider,
    VSpacer,
    VToolbarTitle,
)

from NeuraxisLib import RESEARCH_USE_NOTICE
from NeuraxisLib.uncertainty import COVERAGE
from NeuraxisLib.view.display import CaseDisplay
from NeuraxisLib.view.opening import CaseOpening
from NeuraxisLib.view.running import CaseRuns
from NeuraxisLib.view.views import Views

PANEL_WIDTH_PX = 372
_STYLE = Path(__file__).parents[1] / "Resources" / "page.css"
_FIELD = {"density": "compact", "variant": "outlined", "hide_details": True}
_SLIDER = {"density": "compact", "hide_details": True, "thumb_size": 14, "track_size": 3, "color": "#5fa8dc"}


class Page:
    """Builds the page.

    Args:
        server: of the page.
        views, display, runs, opening: what its widgets work on.
    """

    def __init__(self, server: Any, views: Views, display: CaseDisplay, runs: CaseRuns, opening: CaseOpening):
        self._views, self._display, self._runs, self._opening = views, display, runs, opening
        server.state.trame__title = "Neuraxis"
        with VAppLayout(server, classes="nx-app") as self.layout:
            self.layout.root.theme = "dark"
            client.Style(_STYLE.read_text(encoding="utf-8"))
            self._draw_bar()
            self._draw_panel()
            with VMain(style="height: 100vh; background: #0d1117;"):
                views.layout.initialize_layout_grid(self.layout)
            self._draw_opening()

    def _draw_panel(self) -> None:
        with (
            VNavigationDrawer(
                permanent=True, location="right", width=PANEL_WIDTH_PX, color="#141b22", disable_resize_watcher=True
            ),
            html.Div(classes="nx-panel", id="nx-panel"),
        ):
            self._draw_run()
            self._draw_headline()
            self._draw_overlays()
            self._draw_numbers()
            self._draw_window()
            html.Div(RESEARCH_USE_NOTICE, classes="nx-notice mt-4")

    def _draw_bar(self) -> None:
        with VAppBar(density="compact", height=44, flat=True, color="#141b22"):
            VToolbarTitle("Neuraxis", style="flex: none; min-width: 100px;")
            with html.Div(classes="nx-case", id="nx-case"):
                html.Span("{{ case_name }}")
                html.Small("{{ case_facts }}")
            VSpacer()
            with html.Div(classes="nx-row mr-4"):
                VChip(
                    "{{ name }}", v_for="name in windows", key="name", size="small", label=True,
                    click=(self._display.choose_window, "[name]"), classes="nx-window",
                    color=("name === window ? '#5fa8dc' : undefined",), title="Grey window",
                )  # fmt: skip
            html.Span("Research use only", classes="nx-notice mr-4", title=RESEARCH_USE_NOTICE)
            VBtn(
                "Open…", click=(self._opening.list_folder, "[listed]"), id="nx-open", prepend_icon="mdi-folder-open",
                size="small", variant="tonal", classes="mr-2", loading=("reading",),
            )  # fmt: skip
            VBtn(
                "Report", href="report", id="nx-report", prepend_icon="mdi-download", size="small", variant="tonal",
                classes="mr-3", disabled=("!has_report",), title="Download report.html: pictures, table, provenance",
            )  # fmt: skip

    # -- run ----------------------------------------------------------------------------------------------------

    def _draw_run(self) -> None:
        VAlert(
            text=("error",), v_if="error", id="nx-error", type="error", variant="tonal", density="compact",
            closable=True, click_close="error = ''", classes="mb-3", style="font-size: 12.5px;",
        )  # fmt: skip
        with html.Section():
            html.Div("{{ note }}", v_for="note in notes", key="note", classes="nx-note mb-2")
            VSelect(v_model=("task",), items=("tasks",), label="Task", disabled=("running",), id="nx-task", **_FIELD)
            VSelect(
                v_model=("model",), items=("models",), label="Model", disabled=("running",), classes="mt-3", **_FIELD
            )
            with html.Div(classes="nx-row mt-3"):
                VBtn(
                    "Run", click=self._runs.start, id="nx-run", color="#2f7fb8", prepend_icon="mdi-play",
                    disabled=("running || !has_image",), style="flex: 1;",
                )  # fmt: skip
                VBtn(
                    "Cancel", click=self._runs.cancel, id="nx-cancel", variant="tonal", disabled=("!running",)
                )
            VProgressLinear(model_value=("percent",), v_if="running", height=5, rounded=True, classes="mt-3",
                            color="#5fa8dc")  # fmt: skip
            html.Div("{{ progress }}", v_if="progress", classes="nx-soft mt-1", id="nx-progress")

    # -- result -------------------------------------------------------------------------------------------------

    @staticmethod
    def _draw_headline() -> None:
        with html.Section(v_if="headline", id="nx-result"):
            with html.Div(classes="nx-headline"):
                html.Div("{{ headline.name }}", classes="nx-soft")
                with html.Div(classes="nx-value"):
                    html.Span("{{ headline.value }}")
                    html.Small("{{ headline.unit }}")
                html.Div(
                    f"{COVERAGE:.0%} interval {{{{ headline.interval }}}} {{{{ headline.unit }}}}".replace("%", " %"),
                    v_if="headline.interval", classes="nx-soft",
                )  # fmt: skip
            html.Div("{{ warning }}", v_for="warning in warnings", key="warning", classes="nx-warning mt-2")

    def _draw_numbers(self) -> None:
        with html.Section(v_if="rows.length"):
            html.H2("Measurements")
            self._draw_measurements()
            with html.Div(v_if="points.length", classes="mt-3"):
                html.H2("Points")
                with html.Div(classes="nx-row nx-wrap"):
                    VChip(
                        "{{ point.name }}", v_for="point in points", key="point.name", size="small", label=True,
                        click=(self._display.go_to, "[point.at]"), classes="nx-point",
                    )  # fmt: skip
            self._draw_tables()

    @staticmethod
    def _draw_measurements() -> None:
        with html.Div(classes="nx-scroll"), html.Table(classes="nx-table", id="nx-measurements"):
            with html.Thead(), html.Tr():
                html.Th("Measurement")
                html.Th("Value", classes="nx-num")
                html.Th("Unit")
                html.Th("Interval", classes="nx-num")
            with html.Tbody(), html.Tr(v_for="row in rows", key="row.name", title=("row.note",)):
                html.Td("{{ row.name }}")
                html.Td("{{ row.value }}", classes="nx-num")
                html.Td("{{ row.unit }}")
                html.Td("{{ row.interval }}", classes="nx-num")

    @staticmethod
    def _draw_tables() -> None:
        with (
            VExpansionPanels(v_if="tables.length", classes="mt-3", variant="accordion", elevation=0),
            VExpansionPanel(v_for="table in tables", key="table.title", title=("table.title",), bg_color="#18212a"),
            html.Template(v_slot_text=True),
            html.Div(classes="nx-scroll"),
            html.Table(classes="nx-table"),
        ):
            with html.Thead(), html.Tr():
                html.Th("{{ head }}", v_for="head in table.heads", key="head")
            with html.Tbody(), html.Tr(v_for="(row, n) in table.rows", key="n"):
                html.Td("{{ cell }}", v_for="(cell, c) in row", key="c")

    # -- image and overlays -------------------------------------------------------------------------------------

    def _draw_overlays(self) -> None:
        with html.Section(v_if="segments.length || maps.length > 1"):
            html.H2("Over the image")
            with html.Button(
                v_for="segment in segments", key="segment.id", type="button", title="Show or hide",
                classes=("{'nx-segment nx-row': true, 'nx-off': !segment.visible}",),
                click=(self._display.toggle_segment, "[segment.id]"),
            ):  # fmt: skip
                VIcon(icon=("segment.visible ? 'mdi-eye-outline' : 'mdi-eye-off-outline'",), size="16")
                html.Span(classes="nx-swatch", style=("`background: ${segment.color}`",))
                html.Span("{{ segment.name }}{{ segment.empty ? ' (none found)' : '' }}")
            with html.Div(classes="nx-row", v_if="segments.length"):
                html.Span("Fill", classes="nx-label")
                VSlider(v_model=("fill",), min=0, max=1, step=0.05, id="nx-fill", aria_label="Fill", **_SLIDER)
            with html.Div(v_if="maps.length > 1"):
                VSelect(v_model=("map",), items=("maps",), id="nx-map", label="Map", classes="mt-2", **_FIELD)
                with html.Div(classes="nx-row mt-1"):
                    html.Span("Opacity", classes="nx-label")
                    VSlider(v_model=("map_opacity",), min=0, max=1, step=0.05, disabled=("!map",),
                            aria_label="Opacity", **_SLIDER)  # fmt: skip
            with html.Div(v_if="key_slices.length", classes="nx-row nx-wrap mt-2"):
                html.Span("Least certain slices", classes="nx-soft")
                VChip(
                    "{{ slice.title }}", v_for="slice in key_slices", key="slice.k", size="small", label=True,
                    click=(self._display.go_to_slice, "[slice.k]"), classes="nx-key-slice",
                )  # fmt: skip

    @staticmethod
    def _draw_window() -> None:
        with html.Section(v_if="case_name"):
            html.H2("Grey window: {{ Math.round(window_range[0]) }} to {{ Math.round(window_range[1]) }}")
            VRangeSlider(
                v_model=("window_range",), min=("window_limits[0]",), max=("window_limits[1]",), step=("window_step",),
                classes="mx-1", id="nx-window-range", **_SLIDER,
            )  # fmt: skip

    # -- opening ------------------------------------------------------------------------------------------------

    def _draw_opening(self) -> None:
        with VDialog(v_model=("listing",), width=560), VCard(id="nx-dialog"):
            VCardTitle("Open a scan or a result", classes="text-subtitle-1 pb-0")
            with VCardText(style="max-height: 62vh; overflow-y: auto;"):
                html.Div("{{ listed ? listed : 'the folder that the page was started on' }}", classes="nx-soft mb-2")
                with VList(density="compact", classes="nx-list"):
                    VListItem("Up", v_if="listed", click=self._opening.list_parent, prepend_icon="mdi-arrow-up")
                    VListItem(
                        v_for="entry in entries", key="entry.path", title=("entry.name",), prepend_icon=("entry.icon",),
                        click=(self._opening.choose, "[entry.path, entry.kind]"), classes="nx-entry",
                    )  # fmt: skip
                html.Div("Nothing here can be opened.", v_if="!entries.length", classes="nx-note")
            with VCardActions():
                VSpacer()
                VBtn("Close", click="listing = false", variant="text")
