"""Make the pictures of the documentation: the real panels after a real run, beside the views.

    python Testing/screenshots.py [folder [module ...]]     (default: Resources/Screenshots, all modules)

The scans are those of the Sample Data module. Runs on the stand-in for Slicer (Testing/slicer_stand_in): views and
nodes are Slicer's, the widgets look alike. Beside the pictures lies what they show of the panels, as
panel_fingerprint.py has it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / room) for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))]

RUN_LIMIT_S = 1200


def show_sample(task: str, file_name: str, name: str):
    """A bundled scan in the scene and in the views, in the window that Slicer gives it."""
    import slicer

    from NeuraxisLib.files import read_volume
    from NeuraxisLib.task import get_task

    scan = read_volume(get_task(task).resources / "SampleData" / file_name)
    node = slicer.util.addVolumeFromArray(scan.array, ijkToRAS=scan.ijk_to_ras, name=name)
    node.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def run(application, widget) -> None:
    """Click the button and wait for the worker, as a user does."""
    widget.ui.applyButton.click()
    until = time.monotonic() + RUN_LIMIT_S
    while widget._panel.run.is_running and time.monotonic() < until:
        application.app.processEvents()
        time.sleep(0.05)
    if not widget.ui.statusLabel.text.startswith("Done"):
        raise SystemExit(widget.ui.statusLabel.text or "the run took too long")


class Photographer:
    """Takes pictures of one panel and names them after its module."""

    def __init__(self, application, widget, folder: Path):
        self._application, self._widget, self._folder = application, widget, folder

    def take(self, ending: str = "", top=None) -> None:
        """One picture; the panel is scrolled to ``top``."""
        from Testing.slicer_stand_in.pictures import photograph, save_png

        picture = photograph(self._application, self._widget.parent, top=top)
        save_png(picture, self._folder / f"{self._widget.moduleName}{ending}.png")


def photograph_hemorrhage(application, folder: Path) -> None:
    """The panel before a run, the outline in all views, the uncertainty over it."""
    from Testing.slicer_stand_in.pictures import size_views

    show_sample("hemorrhage", "head_ct_hemorrhage.nrrd", "HeadCTHemorrhage")
    widget = application.new_widget("HemorrhageSeg")
    camera = Photographer(application, widget, folder)
    size_views(application)
    application.layout.resetSliceViews()
    run(application, widget)
    widget.ui.show3DButton.click()
    camera.take()
    widget.ui.overlayCheckBox.click()
    widget.ui.overlayOpacitySlider.value = 0.7
    widget.ui.nextSliceButton.click()
    widget.ui.measuresCollapsibleButton.collapsed = False
    camera.take("Uncertainty", top=widget.ui.resultsCollapsibleButton)
    application.close_widget(widget)


def photograph_stroke(application, folder: Path) -> None:
    """All maps side by side with the lesions and the curves; the mouse points into the core; thresholds moved."""
    import numpy as np
    import slicer

    from NeuraxisLib import scene, scene_cases, scene_frames, scene_views
    from StrokeCTPLib.panel_maps import LAYOUT
    from Testing.slicer_stand_in.pictures import size_views

    load_sample_sequence()
    widget = application.new_widget("StrokeCTP")
    camera = Photographer(application, widget, folder)
    widget.ui.nihssSpinBox.value, widget.ui.ageSpinBox.value, widget.ui.hoursSpinBox.value = 14, 71, 7.0
    run(application, widget)
    size_views(application)
    source = widget.source()
    nodes = widget.logic.resultNodes(source)
    scene_views.align(LAYOUT, source, scene_frames.array_of(nodes["map cbf"]) != 0)
    core = slicer.util.arrayFromSegmentBinaryLabelmap(nodes["labels"], "Segment_2", source)
    k, j, i = np.argwhere(core).mean(axis=0).round()
    place = (scene.ijk_to_world(source) @ [i, j, k, 1])[:3]
    scene_cases.show_finding(nodes["labels"], source)
    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCursorPositionRAS(place)
    widget.onCurveTimer()
    camera.take(top=widget.ui.applyButton)
    widget.ui.safeColoursCheckBox.click()
    widget.ui.lateSlider.value = 8.0
    camera.take("Thresholds", top=widget.ui.thresholdsCollapsibleButton)
    application.close_widget(widget)


def load_sample_sequence() -> None:
    """The simulated acquisition of the Sample Data module as a sequence."""
    from NeuraxisLib.task import get_task
    from StrokeCTPLib.stroke_loading import load_folder

    load_folder(get_task("stroke").resources / "SampleData" / "simulated_ct_perfusion.seq.nrrd")


def photograph_discs(application, folder: Path) -> None:
    """Named discs and the heat map over the bundled spine MR, one disc chosen."""
    import slicer

    from Testing.slicer_stand_in.pictures import size_views

    show_sample("discs", "lumbar_spine_mr.nrrd", "LumbarSpineMR")
    widget = application.new_widget("SpineDiscLabel")
    application.layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpYellowSliceView)
    run(application, widget)
    size_views(application)
    view = application.layout.sliceWidget("Yellow")
    widget.ui.overlayCheckBox.click()
    table = widget.ui.discTableView
    table.clicked.emit(table.model().index(table.model().rowCount() - 2, 0))
    view.sliceLogic().FitSliceToAll()
    widget._discs.show_middle()
    Photographer(application, widget, folder).take(top=widget.ui.applyButton)
    application.close_widget(widget)


def photograph_settings(application, folder: Path) -> None:
    """The models and the settings that all modules share, beside empty views."""
    from Testing.slicer_stand_in.pictures import size_views

    widget = application.new_widget("Neuraxis")
    size_views(application)
    Photographer(application, widget, folder).take()
    application.close_widget(widget)


PICTURES = {
    "Neuraxis": photograph_settings,
    "HemorrhageSeg": photograph_hemorrhage,
    "StrokeCTP": photograph_stroke,
    "SpineDiscLabel": photograph_discs,
}


def main() -> None:
    """Make all pictures, or those of the modules that are named."""
    from panel_fingerprint import FINGERPRINTS, fingerprint

    from Testing.slicer_stand_in import start

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FINGERPRINTS.parent
    folder.mkdir(parents=True, exist_ok=True)
    application = start()
    for name in PICTURES:
        application.load_module(ROOT / name / f"{name}.py")
    record = folder / FINGERPRINTS.name
    shown = json.loads(record.read_text()) if record.is_file() else {}
    for name in sys.argv[2:] or PICTURES:
        application.clear()
        PICTURES[name](application, folder)
        record.write_text(json.dumps(shown | {name: fingerprint(name)}, indent=1, sort_keys=True) + "\n")
        shown = json.loads(record.read_text())


if __name__ == "__main__":
    main()
