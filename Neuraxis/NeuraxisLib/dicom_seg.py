"""The label map of a result as DICOM SEG: one binary segment per label, on the slices of the source images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from NeuraxisLib.dicom_export_header import (
    LONG_STRING,
    Algorithm,
    family_code,
    new_series,
    own_scheme,
    require_highdicom,
    with_notice,
)
from NeuraxisLib.errors import InputError
from NeuraxisLib.labels import CodedConcept, Label, LabelTable
from NeuraxisLib.parametric_map import planes_lps
from NeuraxisLib.result import Result

SERIES_NUMBER = 9101


@dataclass(frozen=True)
class Segment:
    """A label that has voxels, as a segment.

    Attributes:
        number: in the file, from 1.
        label: what it is.
        tracking_uid: identifies it in segmentation and report alike.
    """

    number: int
    label: Label
    tracking_uid: str


def segments_of(result: Result, table: LabelTable) -> list[Segment]:
    """The labels that have voxels, in the order of the table."""
    if result.labels is None:
        return []
    present = np.flatnonzero(np.bincount(result.labels.array.ravel()))
    labels = [label for label in table if label.value in present]
    return [Segment(number, label, str(generate_uid())) for number, label in enumerate(labels, start=1)]


def make_segmentation(
    result: Result, segments: Sequence[Segment], images: Sequence[Dataset], algorithm: Algorithm
) -> Dataset:
    """The DICOM SEG of a result that was placed on its source series.

    Args:
        result: with ``labels`` on the slices of the images.
        segments: as :func:`segments_of`.
        images: of the source series, one per slice or one multi-frame file; patient, study and frame of reference are
            theirs, and every frame refers to the image that it lies on.
        algorithm: what drew the segments.

    Raises:
        InputError: no segments.
        DependencyError: the package highdicom is not installed.
    """
    hd = require_highdicom()
    if not segments:
        raise InputError("The result has no segments (nothing was outlined), so there is no DICOM SEG to write.")
    labels = result.labels
    numbers = np.zeros(256, np.uint8)
    for segment in segments:
        numbers[segment.label.value] = segment.number
    orientation, spacing, positions = planes_lps(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd characters in the source's texts, which are kept as they are
        made = hd.seg.Segmentation(
            source_images=images,
            pixel_array=numbers[labels.array],
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(segment, algorithm) for segment in segments],
            content_label=result.task.upper()[:16],
            content_description=with_notice(f"{result.task.capitalize()} segmentation"),
            series_description=with_notice(f"{result.task.capitalize()} segmentation"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            coding_schemes=own_scheme(),
            plane_orientation=hd.PlaneOrientationSequence("PATIENT", orientation),
            plane_positions=[hd.PlanePositionSequence("PATIENT", place) for place in positions],
            pixel_measures=hd.PixelMeasuresSequence(
                pixel_spacing=spacing,
                slice_thickness=labels.spacing_mm[2],
                spacing_between_slices=labels.spacing_mm[2] if labels.is_uniform else None,
            ),
            **new_series(SERIES_NUMBER),
        )
    if "ContentCreatorName" not in made:  # must be there, may be empty
        made.ContentCreatorName = ""
    return made


def sources_of(segmentation: Dataset, number: int) -> list[tuple[str, str, list[int] | None]]:
    """The images on which a segment has voxels: (SOP class, SOP instance, frame numbers or None), as the file says."""
    shared, found = segmentation.SharedFunctionalGroupsSequence[0], {}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        holder = group if "SegmentIdentificationSequence" in group else shared  # there if it is the only segment
        if holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        for image in group.DerivationImageSequence[0].SourceImageSequence:
            key = (str(image.ReferencedSOPClassUID), str(image.ReferencedSOPInstanceUID))
            frames = found.setdefault(key, [])
            if "ReferencedFrameNumber" in image:
                frames.append(int(image.ReferencedFrameNumber))
    return [(*key, frames or None) for key, frames in found.items()]


def _description(segment: Segment, algorithm: Algorithm) -> Any:
    """Name, codes, colour and algorithm of a segment."""
    hd, label = require_highdicom(), segment.label
    kinds = hd.seg.SegmentAlgorithmTypeValues
    made = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=label.name[:LONG_STRING],
        segmented_property_category=code_of(label.category),
        segmented_property_type=code_of(label.type),
        algorithm_type=kinds.SEMIAUTOMATIC if algorithm.is_corrected else kinds.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=family_code(algorithm),
            version=algorithm.version,
            source="Neuraxis",
            parameters=algorithm.parameters or None,
        ),
        tracking_uid=segment.tracking_uid,
        tracking_id=label.name[:LONG_STRING],
        anatomic_regions=[code_of(label.region)] if label.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*label.color),
    )
    _add_modifier(made, "SegmentedPropertyTypeCodeSequence", "SegmentedPropertyTypeModifierCodeSequence",
                  label.type_modifier)  # fmt: skip
    if label.region:
        _add_modifier(made, "AnatomicRegionSequence", "AnatomicRegionModifierSequence", label.region_modifier)
    return made


def code_of(concept: CodedConcept) -> Any:
    """A code of the label table as highdicom takes it."""
    return require_highdicom().sr.CodedConcept(concept.value, concept.scheme, concept.meaning)


def _add_modifier(description: Dataset, holder: str, word: str, concept: CodedConcept) -> None:
    if concept:
        setattr(description[holder].value[0], word, [code_of(concept)])
