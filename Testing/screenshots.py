"""Make the pictures of README.md: the real panel after a real run on the bundled scan, beside the views.

    python Testing/screenshots.py [folder]     (default: Resources/Screenshots)

Runs on the stand-in for Slicer (Testing/slicer_stand_in): views and nodes are Slicer's, the widgets look alike.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "Neuraxis"), str(ROOT / "HemorrhageSeg")]

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
    while widget._run is not None and time.monotonic() < until:
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


def main() -> None:
    """Make all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    from Testing.slicer_stand_in import start

    application = start()
    for name in ("Neuraxis", "HemorrhageSeg"):
        application.load_module(ROOT / name / f"{name}.py")

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


if __name__ == "__main__":
    main()
