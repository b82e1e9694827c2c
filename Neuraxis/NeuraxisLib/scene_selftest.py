"""The section "Self-test" of the Neuraxis panel: a small case of each task, run as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NeuraxisLib.scene_models import UI_FOLDER
from NeuraxisLib.selftest import TaskOutcome, self_test, summary
from NeuraxisLib.task import TASKS, Progress, get_task


class SelfTestSection:
    """A button and a table with one row per task.

    Args:
        panel: the Neuraxis panel; ``panel.logic.newClient()`` makes a worker client with the settings.
    """

    def __init__(self, panel: Any):
        self._panel = panel
        self.top = slicer.util.loadUI(str(UI_FOLDER / "NeuraxisSelfTest.ui"))
        self.ui = slicer.util.childWidgetVariables(self.top)
        self.ui.selfTestButton.connect("clicked(bool)", self.onSelfTest)
        self.ui.outcomesTable.verticalHeader().hide()
        self._fill([])

    def refresh(self, volume: Any = None, folder: Path | None = None) -> None:
        """One test at a time."""
        self.ui.selfTestButton.enabled = not self._panel.isBusy

    def leave(self) -> None:
        """What was found stays in the table."""

    def onSelfTest(self, checked: bool = False) -> None:
        """Run the small cases, in a worker of their own."""
        client = self._panel.logic.newClient()

        def work(progress: Progress) -> list[TaskOutcome]:
            return self_test(client, [get_task(name) for name in TASKS], progress=progress)

        self._fill([])
        self._panel.start(work, _("The self-test is over."), self._show)

    def _show(self, outcomes: list[TaskOutcome]) -> None:
        self._fill(outcomes)
        self._panel.say(summary(outcomes))

    def _fill(self, outcomes: list[TaskOutcome]) -> None:
        table, heads = self.ui.outcomesTable, [_("Task"), _("Outcome"), _("Seconds"), _("Device")]
        table.setColumnCount(len(heads))
        table.setHorizontalHeaderLabels(heads)
        table.setRowCount(len(outcomes))
        for number, outcome in enumerate(outcomes):
            word = _("passed") if outcome.passed else _("failed")
            for column, text in enumerate((outcome.title, word, f"{outcome.seconds:.1f}", outcome.device)):
                item = qt.QTableWidgetItem(text)
                item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
                table.setItem(number, column, item)
        table.resizeColumnsToContents()
        table.resizeRowsToContents()
        self.ui.outcomesLabel.text = "\n".join(f"{o.title}: {o.sentence}" for o in outcomes if o.sentence)
