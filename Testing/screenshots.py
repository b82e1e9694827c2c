"""Make the pictures of README.md: the real panels after a real run, beside the views.

    python Testing/screenshots.py [folder [module ...]]     (default: Resources/Screenshots, all modules)

The head CT and the spine MR are the bundled scans; the stroke is simulated. Runs on the stand-in for Slicer
(Testing/slicer_stand_in): views and nodes are Slicer's, the widgets look alike.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / room) for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))]

RUN_LIMIT_S = 1200


def show_scan():
    """The bundled head CT in the scene, with a brain window."""
    import slicer

    from HemorrhageSegLib.task import TASK
    from NeuraxisLib.files import read_volume

    ct = read_volume(TASK.resources / "SampleData" / "head_ct_hemorrhage.nrrd")
    node = slicer.util.addVolumeFromArray(ct.array, ijkToRAS=ct.ijk_to_ras, name="HeadCT")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(80, 40)
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


def arrange_views(application, node) -> None:
    """All slices through the largest section of the outline, filling their views; the 3D view from the front."""
    import numpy as np
    import slicer

    from NeuraxisLib import scene

    segmentation = scene.result_nodes(node, "hemorrhage")["labels"]
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "Segment_1", node)
    k = int(mask.sum(axis=(1, 2)).argmax())
    j, i = (np.argwhere(mask[k]).mean(axis=0)).tolist()
    point = scene.ijk_to_world(node) @ [i, j, k, 1]
    for name in application.layout.sliceViewNames():
        widget = application.layout.sliceWidget(name)
        widget.sliceLogic().FitSliceToAll()
        widget.mrmlSliceNode().JumpSliceByOffsetting(*point[:3])
    application.layout.resetThreeDViews()
    application.layout.threeDWidget(0).threeDView().renderer.GetActiveCamera().Zoom(1.2)


def simulated_stroke():
    """(frames, truth) of an occluded middle cerebral artery in real anatomy: 8 slices, 66 s, 4 HU of noise."""
    import numpy as np

    from Training.simulation.ctp_anatomy import StrokeSources
    from Training.simulation.ctp_head import StrokeOptions, simulate_stroke

    anatomy = ROOT / "Training" / "SampleAnatomy"
    sources = StrokeSources(anatomy, anatomy / "ArterialAtlas136.nii.gz")
    options = StrokeOptions(
        size_px=192, slices=8, thickness_mm=8.0, step_s=1.5, duration_s=66.0, noise_hu=4.0, kind="m1",
        grade="moderate", moves="still", head=1,
    )  # fmt: skip
    made = simulate_stroke(sources, np.random.default_rng(11), options)
    return made.frames, made.labels


def photograph_hemorrhage(application, folder: Path) -> None:
    """The outline in all views, and the uncertainty over it."""
    import slicer

    from Testing.slicer_stand_in.pictures import photograph, save_png, size_views

    node = show_scan()
    slicer.util.setSliceViewerLayers(background=node)
    widget = application.new_widget("HemorrhageSeg")
    run(application, widget)
    size_views(application)
    widget.ui.show3DButton.click()
    arrange_views(application, node)
    save_png(photograph(application, widget.parent), folder / "HemorrhageSeg.png")
    widget.ui.overlayCheckBox.click()
    widget.ui.overlayOpacitySlider.value = 0.7
    widget.ui.nextSliceButton.click()
    save_png(photograph(application, widget.parent), folder / "HemorrhageSegUncertainty.png")
    application.close_widget(widget)


def photograph_stroke(application, folder: Path) -> None:
    """All maps side by side with the lesions and the curves; the mouse points into the core."""
    import numpy as np
    import slicer

    from NeuraxisLib import scene, scene_frames, scene_views
    from StrokeCTPLib.panel_maps import LAYOUT
    from Testing.slicer_stand_in.pictures import photograph, save_png, size_views

    frames, truth = simulated_stroke()
    scene_frames.add_sequence(frames, "CTP")
    widget = application.new_widget("StrokeCTP")
    widget.ui.nihssSpinBox.value, widget.ui.ageSpinBox.value, widget.ui.hoursSpinBox.value = 14, 71, 7.0
    run(application, widget)
    size_views(application)
    source = widget.source()
    scene_views.align(LAYOUT, source, scene_frames.array_of(widget.logic.resultNodes(source)["map cbf"]) != 0)
    k, j, i = np.argwhere(truth == 2).mean(axis=0).round()
    place = (scene.ijk_to_world(source) @ [i, j, k, 1])[:3]
    for tag, _ in LAYOUT.views:
        scene_views.slice_node_of(tag).JumpSliceByOffsetting(*place)
    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCursorPositionRAS(place)
    widget.onCurveTimer()
    widget.ui.inputsCollapsibleButton.collapsed = True
    save_png(photograph(application, widget.parent), folder / "StrokeCTP.png")
    application.close_widget(widget)


def photograph_discs(application, folder: Path) -> None:
    """Named discs and the heat map over the bundled spine MR, one disc chosen."""
    import slicer

    from NeuraxisLib.files import read_volume
    from SpineDiscLabelLib.task import TASK
    from Testing.slicer_stand_in.pictures import photograph, save_png, size_views

    mr = read_volume(TASK.resources / "SampleData" / "lumbar_spine_mr.nrrd")
    node = slicer.util.addVolumeFromArray(mr.array, ijkToRAS=mr.ijk_to_ras, name="LumbarSpineMR")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(150, 70)
    slicer.util.setSliceViewerLayers(background=node)
    widget = application.new_widget("SpineDiscLabel")
    application.layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    run(application, widget)
    size_views(application)
    view = application.layout.sliceWidget("Red")
    view.mrmlSliceNode().SetOrientation("Sagittal")
    widget.ui.overlayCheckBox.click()
    table = widget.ui.discTableView
    table.clicked.emit(table.model().index(table.model().rowCount() - 2, 0))
    view.sliceLogic().FitSliceToAll()
    widget._discs.show_middle()
    widget.ui.inputsCollapsibleButton.collapsed = True
    save_png(photograph(application, widget.parent), folder / "SpineDiscLabel.png")
    application.close_widget(widget)


PICTURES = {"HemorrhageSeg": photograph_hemorrhage, "StrokeCTP": photograph_stroke, "SpineDiscLabel": photograph_discs}


def main() -> None:
    """Make all pictures, or those of the modules that are named."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    from Testing.slicer_stand_in import start

    application = start()
    for name in ("Neuraxis", *PICTURES):
        application.load_module(ROOT / name / f"{name}.py")
    for name in sys.argv[2:] or PICTURES:
        application.clear()
        PICTURES[name](application, folder)


if __name__ == "__main__":
    main()
