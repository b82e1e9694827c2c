"""The numbers of a result as a structured report: DICOM Comprehensive 3D SR by template TID 1500.

One group per segment (TID 1411, which refers to the DICOM SEG), per named point (TID 1410, whose region is the point in
the patient) and per row of a table that has a centre, and one for the whole case (TID 1501) with the other numbers, the
warnings and the notice. An interval is told twice: as its two limits, numbers of the same name with a derivation of
their own, and as the range of uncertainty of the number itself (TID 310).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.dicom_export_header import (
    MANUFACTURER,
    OWN_SCHEME,
    RESEARCH_USE,
    Algorithm,
    family_code,
    new_series,
    own_scheme,
    require_highdicom,
    with_notice,
)
from NeuraxisLib.dicom_seg import Segment, code_of, sources_of
from NeuraxisLib.labels import Label, LabelTable
from NeuraxisLib.result import Landmark, Measurement, Result, Table
from NeuraxisLib.uncertainty import COVERAGE

SERIES_NUMBER = 9102
#: Unit of a result -> UCUM code and meaning.
UNITS = {
    "": ("1", "no units"), "mL": ("mL", "milliliter"), "mm": ("mm", "millimeter"), "s": ("s", "second"),
    "%": ("%", "percent"), "degrees": ("deg", "degree"), "°": ("deg", "degree"), "slices": ("{slices}", "slices"),
    "HU": ("[hnsf'U]", "Hounsfield unit"), "mL/100 g/min": ("ml/(100.g.min)", "mL/100 g/min"),
    "mL/100 g": ("ml/(100.g)", "mL/100 g"),
}  # fmt: skip
#: Name of a measurement -> public code; others get a code of our own.
_NAMES = {"Volume": ("118565006", "SCT", "Volume"), "Total volume": ("118565006", "SCT", "Volume")}
_COORDINATES = {"R", "A", "S", "Centre R", "Centre A", "Centre S"}
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def make_report(
    result: Result,
    table: LabelTable,
    segments: Sequence[Segment],
    segmentation: Dataset | None,
    images: Sequence[Dataset],
    algorithm: Algorithm,
) -> Dataset:
    """The structured report of a result.

    Args:
        result: placed on the source series.
        table: label table of its task.
        segments: as in the segmentation.
        segmentation: the DICOM SEG that the groups refer to; None if there is none: then they stand without a region.
        images: of the source series; patient and study are theirs.
        algorithm: what made the numbers.

    Raises:
        DependencyError: the package highdicom is not installed.
    """
    hd = require_highdicom()
    from pydicom.sr.codedict import codes

    writer = _Groups(result, table, images, segmentation, algorithm)
    procedure = codes.LN.MRIUnspecifiedBodyRegion if images[0].Modality == "MR" else codes.LN.CTUnspecifiedBodyRegion
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd characters in the source's texts, which are kept as they are
        content = hd.sr.MeasurementReport(
            observation_context=_observer(),
            procedure_reported=procedure,
            imaging_measurements=writer.all(segments),
            # the library describes single images; a multi-frame file stands among the evidence all the same
            referenced_images=None if "PerFrameFunctionalGroupsSequence" in images[0] else images,
        )
        return hd.sr.Comprehensive3DSR(
            evidence=[*images, *([] if segmentation is None else [segmentation])],
            content=content,
            is_complete=True,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=with_notice(f"{result.task.capitalize()} measurements"),
            coding_schemes=own_scheme(),
            **new_series(SERIES_NUMBER),
        )


def _observer() -> Any:
    """The observer is this program; the same version has the same UID everywhere."""
    hd = require_highdicom()
    from pydicom.sr.codedict import codes

    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=str(generate_uid(entropy_srcs=[MANUFACTURER, __version__])),
        name=f"{MANUFACTURER} {__version__}, {RESEARCH_USE}",
        manufacturer_name=MANUFACTURER,
        model_name=MANUFACTURER,
    )
    return hd.sr.ObservationContext(observer_device_context=hd.sr.ObserverContext(codes.DCM.Device, device))


def belongs_to(measurement: Measurement, label: Label) -> bool:
    """Whether a number is one of a segment's: it says so, or it is called "<segment> volume"."""
    return label.name == measurement.segment or measurement.name == f"{label.name} volume"


class _Groups:
    """Makes the measurement groups of one report; arguments as :func:`make_report`."""

    def __init__(self, result, table, images, segmentation, algorithm: Algorithm):
        self._hd = require_highdicom()
        self._result, self._table, self._images, self._segmentation = result, table, images, segmentation
        self._algorithm = self._hd.sr.AlgorithmIdentification(
            name=algorithm.name,
            version=algorithm.version,
            parameters=[f"{name}={value}" for name, value in algorithm.parameters.items()] or None,
            family=family_code(algorithm),
            manufacturer=MANUFACTURER,
        )

    def all(self, segments: Sequence[Segment]) -> list[Any]:
        """Segments, points, rows with a centre, then the case."""
        labels = [segment.label for segment in segments]
        rest = [m for m in self._result.measurements if not any(belongs_to(m, label) for label in labels)]
        return [
            *(self._segment(segment) for segment in segments),
            *(self._point(point) for point in self._result.points),
            *self._rows(),
            self._case(rest),
        ]

    def _segment(self, segment: Segment) -> Any:
        """Volume and whatever else was measured on a segment."""
        label, sr = segment.label, self._hd.sr
        own = [m for m in self._result.measurements if belongs_to(m, label)]
        if not any(_is_volume(m, label) for m in own):
            own.insert(0, Measurement("Volume", self._volume_ml(label), "mL"))
        numbers = [number for m in own for number in _numbers(m, "Volume" if _is_volume(m, label) else m.name)]
        common = {
            "tracking_identifier": sr.TrackingIdentifier(segment.tracking_uid, label.name),
            "finding_type": code_of(label.type),
            "finding_category": code_of(label.category),
            "finding_sites": [sr.FindingSite(code_of(label.region))] if label.region else None,
            "algorithm_id": self._algorithm,
            "measurements": numbers,
        }
        if self._segmentation is None:
            return sr.MeasurementsAndQualitativeEvaluations(**common)
        region = sr.ReferencedSegment(
            self._segmentation.SOPClassUID,
            self._segmentation.SOPInstanceUID,
            segment.number,
            source_images=[
                sr.SourceImageForSegmentation(*source) for source in sources_of(self._segmentation, segment.number)
            ],
        )
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=region, **common)

    def _volume_ml(self, label: Label) -> float:
        labels = self._result.labels
        voxels = (labels.array == label.value).sum(axis=(1, 2))
        return float((voxels * labels.voxel_volumes_ml).sum())

    def _point(self, point: Landmark) -> Any:
        """A named point with its confidence and the numbers of the rows that bear its name."""
        sure = [] if point.confidence is None else [Measurement("Confidence", point.confidence, "")]
        rows = [(t, row) for t in self._result.tables.values() for row in t.rows if row and row[0] == point.name]
        others = [m for t, row in rows for m in _row_numbers(t, row) if m.name != "Confidence"]
        label = next((label for label in self._table if label.name == point.name), None)
        finding, site = _own_code(point.name), None
        if label is not None:
            finding = code_of(label.type)
            site = code_of(label.region) if label.region else _own_code(point.name)
        return self._placed(point.name, finding, point.position_ras_mm, [*sure, *others], site)

    def _rows(self) -> Iterator[Any]:
        """Rows of tables that have a centre, such as single bleeds."""
        only = next(iter(self._table)) if len(self._table) == 1 else None
        for table in self._result.tables.values():
            heads = [head for head, _ in table.columns]
            if not all(f"Centre {axis}" in heads for axis in "RAS"):
                continue
            for row in table.rows:
                name = f"{heads[0]} {row[0]}"
                centre = [row[heads.index(f"Centre {axis}")] for axis in "RAS"]
                finding = code_of(only.type) if only is not None else _own_code(heads[0])
                yield self._placed(name, finding, centre, _row_numbers(table, row), None)

    def _placed(self, name: str, finding: Any, ras_mm: Sequence[float], numbers: list[Measurement], site: Any) -> Any:
        """A group whose region is one point."""
        sr = self._hd.sr
        lps = np.array([ras_mm], float) * _RAS_TO_LPS
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(str(generate_uid()), name),
            referenced_region=sr.ImageRegion3D("POINT", lps, self._images[0].FrameOfReferenceUID),
            finding_type=finding,
            finding_sites=None if site is None else [sr.FindingSite(site)],
            algorithm_id=self._algorithm,
            measurements=[number for m in numbers for number in _numbers(m, m.name)] or None,
        )

    def _case(self, rest: Sequence[Measurement]) -> Any:
        """What concerns the whole case, with all that a reader must know as comments."""
        from pydicom.sr.codedict import codes

        sr, task = self._hd.sr, self._result.task
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(str(generate_uid()), f"{task.capitalize()} measures"),
            algorithm_id=self._algorithm,
            measurements=[number for m in rest for number in _numbers(m, m.name)] or None,
        )
        notes = [f"{m.name}: {m.note}" for m in self._result.measurements if m.note]
        for text in (RESEARCH_USE_NOTICE, *self._result.warnings, *notes):
            comment = sr.TextContentItem(codes.DCM.Comment, text, sr.RelationshipTypeValues.CONTAINS)
            group[0].ContentSequence.append(comment)
        return group


def _is_volume(measurement: Measurement, label: Label) -> bool:
    return measurement.unit == "mL" and measurement.name in ("Total volume", "Volume", f"{label.name} volume")


def _row_numbers(table: Table, row: Sequence[Any]) -> list[Measurement]:
    """The numbers of a row, its name and coordinates left out."""
    cells = list(zip(table.columns, row))[1:]
    return [
        Measurement(head, float(value), unit)
        for (head, unit), value in cells
        if head not in _COORDINATES and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]


def _numbers(measurement: Measurement, name: str) -> list[Any]:
    """A measurement as NUM items: its value, and the limits of its interval; none if it is undefined."""
    value, interval = measurement.value, measurement.interval
    if value is None or not np.isfinite(value):
        return []
    sr, properties = require_highdicom().sr, None
    known = interval is not None and np.isfinite(interval).all()
    if known:
        below, above = max(value - interval[0], 0.0), max(interval[1] - value, 0.0)
        properties = sr.MeasurementProperties(
            lower_measurement_uncertainty=float(below), upper_measurement_uncertainty=float(above)
        )
    concept, unit = _name_code(name), _unit_code(measurement.unit)
    numbers = [sr.Measurement(concept, float(value), unit, properties=properties)]
    for word, limit in zip(("lower", "upper"), interval if known else ()):
        meaning = f"{word.capitalize()} limit of the {COVERAGE:.0%} interval"
        derivation = sr.CodedConcept(f"{word}-limit", OWN_SCHEME, meaning)
        numbers.append(sr.Measurement(concept, float(limit), unit, derivation=derivation))
    return numbers


def _name_code(name: str) -> Any:
    return require_highdicom().sr.CodedConcept(*_NAMES[name]) if name in _NAMES else _own_code(name)


def _own_code(name: str) -> Any:
    """A code of our own: the name in small letters with hyphens."""
    value = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return require_highdicom().sr.CodedConcept(value, OWN_SCHEME, name)


def _unit_code(unit: str) -> Any:
    value, meaning = UNITS.get(unit, (f"{{{unit}}}", unit))
    return require_highdicom().sr.CodedConcept(value, "UCUM", meaning)
