"""The four views of the page: three slices with what a reader expects at their edges, and 3D."""

from __future__ import annotations

from typing import Any

from trame.widgets import html
from trame.widgets.vuetify3 import VBtn, VIcon
from trame_slicer.app.logic.slice_view_logic import connect_slice_view_slider_to_state
from trame_slicer.app.ui.slider import Slider
from trame_slicer.core import LayoutManager
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition

from NeuraxisLib import scene_page

#: Tag of a slice view -> its orientation and the colour of its name, as in Slicer.
SLICES = {"Red": ("Axial", "#F34A33"), "Green": ("Coronal", "#6DAD4A"), "Yellow": ("Sagittal", "#EFD64D")}
_EDGES = ("left", "right", "top", "bottom")
_DARK = "#0d1117"
#: How much nearer than all of the slices the 3D view looks: what matters is in their middle.
_CLOSER = 0.3
#: Pictures a second while the mouse is in a view and elsewhere; quality (of 100) of those that move.
_FPS, _FPS_ELSEWHERE, _MOVING_QUALITY = 30.0, 10.0, 65


def key_of(tag: str) -> str:
    """Name of the page's variable that says what stands at the edges of a view."""
    return f"view_{tag}"


class Views:
    """Makes the views and keeps what is written over them in step with the scene.

    Args:
        server: of the page.
        application: the ``SlicerApp`` whose scene is shown.
    """

    def __init__(self, server: Any, application: Any):
        self._server, self._manager, self._volume = server, application.view_manager, None
        for tag in SLICES:
            server.state[key_of(tag)] = {"number": 0, "count": 0, **dict.fromkeys(_EDGES, "")}
        register_rca_factories(
            self._manager, server, self._draw_slice_frame, self._draw_threed_frame,
            target_fps=_FPS, blur_fps=_FPS_ELSEWHERE, interactive_quality=_MOVING_QUALITY,
        )  # fmt: skip
        self.layout = LayoutManager(application.scene, self._manager, server)
        self.layout.register_layout("four-up", _four_up())
        self.layout.set_layout("four-up")

    def show(self, volume: Any) -> None:
        """Fit all views to an image of the scene, its slices in 3D too."""
        self._volume = volume
        for view in self._manager.get_views():
            view.reset_view()
        for view in self._manager.get_slice_views():
            view.get_view_node().RotateToVolumePlane(volume)
            view.fit_view_to_content()
            view.set_visible_in_3d(True)
            self._annotate(view)
        self.fit_3d()

    def fit_3d(self) -> None:
        """Let the 3D view show all that is in it, from the front and a little from the right and above."""
        for view in self._manager.get_threed_views():
            view.fit_view_to_content()
            camera = view.get_camera_node().GetCamera()
            camera.Azimuth(25)
            camera.Elevation(20)
            camera.OrthogonalizeViewUp()
            view.reset_camera()
            view.zoom(_CLOSER)

    def _fit_slice(self, view: Any) -> None:
        """Fit a slice view that was given another size; the slice stays."""
        if self._volume is not None and self._volume.GetScene() is not None:
            offset = view.get_slice_value()
            view.fit_view_to_content()
            view.set_slice_value(offset)

    def refresh(self) -> None:
        """Draw all views anew."""
        for view in self._manager.get_views():
            view.schedule_render()

    def _annotate(self, view: Any) -> None:
        node = view.get_view_node()
        number, count = scene_page.slice_number(node, self._volume)
        letters = scene_page.letters_of(node) if count else ("",) * 4
        self._server.state[key_of(view.name)] = {"number": number, "count": count, **dict(zip(_EDGES, letters))}

    # -- what is drawn over the pictures ------------------------------------------------------------------------

    def _draw_slice_frame(self, server: Any, view_id: str, view: Any) -> None:
        title, color = SLICES[view.name]
        key = key_of(view.name)
        slider = connect_slice_view_slider_to_state(server, view)
        view.modified.connect(self._annotate)
        view.interactor().AddObserver("WindowResizeEvent", lambda *_: self._fit_slice(view))
        with html.Div(classes="nx-over"):
            with html.Div(classes="nx-name"):
                html.Span(title, style=f"color: {color}")
                html.Span(f"{{{{ {key}.number }}}} / {{{{ {key}.count }}}}", v_if=f"{key}.count", classes="nx-number")
            for edge in _EDGES:
                html.Div(f"{{{{ {key}.{edge} }}}}", classes=f"nx-edge nx-{edge}")
            with html.Div(classes="nx-legend", v_if="legend"):
                html.Span("{{ legend.high }}")
                html.Div(classes="nx-bar", style=("`background: ${legend.gradient}`",))
                html.Span("{{ legend.low }}")
                html.Span("{{ legend.unit }}", v_if="legend.unit")
        with html.Div(classes="nx-slider", v_if=f"{key}.count"):
            Slider(slider, theme="dark", density="compact", color=color, thumb_size=12, track_size=2,
                   aria_label=f"{title} slice")  # fmt: skip

    def _draw_threed_frame(self, server: Any, view_id: str, view: Any) -> None:
        with html.Div(classes="nx-over"), html.Div(classes="nx-name"):
            html.Span("3D", style="color: #9fb4e8")
        with VBtn(
            click=self.fit_3d, icon=True, size="x-small", variant="text", classes="nx-fit", title="Show all of it"
        ):
            VIcon("mdi-fit-to-screen-outline", size="18")


def _four_up() -> Layout:
    """Axial and 3D above, coronal and sagittal below, as Slicer has them."""
    red, green, yellow = (
        ViewLayoutDefinition.axial_view(), ViewLayoutDefinition.coronal_view(), ViewLayoutDefinition.sagittal_view()
    )  # fmt: skip
    threed = ViewLayoutDefinition.threed_view(background_color=_DARK)
    rows = [Layout(LayoutDirection.Horizontal, pair) for pair in ([red, threed], [green, yellow])]
    return Layout(LayoutDirection.Vertical, rows)
