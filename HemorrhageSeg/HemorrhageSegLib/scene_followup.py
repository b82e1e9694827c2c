"""Follow-up in Slicer: two volumes of the scene -> worker -> result nodes, and the panel's section that shows them."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from HemorrhageSegLib.followup_inputs import moment_of
from HemorrhageSegLib.followup_task import TASK
from NeuraxisLib import scene, scene_views
from NeuraxisLib.errors import InputError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.scene_runs import SceneRuns
from NeuraxisLib.scene_tables import table_rows
from NeuraxisLib.slice_view import BRAIN_WINDOW_HU, css_color

#: Node reference role from the measurements of a follow-up to the later volume.
LATER_ROLE = "NeuraxisLater"
#: Segments that a reader wants to find, as in the label table: what is new, what is gone.
CHANGED = ("Segment_2", "Segment_3")


class SceneFollowUps:
    """Runs the follow-up of two volumes through the worker of the hemorrhage runs.

    Args:
        runs: of the hemorrhage task; their results are used where a volume has one.
    """

    def __init__(self, runs: SceneRuns):
        self._outlines = runs
        self._runs = SceneRuns(TASK.name, "baseline", lambda: runs.client)

    def compare(
        self, earlier: Any, later: Any, model: str, device: str, wait: bool, callbacks: Mapping[str, Any]
    ) -> Any:
        """Compare two volume nodes; see :meth:`NeuraxisLib.scene_runs.SceneRuns.process`.

        Raises:
            InputError: no volume, another patient, or the wrong order, as far as the scene knows.
        """
        for node in (earlier, later):
            reason = scene.why_unsuitable(node)
            if reason:
                raise InputError(reason)
        options = {"model": model, "hours_between": hours_between(earlier, later)}
        for name, node in (("baseline_result", earlier), ("later_result", later)):
            folder = self._outlines.result_folder(node)
            options[name] = "" if folder is None else str(folder)
        on_progress, on_done, on_failed, on_cancelled = self._runs.take_callbacks(dict(callbacks))

        def done(shown: scene.SceneResult) -> None:
            shown_to_be_read(shown, later)
            if on_done:
                on_done(shown)

        ends = (on_progress, done, on_failed, on_cancelled)
        shown = self._runs.process(earlier, "", device, options, wait, *ends, inputs={"later": later})
        if wait:
            shown_to_be_read(shown, later)
        return shown

    def result_folder(self, earlier: Any) -> Path | None:
        """Folder with the newest follow-up from a volume; None if it was not computed in this session."""
        return self._runs.result_folder(earlier)

    def stop(self) -> None:
        """Forget the results; the worker ends with that of the hemorrhage runs."""
        self._runs.stop()


def shown_to_be_read(shown: scene.SceneResult, later: Any) -> None:
    """Give the nodes of a new follow-up what they need beyond any result: whose later scan, and its grey values."""
    shown.tables["measurements"].SetNodeReferenceID(LATER_ROLE, later.GetID())
    display = shown.maps["later"].GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetWindowLevelMinMax(*BRAIN_WINDOW_HU)
    display.ApplyThresholdOff()


def hours_between(earlier: Any, later: Any) -> float:
    """Hours between two volumes by their DICOM studies in the subject hierarchy; -1 if that does not know.

    Raises:
        InputError: they are of different patients, or the wrong way round.
    """
    (one, before), (other, after) = dicom_facts(earlier), dicom_facts(later)
    if one and other and one != other:
        raise InputError("The two scans carry different patient ids; choose two scans of the same patient.")
    if before is None or after is None or before == after:  # two series of one study share its time
        return -1.0
    hours = (after - before) / timedelta(hours=1)
    if hours < 0:
        raise InputError("By its DICOM study, the earlier scan was made after the later one; exchange them.")
    return hours


def dicom_facts(node: Any) -> tuple[str, Any]:
    """(id of the patient, time of the study) of a volume that came from DICOM; empty and None where not known."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if not item:
        return "", None
    patient, study = (hierarchy.GetItemAncestorAtLevel(item, level) for level in ("Patient", "Study"))
    words = ("StudyDate", "StudyTime") if study else ()
    facts = {word: hierarchy.GetItemAttribute(study, f"DICOM.{word}") or "" for word in words}
    return (hierarchy.GetItemUID(patient, "DICOM") or "" if patient else ""), moment_of(facts)


# -- the panel ------------------------------------------------------------------------------------------------


class FollowUpSection:
    """Section of the hemorrhage panel: the panel's volume is the later scan; choose the earlier one and compare.

    Args:
        panel: the :class:`NeuraxisLib.scene_panel.ModulePanel`; its parameter node has ``earlierVolume``,
            ``modelName`` and ``device``.
        logic: has ``followUp``, ``followUpFolder`` and ``missingPackages``.
        ui_file: path of the section's .ui file.
    """

    def __init__(self, panel: Any, logic: Any, ui_file: str):
        self._panel, self._logic, self._later = panel, logic, None
        self._hidden: list[Any] = []  # displays of other outlines, hidden while the changes are shown
        self._next = 0
        self.top = slicer.util.loadUI(ui_file)
        self.ui = slicer.util.childWidgetVariables(self.top)
        self.ui.earlierSelector.setMRMLScene(slicer.mrmlScene)
        self.ui.earlierSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.on_earlier_chosen)
        self.ui.compareButton.connect("clicked(bool)", self.on_compare)
        self.ui.growthCheckBox.connect("toggled(bool)", self.on_shown)
        self.ui.laterSlider.connect("valueChanged(double)", self.on_faded)
        self.ui.nextChangeButton.connect("clicked(bool)", self.on_next_change)
        self.ui.changeReportButton.connect("clicked(bool)", self.on_save_report)
        self.ui.changeFolderButton.connect("clicked(bool)", self.on_open_folder)
        self.ui.legendLabel.text = legend()

    @property
    def earlier(self) -> Any:
        """The earlier volume that was chosen, or None."""
        parameters = self._panel.parameterNode
        return None if parameters is None else parameters.earlierVolume

    def refresh(self, volume: Any, folder: Path | None) -> None:
        """Show what the scene holds for the chosen pair; ``volume`` is the later scan."""
        ui, self._later = self.ui, volume
        ui.earlierSelector.setCurrentNode(self.earlier)
        reason = self._why_not()
        ui.compareButton.enabled = not reason
        ui.compareButton.toolTip = reason or _("Aligns the two heads and compares the blood on them.")
        nodes = self._nodes()
        found = bool(nodes)
        ui.changeFrame.visible = found
        ui.nextChangeButton.enabled = found and bool(self._changed_slices())
        ui.changeReportButton.enabled = ui.changeFolderButton.enabled = found and self._folder() is not None
        if found:
            self._tell(nodes)
        self._show(nodes)

    def leave(self) -> None:
        """The module is left or the scene goes: outlines that were hidden are shown again."""
        self._later = None
        self._show({})

    def _why_not(self) -> str:
        if self._logic.missingPackages():
            return _("Install the missing packages first.")
        if self._panel.run.is_running:
            return _("Wait for the run under way, or cancel it.")
        if self._later is None:
            return _("Choose the later scan as the head CT above.")
        return scene.why_unsuitable(self._later) or (
            scene.why_unsuitable(self.earlier) if self.earlier is not None else _("Choose the earlier scan first.")
        )

    def _nodes(self) -> dict[str, Any]:
        """Nodes of the follow-up from the chosen earlier to the shown later volume; empty if there is none."""
        nodes = scene.result_nodes(self.earlier, TASK.name)
        table = nodes.get("table measurements")
        if table is None or self._later is None or table.GetNodeReferenceID(LATER_ROLE) != self._later.GetID():
            return {}
        return nodes

    def _folder(self) -> Path | None:
        return self._logic.followUpFolder(self.earlier)

    # -- what is shown --------------------------------------------------------------------------------------

    def _tell(self, nodes: dict[str, Any]) -> None:
        rows = {row[0]: row for row in table_rows(nodes["table measurements"])}
        self.ui.changeLabel.text = change_text(rows)
        self.ui.expansionLabel.text = expansion_text(table_rows(nodes["table expansion"]))
        self.ui.partsLabel.text = parts_text(rows)
        warnings = nodes["labels"].GetAttribute(scene.WARNINGS_ATTRIBUTE) or ""
        self.ui.followUpWarningsLabel.text = "\n".join(warnings.splitlines()[1:])  # the first tells the expansion
        self.ui.followUpWarningsLabel.visible = bool(self.ui.followUpWarningsLabel.text)

    def _show(self, nodes: dict[str, Any]) -> None:
        """Changes over the earlier scan, with the other outlines of both scans hidden; or those back again."""
        segmentation = nodes.get("labels")
        shown = segmentation is not None and self.ui.growthCheckBox.checked
        if segmentation is not None:
            segmentation.GetDisplayNode().SetVisibility(shown)
        for display in [] if shown else self._hidden:
            display.SetVisibility(True)
        if not shown:
            self._hidden = []
            return
        for node in (self.earlier, self._later):
            outline = scene.result_nodes(node, "hemorrhage").get("labels")
            if outline is not None and outline.GetDisplayNode().GetVisibility():
                self._hidden.append(outline.GetDisplayNode())
                outline.GetDisplayNode().SetVisibility(False)
        if self.ui.laterSlider.value > 0:
            scene_views.lay_over(nodes["map later"], self.ui.laterSlider.value)

    def _changed_slices(self) -> list[int]:
        """Slices k of the earlier scan with most that is new or gone first."""
        segmentation = self._nodes()["labels"]
        area: Any = 0
        for segment in CHANGED:
            known = segmentation.GetSegmentation().GetSegment(segment)
            if known is not None and known.GetRepresentation("Binary labelmap") is not None:
                mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, self.earlier)
                area = area + (mask != 0).sum(axis=(1, 2))
        order = np.argsort(-np.atleast_1d(area), kind="stable")
        return [int(k) for k in order if np.atleast_1d(area)[k] > 0]

    # -- what is clicked ------------------------------------------------------------------------------------

    def on_earlier_chosen(self, node: Any = None) -> None:
        """Another earlier volume was picked."""
        if self._panel.parameterNode is not None:
            self._panel.parameterNode.earlierVolume = node

    def on_compare(self, checked: bool = False) -> None:
        """Start the comparison; the panel stays alive."""
        parameters, self._next = self._panel.parameterNode, 0
        chosen = (parameters.earlierVolume, self._later, parameters.modelName, parameters.device)
        done = _("Compared. Check both outlines and the alignment before you use any number.")
        begin = functools.partial(self._logic.followUp, *chosen, wait=False)
        self._panel.startRun(begin, done, self._compared, replaces=False)

    def _compared(self, shown: scene.SceneResult) -> None:
        self.ui.growthCheckBox.checked = True
        slicer.util.setSliceViewerLayers(background=self.earlier, fit=True)
        slices = self._changed_slices() if self._nodes() else []
        if slices:
            scene.show_slice(self.earlier, slices[0])
        self._panel.refresh()

    def on_shown(self, checked: bool = False) -> None:
        """Changes over the earlier scan, or the later scan with its own outline."""
        if self._nodes():
            slicer.util.setSliceViewerLayers(background=self.earlier if checked else self._later, fit=True)
            if not checked:
                scene_views.lay_over(None, 0.0)
        self._panel.refresh()

    def on_faded(self, value: float = 0.0) -> None:
        """Fade from the earlier scan to the later one."""
        if self._nodes() and self.ui.growthCheckBox.checked:
            scene_views.lay_over(self._nodes()["map later"] if value > 0 else None, value)

    def on_next_change(self, checked: bool = False) -> None:
        """Show the next slice with something new or gone, most first."""
        slices = self._changed_slices()
        k = slices[self._next % len(slices)]
        scene.show_slice(self.earlier, k)
        words = _("Slice {slice} of the earlier scan, number {rank} of {count} with a change.")
        self._panel.say(words.format(slice=k + 1, rank=self._next % len(slices) + 1, count=len(slices)))
        self._next += 1

    def on_save_report(self, checked: bool = False) -> None:
        """Copy the report to where the user wants it."""
        name = "hemorrhage_followup.html"
        target = qt.QFileDialog.getSaveFileName(self.top, _("Save report"), name, "HTML (*.html)")
        if target:
            self._panel.copyReport(self._folder(), target)

    def on_open_folder(self, checked: bool = False) -> None:
        """Open the result folder in the file browser."""
        self._panel.openFolder(self._folder())


# -- words ----------------------------------------------------------------------------------------------------


def legend() -> str:
    """Rich text: a coloured square and the name of each part of the change map."""
    table = LabelTable.read(TASK.resources / "labels.csv")
    return " &nbsp; ".join(
        f"<span style='color:{css_color(label.color)}'>\u25a0</span> {html.escape(label.name)}" for label in table
    )


def change_text(rows: Mapping[str, tuple[str, ...]]) -> str:
    """Rich text: the change in mL and percent, large, and the intervals below."""
    change, percent = rows["Change"], rows["Change in percent"]
    large = f"{_signed(change[1])} mL" + ("" if percent[1] == "\u2013" else f" ({_signed(percent[1])} %)")
    small = [f"{earlier[1]} mL" for earlier in (rows["Earlier volume"], rows["Later volume"])]
    lines = [f"<span style='font-size:xx-large; font-weight:bold'>{large}</span>", f"{small[0]} \u2192 {small[1]}"]
    if change[3]:
        lines.append(_("80 % interval: {interval} mL").format(interval=change[3]))
    if percent[3]:
        lines[-1] += f"; {percent[3]} %"
    if "Time between the scans" in rows:
        lines.append(_("{hours} h between the scans").format(hours=rows["Time between the scans"][1]))
    return "<br>".join(lines)


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


def expansion_text(rows: list[tuple[str, ...]]) -> str:
    """Rich text: each definition of expansion with what the volumes and their intervals say; the usual one bold."""
    lines = [
        _("Expansion {rule}: {measured} as measured, {given} given the intervals").format(
            rule=html.escape(rule), measured=measured, given=given
        )
        for rule, measured, given, *_source in rows
    ]
    return "<br>".join([f"<b>{lines[0]}</b>", *lines[1:]])


def parts_text(rows: Mapping[str, tuple[str, ...]]) -> str:
    """mL of the parts of the change map, in the order of the label table."""
    names = [label.name for label in LabelTable.read(TASK.resources / "labels.csv")]
    return ", ".join(f"{name.lower()} {rows[f'{name}: Volume'][1]} mL" for name in names if f"{name}: Volume" in rows)
