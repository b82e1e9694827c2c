"""A result folder as DICOM: segmentation, structured report, parametric maps and PDF report in the study it came from.

    segmentation.dcm    DICOM SEG, one binary segment per label            (:mod:`dicom_seg`)
    measurements.dcm    Comprehensive 3D SR by TID 1500                    (:mod:`dicom_sr`)
    maps/<map>.dcm      parametric maps                                    (:mod:`parametric_map`)
    report.dcm          the report as encapsulated PDF                     (:mod:`dicom_report`)

Patient and study come from the source series and nowhere else. All of it is written or nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from pydicom.dataset import Dataset

from NeuraxisLib.atomic import atomic_write, new_folder
from NeuraxisLib.dicom_export_header import Algorithm, algorithm_of, require_highdicom
from NeuraxisLib.dicom_export_source import Place, SourceSeries, find_source
from NeuraxisLib.dicom_seg import Segment, make_segmentation, segments_of
from NeuraxisLib.dicom_sr import make_report
from NeuraxisLib.errors import InputError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result import Result
from NeuraxisLib.result_folder import RESULT_FILE, read_result
from NeuraxisLib.task import Progress, get_task

#: What can be written -> what it is called.
PARTS = {
    "seg": "segmentation (DICOM SEG)",
    "sr": "measurements (structured report)",
    "maps": "maps (parametric maps)",
    "report": "report (encapsulated PDF)",
}
SEGMENTATION_FILE, MEASUREMENTS_FILE, REPORT_FILE = "segmentation.dcm", "measurements.dcm", "report.dcm"
MAPS_FOLDER = "maps"
#: Who knows how maps are coded; a name, as no library imports that of a task.
_MAP_WRITER = "StrokeCTPLib.map_writing"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: their paths.
        left_out: sentences on parts that the result does not have.
    """

    files: list[Path]
    left_out: list[str] = field(default_factory=list)


def export_dicom(
    result_folder: str | os.PathLike,
    source: Place | None,
    output: str | os.PathLike,
    parts: Collection[str] = (),
    progress: Progress | None = None,
) -> Exported:
    """Write a result folder as DICOM, all or nothing.

    Args:
        result_folder: as a task wrote it.
        source: DICOM folder of the images that the result was computed from, or their files.
        output: a new or empty folder.
        parts: of :data:`PARTS`; a part named here that the result does not have is an error. Empty: all that it has.
        progress: told how far it is; may cancel, and then nothing is left behind.

    Raises:
        InputError: no result, no such part, nothing to write, or no DICOM source.
        GeometryError: the source is not what the result was computed from.
        OutputError: the folder is not empty or cannot be written to.
        DependencyError: the package highdicom or reportlab is not installed.
    """
    progress = progress or Progress()
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise InputError(f"There is no part '{unknown[0]}' of a DICOM export; choose from: {', '.join(PARTS)}.")
    require_highdicom()
    progress(0.0, "Reading the result")
    result, name = read_result(result_folder), Path(result_folder).name
    chosen, left_out = _chosen(result, parts, name)
    found = find_source(source, result, progress.part(0.05, 0.3), _remembered(result_folder))
    export = _Export(found.place(result), found)
    files: list[Path] = []
    with new_folder(output) as partial:
        for number, part in enumerate(chosen):
            bounds = (0.3 + 0.7 * number / len(chosen), 0.3 + 0.7 * (number + 1) / len(chosen))
            files += export.write(part, partial, progress.part(*bounds))
        progress(1.0, "Writing DICOM")  # the last moment at which a cancel leaves nothing behind
    return Exported([Path(output) / path.relative_to(partial) for path in files], left_out)


def _remembered(folder: str | os.PathLike) -> list[float] | None:
    """The block means of the image that a result was computed from; None if the result does not know them."""
    return json.loads((Path(folder) / RESULT_FILE).read_text(encoding="utf-8"))["source"].get("block_means")


def _chosen(result: Result, parts: Collection[str], name: str) -> tuple[list[str], list[str]]:
    """The parts to write, and sentences on those that the result does not have."""
    lacking = {
        "seg": "" if result.labels is not None and result.labels.array.any()
        else f"The result in '{name}' has no segments, so there is no segmentation to write.",
        "maps": "" if result.maps else f"The result in '{name}' has no maps to write.",
    }  # fmt: skip
    for part in parts:
        if lacking.get(part):
            raise InputError(lacking[part][:-1] + "; choose other parts.")
    wanted = [part for part in PARTS if part in (parts or PARTS)]
    return [part for part in wanted if not lacking.get(part)], [lacking[part] for part in wanted if lacking.get(part)]


class _Export:
    """Writes the parts of one export, which refer to each other.

    Args:
        result: placed on the source.
        source: its series.
    """

    def __init__(self, result: Result, source: SourceSeries):
        self._result, self._source = result, source
        self._table = LabelTable.read(get_task(result.task).resources / "labels.csv")
        self._algorithm: Algorithm = algorithm_of(result)
        self._segments: list[Segment] = segments_of(result, self._table)
        self._segmentation: Dataset | None = None

    def write(self, part: str, folder: Path, progress: Progress) -> list[Path]:
        """Write one part into a folder; the paths of its files."""
        progress(0.0, f"Writing the {PARTS[part].partition(' (')[0]}")
        if part == "maps":
            writer = import_module(_MAP_WRITER)
            images = self._source.images
            return writer.write_maps(self._result.maps, folder / MAPS_FOLDER, source=images, progress=progress)
        if part == "seg":
            self._segmentation = make_segmentation(self._result, self._segments, self._source.images, self._algorithm)
            return [_save(self._segmentation, folder / SEGMENTATION_FILE)]
        if part == "sr":
            made = make_report(
                self._result, self._table, self._segments, self._segmentation, self._source.images, self._algorithm
            )
            return [_save(made, folder / MEASUREMENTS_FILE)]
        from NeuraxisLib.dicom_report import make_pdf_report

        seen = self._source.with_pixels(self._result, progress)
        return [_save(make_pdf_report(seen, self._table, self._source.images), folder / REPORT_FILE)]


def _save(dataset: Dataset, path: Path) -> Path:
    with atomic_write(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return path
