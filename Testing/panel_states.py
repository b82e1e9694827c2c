"""Panels with a result in them, as a user has them before clicking: for the tests that click everything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project_tree import ROOT

for room in ("StrokeCTP", "SpineDiscLabel"):
    if str(ROOT / room / "Testing") not in sys.path:
        sys.path.append(str(ROOT / room / "Testing"))

CLINICAL = ("HemorrhageSeg", "StrokeCTP", "SpineDiscLabel")


@dataclass
class Opened:
    """An open panel.

    Attributes:
        application: the stand-in.
        widget: the module's Widget.
        client: the fake worker behind its logic.
        answer: lets the worker finish its job with a real result.
    """

    application: Any
    widget: Any
    client: Any
    answer: Callable[[], None]

    @property
    def ui(self) -> Any:
        """Widgets of the module's .ui file by name."""
        return self.widget.ui

    def run(self) -> None:
        """Click the button that starts the module's run, and let it finish."""
        self.ui.applyButton.click()
        self.finish()

    def finish(self) -> None:
        """The worker is done, and the panel hears of it."""
        self.answer()
        self.widget._panel.run.on_timer()
        self.application.app.processEvents()


def open_panel(application, module: str, folder: Path, monkeypatch) -> Opened:
    """Open a clinical module on an image of its kind, with a fake worker behind its real logic."""
    from Testing.slicer_stand_in.fake_worker import FakeClient, bleed_result, compute_with
    from Testing.slicer_stand_in.fixtures import add_head

    if module == "HemorrhageSeg":
        client = FakeClient(folder)
        answer = lambda: client.finish(bleed_result(client.handle.job.volume))  # noqa: E731
        add_head()
    elif module == "StrokeCTP":
        import stroke_panel_support as support

        from NeuraxisLib import scene_frames

        client = support.StrokeClient(folder)
        answer = client.answer
        scene_frames.add_sequence(support.phantom().frames, "CTP")
    else:
        import disc_panel_support as support

        client = support.DiscClient(folder)
        answer = client.answer
        support.add_spine()
    compute_with(monkeypatch, client)
    return Opened(application, application.new_widget(module), client, answer)
