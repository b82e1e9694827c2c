"""Progress of a long run for people: one line on stderr, rewritten on a terminal, now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO


class ProgressLine:
    """Shows ``12.3 %  stage  (1 h 05 min left)``; use as a context manager, so that the line is ended.

    The time left is judged from this object's own reports, so a run that was resumed is not flattered by what
    earlier ones did.

    Args:
        stream: where to write; stderr by default, so that stdout stays for results.
        every_s: seconds between lines where ``stream`` is not a terminal.
        silent: writes nothing; for all but the first of several processes.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 30.0, silent: bool = False):
        self._silent = silent
        self._stream = stream or sys.stderr
        self._every_s = every_s if not self._terminal else 0.2
        self._first: tuple[float, float] | None = None
        self._shown = -1e9
        self._width = 0

    @property
    def _terminal(self) -> bool:
        return bool(getattr(self._stream, "isatty", lambda: False)())

    def __call__(self, fraction: float, stage: str) -> None:
        """Report that a ``fraction`` 0..1 is done, with a few words on what is going on."""
        if self._silent:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = (fraction, now)
        if fraction < 1 and now - self._shown < self._every_s:
            return
        self._shown = now
        line = f"{100 * fraction:5.1f} %  {stage}{self._left(fraction, now)}"
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _left(self, fraction: float, now: float) -> str:
        began, at = self._first or (fraction, now)
        if fraction <= began or fraction >= 1:
            return ""
        return f"  ({in_words((now - at) * (1 - fraction) / (fraction - began))} left)"

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._width:
            self._stream.write("\n")
            self._stream.flush()


def in_words(seconds: float) -> str:
    """A duration as people say it: ``"40 s"``, ``"12 min"``, ``"1 h 05 min"``."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
