"""How long each click in a panel keeps Slicer from answering: the longest turn of the event loop, per action.

    python Testing/benchmarks/gui_freezes.py [module ...]

Opens the clinical panels on the bundled scans at full size (stand-in for Slicer, the real worker process), opens the
panel, runs the task and clicks every button that a panel with a result lets one click. Measured is the processor time
of the interface's thread within one turn of the loop, so that other work on the computer does not count; what the
stand-in's own node selectors and slice views take, which in Slicer are of C++, is taken off and given beside it, and
drawing by Slicer itself is not in it. Prints every action, the longest first, and marks those above 200 ms
(performance_and_reliability.md 4.3).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel")
sys.path[:0] = [str(ROOT), str(ROOT / "Testing"), *(str(ROOT / room) for room in ROOMS)]

LIMIT_S = 0.2
RUN_LIMIT_S = 3600


class StandIn:
    """Counts the processor time of functions of the stand-in, those that they call included once."""

    def __init__(self, *functions: tuple[type, str]):
        self.seconds, self._depth = 0.0, 0
        for kind, name in functions:
            setattr(kind, name, self._counted(getattr(kind, name)))

    def _counted(self, function: Callable) -> Callable:
        def counted(*arguments, **options):
            since, self._depth = time.thread_time(), self._depth + 1
            try:
                return function(*arguments, **options)
            finally:
                self._depth -= 1
                self.seconds += 0.0 if self._depth else time.thread_time() - since

        return counted


class Stopwatch:
    """Longest turn of the event loop per action: seconds of this thread's processor time, those of the stand-in."""

    def __init__(self, application, stand_in: StandIn):
        self.longest_s: dict[str, tuple[float, float]] = {}
        self._application, self._stand_in = application, stand_in

    def time(self, name: str, action: Callable[[], object]) -> object:
        """Do something within the loop's turn; what it returns."""
        since, before = time.thread_time(), self._stand_in.seconds
        try:
            return action()
        finally:
            standing_in_s = self._stand_in.seconds - before
            took = (time.thread_time() - since - standing_in_s, standing_in_s)
            self.longest_s[name] = max(self.longest_s.get(name, (0.0, 0.0)), took)

    def turns_until(self, name: str, done: Callable[[], bool]) -> None:
        """Let the loop turn until something has ended."""
        until = time.monotonic() + RUN_LIMIT_S
        while not done() and time.monotonic() < until:
            self.time(name, self._application.app.processEvents)
            time.sleep(0.02)
        self.time(name, self._application.app.processEvents)


def load(module: str) -> None:
    """The bundled scan of a module."""
    from Testing import screenshots

    if module == "HemorrhageSeg":
        screenshots.show_sample("hemorrhage", "head_ct_hemorrhage.nrrd", "HeadCTHemorrhage")
    elif module == "StrokeCTP":
        screenshots.load_sample_sequence()
    else:
        screenshots.show_sample("discs", "lumbar_spine_mr.nrrd", "LumbarSpineMR")


def measure(application, stand_in: StandIn, module: str, folder: Path) -> dict[str, tuple[float, float]]:
    """Action -> longest turn in seconds, and seconds of the stand-in in it, for one module."""
    from Testing.test_buttons import answers, panel_buttons

    watch = Stopwatch(application, stand_in)
    load(module)
    widget = watch.time("open the panel", lambda: application.new_widget(module))
    recorded = application.recorded
    recorded.ask = answers(folder, recorded.dialogs)
    run = widget._panel.run

    def run_once(name: str) -> None:
        watch.time(f"{name}: the click", widget.ui.applyButton.click)
        watch.turns_until(f"{name}: until the result is shown", lambda: not run.is_running)

    run_once("run")
    for path in list(panel_buttons(widget)):
        button = panel_buttons(widget).get(path)
        if button is None or not button.enabled or path.endswith((".applyButton", ".cancelButton")):
            continue
        watch.time(path, button.click)
        watch.turns_until(path, lambda: not run.is_running)
    watch.time("close the panel", lambda: application.close_widget(widget))
    application.clear()
    return watch.longest_s


def main(modules: list[str]) -> int:
    """Measure and print; the exit status is 1 if anything takes longer than 200 ms."""
    from Testing import slicer_stand_in

    application, slow = slicer_stand_in.start(), 0
    for module in ROOMS:
        application.load_module(ROOT / module / f"{module}.py")
    import slicer

    from Testing.slicer_stand_in import mrml_widgets, views

    stand_in = StandIn((mrml_widgets.qMRMLNodeComboBox, "_refill"), (views.SliceWidget, "__init__"))
    slicer.util.confirmOkCancelDisplay = lambda *args, **options: True
    for module in modules or ROOMS[1:]:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(application, stand_in, module, Path(folder))
        slow += sum(seconds > LIMIT_S for seconds, _ in found.values())
        print(f"{module}:")
        for name, (seconds, other_s) in sorted(found.items(), key=lambda item: item[1], reverse=True):
            mark = "!" if seconds > LIMIT_S else " "
            print(f"  {1000 * seconds:7.0f} ms {mark} (stand-in {1000 * other_s:4.0f} ms)  {name}", flush=True)
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
