"""A piece of work in a thread of its own; looks to a panel like the handle of a run, and is polled by its timer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from NeuraxisLib.errors import CancelledError, NeuraxisError
from NeuraxisLib.process import as_user_error
from NeuraxisLib.task import Progress

#: Seconds that the work gets to notice a cancel; then it is answered, and the thread left to end by itself.
CANCEL_GRACE_S = 0.7
#: How long a poll waits for the work. Slicer's event loop keeps Python's lock while it runs, so that other threads get
#: a few milliseconds of every turn of a timer and work takes twenty times as long; while a poll waits they run freely.
TURN_S = 0.05


class Background:
    """Calls ``work(progress)`` in a daemon thread; exactly one of the callbacks is called, by :meth:`poll`.

    ``work`` reports to the :class:`~NeuraxisLib.task.Progress` and, through it, learns of a cancel. It has to leave
    the disk in order at every report, as it may be abandoned there.

    Args:
        work: what to do; what it returns goes to ``on_done``.
        on_done, on_failed, on_cancelled: called with the value, with the error, with nothing.

    Attributes:
        state: "running", "done", "failed" or "cancelled".
        fraction: 0 to 1.
        stage: what is being done.
    """

    def __init__(
        self,
        work: Callable[[Progress], Any],
        on_done: Callable[[Any], None] | None = None,
        on_failed: Callable[[NeuraxisError], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
    ):
        self.state, self.fraction, self.stage = "running", 0.0, ""
        self._callbacks = {"done": on_done, "failed": on_failed, "cancelled": on_cancelled}
        self._end: tuple[str, tuple] | None = None
        self._give_up_at: float | None = None
        self._started_at = time.monotonic()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end if the rest goes as fast as what is done; None below 5 % of the way."""
        if self.state != "running" or self.fraction < 0.05:
            return None
        return (time.monotonic() - self._started_at) * (1 / self.fraction - 1)

    def cancel(self) -> None:
        """Ask the work to stop; the next polls answer within a second."""
        self._cancelled.set()
        if self._give_up_at is None:
            self._give_up_at, self.stage = time.monotonic() + CANCEL_GRACE_S, "Cancelling"

    def poll(self) -> None:
        """Deliver the end, once there is one; let a timer call this, as the work goes on while it waits here."""
        if self.state != "running":
            return
        self._thread.join(TURN_S)
        end = self._end
        if end is None and self._give_up_at is not None and time.monotonic() >= self._give_up_at:
            end = ("cancelled", ())
        if end is None:
            return
        self.state, arguments = end
        if self.state == "done":
            self.fraction = 1.0
        if self._callbacks[self.state]:
            self._callbacks[self.state](*arguments)

    def wait(self, seconds: float) -> None:
        """Wait for the end, at most so long, and deliver it."""
        self._thread.join(max(0.0, seconds - TURN_S))
        self.poll()

    def _run(self, work: Callable[[Progress], Any]) -> None:
        try:
            value = work(Progress(self._report, self._cancelled.is_set))
        except CancelledError:
            self._end = ("cancelled", ())
        except Exception as error:
            self._end = ("failed", (as_user_error(error),))
        else:
            self._end = ("done", (value,))

    def _report(self, fraction: float, stage: str) -> None:
        if not self._cancelled.is_set():
            self.fraction, self.stage = fraction, stage


class OneRun:
    """What a :class:`~NeuraxisLib.run_panel.RunPanel` asks of what runs: the run begun last, whatever it is."""

    def __init__(self) -> None:
        self._current: Any = None

    def hold(self, run: Any) -> Any:
        """This one runs now; returns it. It has ``poll`` and ``cancel``."""
        self._current = run
        return run

    def poll(self) -> None:
        """Deliver what it said."""
        if self._current is not None:
            self._current.poll()

    def cancel(self, handle: Any) -> None:
        """Cancel a run."""
        handle.cancel()


class BackgroundRuns(OneRun):
    """:class:`Background` work of a panel."""

    def begin(self, work: Callable[[Progress], Any], **callbacks: Callable) -> Background:
        """Start work; the one of before is over. ``callbacks``: ``onDone``, ``onFailed`` and ``onCancelled``."""
        return self.hold(Background(work, callbacks["onDone"], callbacks["onFailed"], callbacks["onCancelled"]))
