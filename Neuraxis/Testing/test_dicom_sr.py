"""The structured report: the numbers of the result to the last digit, with the segments and points they are of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_results import discs_folder, result_on, stroke_folder

from NeuraxisLib.dicom_export import export_dicom
from NeuraxisLib.files import read_volume
from NeuraxisLib.result import Measurement, Table
from NeuraxisLib.result_folder import write_result
from Testing.dicom_series import enhanced, save, series

hd = pytest.importorskip("highdicom")
codes = pytest.importorskip("pydicom.sr.codedict").codes

#: Stroke labels have 3 voxels of penumbra and 2 of core; a voxel has 5 x 5 x 10 mm.
VOXEL_ML = 0.25


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    images = series(np.arange(-30.0, 31.0, 10.0), matrix=40, pixel_mm=5.0)
    return save(images, tmp_path_factory.mktemp("scan") / "scan")


def report_of(folder, source, tmp_path, parts=()):
    """The content of the report that is written for a result, and the files."""
    exported = export_dicom(folder, source, tmp_path / "dicom", parts)
    path = next(path for path in exported.files if path.name == "measurements.dcm")
    return hd.sr.srread(path).content, exported.files


def numbers(group) -> dict[tuple[str, str], tuple[float, str]]:
    """(name, derivation) -> (value, UCUM code) of a group's measurements."""
    return {
        (m.name.meaning, m.derivation.value if m.derivation is not None else ""): (m.value, m.unit.value)
        for m in group.get_measurements()
    }


def comments(group) -> list[str]:
    return [item.value for item in group[0].ContentSequence if item.name == codes.DCM.Comment]


def test_segments_have_their_volume_and_refer_to_the_segmentation(tmp_path, source):
    content, files = report_of(stroke_folder(tmp_path / "result", source), source, tmp_path, ["seg", "sr"])
    segmentation = pydicom.dcmread(files[0])
    groups = {group.tracking_identifier: group for group in content.get_volumetric_roi_measurement_groups()}
    assert set(groups) == {"Penumbra", "Core"}
    assert numbers(groups["Penumbra"]) == {("Volume", ""): (3 * VOXEL_ML, "mL")}
    assert numbers(groups["Core"]) == {
        ("Volume", ""): (12.5, "mL"),
        ("Volume", "lower-limit"): (9.25, "mL"),
        ("Volume", "upper-limit"): (20.125, "mL"),
    }
    for number, name in enumerate(("Penumbra", "Core"), start=1):
        group, segment = groups[name], segmentation.SegmentSequence[number - 1]
        assert group.tracking_uid == segment.TrackingUID
        assert group.finding_type.value == {"Penumbra": "52674009", "Core": "55641003"}[name]
        reference = group.referenced_segment[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == number
        assert [site.value.value for site in group.finding_sites] == ["12738006"]
    used = groups["Core"].referenced_segment.source_images_for_segmentation
    at = {image.SOPInstanceUID: float(image.ImagePositionPatient[2])
          for image in map(pydicom.dcmread, source.glob("*.dcm"))}  # fmt: skip
    assert sorted(at[image.referenced_sop_instance_uid] for image in used) == [-10.0, 10.0]


def test_the_interval_is_also_the_uncertainty_of_the_number(tmp_path, source):
    content, _ = report_of(stroke_folder(tmp_path / "result", source), source, tmp_path, ["sr", "seg"])
    group = content.get_volumetric_roi_measurement_groups(tracking_uid=None)[1]
    (volume,) = [m for m in group.get_measurements() if m.derivation is None]
    found = {item.name.meaning: item.value for item in volume[0].ContentSequence if "ncertainty" in item.name.meaning}
    assert sorted(found.values()) == [12.5 - 9.25, 20.125 - 12.5] and len(found) == 2


def test_the_case_has_all_other_numbers(tmp_path, source):
    content, _ = report_of(stroke_folder(tmp_path / "result", source), source, tmp_path)
    (case,) = content.get_image_measurement_groups()
    assert case.tracking_identifier == "Stroke measures"
    assert numbers(case) == {
        ("Hypoperfused volume", ""): (80.0, "mL"),
        ("Hypoperfused volume", "lower-limit"): (60.0, "mL"),
        ("Hypoperfused volume", "upper-limit"): (95.5, "mL"),
        ("Mismatch volume", ""): (67.5, "mL"),
        ("Mismatch volume", "lower-limit"): (39.875, "mL"),
        ("Mismatch volume", "upper-limit"): (86.25, "mL"),
        ("Mismatch ratio", ""): (6.4, "1"),
        ("Mismatch ratio", "lower-limit"): (2.98, "1"),
        ("Mismatch ratio", "upper-limit"): (10.324, "1"),
        ("Relative CBF threshold", ""): (30.0, "%"),
    }
    assert any("esearch use only" in text for text in comments(case))
    assert "Beware of this." in comments(case) and "Core volume: By thresholds." in comments(case)


@pytest.mark.parametrize("value", [0.1 + 0.2, 1 / 3, 123456.789012345, 1e-7, 0.0, -12.25])
def test_numbers_keep_their_digits(tmp_path, source, value):
    folder = stroke_folder(tmp_path / "result", source, measurements=[Measurement("Mismatch ratio", value, "")])
    content, _ = report_of(folder, source, tmp_path, ["sr"])
    case = content.get_image_measurement_groups()[-1]
    found = numbers(case)[("Mismatch ratio", "")][0]
    assert found == pytest.approx(value, rel=1e-9, abs=1e-15)


def test_a_point_lies_in_the_patient(tmp_path, source):
    content, _ = report_of(stroke_folder(tmp_path / "result", source), source, tmp_path, ["sr"])
    (artery,) = content.get_planar_roi_measurement_groups()
    assert artery.tracking_identifier == "Artery" and artery.finding_type.meaning == "Artery"
    assert artery.roi.graphic_type == hd.sr.GraphicTypeValues3D.POINT
    assert artery.roi.value.tolist() == [[-12.5, -30.25, -7.0]]  # LPS
    assert numbers(artery) == {("Confidence", ""): (0.75, "1")}


def test_discs(tmp_path, source):
    content, files = report_of(discs_folder(tmp_path / "result", source), source, tmp_path)
    upper, lower = content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in (upper, lower)] == ["L4/L5", "L5/S1"]
    for group, name in ((upper, "L4/L5"), (lower, "L5/S1")):
        assert (group.finding_type.scheme_designator, group.finding_type.value) == ("SCT", "360499006")
        (site,) = group.finding_sites
        assert site.value.meaning == name and site.value.scheme_designator == "99NEURAXIS"
    assert upper.roi.value.tolist() == [[1.5, -20.25, -30.0]] and lower.roi.value.tolist() == [[2.0, -15.0, -66.0]]
    assert numbers(upper) == {("Confidence", ""): (0.97, "1"), ("Disc height", ""): (9.5, "mm")}
    assert numbers(lower) == {}
    (case,) = content.get_image_measurement_groups()
    assert numbers(case) == {("Discs found", ""): (2.0, "1"), ("Lordosis", ""): (41.5, "deg")}
    assert [path.name for path in files] == ["measurements.dcm", "report.dcm"]


def test_single_bleeds(tmp_path, source):
    heads = (
        ("Bleed", ""),
        ("Volume", "mL"),
        ("Slices", ""),
        ("Centre R", "mm"),
        ("Centre A", "mm"),
        ("Centre S", "mm"),
    )
    table = Table("Bleeds", heads, ((1, 10.5, 4, 1.0, 2.0, 3.0), (2, 0.25, 1, -20.0, 5.5, 40.0)))
    total = Measurement("Total volume", 10.75, "mL", (8.0, 12.0), "Hemorrhage")
    result = result_on(read_volume(source), "hemorrhage", tables={"bleeds": table}, measurements=[total])
    content, _ = report_of(write_result(result, tmp_path / "result"), source, tmp_path)
    first, second = content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in (first, second)] == ["Bleed 1", "Bleed 2"]
    assert numbers(second) == {("Volume", ""): (0.25, "mL"), ("Slices", ""): (1.0, "1")}
    assert second.roi.value.tolist() == [[20.0, -5.5, 40.0]] and second.finding_type.value == "50960005"
    (segment,) = content.get_volumetric_roi_measurement_groups()
    assert numbers(segment)[("Volume", "")] == (10.75, "mL") and len(numbers(segment)) == 3


def test_who_measured_what(tmp_path, source):
    _, files = report_of(stroke_folder(tmp_path / "result", source), source, tmp_path)
    dataset = pydicom.dcmread(files[1])
    assert dataset.SOPClassUID == pydicom.uid.Comprehensive3DSRStorage
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (dataset.VerificationFlag, dataset.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
    items = {item.ConceptNameCodeSequence[0].CodeMeaning: item for item in dataset.ContentSequence}
    assert items["Observer Type"].ConceptCodeSequence[0].CodeMeaning == "Device"
    assert "research use only" in items["Device Observer Name"].TextValue
    words = [element.value for element in dataset.iterall() if element.keyword == "TextValue"]
    assert "Starter of the tests, research use only" in words and f"sha256={'ab' * 32}" in words
    listed = [
        instance.ReferencedSOPInstanceUID
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for one in study.ReferencedSeriesSequence
        for instance in one.ReferencedSOPSequence
    ]
    images = [pydicom.dcmread(path).SOPInstanceUID for path in source.glob("*.dcm")]
    assert set(listed) == {*images, pydicom.dcmread(files[0]).SOPInstanceUID}
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99NEURAXIS"


def test_without_a_segmentation_groups_stand_alone(tmp_path, source):
    content, _ = report_of(stroke_folder(tmp_path / "result", source), source, tmp_path, ["sr"])
    assert content.get_volumetric_roi_measurement_groups() == []
    penumbra, core, case = content.get_image_measurement_groups()
    assert (penumbra.tracking_identifier, core.tracking_identifier) == ("Penumbra", "Core")
    assert numbers(core)[("Volume", "")] == (12.5, "mL") and case.tracking_identifier == "Stroke measures"


def test_a_rule_without_a_model_is_named_as_one(tmp_path, source):
    result = result_on(read_volume(source), measurements=[Measurement("Core volume", 1.0, "mL")])
    folder = write_result(replace(result, provenance={"neuraxis": "0.1.0", "model": None}), tmp_path / "result")
    _, files = report_of(folder, source, tmp_path, ["seg", "sr"])
    (algorithm,) = pydicom.dcmread(files[0]).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "Neuraxis stroke, by rules, research use only"
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "thresholds"


def test_an_outline_corrected_by_hand_says_so(tmp_path, source):
    result = result_on(read_volume(source), measurements=[Measurement("Core volume", 1.0, "mL")])
    result.provenance = {**result.provenance, "corrected": {"segments": ["Core"]}}
    _, files = report_of(write_result(result, tmp_path / "result"), source, tmp_path, ["seg", "sr"])
    assert {item.SegmentAlgorithmType for item in pydicom.dcmread(files[0]).SegmentSequence} == {"SEMIAUTOMATIC"}
    words = [element.value for element in pydicom.dcmread(files[1]).iterall() if element.keyword == "TextValue"]
    assert "corrected=by hand" in words


def test_multi_frame_source(tmp_path):
    file = enhanced(tmp_path / "scan", np.arange(-30.0, 31.0, 10.0))
    content, _ = report_of(stroke_folder(tmp_path / "result", file), file, tmp_path)
    core = next(g for g in content.get_volumetric_roi_measurement_groups() if g.tracking_identifier == "Core")
    frames = [image.referenced_frame_numbers for image in core.referenced_segment.source_images_for_segmentation]
    assert sorted(number for some in frames for number in some) == [3, 5]
