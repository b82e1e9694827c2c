"""The report as PDF, and as a DICOM encapsulated PDF."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from dicom_results import discs_folder, stroke_folder

from NeuraxisLib.dicom_export import export_dicom
from NeuraxisLib.errors import DependencyError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.report import render_report
from NeuraxisLib.report_pdf import render_pdf
from NeuraxisLib.report_pdf_drawings import polylines
from NeuraxisLib.result import Curve, CurvePlot
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.slice_view import outline_path
from NeuraxisLib.task import get_task
from Testing.dicom_series import CANARY, one_sentence, save, series


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    images = series(np.arange(-30.0, 31.0, 10.0), matrix=40, pixel_mm=5.0)
    return save(images, tmp_path_factory.mktemp("scan") / "scan")


def table_of(task: str) -> LabelTable:
    return LabelTable.read(get_task(task).resources / "labels.csv")


def words_of(pdf: bytes, tmp_path) -> str:
    """The text of a PDF by another program."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    (tmp_path / "report.pdf").write_bytes(pdf)
    return subprocess.run(
        ["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf))


def test_the_document_in_its_study(tmp_path, source):
    (path,) = export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom", ["report"]).files
    dataset, image = pydicom.dcmread(path), pydicom.dcmread(source / "0001.dcm")
    for word in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID"):
        assert dataset.get(word) == image.get(word)
    assert dataset.SOPClassUID == pydicom.uid.EncapsulatedPDFStorage
    assert dataset.MIMETypeOfEncapsulatedDocument == "application/pdf" and dataset.Modality == "DOC"
    assert dataset.DocumentTitle == "Stroke report, research use only" and dataset.BurnedInAnnotation == "NO"
    pdf = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    assert len(dataset.EncapsulatedDocument) % 2 == 0
    assert pdf.startswith(b"%PDF-1.") and pdf.rstrip().endswith(b"%%EOF") and pages(pdf) >= 1
    assert pdf.count(b"/FontFile2") == 2 and b"/Helvetica" not in pdf  # all fonts travel along
    assert CANARY.encode() not in pdf and b"/Subtype /Image" in pdf
    referred = {item.ReferencedSOPInstanceUID for item in dataset.SourceInstanceSequence}
    assert referred == {pydicom.dcmread(file).SOPInstanceUID for file in source.glob("*.dcm")}


def test_it_says_what_the_page_says(tmp_path, source):
    plot = CurvePlot("Contrast in the vessels", curves=(Curve("Artery", (0, 1, 2, 3), (0, 5, float("nan"), 2)),))
    folder = stroke_folder(tmp_path / "result", source, curves={"vessels": plot})
    result = read_result(folder)
    words = words_of(render_pdf(result, table_of("stroke")), tmp_path)
    page = render_report(result, table_of("stroke"))
    for text in ("Stroke report", "Beware of this.", "12.5 mL", "9.2 to 20.1 mL", "Mismatch ratio", "2.98 to 10.3",
                 "By thresholds.", "Artery", "Contrast in the vessels", "Starter of the tests", "Image and provenance",
                 "Penumbra (outline)", "80% interval", "slice 3 of 7", "30 %"):  # fmt: skip
        assert text in words, text
        assert text in re.sub(r"<[^>]*>|&#8239;", "", page).replace("\N{NO-BREAK SPACE}", " ") or text == "12.5 mL"
    assert "esearch use only" in words and CANARY not in words


def test_long_and_odd_texts(tmp_path, source):
    warnings = ["<b>not bold</b> & 5 < 6 " + "long " * 400, "日本 \N{MINUS SIGN}5 °"]
    result = read_result(stroke_folder(tmp_path / "result", source, warnings=warnings))
    pdf = render_pdf(result, table_of("stroke"))
    words = words_of(pdf, tmp_path)
    assert "<b>not bold</b> & 5 < 6" in words and "?? -5 °" in words and pages(pdf) >= 2


def test_a_result_without_segments_or_maps(tmp_path, source):
    pdf = render_pdf(read_result(discs_folder(tmp_path / "result", source)), table_of("discs"))
    assert pages(pdf) >= 1


def test_outlines_are_drawn_along_the_pixel_edges():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    lines = list(polylines(outline_path(mask)))
    assert sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in lines) == 2 * (3 + 2)
    assert {corner for line in lines for corner in line} == {(2, 1), (5, 1), (2, 3), (5, 3)}
    assert list(polylines("M1 2L3 4M5 6L7 8L9 9")) == [[(1, 2), (3, 4)], [(5, 6), (7, 8), (9, 9)]]


def test_without_reportlab(tmp_path, source, monkeypatch):
    folder = stroke_folder(tmp_path / "result", source)
    for name in [name for name in __import__("sys").modules if name.startswith("reportlab")]:
        monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.setitem(__import__("sys").modules, "reportlab", None)
    with pytest.raises(DependencyError) as error:
        export_dicom(folder, source, tmp_path / "dicom")
    assert "Python package reportlab" in one_sentence(error) and not (tmp_path / "dicom").exists()
