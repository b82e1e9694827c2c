"""The run of a panel: progress bar, Cancel, status line. Works on the widgets it is given and imports no Qt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from NeuraxisLib.panel import progress_line


class RunPanel:
    """One run at a time, shown in ``progressBar`` and ``statusLabel``.

    Args:
        ui: the widgets of the .ui file, by name.
        logic: has ``poll()`` and ``cancel(handle)``.
        timer: is started and stopped with the run; its timeout has to call :meth:`on_timer`.
        say: shows a sentence in the status line.
        ended: called after every run, however it ended, once the panel may be refreshed.
    """

    def __init__(self, ui: Any, logic: Any, timer: Any, say: Callable[[str], None], ended: Callable[[], None]):
        self._ui, self._logic, self._timer, self._say, self._ended = ui, logic, timer, say, ended
        self._handle: Any = None
        self._then: Callable[[Any], None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._handle is not None

    def start(
        self,
        begin: Callable[..., Any],
        words: dict[str, str],
        then: Callable[[Any], None] | None = None,
    ) -> None:
        """Begin a run.

        Args:
            begin: called with ``onDone``, ``onFailed`` and ``onCancelled``; returns the handle of the run.
            words: what to say: "starting", "cancelling", "done" and "cancelled".
            then: called with the result's nodes after a run that was done.
        """
        self._words, self._then = words, then
        try:
            self._handle = begin(onDone=self._done, onFailed=self._failed, onCancelled=self._cancelled)
        except Exception as error:
            self._failed(error)
            return
        self._say(words["starting"])
        self._ui.progressBar.value = 0
        self._timer.start()

    def on_timer(self) -> None:
        """Hear what the worker said and move the progress bar."""
        self._logic.poll()
        if self._handle is not None:
            self._ui.progressBar.value = round(100 * self._handle.fraction)
            self._ui.statusLabel.text = progress_line(self._handle.stage, self._handle.seconds_left)

    def cancel(self) -> None:
        """Cancel the run."""
        if self._handle is not None:
            self._logic.cancel(self._handle)
            self._ui.statusLabel.text = self._words["cancelling"]

    def drop(self) -> None:
        """Forget the run: the panel goes."""
        self._timer.stop()
        self._handle = None

    def _end(self, message: str, percent: int = 0) -> None:
        self._handle = None
        self._timer.stop()
        self._ui.progressBar.value = percent
        self._say(message)
        self._ended()

    def _done(self, shown: Any) -> None:
        self._end(self._words["done"], 100)
        if self._then is not None:
            self._then(shown)

    def _failed(self, error: Exception) -> None:
        logging.error("%s", error)
        self._end(str(error))

    def _cancelled(self) -> None:
        self._end(self._words["cancelled"])
