"""The report of a result as a DICOM encapsulated PDF, in the study of the source images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from NeuraxisLib.dicom_export_header import new_series, patient_and_study, require_highdicom, with_notice
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.report_pdf import render_pdf
from NeuraxisLib.result import Result

SERIES_NUMBER = 9103
#: LOINC's document type.
_CONCEPT = ("18748-4", "LN", "Diagnostic imaging study")


def make_pdf_report(result: Result, table: LabelTable, images: Sequence[Dataset]) -> Dataset:
    """The report as a data set.

    Args:
        result: placed on the source series, whose pixels its ``source`` holds.
        table: label table of its task.
        images: of the source series; patient and study are theirs, and they are named as the document's source.

    Raises:
        DependencyError: the package highdicom or reportlab is not installed.
    """
    hd, pdf, first = require_highdicom(), render_pdf(result, table), images[0]
    description = with_notice(f"{result.task.capitalize()} report")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd characters in the source's texts, which are kept as they are
        made = hd.base.SOPClass(
            **patient_and_study(first),
            sop_class_uid=EncapsulatedPDFStorage,
            modality="DOC",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=description,
            **new_series(SERIES_NUMBER),
        )
        made.copy_patient_and_study_information(first)
    made.ConversionType = "WSD"
    made.AcquisitionDateTime = ""
    made.BurnedInAnnotation = "NO"  # the document names nobody
    made.DocumentTitle = description
    made.ConceptNameCodeSequence = [hd.sr.CodedConcept(*_CONCEPT)]
    made.SourceInstanceSequence = [_reference(image) for image in images]
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocumentLength = len(pdf)
    made.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return made


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item
