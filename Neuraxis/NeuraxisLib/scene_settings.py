"""The section "Computing" of the Neuraxis panel: the worker's settings, and what was found on this computer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from NeuraxisLib.panel import (
    DEVICE_SETTING,
    MEMORY_SETTING,
    PYTHON_SETTING,
    THREADS_SETTING,
    device_choices,
    worker_settings,
)
from NeuraxisLib.scene_models import UI_FOLDER


class SettingsSection:
    """Device, interpreter, threads and memory limit; they hold from the next run on, in all modules.

    Args:
        panel: the Neuraxis panel; ``panel.logic`` has ``settingsChanged()`` and ``questionForWorker()``.
    """

    def __init__(self, panel: Any):
        self._panel = panel
        self.top = slicer.util.loadUI(str(UI_FOLDER / "NeuraxisComputing.ui"))
        self.ui = ui = slicer.util.childWidgetVariables(self.top)
        for name, title in device_choices().items():
            ui.deviceComboBox.addItem(title, name)
        ui.memorySpinBox.enabled = sys.platform.startswith("linux")  # elsewhere a limit would have no effect
        self._show()
        ui.deviceComboBox.connect("currentIndexChanged(int)", self.onDeviceChanged)
        ui.pythonPathLineEdit.connect("currentPathChanged(QString)", self.onPythonChanged)
        ui.threadsSpinBox.connect("valueChanged(int)", self.onThreadsChanged)
        ui.memorySpinBox.connect("valueChanged(int)", self.onMemoryChanged)
        ui.checkButton.connect("clicked(bool)", self.onCheck)
        ui.resetButton.connect("clicked(bool)", self.onReset)

    def refresh(self, volume: Any = None, folder: Path | None = None) -> None:
        """Nothing but the button depends on what else goes on."""
        self.ui.checkButton.enabled = not self._panel.isBusy

    def leave(self) -> None:
        """Settings are stored as they change."""

    def _show(self) -> None:
        settings, ui = worker_settings(slicer.app.userSettings().value), self.ui
        ui.deviceComboBox.setCurrentIndex(max(0, ui.deviceComboBox.findData(settings["device"])))
        ui.pythonPathLineEdit.currentPath = settings["python"] or ""
        ui.threadsSpinBox.value = settings["threads"] or 0
        ui.memorySpinBox.value = settings["memory_limit_gb"] or 0

    def _store(self, key: str, value: Any) -> None:
        slicer.app.userSettings().setValue(key, value)
        self.ui.checkLabel.text = ""
        self._panel.logic.settingsChanged()

    def onDeviceChanged(self, index: int | None = None) -> None:
        """Another default device."""
        self._store(DEVICE_SETTING, self.ui.deviceComboBox.currentData or "auto")

    def onPythonChanged(self, path: str) -> None:
        """Another interpreter for the worker."""
        self._store(PYTHON_SETTING, path.strip())

    def onThreadsChanged(self, count: int) -> None:
        """Another number of threads."""
        self._store(THREADS_SETTING, count)

    def onMemoryChanged(self, gigabytes: int) -> None:
        """Another memory limit."""
        self._store(MEMORY_SETTING, gigabytes)

    def onReset(self, checked: bool = False) -> None:
        """Forget all settings of the worker."""
        for key in (DEVICE_SETTING, PYTHON_SETTING, THREADS_SETTING, MEMORY_SETTING):
            slicer.app.userSettings().remove(key)
        self._show()
        self._panel.logic.settingsChanged()
        self._panel.say(_("The settings are as they were at first."))

    def onCheck(self, checked: bool = False) -> None:
        """Say what the worker's Python and the computer have, and what follows from it."""
        self._panel.start(self._panel.logic.questionForWorker(), _("This computer was checked."), self._showFacts)

    def _showFacts(self, lines: list[str]) -> None:
        self.ui.checkLabel.text = "\n".join(lines)
