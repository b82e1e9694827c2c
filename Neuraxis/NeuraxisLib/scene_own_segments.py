"""Segments that a person adds to a result beside those of its task: their volumes, as rows of the table in the panel.

They are no part of the result: reports, files, exports and the measures of the task know nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import slicer
from slicer.i18n import tr as _

from NeuraxisLib import scene
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result import Measurement
from NeuraxisLib.scene_review_result import mask_of
from NeuraxisLib.scene_tables import measurement_table

#: The note by which the rows of such segments are known.
OWN_NOTE = "A segment of your own: area times local slice thickness. In no report and no export."


def own_volumes_ml(
    segmentation: slicer.vtkMRMLSegmentationNode, source: slicer.vtkMRMLScalarVolumeNode, table: LabelTable
) -> dict[str, float]:
    """Name -> mL of the segments that are not in a label table, in their order."""
    known = {f"Segment_{label.value}" for label in table}
    segments = segmentation.GetSegmentation()
    own = [name for name in segments.GetSegmentIDs() if name not in known]
    if not own:
        return {}
    voxels_ml = scene.volume_from_node(source).voxel_volumes_ml
    volumes: dict[str, float] = {}
    for segment_id in own:
        segment, drawn_ml = segments.GetSegment(segment_id), 0.0
        if segment.GetRepresentation("Binary labelmap") is not None:
            drawn_ml = float((mask_of(segmentation, segment_id, source).sum(axis=(1, 2)) * voxels_ml).sum())
        volumes[segment.GetName()] = volumes.get(segment.GetName(), 0.0) + drawn_ml
    return volumes


def without_own(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The rows of a table of measurements that are of the task."""
    return [tuple(row) for row in rows if row[-1] != OWN_NOTE]


def with_own(rows: Sequence[Sequence[str]], volumes_ml: Mapping[str, float]) -> list[tuple[str, ...]]:
    """The rows of the task and, below them, one for each segment of a person's own."""
    own = [Measurement(f"Volume of {name}", ml, "mL", note=OWN_NOTE) for name, ml in volumes_ml.items()]
    return [*without_own(rows), *measurement_table(own).rows]


def about_own(volumes_ml: Mapping[str, float], table: LabelTable) -> str:
    """What to say of segments of a person's own; empty if there are none."""
    if not volumes_ml:
        return ""
    own = _(" or ").join(f"'{label.name}'" for label in table)
    words = _("'{names}' is none of this task's segments: in the table, but in no report and no export.")
    paint = _("Paint in {own}.")
    return f"{words} {paint}".format(names="', '".join(volumes_ml), own=own)
