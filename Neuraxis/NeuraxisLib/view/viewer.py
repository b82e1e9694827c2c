"""The page as a whole: the scene of trame-slicer, and the small objects that each look after a part of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from trame_server.utils.asynchronous import get_event_loop

from NeuraxisLib import scene_page
from NeuraxisLib.view.case_folder import CaseFolder
from NeuraxisLib.view.display import CaseDisplay
from NeuraxisLib.view.opening import CaseOpening
from NeuraxisLib.view.page import Page
from NeuraxisLib.view.running import CaseRuns
from NeuraxisLib.view.serving import Request
from NeuraxisLib.view.views import Views


class CaseViewer:
    """Puts the parts together.

    Args:
        server: of trame.
        request: what to show.
    """

    def __init__(self, server: Any, request: Request):
        self._request = request
        self._application = scene_page.make_application()
        self._views = Views(server, self._application)
        self._display = CaseDisplay(server, self._views)
        self._runs = CaseRuns(server, self._display, request.device, request.threads)
        folder = CaseFolder(request.path if request.is_list else request.root)
        self._opening = CaseOpening(server, folder, self._display, self._runs.suit)
        self._page = Page(server, self._views, self._display, self._runs, self._opening)

    @property
    def report(self) -> Path | None:
        """The report of the result that is shown."""
        return self._display.report

    def open_first(self) -> None:
        """Read and show what was asked for, or list a folder of cases. Raises NeuraxisError if that cannot be done."""
        request = self._request
        if request.is_list:
            self._opening.show_list("")
        else:
            get_event_loop().run_until_complete(self._opening.open(request.path, request.image, request.task))

    def stop(self) -> None:
        """End the worker, and with it all private files."""
        self._runs.stop()
        loop = get_event_loop()
        for task in asyncio.all_tasks(loop):
            task.cancel()
