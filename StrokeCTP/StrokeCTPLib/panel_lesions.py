"""Core and penumbra in a panel: outlines that follow the thresholds, and the tables that go with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from NeuraxisLib import scene, scene_frames
from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.result import Table
from NeuraxisLib.scene_review_edits import is_edited
from NeuraxisLib.scene_review_result import provenance_of, result_in_scene
from NeuraxisLib.scene_runs import RUN_ATTRIBUTE
from NeuraxisLib.scene_tables import fill_table, measurement_table, table_rows
from NeuraxisLib.translation import translator
from StrokeCTPLib.corrections import outlined, patient_told
from StrokeCTPLib.findings import Noise, criteria_table, measure_stroke
from StrokeCTPLib.lesions import LesionRules
from StrokeCTPLib.live_lesions import LiveLesions, ShownMaps, Thresholds
from StrokeCTPLib.mismatch import Mismatch, Patient
from StrokeCTPLib.panel_choice import excluded_tissue, patient_of, thresholds_of
from StrokeCTPLib.panel_maps import FAMILY_ENDINGS, kind_of_map, maps_of
from StrokeCTPLib.stroke_runs import excluded_key, mask_key

_ = translator(__name__)
#: What the table of criteria calls the row with the verdict on a trial.
ALL_CRITERIA = "all of"
#: Thresholds, and which tissue was left out (the key of its mask).
Asked = tuple[Thresholds, str]


@dataclass
class _Shown:
    """The result that is shown.

    Attributes:
        run: mark of the run that made it.
        lesions: lesions by thresholds on its maps; None where they cannot be drawn so.
        facts: its provenance.
        drawn: what segments and tables show, and for which patient; None while a slider moves.
        asked: with which it was computed. found: volumes and ratios of ``drawn``, once they were needed.
        left_out: key of the mask that ``lesions`` leave out.
    """

    run: str
    lesions: LiveLesions | None
    facts: Mapping[str, Any]
    asked: Asked
    drawn: tuple[Asked, Patient] | None
    found: tuple[Asked, Mismatch] | None = None
    left_out: str = ""

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """What thresholds become on the maps of this patient; None for given maps."""
        return self.facts.get("calibration")

    def rules(self, thresholds: Thresholds) -> LesionRules:
        """The rules that thresholds become on these maps."""
        return thresholds.rules(self.calibration)

    def noise(self, family: str) -> Noise:
        """What noise does to tissue on the line."""
        spread = (self.calibration or {}).get("plain_spread" if family == "svd" else "spread")
        return Noise() if spread is None else Noise(spread["flow"], spread["lag_s"])


class LesionPanel:
    """Keeps ``lateSlider``, ``rcbfSlider``, ``familyComboBox``, the segments and the tables in step.

    Args:
        ui: the widgets of the .ui file, by name.
    """

    def __init__(self, ui: Any):
        self._ui = ui
        self._source: Any = None
        self._nodes: Mapping[str, Any] = {}
        self._shown: _Shown | None = None

    def refresh(self, source: Any, nodes: Mapping[str, Any], parameters: Any) -> None:
        """Show the result of a volume, and draw its lesions anew if thresholds or patient are not what was drawn.

        Args:
            source: the volume that the result belongs to, or None.
            nodes: part -> node of the result.
            parameters: of the panel; ``family`` is changed if the result has no such maps.
        """
        ui, table = self._ui, nodes.get("table measurements")
        self._source, self._nodes = source, nodes
        ui.resultTableView.setMRMLTableNode(table)
        ui.resultTableView.resizeColumnsToContents()
        ui.criteriaTableView.setMRMLTableNode(nodes.get("table criteria"))
        segmentation = nodes.get("labels")
        ui.segmentsTableView.setSegmentationNode(segmentation)
        warnings = segmentation.GetAttribute(scene.WARNINGS_ATTRIBUTE) if segmentation is not None else ""
        ui.warningsLabel.text, ui.warningsLabel.visible = warnings or "", bool(warnings)
        self._load(table.GetAttribute(RUN_ATTRIBUTE) if table is not None else None, parameters)
        lesions = self._shown.lesions if self._shown is not None and not is_edited(nodes) else None
        for widget in (ui.lateSlider, ui.rcbfSlider, ui.familyComboBox, ui.resetThresholdsButton):
            widget.enabled = lesions is not None
        if lesions is not None:
            self._list_families(lesions, parameters)
            self._settle(thresholds_of(parameters), excluded_tissue(parameters), patient_of(parameters))
        elif is_edited(nodes):
            self._judge_edit(patient_of(parameters))
        ui.criteriaTableView.resizeColumnsToContents()
        ui.criteriaLabel.text = _verdicts(nodes.get("table criteria"))
        ui.criteriaLabel.visible = bool(ui.criteriaLabel.text)

    def follow(self, late_s: float, rcbf: float) -> None:
        """Draw lesions while a slider moves: no clean-up, no tables, the volumes in the status line."""
        shown = self._shown
        if shown is None or shown.lesions is None:
            return
        family = self._ui.familyComboBox.currentData or "svd"
        quick = shown.lesions.quick(shown.rules(Thresholds(family, late_s, rcbf)))
        scene.redraw_segments(self._nodes["labels"], quick.labels, self._source)
        gap_ml = quick.hypoperfused_ml - quick.core_ml
        words = _("Core {core} mL, hypoperfused {late} mL, mismatch {gap} mL (before small islands are removed)")
        volumes = {"core": quick.core_ml, "late": quick.hypoperfused_ml, "gap": gap_ml}
        self._ui.statusLabel.text = words.format(**{name: f"{ml:.1f}" for name, ml in volumes.items()})
        shown.drawn = None

    # -- inside -------------------------------------------------------------------------------------------------

    def _load(self, run: str | None, parameters: Any) -> None:
        """Take the maps of a result that is new."""
        if run is None:
            self._shown = None
        elif self._shown is None or self._shown.run != run:
            facts = json.loads(self._nodes["labels"].GetAttribute(scene.PROVENANCE_ATTRIBUTE) or "{}")
            options, usual = facts.get("options", {}), Thresholds()
            family = options.get("family", usual.family) if facts.get("calibration") else "svd"
            names = ("late_s", "rcbf", "smallest_ml", "smallest_core_ml")
            thresholds = Thresholds(family, *(options.get(name, getattr(usual, name)) for name in names))
            asked = thresholds, excluded_key(self._nodes)
            patient = Patient(*(options.get(name) for name in ("nihss", "age", "onset_hours")))
            by_thresholds = facts.get("lesions", {}).get("drawn_by") != "network"
            lesions = _live_lesions(self._source, self._nodes) if by_thresholds else None
            self._shown = _Shown(run, lesions, facts, asked, (asked, patient))

    def _list_families(self, lesions: LiveLesions, parameters: Any) -> None:
        box = self._ui.familyComboBox
        blocked = box.blockSignals(True)
        if [box.itemData(index) for index in range(box.count)] != lesions.families:
            box.clear()
            for family in lesions.families:
                box.addItem(family_title(family), family)
        if parameters.family not in lesions.families:
            parameters.family = lesions.families[0]
        box.setCurrentIndex(box.findData(parameters.family))
        box.blockSignals(blocked)

    def _settle(self, thresholds: Thresholds, excluded: np.ndarray | None, patient: Patient) -> None:
        """Draw lesions and fill tables as the computation would, if that is not what they show."""
        shown, asked = self._shown, (thresholds, mask_key(excluded))
        if mask_key(excluded) != shown.left_out:
            shown.lesions.leave_out(excluded)
            shown.left_out = mask_key(excluded)
        if (asked, patient) == shown.drawn:
            return
        if shown.drawn is None or shown.drawn[0] != asked or shown.found is None:
            findings = measure_stroke(
                shown.lesions.maps,
                shown.lesions.grid,
                shown.rules(thresholds),
                shown.noise(thresholds.family),
                patient,
                shown.lesions.excluded,
            )
            scene.redraw_segments(self._nodes["labels"], shown.lesions.stored(findings.labels), self._source)
            self._fill("measurements", measurement_table(findings.measurements))
            self._fill("grades", findings.tables["grades"])
            shown.found = asked, findings.found
            self._ui.statusLabel.text = self._remark(asked)
        self._fill("criteria", criteria_table(shown.found[1], patient))
        shown.drawn = asked, patient

    def _judge_edit(self, patient: Patient) -> None:
        """Trial criteria of outlines that were edited by hand; thresholds move none of them."""
        segmentation, told = self._nodes["labels"], provenance_of(self._nodes)
        labels = result_in_scene(self._source, "stroke").labels
        maps = {name: scene_frames.array_of(node) for name, node in maps_of(self._nodes).items()}
        self._fill("criteria", criteria_table(outlined(labels, maps, told), patient))
        if told and patient_told(told) != patient:  # the files of the result are to say what the panel says
            options = {"nihss": patient.nihss, "age": patient.age_years, "onset_hours": patient.hours_since_well}
            told = {**told, "options": {**told.get("options", {}), **options}}
            segmentation.SetAttribute(scene.PROVENANCE_ATTRIBUTE, json.dumps(told))

    def _fill(self, name: str, table: Table) -> None:
        if f"table {name}" in self._nodes:
            fill_table(self._nodes[f"table {name}"], table)

    def _remark(self, asked: Asked) -> str:
        """What to say of thresholds that are not those of the run."""
        if asked == self._shown.asked:
            return ""
        if asked[0].family == "calibrated" and asked[0].rcbf != self._shown.asked[0].rcbf:
            return _("Core as estimated for this threshold; Analyse perfusion calibrates it anew.")
        return _("The rules were changed; the report is brought up to date when you save it.")


def family_title(family: str) -> str:
    """What the panel calls a family of maps."""
    return {"calibrated": _("Calibrated to noise"), "svd": _("Plain bSVD"), "model": _("Model fit")}[family]


def _verdicts(table: Any) -> str:
    """The verdict on every trial in one line."""
    rows = table_rows(table) if table is not None else []
    return "; ".join(f"{trial}: {outcome}" for trial, criterion, outcome in rows if criterion == ALL_CRITERIA)


def _live_lesions(source: Any, nodes: Mapping[str, Any]) -> LiveLesions | None:
    """Lesions by thresholds on the maps of a result; None where it lacks the maps for them."""
    families: dict[str, dict[str, np.ndarray]] = {ending: {} for ending in FAMILY_ENDINGS.values()}
    for name, node in maps_of(nodes).items():
        kind = kind_of_map(name)
        families[name.removeprefix(kind)][kind] = scene_frames.array_of(node)
    plain, model = families[""], families["_model"]
    if model and "delay" in plain:
        model["delay"] = plain.pop("delay")  # of which there is but one
    brain = nodes.get("map brain")
    inside = scene_frames.array_of(brain) if brain is not None else None
    tissue = inside > 1 if inside is not None else np.any([array != 0 for array in plain.values()], axis=0)
    maps = ShownMaps(plain, tissue, tissue if inside is None else inside > 0, model, families["_calibrated"])
    try:
        return LiveLesions(maps, scene.volume_from_node(source))
    except NeuraxisError:
        return None
