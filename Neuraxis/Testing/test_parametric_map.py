"""DICOM parametric maps: values, geometry and codes there and back; what other programs need of them."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from NeuraxisLib.dicom_headers import read_headers
from NeuraxisLib.dicom_source import source_images
from NeuraxisLib.errors import DependencyError, GeometryError, InputError, OutputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.parametric_map import (
    Quantity,
    quantity_of,
    read_parametric_map,
    real_world,
    unknown_source,
    write_parametric_map,
)
from NeuraxisLib.volume import Volume
from Testing.dicom_series import gantry_tilt, mixed_spacing, oblique_head, save, series

FLOW = Quantity(
    "Cerebral blood flow", "CBF", "ml/(100.g.min)", "mL/100 g/min", ("113055", "DCM", "Regional Cerebral Blood Flow")
)
#: What a parametric map has to have (DICOM PS3.3 A.75: types 1 and 2 of its modules that always apply).
REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "Manufacturer", "ManufacturerModelName",
    "DeviceSerialNumber", "SoftwareVersions", "InstanceNumber", "ContentDate", "ContentTime", "ContentLabel",
    "ContentDescription", "ContentCreatorName", "ContentQualification", "ImageType", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "Rows", "Columns", "BurnedInAnnotation",
    "RecognizableVisualFeatures", "LossyImageCompression", "PresentationLUTShape", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "NumberOfFrames", "DimensionOrganizationSequence", "DimensionIndexSequence",
    "AcquisitionContextSequence", "SOPClassUID", "SOPInstanceUID", "FloatPixelData",
)  # fmt: skip


def turned(*degrees: float) -> np.ndarray:
    """A rotation about x, y and z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        about = np.eye(3)
        about[[one, two], [one, two]] = np.cos(angle)
        about[one, two], about[two, one] = -np.sin(angle), np.sin(angle)
        matrix = about @ matrix
    return matrix


def flow_map(kind: str = "upright") -> Volume:
    """A map of 6 x 10 x 12 voxels with values of many magnitudes and some missing."""
    random = np.random.default_rng(0)
    array = (random.normal(size=(6, 10, 12)) * 10.0 ** random.integers(-4, 4, (6, 10, 12))).astype(np.float32)
    array[0, :2] = np.nan
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([-0.9, -0.8, 5.0])
    matrix[:3, 3] = 101.123456, -37.25, 12.1
    if kind == "oblique":
        matrix[:3, :3] = turned(25, 15, 10) @ matrix[:3, :3]
    if kind == "sheared":
        matrix[1, 2] = 1.7
    origins = None
    if kind == "uneven":
        matrix[:3, :3] = turned(20, 0, 0) @ matrix[:3, :3]
        normal = matrix[:3, 2] / 5.0
        origins = matrix[:3, 3] + np.array([0, 5, 10, 15, 22.5, 30])[:, None] * normal
        matrix[:3, 2] = (origins[-1] - origins[0]) / 5
    return Volume(array, matrix, "mL/100 g/min", origins)


@pytest.mark.parametrize("kind", ["upright", "oblique", "sheared", "uneven"])
def test_there_and_back(tmp_path, kind):
    volume = flow_map(kind)
    write_parametric_map(volume, tmp_path / "cbf.dcm", FLOW)
    found, quantity = read_parametric_map(tmp_path / "cbf.dcm")
    assert np.array_equal(found.array, volume.array, equal_nan=True) and found.array.dtype == np.float32
    assert quantity == FLOW and found.unit == "mL/100 g/min"
    assert np.abs(found.origins_ras - volume.origins_ras).max() < 1e-6
    assert np.abs(found.ijk_to_ras[:3, :2] - volume.ijk_to_ras[:3, :2]).max() < 1e-9
    assert found.is_uniform == (kind != "uneven") and found.is_sheared == (kind == "sheared")


def test_slices_counted_downward_come_back_at_their_places(tmp_path):
    volume = flow_map()
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, 3] += 5 * matrix[:3, 2]
    matrix[:3, 2] *= -1
    write_parametric_map(Volume(volume.array[::-1], matrix), tmp_path / "cbf.dcm", FLOW)
    found, _ = read_parametric_map(tmp_path / "cbf.dcm")
    assert np.array_equal(found.array, volume.array, equal_nan=True)
    assert np.allclose(found.ijk_to_ras, volume.ijk_to_ras, atol=1e-6)


def test_what_the_standard_requires(tmp_path):
    write_parametric_map(flow_map("oblique"), tmp_path / "cbf.dcm", FLOW, window=(0, 100))
    dataset = pydicom.dcmread(tmp_path / "cbf.dcm")
    assert [word for word in REQUIRED if word not in dataset] == []
    assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == pydicom.uid.ParametricMapStorage
    assert dataset.BitsAllocated == 32 and "PixelData" not in dataset and "BitsStored" not in dataset
    assert dataset.ImageType[0] == "DERIVED" and dataset.ContentQualification == "RESEARCH"
    assert dataset.PatientName == "" and dataset.PatientID == ""
    assert len(dataset.PerFrameFunctionalGroupsSequence) == int(dataset.NumberOfFrames) == 6
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert shared.FrameVOILUTSequence[0].WindowCenter == 50 and shared.FrameVOILUTSequence[0].WindowWidth == 100
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.8, 0.9]
    mapping = quantity_mapping(dataset)
    unit, quantity = mapping.MeasurementUnitsCodeSequence[0], mapping.QuantityDefinitionSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("ml/(100.g.min)", "UCUM")
    assert quantity.ConceptCodeSequence[0].CodeValue == "113055"
    assert mapping.RealWorldValueSlope == 1 and mapping.RealWorldValueIntercept == 0


def quantity_mapping(dataset: Dataset) -> Dataset:
    """The real-world value mapping of the first frame, shared or its own."""
    groups = (dataset.PerFrameFunctionalGroupsSequence[0], dataset.SharedFunctionalGroupsSequence[0])
    return next(g.RealWorldValueMappingSequence[0] for g in groups if "RealWorldValueMappingSequence" in g)


def test_highdicom_reads_it_at_the_same_place(tmp_path):
    import highdicom as hd

    volume = flow_map("oblique")
    write_parametric_map(volume, tmp_path / "cbf.dcm", FLOW)
    read = hd.pm.ParametricMap.from_file(tmp_path / "cbf.dcm").get_volume()
    assert read.shape == volume.array.shape and read.frame_of_reference_uid
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras
    k, j, i = 3, 4, 5
    where = read.map_reference_to_indices((lps @ [i, j, k, 1])[None, :3])[0]
    assert read.array[tuple(np.rint(where).astype(int))] == volume.array[k, j, i]


def test_without_a_dicom_source_nothing_is_referred_to(tmp_path):
    study = unknown_source(flow_map())
    for name in ("cbf", "cbv"):
        write_parametric_map(flow_map(), tmp_path / f"{name}.dcm", FLOW, study)
    one, two = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("cbf", "cbv"))
    assert one.StudyInstanceUID == two.StudyInstanceUID and one.FrameOfReferenceUID == two.FrameOfReferenceUID
    assert one.SeriesInstanceUID != two.SeriesInstanceUID and one.SOPInstanceUID != two.SOPInstanceUID
    assert "ReferencedSeriesSequence" not in one and "Referenced SOP Instance UID" not in str(one)


# -- sources --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [oblique_head, gantry_tilt, mixed_spacing])
def test_maps_join_the_study_that_they_were_made_from(tmp_path, made):
    folder = made(tmp_path / "scan")
    scan = read_volume(folder)
    volume = scan.like(scan.array.astype(np.float32) / 7, "s")
    images = source_images(folder, volume)
    write_parametric_map(volume, tmp_path / "tmax.dcm", Quantity("Tmax", "TMAX", "s", "s"), images)
    dataset, source = pydicom.dcmread(tmp_path / "tmax.dcm"), pydicom.dcmread(next(iter(folder.iterdir())))
    for word in ("StudyInstanceUID", "PatientName", "PatientID"):
        assert dataset.get(word) == source.get(word)
    assert dataset.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == len(scan.array)
    places = {image.SOPInstanceUID: np.array(image.ImagePositionPatient, float) for image in images}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        (referred,) = group.DerivationImageSequence[0].SourceImageSequence
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.allclose(places[referred.ReferencedSOPInstanceUID], place, atol=1e-4)
    found, _ = read_parametric_map(tmp_path / "tmax.dcm")
    assert np.array_equal(found.array, volume.array) and np.allclose(found.origins_ras, scan.origins_ras, atol=1e-6)


def test_a_series_elsewhere_is_no_source(tmp_path):
    folder = save(series(), tmp_path / "scan")
    with pytest.raises(GeometryError, match="choose the DICOM folder that the result was made from"):
        source_images(folder, flow_map("oblique"))


# -- faults ---------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "cbf.dcm"
    write_parametric_map(flow_map(), path, FLOW)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.dataset.Dataset, "save_as", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_parametric_map(flow_map(), path, FLOW)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["cbf.dcm"]


def test_without_highdicom(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(DependencyError, match="Python package highdicom"):
        write_parametric_map(flow_map(), tmp_path / "cbf.dcm", FLOW)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_parametric_map(tmp_path):
    folder = save(series([0.0, 5.0]), tmp_path / "scan")
    with pytest.raises(InputError, match="is no parametric map"):
        read_parametric_map(next(iter(folder.iterdir())))
    (tmp_path / "a.dcm").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as DICOM"):
        read_headers(tmp_path / "a.dcm")


# -- mappings of other programs -------------------------------------------------------------------------------


def test_mappings_by_slope_and_by_table():
    line, table = Dataset(), Dataset()
    line.RealWorldValueSlope, line.RealWorldValueIntercept = 0.1, -2.0
    assert np.allclose(real_world(np.array([0, 100], np.uint16), line, "The map"), [-2, 8])
    table.RealWorldValueFirstValueMapped, table.RealWorldValueLUTData = 10, [0.5, 4.0]
    found = real_world(np.array([9, 10, 11, 12], np.uint16), table, "The map")
    assert np.array_equal(found, np.float32([np.nan, 0.5, 4.0, np.nan]), equal_nan=True)
    for nothing in (None, Dataset()):
        with pytest.raises(InputError, match="The map does not say what its stored values stand for"):
            real_world(np.zeros(2), nothing, "The map")


def test_a_mapping_that_says_little():
    assert quantity_of(None) == Quantity("", "", "", "")
    mapping = Dataset()
    mapping.LUTLabel = "CBV"
    assert quantity_of(mapping).label == "CBV" and quantity_of(mapping).code is None
    assert Code(*FLOW.code).meaning == "Regional Cerebral Blood Flow"
