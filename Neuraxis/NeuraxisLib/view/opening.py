"""Opening another scan or result from the folder that the page was started on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from NeuraxisLib.view.case_folder import CaseFolder
from NeuraxisLib.view.display import CaseDisplay
from NeuraxisLib.view.errors import told
from NeuraxisLib.view.reading import OpenedCase, add_image, open_case

_ICONS = {
    "folder": "mdi-folder-outline", "result": "mdi-file-chart-outline", "dicom": "mdi-layers-outline",
    "image": "mdi-cube-outline",
}  # fmt: skip


class CaseOpening:
    """The list of what can be opened, and opening it.

    Args:
        server: of the page.
        folder: outside of which nothing is opened.
        display: shows what was opened.
        opened: called with it.
    """

    def __init__(self, server: Any, folder: CaseFolder, display: CaseDisplay, opened: Callable[[OpenedCase], None]):
        self._state, self._folder, self._display, self._opened = server.state, folder, display, opened
        self._state.update({"listing": False, "listed": "", "entries": [], "reading": False, "error": ""})

    @told
    def list_folder(self, path: str = "") -> None:
        """Show what a folder below the root holds."""
        self.show_list(path)

    def show_list(self, path: str) -> None:
        """The same, for callers who handle its errors themselves. Raises InputError."""
        entries = [{**vars(entry), "icon": _ICONS[entry.kind]} for entry in self._folder.entries(path)]
        self._state.update({"listing": True, "listed": path, "entries": entries})

    @told
    def list_parent(self) -> None:
        """Show the folder around the one that is listed; the root has none."""
        parent = Path(self._state.listed).parent.as_posix()
        return self.list_folder("" if parent == "." else parent)

    @told
    async def choose(self, path: str, kind: str) -> None:
        """Look into a folder, or open anything else."""
        if kind == "folder":
            await self.list_folder(path)
            return
        place = self._folder.resolve(path)
        self._state.listing = False
        await self.open(place)

    async def open(self, place: Path, image: Path | None = None, task: str = "") -> None:
        """Read a case while the page stays alive, then show it.

        Raises:
            NeuraxisError: it cannot be read; what was shown stays.
        """
        with self._state:
            self._state.reading = True
        try:
            case = await asyncio.to_thread(self._read, place, image, task)
            self._display.show(case)
            self._opened(case)
        finally:
            with self._state:
                self._state.reading = False

    def _read(self, place: Path, image: Path | None, task: str) -> OpenedCase:
        shown = self._display.case
        completed = add_image(shown, place) if shown is not None and image is None else None
        return completed or open_case(place, image, task)
