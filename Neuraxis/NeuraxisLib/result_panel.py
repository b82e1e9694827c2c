"""Parts of a module's panel that all modules share. They work on the widgets they are given and import no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from NeuraxisLib import scene, scene_cases, scene_views
from NeuraxisLib.panel import model_card
from NeuraxisLib.translation import translator

_ = translator(__name__)


class ModelChooser:
    """The list of models (``modelComboBox``) with the card of the chosen one (``modelCardLabel``).

    Args:
        ui: the widgets of the .ui file, by name.
        without: what the list calls the choice of no model, in a module that can do without; empty for none.
    """

    def __init__(self, ui: Any, without: str = ""):
        self._ui, self._without, self._cards = ui, without, {}

    def fill(self, models: Sequence[Any], chosen: str) -> None:
        """List the models and choose one by name, the first if there is none of that name."""
        box = self._ui.modelComboBox
        blocked = box.blockSignals(True)
        box.clear()
        if self._without:
            box.addItem(self._without, "")
        for model in models:
            box.addItem(model.title, model.name)
        box.blockSignals(blocked)
        self._cards = {model.name: model_card(model.header) for model in models}
        self.choose(chosen)

    def choose(self, name: str) -> None:
        """Choose a model by name, the first if there is none of that name."""
        box = self._ui.modelComboBox
        blocked = box.blockSignals(True)
        box.setCurrentIndex(max(0, box.findData(name)))
        box.blockSignals(blocked)
        self.show_card()

    def show_card(self) -> str:
        """Show the card of the chosen model; returns its name, empty if there is none."""
        name = self._ui.modelComboBox.currentData or ""
        nothing = "" if self._without else _("No model is installed.")
        self._ui.modelCardLabel.text = self._cards.get(name, nothing)
        self._ui.modelCollapsibleButton.visible = bool(self._ui.modelCardLabel.text)
        return name


class ResultPanel:
    """Keeps the result widgets and the views in step with the result nodes of a volume.

    Args:
        ui: the widgets of the .ui file, by name (``resultTableView``, ``segmentsTableView``, ``overlayCheckBox`` ...).
        task: name of the task whose results are shown.
        overlay: name of the map in the result that the overlay shows.
    """

    def __init__(self, ui: Any, task: str, overlay: str):
        self._ui, self._task, self._overlay = ui, task, f"map {overlay}"
        self._next = 0

    def refresh(self, source: Any, overlay_opacity: float | None, show_3d: bool, folder: Path | None) -> None:
        """Show what the scene holds for a volume.

        Args:
            source: the volume node, or None.
            overlay_opacity: opacity of the map over the slices; None takes it away.
            show_3d: whether segments are shown as surfaces.
            folder: result folder on disk, if it is still there.
        """
        ui, nodes = self._ui, scene.result_nodes(source, self._task)
        segmentation, overlay = nodes.get("labels"), nodes.get(self._overlay)
        ui.resultTableView.setMRMLTableNode(nodes.get("table measurements"))
        ui.resultTableView.resizeColumnsToContents()
        ui.segmentsTableView.setSegmentationNode(segmentation)
        scene_views.overlay(None if overlay_opacity is None else overlay, overlay_opacity or 0.0)
        ui.segmentsTableView.enabled = ui.show3DButton.enabled = segmentation is not None
        ui.overlayCheckBox.enabled = ui.overlayOpacitySlider.enabled = overlay is not None
        ui.nextSliceButton.enabled = segmentation is not None and bool(scene.key_slices(segmentation))
        ui.saveReportButton.enabled = ui.openFolderButton.enabled = folder is not None
        warnings = segmentation.GetAttribute(scene.WARNINGS_ATTRIBUTE) if segmentation is not None else ""
        ui.warningsLabel.text = warnings or ""
        ui.warningsLabel.visible = bool(warnings)
        ui.show3DButton.checked = show_3d
        if segmentation is not None and show_3d != scene.is_shown_3d(segmentation):
            scene.show_3d(segmentation, show_3d)
            if show_3d:
                scene_cases.center_3d_views()

    def restart(self) -> None:
        """Begin again with the most uncertain slice."""
        self._next = 0

    def show_next_slice(self, source: Any) -> tuple[int, int, int]:
        """Show the next of the most uncertain slices; returns (slice k, its rank from 1, how many there are)."""
        slices = scene.key_slices(scene.result_nodes(source, self._task)["labels"])
        rank = self._next % len(slices)
        self._next = rank + 1
        scene.show_slice(source, slices[rank])
        return slices[rank], rank + 1, len(slices)
